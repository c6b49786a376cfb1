"""Conditioning by further input channels: the coefficients stand beside what a network reads.

The ablation of Dosovitskiy & Djolonga (ICLR 2020), and the conditioning of Ruchte & Grabocka's
COSMOS (ICDM 2021), whose penalty on the angle between losses and coefficients is left out. Kept:
log-coefficients, constant over the picture, are further input channels of the encoder and of the
decoder, and of nothing deeper. Simplified: they go on beyond the picture's border, where the other
channels are padded, so that they amount to a constant per output channel (`Concatenation`). The
draw is YOTO's.
"""

from dataclasses import dataclass

from torch import nn

from bench import Concatenation, Conditioner, Encoding, OneNetwork, Task


@dataclass(frozen=True, kw_only=True)
class InputConcatenation(OneNetwork):
    """encoding: how coefficients are shown; "log" as published."""

    name = "concatenation"
    line = "log-coefficients as further input channels"
    swept = True

    encoding: str = "log"

    def refuses(self, task: Task) -> str:
        if task.entrances(task.model()):
            return ""
        return "it names no entrance to its model at which a constant would be seen"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Concatenation(model, task.entrances(model), Encoding(task.space, self.encoding))

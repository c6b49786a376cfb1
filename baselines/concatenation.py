"""Conditioning by further input channels: the coefficients stand beside what a network reads.

The ablation of Dosovitskiy & Djolonga (ICLR 2020), and the conditioning of COSMOS (Ruchte &
Grabocka, "Scalable Pareto Front Approximation for Deep Multi-Objective Learning", ICDM 2021). Kept:
log-coefficients, constant over the picture, are further input channels of the encoder and of the
decoder, and of nothing deeper. Simplified: they go on beyond the picture's border, where the other
channels are padded, so that they amount to a constant per output channel (`Concatenation`). The
draw is YOTO's.

`cosine` adds COSMOS' penalty, left out by default: the cosine between the vector of the losses and
that of their weights is subtracted from the loss. Kept: both vectors have all terms, the losses
are unweighted. Changed: published losses are of one size and weights sum to one, ours have units,
so a weight is relative to the middle of its range, and a loss is multiplied with that middle (a
term without an axis has weight one in both); the penalty is in units of the loss at those middle
weights; and each example, which has coefficients of its own here, has a cosine of its own, not the
batch. As published it asks for more of the term that is weighted more, against the weighted sum,
to spread the front: theirs is scored by its hypervolume, ours by the weighted sum. A `weighting`
balances the loss alone, not the penalty.

A constant channel acts as a bias that follows the coefficients: behind a model whose answer is to
grow with them and that is linear (`quadratic`) it can do nothing, and weight decay spares it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import ADDED, Concatenation, Conditioner, Encoding, Levers, Task


@dataclass(frozen=True, kw_only=True)
class InputConcatenation(Levers):
    """encoding: how coefficients are shown; "log" as published. cosine: COSMOS' λ, the weight of
    its penalty (they take 0.01 to 8); 0 leaves it out. ValueError below 0."""

    name = "concatenation"
    line = "log-coefficients as further input channels"
    swept = True

    encoding: str = "log"
    cosine: float = field(default=0.0, metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cosine < 0:
            raise ValueError(f"{self.name}: cosine {self.cosine}: use 0 (no penalty) or more")

    def refuses(self, task: Task) -> str:
        if task.entrances(task.model()):
            return ""
        return "it names no entrance to its model at which a constant would be seen"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        inputs = (model, task.entrances(model), Encoding(task.space, self.encoding))
        return Penalised(*inputs, self.cosine) if self.cosine else Concatenation(*inputs)


class Penalised(Concatenation):
    """Input channels, and a loss with the cosine penalty of weight `cosine`."""

    def __init__(
        self, model: nn.Module, sites: list[str], encoding: Encoding, cosine: float
    ) -> None:
        super().__init__(model, sites, encoding)
        self.cosine = cosine

    def penalty(self, terms: Mapping[str, Tensor], coefficients: Tensor) -> Tensor:
        middle = ((self.encoding.low + self.encoding.high) / 2).exp()
        axes = {name: i for i, name in enumerate(self.encoding.space.names)}
        losses = [t.float() * middle[axes[n]] if n in axes else t.float() for n, t in terms.items()]
        relative = coefficients / middle
        one = torch.ones_like(relative[:, 0])
        weights = [relative[:, axes[name]] if name in axes else one for name in terms]
        return cosine_penalty(torch.stack(losses, 1), torch.stack(weights, 1), self.cosine)


def cosine_penalty(losses: Tensor, weights: Tensor, factor: float) -> Tensor:
    """-factor times the mean cosine between an example's losses and their weights, both (B, terms),
    in units of the losses' mean length, which is no target of the gradient."""
    size = losses.detach().norm(dim=1).mean()
    return -factor * size * F.cosine_similarity(losses, weights, dim=1).mean()

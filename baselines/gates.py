"""MR-VAE: one scalar gate per channel that opens and shuts with log β.

Bae et al., "Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve", ICLR 2023. Kept: a
gate sigmoid(w · log β + b) per unit of the encoder, sqrt(relu(1 - exp(w · log β + b))) per unit
of the decoder, log β standardised, no shift; β is drawn log-uniformly. In a linear VAE the latter
is the exact answer to β, and the former for a given decoder (tests/test_baselines.py). Simplified:
gates sit where YOTO's modulations do, after the last convolution of each block, and on the dense
layers, rather than on every layer.
"""

from dataclasses import dataclass

from torch import nn

from bench import Conditioner, Encoding, Gates, Levers, Task


@dataclass(frozen=True, kw_only=True)
class MultiRateGates(Levers):
    name = "gates"
    line = "MR-VAE: one gate per channel, moved by log β (β-VAE)"
    swept = True

    def refuses(self, task: Task) -> str:
        known = task.halves(task.model())
        return "" if known else "its model is no autoencoder: the task names no `halves`"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        halves = task.halves(model)
        closing = [site for site, half in halves.items() if half == "decoder"]
        return Gates(model, list(halves), Encoding(task.space, "standardised"), closing=closing)

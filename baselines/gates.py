"""MR-VAE: one scalar gate per channel that opens and shuts with log β.

Bae et al., "Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve", ICLR 2023. Kept: a
gate sigmoid(w · log β + b) per unit of the encoder, sqrt(relu(1 - exp(w · log β + b))) per unit
of the decoder, log β standardised, no shift; β is drawn log-uniformly. In a linear VAE the latter
is the exact answer to β, and the former for a given decoder (tests/test_baselines.py). Simplified:
gates sit where YOTO's modulations do, after the last convolution of each block, and on the dense
layers, rather than on every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from baselines.unconditioned import Unconditioned
from bench.conditioners import Conditioner, Encoding, Gates
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class MultiRateGates(Unconditioned):
    name: ClassVar[str] = "gates"
    line: ClassVar[str] = "MR-VAE: one gate per channel, moved by log β (β-VAE)"
    swept: ClassVar[bool] = True

    def refuses(self, task: Task) -> str:
        known = hasattr(task.model(), "encode") and hasattr(task.model(), "decode")
        return "" if known else "its model is no autoencoder with an `encode` and a `decode`"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        sites = task.sites(model)
        decoder = [site for site in sites if site.startswith("up.")]
        hidden = {"code.0": False, "uncode.0": True}
        return Gates(
            model,
            [*sites, *hidden],
            Encoding(task.space, "standardised"),
            closing=[*decoder, *(site for site, closing in hidden.items() if closing)],
        )

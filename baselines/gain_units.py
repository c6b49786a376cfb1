"""Gain units: per rate level one gain per latent channel before the quantiser, one inverse after.

Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", CVPR 2021.
Kept: gain and inverse gain per channel on y and on z, one row per level, drawn per example in
training; between two levels the rows' geometric interpolation, at any λ by its place between the
levels' λ. Simplified: gains are stored as logarithms, which keeps them positive; the codec is the
task's own, theirs has another entropy model. Training draws levels alone, as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.unconditioned import Unconditioned
from bench.conditioners import Conditioner, Modulating
from bench.method import Cell
from bench.modulation import BEFORE, Modulation, channels
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class GainUnits(Unconditioned):
    """levels: rows of gains, log-spaced over the range of λ."""

    name: ClassVar[str] = "gain_units"
    line: ClassVar[str] = "a gain per latent channel and rate level, interpolated (compression)"
    swept: ClassVar[bool] = True

    levels: int = 5

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"{self.name}: levels {self.levels}: use 2 or more")

    def refuses(self, task: Task) -> str:
        return refuses_codec(task)

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        return Gains(model, task.space.axes[0].at_each(self.levels))

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return cell.task.space.sample(count, generator, levels=self.levels)


def refuses_codec(task: Task, *needed: str) -> str:
    """Why a method that works on a codec's latents does not apply; "" where it does."""
    model = task.model()
    lacking = [part for part in ("g_a", "g_s", *needed) if not hasattr(model, part)]
    if len(task.space.axes) == 1 and not lacking:
        return ""
    return (
        f"its model is no codec of one λ with the transforms {', '.join(('g_a', 'g_s', *needed))}"
    )


class Gains(Modulating):
    """Gains of the outputs of the analyses, inverse gains of the inputs of the syntheses."""

    levels: Tensor

    def __init__(self, model: nn.Module, levels: list[float]) -> None:
        super().__init__()
        parts = [(a, s) for a, s in (("g_a", "g_s"), ("h_a", "h_s")) if hasattr(model, a)]
        self.sites = []
        for analysis, synthesis in parts:
            last = len(model.get_submodule(analysis)) - 1  # type: ignore[arg-type]
            self.sites += [f"{analysis}.{last}", f"{BEFORE}{synthesis}.0"]
        self._widths = []
        for site in self.sites[::2]:  # an inverse has as many channels as the gain before it
            self._widths += 2 * [channels(model.get_submodule(site))]
        self.register_buffer("levels", torch.tensor(levels).log(), persistent=False)
        self.log_gains = nn.Parameter(torch.zeros(len(levels), sum(self._widths)))

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        with torch.autocast(coefficients.device.type, enabled=False):
            logs = coefficients[:, 0].log().clamp(self.levels[0], self.levels[-1])
            above = torch.searchsorted(self.levels, logs).clamp(1, len(self.levels) - 1)
            low, high = self.levels[above - 1], self.levels[above]
            share = ((logs - low) / (high - low))[:, None]
            mixed = self.log_gains[above - 1] * (1 - share) + self.log_gains[above] * share
            return [(gain, None) for gain in mixed.exp().split(self._widths, 1)]

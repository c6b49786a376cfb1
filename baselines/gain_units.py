"""Gain units: per rate level one gain per latent channel before the quantiser, one inverse after.

Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", CVPR 2021.
Kept: gain and inverse gain per channel on y and on z, one row per level, drawn per example in
training; between two levels the rows' geometric interpolation, at any λ by its place between the
levels' λ. Simplified: gains are stored as logarithms, which keeps them positive; the codec is the
task's own, theirs has another entropy model. Training draws levels alone, as published. Ours: with
`prior` gains start from what the task knows of scales, and stand where it knows of them, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from bench import BEFORE, Conditioner, Levers, Modulating, Modulation, Task, channels


@dataclass(frozen=True, kw_only=True)
class GainUnits(Levers):
    """levels: rows of gains, log-spaced over the range of λ; training draws these.
    prior: gains start from what the task knows of them (`Task.scaling`), not at one.
    Other levers of training: see `Levers`.
    """

    name = "gain_units"
    line = "a gain per latent channel and rate level, interpolated (compression)"
    swept = True
    starts_scaled = True

    levels: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < 2:
            raise ValueError(f"{self.name}: levels {self.levels}: use 2 or more")

    def refuses(self, task: Task) -> str:
        model = task.model()
        if len(task.space.axes) == 1 and hasattr(model, "g_a") and hasattr(model, "g_s"):
            return ""
        return "its model is no codec of one λ with the transforms g_a, g_s"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        law = task.scaling(model) if self.prior else {}
        return Gains(model, task.space.axes[0].at_each(self.levels), law)


class Gains(Modulating):
    """Gains of the outputs of the analyses, inverse gains of the inputs of the syntheses, and of
    the sites of `law`: by site the power of λ, relative to the middle of the levels, that its gains
    start from; else from one."""

    levels: Tensor

    def __init__(
        self,
        model: nn.Module,
        levels: Sequence[float],
        law: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        parts = [(a, s) for a, s in (("g_a", "g_s"), ("h_a", "h_s")) if hasattr(model, a)]
        self.sites = []
        for analysis, synthesis in parts:
            last = len(model.get_submodule(analysis)) - 1  # type: ignore[arg-type]
            self.sites += [f"{analysis}.{last}", f"{BEFORE}{synthesis}.0"]
        self._widths = []
        for site in self.sites[::2]:  # an inverse has as many channels as the gain before it
            self._widths += 2 * [channels(model.get_submodule(site))]
        further = [site for site in law if site not in self.sites]
        self.sites += further
        self._widths += [width(model, site) for site in further]
        self.register_buffer("levels", torch.tensor(levels).log(), persistent=False)
        powers = [law[site][0] if site in law else 0.0 for site in self.sites]
        self.log_gains = nn.Parameter(started(self.levels, powers, self._widths))

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        mixed = between(self.log_gains, self.levels, coefficients)
        return [(gain, None) for gain in mixed.exp().split(self._widths, 1)]


def width(model: nn.Module, site: str) -> int:
    """How many channels a site scales: those that come out of a layer, or go into it."""
    layer: Any = model.get_submodule(site.removeprefix(BEFORE))
    return layer.in_channels if site.startswith(BEFORE) else channels(layer)


def started(levels: Tensor, powers: Sequence[float], widths: Sequence[int]) -> Tensor:
    """Logarithms of scales, (levels, sum of widths), for levels (logarithms) and the power of λ of
    each of the groups that are `widths` wide: none at the middle of the levels."""
    by_channel = torch.tensor(powers).repeat_interleave(torch.tensor(widths))
    return (levels - (levels[0] + levels[-1]) / 2)[:, None] * by_channel


def between(rows: Tensor, levels: Tensor, coefficients: Tensor) -> Tensor:
    """For coefficients, (B, 1), the rows, (levels, C), at their levels (logarithms), linear in the
    logarithm between two, and the outermost row beyond: (B, C)."""
    logs = coefficients[:, 0].log().clamp(levels[0], levels[-1])
    above = (levels < logs[:, None]).sum(1).clamp(1, len(levels) - 1)
    low, high = levels[above - 1], levels[above]
    share = ((logs - low) / (high - low))[:, None]
    return rows[above - 1] * (1 - share) + rows[above] * share

"""A bank of gains: scales inside the codec, and a prior for z, per channel and level of λ.

DCVC-UF-Intra, CVPR 2026 (github.com/microsoft/DCVC, `src/models/image_model.py`, `training.md`;
MIT; written anew from what it does). Kept: scales per channel and level in encoder and decoder, on
y before the quantiser and after it; a prior of z per level; levels log-spaced over the range of λ;
one λ per example; all scales start at one. Simplified: the codec is the task's own, so that every
convolution of both transforms but the last of the decoder has scales, where theirs has them after
the encoder's first block and before the decoder's last; the hyper-analysis sees y as scaled, theirs
as not yet; z's density, which theirs learns anew for each of 64 levels, is one, moved and stretched
per channel and level. Ours: between two levels rows are interpolated, scales geometrically, so that
any λ has an answer, and training draws any λ; `levels` equal to `rows` draws those of the bank
alone, as published.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.gain_units import between, started, width
from bench import BEFORE, Conditioner, Levers, Modulating, Modulation, Task, matching


@dataclass(frozen=True, kw_only=True)
class GainBank(Levers):
    """rows: levels of the bank, log-spaced over the range of λ (64 as published, for trainings a
        thousand times as long).
    prior: scales start from what the task knows of them (`Task.scaling`), not at one.
    levels and other levers of training: see `Levers`.
    """

    name = "gain_bank"
    line = "scales per channel and rate level inside the codec, and its prior (compression)"
    swept = True
    starts_scaled = True

    rows: int = 8
    prior: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows < 2:
            raise ValueError(f"{self.name}: rows {self.rows}: use 2 or more")

    def refuses(self, task: Task) -> str:
        model = task.model()
        parts = ("g_a", "g_s", "entropy_bottleneck")
        if len(task.space.axes) == 1 and all(hasattr(model, part) for part in parts):
            return ""
        return f"its model is no codec of one λ with {', '.join(parts)}"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        sites = [*matching(task.sites(model), "g_a.* g_s.*"), f"{BEFORE}g_s.0"]
        law = task.scaling(model) if self.prior else {}
        return Bank(model, sites, task.space.axes[0].at_each(self.rows), law)


class Bank(Modulating):
    """Rows of scales of the sites' channels, and of the stretch and the move of z's density.

    The density's cumulative takes stretch · z + move for z, both per channel. `law`: by site the
    power of λ, relative to the middle of the levels, that its scales start from; else from one.
    """

    levels: Tensor

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[str],
        levels: Sequence[float],
        law: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.sites = list(dict.fromkeys([*sites, *law]))
        density: Any = model.entropy_bottleneck
        self._widths = [width(model, site) for site in self.sites] + 2 * [density.channels]
        self.register_buffer("levels", torch.tensor(levels).log(), persistent=False)
        powers = [law[site][0] if site in law else 0.0 for site in self.sites] + [0.0, 0.0]
        self.rows = nn.Parameter(started(self.levels, powers, self._widths))

    def mixed(self, coefficients: Tensor) -> tuple[Tensor, ...]:
        """Logarithms of the sites' scales and of the stretch, and the move, each (B, C): rows at
        their levels, linear in log λ between two, and the outermost row beyond."""
        return between(self.rows, self.levels, coefficients).split(self._widths, 1)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        *scales, stretch, move = self.mixed(coefficients)
        (density,) = self._density
        density.moved = stretch.exp(), move
        return [(scale.exp(), None) for scale in scales]

    def attach(self, model: Any) -> None:
        super().attach(model)
        density: Any = model.entropy_bottleneck
        plain: Any = type(density)
        density.__class__ = movable(plain)
        self._density = [density]  # a list: its weights stay the model's

    def release(self) -> None:
        super().release()
        self._density[0].moved = None

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        super().bake(model, coefficients)
        self._density[0].fold()


@functools.cache
def movable(plain: Any) -> type:
    """A subclass of CompressAI's `EntropyBottleneck` (or of the task's) whose density is moved and
    stretched per example while `moved` holds stretch and move, each (B, C) or (1, C)."""

    class Movable(plain):  # type: ignore[misc]
        moved: tuple[Tensor, Tensor] | None = None
        _at: tuple[Tensor, Tensor] | None = None  # the same for each of a call's values

        def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
            if self.moved is not None:  # values lie as (C, 1, B · places)
                places = x[0, 0].numel()
                stretch, move = (
                    part.expand(len(x), -1).T[:, None].repeat_interleave(places, 2)
                    for part in self.moved
                )
                self._at = stretch, move
            both: tuple[Tensor, Tensor] = super().forward(x, training)
            self._at = None
            return both

        def _get_medians(self) -> Tensor:
            medians: Tensor = super()._get_medians()
            return medians if self._at is None else (medians - self._at[1]) / self._at[0]

        def _logits_cumulative(self, inputs: Tensor, stop_gradient: bool) -> Tensor:
            if self._at is not None:
                inputs = inputs * self._at[0] + self._at[1]
            logits: Tensor = super()._logits_cumulative(inputs, stop_gradient)
            return logits

        def fold(self) -> None:
            """Become the plain density of the one setting in `moved`: its first layer is linear
            in z, and a quantile q of the common density is one of this at (q - move) / stretch."""
            assert self.moved is not None
            stretch, move = (part[0, :, None, None] for part in self.moved)
            slope = F.softplus(self.matrices[0])
            self.biases[0].data = self.biases[0] + slope * move
            # The inverse of softplus, exact for large and for small slopes.
            self.matrices[0].data = slope * stretch + torch.log(-torch.expm1(-slope * stretch))
            self.quantiles.data = (self.quantiles - move) / stretch
            self.moved, self.__class__ = None, plain

    return Movable

"""Loss coefficients: the axes they live on, how they are drawn, laid out and encoded.

A *setting* is one value per axis. A task names its axes after the loss terms they multiply;
a loss term without an axis has weight one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Setting = tuple[float, ...]
LAWS = ("log_uniform", "uniform", "cube_root", "ends")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One coefficient: it multiplies the loss term `name` and is log-uniform over [low, high].

    `symbol` is how tables and figures write it; it is no part of the experiment.
    """

    name: str
    low: float
    high: float
    symbol: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(
                f"axis {self.name!r} needs 0 < low < high, got low={self.low}, high={self.high}; "
                "a coefficient that never moves is a loss term without an axis"
            )

    def at(self, place: float) -> float:
        """The value at `place` in [0, 1] of the logarithmic axis, to three significant digits, so
        that the setting a table prints is the setting a network was trained for."""
        if place in (0, 1):
            return self.high if place else self.low
        value = float(f"{self.low * (self.high / self.low) ** place:.3g}")
        return min(max(value, self.low), self.high)

    def place(self, value: float) -> float:
        """Where a value lies on the logarithmic axis, in [0, 1]; the ends stand for what is
        outside."""
        place = math.log(value / self.low) / math.log(self.high / self.low)
        return min(max(place, 0.0), 1.0)

    def ranged(self, factor: float) -> tuple[float, float]:
        """The ends of a range about the same geometric middle whose high end is `factor` times its
        low end, to three significant digits; for `Task.ranged`. ValueError for 1 and less."""
        if not 1 < factor < math.inf:
            raise ValueError(f"axis {self.name!r}: a range's high end is more than its low one")
        middle, half = math.sqrt(self.low * self.high), math.sqrt(factor)
        return float(f"{middle / half:.3g}"), float(f"{middle * half:.3g}")

    def at_each(self, points: int) -> list[float]:
        """`points` log-spaced values, both ends included; one point is the geometric middle."""
        return [self.at(i / (points - 1)) for i in range(points)] if points > 1 else [self.at(0.5)]


@dataclass(frozen=True)
class Space:
    """The axes of a task, in the order in which settings give their values."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not self.axes or len(set(self.names)) < len(self.axes):
            raise ValueError(f"a space needs axes of different names, got {self.names}")

    @property
    def names(self) -> list[str]:
        return [axis.name for axis in self.axes]

    def sample(
        self,
        count: int,
        generator: torch.Generator,
        law: str = "log_uniform",
        levels: int = 0,
        stratified: bool = False,
    ) -> torch.Tensor:
        """Draw `count` settings, independent per axis: (count, K) float32.

        law: "log_uniform", "uniform" or "cube_root", uniform in the cube root of the coefficient.
            "ends" draws the range's ends more often than its middle: the place on the logarithmic
            axis follows the arcsine law, Beta(1/2, 1/2): two thirds lie in its outer quarters.
        levels: draw only the values of `grid(levels)`, all equally often, but for "ends"; 0 draws
            anywhere in the range.
        stratified: each of `count` equal parts of the law gets one draw, in random order per axis.
        Drawn on the CPU, so that the same seed gives the same coefficients on every device.
        """
        import torch

        unit = torch.rand(count, len(self.axes), generator=generator)
        if stratified:
            order = torch.rand(count, len(self.axes), generator=generator).argsort(0)
            unit = (order + unit) / count
        if law == "ends":
            unit = (math.pi / 2 * unit).sin() ** 2
        if levels:
            rows = torch.tensor([axis.at_each(levels) for axis in self.axes])
            return rows.gather(1, (unit.T * levels).long().clamp(max=levels - 1)).T.contiguous()
        low, high = self.log_bounds()
        if law in ("log_uniform", "ends"):
            return torch.exp(low + (high - low) * unit)
        power = {"uniform": 1.0, "cube_root": 3.0}[law]
        low, high = (low / power).exp(), (high / power).exp()
        return (low + (high - low) * unit) ** power

    def grid(self, points: int) -> tuple[Setting, ...]:
        """`points` log-spaced values per axis, and all their combinations; see `Axis.at_each`."""
        if points < 1:
            raise ValueError(f"a grid needs one point or more, got {points}")
        return tuple(itertools.product(*(axis.at_each(points) for axis in self.axes)))

    def one_at_a_time(self) -> tuple[Setting, ...]:
        """The geometric middle, then each axis at its low and at its high end: 1 + 2 K settings."""
        (centre,) = self.grid(1)
        return (centre, *_moved(centre, [(axis.low, axis.high) for axis in self.axes]))

    def random(self, count: int, seed: int) -> tuple[Setting, ...]:
        """`count` settings drawn like those of training, from a seed, rounded like the grid's."""
        import torch

        places = torch.rand(count, len(self.axes), generator=torch.Generator().manual_seed(seed))
        return tuple(
            tuple(axis.at(place) for axis, place in zip(self.axes, row, strict=True))
            for row in places.tolist()
        )

    def sweep(self, settings: Sequence[Setting]) -> tuple[Setting, ...]:
        """Settings to see how a conditioned model moves: per coefficient that varies among
        `settings`, the places halfway between its values there and one such step beyond either
        end of the range, with the other coefficients at their middle value. None of `settings`.
        """
        columns = [sorted(set(column)) for column in zip(*settings, strict=True)]
        centre = tuple(column[len(column) // 2] for column in columns)
        steps: list[list[float]] = []
        for column in columns:
            halfway = [math.sqrt(a * b) for a, b in itertools.pairwise(column)]
            if halfway:
                before = column[0] * math.sqrt(column[0] / column[1])
                beyond = column[-1] * math.sqrt(column[-1] / column[-2])
                halfway = [before, *halfway, beyond]
            steps.append([float(f"{value:.3g}") for value in halfway])
        return tuple(s for s in dict.fromkeys(_moved(centre, steps)) if s not in settings)

    def encode(self, coefficients: torch.Tensor) -> torch.Tensor:
        """(B, K) coefficients to [-1, 1] by their place on the logarithmic axis."""
        low, high = (bound.to(coefficients) for bound in self.log_bounds())
        return places(coefficients, low, (high - low) / 2)

    def shares(self, coefficients: torch.Tensor) -> torch.Tensor:
        """(B, K) coefficients to (B, K + 1): how much of the loss is the terms without an axis
        (first) and each axis' term, if all weighed the same at the middle of the range; they sum
        to one.

        >>> import torch
        >>> Space((Axis(name="rate", low=1.0, high=9.0),)).shares(torch.tensor([[3.0], [9.0]]))
        tensor([[0.5000, 0.5000],
                [0.2500, 0.7500]])
        """
        low, high = (bound.to(coefficients) for bound in self.log_bounds())
        return shares(coefficients, (low + high) / 2)

    def outside(self, setting: Setting) -> list[str]:
        """One sentence per coefficient that lies outside its range; empty inside."""
        if len(setting) != len(self.axes):
            return [f"{len(setting)} values were given for the axes {', '.join(self.names)}"]
        return [
            f"{axis.symbol or axis.name} = {value:g} is outside [{axis.low:g}, {axis.high:g}]"
            for axis, value in zip(self.axes, setting, strict=True)
            if not axis.low <= value <= axis.high
        ]

    def words(self, setting: Setting) -> str:
        """How a person reads a setting: `λ = 0.018`; of three coefficients and more those that are
        not in the middle of their range, or "centre".

        >>> Space((Axis(name="rate", low=1.0, high=9.0, symbol="λ"),)).words((3.0,))
        'λ = 3'
        """
        middle = self.grid(1)[0] if len(self.axes) > 2 else (math.nan,) * len(self.axes)
        moved = [
            f"{axis.symbol or axis.name} = {value:g}"
            for axis, value, usual in zip(self.axes, setting, middle, strict=True)
            if value != usual
        ]
        return ", ".join(moved) or "centre"

    def distance(self, one: Setting, other: Setting) -> float:
        """How far two settings lie apart, in units of the (logarithmic) axes' lengths."""
        pairs = zip(self.axes, one, other, strict=True)
        parts = [math.log(a / b) / math.log(axis.high / axis.low) for axis, a, b in pairs]
        return math.sqrt(sum(part**2 for part in parts))

    def log_bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logarithms of the axes' lower and upper ends, each (K,)."""
        import torch

        low, high = torch.tensor([[a.low for a in self.axes], [a.high for a in self.axes]]).log()
        return low, high


def places(coefficients: torch.Tensor, low: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """`Space.encode`, given the logarithms of the low ends and half their distance to the high."""
    return (coefficients.log() - low) / radius - 1


def shares(coefficients: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """`Space.shares`, given the logarithms of the middles."""
    import torch

    return torch.nn.functional.pad(coefficients.log() - middle, (1, 0)).softmax(1)


def _moved(centre: Setting, values: Sequence[Iterable[float]]) -> list[Setting]:
    """The settings in which one coefficient takes its `values` and the others stay."""
    return [
        (*centre[:i], value, *centre[i + 1 :])
        for i, column in enumerate(values)
        for value in column
    ]


def format_setting(names: list[str], setting: Setting) -> str:
    """How records and file names write a setting.

    >>> format_setting(["distortion", "rate"], (0.018, 1.0))
    'distortion=0.018;rate=1'
    """
    return ";".join(f"{name}={value:g}" for name, value in zip(names, setting, strict=True))


def parse_setting(text: str) -> dict[str, float]:
    """The inverse of `format_setting`, by name. ValueError where it is none."""
    try:
        return {name: float(value) for name, value in (p.split("=") for p in text.split(";"))}
    except ValueError:
        raise ValueError(f"{text!r} is no setting: write name=value;name=value") from None

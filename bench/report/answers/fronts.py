"""Fronts, whatever the coefficients, and how values follow them: plain functions of arrays.

    bd_rate(grid_bpp, grid_psnr, bpp, psnr)     the distance of two curves, in per cent of rate
    hypervolume_ratio(points, grid, corner)     what both dominate; igd_plus: what falls short
    coverage(values, grid)                      the knob: range, order, distance

A number that cannot be given is NaN; a `BD` says why.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NOTHING = (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class BD:
    """A Bjøntegaard delta: the mean distance of two curves over the range they share.

    value: per cent of rate (`bd_rate`) or units of quality (`bd_psnr`); NaN with a `reason`.
    thirds: the same over equal parts of the common range, not groups of points.
    overlap: the common range over the range of both curves together, 0 to 1.
    seen, of: the common range, and that of the reference, of what is integrated over: quality in
        `bd_rate`, the rate's decimal logarithm in `bd_psnr`.
    """

    value: float = math.nan
    thirds: tuple[float, ...] = (math.nan, math.nan, math.nan)
    overlap: float = math.nan
    reason: str = ""
    seen: tuple[float, float] = NOTHING
    of: tuple[float, float] = NOTHING

    def columns(self) -> dict[str, Any]:
        """How a frame has it."""
        names = ["rate", "overlap", "reason", "low", "mid", "high"]
        names += ["seen_low", "seen_high", "of_low", "of_high"]
        values = (self.value, self.overlap, self.reason, *self.thirds, *self.seen, *self.of)
        return {f"bd_{name}": value for name, value in zip(names, values, strict=True)}


def bd_rate(
    rate_reference: ArrayLike, quality_reference: ArrayLike, rate: ArrayLike, quality: ArrayLike
) -> BD:
    """How much more rate the curve needs for the same quality, in per cent; negative is better.

    Each argument (points,), in any order. Quality is higher-is-better: negate what is not, and
    give MS-SSIM in dB if its upper end is to count. Logarithmic rates, Akima interpolation
    (`bjontegaard`), which does not overshoot as the customary cubic does. Dominated points are
    left out first: who may choose coefficients freely would not choose those. Refused where the
    curves share no range, or one has fewer than two points in it, since a mean taken between two
    points of a curve is guessed rather than measured. ValueError only where rates and qualities
    differ in number.
    """
    return _bd("quality", rate_reference, quality_reference, rate, quality)


def bd_psnr(
    rate_reference: ArrayLike, quality_reference: ArrayLike, rate: ArrayLike, quality: ArrayLike
) -> BD:
    """How much more quality the curve has at the same rate, in units of quality; positive is
    better. Everything else as in `bd_rate`, over the common range of logarithmic rates."""
    return _bd("rate", rate_reference, quality_reference, rate, quality)


def _bd(along: Literal["rate", "quality"], *columns: ArrayLike) -> BD:
    """`columns`: rate and quality of the reference, then of the curve; integrated over `along`."""
    import bjontegaard

    arrays = [np.asarray(column, float).ravel() for column in columns]
    curves = {"the reference": _front(*arrays[:2]), "the curve": _front(*arrays[2:])}
    for name, curve in curves.items():
        if curve.shape[1] < 2:
            return BD(reason=f"{name} has fewer than two points that no other dominates")
    bases = [np.log10(curve[0]) if along == "rate" else curve[1] for curve in curves.values()]
    low, high = max(base[0] for base in bases), min(base[-1] for base in bases)
    union = max(base[-1] for base in bases) - min(base[0] for base in bases)
    overlap = max(high - low, 0.0) / union
    if overlap == 0:
        return BD(reason=f"the curves share no range of {along}", overlap=overlap)
    for name, base in zip(curves, bases, strict=True):
        inside = int(((low <= base) & (base <= high)).sum())
        if inside < 2:
            points = "1 point" if inside else "no points"
            why = f"{name} has {points} in the common range of {along}, and two are needed"
            return BD(reason=why, overlap=overlap)

    compare = bjontegaard.bd_psnr if along == "rate" else bjontegaard.bd_rate
    value, *interpolators = compare(
        *itertools.chain(*curves.values()),
        method="akima",
        require_matching_points=False,
        interpolators=True,
        min_overlap=0,  # the overlap is stated instead of warned of
    )
    ends = np.linspace(low, high, 4)
    before, after = (
        np.array([float(f.integrate(a, b)) for a, b in itertools.pairwise(ends)])
        for f in interpolators
    )
    thirds = (after - before) / np.diff(ends)
    if along == "quality":
        thirds = (10**thirds - 1) * 100
    return BD(
        value=float(value),
        thirds=tuple(thirds.tolist()),
        overlap=overlap,
        seen=(float(low), float(high)),
        of=(float(bases[0][0]), float(bases[0][-1])),
    )


def _front(rate: Array, quality: Array) -> Array:
    """(2, points): rate and quality, both strictly rising."""
    if rate.shape != quality.shape:
        raise ValueError(f"a curve needs one quality per rate, got {len(quality)} and {len(rate)}")
    points = np.stack([rate, quality])[:, (rate > 0) & np.isfinite(rate) & np.isfinite(quality)]
    points = points[:, np.lexsort((-points[1], points[0]))]
    before = np.maximum.accumulate(np.concatenate([[-math.inf], points[1]]))[:-1]
    return points[:, points[1] > before]


def hypervolume_ratio(
    points: ArrayLike, reference_points: ArrayLike, reference_point: ArrayLike
) -> float:
    """The hypervolume of `points` over that of `reference_points`; 1 or more is as good or better.

    points, reference_points: (n, objectives), lower is better in every column. reference_point:
    (objectives,), a corner worse than anything that should count, fixed beforehand. Independent of
    the objectives' units. NaN without points, or where the reference dominates nothing.
    """
    import moocore

    both, corner = (_rows(points), _rows(reference_points)), np.asarray(reference_point, float)
    if not all(map(len, both)):
        return math.nan
    volume, base = (moocore.hypervolume(rows, ref=corner) for rows in both)
    return float(volume / base) if base > 0 else math.nan


def igd_plus(points: ArrayLike, reference_points: ArrayLike) -> float:
    """IGD+ of `points` (Ishibuchi et al. 2015): the mean distance by which they fall short of the
    reference front; 0 reaches or dominates all of it.

    Both (n, objectives), lower is better. Distances are in units of the reference front's own
    extent in each objective, since bits and decibels cannot be added. NaN without points, or where
    the front has no extent.
    """
    import moocore

    rows, grid = _rows(points), _rows(reference_points)
    if not len(rows) or not len(grid):
        return math.nan
    front = moocore.filter_dominated(grid)
    extent = np.ptp(front, axis=0)
    if not (extent > 0).all():
        return math.nan
    return float(moocore.igd_plus(rows / extent, ref=front / extent))


def _rows(points: ArrayLike) -> Array:
    """The rows that are finite throughout, as (n, objectives)."""
    rows = np.atleast_2d(np.asarray(points, float))
    return rows[np.isfinite(rows).all(1)]


# The knob: values of one measure at the settings, (settings,), NaN where there are none. Linear in
# what they are given: pass logarithms of rates.


def coverage(values: ArrayLike, grid_values: ArrayLike) -> float:
    """The share of the grid's range that the method's range covers, 0 to 1.

    What the method reaches beyond the grid does not count, so that a shifted range is not a full
    one. NaN without values, or where the grid does not move.
    """
    reached, grid = (each[np.isfinite(each)] for each in map(np.asarray, (values, grid_values)))
    if not len(reached) or not len(grid) or np.ptp(grid) == 0:
        return math.nan
    common = min(reached.max(), grid.max()) - max(reached.min(), grid.min())
    return float(max(common, 0.0) / np.ptp(grid))


def monotonicity(coefficients: ArrayLike, values: ArrayLike) -> float:
    """Spearman's rank correlation of coefficient and measure, -1 to 1; NaN for fewer than two
    settings, and where either is constant."""
    both = pd.DataFrame({"coefficient": coefficients, "value": values}, dtype=float)
    return float(both.corr("spearman").iat[0, 1])


def calibration(values: ArrayLike, grid_values: ArrayLike) -> float:
    """The mean distance to the grid at matched settings over the grid's range; 0 is right. NaN
    where the grid does not move. ValueError for different lengths."""
    both = np.stack([np.asarray(values, float), np.asarray(grid_values, float)])
    reached, grid = both[:, np.isfinite(both).all(0)]
    if not len(grid) or np.ptp(grid) == 0:
        return math.nan
    return float(np.abs(reached - grid).mean() / np.ptp(grid))


def diagonal_wins(matrix: ArrayLike) -> NDArray[np.bool_]:
    """Whether the model told setting j is the best one for setting j, per column: (n,).

    It must beat every other row: a model that ignores its coefficients ties, and wins nothing. A
    column with a NaN is lost.
    """
    square = np.asarray(matrix, float)
    others = np.where(np.eye(len(square), dtype=bool), np.inf, square)
    return np.diag(square) < others.min(0)

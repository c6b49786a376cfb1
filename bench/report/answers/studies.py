"""Studies: the same comparison at several widths, ranges and numbers of coefficients and lengths of
the training, and what becomes of the loss from one to the next.

    study(run)              one row per method at every point of the study
    slopes(run)             what one doubling of a factor changes

A study is answered once, in the report of its `home`: the plain run, where that was measured. A
point is a whole run with a reference of its own; the networks trained for a share of the steps are
read as if they were one (`at_share`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.report.answers import stats
from bench.report.answers.compare import mean_gap, overall, paired
from bench.report.answers.costs import kept_ratios, step_ratios, step_times
from bench.report.answers.reference import LOSS, Yardstick
from bench.report.load import Run
from bench.report.once import once

Array = stats.Array

FACTORS = ("width", "range", "coefficients", "share")
MOVING = ("range", "coefficients")  # factors with which the settings move
STUDY = [
    *("method", *FACTORS, "status", "share_mean", "share_low", "share_high", "verdict", "stands"),
    *("share_tuned", "share_tuned_low", "share_tuned_high", "verdict_tuned", "stands_tuned"),
    *("seeds_needed", "gap", "gap_low", "gap_high", "base", "base_low", "base_high", "percent"),
    *("parameters", "kept_ratio", "flops_ratio", "step_ratio", "time_ratio", "seeds"),
]
LOSSES = ("lost", "gap", "base")  # what a slope is of
SLOPES = ["method", "factor", *FACTORS, "points", "of", "slope", "low", "high", "doubt", "seeds"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """width: the factor of the plain model's. range: the high end of the first coefficient's range
    over the low one. coefficients: how many. share: of the plain training's steps."""

    width: float
    range: float
    coefficients: int
    share: float
    run: Run

    @property
    def place(self) -> tuple[float, float, int, float]:
        return self.width, self.range, self.coefficients, self.share


def home(run: Run) -> Run:
    """The run of a family whose report has the study: the plain one, else that of the width
    nearest to it, its own number of coefficients, the widest range and the fewest coefficients."""

    def away(each: Run) -> tuple[float, bool, bool, float, int, str]:
        width, spread, count = 1.0, None, None
        if each.study:
            width, spread, count = each.study.width, each.study.range, each.study.coefficients
        others = count is not None, spread is not None
        return abs(math.log(width)), *others, -(spread or 0.0), count or 0, each.folder

    return min(run.family or [run], key=away)


@once
def points(run: Run) -> list[Point]:
    """Every point of a study in its home run, by factors; [] elsewhere, and where there is but
    one. Of two that have the same factors, the first counts."""
    if home(run) is not run:
        return []
    found: dict[tuple[float, float, int, float], Point] = {}
    for each in sorted(run.family or [run], key=lambda one: one is not run):
        if each.reference is None or not each.axes:
            continue
        axis, width = each.axes[0], each.study.width if each.study else 1.0
        spread = float(f"{axis.high / axis.low:.2g}")  # the ends are rounded
        count = len(each.axes) + len(each.constant)
        if each.study:
            spread, count = each.study.range or spread, each.study.coefficients or count
        shares = sorted({1.0, *each.lengths["share"]})
        for share in shares:
            part = each if share == 1 else at_share(each, share)
            if part.reference is not None:
                point = Point(
                    width=width, range=spread, coefficients=count, share=share, run=part
                )  # fmt: skip
                found.setdefault(point.place, point)
    several = [found[place] for place in sorted(found)]
    return several if len(several) > 1 else []


def at_share(run: Run, share: float) -> Run:
    """The networks trained for a share of the steps, as a run of their own."""
    measured = run.lengths[run.lengths["share"] == share].reset_index(drop=True)
    rows = run.length_records[run.length_records["entry"].isin(measured["entry"])]
    nothing = {name: getattr(run, name).iloc[:0] for name in ("swept", "swept_records", "lengths")}
    nothing |= {name: getattr(run, name).iloc[:0] for name in ("length_records", "infinite")}
    rows = rows.reset_index(drop=True)
    return dataclasses.replace(run, records=rows, measured=measured, family=[], **nothing)


@once
def study(run: Run) -> pd.DataFrame:
    """One row per method and point, in the order of display; empty where there is one point.

    share_*, verdict*, stands, seeds_needed, flops_ratio: as in `compare.overall`, against the grid
        of the same point. gap, gap_low, gap_high: the mean loss gap to that grid.
    base, base_low, base_high: to the grid of the home run in its full length, at matching
        settings, seeds and examples, where it does not fail; 0 of that grid itself, NaN with other
        settings.
    parameters: of one network with its conditioner. kept_ratio: those that are kept to answer for
        every setting, over those of one network of the grid of the same point; NaN where they grow
        with the settings. step_ratio, time_ratio: the FLOPs of a training step, and its processor
        seconds, over those of the grid's of the same point.
    """
    every = points(run)
    base = next((point for point in every if point.run is run), None)
    rows = [row for point in every for row in _rows(point, base)]
    frame = pd.DataFrame(rows, columns=STUDY)
    order = {method: place for place, method in enumerate(_methods(every))}
    return frame.sort_values("method", key=lambda names: names.map(order), kind="stable")


def _methods(every: Iterable[Point]) -> list[str]:
    return list(dict.fromkeys(method for point in every for method in point.run.methods))


def _rows(point: Point, base: Point | None) -> Iterable[dict[str, Any]]:
    run, answers = point.run, overall(point.run).set_index("method")
    steps, seconds, kept_ratio = step_ratios(run), step_times(run), kept_ratios(run)
    for method, row in answers.iterrows():
        kept = run.measured.loc[run.measured["method"] == method, "cells"]
        cells = run.cells[run.cells["cell"].isin({cell for used in kept for cell in used})]
        size = cells["parameters"].astype(float) + cells["conditioner_parameters"].fillna(0)
        measured = row["status"] != "failed"
        gap = {"gap": row["loss_gap_mean"], "gap_low": row["loss_gap_low"]}
        yield {
            "method": method,
            **dict(zip(FACTORS, point.place, strict=True)),
            **{name: row[name] for name in STUDY if name in row.index},
            **gap | {"gap_high": row["loss_gap_high"]},
            **(_base_gap(point, base, str(method)) if base and measured else {}),
            "parameters": size.mean(),
            "kept_ratio": kept_ratio.get(str(method), math.nan),
            "step_ratio": steps.get(str(method), math.nan),
            "time_ratio": seconds.get(str(method), math.nan),
            "seeds": run.measured.loc[run.measured["method"] == method, "seed"].nunique(),
        }


def _base_gap(point: Point, base: Point, method: str) -> dict[str, float]:
    """A method's mean loss gap to the grid of another point, in the gaps' unit."""
    yard = Yardstick.of(base.run)
    if yard is None or set(point.run.settings) != set(base.run.settings):
        return {}
    sound = [setting for setting in base.run.settings if setting not in yard.failing]
    losses, grid = (
        run.records[(run.records["measure"] == LOSS) & run.records["setting"].isin(sound)]
        for run in (point.run, base.run)
    )
    pairs = paired(losses[losses["method"] == method], grid[grid["method"] == base.run.reference])
    if point is base and method == base.run.reference:
        return dict.fromkeys(("base", "base_low", "base_high"), 0.0)
    return mean_gap(pairs, yard.percent).columns("base", "base_")


# Lines ------------------------------------------------------------------------------------------


def lines(run: Run, factor: str) -> list[list[Point]]:
    """The points that differ in this factor alone, two or more of them, in its order; the line
    through the home run's own point first."""
    every, at = points(run), FACTORS.index(factor)
    groups: dict[Any, list[Point]] = {}
    for point in every:
        groups.setdefault(point.place[:at] + point.place[at + 1 :], []).append(point)
    several = [line for line in groups.values() if len(line) > 1]
    return sorted(several, key=lambda line: all(point.run is not run for point in line))


@once
def slopes(run: Run) -> pd.DataFrame:
    """One row per method, line and kind of loss: what it changes per doubling of the factor.

    of: "lost" of the benefit, as a share; "gap" to the grid of the same point, "base" to that of
    the home run, both in the gaps' unit. slope: the least-squares slope on log2 of the factor, mean
    over the seeds that every point has, over the settings that count at every point (where these
    move, at each). low, high: Student's t over these seeds, three or more, the examples
    taken as given.
    """
    rows = []
    for factor in FACTORS:
        for line in lines(run, factor):
            shared = set.intersection(*(set(point.run.methods) for point in line))
            for method, of in itertools.product(_methods(line), LOSSES):
                slope = slope_of(run, line, factor, method, of) if method in shared else None
                if slope is None:
                    continue
                fixed = dict(zip(FACTORS, line[0].place, strict=True)) | {factor: math.nan}
                row = {"method": method, "factor": factor, **fixed, "points": len(line), "of": of}
                row |= slope.columns("slope") | {"doubt": stats.doubt(slope, 0.0)}
                rows.append(row | {"seeds": slope.seeds})
    return pd.DataFrame(rows, columns=SLOPES)


def slope_of(
    run: Run, line: list[Point], factor: str, method: str, of: str
) -> stats.Interval | None:
    """See `slopes`; None where nothing is lost by definition, or no seed or setting is common."""
    if of != "base" and any(method == point.run.reference for point in line):
        return None
    base = next((point for point in line if point.run is run), None)
    if of == "base" and (base is None or factor in MOVING):
        return None
    found = [_ratios(point, base, method, of) for point in line]
    common = [set(counted) for counted, *_ in found]
    if factor not in MOVING:
        common = [set.intersection(*common)] * len(found)
    if not all(common):
        return None
    by_seed = [_by_seed(kept, *each) for kept, each in zip(common, found, strict=True)]
    seeds = sorted(set.intersection(*(set(values) for values in by_seed)))
    if not seeds:
        return None
    across = np.log2([getattr(point, factor) for point in line])
    values = np.array([[values[seed] for seed in seeds] for values in by_seed])
    return student(np.polyfit(across, values, 1)[0])


def student(values: Array) -> stats.Interval:
    """The mean of one value a seed, with its 95 % interval."""
    estimate, spread = float(values.mean()) if len(values) else math.nan, math.nan
    low, high = stats.seeds_interval(estimate, values)
    if math.isfinite(low):
        spread = float(values.var(ddof=1)) / len(values)
    return stats.Interval(
        estimate=estimate, low=low, high=high, method="Student's t over seeds",
        seeds=len(values), examples=1, of_seeds=np.nan_to_num(spread),
    )  # fmt: skip


def gaps_by_seed(point: Point, base: Point, method: str) -> dict[int, float]:
    """A method's mean loss gap to the grid of `base`, seed by seed, in the gaps' unit."""
    found = _ratios(point, base, method, "base")
    return _by_seed(set(found[0]), *found)


Ratios = tuple[list[str], list[int], Array, Array]  # settings, seeds, and by them and examples


def _ratios(point: Point, base: Point | None, method: str, of: str) -> Ratios:
    """Settings that count, seeds, and the numerators and denominators of a kind of loss."""
    own = Yardstick.of(point.run)
    yard = Yardstick.of(base.run) if base and of == "base" else own
    assert own is not None  # every point has a reference
    assert yard is not None
    records = point.run.records[point.run.records["method"] == method]
    losses = yard.placed(records, LOSS)
    counted = [s for s in yard.run.settings if s not in yard.failing]
    if of != "base":
        counted = own.counted(method)
    if of == "lost":
        counted = [setting for setting in counted if setting in own.beneficial]
        above, below = losses - own.hard, own.single - own.hard
    else:
        above, below = losses - yard.trained, np.ones_like(yard.trained)
        if yard.percent:
            sign = np.sign(np.nansum(yard.trained, (1, 2), keepdims=True))
            below = sign * yard.trained / 100
    settings, seeds, _ = yard.axes
    places = [settings.index(setting) for setting in counted]
    return counted, list(seeds), above[places], below[places]


def _by_seed(
    settings: set[str], counted: list[str], seeds: list[int], above: Array, below: Array
) -> dict[int, float]:
    """The mean ratio over settings, seed by seed: each with its first-order contribution to the
    ratio over all seeds, since a single seed's denominator may be near nothing."""
    places = [place for place, setting in enumerate(counted) if setting in settings]
    finite = np.isfinite(above[places]) & np.isfinite(below[places])
    above, below = (np.where(finite, part[places], np.nan) for part in (above, below))
    with np.errstate(invalid="ignore", divide="ignore"):
        base = np.nansum(below, (1, 2), keepdims=True)
        ratio = np.nansum(above, (1, 2), keepdims=True) / base
        counts = finite.sum((1, 2), keepdims=True), finite.sum(2, keepdims=True)
        mean = np.nansum(above - ratio * below, 2, keepdims=True) / counts[1]
        values = (ratio + mean * counts[0] / base).mean(0)[:, 0]
    return {seed: float(v) for seed, v in zip(seeds, values, strict=True) if math.isfinite(v)}

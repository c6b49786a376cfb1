"""What a method reaches and how it follows its coefficients: its front and its knob.

fronts_and_knobs(run)   per method: BD-rate, hypervolume, coverage, calibration, ...
cross(run, method)      told one setting, scored with another
held_out(run, method)   the loss between the compared settings
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from bench.report.answers import fronts
from bench.report.answers.reference import LOSS, in_percent
from bench.report.answers.stats import seeds_interval
from bench.report.load import Run

ROUNDING = 1e-6  # losses are recorded as 32-bit floats
OVER_SEEDS = {"bd": "bd_rate", "hypervolume": "hypervolume_ratio", "calibration": "calibration"}


def reached(run: Run, records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Per method: settings by measures, means of `records` over examples and seeds, NaN where
    there are none."""
    if len(run.infinite):  # what one method has no number for is left out of all
        key = ["seed", "setting", "example", "measure"]
        gone = pd.MultiIndex.from_frame(run.infinite[key])
        records = records[~pd.MultiIndex.from_frame(records[key]).isin(gone)]
    means = records.pivot_table(index=["method", "setting"], columns="measure", values="value")
    return {
        method: means.reindex(pd.MultiIndex.from_product([[method], run.settings])).droplevel(0)
        for method in run.methods
    }


def fronts_and_knobs(run: Run) -> dict[str, dict[str, Any]]:
    """The columns of `compare.overall` on the front and the knob, by method.

    bd_*: of the first front, where it is a rate against a quality; low, mid, high are the thirds
        of the common range, bd_quality is in units of the quality (BD-PSNR where it is PSNR).
        bd_seen_* is the common range of quality, bd_of_* the grid's: the rest it does not see.
    hypervolume_ratio, igd_plus: of the first front, too; see `bench/report/answers/fronts.py`.
    coverage, monotonicity, calibration, diagonal: see `knob`.
    *_ci_*: 95 % intervals over the seeds that the method and the grid have, three or more.
    """
    pooled = _steered(run, reached(run, run.records))
    of_grid = run.records.loc[run.records["method"] == run.reference, "seed"]
    seeds = [
        _steered(run, reached(run, run.records[run.records["seed"] == seed]))
        for seed in sorted(of_grid.unique())
    ]
    for method, columns in pooled.items():
        measured = [seed[method] for seed in seeds if seed[method]["measured"]]
        for name, key in OVER_SEEDS.items():
            values = [] if method == run.reference else [of_seed[key] for of_seed in measured]
            ends = seeds_interval(columns[key], values)
            columns |= {f"{name}_ci_low": ends[0], f"{name}_ci_high": ends[1]}
    return pooled


def _steered(run: Run, points: dict[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    nothing = next(iter(points.values())) * math.nan
    grid = points.get(run.reference or "", nothing)
    return {
        method: {
            "measured": bool(at.notna().any(axis=None)),
            **front_gap(run, at, grid),
            **knob(run, at, grid),
        }
        for method, at in points.items()
    }


def front_gap(run: Run, at: pd.DataFrame, grid: pd.DataFrame) -> dict[str, Any]:
    """The first front of a method against the grid's, whatever the coefficients; both settings by
    measures."""
    bd = fronts.BD(reason="the first front is not a rate against a quality")
    columns = dict.fromkeys(("bd_quality", "hypervolume_ratio", "igd_plus"), math.nan)
    if not run.fronts:
        return fronts.BD(reason="the task names no front").columns() | columns
    names = list(run.fronts[0])
    styles = [run.measures[name] for name in names]
    points, reference = (frame.reindex(columns=names).to_numpy(float) for frame in (at, grid))
    if [style.better for style in styles] == ["lower", "higher"]:
        bd = fronts.bd_rate(*reference.T, *points.T)
        columns["bd_quality"] = fronts.bd_psnr(*reference.T, *points.T).value
    if all(style.better for style in styles):
        sign = np.array([1 if style.better == "lower" else -1 for style in styles])
        points, reference = points * sign, reference * sign
        columns["igd_plus"] = fronts.igd_plus(points, reference)
        worst = [style.worst for style in styles]
        if None not in worst:
            corner = sign * np.array(worst, float)
            columns["hypervolume_ratio"] = fronts.hypervolume_ratio(points, reference, corner)
    return bd.columns() | columns


def knob(run: Run, at: pd.DataFrame, grid: pd.DataFrame) -> dict[str, float]:
    """How a method follows its coefficients, from the terms that they weigh; both settings by
    measures.

    Raising a coefficient cannot raise its term where the loss is minimal, whatever the task. Along
    each line of settings that differ in one coefficient, `monotonicity` is minus Spearman's
    correlation of coefficient and term (1 is right), `coverage` the share of the grid's range of
    the term and `calibration` the mean distance to the grid's over that range (0 is right), both
    of the term's logarithm, where it is positive; all are means over the lines. `diagonal` is the
    share of settings for which being told that very setting gives the lowest loss.
    """
    lines = []
    for axis, line in _lines(run, run.settings):
        coefficients = [run.values(setting)[axis] for setting in line]
        name = [run.axes[axis].name]
        values, reference = (
            part.reindex(index=line, columns=name).to_numpy(float).ravel() for part in (at, grid)
        )
        order = -fronts.monotonicity(coefficients, values)
        if not (np.concatenate([values, reference]) <= 0).any():
            values, reference = np.log(values), np.log(reference)
        covered = fronts.coverage(values, reference)
        lines.append((covered, order, fronts.calibration(values, reference)))
    means = pd.DataFrame(lines, columns=["coverage", "monotonicity", "calibration"], dtype=float)
    matrix = _cross(run, at.dropna(how="all")).to_numpy()
    ahead = matrix + ROUNDING * np.diag(np.abs(np.diag(matrix)))  # equal networks win nothing
    wins = _mean(fronts.diagonal_wins(ahead)) if len(matrix) > 1 else math.nan
    return means.mean().to_dict() | {"diagonal": wins}


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _lines(run: Run, settings: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The axis and the settings, in its order, of all sets that differ in one coefficient only."""
    for axis in range(len(run.axes)):
        lines: dict[tuple[float, ...], list[str]] = {}
        for setting in settings:
            values = run.values(setting)
            lines.setdefault(values[:axis] + values[axis + 1 :], []).append(setting)
        for line in lines.values():
            if len(line) > 1:
                yield axis, sorted(line, key=lambda setting: run.values(setting)[axis])


def overhead(run: Run, method: str) -> float:
    """How much larger a measure is than the measure that estimates it, in per cent: the mean over
    settings, each over the rows that have both. NaN where the task names no estimate."""
    for name, style in run.measures.items():
        if style.estimates in run.measures:
            both = [name, style.estimates]
            rows = run.records[run.records["method"] == method]
            table = rows[rows["measure"].isin(both)].pivot_table(
                index=["setting", "seed", "example"], columns="measure", values="value"
            )
            sums = table.reindex(columns=both).dropna().groupby("setting").sum()
            return _mean(100 * (sums[style.estimates] / sums[name] - 1))
    return math.nan


def crossings(run: Run, method: str) -> float:
    """How often a measure that must rise with the coefficients falls from one setting to the next,
    in per cent: of all examples, seeds and pairs of neighbouring settings that were measured. The
    first such measure of the task; NaN where it names none."""
    for name, style in run.measures.items():
        if style.rises:
            rows = run.records[run.records["method"] == method]
            table = rows[rows["measure"] == name].pivot_table(
                index=["seed", "example"], columns="setting", values="value"
            )
            falls = [
                change < 0
                for _, line in _lines(run, run.settings)
                for change in np.diff(table.reindex(columns=line).to_numpy(float)).ravel()
                if math.isfinite(change)
            ]
            return 100 * _mean(falls)
    return math.nan


def held_out(run: Run, method: str) -> float:
    """The mean excess of the loss at settings between those compared, over what their neighbours
    promise: the weighted term interpolated geometrically (linearly, where it is not positive) and
    the rest of the loss linearly, both in the logarithm of the coefficient. Per cent of the
    promise, or the loss's unit; NaN for a method that was not measured there.
    """
    swept = run.swept[(run.swept["method"] == method) & (run.swept["outside"].map(len) == 0)]
    rows = run.swept_records[run.swept_records["entry"].isin(swept["entry"])]
    compared = run.records[run.records["method"] == method]
    compared = compared[compared["seed"].isin(rows["seed"].unique())]
    at, between = (
        part.pivot_table(index="setting", columns="measure", values="value").reindex(
            columns=[LOSS, *(axis.name for axis in run.axes)]
        )
        for part in (compared, rows)
    )
    excesses = []
    for axis, line in _lines(run, [*at.index, *between.index]):
        name = run.axes[axis].name
        for low, middle, high in _between(line, set(between.index)):
            a, c, b = (run.values(setting)[axis] for setting in (low, middle, high))
            place = math.log(c / a) / math.log(b / a)
            terms = [at.at[low, name], at.at[high, name]]
            rest = [at.at[low, LOSS] - a * terms[0], at.at[high, LOSS] - b * terms[1]]
            if min(terms) > 0:
                term = terms[0] ** (1 - place) * terms[1] ** place
            else:
                term = (1 - place) * terms[0] + place * terms[1]
            promised = c * term + (1 - place) * rest[0] + place * rest[1]
            scale = abs(promised) / 100 if in_percent(run.measures[LOSS]) else 1.0
            excesses.append((between.at[middle, LOSS] - promised) / scale)
    return _mean(excesses)


def _between(line: list[str], held_out: set[str]) -> list[tuple[str, str, str]]:
    """Each held-out setting of a line with the compared ones on either side of it."""
    compared = [place for place, setting in enumerate(line) if setting not in held_out]
    return [
        (line[low], line[middle], line[high])
        for low, high in itertools.pairwise(compared)
        for middle in range(low + 1, high)
    ]


def cross(run: Run, method: str) -> pd.DataFrame:
    """The loss of the model told one setting (row), scored with the coefficients of another
    (column): settings by settings, NaN where the row was not measured. ValueError for a method
    that is not in this run."""
    if method not in run.methods:
        raise ValueError(f"there is no {method!r} in {run.folder}: choose from {run.methods}")
    return _cross(run, reached(run, run.records)[method])


def _cross(run: Run, at: pd.DataFrame) -> pd.DataFrame:
    """Of settings by measures: the settings by themselves."""
    terms = at.reindex(columns=[LOSS, *(axis.name for axis in run.axes)]).to_numpy(float)
    values = np.array([run.values(setting) for setting in at.index]).reshape(terms[:, 1:].shape)
    # What the constant coefficients and the terms without one add is the same in all columns.
    rest = terms[:, 0] - (terms[:, 1:] * values).sum(1)
    weights = np.column_stack([values, np.ones(len(values))])
    matrix = np.column_stack([terms[:, 1:], rest]) @ weights.T
    return pd.DataFrame(matrix, index=at.index, columns=at.index)

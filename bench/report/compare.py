"""What the records of a run say: frames of answers, from a `Run` and the statistics alone.

    comparisons(run)        every method, setting and measure against the fixed grid
    overall(run)            one row per method: loss, front, knob, costs
    quality_compute(run)    the loss gap of networks trained for each share of the steps
    break_evens(run)        from how many settings on a method is cheaper
    cross(run, method)      told one setting, scored with another

The reference is examined in `reference.py`, shares of the benefit are made in `shares.py`, and what
follows from them is said in `verdict.py`.

A gap is method minus fixed grid at the same setting, paired by example and seed. It is in per cent
of the grid's mean where the measure's margin is, or where it has no margin and may be given so;
otherwise in the measure's unit. What cannot be told is NaN.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from bench.report import stats
from bench.report.costs import GRID, break_evens, costs_by_seed, savings
from bench.report.load import MeasureStyle, Run
from bench.report.reference import LOSS, in_percent, margin_of
from bench.report.shares import Standing
from bench.report.verdict import judge
from bench.run.records import WHOLE

LOST = ("diverged", "failed")
WARM = "warm_grid"
ROUNDING = 1e-6  # losses are recorded as 32-bit floats


def verdict_of(style: MeasureStyle, interval: stats.Interval) -> str:
    """The verdict of a gap, "" where the task names no margin or no better direction."""
    if not style.margin or not style.better:
        return ""
    return stats.verdict(interval, margin_of(style), style.better)


# What was measured --------------------------------------------------------------------------------


def entries_of(run: Run) -> list[tuple[str, str, pd.DataFrame]]:
    """Method, setting and their measured rows (one per seed), in the order of display."""
    groups = dict(iter(run.measured.groupby(["method", "setting"])))
    order = [(method, setting) for method in run.methods for setting in run.settings]
    return [(*key, groups[key]) for key in order if key in groups]


def measures_of(run: Run) -> list[str]:
    """The names of the measures, the loss first."""
    return [LOSS, *(name for name in run.measures if name != LOSS)]


def summary(run: Run) -> pd.DataFrame:
    """One row per method and setting: the mean of every measure over pictures and seeds.

    `<measure>_sd` is the standard deviation over seeds of the mean over pictures, and
    `<measure>_infinite`, where a method has such values, how many are in no mean. `status` is
    "done", "diverged" or "failed" (no seed was left, the measures are empty), or "some lost";
    `lost_seeds` counts them.
    """
    key = ["method", "setting", "measure"]
    means = run.records.groupby(key)["value"].mean()
    by_seed = run.records.groupby([*key, "seed"])["value"].mean()
    spreads = by_seed.groupby(level=key).std()
    single = run.records[run.records["example"] != WHOLE]
    pictures = single.groupby(["method", "setting"])["example"].nunique()
    infinite = run.infinite.groupby(key)["value"].size()
    endless = [name for name in run.measures if (run.infinite["measure"] == name).any()]
    rows: list[dict[str, Any]] = []
    for method, setting, entries in entries_of(run):
        lost = entries.loc[entries["status"] != "done", "status"]
        some = len(lost) < len(entries)
        at = [(method, setting, name) for name in run.measures]
        rows.append(
            {
                "method": method,
                "setting": setting,
                "status": ("some lost" if some else lost.iloc[0]) if len(lost) else "done",
                "seeds": len(entries) - len(lost),
                "lost_seeds": len(lost),
                "pictures": int(pictures.get((method, setting), 0)),
                "outside_range": any(len(sentences) for sentences in entries["outside"]),
                **{where[2]: means.get(where, math.nan) for where in at},
                **{f"{where[2]}_sd": spreads.get(where, math.nan) for where in at},
                **{
                    f"{name}_infinite": infinite.get((method, setting, name), 0) for name in endless
                },
            }
        )
    return pd.DataFrame(rows)


# Gaps -------------------------------------------------------------------------------------------


def paired(records: pd.DataFrame, grid: pd.DataFrame) -> pd.DataFrame:
    """Rows of `records` with the grid's value at the same seed, setting, example and measure."""
    pair = ["seed", "setting", "example", "measure"]
    return records.merge(grid[[*pair, "value"]].rename(columns={"value": "grid"}), on=pair)


def comparisons(run: Run) -> pd.DataFrame:
    """One row per method, setting and measure, the loss first: the gap with its 95 % interval.

    `percent`: gap, low, high and margin are per cent of the grid's mean. `verdict`: "better",
    "equal", "worse" or "undecided"; "" where the task set no margin, the reference fails, the
    method is the reference, or the seeds are fewer than three. That on the loss is on the share
    of the benefit lost against the harder reference, and where there is no benefit on the gap to
    it; `stands` says which of these survive Holm's correction over the table. `interval` says how
    the gap's was made or why there is none. `grid` is the grid's mean over the same pairs;
    `unpaired` counts measured values without a partner there.
    gap_best_*: against the best of the grid; share_*: of the benefit lost; both of the loss alone.
    """
    yard = run.yardstick
    others = run.records[run.records["method"] != GRID]
    pairs = paired(others, run.records[run.records["method"] == GRID])
    key = ["method", "setting", "measure"]
    places = pairs.groupby(key).indices
    measured = others.groupby(key).size()
    rows: list[dict[str, Any]] = []
    for method, setting, _ in entries_of(run):
        standing = yard.standing(method, setting) if yard and method != GRID else None
        for measure in () if method == GRID else measures_of(run):
            style, where = run.measures[measure], (method, setting, measure)
            part = pairs.iloc[places.get(where, [])]
            found = _gap(part, in_percent(style))
            rows.append(
                {
                    **dict(zip(key, where, strict=True)),
                    "gap": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "percent": in_percent(style),
                    "margin": margin_of(style),
                    "verdict": _detailed_verdict(style, found, standing),
                    "interval": found.method,
                    "pairs": len(part),
                    "seeds": found.seeds,
                    "pictures": part.loc[part["example"] != WHOLE, "example"].nunique(),
                    "grid": part["grid"].mean(),
                    "unpaired": int(measured.get(where, 0)) - len(part),
                    "reference_fails": bool(standing and standing.reference_fails),
                    "is_reference": bool(standing and standing.is_reference),
                    **(_of_the_loss(standing) if standing and measure == LOSS else {}),
                }
            )
    frame = pd.DataFrame(rows, columns=COMPARED)
    frame["stands"] = stats.holm(frame["doubt"]) & ~frame["verdict"].isin(["", "undecided"])
    return frame


COMPARED = [
    *("method", "setting", "measure", "gap", "low", "high", "percent", "margin", "verdict"),
    *("interval", "pairs", "seeds", "pictures", "grid", "unpaired"),
    *("gap_best", "gap_best_low", "gap_best_high", "share", "share_low", "share_high"),
    *("doubt", "stands", "reference_fails", "is_reference"),
]


def _detailed_verdict(style: MeasureStyle, gap: stats.Interval, standing: Standing | None) -> str:
    """That on a measure other than the loss is on its own gap and margin."""
    silent = standing is None or standing.reference_fails or standing.is_reference
    if silent or gap.seeds < stats.ENOUGH_SEEDS:
        return ""
    return verdict_of(style, gap)


def _of_the_loss(standing: Standing) -> dict[str, Any]:
    """What only the loss has; its verdict is against the harder reference."""
    best, share = standing.gap_best, standing.share
    return {
        "verdict": standing.verdict,
        "doubt": standing.doubt,
        **{"gap_best": best.estimate, "gap_best_low": best.low, "gap_best_high": best.high},
        **{"share": share.estimate, "share_low": share.low, "share_high": share.high},
    }


def _gap(pairs: pd.DataFrame, percent: bool) -> stats.Interval:
    """The mean gap of one method, setting and measure."""
    method, grid = (stats.seed_by_example(pairs, name) for name in ("value", "grid"))
    if not percent:
        return stats.paired_interval(method - grid)
    return stats.scaled(stats.paired_ratio_interval(method, grid), 100)


def mean_gap(pairs: pd.DataFrame, percent: bool) -> stats.Interval:
    """The mean over settings of one method's loss gaps, each setting counting alike.

    A per cent is a ratio of means, and so no mean of anything per pair; each pair therefore enters
    with its first-order contribution to its setting's ratio, (difference - ratio · grid) over the
    grid's mean, which has the same estimate and, to first order, the same interval.
    """
    means, contributions = [], []
    for _, at in pairs.groupby("setting"):
        difference = at["value"] - at["grid"]
        base = at["grid"] * np.sign(at["grid"].sum()) / 100 if percent else at["grid"] ** 0
        mean = difference.sum() / base.sum() if base.sum() else math.nan
        gap = (difference - mean * base) / base.mean()
        means.append(mean)
        contributions.append(at[["seed", "example"]].assign(gap=gap))
    if not means:
        return stats.paired_interval([math.nan])
    # Where a pair lacks a setting it adds nothing there: each setting keeps its own mean.
    sums = pd.concat(contributions).groupby(["seed", "example"], as_index=False)["gap"].sum()
    sums["gap"] = np.mean(means) + sums["gap"] / len(means)
    return stats.paired_interval(stats.seed_by_example(sums, "gap"))


# One row per method -----------------------------------------------------------------------------

OVERALL = [
    *("method", "status", "share_mean", "share_low", "share_high", "share_worst"),
    *("share_worst_setting", "share_settings", "verdict", "doubt", "stands", "power"),
    *(
        "seeds_needed",
        "hours_needed",
        "loss_gap_mean",
        "loss_gap_low",
        "loss_gap_high",
        "loss_gap_worst",
    ),
    *("worst_setting", "gap_settings", "percent", "interval", "seeds", "pictures"),
    *("bd_rate", "bd_low", "bd_mid", "bd_high", "bd_overlap", "bd_reason", "bd_quality"),
    *("bd_seen_low", "bd_seen_high", "bd_of_low", "bd_of_high", "bd_ci_low", "bd_ci_high"),
    *("hypervolume_ratio", "hypervolume_ci_low", "hypervolume_ci_high", "igd_plus"),
    *("coverage", "monotonicity", "calibration", "calibration_ci_low", "calibration_ci_high"),
    *("diagonal", "held_out", "overhead"),
    *("flops_ratio", "examples_ratio", "seconds_ratio", "bytes_ratio"),
    *("against_warm", "against_peer", "break_even"),
]


def overall(run: Run) -> pd.DataFrame:
    """One row per method, the grid among them.

    status: "done", "failed" (nothing was left) or "partly failed".
    share_*: of the benefit lost against the harder reference, mean over `share_settings` settings
        with its 95 % interval, and the largest; verdict, power and seeds_needed: see `Judgement`.
        hours_needed: what further seeds of it and of the grid would take, one after the other, by
        the ledgers of this run. doubt is the verdict's p-value, and `stands` says whether it
        survives Holm's correction over the methods.
    loss_gap_*: against the grid's own networks, mean over `gap_settings` settings with its 95 %
        interval, per cent if `percent`, and the largest. Both leave out settings at which the
        method is the reference or the reference fails.
    bd_*: of the first front, where it is a rate against a quality; low, mid, high are the thirds
        of the common range, bd_quality is in units of the quality (BD-PSNR where it is PSNR).
        bd_seen_* is the common range of quality, bd_of_* the grid's: the rest it does not see.
    *_ci_*: 95 % intervals of BD-rate, hypervolume and calibration over the seeds, three or more.
    overhead: what is written over what was estimated, in per cent: see the function.
    hypervolume_ratio, igd_plus: of the first front, too; see `bench/report/stats.py`.
    coverage, monotonicity, calibration, diagonal: see `knob`; held_out: see the function.
    *_ratio: to the grid's cost, for all settings of the run.
    against_warm, against_peer: FLOPs over those of the warm-started grid, and of the cheapest
        other method, the grid aside, whose loss is equal within the margin or better.
    break_even: the number of settings from which on its FLOPs are fewer than the grid's; NaN for
        never.
    """
    yard = run.yardstick
    percent = in_percent(run.measures[LOSS])
    of_loss = run.records[run.records["measure"] == LOSS]
    pairs = paired(of_loss, of_loss[of_loss["method"] == GRID])
    reached, by_seed = _reached(run), _reached_by_seed(run)
    costs = savings(run).set_index("method")
    crossing = break_evens(run).query("unit == 'flops'").set_index("method")["settings"]
    rows = []
    for method in run.methods:
        counted = yard.counted(method) if yard else []
        own = pairs[pairs["method"] == method]
        if method != GRID:  # whose gap to itself is nothing everywhere
            own = own[own["setting"].isin(counted)]
        mean, judged = mean_gap(own, percent), judge(yard, method)
        worst, where = _worst(own, percent)
        rows.append(
            {
                "method": method,
                "status": _status(run, method),
                "share_mean": judged.share.estimate,
                "share_low": judged.share.low,
                "share_high": judged.share.high,
                "share_worst": judged.worst,
                "share_worst_setting": judged.worst_setting,
                "share_settings": len(judged.settings),
                "verdict": judged.verdict,
                "doubt": judged.doubt,
                "power": judged.power,
                "seeds_needed": judged.seeds_needed,
                "hours_needed": (judged.seeds_needed - judged.share.seeds)
                * (costs.at[method, "seconds"] + costs["seconds"].get(GRID, math.nan))
                / 3600,
                "loss_gap_mean": mean.estimate,
                "loss_gap_low": mean.low,
                "loss_gap_high": mean.high,
                "loss_gap_worst": worst,
                "worst_setting": where,
                "gap_settings": len(counted),
                "percent": percent,
                "interval": mean.method,
                "seeds": mean.seeds,
                "pictures": own["example"].nunique(),
                **(front := front_gap(run, reached[method], reached[GRID])),
                **(steered := knob(run, reached[method], reached[GRID])),
                **_over_seeds(run, {**front, **steered}, by_seed, method),
                "overhead": overhead(run, method),
                "held_out": held_out(run, method),
                **{
                    f"{unit}_ratio": costs.at[method, f"{unit}_ratio"]
                    for unit in ("flops", "examples", "seconds", "bytes")
                },
                "break_even": crossing.get(method, math.nan),
            }
        )
    frame = pd.DataFrame(rows)
    frame["stands"] = stats.holm(frame["doubt"]) & ~frame["verdict"].isin(["", "undecided"])
    flops = frame["method"].map(costs["flops"])
    frame["against_warm"] = flops / costs["flops"].get(WARM, math.nan)
    within = frame["verdict"].isin(["equal", "better"])
    frame["against_peer"] = [
        own / flops[within & (frame["method"] != method)].min()
        for method, own in zip(frame["method"], flops, strict=True)
    ]
    return frame[OVERALL]


def _status(run: Run, method: str) -> str:
    lost = run.measured.loc[run.measured["method"] == method, "status"].isin(LOST)
    return "failed" if lost.all() else "partly failed" if lost.any() else "done"


def _worst(pairs: pd.DataFrame, percent: bool) -> tuple[float, str]:
    """The largest loss gap of a setting, and the setting."""
    means = pairs.groupby("setting")[["value", "grid"]].mean()
    gaps = means["value"] - means["grid"]
    gaps = (100 * gaps / means["grid"].abs() if percent else gaps).dropna()
    return (float(gaps.max()), str(gaps.idxmax())) if len(gaps) else (math.nan, "")


def _reached(run: Run) -> dict[str, pd.DataFrame]:
    """Per method, and for the grid in any case: settings by measures, means over examples and
    seeds, NaN where nothing was measured."""
    records = run.records
    if len(run.infinite):  # what one method has no number for is left out of all
        key = ["seed", "setting", "example", "measure"]
        gone = pd.MultiIndex.from_frame(run.infinite[key])
        records = records[~pd.MultiIndex.from_frame(records[key]).isin(gone)]
    means = records.pivot_table(index=["method", "setting"], columns="measure", values="value")
    found = {}
    for method in {GRID, *run.methods}:
        rows = pd.MultiIndex.from_product([[method], run.settings])
        found[method] = means.reindex(rows).droplevel(0)
    return found


def _reached_by_seed(run: Run) -> list[dict[str, pd.DataFrame]]:
    """As `_reached`, for every seed that the grid has."""
    grid = run.records.loc[run.records["method"] == GRID, "seed"]
    return [
        _reached(dataclasses.replace(run, records=run.records[run.records["seed"] == seed]))
        for seed in sorted(grid.unique())
    ]


def _over_seeds(
    run: Run, pooled: dict[str, Any], by_seed: list[dict[str, pd.DataFrame]], method: str
) -> dict[str, float]:
    """95 % intervals over the seeds that a method has, of what can only be taken of whole seeds."""
    fronts, knobs = [], []
    for reached in by_seed:
        own, grid = reached.get(method), reached[GRID]
        if own is not None and own.notna().any(axis=None):
            fronts.append(front_gap(run, own, grid))
            knobs.append(knob(run, own, grid)["calibration"])
    found: dict[str, float] = {}
    for name, key, values in (
        ("bd", "bd_rate", [front["bd_rate"] for front in fronts]),
        ("hypervolume", "hypervolume_ratio", [front["hypervolume_ratio"] for front in fronts]),
        ("calibration", "calibration", knobs),
    ):
        ends = stats.seeds_interval(pooled[key], values) if method != GRID else (math.nan, math.nan)
        found |= {f"{name}_ci_low": ends[0], f"{name}_ci_high": ends[1]}
    return found


def overhead(run: Run, method: str) -> float:
    """How much larger a measure is than the measure that estimates it, in per cent: the mean over
    settings, each over the rows that have both. NaN where the task names no estimate."""
    for estimate, style in run.measures.items():
        if style.estimates in run.measures:
            rows = run.records[run.records["method"] == method]
            table = rows[rows["measure"].isin([estimate, style.estimates])].pivot_table(
                index=["setting", "seed", "example"], columns="measure", values="value"
            )
            table = table.reindex(columns=[estimate, style.estimates]).dropna()
            sums = table.groupby("setting").sum()
            return _mean(100 * (sums[style.estimates] / sums[estimate] - 1))
    return math.nan


def front_gap(run: Run, own: pd.DataFrame, grid: pd.DataFrame) -> dict[str, Any]:
    """The first front of a method against the grid's, whatever the coefficients; both settings by
    measures."""
    found: dict[str, Any] = dict.fromkeys(("bd_rate", "bd_low", "bd_mid", "bd_high"), math.nan)
    found |= {"bd_overlap": math.nan, "bd_reason": "the task names no front"}
    ends = ("bd_seen_low", "bd_seen_high", "bd_of_low", "bd_of_high")
    found |= dict.fromkeys(("bd_quality", *ends), math.nan)
    found |= {"hypervolume_ratio": math.nan, "igd_plus": math.nan}
    if not run.fronts:
        return found
    x, y = run.fronts[0]
    points, reference = (frame.reindex(columns=[x, y]).to_numpy(float) for frame in (own, grid))
    if run.measures[x].better == "lower" and run.measures[y].better == "higher":
        bd = stats.bd_rate(*reference.T, *points.T)
        names = ("bd_rate", "bd_low", "bd_mid", "bd_high", "bd_overlap", "bd_reason")
        found |= dict(zip(names, (bd.value, *bd.thirds, bd.overlap, bd.reason), strict=True))
        found |= dict(zip(ends, (*bd.seen, *bd.of), strict=True))
        found["bd_quality"] = stats.bd_psnr(*reference.T, *points.T).value
    else:
        found["bd_reason"] = "the first front is not a rate against a quality"
    styles = [run.measures[name] for name in (x, y)]
    if all(style.better for style in styles):
        sign = np.array([1 if style.better == "lower" else -1 for style in styles])
        points, reference = points * sign, reference * sign
        found["igd_plus"] = stats.igd_plus(points, reference)
        worst = [style.worst for style in styles]
        if None not in worst:
            corner = sign * np.array(worst, float)
            found["hypervolume_ratio"] = stats.hypervolume_ratio(points, reference, corner)
    return found


# The knob ---------------------------------------------------------------------------------------


def knob(run: Run, own: pd.DataFrame, grid: pd.DataFrame) -> dict[str, float]:
    """How a method follows its coefficients, from the terms that they weigh; both settings by
    measures.

    Raising a coefficient cannot raise its term where the loss is minimal, whatever the task. Along
    each line of settings that differ in one coefficient, `monotonicity` is minus Spearman's
    correlation of coefficient and term (1 is right), `coverage` the share of the grid's range of
    the term and `calibration` the mean distance to the grid's over that range (0 is right), both
    of the term's logarithm, where it is positive; all are means over the lines. `diagonal` is the
    share of settings for which being told that very setting gives the lowest loss.
    """
    orders, covered, distances = [], [], []
    for axis, line in _lines(run, run.settings):
        coefficients = [run.values(setting)[axis] for setting in line]
        name = [run.axes[axis].name]
        values = own.reindex(index=line, columns=name).to_numpy(float)
        reference = grid.reindex(index=line, columns=name).to_numpy(float)
        orders.append(-stats.monotonicity(coefficients, values))
        if not (np.concatenate([values, reference]) <= 0).any():
            values, reference = np.log(values), np.log(reference)
        covered.append(stats.coverage(values, reference))
        distances.append(stats.calibration(values, reference).deviation)
    matrix = _cross(run, own.dropna(how="all")).to_numpy()
    told = matrix + ROUNDING * np.diag(np.abs(np.diag(matrix)))  # equal networks win nothing
    return {
        "coverage": _mean(covered),
        "monotonicity": _mean(orders),
        "calibration": _mean(distances),
        "diagonal": _mean(stats.diagonal_wins(told)) if len(matrix) > 1 else math.nan,
    }


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _lines(run: Run, settings: Iterable[str]) -> list[tuple[int, list[str]]]:
    """The axis and the settings, in its order, of all sets that differ in one coefficient only."""
    found = []
    for axis in range(len(run.axes)):
        lines: dict[tuple[float, ...], list[str]] = {}
        for setting in settings:
            values = run.values(setting)
            lines.setdefault(values[:axis] + values[axis + 1 :], []).append(setting)
        found += [
            (axis, sorted(line, key=lambda s: run.values(s)[axis]))
            for line in lines.values()
            if len(line) > 1
        ]
    return found


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
    own, between = (
        part.pivot_table(index="setting", columns="measure", values="value").reindex(
            columns=[LOSS, *(axis.name for axis in run.axes)]
        )
        for part in (compared, rows)
    )
    excesses = []
    for axis, line in _lines(run, [*own.index, *between.index]):
        name = run.axes[axis].name
        for low, middle, high in _between(line, set(between.index)):
            a, c, b = (run.values(setting)[axis] for setting in (low, middle, high))
            place = math.log(c / a) / math.log(b / a)
            terms = [own.at[low, name], own.at[high, name]]
            rest = [own.at[low, LOSS] - a * terms[0], own.at[high, LOSS] - b * terms[1]]
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
    return _cross(run, _reached(run)[method])


def _cross(run: Run, own: pd.DataFrame) -> pd.DataFrame:
    """Of settings by measures: the settings by themselves."""
    terms = own.reindex(columns=[LOSS, *(axis.name for axis in run.axes)]).to_numpy(float)
    values = np.array([run.values(setting) for setting in own.index]).reshape(terms[:, 1:].shape)
    # What the constant coefficients and the terms without one add is the same in all columns.
    rest = terms[:, 0] - (terms[:, 1:] * values).sum(1)
    matrix = stats.cross_matrix(
        np.column_stack([terms[:, 1:], rest]), np.column_stack([values, np.ones(len(values))])
    )
    return pd.DataFrame(matrix, index=own.index, columns=own.index)


# Compute ----------------------------------------------------------------------------------------


def quality_compute(run: Run) -> pd.DataFrame:
    """One row per method and length of its training: what it cost and how far it came. Empty where
    no networks were trained for a share of the steps with their whole schedule (`--lengths`).

    `flops` of all its networks together, those they started from included, as the mean over seeds;
    `loss_gap` is the mean over settings against the grid's full training, with `low` and `high`.
    A share at which not every setting was measured is left out.
    """
    columns = ["method", "share", "flops", "loss_gap", "low", "high", "percent"]
    if run.lengths.empty:
        return pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
    percent = in_percent(run.measures[LOSS])
    full = run.records[run.records["measure"] == LOSS]
    part = run.length_records[run.length_records["measure"] == LOSS]
    shares = run.lengths.set_index("entry")["share"]
    records = pd.concat([full.assign(share=1.0), part.assign(share=part["entry"].map(shares))])
    pairs = paired(records, full[full["method"] == GRID])
    rows = []
    for method in run.methods:
        whole = run.measured[run.measured["method"] == method]
        shorter = run.lengths[run.lengths["method"] == method]
        for share, at in pd.concat([shorter, whole]).groupby("share"):
            if set(at["setting"]) < set(whole["setting"]):
                continue  # another run may have trained for fewer settings
            own = pairs[(pairs["method"] == method) & (pairs["share"] == share)]
            gap = mean_gap(own, percent)
            flops = costs_by_seed(run, at)["flops"].mean(skipna=False)
            rows.append((method, share, flops, gap.estimate, gap.low, gap.high, percent))
    return pd.DataFrame(rows, columns=columns)

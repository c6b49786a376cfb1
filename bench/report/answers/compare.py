"""What the records of a run say: frames of answers, from a `Run` and the statistics alone.

    comparisons(run)        every method, setting and measure against the fixed grid
    overall(run)            one row per method: loss, front, knob, costs
    summary(run)            the means of every measure
    quality_compute(run)    the loss gap of networks trained for each share of the steps
    versus(run)             which of two methods is better, by their pairs

A gap is method minus fixed grid at the same setting, paired by example and seed. It is in per cent
of the grid's mean where the measure's margin is, or where it has no margin and may be given so;
otherwise in the measure's unit. What cannot be told is NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from bench.report.answers import stats
from bench.report.answers.costs import break_evens, costs_by_seed, savings
from bench.report.answers.knob import crossings, fronts_and_knobs, held_out, overhead
from bench.report.answers.reference import LOSS, SAME, Yardstick, in_percent, margin_of
from bench.report.answers.spending import judged
from bench.report.answers.verdict import judge, under_test
from bench.report.load import Run
from bench.report.once import once
from bench.run.records import WHOLE

LOST = ("diverged", "failed")

COMPARED = [
    *("method", "setting", "measure", "gap", "low", "high", "percent", "margin", "verdict"),
    *("interval", "pairs", "seeds", "pictures", "grid", "unpaired"),
    *("gap_best", "gap_best_low", "gap_best_high", "share", "share_low", "share_high"),
    *("doubt", "stands", "reference_fails", "is_reference"),
]
VERSUS = [
    *("method", "other", "difference", "low", "high", "percent", "settings", "interval"),
    *("seeds", "doubt", "apart"),
]
OVERALL = [
    *("method", "status", "share_mean", "share_low", "share_high", "share_worst"),
    *("share_worst_setting", "share_settings", "verdict", "doubt", "stands", "power"),
    *("seeds_needed", "hours_needed"),
    *("loss_gap_mean", "loss_gap_low", "loss_gap_high", "loss_gap_worst"),
    *("worst_setting", "gap_settings", "percent", "interval", "seeds", "pictures"),
    *("bd_rate", "bd_low", "bd_mid", "bd_high", "bd_overlap", "bd_reason", "bd_quality"),
    *("bd_seen_low", "bd_seen_high", "bd_of_low", "bd_of_high", "bd_ci_low", "bd_ci_high"),
    *("hypervolume_ratio", "hypervolume_ci_low", "hypervolume_ci_high", "igd_plus"),
    *("coverage", "monotonicity", "calibration", "calibration_ci_low", "calibration_ci_high"),
    *("diagonal", "held_out", "overhead", "crossings"),
    *("flops_ratio", "examples_ratio", "seconds_ratio", "bytes_ratio"),
    *("against_warm", "against_peer", "break_even"),
    *("share_tuned", "share_tuned_low", "share_tuned_high", "verdict_tuned", "doubt_tuned"),
    *("stands_tuned", "loss_gap_tuned", "loss_gap_tuned_low", "loss_gap_tuned_high"),
]


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
    single = run.records[run.records["example"] != WHOLE]
    pictures = single.groupby(["method", "setting"])["example"].nunique()
    endless = [name for name in run.measures if (run.infinite["measure"] == name).any()]
    by_seed = run.records.groupby([*key, "seed"])["value"].mean()
    columns: list[tuple[str, list[str], pd.Series, float]] = [
        ("", list(run.measures), run.records.groupby(key)["value"].mean(), math.nan),
        ("_sd", list(run.measures), by_seed.groupby(level=key).std(), math.nan),
        ("_infinite", endless, run.infinite.groupby(key)["value"].size(), 0),
    ]
    rows: list[dict[str, Any]] = []
    for method, setting, entries in entries_of(run):
        lost = entries.loc[entries["status"] != "done", "status"]
        status = "done" if lost.empty else lost.iloc[0]
        row = {
            "method": method,
            "setting": setting,
            "status": "some lost" if 0 < len(lost) < len(entries) else status,
            "seeds": len(entries) - len(lost),
            "lost_seeds": len(lost),
            "pictures": int(pictures.get((method, setting), 0)),
            "outside_range": any(map(len, entries["outside"])),
        }
        for ending, names, values, absent in columns:
            row |= {f"{m}{ending}": values.get((method, setting, m), absent) for m in names}
        rows.append(row)
    return pd.DataFrame(rows)


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
    yard = Yardstick.of(run)
    is_grid = run.records["method"] == run.reference
    others = run.records[~is_grid]
    pairs = paired(others, run.records[is_grid])
    key = ["method", "setting", "measure"]
    places, measured = pairs.groupby(key).indices, others.groupby(key).size()
    rows: list[dict[str, Any]] = []
    for method, setting, _ in entries_of(run):
        if method == run.reference:
            continue
        fails = bool(yard and setting in yard.failing)
        same = bool(yard and yard.is_reference(method, setting))
        for measure in measures_of(run):
            where = (method, setting, measure)
            part = pairs.iloc[places.get(where, [])]
            unpaired = int(measured.get(where, 0)) - len(part)
            row = dict(zip(key, where, strict=True)) | _gap(run, method, measure, part)
            row |= {"unpaired": unpaired, "reference_fails": fails, "is_reference": same}
            if yard is None or fails or same or row["seeds"] < stats.ENOUGH_SEEDS:
                row["verdict"] = ""
            if yard and measure == LOSS:
                row |= yard.standing(method, setting)
            rows.append(row)
    return _with_stands(pd.DataFrame(rows, columns=COMPARED))


def _with_stands(frame: pd.DataFrame) -> pd.DataFrame:
    """Which verdicts survive Holm's correction over the table."""
    stands = stats.holm(frame["doubt"]) & ~frame["verdict"].isin(["", "undecided"])
    return frame.assign(stands=stands)


def _gap(run: Run, name: str, measure: str, pairs: pd.DataFrame) -> dict[str, Any]:
    """The mean gap of one method, setting and measure, with the verdict on its own margin, "" where
    the task names no margin or no better direction."""
    style = run.measures[measure]
    method, grid = (stats.seed_by_example(pairs, column) for column in ("value", "grid"))
    gap = judged(run, stats.gap_interval(method, grid, percent=in_percent(style)), name)
    has_verdict = style.margin and style.better
    return {
        **gap.columns("gap"),
        "percent": in_percent(style),
        "margin": margin_of(style),
        "verdict": stats.verdict(gap, margin_of(style), style.better) if has_verdict else "",
        "interval": gap.method,
        "pairs": len(pairs),
        "seeds": gap.seeds,
        "pictures": pairs.loc[pairs["example"] != WHOLE, "example"].nunique(),
        "grid": pairs["grid"].mean(),
    }


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


@once
def overall(run: Run) -> pd.DataFrame:
    """One row per method, the grid among them.

    status: "done", "failed" (nothing was left) or "partly failed".
    share_*, verdict, doubt, power, seeds_needed: see `verdict.judge`. hours_needed: what further
        seeds of it and of the grid would take, one after the other, by the ledgers of this run.
        stands: whether the verdict survives Holm's correction over the methods.
    loss_gap_*: against the grid's own networks, mean over `gap_settings` settings with its 95 %
        interval, per cent if `percent`, and the largest. Left out, as in the shares: settings at
        which the method is the reference or the reference fails.
    bd_* to crossings: the front and the knob, see `bench/report/answers/knob.py`.
    *_ratio: to the grid's cost, for all settings of the run.
    against_warm, against_peer: FLOPs over those of the warm-started grid, and of the cheapest
        other method, the grid aside, whose loss is equal within the margin or better.
    break_even: the number of settings from which on its FLOPs are fewer than the grid's; NaN for
        never.
    *_tuned: share, verdict, doubt, stands and loss gap with the tuned grid as the reference, its
        own middle network the one used everywhere; empty where there is none.
    """
    of_loss = run.records[run.records["measure"] == LOSS]
    pairs, tuned_pairs = (
        paired(of_loss, of_loss[of_loss["method"] == grid])
        for grid in (run.reference, run.tuned_reference)
    )
    steered, costs = fronts_and_knobs(run), _costs(run)
    rows = [
        {
            "method": method,
            "status": _status(run, method),
            **judge(Yardstick.of(run), method),
            **_against_tuned(run, method, tuned_pairs[tuned_pairs["method"] == method]),
            **_loss_gap(run, method, pairs[pairs["method"] == method]),
            **steered[method],
            "overhead": overhead(run, method),
            "crossings": crossings(run, method),
            "held_out": held_out(run, method),
            **costs[method],
        }
        for method in run.methods
    ]
    frame = _with_stands(pd.DataFrame(rows))
    frame["hours_needed"] = frame["seeds_more"] * frame["hours"]
    within = frame["verdict"].isin(["equal", "better"])
    tuned = frame[["verdict_tuned", "doubt_tuned"]].set_axis(["verdict", "doubt"], axis=1)
    frame["stands_tuned"] = _with_stands(tuned)["stands"]
    frame["against_peer"] = [
        row.flops / frame.loc[within & (frame["method"] != row.method), "flops"].min()
        for row in frame.itertuples()
    ]
    return frame[OVERALL]


def _against_tuned(run: Run, method: str, pairs: pd.DataFrame) -> dict[str, Any]:
    """The columns `*_tuned` of `overall`."""
    yard, percent = Yardstick.tuned(run), in_percent(run.measures[LOSS])
    row = judge(yard, method)
    pairs = pairs[pairs["setting"].isin(yard.counted(method) if yard else [])]
    shares = {f"share_tuned{end}": row[f"share{end}"] for end in ("_low", "_high")}
    return {
        "share_tuned": row["share_mean"],
        **shares,
        **{f"{name}_tuned": row[name] for name in ("verdict", "doubt")},
        **mean_gap(pairs, percent).columns("loss_gap_tuned", "loss_gap_tuned_"),
    }


def _status(run: Run, method: str) -> str:
    lost = run.measured.loc[run.measured["method"] == method, "status"].isin(LOST)
    return "failed" if lost.all() else "partly failed" if lost.any() else "done"


def _loss_gap(run: Run, method: str, pairs: pd.DataFrame) -> dict[str, Any]:
    """The gap to the grid's own networks, its mean over settings and the largest."""
    yard, percent = Yardstick.of(run), in_percent(run.measures[LOSS])
    counted = yard.counted(method) if yard else []
    if method != run.reference:  # whose gap to itself is nothing everywhere
        pairs = pairs[pairs["setting"].isin(counted)]
    means = pairs.groupby("setting")[["value", "grid"]].mean()
    gaps = means["value"] - means["grid"]
    gaps = (100 * gaps / means["grid"].abs() if percent else gaps).dropna()
    mean = mean_gap(pairs, percent)
    return {
        **mean.columns("loss_gap_mean", "loss_gap_"),
        "loss_gap_worst": gaps.max(),
        "worst_setting": gaps.idxmax() if len(gaps) else "",
        "gap_settings": len(counted),
        "percent": percent,
        "interval": mean.method,
        "seeds": mean.seeds,
        "pictures": pairs["example"].nunique(),
    }


def _costs(run: Run) -> dict[str, dict[str, float]]:
    """By method: its FLOPs, their ratios, and the hours that one more seed of it and of the grid
    takes."""
    saved = savings(run).set_index("method")
    breaks = break_evens(run).query("unit == 'flops'").set_index("method")
    frame = saved.filter(like="_ratio").assign(
        flops=saved["flops"],
        hours=(saved["seconds"] + saved["seconds"].get(run.reference or "", math.nan)) / 3600,
        against_warm=saved["flops"] / saved["flops"].get(run.warm or "", math.nan),
        break_even=breaks["settings"],
    )
    return frame.to_dict("index")


@once
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
    pairs = paired(records, full[full["method"] == run.reference])
    rows = []
    for method in run.methods:
        full_length = run.measured[run.measured["method"] == method]
        shorter = run.lengths[run.lengths["method"] == method]
        for share, at in pd.concat([shorter, full_length]).groupby("share"):
            if set(at["setting"]) < set(full_length["setting"]):
                continue  # another run may have trained for fewer settings
            gap = mean_gap(pairs[(pairs["method"] == method) & (pairs["share"] == share)], percent)
            flops = costs_by_seed(run, at)["flops"].mean(skipna=False)
            row = {"method": method, "share": share, "flops": flops, "percent": percent}
            rows.append(row | gap.columns("loss_gap"))
    return pd.DataFrame(rows, columns=columns)


@once
def versus(run: Run) -> pd.DataFrame:
    """The best row of `overall` (the lowest share of the benefit lost, or where no share is known
    the lowest gap), the networks under test and the warm start against every other, one row per
    pair: the order of a table suggests that one method beats the next.

    difference: the loss of `method` less that of `other`, mean over the settings at which they are
    different networks, with its 95 % interval; per cent of the other's, or the loss's unit.
    apart: the interval excludes zero, with three seeds or more and after Holm's correction over
    the table.
    """
    yard = Yardstick.of(run)
    rows = [_difference(yard, *pair) for pair in _pairs(run)] if yard else []
    frame = pd.DataFrame(rows, columns=VERSUS)
    frame["apart"] = frame["apart"].astype(bool) & stats.holm(frame["doubt"])
    return frame


def _difference(yard: Yardstick, method: str, other: str) -> dict[str, Any]:
    losses, theirs = yard.losses(method), yard.losses(other)
    differ = (np.abs(losses - theirs) > SAME * np.abs(theirs)).any((1, 2))
    base = np.abs(theirs) / 100 if yard.percent else np.ones_like(theirs)
    difference = stats.mean_ratio_interval((losses - theirs)[differ], base[differ])
    difference = judged(yard.run, difference, method, other)
    enough = difference.seeds >= stats.ENOUGH_SEEDS
    return {
        "method": method,
        "other": other,
        **difference.columns("difference"),
        "percent": yard.percent,
        "settings": int(differ.sum()),
        "interval": difference.method,
        "seeds": difference.seeds,
        "doubt": stats.doubt(difference, 0.0),
        "apart": enough and not difference.low <= 0 <= difference.high,
    }


def _pairs(run: Run) -> list[tuple[str, str]]:
    """The best row, the networks under test as they are and tuned, and the warm start, each with
    every other, the grid aside."""
    frame = overall(run)
    others = frame[(frame["method"] != run.reference) & frame["loss_gap_mean"].notna()]
    if len(others) < 2:
        return []
    key = "share_mean" if others["share_mean"].notna().any() else "loss_gap_mean"
    names = list(others["method"])
    anchors = [under_test(run), *(name for name in run.under_test if "[" not in name)]
    first = dict.fromkeys([others.loc[others[key].idxmin(), "method"], *anchors, run.warm])
    pairs = [(one, other) for one in first for other in names if one in names and one != other]
    return [pair for at, pair in enumerate(pairs) if pair[::-1] not in pairs[:at]]

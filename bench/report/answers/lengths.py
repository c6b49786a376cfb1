"""Networks trained for other shares of the steps, each with its whole schedule (`run --lengths`).

    same_loss(run)          what the grid needs for the loss that a method has
    trained_out(run)        whether half of the training would have been enough

From such networks and from nothing else: one kept in mid-schedule is worse than one whose schedule
ended there, so that it says nothing of what that compute is worth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.report.answers import stats
from bench.report.answers.compare import quality_compute
from bench.report.answers.knob import cross
from bench.report.answers.reference import LOSS
from bench.report.load import Run
from bench.report.once import once

MOVED = 0.25  # of the margin: a training that moves the loss by less, when halved, is over


def same_loss(run: Run) -> pd.DataFrame:
    """One row per method with a cost, the grid aside: its loss gap after the full training, the
    FLOPs at which its own curve comes down to that gap, and those at which the grid's does, with
    their ratio (above one, the method is cheaper). NaN where the grid's curve does not come down
    to it.

    A gap is the mean over settings; `needed` says what is interpolated.
    """
    quality = quality_compute(run)
    grid = quality[quality["method"] == run.reference].sort_values("flops")
    curve = list(zip(grid["flops"], grid["loss_gap"], strict=True))
    full_length = quality[(quality["share"] == 1) & (quality["method"] != run.reference)]
    frame = full_length[["method", "flops", "loss_gap"]].reset_index(drop=True)
    own = {
        method: list(zip(at["flops"], at["loss_gap"], strict=True))
        for method, at in quality.sort_values("flops").groupby("method")
    }
    levels = list(zip(frame["method"], frame["loss_gap"], strict=True))
    frame["flops"] = [least_compute(own[method], gap) for method, gap in levels]
    frame["grid_flops"] = [needed(curve, gap) for _, gap in levels]
    return frame.assign(ratio=frame["grid_flops"] / frame["flops"])


def needed(curve: Sequence[tuple[float, float]], level: float) -> float:
    """The least compute at which a curve of (compute, gap), in order of compute, comes down to a
    level: between two points the gap is linear in the logarithm of the compute, which is a straight
    line in the figure. NaN where it does not: it starts below or ends above."""
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if y0 >= level >= y1:
            share = (y0 - level) / (y0 - y1) if y0 > y1 else 0.0
            return float(x0 * (x1 / x0) ** share)
    return math.nan


def least_compute(curve: Sequence[tuple[float, float]], level: float) -> float:
    """`needed` of the curve whose end the level is: the compute of its first point where that is
    as low already, a bound from above."""
    return float(curve[0][0]) if curve[0][1] <= level else needed(curve, level)


def benefits(run: Run) -> pd.Series:
    """By setting, what the grid gains over its middle network used there: the loss of that network
    with the weights of the setting, minus that of the setting's own, both means over examples and
    seeds. 0 at the middle; empty without a grid."""
    if run.reference is None:
        return pd.Series(dtype=float)
    matrix = cross(run, run.reference)
    return matrix.loc[run.middle] - pd.Series(np.diag(matrix), index=matrix.index)


@once
def trained_out(run: Run) -> pd.DataFrame:
    """One row per method and setting with networks trained for half of the steps: whether the other
    half moved the loss by less than `MOVED` of the margin, `Run.margin_share` of the benefit there.

    moved, low, high: the loss after half of the steps minus the full training's, paired by seed and
    example, with its 95 % interval, in the loss's own unit. limit: what counts as none.
    trained_out: 1.0 or 0.0; NaN where there is no benefit to be a share of (the middle setting,
    and settings whose reference fails). shown: the whole interval lies within the limit, too.
    """
    halves = run.lengths[run.lengths["share"] == 0.5]
    part = run.length_records[run.length_records["entry"].isin(halves["entry"])]
    pair = ["method", "setting", "seed", "example"]
    full = run.records.loc[run.records["measure"] == LOSS, [*pair, "value"]]
    pairs = part[part["measure"] == LOSS].merge(full, on=pair, suffixes=("", "_full"))
    pairs["moved"] = pairs["value"] - pairs["value_full"]
    places, gained = pairs.groupby(["method", "setting"]).indices, benefits(run)
    rows = []
    for where in itertools.product(run.methods, run.settings):
        if where not in places:
            continue
        moved = stats.paired_interval(stats.seed_by_example(pairs.iloc[places[where]], "moved"))
        limit = MOVED * run.margin_share * gained.get(where[1], math.nan)
        limit = limit if limit > 0 else math.nan
        known = math.isfinite(limit) and math.isfinite(moved.estimate)
        over = float(abs(moved.estimate) < limit) if known else math.nan
        shown = float(max(-moved.low, moved.high) < limit) if known else math.nan
        rows.append((*where, moved.estimate, moved.low, moved.high, limit, over, shown))
    columns = ["method", "setting", "moved", "low", "high", "limit", "trained_out", "shown"]
    return pd.DataFrame(rows, columns=columns)

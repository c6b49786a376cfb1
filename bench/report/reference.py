"""The reference examined before anything is measured against it.

    examine(run)            per setting: does another network of the grid do better there?
    grid = GridLosses.of(run); grid.hard, grid.single        what shares of the benefit are made of

The loss of any network at any setting is a weighted sum of its recorded terms, so nothing is
measured for it. Where another network of the grid is better than the one trained for a setting, by
more than what counts as none, the reference fails: of a method that is better or worse than such a
network nothing follows, and nothing is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.report import stats
from bench.report.costs import GRID
from bench.report.load import MeasureStyle, Run
from bench.report.text import estimate, one_line
from bench.run.records import WHOLE

LOSS = "loss"
Array = NDArray[np.float64]

EXAMINED = [
    *("setting", "own", "rival", "rival_loss", "lost", "low", "high", "interval"),
    *("benefit", "margin", "fails", "why"),
]


def in_percent(style: MeasureStyle) -> bool:
    """Whether gaps of this measure are per cent of the grid's mean."""
    return style.margin.endswith("%") or (style.relative and not style.margin)


def margin_of(style: MeasureStyle) -> float:
    """The equivalence margin in the units of the gap; NaN without one."""
    return float(style.margin.removesuffix("%")) if style.margin else math.nan


@dataclass(frozen=True, kw_only=True)
class GridLosses:
    """What the grid's networks lose at every setting, by re-weighting their recorded terms.

    networks: (settings, settings, seeds, examples), the network trained for the first, scored with
        the coefficients of the second; NaN where it was not measured.
    own, best: (settings, seeds, examples): of the network trained for the setting, and of the one
        that does best there, chosen by other seeds and on other examples; see `_best`.
    hard: whichever of the two is lower in the mean: the reference of every verdict.
    single: of the network for the middle of the range, used everywhere.
    rivals: the setting whose network does best, per setting, on all examples.
    """

    settings: list[str]
    seeds: list[int]
    examples: list[str]
    networks: Array
    own: Array
    best: Array
    hard: Array
    single: Array
    middle: str
    rivals: list[str]

    @classmethod
    def of(cls, run: Run) -> GridLosses:
        networks, seeds, examples = _reweighted(run)
        places = np.arange(len(run.settings))
        own = networks[places, places]
        single = networks[run.settings.index(run.middle)]
        best, chosen = _best(networks, own)
        with np.errstate(invalid="ignore"):
            harder = _mean(best - own) < 0
        return cls(
            settings=run.settings,
            seeds=seeds,
            examples=examples,
            networks=networks,
            own=own,
            best=best,
            hard=np.where(harder[:, None, None], best, own),
            single=single,
            middle=run.middle,
            rivals=[run.settings[place] for place in chosen],
        )

    def placed(self, records: pd.DataFrame) -> Array:
        """The losses of one method's records where the grid's stand: (settings, seeds, examples),
        NaN where there are none."""
        of_loss = records[records["measure"] == LOSS]
        place = tuple(
            pd.Index(names).get_indexer(of_loss[column])
            for names, column in (
                (self.settings, "setting"),
                (self.seeds, "seed"),
                (self.examples, "example"),
            )
        )
        there = np.logical_and.reduce([at >= 0 for at in place])
        found = np.full(self.own.shape, np.nan)
        found[tuple(at[there] for at in place)] = of_loss["value"].to_numpy(float)[there]
        return found


def _reweighted(run: Run) -> tuple[Array, list[int], list[str]]:
    """(networks, settings, seeds, examples) of the grid, its seeds and its examples.

    The terms without a coefficient, and those of constant ones, are in the recorded loss; what
    changes from setting to setting is what the moving coefficients add."""
    grid = run.records[(run.records["method"] == GRID) & (run.records["example"] != WHOLE)]
    seeds, examples = sorted(grid["seed"].unique()), sorted(grid["example"].unique())
    names = [axis.name for axis in run.axes]
    shape = (len(run.settings), len(seeds), len(examples))
    measured: dict[str, Array] = {}
    for name in [LOSS, *names]:
        rows = grid[grid["measure"] == name]
        values = np.full(shape, np.nan)
        values[
            pd.Index(run.settings).get_indexer(rows["setting"]),
            pd.Index(seeds).get_indexer(rows["seed"]),
            pd.Index(examples).get_indexer(rows["example"]),
        ] = rows["value"].to_numpy(float)
        measured[name] = values
    coefficients = np.array([run.values(setting) for setting in run.settings])
    coefficients = coefficients.reshape(len(run.settings), len(names))
    losses = np.repeat(measured[LOSS][:, None], len(run.settings), 1)
    for axis, name in enumerate(names):
        change = coefficients[None, :, axis] - coefficients[:, None, axis]
        added = change[:, :, None, None] * measured[name][:, None]
        losses += np.where(change[:, :, None, None] == 0, 0.0, added)
    return losses, seeds, examples


def _best(networks: Array, own: Array) -> tuple[Array, list[int]]:
    """The losses of the grid's best network at every setting, and which it is on all examples.

    For each seed and half of the examples it is chosen by the other seeds on the other half:
    chosen on what it is scored on, the luckiest of several equal networks would pass for better
    than the setting's own. One example cannot be halved, and one seed chooses for itself.
    """
    _, seeds, examples = own.shape
    even = np.arange(examples) % 2 == 0
    best, chosen = own.copy(), []
    for at in range(len(own)):
        lead = networks[:, at] - own[at]  # (networks, seeds, examples), its own is nothing
        for seed in range(seeds):
            others = np.arange(seeds) != seed if seeds > 1 else [True]
            for scored in (even, ~even) if examples > 1 else (even,):
                choosing = ~scored if examples > 1 else scored
                place = _lowest(lead[:, others][..., choosing], at)
                best[at, seed, scored] = networks[place, at, seed, scored]
        chosen.append(_lowest(lead, at))
    return best, chosen


def _lowest(lead: Array, own: int) -> int:
    """The network with the lowest mean of its losses less the own network's; that one in doubt."""
    means = _mean(lead)
    means = np.where(np.isnan(means), np.inf, means)
    means[own] = 0.0
    place = int(means.argmin())
    return place if means[place] < 0 else own


def _mean(values: Array) -> Array:
    """Over the last two axes, NaN left out; NaN where nothing is there."""
    there = np.isfinite(values)
    count = there.sum((-1, -2))
    total = np.where(there, values, 0.0).sum((-1, -2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def examine(run: Run, grid: GridLosses | None = None) -> pd.DataFrame:
    """One row per setting: whether the network trained for it is what others may be measured by.

    own: its mean loss there. rival: the setting of the grid's network that does best there (its
        own where that is the best). rival_loss: what the best of the grid loses there, chosen by
        the other seeds on the other half of the examples. Both in the loss's unit.
    lost, low, high: own - best of grid with its 95 % interval, paired by seed and example, in the
        units of the gaps: per cent of the best, or the loss's unit.
    benefit: what the single middle network loses more than the harder of the two, in the loss's
        unit; NaN where its interval does not exclude nothing.
    margin: in the units of `lost`: `margin_share` of the benefit; NaN without one, and the margin
        of the loss itself counts.
    fails: the interval of what is lost lies beyond the margin. why: in a sentence, plain text.
    """
    if GRID not in run.methods:
        return pd.DataFrame(columns=EXAMINED)
    grid = grid or GridLosses.of(run)
    style = run.measures[LOSS]
    percent = in_percent(style)
    rows: list[dict[str, Any]] = []
    for place, setting in enumerate(run.settings):
        own, best = grid.own[place], grid.best[place]
        hard, single = grid.hard[place], grid.single[place]
        if percent:
            lost = stats.scaled(stats.paired_ratio_interval(own, best), 100)
        else:
            lost = stats.paired_interval(own - best)
        gained = stats.paired_interval(single - hard)
        benefit = gained.estimate if gained.low > 0 else math.nan
        base = abs(float(_mean(best))) / 100 if percent else 1.0
        margin = run.margin_share * benefit / base
        none = margin if math.isfinite(margin) else np.nan_to_num(margin_of(style))
        row = {
            "setting": setting,
            "own": float(_mean(own)),
            "rival": grid.rivals[place],
            "rival_loss": float(_mean(best)),
            "lost": lost.estimate,
            "low": lost.low,
            "high": lost.high,
            "interval": lost.method,
            "benefit": benefit,
            "margin": margin,
            "fails": bool(lost.low > none),
        }
        rows.append({**row, "why": _why(run, row)})
    return pd.DataFrame(rows, columns=EXAMINED)


def _why(run: Run, row: dict[str, Any]) -> str:
    """`the network trained for β = 32 loses 134 nats [98, 170] there against ...`"""
    if math.isnan(row["own"]):
        return "the grid was not measured there"
    if row["rival"] == row["setting"]:
        return "no other network of the grid does better there"
    style = run.measures[LOSS]
    unit = "%" if in_percent(style) else one_line(style.unit)
    digits = 1 if in_percent(style) else style.digits
    size, _, bounds = estimate(row["lost"], (row["low"], row["high"]), digits).partition(" ")
    lost = " ".join(filter(None, [size, unit, bounds]))
    own, rival = (setting_words(run, row[name]) for name in ("setting", "rival"))
    against = f"the network trained for {own} loses {lost} there against the one for {rival}"
    return against if row["fails"] else f"{against}, which is within the margin or undecided"


def setting_words(run: Run, setting: str) -> str:
    """`λ = 0.18`, `s1 = 10` or `the centre`."""
    label = run.labels()[setting]
    if len(run.axes) == 1:
        return f"{one_line(run.axes[0].symbol)} = {label}"
    return f"{'the ' if label == 'centre' else ''}{one_line(label)}"

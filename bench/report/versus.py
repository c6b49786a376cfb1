"""Method against method: which of two is better at the same settings, examples and seeds.

    versus(run, overall(run))      the best row and the one under test against every other

The order of a table suggests that one method beats the next; where the paired difference does not
exclude nothing, none is told from the other.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.report import stats
from bench.report.costs import GRID
from bench.report.load import Run
from bench.report.reference import LOSS, in_percent
from bench.report.shares import SAME
from bench.report.verdict import under_test

VERSUS = [
    *("method", "other", "difference", "low", "high", "percent", "settings", "interval"),
    *("seeds", "doubt", "apart"),
]


def versus(run: Run, overall: pd.DataFrame) -> pd.DataFrame:
    """One row per pair: the loss of `method` less that of `other`, mean over the settings at which
    they are different networks, with its 95 % interval; per cent of the other's, or the loss's
    unit.

    apart: the interval excludes nothing, with three seeds or more and after Holm's correction over
    the table. overall: `compare.overall(run)`, whose best row is the lowest share of the benefit
    lost, or where no share is known the lowest gap.
    """
    if (yard := run.yardstick) is None:
        return pd.DataFrame(columns=VERSUS)
    rows = []
    for method, other in _pairs(run, overall):
        own, theirs = yard.losses(method), yard.losses(other)
        differ = (np.abs(own - theirs) > SAME * np.abs(theirs)).any((1, 2))
        base = np.abs(theirs) if in_percent(run.measures[LOSS]) else np.ones_like(theirs)
        found = stats.mean_ratio_interval((own - theirs)[differ], base[differ])
        if in_percent(run.measures[LOSS]):
            found = stats.scaled(found, 100)
        enough = found.seeds >= stats.ENOUGH_SEEDS and not found.low <= 0 <= found.high
        rows.append(
            {
                "method": method,
                "other": other,
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "percent": in_percent(run.measures[LOSS]),
                "settings": int(differ.sum()),
                "interval": found.method,
                "seeds": found.seeds,
                "doubt": stats.doubt(found, 0.0),
                "apart": enough,
            }
        )
    frame = pd.DataFrame(rows, columns=VERSUS)
    frame["apart"] = frame["apart"].astype(bool) & stats.holm(frame["doubt"])
    return frame


def _pairs(run: Run, overall: pd.DataFrame) -> list[tuple[str, str]]:
    """The best row, then the method under test, each with every other, the grid aside."""
    others = overall[(overall["method"] != GRID) & overall["loss_gap_mean"].notna()]
    if len(others) < 2:
        return []
    key = "share_mean" if others["share_mean"].notna().any() else "loss_gap_mean"
    best = others.loc[others[key].idxmin(), "method"]
    names = list(others["method"])
    first = [best, *(m for m in [under_test(run)] if m in names and m != best)]
    return [
        (method, other)
        for place, method in enumerate(first)
        for other in names
        if other != method and other not in first[:place]
    ]

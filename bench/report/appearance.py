"""How methods look, on paper and on the page, and which of them a figure shows.

The reference is black and the methods under test stand out; the others are thinner. All differ by
colour (colour-blind safe), marker and dashes, so that they stay apart in grey, and a method looks
alike in every figure. Nothing here draws: the page needs no matplotlib.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.registry import METHODS
from bench.report.load import Run
from bench.report.once import once

Look = dict[str, Any]  # what `Axes.plot` takes

# seaborn's "colorblind".
PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)
EDGE: Look = {"markeredgecolor": "white", "markeredgewidth": 0.4}
# The reference's marks are larger than the others', which lie on them.
REFERENCE: Look = {"color": "black", "marker": "o", "zorder": 3, "linewidth": 1.6, "markersize": 5}
FEATURED: tuple[Look, Look] = (  # under test: as it is, and tuned
    {"color": PALETTE[0], "marker": "s", "zorder": 6, "markersize": 4.5},
    {"color": PALETTE[1], "marker": "d", "zorder": 5, "markersize": 5.5},
)
# All others take theirs from three lists of different lengths. Of the palette, what is under test
# has blue and orange; grey, pink and yellow are too pale on paper, violet and olive in their place.
OTHERS = [PALETTE[5], PALETTE[2], "#7b3f98", "#8a8d00", PALETTE[3], PALETTE[4], PALETTE[9]]
MARKERS = ">hpD^vXP<"
DASHES = [(1.2, 1.2), (6, 1.2, 1.2, 1.2), (3, 1, 1, 1, 1, 1), (4, 1.2)]
ALL = "-all"  # the end of the name of a figure of all methods, where there is one of some
AT_ONCE = 8  # methods that curves show at first
READABLE = 16  # methods that can be told apart and named


def featured(run: Run) -> dict[str, bool]:
    """The methods that stand out, and whether they are tuned: what is under test as it is by
    default, then its tuned one."""
    tuned = run.measured.drop_duplicates("method").set_index("method")["tuned"]
    kinds = {bool(tuned[m]): m for m in reversed(run.under_test) if "[" not in m}
    return {kinds[kind]: kind for kind in sorted(kinds)}


def few(run: Run, overall: pd.DataFrame) -> list[str]:
    """The methods that curves show at first, at most `AT_ONCE`: the references, what is under test,
    the warm start and the floor, then the others from the smallest loss gap on."""
    best = overall.sort_values("loss_gap_mean")["method"]
    first = [run.reference, *featured(run), run.tuned_reference, run.warm, run.floor, *best]
    chosen = [m for m in dict.fromkeys([*first, *run.methods]) if m in run.methods][:AT_ONCE]
    return [method for method in run.methods if method in chosen]


def narrowed(run: Run, methods: Sequence[str]) -> Run:
    """The same run for a figure of these methods alone, which look as in one of all."""
    _looks(run)
    view = copy.copy(run)
    vars(view)["methods"] = [method for method in run.methods if method in methods]
    return view


def crowded_out(run: Run) -> list[str]:
    """The forms of methods that curves leave out where more than `READABLE` methods would be drawn,
    which nobody can tell apart; tables and matrices have all. None where most are such forms, as
    in an ablation: then they are what is asked about."""
    forms = [m for m in run.methods if "[" in m]
    return forms if len(run.methods) > READABLE and 2 * len(forms) < len(run.methods) else []


def uncrowded(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that curves show."""
    return frame[~frame["method"].isin(crowded_out(run))]


def crowded_note(run: Run) -> list[str]:
    """Where what curves leave out is found."""
    return ["forms with changed fields are in tables and the heat map"] if crowded_out(run) else []


def looks(run: Run) -> dict[str, Look]:
    """Colour, marker, dashes and weight per method, in the order of display.

    A method of the suite looks the same whatever else is drawn; the user's own come after those.
    """
    every = _looks(run)
    return {method: every[method] for method in run.methods}


@once
def _looks(run: Run) -> dict[str, Look]:
    stand_out, every = featured(run), list(dict.fromkeys([*METHODS, *run.methods]))
    look_of: dict[str, Look] = {}
    for method in run.methods:
        place = every.index(method)
        if method == run.reference:
            look_of[method] = REFERENCE
        elif method in stand_out:
            weight = {"linewidth": 1.6, "dashes": (None, None)}
            look_of[method] = EDGE | FEATURED[stand_out[method]] | weight
        else:
            look_of[method] = EDGE | {
                "color": OTHERS[place % len(OTHERS)],
                "marker": MARKERS[place % len(MARKERS)],
                "dashes": DASHES[place % len(DASHES)],
                **{"linewidth": 0.9, "markersize": 3.8, "zorder": 4},
            }
    return look_of


def no_line(look: Look) -> Look:
    return {k: v for k, v in look.items() if k != "dashes"} | {"linestyle": "none"}


def hollow(look: Look) -> Look:
    """The mark of what no verdict may be read from; in every figure it means that and no more."""
    mark = {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.1}
    return no_line(look) | mark | {"zorder": look["zorder"] + 0.5}

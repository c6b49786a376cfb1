"""Curves over the settings: two measures against each other, every measure, and gaps to the
reference."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.answers.reference import LOSS, failing, in_percent, margin_of
from bench.report.appearance import (
    DASHES,
    REFERENCE,
    crowded_note,
    featured,
    hollow,
    no_line,
    uncrowded,
)
from bench.report.figures.look import gap_axis, plain, scale
from bench.report.figures.panels import Named, OverSettings, Points, hollow_note, room_for_names
from bench.report.figures.point_names import Label, along, name_all
from bench.report.load import MeasureStyle, Run
from bench.report.tables import main_measures
from bench.report.text import measure_label, one_line

GREYS = ["0.55", "0.7", "0.4"]
PANELS = 4  # of measures in a figure
CROWD = 4  # with more methods than this, bands are drawn for those that stand out only


def front(run: Run, summary: pd.DataFrame, x: str, y: str) -> Figure | None:
    """Two measures against each other: one marker per setting, settings joined in order; the
    reference's is hollow where it fails."""
    summary = uncrowded(run, summary)
    if summary[[x, y]].dropna().empty:
        return None
    drawing = Named(run, room_for_names(run))
    (axes,) = drawing.panels
    joined = len(run.axes) == 1  # on several axes no order leads from one setting to the next
    drawn: dict[str, Points] = {}
    for method, look in drawing.looks.items():
        at = summary[summary["method"] == method].set_index("setting").reindex(run.settings)[[x, y]]
        pairs = at.dropna().drop_duplicates().to_numpy(float)
        if not len(pairs):
            continue
        if not joined:
            look = no_line(look)
        elif np.allclose(pairs, pairs[0], rtol=1e-4, atol=1e-9):
            # One network for all settings is one point: large, below the others.
            pairs = pairs[:1]
            look = no_line(look) | {"markersize": 7, "zorder": 2.5}
        drawn[method] = pairs
        axes.plot(*pairs.T, **look)
        if method == run.reference and (settings := failing(run)):
            axes.plot(*at.loc[settings].to_numpy(float).T, **hollow(look))
    points = np.concatenate(list(drawn.values()))
    scale(axes, "x", points[:, 0])
    scale(axes, "y", points[:, 1])
    known = _known_curves(run, x, y)
    for place, pairs in enumerate(known.values()):
        grey: dict[str, Any] = {
            "color": GREYS[place % 3],
            "dashes": DASHES[place % len(DASHES) - 1],
        }
        axes.plot(*pairs.T, **grey, linewidth=1.0, zorder=2)
    axes.set_ylabel(plain(textwrap.fill(measure_label(run.measures[y]), 36)))
    across = textwrap.fill(measure_label(run.measures[x]), 40)
    drawing.finish(drawn, across, hollow_note(run) + crowded_note(run))
    spots = {m: _ends_first(p) if joined else _lonely(axes, p, points) for m, p in drawn.items()}
    labels = [drawing.label(method, spots[method]) for method in drawn]
    for place, (name, pairs) in enumerate(known.items()):
        inside = [p for p in along(axes, pairs, 12) if axes.viewLim.contains(*p)]
        if inside:
            text = plain(one_line(name))
            labels.append(Label(text=text, at=inside[::-3], colour=GREYS[place % 3]))
    name_all(axes, labels, points, [*drawn.values(), *known.values()])
    return drawing.figure


def _known_curves(run: Run, x: str, y: str) -> dict[str, Points]:
    """Known curves that have both measures: their points, means over examples, ordered along x."""
    wanted = run.context[run.context["measure"].isin([x, y])]
    table = wanted.pivot_table(index=["method", "setting"], columns="measure", values="value")
    if x not in table or y not in table:
        return {}
    curves = table[[x, y]].dropna().sort_values([x, y]).groupby(level="method")
    return {str(curve): points.to_numpy(float) for curve, points in curves}


def _ends_first(pairs: Points) -> Points:
    """Where a curve is best named: at its ends, then along it."""
    return pairs[[-1, 0, *range(-2, -len(pairs), -1)]][: len(pairs)]


def _lonely(axes: Axes, pairs: Points, others: Points) -> Points:
    """Points without a curve, those first that are farthest from the nearest ones beside them."""
    at, every = axes.transData.transform(pairs), axes.transData.transform(others)
    apart = np.hypot(*np.moveaxis(at[:, None] - every, 2, 0))
    nearest = np.sort(apart, axis=1)[:, : len(pairs) // 2 + 3].mean(1)
    return pairs[np.argsort(-nearest)]


def measure_parts(run: Run, overall: pd.DataFrame) -> list[tuple[str, ...]]:
    """As many figures as show every measure, the first of them without a number."""
    count = math.ceil(len(_measured(run)) / PANELS)
    return [(str(part),) if part > 1 else () for part in range(1, count + 1)]


def _measured(run: Run) -> list[str]:
    """The measures of which anything is known, those that tables are about first."""
    known = set(run.records["measure"])
    names = dict.fromkeys([LOSS, *main_measures(run), *run.measures])
    return [name for name in names if name in known and name in run.measures]


def measures(run: Run, summary: pd.DataFrame, part: str = "1") -> Figure | None:
    """Small multiples: the mean of every measure against the coefficient, a few a figure; the
    reference's mark is hollow where it fails."""
    summary = uncrowded(run, summary)
    every = _measured(run)
    names = list(np.array_split(every, len(measure_parts(run, summary)))[int(part) - 1])
    titles = [measure_label(run.measures[name]) for name in names]
    drawing = OverSettings(run, titles, 1.6, hollow_note(run), across=(2, 3))
    for axes, name in zip(drawing.panels, names, strict=True):
        for method in drawing.looks:
            at = summary[summary["method"] == method]
            silent = at["setting"].isin(failing(run)).to_numpy() & (method == run.reference)
            places = drawing.places(at["setting"], method)
            drawing.draw(axes, method, places, at[name].to_numpy(float), silent)
        scale(axes, "y", summary[name].dropna().to_numpy(float))
    return drawing.figure


def gap(run: Run, comparisons: pd.DataFrame) -> Figure | None:
    """Method minus reference against the coefficient, with 95 % intervals: of the loss, and of the
    measures of the fronts. Hollow where the reference fails, its own points on the line of nothing
    among them."""
    paired = uncrowded(run, comparisons[comparisons["pairs"] > 0])
    if paired.empty:
        return None
    names = [LOSS, *(name for name in main_measures(run) if name != LOSS)]
    names = [name for name in names if (paired["measure"] == name).any()]
    several = len(run.axes) > 1
    crowd = paired["method"].nunique() > CROWD and not several
    kind = ("bars" if several else "bands") + (" (of those under test)" if crowd else "")
    reference = run.label(run.reference or "")
    remarks = [
        f"Δ to the {reference} at the same setting",
        _interval_note(kind, paired["interval"]),
    ]
    if paired["margin"].notna().any():
        remarks.append("shaded: the measure's margin")
    remarks += hollow_note(run)
    titles = [_gap_name(run.measures[name]) for name in names]
    drawing = OverSettings(run, titles, 1.6, remarks, without=run.reference)
    for axes, name in zip(drawing.panels, names, strict=True):
        of_name = paired[(paired["measure"] == name) & paired["gap"].notna()]
        seen: list[float] = []
        for method, look in drawing.looks.items():
            at = of_name[of_name["method"] == method]
            places = drawing.places(at["setting"], method)
            mean, low, high = (at[column].to_numpy(float) for column in ("gap", "low", "high"))
            seen += [*mean]
            if several:
                axes.vlines(places, low, high, color=look["color"], linewidth=0.8)
            elif not crowd or method in featured(run):
                axes.fill_between(places, low, high, color=look["color"], alpha=0.18, linewidth=0)
            if several or not crowd or method in featured(run):
                seen += [*low, *high]
            drawing.draw(axes, method, places, mean, at["reference_fails"].to_numpy(bool))
        if settings := failing(run):
            axes.plot(drawing.places(settings), [0.0] * len(settings), **hollow(REFERENCE))
        gap_axis(axes, seen, margin_of(run.measures[name]))
    return drawing.figure


def _gap_name(style: MeasureStyle) -> str:
    """`Δ loss (%) ↓`: in per cent or in the measure's unit, as the comparisons are."""
    unit = "%" if in_percent(style) else one_line(style.unit)
    arrow = {"lower": "\u00a0↓", "higher": "\u00a0↑"}.get(style.better, "")
    return f"Δ {one_line(style.label)}" + (f" ({unit})" if unit else "") + arrow


def _interval_note(drawn: str, intervals: pd.Series) -> str:
    """`bars: 95 % intervals (BCa, images only)`, or why there are none."""
    ways = sorted({way for way in intervals if not way.startswith("no interval")})
    if ways:
        return f"{drawn}: 95 % intervals ({'; '.join(ways)})"
    return "; ".join(sorted(set(intervals))) or "no intervals"

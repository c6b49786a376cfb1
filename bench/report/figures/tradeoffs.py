"""What is lost against what is saved: the headline, quality against compute, break-even."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from bench.report import appearance
from bench.report.answers.costs import break_evens, costs_by_seed, step_words
from bench.report.answers.lengths import least_compute, needed
from bench.report.answers.reference import LOSS, failing, margin_of
from bench.report.answers.stats import ENOUGH_SEEDS
from bench.report.answers.verdict import FAILS
from bench.report.appearance import crowded_note, crowded_out, featured, hollow, no_line
from bench.report.figures import look
from bench.report.figures.look import compute_axis, gap_axis, plain, scale
from bench.report.figures.panels import Named, Points, hollow_note, room_for_names
from bench.report.figures.point_names import Label, name_all
from bench.report.headings import gap_title
from bench.report.load import Run

FARTHEST = 30  # settings up to which a break-even is drawn
TWINS = 4  # names that one line has at most


def headline(run: Run, overall: pd.DataFrame) -> Figure | None:
    """Share of the benefit lost at matched coefficients against compute, one named point a method:
    the mean with its 95 % interval, and a thin line to the worst setting. Hollow where there is no
    verdict since the reference fails. Where more than `READABLE` would be drawn, those that lose
    as much as the middle network are named below. None without a reference or a method with a
    share.
    """
    known = overall["share_mean"].notna() & (overall["flops_ratio"] > 0)
    if not known.any():
        return None
    shown = overall[known | (overall["method"] == run.reference)]
    if len(shown) > appearance.READABLE:
        lost = shown["share_mean"].round(6) >= 1  # of the middle network 1 but for rounding
        shown = shown[~lost | shown["method"].isin(featured(run))]
    shown = shown.sort_values("share_mean", ascending=False, na_position="last")
    methods = list(shown["method"])
    x = shown["flops_ratio"].to_numpy(float)
    y = shown["share_mean"].fillna(0.0).to_numpy(float)  # the reference loses nothing of itself
    ends = shown[["share_low", "share_high", "share_worst"]].to_numpy(float)
    low, high, worst = np.where(np.isnan(ends), y[:, None], ends).T
    drawing = Named(run, room_for_names(run) + 0.3)
    (axes,) = drawing.panels
    spare = max(x.max() / x.min(), 3) ** 0.12
    left, right = x.min() / spare**2, x.max() * spare  # names need room on the left
    compute_axis(axes, left, right)
    x = _side_by_side(x, (right / left) ** 0.016)
    gap_axis(axes, [*y, *low, *high, *worst, 1.0], run.margin_share)
    axes.axhline(1, color="0.45", linewidth=0.8, dashes=(4, 2), zorder=1)
    fails = shown["verdict"].str.startswith(FAILS)
    silent = (fails | ((shown["method"] == run.reference) & bool(failing(run)))).to_numpy(bool)
    for i, method in enumerate(methods):
        marks = hollow(drawing.looks[method]) if silent[i] else no_line(drawing.looks[method])
        line = {"color": marks["color"], "zorder": 3}
        axes.vlines(x[i], low[i], high[i], **line, linewidth=1.4)
        axes.vlines(x[i], y[i], worst[i], **line, linewidth=0.5)
        if worst[i] > y[i]:
            axes.plot(x[i], worst[i], "_", **line, markersize=4, markeredgewidth=0.9)
        axes.plot(x[i], y[i], **marks)
    axes.set_ylabel("share of the benefit lost ↓")
    label = "compute for all settings, × the grid's FLOPs ↓"
    drawing.finish(methods, label, _headline_notes(run, overall, shown))
    points = np.stack([x, y], 1)
    spans = zip(x, np.minimum(low, worst), np.maximum(high, worst), strict=True)
    lines = [[(at, bottom), (at, top)] for at, bottom, top in spans]
    lines += [[(end, level) for end in axes.get_xlim()] for level in (0.0, 1.0)]
    labels = [drawing.label(method, point) for method, point in zip(methods, points, strict=True)]
    across = [(left * (right / left) ** part, 1) for part in (0.85, 0.7, 0.55)]
    labels.append(Label(text="the middle network for all", at=across, colour="none"))
    name_all(axes, labels, points, lines)
    return drawing.figure


def _headline_notes(run: Run, overall: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """How the headline is read, and over how many settings each mean is."""
    counts = shown.loc[shown["method"] != run.reference, "share_settings"].astype(int)
    some = " to ".join(map(str, sorted({counts.min(), counts.max()})))
    remarks = [
        f"points: means over the {some} of {len(run.settings)} settings with a benefit and a sound "
        "reference that is not the method itself",
        "bars: 95 % intervals",
        "thin lines with a foot: to the worst setting",
        "side by side: the same cost",
        f"shaded: equal within ±{100 * run.margin_share:g} %",
    ]
    if len(run.seeds) < ENOUGH_SEEDS:
        remarks.append("fewer than three seeds: orientation, no verdict")
    steps = {method: step_words(run, method) for method in featured(run)}
    remarks += [
        f"a step of {run.label(method)} {words}" for method, words in steps.items() if words
    ]
    left = overall[~overall["method"].isin(shown["method"])]
    drawable = left["share_mean"].notna() & (left["flops_ratio"] > 0)
    for why, rows in (
        ("not drawn, as no better than the middle network", left[drawable]),
        ("not shown, for want of a share or a cost", left[~drawable]),
    ):
        if len(rows):
            remarks.append(f"{why}: {', '.join(map(run.label, rows['method']))}")
    return remarks + hollow_note(run)


def _side_by_side(x: Points, step: float) -> Points:
    """Values that agree within 3 % set apart by the factor `step`, in their order."""
    apart, left = x.copy(), list(range(len(x)))
    while left:
        alike = [i for i in left if abs(math.log(x[i] / x[left[0]])) < 0.03]
        for place, i in enumerate(alike):
            apart[i] *= step ** (place - (len(alike) - 1) / 2)
        left = [i for i in left if i not in alike]
    return apart


def quality_compute(run: Run, quality: pd.DataFrame) -> Figure | None:
    """Mean loss gap to the fully trained reference against the compute of networks that were
    trained for shares of the steps, each with its whole schedule: a line where a method was trained
    for several lengths, one point where it was not. None where no method was."""
    known = quality[quality["flops"].gt(0) & quality["loss_gap"].notna()].sort_values("flops")
    if not known["method"].duplicated().any():
        return None
    full = known.loc[(known["method"] == run.reference) & (known["share"] == 1), "flops"]
    base = float(full.iloc[0]) if len(full) else 1.0
    drawing = Named(run, room_for_names(run))
    (axes,) = drawing.panels
    known = known.assign(compute=known["flops"] / base)
    columns = known.set_index("method")[["compute", "loss_gap", "low", "high"]]
    curves = {m: columns.loc[[m]].to_numpy(float) for m in run.methods if m in columns.index}
    spare = (known["compute"].max() / known["compute"].min()) ** 0.08
    compute_axis(axes, known["compute"].min() / spare, known["compute"].max() * spare)
    bands = columns.loc[columns.index.isin(featured(run)), ["low", "high"]]
    reached = [*known["loss_gap"], *bands.to_numpy(float).ravel()]
    gap_axis(axes, reached, margin_of(run.measures[LOSS]))
    lines = {method: _interpolated(curve) for method, curve in curves.items()}
    for method, curve in curves.items():
        marks, (x, gap, low, high) = drawing.looks[method], lines[method].T
        if len(curve) > 1:
            axes.plot(x, gap, **marks | {"marker": "none"})
        axes.plot(*curve[:, :2].T, **hollow(marks) if failing(run) else no_line(marks))
        if method in featured(run):
            axes.fill_between(x, low, high, color=marks["color"], alpha=0.18, linewidth=0)
    axes.set_ylabel(plain(f"mean {gap_title(run)[0]} ↓"))
    shares = ", ".join(f"{share:.3g}" for share in sorted(known["share"].unique()))
    remarks = [
        f"points: networks trained for {shares} of the steps, each with its whole schedule",
        "lines: the gap interpolated linearly in the logarithm of the compute",
        "gaps are to the grid's full training",
    ]
    arrow = None if failing(run) else _same_loss(run, curves)
    remarks += ["arrow: compute for the same loss"] if arrow is not None else []
    remarks += ["bands: 95 % intervals"] if bands.notna().all(axis=1).any() else []
    across = "compute, × the full grid's FLOPs" if len(full) else "FLOPs"
    drawing.finish(curves, across, [*remarks, *hollow_note(run)])
    traced = [line[:, :2] for line in lines.values()]
    traced.append(np.array([(end, 0.0) for end in axes.get_xlim()]))
    labels = [drawing.label(method, curve[::-1, :2]) for method, curve in curves.items()]
    if arrow is not None:
        line = {"arrowstyle": "<->", "color": "0.25", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", arrow[0], arrow[1], zorder=7, arrowprops=line)
        traced.append(arrow)
        (cost, level), (enough, _) = arrow
        at = [(cost * (enough / cost) ** share, level) for share in (0.5, 0.35, 0.65)]
        text = f"{enough / cost:.2g}× cheaper" if enough >= cost else f"{cost / enough:.2g}× dearer"
        labels.append(Label(text=text, at=at, colour="none", bold=True))
    name_all(axes, labels, np.concatenate([c[:, :2] for c in curves.values()]), traced)
    return drawing.figure


def _interpolated(curve: Points, parts: int = 48) -> Points:
    """A curve through points (compute, what follows from it) as it is interpolated, and so as it is
    drawn on any vertical scale: between two of them all is linear in the logarithm of the compute.
    """
    points = np.arange(len(curve))
    places = np.linspace(0, len(curve) - 1, parts * (len(curve) - 1) + 1)  # the points among them
    logs, *rest = (np.interp(places, points, c) for c in (np.log(curve[:, 0]), *curve[:, 1:].T))
    return np.stack([np.exp(logs), *rest], 1)


def _same_loss(run: Run, curves: dict[str, Points]) -> Points | None:
    """From the compute that the method under test needs for its gap to what the reference needs, at
    that gap: (2, 2). None where the reference's curve does not come down to it."""
    method = next((m for m in reversed(featured(run)) if m in curves), None)
    if method is None or run.reference not in curves:
        return None
    level = curves[method][-1, 1]
    cost = least_compute(curves[method][:, :2].tolist(), level)
    enough = needed(curves[run.reference][:, :2].tolist(), level)
    return None if math.isnan(enough) else np.array([(cost, level), (enough, level)])


def break_even(run: Run) -> Figure | None:
    """Cumulative cost against the number of settings: one network per setting, warm-started ones,
    and the conditioned networks, which cost once; FLOPs, and below them seconds where all were
    timed alone on one device. Of many that share a line some are named. None without the
    reference's costs."""
    once = [m for m in run.methods if m in featured(run) or (run.swept["method"] == m).any()]
    once = [m for m in once if m not in crowded_out(run)]
    crossings = break_evens(run)
    crossings = crossings[crossings["method"].isin(once)].dropna(subset="crossing")
    units = [unit for unit in ("flops", "seconds") if (crossings["unit"] == unit).any()]
    if not units:
        return None
    near = crossings.loc[crossings["crossing"] < FARTHEST, "crossing"]
    most = max(len(run.settings), 5, *(math.ceil(crossing + 1) for crossing in near))
    drawing = Named(run, 0.4 + 1.9 * len(units), len(units))
    drawn: list[dict[str, Points]] = []
    for axes, unit in zip(drawing.panels, units, strict=True):
        at = crossings[crossings["unit"] == unit]
        drawn.append(_cumulative(run, list(at["method"]), unit, most))
        for method, curve in drawn[-1].items():
            axes.plot(*curve.T, **drawing.looks[method] | {"markersize": 3})
        for crossing, low, high in at[["crossing", "low", "high"]].to_numpy(float):
            axes.hlines(crossing, low, high, linewidth=1.5, color="black", zorder=9)
            axes.plot(crossing, crossing, "*", markersize=8, color="black", zorder=9)
        ends = np.concatenate([curve[[0, -1], 1] for curve in drawn[-1].values()])
        if ends.max() > look.WIDE_RANGE:
            scale(axes, "y", ends)
        else:
            axes.set_ylim(0, 1.05 * ends.max())
        axes.set_xlim(0.8, most + 0.2)  # a break-even beyond is not seen
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        what = {"flops": "FLOPs", "seconds": "device seconds"}[unit]
        axes.set_ylabel(f"{what}, × one network")
    methods = [m for m in run.methods if any(m in curves for curves in drawn)]
    remarks = ["stars: where one conditioned network costs as much as the grid"]
    drawing.finish(methods, "number of settings", remarks + crowded_note(run))
    for axes, curves in zip(drawing.panels, drawn, strict=True):
        alike: dict[str, list[str]] = {}  # lines that cost the same share a name
        for method, curve in curves.items():
            same = (m for m in alike if np.allclose(curves[m], curve, rtol=0.02))
            alike.setdefault(next(same, method), []).append(method)
        labels = []
        for method, twins in alike.items():
            twins = sorted(twins, key=lambda m: m not in featured(run))
            named = twins if len(twins) <= TWINS else twins[: TWINS - 1]
            names = [drawing.called[m].replace(" ", "\u00a0") for m in named]
            names += [f"{len(twins) - len(named)}\u00a0more"] if len(named) < len(twins) else []
            text = textwrap.fill(", ".join(names), 40)
            labels.append(drawing.label(method, curves[method][::-1], text))
        name_all(axes, labels, [], curves.values())
    return drawing.figure


def _cumulative(run: Run, once: list[str], unit: str, most: int) -> dict[str, Points]:
    """Number of settings and the cost for so many, over that of one fixed network, per method."""

    def costs(entries: pd.DataFrame, *, answering: bool = False) -> pd.Series:
        return costs_by_seed(run, entries, answering=answering).mean(skipna=False)

    entries = dict(iter(run.measured.groupby("method")))
    grid = costs(entries[run.reference])
    per, counts = grid[unit] / grid["networks"], np.arange(1.0, most + 1)
    curves: dict[Any, Points] = {run.reference: counts}
    if run.warm in entries:  # its first network, and as much for each further one
        first_and_further = costs(entries[run.warm])
        first = min(costs(at)[unit] for _, at in entries[run.warm].groupby("setting"))
        further = (first_and_further[unit] - first) / max(1, first_and_further["networks"] - 1)
        if math.isfinite(further):
            curves[run.warm] = (first + (counts - 1) * further) / per
    for method in once:
        total = costs(entries[method], answering=True)[unit]
        curves[method] = np.full(most, total / per)
    return {method: np.stack([counts, curve], 1) for method, curve in curves.items()}

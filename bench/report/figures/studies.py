"""What is lost against the width of the model, the range of the coefficients, the length of the
training; and what coefficients cost, the more there are: the studies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.answers import studies
from bench.report.answers.reference import LOSS, margin_of
from bench.report.answers.stats import ENOUGH_SEEDS
from bench.report.answers.verdict import FAILS
from bench.report.appearance import Look, hollow, looks
from bench.report.figures.look import (
    DOUBLE,
    gap_axis,
    legend_above,
    note,
    plain,
    plain_ticks,
    settle,
)
from bench.report.headings import in_its_unit
from bench.report.load import Run

ACROSS = {
    "width": "width of the model, × the plain one's",
    "range": "range of the coefficient, high end over low end",
    "share": "share of the training's steps",
}
# Of the same point, and of the home run.
GRIDS = {
    "width": ("same-width", "1×"),
    "range": ("same-range", "plain"),
    "share": ("same-length", "full"),
}
LINES = 5  # methods under test
COUNT = "coefficients"
MOST = 14  # methods in all, as many as can be told apart
APART = 0.24  # doublings, from the first method's intervals to the last's


def factors(run: Run, overall: pd.DataFrame) -> Iterable[tuple[str]]:
    """The factors of which a run has a study, but for the number of coefficients."""
    return [(name,) for name in studies.FACTORS if name != COUNT and studies.lines(run, name)]


def gap_study(run: Run, study: pd.DataFrame, factor: str) -> Figure | None:
    """Panels against a factor, on a doubling scale, at the home run's other factors: the share of
    the benefit lost and the loss gap to the grid of the same point, and the gap to the home run's
    grid; of the networks under test, with 95 % bands, and of the wider grids themselves. Hollow
    where the reference fails."""
    at = _along(run, study, factor)
    methods = [method for method in run.under_test if (at["method"] == method).any()][:LINES]
    if not methods:
        return None
    own, base = GRIDS[factor]
    margin, gap = margin_of(run.measures[LOSS]), in_its_unit(run, "loss gap")
    panels = {
        "share": (f"benefit lost (%), to the {own} grid", 100 * run.margin_share, methods),
        "gap": (f"{gap}, to the {own} grid", margin, methods),
        "base": (f"{gap}, to the {base} grid", margin, [*methods, run.reference or ""]),
    }
    shares = _columns("share")
    at = at.assign(**{name: 100 * at[name].astype(float) for name in shares})
    known = {name: at.loc[at[_columns(name)[0]].notna(), factor].nunique() for name in panels}
    if known["base"] < 2:  # with other settings there is nothing to compare
        known["base"] = 0
    shown = {name: what for name, what in panels.items() if known[name]}
    figure = Figure(figsize=(DOUBLE, 2.3), layout="constrained")
    marks = looks(run)
    for axes, (name, (title, margin, drawn)) in zip(
        figure.subplots(1, len(shown), squeeze=False).flat, shown.items(), strict=True
    ):
        _across(axes, at[factor])
        reached: list[float] = []
        for method in drawn:
            reached += _drawn(axes, at[at["method"] == method], factor, name, marks[method])
        gap_axis(axes, reached, margin)
        _entitle(axes, title)
    figure.supxlabel("")
    names = {method: marks[method] for method in methods}
    if "base" in shown and at.loc[at["method"] == run.reference, "base"].notna().any():
        names[run.reference or ""] = marks[run.reference or ""]
    handles = [Line2D([], [], **look, label=plain(run.label(m))) for m, look in names.items()]
    legend_above(figure, handles)
    note(figure, _remarks(run, at, factor), DOUBLE)
    settle(figure)
    return figure


def _along(run: Run, study: pd.DataFrame, factor: str) -> pd.DataFrame:
    """The rows of a study at the home run's other factors, in the order of this one."""
    line = studies.lines(run, factor)[0]
    fixed = [name for name in studies.FACTORS if name != factor]
    at = study[(study[fixed] == [getattr(line[0], name) for name in fixed]).all(axis=1)]
    return at.sort_values(factor, kind="stable")


def _across(axes: Axes, values: pd.Series[float]) -> None:
    """A horizontal axis on which doublings are as long as each other."""
    low, high = float(values.min()), float(values.max())
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / (high / low) ** 0.07, high * (high / low) ** 0.07)
    plain_ticks(axes.xaxis, ticker.FixedLocator(sorted(values.unique())))


def _entitle(axes: Axes, title: str) -> None:
    axes.set_title(plain(title), loc="left", fontsize=7)
    axes.set_ylabel("")
    sns.despine(ax=axes)


def _columns(name: str) -> list[str]:
    mean = {"share": "share_mean"}.get(name, name)
    return [mean, f"{name}_low", f"{name}_high"]


def _drawn(axes: Axes, at: pd.DataFrame, factor: str, name: str, look: Look) -> list[float]:
    """A method's line with its band; the values that must be seen."""
    at = at[at[_columns(name)[0]].notna()]
    x, (mean, low, high) = at[factor].to_numpy(float), at[_columns(name)].to_numpy(float).T
    axes.plot(x, mean, **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
    silent = at["verdict"].str.startswith(FAILS).to_numpy(bool)
    if silent.any():
        axes.plot(x[silent], mean[silent], **hollow(look))
    return [value for value in np.concatenate([mean, low, high]) if np.isfinite(value)]


def _remarks(run: Run, at: pd.DataFrame, factor: str) -> list[str]:
    remarks = [
        f"across: {ACROSS[factor]}",
        "means over settings; bands: 95 % intervals over seeds and examples",
        f"shaded: {100 * run.margin_share:g} % of the benefit, and the loss's own margin",
    ]
    if at["verdict"].str.startswith(FAILS).any():
        remarks.append("hollow: no verdict, for a reference fails")
    if len(run.seeds) < ENOUGH_SEEDS:
        remarks.append("fewer than three seeds: orientation, no verdict")
    return remarks


# How methods scale with the number of coefficients ----------------------------------------------


def scaling(run: Run, study: pd.DataFrame) -> Figure | None:
    """Panels against the number of coefficients, at the home run's other factors, of every method
    that was measured with two numbers or more: the parameters that are kept and the processor time
    of a step, over those of one fixed network of the same point, and the share of the benefit lost
    with its 95 % intervals, hollow where the reference fails. Where processor time is not known,
    FLOPs. No lines for parameters that grow with the settings, and for what costs as a fixed
    network does."""
    if not studies.lines(run, COUNT):
        return None
    at = _along(run, study, COUNT)
    known = at[at["share_mean"].notna() | at["kept_ratio"].notna()]  # nothing of other grids is
    several = known.groupby("method")[COUNT].nunique() > 1
    names = [m for m in run.methods if several.get(m, False) and m != run.reference][:MOST]
    if not names:
        return None
    at = at[at["method"].isin(names)]
    at = at.assign(**{name: 100 * at[name].astype(float) for name in _columns("share")})
    timed = at["time_ratio"].notna().all()
    costs = {"kept_ratio": "parameters", "step_ratio": "FLOPs a step"}
    figure = Figure(figsize=(DOUBLE, 2.5), layout="constrained")
    marks = looks(run)
    *places, lost = figure.subplots(1, 3)
    for axes, (column, what) in zip(places, costs.items(), strict=True):
        moves = at.groupby("method")[column].agg(lambda ratios: (ratios.dropna() != 1).any())
        if column == "step_ratio" and timed:
            column, what = "time_ratio", "processor time a step"
        ratios = [1.0]
        for method in filter(moves.get, names):
            part = at[at["method"] == method].dropna(subset=column)
            axes.plot(part[COUNT], part[column], **marks[method])
            ratios += list(part[column])
        _across(axes, at[COUNT])
        axes.axhline(1, color="black", linewidth=1.0, zorder=2)
        _ratio_axis(axes, ratios)
        _entitle(axes, f"{what}, × a fixed network's")
    reached: list[float] = []
    for place, method in enumerate(names):
        away = (place - (len(names) - 1) / 2) / len(names)
        reached += _with_bars(lost, at[at["method"] == method], away, marks[method])
    _across(lost, at[COUNT])
    margin = 100 * run.margin_share
    means = [value for value in at["share_mean"] if np.isfinite(value)] + [0.0]
    # Where one seed of three fails, its interval would leave no room for the others.
    reached = list(np.clip(reached, min(means) - margin, 1.5 * max(means) + margin))
    gap_axis(lost, reached, margin)
    _entitle(lost, "benefit lost (%)")
    figure.supxlabel("")
    legend_above(figure, [Line2D([], [], **marks[m], label=plain(run.label(m))) for m in names])
    note(figure, _scaling_remarks(run, at, bool(timed)), DOUBLE)
    settle(figure)
    return figure


def _ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """A vertical axis on which doublings are as long as each other."""
    low, high = min(ratios), max(ratios)
    margin = max((high / low) ** 0.08, 1.05)
    axes.set_yscale("log", base=2)
    axes.set_ylim(low / margin, high * margin)
    plain_ticks(axes.yaxis, ticker.LogLocator(base=2, subs=(1, 1.5) if high < 6 * low else (1,)))


def _with_bars(axes: Axes, at: pd.DataFrame, away: float, look: Look) -> list[float]:
    """A method's line, `away` from the others' by so much of APART, with its intervals; the values
    that must be seen."""
    at = at[at["share_mean"].notna()]
    x = at[COUNT].to_numpy(float) * 2 ** (away * APART)
    mean, low, high = at[_columns("share")].to_numpy(float).T
    axes.plot(x, mean, **look)
    axes.vlines(x, low, high, color=look["color"], linewidth=0.8, zorder=look["zorder"] - 0.5)
    silent = at["verdict"].str.startswith(FAILS).to_numpy(bool)
    if silent.any():
        axes.plot(x[silent], mean[silent], **hollow(look))
    return [value for value in np.concatenate([mean, low, high]) if np.isfinite(value)]


def _scaling_remarks(run: Run, at: pd.DataFrame, timed: bool) -> list[str]:
    remarks = [
        "across: number of coefficients; black: one fixed network of the same size",
        "no line: parameters that grow with the settings, and what costs as a fixed network does",
        "benefit lost: means over settings with 95 % intervals, which may leave the panel",
        f"shaded: {100 * run.margin_share:g} % of the benefit",
    ]
    if timed and run.cells["shared_device"].astype(bool).any():
        remarks.append("networks shared the processor: times are rough")
    if at["verdict"].str.startswith(FAILS).any():
        remarks.append("hollow: no verdict, for a reference fails")
    if len(run.seeds) < ENOUGH_SEEDS:
        remarks.append("fewer than three seeds: orientation, no verdict")
    return remarks

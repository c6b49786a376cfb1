"""The figures of a run: what is lost against what is saved, fronts, gaps, break-even, the knob.

    figures(run, summary, comparisons, overall, quality)    all of them as SVG and PNG

Each is a function that returns a figure, or None where the run has no data for it. Names stand
beside what they name wherever one panel holds all methods.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import style as mpl_style
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.report import compare
from bench.report.compare import LOST, WARM
from bench.report.costs import GRID, break_evens, costs_by_seed
from bench.report.labels import Label, along, name_all
from bench.report.lengths import needed
from bench.report.load import Run, file_name
from bench.report.reference import LOSS, in_percent, margin_of
from bench.report.stats import ENOUGH_SEEDS
from bench.report.style import (
    COLOURS,
    DASHES,
    DOUBLE,
    DPI,
    SINGLE,
    STYLE,
    WIDE_RANGE,
    cell,
    compute_axis,
    gap_axis,
    handle,
    hollow,
    legend_above,
    looks,
    no_line,
    note,
    plain,
    ring,
    scale,
    settle,
    sides,
    two_lines,
)
from bench.report.sweeps import samples, sweeps
from bench.report.tables import SIGN, gap_title, main_measures
from bench.report.text import measure_label, method_label, number, one_line
from bench.report.verdict import FAILS, MIXED, UNDER_TEST

GREYS = ["0.55", "0.7", "0.4"]
GOOD_BAD = LinearSegmentedColormap.from_list("good_bad", ["#0173b2", "#ffffff", "#d55e00"])
VARIANTS = 2  # of methods that panels call by their full names
CROWD = 4  # with more methods than this, bands are drawn for those under test only
MARKS = {"better": "✓", "equal": "=", "worse": "✗", "undecided": "?", MIXED: "≷"}
DOUBT = "°"  # of a claim that does not stand after Holm's correction, as in the tables
FARTHEST = 30  # settings up to which a break-even is drawn
CELL = 0.31  # inches that a number with its mark needs


def figures(
    run: Run,
    summary: pd.DataFrame,
    comparisons: pd.DataFrame,
    overall: pd.DataFrame,
    quality: pd.DataFrame,
) -> dict[str, dict[str, bytes]]:
    """Every figure by file name without ending, as {"svg": bytes, "png": bytes}; sample sheets
    have a PNG alone, sweeps a GIF and a PNG.

    The frames are those of `bench/report/compare.py`: `summary`, `comparisons`, `overall` and
    `quality_compute`. A figure for which a run has no data is left out.
    """
    told = _told(run, overall)
    drawn: dict[str, dict[str, bytes]] = {}

    def draw(name: str, figure: Figure | None) -> None:
        if figure is not None:
            drawn[name] = _saved(figure)

    with mpl_style.context(["default", sns.axes_style("ticks"), STYLE]):
        draw("headline", headline(run, overall))
        draw("heatmap", heatmap(run, comparisons, overall))
        for x, y in run.fronts:
            if summary[[x, y]].dropna().size:
                draw(file_name(f"front_{x}_{y}"), front(run, summary, x, y))
        if len(run.records):
            draw("measures", measures(run, summary))
        if (comparisons["pairs"] > 0).any():
            draw("gap", gap(run, comparisons))
        draw("quality_compute", quality_compute(run, quality))
        draw("break_even", break_even(run))
        for method in told:
            draw(f"cross_{re.sub(r'[^A-Za-z0-9]+', '_', method).strip('_')}", cross(run, method))
    if (sheet := samples(run, _for_sheet(run, overall))) is not None:
        drawn["samples"] = {"png": sheet}
    return drawn | (sweeps(run, told[-1]) if told else {})


def _saved(figure: Figure) -> dict[str, bytes]:
    """Both files from one layout; `savefig` would draw everything twice as often."""
    settle(figure)
    svg, png = BytesIO(), BytesIO()
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return {"svg": svg.getvalue(), "png": png.getvalue()}


def _told(run: Run, overall: pd.DataFrame) -> list[str]:
    """The methods under test, the published one first; without them the best that was swept."""
    found = [method for method in reversed(UNDER_TEST) if method in run.methods]
    swept = overall[overall["method"].isin(run.swept["method"])].dropna(subset="loss_gap_mean")
    best = swept.sort_values("loss_gap_mean")["method"]
    return found or list(best.head(1))


def _for_sheet(run: Run, overall: pd.DataFrame) -> list[str]:
    """The grid, the methods under test, then the others from the smallest loss gap on."""
    first = [method for method in (GRID, *UNDER_TEST) if method in run.methods]
    order = overall.sort_values("loss_gap_mean")["method"]
    return first + [method for method in order if method not in first]


# What is lost and what is saved -----------------------------------------------------------------


def headline(run: Run, overall: pd.DataFrame) -> Figure | None:
    """Share of the benefit lost at matched coefficients against compute, one named point a method:
    the mean with its 95 % interval, and a thin line to the worst setting. Hollow where there is no
    verdict since the reference fails. None without a grid or a method with a share."""
    known = overall["share_mean"].notna() & (overall["flops_ratio"] > 0)
    if not known.any():
        return None
    shown = overall[known | (overall["method"] == GRID)]
    figure = Figure(figsize=(SINGLE, _height(run) + 0.3), layout="constrained")
    axes = figure.subplots()
    styles = looks(run.methods)
    shown = shown.sort_values("share_mean", ascending=False, na_position="last")
    x = shown["flops_ratio"].to_numpy(float)
    y = shown["share_mean"].fillna(0.0).to_numpy(float)  # the grid loses nothing of itself
    low, high, worst = (
        shown[f"share_{end}"].to_numpy(float, copy=True) for end in ("low", "high", "worst")
    )
    for end in (low, high, worst):
        end[np.isnan(end)] = y[np.isnan(end)]
    spare = max(x.max() / x.min(), 3) ** 0.12
    limits = (x.min() / spare**2, x.max() * spare)  # names need room on the left
    compute_axis(axes, *limits)
    x = _side_by_side(x, (limits[1] / limits[0]) ** 0.016)
    gap_axis(axes, [*y, *low, *high, *worst, 1.0], run.margin_share)
    axes.axhline(1, color="0.45", linewidth=0.8, dashes=(4, 2), zorder=1)
    silent = shown["verdict"].str.startswith(FAILS) | ((shown["method"] == GRID) & _fails(run))
    points = list(zip(x, y, strict=True))
    for place, (method, point) in enumerate(zip(shown["method"], points, strict=True)):
        look = hollow(styles[method]) if silent.iloc[place] else no_line(styles[method])
        line = {"color": look["color"], "zorder": 3}
        axes.vlines(point[0], low[place], high[place], **line, linewidth=1.4)
        axes.vlines(point[0], point[1], worst[place], **line, linewidth=0.5)
        if worst[place] > point[1]:
            axes.plot(point[0], worst[place], "_", **line, markersize=4, markeredgewidth=0.9)
        axes.plot(*point, **look)
    axes.set_xlabel("compute for all settings, × the grid's FLOPs ↓")
    axes.set_ylabel("share of the benefit lost ↓")
    sns.despine(ax=axes)
    called, key = _called(list(shown["method"]))
    note(figure, [*_headline_notes(run, overall, shown), *key], SINGLE)
    settle(figure)
    ends = zip(x, np.minimum(low, worst), np.maximum(high, worst), strict=True)
    bars = [along(axes, [(place, bottom), (place, top)]) for place, bottom, top in ends]
    bars += [along(axes, [(end, level) for end in axes.get_xlim()]) for level in (0.0, 1.0)]
    names = [
        _label(method, called[method], [point], styles[method])
        for method, point in zip(shown["method"], points, strict=True)
    ]
    across = [limits[0] * (limits[1] / limits[0]) ** part for part in (0.85, 0.7, 0.55)]
    words = Label(text="the middle network for all", at=[(a, 1) for a in across], colour="none")
    name_all(axes, [*names, words], np.concatenate([ring(axes, points), *bars]))
    return figure


def _headline_notes(run: Run, overall: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """How the headline is read, and over how many settings each mean is."""
    counts = shown.loc[shown["method"] != GRID, "share_settings"].astype(int)
    least, most = counts.min(), counts.max()
    some = f"{least}" if least == most else f"{least} to {most}"
    said = [
        f"points: means over the {some} of {len(run.settings)} settings with a benefit and a sound "
        "reference that is not the method itself",
        "bars: 95 % intervals",
        "thin lines with a foot: to the worst setting",
        "side by side: the same cost",
        f"shaded: equal within ±{100 * run.margin_share:g} %",
    ]
    if len(run.seeds) < ENOUGH_SEEDS:
        said.append("fewer than three seeds: orientation, no verdict")
    missing = [m for m in overall["method"] if m not in set(shown["method"])]
    if missing:
        names = ", ".join(method_label(m) for m in missing)
        said.append(f"not shown, for want of a share or a cost: {names}")
    return said + _hollow_note(run)


def failing(run: Run) -> list[str]:
    """The settings at which another network of the grid does better than the one trained for them:
    there a figure says neither better nor worse."""
    return list(run.yardstick.failing) if run.yardstick else []


def _fails(run: Run) -> bool:
    return bool(failing(run))


def _hollow_note(run: Run) -> list[str]:
    """What hollow means, where there is something hollow."""
    if not (settings := failing(run)):
        return []
    labels = run.labels()
    places = ", ".join(one_line(labels[setting]) for setting in settings)
    symbol = f"{one_line(run.axes[0].symbol)} = " if len(run.axes) == 1 else ""
    return [f"hollow: no verdict, for the reference fails at {symbol}{places}"]


def _side_by_side(x: np.ndarray, step: float) -> np.ndarray:
    """Values that agree within 3 % set apart by the factor `step`, in their order."""
    found = x.copy()
    left = set(range(len(x)))
    while left:
        first = min(left)
        alike = [i for i in sorted(left) if abs(math.log(x[i] / x[first])) < 0.03]
        for place, i in enumerate(alike):
            found[i] = x[i] * step ** (place - (len(alike) - 1) / 2)
        left -= set(alike)
    return found


def heatmap(run: Run, comparisons: pd.DataFrame, overall: pd.DataFrame) -> Figure | None:
    """The loss gap of every method (the best first) at every setting with its verdict, and beside
    it the share of the benefit lost, mean and worst. Numbers and marks say all; colour (blue
    better, orange worse) is for the overview. Where the reference fails a cell is hatched, has no
    colour and no mark."""
    of_loss = comparisons[(comparisons["measure"] == LOSS) & (comparisons["method"] != GRID)]
    if not (of_loss["pairs"] > 0).any():
        return None
    by_share = overall[overall["method"] != GRID].sort_values(["share_mean", "loss_gap_mean"])
    shares = by_share.set_index("method")
    at = of_loss.set_index(["method", "setting"])
    parts = ["mean", "worst"] if shares["share_mean"].notna().any() else []
    names = [two_lines(method, 24) for method in shares.index]
    tall = [1 + 0.6 * name.count("\n") for name in names]
    several = len(run.axes) > 1
    aside = 0.1 + 0.052 * max(len(line) for name in names for line in name.split("\n"))
    count = len(run.settings)
    width = SINGLE if (SINGLE - aside) / (count + len(parts) + 0.2) > CELL else DOUBLE
    figure = Figure(figsize=(width, 0.19 * sum(tall) + (0.65 if several else 0.45)))
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.subplots()

    sizes = of_loss.loc[~of_loss["reference_fails"].astype(bool), "gap"].abs()
    most = max(min(sizes.max(), 10 * sizes.median()), 1e-12) if sizes.notna().any() else 1.0
    margin = margin_of(run.measures[LOSS])
    soft = margin if margin > 0 else most / 50  # where shades begin
    tops = np.cumsum([0.0, *tall])
    for row, method in enumerate(shares.index):
        for column, setting in enumerate(run.settings):
            found = _heat_cell(run, at, method, setting)
            corner = (float(column), float(tops[row]))
            colour = to_rgba("0.93") if found.value is None else _shade(found.value, soft, most)
            cell(axes, corner, tall[row], colour, found.text, 6.0, hatched=found.hatched)
        for place, part in enumerate(parts):
            value, verdict = shares.at[method, f"share_{part}"], shares.at[method, "verdict"]
            silent = verdict.startswith(FAILS)
            mark = MARKS.get(verdict, "") if part == "mean" else ""
            mark += _doubtful(mark, shares.at[method, "stands"])
            text = f"{_share(value)}{mark}" if math.isfinite(value) else "—"
            grey = silent or not math.isfinite(value)
            colour = to_rgba("0.93") if grey else _shade(value, run.margin_share, 2.0)
            corner = (count + 0.2 + place, float(tops[row]))  # the shares stand apart
            bold = part == "mean" and verdict in MARKS
            cell(axes, corner, tall[row], colour, text, 6.0, bold=bold, hatched=silent)
    lefts = [*range(count), *(count + 0.2 + place for place in range(len(parts)))]
    axes.set_xlim(0, lefts[-1] + 1)
    axes.set_ylim(tops[-1], 0)
    signs = {setting: SIGN.strip() for setting in failing(run)}
    heads = [plain(label) + signs.get(s, "") for s, label in run.labels().items()] + parts
    sides(axes, heads, names, [left + 0.5 for left in lefts], (tops[1:] + tops[:-1]) / 2)
    axes.tick_params(axis="x", rotation=90 if several else 0, labelsize=6)
    title = gap_title(run)[0] + ("" if several else f" at {one_line(run.axes[0].symbol)} =")
    axes.set_title(plain(title), loc="left", fontsize=7, pad=4)
    if parts:
        axes.set_title("share lost", loc="right", fontsize=7, pad=4)
    note(figure, _heat_notes(run, of_loss, shares), width)
    return figure


class _Heat(NamedTuple):
    text: str
    value: float | None  # what colours the cell
    hatched: bool = False


def _heat_cell(run: Run, at: pd.DataFrame, method: str, setting: str) -> _Heat:
    """What the heat map says of one method at one setting."""
    status = run.measured[(run.measured["method"] == method) & (run.measured["setting"] == setting)]
    if len(status) and status["status"].isin(LOST).all():
        return _Heat("failed", None)
    if (method, setting) not in at.index or not math.isfinite(at.at[(method, setting), "gap"]):
        return _Heat("—", None)
    row = at.loc[(method, setting)]
    if row["is_reference"]:
        return _Heat("ref.", None)
    if row["reference_fails"]:
        return _Heat(f"({_brief(row['gap'])})", None, hatched=True)
    mark = MARKS.get(row["verdict"], "")
    return _Heat(f"{_brief(row['gap'])}{mark}{_doubtful(mark, row['stands'])}", row["gap"])


def _heat_notes(run: Run, of_loss: pd.DataFrame, shares: pd.DataFrame) -> list[str]:
    """The signs that are on the heat map, and no others."""
    drawn = of_loss[~of_loss["is_reference"].astype(bool)]
    claims = {*drawn["verdict"], *shares["verdict"]}
    equal = f"equal within {100 * run.margin_share:g} % of the benefit"
    if margin_of(run.measures[LOSS]) > 0:
        equal += f", {_margin(run)} where there is none"
    words = {"equal": equal, "undecided": "undecided (95 %)"}
    words[MIXED] = "equal or better in the mean, worse at a setting"
    said = [
        f"{mark}\u00a0{words.get(word, word)}" for word, mark in MARKS.items() if word in claims
    ]
    both = pd.concat([drawn[["verdict", "stands"]], shares[["verdict", "stands"]]])
    bold = both["verdict"].isin(["better", "equal", "worse"])
    if (bold & ~both["stands"].astype(bool)).any():
        said.append(f"{DOUBT}\u00a0does not stand after Holm's correction")
    if of_loss["is_reference"].any():
        said.append("ref.: the grid's own network")
    if failing(run):
        said.append(f"{SIGN.strip()}\u00a0hatched, in brackets: the reference fails, no verdict")
    if len(run.seeds) < ENOUGH_SEEDS:
        said.append("fewer than three seeds: orientation, no verdicts")
    return said


def _doubtful(mark: str, stands: bool) -> str:
    """A claim that does not survive Holm's correction over its table has a small circle."""
    return DOUBT if mark in (MARKS["better"], MARKS["equal"], MARKS["worse"]) and not stands else ""


def _shade(value: float, soft: float, most: float) -> Any:
    """Blue below nothing, orange above, linear up to `soft` and logarithmic beyond."""
    shade = float(np.clip(np.arcsinh(value / soft) / np.arcsinh(most / soft), -1, 1))
    return GOOD_BAD(0.5 + 0.5 * shade)


def _share(value: float) -> str:
    """`0.12`, `−0.03`, `3.7`, `66`: a share of the benefit that fits a small cell."""
    size = abs(value)
    return number(value, 2 if size < 0.995 else 1 if size < 9.95 else 0)


def quality_compute(run: Run, quality: pd.DataFrame) -> Figure | None:
    """Mean loss gap to the fully trained grid against the compute of networks that were trained for
    shares of the steps, each with its whole schedule: a line where a method was trained for several
    lengths, one point where it was not. None where no method was."""
    known = quality[quality["flops"].gt(0) & quality["loss_gap"].notna()]
    lines = known["method"].map(known.groupby("method").size()) > 1
    if not lines.any():
        return None
    full = known.loc[(known["method"] == GRID) & (known["share"] == 1), "flops"]
    base = float(full.iloc[0]) if len(full) else 1.0
    figure = Figure(figsize=(SINGLE, _height(run)), layout="constrained")
    axes = figure.subplots()
    styles = looks(run.methods)
    curves: dict[str, list[tuple[float, float]]] = {}
    for method in run.methods:
        own = known[known["method"] == method].sort_values("flops")
        if len(own):
            curves[method] = list(zip(own["flops"] / base, own["loss_gap"], strict=True))
    spent = [x for curve in curves.values() for x, _ in curve]
    spare = (max(spent) / min(spent)) ** 0.08
    compute_axis(axes, min(spent) / spare, max(spent) * spare)
    under_test = known[known["method"].isin(COLOURS)]
    reached = [*known["loss_gap"], *under_test["low"], *under_test["high"]]
    gap_axis(axes, reached, margin_of(run.measures[LOSS]))
    drawn = {method: _between(curve) for method, curve in curves.items()}
    for method, curve in curves.items():
        look = styles[method]
        if len(curve) > 1:
            axes.plot(*_columns(drawn[method]), **look | {"marker": "none"})
        axes.plot(*_columns(curve), **hollow(look) if _fails(run) else no_line(look))
        if method in COLOURS:
            _band(axes, known[known["method"] == method], base, look["color"])
    axes.set_xlabel("compute, × the full grid's FLOPs" if len(full) else "FLOPs")
    axes.set_ylabel(plain(f"mean {gap_title(run)[0]} ↓"))
    sns.despine(ax=axes)
    shares = ", ".join(f"{share:.3g}" for share in sorted(known["share"].unique()))
    said = [
        f"points: networks trained for {shares} of the steps, each with its whole schedule",
        "lines: the gap interpolated linearly in the logarithm of the compute",
        "gaps are to the grid's full training",
    ]
    saved = None if _fails(run) else equal_loss(curves)
    if saved is not None:
        said.append("arrow: compute for the same loss")
    if len(under_test[["low", "high"]].dropna()):
        said.append("bands: 95 % intervals")
    called, key = _called(list(curves))
    note(figure, [*said, *_hollow_note(run), *key], SINGLE)
    settle(figure)
    traced = [along(axes, curve) for curve in drawn.values()]
    traced.append(along(axes, [(end, 0.0) for end in axes.get_xlim()]))
    points = [point for curve in curves.values() for point in curve]
    names = [_label(m, called[m], curve[::-1], styles[m]) for m, curve in curves.items()]
    if saved is not None:
        cost, enough, level = saved
        arrow = {"arrowstyle": "<->", "color": "0.25", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (cost, level), (enough, level), zorder=7, arrowprops=arrow)
        traced.append(along(axes, [(cost, level), (enough, level)]))
        spots = [(cost * (enough / cost) ** share, level) for share in (0.5, 0.35, 0.65)]
        text = f"{enough / cost:.2g}× cheaper" if enough >= cost else f"{cost / enough:.2g}× dearer"
        names.append(Label(text=text, at=spots, colour="none", bold=True))
    name_all(axes, names, np.concatenate([ring(axes, points), *traced]))
    return figure


def _band(axes: Axes, quality: pd.DataFrame, base: float, colour: Any) -> None:
    """The intervals around a curve of `quality_compute`, interpolated as it is."""
    own = quality.sort_values("flops")
    across = own["flops"] / base
    (x, low), (_, high) = (
        _columns(_between(list(zip(across, own[end], strict=True)))) for end in ("low", "high")
    )
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _between(curve: list[tuple[float, float]], parts: int = 48) -> list[tuple[float, float]]:
    """A curve through points of (compute, gap) as it is interpolated, and so as it is drawn on any
    vertical scale: between two of them the gap is linear in the logarithm of the compute."""
    x, y = (np.array(column) for column in _columns(curve))
    places = np.linspace(
        0, len(x) - 1, parts * (len(x) - 1) + 1
    )  # the points themselves among them
    logs = np.interp(places, np.arange(len(x)), np.log(x))
    return list(zip(np.exp(logs), np.interp(places, np.arange(len(x)), y), strict=True))


def equal_loss(curves: dict[str, list[tuple[float, float]]]) -> tuple[float, float, float] | None:
    """The compute of the method under test, what the grid needs for the same gap, and that gap:
    where the grid's curve, as `_between` draws it, comes down to it. None where it does not."""
    method = next((m for m in UNDER_TEST if m in curves), None)
    if method is None or GRID not in curves:
        return None
    cost, level = max(curves[method])
    crossing = needed(curves[GRID], level)
    return None if math.isnan(crossing) else (cost, crossing, level)


def break_even(run: Run) -> Figure | None:
    """Cumulative cost against the number of settings: one network per setting, warm-started ones,
    and the conditioned networks, which cost once; FLOPs, and below them seconds where all were
    timed alone on one device. None without the grid's costs."""
    told = [m for m in run.methods if m in UNDER_TEST or (run.swept["method"] == m).any()]
    found = break_evens(run)
    found = found[found["method"].isin(told)].dropna(subset="crossing")
    panels = [unit for unit in ("flops", "seconds") if (found["unit"] == unit).any()]
    if not panels:
        return None
    near = found.loc[found["crossing"] < FARTHEST, "crossing"]
    most = max(len(run.settings), 5, *(math.ceil(crossing + 1) for crossing in near))
    styles = looks(run.methods)
    figure = Figure(figsize=(SINGLE, 0.4 + 1.9 * len(panels)), layout="constrained")
    every = list(figure.subplots(len(panels), sharex=True, squeeze=False).flat)
    drawn = {
        unit: _cumulative(run, found.loc[found["unit"] == unit, "method"], unit, most)
        for unit in panels
    }
    for axes, (unit, curves) in zip(every, drawn.items(), strict=True):
        for method, curve in curves.items():
            axes.plot(*_columns(curve), **styles[method] | {"markersize": 3})
        for row in found[found["unit"] == unit].to_dict("records"):
            spot = {"color": "black", "zorder": 9}
            axes.hlines(row["crossing"], row["low"], row["high"], linewidth=1.5, **spot)
            axes.plot(row["crossing"], row["crossing"], "*", markersize=8, **spot)
        ends = [cost for curve in curves.values() for _, cost in (curve[0], curve[-1])]
        if max(ends) > WIDE_RANGE:
            scale(axes, "y", ends)
        else:
            axes.set_ylim(0, 1.05 * max(ends))
        axes.set_xlim(0.8, most + 0.2)  # a break-even beyond is not seen
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        what = {"flops": "FLOPs", "seconds": "device seconds"}[unit]
        axes.set_ylabel(f"{what}, × one network")
        sns.despine(ax=axes)
    axes.set_xlabel("number of settings")
    called, key = _called([m for m in run.methods if any(m in curves for curves in drawn.values())])
    note(figure, ["stars: where one conditioned network costs as much as the grid", *key], SINGLE)
    settle(figure)
    for axes, curves in zip(every, drawn.values(), strict=True):
        alike: list[list[str]] = []  # lines that cost the same share a name
        for method, curve in curves.items():
            twins = (group for group in alike if np.allclose(curves[group[0]], curve, rtol=0.02))
            if (twin := next(twins, None)) is None:
                alike.append([method])
            else:
                twin.append(method)
        names = []
        for first, *others in alike:
            alike_names = ", ".join(called[m].replace(" ", "\u00a0") for m in (first, *others))
            text = textwrap.fill(alike_names, 40)
            names.append(_label(first, text, curves[first][::-1], styles[first]))
        traced = [along(axes, curve) for curve in curves.values()]
        name_all(axes, names, np.concatenate(traced))
    return figure


def _cumulative(
    run: Run, told: Iterable[str], unit: str, most: int
) -> dict[str, list[tuple[float, float]]]:
    """Number of settings and the cost for so many, over that of one fixed network, per method."""
    counts = np.arange(1.0, most + 1)
    per = float(np.mean(_per_network(run, GRID, unit)))
    curves = {GRID: counts}
    if WARM in run.methods and (steps := _per_network(run, WARM, unit)):
        curves[WARM] = (steps[0] + (counts - 1) * float(np.mean(steps[1:] or steps))) / per
    for method in told:
        entries = run.measured[run.measured["method"] == method]
        curves[method] = np.full(most, costs_by_seed(run, entries)[unit].mean() / per)
    return {method: list(zip(counts, curve, strict=True)) for method, curve in curves.items()}


def _per_network(run: Run, method: str, unit: str) -> list[float]:
    """The costs of a method's different networks, those they started from first, as means over
    seeds; [] where one is not known or shared its device."""
    cells = run.cells.set_index("cell")
    costs = cells[unit].astype(float)
    if unit == "seconds":
        costs = costs.mask(cells["shared_device"].astype(bool))
    seeds = []
    for _, used in run.measured[run.measured["method"] == method].groupby("seed")["cells"]:
        own = sorted({cell for cells_of_one in used for cell in cells_of_one})
        own.sort(key=lambda cell: isinstance(cells["after"].get(cell), str))
        seeds.append(costs.reindex(own).tolist())
    if len({len(seed) for seed in seeds}) != 1:
        return []
    means = np.mean(seeds, axis=0)
    return means.tolist() if np.isfinite(means).all() and (means > 0).all() else []


def cross(run: Run, method: str) -> Figure | None:
    """The model told one setting (row), scored with another's coefficients (column): how far its
    loss is above the best row's. A ring marks the best of a column; a perfect knob has them all
    on the diagonal. None for fewer than two settings."""
    matrix = compare.cross(run, method)
    matrix = matrix.loc[matrix.notna().all(axis=1)]
    matrix = matrix[matrix.index]
    count = len(matrix)
    if count < 2:
        return None
    values = matrix.to_numpy(float)
    best = values.min(axis=0)
    percent = in_percent(run.measures[LOSS]) and bool((best > 0).all())
    excess = values - best
    if percent:
        excess = 100 * excess / best
    several = len(run.axes) > 1
    figure = Figure(figsize=(SINGLE, min(0.27, 2.8 / count) * count + (0.9 if several else 0.65)))
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.subplots()
    most = max(float(np.quantile(excess, 0.9)), 1e-12)
    colours = sns.light_palette("#0173b2", as_cmap=True)
    for row, column in np.ndindex(count, count):
        value = excess[row, column]
        shade = min(1.0, math.log1p(9 * value / most) / math.log(10))
        text = _brief(value).lstrip("+") if value else "0"
        cell(axes, (column, row), 1, colours(0.9 * shade), text, min(7.0, 36 / count + 2))
        if value == 0:
            axes.plot(
                column + 0.5, row + 0.5, "o", markerfacecolor="none", markeredgecolor="black",
                markersize=min(16.0, 105 / count), markeredgewidth=1.1,
            )  # fmt: skip
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    labels, places = run.labels(), np.arange(count) + 0.5
    heads = [plain(labels[setting]) for setting in matrix.index]
    sides(axes, heads, heads, places, places)
    if several or count > 7:
        axes.tick_params(axis="x", rotation=90)
    axes.xaxis.set_label_position("top")
    symbol = "" if several else f" {one_line(run.axes[0].symbol)}"
    axes.set_xlabel(plain(f"scored with{symbol or ' the coefficients of'}"), fontsize=7)
    axes.set_ylabel(plain(f"told{symbol or ' the coefficients of'}"), fontsize=7)
    unit = "%" if percent else one_line(run.measures[LOSS].unit)
    said = f"{method_label(method)}: loss above the best of its column ({unit})".replace(" ()", "")
    note(figure, [said, "ring: the best"], SINGLE)
    return figure


# Fronts and measures ----------------------------------------------------------------------------


def front(run: Run, summary: pd.DataFrame, x: str, y: str) -> Figure:
    """Two measures against each other: one marker per setting, settings joined in order; the grid's
    is hollow where the reference fails."""
    shown, curves = looks(run.methods), _context(run, x, y)
    figure = Figure(figsize=(SINGLE, _height(run)), layout="constrained")
    axes = figure.subplots()
    joined = len(run.axes) == 1  # on several axes no order leads from one setting to the next
    drawn: dict[str, list[tuple[float, float]]] = {}
    for method, look in shown.items():
        at = _in_order(run, summary[summary["method"] == method])[[x, y]].dropna()
        pairs = list(dict.fromkeys(zip(at[x], at[y], strict=True)))
        if not pairs:
            continue
        if not joined:
            look = no_line(look)
        elif _same(pairs):  # one network for all settings is one point: large, below the others
            pairs = pairs[:1]
            look = no_line(look) | {"markersize": 7, "zorder": 2.5}
        drawn[method] = pairs
        axes.plot(*_columns(pairs), **look)
        if method == GRID and _fails(run):
            at = _in_order(run, summary[summary["method"] == GRID]).loc[failing(run), [x, y]]
            axes.plot(at[x], at[y], **hollow(look))
    points = [point for pairs in drawn.values() for point in pairs]
    scale(axes, "x", [p[0] for p in points])
    scale(axes, "y", [p[1] for p in points])
    for place, pairs in enumerate(curves.values()):
        grey: dict[str, Any] = {"color": GREYS[place % 3], "dashes": DASHES[place % len(DASHES)]}
        axes.plot(*_columns(pairs), **grey, linewidth=1.0, zorder=2)
    axes.set_xlabel(plain(textwrap.fill(measure_label(run.measures[x]), 40)))
    axes.set_ylabel(plain(textwrap.fill(measure_label(run.measures[y]), 36)))
    sns.despine(ax=axes)
    called, key = _called(list(drawn))
    note(figure, [*_hollow_note(run), *key], SINGLE)
    settle(figure)
    spots = {m: _ends_first(p) if joined else _lonely(axes, p, points) for m, p in drawn.items()}
    names = [_label(m, called[m], spots[m], shown[m]) for m in drawn]
    for place, (name, pairs) in enumerate(curves.items()):
        inside = [p for p in map(tuple, along(axes, pairs, 12)) if _inside(axes, p)]
        if inside:
            text = plain(one_line(name))
            names.append(Label(text=text, at=inside[::-3], colour=GREYS[place % 3]))
    traced = [along(axes, pairs) for pairs in [*drawn.values(), *curves.values()]]
    name_all(axes, names, np.concatenate([ring(axes, points), *traced]))
    return figure


def measures(run: Run, summary: pd.DataFrame) -> Figure:
    """Small multiples: the mean of every measure against the coefficient; the grid's mark is hollow
    where the reference fails."""
    names = [name for name in run.measures if summary[name].notna().any()]
    titles = [measure_label(run.measures[name]) for name in names]
    panels, figure, shown = _panels(run, titles, 1.4, _hollow_note(run))
    for axes, name in zip(panels, names, strict=True):
        for method, look in shown.items():
            at = summary[summary["method"] == method]
            axes.plot(_places(run, at["setting"], method, shown), at[name], **look)
            if method == GRID and _fails(run):
                at = at[at["setting"].isin(failing(run))]
                places = _places(run, at["setting"], method, shown)
                axes.plot(places, at[name], **hollow(look))
        scale(axes, "y", list(summary[name].dropna()))
    return figure


def gap(run: Run, comparisons: pd.DataFrame) -> Figure:
    """Method minus grid against the coefficient, with 95 % intervals: of the loss, and of the
    measures of the fronts. Hollow where the reference fails, the grid's own points on the line of
    nothing among them."""
    paired = comparisons[comparisons["pairs"] > 0]
    names = [LOSS, *(name for name in main_measures(run) if name != LOSS)]
    names = [name for name in names if (paired["measure"] == name).any()]
    several = len(run.axes) > 1
    crowd = paired["method"].nunique() > CROWD and not several
    drawn = ("bars" if several else "bands") + (" (of those under test)" if crowd else "")
    said = ["Δ to the fixed grid at the same setting", _interval_note(drawn, paired["interval"])]
    if paired["margin"].notna().any():
        said.append("shaded: the measure's margin")
    said += _hollow_note(run)
    titles = [_gap_name(run, name) for name in names]
    panels, figure, shown = _panels(run, titles, 1.6, said, without=GRID)
    for axes, name in zip(panels, names, strict=True):
        of_name = paired[(paired["measure"] == name) & paired["gap"].notna()]
        seen = []
        for method, look in shown.items():
            at = of_name[of_name["method"] == method]
            place = np.array(_places(run, at["setting"], method, shown))
            mean, bottom, top = (at[column].to_numpy(float) for column in ("gap", "low", "high"))
            seen += [*mean]
            if several:
                axes.vlines(place, bottom, top, color=look["color"], linewidth=0.8)
            elif not crowd or method in COLOURS:
                axes.fill_between(place, bottom, top, color=look["color"], alpha=0.18, linewidth=0)
            if several or not crowd or method in COLOURS:
                seen += [*bottom, *top]
            axes.plot(place, mean, **look)
            fails = at["reference_fails"].to_numpy(bool)
            if fails.any():
                axes.plot(place[fails], mean[fails], **hollow(look))
        if _fails(run):
            places = _places(run, pd.Series(failing(run)))
            axes.plot(places, [0.0] * len(places), **hollow(looks([GRID])[GRID]))
        gap_axis(axes, seen, margin_of(run.measures[name]))
    return figure


def _gap_name(run: Run, measure: str) -> str:
    """`Δ loss (%) ↓`: in per cent or in the measure's unit, as the comparisons are."""
    style = run.measures[measure]
    unit = "%" if in_percent(style) else one_line(style.unit)
    arrow = {"lower": "\u00a0↓", "higher": "\u00a0↑"}.get(style.better, "")
    return f"Δ {one_line(style.label)}" + (f" ({unit})" if unit else "") + arrow


# Axes, panels, legends and names ----------------------------------------------------------------


def _panels(
    run: Run, titles: Sequence[str], height: float, said: Sequence[str] = (), without: str = ""
) -> tuple[list[Axes], Figure, dict[str, dict[str, Any]]]:
    """One panel per title over the settings, at double width, the legend above; `said` below."""
    several = len(run.axes) > 1
    shown = {method: look for method, look in looks(run.methods).items() if method != without}
    if several:  # side by side nothing is hidden, and the grid's need not be large
        shown = {method: no_line(look) for method, look in shown.items()}
        if GRID in shown:
            shown[GRID] |= {"markersize": 4}
    count = len(titles)
    choices: tuple[int, ...] = (4, 3)
    if several:
        crowded = len(shown) * len(run.settings) > 60 and count <= 6
        choices = (1,) if crowded else (2,)
    columns = count if count < min(3, *choices) else min(choices, key=lambda c: -count % c)
    columns = min(columns, max(choices))
    rows = math.ceil(count / columns)
    width = DOUBLE if columns > 1 or several else SINGLE
    wrapped = [textwrap.fill(title, int(15 * width / columns)) for title in titles]
    below = [_axis_label(run)] if not several else []
    if not several and _shaded(run):
        said = [*said, "grey: outside the range trained for"]
    below += textwrap.wrap("; ".join(said), int(19 * width))
    tall = height + 0.13 * max(title.count("\n") for title in wrapped)
    if several:
        tall += 0.05 * max(map(len, run.labels().values()))
    size = (width, rows * tall + 0.14 * len(below) + 0.1)
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, hspace=0.04, wspace=0.04)
    figure = Figure(figsize=size, layout=layout)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes, title in zip(panels, wrapped, strict=False):
        _over_settings(run, axes)
        axes.set_title(plain(title), loc="left")
        sns.despine(ax=axes)
    if below:
        figure.supxlabel(plain("\n".join(below)), fontsize=7)
    legend_above(figure, [handle(method, look) for method, look in shown.items()])
    return panels[:count], figure, shown


def _over_settings(run: Run, axes: Axes) -> None:
    """The horizontal axis: the coefficient on a logarithmic scale, or the settings by name."""
    if len(run.axes) > 1:
        labels = [plain(label) for label in run.labels().values()]
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        return
    (axis,) = run.axes
    values = [run.values(setting)[0] for setting in run.settings]
    step = max(1, math.ceil((len(values) - 1) / 2))
    ticks = sorted({*values[::step], values[-1]}) if len(values) > 3 else values
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    span = max(values[-1] / values[0], 1.5) ** 0.07
    left, right = values[0] / span, values[-1] * span
    axes.set_xlim(left, right)
    if _shaded(run):
        for start, end in ((left, axis.low), (axis.high, right)):
            if start < end:
                axes.axvspan(start, end, color="0.94", linewidth=0, zorder=0)


def _shaded(run: Run) -> bool:
    """Whether, on one axis, some settings lie outside the range trained for."""
    return any(len(sentences) for sentences in run.measured["outside"])


def _axis_label(run: Run) -> str:
    (axis,) = run.axes
    symbol, name = one_line(axis.symbol), one_line(axis.name)
    return f"coefficient {symbol} of {name}" if symbol != name else f"coefficient of {name}"


def _places(
    run: Run, settings: pd.Series, method: str = "", shown: dict[str, dict[str, Any]] | None = None
) -> list[float]:
    """Where settings stand on the horizontal axis; named ones with the methods side by side, and
    what is of no method in their middle."""
    if len(run.axes) == 1:
        return [run.values(setting)[0] for setting in settings]
    if shown is None:
        return [float(run.settings.index(setting)) for setting in settings]
    aside = 0.7 * ((list(shown).index(method) + 0.5) / len(shown) - 0.5)
    return [run.settings.index(setting) + aside for setting in settings]


def _in_order(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index("setting").reindex(run.settings)


def _context(run: Run, x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    """Known curves that have both measures: their points, means over examples, ordered along x."""
    wanted = run.context[run.context["measure"].isin([x, y])]
    if wanted.empty:
        return {}
    table = wanted.pivot_table(index=["method", "setting"], columns="measure", values="value")
    if x not in table or y not in table:
        return {}
    return {
        str(curve): sorted(zip(points[x], points[y], strict=True))
        for curve, points in table.dropna().groupby(level="method")
    }


def _same(pairs: list[tuple[float, float]]) -> bool:
    """Whether all points are one but for rounding."""
    return bool(pairs) and bool(np.allclose(pairs, pairs[0], rtol=1e-4, atol=1e-9))


def _columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [p[0] for p in pairs], [p[1] for p in pairs]


def _height(run: Run) -> float:
    """Inches of a panel that names all methods: more names need more room."""
    return 2.6 + 0.07 * max(0, len(run.methods) - 10)


def _called(methods: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What a crowded panel calls the methods, and the sentences that explain it: variants of one
    method have a number where there are many of them."""
    names = {method: two_lines(method, 18) for method in methods}
    variants = [method for method in methods if "[" in method]
    if len(variants) <= VARIANTS:
        return names, []
    key = []
    for place, method in enumerate(variants, 1):
        base, _, fields = method.partition("[")
        names[method] = f"{method_label(base)} {place}"
        key.append(f"{names[method]}: {one_line(fields).removesuffix(']')}")
    return names, key


def _label(
    method: str, text: str, at: Sequence[tuple[float, float]], look: dict[str, Any]
) -> Label:
    return Label(text=text, at=at, colour=look["color"], bold=method == GRID or method in COLOURS)


def _ends_first(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where a curve is best named: at its ends, then along it."""
    return list(dict.fromkeys([pairs[-1], pairs[0], *reversed(pairs)]))


def _lonely(
    axes: Axes, pairs: list[tuple[float, float]], others: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Points without a curve, those first that are farthest from the nearest ones beside them."""
    own, every = (axes.transData.transform(np.asarray(points)) for points in (pairs, others))
    apart = np.hypot(*np.moveaxis(own[:, None] - every, 2, 0))
    nearest = np.sort(apart, axis=1)[:, : len(pairs) // 2 + 3].mean(1)
    return [pairs[place] for place in np.argsort(-nearest)]


def _inside(axes: Axes, point: tuple[float, float]) -> bool:
    return bool(axes.bbox.contains(*axes.transData.transform(point)))


def _interval_note(drawn: str, made: pd.Series) -> str:
    """`bars: 95 % intervals (BCa, images only)`, or why there are none."""
    ways = sorted({way for way in made if not way.startswith("no interval")})
    if ways:
        return f"{drawn}: 95 % intervals ({'; '.join(ways)})"
    return "; ".join(sorted(set(made))) or "no intervals"


def _margin(run: Run) -> str:
    """`±1 %` or `±2 nats`: the margin of the loss."""
    style = run.measures[LOSS]
    unit = "%" if in_percent(style) else one_line(style.unit)
    return f"±{margin_of(style):g}\u00a0{unit}".rstrip()


def _brief(value: float) -> str:
    """`+1.7`, `−13`, `+1.2k`: a gap that fits a small cell."""
    if abs(value) >= 999.5:
        return f"{value / 1000:+.2g}k".replace("-", "−")
    return number(value, 1 if abs(value) < 9.95 else 0, sign=True)

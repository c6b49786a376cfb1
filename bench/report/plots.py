"""The figures of a run: trade-off fronts, every measure and the gap against the coefficient.

One style for all: a single column is 3.4 inches wide, a double one 7. Methods differ by colour
(colour-blind safe), marker and dashes, so that they stay apart in grey; the fixed grid is black.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import style as mpl_style
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from bench.report.load import Run
from bench.report.tables import GRID, LOSS, loss_gap, main_measures
from bench.report.text import measure_label, method_label, one_line

SINGLE, DOUBLE = 3.4, 7.0  # inches
PATCH = 256  # pixels of a sample shown
MARKERS = "sD^vXP<>h"
COLOURS = (0, 1, 2, 3, 4, 9, 5, 6)  # of seaborn's colorblind palette: not its grey and yellow
DASHES = [(4, 1.2), (1.2, 1.2), (6, 1.2, 1.2, 1.2), (3, 1, 1, 1, 1, 1), (8, 2)]
GREYS = ["0.55", "0.7", "0.4"]
WIDE_RANGE = 20  # a measure that spans more than this factor gets a logarithmic axis
ON_SCALE = 4  # gaps up to this many times those of the method under test stay on the axis

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "svg.hashsalt": "yoto-bench",  # the same results give the same file
    "savefig.dpi": 200,
}


def figures(run: Run, summary: pd.DataFrame, gaps: pd.DataFrame) -> dict[str, dict[str, bytes]]:
    """Every figure by file name without ending, as {"svg": bytes, "png": bytes}."""
    drawn: dict[str, dict[str, bytes]] = {}
    with mpl_style.context(["default", sns.axes_style("ticks"), STYLE]):
        for x, y in run.fronts:
            if summary[[x, y]].dropna().size:
                drawn[f"front_{x}_{y}"] = _saved(front(run, summary, x, y))
        if len(run.records):
            drawn["measures"] = _saved(measures(run, summary))
        if (gaps["pairs"] > 0).any():
            drawn["gap"] = _saved(gap(run, gaps))
        if (sheet := samples(run)) is not None:
            drawn["samples"] = {"png": _saved(sheet)["png"]}
    return drawn


def _saved(figure: Figure) -> dict[str, bytes]:
    files = {}
    for ending in ("svg", "png"):
        data = BytesIO()
        metadata = {"Date": None} if ending == "svg" else {"Software": None}
        figure.savefig(data, format=ending, metadata=metadata)
        files[ending] = data.getvalue()
        figure.set_layout_engine("none")  # laid out once for both
    return files


def looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker, dashes and weight per method, in the order of display."""
    palette = sns.color_palette("colorblind")
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        if method == GRID:
            found[method] = {"color": "black", "marker": "o", "zorder": 3, "linewidth": 1.6}
            found[method] |= {"markersize": 6.5, "markerfacecolor": "white"}  # rings the others
            continue
        place = 0 if method == "yoto" else len([m for m in found if m not in (GRID, "yoto")]) + 1
        found[method] = {
            "color": palette[COLOURS[place % len(COLOURS)]],
            "marker": MARKERS[place % len(MARKERS)],
            "dashes": DASHES[(place - 1) % len(DASHES)] if place else (None, None),
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
            "zorder": 5 if method == "yoto" else 4,
        }
    return found


def front(run: Run, summary: pd.DataFrame, x: str, y: str) -> Figure:
    """Two measures against each other: one marker per setting, settings joined in order."""
    shown, curves = looks(run.methods), _context(run, x, y)
    figure = Figure(figsize=(SINGLE, 2.5), layout="constrained")
    axes = figure.subplots()
    joined = len(run.axes) == 1  # on several axes no order leads from one setting to the next
    points: list[tuple[float, float]] = []
    handles = []
    for method, look in shown.items():
        at = _in_order(run, summary[summary["method"] == method])[[x, y]].dropna()
        pairs = list(dict.fromkeys(zip(at[x], at[y], strict=True)))
        if not joined:
            look = _no_line(look)
        elif _same(pairs):  # one network for all settings is one point: a ring, hiding nothing
            pairs = pairs[:1]
            ring: dict[str, Any] = {
                "markerfacecolor": "none",
                "markeredgecolor": look["color"],
                "markersize": 7,
            }
            look = _no_line(look) | ring | {"markeredgewidth": 1.1, "zorder": 6}
        points += pairs
        handles.append(Line2D([], [], **look, label=_text(method_label(method))))
        axes.plot(*_columns(pairs), **look)
    _scale(axes, "x", [p[0] for p in points])
    _scale(axes, "y", [p[1] for p in points])
    for place, (name, pairs) in enumerate(curves.items()):
        grey: dict[str, Any] = {
            "color": GREYS[place % 3],
            "dashes": DASHES[place % 5],
            "linewidth": 1.0,
        }
        axes.plot(*_columns(pairs), **grey, zorder=2)
        handles.append(Line2D([], [], **grey, label=_text(one_line(name))))
    axes.set_xlabel(_text(textwrap.fill(measure_label(run.measures[x]), 40)))
    axes.set_ylabel(_text(textwrap.fill(measure_label(run.measures[y]), 36)))
    sns.despine(ax=axes)
    _legend(figure, handles)
    return figure


def measures(run: Run, summary: pd.DataFrame) -> Figure:
    """Small multiples: the mean of every measure against the coefficient."""
    names = [name for name in run.measures if summary[name].notna().any()]
    titles = [measure_label(run.measures[name]) for name in names]
    panels, figure, shown = _panels(run, titles, 1.4)
    for axes, name in zip(panels, names, strict=True):
        for method, look in shown.items():
            at = summary[summary["method"] == method]
            axes.plot(_places(run, at["setting"], method, shown), at[name], **look)
        _scale(axes, "y", list(summary[name].dropna()))
    return figure


def gap(run: Run, gaps: pd.DataFrame) -> Figure:
    """Method minus grid against the coefficient, with ± one standard error over pictures.

    A method that is far off does not flatten the others: what lies beyond a few times the gaps
    of the method under test is drawn as an arrow at the edge.
    """
    names = [LOSS, *(name for name in main_measures(run) if name != LOSS)]
    names = [n for n in names if (gaps.loc[gaps["measure"] == n, "pairs"] > 0).any()]
    titles = [f"Δ {measure_label(run.measures[name])}" for name in names]
    if names[0] == LOSS:
        titles[0] = f"Δ {loss_gap(run)[0].replace('loss gap', 'loss')} ↓"
    limits = {}
    for name in names:
        at_measure = gaps[gaps["measure"] == name]
        limits[name] = _interesting(at_measure, *_columns_of(run, name))
    clipped = any(
        not gaps.loc[gaps["measure"] == name, _columns_of(run, name)[0]]
        .dropna()
        .between(*limit)
        .all()
        for name, limit in limits.items()
    )
    band = "bars" if len(run.axes) > 1 else "bands"
    said = [f"Δ to the fixed grid at the same setting; {band}: ± 1 standard error over examples"]
    if clipped:
        said.append("hollow triangles: beyond the axis")
    panels, figure, shown = _panels(run, titles, 1.6, said, without=GRID)
    for axes, name in zip(panels, names, strict=True):
        value, error = _columns_of(run, name)
        low, high = limits[name]
        stacked: dict[tuple[str, float], int] = {}  # arrows that share a place stand in a column
        for method, look in shown.items():
            at = gaps[(gaps["measure"] == name) & (gaps["method"] == method) & gaps[value].notna()]
            place = np.array(_places(run, at["setting"], method, shown))
            mean, spread = at[value].to_numpy(), at[error].fillna(0).to_numpy()
            if len(run.axes) == 1:
                colour = {"color": look["color"], "alpha": 0.18, "linewidth": 0}
                axes.fill_between(place, mean - spread, mean + spread, **colour)
            else:
                bars = {"ecolor": look["color"], "elinewidth": 0.8, "fmt": "none"}
                axes.errorbar(place, mean, spread, **bars)
            axes.plot(place, mean, **look)
            for x, y in zip(place, mean, strict=True):
                if low <= y <= high:
                    continue
                arrow, edge = ("^", high) if y > high else ("v", low)
                height = stacked[arrow, x] = stacked.get((arrow, x), -1) + 1
                inwards = math.copysign(0.075 * height * (high - low), low - y)
                axes.plot(
                    x, edge + inwards, arrow, markerfacecolor="white", markersize=5, zorder=6,
                    markeredgecolor=look["color"], markeredgewidth=1.0, clip_on=False,
                )  # fmt: skip
        axes.axhline(0, color="black", linewidth=1.0, zorder=2)
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    return figure


# Axes, panels and legends -----------------------------------------------------------------------


def samples(run: Run) -> Figure | None:
    """What the models make of the first test example, the fixed network's above the conditioned
    one's at the same setting; None where the task shows nothing.

    One axis: a row per method, a column per setting, at most nine. Several axes around a centre:
    per axis, its low end, the centre and its high end. Pictures larger than `PATCH` are cut to
    their middle.
    """
    entries = run.measured[run.measured["seed"] == run.seeds[0]]
    pictures = {
        (e["method"], e["setting"]): e["path"].with_suffix(".png")
        for e in entries.to_dict("records")
        if e["path"].with_suffix(".png").exists()
    }
    methods = [m for m in run.methods if any(m == method for method, _ in pictures)]
    if not pictures:
        return None
    labels = run.labels()
    if len(run.axes) == 1 or run.centre is None:
        last, shown = len(run.settings) - 1, min(9, len(run.settings))
        blocks = [[run.settings[round(i * last / max(1, shown - 1))] for i in range(shown)]]
    else:
        methods = [m for m in methods if m in (GRID, "yoto")] or methods[:2]
        blocks = [
            [s for s in run.settings if _moves_only(run, s, axis)] for axis in range(len(run.axes))
        ]
        blocks = [sorted(block, key=run.values) for block in blocks if len(block) > 1]
    columns = max(len(block) for block in blocks)
    rows = len(blocks) * len(methods)
    side = min(DOUBLE / columns, 1.5)
    figure = Figure(figsize=(side * columns + 0.3, (side + 0.16) * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)  # type: ignore
    grid = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        block, method = blocks[row // len(methods)], methods[row % len(methods)]
        for column in range(columns):
            axes = grid[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            sns.despine(ax=axes, left=True, bottom=True)
            if column >= len(block):
                continue
            path = pictures.get((method, block[column]))
            if path is not None:
                axes.imshow(_middle(path), interpolation="none")
            if row % len(methods) == 0:
                head = labels[block[column]]
                if len(run.axes) == 1:
                    head = f"{run.axes[0].symbol} = {head}"
                axes.set_title(_text(head), fontsize=7, pad=2)
            if column == 0:
                axes.set_ylabel(_text(method_label(method)), fontsize=7)
    if run.sample_line:
        figure.supxlabel(_text(run.sample_line), fontsize=7)
    return figure


def _moves_only(run: Run, setting: str, axis: int) -> bool:
    """Whether a setting differs from the centre in this axis or not at all."""
    assert run.centre is not None
    pairs = enumerate(zip(run.values(setting), run.centre, strict=True))
    return all(a == b for place, (a, b) in pairs if place != axis)


def _middle(path: Path) -> Any:
    """The middle `PATCH` by `PATCH` pixels of a picture file, or all of a smaller one."""
    from PIL import Image

    with Image.open(path) as picture:
        left, top = (max(0, (size - PATCH) // 2) for size in picture.size)
        right, bottom = (
            min(size, before + PATCH)
            for size, before in zip(picture.size, (left, top), strict=True)
        )
        return picture.convert("RGB").crop((left, top, right, bottom))


def _panels(
    run: Run, titles: Sequence[str], height: float, said: Sequence[str] = (), without: str = ""
) -> tuple[list[Axes], Figure, dict[str, dict[str, Any]]]:
    """One panel per title over the settings, at double width, the legend above; `said` below."""
    several = len(run.axes) > 1
    shown = {method: look for method, look in looks(run.methods).items() if method != without}
    if several:  # side by side nothing is hidden, and the grid needs no ring
        shown = {method: _no_line(look) for method, look in shown.items()}
        if GRID in shown:
            shown[GRID] |= {"markersize": 4, "markerfacecolor": "black"}
    count = len(titles)
    choices = (2,) if several else (4, 3)
    columns = count if count < 3 else min(choices, key=lambda c: -count % c)
    columns = min(columns, max(choices))
    rows = math.ceil(count / columns)
    width = DOUBLE if columns > 1 else SINGLE
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
        axes.set_title(_text(title), loc="left")
        sns.despine(ax=axes)
    if below:
        figure.supxlabel(_text("\n".join(below)), fontsize=7)
    names = {method: _text(method_label(method)) for method in shown}
    _legend(figure, [Line2D([], [], **look, label=names[m]) for m, look in shown.items()])
    return panels[:count], figure, shown


def _over_settings(run: Run, axes: Axes) -> None:
    """The horizontal axis: the coefficient on a logarithmic scale, or the settings by name."""
    if len(run.axes) > 1:
        labels = [_text(label) for label in run.labels().values()]
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


def _columns_of(run: Run, measure: str) -> tuple[str, str]:
    """The columns of the gaps that a measure is drawn from."""
    return loss_gap(run)[1:3] if measure == LOSS else ("gap", "se")


def _places(
    run: Run, settings: pd.Series, method: str, shown: dict[str, dict[str, Any]]
) -> list[float]:
    """Where settings stand on the horizontal axis; named ones with the methods side by side."""
    if len(run.axes) == 1:
        return [run.values(setting)[0] for setting in settings]
    aside = 0.6 * ((list(shown).index(method) + 0.5) / len(shown) - 0.5)
    return [run.settings.index(setting) + aside for setting in settings]


def _in_order(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index("setting").reindex(run.settings)


def _scale(axes: Axes, which: str, values: list[float]) -> None:
    """Limits around the values, and a logarithmic axis where they span a wide range."""
    if not values:
        return
    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE_RANGE:
        margin = (high / low) ** 0.06
        limits = (low / margin, high * margin)
        axes.set(**{f"{which}scale": "log"})
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_locator(ticker.LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        margin = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
        limits = (low - margin, high + margin)
    axes.set(**{f"{which}lim": limits})


def _interesting(at: pd.DataFrame, value: str, error: str) -> tuple[float, float]:
    """Limits that hold the method under test (or the nearest one) whole, zero, and of the others
    what lies within `ON_SCALE` times its largest gap."""
    spread = at[error].fillna(0)
    reach = pd.DataFrame({"low": at[value] - spread, "high": at[value] + spread})
    largest = reach.abs().max(axis=1).groupby(at["method"]).max()
    nonzero = largest[largest > 0]
    if nonzero.empty:
        return -1.0, 1.0
    scale = ON_SCALE * max(nonzero.min(), nonzero.get("yoto", 0.0))
    low, high = max(reach["low"].min(), -scale), min(reach["high"].max(), scale)
    low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.08 * (high - low)
    return low - margin, high + margin


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


def _no_line(look: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in look.items() if k != "dashes"} | {"linestyle": "none"}


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    """A legend above everything, with as many columns as fit; the figure grows by its rows."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2,
            handletextpad=0.5, borderaxespad=0.2,
        )  # fmt: skip
        if columns == 1 or legend.get_window_extent().width <= 0.99 * figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + 0.16 * math.ceil(len(handles) / columns))


def _text(label: str) -> str:
    """A label drawn as it is: a dollar sign in it starts no formula."""
    return label.replace("$", r"\$")

"""What all figures share: one look, axes that suit ratios and gaps, matrices, notes and legends.

A single column is 3.4 inches wide, a double one 7. The fixed grid is black and the methods under
test stand out; the others are thinner. All differ by colour (colour-blind safe), marker and dashes,
so that they stay apart in grey, and a method looks alike in every figure.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bench.registry import METHODS
from bench.report.costs import GRID
from bench.report.text import method_label

SINGLE, DOUBLE = 3.4, 7.0  # inches
DPI = 200  # of the PNGs
MARKERS = "D^vXP<>hp"
DASHES = [(4, 1.2), (1.2, 1.2), (6, 1.2, 1.2, 1.2), (3, 1, 1, 1, 1, 1)]
# Of seaborn's colorblind palette: blue and orange are for those under test; its grey, and its pink
# and yellow, which are too pale on paper, are left out.
COLOURS = {"yoto": 0, "yoto_tuned": 1}
OTHERS = (2, 3, 4, 9, 5)
WIDE_RANGE = 20  # a measure that spans more than this factor gets a logarithmic axis
FAR = 5  # gaps this many times their lower quartile make the axis logarithmic away from zero
# Of an axis that is logarithmic away from zero: digits, first decade, decades from tick to tick.
TICKS = (((1, 3), 0, 1), ((1,), 0, 1), ((1,), 1, 1), ((1,), 0, 2), ((1,), 1, 2))

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
}
SMALL = 6.5  # points: names and notes


def looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker, dashes and weight per method, in the order of display.

    A method of the suite looks the same whatever else is drawn; the user's own come after those.
    """
    palette = sns.color_palette("colorblind")
    others = [m for m in METHODS if m not in (GRID, *COLOURS)]
    others += [m for m in methods if m not in METHODS]
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        if method == GRID:
            found[method] = {"color": "black", "marker": "o", "zorder": 3, "linewidth": 1.6}
            found[method] |= {"markersize": 5}  # larger than the others, which lie on it
            continue
        look: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        if method in COLOURS:
            tuned = COLOURS[method]
            look |= {"color": palette[tuned], "marker": "sd"[tuned], "zorder": 6 - tuned}
            look |= {"linewidth": 1.6, "markersize": (4.5, 5.5)[tuned], "dashes": (None, None)}
        else:
            place = others.index(method)
            look |= {"color": palette[OTHERS[place % len(OTHERS)]], "linewidth": 0.9}
            look |= {"marker": MARKERS[place % len(MARKERS)], "zorder": 4, "markersize": 3.8}
            look |= {"dashes": DASHES[place % len(DASHES)]}
        found[method] = look
    return found


def no_line(look: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in look.items() if k != "dashes"} | {"linestyle": "none"}


def hollow(look: dict[str, Any]) -> dict[str, Any]:
    """The mark of what no verdict may be read from; in every figure it means that and no more."""
    mark = {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.1}
    return no_line(look) | mark | {"zorder": look["zorder"] + 0.5}


# Axes -------------------------------------------------------------------------------------------


def scale(axes: Axes, which: str, values: list[float]) -> None:
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


def compute_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic horizontal axis of ratios, with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def gap_axis(axes: Axes, values: Sequence[float], margin: float, most: int = 7) -> None:
    """A vertical axis of gaps around zero, the margin shaded. Where some gaps are many times the
    smaller ones it is linear within the margin and logarithmic far from it, so that none flattens
    the others."""
    finite = np.array([value for value in values if math.isfinite(value)] + [0.0])
    sizes = np.abs(finite[finite != 0])
    margin = margin if margin > 0 else 0.0
    if margin:
        axes.axhspan(-margin, margin, color="0.88", linewidth=0, zorder=0)
    axes.axhline(0, color="black", linewidth=1.0, zorder=2)
    low, high = (float(end) for end in (finite.min(), finite.max())) if len(sizes) else (-1, 1)
    usual = max(float(np.quantile(sizes, 0.25)), margin) if len(sizes) else 1.0
    if max(-low, high) <= FAR * usual:
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(most - 1))
        return
    unit = margin or usual / 3
    axes.set_yscale("asinh", linear_width=unit)
    ends = np.arcsinh(np.array([low, high]) / unit)
    spare = 0.1 * float(np.ptp(ends))
    bottom, top = unit * np.sinh(ends + np.array([-spare, spare]))
    axes.set_ylim(bottom, top)
    first = math.ceil(math.log10(unit))
    for factors, start, step in TICKS:
        away = [m * 10.0**k for k in range(first + start, first + 12, step) for m in factors]
        ticks = [t for t in (*(-t for t in away[::-1]), 0.0, *away) if bottom <= t <= top]
        apart = np.diff(np.arcsinh(np.array(ticks) / unit)).min(initial=math.inf)
        if len(ticks) <= most and apart > 0.09 * (float(np.ptp(ends)) + 2 * spare):
            break
    axes.yaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def ring(axes: Axes, points: Sequence[tuple[float, float]], radius: float = 4.0) -> NDArray[Any]:
    """Data coordinates of a small ring of pixels around every point, its centre included."""
    angles = np.linspace(0, 2 * math.pi, 9)[:, None]
    aside = radius * np.concatenate([[[0.0, 0.0]], np.hstack([np.cos(angles), np.sin(angles)])])
    around = axes.transData.transform(np.asarray(points, float))[:, None] + aside
    return np.asarray(axes.transData.inverted().transform(around.reshape(-1, 2)))


# Matrices, legends and words --------------------------------------------------------------------


def cell(
    axes: Axes, corner: tuple[float, float], height: float, colour: Any, text: str, size: float,
    *, bold: bool = False, hatched: bool = False,
) -> None:  # fmt: skip
    """One cell of a matrix, a unit wide: its colour and a text that stays legible on it; `hatched`
    where nothing follows from the number."""
    box = Rectangle(corner, 1, height, facecolor=colour, edgecolor="white", linewidth=0.8)
    axes.add_patch(box)
    if hatched:
        axes.add_patch(
            Rectangle(
                corner, 1, height, hatch="//////", edgecolor="0.8", facecolor="none", linewidth=0
            )
        )
    red, green, blue = to_rgb(colour)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    axes.text(
        corner[0] + 0.5, corner[1] + height / 2, text, ha="center", va="center_baseline",
        fontsize=size, color="white" if dark else "0.1", weight="bold" if bold else "normal",
    )  # fmt: skip


def sides(axes: Axes, heads: Sequence[str], names: Sequence[str], columns: Any, rows: Any) -> None:
    """What the columns (above) and rows (left) of a matrix are; no frame."""
    axes.set_xticks(columns, heads, fontsize=SMALL)
    axes.set_yticks(rows, names, fontsize=SMALL, linespacing=0.95)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=2)
    axes.grid(visible=False)
    sns.despine(ax=axes, left=True, bottom=True)


def handle(method: str, look: dict[str, Any]) -> Line2D:
    return Line2D([], [], **look, label=plain(method_label(method)))


def legend_above(figure: Figure, handles: list[Line2D]) -> None:
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


def note(figure: Figure, sentences: Sequence[str], width: float) -> None:
    """What a reader must know, small, below the figure, which grows by it."""
    lines = textwrap.wrap("; ".join(sentences).replace(" %", "\u00a0%"), int(20.5 * width))
    if lines:
        figure.set_figheight(figure.get_figheight() + 0.11 * len(lines))
        figure.supxlabel(plain("\n".join(lines)), fontsize=SMALL, color="0.25")


def settle(figure: Figure) -> None:
    """Fix the places of all axes: names can be put beside points, and nothing is laid out twice."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def two_lines(method: str, width: int) -> str:
    """A method's name, broken before its fields where it is long."""
    name = method_label(method).replace("[", " [")
    return plain(textwrap.fill(name, width, break_long_words=False, break_on_hyphens=False))


def plain(label: str) -> str:
    """A label drawn as it is: a dollar sign in it starts no formula."""
    return label.replace("$", r"\$")

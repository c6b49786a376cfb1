"""What all figures share: one look, axes that suit ratios and gaps, notes and legends.

A single column is 3.4 inches wide, a double one 7. How methods look is said in
`bench/report/appearance.py`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

SINGLE, DOUBLE = 3.4, 7.0  # inches
DPI = 200  # of the PNGs
SMALL = 6.5  # points: names and notes
WIDE_RANGE = 20  # a measure that spans more than this factor gets a logarithmic axis
FAR = 5  # gaps this many times their lower quartile make the axis logarithmic away from zero
# Of an axis that is logarithmic away from zero: digits, first decade, decades from tick to tick.
TICKS = (((1, 3), 0, 1), ((1,), 0, 1), ((1,), 1, 1), ((1,), 0, 2), ((1,), 1, 2))

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    **{"legend.frameon": False, "legend.handlelength": 2.6},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.4, "grid.color": "0.9"},
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.7),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 3),
    **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 0),
    **{"lines.linewidth": 1.1, "lines.markersize": 4},
    "svg.hashsalt": "yoto-bench",  # the same results give the same file
}

# Axes -------------------------------------------------------------------------------------------


def plain_ticks(axis: Axis, locator: ticker.Locator) -> None:
    """Ticks where the locator wants them, as plain numbers with a true minus, and no small ones."""
    axis.set_major_locator(locator)
    axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))
    axis.set_minor_locator(ticker.NullLocator())


def scale(axes: Axes, which: str, values: ArrayLike) -> None:
    """Limits around the values, and a logarithmic axis where they span a wide range."""
    values = np.asarray(values, float)
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > WIDE_RANGE:
        margin = (high / low) ** 0.06
        limits = (low / margin, high * margin)
        axes.set(**{f"{which}scale": "log"})
        axis = axes.xaxis if which == "x" else axes.yaxis
        plain_ticks(axis, ticker.LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
    else:
        margin = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
        limits = (low - margin, high + margin)
    axes.set(**{f"{which}lim": limits})


def compute_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic horizontal axis of ratios, with plain numbers."""
    axes.set(xscale="log", xlim=(low, high))
    plain_ticks(axes.xaxis, ticker.LogLocator(subs=(1, 2, 5)))


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
    plain_ticks(axes.yaxis, ticker.FixedLocator(ticks))


# Legends and words ------------------------------------------------------------------------------


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


def two_lines(name: str, width: int) -> str:
    """A method's name, broken before its fields where it is long."""
    spaced = name.replace("[", " [")
    return plain(textwrap.fill(spaced, width, break_long_words=False, break_on_hyphens=False))


def plain(label: str) -> str:
    """A label drawn as it is: a dollar sign in it starts no formula."""
    return label.replace("$", r"\$")

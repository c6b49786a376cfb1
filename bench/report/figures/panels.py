"""Two kinds of figures: panels whose methods are named beside their points, and small multiples
over the settings with a legend. Where the reference fails, all have the same hollow marks.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from bench.report import appearance
from bench.report.answers.reference import failing
from bench.report.figures import look
from bench.report.figures.look import DOUBLE, SINGLE, plain
from bench.report.figures.point_names import Label
from bench.report.load import Run
from bench.report.text import one_line

Points = NDArray[np.float64]  # (n, 2)

VARIANTS = 2  # of methods that panels call by their full names


def hollow_note(run: Run) -> list[str]:
    """What hollow means, where there is something hollow."""
    labels = run.labels()
    places = ", ".join(one_line(labels[setting]) for setting in failing(run))
    symbol = f"{one_line(run.axes[0].symbol)} = " if len(run.axes) == 1 else ""
    return [f"hollow: no verdict, for the reference fails at {symbol}{places}"] if places else []


def room_for_names(run: Run) -> float:
    """Inches of a panel that names all methods."""
    return 2.6 + 0.07 * max(0, len(run.methods) - 10)


class Named:
    """A figure a column wide, its panels one above the other, their methods named where they are.

    Draw on `panels`; then `finish`, which fixes where everything stands; then `name_all` of them.
    """

    def __init__(self, run: Run, height: float, panels: int = 1) -> None:
        self.run, self.looks = run, appearance.looks(run)
        self.figure = Figure(figsize=(SINGLE, height), layout="constrained")
        self.panels: list[Axes] = list(
            self.figure.subplots(panels, sharex=True, squeeze=False).flat
        )
        self.called: dict[str, str] = {}

    def finish(self, methods: Iterable[str], across: str, remarks: Sequence[str]) -> None:
        """The horizontal label and the notes. Where there are many variants of a method they have
        numbers, which the notes explain."""
        names = {method: self.run.label(method) for method in methods}
        self.called = {method: look.two_lines(name, 18) for method, name in names.items()}
        variants = [method for method in names if "[" in method]
        key = []
        for place, method in enumerate(variants if len(variants) > VARIANTS else [], 1):
            base, _, fields = names[method].partition("[")
            self.called[method] = f"{base} {place}"
            key.append(f"{base} {place}: {fields.removesuffix(']')}")
        self.panels[-1].set_xlabel(plain(across))
        for axes in self.panels:
            sns.despine(ax=axes)
        look.note(self.figure, [*remarks, *key], SINGLE)
        look.settle(self.figure)

    def label(self, method: str, at: ArrayLike, text: str = "") -> Label:
        """A method's name (or `text`) for one of the places `at`, the best first."""
        bold = method == self.run.reference or method in appearance.featured(self.run)
        text = text or self.called[method]
        return Label(text=text, at=at, colour=self.looks[method]["color"], bold=bold)


class OverSettings:
    """A figure with a panel per title over the settings, at double width, the legend above, and
    the `remarks` below. Draw on `panels`. across: how many may stand side by side."""

    def __init__(
        self,
        run: Run,
        titles: Sequence[str],
        height: float,
        remarks: Sequence[str] = (),
        without: str | None = None,
        across: tuple[int, ...] = (4, 3),
    ) -> None:
        self.run, self.several = run, len(run.axes) > 1
        left = [without, *appearance.crowded_out(run)]
        self.looks = {m: marks for m, marks in appearance.looks(run).items() if m not in left}
        remarks = [*remarks, *appearance.crowded_note(run)]
        if self.several:  # side by side nothing is hidden, and the reference's need not be large
            smaller = {run.reference: {"markersize": 4}}
            self.looks = {
                m: appearance.no_line(k) | smaller.get(m, {}) for m, k in self.looks.items()
            }
        count = len(titles)
        if self.several:
            crowded = len(self.looks) * len(run.settings) > 60 and count <= 6
            across = (1,) if crowded else (2,)
        columns = min(count, min(across, key=lambda c: -count % c))
        rows = math.ceil(count / columns)
        width = DOUBLE if columns > 1 or self.several else SINGLE
        wrapped = [textwrap.fill(title, int(15 * width / columns)) for title in titles]
        outside = any(len(sentences) for sentences in run.measured["outside"])
        self.shaded = outside and not self.several
        remarks = [*remarks, "grey: outside the range trained for"] if self.shaded else remarks
        below = [] if self.several else [_axis_label(run)]
        below += textwrap.wrap("; ".join(remarks), int(19 * width))
        tall = height + 0.13 * max(title.count("\n") for title in wrapped)
        longest = max(map(len, run.labels().values()))
        # Level where they fit between two settings.
        room = (width / columns - 0.6) / len(run.settings)
        self.upright = self.several and 0.055 * longest > room - 0.06
        if self.upright:
            tall += 0.05 * longest
        self.figure = Figure(
            figsize=(width, rows * tall + 0.14 * len(below) + 0.1),
            layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, hspace=0.04, wspace=0.04),
        )
        every = list(self.figure.subplots(rows, columns, squeeze=False).flat)
        self.panels: list[Axes] = every[:count]
        for axes in every[count:]:
            axes.remove()
        for axes, title in zip(self.panels, wrapped, strict=True):
            self._across(axes)
            axes.set_title(plain(title), loc="left")
            sns.despine(ax=axes)
        if below:
            self.figure.supxlabel(plain("\n".join(below)), fontsize=7)
        handles = [Line2D([], [], **k, label=plain(run.label(m))) for m, k in self.looks.items()]
        look.legend_above(self.figure, handles)

    def _across(self, axes: Axes) -> None:
        """The horizontal axis: the coefficient on a logarithmic scale, or the settings by name."""
        run = self.run
        if self.several:
            labels = [plain(label) for label in run.labels().values()]
            turned = 90 if self.upright else 0
            axes.set_xticks(range(len(labels)), labels, rotation=turned, fontsize=6)
            axes.set_xlim(-0.6, len(labels) - 0.4)
            return
        (axis,) = run.axes
        values = [run.values(setting)[0] for setting in run.settings]
        step = max(1, math.ceil((len(values) - 1) / 2))
        ticks = sorted({*values[::step], values[-1]}) if len(values) > 3 else values
        axes.set_xscale("log")
        look.plain_ticks(axes.xaxis, ticker.FixedLocator(ticks))
        span = max(values[-1] / values[0], 1.5) ** 0.07
        left, right = values[0] / span, values[-1] * span
        axes.set_xlim(left, right)
        for start, end in ((left, axis.low), (axis.high, right)) if self.shaded else ():
            if start < end:
                axes.axvspan(start, end, color="0.94", linewidth=0, zorder=0)

    def places(self, settings: Iterable[str], method: str = "") -> Points:
        """Where settings stand on the horizontal axis; named ones with the methods side by side,
        and what is of no method in their middle."""
        if not self.several:
            return np.array([self.run.values(setting)[0] for setting in settings])
        methods = list(self.looks)
        aside = 0.7 * ((methods.index(method) + 0.5) / len(methods) - 0.5) if method else 0.0
        return np.array([self.run.settings.index(setting) + aside for setting in settings])

    def draw(
        self, axes: Axes, method: str, places: Points, values: Points, silent: NDArray[np.bool_]
    ) -> None:
        """A method's values, hollow where the reference fails."""
        axes.plot(places, values, **self.looks[method])
        if silent.any():
            axes.plot(places[silent], values[silent], **appearance.hollow(self.looks[method]))


def _axis_label(run: Run) -> str:
    (axis,) = run.axes
    symbol, name = one_line(axis.symbol), one_line(axis.name)
    return f"coefficient {symbol} of {name}" if symbol != name else f"coefficient of {name}"

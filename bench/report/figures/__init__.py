"""The figures of a run: what is lost against what is saved, fronts, gaps, break-even, the knob.

    figures(run, frames)    all of them as SVG and PNG

A new figure is one function, which returns it or None where the run has no data for it, and one
line in `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.report.appearance import ALL, featured, few, narrowed
from bench.report.figures.curves import front, gap, measure_parts, measures
from bench.report.figures.films import samples, sweeps
from bench.report.figures.look import DPI, STYLE, settle
from bench.report.figures.matrices import cross, heatmap
from bench.report.figures.studies import factors, gap_study, scaling
from bench.report.figures.tradeoffs import break_even, headline, quality_compute
from bench.report.load import Run, file_name


def moving(run: Run, overall: pd.DataFrame) -> list[str]:
    """The methods whose knob is shown: under test, the published one first; without them the best
    that was swept."""
    swept = overall[overall["method"].isin(run.swept["method"])].dropna(subset="loss_gap_mean")
    best = swept.sort_values("loss_gap_mean")["method"]
    return list(featured(run)) or list(best.head(1))


class Entry(NamedTuple):
    """A kind of figure: how its file name begins, the function, the frames it needs beside the run
    (by the names of SECTIONS), and, where there are several, the further arguments of each, which
    its file name ends on. crowds: it has a mark or a line a method, so that a few of them are drawn
    first, and all in a second figure."""

    name: str
    draw: Callable[..., Figure | None]
    needs: tuple[str, ...] = ()
    each: Callable[[Run, pd.DataFrame], Iterable[tuple[str, ...]]] = lambda run, overall: [()]
    crowds: bool = True


FIGURES = [
    Entry("headline", headline, ("overall",)),
    Entry("heatmap", heatmap, ("comparisons", "overall"), crowds=False),
    Entry("front", front, ("summary",), lambda run, overall: run.fronts),
    Entry("measures", measures, ("summary",), measure_parts),
    Entry("gap", gap, ("comparisons",)),
    Entry("gap", gap_study, ("study",), factors, crowds=False),
    Entry("scaling", scaling, ("study",)),
    Entry("quality_compute", quality_compute, ("quality",)),
    Entry("break_even", break_even),
    Entry("cross", cross, (), lambda run, overall: [(m,) for m in moving(run, overall)], False),
]


def figures(run: Run, frames: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, bytes]]:
    """Every figure by file name without ending, as {"svg": bytes, "png": bytes}; sample sheets
    have a PNG alone, sweeps a GIF and a PNG. A figure for which a run has no data is left out.
    Where there are more methods than can be told apart at once, a figure shows some, and one whose
    name ends on `ALL` all of them.

    frames: the answers of the report's sections, by their names.
    """
    overall = frames["overall"]
    drawn: dict[str, dict[str, bytes]] = {}
    with style.context(["default", sns.axes_style("ticks"), STYLE]):
        for entry in FIGURES:
            for more in entry.each(run, overall):
                name = file_name("_".join([entry.name, *more]))
                for ending, files in _drawn(entry, run, frames, more).items():
                    drawn[name + ending] = files
    if (sheet := samples(run, important(run, overall))) is not None:
        drawn["samples"] = {"png": sheet}
    shown = moving(run, overall)
    return drawn | (sweeps(run, shown[-1]) if shown else {})


def _drawn(
    entry: Entry, run: Run, frames: Mapping[str, pd.DataFrame], more: tuple[str, ...]
) -> dict[str, dict[str, bytes]]:
    """One figure, and where it leaves out methods, the one of all."""
    chosen = few(run, frames["overall"]) if entry.crowds else run.methods
    drawn: dict[str, dict[str, bytes]] = {}
    for ending, methods in {"": chosen, ALL: run.methods}.items():
        if ending and methods == chosen:
            continue
        needed = [frames[name] for name in entry.needs]
        needed = [frame[frame["method"].isin(methods)] for frame in needed]
        figure = entry.draw(narrowed(run, methods), *needed, *more)
        if figure is not None and (files := saved(figure)) not in drawn.values():
            drawn[ending] = files
    return drawn


def saved(figure: Figure) -> dict[str, bytes]:
    """Both files from one layout; `savefig` would draw everything twice as often."""
    settle(figure)
    svg, png = BytesIO(), BytesIO()
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return {"svg": svg.getvalue(), "png": png.getvalue()}


def important(run: Run, overall: pd.DataFrame) -> list[str]:
    """The reference, what is under test, then the others from the smallest loss gap on."""
    first = [m for m in (run.reference, *reversed(featured(run))) if m in run.methods]
    order = overall.sort_values("loss_gap_mean")["method"]
    return list(dict.fromkeys([*first, *order]))

"""The whole comparison in one call, for notebooks and scripts.

    from bench import compare

    result = compare(Denoising)              a task: a class, an object, a file or a name
    print(result.verdict)                    the answer in words; .answer, .share, .low, .high
    result.gaps                              a frame: the loss's gap, by method and setting
    result.plot()                            the trade-off; "gap" and "measures", too
    result.load("yoto").at(0.3)              a plain model for this coefficient

It is what `run` does on the command line: what is stored is found, what is missing is trained, and
`report` reads the same folder.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.files import expanded, printable_lines
from bench.identity import plain
from bench.plugins import installed, interactive
from bench.plugins.names import near
from bench.registry import describe, revive, ships, split_methods, variants
from bench.registry import preset as sized
from bench.report.answers.compare import comparisons, overall, summary
from bench.report.answers.reference import LOSS, in_percent
from bench.report.answers.verdict import under_test
from bench.report.headings import setting_labels, size_line
from bench.report.load import Run as Reported
from bench.report.load import load_results
from bench.report.rendering import html
from bench.report.sentence import verdict_sentence
from bench.report.tables import overall_sheet
from bench.report.text import estimate, one_line
from bench.run import board, folders, runner
from bench.run.plan import Experiment, experiment
from bench.run.schedule import stopping
from bench.space import format_setting, parse_setting
from bench.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.live.networks import Entry

TASKS = "tasks"  # below the results folder: classes that were defined in a notebook
FIGURES = ("front", "gap", "measures")
GAPS = [
    *("gap", "low", "high", "unit", "interval", "pairs", "seeds"),
    *("share", "share_low", "share_high", "verdict"),
]


def compare(
    task: Task | type[Task] | str | Path,
    methods: Sequence[str] | str | None = None,
    settings: int | None = None,
    seeds: Sequence[int] | None = None,
    preset: str = "quick",
    *,
    lengths: Sequence[float] | None = None,
    out: str | Path = "results",
    device: str = "auto",
    on: str = "auto",
    progress: bool = True,
) -> Comparison:
    """Train what is missing, measure it, and compare; a second call trains nothing.

    task: a class of yours, as it is at `preset`; an object of one, whose fields then count; a
        file; or a registered name. One that is defined in a notebook or a script is written to
        `out`/tasks with what it uses, since its content is part of what the networks are.
    methods: names or files, as `run --methods` takes them. None: those of a first run.
    settings: how many coefficients on each axis. seeds: as [0, 1, 2]; three are needed for a
        verdict. None: the preset's.
    lengths: shares of the steps for which networks are trained, too, as [0.5], which says whether
        longer training would change the answer.
    out: the results folder, which may hold other results, too. device: auto, cpu, cuda, cuda:N.
    on: "here", in this process; "pool", in several; "auto", several where there are the cores.
    progress: whether to show what is being trained.

    Raises ValueError, with the way out, for a task, name or number that will not do; RuntimeError
    where nothing could be measured; KeyboardInterrupt where it was stopped: all that was done is
    kept, and the same call goes on.
    """
    if isinstance(seeds, int):
        raise ValueError(f"seeds={seeds}: give them as a list, as in seeds=[0, 1, 2]")
    root = folders.usable(Path(expanded(str(out))))
    names = split_methods(methods) if isinstance(methods, str) else methods
    planned = experiment(
        _plain(task, preset, root), preset, names, settings, seeds, lengths=lengths
    )
    where = runner.choose_device(device)
    if on not in ("auto", "here", "pool"):
        raise near(on, ("auto", "here", "pool"), "place to run")
    if on == "auto":
        on = runner.usual_place()
    run = runner.Run(root, [planned], where, on)
    run.save_config()
    with board.shown(progress), _without_main():
        if run.missing_cells() or run.record_jobs():
            run.open_data()
            with stopping() as stop:
                if not run.complete(stop):
                    raise KeyboardInterrupt("stopped: the same call goes on from what is kept")
    failures = [printable_lines(failure) for failure in run.failures]
    reported = _reported(root, planned)
    if reported is None:
        raise RuntimeError("\n".join(failures) or f"nothing was measured in {root}")
    for failure in failures:
        warnings.warn(f"failed: {failure}", stacklevel=2)
    return Comparison(run=reported, planned=planned, root=root)


def _plain(task: Task | type[Task] | str | Path, preset: str, root: Path) -> Task | str:
    """A task as `experiment` takes it."""
    if isinstance(task, str | Path):
        return str(task)
    kind: Any = task if isinstance(task, type) else type(task)
    if not issubclass(kind, Task):
        raise ValueError(
            f"a {kind.__name__} is no task: give a class derived from bench.Task, an object of "
            "one, a file such as 'mytask.py', or a registered name"
        )
    if kind.__abstractmethods__:
        lacking = ", ".join(sorted(kind.__abstractmethods__))
        raise ValueError(f"the task {kind.__name__} lacks {lacking}: see help(bench.Task)")
    plain_task: Task = task if isinstance(task, Task) else sized(kind, preset).task
    written = interactive.in_a_file(kind, root / TASKS, plain_task.name)
    if written is kind:
        return plain_task
    file = sys.modules[written.__module__].__file__
    description = {"class": f"{file}:{written.__name__}", "fields": plain(plain_task)}
    return revive(description, Task)  # type: ignore[type-abstract]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes of a pool need nothing of the script that calls, and would run it once more."""
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _reported(root: Path, planned: Experiment) -> Reported | None:
    """What was measured of just this experiment: the folder may have more seeds, settings and
    methods of it."""
    results = load_results(root)
    rows = results.measured
    names = planned.task.space.names
    settings = [format_setting(names, setting) for setting in planned.settings]
    asked = rows["method"].isin(planned.methods) & rows["seed"].isin(planned.seeds)
    asked &= rows["setting"].isin(settings) | (rows["kind"] == "swept")
    rows = rows[asked | (rows["kind"] == "context")]
    rows = rows[rows["experiment"] == planned.id]
    records = results.records[results.records["entry"].isin(rows["entry"])]
    runs = replace(results, measured=rows, records=records).runs
    return next((run for run in runs if run.preset == planned.preset), None)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is said of one network that is told its coefficients, over all settings.

    answer: "better", "equal", "worse", "undecided", "mixed", or why there is none.
    share: of the benefit lost, from `low` to `high` with 95 % confidence: 0 is one network per
        setting, 1 their middle network used at every setting. `margin`: what counts as none.
    """

    network: str
    answer: str
    share: float
    low: float
    high: float
    margin: float
    seeds: int
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The answers of one comparison; in a notebook it shows itself.

    run: frames of everything that was measured; see `help(bench)` and `bench.report.answers`.
    """

    run: Reported
    planned: Experiment
    root: Path

    @functools.cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """By method, of each network told its coefficients, the tuned one first."""
        rows = overall(self.run).set_index("method")
        main = under_test(self.run)
        return {
            method: _verdict(self.run, method, rows.loc[method], whole=method == main)
            for method in self.run.under_test
        }

    @property
    def verdict(self) -> Verdict:
        """The one that matters most: of the tuned network, else of the one as published."""
        if first := next(iter(self.verdicts.values()), None):
            return first
        return Verdict(
            network="", answer="no verdict", share=math.nan, low=math.nan, high=math.nan,
            margin=self.run.margin_share, seeds=len(self.run.seeds),
            sentence=verdict_sentence(self.run),
        )  # fmt: skip

    @functools.cached_property
    def gaps(self) -> pd.DataFrame:
        """One row per method and setting: the gap of the loss to the network that was trained for
        this setting alone, paired by seed and example, with its 95 % interval, in `unit`.

        The coefficients have a column each. share: of the benefit lost; see `Verdict`.
        """
        frame = comparisons(self.run)
        frame = frame[frame["measure"] == LOSS].reset_index(drop=True)
        style = self.run.measures[LOSS]
        frame["unit"] = "%" if in_percent(style) else one_line(style.unit)
        values = pd.DataFrame([parse_setting(each) for each in frame["setting"]])
        return pd.concat([frame[["method"]], values, frame[GAPS]], axis=1)

    @functools.cached_property
    def measures(self) -> pd.DataFrame:
        """One row per method and setting: the mean of every measure over examples and seeds."""
        return summary(self.run)

    def plot(self, what: str = "") -> Figure:
        """A figure: "front", two measures against each other; "gap", of the loss, with intervals;
        "measures", each against the coefficient. By default the front, where the task has one."""
        import seaborn as sns
        from matplotlib import style

        from bench.report.figures import curves
        from bench.report.figures.look import STYLE, settle

        what = what or ("front" if self.run.fronts else "measures")
        if what not in FIGURES or (what == "front" and not self.run.fronts):
            known = FIGURES if self.run.fronts else FIGURES[1:]
            raise near(what, known, "figure of this comparison")
        with style.context(["default", sns.axes_style("ticks"), STYLE]):
            if what == "front":
                figure = curves.front(self.run, self.measures, *self.run.fronts[0])
            elif what == "gap":
                figure = curves.gap(self.run, comparisons(self.run))
            else:
                figure = curves.measures(self.run, self.measures)
            if figure is None:
                raise ValueError(f"nothing was measured that the figure {what!r} could show")
            settle(figure)
        _shown_in_notebooks(type(figure))
        return figure

    def load(self, method: str, seed: int | None = None) -> Entry:
        """The trained networks of a method: `.at(0.3)` is a plain model for this coefficient."""
        from bench.live.networks import catalogue

        if method not in self.planned.methods and "[" in method:
            method = next(iter(variants(method, {})))  # yoto[steps=2] is yoto[steps=2.0]
        if method not in self.planned.methods:
            raise near(method, self.planned.methods, "method of this comparison")
        seed = self.planned.seeds[0] if seed is None else seed
        for each in catalogue(self.root, self._word, seed):
            if describe(each.task) == describe(self.planned.task) and method in each.methods:
                return each.methods[method]
        raise ValueError(f"no network of {method} with seed {seed} is finished in {self.root}")

    @property
    def _word(self) -> str:
        """The task, as commands call it."""
        kind = type(self.planned.task)
        if ships(kind):
            return self.planned.task.name
        offer = installed.offering(installed.target_of(kind))
        return offer.whole_name if offer else str(sys.modules[kind.__module__].__file__)

    def report(self) -> Path:
        """Write the report of the whole results folder; its page."""
        from bench.report.document import build

        (first, *_) = build(self.root)
        return first.folder.parent / "index.html"

    def __repr__(self) -> str:
        return f"{self.verdict}\n({size_line(self.run)}; in {self.root})"

    def _repr_html_(self) -> str:
        """The verdict, then a line per method."""
        run = self.run
        return html(
            "card.html", title=f"{one_line(run.task)}, {one_line(run.preset)}", size=size_line(run),
            sentence=self.verdict.sentence, sheet=overall_sheet(run, overall(run), narrow=True),
            settings=", ".join(setting_labels(run).values()),
        )  # fmt: skip


def _shown_in_notebooks(kind: type[Figure]) -> None:
    """A notebook shows figures that matplotlib's own interface made, and says of others that they
    are one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from bench.report.figures.look import DPI

    def png(figure: Figure) -> bytes:
        file = BytesIO()
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
        return file.getvalue()

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and kind not in shell.display_formatter.formatters["image/png"]:
        shell.display_formatter.formatters["image/png"].for_type(kind, png)


def _verdict(run: Reported, method: str, row: pd.Series, *, whole: bool) -> Verdict:
    share, low, high = (float(row[f"share_{part}"]) for part in ("mean", "low", "high"))
    lost = estimate(100 * share, (100 * low, 100 * high), 0).replace(" [", " % [", 1)
    brief = f"{run.label(method)}: {row['verdict'] or 'not measured'}"
    brief += "" if math.isnan(share) else f", loses {lost} of the benefit"
    return Verdict(
        network=method, answer=row["verdict"], share=share, low=low, high=high,
        margin=run.margin_share, seeds=int(row["seeds"]),
        sentence=verdict_sentence(run) if whole else f"{brief}.",
    )  # fmt: skip

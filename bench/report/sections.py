"""The report as one list: what stands under which title, and which figures beside it.

A new table is a function that makes its `Sheet`, an entry in SECTIONS and a paragraph in
`templates/words.md`; a new figure is a line of FIGURES in `figures/__init__.py` and its caption in
SECTIONS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.report import cost_tables, study_tables, tables
from bench.report.answers import claims, compare, costs, reference, studies
from bench.report.load import Run
from bench.report.notes import notes
from bench.report.rendering import source
from bench.report.sentence import Point, joined, verdict_points
from bench.report.sheet import Sheet

Frames = dict[str, pd.DataFrame]
MORE = "more"  # figures beside no table


def _words() -> dict[str, str]:
    """The paragraphs of `words.md`, Markdown, by section."""
    _, *parts = source("words.md").split("## ")
    texts = (part.partition("\n")[::2] for part in parts)
    return {name: " ".join(text.split()) for name, text in texts}


WORDS = _words()


@dataclass(frozen=True)
class Section:
    """A table and what stands around it.

    frame: its answers, from the run and the frames of the sections above, which are written as
        `<name>.csv`; None where they are those of the section `shows`.
    figures: captions by how the figures' names begin; the first that fits counts. folded: closed
        on the page until asked for.
    """

    name: str
    title: str
    sheet: Callable[[Run, pd.DataFrame], Sheet]
    frame: Callable[[Run, Frames], pd.DataFrame] | None = None
    shows: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    folded: bool = False

    def __post_init__(self) -> None:
        if self.name not in WORDS:
            raise ValueError(
                f"templates/words.md has no paragraph below `## {self.name}`: write it"
            )

    @property
    def words(self) -> str:
        return WORDS[self.name]


SECTIONS = [
    Section(
        "reference",
        "Is the grid a fair yardstick?",
        tables.reference_sheet,
        lambda run, _: reference.examine(run),
    ),
    Section(
        "overall",
        "Lost and saved",
        tables.overall_sheet,
        lambda run, _: compare.overall(run),
        figures={
            "headline": "Share of the benefit lost at matching coefficients (0 the grid, 1 its "
            "middle network for all) against compute, mean and worst setting, one point a method",
            "heat": "Loss gap of every method at every setting with its verdict, and the share of "
            "the benefit lost",
        },
    ),
    Section("claims", "The claims", study_tables.claims_sheet, lambda run, _: claims.claims(run)),
    Section(
        "study",
        "Studies",
        study_tables.study_sheet,
        lambda run, _: studies.study(run),
        figures={
            "gap_width": "What is lost against the width of the model",
            "gap_range": "What is lost against the range of the coefficients",
            "gap_share": "What is lost against the length of the training",
            "scaling": "What the number of coefficients costs, and what is lost with it",
        },
    ),
    Section(
        "versus",
        "Method against method",
        tables.versus_sheet,
        lambda run, frames: compare.versus(run),
    ),
    Section(
        "knob",
        "Front and knob",
        tables.knob_sheet,
        shows="overall",
        figures={
            "front_": "Trade-off front: every method",
            "cross_": "Told one setting, scored with another",
            "sweep_": "One network, its coefficients moving",
        },
    ),
    Section(
        "comparisons",
        "Gap to one network per setting",
        tables.gaps_sheet,
        lambda run, _: compare.comparisons(run),
        figures={"gap": "Gap to the fixed grid against the coefficient"},
    ),
    Section(
        "summary",
        "Quality at the same coefficients",
        tables.summary_sheet,
        lambda run, _: compare.summary(run),
        figures={
            "measures": "Every measure against the coefficient",
            "samples": "What the models make of the first test example",
        },
        folded=True,
    ),
    Section(
        "quality",
        "Quality against compute",
        cost_tables.quality_sheet,
        lambda run, _: compare.quality_compute(run),
        figures={
            "quality": "Quality against compute: networks trained for a share of the steps, each "
            "with its whole schedule"
        },
    ),
    Section("savings", "Cost", cost_tables.savings_sheet, lambda run, _: costs.savings(run)),
    Section(
        "break_even",
        "Break-even",
        cost_tables.break_even_sheet,
        lambda run, _: costs.break_evens(run),
        figures={"break_even": "What so many settings cost"},
    ),
]
TITLES = {section.name: section.title for section in SECTIONS}
FRAMES = [section.name for section in SECTIONS if section.frame is not None]


@dataclass(frozen=True, kw_only=True)
class Built:
    """The report of one task, preset and experiment. `paths` has the page first. Everything else is
    worked out when it is first asked for: of files that are there already nobody asks.

    points: the verdict in words; `sentence` has them in a row. frames: by the names of SECTIONS,
    which are attributes, too: `built.overall`; see `bench/report/answers/`. sheets: those with
    something in them.
    """

    run: Run
    folder: Path
    paths: list[Path] = field(default_factory=list)

    @functools.cached_property
    def frames(self) -> Frames:
        return frames_of(self.run)

    @functools.cached_property
    def sheets(self) -> dict[str, Sheet]:
        return sheets_of(self.run, self.frames)

    @functools.cached_property
    def points(self) -> list[Point]:
        return verdict_points(self.run)

    @functools.cached_property
    def notes(self) -> list[str]:
        frames = self.frames
        return notes(self.run, frames["comparisons"], frames["overall"], frames["savings"])

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name not in FRAMES:
            raise AttributeError(f"a report has no {name!r}: its frames are {', '.join(FRAMES)}")
        return self.frames[name]

    @property
    def sentence(self) -> str:
        return joined(self.run, self.points)

    @property
    def sections(self) -> list[Section]:
        """Those that have a table here."""
        return [section for section in SECTIONS if section.name in self.sheets]


def frames_of(run: Run) -> Frames:
    """Every section's answers."""
    frames: Frames = {}
    for section in SECTIONS:
        if section.frame is not None:
            frames[section.name] = section.frame(run, frames)
    return frames


def sheets_of(run: Run, frames: Frames) -> dict[str, Sheet]:
    """Every table that has something in it, by name."""
    sheets = {each.name: each.sheet(run, frames[each.shows or each.name]) for each in SECTIONS}
    return {name: sheet for name, sheet in sheets.items() if sheet.rows}


def by_section(figures: Iterable[str], sections: Iterable[Section]) -> dict[str, list[str]]:
    """The figures' names by the section beside whose table they stand, else under MORE."""
    starts = {start: section.name for section in sections for start in section.figures}
    places: dict[str, list[str]] = {name: [] for name in [*starts.values(), MORE]}
    for figure in figures:
        near = (name for start, name in starts.items() if figure.startswith(start))
        places[next(near, MORE)].append(figure)
    return places

"""The report as one list: what stands under which title, and which figures beside it.

A new table is a function that makes its `Sheet` and an entry in SECTIONS; a new figure is a drawing
function in `bench/report/plots.py` and its name below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.report import compare, costs, reference, tables, versus
from bench.report.load import Run
from bench.report.sheet import Sheet

Frames = dict[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table and what stands around it.

    frame: its answers, from the run and the frames of the sections above; what is written as
        `<name>.csv`, or None where it is that of the section `shows`.
    words: Markdown, above the table. after: a paragraph below it on the page. figures: captions by
        how the figures' names begin. folded: closed on the page until asked for.
    """

    name: str
    title: str
    sheet: Callable[[Run, pd.DataFrame], Sheet]
    frame: Callable[[Run, Frames], pd.DataFrame] | None = None
    shows: str = ""
    words: str
    after: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    folded: bool = False


SECTIONS = [
    Section(
        name="reference",
        title="The reference examined",
        frame=lambda run, frames: reference.examine(run),
        sheet=tables.reference_sheet,
        words="Whether the network trained for a setting is the grid's best there: the loss of "
        "any network at any setting is a weighted sum of its recorded terms. Best network: chosen "
        "by the other seeds on the other half of the examples. Benefit: what the middle network, "
        "used there, loses more, where that is clearly above nothing; the margin is a share of it, "
        "and the loss's own margin where there is none. The reference fails (§) where the 95 % "
        "interval of what it loses lies beyond the margin: no method is judged there.",
    ),
    Section(
        name="overall",
        title="Lost and saved",
        frame=lambda run, frames: compare.overall(run),
        sheet=tables.overall_sheet,
        words="What each method loses against one network per setting, at the same coefficients, "
        "and what it saves. Benefit lost: (its loss - the reference's) / (the middle network's "
        "used everywhere - the reference's), per setting where that is clearly above nothing; 0 is "
        "the grid, 1 one network. The reference is the harder of the grid's own network and the "
        "grid's best there. Means over settings with their 95 % interval, the worst setting beside "
        "them; settings at which a method is the reference itself, or the reference fails (§), are "
        "left out, and how many are averaged is said (of the benefit, of the gap). Verdict: on the "
        "benefit lost, with a margin of a tenth unless the task says otherwise; ° does not survive "
        "Holm's correction over the table; mixed: no worse on average, but decidedly at some "
        "setting. The loss gap is against the grid's own networks. Intervals know other seeds and "
        "examples, not other machines: another CPU moved a network of the same seed by up to "
        "3.7 %. Costs are those of all networks for all settings of this run, as ratios to the "
        "fixed grid's; two columns divide the FLOPs by those of the warm-started grid and of the "
        "cheapest other method that is better or equal. Pays from: the number of settings from "
        "which on its FLOPs are fewer than the grid's. Bold: the best of a column among rows with "
        "a verdict, the middle network aside; which differences are more than chance is in the "
        "next table. Power: how likely `equal` was, had nothing been lost; seeds to settle: with "
        "how many what is undecided would be decided with a probability of 80 %, at this spread "
        "and on these examples.",
        after="Which number decides? Will you set the coefficient yourself: read the benefit lost "
        "and the gap. Will you pick by size or quality and search for the coefficient: read "
        "BD-rate, where there is one, with the overlap that it rests on. They can disagree.",
        figures={
            "headline": "Share of the benefit lost at matching coefficients (0 the grid, 1 its "
            "middle network for all) against compute, mean and worst setting, one point a method",
            "heat": "Loss gap of every method at every setting with its verdict, and the share of "
            "the benefit lost",
        },
    ),
    Section(
        name="versus",
        title="Method against method",
        frame=lambda run, frames: versus.versus(run, frames["overall"]),
        sheet=tables.versus_sheet,
        words="The loss of one method less that of another at the same settings, examples and "
        "seeds: mean over the settings at which they are different networks, with its 95 % "
        "interval, in per cent of the other's or the loss's unit. The best row of the table "
        "before, and the method the verdict is about, against every other. Told apart: the "
        "interval excludes nothing, with three seeds or more, after Holm's correction over the "
        "table.",
    ),
    Section(
        name="knob",
        title="Front and knob",
        shows="overall",
        sheet=tables.knob_sheet,
        words="The front, whatever the coefficients: BD-rate, and over the low, middle and high "
        "third of the common range, which is named, for of the rest it sees nothing; hypervolume "
        "over the grid's; IGD+ to the grid's front. And the knob: the share of the grid's range "
        "covered, the rank correlation of coefficient and weighted term (1 is right), the mean "
        "distance to the grid's term over its range (0 is right), the share of settings at which "
        "being told that setting gives the lowest loss, and the excess of the loss between the "
        "compared settings over what its neighbours promise. Intervals are Student's over the "
        "seeds, three or more. Over its estimate: by how much what is written is larger than what "
        "was estimated.",
        figures={
            "front_": "Trade-off front: every method",
            "cross_": "Told one setting, scored with another",
            "sweep_": "One network, its coefficients moving",
        },
    ),
    Section(
        name="comparisons",
        title="Gap to one network per setting",
        frame=lambda run, frames: compare.comparisons(run),
        sheet=tables.gaps_sheet,
        words="Method minus fixed grid at the same setting, paired by example and seed: mean and "
        "95 % interval; in per cent of the grid's mean where the margin is. Behind the loss: the "
        "gap to the best of the grid, the share of the benefit lost against the harder of the two, "
        "and the verdict on it; where there is no benefit, on the gap. § the reference fails "
        "there; ° does not survive Holm's correction over the table. Bold: the best at a setting.",
        figures={"gap": "Gap to the fixed grid against the coefficient"},
    ),
    Section(
        name="summary",
        title="Quality at the same coefficients",
        frame=lambda run, frames: compare.summary(run),
        sheet=tables.summary_sheet,
        words="Mean over examples and seeds at every setting, ± the standard deviation over "
        "seeds. Bold: the best at a setting.",
        figures={
            "measures": "Every measure against the coefficient",
            "samples": "What the models make of the first test example",
        },
        folded=True,
    ),
    Section(
        name="quality",
        title="Quality against compute",
        frame=lambda run, frames: compare.quality_compute(run),
        sheet=tables.quality_sheet,
        words="The loss gap, mean over settings, of networks trained for shares of the steps, "
        "each with its whole schedule, against the grid of all steps.",
        figures={
            "quality": "Quality against compute: networks trained for a share of the steps, each "
            "with its whole schedule"
        },
    ),
    Section(
        name="savings",
        title="Cost",
        frame=lambda run, frames: costs.savings(run),
        sheet=tables.savings_sheet,
        words="What the networks of each method cost for all settings of this run, per seed, and "
        "in brackets the ratio to the fixed grid's. Networks that two methods use count in full "
        "for each. FLOPs include what answering for the settings took (a search, say). Time is "
        "that of the processor, all threads, or on a GPU the device's. Net memory: the largest "
        "peak of a training, without what was there before it. Parameters and bytes are those that "
        "must be kept.",
    ),
    Section(
        name="break_even",
        title="Break-even",
        frame=lambda run, frames: costs.break_evens(run),
        sheet=tables.break_even_sheet,
        words="The number of settings from which on a method is cheaper than the grid, with its "
        "95 % interval where several networks on both sides give one; and where the trainings that "
        "found a method's levers are counted, too.",
        figures={"break_even": "What so many settings cost"},
    ),
]
TITLES = {section.name: section.title for section in SECTIONS}
MORE = "more"  # figures beside no table


@dataclass(frozen=True, kw_only=True)
class Built:
    """The report of one task, preset and experiment. `paths` has the page first.

    sentence: the verdict in words. frames: by the names of SECTIONS, which are attributes, too:
    `built.overall`; see `bench/report/compare.py` and `costs.py`. sheets: those with something in
    them.
    """

    run: Run
    folder: Path
    paths: list[Path]
    sentence: str
    notes: list[str]
    frames: Frames
    sheets: dict[str, Sheet]

    def __getattr__(self, name: str) -> pd.DataFrame:
        frames = self.__dict__.get("frames", {})
        if name not in frames:
            raise AttributeError(f"a report has no {name!r}: its frames are {', '.join(frames)}")
        return frames[name]

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
    places: dict[str, list[str]] = {name: [] for name in [*(s.name for s in sections), MORE]}
    for figure in figures:
        near = (s.name for s in sections if s.figures and figure.startswith(tuple(s.figures)))
        places[next(near, MORE)].append(figure)
    return places

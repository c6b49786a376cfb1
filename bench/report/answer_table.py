"""The one table of a whole report: its answers, a row or two per task.

sheet = answer_sheet(runs)          for the page, Markdown and, with `answer_lines`, a terminal
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from bench.report.answers.answer import NO_VERDICT, TUNED_ALONE, answers
from bench.report.answers.reference import setting_words
from bench.report.answers.studies import home
from bench.report.answers.verdict import MIXED
from bench.report.load import Run
from bench.report.sheet import Column, Row, Sheet, sheet_of
from bench.report.text import NOTHING, estimate, number, one_line, ratio

# In a terminal the columns that may take several lines, the first of them first, and how narrow.
FOLDED = {2: 11, 4: 11, 1: 12}
WORDS = 4  # columns that lean left there

# What its columns mean, for people who have never seen one.
LEGEND = {
    "benefit lost": "0 % is as good as the grid, one network per setting; 100 % is as bad as the "
    "grid's middle network used at every setting",
    "compute": "FLOPs of training all the networks that are needed; the grid's are 1×",
    "pays from": "with so many settings or more, the one network takes less compute than a grid; "
    "the search for the tuned options is not counted",
    "trained out": "yes if half of the training would have done for the grid; no if not, or if a "
    "network of the grid is beaten at its own setting: then the answer says who learns faster, not "
    "who ends better",
}
ONE_SEED = "One seed is a demonstration, not evidence: another seed may change every number."
NOTHING_TO_LOSE = (
    f"{NOTHING}: at no setting is the grid clearly better than its middle network, so there is no "
    "benefit to lose."
)
NOT_FAIR = (
    "Tuned alone: the network's options come from a search, of this task or of others, and the "
    "grid's do not, so the match is not fair."
)
UNSURE = "° does not survive Holm's correction over the methods of its task."


def shown_in(runs: Sequence[Run]) -> list[Run]:
    """The runs that have a row: of a study, its home alone."""
    return [run for run in runs if home(run) is run]


def answer_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The answers of all, as they are written as CSV."""
    frames = [answers(run) for run in shown_in(runs)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def task_words(run: Run) -> str:
    """`image compression, quick`."""
    return f"{one_line(run.title)}, {one_line(run.preset)}"


def answer_sheet(runs: Sequence[Run]) -> Sheet:
    """A task stands once for its rows."""
    rows: list[Row] = [
        row | {"run": run, "method": run.key}  # rows of one run belong together
        for run in shown_in(runs)
        for row in answers(run).to_dict("records")
    ]
    columns = [
        Column("task", lambda row: task_words(row["run"])),
        Column("network", lambda row: row["compared"] if isinstance(row["compared"], str) else ""),
        Column("answer", answer_words),
        Column("benefit lost (%)", _lost),
        Column("worst setting (%)", _worst),
        Column("compute", lambda row: ratio(row["flops_ratio"])),
        Column("pays from", lambda row: number(row["break_even"], 0)),
        Column("trained out", lambda row: _known(row["trained_out"])),
        Column("seeds", lambda row: str(row["seeds"])),
    ]
    return sheet_of(rows, columns, left=2)._replace(left=3)


def answer_words(row: Row) -> str:
    """`equal`, `no verdict: one seed`."""
    if row["answer"] == NO_VERDICT:
        return f"{NO_VERDICT}: {row['why']}"
    words = "mixed: worse at some settings" if row["answer"] == MIXED else str(row["answer"])
    certain = row["stands"] is True or row["answer"] in ("undecided", MIXED)
    return words if certain else f"{words} °"


def _lost(row: Row) -> str:
    share, *ends = (100 * row[f"share_{part}"] for part in ("mean", "low", "high"))
    return estimate(share, ends, 0)


def _worst(row: Row) -> str:
    if not math.isfinite(row["share_worst"]):
        return NOTHING
    size = estimate(100 * row["share_worst"], (), 0)
    return f"{size}, {setting_words(row['run'], row['share_worst_setting'])}"


def _known(trained_out: float) -> str:
    return "not known" if math.isnan(trained_out) else "yes" if trained_out else "no"


def remarks(runs: Sequence[Run]) -> list[str]:
    """What the rows below a table of these runs have to be read with."""
    frame = answer_frame(runs)
    marked = frame["answer"].isin(["equal", "better", "worse"]) & ~frame["stands"].eq(True)
    return [
        *[ONE_SEED] * bool(frame["seeds"].eq(1).any()),
        *[NOT_FAIR] * bool(frame["compared"].eq(TUNED_ALONE).any()),
        *[NOTHING_TO_LOSE]
        * bool((frame["share_mean"].isna() & frame["flops_ratio"].notna()).any()),
        *[UNSURE] * bool(marked.any()),
        *(f"{task_words(run)}: {gone}." for run in shown_in(runs) for gone in _gone(run)),
    ]


def _gone(run: Run) -> Iterator[str]:
    """What is missing of a run, of which its report says more."""
    if lost := int(run.measured["status"].ne("done").sum()):
        yield f"{lost} of {len(run.measured)} measurements failed, or their training diverged"
    if run.damaged:
        yield f"{len(run.damaged)} measurements are not what was written and were left out"


# In a terminal -----------------------------------------------------------------------------------


def answer_lines(sheet: Sheet, width: int) -> Iterator[tuple[str, str]]:
    """Plain lines, aligned, and what each is: "head", "task" or "row". A task has a line of its
    own, and its networks stand below it; cells are folded where the width is less than they take.
    """
    rows = [["  " + one_line(row[1] or NOTHING), *map(one_line, row[2:])] for row in sheet.rows]
    heads = ["", *sheet.head[2:]]
    widths, gap = _widths(heads, rows, width)
    yield from (("head", line) for line in _folded(heads, widths, gap, bottom=True))
    yield "head", "─" * (sum(widths) + len(gap) * (len(widths) - 1))
    ends = [*itertools.accumulate(sheet.groups, initial=0)]
    for start, end in itertools.pairwise(ends):
        name = textwrap.wrap(one_line(sheet.rows[start][0]), width, subsequent_indent="  ")
        yield from (("task", line) for line in name)
        for row in rows[start:end]:
            yield from (("row", line) for line in _folded(row, widths, gap))


def _widths(
    heads: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[int], str]:
    """Of the columns: as wide as their longest cell, less where there is no room for that; and what
    stands between them."""
    cells = [*zip(*rows, strict=True)] if rows else [()] * len(heads)
    words = [_in_two_lines(head) for head in heads]
    widths = [max([word, *map(len, column)]) for word, column in zip(words, cells, strict=True)]

    def folded(gap: str) -> list[int]:
        narrow, room = [*widths], width - len(gap) * (len(widths) - 1)
        for column, least in FOLDED.items():
            spare = narrow[column - 1] - max(least, words[column - 1])
            narrow[column - 1] -= min(max(0, sum(narrow) - room), max(0, spare))
        return narrow

    gap = "  " if sum(folded("  ")) + 2 * (len(widths) - 1) <= width else " "
    return folded(gap), gap


def _in_two_lines(head: str) -> int:
    """How wide a heading is there."""
    longest = max(map(len, head.split()), default=0)
    widths = range(max(1, longest), len(head) + 1)
    return next((width for width in widths if len(textwrap.wrap(head, width)) <= 2), longest)


def _folded(
    cells: Sequence[str], widths: Sequence[int], gap: str, *, bottom: bool = False
) -> list[str]:
    """The lines of a row, words to the left and numbers to the right."""
    columns = [
        textwrap.wrap(cell, width, subsequent_indent="  " * cell.startswith("  ")) or [""]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(map(len, columns))
    lines = []
    for line in range(height):
        parts = []
        for place, (column, width) in enumerate(zip(columns, widths, strict=True)):
            at = line - (height - len(column)) * bottom
            text = column[at] if 0 <= at < len(column) else ""
            parts.append(text.ljust(width) if place < WORDS else text.rjust(width))
        lines.append(gap.join(parts).rstrip())
    return lines

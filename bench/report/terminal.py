"""A report in the terminal: one table of answers, a row or two per task; and all tables, where they
are asked for, at most 100 columns wide."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from bench.report.answer_table import LEGEND, answer_lines, answer_sheet, remarks, task_words
from bench.report.answers.compare import LOST
from bench.report.answers.reference import LOSS
from bench.report.answers.studies import home
from bench.report.cost_tables import savings_sheet
from bench.report.headings import size_line
from bench.report.sections import TITLES, Built
from bench.report.sheet import Sheet
from bench.report.study_tables import narrowed
from bench.report.tables import main_measures, overall_sheet, summary_sheet
from bench.report.text import one_line


def last_screen(built: Sequence[Built], width: int, *, tables: bool) -> list[Table | Text]:
    """What a command ends with, to be printed part by part: the answers, and before them all other
    tables where these are asked for."""
    if not built:
        return []
    every = terminal_tables(built) if tables else []
    spaced = [part for table in every for part in (Text(), table)]
    return [*spaced, Text(), *answer_text(built, width), Text()]


def answer_text(built: Sequence[Built], width: int) -> list[Text]:
    """The table of answers, and what it has to be read with, as lines of this width at most."""
    runs = [report.run for report in built]
    styles = {"head": "dim", "task": "bold", "row": ""}
    rows = [(line, styles[kind]) for kind, line in answer_lines(answer_sheet(runs), width)]
    legend = [(f"{name.capitalize()}: {words}.", "dim") for name, words in LEGEND.items()]
    below = [*((remark, "bold") for remark in remarks(runs)), *legend]
    rows += [("", "")] + [
        (line, style)
        for text, style in below
        for line in textwrap.wrap(text, width, subsequent_indent="  ")
    ]
    return [Text(line, style, no_wrap=True, overflow="ignore") for line, style in rows]


def terminal_tables(built: Sequence[Built]) -> list[Table]:
    """Per report: what is lost and saved, the claims and the study, the reference examined, the
    measures that matter with the loss gap, and the costs as ratios to the grid's; of the other
    sizes of a study the first alone."""
    return [table for report in built for table in _tables(report)]


def _tables(report: Built) -> Iterator[Table]:
    run = report.run
    title = f"{task_words(run)}: {size_line(run)}"
    yield rich_table(overall_sheet(run, report.overall, narrow=True), title, report.sentence)
    if home(run) is not run:
        return  # the rest stands in the page: of a study, all at once are too many tables
    for name in ("claims", "study"):
        if name in report.sheets:
            yield rich_table(narrowed(report.sheets[name]), TITLES[name])
    if "reference" in report.sheets:
        yield rich_table(report.sheets["reference"], TITLES["reference"])
    measures = list(dict.fromkeys([*main_measures(run), *({LOSS} & run.measures.keys())]))
    summary = summary_sheet(run, report.summary, measures, report.comparisons)
    yield rich_table(summary, TITLES["summary"], "\n".join(report.notes))
    ratios = ": × of the fixed grid's" if run.reference else ""
    costs = savings_sheet(run, report.savings, narrow=True)
    yield rich_table(costs, f"Cost for all settings{ratios}")


def rich_table(sheet: Sheet, title: str, caption: str = "") -> Table:
    """Numbers to the right, a rule between methods, nothing interpreted."""
    table = Table(
        title=Text(one_line(title), style="bold"),
        caption=Text(caption + "\n", style="dim") if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, label in enumerate(sheet.head):
        widest = max(len(row[place]) for row in sheet.rows)
        head = textwrap.fill(label, max(11, widest)).replace("\u00a0", " ")  # rich breaks there
        justify: Literal["left", "right"] = "left" if place < sheet.left else "right"
        table.add_column(Text(head), justify=justify, overflow="fold", min_width=min(widest, 24))
    ends = set(itertools.accumulate(sheet.groups[:-1]))
    for line, row in enumerate(sheet.rows):
        cells = [Text(one_line(cell)) for cell in row]
        for place, cell in enumerate(cells):
            if cell.plain in LOST:
                cell.stylize("red")
            elif (line, place) in sheet.best:
                cell.stylize("bold")
        table.add_row(*cells, end_section=line + 1 in ends)
    return table

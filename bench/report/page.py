"""The page: one self-contained `index.html` for people who would rather look than read.

    text = page(load_results(Path("results")), build(Path("results")), command)

Everything is inside: no network, no other file, no framework. Its own security policy allows
pictures as data and the one script and style whose hashes it names, so that no request can leave
it and no result can run. Pictures are previews; the numbers are those of the records.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape as html_escape
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from PIL import Image

from bench.report.answer_table import LEGEND, answer_sheet, remarks, shown_in, task_words
from bench.report.answers.compare import LOST
from bench.report.appearance import ALL
from bench.report.headings import origin, settings_line, size_line
from bench.report.load import Results, Run, file_name
from bench.report.notes import warnings
from bench.report.rendering import data_uri, embedded, html, source
from bench.report.sections import MORE, SECTIONS, Built, by_section
from bench.report.sheet import Column, Row, Sheet, sheet_of
from bench.report.sliders import Knob, Previews, knob_of
from bench.report.text import NOTHING, measure_label, number, one_line, short

PAGE = 6_000_000  # bytes, about as much as still opens at once on a phone
FEW = 6  # rows that need no filter
RELOAD = 20  # seconds after which it loads itself anew while a run lasts
GOING = ("<meta data-going ", "<p data-going ")  # how lines begin that stand there meanwhile
COLUMN = 900  # pixels of a PNG beyond which a figure is as wide as two columns
REPLACED = ("samples", "sweep")  # by the slider, where it has pictures
# Shown as marks, whatever follows them in the cell.
WORDS = {"better", "equal", "worse", "undecided", "mixed", "failed", "diverged"}
NO_NUMBERS = {NOTHING, "ref.", "", *WORDS}  # in columns of numbers
_NUMBER = re.compile(r"([+−]?\d+(?:\.\d+)?(?:e[+−-]?\d+)?)(?: ([kMGTP])|[^\w.]|$)")
SCRIPTS = ("chart.js", "knob.js", "tables.js")  # one after the other, as one
_POWERS = {"k": "e3", "M": "e6", "G": "e9", "T": "e12", "P": "e15"}


def page(results: Results, reports: Sequence[Built], command: str, going: str = "") -> str:
    """The page of one or more reports, whose files lie in their folders.

    command: what rebuilds it. going: how far the run is that is still at work on these results;
    then the page loads itself anew, until it is `settled`. The same results give the same text.
    """
    knobs = [knob_of(report) for report in reports]
    plates = [_plates(report, knob) for report, knob in zip(reports, knobs, strict=True)]
    room = PAGE - sum(len(plate.source) for each in plates for plate in each)
    previews = Previews.fitting((path for knob in knobs for path in knob.paths), room)
    style, script = source("page.css"), "".join(map(source, SCRIPTS))
    return html(
        "index.html",
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        runs=[
            _shown(report, embedded(knob.data(previews)) if knob.content else "", each)
            for report, knob, each in zip(reports, knobs, plates, strict=True)
        ],
        answers=_answers(reports),
        legend=LEGEND,
        measured=_measured(results),
        going=going,
        reload=RELOAD,
        all_trained=_all_trained(results.cells),
        command=command,
        few=FEW,
        value_of=value_of,
        verdict_in=verdict_in,
    )


def settled(text: str, note: str = "") -> str:
    """A page without what it says and does while a run lasts, and with a note in its place."""
    instead = f'{GOING[1]}role="status">{html_escape(note)}</p>\n' if note else ""
    lines = text.splitlines(keepends=True)
    kept = (instead if line.startswith(GOING[1]) else line for line in lines)
    return "".join(line for line in kept if not line.startswith(GOING[0]))


def _policy(style: str, script: str) -> str:
    """Pictures from data and exactly this style and this script; everything else is refused."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; "
        f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
    )


def _measured(results: Results) -> str:
    last = datetime.fromtimestamp(results.measured["time"].max(), UTC)
    numbers = f"{len(results.records):,}".replace(",", "\u202f")
    return (
        f"{numbers} measured numbers from {len(results.cells)} trained networks, the last of "
        f"{last:%-d %B %Y}."
    )


def _answers(reports: Sequence[Built]) -> dict[str, Any]:
    """The table of answers: per task its rows, and the place of its section on the page."""
    runs = [report.run for report in reports]
    sheet, places = answer_sheet(runs), {run.key: place for place, run in enumerate(runs)}
    ends = itertools.pairwise(itertools.accumulate(sheet.groups, initial=0))
    tasks = [
        {"place": places[run.key], "name": sheet.rows[start][0], "rows": sheet.rows[start:end]}
        for run, (start, end) in zip(shown_in(runs), ends, strict=True)
    ]
    return {"head": sheet.head, "tasks": tasks, "remarks": remarks(runs)}


def _all_trained(cells: pd.DataFrame) -> str:
    lost = int(cells["status"].isin(LOST).sum())
    hours = sum(value or 0.0 for phases in cells["phases"] for value in phases.values()) / 3600
    failed = f" ({lost} failed or diverged)" if lost else ""
    flops = short(cells["flops"].astype(float).sum(), "FLOP")
    return f"{len(cells)} networks{failed}, {flops}, {short(hours)} device hours"


# A run ------------------------------------------------------------------------------------------


def _shown(report: Built, knob: str, plates: list[Plate]) -> dict[str, Any]:
    """What the template shows of one run."""
    run = report.run
    title = task_words(run)
    every = {plate.name: plate for plate in plates}
    by_name = {
        name: plate._replace(whole=every.get(name + ALL))
        for name, plate in every.items()
        if name.removesuffix(ALL) == name
    }
    places = by_section(by_name, report.sections)
    galleries = {place: [by_name[name] for name in names] for place, names in places.items()}
    return {
        "title": title[0].upper() + title[1:] if title[0].isascii() else title,  # no β becomes a B
        "about": f"{size_line(run)}.",
        "pictures": one_line(run.sample_line),
        "settings": settings_line(run),
        "points": [(point.head, _quoted(point.text)) for point in report.points],
        "first": [_quoted(note) for note in warnings(run, report.reference)],
        "notes": [_quoted(note) for note in report.notes],
        "knob": knob,
        "sections": [
            {
                "section": section,
                "words": _quoted(section.words),
                "listing": Listing.of(report.sheets[section.name]),
                "csv": _csv(report, section.shows or section.name),
                "plates": galleries.get(section.name, []),
            }
            for section in report.sections
        ],
        "more": galleries[MORE],
        "networks": Listing.of(_networks(run)),
        "networks_csv": _csv(report, "networks"),
        "origin": {name: ", ".join(values) for name, values in origin(run).items()},
    }


def _csv(report: Built, name: str) -> str:
    """The link from the page to a table's file, "" where there is none."""
    path = report.folder / f"{name}.csv"
    return f"{path.parent.name}/{path.name}" if path in report.paths else ""


def _quoted(text: str) -> str:
    """Markdown's code as a page without any writes it, and no number apart from its per cent."""
    return re.sub("`(.+?)`", r"“\1”", one_line(text)).replace(" %", "\u00a0%")


def _networks(run: Run) -> Sheet:
    """The ledger itself: one row per training."""

    def trained_for(row: Row) -> str:
        settings = (", ".join(f"{value:g}" for value in setting) for setting in row["trained_for"])
        return "; ".join(settings) or "the range"

    def parameters(row: Row) -> str:
        counts = pd.Series([row["parameters"], row["conditioner_parameters"]], dtype=float)
        return short(counts.sum(min_count=1))

    def seconds(phase: str) -> Column:
        return Column(f"{one_line(phase)} (s)", lambda row: number(row["phases"].get(phase), 1))

    phases = dict.fromkeys(name for each in run.cells["phases"] for name in each)
    columns = [
        Column("network", lambda row: one_line(row["cell"])),
        Column("method", lambda row: run.label(row["method"])),
        Column("seed", lambda row: str(row["seed"])),
        Column("trained for", trained_for),
        Column("status", lambda row: row["status"]),
        Column("steps", lambda row: short(row["steps"])),
        Column("examples", lambda row: short(row["examples"])),
        Column("FLOPs", lambda row: short(row["flops"])),
        *map(seconds, phases),
        Column("parameters", parameters),
        Column("stored", lambda row: short(row["bytes"], "B")),
        Column("net memory", lambda row: short(row["net_memory_bytes"], "B")),
    ]
    return sheet_of(run.cells.to_dict("records"), columns)


# Tables -----------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """A table that the page's script sorts by any column and, where it is long, filters.

    names: of the rows, each repeated where it stands once for several, so that rows can move.
    kinds: of the columns, "n" for one whose cells are all numbers, verdicts or empty.
    """

    sheet: Sheet
    names: list[str]
    kinds: list[str]

    @classmethod
    def of(cls, sheet: Sheet) -> Listing:
        names: list[str] = []
        for first, *_ in sheet.rows:
            names.append(first or names[-1])
        kinds = [""]
        for place in range(1, len(sheet.head)):
            texts = {row[place] for row in sheet.rows}
            numbers = {text for text in texts if value_of(text) is not None}
            kinds.append("n" if numbers and texts - numbers <= NO_NUMBERS else "")
        return cls(sheet, names, kinds)


def verdict_in(text: str) -> str:
    """The verdict that a cell begins with, if any."""
    word = text.partition(" ")[0].rstrip(":")
    return word if word in WORDS else ""


def value_of(text: str) -> float | None:
    """The number that a cell begins with, as `bench/report/text.py` writes it: `−3.1 [−4, −2]`,
    `0.20×`, `34.2 TFLOP`; None where it begins with none."""
    match = _NUMBER.match(text)
    if match is None:
        return None
    return float(match[1].replace("−", "-") + _POWERS.get(match[2], ""))


# Figures ----------------------------------------------------------------------------------------


class Plate(NamedTuple):
    """A figure as the page shows it; `whole` is the one of all methods where it has some."""

    name: str
    caption: str
    source: str
    width: int  # of the PNG, whose shape the SVG shares
    height: int
    whole: Any = None

    @property
    def kind(self) -> str:
        return "wide" if self.width > COLUMN else "narrow"


def _plates(report: Built, knob: Knob) -> list[Plate]:
    """The report's figures, as SVG, or as PNG where that is much smaller."""
    plates = []
    for path in report.paths:
        if path.suffix != ".png" or (knob.paths and path.stem.startswith(REPLACED)):
            continue
        data, kind = path.read_bytes(), "image/png"
        size = pixels(data)
        drawn = path.with_suffix(".svg")
        if drawn in report.paths and drawn.stat().st_size <= 3 * len(data):
            data, kind = drawn.read_bytes(), "image/svg+xml"
        plates.append(
            Plate(path.stem, _caption(report.run, path.stem), data_uri(kind, data), *size)
        )
    return plates


def pixels(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size


def _caption(run: Run, figure: str) -> str:
    if figure.endswith(ALL):
        return f"All {len(run.methods)} methods"
    for x, y in run.fronts:
        if figure == file_name(f"front_{x}_{y}"):
            across, up = (measure_label(run.measures[name]) for name in (x, y))
            return f"Trade-off front: {up} against {across}, every method"
    for section in SECTIONS:
        for start, caption in section.figures.items():
            if figure.startswith(start):
                rest = figure.removeprefix(start).removeprefix("_")
                caption += f", part {rest}" if rest.isdigit() else ""
                return f"{caption}: {run.label(rest)}" if rest in run.methods else caption
    return one_line(figure.replace("_", " ")).capitalize()

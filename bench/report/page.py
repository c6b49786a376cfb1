"""The page: one self-contained `index.html` for people who would rather look than read.

    text = page(load_results(Path("results")), build(Path("results")), command)

Everything is inside: no network, no other file, no framework. Its own security policy allows
pictures as data and the one script and style whose hashes it names, so that no request can leave
it and no result can run. Pictures are previews; the numbers are those of the records.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from PIL import Image

from bench.report.compare import LOST
from bench.report.headings import origin, size_line
from bench.report.load import Results, Run, file_name
from bench.report.notes import warnings
from bench.report.rendering import data_uri, embedded, html, source
from bench.report.sections import MORE, SECTIONS, Built, by_section
from bench.report.sheet import Sheet
from bench.report.sliders import Knob, Previews, knob_of
from bench.report.text import NOTHING, estimate, measure_label, number, one_line, ratio, short

PAGE = 6_000_000  # bytes, about as much as still opens at once on a phone
FEW = 6  # rows that need no filter
COLUMN = 900  # pixels of a PNG beyond which a figure is as wide as two columns
REPLACED = ("samples", "sweep")  # by the slider, where it has pictures
# Shown as marks, whatever follows them in the cell.
WORDS = {"better", "equal", "worse", "undecided", "mixed", "failed", "diverged"}
_NUMBER = re.compile(r"([+−]?\d+(?:\.\d+)?(?:e[+−-]?\d+)?)(?: ([kMGTP])|[^\w.]|$)")
_POWERS = {"k": "e3", "M": "e6", "G": "e9", "T": "e12", "P": "e15"}


def page(results: Results, reports: Sequence[Built], command: str) -> str:
    """The page of one or more reports, whose files lie in their folders.

    command: what rebuilds it. The same results give the same text.
    """
    knobs = [knob_of(report) for report in reports]
    plates = [_plates(report, knob) for report, knob in zip(reports, knobs, strict=True)]
    room = PAGE - sum(len(plate.source) for each in plates for plate in each)
    previews = Previews.fitting((path for knob in knobs for path in knob.paths), room)
    style, script = source("page.css"), source("page.js")
    return html(
        "index.html",
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        runs=[
            _shown(report, embedded(knob.data(previews)) if knob.content else "", each)
            for report, knob, each in zip(reports, knobs, plates, strict=True)
        ],
        lead=_lead(results),
        all_trained=_all_trained(results.cells),
        command=command,
        few=FEW,
    )


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


def _lead(results: Results) -> str:
    last = datetime.fromtimestamp(results.measured["time"].max(), UTC)
    numbers = f"{len(results.records):,}".replace(",", "\u202f")
    return (
        "A loss has coefficients. Here one network that is told them is compared with one network "
        f"for each setting, at the same coefficients. {numbers} measured numbers from "
        f"{len(results.cells)} trained networks, the last of {last:%-d %B %Y}."
    )


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
    by_name = {plate.name: plate for plate in plates}
    places = by_section(by_name, report.sections)
    galleries = {place: [by_name[name] for name in names] for place, names in places.items()}
    return {
        "task": one_line(run.task).replace("_", " "),
        "preset": one_line(run.preset),
        "about": f"{size_line(run)}. {one_line(run.sample_line)}".strip(),
        "sentence": report.sentence,
        "facts": _facts(report),
        "notes": [one_line(note) for note in [*warnings(run, report.reference), *report.notes]],
        "knob": knob,
        "sections": [
            {
                "section": section,
                "words": re.sub("`(.+?)`", r"“\1”", section.words),
                "listing": listing(report.sheets[section.name]),
                "plates": galleries[section.name],
            }
            for section in report.sections
        ],
        "more": galleries[MORE],
        "networks": listing(_networks(run)),
        "origin": {name: ", ".join(values) for name, values in origin(run).items()},
    }


def _facts(report: Built) -> list[tuple[str, str, str]]:
    """The numbers of the sentence, large: what of, the number, what is around it."""
    run = report.run
    if not run.under_test or run.reference is None:
        return []
    row = report.overall.set_index("method").loc[run.under_test[0]]
    share, low, high, worst = (
        100 * row[f"share_{part}"] for part in ("mean", "low", "high", "worst")
    )
    mean, _, around = estimate(share, (low, high), 0).partition(" ")
    settings = f"{row['share_settings']} of {len(run.settings)} settings"
    facts = [
        ("of the grid's compute", ratio(row["flops_ratio"]), ""),
        (f"of the benefit lost, {settings}", f"{mean} %", around),
        ("at the worst of them", f"{estimate(worst, (), 0)} %", ""),
        ("settings from which it pays", number(row["break_even"], 0), ""),
    ]
    return [fact for fact in facts if not fact[1].startswith(NOTHING)]


def _networks(run: Run) -> Sheet:
    """The ledger itself: one row per training."""
    phases = list(dict.fromkeys(name for each in run.cells["phases"] for name in each))
    head = ["network", "method", "seed", "trained for", "status", "steps", "examples", "FLOPs"]
    head += [*(f"{one_line(name)} (s)" for name in phases), "parameters", "stored", "net memory"]
    rows = []
    for row in run.cells.to_dict("records"):
        settings = "; ".join(", ".join(f"{v:g}" for v in setting) for setting in row["trained_for"])
        counts = pd.Series([row["parameters"], row["conditioner_parameters"]], dtype=float)
        cells = [one_line(row["cell"]), run.label(row["method"]), str(row["seed"])]
        cells += [settings or "the range", row["status"]]
        cells += [short(row[name]) for name in ("steps", "examples", "flops")]
        cells += [number(row["phases"].get(name), 1) for name in phases]
        cells += [short(counts.sum(min_count=1)), short(row["bytes"], "B")]
        rows.append([*cells, short(row["net_memory_bytes"], "B")])
    return Sheet(head, rows, 5, [len(rows)])


# Tables -----------------------------------------------------------------------------------------


class Listing(NamedTuple):
    """A table that the page's script sorts by any column and, where it is long, filters.

    head: texts with their kinds, "n" for a column of numbers. rows: the name of each, and a `Cell`
    for each other column.
    """

    head: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]


class Cell(NamedTuple):
    """kind: of its column. word: the verdict it begins with. known: the number it is sorted by."""

    text: str
    kind: str
    word: str
    best: bool
    known: str


def listing(sheet: Sheet) -> Listing:
    """A name that stands once for the rows below it is repeated, so that rows can move. A column is
    one of numbers if all its cells are numbers, verdicts or empty."""
    names: list[str] = []
    for first, *_ in sheet.rows:
        names.append(first or names[-1])
    kinds = [""]
    for place in range(1, len(sheet.head)):
        texts = {row[place] for row in sheet.rows}
        numbers = {text for text in texts if value_of(text) is not None}
        others = texts - numbers - {NOTHING, "ref.", ""} - WORDS
        kinds.append("n" if numbers and not others else "")

    def cell(line: int, place: int) -> Cell:
        text, kind = sheet.rows[line][place], kinds[place]
        word = text.split(" ")[0]
        known = value_of(text) if kind else None
        return Cell(
            text=text,
            kind=kind,
            word=word if word in WORDS else "",
            best=(line, place) in sheet.best,
            known="" if known is None else f"{known:.12g}",
        )

    rows = [
        (name, [cell(line, place) for place in range(1, len(kinds))])
        for line, name in enumerate(names)
    ]
    return Listing(list(zip(sheet.head, kinds, strict=True)), rows)


def value_of(text: str) -> float | None:
    """The number that a cell begins with, as `bench/report/text.py` writes it: `−3.1 [−4, −2]`,
    `0.20×`, `34.2 TFLOP`; None where it begins with none."""
    match = _NUMBER.match(text)
    if match is None:
        return None
    return float(match[1].replace("−", "-") + _POWERS.get(match[2], ""))


# Figures ----------------------------------------------------------------------------------------


class Plate(NamedTuple):
    name: str
    caption: str
    source: str
    width: int  # of the PNG, whose shape the SVG shares
    height: int

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
        with Image.open(path) as picture:
            size = picture.size
        drawn = path.with_suffix(".svg")
        if drawn in report.paths and drawn.stat().st_size <= 3 * len(data):
            data, kind = drawn.read_bytes(), "image/svg+xml"
        plates.append(
            Plate(path.stem, _caption(report.run, path.stem), data_uri(kind, data), *size)
        )
    return plates


def _caption(run: Run, figure: str) -> str:
    for x, y in run.fronts:
        if figure == file_name(f"front_{x}_{y}"):
            across, up = (measure_label(run.measures[name]) for name in (x, y))
            return f"Trade-off front: {up} against {across}, every method"
    for section in SECTIONS:
        for start, caption in section.figures.items():
            if figure.startswith(start):
                method = figure.removeprefix(start).removeprefix("_")
                return f"{caption}: {run.label(method)}" if method in run.methods else caption
    return one_line(figure.replace("_", " ")).capitalize()

"""The page: one self-contained `index.html` for people who would rather look than read.

    text = page(load_results(Path("results")), build(Path("results")), command)

Everything is inside: no network, no other file, no framework. Its own security policy allows
pictures as data and the one script and style whose hashes it names, so that no request can leave
it and no result can run. Pictures are previews; the numbers are those of the records.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import string
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from bench.report import FIGURES, HEADS, TITLES, Built
from bench.report.compare import LOST
from bench.report.costs import GRID
from bench.report.load import Results, Run, file_name
from bench.report.markup import Html, data_uri, embedded, joined, listing, tag
from bench.report.reference import setting_words
from bench.report.sliders import Knob, Previews, knob_of
from bench.report.stats import ENOUGH_SEEDS
from bench.report.tables import SIGN, Sheet, origin, sheets, size_line
from bench.report.text import (
    NOTHING,
    estimate,
    measure_label,
    method_label,
    number,
    one_line,
    ratio,
    short,
)
from bench.report.verdict import under_test

PAGE = 6_000_000  # bytes, about as much as still opens at once on a phone
FOLDED = ("summary",)  # tables for those who ask
# Under the first table of results: the numbers in it answer different questions.
WHICH = (
    "Which number decides? Will you set the coefficient yourself: read the benefit lost and the "
    "gap. Will you pick by size or quality and search for the coefficient: read BD-rate, where "
    "there is one, with the overlap that it rests on. They can disagree."
)
FEW = "all of this is orientation, and nothing is called better, equal or worse."


def page(results: Results, reports: Sequence[Built], command: str) -> str:
    """The page of one or more reports, whose files lie in their folders.

    command: what rebuilds it. The same results give the same text.
    """
    knobs = [knob_of(report) for report in reports]
    plates = [_plates(each, knob) for each, knob in zip(reports, knobs, strict=True)]
    room = PAGE - sum(len(plate.source) for each in plates for plate in each)
    previews = Previews.fitting((path for knob in knobs for path in knob.paths), room)
    names = [f"run-{place}" for place in range(len(reports))]
    parts = {
        name: (files("bench.report") / "assets" / f"page.{name}").read_text(encoding="utf-8")
        for name in ("html", "css", "js")
    }
    return string.Template(parts["html"]).substitute(
        policy=_policy(parts["css"], parts["js"]),
        style=parts["css"],
        script=parts["js"],
        title=html.escape("yoto-bench: " + "; ".join(_title(each.run) for each in reports)),
        lead=html.escape(_lead(results)),
        verdicts=joined(map(_verdict, names, reports)),
        sections=joined(
            _task(name, report, knob.data(previews), plate)
            for name, report, knob, plate in zip(names, reports, knobs, plates, strict=True)
        ),
        footer=_footer(results, command),
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


# The verdicts -----------------------------------------------------------------------------------


def _title(run: Run) -> str:
    return f"{one_line(run.task).replace('_', ' ')}, {one_line(run.preset)}"


def _lead(results: Results) -> str:
    last = datetime.fromtimestamp(results.measured["time"].max(), UTC)
    numbers = f"{len(results.records):,}".replace(",", "\u202f")
    return (
        "A loss has coefficients. Here one network that is told them is compared with one network "
        f"for each setting, at the same coefficients. {numbers} measured numbers from "
        f"{len(results.cells)} trained networks, the last of {last:%-d %B %Y}."
    )


def _verdict(name: str, report: Built) -> Html:
    task = tag("a", one_line(report.run.task).replace("_", " "), href=f"#{name}")
    head = tag("h2", task, tag("small", one_line(report.run.preset)))
    words = tag("div", tag("p", report.sentence), _facts(report))
    return tag("article", head, words, class_="verdict")


def _facts(report: Built) -> Html:
    """The numbers of the sentence, large; nothing where there are none."""
    run, method = report.run, under_test(report.run)
    if method is None or GRID not in run.methods:
        return Html()
    row = report.overall.set_index("method").loc[method]
    share, low, high, worst = (
        100 * row[f"share_{part}"] for part in ("mean", "low", "high", "worst")
    )
    mean, _, around = estimate(share, (low, high), 0).partition(" ")
    over = f"{row['share_settings']} of {len(run.settings)} settings"
    facts = [
        ("of the grid's compute", ratio(row["flops_ratio"]), ""),
        (f"of the benefit lost, {over}", f"{mean} %", around),
        ("at the worst of them", f"{estimate(worst, (), 0)} %", ""),
        ("settings from which it pays", number(row["break_even"], 0), ""),
    ]
    pairs = [
        tag("div", tag("dt", text), tag("dd", value, " ", tag("small", more)))
        for text, value, more in facts
        if not value.startswith(NOTHING)
    ]
    return tag("dl", *pairs, class_="facts")


# A task -----------------------------------------------------------------------------------------


def _task(name: str, report: Built, knob: dict[str, Any] | None, plates: list[Plate]) -> Html:
    run = report.run
    about = f"{size_line(run)}. {one_line(run.sample_line)}".strip()
    frames = {name: getattr(report, name) for name in TITLES if name != "knob"}
    tables, left = sheets(run, frames), list(plates)
    notes = [*_warnings(report), *report.notes]
    parts = [
        *(tag("h2", _title(run)), tag("p", about, class_="fine"), tag("h3", "Read this first")),
        tag("ul", *(tag("li", one_line(note)) for note in notes), class_="notes"),
    ]
    if (examined := tables.pop("reference", None)) is not None:
        parts += _section(TITLES["reference"], HEADS["reference"], examined, [], folded=False)
    if knob is not None:
        parts.append(tag("div", embedded(knob), class_="knob"))
    for each, sheet in tables.items():
        beside = [plate for plate in left if plate.name.startswith(FIGURES.get(each, ()))]
        left = [plate for plate in left if plate not in beside]
        words = re.sub("`(.+?)`", r"“\1”", HEADS[each])
        parts += _section(TITLES[each], words, sheet, beside, folded=each in FOLDED)
        if each == "overall":
            parts.append(tag("p", WHICH, class_="which"))
    if left:
        parts += [tag("h3", "More figures"), _gallery(left)]
    words = "Every training behind these numbers, lost ones included; phases are device seconds."
    parts += _section("Every trained network", words, _networks(run), [], folded=True)
    return tag("section", *parts, tag("h3", "Provenance"), _origin(run), class_="task", id=name)


def _warnings(report: Built) -> list[str]:
    """What stands before all other notes: too few seeds, and settings of which nothing is said."""
    run, examined = report.run, report.reference
    few = len(run.seeds) < ENOUGH_SEEDS
    found = [f"{len(run.seeds)} of {ENOUGH_SEEDS} seeds: {FEW}"] if few else []
    return found + [
        f"{SIGN.strip()} The reference fails at {setting_words(run, row['setting'])}, where "
        f"nothing is called better or worse: {row['why']}."
        for row in examined[examined["fails"].astype(bool)].to_dict("records")
    ]


def _section(
    title: str, words: str, sheet: Sheet, plates: list[Plate], *, folded: bool
) -> list[Html]:
    parts = [_gallery(plates)] if plates else []
    table = [tag("p", words, class_="fine"), listing(sheet, title)]
    if folded:
        return [*parts, tag("details", tag("summary", title), *table)]
    return [tag("h3", title), *parts, *table]


def _networks(run: Run) -> Sheet:
    """The ledger itself: one row per training."""
    phases = list(dict.fromkeys(name for each in run.cells["phases"] for name in each))
    head = ["network", "method", "seed", "trained for", "status", "steps", "examples", "FLOPs"]
    head += [*(f"{one_line(name)} (s)" for name in phases), "parameters", "stored", "net memory"]
    rows = []
    for row in run.cells.to_dict("records"):
        given = "; ".join(", ".join(f"{v:g}" for v in setting) for setting in row["trained_for"])
        counts = pd.Series([row["parameters"], row["conditioner_parameters"]], dtype=float)
        rows.append(
            [
                *(one_line(row["cell"]), method_label(row["method"]), str(row["seed"])),
                *(given or "the range", row["status"]),
                *(short(row[name]) for name in ("steps", "examples", "flops")),
                *(number(row["phases"].get(name), 1) for name in phases),
                short(counts.sum(min_count=1)),
                *(short(row[name], "B") for name in ("bytes", "net_memory_bytes")),
            ]
        )
    return Sheet(head, rows, 5, [len(rows)])


# Figures and provenance -------------------------------------------------------------------------


class Plate(NamedTuple):
    name: str
    caption: str
    source: str
    size: tuple[int, int]  # of the PNG, whose shape the SVG shares


CAPTIONS = {
    "headline": "Share of the benefit lost at matching coefficients (0 the grid, 1 its middle "
    "network for all) against compute, mean and worst setting, one point a method",
    "heat": "Loss gap of every method at every setting with its verdict, and the share of the "
    "benefit lost",
    "gap": "Gap to the fixed grid against the coefficient",
    "measures": "Every measure against the coefficient",
    "samples": "What the models make of the first test example",
    "sweep": "One network, its coefficients moving",
    "quality": "Quality against compute: networks trained for a share of the steps, each with its "
    "whole schedule",
    "break_even": "What so many settings cost",
    "cross": "Told one setting, scored with another",
}
COLUMN = 900  # pixels of a PNG beyond which a figure is as wide as two columns
REPLACED = ("samples", "sweep")  # by the slider, where it has pictures


def _plates(report: Built, knob: Knob) -> list[Plate]:
    """The report's figures, as SVG, or as PNG where that is much smaller."""
    found = []
    for path in report.paths:
        if path.suffix != ".png" or (knob.paths and path.stem.startswith(REPLACED)):
            continue
        data, kind = path.read_bytes(), "image/png"
        with Image.open(path) as picture:
            size = picture.size
        drawn = path.with_suffix(".svg")
        if drawn in report.paths and drawn.stat().st_size <= 3 * len(data):
            data, kind = drawn.read_bytes(), "image/svg+xml"
        caption = _caption(report.run, path.stem)
        found.append(Plate(path.stem, caption, data_uri(kind, data), size))
    return found


def _caption(run: Run, stem: str) -> str:
    for x, y in run.fronts:
        if stem == file_name(f"front_{x}_{y}"):
            across, up = (measure_label(run.measures[name]) for name in (x, y))
            return f"Trade-off front: {up} against {across}, every method"
    for name, text in CAPTIONS.items():
        if stem.startswith(name):
            method = stem.removeprefix(f"{name}_")
            return f"{text}: {method_label(method)}" if method in run.methods else text
    return one_line(stem.replace("_", " ")).capitalize()


def _gallery(plates: list[Plate]) -> Html:
    shown = [
        tag(
            "figure",
            tag(
                "img",
                src=plate.source,
                alt=f"Figure: {plate.caption}",
                decoding="async",
                width=plate.size[0],
                height=plate.size[1],
            ),
            tag("figcaption", plate.caption, class_="fine"),
            class_="wide" if plate.size[0] > COLUMN else "narrow",
        )
        for plate in plates
    ]
    return tag("div", *shown, class_="plates")


def _origin(run: Run) -> Html:
    pairs = []
    for name, found in origin(run).items():
        text = ", ".join(found) or "unknown"
        exact = name in ("commit", "experiment", "command") and found
        pairs += [tag("dt", name), tag("dd", tag("code", text) if exact else text)]
    return tag("dl", *pairs, class_="origin")


def _footer(results: Results, command: str) -> Html:
    cells = results.cells
    lost = int(cells["status"].isin(LOST).sum())
    hours = sum(value or 0.0 for phases in cells["phases"] for value in phases.values()) / 3600
    said = (
        f"All that was trained, what is in no table included: {len(cells)} networks"
        + (f" ({lost} failed or diverged)" if lost else "")
        + f", {short(cells['flops'].astype(float).sum(), 'FLOP')}, {short(hours)} device hours."
    )
    return joined(
        [
            tag("p", said, class_="fine"),
            tag("p", "Made from records alone by ", tag("code", command), class_="fine"),
            tag("p", "This file is whole: it loads nothing and sends nothing.", class_="fine"),
        ]
    )

"""From the files of a run to its report: tables, figures and the pages that link them.

    built = build(Path("results"))              results/report/<task>-<preset>/report.md

Needs only what lies in the results folders: no torch, no task.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from bench.files import drawing_to_files, guarded, printable, write_atomic
from bench.registry import SHOWN_FIRST
from bench.report import page, stamps
from bench.report.answer_table import answer_frame, answer_sheet, task_words
from bench.report.answers import lengths, studies
from bench.report.answers.costs import networks
from bench.report.appearance import ALL
from bench.report.headings import origin, setting_labels, size_line
from bench.report.load import Key, Results, Run, load_results
from bench.report.rendering import markdown
from bench.report.sections import (
    MORE,
    TITLES,
    Built,
    Frames,
    by_section,
)
from bench.report.text import escape

Drawn = dict[str, dict[str, bytes]]  # figures by name, their files by ending
TORN = 3600.0  # seconds after which what was being written to a temporary file is torn


def build(
    *roots: Path,
    out: Path | None = None,
    only: set[tuple[str, str, str]] | None = None,
    going: str = "",
) -> list[Built]:
    """Write the reports of everything in the results folders `roots`, read as one, and the page
    of them all, beside its table of answers (`answers.md`, `answers.csv`); [] where nothing is
    measured.

    `out` defaults to `report` in the first root. `only` names the (task, preset, experiment)s to
    write and return, with those that show a study of them; the page shows the others as they were.
    going: see `bench.report.page.page`.
    FileNotFoundError and ValueError as `load_results`.
    """
    results = load_results(*roots)
    runs = sorted(results.runs, key=lambda run: _place(run, roots))
    if out is None:
        out = roots[0] / "report"
        _refuse_outside(roots[0], [out, *(out / run.folder for run in runs)])
    wanted = [only is None or bool(_shows(run) & only) for run in runs]
    inputs = [stamps.inputs_of(run) for run in runs]
    reports = [Built(run=run, folder=out / run.folder) for run in runs]
    for report, made_of, write in zip(reports, inputs, wanted, strict=True):
        report.paths.extend(_files(report, made_of, write=write))
    if reports:
        _write_page(results, reports, inputs, out, roots, going)
    return [report for report, write in zip(reports, wanted, strict=True) if write]


def _place(run: Run, roots: Sequence[Path]) -> tuple[int, int]:
    """Of a run on the page: by the folders in their order, then as tasks are shown first."""
    path = run.measured["path"].iloc[0]
    root = next(place for place, root in enumerate(roots) if path.is_relative_to(root))
    known = run.task in SHOWN_FIRST
    return root, SHOWN_FIRST.index(run.task) if known else len(SHOWN_FIRST)


def settle(root: Path, note: str = "") -> None:
    """Take out of the page of a results folder that a run lasts; a note stands there instead."""
    place = root / "report" / "index.html"
    with contextlib.suppress(OSError):
        text = place.read_text(encoding="utf-8")
        if (settled := page.settled(text, note)) != text:
            write_atomic(place, settled)


def _shows(run: Run) -> set[Key]:
    """The runs of which its report says something."""
    return {each.key for each in run.family if each is run or studies.home(run) is run}


def _write_page(
    results: Results,
    reports: list[Built],
    inputs: list[str],
    out: Path,
    roots: Iterable[Path],
    going: str,
) -> None:
    """Write the page of all reports and the table of answers, unless they are there."""
    command = shlex.join(["python", "run_bench.py", "report", *map(str, roots)])
    files = [path for report in reports for path in report.paths]
    made_of = stamps.inputs_of_page(results, inputs, files, command, going)
    if stamps.unchanged(out, made_of) is None:
        runs = [report.run for report in reports]
        texts: dict[str, str | bytes] = {
            "index.html": page.page(results, reports, command, going),
            "answers.md": answer_sheet(runs).markdown(),
            "answers.csv": csv_of(answer_frame(runs)),
        }
        for name, text in texts.items():
            write_atomic(out / name, text)
        stamps.stamp(out, made_of, texts)


def _files(report: Built, made_of: str, *, write: bool) -> list[Path]:
    """A report's files, the page first; written where they are wanted and not there already."""
    folder = report.folder
    if not write:
        return sorted(path for path in folder.glob("*.*") if not path.name.startswith("."))
    names = stamps.unchanged(folder, made_of)
    if names is None or _leftovers(folder, names):
        run, frames = report.run, report.frames
        if not run.lengths.empty:
            same_loss = {"same_loss": lengths.same_loss(run)}
            frames = frames | {"trained_out": lengths.trained_out(run)} | same_loss
        if len(frames["study"]):
            frames = frames | {"slopes": studies.slopes(run)}
        names = list(files := _write(report, frames))
        stamps.stamp(folder, made_of, files)
    return [folder / name for name in names]


def _leftovers(folder: Path, names: Iterable[str]) -> list[Path]:
    """Figures and tables of an earlier build, and what one that was killed was writing: not what
    another run writes into the same folder now."""
    kept = set(names)
    ours = (path for path in folder.glob("*.*") if path.name not in kept)
    ends = ".svg", ".png", ".gif"
    return [
        path
        for path in ours
        if path.suffix in ends or path.stem in TITLES or (path.suffix == ".tmp" and _torn(path))
    ]


def _torn(path: Path) -> bool:
    """Whether nobody writes a temporary file any more."""
    with contextlib.suppress(OSError):  # it has its name by now
        return time.time() - path.stat().st_mtime > TORN
    return False


def _write(report: Built, frames: Frames) -> dict[str, str | bytes]:
    """The files by name, the page first."""
    with drawing_to_files():
        from bench.report.figures import figures
    frames = frames | {"networks": networks(report.run)}
    files: dict[str, str | bytes] = {f"{name}.csv": csv_of(frames[name]) for name in frames}
    bullets = [f"- {escape(note)}" for note in report.notes]
    for section in report.sections:
        sheet = report.sheets[section.name]
        lines = [section.words, "", sheet.markdown(), *bullets, ""]
        files[f"{section.name}.md"] = "\n".join(lines)
        files[f"{section.name}.tex"] = sheet.latex()
    drawn = figures(report.run, frames)
    files = {"report.md": _page(report, sorted(files), drawn), **files}
    for name, endings in drawn.items():
        files |= {f"{name}.{ending}": data for ending, data in endings.items()}
    for path in _leftovers(report.folder, files):
        path.unlink(missing_ok=True)
    for name, content in files.items():
        write_atomic(report.folder / name, content)
    return files


def _page(report: Built, files: list[str], drawn: Drawn) -> str:
    """The report's Markdown page: the verdict, what to know first, then tables and figures."""
    run = report.run
    sections = [
        (section, Markup(report.sheets[section.name].markdown())) for section in report.sections
    ]
    pictures = {
        name: next(ending for ending in ("gif", "png", "svg") if ending in endings)
        for name, endings in drawn.items()
    }
    narrow = {
        name
        for name, endings in drawn.items()
        if "svg" in endings and page.pixels(endings["png"])[0] <= page.COLUMN
    }
    labels = setting_labels(run)
    return markdown(
        "report.md", title=task_words(run), report=report, size=size_line(run), sections=sections,
        figures=by_section(drawn, report.sections), more=MORE, all=ALL, drawn=drawn,
        pictures=pictures, narrow=narrow, files=files, origin=origin(run),
        settings={labels[setting]: setting for setting in run.settings if len(run.axes) > 1},
    )  # fmt: skip


def csv_of(frame: pd.DataFrame) -> str:
    """A frame as CSV that no spreadsheet computes: a text cell or heading that begins like a
    formula (`=`, `+`, `-`, `@`, a tab, a line break) gets an apostrophe before it, control
    characters are written out (`\\n`), and numbers stay as they are."""

    def safe(cell: object) -> object:
        return guarded(printable(cell)) if isinstance(cell, str) else cell

    texts = frame.select_dtypes(exclude="number").columns
    cells = frame.assign(**{name: frame[name].map(safe) for name in texts})
    return cells.rename(columns=safe).to_csv(index=False, lineterminator="\n")


def _refuse_outside(root: Path, folders: Iterable[Path]) -> None:
    """A results folder of somebody else's may hold a link in the place of its report."""
    for folder in folders:
        if not folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{folder} leads out of {root}: remove the link or choose --out")

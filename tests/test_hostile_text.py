"""Names that somebody else has given: text on the page, in tables and on the terminal."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.cli import main
from bench.files import guarded, printable, unguarded
from bench.report import build, csv_of, load_results, terminal_tables
from bench.report.text import escape, latex, latex_table, markdown_table
from bench.run.records import Record, dumps, loads

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "＝1")
quickly = settings(max_examples=200, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.figures.figures", lambda *_: {})


TEXTS = ("<script>alert(1)</script>", "[red]x[/red]", "\x1b[2J\x1b[31mx", "a|b", "$x_1$ \\input{x}",
         "=1+1", "two\nlines", "\u202egnp", "**b** `c` [l](u)")  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_names_are_text_on_the_page_in_tables_and_on_the_terminal(
    root: Path, text: str, change_records: Callable[..., None], capsys
) -> None:
    def change(head: dict[str, Any]) -> None:
        head["task"] = head["preset"] = text
        if head["method"] == "yoto":
            head["method"] = text
        head["display"]["axes"][0]["symbol"] = text
        head["display"]["sample_line"] = text
        for style in head["display"]["measures"].values():
            style["label"] = style["unit"] = text
        head["provenance"]["command"] = head["provenance"]["commit"] = text

    change_records(change)
    (built,) = build(root)
    page = (root / "report/index.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
    for path in built.folder.iterdir():
        content = path.read_text()
        commands = {".md": ["<script"], ".tex": ["\\input", "$x_1$"]}.get(path.suffix, [])
        assert not [part for part in ("\x1b", "\u202e", *commands) if part in content]
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(io.StringIO(content)) for cell in row]
            assert not any(cell.startswith("=") for cell in cells)
    console = Console(width=200, file=io.StringIO(), force_terminal=True, color_system=None)
    for table in terminal_tables([built]):
        console.print(table)
    shown = console.file.getvalue()
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown
    if text == "[red]x[/red]":
        assert text in shown
    assert main(["report", str(root), "--explain", f"{built.folder.name}/fixed_grid"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_folder_names_do_not_command_the_terminal(root: Path, capsys) -> None:
    shutil.move(root / "runs/toy/yoto", root / "runs/toy/\x1b[2Jyoto")
    assert main(["status", str(root)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\x1b[2Jyoto" in said
    done = next(root.glob("runs/toy/*yoto/*/done.json"))
    done.write_text("[")
    assert main(["merge", str(root), "--out", str(root.parent / "out")]) == 2
    assert "\x1b" not in capsys.readouterr().err


@quickly
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_a_cell_and_comes_back(text: str) -> None:
    cell = guarded(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unguarded(cell) == text
    row = Record(text, text, text, text, 3, text, text, text, text, 0.1)
    assert loads(dumps([row]), "a file") == [row]
    assert printable(text).encode().decode() == printable(text)
    assert not any(ord(c) < 32 or c == "\x7f" for c in printable(text))
    (line,) = markdown_table(["a"], [[text]]).splitlines()[2:]
    assert line.startswith("| ")
    assert line.endswith(" |")
    assert "<" not in escape(text).replace("&lt;", "")
    assert latex_table(["a"], [[text]]).count("\n") == 8
    assert all(ord(c) < 128 for c in latex(text))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_a_text_in_every_csv(
    root: Path, text: str, change_records: Callable[..., None]
) -> None:
    frame = pd.DataFrame({"method": [text, "x"], text: ["y", text], "value": [-1.5, 2.0]})
    written = csv_of(frame)
    cells = [cell for row in csv.reader(io.StringIO(written)) for cell in row]
    assert not any(c.startswith(("=", "+", "@", "＝", "\t", "\r", "\n")) for c in cells)
    assert [c for c in cells if c.startswith("-")] == ["-1.5"]  # numbers are untouched
    assert pd.read_csv(io.StringIO(written))["value"].tolist() == [-1.5, 2.0]

    change_records(lambda head: None, lambda rows: [row._replace(example=text) for row in rows])
    for table in root.glob("records/*/*/*.csv"):
        raw = [cell for row in csv.reader(io.StringIO(table.read_bytes().decode())) for cell in row]
        assert f"'{text}" in raw
        assert text not in raw
    assert set(load_results(root).records["example"]) == {text}


def test_latex_does_not_take_a_star_for_its_own() -> None:
    """`\\\\` at the end of a row looks for a star at the beginning of the next."""
    table = latex_table(["a"], [["x"], ["*y"], ["[z"]])
    assert "\n{*}y" in table
    assert "\n{[}z" in table

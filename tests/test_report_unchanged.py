"""A report whose results did not change is not made again, and one whose results did always is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic import change, codec, heads, write_results

from bench.report import build, stamps
from bench.space import Setting

Drawn = list[str]


def plain(method: str, setting: Setting) -> Image.Image:
    return Image.new("RGB", (8, 8), "red")


def other(method: str, setting: Setting) -> Image.Image:
    return Image.new("RGB", (8, 8), "blue")


def better(*arguments: Any) -> dict[str, float]:
    values = codec(*arguments)
    return values | {"psnr": values["psnr"] + 1}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The reports of which figures were drawn."""
    seen: Drawn = []

    def figures(run: Any, frames: Mapping[str, Any]) -> dict[str, dict[str, bytes]]:
        seen.append(run.folder)
        data = f"{run.folder} {len(seen)}".encode()
        return {"headline": {"gif": data}}

    monkeypatch.setattr("bench.report.figures.figures", figures)
    return seen


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_drawn_where_nothing_changed(
    tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path, picture=plain)
    (first,) = build(tmp_path)
    before = contents(tmp_path / "report")
    monkeypatch.setattr("bench.report.page.page", lambda *_: pytest.fail("the page was written"))
    (second,) = build(tmp_path)
    assert drawn == ["compression-quick"]
    assert contents(tmp_path / "report") == before
    assert second.paths == first.paths
    assert second.sentence == first.sentence
    assert second.overall.equals(first.overall)


def without(*patterns: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for path in [path for pattern in patterns for path in root.glob(pattern)]:
            path.unlink()

    return remove


def dearer(root: Path) -> None:
    path = next(root.glob("runs/*/yoto/*/done.json"))
    ledger = json.loads(path.read_text())["ledger"]
    change(path, ledger={**ledger, "flops": 2 * ledger["flops"]})


CHANGES: dict[str, Callable[[Path], None]] = {
    "a value": lambda root: write_results(root, picture=plain, values=better),
    "a picture": lambda root: write_results(root, picture=other),
    "a picture less": without("records/*/yoto/*.png"),
    "a seed more": lambda root: write_results(root, picture=plain, seeds=(0, 1)),
    "a method more": lambda root: write_results(root, picture=plain, methods=("gates",)),
    "a method less": without("records/*/yoto/*.json"),
    "no known curve": without("records/*/context/*"),
    "a cost": dearer,
    "what answering took": lambda root: change(heads(root)[0], answering_flops=1e9),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_is_drawn_anew(tmp_path: Path, drawn: Drawn, what: str) -> None:
    write_results(tmp_path, picture=plain)
    build(tmp_path)
    page = (tmp_path / "report" / "index.html").read_text()
    CHANGES[what](tmp_path)
    build(tmp_path)
    assert len(drawn) == 2
    if what == "a value":
        assert (tmp_path / "report" / "index.html").read_text() != page


@pytest.mark.parametrize("harm", ["changed", "gone", "a link", "left over", "another's stamp"])
def test_a_file_that_is_not_as_it_was_written_is_made_anew(
    tmp_path: Path, drawn: Drawn, harm: str
) -> None:
    write_results(tmp_path)
    (built,) = build(tmp_path)
    figure, stamp = built.folder / "headline.gif", built.folder / stamps.STAMP
    if harm == "changed":
        figure.write_bytes(b"older")
    elif harm == "gone":
        figure.unlink()
    elif harm == "a link":
        figure.rename(tmp_path / "elsewhere.gif")
        figure.symlink_to(tmp_path / "elsewhere.gif")
    elif harm == "left over":
        (built.folder / "gap.gif").write_bytes(b"of an older version")
    else:
        made = json.loads(stamp.read_text())
        made["files"]["../../elsewhere.gif"] = made["files"]["headline.gif"]
        stamp.write_text(json.dumps(made))
        (tmp_path / "elsewhere.gif").write_bytes(figure.read_bytes())
    (second,) = build(tmp_path)
    assert figure.read_bytes() == b"compression-quick 2"
    assert not figure.is_symlink()
    assert sorted(path.name for path in second.paths) == sorted(p.name for p in built.paths)
    assert not (built.folder / "gap.gif").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"inputs": 1}', '{"inputs": "x", "files": 3}', "{" * 9]
)
def test_a_stamp_that_is_none_is_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / stamps.STAMP).write_text(text)
    assert stamps.unchanged(tmp_path, "x") is None


def test_other_code_draws_anew(
    tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(tmp_path)
    build(tmp_path)
    monkeypatch.setattr(stamps, "_code", lambda: ("another version",))
    build(tmp_path)
    assert len(drawn) == 2


def test_one_task_that_changed_costs_no_other_its_figures(tmp_path: Path, drawn: Drawn) -> None:
    write_results(tmp_path)
    write_results(tmp_path, preset="smoke")
    build(tmp_path)
    write_results(tmp_path, preset="smoke", values=better)
    build(tmp_path)
    assert drawn == ["compression-quick", "compression-smoke", "compression-smoke"]
    text = (tmp_path / "report" / "index.html").read_text()
    assert text.count('<section class="task"') == 2


def test_a_moved_folder_keeps_its_figures(tmp_path: Path, drawn: Drawn) -> None:
    write_results(tmp_path / "here", picture=plain)
    build(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    (built,) = build(tmp_path / "there")
    assert len(drawn) == 1
    assert all(path.is_relative_to(tmp_path / "there") for path in built.run.measured["path"])

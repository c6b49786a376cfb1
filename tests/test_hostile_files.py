"""Results folders, checkpoints, archives and tables that somebody else has made."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.cli import main
from bench.files import files_in, guarded, printable, read_object, sealed, unguarded, write_atomic
from bench.pictures import downloads
from bench.report import build, compare, csv_of, figures, load_results, terminal_tables
from bench.report.text import escape, latex, latex_table, markdown_table
from bench.run import lease
from bench.run.folders import clean, merge, status
from bench.run.plan import experiment
from bench.run.records import Record, dumps, loads
from bench.run.runner import Run
from bench.run.store import Damaged, Store, cell_from, read_json
from bench.train import MAGIC, load_state
from tests.faults import fuzz

CPU = torch.device("cpu")
FIGURES = figures.figures
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "＝1")
quickly = settings(max_examples=200, deadline=None, derandomize=True)


class Payload:
    """A pickle that leaves a folder where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "results"
    run = Run(root, [experiment("toy", "smoke", ["fixed_grid", "yoto"])], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    run.save_config()
    assert run.failures == []
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "results")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.figures.figures", lambda *_: {})


# ------------------------------------------------------------------ fuzzing, a little


@pytest.mark.parametrize("name", list(fuzz.READERS))
def test_readers_give_a_value_or_an_error_of_ours(name: str) -> None:
    """A short form of `python -m tests.faults.fuzz`."""
    tried, findings = fuzz.plain(name, 40, seconds=20, seed=0)
    assert tried > 0
    assert not findings, findings[0].trace


def test_the_fuzzer_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(content: bytes, folder: Path) -> None:
        if b"=" in content:
            json.loads(content)["missing"]

    monkeypatch.setitem(fuzz.READERS, "x", fuzz.Reader(careless, lambda: [b'{"a": 1}'], True))
    _, findings = fuzz.plain("x", 300, seconds=20, seed=0)
    assert any("KeyError" in each.trace or "TypeError" in each.trace for each in findings)


# ------------------------------------------------------------------ nothing is run


def as_checkpoint(data: bytes) -> bytes:
    return MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def payloads(mark: Path) -> Iterator[bytes]:
    """Pickles, and torch's two formats of them, of an object that does something."""
    for hostile in (Payload(mark), {"step": Payload(mark)}, [Payload(mark)]):
        yield pickle.dumps(hostile)
        for new in (True, False):
            file = io.BytesIO()
            torch.save(hostile, file, _use_new_zipfile_serialization=new)
            yield file.getvalue()


def test_a_payload_is_run_nowhere(root: Path, tmp_path: Path, capsys) -> None:
    """In the place of every file of a results folder, sealed where a seal is asked for, under
    every command that reads it."""
    mark = tmp_path / "ran"
    sound = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    folder = next(root.glob("runs/toy/yoto/*"))
    record = next(root.glob("records/toy/yoto/*.json"))
    done = folder / "done.json"
    places = [
        *(folder / name for name in ("config.json", "done.json", "model.safetensors", "log.jsonl")),
        *(record, record.with_suffix(".csv"), record.with_suffix(".png"), folder / "lease.json"),
        *(folder / "state.pt", next(root.glob("configs/*.json"))),
    ]
    config = next(root.glob("configs/*.json"))
    commands = [
        ["status", str(root)],
        ["merge", str(root), "--out", str(tmp_path / "out")],
        ["run", "--config", str(config), "--dry", "--out", str(root)],
    ]
    forms = list(payloads(mark))[:3]
    for place in places:
        by_torch = place.name in ("state.pt", "model.safetensors")
        for data in forms if by_torch else forms[:1]:
            place.write_bytes(as_checkpoint(data) if place.name == "state.pt" else data)
            if place.name == "model.safetensors":
                digest = {"model_sha256": hashlib.sha256(data).hexdigest()}
                done.write_text(sealed(json.loads(sound[done]) | digest))
                with pytest.raises(Damaged):
                    Store(root).network(cell_from(json.loads(sound[folder / "config.json"])))
            if place.suffix == ".csv":
                digest = {"sha256": hashlib.sha256(data).hexdigest()}
                record.write_text(sealed(json.loads(sound[record]) | digest))
            for words in commands:
                assert main(words) in (0, 2)
            if not by_torch:
                with contextlib.suppress(ValueError):
                    build(root)
            if place.name == "state.pt":
                with pytest.warns(UserWarning, match="is damaged"):
                    load_state(place, CPU)
            for path, content in sound.items():
                path.write_bytes(content)
            for extra in ("state.pt", "state.damaged", "lease.json"):
                (folder / extra).unlink(missing_ok=True)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
    capsys.readouterr()
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # the payload is sound
    assert mark.exists()


@pytest.mark.parametrize("name", sorted(downloads.ARTEFACTS))
def test_a_payload_in_the_cache_is_not_run(name: str, tmp_path: Path, monkeypatch) -> None:
    mark, kept = tmp_path / "ran", downloads.ARTEFACTS[name]
    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setitem(
        downloads.ARTEFACTS, name, downloads.Artefact(**{**vars(kept), "sources": ()})
    )
    path = tmp_path / "cache" / kept.file
    path.parent.mkdir()
    for data in payloads(mark):
        path.write_bytes(data)
        with pytest.raises(downloads.Unavailable):
            downloads.get(name)
    downloads._failed.clear()
    assert not mark.exists()


def test_a_class_named_in_a_foreign_folder_is_not_imported(root: Path, tmp_path: Path) -> None:
    """Replaying a configuration runs the file it names; looking at a folder does not."""
    plugin, mark = tmp_path / "plugin.py", tmp_path / "ran"
    plugin.write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    for path in [*root.glob("runs/*/*/*/config.json"), *root.glob("configs/*.json")]:
        text = path.read_text().replace('"bench.tasks.toy:Toy"', json.dumps(f"{plugin}:Toy"))
        assert str(plugin) in text
        path.write_text(sealed(json.loads(text)))
    before = set(sys.modules)
    status(root)
    merge([root], tmp_path / "out")
    clean(root)
    build(root, out=tmp_path / "report")
    assert not [name for name in set(sys.modules) - before if name.startswith("plugin")]
    assert not mark.exists()
    with pytest.raises(ValueError, match="no Task"):
        cell_from(read_json(next(root.glob("runs/*/*/*/config.json"))))
    assert mark.exists()  # and so it would have been noticed


def test_a_pickle_that_asks_for_gigabytes_is_refused() -> None:
    data = bytearray(pickle.dumps([1, 2], protocol=2))
    place = data.index(b"q\0")  # BINPUT 0
    data[place : place + 2] = b"r" + (2**30).to_bytes(4, "little")  # LONG_BINPUT
    assert pickle.loads(pickle.dumps([1, 2], protocol=2)) == [1, 2]
    with pytest.raises(pickle.UnpicklingError, match="a table of 1,073,741,824 entries"):
        downloads.arrays_only(bytes(data))
    for cut in range(len(data)):
        with pytest.raises(pickle.UnpicklingError):
            downloads.arrays_only(bytes(data[:cut]))


# ------------------------------------------------------------------ archives


def tar_with(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for entry in (tarfile.TarInfo("package/wanted"), tarfile.TarInfo(name)):
            if entry.name == name:
                entry.type, entry.linkname = kind, link
            archive.addfile(entry, io.BytesIO())
    return path


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "C:\\x", "c:/x", "..\\x", "\\\\host\\x", "a/b/../../../x"],
)
def test_members_outside_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="outside its folder"):
        downloads.member(tar_with(tmp_path / "a.tgz", name), "package/wanted")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("package/wanted", b"")
        archive.writestr(name, b"")
    with pytest.raises(ValueError, match="outside its folder"):
        downloads.member(tmp_path / "a.zip", "package/wanted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "a.zip"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_an_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tar_with(tmp_path / "a.tgz", "package/x", kind, "/etc/passwd")
    for wanted in ("package/wanted", "package/x"):
        with pytest.raises(ValueError, match="a link or a device"):
            downloads.member(path, wanted)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("package/x")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="a link or a device"):
        downloads.member(tmp_path / "a.zip", "package/x")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MEMBER_BYTES", 1000)
    for size, fits in ((1000, True), (1001, False)):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x", bytes(size))
        with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
            entry = tarfile.TarInfo("x")
            entry.size = size
            archive.addfile(entry, io.BytesIO(bytes(size)))
        for name in ("a.zip", "a.tgz"):
            if fits:
                assert len(downloads.member(tmp_path / name, "x")) == size
            else:
                with pytest.raises(ValueError, match="more than 1,000 bytes"):
                    downloads.member(tmp_path / name, "x")


# ------------------------------------------------------------------ nothing leaves the folder


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def outside(root: Path, tmp_path: Path) -> Path:
    """Somebody's own files, to which the results folder has links of every kind."""
    mine = tmp_path / "mine"
    shutil.copytree(root / "runs/toy/yoto", mine / "cells")
    cell = next((mine / "cells").iterdir())
    (cell / "state.pt").write_bytes(b"precious")
    (mine / "secret.json").write_text('{"password": "hunter2"}')
    (mine / "key").write_text("PRIVATE KEY")
    (mine / "figures").mkdir()
    (mine / "figures/summary.csv").write_text("mine")
    (mine / "figures/photo.png").write_bytes(b"mine")
    (root / "runs/toy/linked").symlink_to(mine / "cells")
    (root / "runs/toy/fixed_grid/linked").symlink_to(cell)
    (root / "records/toy/linked").symlink_to(mine)
    (root / "records/toy/yoto/secret.json").symlink_to(mine / "secret.json")
    return mine


def test_links_are_not_followed_out_of_a_folder(root: Path, tmp_path: Path) -> None:
    mine, out = outside(root, tmp_path), tmp_path / "out"
    before = snapshot(mine)
    with pytest.warns(UserWarning, match="are passed over"):
        assert clean(root) == (0, 0)
    with pytest.warns(UserWarning, match="are passed over"):
        cells, _ = merge([root], out)
    assert cells == len(list(root.glob("runs/toy/*/[0-9a-f]*/done.json"))) - len(
        list((mine / "cells").iterdir())
    )
    assert not (out / "runs/toy/linked").exists()
    assert b"hunter2" not in b"".join(snapshot(out).values())
    with pytest.warns(UserWarning, match="are passed over"):
        rows = {row.method for row in status(root)}
    assert rows == {"fixed_grid", "yoto"}
    with pytest.warns(UserWarning, match="are passed over"):
        assert len(load_results(root).runs) == 1
    assert snapshot(mine) == before


def test_a_folder_that_lies_elsewhere_itself_is_one(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    assert len(list(files_in(link, "runs/*/*/*/done.json"))) > 0
    assert status(link) == status(root)


def test_a_link_in_the_place_of_the_report_is_not_written_through(
    root: Path, tmp_path: Path, capsys
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.png").write_bytes(b"mine")
    (root / "report").mkdir()
    (root / "report/toy-smoke").symlink_to(mine)
    assert main(["report", str(root)]) == 2
    assert "leads out of" in capsys.readouterr().err
    (root / "report/toy-smoke").unlink()
    (root / "report").rmdir()
    (root / "report").symlink_to(mine)
    assert main(["report", str(root)]) == 2
    assert [path.name for path in mine.iterdir()] == ["photo.png"]
    assert main(["report", str(root), "--out", str(tmp_path / "report")]) == 0


def test_a_link_in_the_place_of_a_sample_is_not_shown(root: Path, tmp_path: Path) -> None:
    """The page holds small pictures as they are: a key must not get into it."""
    secret = tmp_path / "key"
    secret.write_text("PRIVATE KEY")
    for record in root.glob("records/*/*/*.json"):
        record.with_suffix(".png").unlink(missing_ok=True)
        record.with_suffix(".png").symlink_to(secret)
    build(root)
    page = (root / "report/index.html").read_text()
    assert base64.b64encode(b"PRIVATE KEY").decode().rstrip("=")[:12] not in page
    for record in root.glob("records/*/*/*.json"):
        record.with_suffix(".png").unlink()
        record.with_suffix(".png").write_text("PRIVATE KEY")
    with pytest.raises(ValueError, match="is no PNG picture"):
        build(root)


def test_a_planted_temporary_is_not_written_through(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / f".x.{os.getpid()}.tmp").symlink_to(mine)
    write_atomic(tmp_path / "x", "new")
    assert mine.read_text() == "mine"
    assert (tmp_path / "x").read_text() == "new"


def changed_heads(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change every record's head, and its table so that both still agree."""
    for path in root.glob("records/*/*/*.json"):
        head = json.loads(path.read_bytes())
        table = path.with_suffix(".csv")
        change(head)
        if table.exists():
            rows = loads(table.read_text(), "a table")
            same = ("task", "preset", "experiment") + (
                () if head["kind"] == "context" else ("method", "setting")
            )
            rows = [row._replace(**{name: head[name] for name in same}) for row in rows]
            table.write_bytes(dumps(rows).encode())
            head["sha256"] = hashlib.sha256(table.read_bytes()).hexdigest()
        path.write_text(sealed(head))


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "..", "a/b", "x" * 3000, ""])
def test_no_name_in_a_record_decides_where_the_report_is_written(
    root: Path, tmp_path: Path, name: str
) -> None:
    def change(head: dict[str, Any]) -> None:
        head["task"], head["preset"], head["experiment"] = name, name, name
        head["id"] = f"{name}{head['id']}"
        head["cells"] = [f"{name}{cell}" for cell in head["cells"]]
        measures = head["display"]["measures"]
        measures[f"../{name}"[:900]] = measures["loss"]
        head["display"]["fronts"] = [[f"../{name}"[:900], "loss"]]

    changed_heads(root, change)
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    (built,) = build(root)
    assert built.folder.parent == root / "report"
    assert len(built.folder.name) < 256
    assert {path for path in tmp_path.rglob("*") if "report" not in path.parts} == before
    assert {path.name for path in (root / "report").iterdir()} == {"index.html", built.folder.name}
    merge([root], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"runs", "records"}


def test_no_name_of_a_measure_decides_how_a_figure_is_called(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(head: dict[str, Any]) -> None:
        measures = head["display"]["measures"]
        measures["../../../evil"] = measures["loss"]
        head["display"]["fronts"] = [["../../../evil", "loss"]]

    changed_heads(root, change)
    for path in root.glob("records/*/*/*.csv"):
        rows = loads(path.read_text(), "a table")
        rows += [row._replace(measure="../../../evil") for row in rows if row.measure == "loss"]
        path.write_bytes(dumps(rows).encode())
        head = json.loads(path.with_suffix(".json").read_bytes())
        head["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(sealed(head))
    (run,) = load_results(root).runs
    monkeypatch.setattr(figures, "saved", lambda figure: {"svg": b"", "png": b""})
    frames = (compare.summary(run), compare.comparisons(run), compare.overall(run))
    drawn = FIGURES(run, *frames, compare.quality_compute(run))
    assert any(name.startswith("front_") for name in drawn)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in drawn)


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "0" + "}" * 5000])
def test_deep_and_huge_json_fails_cleanly(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "deep.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_object(path)
    monkeypatch.setattr("bench.files.JSON_BYTES", 1000)
    path.write_text(json.dumps(["x"] * 1000))
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        read_object(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        read_object(path)
    with pytest.raises(Damaged, match="delete it"):
        read_json(path)
    assert lease.read(path) == dict.fromkeys(lease.KEYS, "damaged")


def test_a_pipe_in_a_results_folder_is_not_waited_for(root: Path, tmp_path: Path) -> None:
    for name in ("config.json", "done.json", "log.jsonl", "lease.json"):
        cell = root / "runs/toy/yoto" / name.partition(".")[0]
        cell.mkdir()
        if name in ("log.jsonl", "lease.json"):
            (cell / "config.json").write_text("{}")
        os.mkfifo(cell / name)
    with pytest.warns(UserWarning, match="passed over"):
        status(root)
    with pytest.warns(UserWarning, match="passed over"):
        load_results(root)
    with pytest.warns(UserWarning, match="passed over"):
        merge([root], tmp_path / "out")
    table = next(root.glob("records/toy/yoto/*.csv"))
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(ValueError, match="no ordinary file"):
        load_results(root)
    with pytest.raises(ValueError, match="not what was measured"):
        merge([root], tmp_path / "out2")


# ------------------------------------------------------------------ text stays text

TEXTS = ("<script>alert(1)</script>", "[red]x[/red]", "\x1b[2J\x1b[31mx", "a|b", "$x_1$ \\input{x}",
         "=1+1", "two\nlines", "\u202egnp", "**b** `c` [l](u)")  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_names_are_text_on_the_page_in_tables_and_on_the_terminal(
    root: Path, text: str, capsys
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

    changed_heads(root, change)
    (built,) = build(root)
    page = (root / "report/index.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
    for path in built.folder.iterdir():
        content = path.read_text()
        assert "\x1b" not in content
        assert "\u202e" not in content
        if path.suffix == ".md":
            assert "<script" not in content
        if path.suffix == ".tex":
            assert "\\input" not in content
            assert "$x_1$" not in content
        if path.suffix == ".csv":
            assert not any(
                cell[:1] == "=" for row in csv.reader(io.StringIO(content)) for cell in row
            )
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
def test_a_formula_is_a_text_in_every_csv(root: Path, text: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"method": [text, "x"], text: ["y", text], "value": [-1.5, 2.0]})
    written = csv_of(frame)
    cells = [cell for row in csv.reader(io.StringIO(written)) for cell in row]
    assert not any(c.startswith(("=", "+", "@", "＝", "\t", "\r", "\n")) for c in cells)
    assert [c for c in cells if c.startswith("-")] == ["-1.5"]  # numbers are untouched
    assert pd.read_csv(io.StringIO(written))["value"].tolist() == [-1.5, 2.0]

    record = next(root.glob("records/toy/yoto/*.json"))
    table, head = record.with_suffix(".csv"), json.loads(record.read_bytes())
    rows = [row._replace(example=text) for row in loads(table.read_text(), "a table")]
    table.write_bytes(dumps(rows).encode())
    raw = [cell for row in csv.reader(io.StringIO(table.read_bytes().decode())) for cell in row]
    assert f"'{text}" in raw
    assert text not in raw
    head["sha256"] = hashlib.sha256(table.read_bytes()).hexdigest()
    record.write_text(sealed(head))
    found = load_results(root).records
    assert set(found.loc[found["entry"] == head["id"], "example"]) == {text}


def test_latex_does_not_take_a_star_for_its_own() -> None:
    """`\\\\` at the end of a row looks for a star at the beginning of the next."""
    table = latex_table(["a"], [["x"], ["*y"], ["[z"]])
    assert "\n{*}y" in table
    assert "\n{[}z" in table

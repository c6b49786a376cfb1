"""Results folders and checkpoints that somebody else has made."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.checkpoint import MAGIC, load_state
from bench.cli import main
from bench.files import files_in, read_object, sealed, write_atomic
from bench.report import build, figures, load_results
from bench.report.sections import frames_of
from bench.run import lease
from bench.run.folders import clean, merge, status
from bench.run.records import Record
from bench.run.schema import CellConfig, Damaged, Head, read
from bench.run.store import Store, cell_from
from tests.faults import fuzz
from tests.hostile import Payload, payloads

CPU = torch.device("cpu")
FIGURES = figures.figures


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.figures.figures", lambda *_: {})


# fuzzing, a little


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


# nothing is run


def as_checkpoint(data: bytes) -> bytes:
    return MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def test_a_payload_is_run_nowhere(root: Path, tmp_path: Path, capsys) -> None:
    """In the place of every file of a results folder, sealed where a seal is asked for, under
    every command that reads it."""
    mark = tmp_path / "ran"
    sound = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    folder, config = next(root.glob("runs/toy/yoto/*")), next(root.glob("configs/*.json"))
    done, record = folder / "done.json", next(root.glob("records/toy/yoto/*.json"))
    in_cell = "config.json done.json model.safetensors log.jsonl state.pt lease.json"
    places = [*(folder / name for name in in_cell.split()), record, config]
    places += [record.with_suffix(end) for end in (".csv", ".png")]
    commands = [
        ["status", str(root)],
        ["merge", str(root), "--out", str(tmp_path / "out")],
        ["run", "--config", str(config), "--dry", "--out", str(root)],
    ]
    forms = list(payloads(mark))[:3]

    def seal(head: Path, **digest: str) -> None:
        head.write_text(sealed(json.loads(sound[head]) | digest))

    for place in places:
        by_torch = place.name in ("state.pt", "model.safetensors")
        for data in forms if by_torch else forms[:1]:
            place.write_bytes(as_checkpoint(data) if place.name == "state.pt" else data)
            if place.name == "model.safetensors":
                seal(done, model_sha256=hashlib.sha256(data).hexdigest())
                with pytest.raises(Damaged):
                    Store(root).network(cell_from(read(folder / "config.json", CellConfig)))
            if place.suffix == ".csv":
                seal(record, sha256=hashlib.sha256(data).hexdigest())
            assert {main(words) for words in commands} <= {0, 2}
            if not by_torch:
                with contextlib.suppress(ValueError):
                    build(root)
            if place.name == "state.pt":
                with pytest.warns(UserWarning, match="is damaged"):
                    load_state(place, CPU)
            for path in {*folder.iterdir(), place} - sound.keys():
                path.unlink(missing_ok=True)
            for path, content in sound.items():
                path.write_bytes(content)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
    capsys.readouterr()
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # the payload is sound
    assert mark.exists()


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
        cell_from(read(next(root.glob("runs/*/*/*/config.json")), CellConfig))
    assert mark.exists()  # and so it would have been noticed


# nothing leaves the folder


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
    sound = len(list(root.glob("runs/toy/*/*/done.json")))
    mine, out = outside(root, tmp_path), tmp_path / "out"
    before = snapshot(mine)
    passing_over = functools.partial(pytest.warns, UserWarning, match="are passed over")
    with passing_over():
        assert clean(root) == (0, 0)
    with passing_over():
        assert merge([root], out)[0] == sound
    assert not (out / "runs/toy/linked").exists()
    assert b"hunter2" not in b"".join(snapshot(out).values())
    with passing_over():
        assert {row.method for row in status(root)} == {"fixed_grid", "yoto"}
    with passing_over():
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


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "..", "a/b", "x" * 3000, ""])
def test_no_name_in_a_record_decides_where_the_report_is_written(
    root: Path, tmp_path: Path, name: str, change_records: Callable[..., None]
) -> None:
    def change(head: dict[str, Any]) -> None:
        head["task"], head["preset"], head["experiment"] = name, name, name
        head["id"] = f"{name}{head['id']}"
        head["cells"] = [f"{name}{cell}" for cell in head["cells"]]
        measures = head["display"]["measures"]
        measures[f"../{name}"[:900]] = measures["loss"]
        head["display"]["fronts"] = [[f"../{name}"[:900], "loss"]]

    change_records(change)
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    (built,) = build(root)
    assert built.folder.parent == root / "report"
    assert len(built.folder.name) < 256
    assert {path for path in tmp_path.rglob("*") if "report" not in path.parts} == before
    assert {path.name for path in (root / "report").iterdir()} == {
        *("answers.csv", "answers.md", "index.html", ".made_of.json", built.folder.name),
    }
    merge([root], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"configs", "runs", "records"}


def test_no_name_of_a_measure_decides_how_a_figure_is_called(
    root: Path, change_records: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(head: dict[str, Any]) -> None:
        measures = head["display"]["measures"]
        measures["../../../evil"] = measures["loss"]
        head["display"]["fronts"] = [["../../../evil", "loss"]]

    def more(rows: list[Record]) -> list[Record]:
        evil = [row._replace(measure="../../../evil") for row in rows if row.measure == "loss"]
        return rows + evil

    change_records(change, more)
    (run,) = load_results(root).runs
    monkeypatch.setattr(figures, "saved", lambda figure: {"svg": b"", "png": b""})
    drawn = FIGURES(run, frames_of(run))
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
        read(path, Head)
    assert lease.read(path) == lease.NOBODY


def test_a_pipe_in_a_results_folder_is_not_waited_for(root: Path, tmp_path: Path) -> None:
    for name in ("config.json", "done.json", "log.jsonl", "lease.json"):
        cell = root / "runs/toy/yoto" / name.partition(".")[0]
        cell.mkdir()
        if name in ("log.jsonl", "lease.json"):
            (cell / "config.json").write_text("{}")
        os.mkfifo(cell / name)
    for look in (status, load_results, lambda root: merge([root], tmp_path / "out")):
        with pytest.warns(UserWarning, match="passed over"):
            look(root)
    table = next(root.glob("records/toy/yoto/*.csv"))
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(ValueError, match="no ordinary file"):
        load_results(root)
    with pytest.raises(ValueError, match="not what was measured"):
        merge([root], tmp_path / "out2")

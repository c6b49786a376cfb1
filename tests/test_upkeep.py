"""Status, merging and cleaning of results folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from bench.cli import main
from bench.files import read_object, sealed
from bench.report.load import load_results
from bench.run.folders import Conflict, clean, merge, status
from bench.run.lease import Lease
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.run.schema import Ledger
from bench.run.store import Store

CPU = torch.device("cpu")


def trained(root: Path, methods: list[str], count: int | None = None, measured: bool = True) -> Run:
    run = Run(root, [experiment("toy", "smoke", methods)], CPU)
    run.execute(run.train_jobs()[:count], "training", lambda: False)
    if measured:
        run.execute(run.record_jobs(), "measuring", lambda: False)
        assert run.failures == []
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("upkeep") / "results"
    trained(root, ["yoto", "fixed_grid"])
    return root


def test_status_counts_what_there_is(tmp_path: Path, capsys) -> None:
    run = trained(tmp_path, ["fixed_grid", "yoto", "unconditioned"], count=2, measured=False)
    store, cells = Store(tmp_path), run.experiments[0].cells
    left = [cell for cell in cells if store.result(cell) is None]
    (store.folder(left[0]) / "state.pt").write_bytes(b"x")
    log = {"step": 200, "loss": 1.0}
    (store.folder(left[0]) / "log.jsonl").write_text(json.dumps(log) + "\n{torn")
    ledger = Ledger(seconds={"train": 3.0}, steps=300)
    store.give_up(left[1], "smoke", "the loss became non-finite", ledger)
    with Lease(store.folder(left[2]) / "lease.json").hold():
        rows = {row.method: row for row in status(tmp_path)}
    counts = {
        method: (row.done, row.running, row.begun, row.missing, row.failed, row.diverged)
        for method, row in rows.items()
    }
    assert counts == {
        "fixed_grid": (2, 0, 1, 0, 0, 0),
        "yoto": (0, 0, 0, 0, 0, 1),
        "unconditioned": (0, 1, 0, 0, 0, 0),
    }
    grid, other = rows["fixed_grid"], rows["unconditioned"]
    pace = grid.seconds / 600
    assert grid.left == pytest.approx(100 * pace, rel=0.6)  # the median of two, a third to go
    assert other.left > 0  # at the task's pace: it has none of its own
    assert rows["yoto"].seconds == 3.0
    assert main(["status", str(tmp_path)]) == 0
    counted = "5 networks: 2 done, 0 running, 1 begun, 1 missing, 0 failed, 1 diverged"
    assert counted in capsys.readouterr().out
    assert main(["status", str(tmp_path / "none")]) == 2


def test_status_counts_what_failed_until_it_is_tried_again(tmp_path: Path) -> None:
    found = experiment("toy", "smoke", ["yoto"])
    run = Run(tmp_path, [found], CPU)
    (job,) = run.train_jobs()
    broken = replace(job, cell=replace(job.cell, id="another"))
    run.execute([broken], "training", lambda: False)
    assert len(run.failures) == 1
    (row,) = status(tmp_path)
    assert (row.failed, row.missing, row.done) == (1, 0, 0)
    run.execute([job], "training", lambda: False)
    (row,) = status(tmp_path)
    assert (row.failed, row.missing, row.done) == (0, 0, 1)
    assert not list(tmp_path.glob("runs/*/*/*/failed.json"))


def test_folders_of_two_machines_become_one(whole: Path, tmp_path: Path, capsys) -> None:
    one, two, out = (tmp_path / name for name in ("one", "two", "out"))
    shutil.copytree(whole, one)
    shutil.copytree(whole, two)
    shutil.rmtree(one / "runs/toy/yoto")
    shutil.rmtree(one / "records/toy/yoto")
    shutil.rmtree(two / "runs/toy/fixed_grid")
    (next(two.glob("runs/toy/yoto/*")) / "state.pt").write_bytes(b"left behind")
    assert main(["merge", str(one), str(two), "--out", str(out)]) == 0
    assert "4 networks and " in capsys.readouterr().out
    for name in ("runs", "records"):
        joined = {p.relative_to(out) for p in (out / name).rglob("*") if p.is_file()}
        assert joined == {p.relative_to(whole) for p in (whole / name).rglob("*") if p.is_file()}
    expected, merged = load_results(whole), load_results(out)
    assert len(merged.records) == len(expected.records)
    again = Run(out, [experiment("toy", "smoke", ["yoto", "fixed_grid"])], CPU)
    assert again.train_jobs() == []
    assert again.record_jobs() == []
    assert merge([one, two], out) == (0, 0)  # once more changes nothing


def test_a_conflict_is_named_and_nothing_is_copied(whole: Path, tmp_path: Path) -> None:
    other, out = shutil.copytree(whole, tmp_path / "other"), tmp_path / "out"
    done = next(other.glob("runs/toy/fixed_grid/*/done.json"))
    done.write_text(sealed({**read_object(done), "model_sha256": "0" * 64}))
    with pytest.raises(Conflict, match=f"1 results differ.*{done.parent.name}"):
        merge([whole, other], out)
    assert not out.exists()
    shutil.copytree(whole, tmp_path / "third")
    table = next((tmp_path / "third").glob("records/toy/yoto/*.csv"))
    table.write_text(table.read_text().replace("0", "1"))
    with pytest.raises(ValueError, match=f"{table.name} is not what was measured"):
        merge([tmp_path / "third"], out)
    with pytest.raises(FileNotFoundError):
        merge([tmp_path / "none"], out)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_a_link_in_a_folder_from_elsewhere_is_not_followed(whole: Path, tmp_path: Path) -> None:
    other, secret = shutil.copytree(whole, tmp_path / "other"), tmp_path / "secret"
    secret.write_text("mine")
    folder = next(other.glob("runs/toy/yoto/*"))
    (folder / "note.txt").symlink_to(secret)
    merge([other], tmp_path / "out")
    assert not (tmp_path / "out" / folder.relative_to(other) / "note.txt").exists()


def test_cleaning_spares_what_is_needed(whole: Path, tmp_path: Path) -> None:
    root = shutil.copytree(whole, tmp_path / "results")
    finished, unfinished = sorted(root.glob("runs/toy/fixed_grid/*"))[:2]
    (finished / "state.pt").write_bytes(b"0" * 1000)
    (finished / ".model.safetensors.7.tmp").write_bytes(b"0" * 10)
    (unfinished / "done.json").unlink()
    (unfinished / "state.pt").write_bytes(b"0" * 500)
    assert clean(root) == (2, 1010)
    assert (unfinished / "state.pt").exists()
    assert (finished / "model.safetensors").exists()
    assert clean(root) == (0, 0)

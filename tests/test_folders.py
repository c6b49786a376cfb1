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
from bench.report.load import load_results
from bench.run.folders import Conflict, clean, merge, status
from bench.run.lease import Lease
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.run.schema import Done, Ended, Head, Ledger, read, text
from bench.run.store import Store

CPU = torch.device("cpu")
STATES = ("done", "running", "begun", "missing", "failed", "diverged")


def planned(root: Path, *methods: str) -> Run:
    return Run(root, [experiment("toy", "smoke", list(methods))], CPU)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders") / "results"
    run = planned(root, "yoto", "fixed_grid")
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert run.failures == []
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "results")


def counts(root: Path) -> dict[str, dict[str, int]]:
    """By method, what `status` counts, but for zeros."""
    states = {row.method: {name: getattr(row, name) for name in STATES} for row in status(root)}
    return {method: {k: n for k, n in each.items() if n} for method, each in states.items()}


def test_status_counts_what_there_is(tmp_path: Path, capsys) -> None:
    run = planned(tmp_path, "fixed_grid", "yoto", "unconditioned")
    run.execute(run.train_jobs()[:2], "training", lambda: False)
    store, cells = Store(tmp_path), run.experiments[0].cells
    begun, diverged, running = (cell for cell in cells if store.result(cell) is None)
    (store.folder(begun) / "state.pt").write_bytes(b"x")
    log = json.dumps({"step": 200, "loss": 1.0}) + "\n{torn"
    (store.folder(begun) / "log.jsonl").write_text(log)
    ledger = Ledger(seconds={"train": 3.0}, steps=300)
    store.give_up(diverged, "smoke", "the loss became non-finite", ledger)
    with Lease(store.folder(running) / "lease.json").hold():
        assert counts(tmp_path) == {
            "fixed_grid": {"done": 2, "begun": 1},
            "yoto": {"diverged": 1},
            "unconditioned": {"running": 1},
        }
    rows = {row.method: row for row in status(tmp_path)}
    pace = rows["fixed_grid"].seconds / 600
    assert rows["fixed_grid"].left == pytest.approx(100 * pace, rel=0.6)  # a third is to go
    assert rows["unconditioned"].left > 0  # at the task's pace: it has none of its own
    assert rows["yoto"].seconds == 3.0
    assert main(["status", str(tmp_path)]) == 0
    counted = "5 networks: 2 done, 0 running, 1 begun, 1 missing, 0 failed, 1 diverged"
    assert counted in capsys.readouterr().out
    assert main(["status", str(tmp_path / "none")]) == 2


def test_status_counts_what_failed_until_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(tmp_path, "yoto")
    (job,) = run.train_jobs()
    with monkeypatch.context() as broken:
        broken.setattr("bench.run.work.build", lambda *_: 1 / 0)
        run.execute([job], "training", lambda: False)
    assert len(run.failures) == 1
    assert counts(tmp_path) == {"yoto": {"failed": 1}}
    run.execute([job], "training", lambda: False)
    assert counts(tmp_path) == {"yoto": {"done": 1}}
    assert not list(tmp_path.glob("runs/*/*/*/failed.json"))


def test_folders_of_two_machines_become_one(whole: Path, tmp_path: Path, capsys) -> None:
    one, two, out = (tmp_path / name for name in ("one", "two", "out"))
    for part, lacks in ((one, "yoto"), (two, "fixed_grid")):
        shutil.copytree(whole, part)
        shutil.rmtree(part / "runs/toy" / lacks)
    shutil.rmtree(one / "records/toy/yoto")
    (next(two.glob("runs/toy/yoto/*")) / "state.pt").write_bytes(b"left behind")
    assert main(["merge", str(one), str(two), "--out", str(out)]) == 0
    assert "4 networks and " in capsys.readouterr().out
    for name in ("runs", "records"):
        joined = {p.relative_to(out) for p in (out / name).rglob("*") if p.is_file()}
        assert joined == {p.relative_to(whole) for p in (whole / name).rglob("*") if p.is_file()}
    assert len(load_results(out).records) == len(load_results(whole).records)
    again = planned(out, "yoto", "fixed_grid")
    assert again.train_jobs() == again.record_jobs() == []
    assert merge([one, two], out) == (0, 0)  # once more changes nothing


def test_a_conflict_is_named_and_nothing_is_copied(whole: Path, root: Path, tmp_path: Path) -> None:
    out, done = tmp_path / "out", next(root.glob("runs/toy/fixed_grid/*/done.json"))
    done.write_text(text(replace(read(done, Done), model_sha256="0" * 64)))
    with pytest.raises(Conflict, match=f"1 results differ.*{done.parent.name}"):
        merge([whole, root], out)
    table = next(root.glob("records/toy/yoto/*.csv"))
    table.write_text(table.read_text().replace("0", "1"))
    with pytest.raises(ValueError, match=f"{table.name} is not what was measured"):
        merge([root], out)
    with pytest.raises(FileNotFoundError):
        merge([tmp_path / "none"], out)
    assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_a_measurement_that_failed_is_no_conflict_with_one_that_did_not(
    whole: Path, root: Path, tmp_path: Path
) -> None:
    head = min(root.glob("records/toy/yoto/*.json"))
    run = planned(root, "yoto", "fixed_grid")
    (job,) = (job for job in run._record_jobs(run.experiments[0]) if root / job.path == head)
    run._note_failure(Ended(job=job.id, how="failed", reason="of memory"), job)
    merge([root, whole], tmp_path / "merged")
    merged = tmp_path / "merged" / head.relative_to(root)
    assert read(merged, Head).status == "done"
    assert merged.with_suffix(".csv").read_bytes() == next(
        path.read_bytes() for path in whole.glob(f"records/toy/yoto/{head.stem}.csv")
    )


def test_a_link_in_a_folder_from_elsewhere_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    note = next(root.glob("runs/toy/yoto/*")) / "note.txt"
    note.symlink_to(tmp_path / "secret")
    merge([root], tmp_path / "out")
    assert not (tmp_path / "out" / note.relative_to(root)).exists()


def test_cleaning_spares_what_is_needed(root: Path) -> None:
    finished, unfinished = sorted(root.glob("runs/toy/fixed_grid/*"))[:2]
    (finished / "state.pt").write_bytes(b"0" * 1000)
    (finished / ".model.safetensors.7.tmp").write_bytes(b"0" * 10)
    (unfinished / "done.json").unlink()
    (unfinished / "state.pt").write_bytes(b"0" * 500)
    assert clean(root) == (2, 1010)
    assert (unfinished / "state.pt").exists()
    assert (finished / "model.safetensors").exists()
    assert clean(root) == (0, 0)

"""Several runs on one results folder: each cell is trained once, and no dead run blocks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from bench.cost import device_name
from bench.run import lease
from bench.run.folders import clean
from bench.run.lease import Busy, Lease, alive, read, started
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.run.work import perform, record_lease

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    with Lease(path).hold():
        with pytest.raises(Busy, match=f"process {os.getpid()} on "), Lease(path).hold():
            pass
        assert read(path)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    with Lease(path).hold():
        pass


def test_of_many_that_try_at_once_one_gets_it(tmp_path: Path) -> None:
    path, got, gate = tmp_path / "lease.json", [], threading.Barrier(8)

    def attempt() -> None:
        gate.wait()
        try:
            with Lease(path).hold():
                got.append(1)
                gate.wait()
        except Busy:
            gate.wait()

    for _ in range(20):
        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got.clear()


def test_a_killed_holder_is_known_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    code = (
        "import sys, time; from pathlib import Path; from bench.run.lease import Lease\n"
        "with Lease(Path(sys.argv[1])).hold():\n print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Busy), Lease(path).hold():
        pass
    holder.kill()
    holder.wait()
    with Lease(path).hold():
        assert read(path)["pid"] == os.getpid()


def test_another_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    with Lease(path).hold():
        holder = read(path)
    assert alive(path, holder)
    assert not alive(path, {**holder, "started": "12345"})
    assert started(os.getpid()) == holder["started"] != ""


def test_a_holder_elsewhere_is_given_up_when_its_beat_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "lease.json", [100.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    holder = dict.fromkeys(lease.KEYS, "x") | {"host": "far", "machine": "far", "pid": 7, "beat": 0}
    path.write_text(json.dumps(holder))
    for beat in range(3):  # it works: its beat moves on
        path.write_text(json.dumps({**holder, "beat": beat}))
        with pytest.raises(Busy, match="process 7 on far"), Lease(path).hold():
            pass
        now[0] += lease.PATIENCE - 1
    with pytest.raises(Busy), Lease(path).hold():
        pass
    now[0] += 2
    with Lease(path).hold():
        assert read(path)["token"] != "x"


@pytest.mark.parametrize("text", ["", "{", '{"pid": 3}', "[1]", "\x00\xff"])
def test_a_damaged_lease_is_nobodys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text)
    with Lease(path).hold():
        assert read(path)["pid"] == os.getpid()


def test_a_beat_is_counted_and_a_lease_taken_over_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    path = tmp_path / "lease.json"
    with Lease(path).hold():
        for _ in range(500):
            if read(path)["beat"] > 2:
                break
            threading.Event().wait(0.01)
        assert read(path)["beat"] > 2
        other = {**read(path), "token": "other"}
        path.unlink()
        path.write_text(json.dumps(other))
    assert read(path)["token"] == "other"


def test_a_holder_that_stood_still_notices_that_it_lost_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended machine comes back: what it would save must not go over the new holder's."""
    path, now = tmp_path / "lease.json", [100.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    mine = Lease(path)
    with mine.hold():
        mine.check()
        path.write_text(json.dumps({**read(path), "token": "other"}))
        mine.check()  # it looks only where no beat was counted for a while
        now[0] += lease.PATIENCE
        with pytest.raises(Busy, match="taken over while this process stood still"):
            mine.check()
    assert read(path)["token"] == "other"


def test_a_training_whose_lease_is_lost_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["yoto"])], CPU)
    (job,) = run.train_jobs()
    folder = run.store.folder(run.experiments[0].cells[0])
    looks: list[int] = []

    def lost(self: Lease) -> None:
        looks.append(1)
        if len(looks) == 20:
            raise Busy("its lease was taken over")

    monkeypatch.setattr(Lease, "check", lost)
    with pytest.raises(Busy):
        perform(job, lambda event: None, lambda: False)
    assert not (folder / "state.pt").exists()
    assert not (folder / "done.json").exists()


def test_a_measurement_is_made_by_one_at_a_time_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["fixed_grid"])], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    job, *others = run.record_jobs()
    record = tmp_path / job.path
    record.parent.mkdir(parents=True)
    with Lease(record_lease(record)).hold():
        with pytest.raises(Busy, match=f"process {os.getpid()} on "):
            perform(job, lambda event: None, lambda: False)
        assert list(record.parent.iterdir()) == [record_lease(record)]
    perform(job, lambda event: None, lambda: False)
    assert sorted(p.suffix for p in record.parent.iterdir()) == [".csv", ".json"]
    written = record.read_bytes()
    perform(job, lambda event: None, lambda: False)  # as one that waited for the other does
    assert record.read_bytes() == written
    assert json.loads(written)["device"] == "cpu"
    assert json.loads(written)["device_name"] == device_name(CPU)

    def lost(self: Lease) -> None:
        raise Busy("its lease was taken over")

    monkeypatch.setattr(Lease, "check", lost)
    with pytest.raises(Busy):
        perform(others[0], lambda event: None, lambda: False)
    assert not (tmp_path / others[0].path).exists()


def test_leases_of_the_dead_are_cleaned_away(tmp_path: Path) -> None:
    record = tmp_path / "records" / "toy" / "yoto" / "x.json"
    record.parent.mkdir(parents=True)
    with Lease(record_lease(record)).hold():
        assert clean(tmp_path) == (0, 0)
        text = record_lease(record).read_text()
    record_lease(record).write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 99999999'))
    record.with_name("x.lease.ab.new").touch()
    assert clean(tmp_path)[0] == 2
    assert list(record.parent.iterdir()) == []


def test_two_runs_at_once_share_the_work(tmp_path: Path) -> None:
    """Every cell is trained by one of them, and both end with everything done."""
    words = ["run", "toy", "--preset", "smoke", "--methods", "yoto,fixed_grid,warm_grid"]
    code = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", code, *words, "--out", str(tmp_path)]
    runs = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=300)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert not list(tmp_path.glob("**/*lease*"))
    assert not list(tmp_path.glob("**/*.tmp"))
    found = experiment("toy", "smoke", ["yoto", "fixed_grid", "warm_grid"])
    run = Run(tmp_path, [found], CPU)
    assert run.train_jobs() == []
    assert run.record_jobs() == []
    for log in tmp_path.glob("runs/*/*/*/log.jsonl"):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == sorted(set(steps)), log

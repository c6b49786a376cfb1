"""Several runs on one results folder: each cell is trained once, and no dead run blocks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from bench.cost import device_name
from bench.run import lease
from bench.run.folders import clean
from bench.run.layout import lease_path
from bench.run.lease import Busy, Lease, alive, read, started
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.run.schema import Head, Holder, text
from bench.run.schema import read as read_record
from bench.run.work import perform

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease.json"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    return now


def holder_of(path: Path) -> Holder:
    holder = read(path)
    assert holder is not None
    return holder


def taken(path: Path, match: str | None = None) -> None:
    with pytest.raises(Busy, match=match), Lease(path).hold():
        pass


def do(job: object) -> None:
    perform(job, lambda event: None, lambda: False)


def test_one_holder_at_a_time(path: Path) -> None:
    with Lease(path).hold():
        taken(path, f"process {os.getpid()} on ")
        assert holder_of(path).pid == os.getpid()
    assert list(path.parent.iterdir()) == []
    with Lease(path).hold():
        pass


def test_of_many_that_try_at_once_one_gets_it(path: Path) -> None:
    got: list[int] = []
    gate = threading.Barrier(8)

    def attempt() -> None:
        gate.wait()
        try:
            with Lease(path).hold():
                got.append(1)
                gate.wait()
        except Busy:
            gate.wait()

    for turn in range(20):
        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == turn + 1


def test_a_killed_holder_is_known_at_once(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bench.run.lease import Lease\n"
        "with Lease(Path(sys.argv[1])).hold():\n print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        taken(path)
        process.kill()
    with Lease(path).hold():
        assert holder_of(path).pid == os.getpid()


def test_another_process_of_the_same_number_is_another(path: Path) -> None:
    with Lease(path).hold():
        holder = holder_of(path)
    assert alive(path, holder)
    assert not alive(path, replace(holder, started="12345"))
    assert started(os.getpid()) == holder.started != ""


def test_a_holder_elsewhere_is_given_up_when_its_beat_stands_still(
    path: Path, clock: list[float]
) -> None:
    far = Holder(host="far", machine="far", pid=7, started="x", token="x", beat=0)
    for beat in range(3):  # it works: its beat moves on
        path.write_text(text(replace(far, beat=beat)))
        taken(path, "process 7 on far")
        clock[0] += lease.PATIENCE - 1
    taken(path)
    clock[0] += 2
    with Lease(path).hold():
        assert holder_of(path).token != "x"


@pytest.mark.parametrize("content", ["", "{", '{"pid": 3}', "[1]", "\x00\xff"])
def test_a_damaged_lease_is_nobodys(path: Path, content: str) -> None:
    path.write_text(content)
    assert read(path) == lease.NOBODY
    with Lease(path).hold():
        assert holder_of(path).pid == os.getpid()


def test_a_beat_is_counted_and_a_lease_taken_over_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with Lease(path).hold():
        for _ in range(500):
            if holder_of(path).beat > 2:
                break
            threading.Event().wait(0.01)
        assert holder_of(path).beat > 2
        other = replace(holder_of(path), token="other")
        path.unlink()
        path.write_text(text(other))
    assert holder_of(path).token == "other"


def test_a_holder_that_stood_still_notices_that_it_lost_the_lease(
    path: Path, clock: list[float]
) -> None:
    """A suspended machine comes back: what it would save must not go over the new holder's."""
    mine = Lease(path)
    with mine.hold():
        mine.check()
        path.write_text(text(replace(holder_of(path), token="other")))
        mine.check()  # it looks only where no beat was counted for a while
        clock[0] += lease.PATIENCE
        with pytest.raises(Busy, match="taken over while this process stood still"):
            mine.check()
    assert holder_of(path).token == "other"


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From that look on, a lease is another run's."""

    def after(count: int) -> None:
        looks: list[int] = []

        def check(self: Lease) -> None:
            looks.append(1)
            if len(looks) >= count:
                raise Busy("its lease was taken over")

        monkeypatch.setattr(Lease, "check", check)

    return after


def test_a_training_whose_lease_is_lost_saves_nothing(
    tmp_path: Path, lost: Callable[[int], None]
) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["yoto"])], CPU)
    (job,) = run.train_jobs()
    lost(20)
    with pytest.raises(Busy):
        do(job)
    folder = run.store.folder(run.experiments[0].cells[0])
    assert not {path.name for path in folder.iterdir()} & {"state.pt", "done.json"}


def test_a_measurement_is_made_by_one_at_a_time_and_once(
    tmp_path: Path, lost: Callable[[int], None]
) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["fixed_grid"])], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    job, other, *_ = run.record_jobs()
    record, later = (tmp_path / each.path for each in (job, other))
    record.parent.mkdir(parents=True)
    with Lease(lease_path(record)).hold():
        with pytest.raises(Busy, match=f"process {os.getpid()} on "):
            do(job)
        assert list(record.parent.iterdir()) == [lease_path(record)]
    do(job)
    assert sorted(p.suffix for p in record.parent.iterdir()) == [".csv", ".json"]
    written = record.read_bytes()
    do(job)  # as one that waited for the other does
    assert record.read_bytes() == written
    head = read_record(record, Head)
    assert (head.device, head.device_name) == ("cpu", device_name(CPU))
    lost(1)
    with pytest.raises(Busy):
        do(other)
    assert not later.exists()


def test_leases_of_the_dead_are_cleaned_away(tmp_path: Path) -> None:
    record = tmp_path / "records" / "toy" / "yoto" / "x.json"
    record.parent.mkdir(parents=True)
    with Lease(lease_path(record)).hold():
        assert clean(tmp_path) == (0, 0)
        holder = holder_of(lease_path(record))
    lease_path(record).write_text(text(replace(holder, pid=99999999)))
    record.with_name("x.lease.ab.new").touch()
    assert clean(tmp_path)[0] == 2
    assert list(record.parent.iterdir()) == []


def test_two_runs_at_once_share_the_work(tmp_path: Path) -> None:
    """Every cell is trained by one of them, and both end with everything done."""
    methods = ["yoto", "fixed_grid", "warm_grid"]
    words = ["run", "toy", "--preset", "smoke", "--methods", ",".join(methods)]
    code = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", code, *words, "--out", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    runs = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    outputs = [run.communicate(timeout=300)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert not [*tmp_path.glob("**/*lease*"), *tmp_path.glob("**/*.tmp")]
    run = Run(tmp_path, [experiment("toy", "smoke", methods)], CPU)
    assert run.train_jobs() == run.record_jobs() == []
    for log in tmp_path.glob("runs/*/*/*/log.jsonl"):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == sorted(set(steps)), log

"""How many networks share a device: the arithmetic, with stand-ins for what a machine has."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.run import capacity, runner, schedule, schema, timing, work
from bench.run.capacity import CONTEXT, Room, fitting, peaks, task_of, unmeasured
from bench.run.plan import experiment
from bench.run.runner import Run

GIB = 2**30
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("peak", "free", "cores", "kind", "count"),
    [
        (GIB, 100 * GIB, 2, "cpu", 2),  # never more than cores
        (GIB, 4 * GIB, 64, "cpu", 3),  # 1.25 GiB each
        (GIB, 5 * GIB, 64, "cpu", 4),
        (GIB, GIB, 64, "cpu", 1),  # one always runs
        (GIB, 0, 1, "cpu", 1),
        (0, 80 * GIB, 16, "cuda", 16),
        (4 * GIB, 80 * GIB, 16, "cuda", 13),  # 5 GiB and the context each
        (4 * GIB, 80 * GIB, 3.5, "cuda", 3),  # eight devices, 28 cores
    ],
)
def test_as_many_as_memory_and_cores_hold(
    peak: int, free: int, cores: float, kind: str, count: int
) -> None:
    assert fitting(peak, [Room(free=free, cores=cores)], kind) == count


def test_the_smallest_room_decides_and_a_gpu_holds_contexts() -> None:
    large, small = Room(free=64 * GIB, cores=8), Room(free=3 * GIB, cores=64)
    assert fitting(GIB, [large, small], "cpu") == 2
    assert fitting(0, [Room(free=3 * CONTEXT - 1, cores=9)], "cuda") == 2


def described(steps: int = 10, batch: int = 8) -> schema.Plugin:
    return schema.Plugin(target="bench.x:X", fields={"training": {"steps": steps, "batch": batch}})


def training(name: str, task: schema.Plugin, *after: str) -> schema.Train:
    method = schema.Plugin(target="bench.x:Y", fields={})
    cell = schema.CellConfig(
        id=name, preset="smoke", task=task, method=method, seed=0, trained_for=()
    )
    return schema.Train(id=name, label=name, root="", device="cpu", cell=cell, after=after)


class Measuring(schema.Recording, kw_only=True):
    """A measurement, as far as its task counts."""

    head: Any = None
    path: str = ""


def measuring(task: schema.Plugin) -> schema.Recording:
    return Measuring(id="m", label="", root="", device="cpu", task=task)


def stored(root: Path, job: schema.Train, ledger: dict[str, Any] | None) -> None:
    folder = root / "runs" / "t" / "m" / job.id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(schema.text(job.cell))
    head = {"id": job.id, "task": "t", "preset": "smoke", "method": "m", "seed": 0}
    done = {**head, "trained_for": [], "status": "done", "ledger": ledger}
    (folder / "done.json").write_text(json.dumps(done) if ledger else "{")


def test_the_largest_finished_network_of_the_task_counts_on_its_kind_of_device(
    tmp_path: Path,
) -> None:
    cpu = {"device": "cpu", "peak_memory_bytes": 5}
    same, other = training("a", described()), training("c", described(batch=64))
    stored(tmp_path, same, cpu)
    stored(tmp_path, training("b", described(steps=99)), {**cpu, "peak_memory_bytes": 7})
    stored(tmp_path, other, {**cpu, "peak_memory_bytes": 70})
    on_gpu = {"device": "cuda", "peak_memory_bytes": 700}
    stored(tmp_path, training("d", described()), on_gpu)
    stored(tmp_path, training("never trained", described()), {"steps": 0})
    stored(tmp_path, training("damaged", described()), None)
    for place, peak in enumerate([1e29, 2**60, 0, -1, 10**400, "many", None, []]):
        odd = training(f"odd {place}", described())
        stored(tmp_path, odd, {**cpu, "peak_memory_bytes": peak})
    for place, fields in enumerate([{"training": []}, {}]):
        stored(tmp_path, training(f"x {place}", schema.Plugin(target="x", fields=fields)), cpu)
    assert peaks(tmp_path, "cpu") == {task_of(same): 7, task_of(other): 70}
    assert peaks(tmp_path, "cuda") == {task_of(same): 700}
    assert task_of(measuring(described(steps=3))) == task_of(same)


def test_the_first_of_each_unknown_task_runs_alone_after_what_it_starts_from() -> None:
    a, b = training("a", described()), training("b", described(batch=2), "a")
    jobs = [a, b, training("c", described(batch=2)), measuring(described(batch=3))]
    known = {task_of(a): 1}
    assert unmeasured(jobs, {}) is a
    assert unmeasured(jobs, known) is a  # b waits for it
    assert unmeasured(jobs[1:], known) is b
    assert unmeasured(jobs, {**known, task_of(b): 1}) is None


def test_what_a_container_may_take_is_less_than_what_its_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = lambda: SimpleNamespace(available=3000 * 1024)  # noqa: E731
    monkeypatch.setattr(capacity.psutil, "virtual_memory", machine)
    group = tmp_path / "group"
    assert capacity._free_memory(group) == 3000 * 1024
    group.mkdir()
    (group / "memory.current").write_text("500\n")
    (group / "memory.max").write_text("max\n")
    assert capacity._free_memory(group) == 3000 * 1024
    (group / "memory.max").write_text("2500\n")
    assert capacity._free_memory(group) == 2000
    (group / "memory.stat").write_text("anon 100\ninactive_file 300\n")  # can be dropped
    assert capacity._free_memory(group) == 2300
    assert capacity.room("cpu").cores >= 1
    there = capacity.cores(tmp_path / "none")
    for text, cores in (("max 100000", there), ("100000 100000", 1), ("1000 100000", 1)):
        (group / "cpu.max").write_text(text + "\n")
        assert capacity.cores(group) == cores
    (group / "cpu.max").write_text(f"{100_000 * (there + 7)} 100000\n")
    assert capacity.cores(group) == there


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str], set[bool]]]:
    """What a pool is asked for; the jobs are done here."""
    asked = []

    def pool(jobs: Any, work: Any, emit: Any, stop: Any, workers: int, *how: Any) -> None:
        shared = {getattr(job, "shared", None) for job in jobs}
        asked.append((workers, [job.id for job in jobs], shared))
        schedule.here(jobs, work, emit, stop, how[0])

    monkeypatch.setattr(runner.processes, "pool", pool)
    monkeypatch.setattr(capacity, "room", lambda kind: Room(free=100 * GIB, cores=5))
    return asked


def test_auto_measures_the_first_alone_and_packs_the_others(
    pools: list, tmp_path: Path, capsys: Any
) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["fixed_grid", "warm_grid"])], CPU, "pool")
    jobs = run.train_jobs()
    run.execute(jobs, "training", lambda: False)
    first, rest = pools
    assert first == (1, [jobs[0].id], {False})
    assert rest == (5, [job.id for job in jobs[1:]], {True})
    assert "training: 5 at once on a device" in capsys.readouterr().out
    assert run.failures == []
    shared = [
        json.loads(path.read_text())["ledger"]["shared_device"]
        for path in tmp_path.glob("runs/*/*/*/done.json")
    ]
    assert sorted(shared) == [False, *[True] * (len(jobs) - 1)]
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert pools[2][0] == 5


def test_nothing_is_packed_while_nothing_was_measured(
    pools: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(job: Any, emit: Any, stop: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(runner, "perform", fails)
    run = Run(tmp_path, [experiment("toy", "smoke", ["fixed_grid"])], CPU, "pool")
    run.execute(run.train_jobs(), "training", lambda: False)
    assert [workers for workers, *_ in pools] == [1, 1, 1]
    assert len(run.failures) == 3


def test_a_number_given_is_taken(pools: list, tmp_path: Path) -> None:
    found = experiment("toy", "smoke", ["fixed_grid"])
    run = Run(tmp_path, [found], CPU, "pool", per_device=3)
    run.execute(run.train_jobs(), "training", lambda: False)
    assert [(workers, shared) for workers, _, shared in pools] == [(3, {True})]


def test_a_step_is_timed_without_the_first_ones_where_they_capture() -> None:
    seconds = {"train": 9.0, "data": 1.0}
    assert timing.seconds_a_step({"device": "cuda", "steps": 9, "seconds": seconds}) == 1
    seconds["compile"] = 7.0
    assert timing.seconds_a_step({"device": "cuda", "steps": 13, "seconds": seconds}) == 1
    with pytest.raises(ValueError, match="4 steps are too few: take more than 4"):
        timing.seconds_a_step({"device": "cuda", "steps": 4, "seconds": seconds})


def test_measuring_is_in_mixed_precision_whatever_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    monkeypatch.setattr(products, "allow_tf32", True)  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does
    before = convolutions.allow_tf32, convolutions.deterministic
    with work.exact():
        assert (products.allow_tf32, convolutions.allow_tf32) == (False, False)
        assert convolutions.deterministic
    assert products.allow_tf32
    assert (convolutions.allow_tf32, convolutions.deterministic) == before

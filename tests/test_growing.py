"""The first task is whole while others are trained, and a page shows it; a network has the same
bits however many cores there are."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import commands, growing
from bench.cli import main
from bench.report import build, settle
from bench.run import capacity, runner, work
from bench.run.plan import experiment
from bench.run.schema import Ended, Measure, Recording, Train
from bench.run.store import Store
from tests.synthetic import write_results

CPU = torch.device("cpu")
METHODS = ["yoto", "fixed_grid", "single_model"]
USUAL_PLACE = runner.usual_place


def run_of(root: Path, *tasks: str) -> runner.Run:
    return runner.Run(root, [experiment(task, "smoke", METHODS) for task in tasks], CPU)


def test_a_task_is_measured_before_the_next_is_trained(tmp_path: Path) -> None:
    run = run_of(tmp_path, "toy", "quadratic")
    jobs = run.jobs()
    kinds = [(job.cell.task if isinstance(job, Train) else job.task).target for job in jobs]
    assert [kind.rpartition(":")[2] for kind, _ in itertools.groupby(kinds)] == ["Toy", "Quadratic"]
    ended: list[str] = []

    class Order:
        def begin(self, jobs: Any) -> None:
            ended.append("begun")

        def handle(self, event: Any, job: Any) -> None:
            if isinstance(event, Ended):
                ended.append(event.job)

    run.listeners.append(Order())
    assert run.complete(lambda: False)
    assert not run.failures
    assert ended[0] == "begun"
    assert sorted(ended[1:]) == sorted(job.id for job in jobs)
    trained = {job.id for job in jobs if isinstance(job, Train)}
    for job in jobs:
        if isinstance(job, Measure):
            assert set(job.after) <= trained
            assert all(ended.index(cell) < ended.index(job.id) for cell in job.after)
    assert run_of(tmp_path, "toy", "quadratic").jobs() == []


def test_a_network_that_two_tasks_plan_belongs_to_the_first(tmp_path: Path) -> None:
    more = experiment("toy", "smoke", [*METHODS, "warm_grid"])
    run = run_of(tmp_path, "toy")
    run.experiments.append(more)
    trainings = [job.id for job in run.jobs() if isinstance(job, Train)]
    assert len(set(trainings)) == len(trainings) == len(more.cells)
    first = run.experiments[0]
    assert trainings[: len(first.cells)] == [cell.id for cell in first.cells]


class Process:
    """Writes the report at once, in this process."""

    pages: list[str]

    def __init__(self, target: Any, args: Any) -> None:
        self.target, self.args = target, args

    def start(self) -> None:
        self.target(*self.args)
        self.pages.append((self.args[0] / "report" / "index.html").read_text(encoding="utf-8"))

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        pass

    kill = join


def test_the_page_grows_while_the_run_lasts_and_is_settled_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Process.pages = []
    monkeypatch.setattr(
        growing.multiprocessing, "get_context", lambda _: SimpleNamespace(Process=Process)
    )
    run = run_of(tmp_path, "toy", "quadratic")
    with growing.GrowingReport(run) as page:
        page.silent = False
        run.listeners.append(page)
        assert run.complete(lambda: False)
    (first,) = Process.pages  # when toy was whole; at the end the command writes it
    assert 'http-equiv="refresh"' in first
    shown = sum(len(planned.measurements) for planned in run.experiments[:1])
    planned = shown + len(run.experiments[1].measurements)
    assert f"{shown} of {planned} measurements are done." in first
    assert "quadratic" not in first
    last = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "refresh" not in last
    assert "at work" not in last
    assert len(first) > len(last) > len(first) - 500


def test_a_long_task_is_shown_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Process.pages = []
    monkeypatch.setattr(
        growing.multiprocessing, "get_context", lambda _: SimpleNamespace(Process=Process)
    )
    now = [0.0]
    monkeypatch.setattr(growing.time, "monotonic", lambda: now[0])
    run = run_of(tmp_path, "toy")
    jobs = run.jobs()
    page = growing.GrowingReport(run)
    page.silent = False
    monkeypatch.setattr(Process, "start", lambda self: self.pages.append(self.args[2]))
    page.begin(jobs)
    measurements = [job for job in jobs if isinstance(job, Measure)]
    for job in measurements[:4]:
        page.handle(Ended(job=job.id, how="finished"), job)
    assert Process.pages == []
    now[0] = growing.PAUSE + 1
    page.handle(Ended(job=measurements[4].id, how="failed"), measurements[4])
    assert len(Process.pages) == 1
    now[0] += growing.PAUSE / 2
    page.handle(Ended(job=measurements[5].id, how="finished"), measurements[5])
    assert len(Process.pages) == 1


def test_a_stopped_run_is_said_on_its_page(tmp_path: Path) -> None:
    write_results(tmp_path)
    build(tmp_path, going="1 of 3 are done.")
    run = run_of(tmp_path, "toy")
    jobs = run.jobs()
    with growing.GrowingReport(run) as page:
        page.begin(jobs)
    count = sum(isinstance(job, Recording) for job in jobs)
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "refresh" not in text
    assert f"A run was stopped: 0 of {count} measurements are done." in text


def test_a_report_that_cannot_be_started_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(process: Any) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(growing, "start_deaf", short)
    run = run_of(tmp_path, "toy", "quadratic")
    with growing.GrowingReport(run) as page:
        page.silent = False
        run.listeners.append(page)
        assert run.complete(lambda: False)
        assert page.silent


def test_a_report_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    growing._report(tmp_path / "nowhere", set(), "")


def test_a_settled_page_is_the_page_without_the_run(tmp_path: Path) -> None:
    write_results(tmp_path)
    settle(tmp_path)  # there is none yet
    build(tmp_path, going="1 < 2 of 3 are done.")
    place = tmp_path / "report" / "index.html"
    assert "1 &lt; 2 of 3 are done." in place.read_text(encoding="utf-8")
    settle(tmp_path)
    settled = place.read_text(encoding="utf-8")
    build(tmp_path)
    assert place.read_text(encoding="utf-8") == settled


def test_a_network_on_a_cpu_has_one_thread_or_as_many_as_the_user_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for text, count in [(None, 1), ("3", 3), ("0", 1), ("4,2", 1)]:
            if text is None:
                monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            else:
                monkeypatch.setenv("OMP_NUM_THREADS", text)
            with work.at(torch.device("cpu")):
                assert torch.get_num_threads() == count == capacity.threads()
            assert torch.get_num_threads() == 2
        current: list[torch.device] = []
        monkeypatch.setattr(
            torch.cuda, "device", lambda device: current.append(device) or contextlib.nullcontext()
        )
        with work.at(torch.device("cuda:1")):
            assert torch.get_num_threads() == 2
        assert current == [torch.device("cuda:1")]  # and not whichever is the first
    finally:
        torch.set_num_threads(before)


def test_the_bits_do_not_depend_on_the_threads_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions' gradients do, where several threads add them up."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    planned, hashes = experiment("compression", "smoke", ["yoto"]), []
    for count in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            run = runner.Run(tmp_path / str(count), [planned], CPU)
            run.execute(run.train_jobs(), "run", lambda: False)
        finally:
            torch.set_num_threads(before)
        done = Store(tmp_path / str(count)).result(planned.cells[0])
        assert done is not None
        assert "1 threads" in str(done.ledger.device_name)
        hashes.append(done.model_sha256)
    assert hashes[0] == hashes[1]


def test_where_networks_are_trained_if_nobody_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cores, place in [(1, "here"), (2, "pool")]:
        monkeypatch.setattr(capacity, "cores", lambda cores=cores: cores)
        assert USUAL_PLACE() == place
    kept: list[str] = []
    monkeypatch.setattr(commands, "_ended", lambda run: kept.append(run.on) or 0)
    monkeypatch.setattr(runner.Run, "complete", lambda self, stop: True)
    for words, place in [([], "here"), (["--on", "pool"], "pool"), (["--per-device", "2"], "pool")]:
        monkeypatch.setattr(runner, "usual_place", lambda: "here")
        main(["run", "toy", "--preset", "smoke", "--out", str(tmp_path / "r"), *words])
        assert kept.pop() == place


def test_no_network_runs_alone_where_the_preset_knows_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[int, int]] = []
    monkeypatch.setattr(
        runner.processes, "pool", lambda jobs, *rest: counts.append((len(jobs), rest[3]))
    )
    monkeypatch.setattr(capacity, "cores", lambda: 2)
    planned = experiment("compression", "quick", METHODS)
    assert planned.memory > 2**29
    assert experiment("compression[width=32]", "quick", METHODS).memory == 0
    run = runner.Run(tmp_path, [planned], CPU, "pool")
    run.execute(run.train_jobs(), "run", lambda: False)
    assert counts == [(len(planned.cells), 2)]

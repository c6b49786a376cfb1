"""Here and in a pool: all jobs are done, a killed worker costs its job only, a stop is a stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.run import processes, schedule
from bench.run.lease import Busy
from bench.run.schema import Ended, Event, Job, Started, Step, Waiting
from bench.train import Interrupted


class Stand(Job, kw_only=True):
    """A stand-in for a network. `do`: what `work` does instead of training."""

    do: str = ""
    label: str = ""
    root: str = ""
    device: str = "cpu"


def jobs_of(does: list[str]) -> list[Stand]:
    return [Stand(id=f"{place} {do}", do=do) for place, do in enumerate(does)]


def wait(should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if should_stop():
            raise Interrupted("state saved")
        time.sleep(0.02)


def work(job: Stand, emit: schedule.Emit, should_stop: Callable[[], bool]) -> None:
    pid = os.getpid()
    emit(Step(job=job.id, step=pid, steps=0, loss=0, examples_per_second=0, seconds_left=0))
    match job.do:
        case "die":
            os.kill(pid, signal.SIGKILL)
        case "term":
            os.kill(pid, signal.SIGTERM)
        case "fail":
            raise ValueError("as asked [/x]")
        case "wait":
            wait(should_stop)
        case "hang":
            wait(lambda: False)


def pooled(does: list[str], stop: Any = lambda events: False, **how: Any) -> list[Event]:
    events: list[Event] = []
    how = {"workers": 2, **how}
    processes.pool(jobs_of(does), work, events.append, lambda: stop(events), **how)
    return events


def ends(events: list[Event], how: str) -> dict[str, str]:
    """Of the jobs that ended so, their reasons."""
    return {e.job: e.reason for e in events if isinstance(e, Ended) and e.how == how}


def test_a_killed_worker_loses_its_own_job_only() -> None:
    events = pooled(["die", "work", "fail", "work", "die", "work"])
    assert list(ends(events, "finished")) == ["1 work", "3 work", "5 work"]
    failed = ends(events, "failed")
    assert failed["2 fail"] == "ValueError: as asked [/x]"
    for job in ("0 die", "4 die"):
        assert failed[job] == "its process died (exit code -9); was memory short?"
    assert len({e.step for e in events if isinstance(e, Step)} - {os.getpid()}) >= 3


def test_a_worker_killed_between_two_jobs_is_replaced() -> None:
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, Ended) and event.job == "0 work":
            os.kill(events[1].step, signal.SIGKILL)
            time.sleep(0.5)

    processes.pool(jobs_of(["work", "work"]), work, emit, lambda: False, workers=1)
    assert set(ends(events, "finished")) == {"0 work", "1 work"}


def test_processes_are_kept_while_asked_for_and_no_longer() -> None:
    def pids(events: list[Event]) -> set[int]:
        return {event.step for event in events if isinstance(event, Step)}

    with processes.Kept() as kept:
        first = pids(pooled(["work"], workers=1, kept=kept))
        assert pids(pooled(["work", "fail"], workers=1, kept=kept)) == first
        assert pids(pooled(["die", "work"], workers=1, kept=kept)) > first
        others = pids(pooled(["work", "work", "work"], workers=2, kept=kept))
        assert not others & first  # of another size: those before are ended
        assert {child.pid for child in multiprocessing.active_children()} == others
    assert not multiprocessing.active_children()


def test_a_stop_lets_jobs_save_and_starts_no_more() -> None:
    events = pooled(
        ["wait", "wait", "work"], lambda events: sum(isinstance(e, Step) for e in events) >= 2
    )
    assert set(ends(events, "stopped")) == {"0 wait", "1 wait"}
    assert not ends(events, "finished")


def test_a_batch_systems_signal_to_a_worker_leaves_the_decision_to_the_parent() -> None:
    assert ends(pooled(["term"]), "finished")


@pytest.mark.parametrize(("on", "does"), [("here", "wait"), ("pool", "hang")])
def test_a_job_that_hangs_times_out_and_the_others_go_on(on: str, does: str) -> None:
    if on == "here":
        events: list[Event] = []
        schedule.here(jobs_of([does, "work"]), work, events.append, lambda: False, limit=0.3)
    else:
        events = pooled([does, "work"], workers=1, limit=1)
    assert "timeout: not done after" in ends(events, "failed")[f"0 {does}"]
    assert list(ends(events, "finished")) == ["1 work"]


class Hanging:
    """Work that a process never finishes loading."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return time.sleep, (60,)


def test_a_process_that_hangs_before_it_begins_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STARTING", 0.5)
    events: list[Any] = []
    processes.pool(jobs_of(["work"]), Hanging(), events.append, lambda: False, workers=1, limit=0.5)
    (failed,) = events
    assert "timeout" in failed.reason


def test_asked_twice_a_pool_ends_at_once_though_a_worker_hangs() -> None:
    def stop(events: list[Event]) -> bool:
        if events:
            raise KeyboardInterrupt
        return False

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pooled(["hang"], stop)
    assert time.monotonic() - begin < schedule.GRACE
    assert multiprocessing.active_children() == []


def test_a_busy_job_is_tried_again_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY", 0.01)
    tried = {"a": 0, "b": 2}

    def busy_twice(job: Stand, *_: Any) -> None:
        tried[job.id] += 1
        if tried[job.id] < 3:
            raise Busy("another run has it")
        raise RuntimeError("then it fails")

    events: list[Event] = []
    jobs = [Stand(id="a"), Stand(id="b")]
    schedule.here(jobs, busy_twice, events.append, lambda: False)
    told = [(e.job, type(e)) for e in events if not isinstance(e, Started)]
    assert told == [("a", Waiting), ("b", Ended), ("a", Waiting), ("a", Ended)]
    assert set(ends(events, "failed")) == {"a", "b"}


def test_a_queue_keeps_its_order_and_children_behind_their_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    a, b, c = Stand(id="a"), Stand(id="b", after=("a",)), Stand(id="c", after=("gone",))
    queue = schedule.Queue([a, b, c])
    assert [queue.take(), queue.take(), queue.take()] == [a, c, None]
    assert len(queue) == 1  # b is still to come
    queue.postpone(a)
    assert queue.take() is None
    now[0] = schedule.RETRY
    assert queue.take() is a
    queue.ended(c)
    assert queue.take() is None
    queue.ended(a)
    assert queue.take() is b
    assert not queue

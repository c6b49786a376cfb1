"""The pool: all jobs are done, a killed worker costs its job only, and a stop is a stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest

from bench.run import schedule
from bench.run.lease import Busy


def work(job: dict[str, Any], emit: Any, should_stop: Any) -> None:
    emit({"event": "step", "job": job["id"], "process": os.getpid()})
    if job["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job["do"] == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if job["do"] == "fail":
        raise ValueError("as asked [/x]")
    if job["do"] == "wait":
        from bench.train import Interrupted

        until = time.monotonic() + 60
        while time.monotonic() < until:
            if should_stop():
                raise Interrupted("state saved")
            time.sleep(0.02)


def outcomes(does: list[str], stop: Any = lambda events: False) -> dict[str, list[dict[str, Any]]]:
    jobs = [{"id": f"{place} {do}", "do": do} for place, do in enumerate(does)]
    events: list[dict[str, Any]] = []
    schedule.pool(jobs, work, events.append, lambda: stop(events), workers=2)
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found.setdefault(event["event"], []).append(event)
    return found


def test_a_killed_worker_loses_its_own_job_only() -> None:
    found = outcomes(["die", "work", "fail", "work", "die", "work"])
    assert [e["job"] for e in found["finished"]] == sorted(e["job"] for e in found["finished"])
    assert {e["job"] for e in found["finished"]} == {"1 work", "3 work", "5 work"}
    reasons = {e["job"]: e["reason"] for e in found["failed"]}
    assert reasons["2 fail"] == "ValueError: as asked [/x]"
    assert "exit code -9" in reasons["0 die"]
    assert "exit code -9" in reasons["4 die"]
    assert len({e["process"] for e in found["step"]} - {os.getpid()}) >= 3


def test_a_stop_lets_jobs_save_and_starts_no_more() -> None:
    begun = lambda events: sum(e["event"] == "step" for e in events) >= 2  # noqa: E731
    found = outcomes(["wait", "wait", "work"], begun)
    assert {e["job"] for e in found["stopped"]} == {"0 wait", "1 wait"}
    assert "finished" not in found


def hang(job, emit, should_stop) -> None:
    from bench.train import Interrupted

    while job["hangs"]:
        time.sleep(0.05)
        if job["listens"] and should_stop():
            raise Interrupted("stopped")


@pytest.mark.parametrize("on", ["here", "pool"])
def test_a_job_that_hangs_times_out_and_the_others_go_on(on: str) -> None:
    jobs = [
        {"id": "a", "hangs": True, "listens": on == "here"},
        {"id": "b", "hangs": False, "listens": True},
    ]
    events: list[dict] = []
    if on == "here":
        schedule.here(jobs, hang, events.append, lambda: False, limit=0.3)
    else:
        schedule.pool(jobs, hang, events.append, lambda: False, workers=1, limit=1)
    ends = {e["job"]: e for e in events if e["event"] != "started"}
    assert ends["a"]["event"] == "failed"
    assert "timeout: not done after" in ends["a"]["reason"]
    assert ends["b"]["event"] == "finished"


class Hanging:
    """Work that a process never finishes loading."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return time.sleep, (60,)


def test_a_process_that_hangs_before_it_begins_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "STARTING", 0.5)
    events: list[dict[str, Any]] = []
    jobs = [{"id": "0", "do": "work"}]
    schedule.pool(jobs, Hanging(), events.append, lambda: False, workers=1, limit=0.5)
    assert [event["event"] for event in events] == ["failed"]
    assert "timeout" in events[0]["reason"]


def test_asked_twice_a_pool_ends_at_once_though_a_worker_hangs() -> None:
    begun: list[str] = []

    def stop() -> bool:
        if begun:
            raise KeyboardInterrupt
        return False

    jobs = [{"id": "a", "hangs": True, "listens": False}]
    with pytest.raises(KeyboardInterrupt):
        schedule.pool(jobs, hang, lambda event: begun.append(event["event"]), stop, workers=1)
    assert begun == ["started"]
    assert multiprocessing.active_children() == []


def test_a_batch_systems_signal_to_a_worker_leaves_the_decision_to_the_parent() -> None:
    jobs = [{"id": "a", "do": "term"}]
    events: list[dict] = []
    schedule.pool(jobs, work, events.append, lambda: False, workers=1)
    assert [e["event"] for e in events] == ["started", "step", "finished"]


def busy_twice(job, emit, should_stop) -> None:
    job["tried"].append(1)
    if len(job["tried"]) < 3:
        raise Busy("another run has it")
    raise RuntimeError("then it fails")


def test_a_busy_job_is_tried_again_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY", 0.01)
    jobs = [{"id": "a", "tried": []}, {"id": "b", "tried": [1, 1]}]
    events: list[dict] = []
    schedule.here(jobs, busy_twice, events.append, lambda: False)
    ends = [(e["job"], e["event"]) for e in events if e["event"] != "started"]
    assert ends == [("a", "busy"), ("b", "failed"), ("a", "busy"), ("a", "failed")]


def test_a_queue_keeps_its_order_and_children_behind_their_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    a, b, c = {"id": "a", "after": None}, {"id": "b", "after": "a"}, {"id": "c", "after": "gone"}
    queue = schedule.Queue([a, b, c])
    assert [queue.take(), queue.take(), queue.take()] == [a, c, None]
    assert len(queue) == 1  # b is still to come
    queue.postpone(a)
    assert queue.take() is None
    now[0] = schedule.RETRY
    assert queue.take() is a
    assert queue.take() is None
    queue.ended(c)
    assert queue.take() is None
    queue.ended(a)
    assert queue.take() is b
    assert not queue

"""The pool: all jobs are done, a killed worker costs its job only, and a stop is a stop."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bench import executors


def work(job: dict[str, Any], emit: Any, should_stop: Any) -> None:
    emit({"event": "step", "job": job["id"], "process": os.getpid()})
    if job["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
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
    executors.pool(jobs, work, events.append, lambda: stop(events), workers=2)
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

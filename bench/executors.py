"""Where jobs run: here, one after another, or in a pool of spawned processes.

A job is a dict of plain values; `work(job, emit, should_stop)` does it and is importable by name.
A job that fails, or whose process dies, is reported as a `failed` event and the others go on. A
job with the id of another under `after` waits for that one; `jobs` has it earlier.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

Job = dict[str, Any]
Emit = Callable[[dict[str, Any]], None]
Work = Callable[[Job, Emit, Callable[[], bool]], None]


def attempt(work: Work, job: Job, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Do one job; its outcome is an event: finished, failed or stopped."""
    from bench.train import Interrupted

    emit({"event": "started", "job": job["id"]})
    try:
        work(job, emit, should_stop)
    except Interrupted as stop:
        emit({"event": "stopped", "job": job["id"], "reason": str(stop)})
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
        emit({"event": "failed", "job": job["id"], "reason": reason, "trace": trace})
    else:
        emit({"event": "finished", "job": job["id"]})


def here(jobs: Sequence[Job], work: Work, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Run the jobs in this process, in order."""
    for job in jobs:
        if should_stop():
            return
        attempt(work, job, emit, should_stop)


class _Worker:
    """A spawned process with a pipe of its own: no lock is shared that a killed one could hold."""

    def __init__(self, context: Any, work: Work, stop: Any, threads: int) -> None:
        self.pipe, theirs = context.Pipe()
        arguments = (work, theirs, stop, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        # Ctrl-C reaches every process of the terminal; workers inherit that the parent decides.
        before = None
        with contextlib.suppress(ValueError):  # not in the main thread
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        self.pipe.send(job)


def pool(
    jobs: Sequence[Job], work: Work, emit: Emit, should_stop: Callable[[], bool], workers: int
) -> None:
    """Run the jobs in `workers` spawned processes, each with its share of the CPU's threads."""
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue("b", 0)
    waiting = list(jobs)
    workers = min(workers, len(waiting))
    threads = max(1, (os.cpu_count() or 1) // max(1, workers))
    crew: list[_Worker] = []

    def employ() -> None:
        """Give waiting jobs to idle workers, and new workers to the empty places."""
        while not stop.value:
            open_ids = {job["id"] for job in waiting} | {w.job["id"] for w in crew if w.job}
            job = next((job for job in waiting if job.get("after") not in open_ids), None)
            if job is None:
                return
            idle = next((worker for worker in crew if worker.job is None), None)
            if idle is None:
                if len(crew) == workers:
                    return
                idle = _Worker(context, work, stop, threads)
                crew.append(idle)
            waiting.remove(job)
            idle.give(job)

    try:
        employ()
        while any(worker.job for worker in crew):
            if should_stop():
                stop.value = 1
            busy = {worker.pipe: worker for worker in crew if worker.job is not None}
            for pipe in connection.wait(list(busy), timeout=0.2):
                worker = busy[pipe]  # type: ignore[index]
                assert worker.job is not None
                try:
                    event = worker.pipe.recv()
                except (EOFError, OSError):  # it is gone, and so is its end of the pipe
                    worker.process.join()
                    crew.remove(worker)
                    code = worker.process.exitcode
                    reason = f"its process died (exit code {code}); was memory short?"
                    event = {"event": "failed", "job": worker.job["id"], "reason": reason}
                    event["trace"] = ""
                if event["event"] in ("finished", "failed", "stopped"):
                    worker.job = None
                emit(event)
            employ()
    finally:
        stop.value = 1
        for worker in crew:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        until = time.monotonic() + 30  # enough to finish a step and save
        for worker in crew:
            worker.process.join(timeout=max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.terminate()


def _serve(work: Work, pipe: Any, stop: Any, threads: int) -> None:
    """A pool process: do the jobs that come in until None comes, or until the parent is gone."""
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            attempt(work, job, pipe.send, lambda: bool(stop.value))

"""Where jobs run: here, one after another, or in a pool of spawned processes.

A job is a dict of plain values; `work(job, emit, should_stop)` does it and is importable by name.
A job that fails, or whose process dies, is reported as a `failed` event and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Sequence
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


def pool(
    jobs: Sequence[Job], work: Work, emit: Emit, should_stop: Callable[[], bool], workers: int
) -> None:
    """Run the jobs in `workers` spawned processes, each with its share of the CPU's threads."""
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    stop = context.Event()
    waiting = list(jobs)
    running: dict[int, Job] = {}
    workers = min(workers, len(waiting))
    threads = max(1, (os.cpu_count() or 1) // max(1, workers))
    inboxes = {number: context.Queue() for number in range(workers)}
    processes: dict[int, Any] = {}

    def hand_out(number: int) -> None:
        if waiting and not stop.is_set():
            running[number] = waiting.pop(0)
            if number not in processes or not processes[number].is_alive():
                inboxes[number] = context.Queue()
                arguments = (number, work, inboxes[number], events, stop, threads)
                processes[number] = context.Process(target=_serve, args=arguments, daemon=True)
                processes[number].start()
            inboxes[number].put(running[number])

    try:
        for number in range(workers):
            hand_out(number)
        while running:
            if should_stop():
                stop.set()
            with contextlib.suppress(queue.Empty):
                number, event = events.get(timeout=0.2)
                emit(event)
                if event["event"] in ("finished", "failed", "stopped"):
                    running.pop(number, None)
                    hand_out(number)
                continue  # events first: a worker that is gone may have sent its last word
            for number, job in list(running.items()):
                process = processes[number]
                if not process.is_alive():
                    running.pop(number)
                    reason = f"its process died (exit code {process.exitcode}); was memory short?"
                    emit({"event": "failed", "job": job["id"], "reason": reason, "trace": ""})
                    hand_out(number)
    finally:
        for inbox in inboxes.values():
            inbox.put(None)
        for process in processes.values():
            process.join(timeout=10)
            if process.is_alive():
                process.terminate()


def _serve(number: int, work: Work, inbox: Any, events: Any, stop: Any, threads: int) -> None:
    """A pool process: do the jobs that come in until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    while (job := inbox.get()) is not None:
        attempt(work, job, lambda event: events.put((number, event)), stop.is_set)

"""Where jobs run: here, one after another, or in a pool of spawned processes (and see `cluster`).

A job is a dict of plain values; `work(job, emit, should_stop)` does it and is importable by name.
A job that fails, or whose process dies, is reported as a `failed` event and the others go on. A
job with the id of another under `after` waits for that one; `jobs` has it earlier. A job that
another run has (`Busy`) is tried again later.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import multiprocessing
import signal
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from bench.run.capacity import cores
from bench.run.lease import Busy

Job = dict[str, Any]
Event = dict[str, Any]
Emit = Callable[[Event], None]
Work = Callable[[Job, Emit, Callable[[], bool]], None]

RETRY = 1.0  # seconds before a job that another run has is tried again
STARTING = 120.0  # seconds that a process may take to begin a job before its limit counts
ENDS = ("finished", "failed", "stopped", "busy")


def attempt(work: Work, job: Job, emit: Emit, should_stop: Callable[[], bool]) -> str:
    """Do one job; its outcome is returned and an event: finished, failed, stopped or busy."""
    from bench.train import Interrupted

    outcome = "finished"

    def tell(event: dict[str, Any]) -> None:
        nonlocal outcome
        outcome = event["event"]
        emit(event)

    emit({"event": "started", "job": job["id"]})
    try:
        work(job, emit, should_stop)
    except Busy as busy:
        tell({"event": "busy", "job": job["id"], "reason": str(busy)})
    except Interrupted as stop:
        tell({"event": "stopped", "job": job["id"], "reason": str(stop)})
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
        tell({"event": "failed", "job": job["id"], "reason": reason, "trace": trace})
    else:
        tell({"event": "finished", "job": job["id"]})
    return outcome


class Queue:
    """The jobs that are still to be begun, in order: each once its parent has ended, those that
    another run has (`postpone`) after the others and not before `RETRY` seconds.

    Whoever `take`s a job says later that it `ended` or postpones it. No call looks at all jobs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._places = itertools.count()
        self._ready: list[tuple[int, Job]] = []  # a heap by place, which no two share
        self._held: dict[str, list[tuple[int, Job]]] = defaultdict(list)  # by their parent's id
        self._later: deque[tuple[float, Job]] = deque()  # by the time, as each waits equally long
        self._left = len(jobs)
        known = {job["id"] for job in jobs}
        for job in jobs:
            entry = next(self._places), job
            parent: Any = job.get("after")
            (self._held[parent] if parent in known else self._ready).append(entry)

    def __len__(self) -> int:
        """How many are still to be begun, or begun again."""
        return self._left

    def take(self) -> Job | None:
        """The next job that can be begun; None while there is none."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._ready, (next(self._places), self._later.popleft()[1]))
        if not self._ready:
            return None
        self._left -= 1
        return heapq.heappop(self._ready)[1]

    def ended(self, job: Job) -> None:
        """What waited for the job can be begun, however it ended."""
        for entry in self._held.pop(job["id"], []):
            heapq.heappush(self._ready, entry)

    def postpone(self, job: Job) -> None:
        self._left += 1
        self._later.append((time.monotonic() + RETRY, job))


def here(
    jobs: Sequence[Job],
    work: Work,
    emit: Emit,
    should_stop: Callable[[], bool],
    limit: float = math.inf,
) -> None:
    """Run the jobs in this process, in order, those that are busy elsewhere at the end.

    A job that is still stepping after `limit` seconds is stopped, and fails with `timeout`.
    """
    queue = Queue(jobs)
    while queue and not should_stop():
        job = queue.take()
        if job is None:  # other runs have all that is left
            time.sleep(min(RETRY, 0.2))
            continue
        until = time.monotonic() + limit

        def late(until: float = until) -> bool:
            return time.monotonic() > until

        def tell(event: Event, late: Callable[[], bool] = late) -> None:
            if event["event"] == "stopped" and late() and not should_stop():
                event = {**event, "event": "failed", "trace": "", "reason": timeout(limit)}
            emit(event)

        if attempt(work, job, tell, lambda: should_stop() or late()) == "busy":
            queue.postpone(job)
        else:
            queue.ended(job)


def timeout(limit: float) -> str:
    return (
        f"timeout: not done after {limit:g} seconds; run again to go on from its last checkpoint, "
        "with a larger --limit if it did not hang"
    )


class _Worker:
    """A spawned process with a pipe of its own: no lock is shared that a killed one could hold."""

    def __init__(self, context: Any, work: Work, stop: Any, threads: int) -> None:
        self.pipe, theirs = context.Pipe()
        arguments = (work, theirs, stop, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        # Ctrl-C reaches every process of the terminal, and SIGTERM of a batch job every process of
        # it; workers inherit that the parent decides.
        before = {}
        with contextlib.suppress(ValueError):  # not in the main thread
            for sign in (signal.SIGINT, signal.SIGTERM):
                before[sign] = signal.signal(sign, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job, self.since = job, time.monotonic() + STARTING  # until it says that it began
        self.pipe.send(job)


def pool(
    jobs: Sequence[Job],
    work: Work,
    emit: Emit,
    should_stop: Callable[[], bool],
    workers: int,
    limit: float = math.inf,
) -> None:
    """Run the jobs in `workers` spawned processes, each with its share of the CPU's threads.

    A process that has not done its job after `limit` seconds is killed, and the job fails with
    `timeout`. They are counted from `STARTING` seconds after it was given the job at the latest.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue("b", 0)
    queue = Queue(jobs)
    workers = min(workers, len(queue))
    threads = max(1, cores() // max(1, workers))
    crew: list[_Worker] = []

    def employ() -> None:
        """Give waiting jobs to idle workers, and new workers to the empty places."""
        while not stop.value:
            idle = next((worker for worker in crew if worker.job is None), None)
            if idle is None and len(crew) == workers:
                return
            job = queue.take()
            if job is None:
                return
            if idle is None:
                idle = _Worker(context, work, stop, threads)
                crew.append(idle)
            idle.give(job)

    try:
        employ()
        while any(worker.job for worker in crew) or (queue and not stop.value):
            if should_stop():
                stop.value = 1
            at_work = {worker.pipe: worker for worker in crew if worker.job is not None}
            if not at_work:
                time.sleep(0.2)
            for pipe in connection.wait(list(at_work), timeout=0.2):
                worker = at_work[pipe]  # type: ignore[index]
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
                if event["event"] == "started":
                    worker.since = time.monotonic()
                elif event["event"] == "busy":
                    queue.postpone(worker.job)
                elif event["event"] in ENDS:
                    queue.ended(worker.job)
                if event["event"] in ENDS:
                    worker.job = None
                emit(event)
            for worker in [w for w in crew if w.job and time.monotonic() - w.since > limit]:
                assert worker.job is not None
                worker.process.kill()
                worker.process.join()
                crew.remove(worker)
                queue.ended(worker.job)
                event = {"event": "failed", "job": worker.job["id"], "trace": ""}
                emit({**event, "reason": timeout(limit)})
            employ()
    except KeyboardInterrupt:  # asked twice: at once, without saving
        for worker in crew:
            worker.process.kill()
        raise
    finally:
        stop.value = 1
        for worker in crew:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        until = time.monotonic() + 30  # enough to finish a step and save
        for worker in crew:
            worker.process.join(timeout=max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()


def _serve(work: Work, pipe: Any, stop: Any, threads: int) -> None:
    """A pool process: do the jobs that come in until None comes, or until the parent is gone."""
    import torch

    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            attempt(work, job, pipe.send, lambda: bool(stop.value))

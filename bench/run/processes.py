"""A pool of spawned processes, one of the places where jobs run (`bench/run/schedule.py`).

with Kept() as kept:
    pool(jobs, work, emit, should_stop, workers=2, kept=kept)
    pool(others, work, emit, should_stop, workers=2, kept=kept)     in the same processes
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
import warnings
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, Self

from bench.run.capacity import cores
from bench.run.schedule import GRACE, POLL, STARTING, Driver, Emit, Executor, Stop, Work, attempt
from bench.run.schema import Ended, Event, Job


def start_deaf(process: Any) -> None:
    """Start a process that leaves it to this one what a signal means: Ctrl-C reaches every process
    of the terminal, and SIGTERM of a batch job every process of it."""
    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        for sign in (signal.SIGINT, signal.SIGTERM):
            before[sign] = signal.signal(sign, signal.SIG_IGN)  # which is inherited
    try:
        process.start()
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


class _Worker:
    """A spawned process with a pipe of its own: no lock is shared that a killed one could hold."""

    def __init__(self, context: Any, *arguments: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *arguments), daemon=True)
        start_deaf(self.process)
        theirs.close()
        self.job: Job | None = None

    def receive(self) -> Event:
        assert self.job is not None
        try:
            return self.pipe.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):  # it is gone, and so is its end of the pipe
            self.process.join()
            reason = f"its process died (exit code {self.process.exitcode})"
            return Ended(job=self.job.id, how="lost", reason=reason)


class Pool(Executor):
    """Spawned processes; on a GPU each has its share of the CPU's threads, on a CPU see
    `capacity.threads`. `kept`: a driver that is done leaves them idle, for the next, until `close`.
    """

    def __init__(self, work: Work, workers: int, *, kept: bool = False) -> None:
        self.starting, self.work, self.kept = STARTING, work, kept
        self.workers, self.crew = workers, dict[Any, _Worker]()  # by its pipe
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.RawValue("b", 0)
        self.arguments = work, self.stop, max(1, cores() // max(1, workers))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.kept or kind is not None:
            self.close(kind)

    def close(self, kind: type[BaseException] | None = None) -> None:
        self.ask_to_stop()
        for worker in self.crew.values():
            if kind is KeyboardInterrupt:  # asked twice: at once, without saving
                worker.process.kill()
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        until = time.monotonic() + GRACE
        for worker in self.crew.values():
            worker.process.join(timeout=max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
        self.crew.clear()

    def places(self) -> int:
        return self.workers

    def ask_to_stop(self) -> None:
        self.stop.value = 1

    def start(self, job: Job) -> None:
        for pipe, worker in list(self.crew.items()):
            if worker.job is None and not worker.process.is_alive():  # killed between two jobs
                del self.crew[pipe]
        idle = next((worker for worker in self.crew.values() if worker.job is None), None)
        worker = idle or _Worker(self.context, *self.arguments)
        self.crew[worker.pipe] = worker
        worker.job = job
        worker.pipe.send(job)

    def wait(self, tell: Emit, should_stop: Stop) -> None:
        at_work = [pipe for pipe, worker in self.crew.items() if worker.job]
        for pipe in connection.wait(at_work, timeout=POLL):
            worker = self.crew[pipe]
            event = worker.receive()
            if isinstance(event, Ended):
                worker.job = None
                if event.how == "lost":
                    del self.crew[pipe]
            tell(event)

    def kill(self, job: Job) -> None:
        worker = next(worker for worker in self.crew.values() if worker.job is job)
        worker.process.kill()
        worker.process.join()
        del self.crew[worker.pipe]


class Kept:
    """Processes that outlast the jobs they were started for, since starting one takes seconds: a
    block of code in which every pool of the same size is the same."""

    def __init__(self) -> None:
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.close(kind)
        self._pool = None

    def pool(self, work: Work, workers: int) -> Pool:
        """The one that is there, or in its place a new one."""
        there = self._pool
        if there is None or (there.work, there.workers) != (work, workers) or there.stop.value:
            self.__exit__(None)
            self._pool = Pool(work, workers, kept=True)
        assert self._pool is not None
        return self._pool


def pool(
    jobs: Sequence[Job],
    work: Work,
    emit: Emit,
    should_stop: Stop,
    workers: int,
    limit: float = math.inf,
    kept: Kept | None = None,
) -> None:
    """Run the jobs in `workers` spawned processes, of those that are `kept`, the limit counted from
    `STARTING` seconds after a process was given a job at the latest."""
    workers = min(workers, len(jobs))
    executor = kept.pool(work, workers) if kept else Pool(work, workers)
    Driver(jobs, executor, emit, should_stop).run(limit)


def _serve(pipe: Any, work: Work, stop: Any, threads: int) -> None:
    """A pool process: do the jobs that come in until None comes, or until the parent is gone."""
    import torch

    torch.set_num_threads(threads)
    for kind in (DeprecationWarning, FutureWarning):  # libraries' notes are not for users
        warnings.filterwarnings("ignore", category=kind)
    with contextlib.suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            pipe.send(attempt(work, job, pipe.send, lambda: bool(stop.value)))

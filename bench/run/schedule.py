"""Where jobs run: one loop for all, and the first of the places: here, one after another.
`bench/run/processes.py` has a pool of spawned processes, `bench/run/nodes.py` a Ray cluster.

A job is a record of `bench/run/schema.py`; `work(job, emit, should_stop)` does it and is importable
by name. One that fails, or whose process dies, is told by an event and the others go on. A job with
ids of others under `after` waits for all of them; `jobs` has them earlier. A job that another run
has (`Busy`) is tried again later.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from bench.run.lease import Busy
from bench.run.schema import Ended, Event, Job, Started, Waiting

Emit = Callable[[Event], None]
Stop = Callable[[], bool]
Work = Callable[[Any, Emit, Stop], None]

RETRY = 1.0  # seconds before a job that another run has is tried again
POLL = 0.2  # seconds until a driver looks for a stop and for jobs that hang
STARTING = 120.0  # seconds that a process may take to begin a job before its limit counts
GRACE = 30.0  # seconds in which stopped jobs finish their step and save


def attempt(work: Work, job: Job, emit: Emit, should_stop: Stop) -> Ended:
    """Do one job, and say how it ended."""
    from bench.train import Interrupted

    emit(Started(job=job.id))
    try:
        work(job, emit, should_stop)
    except Busy as busy:
        return Ended(job=job.id, how="busy", reason=str(busy))
    except Interrupted as stop:
        return Ended(job=job.id, how="stopped", reason=str(stop))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Ended(job=job.id, how="failed", reason=reason, trace=traceback.format_exc())
    return Ended(job=job.id, how="finished")


class Queue:
    """The jobs that are still to be begun, in order: each once all that it waits for have ended,
    those that another run has (`postpone`) after the others and not before `RETRY` seconds.

    Whoever `take`s a job says later that it `ended` or postpones it. No call looks at all jobs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._places = itertools.count()
        self._ready: list[tuple[int, Job]] = []  # a heap by place, which no two share
        self._held: dict[str, list[tuple[int, Job]]] = defaultdict(list)  # by what they wait for
        self._waits: Counter[int] = Counter()  # by a job's place: for how many it still waits
        self._later: deque[tuple[float, Job]] = deque()  # by the time, as each waits equally long
        self._left = len(jobs)
        known = {job.id for job in jobs}
        for job in jobs:
            entry = next(self._places), job
            before = known.intersection(job.after)
            for parent in before:
                self._held[parent].append(entry)
            if before:
                self._waits[entry[0]] = len(before)
            else:
                self._ready.append(entry)

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
        for entry in self._held.pop(job.id, []):
            self._waits[entry[0]] -= 1
            if not self._waits[entry[0]]:
                del self._waits[entry[0]]
                heapq.heappush(self._ready, entry)

    def postpone(self, job: Job) -> None:
        self._left += 1
        self._later.append((time.monotonic() + RETRY, job))


class Executor(ABC):
    """Where jobs are done, for `Driver`, which enters it, and leaves it by what ended the run: a
    KeyboardInterrupt asks for an end at once, anything else lets what is at work save before."""

    retries = 0  # times a job is done again whose process or machine was lost
    starting = math.inf  # seconds a job that was started may take to begin before its limit counts
    grace = math.inf  # seconds until what does not end after a stop is left behind

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing is left behind, where no process was started."""

    @abstractmethod
    def places(self) -> int:
        """How many jobs it takes at once."""

    @abstractmethod
    def start(self, job: Job) -> None: ...

    @abstractmethod
    def wait(self, tell: Emit, should_stop: Stop) -> None:
        """Tell what happened meanwhile, of each job its `Started` and at last its `Ended`; return
        after `POLL` seconds at the latest, but where a job is done in this very call."""

    def ask_to_stop(self) -> None:
        """What is at work shall finish its step, save, and end as stopped."""

    def kill(self, job: Job) -> None:
        """Take a job its process; nothing that is told of it later counts."""


class Driver:
    """Brings jobs to an executor and their events to `emit`; see `run`."""

    def __init__(self, jobs: Sequence[Job], executor: Executor, emit: Emit, stop: Stop) -> None:
        self.queue, self.executor = Queue(jobs), executor
        self.emit, self.should_stop = emit, stop
        self.at_work: dict[str, Job] = {}
        self.since: dict[str, float] = {}  # by the id: when it began, or is to have begun
        self.lost: Counter[str] = Counter()
        self.stopped = math.inf  # when a stop was asked for

    def run(self, limit: float = math.inf) -> None:
        """Do the jobs. One that has not ended `limit` seconds after it began is killed, and fails
        with `timeout`; after a stop those at work save, and no other begins."""
        with self.executor:
            while self.at_work or (self.queue and not self.stopping()):
                if time.monotonic() - self.stopped > self.executor.grace:
                    return
                self._fill()
                if self.at_work:
                    self.executor.wait(self.tell, self.stopping)
                    self._end_late(limit)
                else:  # other runs have all that is left
                    time.sleep(min(POLL, RETRY))

    def stopping(self) -> bool:
        if self.stopped == math.inf and self.should_stop():
            self.stopped = time.monotonic()
            self.executor.ask_to_stop()
        return self.stopped < math.inf

    def tell(self, event: Event) -> None:
        if event.job not in self.at_work:  # one that was given up
            return
        if isinstance(event, Started):
            self.since[event.job] = time.monotonic()
        self.emit(event) if not isinstance(event, Ended) else self._end(event)

    def _fill(self) -> None:
        while not self.stopping() and len(self.at_work) < self.executor.places():
            job = self.queue.take()
            if job is None:
                return
            self.at_work[job.id] = job
            self.since[job.id] = time.monotonic() + self.executor.starting
            self.executor.start(job)

    def _end(self, event: Ended) -> None:
        job = self.at_work.pop(event.job)
        if event.how == "lost":
            event = self._after_loss(event)
        if event.how != "busy":
            self.queue.ended(job)
            self.emit(event)
            return
        self.queue.postpone(job)
        if not self.stopping():
            self.emit(Waiting(job=event.job, reason=event.reason))

    def _after_loss(self, event: Ended) -> Ended:
        """It is tried again, but not for ever."""
        self.lost[event.job] += 1
        count, retries = self.lost[event.job], self.executor.retries
        if count <= retries:
            reason = f"{event.reason}; tried again, {count} of {retries} times"
            return Ended(job=event.job, how="busy", reason=reason)
        times = f", {count} times" if retries else ""
        reason = f"{event.reason}{times}; was memory short?"
        return Ended(job=event.job, how="failed", reason=reason, trace=event.trace)

    def _end_late(self, limit: float) -> None:
        now = time.monotonic()
        for job in [job for name, job in self.at_work.items() if now - self.since[name] > limit]:
            self.executor.kill(job)
            self._end(Ended(job=job.id, how="failed", reason=timeout(limit)))


def timeout(limit: float) -> str:
    return (
        f"timeout: not done after {limit:g} seconds; run again to go on from its last checkpoint, "
        "with a larger --limit if it did not hang"
    )


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Ctrl-C once asks the work to finish its step and save; twice stops at once.

    SIGTERM, which a batch system sends a while before it kills, always asks to save, however often
    it comes: `timeout` sends it to the process and to its group.
    """
    asked, pressed = False, 0

    def ask(sign: int, _: object) -> None:
        nonlocal asked, pressed
        pressed += sign == signal.SIGINT
        if pressed > 1:
            raise KeyboardInterrupt
        if not asked or sign == signal.SIGINT:
            how = "Ctrl-C again" if pressed else "Ctrl-C twice"
            print(f"\nstopping after this step; {how} stops at once", file=sys.stderr)
        asked = True

    try:
        before = {sign: signal.signal(sign, ask) for sign in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


# Here ---------------------------------------------------------------------------------------------


class Here(Executor):
    """This process. A job that is still stepping after `limit` seconds is stopped, and fails."""

    def __init__(self, work: Work, limit: float) -> None:
        self.work, self.limit = work, limit

    def places(self) -> int:
        return 1

    def start(self, job: Job) -> None:
        self.job = job

    def wait(self, tell: Emit, should_stop: Stop) -> None:
        until = time.monotonic() + self.limit

        def late() -> bool:
            return time.monotonic() > until

        ended = attempt(self.work, self.job, tell, lambda: should_stop() or late())
        if ended.how == "stopped" and late() and not should_stop():
            ended = Ended(job=ended.job, how="failed", reason=timeout(self.limit))
        tell(ended)


def here(
    jobs: Sequence[Job], work: Work, emit: Emit, should_stop: Stop, limit: float = math.inf
) -> None:
    """Run the jobs in this process, in order, those that are busy elsewhere at the end."""
    Driver(jobs, Here(work, limit), emit, should_stop).run()

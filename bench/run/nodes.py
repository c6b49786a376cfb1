"""Jobs on the nodes of a Ray cluster: the executor here, and what a node does with a job.

A node is given a job's record and nothing else. Where it sees the results folder it works there,
as a pool's process does: with a lease beside the cell, from the last checkpoint on. Where it does
not, it gets the files the job needs, works in a temporary folder, and the bytes that came of it are
returned; this process holds the lease meanwhile, and writes them.

What a lost node or a killed process was doing is done again elsewhere, a few times. Ray ends the
jobs of a driver that dies; given the same command again, it goes on from the checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from bench.files import write_atomic
from bench.run import cluster, layout
from bench.run.cluster import Share, ray_module
from bench.run.lease import Busy, Lease
from bench.run.schedule import GRACE, POLL, Driver, Emit, Executor, Stop, Work, attempt
from bench.run.schema import Ended, Event, Job, Waiting
from bench.run.work import lease_of

POST = 1.0  # seconds between a job's messages to the driver
COUNT = 5.0  # seconds between counts of what the cluster can hold
IDLE = 1.0  # seconds until a process without a job gives back its share of a node
TURN = 600.0  # seconds until a process takes no other job, so that other runs have their turn

Files = dict[str, bytes]  # by their place in the results folder
Return = tuple[Ended | None, Files, list[str]]  # see `serve`


def run(
    jobs: Sequence[Job],
    work: Work,
    emit: Emit,
    should_stop: Stop,
    share: Share,
    limit: float = math.inf,
) -> None:
    """Run the jobs on the cluster this process is connected to, each with its share of a node.

    All have one `root`. RuntimeError where the cluster itself is lost.
    """
    if not jobs:
        return
    try:
        executor = Ray(work, share, Path(jobs[0].root).absolute())
        Driver(jobs, executor, emit, should_stop).run(limit)
    except ray_module().exceptions.RayError as error:
        raise RuntimeError(
            f"the Ray cluster is lost ({error}): once there is one, give the same command again to "
            "continue"
        ) from error


@dataclass(kw_only=True)
class _Process:
    """An actor that does jobs (`Server`) `until` then, and when its last one ended."""

    actor: Any
    until: float = field(default_factory=lambda: time.monotonic() + TURN)
    idle: float = 0.0


@dataclass(kw_only=True)
class _Flight:
    """A job that was handed to Ray. Where no folder is shared, its `lease` is `held` here."""

    job: Job
    process: _Process
    lease: Lease | None = None
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@dataclass(frozen=True, kw_only=True)
class _Orders:
    """What a node is told beside the job. token: a file's name; who sees it sees the folder."""

    token: str
    threads: int
    command: list[str]
    cache: str | None


class Mailbox:
    """An actor between the jobs and the driver: events one way, the wish to stop the other."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.stop = False

    def post(self, events: list[Event]) -> bool:
        self.events += events
        return self.stop

    def collect(self, stop: bool) -> list[Event]:
        self.stop = self.stop or stop
        events, self.events = self.events, []
        return events


class Ray(Executor):
    """The nodes of the cluster; `share` is what a job gets of one.

    A job runs in an actor, whose process does another job after it: an actor keeps its GPU. The
    process of a task is given one GPU after another, which CUDA does not notice once it has begun.
    """

    retries = 3
    grace = GRACE

    def __init__(self, work: Work, share: Share, root: Path) -> None:
        self.ray = ray_module()
        self.work, self.share, self.root = work, share, root
        self.orders = _Orders(
            token=f".ray-{uuid.uuid4().hex}",
            threads=share.threads,
            command=sys.argv,
            cache=os.environ.get("YOTO_BENCH_CACHE"),
        )
        self.flights, self.idle = dict[Any, _Flight](), list[_Process]()  # by Ray's reference
        self.slots, self.counted, self.stop = 1, -math.inf, False

    def __enter__(self) -> Self:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / self.orders.token).touch()
        here = self.ray.get_runtime_context().get_node_id()  # lives as long as this process
        mailbox = self.ray.remote(Mailbox).options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
        )
        self.mailbox = mailbox.remote()
        options = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus}
        options |= {"memory": self.share.memory} if self.share.memory else {}
        self.server = self.ray.remote(**options, scheduling_strategy="SPREAD")(Server)
        return self

    def __exit__(self, *_: object) -> None:
        (self.root / self.orders.token).unlink(missing_ok=True)
        for flight in list(self.flights.values()):
            self.kill(flight.job)
        self._end_idle(time.monotonic())
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(self.mailbox)

    def places(self) -> int:
        """What the cluster can hold: no job waits for the process of another."""
        self._end_idle(time.monotonic() - IDLE)
        if time.monotonic() - self.counted >= COUNT:
            self.counted = time.monotonic()
            self.slots = self.share.slots(self.ray.nodes())
        return max(1, self.slots)

    def start(self, job: Job) -> None:
        process = self.idle.pop() if self.idle else _Process(actor=self.server.remote())
        self._submit(_Flight(job=job, process=process))

    def ask_to_stop(self) -> None:
        self.stop = True

    def kill(self, job: Job) -> None:
        ref = next(ref for ref, flight in self.flights.items() if flight.job is job)
        flight = self.flights.pop(ref)
        self._end(flight.process)
        flight.held.close()

    def wait(self, tell: Emit, should_stop: Stop) -> None:
        if not self.slots:
            for flight in self.flights.values():
                reason = "the Ray cluster has no node that could run it"
                tell(Waiting(job=flight.job.id, reason=reason))
        ready, _ = self.ray.wait(list(self.flights), timeout=POLL)
        # What a job said, before how it ended. A mailbox that starts again only told of progress.
        with contextlib.suppress(self.ray.exceptions.RayError):
            for event in self.ray.get(self.mailbox.collect.remote(self.stop), timeout=GRACE):
                tell(event)
        for ref in ready:
            self._land(ref, tell)

    def _submit(self, flight: _Flight, sent: Files | None = None) -> None:
        job = msgspec.structs.replace(flight.job, root=str(self.root))
        parcel = None if sent is None else self.ray.put(sent)
        serve = flight.process.actor.serve.options(name=job.label)
        self.flights[serve.remote(self.work, job, self.mailbox, self.orders, parcel)] = flight

    def _land(self, ref: Any, tell: Emit) -> None:
        """Take back a job that ended, however it did."""
        flight = self.flights.pop(ref)
        ended, files, gone = self._returned(ref, flight)
        if ended is None:
            self._send_along(flight, tell)
            return
        self._leave(flight.process)
        try:
            if flight.lease is not None:
                flight.lease.check()  # or it would be over the new holder's
            write_back(self.root, files, gone)
        except (Busy, OSError, ValueError) as error:
            ended = _refused(flight.job, error)
        finally:
            flight.held.close()
        tell(ended)

    def _leave(self, process: _Process) -> None:
        """Its job is over: it may do another."""
        process.idle = time.monotonic()
        if process.idle > process.until:
            self._end(process)
        else:
            self.idle.append(process)

    def _end_idle(self, since: float) -> None:
        """End those without a job since then: each holds a share of a node, and of its memory."""
        while self.idle and self.idle[0].idle <= since:
            self._end(self.idle.pop(0))

    def _end(self, process: _Process) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(process.actor)

    def _returned(self, ref: Any, flight: _Flight) -> Return:
        """What a node returned, or why it did not."""
        try:
            return self.ray.get(ref)  # type: ignore[no-any-return]
        except self.ray.exceptions.RayError as error:  # not in the work, which says it ended
            how, reason = cluster.failure(error)
            flight.process.until = -math.inf
            return Ended(job=flight.job.id, how=how, reason=reason, trace=str(error)), {}, []

    def _send_along(self, flight: _Flight, tell: Emit) -> None:
        """Hand a job in again with the files it needs: where it was, the folder is not to be seen.

        This process then stands for it towards other runs on the folder.
        """
        try:
            flight.lease = lease_of(flight.job)
            if flight.lease is not None:
                flight.lease.path.parent.mkdir(parents=True, exist_ok=True)
                flight.held.enter_context(flight.lease.hold())
            self._submit(flight, pack(self.root, [self.root / name for name in flight.job.uses]))
        except (Busy, OSError) as error:
            flight.held.close()
            self._leave(flight.process)
            tell(_refused(flight.job, error))


def _refused(job: Job, error: Exception) -> Ended:
    if isinstance(error, Busy):
        return Ended(job=job.id, how="busy", reason=str(error))
    return Ended(job=job.id, how="failed", reason=f"{type(error).__name__}: {error}")


# The nodes ----------------------------------------------------------------------------------------


class Server:
    """An actor, a process that does jobs one after another on the GPU that Ray gave it."""

    def __init__(self) -> None:
        cluster.see_its_gpu()

    def serve(self, *job_and_orders: Any) -> Return:
        return serve(*job_and_orders)


def serve(work: Work, job: Job, mailbox: Any, orders: _Orders, sent: Files | None) -> Return:
    """What a node does: the job, here if the results folder is to be seen, else in a copy.

    How it ended is returned, None where it needs files that were not `sent`, and, of a job done in
    a copy, the files that came of it and the names of those that went.
    """
    if sent is None and not (Path(job.root) / orders.token).exists():
        return None, {}, []
    sys.argv[:] = orders.command  # what results name as the command they came from
    if orders.cache:
        os.environ.setdefault("YOTO_BENCH_CACHE", orders.cache)
    os.environ["OMP_NUM_THREADS"] = str(orders.threads)  # Ray has set it to the cores of the share
    import torch

    torch.set_num_threads(orders.threads)
    post = _Post(mailbox)

    def checked(job: Job, emit: Emit, should_stop: Stop) -> None:
        for path in plugin_files(msgspec.to_builtins(job)):
            if not path.is_file():
                raise FileNotFoundError(
                    f"the plug-in {path} is not on the node {socket.gethostname()}: it must lie at "
                    "the same path on every node, as in a shared folder"
                )
        work(job, emit, should_stop)

    try:
        if post.stop:  # it waited for its turn until too late
            return Ended(job=job.id, how="busy"), {}, []
        if sent is None:
            return attempt(checked, job, post.events.append, lambda: post.stop), {}, []
        with tempfile.TemporaryDirectory(prefix="yoto-bench-") as folder:
            copy = Path(folder)
            write_back(copy, sent, [])
            moved = msgspec.structs.replace(job, root=folder)
            ended = attempt(checked, moved, post.events.append, lambda: post.stop)
            left = pack(copy, [path for path in copy.rglob("*") if path.is_dir()])
        new = {place: data for place, data in left.items() if sent.get(place) != data}
        return ended, new, [place for place in sent if place not in left]
    finally:
        post.close()


class _Post:
    """Carries a job's events to the mailbox now and then, and learns there of a stop.

    Only its thread asks the mailbox: Ray gives the share of a job that waits in the main thread to
    the next one, and more would run at once than the node holds.
    """

    def __init__(self, mailbox: Any) -> None:
        self.mailbox, self.ray = mailbox, ray_module()
        self.events: deque[Event] = deque()
        self.stop = False
        self._asked, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._walk, daemon=True)
        self._thread.start()
        self._asked.wait()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _walk(self) -> None:
        try:
            self._carry()
        finally:
            self._asked.set()
        while not self._over.wait(POST):
            self._carry()
        self._carry()

    def _carry(self) -> None:
        events = [self.events.popleft() for _ in range(len(self.events))]
        with contextlib.suppress(self.ray.exceptions.RayError):  # the work matters more
            self.stop = self.ray.get(self.mailbox.post.remote(events), timeout=GRACE)


def plugin_files(value: Any) -> Iterator[Path]:
    """The user's Python files that a job's descriptions name."""
    if isinstance(value, dict):
        target = value.get("class")
        if isinstance(target, str) and (path := target.rpartition(":")[0]).endswith(".py"):
            yield Path(path)
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list | tuple):
            yield from plugin_files(item)


def pack(root: Path, folders: Sequence[Path]) -> Files:
    """The files in these folders by their place in `root`, but for leases and torn ones."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith((".", "lease.json"))
        and ".lease" not in path.suffixes
    }


def write_back(root: Path, files: Files, gone: Sequence[str]) -> None:
    """Write what came of a job, the file that says it is whole last. OSError, ValueError."""
    for place in sorted(files, key=lambda place: (layout.says_whole(place), place)):
        if not _inside(place):
            raise ValueError(f"{place!r} is no place in a results folder")
        write_atomic(root / place, files[place])
    for place in filter(_inside, gone):
        (root / place).unlink(missing_ok=True)


def _inside(place: str) -> bool:
    path = Path(place)
    return not path.is_absolute() and ".." not in path.parts

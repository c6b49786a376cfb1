"""Where jobs run, continued: on a Ray cluster, of one machine or many.

    python run_bench.py run compression --on ray                       this machine
    python run_bench.py run compression --on ray --address host:6379   an existing cluster

A node is given a job's plain values and nothing else. Where it sees the results folder it works
there, as a pool's process does: with a lease beside the cell, from the last checkpoint on. Where it
does not, it gets the files the job needs, works in a temporary folder, and the bytes that came of
it are returned; this process holds the lease meanwhile, and writes them.

What a lost node or a killed process was doing is done again elsewhere, a few times. Ray ends the
jobs of a driver that dies; given the same command again, it goes on from the checkpoints.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.files import write_atomic
from bench.run.capacity import Room, room
from bench.run.lease import Busy, Lease
from bench.run.schedule import ENDS, Emit, Event, Job, Queue, Work, attempt, timeout

RETRIES = 3  # times a job is done again whose process or node was lost
POLL = 0.2  # seconds until the driver looks for a stop and for jobs that hang
POST = 1.0  # seconds between a job's messages to the driver
COUNT = 5.0  # seconds between counts of what the cluster can hold
GRACE = 30.0  # seconds in which stopped jobs finish their step and save

Files = dict[str, bytes]  # by their place in the results folder


# The cluster


def connect(address: str | None = None) -> str:
    """Join the cluster at `address`, or at $RAY_ADDRESS, or start one on this machine; its name.

    Nothing is done where this process is connected already. RuntimeError with the way out where
    Ray is missing or unusable, or nothing answers.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":  # no firewall is in the way of the loopback, and nobody else comes in
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = _ray()
    if ray.is_initialized():
        return address
    options = {"include_dashboard": False} if address == "local" else {}
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"no Ray cluster can be joined at {address} ({error}): `ray start --head` starts one; "
            "name it with --address or RAY_ADDRESS, or leave both out to use this machine alone"
        ) from error
    return address


def _ray() -> Any:
    """The module. RuntimeError says what to install, or what to remove."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise RuntimeError(
            "--on ray needs Ray: pip install 'yoto-bench[ray]', "
            "or pip install -e '.[ray]' where the code is"
        ) from None
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise RuntimeError(_PYARROW.format(error)) from error
    except Exception as error:
        raise RuntimeError(_PYARROW.format(error)) from error
    return ray


_PYARROW = (
    "Ray cannot run beside the pyarrow that is installed, which fails to import ({}): nothing here "
    "needs it, so `pip uninstall pyarrow`, or install a version made for this numpy "
    "(pip install 'pyarrow<18' for numpy 1.26)"
)


def device(name: str) -> str:
    """For "auto" a GPU where the cluster has one. ValueError where there is none of that kind."""
    gpus = _ray().cluster_resources().get("GPU", 0)
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name == "cuda" and not gpus:
        raise ValueError("the Ray cluster has no GPU: use --device cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: Ray chooses among GPUs itself, use auto, cpu or cuda")
    return name


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a job gets of a node: Ray's resources and torch's threads. `crowded` says whether other
    jobs of this run may use the same device meanwhile."""

    cpus: float
    gpus: float
    threads: int
    crowded: bool
    memory: int = 0  # bytes kept for it in a node's main memory

    def slots(self, nodes: Sequence[dict[str, Any]]) -> int:
        """How many such jobs the nodes hold."""
        wants = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return sum(
            min(int(resources.get(name, 0) / want + 1e-9) for name, want in wants.items() if want)
            for resources in (node["Resources"] for node in nodes if node["Alive"])
        )


def nodes() -> list[dict[str, Any]]:
    return list(_ray().nodes())


def share(nodes: Sequence[dict[str, Any]], kind: str, per_device: int, memory: int = 0) -> Share:
    """The part of a GPU, or of the smallest node's cores, that each of `per_device` jobs gets.

    A node with more cores runs more of them, as far as it has `memory` bytes for each on a CPU (or,
    where a node has less, what it has). RuntimeError where no node can run any.
    """
    wanted = "GPU" if kind == "cuda" else "CPU"
    able = [node for node in nodes if node["Alive"] and node["Resources"].get(wanted, 0) > 0]
    if not able:
        raise RuntimeError(f"the Ray cluster has no node with a {wanted}")
    found = [node["Resources"] for node in able]
    if kind == "cuda":
        cores = min(each.get("CPU", 1) / each["GPU"] for each in found)
        threads = max(1, int(cores / per_device))
        return Share(cpus=0, gpus=_part(1 / per_device), threads=threads, crowded=per_device > 1)
    cpus = _part(min(each["CPU"] for each in found) / per_device)
    beside = len({node["NodeManagerHostname"] for node in able}) < len(able)
    crowded = beside or max(each["CPU"] for each in found) >= 2 * cpus
    memory = int(min([memory, *(each.get("memory", memory) for each in found)]))
    threads = max(1, int(cpus))
    return Share(cpus=cpus, gpus=0, threads=threads, crowded=crowded, memory=memory)


def _part(amount: float) -> float:
    """As Ray takes it: whole from one on, else in ten-thousandths, rounded down so that all fit."""
    return float(int(amount)) if amount >= 1 else max(1, int(amount * 1e4)) / 1e4


def rooms(kind: str) -> list[Room]:
    """What is free on each node that has a device of `kind`; nodes that do not say in a minute are
    left out."""
    ray = _ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    wanted = "GPU" if kind == "cuda" else "CPU"
    able = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get(wanted, 0) > 0]
    look = ray.remote(max_retries=0)(room)
    asked = {
        look.options(
            num_cpus=0,
            num_gpus=0.01 if kind == "cuda" else 0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(kind): node["Resources"]
        for node in able
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=60)
    found = []
    for ref in ready:
        with contextlib.suppress(ray.exceptions.RayError):  # lost meanwhile
            cores = asked[ref].get("CPU", 1) / (asked[ref]["GPU"] if kind == "cuda" else 1)
            found.append(Room(free=ray.get(ref).free, cores=cores))
    return found


# The driver


@dataclass(kw_only=True)
class _Flight:
    """A job that was handed to Ray. Where no folder is shared, its `lease` is `held` here."""

    job: Job
    lease: Lease | None = None
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    since: float = math.inf  # when it began


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


def run(
    jobs: Sequence[Job],
    work: Work,
    emit: Emit,
    should_stop: Callable[[], bool],
    share: Share,
    limit: float = math.inf,
) -> None:
    """Run the jobs on the cluster this process is connected to, each with its share of a node.

    All have one `root`. A job whose process or node is lost is done again, at most `RETRIES` times;
    one that has not ended `limit` seconds after it began is killed, and fails with `timeout`.
    RuntimeError where the cluster itself is lost.
    """
    if not jobs:
        return
    try:
        with _Driver(jobs, work, emit, share, limit) as driver:
            driver.fly(should_stop)
    except _ray().exceptions.RayError as error:
        raise RuntimeError(
            f"the Ray cluster is lost ({error}): once there is one, give the same command again to "
            "continue"
        ) from error


class _Driver:
    """One `run`: what is in flight, and what becomes of it."""

    def __init__(
        self, jobs: Sequence[Job], work: Work, emit: Emit, share: Share, limit: float
    ) -> None:
        self.ray = _ray()
        self.queue = Queue(jobs)
        self.work, self.emit, self.share, self.limit = work, emit, share, limit
        self.flying: dict[Any, _Flight] = {}
        self.lost: Counter[str] = Counter()
        self.root = Path(jobs[0]["root"]).absolute()
        self.token = self.root / f".ray-{uuid.uuid4().hex}"  # who sees it sees the folder
        self.counted = -math.inf
        self.bound = 1

    def __enter__(self) -> _Driver:
        ray = self.ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.token.parent.mkdir(parents=True, exist_ok=True)
        self.token.touch()
        here = ray.get_runtime_context().get_node_id()  # lives as long as this process
        self.mailbox = (
            ray.remote(Mailbox)
            .options(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote()
        )
        options = {"num_cpus": self.share.cpus, "num_gpus": self.share.gpus, "max_retries": 0}
        options |= {"memory": self.share.memory} if self.share.memory else {}
        self.serve = ray.remote(**options, scheduling_strategy="SPREAD")(serve)
        return self

    def __exit__(self, *_: object) -> None:
        self.token.unlink(missing_ok=True)
        for ref, flight in self.flying.items():
            self._kill(ref)
            flight.held.close()
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(self.mailbox)

    def fly(self, should_stop: Callable[[], bool]) -> None:
        stopped = math.inf  # when a stop was asked for
        while self.flying or (self.queue and stopped == math.inf):
            if stopped == math.inf and should_stop():
                stopped = time.monotonic()
            if time.monotonic() - stopped > GRACE:
                return
            self._count()
            while stopped == math.inf and len(self.flying) < self.bound:
                job = self.queue.take()
                if job is None:
                    break
                self._submit(_Flight(job=job))
            if not self.flying:
                time.sleep(POLL)
                continue
            ready, _ = self.ray.wait(list(self.flying), timeout=POLL)
            self._read_mail(stopped < math.inf)  # what a job said, before how it ended
            for ref in ready:
                self._land(ref, stopped < math.inf)
            self._end_late()

    def _count(self) -> None:
        """Twice what the cluster can hold is in flight, so that no node waits for this process."""
        if time.monotonic() - self.counted < COUNT:
            return
        self.counted = time.monotonic()
        slots = self.share.slots(self.ray.nodes())
        self.bound = max(1, 2 * slots)
        if not slots:
            reason = "the Ray cluster has no node that could run it"
            for flight in self.flying.values():
                self.emit({"event": "busy", "job": flight.job["id"], "reason": reason})

    def _submit(self, flight: _Flight, sent: Files | None = None) -> None:
        job = {**flight.job, "root": str(self.root)}
        if "path" in job:
            job["path"] = str(Path(job["path"]).absolute())
        around = {
            "token": self.token.name,
            "threads": self.share.threads,
            "command": sys.argv,
            "cache": os.environ.get("YOTO_BENCH_CACHE"),
        }
        parcel = None if sent is None else self.ray.put(sent)
        serve = self.serve.options(name=str(job.get("label", job["id"])))
        self.flying[serve.remote(self.work, job, self.mailbox, around, parcel)] = flight

    def _read_mail(self, stop: bool) -> None:
        try:
            events = self.ray.get(self.mailbox.collect.remote(stop), timeout=GRACE)
        except self.ray.exceptions.RayError:  # being started again: it only told of progress
            return
        at_work = {flight.job["id"]: flight for flight in self.flying.values()}
        for event in events:
            if (flight := at_work.get(event["job"])) is None:  # of one that was given up
                continue
            if event["event"] == "started":
                flight.since = time.monotonic()
            self.emit(event)

    def _land(self, ref: Any, stop: bool) -> None:
        """Take back a job that ended, however it did."""
        flight, errors = self.flying.pop(ref), self.ray.exceptions
        try:
            event, files, gone = self.ray.get(ref)
        except errors.RayTaskError as error:  # not in the work itself, which tells by an event
            reason = str(error).strip(") \n").rpartition("\n")[2]
            if "ModuleNotFoundError" in reason:
                reason += ": the suite and what it needs must be installed on every node"
            event, files, gone = self._failed(flight, reason, str(error)), {}, []
        except errors.RayError as error:
            event, files, gone = self._after_loss(flight, error), {}, []
        if event["event"] == "apart":
            self._send_along(flight)
            return
        try:
            if flight.lease is not None:
                flight.lease.check()  # or it would be over the new holder's
            write_back(self.root, files, gone)
        except Busy as busy:
            event = {"event": "busy", "job": flight.job["id"], "reason": str(busy)}
        except (OSError, ValueError) as error:
            event = self._failed(flight, f"{type(error).__name__}: {error}")
        finally:
            flight.held.close()
        if event["event"] == "busy":
            self.queue.postpone(flight.job)
        elif event["event"] in ("finished", "failed"):
            self.queue.ended(flight.job)
        if event["event"] in ENDS and not (stop and event["event"] == "busy"):
            self.emit(event)

    def _send_along(self, flight: _Flight) -> None:
        """Hand a job in again with the files it needs: where it was, the folder is not to be seen.

        This process then stands for it towards other runs on the folder.
        """
        places = [self.root / place for place in flight.job.get("uses", [])]
        try:
            if flight.job.get("kind") == "train":
                flight.lease = Lease(places[0] / "lease.json")
            elif "path" in flight.job:
                record = self.root / Path(flight.job["path"]).relative_to(flight.job["root"])
                record.parent.mkdir(parents=True, exist_ok=True)
                flight.lease = Lease(record.with_suffix(".lease"))
            if flight.lease is not None:
                flight.held.enter_context(flight.lease.hold())
            self._submit(flight, pack(self.root, places))
        except Busy as busy:
            self.queue.postpone(flight.job)
            self.emit({"event": "busy", "job": flight.job["id"], "reason": str(busy)})
        except OSError as error:
            flight.held.close()
            self.queue.ended(flight.job)
            self.emit(self._failed(flight, f"OSError: {error}"))

    def _after_loss(self, flight: _Flight, error: Exception) -> Event:
        """A job whose process or node was lost is tried again, but not for ever."""
        job = flight.job["id"]
        self.lost[job] += 1
        what = "its node was lost" if _node_lost(error) else "its process died"
        if type(error).__name__ == "OutOfMemoryError":
            what = "Ray ended it because its node's memory was short"
        if self.lost[job] > RETRIES:
            times = f"{self.lost[job]} times"
            return self._failed(flight, f"{what}, {times}; was memory short?", str(error))
        reason = f"{what}; tried again, {self.lost[job]} of {RETRIES} times"
        return {"event": "busy", "job": job, "reason": reason}

    def _end_late(self) -> None:
        now = time.monotonic()
        for ref, flight in list(self.flying.items()):
            if now - flight.since > self.limit:
                del self.flying[ref]
                self._kill(ref)
                flight.held.close()
                self.queue.ended(flight.job)
                self.emit(self._failed(flight, timeout(self.limit)))

    def _kill(self, ref: Any) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.cancel(ref, force=True)

    @staticmethod
    def _failed(flight: _Flight, reason: str, trace: str = "") -> Event:
        return {"event": "failed", "job": flight.job["id"], "reason": reason, "trace": trace}


def _node_lost(error: Exception) -> bool:
    return type(error).__name__ in ("NodeDiedError", "LocalRayletDiedError")


# The nodes


def serve(
    work: Work, job: Job, mailbox: Any, around: dict[str, Any], sent: Files | None
) -> tuple[Event, Files, list[str]]:
    """What a node does: the job, here if the results folder is to be seen, else in a copy.

    The event it ended with is returned, and, of a job done in a copy, the files that came of it and
    the names of those that went.
    """
    ended: Event = {"event": "apart", "job": job["id"]}
    if sent is None and not (Path(job["root"]) / around["token"]).exists():
        return ended, {}, []
    sys.argv[:] = around["command"]  # what results name as the command they came from
    if around["cache"]:
        os.environ.setdefault("YOTO_BENCH_CACHE", around["cache"])
    import torch

    torch.set_num_threads(around["threads"])
    post = _Post(mailbox)

    def emit(event: Event) -> None:
        nonlocal ended
        if event["event"] in ENDS:
            ended = event
        else:
            post.events.append(event)

    def checked(job: Job, emit: Emit, should_stop: Callable[[], bool]) -> None:
        for path in plugins(job):
            if not path.is_file():
                raise FileNotFoundError(
                    f"the plug-in {path} is not on the node {socket.gethostname()}: it must lie at "
                    "the same path on every node, as in a shared folder"
                )
        work(job, emit, should_stop)

    try:
        if post.stop:  # it waited for its turn until too late
            return {"event": "unbegun", "job": job["id"]}, {}, []
        if sent is None:
            attempt(checked, job, emit, lambda: post.stop)
            return ended, {}, []
        with tempfile.TemporaryDirectory(prefix="yoto-bench-") as folder:
            copy = Path(folder)
            write_back(copy, sent, [])
            moved = {**job, "root": folder}
            if "path" in job:
                moved["path"] = str(copy / Path(job["path"]).relative_to(job["root"]))
            attempt(checked, moved, emit, lambda: post.stop)
            left = pack(copy, [path for path in copy.rglob("*") if path.is_dir()])
        made = {place: data for place, data in left.items() if sent.get(place) != data}
        return ended, made, [place for place in sent if place not in left]
    finally:
        post.close()


class _Post:
    """Carries a job's events to the mailbox now and then, and learns there of a stop.

    Only its thread asks the mailbox: Ray gives the share of a job that waits in the main thread to
    the next one, and more would run at once than the node holds.
    """

    def __init__(self, mailbox: Any) -> None:
        self.mailbox, self.ray = mailbox, _ray()
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


def plugins(value: Any) -> Iterator[Path]:
    """The user's Python files that a job's descriptions name."""
    if isinstance(value, dict):
        target = value.get("class")
        if isinstance(target, str) and (path := target.rpartition(":")[0]).endswith(".py"):
            yield Path(path)
        for item in value.values():
            yield from plugins(item)
    elif isinstance(value, list):
        for item in value:
            yield from plugins(item)


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
    for place in sorted(files, key=lambda place: (_says_whole(place), place)):
        if not _inside(place):
            raise ValueError(f"{place!r} is no place in a results folder")
        write_atomic(root / place, files[place])
    for place in gone:
        if _inside(place):
            (root / place).unlink(missing_ok=True)


def _says_whole(place: str) -> bool:
    top, name = Path(place).parts[0], Path(place).name
    return name == "done.json" or (top == "records" and name.endswith(".json"))


def _inside(place: str) -> bool:
    path = Path(place)
    return not path.is_absolute() and ".." not in path.parts

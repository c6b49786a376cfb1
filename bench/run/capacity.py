"""How many networks share a device: from the memory that finished ones took, and the free cores.

    python run_bench.py run toy --per-device auto

Packing pays while one small network leaves the device idle; it must never push a network out of
memory. So each is given the largest peak of its task's finished networks and a margin, and no
fewer than one core: two processes that wait for each other's threads are slower than one alone.
Where no network of a task is finished and its preset does not say what one takes, the first is run
alone, to be measured.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.files import files_in
from bench.identity import canonical
from bench.run import layout
from bench.run.schema import CellConfig, Done, Job, Plugin, Recording, Train, read

MARGIN = 1.25  # over the measured peak: other methods, and what allocators waste between blocks
# What a process holds on a GPU beside its tensors, CUDA's context and the libraries' kernels: 770
# MiB on an H100 with CUDA 13.
CONTEXT = 800 * 2**20
TAKING = ("batch", "precision", "channels_last", "compile")  # fields of a training
MOST = 2**50  # bytes; a peak beyond is none
GROUP = Path("/sys/fs/cgroup")  # where Linux (cgroup v2) says what a container may take


@dataclass(frozen=True, kw_only=True)
class Room:
    """What is free for one device's networks: bytes of its memory, and processor cores."""

    free: int
    cores: float


def fitting(peak: int, rooms: Sequence[Room], kind: str) -> int:
    """How many networks of `peak` bytes fit a device of `kind` ("cpu", "cuda"), at least one.

    The smallest of several rooms decides.
    """
    per_network = need(peak, kind)
    return max(1, min(min(int(room.cores), room.free // per_network) for room in rooms))


def need(peak: int, kind: str) -> int:
    """The bytes to keep for a network of `peak` bytes on a device of `kind`."""
    return math.ceil(peak * MARGIN) + (CONTEXT if kind == "cuda" else 0)


def peaks(root: Path, kind: str) -> dict[str, int]:
    """The largest `peak_memory_bytes` of the finished networks of each task (see `task_of`) on a
    device of `kind`. On a CPU that is the peak size of the whole process."""
    largest: dict[str, int] = {}
    for path in files_in(root, layout.FINISHED):
        try:
            ledger = read(path, Done).ledger
            peak = int(ledger.peak_memory_bytes or 0)
            if ledger.device != kind or not 0 < peak < MOST:
                continue
            task = key(read(path.parent / layout.CONFIG, CellConfig).task)
        except (OSError, ValueError, LookupError, AttributeError):  # damaged, or not ours
            continue
        largest[task] = max(peak, largest.get(task, 0))
    return largest


def task_of(job: Job) -> str:
    """A job's task, as a key of `peaks`."""
    assert isinstance(job, Train | Recording)
    return key(job.cell.task if isinstance(job, Train) else job.task)


def key(task: Plugin) -> str:
    """A described task with all its fields but those of its training that take no memory."""
    training = {k: v for k, v in task.fields["training"].items() if k in TAKING}
    return canonical({"class": task.target, "fields": {**task.fields, "training": training}})


def unmeasured(jobs: Sequence[Job], known: dict[str, int]) -> Train | None:
    """A training of a task of which no network is finished, or what it starts from; it is to run
    alone. None where all are known."""
    trainings = {job.id: job for job in jobs if isinstance(job, Train)}
    first = next((job for job in trainings.values() if task_of(job) not in known), None)
    while first is not None and (before := trainings.keys() & set(first.after)):
        first = trainings[min(before)]
    return first


def room(device: str) -> Room:
    """What is free on this machine now, on a GPU ("cuda", "cuda:1") or in its main memory."""
    usable = cores()
    if device == "cpu":
        return Room(free=_free_memory(), cores=usable / threads())
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return Room(free=free, cores=max(1.0, usable / torch.cuda.device_count()))


def threads() -> int:
    """How many threads train a network on a CPU: one, or what OMP_NUM_THREADS says.

    A sum depends on how many threads share it. So the same network has the same bits here, in a
    pool and on a machine with more cores. Threads of one network wait for each other, and whatever
    else runs slows them; several networks of one thread each use the cores as well.
    """
    named = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(named)) if named.isdecimal() else 1


def cores(group: Path = GROUP) -> int:
    """The processor cores that this process may use: those it is bound to, and in a container no
    more than its share of time."""
    known = hasattr(os, "sched_getaffinity")
    usable = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    try:
        share, period = (group / "cpu.max").read_text().split()  # "max" where there is no limit
        return max(1, min(usable, math.ceil(int(share) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return usable


def _free_memory(group: Path = GROUP) -> int:
    """Bytes that processes may still take, also in a container (cgroup v2) that has fewer, of which
    psutil knows nothing."""
    free = psutil.virtual_memory().available
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    with contextlib.suppress(OSError, ValueError, KeyError):  # pages of files that can be dropped
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(kinds["inactive_file"])
    return max(0, min(free, limit - used))

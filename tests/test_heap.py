"""The heap keeps freed memory: seen by the process's size after a large tensor is gone. A GPU's
allocator does so, too, until a job ends, however it ends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch

from bench.cost import give_back_memory
from bench.run import work
from bench.run.schedule import attempt
from bench.run.schema import Train

PROBE = """
import numpy, psutil
from bench.cost import give_back_memory, keep_freed_memory
resident = lambda: psutil.Process().memory_info().rss / 2**20
if {kept}:
    keep_freed_memory()
before = resident()
tensor = numpy.ones((64, 2**20), "f4")  # from the heap that torch has its own from
del tensor
if {back}:
    give_back_memory()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's heap")
@pytest.mark.parametrize(
    ("kept", "back", "users", "stays"),
    [
        *((1, 0, {}, True), (0, 0, {}, False), (1, 1, {}, False)),
        (1, 0, {"MALLOC_ARENA_MAX": "2"}, False),
    ],
)
def test_freed_memory_stays_unless_the_user_has_set_the_heap_or_a_job_ends(
    kept: int, back: int, users: dict[str, str], stays: bool
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | users
    command = [sys.executable, "-c", PROBE.format(kept=kept, back=back)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    mebibytes = float(done.stdout)
    assert mebibytes > 200 if stays else mebibytes < 50


class Network:
    """A stand-in that refers to itself, as a network with hooks does."""

    def __init__(self) -> None:
        self.network = self


class Cell(Train, kw_only=True):
    cell: Any = None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, ""),
        (ValueError("no"), "KeyError: 'again'"),
        (torch.OutOfMemoryError("too large"), "RuntimeError: out of memory; the batch is part"),
    ],
)
def test_at_a_jobs_end_nothing_of_it_is_left_on_the_gpu(
    error: Exception | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it failed, and its error is not yet written down."""
    networks: list[Any] = []
    left: list[int] = []

    def train(*_: Any) -> None:
        network = Network()
        networks.append(weakref.ref(network))
        try:
            if error is not None:
                raise error
        except ValueError as before:
            raise KeyError("again") from before

    def empty() -> None:
        left.append(sum(reference() is not None for reference in networks))

    monkeypatch.setattr(work, "train", train)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    job = Cell(id="job", label="", root="", device="cpu")
    ended = attempt(work.perform, job, lambda event: None, lambda: False)
    assert left == [0]
    assert ended.reason.startswith(reason)
    assert ("in train" in ended.trace) == (error is not None)


def test_cuda_does_not_begin_for_the_end_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("it began"))
    give_back_memory()

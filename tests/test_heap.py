"""The heap keeps freed memory: seen by the process's size after a large tensor is gone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

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

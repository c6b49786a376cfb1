"""The heap keeps freed memory: seen by the process's size after a large tensor is gone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROBE = """
import resource, numpy
from bench.heap import keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
{call}
before = resident()
tensor = numpy.ones((64, 2**20), "f4")  # from the heap that torch has its own from
del tensor
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's heap")
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_freed_memory_stays_unless_the_user_has_set_the_heap(kept: bool, own: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    if own:
        environment["MALLOC_ARENA_MAX"] = "2"
    code = PROBE.format(call="keep_freed_memory()" if kept else "")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    mebibytes = float(done.stdout)
    assert mebibytes > 200 if kept and not own else mebibytes < 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's heap")
def test_the_end_of_a_job_gives_it_back() -> None:
    code = PROBE.format(call="keep_freed_memory()").replace(
        "del tensor", "del tensor; from bench.heap import give_back; give_back()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50

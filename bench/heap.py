"""The C library's heap, told to keep what tensors give back."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


class Mallinfo2(ctypes.Structure):
    """What glibc's mallinfo2(3) returns, in bytes; `fordblks` is free and still the process's."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks"),
            *("fordblks", "keepcost"),
        )
    ]


@functools.cache
def keep_freed_memory() -> None:
    """From now on, memory that is freed stays with this process for its next allocation.

    By default glibc takes large blocks from the kernel one by one and gives them back when they are
    freed; a network frees and allocates the same tensors in every step, and clearing their pages
    anew takes a good part of a CPU's time. No number changes. Does nothing where the C library is
    another, and where the user has set it (`MALLOC_TRIM_THRESHOLD_` and the like).
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)


def kept() -> int:
    """Bytes that are free and were not given back, for this process's next allocations; 0 where the
    C library does not say."""
    if platform.libc_ver()[0] != "glibc":
        return 0
    try:
        ask = ctypes.CDLL(None).mallinfo2  # since glibc 2.33
    except AttributeError:
        return 0
    ask.restype = Mallinfo2
    return int(ask().fordblks)


def give_back() -> None:
    """Return the memory that is free now to the system, as at the end of a job: the next one needs
    blocks of other sizes, and a process would grow with every one."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)

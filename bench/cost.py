"""What a network cost: examples, steps, FLOPs, seconds of the device and of the processor by phase,
memory, parameters; and the C library's heap, told to keep what tensors give back.

The clock runs in exactly one phase at a time. A nested phase pauses the one around it, so
evaluation, checkpoints and compilation never count as training, and it goes on through a resume.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from bench.identity import processor

# Time and work


class Clock:
    """Seconds per phase: `seconds` of the wall clock, `processor` of all threads of this process,
    which another process on the same cores hardly moves. Both continue an earlier clock's."""

    def __init__(
        self,
        device: torch.device,
        seconds: dict[str, float] | None = None,
        processor: dict[str, float] | None = None,
    ) -> None:
        self.seconds = dict(seconds or {})
        self.processor = dict(processor or {})
        self._device = device
        self._phases: list[str] = []
        self._since = (0.0, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str, *, synchronise: bool = True) -> Iterator[None]:
        """Charge what happens inside to `name` and to no other phase.

        `synchronise` waits for the device at both ends; without it the phase counts host time,
        which is what waiting for data is. A GPU works meanwhile on what it was given before, so
        there that time is in the phase around it, too.
        """
        if not synchronise and self._device.type == "cuda":
            before = _now()
            try:
                yield
            finally:
                self._add(name, before, _now())
            return
        self._charge(synchronise)
        self._phases.append(name)
        try:
            yield
        finally:
            self._charge(synchronise)
            self._phases.pop()

    def _charge(self, synchronise: bool) -> None:
        if synchronise and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = _now()
        if self._phases:
            self._add(self._phases[-1], self._since, now)
        self._since = now

    def _add(self, phase: str, since: tuple[float, float], now: tuple[float, float]) -> None:
        for of_phase, begin, end in zip((self.seconds, self.processor), since, now, strict=True):
            of_phase[phase] = of_phase.get(phase, 0.0) + end - begin


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def stepping(ledger: dict[str, Any]) -> float:
    """The seconds of a training's steps, waiting for data included."""
    seconds = ledger["seconds"]
    return float(seconds["train"] + (seconds["data"] if ledger["device"] == "cpu" else 0.0))


def count_flops(step: Callable[[], Any]) -> int:
    """FLOPs of one call of `step` (2 per multiply-add), as torch's own counter sees them, but for
    the gradients of a grouped convolution: it counts its kernels' as if there were one group.

    >>> count_flops(lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    48
    """
    from torch.utils.flop_counter import FlopCounterMode

    backward = {torch.ops.aten.convolution_backward: _convolution_gradients}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter:
        step()
    return int(counter.get_total_flops())


def _convolution_gradients(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """Of a convolution's input and of its kernel: each as many as the forward pass. A kernel's
    shape, (out, in / groups, ...), knows the groups."""
    places = x_shape if transposed else grad_shape
    forward = 2 * places[0] * math.prod(places[2:]) * math.prod(w_shape)
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def parameters(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def size(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


# Memory


class Memory:
    """The peak of memory since this was made: `peak` of all, `net` of what was there before, and on
    a GPU what the allocator had `reserved`. In bytes.

    held: of what was there, what belongs to the network itself.
    """

    def __init__(self, device: torch.device, held: int = 0) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what is kept of counting a step cannot be used by others
            torch.cuda.reset_peak_memory_stats(device)
            before = int(torch.cuda.memory_allocated(device))
        else:
            try:
                give_back_memory()  # or what is free would count as there before, not as taken
                Path("/proc/self/clear_refs").write_text("5")  # the process's peak begins anew
                before = psutil.Process().memory_info().rss
            except OSError:  # no Linux: the peak is that of its whole life
                before = peak_memory(device)
        self._before, self._held = before - held, held

    @property
    def peak(self) -> int:
        return peak_memory(self._device)

    @property
    def net(self) -> int:
        return max(self._held, self.peak - self._before)  # Linux counts pages in batches

    @property
    def reserved(self) -> int:
        cuda = self._device.type == "cuda"
        return int(torch.cuda.max_memory_reserved(self._device)) if cuda else 0


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU, allocated since its peak was reset; on a CPU, the process's peak size, since
    it was reset or began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: Exception) -> bool:
    """Whether memory was short: torch's CPU allocator says so in a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


# The heap

GLIBC = platform.libc_ver()[0] == "glibc"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of its mallopt(3)


@functools.cache
def keep_freed_memory() -> None:
    """From now on, memory that is freed stays with this process for its next allocation.

    By default glibc takes large blocks from the kernel one by one and gives them back when they are
    freed; a network frees and allocates the same tensors in every step, and clearing their pages
    anew takes a good part of a CPU's time. No number changes. Does nothing where the C library is
    another, and where the user has set it (`MALLOC_TRIM_THRESHOLD_` and the like).
    """
    if GLIBC and not any(name.startswith("MALLOC_") for name in os.environ):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Return the memory that is free now to the system, as at the end of a job: the next one needs
    blocks of other sizes, and a process would grow with every one. On a GPU, of which other
    processes need it meanwhile, also what only a cycle of references holds."""
    if torch.cuda.is_initialized():  # else it would be now, which takes memory for good
        gc.collect()
        # One for each stream that a job had. Where it is missing they stay.
        getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()
        torch.cuda.empty_cache()
    if GLIBC:
        ctypes.CDLL(None).malloc_trim(0)

"""What a network cost: examples, steps, FLOPs, seconds of the device and of the processor by phase,
memory, parameters.

The clock runs in exactly one phase at a time. A nested phase pauses the one around it, so
evaluation, checkpoints and compilation never count as training, and it goes on through a resume.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import heap


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
    """FLOPs of one call of `step` (2 per multiply-add), as torch's own counter sees them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def parameters(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


class Memory:
    """The peak of memory since this was made: `peak` of all, `net` of what was there before, and on
    a GPU what the allocator had `reserved`. In bytes.

    held: of what was there, what belongs to the network itself.
    """

    def __init__(self, device: torch.device, held: int = 0) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = int(torch.cuda.memory_allocated(device))
        else:
            # Linux then counts the process's peak anew; elsewhere it is that of its whole life.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
            # What is free already is the network's to take.
            before = max(0, resident() - heap.kept()) or peak_memory(device)
        self._before = before - held

    @property
    def peak(self) -> int:
        return peak_memory(self._device)

    @property
    def net(self) -> int:
        return max(0, self.peak - self._before)

    @property
    def reserved(self) -> int:
        cuda = self._device.type == "cuda"
        return int(torch.cuda.max_memory_reserved(self._device)) if cuda else 0


def resident() -> int:
    """Bytes of main memory that this process has now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def size(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU, allocated since its peak was reset; on a CPU, the process's peak size, since
    it was reset or began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's and the number of threads."""
    from bench.identity import processor

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"

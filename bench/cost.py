"""What a network cost: examples, steps, FLOPs, device seconds by phase, memory, parameters.

The clock runs in exactly one phase at a time. A nested phase pauses the one around it, so
evaluation, checkpoints and compilation never count as training, and it goes on through a resume.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


class Clock:
    """Seconds per phase. `seconds` continues an earlier clock's."""

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict(seconds or {})
        self._device = device
        self._phases: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def phase(self, name: str, *, synchronise: bool = True) -> Iterator[None]:
        """Charge what happens inside to `name` and to no other phase.

        `synchronise` waits for the device at both ends; without it the phase counts host time,
        which is what waiting for data is.
        """
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
        now = time.perf_counter()
        if self._phases:
            phase = self._phases[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


def count_flops(step: Callable[[], Any]) -> int:
    """FLOPs of one call of `step` (2 per multiply-add), as torch's own counter sees them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def parameters(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU, allocated since its peak was reset; on a CPU, the process's peak size."""
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

"""What the live page keeps of an exhibit: its examples, models folded for a setting, pictures made
and numbers measured, each of them for a while."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.files import printable
from bench.live.networks import Entry, Exhibit

Value = TypeVar("Value")

KEPT = {"models": 24, "pictures": 48, "numbers": 400, "uploads": 16, "networks": 24, "inputs": 8}
EXAMPLES = 24  # of a task, as many as are shown


@dataclass(kw_only=True)
class Folded:
    """A plain model, and the seconds that it took to make it from networks in memory, or, of a
    network of its own, to load it."""

    model: nn.Module
    seconds: float
    ready: bool = False  # to be measured


class Kept(OrderedDict[Hashable, Any]):
    """The `most` values used last."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or(self, key: Hashable, make: Callable[[], Value]) -> Value:
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return self[key]  # type: ignore[no-any-return]


@dataclass(kw_only=True)
class Room:
    """What is kept of an exhibit."""

    exhibit: Exhibit
    models: Kept = field(default_factory=lambda: Kept(KEPT["models"]))
    networks: Kept = field(default_factory=lambda: Kept(KEPT["networks"]))
    pictures: Kept = field(default_factory=lambda: Kept(KEPT["pictures"]))
    numbers: Kept = field(default_factory=lambda: Kept(KEPT["numbers"]))
    inputs: Kept = field(default_factory=lambda: Kept(KEPT["inputs"]))
    pace: dict[str, float] = field(default_factory=dict)  # seconds a pixel, by method

    @functools.cached_property
    def showing(self) -> Any:
        return self.exhibit.task.showing()

    @functools.cached_property
    def examples(self) -> list[tuple[str, Any]]:
        """The first few test examples that look different from those before them."""
        seen: dict[Any, tuple[str, Any]] = {}
        for name, batch in itertools.islice(
            self.exhibit.task.data("test").examples(), 8 * EXAMPLES
        ):
            picture = self.showing.original(batch) if self.showing.blends else None
            key = name if picture is None else picture.numpy().tobytes()
            seen.setdefault(key, (self.showing.called(name), batch))
            if len(seen) == EXAMPLES:
                break
        return list(seen.values())

    def described(self) -> dict[str, Any]:
        """The exhibit as the page needs it."""
        exhibit, task = self.exhibit, self.exhibit.task
        (middle,) = task.space.grid(1)
        shown = {"loss": task.loss, **task.measures}
        methods = sorted(exhibit.methods.values(), key=first_shown)
        reference = exhibit.reference
        return {
            "name": printable(task.name),
            "task": printable(task.title),
            "line": printable(task.line),
            "preset": printable(exhibit.preset),
            "axes": [
                {
                    "name": axis.name, "symbol": axis.symbol or axis.name,
                    "low": axis.low, "high": axis.high, "start": start,
                }
                for axis, start in zip(task.space.axes, middle, strict=True)
            ],
            "measures": {
                name: {"label": printable(m.label), "unit": m.unit, "better": m.better,
                       "decimals": m.digits}
                for name, m in shown.items()
            },
            "fronts": [list(front) for front in task.fronts],
            "rising": [name for name, measure in task.measures.items() if measure.rises],
            "methods": [_counted(each) for each in methods if each is not reference] or [
                _counted(each) for each in methods
            ],
            "reference": _counted(reference) if reference else None,
            "takes": self.showing.takes,
            "blends": [printable(name) for name in self.showing.blends],
        }  # fmt: skip


def first_shown(entry: Entry) -> tuple[int, bool]:
    """Networks told their coefficients first, tuned ones before plain ones."""
    return (0 if entry.method.role == "under test" else 1), not entry.method.tuned


def _counted(entry: Entry) -> dict[str, Any]:
    return {
        "label": printable(entry.label),
        "written": printable(entry.method.written()),
        "networks": len(entry.cells),
        "bytes": entry.bytes,
        "settings": [list(setting) for setting in entry.settings],
    }


def within(pictures: Tensor, pixels: int, side: int) -> Tensor:
    """(B, 3, H, W) with at most so many pixels and no longer side than `side`, averaged down."""
    height, width = pictures.shape[-2:]
    scale = min(1.0, (pixels / (height * width)) ** 0.5, side / max(height, width))
    if scale == 1.0:
        return pictures
    size = max(16, round(height * scale)), max(16, round(width * scale))
    return F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch of one, a tensor or several in a tuple, list or dict, on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: on_device(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(on_device(part, device) for part in batch)
    return batch

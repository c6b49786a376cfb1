"""A task of a user's whose small networks cannot follow a coefficient: the best answer to
c * |y - f(x)|² + |y - g(x)|² blends two functions, and one network for every c needs the features
of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench import Axis, Examples, Measure, Preset, Space, Task, Training


@dataclass(frozen=True, kw_only=True)
class Blend(Task):
    name: ClassVar[str] = "blend"
    line: ClassVar[str] = "two functions, blended"
    terms: ClassVar[tuple[str, ...]] = ("first", "second")
    measures: ClassVar[dict[str, Measure]] = {
        "first": Measure(label="squared distance to f", better="lower", worst=4.0),
        "second": Measure(label="squared distance to g", better="lower", worst=4.0),
    }
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (("second", "first"),)

    hidden: int = 8
    low: float = 0.1
    high: float = 10.0
    training: Training

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        quick = cls(training=Training(steps=2000, batch=64, lr=0.02))
        smoke = replace(quick, training=replace(quick.training, steps=60))
        return {
            "smoke": Preset(task=smoke, settings=3, seeds=(0,), line="a second"),
            "quick": Preset(task=quick, settings=5, seeds=(0, 1, 2), line="minutes"),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="first", low=self.low, high=self.high, symbol="c"),))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))

    def sites(self, model: nn.Module) -> list[str]:
        return ["0"]

    def wider(self, factor: float) -> Blend:
        if round(factor * self.hidden) < 1:
            raise ValueError(f"{factor:g} times {self.hidden} units leaves none")
        return replace(self, hidden=round(factor * self.hidden))

    def ranged(self, factor: float) -> Blend:
        low, high = self.space.axes[0].ranged(factor)
        return replace(self, low=low, high=high)

    def data(self, split: str) -> Examples:
        count, seed = {"train": (4096, 0), "test": (64, 1), "validation": (64, 2)}[split]
        rows = 2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) - 1
        return Examples(rows, digest=f"uniform {count}, seed {seed}")

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        y, (one, two) = model(batch)[:, 0], batch.unbind(1)
        first, second = torch.sin(4 * one), torch.sin(4 * two + 1)
        return {"first": (y - first).square(), "second": (y - second).square()}

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return self.losses(model, batch)

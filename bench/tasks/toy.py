"""A trade-off whose best answer is known: the smallest whole task, and the template for yours.

    python run_bench.py run toy --preset smoke          seconds

Shrink x towards zero, but stay near it: c * |y - x|² + |y|². The best y is c / (1 + c) * x, so a
linear layer that scales its output by the right factor per coefficient is perfect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench import Axis, Examples, Measure, Preset, Space, Task, Training


@dataclass(frozen=True, kw_only=True)
class Toy(Task):
    """dimension: of x and y."""

    name: ClassVar[str] = "toy"
    line: ClassVar[str] = "shrinkage with a known best answer per coefficient; seconds"
    terms: ClassVar[tuple[str, ...]] = ("nearness", "size")
    measures: ClassVar[dict[str, Measure]] = {
        "nearness": Measure(label="squared distance to x", better="lower", worst=2.0),
        "size": Measure(label="squared size", better="lower", worst=2.0),
    }
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (("size", "nearness"),)

    dimension: int = 4
    training: Training

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        smoke = cls(training=Training(steps=300, batch=32, lr=0.03))
        quick = replace(smoke, training=replace(smoke.training, steps=3000))
        return {
            "smoke": Preset(task=smoke, settings=3, seeds=(0,), line="a second"),
            "quick": Preset(task=quick, settings=5, seeds=(0, 1, 2), line="half a minute"),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="nearness", low=0.1, high=10.0, symbol="c"),))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.dimension, self.dimension))

    def sites(self, model: nn.Module) -> list[str]:
        return ["0"]

    def entrances(self, model: nn.Module) -> list[str]:
        return ["0"]

    def output(self, model: nn.Module) -> str:
        return "0"

    def data(self, split: str) -> Examples:
        count, seed = {"train": (4096, 0), "test": (16, 1), "validation": (16, 2)}[split]
        rows = torch.randn(count, self.dimension, generator=torch.Generator().manual_seed(seed))
        return Examples(rows, digest=f"normal {count}x{self.dimension}, seed {seed}")

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        y = model(batch)
        return {"nearness": (y - batch).square().mean(1), "size": y.square().mean(1)}

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return self.losses(model, batch)

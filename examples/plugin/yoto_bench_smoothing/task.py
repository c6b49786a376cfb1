"""Smoothing a noisy signal: stay near it, and be smooth; the coefficient says how smooth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench import Axis, Examples, Measure, Preset, Space, Task, Training

LENGTH = 32  # samples of a signal


@dataclass(frozen=True, kw_only=True)
class Smoothing(Task):
    """hidden: units of the network."""

    name: ClassVar[str] = "smoothing"
    line: ClassVar[str] = "a noisy walk, made smooth; seconds"
    terms: ClassVar[tuple[str, ...]] = ("nearness", "roughness")
    measures: ClassVar[dict[str, Measure]] = {
        "nearness": Measure(label="squared distance to the signal", better="lower"),
        "roughness": Measure(label="squared step", better="lower"),
    }
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (("roughness", "nearness"),)

    hidden: int = 32
    training: Training

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        smoke = cls(training=Training(steps=200, batch=32, lr=0.01))
        quick = replace(smoke, training=replace(smoke.training, steps=3000))
        return {
            "smoke": Preset(task=smoke, settings=3, seeds=(0,), line="a second"),
            "quick": Preset(task=quick, settings=5, seeds=(0, 1, 2), line="a minute"),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="roughness", low=0.1, high=10.0, symbol="λ"),))

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(LENGTH, self.hidden), nn.ReLU(), nn.Linear(self.hidden, LENGTH)
        )

    def sites(self, model: nn.Module) -> list[str]:
        return ["0", "2"]

    def data(self, split: str) -> Examples:
        count, seed = {"train": (2048, 0), "test": (32, 1), "validation": (32, 2)}[split]
        generator = torch.Generator().manual_seed(seed)
        walks = torch.randn(count, LENGTH, generator=generator).cumsum(1) / LENGTH**0.5
        noisy = walks + 0.5 * torch.randn(count, LENGTH, generator=generator)
        return Examples(noisy, digest=f"noisy walks {count}x{LENGTH}, seed {seed}")

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        y = model(batch)
        return {
            "nearness": (y - batch).square().mean(1),
            "roughness": y.diff(dim=1).square().mean(1),
        }

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return self.losses(model, batch)

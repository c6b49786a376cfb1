"""The ablation: coefficients are drawn for the loss as in loss-conditional training, but the
network is not told. What it loses against `yoto` is what the conditioning does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.method import Cell, Method
from bench.space import Setting
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class Unconditioned(Method):
    name: ClassVar[str] = "unconditioned"
    line: ClassVar[str] = "random coefficients in the loss, no conditioning: the ablation"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        return [Cell(task=task, method=self, seed=seed)]

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return cell.task.space.sample(count, generator)

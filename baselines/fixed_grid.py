"""The reference: one network per setting, each trained from scratch with its own coefficients.

What loss-conditional training has to match. No conditioner, so a fixed network pays nothing for
conditioning; everything else (start, data order, steps, optimiser) is the same.
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
class FixedGrid(Method):
    name: ClassVar[str] = "fixed_grid"
    line: ClassVar[str] = "one network per setting, from scratch: the reference"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        return [Cell(task=task, method=self, seed=seed, trained_for=(s,)) for s in settings]

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return torch.tensor(cell.trained_for).repeat(count, 1)

"""The floor: the fixed network of the middle setting, used at every setting.

It trains nothing of its own: the cell is the fixed grid's, and is costed in both rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from baselines.fixed_grid import Fixed, FixedGrid
from bench.method import Cell
from bench.space import Setting
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class SingleModel(Fixed):
    name: ClassVar[str] = "single_model"
    line: ClassVar[str] = "the grid's middle network at every setting: the floor"
    role: ClassVar[str] = "floor"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        (centre,) = task.space.grid(1)
        middle = min(settings, key=lambda setting: task.space.distance(setting, centre))
        return FixedGrid().plan(task, [middle], seed)

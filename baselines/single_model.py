"""The floor: the fixed network of the middle setting, used at every setting.

It trains nothing of its own: the cell is the fixed grid's, and is costed in both rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench import Cell, Fixed, FixedGrid, Setting, Task


@dataclass(frozen=True, kw_only=True)
class SingleModel(Fixed):
    name = "single_model"
    line = "the grid's middle network at every setting: the floor"
    role = "floor"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        return [FixedGrid().middle(task, settings, seed)]

"""A cheaper grid: one full run at the middle setting, then short fine-tunings outwards from it.

What a sensible person does before any conditioning: every other setting starts from the trained
network of its nearest neighbour towards the middle, and is trained for a tenth of the steps. Our
own formulation of common practice. By default the middle network is the fixed grid's own; in this
method's row of the costs it counts in full, with the whole chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import ADDED, Cell, Fixed, FixedGrid, Setting, Task


@dataclass(frozen=True, kw_only=True)
class WarmGrid(Fixed):
    """share: of the task's steps in every fine-tuning. lr: factor of its peak learning rate.
    rate: a further factor in the fine-tunings."""

    name = "warm_grid"
    line = "one full run, then a short fine-tuning per setting from its neighbour"
    role = "warm start"

    share: float = 0.1
    rate: float = 1.0
    lr: float = field(default=1.0, metadata=ADDED)

    def __post_init__(self) -> None:
        if min(self.share, self.rate, self.lr) <= 0:
            raise ValueError(f"{self.name}: share, rate and lr are above 0, got {self}")

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        cells = [FixedGrid(lr=self.lr).middle(task, settings, seed)]
        (first,) = cells[0].trained_for
        rate = self.rate * self.lr * task.training.lr
        brief = task.lasting(self.share).trained_with(lr=rate)

        others = [setting for setting in settings if setting != first]
        for setting in sorted(others, key=lambda setting: task.space.distance(setting, first)):
            parent = min(cells, key=lambda cell: task.space.distance(cell.trained_for[0], setting))
            cells.append(
                Cell(task=brief, method=self, seed=seed, trained_for=(setting,), after=parent)
            )
        return cells

"""The method under test: one network, trained over the whole range of coefficients and told them.

Dosovitskiy & Djolonga, "You Only Train Once: Loss-Conditional Training of Deep Networks", ICLR
2020. Every training example draws its own coefficients; they weight that example's loss and set
the scales and shifts of the network's layers (FiLM). At test time one network answers for every
setting in the range. Kept as in the authors' released code: log-uniform draw per example, two
separate one-hidden-layer perceptrons on the logarithm of the coefficients, near-identity start
with a multiplier and no squashing. The draw is independent per coefficient, as the paper says
(the released sampler reuses one seed, which correlates them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.conditioning import Conditioner, FiLM, matching
from bench.method import Cell, Method
from bench.space import Setting
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class Yoto(Method):
    """hidden: width of the perceptrons' hidden layer.
    multiplier: what their outputs are multiplied with (0.1 for CIFAR-10, 0.01 for Shapes3D there).
    sites: shell patterns, comma-separated, choosing among the layers the task offers.
    per_example: one draw for each example; False draws once for the whole batch.
    """

    name: ClassVar[str] = "yoto"
    line: ClassVar[str] = "one loss-conditional network (FiLM), as published"

    hidden: int = 128
    multiplier: float = 0.1
    sites: str = "*"
    per_example: bool = True

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        return [Cell(task=task, method=self, seed=seed)]

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        sites = matching(task.sites(model), self.sites)
        return FiLM(model, sites, len(task.space.axes), self.hidden, self.multiplier)

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        if self.per_example:
            return cell.task.space.sample(count, generator)
        return cell.task.space.sample(1, generator).repeat(count, 1)

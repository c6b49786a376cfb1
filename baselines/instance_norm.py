"""Conditional instance norm: the norms' scales and offsets come from a network of the coefficients.

Babaeizadeh & Ghiasi, "Adjustable Real-Time Style Transfer", ICLR 2020, the closest peer of
loss-conditional style transfer. Kept: every instance norm is conditioned, by one perceptron with a
hidden layer that sees the coefficients themselves, drawn uniformly from their range, instead of the
norms' own parameters, which are not trained; losses are divided by their normal size (the task's
normalisers). Changed: the range is the task's, [0.1, 10] times the middle, where theirs is [0, 1],
so that all methods answer the same settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.unconditioned import Unconditioned
from bench.conditioners import ConditionalNorm, Conditioner, Encoding
from bench.method import Cell
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class InstanceNorm(Unconditioned):
    """hidden: width of the perceptron. encoding, law: as in `bench.yoto.Yoto`."""

    name: ClassVar[str] = "instance_norm"
    version: ClassVar[int] = 2  # in the first the norms' own parameters were trained, too
    line: ClassVar[str] = "instance norms' scale and offset from one network (style)"
    swept: ClassVar[bool] = True

    hidden: int = 128
    encoding: str = "raw"
    law: str = "uniform"

    def refuses(self, task: Task) -> str:
        return "" if norms(task.model()) else "its model has no affine instance norm"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        for name in norms(model):
            model.get_submodule(name).requires_grad_(False)
        return ConditionalNorm(
            model, norms(model), Encoding(task.space, self.encoding), self.hidden
        )

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return cell.task.space.sample(count, generator, self.law)


def norms(model: nn.Module) -> list[str]:
    """The names of a model's affine instance norms."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.InstanceNorm2d) and layer.affine
    ]

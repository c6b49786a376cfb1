"""The ablation: coefficients are drawn for the loss as in loss-conditional training, but the
network is not told. What it loses against `yoto` is what the conditioning does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bench.conditioning import Conditioner
from bench.task import Task
from bench.yoto import Yoto


@dataclass(frozen=True, kw_only=True)
class Unconditioned(Yoto):
    name: ClassVar[str] = "unconditioned"
    line: ClassVar[str] = "random coefficients in the loss, no conditioning: the ablation"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        return None

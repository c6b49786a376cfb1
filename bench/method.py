"""The Method contract: which networks are trained, how they are told the coefficients, and which
plain model answers for a setting. `bench/yoto.py` and `baselines/*.py` are one method each.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.conditioning import Conditioner, Network
from bench.identity import content_id, plain
from bench.space import Setting
from bench.task import Task, source_digest


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run: what is stored, resumed, costed and sent to a worker.

    `method` is the one that trains it; other methods may use the result. `trained_for` holds the
    settings of a network with fixed coefficients and is empty where they are drawn; `after` is
    the id of a cell that must be done first.
    """

    task: Task
    method: Method
    seed: int
    trained_for: tuple[Setting, ...] = ()
    after: str | None = None

    @functools.cached_property
    def id(self) -> str:
        return content_id(
            {
                "task": self.task.identity,
                "method": self.method.identity,
                "seed": self.seed,
                "trained_for": self.trained_for,
                "after": self.after,
            }
        )


class Method(ABC):
    """A frozen, keyword-only dataclass whose fields are the method's own settings."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    line: ClassVar[str]  # what it is, for `list`

    @abstractmethod
    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        """The cells to train so that every setting can be answered."""

    def cells_at(self, task: Task, cells: Sequence[Cell], setting: Setting) -> list[Cell]:
        """Which of the planned cells the model at `setting` is made from: all, or the nearest."""
        if not all(cell.trained_for for cell in cells):
            return list(cells)
        return [min(cells, key=lambda c: task.space.distance(c.trained_for[0], setting))]

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        """What turns coefficients into scales and shifts of `model`'s layers; None for plain."""
        return None

    @abstractmethod
    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        """The coefficients of a training batch: (count, K) float32 on the CPU."""

    def at(self, task: Task, networks: Sequence[Network], setting: Setting) -> nn.Module:
        """A plain model for `setting` from the networks of `cells_at`, in their order.

        The networks may be changed: they are loaded for this call alone.
        """
        (network,) = networks
        return network.at(setting)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "source": source_digest(type(self)),
            "fields": plain(self),
        }


def build(cell: Cell, *, start: bool = True) -> Network:
    """A new network for a cell: the model from the cell's seed, then its conditioner.

    Every method of a seed starts from the same model, since the conditioner is made after it.
    `start=False` leaves out the task's `initialise`, for weights that are loaded next.
    """
    torch.manual_seed(cell.seed)
    model = cell.task.model()
    if start:
        cell.task.initialise(model)
    torch.manual_seed(cell.seed + 1)
    return Network(model, cell.method.conditioner(cell.task, model))

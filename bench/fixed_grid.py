"""The reference: one network per setting, each trained from scratch with its own coefficients.

What loss-conditional training has to match. No conditioner, so a fixed network pays nothing for
conditioning; everything else (start, data order, steps, optimiser) is the same. What a conditioned
network may be tuned with and that makes sense for a fixed one is a field here, too; see
`baselines/fixed_grid_tuned.py`. Methods that begin from a fixed network take the cells of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from bench.conditioners import Conditioner, KnownScale, Network
from bench.identity import ADDED
from bench.method import Cell, Fixed
from bench.space import Setting
from bench.task import Task

WEIGHTINGS = ("none", "geometric_mean")


@dataclass(frozen=True, kw_only=True)
class FixedGrid(Fixed):
    """prior: layers are scaled by what the task knows of them at the network's own setting
        (`Task.scaling`), from the first step on and folded at the end, as in `yoto[prior=true]`.
    weighting: "geometric_mean" divides the loss by the geometric mean of its terms' weights, which
        matters where gradients are clipped; "none" leaves it to the task's own training.
    width, steps, lr: factors of the model's channels and of the task's number of training steps
        and peak learning rate.
    """

    name = "fixed_grid"
    line = "one network per setting, from scratch: the reference"
    role = "reference"

    prior: bool = field(default=False, metadata=ADDED)
    weighting: str = field(default="none", metadata=ADDED)
    width: float = field(default=1.0, metadata=ADDED)
    steps: float = field(default=1.0, metadata=ADDED)
    lr: float = field(default=1.0, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            known = ", ".join(WEIGHTINGS)
            raise ValueError(f"{self.name}: weighting {self.weighting!r}: use one of {known}")
        if min(self.width, self.steps, self.lr) <= 0:
            raise ValueError(f"{self.name}: width, steps and lr are factors above 0")

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        varied = task.varied(
            width=self.width, steps=self.steps, lr=self.lr, weighting=self.weighting
        )
        # Only what changes the training is part of it: networks of equal training are shared.
        trainer = FixedGrid(prior=self.prior and bool(task.scaling(task.model())))
        return [Cell(task=varied, method=trainer, seed=seed, trained_for=(s,)) for s in settings]

    def middle(self, task: Task, settings: Sequence[Setting], seed: int) -> Cell:
        """The cell of the setting nearest to the geometric middle of the range."""
        (centre,) = task.space.grid(1)
        nearest = min(settings, key=lambda setting: task.space.distance(setting, centre))
        return self.plan(task, [nearest], seed)[0]

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        return KnownScale(task.space, task.scaling(model)) if self.prior else None

    def at(
        self, task: Task, cells: Sequence[Cell], networks: Sequence[Network], setting: Setting
    ) -> nn.Module:
        """The network at the setting that it was trained for, wherever it is used."""
        (cell,), (network,) = cells, networks
        return network.at(cell.trained_for[0])

"""The Method contract: which networks are trained, how they are told the coefficients, and which
plain model answers for a setting. `bench/yoto.py` and `baselines/*.py` are one method each.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.balance import Balance
from bench.conditioners import Conditioner, KnownScale, Network
from bench.identity import ADDED, content_id, identifying
from bench.scaled import Scaled
from bench.space import LAWS, Setting
from bench.task import Task, source_digest

# "reference": one network per setting. "under test": a network told its coefficients. "floor": one
# network for all settings. "warm start": the reference, made cheaper.
ROLES = ("", "reference", "under test", "floor", "warm start")
WEIGHTINGS = ("none", "geometric_mean", "running_mean")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run: what is stored, resumed, costed and sent to a worker.

    `method` is the one that trains it; other methods may use the result. `trained_for` holds the
    settings of a network with fixed coefficients and is empty where they are drawn. `task` may
    differ from the task compared in how long it trains and how wide its model is. The network
    starts from the trained weights of the plain network `after`, where one is given.
    """

    task: Task
    method: Method
    seed: int
    trained_for: tuple[Setting, ...] = ()
    after: Cell | None = None

    @functools.cached_property
    def id(self) -> str:
        before = [earlier.id for earlier in self.chain[:-1]]  # the first first: they do not nest
        return content_id(
            {
                "task": self.task.identity,
                "method": self.method.identity,
                "seed": self.seed,
                "trained_for": self.trained_for,
                "after": before[-1] if before else None,
            }
        )

    @property
    def chain(self) -> list[Cell]:
        """The cells to train for this one, in order, itself last."""
        cells = [self]
        while (before := cells[-1].after) is not None:
            cells.append(before)
        return cells[::-1]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was trained to find a method's levers for a task, a cost before its first use.

    variants: how many, the chosen one among them. preset: their size. examples, flops: of all of
    them together, as their ledgers have it.
    """

    variants: int
    preset: str
    examples: float
    flops: float


class Method(ABC):
    """A frozen, keyword-only dataclass whose fields are the method's own settings."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    line: ClassVar[str]  # what it is, for `list`
    swept: ClassVar[bool] = False  # also measured between the compared settings and beyond them
    # What it is in a comparison, one of ROLES: results keep it, and the report's order, look and
    # sentences follow it. The reference and those under test are also trained to other lengths.
    role: ClassVar[str] = ""
    tuned: ClassVar[bool] = False  # whether it is a tuned form of another method
    label: ClassVar[str] = ""  # how tables write it; its name in words where there is none
    # A method whose networks these are, but for their start: presets that give this one no fields
    # of its own give it that one's.
    like: ClassVar[str] = ""
    tuning: ClassVar[Mapping[str, Tuning]] = {}  # by a task's name; none for what was not tuned

    @classmethod
    def written(cls) -> str:
        """How tables write the method: its `label`, or its name in words."""
        return cls.label or cls.name.replace("_", " ")

    def refuses(self, task: Task) -> str:
        """Why this method has no sense on `task`, as the end of a sentence; "" where it has."""
        return ""

    @abstractmethod
    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        """The cells to train so that every setting can be answered."""

    def cells_at(self, task: Task, cells: Sequence[Cell], setting: Setting) -> list[Cell]:
        """Which of the planned cells the model at `setting` is made from: all, or the nearest."""
        if not all(cell.trained_for for cell in cells):
            return list(cells)
        for cell in cells:  # as nearly always, and much faster than distances
            if cell.trained_for[0] == setting:
                return [cell]
        return [min(cells, key=lambda c: task.space.distance(c.trained_for[0], setting))]

    def model(self, task: Task) -> nn.Module:
        """A new model, where the task's own will not do. The caller has seeded torch."""
        return task.model()

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        """What lets `model` follow coefficients; None for a plain network."""
        return None

    def whole_conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        """`conditioner`, and what stands beside it."""
        return self.conditioner(task, model)

    def balance(self, task: Task) -> Balance | None:
        """What shares the loss out over the range of coefficients; None leaves it as it is."""
        return None

    @abstractmethod
    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        """The coefficients of a training batch: (count, K) float32 on the CPU."""

    def at(
        self, task: Task, cells: Sequence[Cell], networks: Sequence[Network], setting: Setting
    ) -> nn.Module:
        """A plain model for `setting` from the `cells_at` it and their trained networks.

        The networks may be changed: they are loaded for this call alone.
        """
        (network,) = networks
        return network.at(setting)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "source": source_digest(type(self)),
            "fields": identifying(self),
        }


def _lever(default: Any) -> Any:
    return field(default=default, metadata=ADDED)


@dataclass(frozen=True, kw_only=True)
class Levers(Method):
    """What methods have in common that train one network, for coefficients drawn per example, and
    what each of them may be tuned with, whatever its mechanism.

    law: how coefficients are drawn; see `Space.sample`.
    stratified: in a batch each equal part of the law gets one draw.
    levels: only so many values are drawn, log-spaced; 0 draws any.
    weighting: "geometric_mean" divides an example's loss by the geometric mean of its terms'
        weights, "running_mean" by what the loss has lately been near its coefficients, so that
        no end of the range owns the gradient; "none" leaves it to the task's own training.
    steps, lr: factors of the task's number of training steps and peak learning rate.
    prior: layers are scaled by what the task knows of them (`Task.scaling`) beside the mechanism.
    """

    starts_scaled: ClassVar[bool] = False  # whether the mechanism itself starts from `prior`

    law: str = _lever("log_uniform")
    stratified: bool = _lever(False)
    levels: int = _lever(0)
    weighting: str = _lever("none")
    steps: float = _lever(1.0)
    lr: float = _lever(1.0)
    prior: bool = _lever(False)

    def __post_init__(self) -> None:
        self._choices(law=LAWS, weighting=WEIGHTINGS)
        if self.levels < 0 or self.levels == 1:
            levels = f"{self.name}: levels {self.levels}"
            raise ValueError(f"{levels}: use 2 or more, or 0 for any value")
        if min(self.steps, self.lr) <= 0:
            raise ValueError(f"{self.name}: steps and lr are factors above 0")
        if self.together and self.stratified:
            raise ValueError(
                f"{self.name}: a batch has one draw, which cannot be stratified: use "
                "stratified=false"
            )

    @property
    def together(self) -> bool:
        """Whether one draw serves a whole batch, as where weights are made for it."""
        return False

    def _choices(self, **known: Collection[str]) -> None:
        """ValueError where a field of text has none of its values."""
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ValueError(f"{self.name}: {name} {value!r}: use one of {', '.join(values)}")

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        varied = task.varied(width=1, steps=self.steps, lr=self.lr, weighting=self.weighting)
        return [Cell(task=varied, method=self, seed=seed)]

    def whole_conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        inner = self.conditioner(task, model)
        law = task.scaling(model) if self.prior and not self.starts_scaled else {}
        if not law:
            return inner
        known = KnownScale(task.space, law)
        return Scaled(inner, known) if inner else known

    def balance(self, task: Task) -> Balance | None:
        return Balance(task.space) if self.weighting == "running_mean" else None

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        drawn = cell.task.space.sample(
            1 if self.together else count, generator, self.law, self.levels, self.stratified
        )
        return drawn.repeat(count, 1) if self.together else drawn


@dataclass(frozen=True, kw_only=True)
class Fixed(Method):
    """What methods have in common whose networks are trained for one setting each."""

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return torch.tensor(cell.trained_for).expand(count, -1)


def build(cell: Cell, before: nn.Module | None = None, *, start: bool = True) -> Network:
    """A new network for a cell: the model from the cell's seed, then its conditioner.

    Every method of a seed starts from the same model, since the conditioner is made after it.
    `before` is the trained model of `cell.after`, whose weights it starts from. `start=False`
    leaves out the task's `initialise`, for weights that are loaded next.
    """
    torch.manual_seed(cell.seed)
    model = cell.method.model(cell.task)
    if before is not None:
        model.load_state_dict(before.state_dict())
    elif start:
        cell.task.initialise(model)
    torch.manual_seed(cell.seed + 1)
    return Network(
        model, cell.method.whole_conditioner(cell.task, model), cell.method.balance(cell.task)
    )

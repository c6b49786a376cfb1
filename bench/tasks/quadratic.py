"""Compromises between linear targets, whose least loss is known exactly: the instrument's zero.

    python run_bench.py run quadratic                                   a minute on two CPU cores
    python run_bench.py run "quadratic[hidden=8]"                       conditioning must fail
    python run_bench.py run "quadratic[coefficients=4, hidden=40]"      four coefficients
    python run_bench.py run quadratic --coefficients 1,2,4,8            units in proportion

K + 1 fixed random rotations A_k of the input x give the targets a_k = A_k x. The loss is
|y - a_0|² + sum of c_k |y - a_k|², each a mean over the dimensions. The best answer is the weighted
mean of the targets, y* = (a_0 + sum of c_k a_k) / (1 + sum of c_k), which is linear in x, and
whatever y loses more than y* is its regret, (1 + sum of c_k) |y - y*|².

The model is linear, too, through a layer of `hidden` units. With as many units as dimensions a
network trained for one setting reaches y* exactly, and no batch moves it from there: the grid's
regret goes to zero. A network that is told the coefficients moves its hidden units' scales, so it
is sum of s_h(c) u_h v_h', whose u and v stay. With (K + 1) · dimension units it can be exact, each
target having units of its own; with `dimension` units it cannot, because rotations have no
eigenvectors in common.

The best answer is linear in the losses' shares (`Space.shares`), so methods that mix weights in
these have its form built in: `encoding="shares"` shows them to the others, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import Axis, Examples, Measure, Preset, Setting, Space, Task, Training
from bench.levers import found

MOST = 8  # coefficients
SPLITS = {"train": (4096, 0), "test": (64, 1), "validation": (64, 2)}  # rows, seed
RANDOM = 4  # settings beside those that move one coefficient


@dataclass(frozen=True, kw_only=True)
class Quadratic(Task):
    """coefficients: K, from 1 to 8. ratio: every coefficient's high end over its low end; 1 is the
    geometric middle. dimension: of inputs and outputs. hidden: units between them."""

    name: ClassVar[str] = "quadratic"
    title: ClassVar[str] = "linear targets, exact answer known"
    line: ClassVar[str] = "compromises between linear targets: the least loss is known exactly"
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (("target_1", "target_0"),)

    coefficients: int = 1
    ratio: float = 100.0
    dimension: int = 8
    hidden: int = 16
    training: Training

    def __post_init__(self) -> None:
        if not 1 <= self.coefficients <= MOST:
            raise ValueError(f"{self.name}: {self.coefficients} coefficients: use 1 to {MOST}")
        if not 1 < self.ratio < math.inf:
            raise ValueError(f"{self.name}: ratio {self.ratio}: use a number above 1, as 100")
        if min(self.dimension, self.hidden) < 1:
            raise ValueError(f"{self.name}: dimension and hidden: use 1 or more")

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        quick = cls(training=Training(steps=1000, batch=32, lr=0.03, warmup=0.1))
        trained = quick.lasting(3)
        narrow = replace(trained, hidden=trained.dimension)

        def size(task: Quadratic, settings: int, seeds: int, line: str, **more: Any) -> Preset:
            some: dict[str, Any] = {"settings": settings, "seeds": tuple(range(seeds))}
            return Preset(task=task, line=line, **some, **more)

        return {
            "smoke": size(quick.trained_with(steps=300), 3, 1, "a second, for tests"),
            "quick": size(quick, 5, 3, "a minute on two CPU cores; trained out"),
            "trained": size(
                trained, 5, 10, "evidence: minutes on two CPU cores", methods=found(cls.name)
            ),
            "narrow": size(narrow, 5, 10, "evidence: as few units as dimensions; minutes"),
        }

    @property
    def terms(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"target_{k}" for k in range(self.coefficients + 1))

    @property
    def measures(self) -> dict[str, Measure]:  # type: ignore[override]
        near: dict[str, Any] = {"better": "lower", "worst": 8.0}
        distances = {
            name: Measure(label=f"squared error, a{k}", **near) for k, name in enumerate(self.terms)
        }
        # The targets' mean square is one; the grid's regret is next to none, so no per cent of it.
        regret = Measure(label="regret", better="lower", relative=False, digits=4, margin="0.01")
        return {"regret": regret, **distances}

    @property
    def space(self) -> Space:
        low, high = (float(f"{self.ratio**power:.6g}") for power in (-0.5, 0.5))
        names = self.terms[1:]
        symbols = [f"c{k + 1}" for k in range(len(names))] if len(names) > 1 else ["c"]
        pairs = zip(names, symbols, strict=True)
        return Space(tuple(Axis(name=n, low=low, high=high, symbol=symbol) for n, symbol in pairs))

    def settings(self, count: int) -> tuple[Setting, ...]:
        """Of one coefficient `count` values. Of several the middle, each coefficient alone at
        either end, and `RANDOM` random settings, whatever the count: a grid would be count^K."""
        if self.coefficients == 1:
            return self.space.grid(count)
        return (*self.space.one_at_a_time(), *self.space.random(RANDOM, seed=0))

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(self.dimension, self.hidden), nn.Linear(self.hidden, self.dimension)
        )

    def sites(self, model: nn.Module) -> list[str]:
        return ["0"]

    entrances = sites

    def wider(self, factor: float) -> Quadratic:
        return replace(self, hidden=max(1, round(factor * self.hidden)))

    def ranged(self, factor: float) -> Quadratic:
        return replace(self, ratio=factor)

    def with_coefficients(self, count: int) -> Quadratic:
        """With as many hidden units per target as before: a conditioned network that can be exact
        with K coefficients, for it has (K + 1) · dimension units, then can be with `count`."""
        hidden = round(self.hidden * (count + 1) / (self.coefficients + 1))
        return replace(self, coefficients=count, hidden=max(1, hidden))

    def data(self, split: str) -> Examples:
        """Rows of the input and its targets, (K + 2, dimension)."""
        count, seed = SPLITS[split]
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, self.dimension, generator=generator, dtype=torch.float64)
        rows = torch.stack([x, *(x @ matrix.T for matrix in self.rotations())], 1)
        digest = f"normal {count}x{self.dimension}, seed {seed}, {self.coefficients + 1} rotations"
        return Examples(rows.float(), digest=digest)

    def rotations(self) -> Tensor:
        """The A_k, (K + 1, dimension, dimension) float64; the first ones are those of fewer."""
        shape = (MOST + 1, self.dimension, self.dimension)
        normal = torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.double)
        q, r = torch.linalg.qr(normal)
        uniform = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # over all rotations, with this
        return uniform[: self.coefficients + 1]

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        y = model(batch[:, 0])
        distances = (y[:, None] - batch[:, 1:]).square().mean(2)
        return dict(zip(self.terms, distances.unbind(1), strict=True))

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return self.losses(model, batch)

    def measure_at(self, model: nn.Module, batch: Tensor, setting: Setting) -> dict[str, Tensor]:
        """The regret, from the distance to the best answer: a difference of losses would cancel."""
        weights = batch.new_tensor([1.0, *setting])
        best = torch.einsum("k,bkd->bd", weights / weights.sum(), batch[:, 1:])
        return {"regret": weights.sum() * (model(batch[:, 0]) - best).square().mean(1)}

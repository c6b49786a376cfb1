"""The method under test: one network, trained over the whole range of coefficients and told them.

Dosovitskiy & Djolonga, "You Only Train Once: Loss-Conditional Training of Deep Networks", ICLR
2020. Every training example draws its own coefficients; they weight that example's loss and set
the scales and shifts of the network's layers (FiLM). At test time one network answers for every
setting in the range. The defaults are the authors' released code: log-uniform draw per example,
two separate one-hidden-layer perceptrons on the logarithm of the coefficients, near-identity start
with a multiplier and no squashing. The draw is independent per coefficient, as the paper says
(the released sampler reuses one seed, which correlates them).

Everything else is a lever: one field each, tried on its own in
`results/reference/ablation-*` and together in `baselines/yoto_tuned.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from bench.conditioners import (
    ENCODINGS,
    SCALES,
    Concatenation,
    ConditionalNorm,
    Conditioner,
    Encoding,
    FiLM,
    Gates,
)
from bench.fixed_grid import FixedGrid
from bench.method import Cell, Levers
from bench.modulation import channels, matching
from bench.space import Setting
from bench.task import Task

KINDS = ("film", "gates", "concat", "instance_norm", "adaln")


@dataclass(frozen=True, kw_only=True)
class Yoto(Levers):
    """encoding: how coefficients are shown to the conditioner, one of ENCODINGS.
    law, levels, stratified, weighting, steps, lr: see `Levers`.
    per_example: each example draws its own coefficients; false draws once for the whole batch.
    kind: the conditioner, one of KINDS; `multiplier`, `scale`, `exact_start` and
        `prior` are FiLM's alone. "instance_norm" and "adaln" are for models whose sites are norms
        (style transfer's); "adaln" is published with `encoding=sinusoidal`.
    hidden: width of FiLM's and the norms' perceptrons (128 as released, for networks of as
        many channels); 0 is a quarter of the widest layer they move, from 8 to 128, so that the
        conditioner of a small network stays small.
    multiplier: what their outputs are multiplied with (0.1 for CIFAR-10, 0.01 for Shapes3D there).
    scale: FiLM's scale, one of SCALES.
    exact_start: FiLM starts as the plain model exactly, not nearly.
    prior: FiLM's scales start from what the task knows of them (`Task.scaling`).
    sites: shell patterns, separated by commas or spaces, choosing among the layers the task
        offers; with a `!` in front they take out.
    width: factor of the model's channels.
    warm_start: begin from a fixed network at the grid's middle that was trained for this share
        of the task's steps (1 takes the grid's own). Its cost counts.
    """

    name = "yoto"
    line = "one loss-conditional network: FiLM, default"
    swept = True
    starts_scaled = True
    role = "under test"
    label = "YOTO"

    encoding: str = "log"
    law: str = "log_uniform"
    levels: int = 0
    per_example: bool = True
    stratified: bool = False
    weighting: str = "none"
    kind: str = "film"
    hidden: int = 0
    multiplier: float = 0.1
    scale: str = "linear"
    exact_start: bool = False
    prior: bool = False
    sites: str = "*"
    width: float = 1.0
    steps: float = 1.0
    warm_start: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choices(encoding=ENCODINGS, kind=KINDS, scale=SCALES)
        if self.hidden < 0:
            raise ValueError(
                f"{self.name}: hidden {self.hidden}: use 1 or more, or 0 to follow the model"
            )
        if self.width <= 0 or self.warm_start < 0:
            raise ValueError(f"{self.name}: width is above 0, warm_start is not below")

    @property
    def together(self) -> bool:
        return not self.per_example

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        after = None
        if self.warm_start:
            fixed = FixedGrid(width=self.width, steps=self.warm_start)
            after = fixed.middle(task, settings, seed)
        varied = task.varied(
            width=self.width, steps=self.steps, lr=self.lr, weighting=self.weighting
        )
        return [Cell(task=varied, method=self, seed=seed, after=after)]

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner | None:
        sites = matching(task.sites(model), self.sites)
        encoding = Encoding(task.space, self.encoding)
        if self.kind == "gates":
            return Gates(model, sites, encoding)
        if self.kind == "concat":
            return Concatenation(model, sites, encoding)
        if self.kind in ("instance_norm", "adaln"):
            adaptive, hidden = self.kind == "adaln", self._hidden(model, sites)
            return ConditionalNorm(model, sites, encoding, hidden, adaptive)
        prior = task.scaling(model) if self.prior else {}
        film = (self._hidden(model, sites), self.multiplier, self.scale, self.exact_start, prior)
        return FiLM(model, sites, encoding, *film)

    def _hidden(self, model: nn.Module, sites: Sequence[str]) -> int:
        widest = max((channels(model.get_submodule(site)) for site in sites), default=0)
        return self.hidden or min(max(widest // 4, 8), 128)

"""One network with an output per setting: the cheap trick of quantile regression.

Multi-quantile networks (Taylor, Journal of Forecasting 2000; Rodrigues & Pereira, "Beyond
Expectation", 2020; MQ-RNN, Wen et al. 2017): all layers but the last are shared, and the last has
a copy per compared setting. Kept: exactly that; every copy starts as the model's own layer.
Simplified: an example trains the output of one setting, in equal shares of every batch, as the
other methods' examples have one coefficient each; practitioners train all outputs on every
example, which costs as much as this does (all outputs are computed here, too) and has less noise.
A setting that was not compared gets the nearest one's output.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench import Cell, Conditioner, Encoding, Levers, Setting, Space, Task, put


@dataclass(frozen=True, kw_only=True)
class SeveralOutputs(Levers):
    """settings: those that have an output; none takes those that are compared."""

    name = "several_outputs"
    line = "one network, an output per setting (where a task names its last layer)"
    version = 2  # in the first, weight decay spared the outputs

    settings: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.law != "log_uniform" or self.stratified or self.levels:
            raise ValueError(f"{self.name}: it draws its settings: law, levels and stratified stay")

    def refuses(self, task: Task) -> str:
        if task.output(task.model()):
            return ""
        return "it names no last layer that could have an output per setting"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        trainer = replace(self, settings=self.settings or tuple(settings))
        return [replace(cell, method=trainer) for cell in super().plan(task, settings, seed)]

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Outputs(model, task.output(model), task.space, self.settings)

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        rows = torch.tensor(self.settings)
        order = torch.randperm(count, generator=generator)
        first = torch.randint(len(rows), (1,), generator=generator)  # where not all have their turn
        return rows[(order + first) % len(rows)]


class Outputs(Conditioner):
    """A copy of the layer `site` per setting; an example takes that of the nearest setting."""

    places: Tensor

    def __init__(
        self, model: nn.Module, site: str, space: Space, settings: Sequence[Setting]
    ) -> None:
        super().__init__()
        self.sites, self.encoding = [site], Encoding(space, "log")
        layer = model.get_submodule(site)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in settings)
        places = self.encoding.place(torch.tensor(settings))
        self.register_buffer("places", places, persistent=False)

    def nearest(self, coefficients: Tensor) -> Tensor:
        """The numbers, (B,), of the settings nearest to coefficients, (B, K)."""
        distances = self.encoding.place(coefficients)[:, None] - self.places
        return distances.square().sum(2).argmin(1)

    def decaying(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def attach(self, model: nn.Module) -> None:
        self._chosen = Chosen(self.layers)
        put(model, self.sites[0], self._chosen)

    def condition(self, coefficients: Tensor) -> None:
        self._chosen.numbers = self.nearest(coefficients)

    def release(self) -> None:
        self._chosen.numbers = None

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        (number,) = self.nearest(coefficients).tolist()
        put(model, self.sites[0], self.layers[number])


class Chosen(nn.Module):
    """Several layers in the place of one; of each example, the result of one of them counts."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self._layers = [layers]  # a list: they are the conditioner's, and no part of the model
        self.numbers: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        (layers,) = self._layers
        if self.numbers is None:
            return layers[0](x)
        every = torch.stack([layer(x) for layer in layers])
        return every[self.numbers, torch.arange(x.shape[0], device=x.device)]

"""Pareto hypernetwork: a network of the coefficients makes all weights of the model.

Navon et al., "Learning the Pareto Front with Hypernetworks", ICLR 2021. Kept: a perceptron of two
hidden layers and one linear head per weight tensor, one draw of the coefficients per batch, linear
scalarisation. Simplified: it sees standardised log-coefficients, drawn log-uniformly, instead of a
ray from a Dirichlet distribution, since ours are no point of a simplex; the heads' constant parts
are the model's own starting weights, so that training starts where the others do; 16 hidden units
instead of 100, because a head has as many weights as its tensor times the hidden units: even so it
is for small models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bench import (
    CONVOLUTIONS,
    TRANSPOSED,
    Cell,
    Conditioner,
    Encoding,
    OneNetwork,
    Task,
    parameters,
    put,
)

LARGEST = 1_000_000  # parameters of the model


@dataclass(frozen=True, kw_only=True)
class ParetoHypernetwork(OneNetwork):
    """hidden: width of the perceptron."""

    name = "hypernetwork"
    line = "coefficients to all weights (small models)"
    swept = True

    hidden: int = 16

    def refuses(self, task: Task) -> str:
        count = parameters(task.model())
        if count <= LARGEST:
            return ""
        return f"its model has {count:,} parameters, and {LARGEST:,} is what it is meant for"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return WeightMaker(model, Encoding(task.space, "standardised"), self.hidden)

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return cell.task.space.sample(1, generator).repeat(count, 1)


class Generated(nn.Module):
    """A layer with `change` added to its parameters, by their names."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.change: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if not self.change:
            return self.layer(x)
        weights = {name: p + self.change[name] for name, p in self.layer.named_parameters()}
        return functional_call(self.layer, weights, (x,))


class WeightMaker(Conditioner):
    """Adds to every weight of every layer (convolution, linear layer, norm) a linear function of a
    perceptron's output. Other parameters, as an entropy model's, are the same at all settings."""

    def __init__(self, model: nn.Module, encoding: Encoding, hidden: int) -> None:
        super().__init__()
        self.sites = [
            name
            for name, layer in model.named_modules()
            if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.InstanceNorm2d))
            and getattr(layer, "weight", None) is not None
        ]
        first, second = nn.Linear(encoding.width, hidden), nn.Linear(hidden, hidden)
        self.trunk = nn.Sequential(encoding, first, nn.ReLU(), second, nn.ReLU())
        self.heads = nn.ParameterList()
        for site in self.sites:
            layer = model.get_submodule(site)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            spread = 0.1 / (weight[0].numel() * hidden) ** 0.5
            self.heads.append(spread * torch.randn(parameters(layer), hidden))

    def attach(self, model: nn.Module) -> None:
        self._layers = []
        for site in self.sites:
            self._layers.append(Generated(model.get_submodule(site)))
            put(model, site, self._layers[-1])

    def condition(self, coefficients: Tensor) -> None:
        code = self.trunk(coefficients[:1])
        for layer, head in zip(self._layers, self.heads, strict=True):
            named = dict(layer.layer.named_parameters())
            # Not `head @ code`, a product that torch's counter of FLOPs does not see.
            parts = F.linear(code, head)[0].split([p.numel() for p in named.values()])
            layer.change = {
                name: part.view_as(p) for part, (name, p) in zip(parts, named.items(), strict=True)
            }

    def release(self) -> None:
        for layer in self._layers:
            layer.change = {}

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        self.condition(coefficients)
        for site, layer in zip(self.sites, self._layers, strict=True):
            for name, parameter in list(layer.layer.named_parameters()):
                owner, _, attribute = name.rpartition(".")
                changed = nn.Parameter(parameter + layer.change[name])  # new: it may be tied
                setattr(layer.layer.get_submodule(owner), attribute, changed)
            put(model, site, layer.layer)

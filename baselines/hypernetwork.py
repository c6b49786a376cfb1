"""Pareto hypernetwork: a network of the coefficients makes all weights of the model.

Navon et al., "Learning the Pareto Front with Hypernetworks", ICLR 2021. Kept: a perceptron of two
hidden layers and one linear head per weight tensor, one draw of the coefficients per batch, linear
scalarisation. Simplified: it sees standardised log-coefficients, drawn log-uniformly, instead of a
ray from a Dirichlet distribution, since ours are no point of a simplex; the heads' constant parts
are the model's own starting weights, so that training starts where the others do; 16 hidden units
instead of 100, because a head has as many weights as its tensor times the hidden units: even so it
is for small models. `invariant` is from Ortiz, Guttag & Dalca, "Magnitude Invariant
Parametrizations Improve Hypernetwork Learning", ICLR 2024, for HyperMorph's kind of network: a code
of constant length (cosine and sine of a quarter turn). Their other half, that what is made is added
to a trained constant part, holds here either way, and so does their leaky ReLU, of slope 0.2:
behind a plain ReLU all of 16 units die for some seeds, and then the weights follow nothing. Their
start is not taken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import (
    ADDED,
    CONVOLUTIONS,
    TRANSPOSED,
    Conditioner,
    Encoding,
    Levers,
    Reweighting,
    Task,
    parameters,
)

LARGEST = 1_000_000  # parameters of the model


@dataclass(frozen=True, kw_only=True)
class ParetoHypernetwork(Levers):
    """hidden: width of the perceptron. invariant: it sees a code of the same length for all
    coefficients (`Encoding` "circle"), so that what it makes does not grow with them."""

    name = "hypernetwork"
    line = "coefficients to all weights (small models)"
    swept = True
    version = 2  # in the first, ReLUs died

    hidden: int = 16
    invariant: bool = field(default=False, metadata=ADDED)

    @property
    def together(self) -> bool:
        return True

    def refuses(self, task: Task) -> str:
        count = parameters(task.model())
        if count <= LARGEST:
            return ""
        return f"its model has {count:,} parameters, and {LARGEST:,} is what it is meant for"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        code = "circle" if self.invariant else "standardised"
        return WeightMaker(model, Encoding(task.space, code), self.hidden)


class WeightMaker(Reweighting):
    """Adds to every weight of every layer (convolution, linear layer, instance norm) a linear
    function of a perceptron's output. Other parameters, as an entropy model's, are the same at all
    settings."""

    def __init__(self, model: nn.Module, encoding: Encoding, hidden: int) -> None:
        super().__init__()
        self.sites = [
            name
            for name, layer in model.named_modules()
            if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.InstanceNorm2d))
            and getattr(layer, "weight", None) is not None
            and any(parameter.requires_grad for parameter in layer.parameters())
        ]
        first, second = nn.Linear(encoding.width, hidden), nn.Linear(hidden, hidden)
        self.trunk = nn.Sequential(encoding, first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))
        self.heads = nn.ParameterList()
        self.names, self._counts = [], []  # of the parameters that a head makes
        for site in self.sites:
            layer = model.get_submodule(site)
            named = [name for name, _ in layer.named_parameters()]
            self.names += [f"{site}.{name}" for name in named]
            self._counts.append(len(named))
            weight: Tensor = layer.weight  # type: ignore[assignment]
            spread = 0.1 / (weight[0].numel() * hidden) ** 0.5
            self.heads.append(spread * torch.randn(parameters(layer), hidden))

    def weights(self, coefficients: Tensor, own: Sequence[Tensor]) -> Iterator[Tensor]:
        code, remaining = self.trunk(coefficients), iter(own)
        for head, count in zip(self.heads, self._counts, strict=True):
            layer = list(islice(remaining, count))
            # Not `head @ code`, a product that torch's counter of FLOPs does not see.
            parts = F.linear(code, head)[0].split([p.numel() for p in layer])
            yield from (p + part.view_as(p) for p, part in zip(layer, parts, strict=True))

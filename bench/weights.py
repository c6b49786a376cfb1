"""Weights that follow coefficients: one draw, and one set of weights, for a whole batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bench.conditioners import Conditioner, in_fp32


def flat(parts: Iterable[Tensor]) -> Tensor:
    """All their numbers in one row."""
    return torch.cat([part.reshape(-1) for part in parts])


class Reweighting(Conditioner):
    """Computes parameters of a model from the coefficients, one draw for a whole batch.

    Nothing is wrapped: while it conditions, each computed tensor stands in its layer's `__dict__`,
    where Python looks before the layer's own parameters. So whoever reads a weight reads this one,
    and the model's own parameters are trained as what the new ones are computed from.

    names: of the parameters that are computed, as in `model.named_parameters()`.
    """

    names: Sequence[str]

    @abstractmethod
    def weights(self, coefficients: Tensor, own: Sequence[Tensor]) -> Iterable[Tensor]:
        """Parameters for one draw, (1, K), in the order of `names` and of the shapes of `own`,
        which are the model's."""

    def attach(self, model: nn.Module) -> None:
        modules = {id(module): module for module in model.modules()}.values()
        everywhere = [(m, name) for m in modules for name in m._parameters]
        named = []
        for full in self.names:
            owner, _, name = full.rpartition(".")
            named.append((model.get_submodule(owner), name))
        taken = {(id(module), name) for module, name in named}
        # A list, since the model is no part of this; what is tied to one of them follows it.
        self._places = []
        for place in named:
            parameter = place[0]._parameters[place[1]]
            tied = [
                (module, name)
                for module, name in everywhere
                if module._parameters[name] is parameter and (id(module), name) not in taken
            ]
            self._places.append([place, *tied])

    @property
    def _own(self) -> list[Tensor]:
        """The model's parameters: a move to another device may have made new ones."""
        firsts = (places[0] for places in self._places)
        return [module._parameters[name] for module, name in firsts]  # type: ignore[misc]

    def condition(self, coefficients: Tensor) -> None:
        with in_fp32(coefficients):
            weights = list(self.weights(coefficients[:1], self._own))
        for places, weight in zip(self._places, weights, strict=True):
            for module, name in places:
                module.__dict__[name] = weight

    def release(self) -> None:
        for places in self._places:
            for module, name in places:
                module.__dict__.pop(name, None)

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        weights = list(self.weights(coefficients, self._own))
        self.release()
        for places, weight in zip(self._places, weights, strict=True):
            parameter = nn.Parameter(weight.clone())
            for module, name in places:
                module._parameters[name] = parameter

"""A line (triangle, ...) of weights whose corners are trained together: one corner per loss.

Dimitriadis, Frossard & Fleuret, "Pareto Manifold Learning", ICML 2023; on a line Han et al., "You
Only Debias Once", CPAL 2025, who add a term that keeps the ends apart, after Wortsman et al.,
"Learning Neural Network Subspaces", ICML 2021. Kept: every parameter of the model is a mix of the
corners', in the shares that the losses have; one draw per batch; the squared cosine between
corners, times `apart`, is added to the loss (0.0 is the former's form, 1.0 the latter's weight).
Simplified: the corners start from one and the same start, the task's, instead of several, and one
draw a step is taken where the former may average the gradients of several; shares are relative to
the middle of every coefficient's range, since ours are no point of a simplex. `interpolation`
mixes in the same way what was trained apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Conditioner, Levers, Reweighting, Space, Task


@dataclass(frozen=True, kw_only=True)
class Subspace(Levers):
    """apart: weight of the squared cosine between the corners, mean over their pairs.
    mix: "shares" of the losses, or "places": along each coefficient's logarithmic axis, so that the
        ends of a single coefficient's range are the corners themselves."""

    name = "subspace"
    line = "weights between corners that are trained together, one per loss"
    swept = True

    apart: float = 0.0
    mix: str = "shares"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choices(mix=("shares", "places"))
        if self.apart < 0:
            raise ValueError(f"{self.name}: apart {self.apart}: use 0 or more")

    @property
    def together(self) -> bool:
        return True

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Corners(model, task.space, self.mix, self.apart)


class Corners(Reweighting):
    """The model's own parameters are the first corner; the others', (K, all parameters), are here
    and start equal to them."""

    decays = True

    def __init__(self, model: nn.Module, space: Space, mix: str, apart: float) -> None:
        super().__init__()
        self.space, self.mix, self.apart = space, mix, apart
        self.names = [name for name, _ in model.named_parameters()]
        first = flat(list(model.parameters())).detach()
        self.corners = nn.Parameter(first.repeat(len(space.axes), 1))

    def shares(self, coefficients: Tensor) -> Tensor:
        """(1, K) coefficients to the shares of the K + 1 corners, (1, K + 1)."""
        if self.mix == "shares":
            return self.space.shares(coefficients)
        places = (self.space.encode(coefficients).clamp(-1, 1) + 1) / 2
        others = places / len(self.space.axes)
        return torch.cat([1 - others.sum(1, keepdim=True), others], 1)

    def weights(self, coefficients: Tensor, own: Sequence[Tensor]) -> list[Tensor]:
        (mixed,) = self.shares(coefficients) @ torch.cat([flat(own)[None], self.corners])
        parts = mixed.split([parameter.numel() for parameter in own])
        return [part.view_as(parameter) for part, parameter in zip(parts, own, strict=True)]

    def penalty(self, terms: object, coefficients: Tensor) -> Tensor | None:
        if not self.apart:
            return None
        every = (flat(self._own), *self.corners)
        cosines = [F.cosine_similarity(a, b, dim=0) for a, b in combinations(every, 2)]
        return self.apart * torch.stack(cosines).square().mean()


def flat(parts: Sequence[Tensor]) -> Tensor:
    """All their numbers in one row."""
    return torch.cat([part.reshape(-1) for part in parts])

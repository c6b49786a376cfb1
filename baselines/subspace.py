"""A line (triangle, ...) of weights whose corners are trained together: one corner per loss.

Dimitriadis, Frossard & Fleuret, "Pareto Manifold Learning", ICML 2023 (PaMaL); on a line Han et
al., "You Only Debias Once", CPAL 2025 (YODO), who add a term that keeps the ends apart, after
Wortsman et al., "Learning Neural Network Subspaces", ICML 2021. Kept: every trained parameter is a
mix of the corners', all trained together, in the shares that the losses have (PaMaL); one draw per
batch, linear scalarisation; the squared cosine between corners, times `apart`, is added to the loss
(YODO, with weight 1). Left out: PaMaL's several draws a step with their regulariser, and its
balancing of losses or gradients. Changed: all corners start from the task's one start, theirs from
several, so that the cosine's gradient is nothing at first; it is taken over all parameters, YODO's
over the weights of linear layers; shares are relative to the middle of every coefficient's range,
since ours are no point of a simplex; YODO's mix is the coefficient itself, which `mix="places"`
comes nearest to. `interpolation` mixes in the same way what was trained apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Conditioner, Encoding, Levers, Reweighting, Space, Task, flat


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

    def refuses(self, task: Task) -> str:
        kinds = {parameter.dtype for _, parameter in trained(task.model())}
        if len(kinds) == 1 and next(iter(kinds)).is_floating_point:
            return ""
        return "its model has no parameters to train, or of several types, or complex ones"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Corners(model, task.space, self.mix, self.apart)


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that are trained, by name."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


class Corners(Reweighting):
    """The model's own trained parameters are the first corner; the others, (K, all numbers), are
    here and start equal to them."""

    def __init__(self, model: nn.Module, space: Space, mix: str, apart: float) -> None:
        super().__init__()
        self.encoding, self.mix, self.apart = Encoding(space, "shares"), mix, apart
        self.names, own = zip(*trained(model), strict=True)
        self.corners = nn.Parameter(flat(own).detach().repeat(len(space.axes), 1))

    def decaying(self) -> list[nn.Parameter]:
        return [self.corners]

    def shares(self, coefficients: Tensor) -> Tensor:
        """(1, K) coefficients to the shares of the K + 1 corners, (1, K + 1)."""
        if self.mix == "shares":
            return self.encoding(coefficients)
        places = (self.encoding.place(coefficients).clamp(-1, 1) + 1) / 2
        others = places / places.shape[1]
        return torch.cat([1 - others.sum(1, keepdim=True), others], 1)

    def weights(self, coefficients: Tensor, own: Sequence[Tensor]) -> list[Tensor]:
        shares = self.shares(coefficients).to(self.corners.dtype)
        (mixed,) = shares @ torch.cat([flat(own)[None], self.corners])
        parts = mixed.split([parameter.numel() for parameter in own])
        return [part.view_as(parameter) for part, parameter in zip(parts, own, strict=True)]

    def penalty(self, terms: object, coefficients: Tensor) -> Tensor | None:
        if not self.apart:
            return None
        every = (flat(self._own), *self.corners)
        cosines = [F.cosine_similarity(a, b, dim=0) for a, b in combinations(every, 2)]
        return self.apart * torch.stack(cosines).square().mean()

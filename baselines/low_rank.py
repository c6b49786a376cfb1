"""Shared weights and one low-rank adapter per loss, mixed in the losses' shares.

Dimitriadis, Frossard & Fleuret, "Pareto Low-Rank Adapters", ICLR 2025 (PaLoRA). Kept: a layer has
the weights W + sum of share_k B_k A_k, up to a factor, one pair of factors per loss, trained
together with W; B starts at zero, so that training starts where the others do; at one setting the
sum is the layer's weight. Changed: coefficients are drawn at random, per example, instead of by a
deterministic schedule; the shares are relative to the middle of every coefficient's range. Ours:
the factor scale / rank with 4 / 4; every convolution and linear layer has adapters, of which a
convolution's A_k has the kernel and `rank` outputs and B_k mixes these at every place. Norms,
biases and entropy models are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import (
    TRANSPOSED,
    Conditioner,
    Encoding,
    Levers,
    Space,
    Task,
    channels,
    linear_maps,
    own_parameters,
    put,
    same_batch,
)


@dataclass(frozen=True, kw_only=True)
class LowRank(Levers):
    """rank: of each adapter. scale: the adapters' sum is multiplied with scale / rank."""

    name = "low_rank"
    line = "a low-rank adapter per loss on shared weights, mixed by the coefficients"
    swept = True

    rank: int = 4
    scale: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1 or not self.scale:
            raise ValueError(f"{self.name}: rank is 1 or more, and scale is not 0")

    def refuses(self, task: Task) -> str:
        return "" if linear_maps(task.model()) else "its model has no layer of one group to adapt"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Adapters(model, task.space, self.rank, self.scale)


class Adapters(Conditioner):
    """`down` has the A of all losses of a layer, one behind the other, `up` the B."""

    def __init__(self, model: nn.Module, space: Space, rank: int, scale: float) -> None:
        super().__init__()
        self.shares, self.rank, self.factor = Encoding(space, "shares"), rank, scale / rank
        self.sites = linear_maps(model)
        self.down, self.up = nn.ModuleList(), nn.ParameterList()
        for site in self.sites:
            layer: Any = model.get_submodule(site)
            self.down.append(narrowed(layer, rank * (len(space.axes) + 1)))
            count = rank * (len(space.axes) + 1)
            self.up.append(layer.weight.new_zeros(channels(layer), count))

    def decaying(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def attach(self, model: nn.Module) -> None:
        self._layers = []  # a list: their weights stay the model's
        for site in self.sites:
            self._layers.append(Adapted(model.get_submodule(site), site))
            put(model, site, self._layers[-1])

    def mixture(self, coefficients: Tensor) -> Tensor:
        """(B, K) coefficients to what each output of a `down` is multiplied with."""
        return self.factor * self.shares(coefficients).repeat_interleave(self.rank, 1)

    def condition(self, coefficients: Tensor) -> None:
        mixture = self.mixture(coefficients)
        for layer, down, up in zip(self._layers, self.down, self.up, strict=True):
            layer.adapter = down, up, mixture

    def release(self) -> None:
        for layer in self._layers:
            layer.adapter = None

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        (mixture,) = self.mixture(coefficients)
        for site, layer, down, up in zip(self.sites, self._layers, self.down, self.up, strict=True):
            plain: Any = layer.layer
            weight, _ = own_parameters(plain)
            first = "ij..." if isinstance(plain, TRANSPOSED) else "ji..."
            out = "io..." if isinstance(plain, TRANSPOSED) else "oi..."
            change = torch.einsum(f"oj,{first}->{out}", up * mixture, down.weight)
            plain.weight = nn.Parameter(weight + change)
            put(model, site, plain)


class Adapted(nn.Module):
    """A layer, and beside it an adapter: `down`, a scale per example, and `up`."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer, self.name = layer, name
        self.adapter: tuple[nn.Module, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.adapter is None:
            return y
        down, up, mixture = self.adapter
        same_batch(self.name, x, mixture.shape[0])
        mixture = mixture.to(up.dtype)
        inner, ones = down(x), (1,) * (x.dim() - 2)
        if isinstance(self.layer, nn.Linear):
            return y + nn.functional.linear(inner * mixture.view(mixture.shape[0], *ones, -1), up)
        scaled = (inner * mixture.view(*mixture.shape, *ones)).to(inner.dtype)
        convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[x.dim() - 3]
        return y + convolve(scaled, up.view(*up.shape, *ones)).to(y.dtype)


def narrowed(layer: Any, width: int) -> nn.Module:
    """A new layer of the same kind and geometry with `width` outputs and without a bias."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, width, bias=False).to(layer.weight)
    geometry = {
        name: getattr(layer, name)
        for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    plain = next(kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch."))
    if isinstance(layer, TRANSPOSED):
        geometry["output_padding"] = layer.output_padding
    return plain(layer.in_channels, width, bias=False, **geometry).to(layer.weight)

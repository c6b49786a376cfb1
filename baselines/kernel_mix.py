"""Tunable convolutions: each layer's kernel is a mix of several, one per loss.

Maggioni et al., "Tunable Convolutions with Parametric Multi-Loss Optimization", CVPR 2023. Kept:
every convolution (and linear layer) has as many kernels and biases as there are losses, all
trained together; per example its kernel is their sum, weighted by what also weighs the losses.
Simplified: the kernels start from one and the same, the task's start; the weights are the losses'
shares, relative to the middle of every coefficient's range, and a perceptron of `hidden` units may
move them (0 leaves it out; it starts at nothing). Norms and entropy models are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import (
    TRANSPOSED,
    Conditioner,
    Encoding,
    Levers,
    Task,
    linear_maps,
    own_parameters,
    put,
)


@dataclass(frozen=True, kw_only=True)
class KernelMix(Levers):
    """hidden: units of the perceptron that moves the mix; 0 for none."""

    name = "kernel_mix"
    line = "a kernel per loss in every layer, mixed by the coefficients"
    swept = True

    hidden: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 0:
            raise ValueError(f"{self.name}: hidden {self.hidden}: use 0 or more")

    def refuses(self, task: Task) -> str:
        return "" if linear_maps(task.model()) else "its model has no layer of one group to mix"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Kernels(model, Encoding(task.space, "standardised"), self.hidden)


class Kernels(Conditioner):
    """Of every layer the further kernels with their biases, (K, all of the layer's numbers), which
    start as the layer's own."""

    decays = True

    def __init__(self, model: nn.Module, encoding: Encoding, hidden: int) -> None:
        super().__init__()
        self.space, self.sites = encoding.space, linear_maps(model)
        count = len(self.space.axes)
        self.further = nn.ParameterList()
        for site in self.sites:
            own = flat(model.get_submodule(site)).detach()
            self.further.append(own.repeat(count, 1))
        self.mover = None
        if hidden:
            last = nn.Linear(hidden, count + 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = nn.Linear(encoding.width, hidden)
            self.mover = nn.Sequential(encoding, first, nn.LeakyReLU(0.2), last)

    def shares(self, coefficients: Tensor) -> Tensor:
        """(B, K) coefficients to the weights of the kernels, (B, K + 1)."""
        shares = self.space.shares(coefficients)
        if self.mover is None:
            return shares
        return (shares.log() + self.mover(coefficients)).softmax(1)

    def attach(self, model: nn.Module) -> None:
        self._layers = []  # a list: their weights stay the model's
        for site in self.sites:
            self._layers.append(Mixed(model.get_submodule(site)))
            put(model, site, self._layers[-1])

    def condition(self, coefficients: Tensor) -> None:
        shares = self.shares(coefficients)
        for layer, further in zip(self._layers, self.further, strict=True):
            layer.kernels = shares @ torch.cat([flat(layer.layer)[None], further])

    def release(self) -> None:
        for layer in self._layers:
            layer.kernels = None

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        self.condition(coefficients)
        for site, mixed in zip(self.sites, self._layers, strict=True):
            plain: Any = mixed.layer
            weight, bias = own_parameters(plain)
            kernel = mixed.kernels[0]
            plain.weight = nn.Parameter(kernel[: weight.numel()].view_as(weight).clone())
            if bias is not None:
                plain.bias = nn.Parameter(kernel[weight.numel() :].clone())
            put(model, site, plain)


def flat(layer: Any) -> Tensor:
    """A layer's weight and bias in one row."""
    parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return torch.cat([part.reshape(-1) for part in parts])


class Mixed(nn.Module):
    """A layer with a kernel and bias per example, (B, numbers), where it is told them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.kernels: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.kernels is None:
            return self.layer(x)
        layer: Any = self.layer
        size = layer.weight.numel()
        weight = self.kernels[:, :size].reshape(-1, *layer.weight.shape)
        if isinstance(layer, nn.Linear):
            y = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight.mT)
            y = y.reshape(*x.shape[:-1], -1)
            shape = (len(x), *(1,) * (x.dim() - 2), -1)
        else:
            y = convolved(layer, x, weight)
            shape = (len(x), -1, *(1,) * (x.dim() - 2))
        return y if layer.bias is None else y + self.kernels[:, size:].view(shape).to(y.dtype)


def convolved(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """x, (B, C, ...), with one kernel per example, (B, *the layer's), as one grouped convolution:
    the examples are its groups."""
    count = len(x)
    place = x.dim() - 3
    more: dict[str, Any] = {"padding": layer.padding}
    if isinstance(layer, TRANSPOSED):
        convolve: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[place]
        more["output_padding"] = layer.output_padding
    else:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[place]
        if layer.padding_mode != "zeros":
            x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
            more["padding"] = 0
    y = convolve(
        x.reshape(1, -1, *x.shape[2:]),
        weight.flatten(0, 1),
        stride=layer.stride,
        dilation=layer.dilation,
        groups=count,
        **more,
    )
    return y.view(count, -1, *y.shape[2:])

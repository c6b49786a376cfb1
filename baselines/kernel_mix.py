"""Tunable convolutions: each layer's kernel is a mix of several, one per loss.

Maggioni et al., "Tunable Convolutions with Parametric Multi-Loss Optimization", CVPR 2023. Kept:
every convolution (and linear layer) has as many kernels and biases as there are losses, all
trained together; per example its kernel is their weighted sum, the weights an affine function, of
the layer's own, of what weighs the losses. Changed: that is the losses' shares, relative to the
middle of every coefficient's range; the affine functions start as these shares themselves
(`affine=false` leaves it at that), and the kernels as the task's one start. Norms and entropy
models are shared.
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
    Space,
    Task,
    flat,
    in_fp32,
    linear_maps,
    own_parameters,
    put,
    same_batch,
)


@dataclass(frozen=True, kw_only=True)
class KernelMix(Levers):
    """affine: each layer has a learned affine function of the shares, not the shares themselves."""

    name = "kernel_mix"
    line = "a kernel per loss in every layer, mixed by the coefficients"
    swept = True

    affine: bool = True

    def refuses(self, task: Task) -> str:
        return "" if linear_maps(task.model()) else "its model has no layer of one group to mix"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Kernels(model, task.space, self.affine)


class Kernels(Conditioner):
    """Of every layer the further kernels with their biases, (K, all of the layer's numbers), which
    start as the layer's own."""

    def __init__(self, model: nn.Module, space: Space, affine: bool) -> None:
        super().__init__()
        self.by_loss, self.sites = Encoding(space, "shares"), linear_maps(model)
        self.further, count = nn.ParameterList(), len(space.axes)
        for site in self.sites:
            own = of_layer(model.get_submodule(site)).detach()
            self.further.append(own.repeat(count, 1))
        self.slopes = self.offsets = None
        if affine:
            self.slopes = nn.Parameter(torch.eye(count + 1).repeat(len(self.sites), 1, 1))
            self.offsets = nn.Parameter(torch.zeros(len(self.sites), 1, count + 1))

    def decaying(self) -> list[nn.Parameter]:
        return list(self.further)

    def shares(self, coefficients: Tensor) -> Tensor:
        """(B, K) coefficients to the weights of every layer's kernels, (layers, B, K + 1)."""
        shares = self.by_loss(coefficients).expand(len(self.sites), -1, -1)
        if self.slopes is None or self.offsets is None:
            return shares
        return torch.baddbmm(self.offsets, shares, self.slopes)

    def attach(self, model: nn.Module) -> None:
        self._layers = []  # a list: their weights stay the model's
        for site in self.sites:
            self._layers.append(Mixed(model.get_submodule(site), site))
            put(model, site, self._layers[-1])

    def condition(self, coefficients: Tensor) -> None:
        with in_fp32(coefficients):
            each = self.shares(coefficients).to(self.further[0].dtype)
            for layer, further, shares in zip(self._layers, self.further, each, strict=True):
                layer.kernels = shares @ torch.cat([of_layer(layer.layer)[None], further])

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


def of_layer(layer: Any) -> Tensor:
    """A layer's weight and bias in one row."""
    return flat([layer.weight] if layer.bias is None else [layer.weight, layer.bias])


class Mixed(nn.Module):
    """A layer with a kernel and bias per example, (B, numbers), where it is told them."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer, self.name = layer, name
        self.kernels: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.kernels is None:
            return self.layer(x)
        layer: Any = self.layer
        count, told = x.shape[0], self.kernels.shape[0]
        same_batch(self.name, x, told)
        size = layer.weight.numel()
        weight = self.kernels[:, :size].reshape(-1, *layer.weight.shape)
        if told == 1:  # all are told the same
            weight = weight.expand(count, *layer.weight.shape)
        if isinstance(layer, nn.Linear):
            y = torch.bmm(x.reshape(count, -1, x.shape[-1]), weight.mT)
            y = y.reshape(*x.shape[:-1], -1)
            shape = (told, *(1,) * (x.dim() - 2), -1)
        else:
            y = convolved(layer, x, weight)
            shape = (told, -1, *(1,) * (x.dim() - 2))
        return y if layer.bias is None else y + self.kernels[:, size:].view(shape).to(y.dtype)


def convolved(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """x, (B, C, ...), with one kernel per example, (B, *the layer's), as one grouped convolution:
    the examples are its groups."""
    count = x.shape[0]
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

"""The network of the style task, in the manner of Johnson et al. (ECCV 2016)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

START_CONTRAST = 0.5  # of the residual start; a painting has less contrast than a photograph


class Painter(nn.Module):
    """(B, 3, H, W) in [0, 1] to the same: down twice, residual blocks, up twice.

    Up is nearest neighbour, then a convolution, since transposed convolutions leave a chequered
    pattern. All borders are mirrored.
    """

    def __init__(self, width: int, blocks: int, norm: bool, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.body = nn.Sequential(
            OrderedDict(
                start=layer(3, width, 9, norm),
                down1=layer(width, 2 * width, 3, norm, stride=2),
                down2=layer(2 * width, 4 * width, 3, norm, stride=2),
                **{f"block{i + 1}": Residual(4 * width, norm) for i in range(blocks)},
                up1=layer(4 * width, 2 * width, 3, norm, up=True),
                up2=layer(2 * width, width, 3, norm, up=True),
            )
        )
        self.pixels = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        y = self.pixels(self.body(x - 0.5))[..., : x.shape[-2], : x.shape[-1]].float()
        if self.residual:
            y = y + 4 * START_CONTRAST * (x - 0.5)  # a sigmoid's slope is 1/4 in the middle
        return torch.sigmoid(y)


class Residual(nn.Module):
    """x plus two convolutions of it."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.first = layer(width, width, 3, norm)
        self.second = layer(width, width, 3, norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def layer(
    inside: int,
    outside: int,
    kernel: int,
    norm: bool,
    *,
    stride: int = 1,
    up: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """A convolution with what goes before and after it."""
    parts: dict[str, nn.Module] = {"up": nn.Upsample(scale_factor=2)} if up else {}
    parts["conv"] = nn.Conv2d(
        inside, outside, kernel, stride, padding=kernel // 2, padding_mode="reflect"
    )
    if norm:
        parts["norm"] = nn.InstanceNorm2d(outside, affine=True)
    if relu:
        parts["relu"] = nn.ReLU()
    return nn.Sequential(OrderedDict(parts))

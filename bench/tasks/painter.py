"""The network of the style task, in the manner of Johnson et al. (ECCV 2016), for one painting or
several."""

from __future__ import annotations

import functools
from collections import OrderedDict

import torch
from torch import Tensor, nn

START_CONTRAST = 0.5  # of the residual start; a painting has less contrast than a photograph


class Painter(nn.Module):
    """(B, 3, H, W) in [0, 1] to the same: down twice, residual blocks, up twice.

    Up is nearest neighbour, then a convolution, since transposed convolutions leave a chequered
    pattern. All borders are mirrored.

    paintings: how many. More than one stand behind each norm as a `Painted`, and every call then
    says per example what it is to look like: shares (B, paintings) that sum to one.
    """

    def __init__(
        self, width: int, blocks: int, norm: bool, residual: bool, paintings: int = 1
    ) -> None:
        super().__init__()
        self.residual = residual
        layer = functools.partial(convolved, norm=norm, paintings=paintings)
        inner = functools.partial(Residual, 4 * width, norm, paintings)
        self.body = Row(
            OrderedDict(
                start=layer(3, width, 9),
                down1=layer(width, 2 * width, 3, stride=2),
                down2=layer(2 * width, 4 * width, 3, stride=2),
                **{f"block{i + 1}": inner() for i in range(blocks)},
                up1=layer(4 * width, 2 * width, 3, up=True),
                up2=layer(2 * width, width, 3, up=True),
            )
        )
        self.pixels = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

    def forward(self, x: Tensor, shares: Tensor | None = None) -> Tensor:
        painted = self.body(x - 0.5, shares)
        y = self.pixels(painted)[..., : x.shape[-2], : x.shape[-1]].float()
        if self.residual:
            y = y + 4 * START_CONTRAST * (x - 0.5)  # a sigmoid's slope is 1/4 in the middle
        return torch.sigmoid(y)


class Row(nn.Sequential):
    """Layers one after the other, of which those that ask for them are told the shares."""

    def forward(self, x: Tensor, shares: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, shares) if isinstance(layer, Row | Residual | Painted) else layer(x)
        return x


class Painted(nn.Module):
    """A scale and a shift per painting and channel behind a norm: conditional instance norm
    (Dumoulin et al., "A Learned Representation for Artistic Style", ICLR 2017). An example that is
    a mixture of paintings has the mixture of their rows, as in the article.

    The norm keeps a scale and a shift of its own, though one row each would be redundant: (y · w
    + b) · s + t has no more to say than y · s' + t'. They are what all paintings share, and the
    place where coefficients steer and fold, the same layer for every method as with one painting;
    so a painting's row also scales what a coefficient does. Rows start at one and zero, so that
    training starts from the same picture for all, and differ with the first gradient.
    """

    def __init__(self, paintings: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(paintings, width))
        self.shift = nn.Parameter(torch.zeros(paintings, width))

    def forward(self, y: Tensor, shares: Tensor) -> Tensor:
        """(B, C, h, w) and shares (B, P) to (B, C, h, w)."""
        # Sums, no products of matrices: autocast would round those to bf16, as it would a scale.
        scale, shift = ((shares[..., None] * rows).sum(1) for rows in (self.scale, self.shift))
        wide = torch.addcmul(shift[..., None, None], y.to(scale.dtype), scale[..., None, None])
        return wide.to(y.dtype)


class Residual(nn.Module):
    """x plus two convolutions of it."""

    def __init__(self, width: int, norm: bool, paintings: int = 1) -> None:
        super().__init__()
        self.first = convolved(width, width, 3, norm=norm, paintings=paintings)
        self.second = convolved(width, width, 3, norm=norm, paintings=paintings, relu=False)

    def forward(self, x: Tensor, shares: Tensor | None = None) -> Tensor:
        return x + self.second(self.first(x, shares), shares)


def convolved(
    inside: int,
    outside: int,
    kernel: int,
    *,
    norm: bool,
    paintings: int,
    stride: int = 1,
    up: bool = False,
    relu: bool = True,
) -> Row:
    """A convolution with what goes before and after it."""
    parts: dict[str, nn.Module] = {"up": nn.Upsample(scale_factor=2)} if up else {}
    parts["conv"] = nn.Conv2d(
        inside, outside, kernel, stride, padding=kernel // 2, padding_mode="reflect"
    )
    if norm:
        parts["norm"] = nn.InstanceNorm2d(outside, affine=True)
    if norm and paintings > 1:
        parts["painted"] = Painted(paintings, outside)
    if relu:
        parts["relu"] = nn.ReLU()
    return Row(OrderedDict(parts))

"""Pairs of pictures whose deformation is known, and what is done with deformations.

A displacement u is (B, 2, H, W), in pixels: channel 0 along x (columns), channel 1 along y (rows).
It deforms pictures backwards, as everywhere in the field: `warp(moving, u)` at x shows `moving` at
x + u(x), and registration looks for the u with which that is `fixed`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Pictures
from bench.pictures.data import sent

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SEED = 0  # of the pairs that are measured


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Crops of pictures in grey, each with itself deformed: (B, 4, S, S), in the order `fixed`,
    `moving`, the two channels of the displacement by which `fixed` was made of `moving`.

    pictures: opened with `shrink` times the side S as their crop.
    shrink: the crops' mean over so many pixels a side is a pixel here: pictures at their full size
        are flat over most of so small a crop.
    count: pairs of each picture among `examples`; they are the same for every model.
    reach, waves: of the displacement; see `deformation`.
    noise: standard deviation of the noise on both pictures, independent, of pixels in [0, 1].
    """

    pictures: Pictures
    shrink: int
    count: int
    reach: float
    waves: int
    noise: float

    @property
    def digest(self) -> str:
        fields = f"{self.shrink} {self.count} {self.reach:g} {self.waves} {self.noise:g} {SEED}"
        return f"{self.pictures.digest}, crop {self.pictures.crop}, {fields}"

    def to(self, device: torch.device) -> Pairs:
        return replace(self, pictures=self.pictures.to(device))

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 4, S, S) float32 on the device: random crops, deformations and noise."""
        return self._deformed(self.pictures.batch(count, generator), generator)

    def examples(self) -> Iterator[tuple[str, Tensor]]:
        side = self.pictures.crop
        for number, (name, picture) in enumerate(self.pictures.examples()):
            seeded = torch.Generator().manual_seed(1000 * SEED + number)
            for k in range(self.count):
                places = zip(torch.rand(2, generator=seeded), picture.shape[-2:], strict=True)
                top, left = (int(place * (length - side + 1)) for place, length in places)
                crop = picture[..., top : top + side, left : left + side]
                yield f"{name}, pair {k}", self._deformed(crop, seeded)

    def _deformed(self, crops: Tensor, generator: torch.Generator) -> Tensor:
        side, device = crops.shape[-1] // self.shrink, crops.device
        moving = F.avg_pool2d((crops * _luma(device)).sum(1, keepdim=True), self.shrink)
        drawn = deformation(len(crops), side, self.reach, self.waves, generator)
        true = sent(drawn, device)
        clean = torch.cat([warp(moving, true), moving], 1)
        noise = sent(torch.randn(clean.shape, generator=generator), device)
        return torch.cat([clean + self.noise * noise, true], 1)


@functools.cache
def _luma(device: torch.device) -> Tensor:
    """The weights of the colours, (3, 1, 1)."""
    return torch.tensor(LUMA, device=device)[:, None, None]


def deformation(
    count: int, side: int, reach: float, waves: int, generator: torch.Generator
) -> Tensor:
    """Smooth random displacements that vanish on the frame: (count, 2, side, side) in pixels.

    Sums of sines of up to `waves` half-waves along x and y, normal coefficients that fall as
    1 / (k² + l²), of which the largest displacement is then made uniform over [0, reach].
    """
    sines = _sines(side, waves)
    drawn = torch.randn(count, 2, waves, waves, generator=generator)
    squares = torch.arange(1, waves + 1).square()
    field = sines.T @ (drawn / (squares[:, None] + squares)) @ sines
    largest = field.square().sum(1).amax((1, 2)).sqrt()
    wanted = reach * torch.rand(count, generator=generator)
    return field * (wanted / largest)[:, None, None, None]


@functools.lru_cache(maxsize=4)
def _sines(side: int, waves: int) -> Tensor:
    """(waves, side): sin(π k x / (side - 1)) for k from 1."""
    places = torch.arange(side, dtype=torch.float64) / (side - 1)
    numbers = torch.arange(1, waves + 1, dtype=torch.float64)[:, None]
    return (math.pi * numbers * places).sin().float()


def warp(moving: Tensor, displacement: Tensor) -> Tensor:
    """`moving` (B, C, H, W) at x + u(x), bilinear; outside the frame as at its nearest pixel."""
    height, width = moving.shape[-2:]
    u = displacement.float()
    x = u[:, 0] + torch.arange(width, device=u.device)
    y = u[:, 1] + torch.arange(height, device=u.device)[:, None]
    places = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(moving.float(), places, padding_mode="border", align_corners=True)


def roughness(displacement: Tensor) -> Tensor:
    """Mean squared gradient, (B,): forward differences of both channels along x, and along y."""
    u = displacement.float()
    along = [u.diff(dim=dim).square().flatten(1).mean(1) for dim in (-1, -2)]
    return 2 * (along[0] + along[1])  # the two channels' squares are added


def jacobian(displacement: Tensor) -> Tensor:
    """Determinant of the derivative of x + u(x) by forward differences, (B, H - 1, W - 1): where
    it is 0 or less, the deformation folds."""
    u = displacement.float()
    along_x, along_y = u.diff(dim=-1)[..., :-1, :], u.diff(dim=-2)[..., :-1]
    return (1 + along_x[:, 0]) * (1 + along_y[:, 1]) - along_x[:, 1] * along_y[:, 0]


def endpoint_error(displacement: Tensor, true: Tensor) -> Tensor:
    """Mean length of the difference of two displacements, in pixels: (B,)."""
    return (displacement - true).square().sum(1).sqrt().flatten(1).mean(1)

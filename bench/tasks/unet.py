"""The network of the registration task, in the manner of VoxelMorph (Balakrishnan et al., 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTRAST = 5.0  # the deviation of a crop's pixels is about a fifth of their range


class UNet(nn.Module):
    """Two pictures (B, 2, S, S) to a displacement (B, 2, S, S), predicted at half the side and
    enlarged, as VoxelMorph's may be; S is a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in ((2, w), (w, 2 * w), (2 * w, 2 * w))
        )
        self.up = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1)
            for i, o in ((2 * w, 2 * w), (4 * w, 2 * w), (3 * w, 2 * w))
        )
        self.displacement = nn.Conv2d(2 * w, 2, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        x, seen = CONTRAST * (pictures - pictures.mean((1, 2, 3), keepdim=True)), []
        for layer in self.down:
            x = F.leaky_relu(layer(x), 0.2)
            seen.append(x)
        x = F.leaky_relu(self.up[0](seen.pop()), 0.2)
        for layer in list(self.up)[1:]:
            x = torch.cat([F.interpolate(x, scale_factor=2.0), seen.pop()], 1)
            x = F.leaky_relu(layer(x), 0.2)
        return enlarged(self.displacement(x))


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x.float(), scale_factor=2.0, mode="bilinear", align_corners=False)

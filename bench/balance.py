"""The loss's share per coefficient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.space import Space


class Balance(nn.Module):
    """Weights that give every part of the range of coefficients the same share of the loss.

    The logarithm of the loss is followed as a sum of one running mean per axis and bin of that
    axis, learned while training goes on (`rate` a batch); an example is weighted with the inverse
    of what is expected for its coefficients, relative to the whole range.
    """

    low: Tensor
    length: Tensor
    table: Tensor
    offset: Tensor

    def __init__(self, space: Space, bins: int = 8, rate: float = 0.1) -> None:
        super().__init__()
        self.bins, self.rate = bins, rate
        low, high = space.log_bounds()
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("length", high - low, persistent=False)
        self.register_buffer("table", torch.zeros(len(space.axes), bins))
        self.register_buffer("offset", torch.full((), math.nan))

    @torch.no_grad()
    def forward(self, coefficients: Tensor, loss: Tensor) -> Tensor:
        """Weights (B,) for examples with these coefficients (B, K); learns from their loss (B,).
        A loss that is not positive has no logarithm and teaches nothing."""
        place = (coefficients.log() - self.low) / self.length
        bin_of = (place * self.bins).long().clamp(0, self.bins - 1).T.contiguous()  # (K, B)
        known = (loss > 0).float()
        logs = loss.clamp(min=1e-30).log()
        mean = (logs * known).sum() / known.sum().clamp(min=1)
        self.offset.copy_(torch.where(self.offset.isnan(), mean, self.offset))
        error = (logs - self.offset - self.table.gather(1, bin_of).sum(0)) * known
        # A step on the squared error of the sum, which axes and offset share.
        rate = self.rate / (len(self.table) + 1)
        sums = torch.zeros_like(self.table).scatter_add_(1, bin_of, error.expand(bin_of.shape))
        counts = torch.zeros_like(self.table).scatter_add_(1, bin_of, known.expand(bin_of.shape))
        self.table.add_(rate * sums / counts.clamp(min=1))
        # A bin's part is relative to its axis' mean, or parts and offset could drift apart.
        means = self.table.mean(1, keepdim=True)
        self.table.sub_(means)
        self.offset.add_(rate * error.mean() + means.sum())
        return torch.exp(-self.table.gather(1, bin_of).sum(0))

"""Measures: pure functions that give one number per example.

Pictures are (B, 3, H, W) float32 with values in [0, 1] unless said otherwise; results are (B,).
The last ones, about the codes of a whole data set, give one number in all. LPIPS needs weights
and lives in `bench/pictures/perceptual.py`. The examples are run as tests, after

    >>> grey, white = torch.full((1, 3, 176, 176), 0.5), torch.ones(1, 3, 176, 176)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Four halvings and an 11-pixel window have to fit: below, MS-SSIM is not defined.
MS_SSIM_MIN_SIDE = 161
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11  # pixels a side, of deviation 1.5


def to_8bit(x: Tensor) -> Tensor:
    """What an 8-bit file would hold: clamped to [0, 1] and rounded to the 256 levels k / 255.

    >>> to_8bit(torch.tensor([-1.0, 0.2004, 1.0])) * 255
    tensor([  0.,  51., 255.])
    """
    return x.clamp(0, 1).mul(255).round().div(255)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error over all channels and pixels, in the square of the pictures' unit.

    >>> mse(grey, white)
    tensor([0.2500])
    """
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB: of the error over all channels jointly, not the mean of
    the channels' ratios. Infinite for equal pictures.

    >>> psnr(grey, white)
    tensor([6.0206])
    """
    return 10 * torch.log10(peak**2 / mse(x, y))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity (five scales), 1 for equal pictures; NaN for pictures of
    160 pixels or fewer on a side, where it is not defined.

    Wang et al., Asilomar 2003. On a CPU the same bits as `pytorch_msssim`'s of contiguous
    pictures, in a quarter of its time: the five windowed means are one convolution, of rows that
    fit the cache.

    >>> ms_ssim(grey, grey), ms_ssim(grey[..., :160], grey[..., :160])
    (tensor([1.]), tensor([nan]))
    """
    if min(x.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return x.new_full(x.shape[:1], math.nan)
    x, y = x.contiguous(), y.contiguous()  # sums do not depend on the layout then
    last, levels = len(MS_SSIM_WEIGHTS) - 1, []
    for level in range(last + 1):
        if level > 0:
            odd = [side % 2 for side in x.shape[2:]]
            x, y = F.avg_pool2d(x, 2, padding=odd), F.avg_pool2d(y, 2, padding=odd)
        rows = x.shape[2] - WINDOW + 1
        strip = 32 if x.device.type == "cpu" else rows
        parts = []
        for top in range(0, rows, strip):
            seen = slice(top, top + strip + WINDOW - 1)
            parts.append(_similarity(x[:, :, seen], y[:, :, seen], luminance=level == last))
        levels.append(torch.cat(parts, 2).flatten(2).mean(-1).relu())
    weights = x.new_tensor(MS_SSIM_WEIGHTS)[:, None, None]
    return (torch.stack(levels) ** weights).prod(0).mean(1)


def _similarity(x: Tensor, y: Tensor, luminance: bool) -> Tensor:
    """SSIM of every window inside (B, C, H, W), or without `luminance` its contrast and structure
    alone: (B, C, H - 10, W - 10)."""
    means = torch.cat([x, y, x * x, y * y, x * y], 1)
    window = torch.exp(-((torch.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).to(x).repeat(means.shape[1], 1, 1, 1)
    for direction in (window.transpose(2, 3), window):
        means = F.conv2d(means, direction, groups=means.shape[1])
    of_x, of_y, of_xx, of_yy, of_xy = means.chunk(5, 1)
    xx, yy, xy = of_x**2, of_y**2, of_x * of_y
    small, smaller = 0.01**2, 0.03**2
    structure = (2 * (of_xy - xy) + smaller) / ((of_xx - xx) + (of_yy - yy) + smaller)
    return (2 * xy + small) / (xx + yy + small) * structure if luminance else structure


def kl_to_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """KL divergence of the normal (mean, std) from the standard normal, in nats, summed over all
    dimensions but the first.

    >>> kl_to_standard_normal(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.5000])
    """
    return (0.5 * (mean.square() + std.square() - 1) - std.log()).flatten(1).sum(1)


def gaussian_nll(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """-log p(x) under independent normals, in nats, summed over all dimensions but the first.

    A density: it falls below zero where std is small. `std` broadcasts against x.

    >>> gaussian_nll(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor(0.1))
    tensor([-2.7673])
    """
    nll = 0.5 * ((x - mean) / std).square() + std.log() + 0.5 * math.log(2 * math.pi)
    return nll.flatten(1).sum(1)


def bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
    """-log p(x) of values in [0, 1] under independent Bernoullis, in nats, summed over all
    dimensions but the first.

    >>> bernoulli_nll(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))  # twice log 2
    tensor([1.3863])
    """
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return nll.flatten(1).sum(1)


def active_units(codes: Tensor, threshold: float = 0.01) -> int:
    """How many latents follow the picture: the variance over pictures of the posterior's mean
    exceeds the threshold (Burda et al., ICLR 2016). codes: (N, latents).

    >>> active_units(torch.tensor([[1.0, 0.02], [-1.0, -0.02]]))
    1
    """
    return int((codes.var(0) > threshold).sum())


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    """How much better the best latent tells a known factor than the second best, relative to the
    factor's entropy, mean over factors; 0 to 1 (Chen et al., NeurIPS 2018).

    codes: (N, latents), cut into bins of equal width between each latent's extremes, as is usual
    where the codes are posterior means (Locatello et al., ICML 2019). factors: (N, K) whole
    numbers from 0. The estimate is biased upwards for few pictures: give a thousand or more.

    >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    >>> round(mutual_information_gap(factors.float(), factors), 6)  # one latent a factor
    1.0
    """
    low, high = codes.min(0).values, codes.max(0).values
    width = torch.where(high > low, high - low, torch.ones_like(high))
    cut = ((codes - low) / width * bins).long().clamp(0, bins - 1)
    gaps = []
    for factor in factors.to(cut.device).unbind(1):
        kinds = int(factor.max()) + 1
        shares = torch.bincount(factor, minlength=kinds).double() / len(factor)
        entropy = torch.special.entr(shares).sum()
        if entropy == 0:
            raise ValueError("a factor that never changes has no information to be told")
        information = []
        for latent in cut.unbind(1):
            counts = torch.bincount(latent * kinds + factor, minlength=bins * kinds)
            joint = counts.double().view(bins, kinds) / len(factor)
            of_latent = torch.special.entr(joint.sum(1)).sum()
            information.append(of_latent + entropy - torch.special.entr(joint).sum())
        best, second = torch.stack(information).sort(descending=True).values[:2]
        gaps.append((best - second) / entropy)
    return float(torch.stack(gaps).mean())

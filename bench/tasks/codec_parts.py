"""CompressAI's codecs in pieces that run alone, without Python: what `export` writes of them.

Entropy coding itself is no part of any: its tables and range coder are CompressAI's, in Python and
C++. `codec` gives the bits that it would write, estimated from the likelihoods.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench import Part
from bench.tasks.codec import bits

TRACED = (128, 192)  # size of the first picture: z has a side of two or more, not of a special one
SIZES = ((64, 128), (128, 64))  # of the others
PADDED = (
    "Sides are multiples of {0}: repeat the last row and column before, cut after; the bits of a "
    "padded picture count. "
)
# Numerical Recipes (3rd edition, 6.2.2): erfc(z) = t exp(-z² + P(t)), t = 1 / (1 + z / 2), to a
# relative error of 1.2e-7 for all z >= 0; coefficients of P, from that of t^9 down.
ERFC = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)


def erfc(x: Tensor) -> Tensor:
    """The complementary error function from products and one exponential.

    ONNX has `Erf` alone, and 1 - erf is all rounding where a latent is unlikely, so where it costs
    many bits.
    """
    z = x.abs()
    t = 1 / (1 + z / 2)
    polynomial = torch.full_like(t, ERFC[0])
    for coefficient in ERFC[1:]:
        polynomial = polynomial * t + coefficient
    tail = t * torch.exp(polynomial - z * z)
    return torch.where(x >= 0, tail, 2 - tail)


def cumulative(x: Tensor) -> Tensor:
    """The standard normal's cumulative distribution function."""
    return 0.5 * erfc(x * -(2**-0.5))


class Analysis(nn.Module):
    """x to the latents y and, with a hyperprior, z; neither is rounded."""

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.g_a, self.h_a = codec.g_a, getattr(codec, "h_a", None)
        self.absolute = not predicts_means(codec)

    def forward(self, x: Tensor) -> Any:
        y = self.g_a(x)
        return y if self.h_a is None else (y, self.h_a(y.abs() if self.absolute else y))


class Hyper(nn.Module):
    """The rounded z to the deviations of y and, of a mean-scale hyperprior, its means."""

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.h_s, self.means = codec.h_s, predicts_means(codec)

    def forward(self, z_hat: Tensor) -> Any:
        given = self.h_s(z_hat)
        return tuple(given.chunk(2, 1)) if self.means else given


class Whole(nn.Module):
    """A codec's pass in evaluation mode: x to x_hat and the estimated bits per picture, (B,)."""

    def __init__(self, codec: Any, exportable: bool) -> None:
        super().__init__()
        self.codec, self.exportable = codec, exportable

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normal = getattr(self.codec, "gaussian_conditional", None)
        if self.exportable and normal is not None:
            normal._standardized_cumulative = cumulative
        try:
            out = self.codec(x)
        finally:
            if normal is not None:
                normal.__dict__.pop("_standardized_cumulative", None)
        return out["x_hat"], bits(out["likelihoods"])


def predicts_means(codec: Any) -> bool:
    from compressai.models import MeanScaleHyperprior

    return isinstance(codec, MeanScaleHyperprior)


def codec_parts(codec: Any) -> dict[str, Part]:
    """The pieces of a codec: `codec`, `analysis`, `synthesis` and, with a hyperprior, `hyper`.

    The medians about which z is rounded are solved for first, as before measuring.
    """
    codec.update(force=True, update_quantiles=True)
    multiple = int(codec.downsampling_factor)
    step = 2 ** sum(isinstance(layer, nn.Conv2d) for layer in codec.g_a)  # of y, in pixels
    free = {0: "batch", 2: "height", 3: "width"}
    padded = PADDED.format(multiple)

    def picture(number: int) -> dict[str, Tensor]:
        """Smooth colours with some noise, in [0, 1]."""
        seeded = torch.Generator().manual_seed(number)
        small = torch.rand(1, 3, 5, 5, generator=seeded)
        size = SIZES[number % len(SIZES)] if number else TRACED
        smooth = nn.functional.interpolate(small, size, mode="bicubic", align_corners=True)
        return {"x": (smooth + 0.02 * torch.randn(1, 3, *size, generator=seeded)).clamp(0, 1)}

    @torch.no_grad()
    def latents(number: int) -> dict[str, Tensor]:
        return {"y_hat": codec.g_a(picture(number)["x"]).round()}

    @torch.no_grad()
    def side(number: int) -> dict[str, Tensor]:
        return {"z_hat": Analysis(codec)(picture(number)["x"])[1].round()}

    hyper = hasattr(codec, "h_s")
    reference = Whole(codec, exportable=False).eval()
    parts = {
        "codec": Part(
            module=Whole(codec, exportable=True).eval(),
            examples=picture,
            outputs=("x_hat", "bits"),
            free={"x": free},
            multiples={"height": multiple, "width": multiple},
            reference=reference,
            line=f"x: RGB in [0, 1]. {padded}Gives the decoded picture, to be cut to [0, 1], and "
            "the bits per picture as the likelihoods estimate them, rounding included; nothing is "
            "entropy coded. A latent that lies within the arithmetic's error of a half may be "
            "rounded the other way than by PyTorch.",
        ),
        "analysis": Part(
            module=Analysis(codec).eval(),
            examples=picture,
            outputs=("y", "z") if hyper else ("y",),
            free={"x": free},
            multiples={"height": multiple, "width": multiple},
            line=f"x: RGB in [0, 1]. {padded}Gives latents before they are rounded; entropy coding "
            "stays in Python, with CompressAI.",
        ),
        "synthesis": Part(
            module=codec.g_s,
            examples=latents,
            outputs=("x_hat",),
            free={"y_hat": free},
            line=f"y_hat: rounded latents, 1/{step} of the picture's sides. Gives the decoded "
            "picture, to be cut to [0, 1].",
        ),
    }
    if hyper:
        parts["hyper"] = Part(
            module=Hyper(codec).eval(),
            examples=side,
            outputs=("scales", "means") if predicts_means(codec) else ("scales",),
            free={"z_hat": free},
            constants={"medians": codec.entropy_bottleneck._get_medians().flatten().tolist()},
            line="z_hat: z rounded about the medians of its channels. Gives the deviations "
            "of y, which are at least 0.11 where they are used"
            + (", and the means that y is rounded about." if predicts_means(codec) else "."),
        )
    return parts

"""CompressAI's codecs in pieces that run alone, without Python: what `export` writes of them.

Entropy coding itself is no part of any: its tables and range coder are CompressAI's, in Python and
C++. `codec` gives the bits that it would write, estimated from the likelihoods.
"""

from __future__ import annotations

import dataclasses
import functools
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


class Live(nn.Module):
    """x to the decoded picture, and to the measures that follow from it and the likelihoods."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x_hat, bits = self.whole(x)
        picture = x_hat.clamp(0, 1)
        seen = (255 * picture).round() / 255
        error = (seen - x).square().mean((1, 2, 3))
        rate = bits / (x.shape[-2] * x.shape[-1])
        return picture, rate, -10 * error.log10(), 255**2 * error


def live_part(codec: Any) -> Part:
    """See `Showing.live`."""
    whole = codec_parts(codec)["codec"]
    return dataclasses.replace(
        whole,
        module=Live(whole.module).eval(),
        reference=Live(Whole(codec, exportable=False)).eval(),
        outputs=("picture", "bpp_estimated", "psnr", "distortion"),
    )


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


CODEC = (
    "x: RGB in [0, 1]. {0}Gives the decoded picture, to be cut to [0, 1], and the bits per picture "
    "as the likelihoods estimate them, rounding included; nothing is entropy coded. A latent that "
    "lies within the arithmetic's error of a half may be rounded the other way than by PyTorch."
)
ANALYSIS = (
    "x: RGB in [0, 1]. {0}Gives latents before they are rounded; entropy coding stays in Python, "
    "with CompressAI."
)
SYNTHESIS = (
    "y_hat: rounded latents, 1/{0} of the picture's sides. Gives the decoded picture, to be cut to "
    "[0, 1]."
)
HYPER = (
    "z_hat: z rounded about the medians of its channels. Gives the deviations of y, which are at "
    "least 0.11 where they are used"
)


def picture(number: int) -> dict[str, Tensor]:
    """Smooth colours with some noise, in [0, 1]: (1, 3, H, W), called x."""
    seeded = torch.Generator().manual_seed(number)
    small = torch.rand(1, 3, 5, 5, generator=seeded)
    size = SIZES[number % len(SIZES)] if number else TRACED
    smooth = nn.functional.interpolate(small, size, mode="bicubic", align_corners=True)
    return {"x": (smooth + 0.02 * torch.randn(1, 3, *size, generator=seeded)).clamp(0, 1)}


def codec_parts(codec: Any) -> dict[str, Part]:
    """The pieces of a codec: `codec`, `analysis`, `synthesis` and, with a hyperprior, `hyper`; of a
    method's own class, which may do more between its transforms, `codec` alone.

    The medians about which z is rounded are solved for first, as before measuring.
    """
    codec.update(force=True, update_quantiles=True)
    multiple = int(codec.downsampling_factor)
    step = 2 ** sum(isinstance(layer, nn.Conv2d) for layer in codec.g_a)  # of y, in pixels
    free = {0: "batch", 2: "height", 3: "width"}
    padded, hyper = PADDED.format(multiple), hasattr(codec, "h_s")
    pixels: dict[str, Any] = {
        "examples": picture,
        "free": {"x": free},
        "multiples": {"height": multiple, "width": multiple},
    }

    @torch.no_grad()
    def rounded(name: str, place: int, number: int) -> dict[str, Tensor]:
        given = Analysis(codec)(picture(number)["x"])
        latents = (given,) if isinstance(given, Tensor) else given
        return {name: latents[place].round()}

    parts = {
        "codec": Part(
            module=Whole(codec, exportable=True).eval(),
            outputs=("x_hat", "bits"),
            reference=Whole(codec, exportable=False).eval(),
            line=CODEC.format(padded),
            **pixels,
        ),
        "analysis": Part(
            module=Analysis(codec).eval(),
            outputs=("y", "z") if hyper else ("y",),
            line=ANALYSIS.format(padded),
            **pixels,
        ),
        "synthesis": Part(
            module=codec.g_s,
            examples=functools.partial(rounded, "y_hat", 0),
            outputs=("x_hat",),
            free={"y_hat": free},
            line=SYNTHESIS.format(step),
        ),
    }
    if not type(codec).__module__.startswith("compressai."):
        return {"codec": parts["codec"]}
    if hyper:
        means = predicts_means(codec)
        parts["hyper"] = Part(
            module=Hyper(codec).eval(),
            examples=functools.partial(rounded, "z_hat", 1),
            outputs=("scales", "means") if means else ("scales",),
            free={"z_hat": free},
            constants={"medians": codec.entropy_bottleneck._get_medians().flatten().tolist()},
            line=HYPER + (", and the means that y is rounded about." if means else "."),
        )
    return parts

"""What the compression task adds to CompressAI's codecs: entropy models that stay in fp32, a GDN
that does not, transforms computed once per picture, and a start as a linear transform code
(`pca_start`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Task

TRANSFORMS = ("g_a", "h_a", "h_s", "g_s")


@contextlib.contextmanager
def remembering(codec: Any) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """While it lasts, each of a codec's transforms keeps its last input and output, by name in
    what is yielded, and gives the output again for an input with equal values.

    Coding, decoding and the forward pass of one picture then compute the analysis once, and the
    synthesis once where the decoder has found the encoder's latents.
    """
    known: dict[str, tuple[Tensor, Tensor]] = {}
    transforms = {name: getattr(codec, name) for name in TRANSFORMS if hasattr(codec, name)}

    def once(name: str, transform: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if name not in known or not torch.equal(known[name][0], x):
            given = x.clone()  # clones, since both sides may be changed in place
            known[name] = given, transform(x)
        return known[name][1].clone()

    for name, transform in transforms.items():
        transform.forward = functools.partial(once, name, transform.forward)
    try:
        yield known
    finally:
        for transform in transforms.values():
            del transform.forward  # the class's own shows again


def bits(likelihoods: dict[str, Tensor]) -> Tensor:
    """Estimated bits per example, all latents together: (B,)."""
    return torch.stack([-value.log2().flatten(1).sum(1) for value in likelihoods.values()]).sum(0)


def pad(pictures: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of `multiple`."""
    height, width = pictures.shape[-2:]
    return F.pad(pictures, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def in_mixed_precision(codec: nn.Module) -> None:
    """Keep the entropy models of a CompressAI codec, and what its transforms give them, in fp32
    under autocast, in place, and its normalisations in half precision (`Divided`).

    The factorized bottleneck's forward is written anew with the same result and, for contiguous
    input, the same random numbers: the library's builds a permutation on the device and reads it
    back, which waits for the device in every step and breaks a compiled graph. The scales' places
    in the coder's table are searched for, with the same result as the library's loop over it.
    """
    gdn, half_gdn = _half_gdn()
    for module in codec.modules():
        for plain, ours in (*_fp32_entropy_models(), (gdn, half_gdn)):
            if type(module) is plain:
                module.__class__ = ours
    kinds = {nn.Conv2d: Fp32Conv2d, nn.ConvTranspose2d: Fp32ConvTranspose2d}
    for name in TRANSFORMS:
        layers = [layer for layer in getattr(codec, name, ()) if type(layer) in kinds]
        for last in layers[-1:]:
            last.__class__ = kinds[type(last)]
        before: list[Any] = list(getattr(codec, name, ()))[-2:-1]
        for norm in before:
            if isinstance(norm, half_gdn) and not norm.inverse:
                norm.wide = True  # as autocast gives it to a layer that takes fp32


class _Fp32(nn.Module):
    """Before a layer's class: its output is fp32 under autocast, too."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())  # type: ignore[misc]


class Fp32Conv2d(_Fp32, nn.Conv2d):
    """Latents are rounded to whole numbers, and bf16 has none but even ones from 256 on."""


class Fp32ConvTranspose2d(_Fp32, nn.ConvTranspose2d):  # type: ignore[misc]
    """The same for pixels, of which bf16 has 128 levels between a half and one."""


@functools.cache
def _fp32_entropy_models() -> list[tuple[type, type]]:
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional

    class Fp32Bottleneck(EntropyBottleneck):
        def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
            training = self.training if training is None else training
            with torch.autocast(x.device.type, enabled=False):
                by_channel = x.float().transpose(0, 1)
                values = by_channel.reshape(len(by_channel), 1, -1)
                mode = "noise" if training else "dequantize"
                outputs = self.quantize(values, mode, self._get_medians())
                likelihood, _, _ = self._likelihood(outputs)
                if self.use_likelihood_bound:
                    likelihood = self.likelihood_lower_bound(likelihood)
                return tuple(  # type: ignore[return-value]
                    part.reshape(by_channel.shape).transpose(0, 1).contiguous()
                    for part in (outputs, likelihood)
                )

    class Fp32Conditional(GaussianConditional):
        def forward(
            self, inputs: Tensor, scales: Tensor, means: Any = None, training: Any = None
        ) -> tuple[Tensor, Tensor]:
            with torch.autocast(inputs.device.type, enabled=False):
                means = None if means is None else means.float()
                return super().forward(inputs.float(), scales.float(), means, training)

        def build_indexes(self, scales: Tensor) -> Tensor:
            steps = self.scale_table[:-1].to(scales)
            return torch.bucketize(self.lower_bound_scale(scales), steps, out_int32=True)

    return [(EntropyBottleneck, Fp32Bottleneck), (GaussianConditional, Fp32Conditional)]


@functools.cache
def _half_gdn() -> tuple[Any, Any]:
    from compressai.layers import GDN

    class HalfGDN(GDN):
        wide = False  # whether it gives fp32

        def forward(self, x: Tensor) -> Tensor:
            if not torch.is_autocast_enabled(x.device.type):
                return super().forward(x)
            half = torch.get_autocast_dtype(x.device.type)
            beta, gamma = self.beta_reparam(self.beta), self.gamma_reparam(self.gamma)
            parts = x.to(half), gamma[:, :, None, None].to(half), beta.to(half)
            return Divided.apply(*parts, self.inverse, self.wide)

    return GDN, HalfGDN


class Divided(torch.autograd.Function):
    """CompressAI's GDN, x / sqrt(beta + gamma x²), or the product (`inverse`), of x in half
    precision. It gives what the next layer sees of that GDN under autocast on a GPU, to the bit,
    and gradients with errors of that size.

    Autocast has powers and roots in fp32, and whatever is made of them: 177 bytes a number there
    and back instead of 73 (inverse: 111 and 59), half of all that a codec's training step moves. In
    fp32 are the root of the division alone, which would be rounded twice, and, where `wide`, the
    result.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, inverse: bool, wide: bool
    ) -> Tensor:
        squares = x * x
        norm = F.conv2d(squares, gamma, beta)
        factor = norm.sqrt() if inverse else norm.float().rsqrt()
        out = x * factor if wide else torch.mul(x, factor, out=torch.empty_like(x))
        ctx.save_for_backward(x, gamma, squares, norm, factor, out)
        ctx.inverse = inverse
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, squares, norm, factor, out = ctx.saved_tensors
        # Twice the gradient of the norm, of the other sign where it divides.
        product, by = (gradient * x, factor) if ctx.inverse else (gradient * out, norm)
        to_norm = torch.div(product, by, out=torch.empty_like(x))
        layout = [len(gamma)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True]
        to_squares, to_gamma, to_beta = torch.ops.aten.convolution_backward(
            to_norm, squares, gamma, *layout
        )
        sign = 1 if ctx.inverse else -1
        direct = torch.mul(gradient, factor, out=torch.empty_like(x))
        to_x = torch.addcmul(direct, x, to_squares, value=sign)
        return to_x, sign / 2 * to_gamma, sign / 2 * to_beta, None, None


GAIN = 2.0  # the first latents' size against the quantiser's unit step
GAMMA = 0.01 / GAIN**2  # of GDN at the start, times the identity, instead of 0.1


def pca_start(codec: Any, code: TransformCode, seed: int) -> None:
    """Set a codec's transforms to a linear transform code of training pictures, in place.

    Level by level, from the pixels inwards: the principal components of the 2x2 blocks of the
    layer's input (leading ones first) become the centre 2x2 taps of the 5x5 analysis kernel, their
    transposes those of the mirrored synthesis kernel; all other taps and biases are zero but for
    the mean at the pixels. Channels beyond the number of components get small noise from `seed` on
    the analysis side only, so that they can learn without disturbing the reconstruction. Three
    things make it a codec, not only an autoencoder:
    - GAIN lies at the pixels. Adam moves every weight by about the same amount, so the small
      weights of the inner layers can change the gain quickly, which low and high λ need in
      opposite directions.
    - GDN starts close to the identity (GAMMA): otherwise analysis and synthesis are no inverses.
    - The hyperprior's last bias starts at each latent's standard deviation, the best constant
      scale, and its last weights at a tenth.
    """
    from compressai.layers import GDN

    analysis: list[Any] = [layer for layer in codec.g_a if isinstance(layer, nn.Conv2d)]
    synthesis: list[Any] = [part for part in codec.g_s if isinstance(part, nn.ConvTranspose2d)]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in codec.modules():
            if isinstance(layer, GDN):
                gamma = GAMMA * torch.eye(len(layer.beta))
                layer.gamma.copy_(layer.gamma_reparam.init(gamma))
        for level, (layer, inverse, taps) in enumerate(
            zip(analysis, reversed(synthesis), code.taps, strict=True)
        ):
            count, inputs = taps.shape[:2]
            scale = GAIN if level == 0 else 1.0
            for weight in (layer.weight, layer.bias, inverse.weight, inverse.bias):
                weight.zero_()
            noise = torch.randn(layer.weight[count:].shape, generator=generator)
            layer.weight[:count, :inputs, 2:4, 2:4] = taps * scale
            layer.weight[count:] = 0.01 * noise
            inverse.weight[:count, :inputs, 2:4, 2:4] = taps / scale
            if level == 0:
                layer.bias.copy_(-(layer.weight.sum((2, 3)) @ code.mean))
                inverse.bias.copy_(code.mean)
        if hasattr(codec, "h_s"):
            last: Any = [layer for layer in codec.h_s if isinstance(layer, nn.Conv2d)][-1]
            last.bias.zero_()
            # Scales come first; means, if any, behind them.
            last.bias[: len(code.spread)] = code.spread
            last.weight.mul_(0.1)


@dataclass(frozen=True)
class TransformCode:
    """A linear transform code: the pixels' mean (3,), the 2x2 kernels of every level, each
    (out, in, 2, 2), and the standard deviation of every output of the last."""

    mean: Tensor
    taps: list[Tensor]
    spread: Tensor


@functools.lru_cache(maxsize=2)
def start_code(task: Task, widths: tuple[int, ...]) -> TransformCode:
    """The transform code of a task's training crops, worked out once for all its networks."""
    crops = task.data("train").batch(256, torch.Generator().manual_seed(0))
    return transform_code(crops, widths)


def transform_code(crops: Tensor, widths: tuple[int, ...]) -> TransformCode:
    """The principal components of (B, 3, H, W) crops in [0, 1], sides a multiple of 16.

    widths: the most components of each level. Between levels the signal is divided by
    sqrt(1 + GAMMA · x²), as GDN does at the start.
    """
    mean = crops.mean((0, 2, 3))
    x, taps = GAIN * (crops - mean[:, None, None]), []
    for level, width in enumerate(widths):
        taps.append(components(x)[:width])
        x = F.conv2d(x, taps[-1], stride=2)
        if level < len(widths) - 1:
            x = x * torch.rsqrt(1 + GAMMA * x.square())
    return TransformCode(mean, taps, x.std((0, 2, 3)))


def components(x: Tensor) -> Tensor:
    """Principal components of the 2x2 blocks of x, (B, C, H, W): (4 C, C, 2, 2), leading first."""
    blocks = F.unfold(x, 2, stride=2).transpose(1, 2).flatten(0, 1).double()
    vectors = torch.linalg.eigh(blocks.T @ blocks).eigenvectors.flip(1).T
    # The sign of an eigenvector is the library's whim: let the largest entry be positive.
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign()).float().reshape(-1, x.shape[1], 2, 2)

"""Learned image compression: rate against distortion, with real coded bytes.

    python run_bench.py run compression                       minutes on two CPU cores
    python run_bench.py run compression --preset small --train-data DIR --test-data DIR
    python run_bench.py run "compression[width=32,training.steps=4000]"

The codecs are CompressAI's own classes, unmodified: Ballé et al.'s scale hyperprior (ICLR 2018),
Minnen et al.'s mean-scale hyperprior (NeurIPS 2018) and the factorized prior. The loss is
λ · 255² · MSE + bpp, pixels in [0, 1]; λ is the coefficient of the term `distortion`.

`start="pca"` begins with a linear transform code instead of random weights, so that a few hundred
steps suffice for a rate-distortion trade-off that is worth looking at; see `pca_start`.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.modulation import BEFORE
from bench.pictures import measures
from bench.pictures.data import Pictures, photographs
from bench.pictures.perceptual import lpips, lpips_missing
from bench.space import Axis, Space
from bench.task import LOCATION, Measure, Preset, Task, Training

CODECS = {
    "scale_hyperprior": "ScaleHyperprior",
    "mean_scale_hyperprior": "MeanScaleHyperprior",
    "factorized_prior": "FactorizedPrior",
}


@dataclass(frozen=True, kw_only=True)
class Compression(Task):
    """codec: one of CODECS. width, latents: its N and M. crop: side of the training crops.
    start: "pca", or "library" for CompressAI's own random weights.
    train_data, test_data: folders of pictures; "" takes scikit-image's photographs.
    validation_data: a folder of pictures to choose by; there is none by default.
    """

    name: ClassVar[str] = "compression"
    version: ClassVar[int] = 2  # 1: the start's noise was the same for every seed
    line: ClassVar[str] = "Ballé et al.'s codec: λ · 255² · MSE + bpp, bytes really coded"
    terms: ClassVar[tuple[str, ...]] = ("bpp", "distortion")
    measures: ClassVar[dict[str, Measure]] = {
        "bpp": Measure(label="rate, coded", unit="bpp", better="lower", margin="1%", worst=4.0),
        "bpp_estimated": Measure(
            label="rate, estimated", unit="bpp", better="lower", margin="1%", estimates="bpp"
        ),
        "psnr": Measure(
            label="PSNR", unit="dB", better="higher", digits=2, margin="0.05", worst=15.0
        ),
        "ms_ssim": Measure(label="MS-SSIM", better="higher", digits=4, margin="0.001", worst=0.6),
        "lpips": Measure(
            label="LPIPS (AlexNet, v0.1)", better="lower", digits=4, margin="0.005", worst=0.8
        ),
        "distortion": Measure(label="255² · MSE", better="lower", digits=1, margin="1%"),
    }
    sample_line: ClassVar[str] = "Decoded, at the pixels' own size."
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (
        ("bpp", "psnr"),
        ("bpp", "ms_ssim"),
        ("bpp", "lpips"),
    )

    codec: str = "scale_hyperprior"
    width: int
    latents: int
    crop: int
    start: str = "pca"
    low: float = 0.0018
    high: float = 0.18
    training: Training
    train_data: str = field(default="", metadata=LOCATION)
    test_data: str = field(default="", metadata=LOCATION)
    validation_data: str = field(default="", metadata=LOCATION)

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec {self.codec!r}: use one of {', '.join(CODECS)}")
        if self.start not in ("pca", "library"):
            raise ValueError(f'start {self.start!r}: use "pca" or "library"')

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        quick = cls(
            width=64,
            latents=192,
            crop=128,  # at 64 the hyperprior sees one latent and never learns from neighbours
            training=Training(
                steps=800, batch=2, lr=8e-4, warmup=0.1, clip=1.0, channels_last=True
            ),
        )
        smoke = replace(
            quick,
            width=8,
            latents=12,
            crop=64,
            training=Training(steps=4, batch=2, lr=5e-4, clip=1.0),
        )
        small = replace(
            quick,
            width=128,
            latents=192,
            crop=128,
            training=Training(
                steps=20_000,
                batch=16,
                lr=3e-4,
                warmup=0.05,
                clip=1.0,
                precision="bf16",
                channels_last=True,
            ),
        )
        paper = replace(
            small,
            crop=256,
            start="library",
            training=Training(
                steps=2_000_000,
                batch=16,
                lr=1e-4,
                schedule="halving",
                milestones=(0.8, 0.9),
                clip=1.0,
                precision="bf16",
                channels_last=True,
                compile=True,
            ),
        )
        # Between the published 0.01 and 0.1, which belong to other tasks; best of 0.01, 0.03, 0.05
        # and 0.1 for quick on photographs that are neither trained nor tested on.
        methods: dict[str, dict[str, Any]] = {"yoto": {"multiplier": 0.03}}
        three = (0, 1, 2)

        halves: Any = {"lengths": (0.25, 0.5, 1.0)}
        wants: Any = {"wants": ("train_data", "test_data")}

        def size(
            task: Compression, settings: int, seeds: tuple[int, ...], line: str, **fields: Any
        ) -> Preset:
            return Preset(
                task=task, settings=settings, seeds=seeds, line=line, methods=methods, **fields
            )

        return {
            "smoke": size(smoke, 2, (0,), "seconds, for tests"),
            "quick": size(quick, 5, (0,), "minutes on two CPU cores"),
            "small-cpu": size(
                quick.lasting(2), 5, three, "small, reduced: hours on two CPU cores", **wants
            ),
            "small": size(small, 5, three, "under an hour on one GPU", **wants),
            "paper": size(paper, 8, three, "width 128/192, days on one GPU", **halves, **wants),
            "paper-wide": size(
                replace(paper, width=192, latents=320),
                8,
                three,
                "width 192/320, days on one GPU",
                **halves,
                **wants,
            ),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="distortion", low=self.low, high=self.high, symbol="λ"),))

    def model(self) -> nn.Module:
        import compressai.models

        codec = getattr(compressai.models, CODECS[self.codec])(self.width, self.latents)
        in_full_precision(codec)
        return codec

    def initialise(self, model: Any) -> None:
        if self.start == "pca":
            widths = (layer.out_channels for layer in model.g_a if isinstance(layer, nn.Conv2d))
            pca_start(model, start_code(self, tuple(widths)), torch.initial_seed())

    def sites(self, model: Any) -> list[str]:
        """Every convolution but the last of the synthesis, whose output are the pixels."""
        kinds, last = (nn.Conv2d, nn.ConvTranspose2d), f"g_s.{len(model.g_s) - 1}"
        return [n for n, layer in model.named_modules() if isinstance(layer, kinds) and n != last]

    def entrances(self, model: Any) -> list[str]:
        parts = [part for part in ("g_a", "g_s", "h_a", "h_s") if hasattr(model, part)]
        return [f"{part}.0" for part in parts]

    def scaling(self, model: Any) -> dict[str, tuple[float, ...]]:
        """At high rates the best step of a quantiser is proportional to λ^-1/2: the distortion of
        a step Δ is Δ² / 12, its rate falls as log Δ. So latents grow as λ^1/2, the synthesis and
        the hyperprior see what they would at the middle, and predicted deviations grow, too."""
        if not hasattr(model, "h_a"):  # a learned density of the latents cannot be scaled
            return {}
        last = max(i for i, layer in enumerate(model.h_s) if isinstance(layer, nn.Conv2d))
        return {
            f"g_a.{len(model.g_a) - 1}": (0.5,),
            f"{BEFORE}g_s.0": (-0.5,),
            f"{BEFORE}h_a.0": (-0.5,),
            f"h_s.{last}": (0.5,),
        }

    def wider(self, factor: float) -> Compression:
        return replace(self, width=round(factor * self.width), latents=round(factor * self.latents))

    def data(self, split: str) -> Pictures:
        folders = {"train": self.train_data, "test": self.test_data}
        folder = {**folders, "validation": self.validation_data}[split]
        crop = self.crop if split == "train" else 0
        return Pictures.folder(Path(folder), crop) if folder else photographs(split, crop)

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        out = model(batch)
        pixels = batch.shape[-2] * batch.shape[-1]
        return {
            "bpp": bits(out["likelihoods"]) / pixels,
            "distortion": 255**2 * measures.mse(out["x_hat"].float(), batch),
        }

    def ready(self, model: Any) -> None:
        """Build the entropy coder's tables; the quantiles are solved for, not trained.

        On a CPU the synthesis, which decides no byte, gets the memory format that is faster there.
        """
        model.update(force=True, update_quantiles=True)
        if next(model.parameters()).device.type == "cpu":
            model.g_s.to(memory_format=torch.channels_last)

    def measure(self, model: Any, batch: Tensor) -> dict[str, Tensor]:
        """One picture, (1, 3, H, W): coded, decoded, rounded to 8 bits, and compared."""
        height, width = batch.shape[-2:]
        padded = pad(batch, model.downsampling_factor)
        with remembering(model) as known:
            coded = model.compress(padded)
            known.pop("h_s", None)  # the decoder predicts the latents' scales for itself
            decoded = model.decompress(coded["strings"], coded["shape"])["x_hat"]
            out = model(padded)
        error = (decoded - out["x_hat"].clamp(0, 1)).abs().max().item()
        if error > 0.01:
            raise RuntimeError(
                f"the decoded picture differs from the encoder's by {error:.3g}: the device does "
                "not repeat its own arithmetic, so its coded bytes mean nothing; use --device cpu"
            )
        written = 8.0 * sum(len(string) for part in coded["strings"] for string in part)
        return {
            "bpp": torch.tensor([written / (height * width)]),
            "bpp_estimated": bits(out["likelihoods"]) / (height * width),
            **self.fidelity(decoded[..., :height, :width], batch),
        }

    def fidelity(self, decoded: Tensor, picture: Tensor) -> dict[str, Tensor]:
        """The measures of a decoded picture's quality, on its 8-bit form, each (B,)."""
        seen = measures.to_8bit(decoded).contiguous()
        values = {
            "psnr": measures.psnr(seen, picture),
            "ms_ssim": measures.ms_ssim(seen, picture),
            "distortion": 255**2 * measures.mse(seen, picture),
        }
        if not self.missing():
            values["lpips"] = lpips("alex", picture.device)(2 * seen - 1, 2 * picture - 1)
        return values

    def missing(self) -> dict[str, str]:
        return lpips_missing()

    def original(self, batch: Tensor) -> Tensor:
        return batch[0]

    def context(self, batch: Tensor) -> list[tuple[str, str, dict[str, float]]]:
        """JPEG by Pillow, at qualities that cover the codec's range of rates.

        Our codec's bytes have no file around them, so JPEG's headers and tables are not counted.
        """
        import numpy as np
        from PIL import Image

        pixels = (batch[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
        points = []
        for quality in (5, 10, 20, 35, 50, 65, 80, 90, 95):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
            rate = 8 * scan_bytes(file.getvalue()) / (batch.shape[-2] * batch.shape[-1])
            decoded = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
            values = {k: float(v) for k, v in self.fidelity(decoded.to(batch), batch).items()}
            points.append(
                ("JPEG without its headers", f"quality={quality}", {"bpp": rate, **values})
            )
        return points

    def sample(self, model: Any, batch: Tensor) -> Tensor:
        padded = pad(batch, model.downsampling_factor)
        decoded = model(padded)["x_hat"][0, :, : batch.shape[-2], : batch.shape[-1]]
        return measures.to_8bit(decoded)


def scan_bytes(jpeg: bytes) -> int:
    """The length of a baseline JPEG's entropy-coded data: what follows the header of its scan.

    ITU-T T.81, annex B: segments of a marker and a length, up to the start of scan (FF DA).
    """
    place = 2  # behind the start of image
    while jpeg[place + 1] != 0xDA:
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return len(jpeg) - (place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big"))


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


def in_full_precision(codec: nn.Module) -> None:
    """Keep the entropy models of a CompressAI codec, and what its transforms give them, in fp32
    under autocast, in place.

    The factorized bottleneck's forward is written anew with the same result and, for contiguous
    input, the same random numbers: the library's builds a permutation on the device and reads it
    back, which waits for the device in every step and breaks a compiled graph. The scales' places
    in the coder's table are searched for, with the same result as the library's loop over it.
    """
    for module in codec.modules():
        for plain, ours in _fp32_entropy_models():
            if type(module) is plain:
                module.__class__ = ours
    kinds = {nn.Conv2d: Fp32Conv2d, nn.ConvTranspose2d: Fp32ConvTranspose2d}
    for name in TRANSFORMS:
        layers = [layer for layer in getattr(codec, name, ()) if type(layer) in kinds]
        for last in layers[-1:]:
            last.__class__ = kinds[type(last)]


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
def start_code(task: Compression, widths: tuple[int, ...]) -> TransformCode:
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

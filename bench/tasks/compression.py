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

import io
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import BEFORE, Axis, Measure, Part, Pictures, Preset, Showing, Space, Training
from bench.levers import found
from bench.pictures import measures
from bench.pictures.perceptual import lpips, lpips_missing
from bench.tasks.codec import bits, in_mixed_precision, pad, pca_start, remembering, start_code
from bench.tasks.codec_parts import codec_parts, live_part
from bench.tasks.photographs import OnPhotographs

MEMORY = 1_100_000_000  # bytes of a process that trains one of the sizes for a CPU
CODECS = {
    "scale_hyperprior": "ScaleHyperprior",
    "mean_scale_hyperprior": "MeanScaleHyperprior",
    "factorized_prior": "FactorizedPrior",
}
RATE: dict[str, Any] = {"unit": "bpp", "better": "lower", "margin": "1%"}


@dataclass(frozen=True, kw_only=True)
class Compression(OnPhotographs):
    """codec: one of CODECS. width, latents: its N and M. crop: side of the training crops.
    start: "pca", or "library" for CompressAI's own random weights. low, high: the range of λ.
    """

    name: ClassVar[str] = "compression"
    title: ClassVar[str] = "image compression"
    version: ClassVar[int] = 2  # 1: the start's noise was the same for every seed
    line: ClassVar[str] = "Ballé et al.'s codec: λ · 255² · MSE + bpp, bytes really coded"
    terms: ClassVar[tuple[str, ...]] = ("bpp", "distortion")
    measures: ClassVar[dict[str, Measure]] = {
        "bpp": Measure(label="rate, coded", worst=4.0, **RATE),
        "bpp_estimated": Measure(label="rate, estimated", estimates="bpp", **RATE),
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
    fronts: ClassVar[tuple[tuple[str, str], ...]] = tuple(
        ("bpp", quality) for quality in ("psnr", "ms_ssim", "lpips")
    )

    codec: str = "scale_hyperprior"
    width: int
    latents: int
    crop: int
    start: str = "pca"
    low: float = 0.0018
    high: float = 0.18
    training: Training

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"codec {self.codec!r}: use one of {', '.join(CODECS)}")
        if self.start not in ("pca", "library"):
            raise ValueError(f'start {self.start!r}: use "pca" or "library"')

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        def training(steps: int, batch: int, lr: float, **fields: Any) -> Training:
            return Training(steps=steps, batch=batch, lr=lr, clip=1.0, **fields)

        cpu = cls(
            width=64,
            latents=192,
            crop=128,  # at 64 the hyperprior sees one latent and never learns from neighbours
            training=training(800, 2, 8e-4, warmup=0.1, channels_last=True),
        )
        smoke = replace(cpu, width=8, latents=12, crop=64, training=training(4, 2, 5e-4))
        gpu: dict[str, Any] = {"precision": "bf16", "channels_last": True}
        long = training(20_000, 16, 3e-4, warmup=0.05, **gpu)
        small = replace(cpu, width=128, training=long)
        halving: dict[str, Any] = {"schedule": "halving", "milestones": (0.8, 0.9)}
        published = training(2_000_000, 16, 1e-4, compile=True, **halving, **gpu)
        paper = replace(small, crop=256, start="library", training=published)
        wide = replace(paper, width=192, latents=320)
        # Between the published 0.01 and 0.1, which belong to other tasks; best of 0.01, 0.03, 0.05
        # and 0.1 for 800 steps on photographs that are neither trained nor tested on.
        methods: dict[str, dict[str, Any]] = {
            "yoto": {"hidden": 128, "multiplier": 0.03}, "yoto_tuned": {"hidden": 128}
        }  # fmt: skip
        wants, shares = ("train_data", "test_data"), (0.25, 0.5, 1.0)

        def size(task: Compression, settings: int, seeds: int, line: str, **more: Any) -> Preset:
            some: dict[str, Any] = {"settings": settings, "seeds": tuple(range(seeds))}
            return Preset(task=task, line=line, **{"methods": methods, **some, **more})

        return {
            "smoke": size(smoke, 2, 1, "seconds, for tests"),
            "quick": size(cpu.lasting(0.5), 5, 1, "minutes on two CPU cores", memory=MEMORY),
            "small-cpu": size(
                *(cpu.lasting(2), 5, 3, "small, reduced: hours on two CPU cores"),
                methods=methods | found(cls.name),
                wants=wants,
                memory=MEMORY,
            ),
            "small": size(small, 5, 3, "an hour on a GPU by estimate", wants=wants),
            "paper": size(
                paper,
                8,
                3,
                "width 128/192: not run yet, days on a GPU by estimate",
                lengths=shares,
                wants=wants,
            ),
            "paper-wide": size(
                wide,
                8,
                3,
                "width 192/320: not run yet, days on a GPU by estimate",
                lengths=shares,
                wants=wants,
            ),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="distortion", low=self.low, high=self.high, symbol="λ"),))

    def model(self) -> nn.Module:
        import compressai.models

        codec = getattr(compressai.models, CODECS[self.codec])(self.width, self.latents)
        in_mixed_precision(codec)
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
        width, latents = round(factor * self.width), round(factor * self.latents)
        if min(width, latents) < 1:
            raise ValueError(f"{factor:g} times a width of {self.width} leaves no channel")
        return replace(self, width=width, latents=latents)

    def data(self, split: str) -> Pictures:
        return self.pictures(split, self.crop if split == "train" else 0)

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
            fidelity = self.fidelity(decoded.to(batch), batch)
            values = {"bpp": rate, **{name: float(value) for name, value in fidelity.items()}}
            points.append(("JPEG without its headers", f"quality={quality}", values))
        return points

    def sample(self, model: Any, batch: Tensor) -> Tensor:
        padded = pad(batch, model.downsampling_factor)
        decoded = model(padded)["x_hat"][0, :, : batch.shape[-2], : batch.shape[-1]]
        return measures.to_8bit(decoded)

    def showing(self) -> Coded:
        return Coded(self)


class Coded(Showing):
    """Pictures of any size, as they are."""

    takes = "a picture of any size"

    def received(self, picture: Tensor) -> Tensor:
        return picture[None]

    def parts(self, model: Any) -> dict[str, Part]:
        return codec_parts(model)

    def live(self, model: Any) -> Part:
        return live_part(model)


def scan_bytes(jpeg: bytes) -> int:
    """The length of a baseline JPEG's entropy-coded data: what follows the header of its scan.

    ITU-T T.81, annex B: segments of a marker and a length, up to the start of scan (FF DA).
    """
    place = 2  # behind the start of image
    while jpeg[place + 1] != 0xDA:
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return len(jpeg) - (place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big"))

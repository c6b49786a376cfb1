"""Adjustable style transfer: one painting, one content and four style coefficients.

    python run_bench.py run style                             minutes on two CPU cores
    python run_bench.py run style --style painting.jpg        another painting
    python run_bench.py run style --settings 15 --train-data DIR --test-data DIR

A feed-forward network in the manner of Johnson et al. (ECCV 2016) turns a photograph into a
painting. It is trained with five terms on VGG-16's features: the distance of one layer's features
to the photograph's (content), and that of four layers' Gram matrices to the painting's (style).
Each term has a coefficient of its own, and total variation a fixed weight.

Raw terms of different layers differ by orders of magnitude, so each is divided by a number
measured before any training (`normalisers`) and shared by all methods: a term of one is what an
empty picture scores that shows nothing but the photograph's mean colour. An untouched photograph
has no content term and style terms above one, since it has more contrast than a painting.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Axis, Measure, Pictures, Preset, Setting, Space, Training, location
from bench.levers import found
from bench.pictures import downloads, measures
from bench.pictures.perceptual import VGGFeatures, lpips, lpips_missing
from bench.tasks.painter import Painter
from bench.tasks.photographs import OnPhotographs

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
CONTENT_LAYERS = ("relu2_2", "relu3_3")
STYLE_TERMS = tuple(f"style_{layer}" for layer in STYLE_LAYERS)
PAINTING = "wheat-field-with-cypresses"
# Axes by how far they move a picture: LPIPS between low and high, in trials, 0.38 to 0.04.
SWEPT = ("content", "style_relu3_3", "style_relu4_3", "style_relu2_2", "style_relu1_2")
NORMALISED_ON = 16  # training crops that the normalisers are measured on


@dataclass(frozen=True, kw_only=True)
class Style(OnPhotographs):
    """width, blocks: channels at full resolution (four times as many at a quarter of it), and
        residual blocks there.
    instance_norm: normalise each channel of each picture before the nonlinearity. On by default:
        it takes the photograph's contrast away, which a style replaces, and learns far faster
        (Ulyanov et al., 2017). A scale and shift before it would be normalised away again, so the
        normalisations themselves are then the sites; they end in a scale and a shift, and a
        conditioned one is conditional instance normalisation (Dumoulin et al., ICLR 2017).
        Without it the convolutions are the sites.
    residual: the network's output is added to the photograph at half its contrast, so that
        training starts from a recognisable picture and a few hundred steps are enough. Johnson's
        network has no such path; the same for every method either way.
    content_layer: one of CONTENT_LAYERS. total_variation: the fixed weight of the term `tv`.
    crop, shrink: side of the training pictures in pixels; they are cut `shrink` times as large
        and averaged down, so that they show about as much of a scene as the test pictures do.
    evaluation: side of the test pictures, which are the middle square of the whole picture.
    style_size: the shorter side the painting is scaled to, which sets the size of the strokes;
        `crop` or more.
        Of that the middle square, as large as the training pictures, is the style: the Gram
        matrices of few places are larger than those of many, and a small picture cannot match a
        large one (an empty one comes nearer).
    low, high: the range of every coefficient; nothing is published, these are chosen.
    """

    name: ClassVar[str] = "style"
    line: ClassVar[str] = "adjustable style transfer: VGG-16 content and style, five coefficients"
    terms: ClassVar[tuple[str, ...]] = ("content", *STYLE_TERMS, "tv")
    measures: ClassVar[dict[str, Measure]] = {
        "content": Measure(label="content", better="lower", margin="2%", worst=2.0),
        **{f"style_{x}": Measure(label=f"style, {x}", better="lower") for x in STYLE_LAYERS},
        "style": Measure(
            label="style, mean of four layers", better="lower", margin="2%", worst=2.0
        ),
        "lpips": Measure(label="LPIPS to the photograph (AlexNet, v0.1)", better="lower"),
        "tv": Measure(label="weighted total variation", better="lower", digits=4),
        "content_raw": Measure(label="content, raw", better="lower", digits=4),
        **{
            f"style_{x}_raw": Measure(label=f"style, {x}, raw", better="lower", digits=5)
            for x in STYLE_LAYERS
        },
    }
    sample_line: ClassVar[str] = "A test photograph; one coefficient moves, the others stay."
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (("style", "content"), ("style", "lpips"))

    width: int
    blocks: int
    instance_norm: bool = True
    residual: bool = True
    content_layer: str = "relu3_3"
    total_variation: float = 0.1
    crop: int
    shrink: int = 1
    evaluation: int
    style_size: int
    low: float = 0.1
    high: float = 10.0
    training: Training
    style: str = location("painting (Wheat Field with Cypresses)")
    vgg_weights: str = location("VGG-16 weights: torchvision's .pth, or .safetensors (fetched)")

    def __post_init__(self) -> None:
        if self.content_layer not in CONTENT_LAYERS:
            known = " or ".join(CONTENT_LAYERS)
            raise ValueError(f"content_layer {self.content_layer!r}: use {known}")
        if min(self.crop, self.evaluation, self.style_size) < 32:
            raise ValueError("crop, evaluation and style_size need 32 pixels or more")
        if self.style_size < self.crop:
            raise ValueError(
                f"style_size {self.style_size} needs to be {self.crop}, the crop, or more: the "
                "style is a square of the painting as large as the training pictures"
            )

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        def training(steps: int, batch: int, lr: float, **fields: Any) -> Training:
            usual: dict[str, Any] = {"warmup": 0.1, "clip": 1.0, "geometric_mean": True}
            return Training(steps=steps, batch=batch, lr=lr, **usual | fields)

        def sides(crop: int, evaluation: int, style_size: int) -> dict[str, Any]:
            return {"crop": crop, "evaluation": evaluation, "style_size": style_size}

        low, tiny, high = sides(96, 192, 192), sides(32, 32, 32), sides(256, 256, 384)
        quick = cls(width=16, blocks=2, shrink=2, **low, training=training(240, 2, 5e-3))
        smoke = replace(quick, width=4, blocks=1, **tiny, training=training(4, 2, 5e-3))
        on_gpu = {"precision": "bf16"}  # without channels_last, which instance norms undo
        small = cls(width=32, blocks=5, **high, training=training(2000, 8, 1e-3, **on_gpu))
        long = training(100_000, 8, 1e-3, warmup=0.02, **on_gpu)
        paper = replace(small, residual=False, training=long)
        # Of the levers, stratified draws alone did no worse here than none, on validation pictures.
        released = {"encoding": "log", "weighting": "none", "scale": "linear", "exact_start": False}
        wide = {"hidden": 128}
        tuned = {**released, **wide}
        methods: dict[str, dict[str, Any]] = {"yoto": wide, "yoto_tuned": tuned}
        methods["yoto_warm"] = {**tuned, "exact_start": True}  # or it leaves what it starts from
        short = {**methods, "fixed_grid_tuned": {"lr": 0.71}}  # holds where trainings are as short
        wants = ("train_data", "test_data")
        reduced = "small, reduced: hours on two CPU cores"
        chosen = "256² pictures, batches of 8; the rest chosen, nothing is published"

        def size(task: Style, settings: int, seeds: int, line: str, **more: Any) -> Preset:
            some: dict[str, Any] = {"settings": settings, "seeds": tuple(range(seeds))}
            return Preset(task=task, line=line, **some, **more)

        return {
            "smoke": size(
                smoke, 2, 1, "seconds, for tests", methods={"yoto": wide, "yoto_tuned": wide}
            ),
            "quick": size(quick, 5, 1, "minutes on two CPU cores", methods=short),
            "small-cpu": size(
                quick.lasting(2), 5, 3, reduced, methods=short | found(cls.name), wants=wants
            ),
            "small": size(small, 11, 1, "half an hour on one GPU", methods=methods, wants=wants),
            "paper": size(
                paper, 15, 3, chosen, lengths=(0.25, 0.5, 1.0), methods=methods, wants=wants
            ),
        }

    @property
    def space(self) -> Space:
        names = ("content", *STYLE_TERMS)
        symbols = ("c", "s1", "s2", "s3", "s4")
        axes = [
            Axis(name=name, low=self.low, high=self.high, symbol=symbol)
            for name, symbol in zip(names, symbols, strict=True)
        ]
        return Space(tuple(axes))

    def settings(self, count: int) -> tuple[Setting, ...]:
        """The first `count` of: the centre, each coefficient alone down and up, random ones.

        A full grid over five axes is out of reach. The coefficients come in the order of `SWEPT`,
        so that few settings, each a network of the fixed grid, show the most.
        """
        centre, *moved = self.space.one_at_a_time()
        first = [2 * self.space.names.index(name) for name in SWEPT]
        pairs = [setting for i in first for setting in moved[i : i + 2]]
        randomly = self.space.random(max(1, count - 1 - len(pairs)), seed=0)
        return (centre, *pairs, *randomly)[:count]

    def model(self) -> nn.Module:
        return Painter(self.width, self.blocks, self.instance_norm, self.residual)

    def sites(self, model: nn.Module) -> list[str]:
        """Every normalisation, or else every convolution but the one whose output are pixels."""
        kind = nn.InstanceNorm2d if self.instance_norm else nn.Conv2d
        names = [name for name, layer in model.named_modules() if isinstance(layer, kind)]
        return [name for name in names if not name.startswith("pixels")]

    def entrances(self, model: nn.Module) -> list[str]:
        """None where norms follow: they take away what a constant input channel adds."""
        return [] if self.instance_norm else ["body.start.conv"]

    def wider(self, factor: float) -> Style:
        if round(factor * self.width) < 1:
            raise ValueError(f"{factor:g} times a width of {self.width} leaves no channel")
        return replace(self, width=round(factor * self.width))

    def data(self, split: str) -> Pictures:
        return self.pictures(split, self.crop * self.shrink if split == "train" else 0)

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        pictures = F.avg_pool2d(batch, self.shrink)
        return self.normalised(raw_terms(self, model(pictures), pictures))

    def normalised(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the loss from the raw ones."""
        by = normalisers(self)
        return {
            name: value * self.total_variation if name == "tv" else value / by[name]
            for name, value in raw.items()
        }

    def constants(self) -> dict[str, float]:
        """What each raw term is divided by; see `normalisers`."""
        return normalisers(self)

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        """All on the 8-bit picture that a user would see."""
        picture = self.fitted(batch)
        output = measures.to_8bit(model(picture))
        raw = raw_terms(self, output, picture)
        values = self.normalised(raw)
        values["style"] = torch.stack([values[name] for name in STYLE_TERMS]).mean(0)
        values |= {f"{name}_raw": value for name, value in raw.items() if name != "tv"}
        if not self.missing():
            values["lpips"] = lpips("alex", batch.device)(2 * output - 1, 2 * picture - 1)
        return values

    def fitted(self, batch: Tensor) -> Tensor:
        """The middle square of whole test pictures, resized to `evaluation` pixels."""
        return middle(shorter(batch, self.evaluation), self.evaluation)

    def missing(self) -> dict[str, str]:
        return lpips_missing()

    def original(self, batch: Tensor) -> Tensor:
        return self.fitted(batch)[0]

    def sample(self, model: nn.Module, batch: Tensor) -> Tensor:
        return measures.to_8bit(model(self.fitted(batch)))[0]

    def fields(self) -> dict[str, Any]:
        """With the content of the painting and of VGG-16: their places are not the experiment."""
        digests = {
            "style": downloads.content(self.style, PAINTING),
            "vgg_weights": downloads.content(self.vgg_weights, "vgg16-convs"),
        }
        return super().fields() | digests


# The loss


def raw_terms(task: Style, output: Tensor, picture: Tensor) -> dict[str, Tensor]:
    """The five terms and the total variation of outputs for pictures, before any division: (B,).

    content: mean squared difference of features. style: squared Frobenius distance of the Gram
    matrices. tv: mean squared difference of neighbouring pixels.
    """
    seen = vgg(task.vgg_weights, STYLE_LAYERS, output.device)(output)  # with the content layer
    with torch.no_grad():  # computed no deeper than it
        wanted = vgg(task.vgg_weights, (task.content_layer,), output.device)(picture)
    terms = {"content": measures.mse(seen[task.content_layer].float(), wanted[task.content_layer])}
    for name, target in zip(STYLE_LAYERS, painting_grams(task, output.device), strict=True):
        terms[f"style_{name}"] = (gram(seen[name]) - target).square().sum((1, 2))
    across, along = output.diff(dim=-1), output.diff(dim=-2)
    terms["tv"] = across.square().mean((1, 2, 3)) + along.square().mean((1, 2, 3))
    return terms


def gram(features: Tensor) -> Tensor:
    """(B, C, h, w) to the (B, C, C) products of channels, over C h w as in Johnson et al."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


@functools.cache
def vgg(weights: str, layers: tuple[str, ...], device: torch.device) -> VGGFeatures:
    """The one VGG-16 of this process for these layers; its input normalisation is its own."""
    try:
        return VGGFeatures(layers, Path(weights) if weights else None).to(device)
    except downloads.Unavailable as error:
        raise downloads.Unavailable(
            "style transfer is measured by VGG-16, and a random network never stands in for it: "
            f"give torchvision's vgg16 file with --vgg-weights FILE. {error}"
        ) from None


@functools.cache
@torch.no_grad()
def painting_grams(task: Style, device: torch.device) -> list[Tensor]:
    """The painting's Gram matrices, (1, C, C) per style layer, computed on the CPU for all."""
    if device.type != "cpu":
        return [matrix.to(device) for matrix in painting_grams(task, torch.device("cpu"))]
    path = Path(task.style) if task.style else downloads.get(PAINTING)
    ((_, painting),) = Pictures([path]).examples()
    with torch.autocast("cpu", enabled=False):
        shown = middle(shorter(painting, task.style_size), task.crop)
        seen = vgg(task.vgg_weights, STYLE_LAYERS, device)(shown)
        return [gram(seen[name]) for name in STYLE_LAYERS]


@functools.cache
@torch.no_grad()
def normalisers(task: Style) -> dict[str, float]:
    """What raw terms are divided by: their means over training crops for an empty output, which
    shows nothing but each crop's mean colour.

    Measured on the CPU from seeded crops, before any training, and kept to four digits, so that
    every process of every method divides by the same numbers.
    """
    crops = task.data("train").batch(NORMALISED_ON, torch.Generator().manual_seed(0))
    pictures = F.avg_pool2d(crops, task.shrink)
    empty = pictures.mean((2, 3), keepdim=True).expand_as(pictures)
    with torch.autocast("cpu", enabled=False):
        raw = raw_terms(task, empty, pictures)
    return {name: float(f"{raw[name].mean().item():.4g}") for name in ("content", *STYLE_TERMS)}


# Pictures


def shorter(pictures: Tensor, side: int) -> Tensor:
    """Resize until the shorter side has `side` pixels, as 8-bit values."""
    height, width = pictures.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    return measures.to_8bit(F.interpolate(pictures, size, mode="bicubic", antialias=True))


def middle(pictures: Tensor, side: int) -> Tensor:
    """The middle square of pictures, `side` pixels wide."""
    top, left = (pictures.shape[-2] - side) // 2, (pictures.shape[-1] - side) // 2
    return pictures[..., top : top + side, left : left + side]

"""Adjustable style transfer: one painting, one content and four style coefficients.

    python run_bench.py run style                             minutes on two CPU cores
    python run_bench.py run style --style painting.jpg        another painting
    python run_bench.py run style --settings 15 --train-data DIR --test-data DIR
    python run_bench.py run style --paintings "a.jpg;b.jpg"   one network for several, or a folder

A feed-forward network in the manner of Johnson et al. (ECCV 2016) turns a photograph into a
painting. It is trained with five terms on VGG-16's features: the distance of one layer's features
to the photograph's (content), and that of four layers' Gram matrices to the painting's (style).
Each term has a coefficient of its own, and total variation a fixed weight.

Raw terms of different layers differ by orders of magnitude, so each is divided by a number
measured before any training (`normalisers`) and shared by all methods: a term of one is what an
empty picture scores that shows nothing but the photograph's mean colour. An untouched photograph
has no content term and style terms above one, since it has more contrast than a painting. With
several paintings each has normalisers of its own, so that none owns the gradient; every example of
a training batch is of one of them, drawn uniformly, and compared with that one's Gram matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Axis, Measure, Pictures, Preset, Setting, Space, Training, location
from bench.levers import found
from bench.pictures import downloads, measures
from bench.pictures.perceptual import lpips, lpips_missing
from bench.tasks.painter import Painter
from bench.tasks.paintings import BETWEEN, Batch, Commissioned, Shown, digests, listed, parts
from bench.tasks.photographs import OnPhotographs
from bench.tasks.style_terms import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    STYLE_TERMS,
    column,
    middle,
    normalisers,
    raw_terms,
    shorter,
    variation,
)

MEMORY = 1_150_000_000  # bytes of a process that trains one of the sizes for a CPU
PAINTING = "wheat-field-with-cypresses"
FOUR = (PAINTING, "landscapes-with-poems", "circus-sideshow", "fourteen-auspicious-dreams")
# Axes by how far they move a picture: LPIPS between low and high, in trials, 0.38 to 0.04.
SWEPT = ("content", "style_relu3_3", "style_relu4_3", "style_relu2_2", "style_relu1_2")
LABELS = {"content": "content", "style": "style", "lpips": "LPIPS"}  # of each painting, too


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
    paintings: picture files or names of artefacts with `;` between them, or a folder: one network
        for all of them, with a scale and a shift per painting behind each norm; "" for `style`
        alone, and one is as if `style` named it.
    """

    name: ClassVar[str] = "style"
    title: ClassVar[str] = "style transfer"
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
    style: str = location("painting (Wheat Field with Cypresses)", part=True)
    paintings: str = location(
        "several paintings, 'a.jpg;b.jpg' or a folder, instead of --style", several=True, part=True
    )
    vgg_weights: str = location(
        "VGG-16 weights: torchvision's .pth, or .safetensors (fetched)", part=True
    )

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
        if self.style and self.paintings:
            raise ValueError("--style and --paintings both say what to paint like: give one")
        if self.paintings and Path(self.paintings).is_dir():  # which may change, or move
            files = BETWEEN.join(listed(self.paintings).values())
            object.__setattr__(self, "paintings", files)
        if not self.several:
            return
        if not self.instance_norm:
            raise ValueError(
                f"{len(self.several)} paintings are told apart by the norms: use "
                "instance_norm=true, or one painting"
            )
        # A raw term's mean over paintings of other sizes says nothing; each is in `constants`.
        kept = {name: each for name, each in self.measures.items() if not name.endswith("_raw")}
        own = {
            f"{name} {painting}": replace(
                kept[name],
                label=f"{LABELS[name]}, {painting}",
                margin="",
                worst=None,
                partial=True,
            )
            for painting in self.several
            for name in LABELS
        }
        object.__setattr__(self, "measures", kept | own)

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        def training(steps: int, batch: int, lr: float, **fields: Any) -> Training:
            usual: dict[str, Any] = {"warmup": 0.1, "clip": 1.0, "geometric_mean": True}
            return Training(steps=steps, batch=batch, lr=lr, **usual | fields)

        def sides(crop: int, evaluation: int, style_size: int) -> dict[str, Any]:
            return {"crop": crop, "evaluation": evaluation, "style_size": style_size}

        low, tiny, high = sides(96, 192, 192), sides(32, 32, 32), sides(256, 256, 384)
        cpu = cls(width=16, blocks=2, shrink=2, **low, training=training(240, 2, 5e-3))
        smoke = replace(cpu, width=4, blocks=1, **tiny, training=training(4, 2, 5e-3))
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

        # Four times as long as small-cpu, so that each painting is seen as often.
        four = replace(cpu, paintings=";".join(FOUR)).lasting(8)

        return {
            "smoke": size(
                smoke, 2, 1, "seconds, for tests", methods={"yoto": wide, "yoto_tuned": wide}
            ),
            "quick": size(
                *(cpu.lasting(0.5), 5, 1, "minutes on two CPU cores"), methods=short, memory=MEMORY
            ),
            "small-cpu": size(
                *(cpu.lasting(2), 5, 3, reduced),
                methods=short | found(cls.name),
                wants=wants,
                memory=MEMORY,
            ),
            "four-paintings": size(
                *(four, 5, 1, "four paintings in one network: hours on two CPU cores"),
                methods=short | found(cls.name),
                wants=wants,
            ),
            "small": size(
                small, 11, 1, "half an hour on a GPU by estimate", methods=methods, wants=wants
            ),
            "paper": size(
                paper, 15, 3, chosen, lengths=(0.25, 0.5, 1.0), methods=methods, wants=wants
            ),
        }

    @functools.cached_property
    def shown(self) -> dict[str, str]:
        """The paintings by name, each a file or an artefact."""
        return listed(self.paintings) or {PAINTING: self.style or PAINTING}

    @property
    def several(self) -> tuple[str, ...]:
        """The paintings' names where there are more than one."""
        return tuple(self.shown) if len(self.shown) > 1 else ()

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
        count = len(self.shown)
        return Painter(self.width, self.blocks, self.instance_norm, self.residual, count)

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

    def data(self, split: str) -> Pictures | Commissioned:
        pictures = self.pictures(split, self.crop * self.shrink if split == "train" else 0)
        return Commissioned(pictures, self.several) if self.several else pictures

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        crops, *shares = parts(batch)
        pictures = F.avg_pool2d(crops, self.shrink)
        raw = raw_terms(self, model(pictures, *shares), pictures, *shares)
        return self.normalised(raw, *shares)

    def normalised(self, raw: dict[str, Tensor], shares: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of the loss from the raw ones."""
        by, terms = self.constants(), {}
        for name, value in raw.items():
            if name == "tv":
                terms[name] = value * self.total_variation
            elif shares is None or name == "content":  # which knows no painting
                terms[name] = value / by[name]
            else:
                each = tuple(by[f"{name} {painting}"] for painting in self.several)
                terms[name] = value / column(each, value.device)[shares.argmax(1)]
        return terms

    def constants(self) -> dict[str, float]:
        """What each raw term is divided by; see `normalisers`. With several paintings, those of
        style by term and painting."""
        recalled: dict[str, float] | None = self.__dict__.get("recalled")
        return recalled or normalisers(self)

    def recall(self, constants: Mapping[str, float]) -> None:
        """Take these for `constants`: this object alone does, and is the same experiment as before.
        ValueError for those of other paintings."""
        if not constants:  # older folders kept none: they are measured anew
            return
        names = [f"{term} {each}" for each in self.several for term in STYLE_TERMS] or STYLE_TERMS
        if lost := [name for name in ("content", *names) if name not in constants]:
            raise ValueError(
                f"these constants have no {lost[0]!r}, they are of other paintings: give those "
                "stored with the network"
            )
        self.__dict__["recalled"] = dict(constants)

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """All on the 8-bit picture that a user would see."""
        fitted = self.fitted(batch)
        return self.judged(measures.to_8bit(model(*parts(fitted))), fitted)

    def judged(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The measures of outputs, (B, 3, H, W) as 8-bit values, for a batch of that size. With
        several paintings, each one's own are NaN for examples that are not of it alone."""
        picture, *shares = parts(batch)
        raw = raw_terms(self, output, picture, *shares)
        values = self.normalised(raw, *shares) | self.without_vgg(output, picture)
        values["style"] = torch.stack([values[name] for name in STYLE_TERMS]).mean(0)
        if not shares:
            return values | {f"{name}_raw": value for name, value in raw.items() if name != "tv"}
        for painting, share in zip(self.several, shares[0].unbind(1), strict=True):
            for name in LABELS.keys() & values.keys():
                values[f"{name} {painting}"] = values[name].where(share == 1, torch.nan)
        return values

    def without_vgg(self, output: Tensor, picture: Tensor) -> dict[str, Tensor]:
        """Those measures that need no VGG-16."""
        values = {"tv": self.total_variation * variation(output)}
        if not self.missing():
            values["lpips"] = lpips("alex", output.device)(2 * output - 1, 2 * picture - 1)
        return values

    def fitted(self, batch: Batch) -> Batch:
        """The middle square of whole test pictures, resized to `evaluation` pixels."""
        pictures, *shares = parts(batch)
        square = middle(shorter(pictures, self.evaluation), self.evaluation)
        return (square, shares[0]) if shares else square

    def missing(self) -> dict[str, str]:
        return {
            each: reason
            for name, reason in lpips_missing().items()
            for each in (name, *(f"{name} {painting}" for painting in self.several))
        }

    def original(self, batch: Batch) -> Tensor:
        return parts(self.fitted(batch))[0][0]

    def sample(self, model: nn.Module, batch: Batch) -> Tensor:
        return measures.to_8bit(model(*parts(self.fitted(batch))))[0]

    def showing(self) -> Shown:
        return Shown(self)

    def fields(self) -> dict[str, Any]:
        """With the content of the paintings and of VGG-16: their places are not the experiment."""
        weights = {"vgg_weights": downloads.content(self.vgg_weights, "vgg16-convs")}
        shown = digests(self.shown)
        painted = {"paintings": shown} if self.several else {"style": shown[0]}
        return super().fields() | painted | weights

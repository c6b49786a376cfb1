"""The terms of style transfer, seen by VGG-16, and the numbers they are divided by.

    raw_terms(task, output, picture)      before any division
    normalisers(task)                     what each is divided by, measured before any training

`task` is a `Style` (`bench/tasks/style.py`, which says what the terms mean).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import Pictures
from bench.pictures import downloads, measures
from bench.pictures.perceptual import VGGFeatures
from bench.tasks.paintings import file_of, parts

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
CONTENT_LAYERS = ("relu2_2", "relu3_3")
STYLE_TERMS = tuple(f"style_{layer}" for layer in STYLE_LAYERS)
NORMALISED_ON = 16  # training crops that the normalisers are measured on


def raw_terms(
    task: Any, output: Tensor, picture: Tensor, shares: Tensor | None = None
) -> dict[str, Tensor]:
    """The five terms and the total variation of outputs for pictures, before any division: (B,).

    content: mean squared difference of features. style: squared Frobenius distance of the Gram
    matrices, to those of the painting that has the largest of an example's `shares`, (B, P).
    tv: `variation`.
    """
    seen = vgg(task.vgg_weights, STYLE_LAYERS, output.device)(output)  # with the content layer
    with torch.no_grad():  # computed no deeper than it
        wanted = vgg(task.vgg_weights, (task.content_layer,), output.device)(picture)
    terms = {"content": measures.mse(seen[task.content_layer].float(), wanted[task.content_layer])}
    for name, target in zip(STYLE_LAYERS, painting_grams(task, output.device), strict=True):
        own = target if shares is None else target[shares.argmax(1)]
        terms[f"style_{name}"] = (gram(seen[name]) - own).square().sum((1, 2))
    return terms | {"tv": variation(output)}


def variation(pictures: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels, (B,)."""
    across, along = pictures.diff(dim=-1), pictures.diff(dim=-2)
    return across.square().mean((1, 2, 3)) + along.square().mean((1, 2, 3))


@functools.cache
def column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """These on the device, put there once: a copy in every step would wait for it."""
    return torch.tensor(values, device=device)


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
def painting_grams(task: Any, device: torch.device) -> list[Tensor]:
    """The paintings' Gram matrices, (P, C, C) per style layer, computed on the CPU for all."""
    if device.type != "cpu":
        return [matrix.to(device) for matrix in painting_grams(task, torch.device("cpu"))]
    by_painting = []
    for entry in task.shown.values():
        ((_, painting),) = Pictures([file_of(entry)]).examples()
        with torch.autocast("cpu", enabled=False):
            square = middle(shorter(painting, task.style_size), task.crop)
            seen = vgg(task.vgg_weights, STYLE_LAYERS, device)(square)
            by_painting.append([gram(seen[name]) for name in STYLE_LAYERS])
    return [torch.cat(matrices) for matrices in zip(*by_painting, strict=True)]


@functools.cache
@torch.no_grad()
def normalisers(task: Any) -> dict[str, float]:
    """What raw terms are divided by: their means over training crops for an empty output, which
    shows nothing but each crop's mean colour; of several paintings, each with its own.

    Measured on the CPU from seeded crops, before any training, and kept to four digits, so that
    every process of every method divides by the same numbers.
    """
    crops, *_ = parts(task.data("train").batch(NORMALISED_ON, torch.Generator().manual_seed(0)))
    pictures = F.avg_pool2d(crops, task.shrink)
    empty = pictures.mean((2, 3), keepdim=True).expand_as(pictures)
    numbers: dict[str, float] = {}
    for place, painting in enumerate(task.several or ("",)):
        shares = torch.eye(len(task.shown))[place].expand(len(crops), -1)
        with torch.autocast("cpu", enabled=False):
            raw = raw_terms(task, empty, pictures, shares)
        for name in ("content", *STYLE_TERMS):
            key = f"{name} {painting}" if painting and name != "content" else name
            numbers[key] = float(f"{raw[name].mean().item():.4g}")
    return numbers


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

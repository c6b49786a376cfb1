"""Where the β-VAE tasks' pictures come from: CIFAR-10, our own scenes, or Shapes3D's file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import PictureError, file_digest
from bench.pictures.downloads import ARTEFACTS, get
from bench.pictures.scenes import Scenes

CPU = torch.device("cpu")
SHAPES3D = 480_000  # pictures in the file, ordered by their factors
SHAPES3D_COUNTS = (10, 10, 10, 8, 4, 15)  # floor, wall and object hue, scale, shape, orientation


@dataclass(frozen=True)
class Pool:
    """Training pictures: `rows` of a tensor (N, H, W, 3) uint8 that `load` gives on first use.

    crop: side of random crops, mirrored with probability 1/2; 0 takes the pictures as they are.
    pictures: the tensor, once it is on a device.
    """

    digest: str
    load: Callable[[], Tensor]
    rows: range | Tensor
    crop: int = 0
    pictures: Tensor | None = None

    def to(self, device: torch.device) -> Pool:
        return replace(self, pictures=self.load().to(device))

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, side, side) float32 in [0, 1] on the device, drawn uniformly."""
        pictures = self.load() if self.pictures is None else self.pictures
        height, width = pictures.shape[1:3]
        side = self.crop or height
        draws = torch.rand(4, count, generator=generator, dtype=torch.float64)
        row = (draws[0] * len(self.rows)).long()
        row = self.rows[row] if isinstance(self.rows, Tensor) else row + self.rows.start
        top = (draws[1] * (height - side + 1)).long()
        left = (draws[2] * (width - side + 1)).long()
        places = torch.arange(side)
        across = left[:, None] + places
        if self.crop:
            across = torch.where(draws[3, :, None] < 0.5, across.flip(1), across)
        index = torch.cat([row[:, None], top[:, None] + places, across], 1)
        if pictures.is_cuda:
            index = index.pin_memory()
        index = index.to(pictures.device, non_blocking=True)
        row, down, across = index.split([1, side, side], 1)
        crops = pictures[row[:, :, None], down[:, :, None], across[:, None, :]]
        return crops.permute(0, 3, 1, 2) / 255

    def examples(self) -> Iterator[tuple[str, Tensor]]:
        raise ValueError("training pictures are drawn in batches: measure on the test split")


@dataclass(frozen=True)
class Held:
    """Held-out pictures: the first `recorded` are examples, the first `evaluated` give the
    numbers about the data set. `load` gives the pictures (N, 3, H, W) uint8 and their factors
    (N, K), or None, for the larger of the two counts."""

    origin: str
    load: Callable[[int], tuple[Tensor, Tensor | None]]
    recorded: int
    evaluated: int
    device: torch.device = CPU

    @property
    def digest(self) -> str:
        return f"{self.origin}, {self.recorded} recorded, {self.evaluated} evaluated"

    @functools.cached_property
    def loaded(self) -> tuple[Tensor, Tensor | None]:
        pictures, factors = self.load(max(self.recorded, self.evaluated))
        return pictures.to(self.device), factors

    @property
    def factors(self) -> Tensor | None:
        factors = self.loaded[1]
        return None if factors is None else factors[: self.evaluated]

    def to(self, device: torch.device) -> Held:
        return replace(self, device=torch.device(device))

    def parts(self, size: int = 500) -> Iterator[Tensor]:
        """The evaluated pictures in parts of `size`, float32 in [0, 1]."""
        for part in self.loaded[0][: self.evaluated].split(size):
            yield part / 255

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        raise ValueError("these pictures are held out and cannot be trained on")

    def examples(self) -> Iterator[tuple[str, Tensor]]:
        for number, picture in enumerate(self.loaded[0][: self.recorded]):
            yield str(number), picture[None] / 255


def cifar10(split: str, recorded: int, evaluated: int) -> Pool | Held:
    digest = ARTEFACTS["cifar10"].content
    if split == "train":
        return Pool(f"{digest}, last 80 %, 40 x 40", _cifar10_train, range(40_000), crop=32)
    kept = {"test": "test_images", "validation": "train_images"}[split]  # the first 20 %
    load = functools.partial(_cifar10_held, kept)
    return Held(f"{digest}, {split}", load, recorded, evaluated)


@functools.lru_cache(maxsize=1)
def _cifar10_train() -> Tensor:
    """The last 80 % of the training split, enlarged bilinearly and cut off to whole numbers, as
    the released code does for every picture anew: (40000, 40, 40, 3) uint8."""
    pictures = _cifar10()["train_images"][10_000:].permute(0, 3, 1, 2)
    enlarged = [
        F.interpolate(part.float(), size=(40, 40), mode="bilinear", align_corners=False).byte()
        for part in pictures.split(2000)
    ]
    return torch.cat(enlarged).permute(0, 2, 3, 1).contiguous()


@functools.lru_cache(maxsize=2)
def _cifar10_held(kept: str, count: int) -> tuple[Tensor, None]:
    return _cifar10()[kept][: min(count, 10_000)].permute(0, 3, 1, 2).contiguous(), None


def _cifar10() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(get("cifar10"))


def our_scenes(split: str, recorded: int, evaluated: int, side: int) -> Scenes | Held:
    if split == "train":
        return Scenes("train", side=side)
    digest = Scenes(split, max(recorded, evaluated), side=side).digest
    return Held(digest, functools.partial(_rendered, split, side), recorded, evaluated)


@functools.lru_cache(maxsize=2)
def _rendered(split: str, side: int, count: int) -> tuple[Tensor, Tensor]:
    scenes = Scenes(split, count, side=side)
    pictures = torch.cat([picture for _, picture in scenes.examples()])
    return (pictures * 255).round().byte(), scenes.factors


def shapes3d(path: Path, split: str, recorded: int, evaluated: int) -> Pool | Held:
    """A fixed random order of the file's pictures: the first fifth is held out."""
    digest = _digest(path, path.stat().st_mtime_ns)
    rows = torch.randperm(SHAPES3D, generator=torch.Generator().manual_seed(0))
    if split == "train":
        return Pool(f"{digest}, 80 %", lambda: _shapes3d(path)[0], rows[SHAPES3D // 5 :])
    first = {"test": 0, "validation": SHAPES3D // 10}[split]

    def load(count: int) -> tuple[Tensor, Tensor]:
        chosen = rows[first : first + count]
        pictures, factors = _shapes3d(path)
        return pictures[chosen].permute(0, 3, 1, 2), factors[chosen]

    return Held(f"{digest}, {split}, 10 %", load, recorded, evaluated)


@functools.lru_cache(maxsize=1)
def _shapes3d(path: Path) -> tuple[Tensor, Tensor]:
    """All pictures, (480000, 64, 64, 3) uint8 (5.9 GB), and their factors, (480000, 6)."""
    try:
        import h5py
    except ImportError:
        raise PictureError(f"reading {path} needs h5py: pip install h5py") from None
    try:
        with h5py.File(path) as file:
            pictures = torch.from_numpy(file["images"][:])
    except (OSError, KeyError) as error:
        raise PictureError(f"{path} is no 3dshapes.h5 ({error}): get the file anew") from None
    if pictures.shape != (SHAPES3D, 64, 64, 3):
        raise PictureError(f"{path} holds pictures of shape {tuple(pictures.shape)}, not Shapes3D")
    grids = torch.meshgrid(*(torch.arange(n) for n in SHAPES3D_COUNTS), indexing="ij")
    return pictures, torch.stack([grid.flatten() for grid in grids], 1)


@functools.lru_cache(maxsize=4)
def _digest(path: Path, changed: int) -> str:
    return file_digest(path)

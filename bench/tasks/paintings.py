"""Several paintings for one network: which they are, the batches that say which is wanted, and what
`demo` shows of a picture in one of them or a mixture.

    style[paintings=a.jpg;b.jpg]      two files
    --paintings DIR                   every picture of a folder
    --paintings "circus-sideshow;landscapes-with-poems"      pinned artefacts, by their names

A batch is then (pictures, shares): (B, 3, H, W) in [0, 1], and (B, P) that sum to one over the
paintings. Of one painting a batch is the pictures alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import Part, PictureError, Pictures, Setting, Showing, Unavailable, to_8bit
from bench.files import printable
from bench.pictures import downloads
from bench.pictures.folders import pictures_in

BETWEEN = ";"  # the entries of a list
BY = " / "  # a test example is a photograph by a painting
SMALLEST = 16  # pixels a side, two of them where the network and VGG-16 see them smallest
Batch = Tensor | tuple[Tensor, Tensor]


# Which


def listed(text: str) -> dict[str, str]:
    """Paintings by name, each a file or the name of an artefact, of a list separated by `;` or a
    folder; {} for "". PictureError for two of one name. The files of a list need not be there: a
    trained network can be asked without them."""
    folder = Path(text)
    if text and folder.is_dir():
        entries = [str(folder / name) for name in pictures_in(folder)]
        if odd := [entry for entry in entries if BETWEEN in entry]:
            raise PictureError(f"{printable(odd[0])} has a {BETWEEN!r} in its name: rename it")
    elif text and folder.is_file():  # its name may hold what stands between entries
        entries = [text]
    else:
        entries = [entry for part in text.split(BETWEEN) if (entry := part.strip())]
    paintings: dict[str, str] = {}
    for entry in entries:
        name = entry if is_artefact(entry) else called(entry)
        if name in paintings:
            raise PictureError(
                f"two paintings are called {name!r}: name each once, or rename a file"
            )
        paintings[name] = entry
    return paintings


def called(file: str) -> str:
    """The name of a painting by its file's, with what measures may not be called left out."""
    kept = (char if char.isalnum() or char in "_-. " else "-" for char in Path(file).stem)
    return "".join(kept).strip("-. ")[:40].strip("-. ") or "painting"


def artefacts() -> list[str]:
    """The names of the pinned paintings."""
    return [name for name, each in downloads.ARTEFACTS.items() if each.file.endswith(".jpg")]


def is_artefact(entry: str) -> bool:
    return entry in artefacts()


def file_of(entry: str) -> Path:
    """The file of one of `listed`; Unavailable where it is an artefact that cannot be had."""
    return downloads.get(entry) if is_artefact(entry) else Path(entry)


def digests(paintings: Mapping[str, str]) -> list[str]:
    """Hashes of their contents, in their order. PictureError for one that is nowhere, and where two
    are one painting."""
    by_content: dict[str, str] = {}
    for name, entry in paintings.items():
        known = is_artefact(entry)
        if not known and not Path(entry).exists():
            raise PictureError(
                f"{printable(entry)}: there is no such painting; it is a picture's file or one of "
                f"{', '.join(artefacts())}; several have '{BETWEEN}' between them, or are a folder"
            )
        content = downloads.content("" if known else entry, entry)
        if content in by_content:
            raise PictureError(
                f"the paintings {by_content[content]!r} and {name!r} are the same picture: leave "
                "one out"
            )
        by_content[content] = name
    return list(by_content)


# Batches


def parts(batch: Batch) -> tuple[Tensor, ...]:
    """What a model is called with: the pictures, and the shares of several paintings."""
    return batch if isinstance(batch, tuple) else (batch,)


class Commissioned:
    """Pictures, and which of the paintings, by name, each is to look like; see `Data` in
    `bench/task.py`."""

    def __init__(self, pictures: Pictures, paintings: Sequence[str]) -> None:
        self.pictures, self.paintings = pictures, tuple(paintings)

    @property
    def digest(self) -> str:
        """Where pictures are trained on, theirs: the paintings' content is in the task's fields.
        Where they are measured, with the paintings' names, which are in those of the examples."""
        if self.pictures.crop:
            return self.pictures.digest
        named = repr((self.pictures.digest, self.paintings))
        return hashlib.sha256(named.encode()).hexdigest()

    def to(self, device: torch.device) -> Commissioned:
        return Commissioned(self.pictures.to(device), self.paintings)

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random crops, and for each one painting, drawn uniformly: shares (count, P) of
        zeros and a one."""
        pictures = self.pictures.batch(count, generator)
        drawn = torch.randint(len(self.paintings), (count,), generator=generator)
        shares = torch.nn.functional.one_hot(drawn, len(self.paintings)).float()
        if pictures.is_cuda:
            shares = shares.pin_memory()
        return pictures, shares.to(pictures.device, non_blocking=True)

    def examples(self) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
        """Every picture with every painting: "photograph / painting"."""
        for name, picture in self.pictures.examples():
            for place, painting in enumerate(self.paintings):
                shares = torch.eye(len(self.paintings), device=picture.device)[place, None]
                yield f"{name}{BY}{painting}", (picture, shares)


# What `demo` shows


class Shown(Showing):
    """A picture whole, as it is, painted in one painting or a mixture."""

    takes = f"a picture of any size from {SMALLEST} pixels a side"

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.blends = task.several
        self.reason = ""  # why neither content nor style can be told

    def received(self, picture: Tensor) -> Batch:
        """The first painting's shares, where there are several. ValueError for a small picture."""
        if min(picture.shape[-2:]) < SMALLEST:
            size = " x ".join(map(str, reversed(picture.shape[-2:])))
            raise ValueError(f"the picture has {size} pixels: give one with {SMALLEST} a side")
        if not self.blends:
            return picture[None]
        return picture[None], torch.eye(len(self.blends), device=picture.device)[:1]

    def blended(self, batch: Batch, shares: Sequence[float]) -> Batch:
        if not self.blends:
            return batch
        given = parts(batch)[0].new_tensor([list(shares)])
        if given.shape[1] != len(self.blends) or (given < 0).any() or abs(given.sum() - 1) > 1e-3:
            raise ValueError(
                f"shares {list(shares)}: give {len(self.blends)} of them, none below 0, that sum "
                "to 1"
            )
        return parts(batch)[0], given

    def original(self, batch: Batch) -> Tensor:
        return parts(batch)[0][0]

    def called(self, example: str) -> str:
        return example.rpartition(BY)[0] or example

    @torch.no_grad()
    def picture(self, model: nn.Module, batch: Batch) -> Tensor:
        return to_8bit(model(*parts(batch)))[0]

    @torch.no_grad()
    def measured(self, model: nn.Module, batch: Batch, setting: Setting) -> dict[str, float]:
        """Those of `Style.judged` at the picture's own size. A mixture of paintings is compared
        with none: there is no picture that it should look like. Without VGG-16, or a painting,
        neither content nor style is told."""
        picture, *shares = parts(batch)
        output = to_8bit(model(picture, *shares))
        values = self.task.without_vgg(output, picture)
        try:
            values = self.task.judged(output, batch)
        except (Unavailable, PictureError) as error:
            self.reason = str(error)
        mixed = bool(shares) and bool(shares[0].max() < 1)
        own = tuple(f" {painting}" for painting in self.blends)  # the same again, of one painting
        return {
            name: value.item()
            for name, value in values.items()
            if bool(value.isfinite().all())
            and not (mixed and name.startswith("style"))
            and not (own and name.endswith(own))
        }

    def lacking(self) -> str:
        return "; ".join(filter(None, [super().lacking(), self.reason]))

    def recall(self, constants: Mapping[str, float]) -> None:
        self.task.recall(constants)

    def live(self, model: nn.Module) -> Part:
        return self.parts(model)["network"]

    def parts(self, model: nn.Module) -> dict[str, Part]:
        count = len(self.blends)

        def examples(number: int) -> dict[str, Tensor]:
            seeded = torch.Generator().manual_seed(number)
            given = {"x": torch.rand(1, 3, 64 + 9 * (number % 2), 48, generator=seeded)}
            if count:
                mixed = torch.rand(1, count, generator=seeded)
                given["shares"] = mixed / mixed.sum()
            return given

        names = f" shares: of {', '.join(self.blends)}, which sum to one." if count else ""
        return {
            "network": Part(
                module=model,
                examples=examples,
                outputs=("picture",),
                free={"x": {0: "batch", 2: "height", 3: "width"}, "shares": {0: "batch"}},
                line="x: RGB in [0, 1], of 5 pixels a side or more; it was trained on about "
                f"{self.task.crop}.{names} Gives the picture painted, in [0, 1].",
            )
        }

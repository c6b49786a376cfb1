"""Data in memory: pictures as uint8 on the device, cut and flipped there, and ready tensors.

`Pictures` reads JPEG, PNG, TIFF and WebP files once and keeps them as 8-bit RGB; `Examples`
holds a tensor that a task has made or loaded. Both are the `Data` of `bench/task.py`: the random
choices are drawn from a CPU generator, so they are the same on every device, and a batch takes no
Python loop over its examples and no synchronisation.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.files import printable
from bench.identity import file_digest
from bench.pictures.decode import read_picture
from bench.pictures.folders import PictureError, pictures_in, unreadable

CPU = torch.device("cpu")


class Pictures:
    """RGB pictures of any size, from files that are decoded once per process.

    paths: the files. `names` (unique) are what records call them; file names where not given.
        Line breaks, control characters and bytes that are no UTF-8 are written out in them (`\\n`).
    crop: side of the square training crops in pixels; 0 for pictures that are not trained on.
        Pictures smaller than the crop are left out, with a warning.

    Grey, palette, CMYK, YCbCr and Lab pictures become RGB, 16-bit grey is scaled to 8 bits and
    16-bit colour cut to its upper 8, transparent pictures are laid over white, the camera's
    orientation is applied, and of an animation or of several pages the first counts. A colour
    profile is not applied, as in the published results that these are compared with: the numbers
    in the file count. No other metadata is used, so that damage there does no harm. Anything that
    cannot be read is a `PictureError`, raised by the first of `to`, `batch` and `examples`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        crop: int = 0,
        names: Sequence[str] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.paths = tuple(Path(path) for path in paths)
        if not self.paths:
            raise PictureError("no picture was given: name at least one file")
        if names is None:
            names = [path.name for path in self.paths]
            if len(set(names)) < len(names):
                names = [path.as_posix() for path in self.paths]
        self.names = tuple(printable(name) for name in names)
        if len(set(self.names)) != len(self.paths):
            raise ValueError(
                f"{len(self.paths)} pictures need as many different names, got {self.names}"
            )
        self.crop = crop
        self.device = device

    @classmethod
    def folder(cls, path: Path, crop: int = 0) -> Pictures:
        """Every picture in a folder and the folders below it, in the order of relative paths; see
        `bench/pictures/folders.py`."""
        files = pictures_in(Path(path))
        return cls([Path(path) / name for name in files], crop, names=files)

    @property
    def digest(self) -> str:
        """Hash of the names and bytes in order, since the order is that of training and records
        go by the names; where the files lie does not enter, nor the crop."""
        return _digest(self._key, self.names)

    def to(self, device: torch.device) -> Pictures:
        """The same pictures on `device`; decodes them, so that bad files are found now."""
        device = torch.device(device)
        _usable(self._key, self.crop)
        _on_device(self._key, device)
        return Pictures(self.paths, self.crop, self.names, device)

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` random crops: (count, 3, crop, crop) float32 in [0, 1] on the device.

        Each is of a picture drawn uniformly, at a uniform place, mirrored with probability 1/2.
        """
        if not self.crop:
            raise ValueError("these pictures were opened without a crop and cannot be trained on")
        pixels, table = self._resident
        # A dozen numbers: numpy's calls take a tenth of torch's on so few.
        draws = torch.rand(4, count, generator=generator, dtype=torch.float64).numpy()
        offset, height, width = table.numpy()[:, (draws[0] * table.shape[1]).astype(np.int64)]
        top = (draws[1] * (height - self.crop + 1)).astype(np.int64)
        left = (draws[2] * (width - self.crop + 1)).astype(np.int64)
        # The crops and behind them their mirror images: which of the two is taken.
        taken = np.arange(count) + count * (draws[3] < 0.5)
        small = torch.from_numpy(
            np.stack([offset + top * width + left, height * width, width, taken])
        )
        start, plane, width, taken = sent(small, self.device)

        # Rows of a plane are contiguous, so a crop is 3 * crop runs of `crop` bytes each: one
        # index per run, ten times as fast as one per pixel.
        rows = start[:, None, None] + plane[:, None, None] * self._places[:3, None]
        rows = rows + width[:, None, None] * self._places[: self.crop]
        runs = pixels.unfold(0, self.crop, 1).index_select(0, rows.flatten())
        crops = runs.view(count, 3, self.crop, self.crop)
        return torch.cat([crops, crops.flip(-1)]).index_select(0, taken) / 255

    def examples(self) -> Iterator[tuple[str, Tensor]]:
        """Every picture whole, by name: (1, 3, H, W) float32 in [0, 1] on the device."""
        pixels = _on_device(self._key, self.device)
        table = _decode(self._key).table
        for index in _usable(self._key, self.crop):
            offset, height, width = table[:, index].tolist()
            flat = pixels[offset : offset + 3 * height * width]
            yield self.names[index], flat.view(1, 3, height, width) / 255

    @functools.cached_property
    def _key(self) -> Key:
        return tuple(_state(path) for path in self.paths)

    @functools.cached_property
    def _resident(self) -> tuple[Tensor, Tensor]:
        """The pixels on the device, and the (offset, height, width) of the usable pictures."""
        usable = list(_usable(self._key, self.crop))
        return _on_device(self._key, self.device), _decode(self._key).table[:, usable]

    @functools.cached_property
    def _places(self) -> Tensor:
        """0, 1, 2, ... on the device: numbers of the colour planes, and of the rows of a crop."""
        return torch.arange(max(self.crop, 3), device=self.device)


class Examples:
    """Rows of one tensor, (N, ...), or of several of the same length, as `(inputs, labels)`, whose
    batches are then a tuple. uint8 rows come out as float32 in [0, 1], others as float32; only of
    several tensors those of whole numbers (int64) stay so, as labels are.

    digest: the content's hash (by default), or whatever the content follows from (a seed and a
    version).
    """

    def __init__(
        self,
        tensor: Tensor | Sequence[Tensor],
        digest: str = "",
        names: Sequence[str] | None = None,
    ) -> None:
        self.tensor: Any = tensor
        self.parts = (tensor,) if isinstance(tensor, Tensor) else tuple(tensor)
        self._given = digest
        lengths = [len(part) for part in self.parts] or [0]
        self.names = tuple(names if names is not None else map(str, range(lengths[0])))
        if len(set(lengths)) > 1:
            raise ValueError(f"an example is a row of each tensor, but they have {lengths} rows")
        if not lengths[0] or len(set(self.names)) != lengths[0]:
            raise ValueError(
                f"{lengths[0]} examples need as many different names, and at least one; "
                f"got {len(set(self.names))} different names"
            )

    @functools.cached_property
    def digest(self) -> str:
        if self._given:
            return self._given
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> Examples:
        moved = [part.to(device) for part in self.parts]
        several = not isinstance(self.tensor, Tensor)
        return Examples(moved if several else moved[0], self._given, self.names)

    def batch(self, count: int, generator: torch.Generator) -> Any:
        """`count` rows drawn uniformly, with repetition: (count, ...) on the device."""
        rows = torch.randint(len(self.names), (count,), generator=generator)
        rows = sent(rows, self.parts[0].device)
        return self._batch([part.index_select(0, rows) for part in self.parts])

    def examples(self) -> Iterator[tuple[str, Any]]:
        for place, name in enumerate(self.names):
            yield name, self._batch([part[place, None] for part in self.parts])

    def _batch(self, rows: Sequence[Tensor]) -> Any:
        if isinstance(self.tensor, Tensor):
            return _float(rows[0])
        return tuple(part if part.dtype == torch.int64 else _float(part) for part in rows)


def sent(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on the device, without waiting for it."""
    if device.type == "cuda":
        drawn = drawn.contiguous().pin_memory()
    return drawn.to(device, non_blocking=True)


def _float(rows: Tensor) -> Tensor:
    return rows / 255 if rows.dtype == torch.uint8 else rows.float()


# What the process has read, by the state of the files: (path, time of change in ns, bytes) each.
State = tuple[str, int, int]
Key = tuple[State, ...]


class Decoded(NamedTuple):
    """All pixels in one flat uint8 tensor, picture by picture in planes (3, H, W).

    table: (3, N) int64, the offset of each picture's first byte, its height and its width.
    """

    pixels: Tensor
    table: Tensor


def _state(path: Path) -> State:
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):  # a pipe would never end, a device neither
        raise PictureError(f"{printable(path)} is no ordinary file: move or remove it")
    return str(path.absolute()), status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _digest(key: Key, names: tuple[str, ...]) -> str:
    files = []
    for (path, _, _), name in zip(key, names, strict=True):
        try:
            files.append(f"{file_digest(Path(path))} {name!r}")
        except OSError as error:
            raise unreadable(path, error, "check the path and its permissions") from None
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


@functools.lru_cache(maxsize=8)
def _decode(key: Key) -> Decoded:
    with warnings.catch_warnings():
        # Set outside the threads, since filters are the process's: a bomb is an error, and what
        # Pillow remarks about odd but readable files is not for our users.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            read = list(pool.map(read_picture, [Path(path) for path, _, _ in key]))
    planes = [picture for picture in read if isinstance(picture, np.ndarray)]
    if len(planes) < len(key):
        pairs = zip(key, read, strict=True)
        bad = [f"{printable(path)} ({what})" for (path, _, _), what in pairs if type(what) is str]
        more = f"\nand {len(bad) - 5} more" if len(bad) > 5 else ""
        raise PictureError(
            f"{len(bad)} of {len(key)} pictures cannot be used:\n"
            + "\n".join(bad[:5])
            + f"{more}\nrepair, convert or remove them and start again"
        )
    sizes, heights, widths = torch.tensor([(p.size, *p.shape[1:]) for p in planes]).unbind(1)
    return Decoded(
        pixels=torch.from_numpy(np.concatenate([plane.reshape(-1) for plane in planes])),
        table=torch.stack([sizes.cumsum(0) - sizes, heights, widths]),
    )


@functools.lru_cache(maxsize=8)
def _on_device(key: Key, device: torch.device) -> Tensor:
    return _decode(key).pixels.to(device)


@functools.lru_cache(maxsize=64)
def _usable(key: Key, crop: int) -> tuple[int, ...]:
    """Places of the pictures that are no smaller than the crop; cached, so that it warns once."""
    _, heights, widths = _decode(key).table
    large = (torch.minimum(heights, widths) >= crop).tolist()
    small = [printable(Path(key[i][0]).name) for i, fits in enumerate(large) if not fits]
    if len(small) == len(key):
        raise PictureError(
            f"all {len(key)} pictures are smaller than the {crop}x{crop} training crop: "
            "give larger pictures, or a task with a smaller crop"
        )
    if small:
        some = ", ".join(small[:3]) + (", ..." if len(small) > 3 else "")
        warnings.warn(
            f"{len(small)} of {len(key)} pictures are smaller than the {crop}x{crop} training "
            f"crop and are left out: {some}",
            stacklevel=3,
        )
    return tuple(index for index, fits in enumerate(large) if fits)

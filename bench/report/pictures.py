"""The pictures that lie beside records; from a folder of somebody else's they may be anything."""

from __future__ import annotations

import contextlib
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def sample_of(record: Path) -> Path | None:
    """The picture of a record, if there is one; a link is none, since the page would show what it
    leads to."""
    path = record.with_suffix(".png")
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            return path
    return None


def opened(path: Path) -> Image.Image:
    """A PNG as RGB; ValueError, naming the file, for anything else."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as file:
                return file.convert("RGB")
    except Exception as error:  # Pillow's readers raise nearly everything on damaged files
        raise ValueError(
            f"{path} is no PNG picture that can be shown ({error}): delete it and its .json and "
            "run again"
        ) from None

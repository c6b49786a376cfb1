"""Folders that a command writes anew: an earlier one of its own is replaced, anything else is not.

A folder's listing, a sealed JSON file, has the `format` it is of and the names of all `files`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.files import read_object


def replaceable(folder: Path, listing: str, form: str) -> list[Path]:
    """The files of an earlier folder of this form, that a new one takes the place of. ValueError
    where it holds anything else."""
    way_out = "name another one"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is no folder: {way_out}")
    inside = sorted(folder.iterdir()) if folder.exists() else []
    if not inside:
        return []
    try:
        content = read_object(folder / listing)
        names = {listing, *content["files"]} if content.get("format") == form else set()
    except (OSError, ValueError, KeyError, TypeError):
        names = set()
    if others := [path.name for path in inside if path.name not in names or path.is_dir()]:
        raise ValueError(f"{folder} holds something else ({others[0]}): {way_out}")
    return inside


def replace(made: Path, folder: Path, earlier: Sequence[Path], listing: str) -> None:
    """Move what was made beside it into the folder. The listing goes first and comes last, so that
    what has none is no such folder."""
    folder.mkdir(exist_ok=True)
    for path in sorted(earlier, key=lambda path: path.name != listing):
        path.unlink(missing_ok=True)
    for path in sorted(made.iterdir(), key=lambda path: path.name == listing):
        os.replace(path, folder / path.name)

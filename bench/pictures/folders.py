"""Which files in a folder are pictures.

    pictures_in(Path("photos"))        ["a.jpg", "b/c.png"], relative and sorted

Hidden files and folders, what network drives and systems leave beside pictures, and folders that
may not be read are left out, with a warning; links are followed, each folder once.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench.files import printable

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
# Folders of thumbnails, deleted files and copies beside the pictures, in small letters.
LEFT_BEHIND = ("@eadir", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "__macosx",
               "$recycle.bin", "system volume information", "lost+found")  # fmt: skip


class PictureError(ValueError):
    """A file or folder that cannot serve as pictures; the text says which, why, what to do."""


def unreadable(path: object, error: OSError, way_out: str = "check the path") -> PictureError:
    """The error for a path that the system does not give."""
    return PictureError(f"{printable(path)} cannot be read ({error.strerror}): {way_out}")


def pictures_in(folder: Path) -> list[str]:
    """Relative posix paths of the pictures below `folder`, sorted; `PictureError` without any."""
    try:
        kind = folder.stat().st_mode
    except FileNotFoundError:
        raise PictureError(f"there is no folder {printable(folder)}: check the path") from None
    except OSError as error:  # no permission, a loop of links, too long a name
        raise unreadable(folder, error) from None
    if not stat.S_ISDIR(kind):
        raise PictureError(f"{printable(folder)} is a file: give the folder that holds it")
    pictures: list[str] = []
    closed: list[str] = []  # folders that may not be read, and why
    junk: list[str] = []  # what a system or a drive left
    for where, below, files in _walk(folder, closed):
        names = [name for name in files if name.lower().endswith(ENDINGS)]
        junk += [os.path.join(where, name) for name in (*below, *names) if _is_junk(name)]
        below[:] = sorted(name for name in below if not _is_junk(name))
        inside = Path(where).relative_to(folder)
        pictures += [(inside / name).as_posix() for name in names if not _is_junk(name)]
    if not pictures:
        raise PictureError(
            f"{printable(folder)} and its folders hold no picture ({', '.join(ENDINGS)})"
            f"{f', and {closed[0]}' if closed else ''}: check the path"
        )
    if closed:
        some = "; ".join(closed[:3]) + ("; ..." if len(closed) > 3 else "")
        warnings.warn(f"folders in {printable(folder)} are left out: {some}", stacklevel=3)
    if junk:
        warnings.warn(
            f"{len(junk)} hidden or left-behind files and folders in {printable(folder)} are no "
            f"examples and are left out, the first is {printable(min(junk))}",
            stacklevel=3,
        )
    return sorted(pictures)


def _walk(folder: Path, closed: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` through links, each folder once. Folders below that may not be read are added to
    `closed`; the topmost is a `PictureError`."""

    def refused(error: OSError) -> None:
        if Path(error.filename) == folder:
            way_out = "change its permissions or move the pictures elsewhere"
            raise unreadable(folder, error, way_out) from error
        closed.append(f"{printable(error.filename)} cannot be read ({error.strerror})")

    seen: set[tuple[int, int]] = set()
    for where, below, files in os.walk(folder, onerror=refused, followlinks=True):
        status = os.stat(where)
        place = (status.st_dev, status.st_ino)
        if place in seen:  # a link back into the tree
            below.clear()
        elif not os.access(where, os.X_OK):  # names can be listed, and nothing opened
            below.clear()
            refused(PermissionError(errno.EACCES, os.strerror(errno.EACCES), where))
        else:
            yield where, below, files
        seen.add(place)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BEHIND

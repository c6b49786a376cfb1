"""Archives and pickles of others, read so that nothing in them can act.

member(Path("a.tgz"), "package/x.png")      the bytes of one file inside; nothing is unpacked
arrays_only(data)                           a pickle of containers, numbers and numpy arrays
"""

from __future__ import annotations

import io
import pickle
import pickletools
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

MEMBER_BYTES = 2**30  # of one file in an archive; VGG-16's weights are half of it


def member(archive: Path, name: str) -> bytes:
    """The bytes of one file in a tar or zip archive.

    ValueError where the archive is none, has members outside its own folder, links or devices,
    lacks this file, or has more than `MEMBER_BYTES` of it.
    """
    try:
        data = _read_zip(archive, name) if zipfile.is_zipfile(archive) else _read_tar(archive, name)
    except (ValueError, FileNotFoundError):
        raise
    except Exception as error:  # of a damaged archive, zipfile and tarfile raise nearly everything
        raise ValueError(f"{archive.name} is no whole archive ({error})") from error
    if data is None:
        raise ValueError(f"{archive.name} has no file {name}")
    if len(data) > MEMBER_BYTES:
        raise ValueError(f"{name} has more than {MEMBER_BYTES:,} bytes: refused")
    return data


def _read_zip(archive: Path, name: str) -> bytes | None:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            _refuse(info.filename, stat.S_ISLNK(info.external_attr >> 16))
        if name not in opened.namelist():
            return None
        with opened.open(name) as file:
            return file.read(MEMBER_BYTES + 1)


def _read_tar(archive: Path, name: str) -> bytes | None:
    with tarfile.open(archive) as opened:
        for entry in opened.getmembers():
            _refuse(entry.name, not (entry.isfile() or entry.isdir()))
        file: IO[bytes] | None = opened.extractfile(name) if name in opened.getnames() else None
        return None if file is None else file.read(MEMBER_BYTES + 1)


def _refuse(name: str, special: bool) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or ".." in PurePosixPath(plain).parts:
        raise ValueError(f"the archive has a member outside its folder, {name!r}: refused")
    if special:
        raise ValueError(f"the archive has a link or a device, {name!r}: refused")


def arrays_only(data: bytes) -> Any:
    """Unpickle data made of plain containers and numpy arrays; UnpicklingError for any other."""
    try:
        for code, place, _ in pickletools.genops(data):
            # A table of so many entries is made at once: gigabytes for a few bytes.
            if "PUT" in code.name and isinstance(place, int) and place > len(data):
                raise pickle.UnpicklingError(f"it wants a table of {place:,} entries: refused")
        return _arrays_in(_ArraysOnly(io.BytesIO(data), encoding="latin1").load())
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # the opcodes of a damaged one may ask for anything
        raise pickle.UnpicklingError(f"it is no whole pickle of arrays ({error})") from error


class _ArraysOnly(pickle.Unpickler):
    """Refuses every class and function but the numpy arrays', so that a pickle cannot run anything.
    numpy's own classes are no part of it: what they are told by a pickle they believe, and the
    process dies."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _Kind
        reconstruct = module in ("numpy.core.multiarray", "numpy._core.multiarray")
        if (module, name) == ("numpy", "ndarray") or (reconstruct and name == "_reconstruct"):
            return _Array
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no numpy array: refused")


NUMBERS = {"b1", "f2", "f4", "f8", *(f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8))}


class _Kind:
    """Stands for a numpy dtype of numbers."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in NUMBERS:
            raise pickle.UnpicklingError(f"it has an array of {code!r}, no numbers: refused")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a numpy array: shape, type and content are set after it was made."""

    value: np.ndarray | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, by_column, content = state
        if isinstance(content, str):  # Python 2 had no bytes
            content = content.encode("latin1")
        flat = np.frombuffer(content, kind.dtype)
        self.value = flat.reshape(shape, order="F" if by_column else "C").copy()


def _arrays_in(value: Any) -> Any:
    """What was unpickled, with arrays where something stands for them."""
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("it has an array without content")
        return value.value
    if isinstance(value, dict):
        return {key: _arrays_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_arrays_in(item) for item in value)
    return value

"""Named external files: pretrained weights and pictures, each from one of several sources.

    get("vgg16-convs")                  the verified file in the cache, fetched where it is missing
    python run_bench.py fetch           all of them beforehand

Whatever the source, a file is converted to one canonical form whose content is pinned by a hash, so
two machines never measure with different weights. The cache is a folder of plain files, the user's
cache folder unless the environment variable YOTO_BENCH_CACHE names another; it can be copied to a
machine without a network. Nothing that is fetched is executed or read before its hash is verified.
"""

from __future__ import annotations

import difflib
import fcntl
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.files import read_ordinary, write_atomic
from bench.pictures.artefacts import ARTEFACTS
from bench.pictures.folders import PictureError, unreadable
from bench.pictures.sources import Artefact

CACHE_VARIABLE = "YOTO_BENCH_CACHE"
MOST_BYTES = 2**31  # of a user's file; VGG-16 with its classifier has a quarter


class Unavailable(RuntimeError):
    """An artefact that no source gave; the text lists what was tried and the way out."""


_failed: dict[tuple[str, Path], str] = {}  # what could not be had, for this process


def get(name: str) -> Path:
    """The verified file of an artefact, fetched where the cache lacks it; else `Unavailable`."""
    if name not in ARTEFACTS:
        near = difflib.get_close_matches(name, ARTEFACTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ARTEFACTS)}"
        raise ValueError(f"no artefact is called {name!r}: {hint}")
    artefact = ARTEFACTS[name]
    path = cache_folder() / artefact.file
    if _intact(path, artefact.content):
        return path
    if (name, path) in _failed:  # asking every source again would only cost time
        raise Unavailable(_failed[name, path])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # workers that need the same file fetch it once
            if not _intact(path, artefact.content):  # another process may have been faster
                _fetch(name, artefact, path)
    except Unavailable as error:
        _failed[name, path] = str(error)
        raise
    except OSError as error:
        raise Unavailable(
            f"{name} cannot be stored in {path.parent} ({error.strerror or error}): free some "
            f"space there, or name another folder with the environment variable {CACHE_VARIABLE}"
        ) from error
    return path


def fetch_all(names: Sequence[str] | None = None) -> list[tuple[str, Path | Unavailable]]:
    """Get these artefacts, or all: (name, its path or why it cannot be had)."""
    _failed.clear()
    results: list[tuple[str, Path | Unavailable]] = []
    for name in ARTEFACTS if names is None else names:
        try:
            results.append((name, get(name)))
        except Unavailable as error:
            results.append((name, error))
    return results


def cache_folder() -> Path:
    """Where artefacts lie on this machine; `Unavailable` where no home folder is known."""
    chosen = os.environ.get(CACHE_VARIABLE)
    on_mac = sys.platform == "darwin"
    caches = "" if on_mac else os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if os.path.isabs(caches):  # a relative one is no one's, as its standard says
            return Path(caches) / "yoto-bench"
        return Path.home().absolute() / ("Library/Caches" if on_mac else ".cache") / "yoto-bench"
    except RuntimeError:
        raise Unavailable(
            "there is no home folder here, so none for downloaded weights and pictures: name one "
            f"with the environment variable {CACHE_VARIABLE} or with --cache"
        ) from None


def _fetch(name: str, artefact: Artefact, path: Path) -> None:
    if path.exists():
        _say(f"{path} is damaged (its content has another hash): fetching it again")
    reasons = []
    for source in artefact.sources:
        _say(f"fetching {name} ({artefact.line}) from {source.label}")
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
                data = source.canonical(Path(folder))
            if content_digest(data, artefact.file) != artefact.content:
                raise ValueError("its content is not the pinned one")
        except Exception as error:  # any failure of a source leads to the next one
            reason = str(error).strip() or type(error).__name__
            reasons.append(f"  {source.label}: {reason}")
            _say(f"  failed: {reason}")
            continue
        write_atomic(path, data)
        return
    raise Unavailable(
        f"{name} ({artefact.line}) cannot be had; tried\n" + "\n".join(reasons) + "\n"
        f"Run `python run_bench.py fetch {name}` on a machine with a network and copy its cache "
        f"folder to {path.parent}, or name the copy with the environment variable {CACHE_VARIABLE}"
    )


def content_digest(data: bytes, file: str) -> str:
    """SHA-256 of a canonical file: of the tensors' names, types, shapes and bytes for
    safetensors, whose header may be written in several ways; of the bytes for all others."""
    if not file.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    from safetensors.numpy import load

    digest = hashlib.sha256()
    for name, array in sorted(load(data).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def content(path: str, artefact: str) -> str:
    """`content_digest` of a user's file; of the artefact, which need not be there, for ""."""
    if not path:
        return ARTEFACTS[artefact].content
    try:
        return content_digest(read_ordinary(Path(path), MOST_BYTES), path)
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # safetensors' own, and those of `read_ordinary`
        raise PictureError(f"{path} cannot be used ({error}): give another file") from None


def _intact(path: Path, content: str) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return _verify(path, status.st_mtime_ns, status.st_size, content)


@functools.lru_cache(maxsize=32)
def _verify(path: Path, changed: int, size: int, content: str) -> bool:
    try:
        return content_digest(path.read_bytes(), path.name) == content
    except Exception:  # a file cut short is no safetensors file at all
        return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

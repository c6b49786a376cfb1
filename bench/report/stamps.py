"""Whether files on disk are still those that the results give: then nothing is drawn again.

    inputs = inputs_of(run)                     a digest of all that its report is made of
    names = unchanged(folder, inputs)           its files, None where anything differs
    stamp(folder, inputs, files)                what `unchanged` compares with

A stamp holds the digest of what went in, this suite's own source and the versions of the libraries
among it, and the SHA-256 of every file that came out. It guards against age, not against people:
who can write the files can write the stamp, and the records.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import bench
from bench.files import read_object, read_ordinary, write_atomic
from bench.report.load import Results, Run
from bench.report.pictures import sample_of

STAMP = ".made_of.json"
LARGEST = 2**28  # bytes of a file that is worth keeping
# Tables whose rows are those of files with a SHA-256 of their own, which `measured` has.
HASHED = {"records", "swept_records", "length_records", "infinite"}
PACKAGES = ("matplotlib", "numpy", "pandas", "pillow", "scipy", "seaborn", "bjontegaard", "moocore")


def inputs_of(run: Run) -> str:
    """A digest of the run as it was read, its family with it, and of the code."""
    digest = hashlib.sha256(repr((_code(), run.key, run.folder)).encode())
    for each in run.family or [run]:
        for field in dataclasses.fields(each):
            if field.name not in ("family", *HASHED):
                digest.update(_bytes_of(field.name, getattr(each, field.name)))
    return digest.hexdigest()


def inputs_of_page(results: Results, runs: Iterable[str], files: Iterable[Path], *more: str) -> str:
    """The same of the page: what its reports are made of, and the files of these as they are."""
    digest = hashlib.sha256(repr((_code(), *runs, *more, len(results.records))).encode())
    digest.update(repr(results.measured["time"].max()).encode())
    digest.update(_bytes_of("cells", results.cells))
    for path in files:
        with contextlib.suppress(OSError, ValueError):  # what cannot be read the page has not
            digest.update(f"{path.name} {_sum(path)}\n".encode())
    return digest.hexdigest()


def unchanged(folder: Path, inputs: str) -> list[str] | None:
    """The names of the stamped files, if they were made of this and are as they were written."""
    try:
        stamped = read_object(folder / STAMP)
        names = stamped["files"]
        plain = all(Path(name).name == name for name in names)
        if plain and stamped["inputs"] == inputs:
            same = all(_sum(folder / name) == known for name, known in names.items())
            return list(names) if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # there is none, or none of ours
    return None


def stamp(folder: Path, inputs: str, files: Mapping[str, str | bytes]) -> None:
    """Written after the files; where that fails they are made anew the next time."""
    sums = {
        name: hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
        for name, data in files.items()
    }
    with contextlib.suppress(OSError):
        write_atomic(folder / STAMP, json.dumps({"inputs": inputs, "files": sums}, indent=1))


def _sum(path: Path) -> str:
    if path.is_symlink():
        raise ValueError("a link may lead to anything")
    return hashlib.sha256(read_ordinary(path, LARGEST)).hexdigest()


def _bytes_of(name: str, value: Any) -> bytes:
    """A field of a run, with nothing in it of where the folder lies."""
    if isinstance(value, Path):
        return f"{name} {_picture(value)}\n".encode()
    if not isinstance(value, pd.DataFrame):
        return f"{name} {value!r}\n".encode()
    if name == "context":  # known curves, of which no run has the files
        rows = pd.util.hash_pandas_object(value, index=False)
        return name.encode() + rows.to_numpy().tobytes()
    lines = [repr(row) for row in value.drop(columns="path").itertuples(index=False, name=None)]
    if "picture_sha256" in value:
        shas = value["picture_sha256"]
        lines += [
            _picture(path, sha)
            for path, sha in zip(value["path"].map(sample_of), shas, strict=True)
        ]
    return "\n".join([name, *lines, ""]).encode()


def _picture(path: Path | None, known: object = None) -> str:
    """What a picture is: the SHA-256 that was compared with it when it was read, or its own."""
    return "" if path is None else known if isinstance(known, str) else _sum(path)


@functools.cache
def _code() -> tuple[str, ...]:
    """The suite's source and the libraries that compute and draw."""
    root, source = Path(bench.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            source.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    versions = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return source.hexdigest(), platform.python_version(), *versions

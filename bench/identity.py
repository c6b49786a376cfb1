"""Who a result is: canonical JSON and its content id, and the provenance kept beside it.

An id is a hash of plain values only, so it is the same in every process and on every machine.
What may differ between machines (commit, device, package versions) is provenance.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.files import brief, printable

# Fields marked so came later than stored results: at its default such a field is no part of an id,
# so that what was trained before there was a choice still counts.
ADDED = {"added": True}

# What a recorded number can depend on.
PACKAGES = ("torch", "compressai", "numpy", "pillow", "lpips")


def plain(value: Any, where: str = "value") -> Any:
    """Dataclasses, tuples and mappings as JSON's own types; anything else is a TypeError."""
    if _is_record(value):
        fields = dataclasses.fields(value)
        return {f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields}
    if isinstance(value, dict):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{where} is a {type(value).__name__}: only numbers, strings, truth values, None, tuples "
        "and dataclasses of these can be part of an experiment"
    )


def identifying(plugin: Any) -> dict[str, Any]:
    """The fields of a dataclass that are part of an id, as JSON's own types: neither locations nor
    `ADDED` ones at their default. Raises TypeError as `plain`."""
    identity: dict[str, Any] = {}
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        unchanged = field.metadata.get("added") and value == field.default
        if not (unchanged or field.metadata.get("location")):
            record = _is_record(value)
            identity[field.name] = identifying(value) if record else plain(value, field.name)
    return identity


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_id(value: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Provenance


def provenance() -> dict[str, Any]:
    """Where and with what a result was made; never part of an id."""
    return {
        "commit": commit(),
        "packages": package_versions() | accelerator(),
        "platform": platform.platform(),
        "processor": processor(),
        "command": brief(printable(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@functools.cache
def commit() -> str:
    """The commit this code was checked out at, `+` behind it where files differ; else `unknown`."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *words]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode().strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # not a repository around us
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD")[:12] + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return "unknown"


@functools.cache
def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


@functools.cache
def processor() -> str:
    """The CPU's name as the system gives it."""
    known = re.search(r"^model name\s*:\s*(.+?)\s*$", _read("/proc/cpuinfo"), re.MULTILINE)
    return known[1] if known else platform.processor() or platform.machine()


@functools.cache
def accelerator() -> dict[str, str]:
    """The versions of CUDA, cuDNN and the driver, where torch is loaded and sees a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    driver = re.search(r"\d+(\.\d+)+", _read("/proc/driver/nvidia/version"))
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": driver[0] if driver else "unknown",
    }


def _read(path: str) -> str:
    """A file of the system, "" where there is none."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""

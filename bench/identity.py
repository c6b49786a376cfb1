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

from bench.files import printable

# Fields marked so came later than stored results: at its default such a field is no part of an id,
# so that what was trained before there was a choice still counts.
ADDED = {"added": True}

# What a recorded number can depend on.
PACKAGES = ("torch", "compressai", "numpy", "pillow", "lpips")


def plain(value: Any, where: str = "value") -> Any:
    """Dataclasses, tuples and mappings as JSON's own types; anything else is a TypeError."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
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
    """The fields of a dataclass that are part of an id, as JSON's own types; see `ADDED`. Raises
    TypeError as `plain`."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        if field.metadata.get("location") or (
            field.metadata.get("added") and value == field.default
        ):
            continue
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        found[field.name] = identifying(value) if nested else plain(value, field.name)
    return found


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


@functools.cache
def commit() -> str:
    """The commit this code was checked out at, `+` behind it where files differ; else `unknown`."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    text: Any = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], **text)
        ours = [*git, "ls-files", "--error-unmatch", __file__]  # not a repository around us
        if head.returncode or subprocess.run(ours, capture_output=True).returncode:
            return "unknown"
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, **text)
    except OSError:
        return "unknown"
    return head.stdout.strip()[:12] + ("+" if changed.stdout.strip() else "")


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
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def accelerator() -> dict[str, str]:
    """The versions of CUDA, cuDNN and the driver, where torch is loaded and sees a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    try:
        driver = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        driver = ""
    number = re.search(r"\d+(\.\d+)+", driver)
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": number[0] if number else "unknown",
    }


def provenance() -> dict[str, Any]:
    """Where and with what a result was made; never part of an id."""
    return {
        "commit": commit(),
        "packages": package_versions() | accelerator(),
        "platform": platform.platform(),
        "processor": processor(),
        "command": printable(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

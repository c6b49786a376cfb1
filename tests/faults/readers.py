"""Everything that reads files, with sound contents to start from: what `fuzz.py` feeds.

Imported by it inside atheris' instrumentation, where that is installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from PIL import Image

from bench.checkpoint import MAGIC, STATE, load_state
from bench.files import SEAL, sealed
from bench.pictures.archives import arrays_only, member
from bench.pictures.data import Pictures
from bench.report.answers import spending
from bench.report.load import load_results
from bench.run import folders, lease, looks
from bench.run.plan import experiment, experiment_from
from bench.run.records import Record, dumps, loads
from bench.run.runner import Run
from bench.run.schema import CellConfig, RunConfig, read, text
from bench.run.store import Store, cell_from

CPU = torch.device("cpu")

Read = Callable[[bytes, Path], object]


@dataclasses.dataclass(frozen=True)
class Reader:
    """read: what is fuzzed, given content and an empty folder. seeds: sound contents."""

    read: Read
    seeds: Callable[[], list[bytes]]
    is_json: bool = False


# ------------------------------------------------------------------ sound files


@functools.cache
def place() -> tempfile.TemporaryDirectory[str]:
    """Goes with this process."""
    return tempfile.TemporaryDirectory(prefix="fuzz-")


@functools.cache
def results() -> Path:
    """A small run's results folder."""
    root = Path(place().name) / "results"
    run = Run(root, [experiment("toy", "smoke", ["fixed_grid", "yoto"])], CPU)
    with contextlib.redirect_stdout(io.StringIO()):
        run.execute(run.train_jobs(), "training", lambda: False)
        run.execute(run.record_jobs(), "measuring", lambda: False)
    run.save_config()
    assert not run.failures
    return root


def files(pattern: str, count: int = 2) -> list[bytes]:
    return [path.read_bytes() for path in sorted(results().glob(pattern))[:count]]


def unsealed(pattern: str) -> list[bytes]:
    """Such files without their seal, so that what is changed in them is read."""
    objects = [json.loads(content) for content in files(pattern)]
    return [json.dumps({k: v for k, v in o.items() if k != SEAL}).encode() for o in objects]


def states() -> list[bytes]:
    tensors = {"a": torch.zeros(2, 3), "b": torch.arange(4)}
    state: dict[str, Any] = dict.fromkeys(STATE, 0) | {"network": tensors, "random": tensors}
    found = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=new)
        found.append(file.getvalue())
    return found


def archives(kind: str) -> list[bytes]:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a/b.txt", b"b" * 100)
            made.writestr("c", b"c")
    else:
        with tarfile.open(fileobj=file, mode=kind) as tar:
            for name in ("a/b.txt", "c"):
                entry = tarfile.TarInfo(name)
                entry.size = 100
                tar.addfile(entry, io.BytesIO(bytes(100)))
    return [file.getvalue()]


def pickles() -> list[bytes]:
    content = {"net": {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32([1, 2]), "text", 3]}}
    return [pickle.dumps(content, protocol=protocol) for protocol in (3, 4)]


def pictures() -> list[bytes]:
    found = []
    for kind in ("png", "jpeg", "tiff", "webp"):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.linear_gradient("L").resize((9, 12)).convert(mode).save(file, kind, exif=exif)
            found.append(file.getvalue())
    return found


def rows() -> list[bytes]:
    names = ("plain", "=1+1", "'=x", 'a\r\n"b"', "日本, 語")
    made = [Record("t", "p", "e", "m", 0, "c", "s=1", name, "loss", 0.1) for name in names]
    return [*files("records/*/*/*.csv"), dumps(made).encode()]


# ------------------------------------------------------------------ readers


def read_records(content: bytes, folder: Path) -> None:
    found = loads(content.decode("utf-8", "replace"), "a file")
    again = loads(dumps(found), "a file")
    assert repr(again) == repr(found), "records do not come back as they were"


def read_cell(content: bytes, folder: Path) -> object:
    (folder / "config.json").write_bytes(content)
    return cell_from(read(folder / "config.json", CellConfig))


def read_run(content: bytes, folder: Path) -> object:
    (folder / "config.json").write_bytes(content)
    config = read(folder / "config.json", RunConfig)
    return [experiment_from(each) for each in config.experiments]


def look_after(name: str, content: bytes, folder: Path) -> None:
    """Everything that `status`, `clean` and `merge` read of a cell."""
    root = folder / "results"
    cell = root / "runs/toy/yoto/0123456789ab"
    cell.mkdir(parents=True)
    (cell / "config.json").write_bytes(files("runs/toy/yoto/*/config.json")[0])
    (cell / name).write_bytes(content)
    folders.status(root)
    folders.clean(root)
    folders.merge([root], folder / "out")
    assert {path.name for path in folder.iterdir()} <= {"results", "out"}


def read_lease(content: bytes, folder: Path) -> None:
    path = folder / "lease.json"
    path.write_bytes(content)
    holder = lease.read(path)
    assert holder is not None
    lease.alive(path, holder)


def read_looks(content: bytes, folder: Path) -> None:
    path = folder / "looks/x.json"
    path.parent.mkdir()
    path.write_bytes(content)
    for each in looks.every(folder):
        spending.tails(min(len(each.seeds), 9))


@functools.cache
def reported() -> Path:
    """A results folder of one method's records, in which one file at a time is exchanged."""
    root = Path(tempfile.mkdtemp(dir=place().name)) / "results"  # one for every forked process
    shutil.copytree(results() / "records/toy/yoto", root / "records/toy/yoto")
    for done in results().glob("runs/toy/yoto/*/done.json"):
        (root / done.relative_to(results())).parent.mkdir(parents=True)
        shutil.copyfile(done, root / done.relative_to(results()))
    return root


def report_on(content: bytes, folder: Path, name: str) -> None:
    """A results folder of which one file is this; a table is sealed with its hash again."""
    root = reported()
    table = min(root.glob("records/toy/yoto/*.csv"))
    head, done = table.with_suffix(".json"), min(root.glob("runs/toy/yoto/*/done.json"))
    before = {path: path.read_bytes() for path in (head, table, done)}
    try:
        {"head": head, "table": table, "done": done}[name].write_bytes(content)
        if name == "table":
            digest = {"sha256": hashlib.sha256(content).hexdigest()}
            head.write_text(sealed(json.loads(before[head]) | digest))
        for run in load_results(root).runs:
            assert run.folder
            assert "/" not in run.folder
            run.labels()
    finally:
        for path, whole in before.items():
            path.write_bytes(whole)


def read_state(content: bytes, folder: Path) -> object:
    path = folder / "state.pt"
    path.write_bytes(MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return load_state(path, CPU)


def read_weights(content: bytes, folder: Path) -> object:
    root = folder / "results"
    whole = next(results().glob("runs/toy/fixed_grid/*"))
    cell = root / whole.relative_to(results())
    shutil.copytree(whole, cell)
    (cell / "model.safetensors").write_bytes(content)
    done = json.loads((cell / "done.json").read_bytes())
    done["model_sha256"] = hashlib.sha256(content).hexdigest()
    (cell / "done.json").write_text(sealed(done))
    return Store(root).network(cell_from(read(cell / "config.json", CellConfig)))


def read_member(content: bytes, folder: Path) -> object:
    (folder / "archive").write_bytes(content)
    return member(folder / "archive", "a/b.txt")


def read_picture(content: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(content)
    Pictures([folder / "a.png"]).to(CPU)


READERS: dict[str, Reader] = {
    "record": Reader(read_records, rows),
    "cell": Reader(read_cell, lambda: unsealed("runs/*/*/*/config.json"), True),
    "run": Reader(read_run, lambda: unsealed("configs/*.json"), True),
    "report-head": Reader(
        functools.partial(report_on, name="head"),
        lambda: unsealed("records/toy/yoto/*.json")[:1],  # that of the table which is there
        True,
    ),
    "report-table": Reader(
        functools.partial(report_on, name="table"), lambda: files("records/toy/yoto/*.csv", 1)
    ),
    "report-cell": Reader(
        functools.partial(report_on, name="done"),
        lambda: unsealed("runs/toy/yoto/*/done.json"),
        True,
    ),
    "status-config": Reader(
        functools.partial(look_after, "config.json"),
        lambda: unsealed("runs/*/*/*/config.json"),
        True,
    ),
    "status-done": Reader(
        functools.partial(look_after, "done.json"), lambda: unsealed("runs/*/*/*/done.json"), True
    ),
    "status-log": Reader(
        functools.partial(look_after, "log.jsonl"), lambda: files("runs/*/*/*/log.jsonl")
    ),
    "lease": Reader(
        read_lease,
        lambda: [text(replace(lease.NOBODY, pid=os.getpid(), token="t", beat=3)).encode()],
        True,
    ),
    "looks": Reader(
        read_looks,
        lambda: [
            text(looks.Looks(task="t", preset="p", experiment="e", seeds=(4, 1, 2, 9))).encode()
        ],
        True,
    ),
    "state": Reader(read_state, states),
    "weights": Reader(read_weights, lambda: files("runs/*/fixed_grid/*/model.safetensors", 1)),
    "pickle": Reader(lambda content, folder: arrays_only(content), pickles),
    "tar": Reader(read_member, lambda: archives("w") + archives("w:gz")),
    "zip": Reader(read_member, lambda: archives("zip")),
    "picture": Reader(read_picture, pictures),
}

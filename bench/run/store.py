"""Run folders: what is stored, what is finished, what is missing.

    DIR/runs/<task>/<method>/<cell id>/   config.json log.jsonl state.pt model.safetensors done.json
                                          (and model-<share>.safetensors, its snapshots;
                                          failed.json where the last try ended in an error)
    DIR/records/<task>/<method>/<id>.csv  .json (and .png): one method measured at one setting
                                          (and .lease while somebody does)
    DIR/configs/<id>.json                 every `run` as it was asked for

Files are written under a temporary name and renamed; `done.json` and `<id>.json` come last, so
that whatever lacks them is unfinished. Weights are safetensors, checkpoints load with
`weights_only=True`: neither can run code. A configuration names the classes it is made of, which
may be in a user's own Python file on this machine; replaying it runs that file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from bench.conditioners import Network
from bench.files import read_object, sealed, write_atomic
from bench.identity import provenance
from bench.method import Cell, Method, build
from bench.registry import UNFIT, describe, revive
from bench.run.records import Record, dumps
from bench.task import Task


class Damaged(RuntimeError):
    """A stored file is not what was written; the message says which and what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; Damaged where it is none."""
    try:
        return read_object(path)
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({error}): delete it and run again") from None


class Store:
    """The results folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # Cells

    def folder(self, cell: Cell) -> Path:
        return self.root / "runs" / cell.task.name / cell.method.name / cell.id

    def prepare(self, cell: Cell, preset: str, snapshots: Sequence[float] = ()) -> Path:
        """Make the cell's folder with its configuration; return the folder."""
        folder = self.folder(cell)
        config = folder / "config.json"
        if not config.exists():
            content = {**cell_config(cell, preset), "snapshots": list(snapshots)}
            write_atomic(config, sealed(content))
        return folder

    def tidy(self, cell: Cell) -> None:
        """Remove what a process left that was killed while it wrote, and a damaged configuration;
        for the lease's holder, who then prepares the folder again.

        A configuration is written before there is a lease, perhaps by another run just now.
        """
        (self.folder(cell) / "failed.json").unlink(missing_ok=True)
        for torn in self.folder(cell).glob(".*.tmp"):
            if not torn.name.startswith(".config.json."):
                torn.unlink(missing_ok=True)
        config = self.folder(cell) / "config.json"
        try:
            read_json(config)
        except (Damaged, FileNotFoundError):
            config.unlink(missing_ok=True)

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """The content of `done.json`, or None while the cell is unfinished.

        A damaged one is put aside with a warning: what it said is lost, so the cell is trained
        anew, and the other cells are not held up.
        """
        path = self.folder(cell) / "done.json"
        try:
            return read_json(path) if path.exists() else None
        except Damaged:
            with contextlib.suppress(FileNotFoundError):  # another run was faster
                path.replace(path.with_suffix(".damaged"))
            warnings.warn(
                f"{path} is damaged: it is kept as done.damaged and this cell is trained anew",
                stacklevel=2,
            )
            return None

    def finish(
        self,
        cell: Cell,
        preset: str,
        network: Network,
        ledger: dict[str, Any],
        snapshots: Mapping[float, str | None] = MappingProxyType({}),
    ) -> None:
        """Store a trained network and, last, `done.json`; the checkpoint is no longer needed.

        `snapshots`: by share, what `keep` returned. The files are not read again, so that damage
        since then is no part of the result.
        """
        folder = self.folder(cell)
        digest = self.keep(cell, network)
        done = {
            "status": "done",
            "model_sha256": digest,
            "snapshots": {f"{share:g}": snapshots[share] for share in sorted(snapshots)},
            "ledger": {**ledger, "bytes": (folder / "model.safetensors").stat().st_size},
        }
        self._close(cell, preset, done)

    def keep(self, cell: Cell, network: Network, share: float = 1.0) -> str:
        """Store the weights after a share of the training; return their SHA-256."""
        weights = packed(network)
        write_atomic(self.folder(cell) / weights_file(share), weights)
        return hashlib.sha256(weights).hexdigest()

    def note_failure(self, folder: Path, reason: str) -> None:
        """Say in a cell's folder that its training ended in an error; the next one takes it out."""
        write_atomic(folder / "failed.json", sealed({"reason": reason, "time": time.time()}))

    def give_up(self, cell: Cell, preset: str, reason: str, ledger: dict[str, Any]) -> None:
        """Record a diverged training: a result, shown in the report and not tried again."""
        self._close(cell, preset, {"status": "diverged", "reason": reason, "ledger": ledger})

    def _close(self, cell: Cell, preset: str, done: dict[str, Any]) -> None:
        folder = self.folder(cell)
        head = {
            "id": cell.id,
            "task": cell.task.name,
            "preset": preset,
            "method": cell.method.name,
            "seed": cell.seed,
            "trained_for": cell.trained_for,
            "after": cell.after and cell.after.id,
        }
        write_atomic(folder / "done.json", sealed({**head, **done, "provenance": provenance()}))
        (folder / "state.pt").unlink(missing_ok=True)

    def network(self, cell: Cell, share: float = 1.0) -> Network:
        """A finished cell's network, or its snapshot after a share of the training, on the CPU,
        in evaluation mode. Raises Damaged."""
        folder = self.folder(cell)
        path = folder / weights_file(share)
        way_out = f"delete the folder {folder} and run again to train this cell anew"
        done = self.result(cell)
        if done is None or not path.exists():
            raise Damaged(f"{path} is missing: {way_out}")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != weights_digest(done, share):
            raise Damaged(f"{path} is damaged (its SHA-256 is not the one in done.json): {way_out}")
        try:
            return unpacked(cell, data)
        except (SafetensorError, RuntimeError) as error:
            raise Damaged(f"{path} does not fit its configuration: {way_out}") from error

    def forget(self, cells: Iterable[Cell]) -> None:
        """Delete cells with all that belongs to them (`run --again`)."""
        for cell in cells:
            folder = self.folder(cell)
            if folder.exists():
                (folder / "done.json").unlink(missing_ok=True)  # first: the rest is then no result
                shutil.rmtree(folder)

    def find(self, identifier: str) -> Path:
        """The folder of the cell whose id begins with `identifier`; ValueError otherwise."""
        kinds = list(self.root.glob("runs/*/*"))
        # A whole id needs no look at the other cells, which a pattern would go through.
        found = [kind / identifier for kind in kinds if identifier.isalnum()]
        found = [folder for folder in found if (folder / "config.json").exists()] or [
            folder
            for kind in kinds
            for folder in kind.iterdir()
            if folder.name.startswith(identifier) and (folder / "config.json").exists()
        ]
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} cells in {self.root} have an id that begins with {identifier!r}: "
                "`run --dry` lists the missing ones"
            )
        return found[0]

    # Records

    def record_path(self, task: str, method: str, identifier: str) -> Path:
        return self.root / "records" / task / method / f"{identifier}.json"

    def write_records(
        self, path: Path, head: dict[str, Any], records: list[Record], picture: bytes | None = None
    ) -> None:
        """The rows of one method at one setting, then, last, the file that says they are whole."""
        text = dumps(records)
        write_atomic(path.with_suffix(".csv"), text)
        head = {**head, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        if picture is not None:
            write_atomic(path.with_suffix(".png"), picture)
            head["picture_sha256"] = hashlib.sha256(picture).hexdigest()
        head |= {"provenance": provenance(), "time": time.time()}
        write_atomic(path, sealed(head))


PAIRS = " (real, imaginary)"  # behind the name of a tensor stored as pairs of numbers


def packed(network: Network) -> bytes:
    """A network's weights as the content of a safetensors file."""
    state = {}
    for name, value in network.state_dict().items():
        if value.dtype == torch.complex128:  # the format has only the smaller one
            name, value = name + PAIRS, torch.view_as_real(value)
        # Copies, because tied weights share memory, which the format refuses.
        state[name] = value.cpu().contiguous().clone()
    return save(state)


def unpacked(cell: Cell, weights: bytes) -> Network:
    """A new network of a cell, on the CPU and in evaluation mode, with the weights of a file's
    content. Raises SafetensorError and RuntimeError."""
    network = build(cell, start=False)
    state = load(weights)
    for name in [name for name in state if name.endswith(PAIRS)]:
        state[name.removesuffix(PAIRS)] = torch.view_as_complex(state.pop(name))
    network.load_state_dict(state)
    return network.eval()


def weights_file(share: float) -> str:
    return "model.safetensors" if share == 1 else f"model-{share:g}.safetensors"


def weights_digest(done: dict[str, Any], share: float = 1.0) -> str | None:
    """What `done.json` says of a network's weights, or of a snapshot's; None where it is not."""
    if share == 1:
        return done.get("model_sha256")
    kept = done.get("snapshots")
    return kept.get(f"{share:g}") if isinstance(kept, dict) else None


def cell_config(cell: Cell, preset: str) -> dict[str, Any]:
    """A cell as plain values: all a worker needs besides the results folder.

    `before` goes back through the cells it starts from, and leaves out a task or method that is
    the later one's: a long chain is a long list, neither deep nor large.
    """
    before = []
    for later, one in itertools.pairwise(reversed(cell.chain)):
        part = {"id": one.id, "seed": one.seed, "trained_for": one.trained_for}
        if one.task is not later.task:
            part["task"] = describe(one.task)
        if one.method is not later.method:
            part["method"] = describe(one.method)
        before.append(part)
    return {
        "kind": "cell",
        "id": cell.id,
        "preset": preset,
        "task": describe(cell.task),
        "method": describe(cell.method),
        "seed": cell.seed,
        "trained_for": cell.trained_for,
        "before": before,
    }


def cell_from(config: dict[str, Any]) -> Cell:
    """The inverse of `cell_config`. ValueError where code or data changed since."""
    try:
        parts = [config]
        for part in config["before"]:
            parts.append({**parts[-1], **part})
        made: dict[int, Any] = {}  # by the description, which cells of a chain share
        cell: Cell | None = None
        for part in reversed(parts):
            for name, base in (("task", Task), ("method", Method)):
                if id(part[name]) not in made:
                    made[id(part[name])] = revive(part[name], base)
            cell = Cell(
                task=made[id(part["task"])],
                method=made[id(part["method"])],
                seed=part["seed"],
                trained_for=tuple(tuple(setting) for setting in part["trained_for"]),
                after=cell,
            )
            expected, found = part["id"], cell.id
            if found != expected:
                raise ValueError(
                    f"cell {expected} cannot be made again: its task, method or training data "
                    f"changed since (they now give {found}); plan it anew with `run`"
                )
    except UNFIT as error:
        raise ValueError(f"this is no cell's configuration: {error!r}") from error
    assert cell is not None
    return cell

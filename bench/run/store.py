"""What is stored, what is finished, what is missing: the results folder of `bench/run/layout.py`.

Weights are safetensors, checkpoints load with `weights_only=True`: neither can run code. A
configuration names the classes it is made of, which may be in a user's own Python file on this
machine; replaying it runs that file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from bench.conditioners import Network
from bench.files import brief, read_ordinary, write_atomic
from bench.identity import provenance
from bench.method import Cell, Method, build
from bench.run import layout
from bench.run.records import Record, dumps
from bench.run.schema import (
    CellConfig,
    Damaged,
    Done,
    Earlier,
    Failure,
    Head,
    Ledger,
    OtherVersion,
    Plugin,
    Provenance,
    read,
    text,
)
from bench.task import Task


class Store:
    """The results folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # Cells

    def folder(self, cell: Cell) -> Path:
        return layout.cell_folder(self.root, cell.task.name, cell.method.name, cell.id)

    def prepare(self, cell: Cell, preset: str) -> Path:
        """Make the cell's folder with its configuration; return the folder."""
        config = self.folder(cell) / layout.CONFIG
        if not config.exists():
            write_atomic(config, text(cell_config(cell, preset)))
        return config.parent

    def tidy(self, cell: Cell) -> None:
        """Remove what a process left that was killed while it wrote, and a damaged configuration;
        for the lease's holder, who then prepares the folder again.

        A configuration is written before there is a lease, perhaps by another run just now.
        """
        folder = self.folder(cell)
        (folder / layout.FAILED).unlink(missing_ok=True)
        for torn in folder.glob(".*.tmp"):
            if not torn.name.startswith(f".{layout.CONFIG}."):
                torn.unlink(missing_ok=True)
        try:
            read(folder / layout.CONFIG, CellConfig)
        except (Damaged, FileNotFoundError):
            (folder / layout.CONFIG).unlink(missing_ok=True)

    def result(self, cell: Cell) -> Done | None:
        """What came of a cell, or None while it is unfinished.

        A damaged `done.json` is put aside with a warning: what it said is lost, so the cell is
        trained anew, and the other cells are not held up. Raises OtherVersion.
        """
        path = self.folder(cell) / layout.DONE
        try:
            return read(path, Done)
        except FileNotFoundError:
            return None
        except OtherVersion:
            raise
        except Damaged:
            with contextlib.suppress(FileNotFoundError):  # another run was faster
                path.replace(path.with_suffix(".damaged"))
            warnings.warn(
                f"{path} is damaged: it is kept as done.damaged and this cell is trained anew",
                stacklevel=2,
            )
            return None

    def finish(self, cell: Cell, preset: str, network: Network, ledger: Ledger) -> None:
        """Store a trained network and, last, `done.json`; the checkpoint is no longer needed."""
        weights = packed(network)
        write_atomic(self.folder(cell) / layout.WEIGHTS, weights)
        done = _ended(cell, preset, "done", ledger)
        done.model_sha256, ledger.bytes = hashlib.sha256(weights).hexdigest(), len(weights)
        self._close(cell, done)

    def note_failure(self, folder: Path, reason: str) -> None:
        """Say in a cell's folder that its training ended in an error; the next one takes it out."""
        write_atomic(folder / layout.FAILED, text(Failure(reason=reason, time=time.time())))

    def give_up(self, cell: Cell, preset: str, reason: str, ledger: Ledger) -> None:
        """Record a diverged training: a result, shown in the report and not tried again."""
        done = _ended(cell, preset, "diverged", ledger)
        done.reason, ledger.bytes = brief(reason), 0
        self._close(cell, done)

    def _close(self, cell: Cell, done: Done) -> None:
        folder = self.folder(cell)
        write_atomic(folder / layout.DONE, text(done))
        (folder / layout.STATE).unlink(missing_ok=True)

    def network(self, cell: Cell) -> Network:
        """A finished cell's network on the CPU, in evaluation mode. Raises Damaged."""
        return stored_network(cell, self.folder(cell), self.result(cell))

    def forget(self, cells: Iterable[Cell]) -> None:
        """Delete cells with all that belongs to them (`run --again`)."""
        for folder in map(self.folder, cells):
            if folder.exists():
                (folder / layout.DONE).unlink(missing_ok=True)  # first: the rest is then no result
                shutil.rmtree(folder)

    def find(self, identifier: str) -> Path:
        """The folder of the cell whose id begins with `identifier`; ValueError otherwise."""
        kinds = list(self.root.glob("runs/*/*"))
        # A whole id needs no look at the other cells, which a pattern would go through.
        exact = [kind / identifier for kind in kinds if identifier.isalnum()]
        beginning = (
            folder for kind in kinds for folder in kind.iterdir()
            if folder.name.startswith(identifier)
        )  # fmt: skip
        folders = [folder for folder in exact if (folder / layout.CONFIG).exists()] or [
            folder for folder in beginning if (folder / layout.CONFIG).exists()
        ]
        if len(folders) != 1:
            raise ValueError(
                f"{len(folders)} cells in {self.root} have an id that begins with {identifier!r}: "
                "`run --dry` lists the missing ones"
            )
        return folders[0]

    # Records

    def record_path(self, task: str, method: str, identifier: str) -> Path:
        return layout.head_path(self.root, task, method, identifier)

    def write_records(
        self, path: Path, head: Head, records: list[Record], picture: bytes | None = None
    ) -> None:
        """The rows of one method at one setting, then, last, the head that says they are whole."""
        table = dumps(records)
        write_atomic(layout.table_of(path), table)
        head.sha256 = hashlib.sha256(table.encode()).hexdigest()
        if picture is not None:
            write_atomic(layout.picture_of(path), picture)
            head.picture_sha256 = hashlib.sha256(picture).hexdigest()
        head.provenance, head.time = Provenance(**provenance()), time.time()
        write_atomic(path, text(head))


def stored_network(cell: Cell, folder: Path, done: Done | None) -> Network:
    """The network of a finished cell that lies in `folder`; see `Store.network`."""
    path = folder / layout.WEIGHTS
    way_out = f"delete the folder {folder} and run again to train this cell anew"
    if done is None or not path.exists():
        raise Damaged(f"{path} is missing: {way_out}")
    try:
        data = read_ordinary(path, MOST_BYTES)
    except ValueError as error:
        raise Damaged(f"{path} cannot be used ({error}): {way_out}") from None
    if hashlib.sha256(data).hexdigest() != done.model_sha256:
        raise Damaged(f"{path} is damaged (its SHA-256 is not the one in done.json): {way_out}")
    try:
        return unpacked(cell, data)
    except (SafetensorError, RuntimeError) as error:
        raise Damaged(f"{path} does not fit its configuration: {way_out}") from error


def _ended(cell: Cell, preset: str, status: Literal["done", "diverged"], ledger: Ledger) -> Done:
    return Done(
        id=cell.id,
        task=cell.task.name,
        preset=preset,
        method=cell.method.name,
        seed=cell.seed,
        trained_for=cell.trained_for,
        after=cell.after.id if cell.after else None,
        status=status,
        ledger=ledger,
        provenance=Provenance(**provenance()),
    )


MOST_BYTES = 2**33  # of a weights file
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


def cell_config(cell: Cell, preset: str) -> CellConfig:
    """A cell as plain values: all a worker needs besides the results folder."""
    return CellConfig(
        id=cell.id,
        preset=preset,
        task=Plugin.of(cell.task),
        method=Plugin.of(cell.method),
        seed=cell.seed,
        trained_for=cell.trained_for,
        before=tuple(
            Earlier(
                id=each.id,
                seed=each.seed,
                trained_for=each.trained_for,
                task=Plugin.of(each.task) if each.task is not later.task else None,
                method=Plugin.of(each.method) if each.method is not later.method else None,
            )
            for later, each in itertools.pairwise(reversed(cell.chain))
        ),
    )


def cell_from(config: CellConfig, checked: bool = True) -> Cell:
    """The inverse of `cell_config`. ValueError where code or data changed since, unless it is not
    to be `checked`, as where a trained network is looked at and its training data is elsewhere."""
    task, method = config.task.revive(Task), config.method.revive(Method)
    parts = [(config.id, config.seed, config.trained_for, task, method)]
    for part in config.before:
        task = part.task.revive(Task) if part.task else task
        method = part.method.revive(Method) if part.method else method
        parts.append((part.id, part.seed, part.trained_for, task, method))
    cell: Cell | None = None
    for identifier, seed, trained_for, task, method in reversed(parts):
        cell = Cell(task=task, method=method, seed=seed, trained_for=trained_for, after=cell)
        if checked and cell.id != identifier:
            raise ValueError(
                f"cell {identifier} cannot be made again: its task, method or training data "
                f"changed since (they now give {cell.id}); plan it anew with `run`"
            )
    assert cell is not None
    return cell

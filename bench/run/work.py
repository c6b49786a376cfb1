"""One job, wherever it runs: train a cell, or measure a method at a setting, or draw context."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import measuring
from bench.cost import (
    count_flops,
    device_name,
    give_back_memory,
    keep_freed_memory,
    out_of_memory,
)
from bench.faithful import faithful
from bench.method import Cell, Method, build
from bench.run import capacity, layout, schema
from bench.run.lease import Lease
from bench.run.plan import cell_label
from bench.run.records import WHOLE, Record, picture_is_whole
from bench.run.schedule import Emit, Stop
from bench.run.store import Store, cell_from, packed, unpacked
from bench.task import Task, weighted
from bench.train import Diverged, arithmetic, fit


def perform(job: schema.Job, emit: Emit, should_stop: Stop) -> None:
    """Do one job of `run`: train a cell, or measure a method at a setting, or draw context."""
    keep_freed_memory()
    try:
        with at(torch.device(job.device)):
            if isinstance(job, schema.Train):
                train(job, emit, should_stop)
            elif isinstance(job, schema.Recording):
                record(job)
    except Exception as error:
        let_go(error)
        if not out_of_memory(error):
            raise
        raise RuntimeError(
            "out of memory; the batch is part of the experiment and stays as it is: free the "
            f"device, run fewer at once (--per-device), or take a smaller preset ({error})"
        ) from error
    finally:
        give_back_memory()


def let_go(error: BaseException) -> None:
    """Empty the frames that an error and those behind it came through: as long as somebody has the
    error, they keep a network and its batches, on the device."""
    behind, seen = [error], set[int]()
    while behind:
        if id(last := behind.pop()) not in seen:
            seen.add(id(last))
            traceback.clear_frames(last.__traceback__)
            behind += [each for each in (last.__cause__, last.__context__) if each is not None]


@contextlib.contextmanager
def at(device: torch.device) -> Iterator[None]:
    """While it lasts, what is done on a CPU is done by `capacity.threads`; a GPU is the current."""
    if device.type != "cpu":
        with torch.cuda.device(device):
            yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(capacity.threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def lease_of(job: schema.Job) -> Lease | None:
    """Of the cell that a job trains, or of the record it writes."""
    if isinstance(job, schema.Train):
        return Lease(Path(job.root) / job.uses[0] / layout.LEASE)
    if isinstance(job, schema.Recording):
        return Lease(layout.lease_path(Path(job.root) / job.path))
    return None


# Training -----------------------------------------------------------------------------------------


def train(job: schema.Train, emit: Emit, should_stop: Stop) -> None:
    """Train one cell and store it; a diverged one is stored as such, a finished one left alone.

    Raises Busy where another run trains it, and what `fit` raises.
    """
    store, device = Store(Path(job.root)), torch.device(job.device)
    cell, preset = cell_from(job.cell), job.cell.preset
    if store.result(cell) is not None:
        return
    folder = store.prepare(cell, preset)
    lease = Lease(folder / layout.LEASE)

    def stop() -> bool:
        lease.check()  # before anything is saved: it would be over the new holder's
        return should_stop()

    def progress(line: dict[str, Any]) -> None:
        emit(schema.from_plain({"job": job.id, **line}, schema.Step))

    draw = functools.partial(cell.method.draw, cell)
    with lease.hold():
        if store.result(cell) is not None:  # somebody finished it meanwhile
            return
        store.tidy(cell)
        store.prepare(cell, preset)
        try:
            network = build(cell, _before(store, cell))
            ledger = fit(
                cell.task, network, draw, cell.seed, device, folder, progress, stop, job.shared
            )
        except Diverged as error:
            store.give_up(cell, preset, str(error), schema.from_plain(error.ledger, schema.Ledger))
            emit(schema.Note(job=job.id, note=f"diverged: {error}"))
            return
        with exact():
            weights = packed(network)
            faithful(cell, network, lambda: unpacked(cell, weights), device)
        ledger["constants"] = cell.task.constants()
        store.finish(cell, preset, network, schema.from_plain(ledger, schema.Ledger))


PARENT_DIVERGED = "what it starts from diverged: "


def _before(store: Store, cell: Cell) -> nn.Module | None:
    """The model that a cell starts from, where it starts from another's; Diverged if that did."""
    if cell.after is None:
        return None
    earlier = store.result(cell.after)
    if earlier is None:
        raise RuntimeError(
            f"it starts from {cell_label(cell.after)}, which is not trained yet: first run "
            f"python run_bench.py cell {cell.after.id}"
        )
    if earlier.status == "diverged":
        nothing = dict.fromkeys(("steps", "examples", "flops"), 0)
        reason = (earlier.reason or "").removeprefix(PARENT_DIVERGED)  # said once a chain
        raise Diverged(PARENT_DIVERGED + reason, nothing)
    return store.network(cell.after).model


# Measuring ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """While it lasts, a GPU repeats its arithmetic to the bit, in full fp32: real coding needs the
    same numbers in encoder and decoder."""
    repeated = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
    with torch.backends.cudnn.flags(**repeated), arithmetic("fp32"):
        yield


@torch.no_grad()
def record(job: schema.Recording) -> None:
    """Write the records of one method at one setting, or of known curves, on every test example."""
    store, path = Store(Path(job.root)), Path(job.root) / job.path
    path.parent.mkdir(parents=True, exist_ok=True)
    lease = Lease(layout.lease_path(path))
    with lease.hold(), exact():
        if recorded(store, job):  # another run did meanwhile
            return
        task = job.task.revive(Task)
        if isinstance(job, schema.Measure):
            records, picture = measured(store, job, task)
        else:
            records, picture = context(job, task)
        lease.check()
        store.write_records(path, job.head, records, picture)


Rows = tuple[list[Record], bytes | None]  # and a picture


def measured(store: Store, job: schema.Measure, task: Task) -> Rows:
    """One method at one setting; `job.head` is filled in."""
    device, head = torch.device(job.device), job.head
    cells = [cell_from(config) for config in job.cells]
    results = [store.result(cell) for cell in cells]
    if None in results:
        raise RuntimeError("a network it needs is not trained; run again to train it")
    head.models = models(store, cells)
    for result in results:
        if result is not None and result.status == "diverged":
            head.status, head.reason = "diverged", result.reason or ""
            return [], None
    method = job.method.revive(Method)
    networks = [store.network(cell).to(device) for cell in cells]
    answers: list[nn.Module] = []
    head.answering_flops = count_flops(
        lambda: answers.append(method.at(task, cells, networks, job.setting))
    )
    model = answers[0].eval()
    task.ready(model)
    coefficients = torch.tensor([job.setting], device=device)
    batches: list[tuple[list[str], dict[str, torch.Tensor]]] = []
    data, picture = task.data(head.split).to(device), None
    examples = iter(data.examples())
    if (first := next(examples, None)) is None:
        raise ValueError(
            f"the split {head.split!r} holds no example to measure on: another --split"
        )
    every = itertools.chain([first], examples)
    for names, batch in measuring.alike(every, task.measured_at_once):
        values = measuring.measures(task, model, batch, job.setting, len(names))
        terms = {name: values[name].to(device) for name in task.terms}
        values = {"loss": weighted(task.space, terms, coefficients), **values}
        batches.append((names, {name: measuring.kept(each) for name, each in values.items()}))
        if first and head.kind != "length":
            picture, first = encode_png(task.sample(model, first[1])), None
    rows = measuring.rows(batches)
    rows += [(WHOLE, name, value) for name, value in task.measure_all(model, data).items()]
    used = ",".join(head.cells)
    common = head.task, head.preset, head.experiment, head.method, head.seed, used, head.setting
    head.missing = tuple(sorted(task.missing()))
    # What is coded on another kind of device may have other bytes.
    head.device, head.device_name = device.type, device_name(device)
    return [Record(*common, *row) for row in rows], picture


def context(job: schema.Recording, task: Task) -> Rows:
    """The curves a task draws behind the methods, for the same test examples."""
    head, data = job.head, task.data(job.head.split)
    records = [
        Record(head.task, head.preset, head.experiment, curve, 0, "", setting, example, name, value)
        for example, batch in data.examples()
        for curve, setting, values in task.context(batch)
        for name, value in values.items()
    ]
    _, first = next(iter(data.examples()))
    head.missing = tuple(sorted(task.missing()))
    return records, encode_png(task.original(first))


def models(store: Store, cells: Sequence[Cell]) -> tuple[str, ...]:
    """What the records depend on: the hash of each cell's weights, or its status."""
    results = map(store.result, cells)
    return tuple((done.model_sha256 or done.status) if done else "" for done in results)


def recorded(
    store: Store,
    job: schema.Recording,
    cells: Mapping[str, Cell] | None = None,
    missing: Iterable[str] | None = None,
) -> bool:
    """Whether a measurement is there, whole, and made from the weights that are stored now, on all
    measures that can be had. cells: by id, and missing: of the task, where they are at hand."""
    path = store.root / job.path
    table = layout.table_of(path)
    if not path.exists() or not table.exists():
        return False
    try:
        head = schema.read(path, schema.Head)
    except schema.Damaged:
        return False
    if (
        head.status == "failed"
        or head.sha256 != hashlib.sha256(table.read_bytes()).hexdigest()
        or not picture_is_whole(path, head.picture_sha256)
    ):
        return False
    if missing is None:
        missing = job.task.revive(Task).missing()
    if isinstance(job, schema.Measure):
        used = [cells[each.id] if cells is not None else cell_from(each) for each in job.cells]
        if head.models != models(store, used):
            return False
    return not set(head.missing) - set(missing)


def encode_png(picture: torch.Tensor | None, effort: int = 6) -> bytes | None:
    """(3, H, W) in [0, 1] as the bytes of a PNG file; less `effort`, of 9, is faster and larger."""
    if picture is None:
        return None
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=effort)
    return file.getvalue()

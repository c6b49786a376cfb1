"""One job, wherever it runs: train a cell, or measure a method at a setting, or draw context."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.cost import (
    count_flops,
    device_name,
    give_back_memory,
    keep_freed_memory,
    out_of_memory,
)
from bench.faithful import faithful
from bench.method import Cell, Method, build
from bench.registry import revive
from bench.run import schedule
from bench.run.lease import Lease
from bench.run.plan import cell_label
from bench.run.records import WHOLE, Record, picture_is_whole
from bench.run.schema import CellConfig, Damaged, Head, Ledger, from_plain, read
from bench.run.store import Store, cell_from, packed, unpacked
from bench.task import Task, weighted
from bench.train import Diverged, fit


def perform(job: dict[str, Any], emit: schedule.Emit, should_stop: Callable[[], bool]) -> None:
    """Do one job of `run`: train a cell, or measure a method at a setting, or draw context."""
    keep_freed_memory()
    store, device = Store(Path(job["root"])), torch.device(job["device"])
    try:
        _perform(job, store, device, emit, should_stop)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise RuntimeError(
            "out of memory; the batch is part of the experiment and stays as it is: free the "
            f"device, run fewer at once (--per-device), or take a smaller preset ({error})"
        ) from error
    finally:
        give_back_memory()


def _perform(
    job: dict[str, Any],
    store: Store,
    device: torch.device,
    emit: schedule.Emit,
    should_stop: Callable[[], bool],
) -> None:
    if job["kind"] == "train":

        def progress(event: dict[str, Any]) -> None:
            emit({"event": "step", "job": job["id"], **event})

        cell = cell_from(from_plain(job["cell"], CellConfig))
        preset_name = job["cell"]["preset"]
        train(
            store, cell, preset_name, device, job["shared"], progress, should_stop, job["snapshots"]
        )
        return
    path = Path(job["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    lease = Lease(record_lease(path))
    with lease.hold():
        if recorded(store, job):  # another run did meanwhile
            return
        (measure if job["kind"] == "measure" else context)(store, job, device, lease)


def train(
    store: Store,
    cell: Cell,
    preset_name: str,
    device: torch.device,
    shared: bool,
    progress: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
    snapshots: Sequence[float] = (),
) -> None:
    """Train one cell and store it; a diverged one is stored as such, a finished one left alone.

    Raises Busy where another run trains it, and what `fit` raises.
    """
    if store.result(cell) is not None:
        return
    folder = store.prepare(cell, preset_name, snapshots)
    lease = Lease(folder / "lease.json")

    def stop() -> bool:
        lease.check()  # before anything is saved: it would be over the new holder's
        return should_stop()

    draw = functools.partial(cell.method.draw, cell)
    steps = cell.task.training.steps
    shares = {max(1, round(share * steps)): share for share in snapshots}
    keep = {step: functools.partial(store.keep, cell, share=shares[step]) for step in shares}
    with lease.hold():
        if store.result(cell) is not None:  # somebody finished it meanwhile
            return
        store.tidy(cell)
        store.prepare(cell, preset_name, snapshots)
        try:
            network = build(cell, _before(store, cell))
            ledger = fit(
                cell.task, network, draw, cell.seed, device, folder, progress, stop, shared,
                snapshots=keep,
            )  # fmt: skip
        except Diverged as error:
            store.give_up(cell, preset_name, str(error), from_plain(error.ledger, Ledger))
            progress({"note": f"diverged: {error}"})
            return
        with torch.backends.cudnn.flags(**EXACT):
            weights = packed(network)
            faithful(cell, network, lambda: unpacked(cell, weights), device)
        ledger["constants"] = cell.task.constants()
        kept = {shares[step]: digest for step, digest in ledger.pop("snapshots").items()}
        store.finish(cell, preset_name, network, from_plain(ledger, Ledger), kept)


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
        raise Diverged(f"what it starts from diverged: {earlier.reason}", nothing)
    return store.network(cell.after).model


# Real coding needs the same bits in encoder and decoder, and a reference needs fp32 to be fp32.
EXACT = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}


@torch.no_grad()
@torch.backends.cudnn.flags(**EXACT)
def measure(store: Store, job: dict[str, Any], device: torch.device, lease: Lease) -> None:
    """Write the records of one method at one setting, on every test example; `lease` is held."""
    task = revive(job["task"], Task)  # type: ignore[type-abstract]
    path = Path(job["path"])
    cells = [cell_from(from_plain(config, CellConfig)) for config in job["cells"]]
    results = [store.result(cell) for cell in cells]
    if any(result is None for result in results):
        raise RuntimeError("a network it needs is not trained; run again to train it")
    share = job["kept_at"]
    head = from_plain(job["head"], Head)
    head.models = models(store, cells, share)
    diverged = [r for r in results if r is not None and r.status == "diverged"]
    if diverged:
        head.status, head.reason = "diverged", diverged[0].reason or ""
        store.write_records(path, head, [])
        return
    setting = tuple(job["setting"])
    plain_method = revive(job["method"], Method)  # type: ignore[type-abstract]
    networks = [store.network(cell, share).to(device) for cell in cells]
    answers: list[nn.Module] = []
    head.answering_flops = count_flops(
        lambda: answers.append(plain_method.at(task, cells, networks, setting))
    )
    model = answers[0].eval()
    task.ready(model)
    coefficients = torch.tensor([setting], device=device)
    rows: list[tuple[str, str, float]] = []
    picture, data = None, task.data(job["split"]).to(device)
    for example, batch in data.examples():
        values = task.measure(model, batch)
        terms = {name: values[name].to(device) for name in task.terms}
        values = {"loss": weighted(task.space, terms, coefficients), **values}
        rows += [(example, name, value.item()) for name, value in values.items()]
        if picture is None and head.kind not in ("snapshot", "length"):
            picture = encode_png(task.sample(model, batch))
    rows += [(WHOLE, name, value) for name, value in task.measure_all(model, data).items()]
    records = [
        Record(
            head.task, head.preset, head.experiment, head.method, head.seed,
            ",".join(head.cells), head.setting, *row,
        )
        for row in rows
    ]  # fmt: skip
    head.missing = tuple(sorted(task.missing()))
    # What is coded on another kind of device may have other bytes.
    head.device, head.device_name = device.type, device_name(device)
    lease.check()
    store.write_records(path, head, records, picture)


def context(store: Store, job: dict[str, Any], device: torch.device, lease: Lease) -> None:
    """Write the curves a task draws behind the methods, for the same test examples."""
    task = revive(job["task"], Task)  # type: ignore[type-abstract]
    head = from_plain(job["head"], Head)
    records = [
        Record(head.task, head.preset, head.experiment, curve, 0, "", setting, example,
               name, value)
        for example, batch in task.data(job["split"]).examples()
        for curve, setting, values in task.context(batch)
        for name, value in values.items()
    ]  # fmt: skip
    head.missing = tuple(sorted(task.missing()))
    _, first = next(iter(task.data(job["split"]).examples()))
    lease.check()
    store.write_records(Path(job["path"]), head, records, encode_png(task.original(first)))


def models(store: Store, cells: Sequence[Cell], share: float = 1.0) -> tuple[str, ...]:
    """What the records depend on: the hash of each cell's weights, or its status."""
    results = map(store.result, cells)
    return tuple((done.weights_sha256(share) or done.status) if done else "" for done in results)


def record_lease(path: Path) -> Path:
    """The lease of whoever makes the record whose JSON file is `path`; no JSON file itself."""
    return path.with_suffix(".lease")


def recorded(
    store: Store,
    job: dict[str, Any],
    cells: Mapping[str, Cell] | None = None,
    missing: Iterable[str] | None = None,
) -> bool:
    """Whether a measurement is there, whole, and made from the weights that are stored now, on all
    measures that can be had. cells: by id, and missing: of the task, where they are at hand."""
    path = Path(job["path"])
    table = path.with_suffix(".csv")
    if not path.exists() or not table.exists():
        return False
    try:
        head = read(path, Head)
    except Damaged:
        return False
    if (
        head.status == "failed"
        or head.sha256 != hashlib.sha256(table.read_bytes()).hexdigest()
        or not picture_is_whole(path, head.picture_sha256)
    ):
        return False
    if missing is None:
        missing = revive(job["task"], Task).missing()  # type: ignore[type-abstract]
    configs = [from_plain(config, CellConfig) for config in job["cells"]]
    used = [cells[each.id] if cells is not None else cell_from(each) for each in configs]
    same = head.models == models(store, used, job.get("kept_at", 1.0))
    return same and not set(head.missing) - set(missing)


def encode_png(picture: torch.Tensor | None) -> bytes | None:
    """(3, H, W) in [0, 1] as the bytes of a PNG file."""
    if picture is None:
        return None
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()

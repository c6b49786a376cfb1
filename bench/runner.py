"""From an experiment to its records: plan the cells, train the missing ones, measure, report.

Everything that was done before is found by its content id and left alone; whatever lacks its last
file is done again. `perform` is one job, wherever it runs; a job is a dict of plain values.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import cluster, contract, executors, heap, packing
from bench.cost import count_flops, device_name
from bench.faithful import faithful
from bench.identity import content_id, plain
from bench.lease import Lease
from bench.method import Cell, Method, build
from bench.naming import refuse_names
from bench.progress import Board
from bench.records import WHOLE, Record, append_line, picture_is_whole, write_atomic
from bench.registry import DEFAULT_METHODS, UNFIT, describe, revive, sized, variants
from bench.space import Setting, format_setting
from bench.store import (
    Damaged,
    Store,
    cell_config,
    cell_from,
    packed,
    read_json,
    unpacked,
    weights_digest,
)
from bench.task import Preset, Task, weighted
from bench.train import Diverged, fit, out_of_memory
from bench.untrusted import printable_lines

REFERENCE = "fixed_grid"  # the method that all are compared with
SEEDS = 2**32  # so many; torch, numpy and what is added to a seed have room for them


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One method at one setting, from the cells its model is made of.

    kind: "method" for what is compared, "swept" for a setting between or beyond those compared,
    "length" for networks trained for a `share` of the steps with their whole schedule, "snapshot"
    for those kept after a `share` of one.
    """

    label: str
    method: Method
    seed: int
    setting: Setting
    cells: tuple[Cell, ...]
    kind: str = "method"
    share: float = 1.0

    @property
    def kept_at(self) -> float:
        """After which share of its training the network was stored that is measured."""
        return self.share if self.kind == "snapshot" else 1.0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One task with everything that is compared on it.

    methods: by what tables call them; see `bench.registry.variants`.
    split: what is measured on, "test" or, at the compared settings alone, "validation".
    lengths: shares of the steps, above 0 and at most 1, for which the methods with a `role` are
        trained, too; 1 adds nothing to what is compared.
    """

    task: Task
    preset: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    methods: dict[str, Method]
    split: str = "test"
    snapshots: tuple[float, ...] = ()
    lengths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        refuse_names(self.task, self.preset, self.methods)
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
                raise ValueError(f"a seed is a whole number from 0 to {SEEDS - 1}, not {seed!r}")
        distinct = len(set(self.lengths)) == len(self.lengths)
        if not distinct or not all(0 < share <= 1 for share in self.lengths):
            raise ValueError(
                f"lengths {self.lengths}: give different shares of the steps, above 0 and at most "
                "1, as in --lengths 0.25,0.5,1"
            )

    @functools.cached_property
    def id(self) -> str:
        """Changes with the task's fields, its training data and the data measured on."""
        return content_id(
            {
                "task": self.task.identity,
                self.split: self.task.data(self.split).digest,
                "measurement": self.task.measurement,
            }
        )

    @functools.cached_property
    def plans(self) -> dict[tuple[int, str], list[Cell]]:
        """What every method plans, by seed and label."""
        return {
            (seed, label): each.plan(self.task, self.settings, seed)
            for seed in self.seeds
            for label, each in self.methods.items()
        }

    @functools.cached_property
    def shorter(self) -> dict[tuple[int, str, float], list[Cell]]:
        """What methods with a `role` plan for a share of the steps, by seed, label and share."""
        return {
            (seed, label, share): each.plan(self.task.lasting(share), self.settings, seed)
            for seed, label in self.plans
            for share in self.lengths
            if (each := self.methods[label]).role and share < 1
        }

    @functools.cached_property
    def measurements(self) -> list[Measurement]:
        found = []
        for seed in self.seeds:
            for label, each in self.methods.items():
                cells = self.plans[seed, label]
                asked = [(setting, "method", 1.0) for setting in self.settings]
                if each.swept and seed == self.seeds[0] and self.split == "test":
                    between = self.task.space.sweep(self.settings)
                    asked += [(setting, "swept", 1.0) for setting in between]
                if each.swept or each.name == REFERENCE:
                    asked += [
                        (setting, "snapshot", share)
                        for share in self.snapshots
                        for setting in self.settings
                    ]
                asked += [
                    (setting, "length", share)
                    for share in self.lengths
                    if (seed, label, share) in self.shorter
                    for setting in self.settings
                ]
                for setting, kind, share in asked:
                    trained = self.shorter[seed, label, share] if kind == "length" else cells
                    used = tuple(each.cells_at(self.task, trained, setting))
                    found.append(
                        Measurement(
                            label=label, method=each, seed=seed, setting=setting, cells=used,
                            kind=kind, share=share,
                        )
                    )  # fmt: skip
        return found

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, also where several methods use it, after the one it starts from."""
        plans = itertools.chain(self.plans.values(), self.shorter.values())
        planned = (cell for plan in plans for last in plan for cell in last.chain)
        return list({cell.id: cell for cell in planned}.values())

    def measurement_id(self, measurement: Measurement) -> str:
        return content_id(
            {
                "experiment": self.id,
                "preset": self.preset,
                "label": measurement.label,
                "method": measurement.method.identity,
                "seed": measurement.seed,
                "setting": measurement.setting,
                "cells": [cell.id for cell in measurement.cells],
                "share": measurement.share,
                **({"kind": "length"} if measurement.kind == "length" else {}),
            }
        )

    def config(self) -> dict[str, Any]:
        """The experiment as plain values; `experiment_from` makes it again."""
        return {
            "task": describe(self.task),
            "preset": self.preset,
            "settings": self.settings,
            "seeds": self.seeds,
            "methods": {label: describe(each) for label, each in self.methods.items()},
            "split": self.split,
            "snapshots": self.snapshots,
            "lengths": self.lengths,
        }


def experiment_from(config: dict[str, Any]) -> Experiment:
    """The inverse of `Experiment.config`. ValueError where it is none, or of other code."""
    try:
        return Experiment(
            task=revive(config["task"], Task),  # type: ignore[type-abstract]
            preset=config["preset"],
            settings=tuple(tuple(setting) for setting in config["settings"]),
            seeds=tuple(config["seeds"]),
            methods={
                label: revive(each, Method)  # type: ignore[type-abstract]
                for label, each in config["methods"].items()
            },
            split=config["split"],
            snapshots=tuple(config["snapshots"]),
            lengths=tuple(config.get("lengths", ())),
        )
    except UNFIT as error:
        raise ValueError(f"this is no run's configuration, or of other code: {error}") from error


def experiment(
    task: str,
    preset_name: str,
    methods: Sequence[str] | None = None,
    settings: int | None = None,
    seeds: Sequence[int] | None = None,
    locations: dict[str, str] | None = None,
    design: str | None = None,
    split: str = "test",
    lengths: Sequence[float] | None = None,
) -> Experiment:
    """The experiment a command line asks for. ValueError names what is not known.

    task: as `bench.registry.sized` reads it: a name or file, with fields changed in brackets.
    methods: as `bench.registry.variants` reads them; by default, those of DEFAULT_METHODS that
        apply; "all" stands for every registered one that does. One that does not is an error.
    locations: those the task has no field for are left aside: they are for other tasks of the run.
    design: replaces the task's own choice of settings: "grid" (`settings` points an axis),
        "one-at-a-time", or "random" (`settings` of them, always the same).
    split: "test" or "validation".
    lengths: see `Experiment`; None takes the preset's, on the test split.
    """
    chosen, size = sized(task, preset_name, locations)
    made = chosen.task
    refuse_names(made, preset_name, {})
    _warn_of_few_pictures(chosen, made, size, split)
    named: dict[str, Method] = {}
    for text in methods or DEFAULT_METHODS:
        for label, each in variants(text, chosen.methods).items():
            reason = each.refuses(made)
            if reason and methods and text != "all":
                raise ValueError(f"{label} does not apply to {made.name}: {reason}")
            if not reason:
                named[label] = each
    count = chosen.settings if settings is None else settings
    if design is None:
        compared = made.settings(count)
    elif design == "grid":
        compared = made.space.grid(count)
    elif design == "one-at-a-time":
        compared = made.space.one_at_a_time()
    else:
        compared = made.space.random(count, seed=0)
    return Experiment(
        task=made,
        preset=size,
        settings=tuple(dict.fromkeys(compared)),  # rounded, some may be the same
        seeds=tuple(dict.fromkeys(seeds or chosen.seeds)),
        methods=named,
        split=split,
        snapshots=chosen.snapshots if split == "test" else (),
        lengths=tuple(lengths or (chosen.lengths if split == "test" and lengths is None else ())),
    )


def _warn_of_few_pictures(chosen: Preset, task: Task, size: str, split: str) -> None:
    """A warning where a size that is meant as evidence lacks data of the user's."""
    unused = "test_data" if split == "validation" else "validation_data"
    lacking = [name for name in chosen.wants if not task.locations().get(name) and name != unused]
    if lacking:
        flags = " ".join(f"--{name.replace('_', '-')} DIR" for name in lacking)
        warnings.warn(
            f"{task.name} at {size} uses the few pictures that come with the suite, which are "
            f"no evidence: give {flags}",
            stacklevel=3,
        )


# Jobs


def perform(job: dict[str, Any], emit: executors.Emit, should_stop: Callable[[], bool]) -> None:
    """Do one job of `run`: train a cell, or measure a method at a setting, or draw context."""
    heap.keep_freed_memory()
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
        heap.give_back()


def _perform(
    job: dict[str, Any],
    store: Store,
    device: torch.device,
    emit: executors.Emit,
    should_stop: Callable[[], bool],
) -> None:
    if job["kind"] == "train":

        def progress(event: dict[str, Any]) -> None:
            emit({"event": "step", "job": job["id"], **event})

        cell, preset_name = cell_from(job["cell"]), job["cell"]["preset"]
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
            store.give_up(cell, preset_name, str(error), {**error.ledger, "bytes": 0})
            progress({"note": f"diverged: {error}"})
            return
        with torch.backends.cudnn.flags(**EXACT):
            weights = packed(network)
            faithful(cell, network, lambda: unpacked(cell, weights), device)
        ledger["constants"] = cell.task.constants()
        kept = {shares[step]: digest for step, digest in ledger.pop("snapshots").items()}
        store.finish(cell, preset_name, network, ledger, kept)


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
    if earlier["status"] == "diverged":
        nothing = dict.fromkeys(("steps", "examples", "flops"), 0)
        raise Diverged(f"what it starts from diverged: {earlier['reason']}", nothing)
    return store.network(cell.after).model


# Real coding needs the same bits in encoder and decoder, and a reference needs fp32 to be fp32.
EXACT = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}


@torch.no_grad()
@torch.backends.cudnn.flags(**EXACT)
def measure(store: Store, job: dict[str, Any], device: torch.device, lease: Lease) -> None:
    """Write the records of one method at one setting, on every test example; `lease` is held."""
    task = revive(job["task"], Task)  # type: ignore[type-abstract]
    path = Path(job["path"])
    cells = [cell_from(config) for config in job["cells"]]
    results = [store.result(cell) for cell in cells]
    if any(result is None for result in results):
        raise RuntimeError("a network it needs is not trained; run again to train it")
    share = job["kept_at"]
    head = {**job["head"], "models": models(store, cells, share)}
    diverged = [r for r in results if r is not None and r["status"] == "diverged"]
    if diverged:
        head |= {"status": "diverged", "reason": diverged[0]["reason"]}
        store.write_records(path, head, [])
        return
    setting = tuple(job["setting"])
    plain_method = revive(job["method"], Method)  # type: ignore[type-abstract]
    networks = [store.network(cell, share).to(device) for cell in cells]
    answers: list[nn.Module] = []
    head["answering_flops"] = count_flops(
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
        if picture is None and head["kind"] not in ("snapshot", "length"):
            picture = encode_png(task.sample(model, batch))
    rows += [(WHOLE, name, value) for name, value in task.measure_all(model, data).items()]
    records = [
        Record(
            head["task"], head["preset"], head["experiment"], head["method"], head["seed"],
            ",".join(head["cells"]), head["setting"], *row,
        )
        for row in rows
    ]  # fmt: skip
    head |= {"status": "done", "missing": sorted(task.missing())}
    # What is coded on another kind of device may have other bytes.
    head |= {"device": device.type, "device_name": device_name(device)}
    lease.check()
    store.write_records(path, head, records, picture)


def context(store: Store, job: dict[str, Any], device: torch.device, lease: Lease) -> None:
    """Write the curves a task draws behind the methods, for the same test examples."""
    task = revive(job["task"], Task)  # type: ignore[type-abstract]
    head = job["head"]
    records = [
        Record(head["task"], head["preset"], head["experiment"], curve, 0, "", setting, example,
               name, value)
        for example, batch in task.data(job["split"]).examples()
        for curve, setting, values in task.context(batch)
        for name, value in values.items()
    ]  # fmt: skip
    head |= {"status": "done", "missing": sorted(task.missing()), "models": []}
    _, first = next(iter(task.data(job["split"]).examples()))
    lease.check()
    store.write_records(Path(job["path"]), head, records, encode_png(task.original(first)))


def models(store: Store, cells: Sequence[Cell], share: float = 1.0) -> list[str]:
    """What the records depend on: the hash of each cell's weights, or its status."""
    results = [store.result(cell) or {} for cell in cells]
    return [weights_digest(result, share) or result.get("status", "") for result in results]


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
        head = read_json(path)
    except Damaged:
        return False
    if (
        head.get("status") not in ("done", "diverged")
        or head.get("sha256") != hashlib.sha256(table.read_bytes()).hexdigest()
        or not picture_is_whole(path, head)
    ):
        return False
    if missing is None:
        missing = revive(job["task"], Task).missing()  # type: ignore[type-abstract]
    used = [cells[c["id"]] if cells is not None else cell_from(c) for c in job["cells"]]
    same = head.get("models") == models(store, used, job.get("kept_at", 1.0))
    return same and not set(head.get("missing", [])) - set(missing)


def encode_png(picture: torch.Tensor | None) -> bytes | None:
    """(3, H, W) in [0, 1] as the bytes of a PNG file."""
    if picture is None:
        return None
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# Running


BEHIND = ("context", "original")  # what a task may have to show behind the methods


class Run:
    """One `run` of one or more experiments on a results folder."""

    def __init__(
        self,
        root: Path,
        experiments: Sequence[Experiment],
        device: torch.device,
        on: str = "here",
        per_device: int | None = None,
        limit: float = math.inf,
    ) -> None:
        """on: "here", "pool", or "ray" once `cluster.connect` was called.
        per_device: jobs at once on a device; None for as many as fit it, see `bench.packing`.
        """
        self.store = Store(root)
        self.experiments = list(experiments)
        self.device = device
        self.on = on
        self.per_device = per_device
        self.limit = limit
        self.failures: list[str] = []

    def missing_cells(self) -> list[tuple[Experiment, Cell]]:
        planned = {cell.id: (each, cell) for each in self.experiments for cell in each.cells}
        return [pair for pair in planned.values() if self.store.result(pair[1]) is None]

    def open_data(self) -> None:
        """Read all pictures now, so that a bad one is found before any training, measure what a
        task measures beforehand, so that weights it cannot do without are missed now, and ask
        whether task and methods keep the contract."""
        device = self.device if self.on == "here" else torch.device("cpu")
        for each in list(self.experiments):
            try:
                for split in ("train", each.split):
                    each.task.data(split).to(device)
                each.task.constants()
                contract.check(each)
            except (RuntimeError, ValueError, OSError) as error:
                if len(self.experiments) == 1:
                    raise
                self.experiments.remove(each)  # the other tasks go on
                self.failures.append(f"{each.task.name}: {error}")

    def save_config(self) -> Path:
        """Store what was asked for, so that `run --config` can replay it."""
        content = {"kind": "run", "experiments": [each.config() for each in self.experiments]}
        path = self.store.root / "configs" / f"{content_id(content)}.json"
        write_atomic(path, json.dumps(plain(content), indent=1) + "\n")
        return path

    def forget(self) -> None:
        """Delete everything this run would make, to make it again."""
        for each in self.experiments:
            self.store.forget(each.cells)
            for job in self._record_jobs(each):
                for ending in (".json", ".csv", ".png"):
                    Path(job["path"]).with_suffix(ending).unlink(missing_ok=True)

    def train_jobs(self) -> list[dict[str, Any]]:
        jobs = []
        for each, cell in self.missing_cells():
            self.store.prepare(cell, each.preset, each.snapshots)
            jobs.append(self.train_job(cell, each.preset, each.snapshots))
        return jobs

    def train_job(
        self, cell: Cell, preset_name: str, snapshots: Sequence[float] = ()
    ) -> dict[str, Any]:
        return {
            **self._common(cell.id, "train", cell_label(cell, preset_name)),
            "cell": plain(cell_config(cell, preset_name)),
            "after": cell.after and cell.after.id,
            "uses": [self._place(each) for each in (cell, cell.after) if each],
            "snapshots": list(snapshots),
            "shared": False,  # as it is when it is trained; see `execute`
        }

    def _place(self, cell: Cell) -> str:
        """A cell's folder, as seen from the results folder."""
        return self.store.folder(cell).relative_to(self.store.root).as_posix()

    def record_jobs(self) -> list[dict[str, Any]]:
        """The measurements that are missing, damaged, or made from other weights."""
        jobs = []
        for each in self.experiments:
            cells = {cell.id: cell for cell in each.cells}
            missing = each.task.missing()
            jobs += [
                job
                for job in self._record_jobs(each)
                if not recorded(self.store, job, cells, missing)
            ]
        return jobs

    def execute(self, jobs: Sequence[dict[str, Any]], title: str, stop: Callable[[], bool]) -> None:
        by_id = {job["id"]: job for job in jobs}
        with Board(title, jobs) as board:

            def emit(event: dict[str, Any]) -> None:
                board.handle(event)
                if event["event"] == "failed":
                    self.failures.append(f"{board.label(event['job'])}: {event['reason']}")
                    self._log_failure(event, by_id[event["job"]])

            if self.on == "here":
                executors.here(jobs, perform, emit, stop, self.limit)
                return
            left, count, memory = list(jobs), self.per_device, 0
            if count is None:
                peaks = packing.peaks(self.store.root, self.device.type)
                while (first := packing.unmeasured(left, peaks)) and not stop():
                    self._together([first], 1, emit, stop)  # alone, to be measured
                    left.remove(first)
                    peaks = packing.peaks(self.store.root, self.device.type)
            if left and not stop():
                if count is None:
                    count, memory = self._fitting(left, peaks)
                    board.note(f"{count} at once on a device, by its memory and cores")
                self._together(left, count, emit, stop, memory)

    def _fitting(self, jobs: Sequence[dict[str, Any]], peaks: dict[str, int]) -> tuple[int, int]:
        """How many of these jobs fit a device at once, and the bytes that each is to have; one, and
        0 for unknown, where nothing like them was measured."""
        tasks = {packing.task_of(job) for job in jobs}
        if not tasks <= peaks.keys():
            return 1, 0
        kind, peak = self.device.type, max(peaks[task] for task in tasks)
        rooms = cluster.rooms(kind) if self.on == "ray" else [packing.room(kind)]
        return packing.fitting(peak, rooms, kind) if rooms else 1, packing.need(peak, kind)

    def _together(
        self,
        jobs: Sequence[dict[str, Any]],
        count: int,
        emit: executors.Emit,
        stop: Callable[[], bool],
        memory: int = 0,
    ) -> None:
        """Do the jobs, `count` at once on a device, each with `memory` bytes, where that is known.
        Those that train know whether they share it."""
        if self.on == "ray":
            share = cluster.share(cluster.nodes(), self.device.type, count, memory)
            jobs = [{**job, "shared": share.crowded and len(jobs) > 1} for job in jobs]
            cluster.run(jobs, perform, emit, stop, share, self.limit)
        else:
            jobs = [{**job, "shared": min(count, len(jobs)) > 1} for job in jobs]
            executors.pool(jobs, perform, emit, stop, count, self.limit)

    def _log_failure(self, event: dict[str, Any], job: dict[str, Any]) -> None:
        """Keep the trace, and let `status` and the report show what failed."""
        reason, trace = (printable_lines(event[name]) for name in ("reason", "trace"))
        try:
            append_line(self.store.root / "failures.log", f"{job['label']}: {reason}\n{trace}")
            if job["kind"] == "train":
                self.store.note_failure(self.store.root / job["uses"][0], reason)
            else:
                head = {**job["head"], "status": "failed", "reason": reason}
                self.store.write_records(Path(job["path"]), head, [])
        except OSError as error:  # the run says what failed in any case, and goes on
            self.failures.append(f"noting this failure: {error}")

    def _common(self, identifier: str, kind: str, label: str) -> dict[str, Any]:
        return {
            "id": identifier,
            "kind": kind,
            "label": label,
            "root": str(self.store.root),
            "device": str(self.device),
        }

    def _record_jobs(self, each: Experiment) -> list[dict[str, Any]]:
        task = each.task
        head = {
            "task": task.name,
            "preset": each.preset,
            "experiment": each.id,
            "split": each.split,
            "display": {
                "measures": plain({"loss": task.loss, **task.measures}),
                "fronts": plain(task.fronts),
                "axes": plain(task.space.axes),
                "sample_line": task.sample_line,
                "margin_share": task.margin_share,
            },
        }
        jobs = []
        for each_one in each.measurements:
            if each_one.kept_at < 1 and not self._kept(each_one):
                continue
            identifier = each.measurement_id(each_one)
            setting = format_setting(task.space.names, each_one.setting)
            label = each_one.label
            jobs.append(
                {
                    **self._common(identifier, "measure", f"{label} at {setting}"),
                    "path": str(
                        self.store.record_path(task.name, each_one.method.name, identifier)
                    ),
                    "split": each.split,
                    "task": describe(task),
                    "method": describe(each_one.method),
                    "setting": list(each_one.setting),
                    "cells": [plain(cell_config(c, each.preset)) for c in each_one.cells],
                    "uses": [self._place(cell) for cell in each_one.cells],
                    "kept_at": each_one.kept_at,
                    "head": {
                        **head,
                        "kind": each_one.kind,
                        "share": each_one.share,
                        "id": identifier,
                        "method": label,
                        "method_id": content_id(each_one.method.identity),
                        "tuning": plain(each_one.method.tuning.get(task.name)),
                        "seed": each_one.seed,
                        "setting": setting,
                        "cells": [cell.id for cell in each_one.cells],
                        "outside": task.space.outside(each_one.setting),
                    },
                }
            )
        if any(getattr(type(task), hook) is not getattr(Task, hook) for hook in BEHIND):
            identifier = content_id({"experiment": each.id, "preset": each.preset, "context": True})
            jobs.append(
                {
                    **self._common(identifier, "context", "context curves"),
                    "path": str(self.store.record_path(task.name, "context", identifier)),
                    "task": describe(task),
                    "split": each.split,
                    "cells": [],
                    "uses": [],
                    "head": {
                        **head, "kind": "context", "id": identifier, "method": "context",
                        "seed": 0, "setting": "", "cells": [], "outside": [],
                    },
                }
            )  # fmt: skip
        return jobs

    def _kept(self, one: Measurement) -> bool:
        """Whether the snapshots it needs are there; cells of another run may have none."""
        return all(weights_digest(self.store.result(c) or {}, one.kept_at) for c in one.cells)


def cell_label(cell: Cell, size: str = "") -> str:
    """How a cell is called in the progress table: task, with the fields changed that its `size`
    says, method, setting if fixed, seed."""
    names = cell.task.space.names
    _, bracket, changed = size.partition("[")
    task = cell.task.name + bracket + changed
    trained = " ".join(format_setting(names, setting) for setting in cell.trained_for)
    return " ".join(filter(None, [task, cell.method.name, trained, f"seed {cell.seed}"]))


def choose_device(name: str) -> torch.device:
    """For "auto" a GPU where torch sees one. ValueError where the one named is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"no device is called {name!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device here: use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{name}: torch sees {torch.cuda.device_count()} CUDA devices, from 0")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"devices are cpu and cuda, not {name!r}")
    return device

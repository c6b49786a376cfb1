"""From an experiment to its records: plan the cells, train the missing ones, measure, report.

Everything that was done before is found by its content id and left alone; whatever lacks its last
file is done again. `perform` is one job, wherever it runs; a job is a dict of plain values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import contract
from bench.files import append_line, printable_lines, write_atomic
from bench.identity import content_id, plain
from bench.method import Cell
from bench.registry import describe
from bench.run import capacity, cluster, schedule
from bench.run.board import Board
from bench.run.plan import Experiment, Measurement, cell_label
from bench.run.schema import Head, RunConfig, from_plain
from bench.run.schema import plain as to_builtins
from bench.run.store import Store, cell_config
from bench.run.work import perform, recorded
from bench.space import format_setting
from bench.task import Task

# Jobs


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
        per_device: jobs at once on a device; None for as many as fit it, see `bench.run.capacity`.
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
        configs = tuple(each.config() for each in self.experiments)
        content = to_builtins(RunConfig(experiments=configs))
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
            "cell": to_builtins(cell_config(cell, preset_name)),
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
                schedule.here(jobs, perform, emit, stop, self.limit)
                return
            left, count, memory = list(jobs), self.per_device, 0
            if count is None:
                peaks = capacity.peaks(self.store.root, self.device.type)
                while (first := capacity.unmeasured(left, peaks)) and not stop():
                    self._together([first], 1, emit, stop)  # alone, to be measured
                    left.remove(first)
                    peaks = capacity.peaks(self.store.root, self.device.type)
            if left and not stop():
                if count is None:
                    count, memory = self._fitting(left, peaks)
                    board.note(f"{count} at once on a device, by its memory and cores")
                self._together(left, count, emit, stop, memory)

    def _fitting(self, jobs: Sequence[dict[str, Any]], peaks: dict[str, int]) -> tuple[int, int]:
        """How many of these jobs fit a device at once, and the bytes that each is to have; one, and
        0 for unknown, where nothing like them was measured."""
        tasks = {capacity.task_of(job) for job in jobs}
        if not tasks <= peaks.keys():
            return 1, 0
        kind, peak = self.device.type, max(peaks[task] for task in tasks)
        rooms = cluster.rooms(kind) if self.on == "ray" else [capacity.room(kind)]
        return capacity.fitting(peak, rooms, kind) if rooms else 1, capacity.need(peak, kind)

    def _together(
        self,
        jobs: Sequence[dict[str, Any]],
        count: int,
        emit: schedule.Emit,
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
            schedule.pool(jobs, perform, emit, stop, count, self.limit)

    def _log_failure(self, event: dict[str, Any], job: dict[str, Any]) -> None:
        """Keep the trace, and let `status` and the report show what failed."""
        reason, trace = (printable_lines(event[name]) for name in ("reason", "trace"))
        try:
            append_line(self.store.root / "failures.log", f"{job['label']}: {reason}\n{trace}")
            if job["kind"] == "train":
                self.store.note_failure(self.store.root / job["uses"][0], reason)
            else:
                head = {**job["head"], "status": "failed", "reason": reason}
                self.store.write_records(Path(job["path"]), from_plain(head, Head), [])
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
                    "cells": [to_builtins(cell_config(c, each.preset)) for c in each_one.cells],
                    "uses": [self._place(cell) for cell in each_one.cells],
                    "kept_at": each_one.kept_at,
                    "head": {
                        **head,
                        "kind": each_one.kind,
                        "share": each_one.share,
                        "id": identifier,
                        "method": label,
                        "role": each_one.method.role,
                        "tuned": each_one.method.tuned,
                        "label": each_one.method.written() + label[len(each_one.method.name) :],
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
        results = map(self.store.result, one.cells)
        return all(done and done.weights_sha256(one.kept_at) for done in results)


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

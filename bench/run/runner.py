"""From an experiment to its records: plan the cells, train the missing ones, measure.

Everything that was done before is found by its content id and left alone; whatever lacks its last
file is done again. `perform` is one job, wherever it runs.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from msgspec.structs import replace

from bench import levers
from bench.files import append_line, brief, printable_lines, write_atomic
from bench.identity import content_id, plain
from bench.method import Cell
from bench.plugins import contract
from bench.run import capacity, cluster, layout, nodes, processes, schedule, schema
from bench.run.board import Board
from bench.run.plan import Experiment, Measurement, cell_label
from bench.run.store import Store, cell_config
from bench.run.work import perform, recorded
from bench.space import format_setting
from bench.task import Task

BEHIND = ("context", "original")  # what a task may have to show behind the methods


class Listener(Protocol):
    """Follows a run in the process that drives it, beside the board."""

    def begin(self, jobs: Sequence[schema.Job]) -> None:
        """These jobs are begun."""

    def handle(self, event: schema.Event, job: schema.Job) -> None:
        """This happened to one of them."""


class Run:
    """One `run` of one or more experiments on a results folder. `listeners` follow it."""

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
        self.device, self.on, self.per_device, self.limit = device, on, per_device, limit
        self.failures: list[str] = []
        self.listeners: list[Listener] = []
        self._kept: processes.Kept | None = None

    def missing_cells(self) -> list[tuple[Experiment, Cell]]:
        planned = {cell.id: (each, cell) for each in self.experiments for cell in each.cells}
        return [pair for pair in planned.values() if self.store.result(pair[1]) is None]

    def open_data(self) -> None:
        """Read all pictures now, so that a bad one is found before any training, measure what a
        task measures beforehand, so that weights it cannot do without are missed now, and ask
        whether task and methods keep the contract."""
        device = self.device if self.on == "here" else torch.device("cpu")
        for planned in list(self.experiments):
            try:
                display(planned.task)
                planned.task.data("train").to(device)
                held_out = planned.task.data(planned.split).to(device)
                if next(iter(held_out.examples()), None) is None:
                    raise ValueError(
                        f"the split {planned.split!r} of the task {planned.task.name!r} holds no "
                        "example to measure on: another --split, or other fields of the task"
                    )
                planned.task.constants()
                contract.check(planned)
            except (RuntimeError, ValueError, OSError) as error:
                if len(self.experiments) == 1:
                    raise
                self.experiments.remove(planned)  # the other tasks go on
                self.failures.append(f"{planned.task.name}: {error}")

    def save_config(self) -> Path:
        """Store what was asked for, so that `run --config` can replay it."""
        configs = tuple(planned.config() for planned in self.experiments)
        config = schema.RunConfig(experiments=configs)
        path = layout.run_config_path(self.store.root, content_id(schema.to_plain(config)))
        write_atomic(path, schema.text(config))
        return path

    def forget(self) -> None:
        """Delete everything this run would make, to make it again."""
        for planned in self.experiments:
            self.store.forget(planned.cells)
            for job in self._record_jobs(planned):
                head = self.store.root / job.path
                for path in (head, layout.table_of(head), layout.picture_of(head)):
                    path.unlink(missing_ok=True)

    # Jobs

    def jobs(self) -> list[schema.Job]:
        """All that is missing, task by task: trainings, then what is measured of each, which waits
        for its networks. So the first task is whole long before the last one is trained."""
        firsts: dict[str, int] = {}  # by the cell, the experiment that is the first to plan it
        for place, planned in enumerate(self.experiments):
            for cell in planned.cells:
                firsts.setdefault(cell.id, place)
        by_place: list[list[schema.Job]] = [[] for _ in self.experiments]
        for training in self.train_jobs():
            by_place[firsts[training.id]].append(training)
        for jobs, planned in zip(by_place, self.experiments, strict=True):
            jobs += self._missing_records(planned)
        return [job for jobs in by_place for job in jobs]

    def train_jobs(self) -> list[schema.Train]:
        jobs = []
        for planned, cell in self.missing_cells():
            self.store.prepare(cell, planned.preset)
            jobs.append(self.train_job(cell, planned.preset))
        return jobs

    def train_job(self, cell: Cell, preset: str) -> schema.Train:
        return schema.Train(
            id=cell.id,
            label=cell_label(cell, preset),
            root=str(self.store.root),
            device=str(self.device),
            uses=tuple(self._place(each) for each in (cell, cell.after) if each),
            after=(cell.after.id,) if cell.after else (),
            cell=cell_config(cell, preset),
        )

    def record_jobs(self) -> list[schema.Recording]:
        """The measurements that are missing, damaged, or made from other weights."""
        return [job for planned in self.experiments for job in self._missing_records(planned)]

    def _missing_records(self, planned: Experiment) -> list[schema.Recording]:
        cells = {cell.id: cell for cell in planned.cells}
        missing = planned.task.missing()
        return [
            job
            for job in self._record_jobs(planned)
            if not recorded(self.store, job, cells, missing)
        ]

    def _record_jobs(self, planned: Experiment) -> list[schema.Recording]:
        task = planned.task
        head = functools.partial(
            schema.Head,
            task=task.name,
            preset=planned.preset,
            experiment=planned.id,
            split=planned.split,
            display=display(task),
            study=planned.study,
        )
        jobs: list[schema.Recording] = [
            self._measure_job(planned, measurement, head) for measurement in planned.measurements
        ]
        if any(getattr(type(task), hook) is not getattr(Task, hook) for hook in BEHIND):
            name = content_id({"experiment": planned.id, "preset": planned.preset, "context": True})
            place = self.store.record_path(task.name, "context", name)
            jobs.append(
                schema.Context(
                    id=name,
                    label="context curves",
                    root=str(self.store.root),
                    device=str(self.device),
                    path=self._inside(place),
                    task=schema.Plugin.of(task),
                    head=head(
                        id=name, kind="context", method="context", seed=0, setting="", cells=()
                    ),
                )
            )
        return jobs

    def _measure_job(
        self, planned: Experiment, measured: Measurement, head: Callable[..., schema.Head]
    ) -> schema.Measure:
        task, method, label = planned.task, measured.method, measured.label
        name = planned.measurement_id(measured)
        setting = format_setting(task.space.names, measured.setting)
        tuning = levers.tuning(task.name, method)
        return schema.Measure(
            id=name,
            label=f"{task.name} {label} at {task.space.words(measured.setting)}",
            root=str(self.store.root),
            device=str(self.device),
            uses=tuple(self._place(cell) for cell in measured.cells),
            after=tuple(cell.id for cell in measured.cells),
            path=self._inside(self.store.record_path(task.name, method.name, name)),
            task=schema.Plugin.of(task),
            method=schema.Plugin.of(method),
            setting=measured.setting,
            cells=tuple(cell_config(cell, planned.preset) for cell in measured.cells),
            head=head(
                id=name,
                kind=measured.kind,
                share=measured.share,
                method=label,
                role=method.role,
                tuned=method.tuned,
                label=method.written() + label[len(method.name) :],
                method_id=content_id(method.identity),
                tuning=tuning and schema.from_plain(plain(tuning), schema.Tuning),
                seed=measured.seed,
                setting=setting,
                cells=tuple(cell.id for cell in measured.cells),
                outside=tuple(task.space.outside(measured.setting)),
            ),
        )

    def _place(self, cell: Cell) -> str:
        return self._inside(self.store.folder(cell))

    def _inside(self, path: Path) -> str:
        """A path as seen from the results folder."""
        return path.relative_to(self.store.root).as_posix()

    # Running

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """While it lasts, the processes of a pool are kept from one `execute` to the next."""
        if self._kept is not None:  # by whoever called
            yield
            return
        with processes.Kept() as self._kept:
            try:
                yield
            finally:
                self._kept = None

    def complete(self, stop: schedule.Stop) -> bool:
        """Train and measure what is missing; False where a stop was asked for."""
        with self.keeping():
            return self._complete(stop)

    def _complete(self, stop: schedule.Stop) -> bool:
        if jobs := self.jobs():
            self.execute(jobs, "jobs", stop)
        else:
            Board("jobs", []).note("all is stored, nothing is left to train or to measure")
        return not stop()

    def execute(self, jobs: Sequence[schema.Job], title: str, stop: schedule.Stop) -> None:
        by_id = {job.id: job for job in jobs}
        for listener in self.listeners:
            listener.begin(jobs)
        with Board(title, jobs) as board:

            def emit(event: schema.Event) -> None:
                board.handle(event)
                for listener in self.listeners:
                    listener.handle(event, by_id[event.job])
                if isinstance(event, schema.Ended) and event.how == "failed":
                    self._note_failure(event, by_id[event.job])

            if self.on == "here":
                schedule.here(jobs, perform, emit, stop, self.limit)
                return
            left, count, memory = list(jobs), self.per_device, 0
            if count is None:
                kind = self.device.type
                peaks = self._known_peaks(kind) | capacity.peaks(self.store.root, kind)
                while (first := capacity.unmeasured(left, peaks)) and not stop():
                    self._together([first], 1, emit, stop)  # alone, to be measured
                    left.remove(first)
                    peaks |= capacity.peaks(self.store.root, kind)
            if left and not stop():
                if count is None:
                    count, memory = self._fitting(left, peaks)
                    board.note(f"{count} at once on a device, by its memory and cores")
                self._together(left, count, emit, stop, memory)

    def _known_peaks(self, kind: str) -> dict[str, int]:
        """Those that presets know of a CPU, as `capacity.peaks`."""
        known = [each for each in self.experiments if each.memory and kind == "cpu"]
        return {capacity.key(schema.Plugin.of(each.task)): each.memory for each in known}

    def _fitting(self, jobs: Sequence[schema.Job], peaks: dict[str, int]) -> tuple[int, int]:
        """How many of these jobs fit a device at once, and the bytes that each is to have; one, and
        0 for unknown, where nothing like them was measured."""
        tasks = peaks.keys() & {capacity.task_of(job) for job in jobs}
        if not tasks:
            return 1, 0
        kind, peak = self.device.type, max(peaks[task] for task in tasks)
        rooms = cluster.rooms(kind) if self.on == "ray" else [capacity.room(str(self.device))]
        return capacity.fitting(peak, rooms, kind) if rooms else 1, capacity.need(peak, kind)

    def _together(
        self,
        jobs: Sequence[schema.Job],
        count: int,
        emit: schedule.Emit,
        stop: schedule.Stop,
        memory: int = 0,
    ) -> None:
        """Do the jobs, `count` at once on a device, each with `memory` bytes, where that is known.
        Those that train know whether they share it."""
        crowded = min(count, len(jobs)) > 1
        if self.on == "ray":
            share = cluster.share(cluster.nodes(), self.device.type, count, memory)
            crowded = share.crowded and len(jobs) > 1
        jobs = [
            replace(job, shared=crowded) if isinstance(job, schema.Train) else job for job in jobs
        ]
        if self.on == "ray":
            nodes.run(jobs, perform, emit, stop, share, self.limit)
        else:
            processes.pool(jobs, perform, emit, stop, count, self.limit, self._kept)

    def _note_failure(self, failed: schema.Ended, job: schema.Job) -> None:
        """Keep the trace, let `status` count it, and the report show it."""
        reason, trace = brief(failed.reason), printable_lines(failed.trace)
        self.failures.append(f"{job.label}: {failed.reason}")
        try:
            append_line(self.store.root / "failures.log", f"{job.label}: {reason}\n{trace}")
            if isinstance(job, schema.Train):
                self.store.note_failure(self.store.root / job.uses[0], reason)
            elif isinstance(job, schema.Recording):
                head = replace(job.head, status="failed", reason=reason)
                self.store.write_records(self.store.root / job.path, head, [])
        except OSError as error:  # the run says what failed in any case, and goes on
            self.failures.append(f"noting this failure: {error}")


def display(task: Task) -> schema.Display:
    """How a task writes what it measures. ValueError where no table can take that."""
    written = {
        "title": task.title,
        "measures": {"loss": task.loss, **task.measures},
        "fronts": task.fronts,
        "axes": task.space.axes,
        "sample_line": task.sample_line,
        "margin_share": task.margin_share,
    }
    try:
        return schema.from_plain(plain(written), schema.Display)
    except ValueError as error:
        raise ValueError(
            f"{task.name}: tables cannot take what it says of itself: {error}"
        ) from None


def usual_place() -> str:
    """Where networks are trained if nobody says: in a pool of processes where there are cores for
    two. On a CPU that is faster than one network on all cores, and hardly slowed by what else the
    machine does; on a GPU as many are at work as fit it."""
    return "pool" if capacity.cores() > 1 else "here"


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

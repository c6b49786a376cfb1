"""The report while a run lasts: written anew, beside the training, whenever a task is measured.

    with GrowingReport(run) as page:
        run.listeners.append(page)
        run.complete(stop)

A process of its own writes it, so that no network waits for a figure. The page loads itself anew
while the run lasts; `settle` takes that out of it at the end, and says where the run was stopped.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from bench.report import build, settle
from bench.run import runner
from bench.run.processes import start_deaf
from bench.run.schema import Ended, Event, Job, Recording

Key = tuple[str, str, str]  # task, preset, experiment
PAUSE = 60.0  # seconds between two reports of the same unfinished task, and
PATIENCE = 20.0  # seconds that a report may take to end at the end of a run
SHARE = 10  # of the time that the last one took


class GrowingReport:
    """Follows a run, as its listener. Leaving it ends a report that is being written."""

    def __init__(self, run: runner.Run) -> None:
        self.root = run.store.root
        self.keys: set[Key] = {(each.task.name, each.preset, each.id) for each in run.experiments}
        self._task_of: dict[str, Key] = {}  # by the id of what is measured
        self._left: Counter[Key] = Counter()  # that is to be measured
        self._due = self._new = False  # a task is whole; something was measured
        self._writer: Any = None
        # Nothing is drawn beside a network whose seconds are quoted, or where it cannot be.
        self.silent = run.on == "here" and run.device.type == "cpu"
        self._since, self._took = time.monotonic(), 0.0  # of the last report, and how long it took

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.join(0.0 if +self._left else PATIENCE)
            self._writer.kill()  # files are written whole, or not at all
            self._writer.join()
        settle(self.root, f"A run was stopped: {self._count()}." if +self._left else "")

    def _count(self) -> str:
        planned = len(self._task_of)
        return f"{planned - self._left.total()} of {planned} measurements are done"

    def begin(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if isinstance(job, Recording):
                head = job.head
                self._task_of[job.id] = head.task, head.preset, head.experiment
        self._left.update(self._task_of[job.id] for job in jobs if job.id in self._task_of)

    def handle(self, event: Event, job: Job) -> None:
        if isinstance(event, Ended) and event.job in self._task_of:
            key = self._task_of[event.job]
            self._left[key] -= 1
            self._new = True
            self._due = self._due or not self._left[key]
        if self._writer is not None and not self._writer.is_alive():
            self._writer.join()
            self._took, self._writer = time.monotonic() - self._since, None
            self._since = time.monotonic()
        late = time.monotonic() - self._since > max(PAUSE, SHARE * self._took)
        wanted = (self._due or (self._new and late)) and +self._left and not self.silent
        if self._writer is None and wanted:
            self._due = self._new = False
            self._since = time.monotonic()
            self._write()

    def _write(self) -> None:
        going = f"A run is at work on this: at {time.strftime('%H:%M')} {self._count()}."
        context = multiprocessing.get_context("spawn")
        self._writer = context.Process(target=_report, args=(self.root, self.keys, going))
        try:
            start_deaf(self._writer)
        except OSError:  # no memory, or too many processes: the networks matter more
            self._writer, self.silent = None, True


def _report(root: Path, keys: set[Key], going: str) -> None:
    warnings.simplefilter("ignore")  # the report at the end says it
    with contextlib.suppress(Exception):
        build(root, only=keys, going=going)

"""`run --log tensorboard`: the loss and the terms of every training, for TensorBoard to show.

    tensorboard --logdir results/tensorboard

The run that starts the jobs writes, from what they tell it of themselves, so it is the same here,
in a pool and on Ray. One folder a network, `TASK/METHOD/SETTING seed N CELL`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.run.schema import Ended, Event, Job, Step, Train

FOLDER = "tensorboard"


class TensorBoard:
    """A listener of a run: writes the steps of trainings below `root`.

    ValueError where the package is not there. A disk that takes no more stops it with a warning,
    and not the run: all of it is in the networks' `log.jsonl`, too.
    """

    def __init__(self, root: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"--log tensorboard needs a package that is not here ({error}): "
                "pip install 'yoto-bench[tensorboard]'"
            ) from None
        self._writer, self._root = SummaryWriter, root / FOLDER
        self._open: dict[str, Any] = {}  # by job
        self._broken = False

    def begin(self, jobs: Sequence[Job]) -> None:
        """A file is opened once there is something to write."""

    def handle(self, event: Event, job: Job) -> None:
        if not isinstance(job, Train) or self._broken:
            return
        try:
            if isinstance(event, Step):
                self._write(event, job)
            elif isinstance(event, Ended) and job.id in self._open:
                self._open.pop(job.id).close()
        except OSError as error:
            self._broken = True
            warnings.warn(f"no more is written to {self._root}: {error}", stacklevel=2)

    def _write(self, step: Step, job: Train) -> None:
        if job.id not in self._open:
            # What an earlier process wrote of steps that are done once more does not count.
            self._open[job.id] = self._writer(
                str(self._root / folder(job)), purge_step=step.step, flush_secs=10
            )
        writer = self._open[job.id]
        writer.add_scalar("loss", step.loss, step.step)
        for name, value in step.terms.items():
            writer.add_scalar(f"terms/{name}", value, step.step)


def folder(job: Train) -> Path:
    """Where a training is written, below the folder of all: as readable as names can be long."""
    task, method, identifier = Path(job.uses[0]).parts[-3:]
    trained = job.label.partition(f" {method}, ")[2].replace(",", "")  # its setting, and its seed
    if len(trained) > 150:
        trained = f"seed {job.cell.seed}"
    return Path(task, method, f"{trained} {identifier}")

"""The grid's networks, several at a time on one device, against one after another.

    python -m benchmarks.packing
    python -m benchmarks.packing compression --packed 1 2 4 8 16 --device cuda --one-process

K networks of a task's grid are trained by K processes at once, in the pool that `run --on pool
--per-device K` uses; on a CPU each has one thread, or OMP_NUM_THREADS of them. A packing of one
trains one network: K of them one after another take K times that. A round's clock
starts when all processes have taken their first steps and stops at the last network's last step:
what comes before (processes, data, the codec's start, a compilation), which a long run pays once,
is left out and told apart, and so is storing the networks.

With `--one-process` as many networks are also trained in this process, a step of each in turn, on a
GPU each on a stream of its own. Whether the GPU's processes are served by NVIDIA's MPS is said in
the rows: start it before (`nvidia-cuda-mps-control -d`).
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.capture import ORDINARY
from bench.cost import device_name
from bench.method import build
from bench.registry import method
from bench.run import processes, schedule
from bench.run.plan import Experiment
from bench.run.runner import Run, choose_device
from bench.run.schema import Ended, Event, Job, Note, Train
from bench.run.timing import alternate, show, wait
from bench.run.work import perform
from bench.task import Task
from bench.train import Trainer, arithmetic
from benchmarks import rows

TASKS = ("compression", "style", "beta_vae_scenes")
PATIENCE = 180.0  # seconds that a process waits for the others to be ready
FIRST = ORDINARY + 1  # steps before the clock starts: those that compile or capture


def together(count: int, job: Train, emit: schedule.Emit, should_stop: schedule.Stop) -> None:
    """One training of a pool: wait after the `FIRST` steps until `count` have come so far."""
    device, taken = torch.device(job.device), 0
    steps = job.cell.task.fields["training"]["steps"]

    def after_a_step() -> bool:
        nonlocal taken
        taken += 1
        if taken in (FIRST, steps):
            wait(device)
        if taken == FIRST:
            _meet(job, count, should_stop)
            emit(Note(job=job.id, note="ready"))
        if taken == steps:  # what is left is to store it
            emit(Note(job=job.id, note="trained"))
        return should_stop()

    perform(job, emit, after_a_step)


def _meet(job: Job, count: int, should_stop: schedule.Stop) -> None:
    """Wait until as many processes as are packed have come here."""
    folder, until = Path(job.root) / "ready", time.monotonic() + PATIENCE
    folder.mkdir(exist_ok=True)
    (folder / job.id).touch()
    while len(os.listdir(folder)) < count:
        if time.monotonic() > until or should_stop():
            raise RuntimeError("another process of the pool did not get ready: run fewer at once")
        time.sleep(0.005)


def packed(experiment: Experiment, count: int, device: torch.device, starts: list[float]) -> float:
    """Seconds per network of `count` trained at once, its `FIRST` steps aside; the seconds until
    then go to `starts`."""
    seen: dict[str, list[float]] = {"ready": [], "trained": []}

    def note(event: Event) -> None:
        if isinstance(event, Ended) and event.how == "failed":
            raise SystemExit(f"{event.reason}\n{event.trace}")
        if isinstance(event, Note):
            if event.note not in seen:  # as that it diverged
                raise SystemExit(event.note)
            seen[event.note].append(time.perf_counter())

    with tempfile.TemporaryDirectory() as root:
        run = Run(Path(root), [experiment], device, on="pool", per_device=count)
        jobs = run.train_jobs()[:count]
        begin = time.perf_counter()
        work = functools.partial(together, count)
        processes.pool(jobs, work, note, lambda: False, count)
    starts.append(min(seen["ready"]) - begin)
    return (max(seen["trained"]) - min(seen["ready"])) / count


def in_turn(experiment: Experiment, count: int, device: torch.device) -> float:
    """Seconds per network of `count` trained in this process, a step of each in turn, their
    `FIRST` steps aside. Their noise is drawn from one generator: it is for time alone."""
    task, folder = experiment.task, Path(tempfile.gettempdir())
    trainers = [
        Trainer(task, build(cell), functools.partial(cell.method.draw, cell), 0, device, folder)
        for cell in experiment.cells[:count]
    ]
    streams: list[Any] = [None] * count  # which is the usual one
    if device.type == "cuda":
        streams = [torch.cuda.Stream(device) for _ in trainers]

    def steps(number: int) -> None:
        for _ in range(number):
            for trainer, stream in zip(trainers, streams, strict=True):
                with torch.cuda.stream(stream):
                    trainer.advance()
                trainer.window.clear()
        wait(device)

    with arithmetic(task.training.precision):
        steps(FIRST)
        begin = time.perf_counter()
        steps(task.training.steps - FIRST)
        return (time.perf_counter() - begin) / count


def served_by_mps() -> bool:
    """Whether NVIDIA's daemon that lets processes use a GPU at once runs."""
    return any(each.name().startswith("nvidia-cuda-mps") for each in psutil.process_iter())


def measure(
    name: str,
    size: str,
    counts: Sequence[int],
    device: torch.device,
    steps: int,
    rounds: int,
    one_process: bool = False,
) -> list[rows.Row]:
    task: Task = rows.task(name, size).trained_with(steps=steps + FIRST)
    experiment = Experiment(
        task=task, preset=size, settings=task.settings(max(counts)), seeds=(0,),
        methods={"fixed_grid": method("fixed_grid")},
    )  # fmt: skip
    starts: dict[str, list[float]] = {f"{count} at once": [] for count in counts}
    loops: dict[str, Callable[[], float]] = {
        key: functools.partial(packed, experiment, count, device, starts[key])
        for key, count in zip(starts, counts, strict=True)
    }
    if one_process:
        loops |= {
            f"{count} in one process": functools.partial(in_turn, experiment, count, device)
            for count in counts
        }
    seconds = alternate(loops, rounds)
    first, *others = seconds
    mps = ", MPS" if device.type == "cuda" and served_by_mps() else ""
    title = f"{name}, {size}, {steps} steps a network{mps}"
    show(
        f"{title}: {device_name(device)}",
        seconds,
        dict.fromkeys(others, first),
        {"s per network": lambda s: f"{s:.2f}"},
    )
    waited = ", ".join(f"{statistics.median(s):.1f} s for {key}" for key, s in starts.items())
    print(f"not counted, until all processes had taken {FIRST} steps: {waited}")
    return [
        rows.row(
            f"packing, {title}", device, key, f"{first}, networks per second",
            (seconds[first], seconds[key]), statistics.median(seconds[key]), "s/network",
        )
        for key in others
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = rows.parser("packing", __doc__, steps=8)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=" ".join(TASKS))
    parser.add_argument("--preset", default="quick", help="size of the tasks (quick)")
    parser.add_argument("--packed", type=int, nargs="+", default=[1, 2, 4], metavar="K",
                        help="networks at once; the first is compared with (1 2 4)")  # fmt: skip
    parser.add_argument("--one-process", action="store_true",
                        help="also as many in one process, a step of each in turn")  # fmt: skip
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    how = device, options.steps, options.rounds, options.one_process
    made: list[rows.Row] = []
    for name in options.tasks or TASKS:
        each = measure(name, options.preset, options.packed, *how)
        rows.append(options.out, each)
        made += each
    return made


if __name__ == "__main__":
    main()

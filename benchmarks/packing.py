"""The grid's networks, several at a time on one device, against one after another.

    python -m benchmarks.packing
    python -m benchmarks.packing compression --packed 1 2 4 8 16 --device cuda

K networks of a task's grid are trained by K processes at once, in the pool that `run --on pool
--per-device K` uses; on a CPU each has one thread, or OMP_NUM_THREADS of them. A packing of one
trains one network: K of them one after another take K times that. A round's clock
starts when all processes have taken their first steps and stops at the last network's end: what
comes before (processes, data, the codec's start, a compilation), which a long run pays once, is
left out and told apart.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.cost import device_name
from bench.registry import method
from bench.run import processes, schedule
from bench.run.plan import Experiment
from bench.run.runner import Run, choose_device
from bench.run.schema import Ended, Event, Job, Note
from bench.run.timing import alternate, show, wait
from bench.run.work import perform
from bench.task import Task
from benchmarks import rows

TASKS = ("compression", "style", "beta_vae_scenes")
PATIENCE = 180.0  # seconds that a process waits for the others to be ready
FIRST = 3  # steps before the clock starts; with torch.compile, those that compile


def together(count: int, job: Job, emit: schedule.Emit, should_stop: schedule.Stop) -> None:
    """One job of a pool: train, but wait after the `FIRST` steps until `count` have come so far."""
    device, taken = torch.device(job.device), 0

    def after_a_step() -> bool:
        nonlocal taken
        taken += 1
        if taken == FIRST:
            wait(device)
            _meet(job, count, should_stop)
            emit(Note(job=job.id, note="ready"))
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
    seen: dict[str, list[float]] = {"ready": [], "finished": []}

    def note(event: Event) -> None:
        if isinstance(event, Ended) and event.how == "failed":
            raise SystemExit(f"{event.reason}\n{event.trace}")
        if isinstance(event, Ended | Note):
            what = event.how if isinstance(event, Ended) else event.note
            seen.setdefault(what, []).append(time.perf_counter())

    with tempfile.TemporaryDirectory() as root:
        run = Run(Path(root), [experiment], device, on="pool", per_device=count)
        jobs = run.train_jobs()[:count]
        begin = time.perf_counter()
        work = functools.partial(together, count)
        processes.pool(jobs, work, note, lambda: False, count)
    starts.append(min(seen["ready"]) - begin)
    return (max(seen["finished"]) - min(seen["ready"])) / count


def measure(
    name: str, size: str, counts: Sequence[int], device: torch.device, steps: int, rounds: int
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
    seconds = alternate(loops, rounds)
    first, *others = seconds
    title = f"{name}, {size}, {steps} steps a network"
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
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    made: list[rows.Row] = []
    for name in options.tasks or TASKS:
        made += measure(name, options.preset, options.packed, device, options.steps, options.rounds)
    rows.append(options.out, made)
    return made


if __name__ == "__main__":
    main()

"""What a run on a CPU loses where something else is at work there.

    python -m benchmarks.busy
    python -m benchmarks.busy compression --steps 16

Training alone, and beside a process that keeps one core busy: a pool of networks with one thread
each, as `run` does it, and one network on as many threads as there are cores. Seconds per network,
the first steps aside, as `benchmarks/packing.py` counts them.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import torch

from bench.registry import EXAMPLE, method
from bench.run.capacity import cores
from bench.run.plan import Experiment
from bench.run.timing import alternate, show
from bench.task import Task
from benchmarks import rows
from benchmarks.packing import FIRST, packed


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """While it lasts, so many processes compute without an end."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=spin, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def seconds(experiment: Experiment, count: int, each: int, others: int) -> float:
    """Seconds per network of `count` at once with `each` threads, beside `others`."""
    with mock.patch.dict(os.environ, OMP_NUM_THREADS=str(each)), busy(others):
        return packed(experiment, count, torch.device("cpu"), [])


def measure(name: str, size: str, steps: int, rounds: int) -> list[rows.Row]:
    task: Task = rows.task(name, size).trained_with(steps=steps + FIRST)
    experiment = Experiment(
        task=task, preset=size, settings=task.settings(max(2, cores())), seeds=(0,),
        methods={"fixed_grid": method("fixed_grid")},
    )  # fmt: skip
    ways = {f"{cores()} networks of one thread": (cores(), 1)}
    ways[f"one network of {cores()} threads"] = (1, cores())
    loops: dict[str, Callable[[], float]] = {}
    for way, how in ways.items():
        loops[f"{way}, alone"] = functools.partial(seconds, experiment, *how, 0)
        loops[f"{way}, beside a busy process"] = functools.partial(seconds, experiment, *how, 1)
    measured = alternate(loops, rounds)
    pairs = {f"{way}, beside a busy process": f"{way}, alone" for way in ways}
    title = f"{name}, {size}, {steps} steps a network"
    show(f"{title}: CPU", measured, pairs, {"s per network": lambda s: f"{s:.2f}"})
    return [
        rows.row(
            f"busy, {title}", torch.device("cpu"), slowed, alone,
            (measured[slowed], measured[alone]), statistics.median(measured[slowed]), "s/network",
        )
        for slowed, alone in pairs.items()
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = rows.parser("busy", __doc__, steps=16, rounds=3)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"tasks ({EXAMPLE})")
    parser.add_argument("--preset", default="quick", help="size of the tasks (quick)")
    options = parser.parse_args(arguments)
    measured: list[rows.Row] = []
    for name in options.tasks or [EXAMPLE]:
        measured += measure(name, options.preset, options.steps, options.rounds)
    rows.append(options.out, measured)
    return measured


if __name__ == "__main__":
    main()

"""The grid's networks, several at a time on one device, against one after another.

    python -m benchmarks.packing
    python -m benchmarks.packing compression --packed 1 2 4 8 16 --device cuda

K networks of a task's grid are trained by K processes at once, in the pool that `run --on pool
--per-device K` uses, each with its share of the processor's threads. A packing of one has all
threads and trains one network: K of them one after another take K times that. A round's clock
starts when all processes have the data and every weight in place and stops at the last network's
end, so starting processes, which a long run pays once, is left out and told apart.
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

import torch

from bench import executors
from bench.cost import device_name
from bench.registry import method, revive
from bench.runner import Experiment, Run, choose_device, perform
from bench.task import Task
from bench.timing import alternate, show
from benchmarks import rows

TASKS = ("compression", "style", "beta_vae_scenes")
PATIENCE = 180.0  # seconds that a process waits for the others to be ready


def together(job: dict[str, Any], emit: executors.Emit, should_stop: Callable[[], bool]) -> None:
    """One job of a pool: get ready, wait until all are, and only then train."""
    task = revive(job["cell"]["task"], Task)  # type: ignore[type-abstract]
    device = torch.device(job["device"])
    generator = torch.Generator().manual_seed(0)
    batch = task.data("train").to(device).batch(task.training.batch, generator)
    with torch.no_grad():
        task.losses(task.model().to(device), batch)  # reads what the loss is measured with
    folder, until = Path(job["root"]) / "ready", time.monotonic() + PATIENCE
    folder.mkdir(exist_ok=True)
    (folder / job["id"]).touch()
    while len(os.listdir(folder)) < job["packed"]:
        if time.monotonic() > until or should_stop():
            raise RuntimeError("another process of the pool did not get ready: run fewer at once")
        time.sleep(0.005)
    emit({"event": "ready", "job": job["id"]})
    perform(job, emit, should_stop)


def packed(experiment: Experiment, count: int, device: torch.device, starts: list[float]) -> float:
    """Seconds per network of `count` trained at once; the seconds until then go to `starts`."""
    seen: dict[str, list[float]] = {"ready": [], "finished": []}

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "failed":
            raise SystemExit(f"{event['reason']}\n{event['trace']}")
        seen.setdefault(event["event"], []).append(time.perf_counter())

    with tempfile.TemporaryDirectory() as root:
        run = Run(Path(root), [experiment], device, on="pool", per_device=count)
        jobs = [{**job, "packed": count} for job in run.train_jobs()[:count]]
        begin = time.perf_counter()
        executors.pool(jobs, together, note, lambda: False, count)
    starts.append(min(seen["ready"]) - begin)
    return (max(seen["finished"]) - min(seen["ready"])) / count


def measure(
    name: str, size: str, counts: Sequence[int], device: torch.device, steps: int, rounds: int
) -> list[rows.Row]:
    task: Task = rows.task(name, size).trained_with(steps=steps)
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
    print(f"not counted, until all processes were ready: {waited}")
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

"""What conditioning costs: in a training step, and in inference once it is folded.

    python -m benchmarks.conditioning
    python -m benchmarks.conditioning --task style
    python -m benchmarks.conditioning --task quadratic --methods all

A bare hand-written loop, the harness on a fixed network and the harness on a conditioned one, as
`python run_bench.py time`; then the forward pass of a plain network and of a conditioned one whose
scales and shifts are folded into its layers, on a training batch. With `--methods` it is instead a
training step of each of these methods' networks, against the fixed one's, in processor time.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.method import Cell, build
from bench.registry import method, split_methods, variants
from bench.run.runner import choose_device
from bench.run.timing import alternate, compare, pairs, show, wait
from bench.task import Task
from bench.train import Trainer, arithmetic
from benchmarks import rows


def models(task: Task) -> dict[str, nn.Module]:
    """A plain network, and a conditioned one that is folded for the same setting."""
    (setting,) = task.space.grid(1)
    return {
        "plain": build(
            Cell(task=task, method=method("fixed_grid"), seed=0, trained_for=(setting,))
        ).model,
        "folded": build(Cell(task=task, method=method("yoto"), seed=0)).at(setting),
    }


def inference(task: Task, device: torch.device, calls: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of the losses' forward pass through a plain and a folded network, by round."""
    batch = task.data("train").to(device).batch(task.training.batch, torch.Generator())

    def loop(model: nn.Module) -> Callable[[], float]:
        model.to(device).eval()

        @torch.no_grad()
        def once() -> float:
            wait(device)
            begin = time.perf_counter()
            for _ in range(calls):
                task.losses(model, batch)
            wait(device)
            return (time.perf_counter() - begin) / calls

        return once

    loops = {name: loop(model) for name, model in models(task).items()}
    with arithmetic(task.training.precision):
        for each in loops.values():
            each()  # warm up
        return alternate(loops, rounds)


def measure(task: Any, device: torch.device, steps: int, rounds: int) -> list[rows.Row]:
    """The rows, printed as tables, too."""
    title = f"{task.name}, batch {task.training.batch}"
    seconds = compare(task, device, steps, rounds)
    folded = inference(task, device, steps, rounds)
    show(
        f"{title}, inference, {device}", folded, {"folded": "plain"},
        {"ms per batch": lambda value: f"{1000 * value:.2f}"},
    )  # fmt: skip
    return [
        rows.row(
            f"{title}, {kind}", device, what, against, (values[what], values[against]),
            1000 * statistics.median(values[what]), "ms",
        )
        for kind, values, compared in (
            ("training step", seconds, pairs(seconds)), ("inference", folded, {"folded": "plain"})
        )
        for what, against in compared.items()
    ]  # fmt: skip


def step_costs(
    task: Any, names: Sequence[str], device: torch.device, steps: int, rounds: int
) -> list[rows.Row]:
    """Processor time of a training step of each method's (first) network, against the fixed one's;
    what applies of the methods and trains a network of its own."""
    found = {label: each for name in names for label, each in variants(name, {}).items()}
    settings, networks = task.settings(5), {}
    for label, tried in found.items():
        if not tried.refuses(task):
            cell = tried.plan(task, settings, 0)[0]
            if label == "fixed_grid" or not cell.trained_for:
                networks[label] = cell
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for label, cell in networks.items():
            before = build(cell.after).model if cell.after else None
            draw = functools.partial(cell.method.draw, cell)
            how = build(cell, before), draw, 0, device, Path(folder)
            trainers[label] = Trainer(cell.task, *how)

        def loop(trainer: Trainer) -> Callable[[], float]:
            def once() -> float:
                wait(device)
                begin = time.process_time()
                for _ in range(steps):
                    trainer.advance()
                wait(device)
                trainer.window.clear()
                return (time.process_time() - begin) / steps

            return once

        loops = {label: loop(trainer) for label, trainer in trainers.items()}
        with arithmetic(task.training.precision):
            for each in loops.values():
                each()  # warm up
            seconds = alternate(loops, rounds)
    title = f"{task.name}, batch {task.training.batch}, training step, processor time"
    others = [label for label in seconds if label != "fixed_grid"]
    show(
        f"{title}, {device}", seconds, dict.fromkeys(others, "fixed_grid"),
        {"ms per step": lambda value: f"{1000 * value:.2f}"},
    )  # fmt: skip
    return [
        rows.row(
            title, device, label, "fixed_grid", (seconds[label], seconds["fixed_grid"]),
            1000 * statistics.median(seconds[label]), "ms",
        )
        for label in others
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = rows.parser("conditioning", __doc__, steps=30)
    parser.add_argument("--task", default="compression",
                        help="name or file, or TASK[field=value,...] (compression)")  # fmt: skip
    parser.add_argument("--preset", default="quick", help="size of the task (quick)")
    parser.add_argument("--methods", metavar="A,B", help="a step of each, or of all")
    options = parser.parse_args(arguments)
    task, device = rows.task(options.task, options.preset), choose_device(options.device)
    how = device, options.steps, options.rounds
    if options.methods:
        names = ["fixed_grid", *split_methods(options.methods)]
        made = step_costs(task, names, *how)
    else:
        made = measure(task, *how)
    rows.append(options.out, made)
    return made


if __name__ == "__main__":
    main()

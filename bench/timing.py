"""Speed side by side: a bare hand-written loop, the harness on a fixed cell, and on a conditioned
one, in one process and in alternation, so that a busy machine slows all three.

    python run_bench.py time compression --preset quick
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.method import Cell, build
from bench.registry import method
from bench.space import Setting
from bench.task import Task
from bench.train import fit


def compare(task: Task, device: torch.device, steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each loop, one number a round, printed as a table with the ratios.

    Always in eager mode: the three loops then differ in nothing but what is compared.
    """
    log_every = max(1, min(task.training.steps // 100, 100))  # as in a whole run
    short = dataclasses.replace(task.training, steps=steps, compile=False)
    task = dataclasses.replace(task, training=short)  # type: ignore[type-var]
    (setting,) = task.space.grid(1)
    grid, conditioned = method("fixed_grid"), method("yoto")
    fixed_cell = Cell(task=task, method=grid, seed=0, trained_for=(setting,))
    yoto_cell = Cell(task=task, method=conditioned, seed=0)
    data_share: list[float] = []

    def harness(cell: Cell) -> float:
        with tempfile.TemporaryDirectory() as folder:
            network = build(cell)

            def draw(count: int, generator: torch.Generator) -> torch.Tensor:
                return cell.method.draw(cell, count, generator)

            ledger = fit(task, network, draw, 0, device, Path(folder), log_every=log_every)
        seconds = ledger["seconds"]
        data_share.append(seconds["data"] / (seconds["data"] + seconds["train"]))
        return (seconds["data"] + seconds["train"]) / steps

    loops: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bare(task, fixed_cell, setting, device),
        "harness, fixed": lambda: harness(fixed_cell),
        "harness, conditioned": lambda: harness(yoto_cell),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop()  # warm up
    data_share.clear()
    for turn in range(rounds):
        names = list(loops)
        for name in names[turn % 3 :] + names[: turn % 3]:
            seconds[name].append(loops[name]())

    table = Table(title=f"{task.name}, batch {task.training.batch}, {device}", title_justify="left")
    for title in ("loop", "ms per step", "examples/s", "ratio", "spread of the ratio"):
        table.add_column(title, justify="left" if title == "loop" else "right")
    against = {"harness, fixed": "bare loop", "harness, conditioned": "harness, fixed"}
    for name, values in seconds.items():
        median = statistics.median(values)
        row = [name, f"{1000 * median:.2f}", f"{task.training.batch / median:.0f}", "", ""]
        if name in against:
            pairs = [a / b for a, b in zip(values, seconds[against[name]], strict=True)]
            row[3] = f"{statistics.median(pairs):.3f} of {against[name]}"
            row[4] = f"{min(pairs):.3f} to {max(pairs):.3f}"
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(
        f"waiting for data: {100 * statistics.median(data_share):.2f} % of the time; medians of "
        f"{rounds} rounds of {steps} steps",
        highlight=False,
    )
    return seconds


def bare(task: Task, cell: Cell, setting: Setting, device: torch.device) -> float:
    """Seconds per step of the loop one would write by hand for a fixed network."""
    training = task.training
    model = build(cell).model.to(device).train()
    if training.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.AdamW(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    data = task.data("train").to(device)
    generator = torch.Generator().manual_seed(0)
    weights = dict(zip(task.space.names, setting, strict=True))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16")
    data.batch(training.batch, generator)  # the first call puts the data in place
    wait(device)
    begin = time.perf_counter()
    for _ in range(training.steps):
        batch = data.batch(training.batch, generator)
        with autocast:
            terms = task.losses(model, batch)
        loss = sum(weights.get(name, 1.0) * term.mean() for name, term in terms.items())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        if training.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        adam.step()
        adam.zero_grad(set_to_none=True)
    wait(device)
    return (time.perf_counter() - begin) / training.steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

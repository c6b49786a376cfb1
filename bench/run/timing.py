"""Speed side by side: a bare hand-written loop, the harness on a fixed cell, and on a conditioned
one, in one process and in alternation, so that a busy machine slows all.

    python run_bench.py time compression --preset quick
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import capture
from bench.capture import ORDINARY, Losses
from bench.cost import keep_freed_memory, stepping
from bench.method import Cell, build
from bench.registry import DEFAULT_METHODS, method
from bench.space import Setting
from bench.task import Task
from bench.train import arithmetic, fit


def compare(task: Task, device: torch.device, steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each loop, one number a round, printed as a table with the ratios.

    Nothing is compiled: the loops then differ in nothing but what is compared. On a GPU the harness
    replays its steps, so there the bare loop is timed with replayed steps, too.
    """
    keep_freed_memory()  # as `run` does
    log_every = max(1, min(task.training.steps // 100, 100))  # as in a whole run
    short = dataclasses.replace(task.training, steps=steps, compile=False)
    task = dataclasses.replace(task, training=short)  # type: ignore[type-var]
    (setting,) = task.space.grid(1)
    methods = {each.role: each for each in map(method, DEFAULT_METHODS) if not each.tuned}
    fixed = Cell(task=task, method=methods["reference"], seed=0, trained_for=(setting,))
    conditioned = Cell(task=task, method=methods["under test"], seed=0)
    data_share: list[float] = []

    def harness(cell: Cell) -> float:
        with tempfile.TemporaryDirectory() as folder:
            draw = functools.partial(cell.method.draw, cell)
            ledger = fit(task, build(cell), draw, 0, device, Path(folder), log_every=log_every)
        data_share.append(ledger["seconds"]["data"] / stepping(ledger))
        return seconds_a_step(ledger)

    loops: dict[str, Callable[[], float]] = {
        name: functools.partial(bare, task, fixed, setting, device, name != BARE)
        for name in ((BARE, REPLAYED) if capture.recorder(device) else (BARE,))
    }
    loops |= {
        "harness, fixed": lambda: harness(fixed),
        "harness, conditioned": lambda: harness(conditioned),
    }
    for loop in loops.values():
        loop()  # warm up
    data_share.clear()
    seconds = alternate(loops, rounds)
    show(
        f"{task.name}, batch {task.training.batch}, {device}",
        seconds,
        pairs(seconds),
        {
            "ms per step": lambda s: f"{1000 * s:.2f}",
            "examples/s": lambda s: f"{task.training.batch / s:.0f}",
        },
    )
    Console().print(
        f"waiting for data: {100 * statistics.median(data_share):.2f} % of the time; medians of "
        f"{rounds} rounds of {steps} steps",
        highlight=False,
    )
    return seconds


BARE, REPLAYED = "bare loop", "bare loop, replayed"


def pairs(loops: Mapping[str, Any]) -> dict[str, str]:
    """Which of the loops is compared with which."""
    bare = {"harness, fixed": BARE, "harness, conditioned": "harness, fixed"}
    return bare if REPLAYED not in loops else {REPLAYED: BARE, **bare, "harness, fixed": REPLAYED}


def seconds_a_step(ledger: dict[str, Any]) -> float:
    """Of an undisturbed training, without its first steps where these compile or capture, which a
    long training pays once. ValueError where there are no others."""
    first = ORDINARY + 1 if "compile" in ledger["seconds"] else 0
    if ledger["steps"] <= first:
        raise ValueError(f"{ledger['steps']} steps are too few: take more than {first}")
    return stepping(ledger) / (ledger["steps"] - first)


def alternate(loops: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each loop returns (seconds, whatever of), once a round, the order turning with the
    round, so that whatever else the machine does meets all alike. The caller has warmed up."""
    values: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(loops[name]())
    return values


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Of pairs taken in the same rounds: the median of above/below, the least and the largest."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def show(
    title: str,
    seconds: Mapping[str, Sequence[float]],
    against: Mapping[str, str],
    columns: Mapping[str, Callable[[float], str]],
) -> None:
    """Print a table of `alternate`'s values: `columns` of each loop's median, and the ratio to the
    loop it is compared `against`."""
    table = Table(title=title, title_justify="left")
    for head in ("loop", *columns, "ratio", "spread of the ratio"):
        table.add_column(head, justify="left" if head == "loop" else "right")
    for name, values in seconds.items():
        row = [
            escape(name),
            *(text(statistics.median(values)) for text in columns.values()),
            "",
            "",
        ]
        if name in against:
            middle, low, high = ratios(values, seconds[against[name]])
            row[-2:] = f"{middle:.3f} of {against[name]}", f"{low:.3f} to {high:.3f}"
        table.add_row(*row)
    Console().print(table)


def bare(
    task: Task, cell: Cell, setting: Setting, device: torch.device, replayed: bool = False
) -> float:
    """Seconds per step of the loop one would write by hand for a fixed network, in the same
    arithmetic as the harness; with `replayed`, of a step captured as the harness does it."""
    with arithmetic(task.training.precision):
        return _bare(task, cell, setting, device, replayed)


def _bare(task: Task, cell: Cell, setting: Setting, device: torch.device, replayed: bool) -> float:
    training = task.training
    model = build(cell).model.to(device).train()
    if training.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.AdamW(
        model.parameters(),
        lr=training.lr,
        weight_decay=training.weight_decay,
        fused=True,
        capturable=replayed,
    )
    data = task.data("train").to(device)
    generator = torch.Generator().manual_seed(0)
    weights = dict(zip(task.space.names, setting, strict=True))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16")

    def step(batch: Any, coefficients: torch.Tensor) -> Losses:
        with autocast:
            terms = task.losses(model, batch)
        loss = sum(weights.get(name, 1.0) * term.mean() for name, term in terms.items())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        if training.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss.detach(), {name: term.detach() for name, term in terms.items()}

    recorder = capture.recorder(device) if replayed else None
    state = functools.partial(capture.changing, model, adam)
    once = capture.Captured(step, state, recorder) if recorder else step
    unused, begin = torch.zeros(1, device=device), 0.0
    data.batch(training.batch, generator)  # the first call puts the data in place
    first = ORDINARY + 1 if device.type == "cuda" else 0  # not counted, as the harness's are not
    for number in range(first + training.steps):
        if number == first:
            wait(device)
            begin = time.perf_counter()
        once(data.batch(training.batch, generator), unused)
    wait(device)
    return (time.perf_counter() - begin) / training.steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

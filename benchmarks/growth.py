"""How time and memory grow with the number of cells, settings, records and pictures.

    python -m benchmarks.growth                          every series; half an hour
    python -m benchmarks.growth cells                    planning to report, 100 to 10,000 cells
    python -m benchmarks.growth cells --sizes 100,300    up to a size of your own
    python -m benchmarks.growth rows --out growth.json   and keep the numbers

Nothing is trained: the toy task's cells are "done" by storing an untrained network, its records
are made up, and a worker returns at once. All of it goes through the suite's own functions and
formats. Every step runs in a process of its own, so that its peak memory is its own; the seconds
leave out what imports and preparation took. `TMPDIR=/dev/shm` takes the disk out of it, too.

The exponent is the slope of log(seconds) over log(size) between a tenth of the largest size and
the largest: 1 is proportional, 2 is quadratic. That of memory counts what came on top of the
imports. Processor seconds are steadier than seconds on a machine that does other things as well;
seconds include the wait for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from bench.cost import peak_memory
from bench.run.schema import Event, Job, Note

# Prepares, and returns what is timed; that may return seconds to leave out.
Step = Callable[[Path, int], Callable[[], object]]

LONGEST = 900.0  # seconds, after which a step is given up

PER_GRID = 20  # settings of the stub grid; more cells are more seeds
CHAIN = 10  # cells of one dependency chain
MEASURES = 6
MEBI = 2**20
# What the steps import, so that none is charged for it.
PRELOAD = [
    "bench.report.page",
    "bench.report.figures",
    "bench.run.runner",
    "bench.cli",
    "bench.run.folders",
]


# Cells: a fixed grid of PER_GRID settings and as many seeds as it takes.


def grid(root: Path, count: int) -> Any:
    """A run of about `count` cells of the toy task (a multiple of `PER_GRID`), nothing opened."""
    return run_of(root, ["fixed_grid"], min(count, PER_GRID), max(1, count // PER_GRID))


def run_of(root: Path, methods: list[str], settings: int, seeds: int) -> Any:
    from bench.run.plan import experiment
    from bench.run.runner import Run

    found = experiment("toy", "smoke", methods, settings, range(seeds))
    return Run(root, [found], torch.device("cpu"))


def idle(job: Job, emit: Any, should_stop: Any) -> None:
    """A worker whose training takes no time."""
    emit(Note(job=job.id, note="stub"))


def plan(root: Path, count: int) -> Callable[[], object]:
    return lambda: grid(root, count).train_jobs()


def dry(root: Path, count: int) -> Callable[[], object]:
    """What `run --dry` does, by way of the command line, on a folder that is planned already."""
    from bench.cli import main

    settings, seeds = min(count, PER_GRID), max(1, count // PER_GRID)
    words = ["run", "toy", "--preset", "smoke", "--methods", "fixed_grid", "--dry"]
    words += ["--settings", str(settings), "--out", str(root)]

    def call() -> None:
        code = main([*words, "--seeds", ",".join(map(str, range(seeds)))])
        if code:
            raise RuntimeError(f"it ended with exit status {code}")

    return call


def chained(jobs: list[Any], length: int) -> list[Any]:
    """The jobs in chains of `length`, generation by generation as a planner has them."""
    width = math.ceil(len(jobs) / length)
    return [
        replace(job, after=(jobs[place - width].id,) if place >= width else ())
        for place, job in enumerate(jobs)
    ]


def dispatch(root: Path, count: int, on: str = "here", length: int = 1) -> Callable[[], object]:
    from rich.console import Console

    from bench.run import processes, schedule
    from bench.run.board import Board

    jobs = chained(grid(root, count).train_jobs(), min(length, count))

    def run() -> float:
        begun: list[float] = []
        with Board("training", jobs, Console(file=io.StringIO())) as board:

            def emit(event: Event) -> None:
                begun.append(time.perf_counter())
                board.handle(event)

            start = time.perf_counter()
            if on == "here":
                schedule.here(jobs, idle, emit, lambda: False)
            else:
                processes.pool(jobs, idle, emit, lambda: False, workers=2)
        return begun[0] - start  # the workers' imports

    return run


def live(root: Path, count: int) -> Callable[[], object]:
    """The table of a terminal, told of every event of every job."""
    from rich.console import Console

    from bench.run import schedule
    from bench.run.board import Board

    jobs = grid(root, count).train_jobs()

    def run() -> None:
        with Board("training", jobs, Console(file=io.StringIO(), force_terminal=True)) as board:
            schedule.here(jobs, idle, board.handle, lambda: False)

    return run


def find(root: Path, count: int) -> Callable[[], object]:
    """`cell ID` for every cell, as an array of `count` such commands would."""
    from bench.run.store import Store

    cells = grid(root, count).experiments[0].cells
    return lambda: [Store(root).find(cell.id) for cell in cells]


def networks(root: Path, count: int) -> Callable[[], object]:
    """Store a network, its ledger and a log for every cell."""
    run = grid(root, count)
    return lambda: stored(run)


def stored(run: Any) -> None:
    from bench.method import build
    from bench.run.schema import Ledger

    ledger = Ledger(
        steps=300, examples=9600, flops_per_step=5000, flops=1_500_000, seconds={"train": 1.0},
        parameters=20, conditioner_parameters=0, peak_memory_bytes=MEBI, device="cpu",
        device_name="stub",
    )  # fmt: skip
    made: dict[str, Any] = {}
    for each in run.experiments:
        for cell in each.cells:
            run.store.prepare(cell, each.preset)
            name = cell.method.name
            if name not in made:
                made[name] = build(cell, start=False)
            run.store.finish(cell, each.preset, made[name], ledger)


def measure_plan(root: Path, count: int) -> Callable[[], object]:
    return grid(root, count).record_jobs


def records(root: Path, count: int) -> Callable[[], object]:
    """Store four rows for every measurement."""
    run = grid(root, count)
    jobs = run.record_jobs()
    return lambda: measured(run, jobs, examples=2, measures=2)


def measured(run: Any, jobs: list[Any], examples: int, measures: int) -> None:
    """Made-up records: `examples` x `measures` rows per job, the loss among them."""
    import numpy as np

    from bench.run.records import Record
    from bench.run.work import models
    from bench.space import parse_setting

    generator = np.random.default_rng(0)
    names = ["loss", "nearness", "size", *(f"measure_{i}" for i in range(measures - 3))][:measures]
    hardness = 1 + generator.random(examples)
    cells = {cell.id: cell for each in run.experiments for cell in each.cells}
    for job in jobs:
        head = job.head
        (place,) = parse_setting(head.setting).values() if head.setting else (1.0,)
        values = hardness[:, None] * place / (1 + place)
        values = values * (1 + 0.1 * generator.random((examples, measures)))
        common = head.task, head.preset, head.experiment, head.method, head.seed
        key = *common, ",".join(head.cells), head.setting
        rows = [
            Record(*key, f"{i}.png", name, value)
            for i, row in enumerate(values.tolist())
            for name, value in zip(names, row, strict=True)
        ]
        head.models = models(run.store, [cells[name] for name in head.cells])
        run.store.write_records(run.store.root / job.path, head, rows)


def nothing_to_do(root: Path, count: int) -> Callable[[], object]:
    """A run that finds everything stored."""
    run = grid(root, count)

    def look() -> None:
        assert run.train_jobs() == []
        assert run.record_jobs() == []

    return look


def status(root: Path, count: int) -> Callable[[], object]:
    from bench.run.folders import status

    return lambda: status(root)


def merge(root: Path, count: int) -> Callable[[], object]:
    from bench.run.folders import merge

    return lambda: merge([root], root.parent / f"{root.name}-merged")


def clean(root: Path, count: int) -> Callable[[], object]:
    from bench.run.folders import clean

    for folder in root.glob("runs/*/*/*"):
        (folder / "state.pt").write_bytes(b"0")
    return lambda: clean(root)


def load(root: Path, count: int) -> Callable[[], object]:
    from bench.report.load import load_results

    return lambda: load_results(root).runs


def report(root: Path, count: int) -> Callable[[], object]:
    from bench import report

    return lambda: report.build(root)


# One warm-started chain: every setting starts from its neighbour towards the middle.


def warm(root: Path, count: int) -> Any:
    return run_of(root, ["warm_grid"], count, 1)


def warm_plan(root: Path, count: int) -> Callable[[], object]:
    return lambda: warm(root, count).train_jobs()


def warm_measure_plan(root: Path, count: int) -> Callable[[], object]:
    return lambda: warm(root, count).record_jobs()


# The report of made-up results.


def results(root: Path, settings: int, seeds: int, examples: int) -> Any:
    methods = ["fixed_grid", "yoto", "single_model", "unconditioned", "concatenation"]
    run = run_of(root, methods, settings, seeds)
    stored(run)
    jobs = [job for job in run.record_jobs() if job.head.kind == "method"]
    measured(run, jobs, examples, MEASURES)
    return run


def prepared(root: Path, settings: int, seeds: int, examples: int) -> Callable[[], object]:
    return lambda: results(root, settings, seeds, examples)


def by_rows(root: Path, count: int) -> Callable[[], object]:
    return prepared(root, 5, 3, math.ceil(count / (5 * 5 * 3 * MEASURES)))


def by_settings(root: Path, count: int) -> Callable[[], object]:
    return prepared(root, count, 3, 20)


def by_seeds(root: Path, count: int) -> Callable[[], object]:
    return prepared(root, 5, count, 20)


# Pictures: decoding, and what is held afterwards.


def pictures(root: Path, count: int, side: int = 512) -> Callable[[], object]:
    """Decode `count` pictures and draw a batch."""
    import numpy as np
    from PIL import Image

    from bench.pictures.data import Pictures

    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for i in range(count):
        small = generator.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((side, side))
        picture.save(root / f"{i}.png", compress_level=1)
    return lambda: Pictures.folder(root, 128).batch(16, torch.Generator())


def side(root: Path, count: int) -> Callable[[], object]:
    return pictures(root, 8, count)


def coded(root: Path, count: int) -> Callable[[], object]:
    """Measure one picture of `count` x `count` pixels with the quick codec, LPIPS aside."""
    from bench.registry import preset, task_class

    task = preset(task_class("compression"), "quick").task
    model = task.model().eval()
    task.ready(model)
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, count // 16, count // 16, generator=generator)
    picture = torch.nn.functional.interpolate(small, size=(count, count), mode="bilinear")
    type(task).missing = lambda self: {"lpips": "left out"}

    def run() -> None:
        with torch.no_grad():
            task.measure(model, picture)

    return run


def fidelity(root: Path, count: int) -> Callable[[], object]:
    """LPIPS and the other measures of a decoded picture of `count` x `count` pixels."""
    from bench.registry import preset, task_class

    task = preset(task_class("compression"), "quick").task
    picture = torch.rand(1, 3, count, count, generator=torch.Generator().manual_seed(0))
    task.fidelity(picture[..., :256, :256], picture[..., :256, :256])  # the weights are loaded

    def run() -> None:
        with torch.no_grad():
            task.fidelity((picture + 0.01).clamp(0, 1), picture)

    return run


# name: (what a size counts, sizes, steps in order on one folder)
CELLS = (100, 300, 1000, 3000, 10_000)
SERIES: dict[str, tuple[str, tuple[int, ...], dict[str, Step]]] = {
    "cells": (
        "cells",
        CELLS,
        {
            "plan": plan,
            "dry": dry,
            "dispatch here": dispatch,
            "dispatch here, chains": functools.partial(dispatch, length=CHAIN),
            "dispatch here, live table": live,
            "dispatch pool": functools.partial(dispatch, on="pool"),
            "dispatch pool, chains": functools.partial(dispatch, on="pool", length=CHAIN),
            "find every cell": find,
            "store networks": networks,
            "plan measuring": measure_plan,
            "store records": records,
            "nothing to do": nothing_to_do,
            "status": status,
            "merge": merge,
            "clean": clean,
            "load": load,
            "report": report,
        },
    ),
    "chain": (
        "settings of one warm-started chain",
        (30, 100, 300, 900),
        {"plan": warm_plan, "plan measuring": warm_measure_plan},
    ),
    "rows": (
        "record rows",
        (10_000, 100_000, 1_000_000),
        {"store results": by_rows, "load": load, "report": report},
    ),
    "settings": (
        "settings",
        (5, 10, 20, 40, 80),
        {"store results": by_settings, "load": load, "report": report},
    ),
    "seeds": (
        "seeds",
        (3, 10, 30, 100),
        {"store results": by_seeds, "load": load, "report": report},
    ),
    "pictures": ("pictures of 512 x 512", (30, 100, 300, 1000), {"decode": pictures}),
    "side": (
        "pixels a side",
        (256, 512, 1024, 2048),
        {"decode 8": side, "code and measure": coded, "LPIPS and the like": fidelity},
    ),
}


# Measuring


def peak() -> float:
    """The most memory this process has ever held, in MiB."""
    return peak_memory(torch.device("cpu")) / MEBI


def inside(pipe: Any, series: str, step: str, size: int, root: Path) -> None:
    """One step, in this process; what it took goes down the pipe."""
    before = peak()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run = SERIES[series][2][step](root, size)
            start, worked = time.perf_counter(), time.process_time()
            left_out = run()
            seconds, busy = time.perf_counter() - start, time.process_time() - worked
    except Exception as error:
        pipe.send({"failed": f"{type(error).__name__}: {error}"})
        return
    if isinstance(left_out, float):
        seconds -= left_out
    pipe.send({"seconds": seconds, "processor": busy, "peak": peak(), "added": peak() - before})


def outside(series: str, step: str, size: int, root: Path) -> dict[str, Any]:
    """The same in a process of its own, forked from one that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=inside, args=(theirs, series, step, size, root))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(LONGEST) else {"failed": f"over {LONGEST:g} seconds"}
    except EOFError:
        found = {"failed": "its process died"}
    process.kill()
    process.join()
    return {"series": series, "step": step, "size": size, **found}


def exponent(rows: Sequence[dict[str, Any]], column: str) -> float:
    """The slope of log(column) over log(size), from a tenth of the largest size on."""
    points = [
        (math.log(row["size"]), math.log(row[column]))
        for row in rows
        if row["size"] * 10 >= rows[-1]["size"] and row.get(column, 0) > 0
    ]
    if len(points) < 2:
        return math.nan
    x, y = (sum(column) / len(points) for column in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def measure(name: str, sizes: Sequence[int], steps: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All steps of a series, size by size, each size in a folder that is deleted after it."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for step in steps:
                yield outside(name, step, size, Path(folder) / "results")


def table(name: str, rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    sizes = sorted({row["size"] for row in rows})
    shown = Table(title=f"by {SERIES[name][0]}: seconds / MiB at the peak", title_justify="left")
    shown.add_column("step")
    for size in sizes:
        shown.add_column(f"{size:,}", justify="right")
    for title in ("seconds ~", "processor ~", "memory ~"):
        shown.add_column(title, justify="right")
    for step in dict.fromkeys(row["step"] for row in rows):
        own = {row["size"]: row for row in rows if row["step"] == step}
        cells = [
            "failed" if "failed" in row else f"{row['seconds']:.3g} / {row['peak']:.0f}"
            for row in own.values()
        ]
        good = [row for row in own.values() if "failed" not in row]
        slopes = [
            f"n^{slope:.2f}" if good and math.isfinite(slope := exponent(good, column)) else ""
            for column in ("seconds", "processor", "added")
        ]
        shown.add_row(step, *cells, *slopes)
    Console(width=None if sys.stdout.isatty() else 130).print(shown)
    for row in rows:
        if "failed" in row:
            print(f"{row['step']} at {row['size']:,}: {row['failed']}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("series", nargs="*", metavar="SERIES", help=", ".join(SERIES))
    parser.add_argument("--sizes", metavar="N,N", help="other sizes than the series' own")
    parser.add_argument("--step", action="append", help="only this step, and those before it")
    parser.add_argument("--out", metavar="FILE.json", help="keep the numbers")
    options = parser.parse_args(arguments)
    for name in options.series:
        if name not in SERIES:
            parser.error(f"no series is called {name!r}: there are {', '.join(SERIES)}")
    sizes = sorted({int(part) for part in options.sizes.split(",")}) if options.sizes else None
    every: list[dict[str, Any]] = []
    for name in options.series or SERIES:
        _, usual, steps = SERIES[name]
        rows, wanted = [], list(steps)
        if options.step:
            if unknown := set(options.step) - set(wanted):
                parser.error(f"{name} has no step {min(unknown)!r}: there are {', '.join(wanted)}")
            wanted = wanted[: 1 + max(map(wanted.index, options.step))]
        for row in measure(name, sizes or usual, wanted):
            if not options.step or row["step"] in options.step or "failed" in row:
                rows.append(row)
                said = row.get("failed") or f"{row['seconds']:.3g} s, {row['peak']:.0f} MiB"
                print(f"{name} {row['size']:,} {row['step']}: {said}", file=sys.stderr, flush=True)
        table(name, rows)
        every += rows
        if options.out:
            Path(options.out).write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")
    return 1 if any("failed" in row for row in every) else 0


if __name__ == "__main__":
    raise SystemExit(main())

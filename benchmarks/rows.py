"""What the benchmarks share: their options, and rows of ratios that can be kept in a CSV file."""

from __future__ import annotations

import argparse
import csv
import datetime
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from bench.cli import forgiving_streams
from bench.cost import device_name
from bench.identity import commit
from bench.registry import sized
from bench.run.timing import ratios
from bench.task import Task


@dataclass(frozen=True, kw_only=True)
class Row:
    """`what` measured `against` something: the median, least and largest ratio of `rounds`
    alternations, and the median of what was measured, `value` in `unit`."""

    benchmark: str
    device: str
    what: str
    against: str
    ratio: float
    low: float
    high: float
    rounds: int
    value: float
    unit: str
    commit: str
    date: str


def row(
    benchmark: str,
    device: torch.device,
    what: str,
    against: str,
    pairs: tuple[Sequence[float], Sequence[float]],
    value: float,
    unit: str,
) -> Row:
    """A row from two sides' numbers, one a round; the ratio is the first's over the second's."""
    ratio, low, high = (round(number, 4) for number in ratios(*pairs))
    return Row(
        benchmark=benchmark, device=device_name(device), what=what, against=against, ratio=ratio,
        low=low, high=high, rounds=len(pairs[0]), value=round(value, 4), unit=unit,
        commit=commit(), date=datetime.date.today().isoformat(),
    )  # fmt: skip


def append(path: Path | None, rows: Sequence[Row]) -> None:
    """Add rows to a CSV file, with a header where it is new; None keeps nothing."""
    if path is None:
        return
    new = not path.exists() or not path.stat().st_size
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(each) for each in rows)


def task(text: str, size: str, kind: type[Any] = Task) -> Any:
    """A task of a `kind` at a preset, with the fields changed that its brackets give. Ends the
    program, with the reason, where that cannot be."""
    try:
        chosen, _ = sized(text, size)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if not isinstance(chosen.task, kind):
        raise SystemExit(f"this benchmark is of {kind.name}: {chosen.task.name} is another task")
    return chosen.task


def parser(program: str, line: str | None, steps: int, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that all programs have; `line` is the module's docstring."""
    forgiving_streams()
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{program}",
        description=line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    made.add_argument("--steps", type=int, default=steps, help=f"steps per round ({steps})")
    made.add_argument("--rounds", type=int, default=rounds, help=f"alternations ({rounds})")
    made.add_argument("--out", type=Path, metavar="FILE", help="append the rows to this CSV file")
    return made

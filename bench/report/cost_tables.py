"""The tables of what networks cost, and of what that cost buys; as `bench/report/tables.py`."""

from __future__ import annotations

import functools

import pandas as pd

from bench.report.headings import gap_title
from bench.report.load import Run
from bench.report.sheet import Column, Row, Sheet, sheet_of, value
from bench.report.tables import methods_column, spread_out
from bench.report.text import NOTHING, ratio, short

_COSTS = {
    "networks": ("networks", ""),
    "steps": ("steps", ""),
    "examples": ("examples", ""),
    "flops": ("FLOPs", ""),
    "seconds": ("train time", "s"),
    "processor_seconds": ("processor time", "s"),
    "parameters": ("parameters", ""),
    "bytes": ("stored", "B"),
}


def savings_sheet(run: Run, frame: pd.DataFrame, *, narrow: bool = False) -> Sheet:
    """Amount and ratio per cost, with peak memory and device. `narrow`, for the terminal: the grid
    in absolute numbers and everything else as a ratio to it."""
    # Of the times, the processor's where it is known.
    without = "seconds" if frame["processor_seconds"].notna().any() else "processor_seconds"
    costs = {name: cost for name, cost in _COSTS.items() if name != without}

    def amount_and_ratio(name: str, unit: str, row: Row) -> str:
        amount, share = short(row[name], unit), ratio(row[f"{name}_ratio"])
        if narrow:
            no_ratios = {ratio(row[f"{each}_ratio"]) for each in costs} == {NOTHING}
            return amount if row["method"] == run.reference or no_ratios else share
        return amount if share == NOTHING else f"{amount} ({share})"

    columns = [methods_column(run)]
    for name, (head, unit) in costs.items():
        columns.append(Column(head, functools.partial(amount_and_ratio, name, unit)))
    if not narrow:
        columns.append(Column("net memory", lambda row: short(row["net_memory_bytes"], "B")))
        columns.append(Column("device", lambda row: row["device"] or NOTHING))
    sheet = sheet_of(frame.to_dict("records"), columns)
    return sheet._replace(groups=[len(frame) - 1, 1])  # the last row is of all


def quality_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """The loss gap of networks trained for each share of the steps, of the methods that were."""
    title, digits = gap_title(run)
    columns = [
        methods_column(run),
        Column("share of the steps", lambda row: f"{row['share']:g}"),
        Column("FLOPs", lambda row: short(row["flops"])),
        value(title, "loss_gap", digits, sign=True, ends=("low", "high")),
    ]
    several = frame[frame["method"].duplicated(keep=False)]
    return sheet_of(several.to_dict("records"), columns, left=2)


def break_even_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """From how many settings on a method is cheaper than the grid, with its 95 % interval."""
    units = {"examples": "examples", "flops": "FLOPs", "seconds": "train time"}
    if (frame["unit"].eq("processor_seconds") & frame["settings"].notna()).any():
        units["processor_seconds"] = "processor time"
    columns = [methods_column(run)]
    for unit, head in units.items():
        ends = [(unit, "earliest"), (unit, "latest")]
        columns.append(value(head, (unit, "settings"), 0, ends=ends))
    if frame["settings_tuned"].notna().any():
        columns.append(value("FLOPs, tuning counted", ("flops", "settings_tuned"), 0))
    return sheet_of(spread_out(frame, ["method"], "unit"), columns)

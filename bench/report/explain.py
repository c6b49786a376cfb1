"""What is behind one row of a table: its records, the trainings they come from, commit and command.

python run_bench.py report results --explain compression-quick/yoto/0.018
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench.report.compare import comparisons
from bench.report.costs import GRID, with_ancestors
from bench.report.load import Results, Run
from bench.report.reference import in_percent
from bench.report.text import estimate, number, one_line, short


def explain(results: Results, row: str) -> str:
    """The row named REPORT/METHOD or REPORT/METHOD/SETTING, as plain lines.

    REPORT is a report's folder, METHOD as results call it, SETTING as tables or records write it.
    ValueError names what there is instead.
    """
    run, method, settings = _find(results, row)
    compared = comparisons(run)
    lines: list[str] = []
    used: set[str] = set()
    entries = run.measured[run.measured["method"] == method]
    for setting in settings:
        at = entries[entries["setting"] == setting]
        lines += ["", f"{run.folder}, {method}, {setting}"]
        lines += _numbers(run, method, setting, compared)
        lines += ["  records", *_records(at)]
        behind = [at]
        if method != GRID:
            grid = run.measured[run.measured["method"] == GRID]
            behind.append(grid[(grid["setting"] == setting) & grid["seed"].isin(at["seed"])])
            lines += ["  records it is compared with", *_records(behind[-1])]
        used |= {cell for part in behind for cells in part["cells"] for cell in cells}
    lines += ["", *_trainings(run, used)]
    return "\n".join(lines[1:])


def _find(results: Results, row: str) -> tuple[Run, str, list[str]]:
    folder, _, rest = row.partition("/")
    run = next((run for run in results.runs if run.folder == folder), None)
    if run is None:
        there = ", ".join(run.folder for run in results.runs) or "none"
        raise ValueError(f"there is no report {folder!r}: there are {there}")
    methods = [m for m in run.methods if rest == m or rest.startswith(f"{m}/")]
    if not methods:
        there = ", ".join(run.methods)
        raise ValueError(f"{folder} has no method {rest.split('/')[0]!r}: it has {there}")
    method = max(methods, key=len)
    setting = rest[len(method) + 1 :]
    of_method = set(run.measured.loc[run.measured["method"] == method, "setting"])
    known = {s: (s, label, label.replace(" ", "")) for s, label in run.labels().items()}
    found = [s for s in run.settings if s in of_method and (not setting or setting in known[s])]
    if not found:
        there = "; ".join(f"{label} ({s})" for s, (_, label, _) in known.items() if s in of_method)
        raise ValueError(f"{method} was not measured at {setting!r}: there are {there}")
    return run, method, found


def _numbers(run: Run, method: str, setting: str, compared: pd.DataFrame) -> list[str]:
    """Every measure's mean, its gap and the verdict."""
    records = run.records[(run.records["method"] == method) & (run.records["setting"] == setting)]
    gaps = compared[(compared["method"] == method) & (compared["setting"] == setting)]
    by_measure = gaps.set_index("measure").to_dict("index")
    lines = []
    for name, part in records.groupby("measure", sort=False)["value"]:
        style = run.measures[str(name)]
        line = f"  {name}: {number(part.mean(), style.digits)}, the mean of {len(part)}"
        if gap := by_measure.get(name):
            digits, unit = (1, " %") if in_percent(style) else (style.digits, "")
            text = estimate(gap["gap"], (gap["low"], gap["high"]), digits, sign=True) + unit
            said = ", ".join(filter(None, [gap["verdict"], gap["interval"]]))
            line += f"; to the grid {text} ({gap['pairs']} pairs, {said})"
        lines.append(line)
    return lines


def _records(entries: pd.DataFrame) -> list[str]:
    lines = []
    for entry in entries.sort_values("seed").to_dict("records"):
        where = entry["path"].with_suffix(".csv") if entry["status"] == "done" else entry["path"]
        state = "" if entry["status"] == "done" else f", {entry['status']}: {entry['reason']}"
        lines += [
            f"    {where}",
            f"      seed {entry['seed']}{state}; from {', '.join(entry['cells'])}",
            f"      {_made(entry['provenance'])}",
        ]
    return lines or ["    none"]


def _trainings(run: Run, used: set[str]) -> list[str]:
    """The cells, and those they were continued from."""
    lines = ["trainings"]
    wanted = with_ancestors(run, used)
    for cell in run.cells[run.cells["cell"].isin(wanted)].to_dict("records"):
        told = "; ".join(", ".join(f"{value:g}" for value in each) for each in cell["trained_for"])
        after = f", continued from {cell['after']}" if isinstance(cell["after"], str) else ""
        state = f": {cell['reason']}" if cell["reason"] else ""
        lines += [
            f"    {cell['path']}",
            f"      {cell['cell']}: {cell['method']}, seed {cell['seed']}, trained for "
            f"{told or 'the whole range'}{after}; {cell['status']}{state}",
            f"      {_ledger(cell)}",
            f"      {_made(cell['provenance'])}",
        ]
    here = set(run.cells["cell"])
    return lines + [f"    {cell}: no done.json in this folder" for cell in sorted(wanted - here)]


def _ledger(cell: dict[str, Any]) -> str:
    phases = ", ".join(f"{short(s, 's')} {name}" for name, s in cell["phases"].items())
    parts = [
        f"{short(cell['steps'])} steps, {short(cell['examples'])} examples",
        f"{short(cell['flops'])} FLOPs",
        (phases or "no seconds") + (" on a shared device" if cell["shared_device"] else ""),
        f"{short(cell['parameters'])} + {short(cell['conditioner_parameters'])} parameters",
        f"{short(cell['bytes'], 'B')} stored",
        f"on {one_line(cell['device_name'] or 'an unknown device')}",
    ]
    return "; ".join(parts)


def _made(provenance: dict[str, Any]) -> str:
    """Commit, time, command and packages."""
    packages = (f"{name} {version}" for name, version in provenance.get("packages", {}).items())
    facts: Iterable[str] = (
        f"commit {provenance.get('commit') or 'unknown'}",
        provenance.get("time", ""),
        provenance.get("command", ""),
        ", ".join(packages),
    )
    return "; ".join(one_line(fact) for fact in facts if fact)

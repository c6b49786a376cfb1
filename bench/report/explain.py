"""What is behind one row of a table: its records, the trainings they come from, commit and command.

python run_bench.py report results --explain compression-quick/yoto/0.018
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.report.answers.compare import comparisons
from bench.report.answers.costs import with_ancestors
from bench.report.answers.reference import in_percent
from bench.report.load import Results, Run
from bench.report.text import estimate, number, one_line, short


def explain(results: Results, row: str) -> str:
    """The row named REPORT/METHOD or REPORT/METHOD/SETTING, as plain lines.

    REPORT is a report's folder, METHOD as results call it, SETTING as tables or records write it.
    ValueError names what there is instead.
    """
    run, method, settings = _named(results, row)
    compared = comparisons(run)
    lines: list[str] = []
    cells: set[str] = set()
    for setting in settings:
        at = run.measured[run.measured["setting"] == setting]
        entries = at[at["method"] == method]
        lines += [f"{run.folder}, {method}, {setting}"]
        lines += [*_numbers(run, method, setting, compared), "  records", *_records(entries)]
        if method != run.reference:
            of_grid = (at["method"] == run.reference) & at["seed"].isin(entries["seed"])
            lines += ["  records it is compared with", *_records(at[of_grid])]
            entries = pd.concat([entries, at[of_grid]])
        lines.append("")
        cells |= {cell for used in entries["cells"] for cell in used}
    return "\n".join([*lines, *_trainings(run, cells)])


def _named(results: Results, row: str) -> tuple[Run, str, list[str]]:
    folder, _, rest = row.partition("/")
    run = next((run for run in results.runs if run.folder == folder), None)
    if run is None:
        choices = ", ".join(run.folder for run in results.runs) or "none"
        raise ValueError(f"there is no report {folder!r}: there are {choices}")
    methods = [m for m in run.methods if rest == m or rest.startswith(f"{m}/")]
    if not methods:
        choices = ", ".join(run.methods)
        raise ValueError(f"{folder} has no method {rest.split('/')[0]!r}: it has {choices}")
    method = max(methods, key=len)
    setting = rest[len(method) + 1 :]
    measured = set(run.measured.loc[run.measured["method"] == method, "setting"])
    labels = {s: label for s, label in run.labels().items() if s in measured}
    settings = [
        s
        for s, label in labels.items()
        if not setting or setting in (s, label, label.replace(" ", ""))
    ]
    if not settings:
        choices = "; ".join(f"{label} ({s})" for s, label in labels.items())
        raise ValueError(f"{method} was not measured at {setting!r}: there are {choices}")
    return run, method, settings


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
            more = [f"{gap['pairs']} pairs", gap["verdict"], gap["interval"]]
            line += f"; to the grid {text} ({', '.join(filter(None, more))})"
        lines.append(line)
    return lines


def _records(entries: pd.DataFrame) -> list[str]:
    lines = []
    for entry in entries.sort_values("seed").to_dict("records"):
        done = entry["status"] == "done"
        state = "" if done else f", {entry['status']}: {entry['reason']}"
        lines += [
            f"    {entry['path'].with_suffix('.csv') if done else entry['path']}",
            f"      seed {entry['seed']}{state}; from {', '.join(entry['cells'])}",
            f"      {_made_with(entry['provenance'])}",
        ]
    return lines or ["    none"]


def _trainings(run: Run, cells: set[str]) -> list[str]:
    """The cells, and those they were continued from."""
    lines = ["trainings"]
    wanted = with_ancestors(run, cells)
    for cell in run.cells[run.cells["cell"].isin(wanted)].to_dict("records"):
        settings = "; ".join(", ".join(f"{v:g}" for v in each) for each in cell["trained_for"])
        after = f", continued from {cell['after']}" if isinstance(cell["after"], str) else ""
        state = f": {cell['reason']}" if cell["reason"] else ""
        lines += [
            f"    {cell['path']}",
            f"      {cell['cell']}: {cell['method']}, seed {cell['seed']}, trained for "
            f"{settings or 'the whole range'}{after}; {cell['status']}{state}",
            f"      {_ledger(cell)}",
            f"      {_made_with(cell['provenance'])}",
        ]
    missing = sorted(wanted - set(run.cells["cell"]))
    return lines + [f"    {cell}: no done.json in this folder" for cell in missing]


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


def _made_with(provenance: dict[str, Any]) -> str:
    """Commit, time, command and packages."""
    packages = (f"{name} {version}" for name, version in provenance.get("packages", {}).items())
    facts = [f"commit {provenance.get('commit') or 'unknown'}", provenance.get("time", "")]
    facts += [provenance.get("command", ""), ", ".join(packages)]
    return "; ".join(one_line(fact) for fact in facts if fact)

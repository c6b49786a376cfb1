"""What networks cost, and from how many settings on one of them for all is cheaper.

A method's cost is the sum over the different cells it uses, with those they were continued from;
a cell that two methods use counts in full for each. To it comes what the method does to answer for
a setting, a search say, where that was counted (`answering_flops`; older records lack it).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from bench.report import stats
from bench.report.load import Run
from bench.report.text import one_line

GRID = "fixed_grid"
ALL = "all, each network once"
COSTS = (
    *("networks", "steps", "examples", "flops", "seconds", "processor_seconds"),
    *("parameters", "bytes"),
)
TIMES = ("seconds", "processor_seconds")  # compared on one device only
UNKNOWN = np.array([math.nan])
UNITS = ("examples", "flops", *TIMES)  # in which a break-even is given


def savings(run: Run) -> pd.DataFrame:
    """One row per method, and one for all: what its networks cost, and the ratio to the grid's.

    Sums over the different cells a method uses, averaged over seeds. A cell that two methods use
    counts in full for each, and once in the last row. Training costs include the cells that a
    network was continued from; parameters (conditioner included) and bytes are those of the
    networks that must be kept to serve every setting. `seconds` are training seconds; they are
    empty where a cell shared its device, and their ratio where the devices differ;
    `processor_seconds`, of all threads, are empty where a GPU did the work. `flops` include those
    of answering for every setting, which are also in `answering_flops` alone. peak_memory_bytes is
    the largest of a training's process, net_memory_bytes that without what was there before;
    tuning_* what finding the method's levers took, NaN where that is not known.
    """
    rows = [
        {"method": method, **_cost(run, run.measured[run.measured["method"] == method])}
        for method in run.methods
    ]
    tuned = dict.fromkeys(("tuning_variants", "tuning_flops"), math.nan)  # each method's own
    rows.append({"method": ALL, **_cost(run, run.measured), **tuned})
    frame = pd.DataFrame(rows)
    grid = frame[frame["method"] == GRID]
    for name in COSTS:
        base = float(grid[name].iloc[0]) if len(grid) else math.nan
        ratios = frame[name] / base if base > 0 else frame[name] * math.nan
        if name in TIMES and len(grid):
            device = grid["device"].iloc[0]
            one = (frame["device"] == device) & (";" not in device)
            ratios = ratios.where(one)
        frame[f"{name}_ratio"] = ratios
    kept = ["peak_memory_bytes", "net_memory_bytes", "answering_flops", "tuning_variants"]
    kept += ["tuning_flops", "device", "settings", "seeds", "missing_cells"]
    return frame[["method", *COSTS, *(f"{name}_ratio" for name in COSTS), *kept]]


def costs_by_seed(run: Run, entries: pd.DataFrame, *, answering: bool = True) -> pd.DataFrame:
    """COSTS of the cells that `entries` use, one row per seed; NaN where a cell or its ledger is
    not there, and for seconds where a cell shared its device. With `answering`, flops include what
    answering for these entries took."""
    cells = _timed(run).set_index("cell", drop=False)
    seeds = {}
    for seed, of_seed in entries.groupby("seed"):
        kept = {cell for used in of_seed["cells"] for cell in used}
        trained = with_ancestors(run, kept)
        row = dict.fromkeys(COSTS, math.nan) | {"networks": float(len(trained))}
        if trained <= set(cells.index):
            training, stored = cells.loc[sorted(trained)], cells.loc[sorted(kept)]
            for name in ("steps", *UNITS):
                row[name] = training[name].astype(float).sum(skipna=False)
            if answering:
                row["flops"] += of_seed["answering_flops"].astype(float).sum()
            parameters = stored[["parameters", "conditioner_parameters"]].astype(float)
            row["parameters"] = parameters["parameters"].sum(skipna=False)
            row["parameters"] += parameters["conditioner_parameters"].fillna(0).sum()
            row["bytes"] = stored["bytes"].astype(float).sum(skipna=False)
        seeds[seed] = row
    return pd.DataFrame.from_dict(seeds, orient="index", columns=list(COSTS))


def _timed(run: Run) -> pd.DataFrame:
    """The cells, their times empty where they say nothing of the work: seconds where others used
    the device meanwhile, the processor's where a GPU did it."""
    cells = run.cells.astype(dict.fromkeys(TIMES, float))
    cells["seconds"] = cells["seconds"].mask(cells["shared_device"].astype(bool))
    cells["processor_seconds"] = cells["processor_seconds"].where(cells["device"] == "cpu")
    return cells


def tuning(entries: pd.DataFrame) -> dict[str, float]:
    """What finding a method's levers took: variants, examples and flops; 0 for a method that was
    not tuned, NaN where the records do not say."""
    told = [content for content in entries["tuning"] if isinstance(content, dict)]
    if not told:
        return dict.fromkeys(("variants", "examples", "flops"), math.nan)
    return {name: float(told[-1].get(name, 0)) for name in ("variants", "examples", "flops")}


def tuned_grid(run: Run) -> bool:
    """Whether a grid with levers of its own is among the methods."""
    return any(method.startswith(GRID) and method != GRID for method in run.methods)


def with_ancestors(run: Run, kept: set[str]) -> set[str]:
    """The ids of cells and of all those they were continued from, in this folder or not."""
    before = dict(zip(run.cells["cell"], run.cells["after"], strict=True))
    trained = set(kept)
    for cell in kept:
        earlier = before.get(cell)
        while isinstance(earlier, str):
            trained.add(earlier)
            earlier = before.get(earlier)
    return trained


def _cost(run: Run, entries: pd.DataFrame) -> dict[str, Any]:
    """Costs of the cells that `entries` use, as means over their seeds."""
    trained = with_ancestors(run, {cell for used in entries["cells"] for cell in used})
    known = run.cells[run.cells["cell"].isin(trained)]
    names = sorted({one_line(name) for name in known["device_name"].dropna()})
    searched = entries.assign(answering_flops=entries["answering_flops"].astype(float))
    answering = searched.groupby("seed")["answering_flops"].sum(min_count=1)
    found = tuning(entries)
    return {
        **costs_by_seed(run, entries).mean(skipna=False).to_dict(),
        "peak_memory_bytes": known["peak_memory_bytes"].astype(float).max(),
        "net_memory_bytes": known["net_memory_bytes"].astype(float).max(),
        "answering_flops": answering.mean(),
        "tuning_variants": found["variants"],
        "tuning_flops": found["flops"],
        "device": "; ".join(names),
        "settings": entries["setting"].nunique(),
        "seeds": entries["seed"].nunique(),
        "missing_cells": len(trained) - len(known),
    }


def break_evens(run: Run) -> pd.DataFrame:
    """One row per method and unit of cost, the grid aside: where it becomes cheaper than the grid.

    crossing, low, high: the number of settings, not rounded, at which both cost the same, with its
    95 % interval; settings, earliest, latest: the first whole number beyond each, NaN for never.
    What a method does to answer for a setting counts for each. A method with networks of its own
    for every setting has `settings` alone, counted over its networks, the dearest first; beyond the
    settings of this run nothing is known of it. `settings_tuned` is `settings` where finding the
    method's levers is paid, too: NaN for never, and where the records do not say what that took, as
    it never does of times.
    """
    grid = run.measured[run.measured["method"] == GRID]
    fixed = {unit: _cell_costs(run, grid, unit) if len(grid) else UNKNOWN for unit in UNITS}
    rows: list[dict[str, Any]] = []
    for method in (m for m in run.methods if m != GRID):
        entries = run.measured[run.measured["method"] == method]
        one_device = len(_devices(run, entries) | _devices(run, grid)) == 1
        per_setting, whole = _per_setting(entries), costs_by_seed(run, entries, answering=False)
        answer, levers = entries["answering_flops"].astype(float).fillna(0).mean(), tuning(entries)
        for unit in UNITS:
            row: dict[str, Any] = {"method": method, "unit": unit}
            per_fixed = fixed[unit] if one_device or unit not in TIMES else UNKNOWN
            once = levers.get(unit, 0.0 if levers["variants"] == 0 else math.nan)
            if unit == "flops":
                per_fixed = per_fixed - answer
            if per_setting:
                own = _cell_costs(run, entries, unit)
                row["settings"] = _first_cheaper(own, per_fixed)
                row["settings_tuned"] = _first_cheaper(own, per_fixed, once)
            elif not (per_fixed <= 0).any():
                found = stats.break_even(whole[unit].to_numpy(), per_fixed)
                paid = stats.break_even(whole[unit].to_numpy() + once, per_fixed)
                row |= {
                    "crossing": found.crossing.estimate,
                    "low": found.crossing.low,
                    "high": found.crossing.high,
                    "settings": found.settings,
                    "earliest": found.earliest,
                    "latest": found.latest,
                    "settings_tuned": paid.settings,
                }
            rows.append(row)
    columns = ["method", "unit", "crossing", "low", "high", "settings", "earliest", "latest"]
    columns.append("settings_tuned")
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(columns[2:], float))


def _devices(run: Run, entries: pd.DataFrame) -> set[str]:
    used = with_ancestors(run, {cell for cells in entries["cells"] for cell in cells})
    return set(run.cells.loc[run.cells["cell"].isin(used), "device_name"].dropna())


def _per_setting(entries: pd.DataFrame) -> bool:
    """Whether every setting has networks of its own, so that more settings cost more."""
    settings = entries.groupby("setting")["cells"].agg(lambda used: frozenset().union(*used))
    apart = sum(map(len, settings)) == len(frozenset().union(*settings))
    return apart and len(settings) > 1


def _cell_costs(run: Run, entries: pd.DataFrame, unit: str) -> np.ndarray:
    """(seeds, networks): the cost of each network alone, the dearest first; NaN where one seed
    has fewer than another or the cost is not known."""
    costs = _timed(run).set_index("cell")[unit].astype(float)
    seeds = [
        costs.reindex(sorted({cell for cells in used for cell in cells})).to_numpy()
        for _, used in entries.groupby("seed")["cells"]
    ]
    table = pd.DataFrame([-np.sort(-seed) for seed in seeds])
    return table.to_numpy(float)


def _first_cheaper(own: np.ndarray, fixed: np.ndarray, once: float = 0.0) -> float:
    """The first number of settings for which the sum of so many own networks, and what was spent
    once, costs less."""
    sums = np.cumsum(own.mean(0)) + once
    cheaper = sums < np.mean(fixed) * np.arange(1, len(sums) + 1) * (1 - 1e-9)
    return float(np.argmax(cheaper) + 1) if cheaper.any() else math.nan

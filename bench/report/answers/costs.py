"""What networks cost, and from how many settings on one of them for all is cheaper.

    savings(run)            one row per method: networks, FLOPs, seconds, bytes, ratios to the grid
    break_evens(run)        one row per method and unit: from how many settings on it pays

A method's cost is the sum over the different cells it uses, with those they were continued from;
a cell that two methods use counts in full for each. To it comes what the method does to answer for
a setting, a search say, where that was counted (`answering_flops`; older records lack it).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bench.report.answers.stats import Array, Interval, student_half_width
from bench.report.load import Run
from bench.report.once import once
from bench.report.text import NOTHING, one_line, ratio

ALL = "all, each network once"
TIMES = ("seconds", "processor_seconds")  # compared on one device only
UNITS = ("examples", "flops", *TIMES)  # in which a break-even is given
COSTS = ("networks", "steps", *UNITS, "parameters", "bytes")
UNKNOWN = np.array([math.nan])
LEVERS = ("variants", "examples", "flops")


@once
def savings(run: Run) -> pd.DataFrame:
    """One row per method, and one for all: what its networks cost, and the ratio to the grid's.

    Averaged over seeds. Parameters (conditioner included) and bytes are those of the networks that
    must be kept to serve every setting. `seconds` are training seconds; they are empty where a cell
    shared its device, and their ratio where the devices differ; `processor_seconds`, of all
    threads, are empty where a GPU did the work. answering_flops are also in `flops`.
    peak_memory_bytes is the largest of a training's process, net_memory_bytes that without what was
    there before; tuning_* what finding the method's levers took, NaN where that is not known.
    """
    rows = [{"method": method, **_cost(run, _entries(run, method))} for method in run.methods]
    tuned = {"tuning_variants": math.nan, "tuning_flops": math.nan}  # of each method alone
    rows.append({"method": ALL, **_cost(run, run.measured), **tuned})
    frame = pd.DataFrame(rows)
    grid = frame[frame["method"] == run.reference]
    device = grid["device"].max()
    one_device = (frame["device"] == device) & (";" not in str(device))
    for name in COSTS:
        ratios = frame[name] / grid[name].where(grid[name] > 0).max()
        frame[f"{name}_ratio"] = ratios.where(one_device) if name in TIMES else ratios
    kept = ["peak_memory_bytes", "net_memory_bytes", "answering_flops", "tuning_variants"]
    kept += ["tuning_flops", "device", "settings", "seeds", "missing_cells"]
    return frame[["method", *COSTS, *(f"{name}_ratio" for name in COSTS), *kept]]


def networks(run: Run) -> pd.DataFrame:
    """The ledger itself, one row per training; `<phase>_seconds` of every phase."""
    cells = run.cells.drop(columns=["path", "provenance", "phases", "task", "preset"])
    phases = dict.fromkeys(name for each in run.cells["phases"] for name in each)
    seconds = {
        f"{one_line(name)}_seconds": [each.get(name) for each in run.cells["phases"]]
        for name in phases
    }
    return cells.assign(**seconds)


def _entries(run: Run, method: str | None) -> pd.DataFrame:
    return run.measured[run.measured["method"] == method]


def _cells(entries: pd.DataFrame) -> set[str]:
    return {cell for used in entries["cells"] for cell in used}


def _cost(run: Run, entries: pd.DataFrame) -> dict[str, Any]:
    """Costs of the cells that `entries` use, as means over their seeds."""
    trained = with_ancestors(run, _cells(entries))
    known = run.cells[run.cells["cell"].isin(trained)]
    answering = entries["answering_flops"].astype(float).groupby(entries["seed"]).sum(min_count=1)
    levers = tuning(entries)
    return {
        **costs_by_seed(run, entries).mean(skipna=False).to_dict(),
        "peak_memory_bytes": known["peak_memory_bytes"].astype(float).max(),
        "net_memory_bytes": known["net_memory_bytes"].astype(float).max(),
        "answering_flops": answering.mean(),
        "tuning_variants": levers["variants"],
        "tuning_flops": levers["flops"],
        "device": "; ".join(sorted({one_line(name) for name in known["device_name"].dropna()})),
        "settings": entries["setting"].nunique(),
        "seeds": entries["seed"].nunique(),
        "missing_cells": len(trained) - len(known),
    }


def costs_by_seed(run: Run, entries: pd.DataFrame, *, answering: bool = True) -> pd.DataFrame:
    """COSTS of the cells that `entries` use, one row per seed; NaN where a cell or its ledger is
    not there, and for seconds where a cell shared its device. With `answering`, flops include what
    answering for these entries took."""
    cells = _timed(run)
    seeds = {}
    for seed, of_seed in entries.groupby("seed"):
        kept = _cells(of_seed)
        trained = with_ancestors(run, kept)
        row = dict.fromkeys(COSTS, math.nan) | {"networks": float(len(trained))}
        if trained <= set(cells.index):
            training, stored = cells.loc[sorted(trained)], cells.loc[sorted(kept)]
            row |= {name: training[name].sum(skipna=False) for name in ("steps", *UNITS)}
            if answering:
                row["flops"] += of_seed["answering_flops"].astype(float).sum()
            row["parameters"] = stored["parameters"].sum(skipna=False)
            row["parameters"] += stored["conditioner_parameters"].fillna(0).sum()
            row["bytes"] = stored["bytes"].sum(skipna=False)
        seeds[seed] = row
    return pd.DataFrame.from_dict(seeds, orient="index", columns=list(COSTS))


@once
def _timed(run: Run) -> pd.DataFrame:
    """The cells by id, their times empty where they say nothing of the work: seconds where others
    used the device meanwhile, the processor's where a GPU did it."""
    numbers = [*COSTS[1:], "conditioner_parameters"]
    cells = run.cells.set_index("cell").astype(dict.fromkeys(numbers, float))
    cells["seconds"] = cells["seconds"].mask(cells["shared_device"].astype(bool))
    cells["processor_seconds"] = cells["processor_seconds"].where(cells["device"] == "cpu")
    return cells


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


@once
def step_ratios(run: Run) -> dict[str, float]:
    """By method, the FLOPs of one training step of its networks over those of the grid's: what
    conditioning costs. NaN where they are not known."""
    return _to_the_grid(run, run.cells.set_index("cell")["flops_per_step"].astype(float))


@once
def step_times(run: Run) -> dict[str, float]:
    """The same of processor seconds, which depend on the machine and on what else it did: NaN where
    a GPU did the work or the devices differ."""
    cells, grid = _timed(run), _devices(run, _entries(run, run.reference))
    ratios = _to_the_grid(
        run, cells["processor_seconds"] / cells["steps"].where(cells["steps"] > 0)
    )
    same = {m: len(grid | _devices(run, _entries(run, m))) == 1 for m in ratios}
    return {method: ratio if same[method] else math.nan for method, ratio in ratios.items()}


def _to_the_grid(run: Run, of_cell: pd.Series[float]) -> dict[str, float]:
    """By method, the mean over its networks over that of the grid's."""

    def mean(method: str | None) -> float:
        return float(of_cell.reindex(sorted(_cells(_entries(run, method)))).mean(skipna=False))

    grid = mean(run.reference)
    return {method: mean(method) / grid if grid > 0 else math.nan for method in run.methods}


@once
def kept_ratios(run: Run) -> dict[str, float]:
    """By method, the parameters that are kept to answer for every setting over those of one network
    of the grid; NaN where every setting has a network of its own, and where they are not known."""
    every = {method: _entries(run, method) for method in run.methods}
    kept = {method: costs_by_seed(run, part)["parameters"].mean() for method, part in every.items()}
    networks = run.measured.loc[run.measured["method"] == run.reference, "setting"].nunique()
    one = kept.get(run.reference or "", math.nan) / max(networks, 1)
    known = {m: not _per_setting(part) and one > 0 for m, part in every.items()}
    return {method: kept[method] / one if known[method] else math.nan for method in every}


def step_words(run: Run, method: str) -> str:
    """`costs 1.73× the fixed network's`; "" where it costs the same or is not known."""
    text = ratio(step_ratios(run).get(method))
    return "" if text in (NOTHING, ratio(1.0)) else f"costs {text} the fixed network's"


def tuning(entries: pd.DataFrame) -> dict[str, float]:
    """What finding a method's levers took: LEVERS; 0 for a method that was not tuned, NaN where
    the records do not say."""
    known = [content for content in entries["tuning"] if isinstance(content, dict)]
    if not known:
        return dict.fromkeys(LEVERS, math.nan)
    return {name: float(known[-1].get(name, 0)) for name in LEVERS}


def tuned_alone(run: Run) -> list[str]:
    """The methods whose levers were searched for where no grid's were: like is not compared with
    like."""
    tuned = [method for method in run.methods if tuning(_entries(run, method))["variants"] > 0]
    fair = run.tuned_reference is not None or run.reference in tuned
    return [] if fair else tuned


BREAK_EVENS = ["crossing", "low", "high", "settings", "earliest", "latest", "settings_tuned"]


@once
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
    grid = _entries(run, run.reference)
    rows = [
        {"method": method, "unit": unit, **_break_even(run, _entries(run, method), grid, unit)}
        for method in run.methods
        if method != run.reference
        for unit in UNITS
    ]
    frame = pd.DataFrame(rows, columns=["method", "unit", *BREAK_EVENS])
    return frame.astype(dict.fromkeys(BREAK_EVENS, float))


def _break_even(run: Run, entries: pd.DataFrame, grid: pd.DataFrame, unit: str) -> dict[str, float]:
    """The columns of a method in one unit."""
    one_device = len(_devices(run, entries) | _devices(run, grid)) == 1
    known = len(grid) and (one_device or unit not in TIMES)
    per_fixed = cell_costs(run, grid, unit) if known else UNKNOWN
    if unit == "flops":
        per_fixed = per_fixed - entries["answering_flops"].astype(float).fillna(0).mean()
    levers = tuning(entries)
    search = levers.get(unit, 0.0 if levers["variants"] == 0 else math.nan)
    if _per_setting(entries):
        networks = cell_costs(run, entries, unit)
        return {
            "settings": _first_cheaper(networks, per_fixed),
            "settings_tuned": _first_cheaper(networks, per_fixed, search),
        }
    if (per_fixed <= 0).any():
        return {}
    conditioned = costs_by_seed(run, entries, answering=False)[unit].to_numpy()
    crossing = break_even(conditioned, per_fixed)
    return {
        **crossing.columns("crossing"),
        "settings": first_beyond(crossing.estimate),
        "earliest": first_beyond(crossing.low),
        "latest": first_beyond(crossing.high),
        "settings_tuned": first_beyond(break_even(conditioned + search, per_fixed).estimate),
    }


def _devices(run: Run, entries: pd.DataFrame) -> set[str]:
    used = with_ancestors(run, _cells(entries))
    return set(run.cells.loc[run.cells["cell"].isin(used), "device_name"].dropna())


def _per_setting(entries: pd.DataFrame) -> bool:
    """Whether every setting has networks of its own, so that more settings cost more."""
    settings = [_cells(of_setting) for _, of_setting in entries.groupby("setting")]
    return len(settings) > 1 and sum(map(len, settings)) == len(_cells(entries))


def cell_costs(run: Run, entries: pd.DataFrame, unit: str) -> Array:
    """(seeds, networks): the cost of each network alone, the dearest first; NaN where one seed
    has fewer than another or the cost is not known."""
    costs = _timed(run)[unit]
    seeds = [costs.reindex(list(_cells(of_seed))) for _, of_seed in entries.groupby("seed")]
    return pd.DataFrame([-np.sort(-seed.to_numpy()) for seed in seeds]).to_numpy(float)


def _first_cheaper(networks: Array, fixed: Array, once: float = 0.0) -> float:
    """The first number of settings for which the sum of so many networks, and what was spent once,
    costs less."""
    sums = np.cumsum(networks.mean(0)) + once
    cheaper = sums < np.mean(fixed) * np.arange(1, len(sums) + 1) * (1 - 1e-9)
    return float(np.argmax(cheaper) + 1) if cheaper.any() else math.nan


def break_even(conditioned: ArrayLike, per_fixed: ArrayLike) -> Interval:
    """The number of settings, not rounded, at which conditioned = settings * per_fixed, in any one
    unit of cost; its `examples` counts the fixed networks.

    conditioned: one cost per seed, of all that serves every setting. per_fixed: one per fixed
    network, any number of them. The interval is Student's for independent networks, to first order
    in their spread. Equal costs (examples, FLOPs) have one of width zero; one network on a side has
    none. NaN costs give NaN: an unknown cost is not left out of a sum. ValueError for no costs and
    for negative ones.
    """
    sides = [np.asarray(costs, float).ravel() for costs in (conditioned, per_fixed)]
    for costs in sides:
        if not len(costs) or (costs < 0).any():
            raise ValueError(f"costs are one number or more, none negative, got {costs.tolist()}")
    whole, fixed = (costs.mean() for costs in sides)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = float(1 + (whole - fixed) / fixed)
    half, method = math.nan, "Student's t"
    if not math.isfinite(crossing):
        method = "no interval: a cost is zero or unknown"
    elif min(map(len, sides)) < 2:
        method = "no interval: one network on a side"
    else:
        half = student_half_width(
            [
                (float((slope / fixed) ** 2 * costs.var(ddof=1)) / len(costs), len(costs) - 1)
                for slope, costs in zip((1, crossing), sides, strict=True)
            ]
        )
    seeds, networks = map(len, sides)
    return Interval(
        estimate=crossing, low=crossing - half, high=crossing + half, method=method, seeds=seeds,
        examples=networks,
    )  # fmt: skip


def first_beyond(crossing: float) -> float:
    """The first whole number of settings beyond a crossing, one at least; NaN for never."""
    if math.isnan(crossing) or crossing == math.inf:
        return math.nan
    return math.floor(max(crossing + 1e-9, 0)) + 1.0  # 1.9999999999 is 2 after summing seconds

"""The three tables of a run: what each method reached, how far from the grid, at what cost.

Each is a data frame with raw numbers (the CSV) and a `Sheet` of formatted text, from which the
Markdown and the terminal's table are made.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from bench.records import WHOLE
from bench.report.load import Run
from bench.report.text import (
    NOTHING,
    markdown_table,
    measure_label,
    method_label,
    number,
    one_line,
    ratio,
    short,
)

GRID = "fixed_grid"
LOSS = "loss"
ALL = "all, each network once"
COSTS = ("networks", "steps", "examples", "flops", "seconds", "parameters", "bytes")


class Sheet(NamedTuple):
    """A table as it is read: text cells; `groups` holds the number of rows per method."""

    head: list[str]
    rows: list[list[str]]
    left: int
    groups: list[int]

    def markdown(self) -> str:
        return markdown_table(self.head, self.rows, self.left)


LOST = ("diverged", "failed")

# What each method reached -----------------------------------------------------------------------


def summary(run: Run) -> pd.DataFrame:
    """One row per method and setting: the mean of every measure over pictures and seeds.

    `status` is "done", "diverged" or "failed" (no seed was left, the measures are empty), or
    "some lost"; `lost_seeds` counts them.
    """
    means = run.records.groupby(["method", "setting", "measure"])["value"].mean()
    single = run.records[run.records["example"] != WHOLE]
    pictures = single.groupby(["method", "setting"])["example"].nunique()
    rows: list[dict[str, Any]] = []
    for method, setting, entries in _entries(run):
        lost = entries.loc[entries["status"] != "done", "status"]
        some = len(lost) < len(entries)
        rows.append(
            {
                "method": method,
                "setting": setting,
                "status": ("some lost" if some else lost.iloc[0]) if len(lost) else "done",
                "seeds": len(entries) - len(lost),
                "lost_seeds": len(lost),
                "pictures": int(pictures.get((method, setting), 0)),
                "outside_range": any(len(sentences) for sentences in entries["outside"]),
                **{name: means.get((method, setting, name), math.nan) for name in run.measures},
            }
        )
    return pd.DataFrame(rows)


def summary_sheet(
    run: Run, frame: pd.DataFrame, measures: Sequence[str], gaps: pd.DataFrame | None = None
) -> Sheet:
    """`measures` per method and setting; with `gaps`, the relative gap of the loss behind it."""
    labels = setting_labels(run)
    head = ["method", setting_head(run), *(measure_label(run.measures[m]) for m in measures)]
    relative = {}
    if gaps is not None:
        title, column, _, digits = loss_gap(run)
        head.append(title)
        of_loss = gaps[gaps["measure"] == LOSS]
        relative = of_loss.set_index(["method", "setting"])[column].to_dict()
    rows, groups = [], []
    for method in run.methods:
        of_method = frame[frame["method"] == method]
        groups.append(len(of_method))
        for place, row in enumerate(of_method.to_dict("records")):
            gone = row["status"] in LOST
            mark = " ‡" if row["status"] == "some lost" else ""
            cells = [method_label(method) if not place else "", labels[row["setting"]] + mark]
            cells += [
                row["status"] if gone else number(row[m], run.measures[m].digits) for m in measures
            ]
            if gaps is not None:
                gap = number(relative.get((method, row["setting"])), digits, sign=True)
                cells.append("ref." if method == GRID else gap)
            rows.append(cells)
    return Sheet(head, rows, 2, groups)


# How far from the grid --------------------------------------------------------------------------


def gaps(run: Run) -> pd.DataFrame:
    """One row per method, setting and measure: method minus grid, paired by picture and seed.

    `std` is over pictures, whose seeds are averaged first, and `se` is std / sqrt(pictures).
    `relative_percent` (loss only) is the mean gap per cent of the grid's mean loss over the same
    pairs. Without a partner `pairs` is 0 and the numbers are empty.
    """
    values = run.records[["method", "seed", "setting", "example", "measure", "value"]]
    pair = ["seed", "setting", "example", "measure"]
    grid = values[values["method"] == GRID].drop(columns="method")
    others = values[values["method"] != GRID]
    pairs = others.merge(grid.rename(columns={"value": "grid"}), on=pair, how="inner")
    pairs["gap"] = pairs["value"] - pairs["grid"]

    key = ["method", "setting", "measure"]
    by_picture = pairs.groupby([*key, "example"])["gap"].mean().groupby(level=key)
    found = pd.DataFrame(
        {
            "grid": pairs.groupby(key)["grid"].mean(),
            "gap": pairs.groupby(key)["gap"].mean(),
            "std": by_picture.std(),
            "pictures": by_picture.size(),
            "seeds": pairs.groupby(key)["seed"].nunique(),
            "pairs": pairs.groupby(key).size(),
        }
    )
    wanted = [
        (method, setting, measure)
        for method, setting, _ in _entries(run)
        if method != GRID
        for measure in run.measures
    ]
    frame = found.reindex(pd.MultiIndex.from_tuples(wanted, names=key)) if wanted else found
    counts = others.groupby(key).size().reindex(frame.index).fillna(0)
    frame[["pictures", "seeds", "pairs"]] = frame[["pictures", "seeds", "pairs"]].fillna(0)
    frame["unpaired"] = counts - frame["pairs"]
    frame["se"] = frame["std"] / frame["pictures"] ** 0.5
    frame = frame.reset_index()
    per_cent = (frame["measure"] == LOSS) & (frame["grid"] != 0) & run.measures[LOSS].relative
    scale = 100 / frame["grid"].abs().where(per_cent)
    frame["relative_percent"] = frame["gap"] * scale
    frame["relative_se_percent"] = frame["se"] * scale
    columns = [*key, "gap", "std", "se", "grid", "relative_percent", "relative_se_percent"]
    counted = ["pairs", "unpaired", "pictures", "seeds"]
    return frame[columns + counted].astype(dict.fromkeys(counted, int))


def gaps_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Δ of every measure as mean ± standard deviation over pictures."""
    labels = setting_labels(run)
    relative = run.measures[LOSS].relative
    head = ["method", setting_head(run), *(["Δ loss (%)"] if relative else [])]
    head += ["Δ " + measure_label(style) for style in run.measures.values()] + ["pairs"]
    rows, groups = [], []
    for method in (m for m in run.methods if m != GRID):
        of_method = frame[frame["method"] == method]
        settings = [s for s in run.settings if (of_method["setting"] == s).any()]
        groups.append(len(settings))
        for place, setting in enumerate(settings):
            at = of_method[of_method["setting"] == setting].set_index("measure")
            cells = [method_label(method) if not place else "", labels[setting]]
            if relative:
                cells.append(number(at["relative_percent"].get(LOSS), 1, sign=True))
            for m, style in run.measures.items():
                mean = number(at.at[m, "gap"], style.digits, sign=True)
                spread = number(at.at[m, "std"], style.digits)
                cells.append(mean if spread == NOTHING else f"{mean} ± {spread}")
            rows.append([*cells, str(at["pairs"].max())])
    return Sheet(head, rows, 2, groups)


# At what cost -----------------------------------------------------------------------------------


def savings(run: Run) -> pd.DataFrame:
    """One row per method, and one for all: what its networks cost, and the ratio to the grid's.

    Sums over the different cells a method uses, averaged over seeds. A cell that two methods use
    counts in full for each, and once in the last row. Training costs include the cells that a
    network was continued from; parameters (conditioner included) and bytes are those of the
    networks that must be kept to serve every setting. `seconds` are training seconds; they are
    empty where a cell shared its device, and their ratio where the devices differ.
    """
    rows = [
        {"method": method, **_cost(run, run.measured[run.measured["method"] == method])}
        for method in run.methods
    ]
    rows.append({"method": ALL, **_cost(run, run.measured)})
    frame = pd.DataFrame(rows)
    grid = frame[frame["method"] == GRID]
    for name in COSTS:
        base = float(grid[name].iloc[0]) if len(grid) else math.nan
        ratios = frame[name] / base if base > 0 else frame[name] * math.nan
        if name == "seconds" and len(grid):
            device = grid["device"].iloc[0]
            one = (frame["device"] == device) & (";" not in device)
            ratios = ratios.where(one)
        frame[f"{name}_ratio"] = ratios
    kept = ["peak_memory_bytes", "device", "settings", "seeds", "missing_cells"]
    return frame[["method", *COSTS, *(f"{name}_ratio" for name in COSTS), *kept]]


def _cost(run: Run, entries: pd.DataFrame) -> dict[str, Any]:
    """Costs of the cells that `entries` use, as means over their seeds."""
    cells = run.cells.set_index("cell", drop=False)
    before = cells["after"].to_dict()
    seeds, missing, every = [], set(), set()
    for _, of_seed in entries.groupby("seed"):
        kept = {cell for used in of_seed["cells"] for cell in used}
        trained = set(kept)
        for cell in kept:
            while isinstance(cell := before.get(cell), str):
                trained.add(cell)
        missing |= {cell for cell in trained if cell not in before}
        every |= trained - missing
        if trained - set(before):
            seeds.append(dict.fromkeys(COSTS, math.nan) | {"networks": float(len(trained))})
            continue
        training = cells.loc[sorted(trained)]
        stored = cells.loc[sorted(kept)]
        parameters = stored[["parameters", "conditioner_parameters"]].astype(float)
        seconds = training["seconds"].astype(float)
        seeds.append(
            {
                "networks": float(len(trained)),
                **{
                    name: training[name].astype(float).sum(skipna=False)
                    for name in ("steps", "examples", "flops")
                },
                "seconds": math.nan
                if training["shared_device"].astype(bool).any()
                else seconds.sum(skipna=False),
                "parameters": parameters["parameters"].sum(skipna=False)
                + parameters["conditioner_parameters"].fillna(0).sum(),
                "bytes": stored["bytes"].astype(float).sum(skipna=False),
            }
        )
    known = cells.loc[sorted(every)]
    names = sorted({one_line(name) for name in known["device_name"].dropna()})
    return {
        **pd.DataFrame(seeds)[list(COSTS)].mean(skipna=False).to_dict(),
        "peak_memory_bytes": known["peak_memory_bytes"].astype(float).max(),
        "device": "; ".join(names),
        "settings": entries["setting"].nunique(),
        "seeds": entries["seed"].nunique(),
        "missing_cells": len(missing),
    }


_COST_HEADS = {
    "networks": ("networks", ""),
    "steps": ("steps", ""),
    "examples": ("examples", ""),
    "flops": ("FLOPs", ""),
    "seconds": ("train time", "s"),
    "parameters": ("parameters", ""),
    "bytes": ("stored", "B"),
}


def savings_sheet(frame: pd.DataFrame) -> Sheet:
    """Amount and ratio per cost, with peak memory and device: the Markdown table."""
    head = ["method", *(label for label, _ in _COST_HEADS.values()), "peak memory", "device"]
    rows = []
    for row in frame.to_dict("records"):
        cells = [_cost_label(row["method"])]
        for name, (_, unit) in _COST_HEADS.items():
            amount, share = short(row[name], unit), ratio(row[f"{name}_ratio"])
            cells.append(amount if share == NOTHING else f"{amount} ({share})")
        rows.append([*cells, short(row["peak_memory_bytes"], "B"), row["device"] or NOTHING])
    return Sheet(head, rows, 1, [len(rows) - 1, 1])


def ratios_sheet(frame: pd.DataFrame) -> Sheet:
    """The grid in absolute numbers and everything else as a ratio to it: the terminal's table."""
    head = ["method", *(label for label, _ in _COST_HEADS.values())]
    rows = []
    for row in frame.to_dict("records"):
        amounts = [short(row[name], unit) for name, (_, unit) in _COST_HEADS.items()]
        ratios = [ratio(row[f"{name}_ratio"]) for name in _COST_HEADS]
        absolute = row["method"] == GRID or all(r == NOTHING for r in ratios)
        rows.append([_cost_label(row["method"]), *(amounts if absolute else ratios)])
    return Sheet(head, rows, 1, [len(rows) - 1, 1])


def _cost_label(method: str) -> str:
    return method if method == ALL else method_label(method)


# Shared -----------------------------------------------------------------------------------------


def _entries(run: Run) -> list[tuple[str, str, pd.DataFrame]]:
    """Method, setting and their measured rows (one per seed), in the order of display."""
    groups = dict(iter(run.measured.groupby(["method", "setting"])))
    order = [(method, setting) for method in run.methods for setting in run.settings]
    return [(*key, groups[key]) for key in order if key in groups]


def main_measures(run: Run) -> list[str]:
    """The few that a narrow table or figure shows: those of the fronts, else the first three."""
    fronts = dict.fromkeys(name for pair in run.fronts for name in pair)
    return list(fronts)[:4] or [name for name in run.measures if name != LOSS][:3]


def loss_gap(run: Run) -> tuple[str, str, str, int]:
    """How the gap of the loss is given: its title, the columns of the gap and of its standard
    error, and the digits. In per cent, unless the task says that its loss has no such zero."""
    style = run.measures[LOSS]
    if style.relative:
        return "loss gap (%)", "relative_percent", "relative_se_percent", 1
    unit = f" ({one_line(style.unit)})" if style.unit else ""
    return f"loss gap{unit}", "gap", "se", style.digits


def empty_measures(run: Run) -> list[str]:
    """Measures that were named but never taken."""
    found = set(run.records["measure"])
    return [name for name in run.measures if name not in found]


def setting_head(run: Run) -> str:
    return one_line(run.axes[0].symbol) if len(run.axes) == 1 else "setting"


def setting_labels(run: Run) -> dict[str, str]:
    """Short names of the settings; one outside the training range carries a dagger."""
    outside = set(run.measured.loc[run.measured["outside"].map(len) > 0, "setting"])
    return {s: label + (" †" if s in outside else "") for s, label in run.labels().items()}


def size_line(run: Run) -> str:
    """`4 methods, 5 settings, 1 seed, 6 pictures`."""
    counts = [len(run.methods), len(run.settings), len(run.seeds)]
    counts.append(examples(run))
    names = ("method", "setting", "seed", "example")
    return ", ".join(
        f"{n} {name}{'' if n == 1 else 's'}" for n, name in zip(counts, names, strict=True)
    )


def examples(run: Run) -> int:
    """How many test examples were measured."""
    return int(run.records.loc[run.records["example"] != WHOLE, "example"].nunique())


def notes(run: Run, gap: pd.DataFrame, saving: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the tables, one sentence each; plain text."""
    count = examples(run)
    found = [
        f"{one_line(name)} = {value:g} at every setting." for name, value in run.constant.items()
    ]
    if len(run.seeds) == 1:
        found.append(
            f"One seed, {count} examples: differences smaller than the spread are noise, and "
            "nothing here says how much another seed would change."
        )
    else:
        found.append(
            f"{len(run.seeds)} seeds, {count} examples: means are over both, and spreads are "
            "over examples after averaging the seeds, so they leave out the seeds' own."
        )
    uneven = run.measured.groupby(["method", "setting"])["seed"].nunique()
    if uneven.nunique() > 1:
        found.append("Not every method has every seed yet: the seeds are unequal in number.")
    found += [
        f"{one_line(run.measures[name].label)} was not measured (for want of its weights, or "
        "because the run is unfinished): its column is empty."
        for name in empty_measures(run)
    ]
    outside = sorted({s for sentences in run.measured["outside"] for s in sentences})
    if outside:
        found.append("† outside the range of coefficients trained for: " + "; ".join(outside) + ".")
    lost = run.measured[run.measured["status"].isin(LOST)]
    for (method, status, why), rows in lost.groupby(["method", "status", "reason"]):
        places = []
        for setting, entries in rows.groupby("setting"):
            seeds = ", ".join(str(seed) for seed in sorted(entries["seed"]))
            places.append(f"{one_line(setting)} (seed {seeds})")
        measured = run.measured[run.measured["method"] == method]
        some = (~measured["status"].isin(LOST) & measured["setting"].isin(rows["setting"])).any()
        found.append(
            f"{'‡ ' if some else ''}{status.capitalize()}: {method_label(method)} at "
            + ", ".join(places)
            + (f": {one_line(why)}" if why else "")
            + ("; the numbers are the other seeds'." if some else ".")
        )
    if GRID not in run.methods:
        found.append("There is no fixed grid in this run: no gaps and no ratios can be given.")
    elif len(gap):
        for method, part in gap.groupby("method"):
            lost = part.groupby("setting")["unpaired"].max().sum()
            if lost:
                found.append(
                    f"{method_label(method)}: {int(lost)} measured examples have no partner in "
                    "the fixed grid (same setting, seed and example) and are in no gap."
                )
    grid_settings = saving.loc[saving["method"] == GRID, "settings"]
    for row in saving[saving["method"] != ALL].to_dict("records"):
        label = method_label(row["method"])
        if row["missing_cells"]:
            found.append(
                f"{label}: {row['missing_cells']} of its trainings have no done.json in this "
                "folder, so its cost is unknown."
            )
        elif math.isnan(row["flops"]):
            found.append(
                f"{label}: a training (diverged, as a rule) left no ledger, so the cost is unknown."
            )
        elif math.isnan(row["seconds"]):
            found.append(
                f"{label}: no seconds are quoted, because a training shared its device with "
                "another or was not timed."
            )
        if len(grid_settings) and row["settings"] != grid_settings.iloc[0]:
            found.append(
                f"{label} was measured at {row['settings']} settings and the fixed grid at "
                f"{grid_settings.iloc[0]}: their costs are not for the same work."
            )
    devices = saving.loc[saving["method"] == ALL, "device"].iloc[0]
    if ";" in devices:
        found.append(f"Trained on different devices ({devices}): seconds are compared on one only.")
    if run.superseded:
        found.append(
            f"{run.superseded} older measurements of changed methods lie in the folder and were "
            "left out: the newest count."
        )
    if run.not_finite:
        found.append(f"{run.not_finite} measured values are not finite and in no mean.")
    return found


def rich_table(sheet: Sheet, title: str, caption: str = "") -> Table:
    """For the terminal: numbers to the right, a rule between methods, nothing interpreted."""
    table = Table(
        title=Text(title, style="bold"),
        caption=Text(caption + "\n", style="dim") if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, label in enumerate(sheet.head):
        widest = max(len(row[place]) for row in sheet.rows)
        head = textwrap.fill(label, max(11, widest)).replace("\u00a0", " ")  # rich breaks there
        justify: Literal["left", "right"] = "left" if place < sheet.left else "right"
        table.add_column(Text(head), justify=justify, overflow="fold", min_width=min(widest, 24))
    ends = {sum(sheet.groups[: i + 1]) for i in range(len(sheet.groups) - 1)}
    for count, row in enumerate(sheet.rows, 1):
        cells = [Text(cell) for cell in row]
        for cell in cells:
            if cell.plain in LOST:
                cell.stylize("red")
        table.add_row(*cells, end_section=count in ends)
    return table

"""The same number of variants of every method, tried on validation examples.

    python -m benchmarks.search quantiles --out search         minutes on two CPU cores
    python -m benchmarks.search quantiles --out search --keep bench/levers.json

Each method that applies has `COUNT` variants in `VARIANTS`, its defaults first: the grid's, the
network's under test and every peer's; `--count` takes fewer of each. The best has the least loss
gap to the plain grid, as the mean over settings and seeds. The table says for each variant its gap
and what training it took; `--keep` writes the best into the file that presets for evidence take
them from (`bench/levers.py`), with the cost of all the method's variants together. What
`yoto_tuned` is by default was itself found among more variants, of other tasks
(`baselines/yoto_tuned.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.files import write_atomic
from bench.levers import changed
from bench.registry import method, preset, variants
from bench.report.answers.costs import with_ancestors
from bench.report.load import Run as Measured
from bench.report.load import load_results
from bench.run.plan import experiment
from bench.run.runner import Run

COUNT = 8
RATES = ["", *(f"lr={rate}" for rate in (0.5, 2.0, 1.41, 0.25, 0.71, 2.83, 4.0))]
MEAN = "weighting=geometric_mean"
WITHOUT = "weighting=none"  # where that mean is the default
CORE = ["", "lr=0.5", "lr=2.0"]


def among(own: str, other: str, weighting: str = MEAN) -> list[str]:
    """What every network told its coefficients may try, with two levers of its own; where fewer
    are tried (`--count`) they are the first, so that one of its own is among four."""
    return [*CORE, own, "lr=4.0", weighting, f"lr=2.0, {weighting}", other]


# Of every method its levers as brackets have them. The plain method's fields are in none of them.
VARIANTS = {
    "fixed_grid_tuned": RATES,
    "warm_grid": [
        *("", "rate=0.5", "rate=2.0", "lr=2.0", "lr=4.0", "lr=0.5"),
        *("lr=2.0, rate=0.5", "lr=4.0, rate=0.5"),
    ],
    "yoto_tuned": among("law=ends", "encoding=shares", WITHOUT),
    "yoto_warm": among("law=ends", "encoding=shares", WITHOUT),
    "subspace": among("mix=places", "apart=1.0"),
    "low_rank": among("rank=8", "stratified=True"),
    "kernel_mix": among("affine=False", "stratified=True"),
    "hypernetwork": among("invariant=True", f"invariant=True, {MEAN}"),
    "concatenation": among("encoding=standardised", "cosine=1.0"),
    "gates": among("law=ends", "stratified=True"),
    "gain_units": among("prior=True", "levels=9"),
    "gain_bank": among("prior=True", f"prior=True, {MEAN}"),
    "vbr": among("fixed=0.667", "levels=0"),
    "several_outputs": among("lr=0.25", f"lr=0.5, {MEAN}"),
    "instance_norm": [
        *(*CORE, "encoding=standardised", "lr=4.0", "encoding=log"),
        *("law=log_uniform", "encoding=standardised, law=log_uniform"),
    ],
}
Fields = dict[str, dict[str, Any]]


def tried(name: str, usual: Fields, count: int = COUNT) -> dict[str, tuple[str, Any]]:
    """The first `count` variants of a method, by what tables call them: the fields in brackets, and
    the method. usual: the preset's fields of methods."""
    found = {}
    for fields in VARIANTS[name][:count]:
        ((label, made),) = variants(f"{name}[{fields}]" if fields else name, usual).items()
        found[label] = fields, made
    return found


def gaps(run: Measured, seeds: Sequence[int]) -> pd.Series:
    """By method the mean over settings and seeds of its loss gap to the plain grid, in per cent or
    in the loss's unit, of the means over examples: one example's loss may be next to nothing.
    Infinite where a network diverged or failed."""
    losses = run.records[run.records["measure"].eq("loss") & run.records["seed"].isin(seeds)]
    table = losses.pivot_table(
        index=["setting", "seed"], columns="method", values="value", dropna=False
    )
    grid = table["fixed_grid"]
    relative = 100 / grid.abs() if run.measures["loss"].relative else 1.0
    far = table.sub(grid, axis=0).mul(relative, axis=0)
    failed = set(run.measured.loc[run.measured["status"] != "done", "method"])
    return far.mean().where(~far.columns.isin(failed)).fillna(float("inf"))


def table(
    run: Measured, names: Sequence[str], seeds: Sequence[int], count: int = COUNT
) -> pd.DataFrame:
    """One row per variant: method, fields, gap, and what the networks of all seeds took, those they
    started from included: examples and FLOPs of this variant, and (`all_`) of all the method's
    together, each network once."""
    found, rows = gaps(run, seeds), []
    cells = run.cells.set_index("cell")[["examples", "flops"]].astype(float)
    measured = run.measured[run.measured["seed"].isin(seeds)]
    used = measured.groupby("method")["cells"].apply(lambda rows: {*chain(*rows)})
    for name in names:
        fields_of = {label: fields for label, (fields, _) in tried(name, {}, count).items()}
        of_each = {label: with_ancestors(run, used[label]) for label in fields_of}
        spent = cells.loc[sorted(set().union(*of_each.values()))].sum().add_prefix("all_")
        for label, fields in fields_of.items():
            row = {"method": name, "fields": fields, "gap": found[label]}
            trained = cells.loc[sorted(of_each[label])].sum().to_dict()
            rows.append(row | trained | spent.to_dict())
    costs = ("examples", "flops", "all_examples", "all_flops")
    return pd.DataFrame(rows).astype(dict.fromkeys(costs, "int64"))


def best(searched: pd.DataFrame, size: str, usual: Fields) -> Fields:
    """By method what `bench/levers.py` keeps."""
    kept: Fields = {}
    for name, rows in searched.groupby("method", sort=True):
        made = dict(tried(name, usual).values())
        chosen = made[rows["fields"].iloc[int(rows["gap"].to_numpy().argmin())]]
        kept[name] = {
            "fields": changed(chosen),
            "variants": len(rows),
            "preset": size,
            "examples": int(rows["all_examples"].iloc[0]),
            "flops": int(rows["all_flops"].iloc[0]),
        }
    return kept


def written(kept: dict[str, dict[str, Any]]) -> str:
    """The JSON text of levers, a line a method."""
    tasks = []
    for task, methods in sorted(kept.items()):
        lines = [f"  {json.dumps(name)}: {json.dumps(methods[name])}" for name in sorted(methods)]
        tasks.append(f" {json.dumps(task)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(tasks) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", help="of VARIANTS, at commas (all that apply)")
    parser.add_argument("--settings", type=int, help="points on the grid")
    parser.add_argument("--count", type=int, default=COUNT, help=f"variants a method ({COUNT})")
    parser.add_argument("--out", type=Path, default=Path("search"))
    parser.add_argument("--keep", type=Path, help="the file that presets take levers from")
    for place in ("--train-data", "--validation-data"):
        parser.add_argument(place, default="")
    options = parser.parse_args()
    names = options.methods.split(",") if options.methods else list(VARIANTS)
    places = {key: vars(options)[key] for key in ("train_data", "validation_data")}
    how: dict[str, Any] = {"split": "validation"}
    how["locations"] = {key: place for key, place in places.items() if place}
    seeds = [int(seed) for seed in options.seeds.split(",")]
    task = experiment(options.task, options.preset, ["fixed_grid"], **how).task
    names = [name for name in names if not method(name).refuses(task)]
    every = ["fixed_grid", *(label for name in names for label in tried(name, {}, options.count))]
    planned = experiment(options.task, options.preset, every, options.settings, seeds, **how)
    run = Run(options.out, [planned], torch.device("cpu"), "pool", 2)
    run.save_config()
    run.open_data()
    run.complete(lambda: False)
    for failure in run.failures:
        print(failure)
    (found,) = [r for r in load_results(options.out).runs if r.task == task.name]
    searched = table(found, names, seeds, options.count)
    searched.to_csv(options.out / f"{task.name}.csv", index=False, float_format="%.6g")
    print(searched.to_string(index=False))
    if options.keep:
        kept = json.loads(options.keep.read_text()) if options.keep.exists() else {}
        usual = preset(type(task), options.preset).methods
        kept[task.name] = kept.get(task.name, {}) | best(searched, planned.preset, usual)
        write_atomic(options.keep, written(kept))


if __name__ == "__main__":
    main()

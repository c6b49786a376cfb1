"""The same number of variants of every method, tried on validation examples.

    python -m benchmarks.search quantiles --out search         minutes on two CPU cores
    python -m benchmarks.search quantiles --out search --keep bench/levers.json

Each method that applies has `COUNT` variants in `VARIANTS`, its defaults first: the grid's, the
network's under test and every peer's. The best has the least loss gap to the plain grid, as the
mean over settings and seeds. The table says for each variant its gap and what training it took;
`--keep` writes the best into the file that presets for evidence take them from (`bench/levers.py`),
with the cost of all the method's variants together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.files import write_atomic
from bench.identity import plain
from bench.registry import method, variants
from bench.report.answers.costs import with_ancestors
from bench.report.load import Run as Measured
from bench.report.load import load_results
from bench.run.plan import experiment
from bench.run.runner import Run

COUNT = 8
YOTO = [
    *("", "lr=0.5", "lr=2.0", "weighting=none", "lr=2.0, weighting=none"),
    *("scale=linear", "encoding=log", "stratified=False"),
]
# Of every method its levers as brackets have them. The plain method's fields are in none of them.
VARIANTS = {
    "fixed_grid_tuned": ["", *(f"lr={rate}" for rate in (0.25, 0.35, 0.5, 0.71, 1.41, 2.0, 2.83))],
    "warm_grid": ["", *(f"rate={rate}" for rate in (0.25, 0.35, 0.5, 0.71, 1.41, 2.0, 2.83))],
    "yoto_tuned": YOTO,
    "yoto_warm": YOTO,
    "subspace": [
        *("", "lr=0.5", "lr=2.0", "weighting=geometric_mean", "mix=places", "apart=1.0"),
        *("lr=2.0, mix=places", "mix=places, weighting=geometric_mean"),
    ],
    "low_rank": [
        *("", "lr=0.5", "lr=2.0", "weighting=geometric_mean", "stratified=True", "rank=8"),
        *("rank=16", "rank=8, stratified=True, weighting=geometric_mean"),
    ],
    "kernel_mix": [
        *("", "lr=0.5", "lr=2.0", "weighting=geometric_mean", "stratified=True", "hidden=16"),
        "hidden=16, stratified=True, weighting=geometric_mean",
        "hidden=16, lr=2.0, stratified=True, weighting=geometric_mean",
    ],
    "hypernetwork": [
        *("", "lr=0.5", "lr=2.0", "weighting=geometric_mean", "invariant=True"),
        *("invariant=True, lr=0.5", "invariant=True, lr=2.0"),
        "invariant=True, weighting=geometric_mean",
    ],
    "concatenation": [
        *("", "lr=0.5", "lr=2.0", "weighting=geometric_mean", "encoding=standardised"),
        "cosine=0.1",
        *("cosine=1.0", "encoding=standardised, stratified=True, weighting=geometric_mean"),
    ],
    "gates": [
        *("", "lr=0.5", "lr=2.0", "lr=4.0", "weighting=geometric_mean", "stratified=True"),
        "stratified=True, weighting=geometric_mean",
        "lr=2.0, stratified=True, weighting=geometric_mean",
    ],
    "instance_norm": [
        *("", "lr=0.5", "lr=2.0", "encoding=standardised", "encoding=log", "law=log_uniform"),
        "encoding=standardised, law=log_uniform",
        "encoding=standardised, law=log_uniform, stratified=True",
    ],
    "gain_units": [
        *("", "lr=0.5", "lr=2.0", "lr=4.0", "levels=3", "levels=9", "stratified=True"),
        "stratified=True, weighting=geometric_mean",
    ],
    "gain_bank": [
        *("", "lr=0.5", "lr=2.0", "prior=True", "prior=True, lr=2.0"),
        *("stratified=True", "weighting=geometric_mean"),
        "prior=True, stratified=True, weighting=geometric_mean",
    ],
    "vbr": [
        *("", "lr=0.5", "lr=2.0", "lr=4.0", "levels=0", "fixed=0.667"),
        *("weighting=geometric_mean", "fixed=0.667, weighting=geometric_mean"),
    ],
    "several_outputs": [
        *("", *(f"lr={rate}" for rate in (0.25, 0.35, 0.5, 0.71, 1.41, 2.0, 2.83))),
    ],
}


def labels(name: str) -> list[str]:
    """The variants of a method, each as tables write it."""
    words = [f"{name}[{fields}]" if fields else name for fields in VARIANTS[name]]
    return [label for word in words for label in variants(word, {})]


def gaps(run: Measured) -> pd.Series:
    """By method the mean over settings, seeds and examples of its loss gap to the plain grid, in
    per cent or in the loss's unit; infinite where a network diverged or failed."""
    losses = run.records[run.records["measure"] == "loss"]
    table = losses.pivot_table(
        index=["setting", "seed", "example"], columns="method", values="value", dropna=False
    )
    grid = table["fixed_grid"]
    relative = 100 / grid.abs() if run.measures["loss"].relative else 1.0
    far = table.sub(grid, axis=0).mul(relative, axis=0)
    failed = set(run.measured.loc[run.measured["status"] != "done", "method"])
    return far.mean().where(~far.columns.isin(failed), float("inf"))


def table(run: Measured, names: Sequence[str]) -> pd.DataFrame:
    """One row per variant: method, fields, gap, and what its networks took: all trainings of all
    seeds, examples and FLOPs."""
    found, rows = gaps(run), []
    cells = run.cells.set_index("cell")
    for name in names:
        for label, fields in zip(labels(name), VARIANTS[name], strict=True):
            used = run.measured.loc[run.measured["method"] == label, "cells"]
            trained = sorted(with_ancestors(run, {cell for each in used for cell in each}))
            spent = cells.loc[trained, ["examples", "flops"]].astype(float).sum()
            row = {"method": name, "fields": fields, "gap": found[label]}
            rows.append(row | {"trainings": len(trained)} | spent.to_dict())
    return pd.DataFrame(rows).astype({"examples": "int64", "flops": "int64"})


def best(searched: pd.DataFrame, preset: str) -> dict[str, dict[str, Any]]:
    """By method what `bench/levers.py` keeps."""
    kept: dict[str, dict[str, Any]] = {}
    for name, tried in searched.groupby("method", sort=True):
        label = labels(name)[int(tried["gap"].to_numpy().argmin())]
        (chosen,) = variants(label, {}).values()
        usual = plain(method(name))
        kept[name] = {
            "fields": {key: value for key, value in plain(chosen).items() if value != usual[key]},
            "variants": len(tried),
            "preset": preset,
            "examples": int(tried["examples"].sum()),
            "flops": int(tried["flops"].sum()),
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
    every = ["fixed_grid", *(label for name in names for label in labels(name))]
    planned = experiment(options.task, options.preset, every, options.settings, seeds, **how)
    run = Run(options.out, [planned], torch.device("cpu"), "pool", 2)
    run.save_config()
    run.open_data()
    run.complete(lambda: False)
    for failure in run.failures:
        print(failure)
    (found,) = [r for r in load_results(options.out).runs if r.task == task.name]
    searched = table(found, names)
    searched.to_csv(options.out / f"{task.name}.csv", index=False, float_format="%.6g")
    print(searched.to_string(index=False))
    if options.keep:
        kept = json.loads(options.keep.read_text()) if options.keep.exists() else {}
        kept[task.name] = kept.get(task.name, {}) | best(searched, options.preset)
        write_atomic(options.keep, written(kept))


if __name__ == "__main__":
    main()

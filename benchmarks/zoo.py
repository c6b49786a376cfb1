"""The small networks that ship with the suite, out of a results folder.

    python -m benchmarks.zoo keep RESULTS PRESET [METHODS]      one seed of a run, into `zoo/`
    python -m benchmarks.zoo card                               `zoo/README.md`, measured anew

`zoo/` is a results folder: configurations, and per network `config.json`, `done.json` and
`model.safetensors`. Parameters are kept in half precision, buffers as they are (a codec has bounds
among them that half precision has no number for); a network is read back into single precision.
What lies where on the machine that trained them is left out. The card says what each costs in
quality, by measuring both on the same test examples.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import itertools
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load, save

from bench.files import write_atomic
from bench.live.networks import ZOO, Entry, catalogue
from bench.run import layout
from bench.run.schema import (
    CellConfig,
    ExperimentConfig,
    Plugin,
    Provenance,
    RunConfig,
    read,
    text,
)
from bench.space import Setting, format_setting

METHODS = ("fixed_grid_tuned", "yoto_tuned")
NUMBERS = "numbers.csv"
COLUMNS = ["task", "preset", "method", "setting", "measure", "trained", "kept"]
TABLES = "<!-- below: python -m benchmarks.zoo card -->"


def keep(results: Path, preset: str, methods: Sequence[str]) -> None:
    """One seed of the run of this preset, with these methods; what `zoo/` has of the task goes."""
    (exhibit,) = [each for each in catalogue(results) if each.preset == preset]
    entries = {label: exhibit.methods[label] for label in methods}
    task = exhibit.task
    # What was trained towards stays: names of artefacts, not files of one machine.
    places = task.surroundings()
    assert not any("/" in task.locations()[name] for name in task.locations().keys() - places)
    if (ZOO / "runs" / task.name).exists():
        shutil.rmtree(ZOO / "runs" / task.name)
    for entry in entries.values():
        for cell, stored in zip(entry.cells, entry.stored, strict=True):
            assert cell.after is None, f"{entry.label} starts from another network"
            config = read(stored.folder / layout.CONFIG, CellConfig)
            config.task = _placeless(config.task, places)
            folder = layout.cell_folder(ZOO, task.name, cell.method.name, config.id)
            weights = halved((stored.folder / layout.WEIGHTS).read_bytes(), entry.network(cell))
            done = copy.deepcopy(stored.done)
            done.model_sha256 = hashlib.sha256(weights).hexdigest()
            done.ledger.bytes = len(weights)
            done.provenance = _impersonal(done.provenance)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / layout.WEIGHTS, weights)
            write_atomic(folder / layout.CONFIG, text(config))
            write_atomic(folder / layout.DONE, text(done))
    planned = ExperimentConfig(
        task=_placeless(Plugin.of(task), places),
        preset=preset,
        settings=exhibit.settings,
        seeds=(exhibit.seed,),
        methods={label: Plugin.of(entry.method) for label, entry in entries.items()},
    )
    write_atomic(ZOO / "configs" / f"{task.name}.json", text(RunConfig(experiments=(planned,))))
    (kept,) = catalogue(ZOO, task.name)
    rows = []
    for label, entry in entries.items():
        here = dataclasses.replace(kept.methods[label], task=task)  # on the same test examples
        for setting in exhibit.settings:
            before, after = measured(task, entry, setting), measured(task, here, setting)
            at = format_setting(task.space.names, setting)
            rows += [
                [task.name, preset, label, at, name, before[name], after[name]] for name in before
            ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    if (ZOO / NUMBERS).exists():
        known = pd.read_csv(ZOO / NUMBERS)
        table = pd.concat([known[known["task"] != task.name], table]).sort_values(
            ["task", "method"], kind="stable"
        )
    write_atomic(ZOO / NUMBERS, table.to_csv(index=False, float_format="%.6g"))


def halved(weights: bytes, network: torch.nn.Module) -> bytes:
    """The content of a weights file with every parameter in half precision."""
    parameters = {name for name, _ in network.named_parameters()}
    state = load(weights)
    for name, value in state.items():
        if name in parameters and value.dtype == torch.float32:
            assert value.abs().max() < 65_000, f"{name} has no half precision"
            state[name] = value.half()
    return save(state)


def _placeless(plugin: Plugin, places: Collection[str]) -> Plugin:
    fields = {name: "" if name in places else value for name, value in plugin.fields.items()}
    return Plugin(target=plugin.target, fields=fields)


def _impersonal(provenance: Provenance) -> Provenance:
    """Without the command line, which names places of one machine, and the system's name."""
    kept = copy.deepcopy(provenance)
    kept.command = kept.platform = None
    return kept


# What they are worth ------------------------------------------------------------------------------


@torch.no_grad()
def measured(task: Any, entry: Entry, setting: Setting) -> dict[str, float]:
    """Every measure's mean over the test examples."""
    model, rows = entry.at(*setting), []
    for _, batch in task.data("test").examples():
        values = {**task.measure(model, batch), **task.measure_at(model, batch, setting)}
        rows.append({name: value.item() for name, value in values.items()})
    return {name: float(value) for name, value in pd.DataFrame(rows).mean().items()}


def card() -> str:
    """What `zoo/README.md` says of each network, as Markdown: where it comes from, and numbers."""
    numbers = pd.read_csv(ZOO / NUMBERS)
    parts = []
    for exhibit in catalogue(ZOO):
        task, name = exhibit.task, exhibit.task.name
        shown = list(dict.fromkeys(part for front in task.fronts for part in front))[:4]
        rows = [["method", "setting", *(task.measures[each].label for each in shown)]]
        for label, setting in itertools.product(exhibit.methods, exhibit.settings):
            at = format_setting(task.space.names, setting)
            own = numbers.query("task == @name and method == @label and setting == @at")
            own = own.set_index("measure")
            pairs = [(own.at[each, "kept"], own.at[each, "trained"]) for each in shown]
            rows.append([label, at, *(f"{kept:.4g} ({trained:.4g})" for kept, trained in pairs)])
        files = [["method", "trained for", "cell", "commit", "steps", "bytes", "SHA-256"]]
        for entry in exhibit.methods.values():
            for cell, stored in zip(entry.cells, entry.stored, strict=True):
                done = stored.done
                trained = [format_setting(task.space.names, s) for s in cell.trained_for]
                commit, weights = done.provenance.commit or "", done.model_sha256 or ""
                size = [str(done.ledger.steps), str(done.ledger.bytes), weights[:16]]
                where = ["".join(trained) or "any", done.id, commit[:12]]
                files.append([entry.label, *where, *size])
        of = f"Preset `{exhibit.preset}`, seed {exhibit.seed}."
        parts.append(f"## {name}\n\n{of}\n\n{_table(rows)}\n\n{_table(files)}\n")
    return "\n".join(parts)


def _table(rows: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    subs = parser.add_subparsers(dest="command", required=True)
    keeping = subs.add_parser("keep")
    keeping.add_argument("results", type=Path)
    keeping.add_argument("preset")
    keeping.add_argument("methods", nargs="?", default=",".join(METHODS))
    subs.add_parser("card")
    options = parser.parse_args()
    if options.command == "keep":
        keep(options.results, options.preset, options.methods.split(","))
    else:
        page = ZOO / "README.md"
        head = page.read_text().partition(TABLES)[0] if page.exists() else "# Networks to try\n\n"
        write_atomic(page, head + TABLES + "\n\n" + card())


if __name__ == "__main__":
    main()

"""Benchmark of loss-conditional training against one network per loss coefficient.

In Python and notebooks everything measured is one call away; it needs no torch and no GPU:

    from bench import load_results

    results = load_results("results")           several folders are read as one
    results.records                             one measured number per row
    results.measured                            one row per method, seed and setting
    results.cells                               one row per training
    (run,) = results.runs                       the same for one task and preset each

Columns of `records`: task, preset, experiment (a hash of all that must be equal to compare),
method, seed, cell (the trainings behind it), setting (`name=value;name=value`), example (the
picture's name, "(all)" for a number of the whole test set), measure, value, entry (its row in
`measured`), kind ("method"; "swept" for settings between and beyond those compared, "length" for
networks trained for a share of the steps with their whole schedule, "snapshot" for a training not
yet over, "context" for known curves).

Columns of `measured`: entry, task, preset, experiment, method, seed, setting, cells (a tuple of
ids), status ("done", "diverged", "failed"), outside (sentences on coefficients beyond the range
trained for), kind, share (of the training), split, time (seconds since 1970), display (how the
task names its measures), provenance (commit, packages, command), path, reason, device and
device_name (what measured it), answering_flops (of what the method did to answer, a search say;
None where it was not counted), tuning (what finding its levers took, {} for nothing), role
("reference", "under test", "floor", "warm start" or ""), tuned (whether its levers were searched
for), label (how tables write it).

Columns of `cells`: cell, task, preset, method (that trained it), seed, trained_for (settings; none
where they were drawn), after (the cell it was continued from), status, reason, steps, examples,
flops_per_step, flops (forward and backward), seconds (of training), processor_seconds (of all its
threads), parameters, conditioner_parameters, bytes, peak_memory_bytes (of the process, or of a
GPU's tensors), net_memory_bytes (without what was there before), device, device_name,
shared_device, phases (seconds by name), provenance, path.

`bench.report.compare` and `bench.report.costs` answer questions of a run: gaps with intervals and
verdicts, fronts, knobs, break-evens.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.report.load import Results

__version__ = "0.1.0"

# What plug-ins and notebooks use, by the module it is in; imported when it is first touched.
PUBLIC = {
    "bench.space": ("Axis", "Setting", "Space", "LAWS"),
    "bench.task": (
        *("Data", "LOCATION", "Measure", "Preset", "Task", "Training", "location", "weighted"),
    ),
    "bench.cost": ("parameters",),
    "bench.method": ("Cell", "Fixed", "Method", "OneNetwork", "Tuning"),
    "bench.fixed_grid": ("FixedGrid",),
    "bench.identity": ("ADDED", "file_digest"),
    "bench.modulation": (
        *("BEFORE", "CONVOLUTIONS", "Modulation", "TRANSPOSED", "channels", "fold", "fold_before"),
        *("matching", "modulate", "put"),
    ),
    "bench.conditioners": (
        *("Balance", "Concatenation", "ConditionalNorm", "Conditioner", "Encoding", "FiLM"),
        *("Gates", "KnownScale", "Modulating", "Network", "closing_gate"),
    ),
    "bench.yoto": ("Yoto",),
    "bench.pictures.data": ("Examples", "PictureError", "Pictures"),
    "bench.tasks.photographs": ("OnPhotographs", "photographs"),
    "bench.run.plan": ("experiment",),
}
HOMES = {name: module for module, names in PUBLIC.items() for name in names}
__all__ = [*HOMES, "load_results"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}: help(bench) has its names")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load_results(*roots: str | Path) -> Results:
    """Everything in one or several results folders; see `bench.report.load.load_results`."""
    from bench.report import load

    return load.load_results(*map(Path, roots))

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
networks trained for a share of the steps with their whole schedule, "context" for known curves,
"snapshot" in older results for a training that was not over).

Columns of `measured`: entry, task, preset, experiment, method, seed, setting, cells (a tuple of
ids), status ("done", "diverged", "failed"), outside (sentences on coefficients beyond the range
trained for), kind, share (of the training), split, time (seconds since 1970), display (how the
task names its measures), provenance (commit, packages, command), path, reason, device and
device_name (what measured it), answering_flops (of what the method did to answer, a search say;
None where it was not counted), tuning (what finding its levers took, {} for nothing), role
("reference", "under test", "floor", "warm start" or ""), tuned (whether it is a tuned form of
another method), label (how tables write it), study (None, or what a run of `--widths`, `--ranges`
and `--coefficients` changes of the plain one), sha256 and picture_sha256 (of its table and of its
picture, None where they are not known).

Columns of `cells`: cell, task, preset, method (that trained it), seed, trained_for (settings; none
where they were drawn), after (the cell it was continued from), status, reason, steps, examples,
flops_per_step, flops (forward and backward), seconds (of training), processor_seconds (of all its
threads), parameters, conditioner_parameters, bytes, peak_memory_bytes (of the process, or of a
GPU's tensors), net_memory_bytes (without what was there before), device, device_name,
shared_device, phases (seconds by name), provenance, path.

`bench.report.answers` answers questions of a run: gaps with intervals and verdicts (`compare`),
fronts and knobs (`knob`), costs and break-evens (`costs`), studies of width, range, number of
coefficients and length (`studies`) and the paper's claims (`claims`).
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what plug-ins and notebooks use: each name is imported when first touched
    from bench.balance import Balance
    from bench.comparison import Comparison, Verdict, compare
    from bench.conditioners import (
        Concatenation,
        ConditionalNorm,
        Conditioner,
        Encoding,
        FiLM,
        Gates,
        KnownScale,
        Modulating,
        Network,
        closing_gate,
        in_fp32,
    )
    from bench.cost import parameters
    from bench.files import read_ordinary
    from bench.fixed_grid import FixedGrid
    from bench.identity import ADDED, content_id, file_digest
    from bench.live.networks import load
    from bench.measure import Measure
    from bench.method import Cell, Fixed, Levers, Method, Tuning
    from bench.modulation import (
        BEFORE,
        CONVOLUTIONS,
        TRANSPOSED,
        Modulated,
        Modulation,
        channels,
        fold,
        fold_before,
        linear_maps,
        matching,
        modulate,
        own_parameters,
        put,
        same_batch,
    )
    from bench.pictures.data import Examples, PictureError, Pictures
    from bench.pictures.downloads import Unavailable
    from bench.pictures.measures import (
        bernoulli_nll,
        gaussian_nll,
        kl_to_standard_normal,
        ms_ssim,
        mse,
        psnr,
        to_8bit,
    )
    from bench.pictures.perceptual import VGGFeatures, lpips, lpips_missing
    from bench.pictures.scenes import Scenes
    from bench.plugins.names import UnknownName
    from bench.registry import method
    from bench.report.load import Results
    from bench.run.plan import experiment
    from bench.showing import Part, Showing, fitting
    from bench.space import LAWS, Axis, Setting, Space
    from bench.task import (
        LOCATION,
        Data,
        Preset,
        Task,
        Training,
        location,
        option,
        weighted,
    )
    from bench.tasks.photographs import OnPhotographs, photographs
    from bench.weights import Reweighting, flat
    from bench.yoto import Yoto

__version__ = "0.1.0"

# The module of each public name, read off the imports above.
HOMES = {
    alias.name: str(node.module)
    for node in ast.walk(ast.parse(Path(__file__).read_bytes()))
    if isinstance(node, ast.ImportFrom) and str(node.module).startswith("bench.")
    for alias in node.names
}
__all__ = [*HOMES, "load_results"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}: help(bench) has its names")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load_results(*roots: str | Path) -> Results:
    """Everything in one or several results folders; see `bench.report.load.load_results`."""
    return importlib.import_module("bench.report.load").load_results(*map(Path, roots))

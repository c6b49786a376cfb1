"""A trained network to be taken away: ONNX, torch.export and safetensors in a folder of their own.

    python run_bench.py export digits yoto_tuned               export/digits-yoto_tuned/
    python run_bench.py export digits yoto_tuned --at 0.3      folded at one setting, too

Where one network is told its coefficients, each piece (`Showing.parts`) is a file with these as its
last input. Folded at a setting, and of methods that have a network per setting, it is a plain
model's. `config.json` says what every file takes and gives, what it was checked with and how far
off it was, and what was trained, where it came from. See `bench/live/pieces.py` for the check.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from bench.files import sealed, with_way_out, write_atomic
from bench.identity import file_digest, identifying
from bench.live.check import NotExported, Source
from bench.live.networks import Entry, Exhibit, exhibited, setting_of
from bench.live.pieces import Untraceable, Written, require, versions, write
from bench.live.places import replace, replaceable
from bench.method import Cell
from bench.plugins.names import near
from bench.run.store import packed
from bench.space import Setting, parse_setting
from bench.task import Task

CONFIG = "config.json"
FORMAT = "yoto-bench export 1"
LOAD = (
    "ONNX files: any ONNX Runtime, of one thread and up, the web's (wasm), too. PT2 files: "
    "torch.export.load(file).module(check_guards=False); the guards only know the sizes that were "
    "traced. Safetensors: weights by the names of the suite's modules."
)


# What is asked for --------------------------------------------------------------------------------


def chosen(
    task: str, method: str, root: Path | None, preset: str | None, seed: int | None
) -> tuple[Exhibit, Entry]:
    """The one network, or grid of networks, that is meant. ValueError, with the way out, where
    there is none or several."""
    exhibits = exhibited(root, task, seed)
    fitting = [each for each in exhibits if _entry(each, method)]
    if not fitting:
        known = dict.fromkeys(label for each in exhibits for label in each.methods)
        raise near(method, known, f"method with a finished network of {task}")
    # The first folder's, which are the user's own where there are some.
    exhibit = _one([each for each in fitting if each.root == fitting[0].root], preset)
    return exhibit, _entry(exhibit, method)  # type: ignore[return-value]


def _entry(exhibit: Exhibit, method: str) -> Entry | None:
    """By what tables call it, or else by the method's own name."""
    by_name = [each for each in exhibit.methods.values() if each.method.name == method]
    return exhibit.methods.get(method) or next(iter(by_name), None)


def _one(exhibits: Sequence[Exhibit], preset: str | None) -> Exhibit:
    """The preset asked for, or the only one that is plain; of several seeds the first."""
    sizes = list(dict.fromkeys(exhibit.preset for exhibit in exhibits))
    if preset is not None and preset not in sizes:
        raise near(preset, sizes, "preset with such a network")
    if preset is None:
        plain = [size for size in sizes if "[" not in size]
        if len(sizes) > 1 and len(plain) != 1:
            raise ValueError(f"there are several sizes: add --preset, one of {'; '.join(sizes)}")
        preset = plain[0] if len(plain) == 1 else sizes[0]
    return min((each for each in exhibits if each.preset == preset), key=lambda each: each.seed)


def parsed_setting(text: str, task: Task) -> Setting:
    """A setting of a command line: "0.018", "1,2,3", or "name=value;name=value". ValueError."""
    names, (middle,) = task.space.names, task.space.grid(1)
    example = ",".join(f"{value:g}" for value in middle)
    try:
        if "=" in text:
            named = parse_setting(text)
            values = [named[name] for name in names]
            if len(named) > len(names):
                raise ValueError
        else:
            values = [float(part) for part in text.split(",")]
        return setting_of(task, values, {})
    except (ValueError, KeyError):
        raise ValueError(
            f"--at {text!r}: give a number above 0 for {', '.join(names)}, as {example}"
        ) from None


# What is made from what ---------------------------------------------------------------------------


@dataclass
class Job:
    """One network to be written: its name in the folder, what it is, and its weights."""

    name: str
    source: Source
    weights: bytes
    cells: list[Cell]
    trained_for: Setting | None = None


def jobs(entry: Entry, at: Setting | None) -> Iterator[Job]:
    """The network that is told its coefficients, where the method has one; then plain models: at
    the setting asked for, or, of methods with a network per setting, at each of theirs."""
    space, method = entry.task.space, entry.method
    whole = entry.whole
    if whole is not None:
        network = entry.network(whole)
        rows = not getattr(method, "together", False)
        if network.conditioner is not None:
            yield Job("network", Source.of(network, space, rows), packed(network), [whole])
        elif not whole.trained_for:  # one for all settings: nothing to fold
            source = Source(network.model, space)
            yield Job("network", source, packed(network), [whole])
            return
    settings = [at] if at else []
    if not at and (whole is None or network.conditioner is None):
        settings = list(dict.fromkeys(each for cell in entry.cells for each in cell.trained_for))
    for setting in settings:
        used = method.cells_at(entry.task, entry.cells, setting)
        model = entry.at(*setting)
        weights = save({name: value.contiguous() for name, value in _state(model).items()})
        place = "_".join(f"{value:g}" for value in setting)
        alone = used[0].trained_for[0] if len(used) == 1 and used[0].trained_for else None
        yield Job(
            f"network-at-{place}", Source(model, space, setting=setting), weights, used, alone
        )


def _state(model: nn.Module) -> dict[str, Any]:
    """A model's own weights, with tied ones once each."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@dataclass
class Export:
    """What came of it, for config.json and for the screen."""

    entry: Entry
    exhibit: Exhibit
    written: list[Written] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)


def export(
    task: str,
    method: str,
    *,
    root: Path | None = None,
    at: str | None = None,
    preset: str | None = None,
    seed: int | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a trained network into `out` and return that; nothing is left there of one that fails.
    ValueError for what cannot be; NotExported where a file does not compute what PyTorch does."""
    require()
    exhibit, entry = chosen(task, method, root, preset, seed)
    setting = parsed_setting(at, exhibit.task) if at else None
    folder = out or Path("export") / f"{exhibit.task.name}-{_file_name(method)}"
    earlier = replaceable(folder, CONFIG, FORMAT)
    size = f"{exhibit.task.name} ({exhibit.preset})"
    say(f"{size}, {entry.label}, seed {exhibit.seed}, from {exhibit.root}")
    with with_way_out(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        result = Export(entry, exhibit)
        for job in jobs(entry, setting):
            _write(job, made, result, say)
        if not result.written:
            raise NotExported(_nothing(result, at))
        write_atomic(made / CONFIG, sealed(config(result, made)))
        with with_way_out(folder):
            replace(made, folder, earlier, CONFIG)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _file_name(method: str) -> str:
    return "".join(char if char.isalnum() or char in "_-.," else "_" for char in method)


def _nothing(result: Export, at: str | None) -> str:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in result.left_out.items())
    if at or not result.left_out:
        return f"nothing can be exported of this ({reasons or 'it has no setting: give --at'})"
    (middle,) = result.exhibit.task.space.grid(1)
    example = ",".join(f"{value:g}" for value in middle)
    return (
        f"the network that is told its coefficients cannot be exported ({reasons}): add --at and "
        f"a setting, as --at {example}, for a plain one"
    )


def _write(job: Job, folder: Path, result: Export, say: Callable[[str], None]) -> None:
    """The pieces of one network, and its weights; what cannot be traced is left out with a word."""
    count = len(result.written)
    parts = result.entry.task.showing().parts(job.source.model)
    for note in _notes(job):
        result.notes.append(note)
        say(f"note: {note}")
    for name, part in parts.items():
        stem = job.name if name == "network" else job.name.replace("network", name, 1)
        try:
            written = write(stem, part, job.source, folder)
        except Untraceable as error:
            result.left_out[stem] = str(error)
            say(f"{stem} is left out: {error}")
            continue
        result.written.append(written)
        sizes = ", ".join(f"{file.name} {file.stat().st_size:,} bytes" for file in written.files)
        errors = ", ".join(
            f"{key} {value:.2g} ({100 * written.shares[key]:.1g} %)"
            for key, value in written.errors.items()
        )
        say(f"{sizes}; largest error {errors}; {written.seconds:.1f} s")
    if len(result.written) > count:
        write_atomic(folder / f"{job.name}.safetensors", job.weights)
        result.weights.append(f"{job.name}.safetensors")
        result.cells += [cell for cell in job.cells if cell not in result.cells]


def _notes(job: Job) -> Iterator[str]:
    setting, trained = job.source.setting, job.trained_for
    if setting is None:
        return
    yield from job.source.space.outside(setting)
    if trained not in (None, setting):
        nearest = ",".join(f"{value:g}" for value in trained or ())
        yield f"{job.name} is of the network trained for {nearest}: none was trained nearer"


def config(result: Export, folder: Path) -> dict[str, Any]:
    """What config.json says. No place on this machine is in it."""
    entry, task = result.entry, result.exhibit.task
    method = entry.method
    return {
        "format": FORMAT,
        "task": {"name": task.name, "line": task.line, "fields": identifying(task)},
        "preset": result.exhibit.preset,
        "seed": result.exhibit.seed,
        "method": {
            "name": method.name, "label": entry.label, "line": method.line,
            "fields": identifying(method),
        },
        "axes": [
            {"name": a.name, "low": a.low, "high": a.high, "symbol": a.symbol or a.name}
            for a in task.space.axes
        ],
        "loss_terms": list(task.terms),
        "loss": "the sum of the terms, each times its axis' coefficient, or one without an axis",
        "load": LOAD,
        "networks": {each.stem: each.about for each in result.written},
        "left_out": result.left_out,
        "notes": result.notes,
        "cells": [provenance(cell, entry) for cell in result.cells],
        "licences": {"code": "MIT", "weights": "those of the data trained on; not known here"},
        "versions": versions(),
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(folder.iterdir())
        },
    }  # fmt: skip


def provenance(cell: Cell, entry: Entry) -> dict[str, Any]:
    """Of a network: which cell it is, made by which commit, and the digest of its weights."""
    done = entry.stored_of(cell).done
    return {
        "method": cell.method.name,
        "seed": cell.seed,
        "trained_for": cell.trained_for,
        "id": done.id,
        "model_sha256": done.model_sha256,
        "commit": done.provenance.commit,
        "packages": done.provenance.packages,
    }

"""Results folders to data frames: every table and figure starts here, from the files alone.

    results = load_results(Path("results"))             several roots are read as one
    for run in results.runs: run.records, run.cells     one task, preset and experiment each

Reads `runs/<task>/<method>/<cell>/done.json` and `records/<task>/<method>/<id>.csv` with its
`.json`, which is written last: a CSV without one is unfinished and not counted.
"""

from __future__ import annotations

import functools
import hashlib
import math
import operator
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from msgspec import UNSET

from bench.files import files_in
from bench.identity import content_id
from bench.report.pictures import sample_of
from bench.report.run import Key, Run
from bench.run import looks
from bench.run.layout import FINISHED, HEADS, picture_of, table_of
from bench.run.records import Record, loads, picture_is_whole
from bench.run.schema import AxisStyle, Display, Done, Head, MeasureStyle, read, to_plain
from bench.space import parse_setting

__all__ = ["AxisStyle", "MeasureStyle", "Results", "Run", "file_name", "load_results"]

INFINITE = [math.inf, -math.inf]

RECORDS = [*Record._fields, "entry", "kind"]
MEASURED = [
    *("entry", "task", "preset", "experiment", "method", "seed", "setting", "cells", "status"),
    *("outside", "kind", "share", "split", "time", "display", "provenance", "path", "reason"),
    *("device", "device_name", "answering_flops", "tuning", "role", "tuned", "label", "study"),
    *("sha256", "picture_sha256"),
]
CELLS = [
    *("cell", "task", "preset", "method", "seed", "trained_for", "after", "status", "reason"),
    *("steps", "examples", "flops_per_step", "flops", "seconds", "processor_seconds"),
    *("parameters", "conditioner_parameters", "bytes", "peak_memory_bytes", "net_memory_bytes"),
    *("device", "device_name"),
    *("shared_device", "phases", "provenance", "path"),
]
# The frames of a run by what was measured: its measurements, and their rows.
FRAMES = {
    "method": ("measured", "records"),
    "swept": ("swept", "swept_records"),
    "length": ("lengths", "length_records"),
}


@dataclass(frozen=True, kw_only=True)
class Results:
    """What lies in one or several results folders.

    records: one number per row (`bench/run/records.py`), with the entry it belongs to and its kind.
    measured: one row per measured method, seed and setting; `cells` is a tuple of cell ids.
    cells: one row per finished training; `seconds` is the training phase, `phases` all of them.
    superseded: how many older measurements were left out, per task, preset and experiment.
    damaged: a sentence for each measurement that was left out because its files are not what was
    written; `run` makes them anew.
    looks: which seeds the verdicts of a run were looked at with, where that was after each.
    """

    records: pd.DataFrame
    cells: pd.DataFrame
    measured: pd.DataFrame
    superseded: dict[Key, int] = field(default_factory=dict)
    damaged: dict[Key, list[str]] = field(default_factory=dict)
    looks: dict[Key, looks.Looks] = field(default_factory=dict)

    @functools.cached_property
    def runs(self) -> list[Run]:
        """One per task, preset and experiment; the newest experiment has the plain folder name."""
        methods = self.measured[self.measured["kind"] == "method"]
        runs: list[Run] = []
        for (task, preset), group in methods.groupby(["task", "preset"], sort=True):
            newest_first = group.groupby("experiment")["time"].max().sort_values(ascending=False)
            for place, experiment in enumerate(newest_first.index):
                key = (task, preset, experiment)
                folder = file_name("-".join(key if place else key[:2]))
                if any(folder == run.folder for run in runs):  # a-b, c and a, b-c
                    folder += f"-{content_id(key)[:6]}"
                runs.append(self._run(key, folder))
        families: dict[Key, list[Run]] = defaultdict(list)
        for run in runs:
            plain = (run.study.preset, run.study.experiment) if run.study else run.key[1:]
            families[(run.task, *plain)].append(run)
        for family in families.values():
            for run in family:
                run.family.extend(family)
        return runs

    def _run(self, key: Key, folder: str) -> Run:
        measured, rows = _of(self.measured, key), _of(self.records, key)
        planned, unplanned = self.looks.get(key), []
        if planned:
            beyond = ~measured["seed"].isin(planned.seeds) & (measured["kind"] != "context")
            if beyond.all():  # nothing that is to be looked at is there yet
                planned = None
            else:
                unplanned = sorted(measured.loc[beyond, "seed"].unique())
                rows = rows[~rows["entry"].isin(measured.loc[beyond, "entry"])]
                measured = measured[~beyond]
        infinite = rows["value"].isin(INFINITE)
        finite = rows[~infinite & rows["value"].notna()]
        frames: dict[str, Any] = {}
        for kind, (measurements, numbers) in FRAMES.items():
            frames[measurements] = measured[measured["kind"] == kind].reset_index(drop=True)
            frames[numbers] = finite[finite["kind"] == kind].reset_index(drop=True)
        methods, lengths = frames["measured"], frames["lengths"]
        newest = methods.loc[methods["time"].idxmax()]
        display: Display = newest["display"]
        partial = [name for name, style in display.measures.items() if style.partial]
        none = rows.loc[rows["value"].isna() & rows["measure"].isin(partial), "measure"]
        measures = dict(display.measures)
        for name in rows.loc[rows["kind"] == "method", "measure"].unique():
            measures.setdefault(name, MeasureStyle(label=name))
        constant = _constant(display.axes, methods["setting"].unique())
        pictures = map(sample_of, measured.loc[measured["kind"] == "context", "path"])
        return Run(
            task=key[0],
            preset=key[1],
            experiment=key[2],
            folder=folder,
            title=display.title or key[0].replace("_", " "),
            **frames,
            context=finite[finite["kind"] == "context"].reset_index(drop=True),
            cells=self._behind([*methods["cells"], *lengths["cells"]]),
            original=next(filter(None, pictures), None),
            measures=measures,
            fronts=[(x, y) for x, y in display.fronts if x in measures and y in measures],
            axes=[axis for axis in display.axes if axis.name not in constant],
            constant=constant,
            sample_line=display.sample_line,
            margin_share=display.margin_share,
            superseded=self.superseded.get(key, 0),
            not_finite=len(rows) - len(finite) - len(none),
            partial=[name for name in partial if name in set(none)],
            infinite=rows[infinite & (rows["kind"] == "method")],
            damaged=self.damaged.get(key, []),
            looks=planned,
            unplanned=unplanned,
            study=newest["study"],
        )

    def _behind(self, used: Iterable[tuple[str, ...]]) -> pd.DataFrame:
        """The cells of these ids and, through `after`, those they started from."""
        before = dict(zip(self.cells["cell"], self.cells["after"], strict=True))
        wanted: set[str] = set()
        for first in (cell for cells in used for cell in cells):
            cell: Any = first
            while isinstance(cell, str) and cell not in wanted:
                wanted.add(cell)
                cell = before.get(cell)
        return self.cells[self.cells["cell"].isin(wanted)].reset_index(drop=True)


def _constant(axes: Sequence[AxisStyle], settings: Sequence[str]) -> dict[str, float]:
    """The axes, of several, on which all of several settings are the same, and where."""
    if len(axes) < 2 or len(settings) < 2:
        return {}
    parsed = [parse_setting(setting) for setting in settings]
    values = {axis.name: {setting.get(axis.name) for setting in parsed} for axis in axes}
    return {name: parsed[0][name] for name, seen in values.items() if len(seen) == 1}


class Measured(NamedTuple):
    """One measurement: what lies at `path`, beside its rows."""

    path: Path
    head: Head

    @property
    def key(self) -> Key:
        return self.head.task, self.head.preset, self.head.experiment

    @property
    def what(self) -> tuple[Any, ...]:
        """What was measured; of several of these, the newest counts."""
        head = self.head
        return (*self.key, head.kind, head.method, head.seed, head.setting, head.share)


def load_results(*roots: Path) -> Results:
    """Read one or several results folders, of which the newest measurement counts.

    A measurement whose table or picture is not what was written is left out, with a warning.
    FileNotFoundError where a folder is missing; ValueError, naming the file and the way out,
    where one is not ours or damaged.
    """
    by_id: dict[str, Measured] = {}
    cells: dict[str, dict[str, Any]] = {}
    planned: dict[Key, looks.Looks] = {}
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"there is no results folder {root}: `run` makes one")
        for path in files_in(root, FINISHED):
            done = read(path, Done)
            if done.id not in cells:
                cells[done.id] = _cell_row(path, done)
        for each in looks.every(root):
            if planned.setdefault(each.key, each).seeds != each.seeds:
                raise ValueError(
                    f"{each.task}, {each.preset} was looked at with other seeds in {root} than in "
                    "another folder: report the folders apart"
                )
        for path in files_in(root, HEADS):
            measured = Measured(path, read(path, Head))
            known = by_id.get(measured.head.id)
            if known is None or known.head.time < measured.head.time:
                by_id[measured.head.id] = measured

    newest, superseded = _newest(by_id.values())
    records, changed = _records(newest)
    damaged: dict[Key, list[str]] = defaultdict(list)
    for measured in newest:
        if measured.head.id in changed:
            damaged[measured.key].append(changed[measured.head.id])
    if changed:
        first = next(iter(changed.values()))
        warnings.warn(f"{len(changed)} measurements are left out; {first}", stacklevel=2)
    rows = [_measured_row(measured) for measured in newest if measured.head.id not in changed]
    return Results(
        records=records,
        cells=pd.DataFrame(list(cells.values()), columns=CELLS),
        measured=pd.DataFrame(rows, columns=MEASURED),
        superseded=superseded,
        damaged=dict(damaged),
        looks=planned,
    )


def _newest(found: Iterable[Measured]) -> tuple[list[Measured], dict[Key, int]]:
    """The measurements that count, and how many older ones of each run do not."""
    in_order = sorted(found, key=lambda each: (each.head.time, each.head.id))
    # A method whose version or fields changed is another method: the last one used counts.
    variant = {each.what[:5]: each.head.method_id for each in in_order}
    newest: dict[tuple[Any, ...], Measured] = {}
    superseded: dict[Key, int] = defaultdict(int)
    for each in in_order:
        what = each.what
        if each.head.method_id != variant[what[:5]]:
            superseded[each.key] += 1
            continue
        if what in newest and newest[what].head.cells != each.head.cells:
            superseded[each.key] += 1
        newest[what] = each
    return list(newest.values()), dict(superseded)


def _fields(record: Done | Head, columns: list[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in columns if name in record.__struct_fields__}


def _cell_row(path: Path, done: Done) -> dict[str, Any]:
    ledger = done.ledger
    # Seconds have no ratio between different devices, nor between a GPU and one that waits for each
    # kernel, as all did whose ledgers do not say.
    replayed = ledger.captured and bool(ledger.device_name)
    return {
        **{name: value for name, value in to_plain(ledger).items() if name in CELLS},
        **({"device_name": f"{ledger.device_name}, replayed"} if replayed else {}),
        **_fields(done, CELLS),
        "cell": done.id,
        "reason": done.reason or "",
        "seconds": ledger.seconds.get("train"),
        "processor_seconds": ledger.processor_seconds.get("train"),
        "shared_device": bool(ledger.shared_device),
        "phases": ledger.seconds,
        "provenance": to_plain(done.provenance),
        "path": path,
    }


def _measured_row(each: Measured) -> dict[str, Any]:
    head = each.head
    # Older heads do not say what tuning cost: None. What cost nothing is {}.
    tuning = None if head.tuning is UNSET else to_plain(head.tuning) or {}
    return {
        **_fields(head, MEASURED),
        "entry": head.id,
        "tuning": tuning,
        "provenance": to_plain(head.provenance),
        "path": each.path,
    }


class Changed(ValueError):
    """The files of a measurement are not what was written; the message says which."""


def _records(measured: Iterable[Measured]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of all, column by column: a million rows as tuples take twice as much. And, by id,
    what is wrong with those whose files changed."""
    columns: dict[str, list[Any]] = {name: [] for name in RECORDS}
    changed: dict[str, str] = {}
    for path, head in measured:
        try:
            rows = _rows(path, head)
        except Changed as error:
            changed[head.id] = str(error)
            continue
        for name, values in zip(Record._fields, zip(*rows, strict=True), strict=False):
            columns[name].extend(values)
        columns["entry"].extend([head.id] * len(rows))
        columns["kind"].extend([head.kind] * len(rows))
    return pd.DataFrame(columns).astype({"value": float}), changed


def _rows(head_path: Path, head: Head) -> list[Record]:
    path = table_of(head_path)
    anew = "run again to measure it anew"
    if not picture_is_whole(head_path, head.picture_sha256):
        raise Changed(f"{picture_of(head_path)} is damaged: {anew}")
    if head.status != "done":
        return []
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path} is no ordinary file: delete it and {anew}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Changed(
            f"{path} is missing, though {head_path.name} says that it was written: {anew}"
        ) from None
    if hashlib.sha256(data).hexdigest() != head.sha256:
        raise Changed(
            f"{path} is not what was measured (its SHA-256 differs from the one in "
            f"{head_path.name}): {anew}"
        )
    try:
        records = loads(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run again") from None
    names = ["task", "preset", "experiment"]
    if head.kind != "context":  # whose methods and settings are curves and points
        names += ["method", "seed", "setting"]
    picked = operator.attrgetter(*names)
    if {picked(record) for record in records} - {picked(head)}:
        raise ValueError(
            f"{path} has rows of something else than {head_path.name}: delete both and {anew}"
        )
    return records


def _of(frame: pd.DataFrame, key: Key) -> pd.DataFrame:
    task, preset, experiment = key
    chosen = (frame["task"] == task) & (frame["preset"] == preset)
    return frame[chosen & (frame["experiment"] == experiment)]


def file_name(text: str) -> str:
    """The text as the name of a folder or file; one that had to be changed carries its hash, so
    that two names that would look alike stay apart."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)[:100]
    return text if safe == text and not text.startswith(".") else f"{safe}-{content_id(text)[:6]}"

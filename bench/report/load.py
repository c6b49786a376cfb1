"""Results folders to data frames: every table and figure starts here, from the files alone.

    results = load_results(Path("results"))             several roots are read as one
    for run in results.runs: run.records, run.cells     one task, preset and experiment each

Reads `runs/<task>/<method>/<cell>/done.json` and `records/<task>/<method>/<id>.csv` with its
`.json`, which is written last: a CSV without one is unfinished and not counted.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.files import files_in, printable, read_object
from bench.identity import content_id
from bench.report.pictures import sample_of
from bench.report.shape import CELL, ENTRY, misfit
from bench.run.records import Record, loads, picture_is_whole
from bench.space import parse_setting

if TYPE_CHECKING:
    from bench.report.reference import Yardstick

Key = tuple[str, str, str]  # task, preset, experiment

INFINITE = [math.inf, -math.inf]
MARGIN_SHARE = 0.10  # of records that do not name one

RECORDS = [*Record._fields, "entry", "kind"]
MEASURED = [
    *("entry", "task", "preset", "experiment", "method", "seed", "setting", "cells", "status"),
    *("outside", "kind", "share", "split", "time", "display", "provenance", "path", "reason"),
    *("device", "device_name", "answering_flops", "tuning", "role", "tuned", "label"),
]
CELLS = [
    *("cell", "task", "preset", "method", "seed", "trained_for", "after", "status", "reason"),
    *("steps", "examples", "flops_per_step", "flops", "seconds", "processor_seconds"),
    *("parameters", "conditioner_parameters", "bytes", "peak_memory_bytes", "net_memory_bytes"),
    *("device", "device_name"),
    *("shared_device", "phases", "provenance", "path"),
]


@dataclass(frozen=True, kw_only=True)
class MeasureStyle:
    """How one measure is written; the fields are those of the task's own description."""

    label: str
    unit: str = ""
    better: str = ""
    digits: int = 3
    relative: bool = True
    margin: str = ""
    worst: float | None = None
    estimates: str = ""


@dataclass(frozen=True, kw_only=True)
class AxisStyle:
    name: str
    low: float
    high: float
    symbol: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One task, preset and experiment.

    records: long, finite values of methods only. context: the same for known curves, where
    `method` is the curve and `setting` the point. measured: one row per method, seed and setting.
    cells: the trainings behind them, those they continued included.
    swept, swept_records: the same as `measured` and `records` for settings between the compared
    ones and beyond them; lengths, length_records: for networks trained for a `share` of the steps
    with their whole schedule; snapshots, snapshot_records: for those kept after a `share` of one.
    original: the picture that samples show an answer to, if there is one.
    damaged: a sentence for each measurement that was left out, since its files changed.
    """

    task: str
    preset: str
    experiment: str
    folder: str  # the name of its report
    records: pd.DataFrame
    context: pd.DataFrame
    measured: pd.DataFrame
    cells: pd.DataFrame
    swept: pd.DataFrame
    swept_records: pd.DataFrame
    lengths: pd.DataFrame
    length_records: pd.DataFrame
    snapshots: pd.DataFrame
    snapshot_records: pd.DataFrame
    original: Path | None
    measures: dict[str, MeasureStyle]
    fronts: list[tuple[str, str]]
    axes: list[AxisStyle]  # those that vary in this run
    constant: dict[str, float]  # the others, with their value
    sample_line: str
    superseded: int
    not_finite: int
    infinite: pd.DataFrame  # the rows of methods whose value is infinite, which are in no mean
    margin_share: float = MARGIN_SHARE  # of the benefit lost that counts as none
    damaged: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.task, self.preset, self.experiment

    @functools.cached_property
    def settings(self) -> list[str]:
        """In coefficient order; on several axes the centre, then one at a time, then the rest."""
        return sorted(self.measured["setting"].unique(), key=self._place)

    @functools.cached_property
    def methods(self) -> list[str]:
        """The reference, what is under test as it is by default, then the others by name."""
        found = set(self.measured["method"])
        plain = [m for m in self.under_test if not (self._heads[m]["tuned"] or "[" in m)]
        first = [*filter(None, [self.reference]), *plain]
        return first + sorted(found - set(first))

    @functools.cached_property
    def _heads(self) -> dict[str, dict[str, Any]]:
        """Role, whether tuned and label of every method."""
        rows = self.measured.drop_duplicates("method", keep="last").set_index("method")
        return rows[["role", "tuned", "label"]].to_dict("index")

    def _with_role(self, role: str) -> list[str]:
        """The methods of a role, those with default fields first."""
        found = [m for m, head in self._heads.items() if head["role"] == role]
        return sorted(found, key=lambda m: ("[" in m, m))

    @functools.cached_property
    def reference(self) -> str | None:
        """The method that all are compared with: one network per setting, as it is by default."""
        found = [m for m in self._with_role("reference") if not self._heads[m]["tuned"]]
        return next((m for m in found if "[" not in m), None)

    @functools.cached_property
    def tuned_reference(self) -> str | None:
        """A reference with levers of its own."""
        return next((m for m in self._with_role("reference") if m != self.reference), None)

    @functools.cached_property
    def under_test(self) -> list[str]:
        """The networks told their coefficients, the tuned one first."""
        found = self._with_role("under test")
        return sorted(found, key=lambda m: not self._heads[m]["tuned"])

    @functools.cached_property
    def floor(self) -> str | None:
        """One network for all settings."""
        return next(iter(self._with_role("floor")), None)

    @functools.cached_property
    def warm(self) -> str | None:
        """The reference made cheaper."""
        return next(iter(self._with_role("warm start")), None)

    def label(self, method: str) -> str:
        """How tables write a method, in one line."""
        text = self._heads[method]["label"] if method in self._heads else method.replace("_", " ")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    @functools.cached_property
    def seeds(self) -> list[int]:
        return sorted(self.measured["seed"].unique())

    def values(self, setting: str) -> tuple[float, ...]:
        """A setting's coefficients in the order of the axes."""
        parsed = parse_setting(setting)
        missing = [axis.name for axis in self.axes if axis.name not in parsed]
        if missing:
            names = [axis.name for axis in self.axes]
            raise ValueError(f"the setting {setting!r} of {self.task} does not give {names}")
        return tuple(parsed[axis.name] for axis in self.axes)

    @functools.cached_property
    def centre(self) -> tuple[float, ...] | None:
        """On several axes, the setting from which most others move one coefficient, if any."""
        if len(self.axes) < 2:
            return None
        every = [self.values(setting) for setting in self.measured["setting"].unique()]
        near = [sum(len(_moved(one, other)) == 1 for other in every) for one in every]
        best = max(range(len(every)), key=lambda i: (near[i], every[i]))
        unique = near.count(near[best]) == 1  # in a full grid every setting is as central
        return every[best] if unique and near[best] > 1 else None

    @functools.cached_property
    def middle(self) -> str:
        """The setting nearest to the middle of the range, each axis counting by its logarithm."""

        def away(setting: str) -> float:
            return math.hypot(
                *(
                    math.log(value / math.sqrt(axis.low * axis.high))
                    / math.log(axis.high / axis.low)
                    for axis, value in zip(self.axes, self.values(setting), strict=True)
                )
            )

        return min(self.settings, key=away)

    @functools.cached_property
    def yardstick(self) -> Yardstick | None:
        """The fixed grid, examined; None without one."""
        from bench.report.reference import Yardstick

        return Yardstick.of(self)

    def _place(self, setting: str) -> tuple[Any, ...]:
        values = self.values(setting)
        if self.centre is None:
            return values
        moved = _moved(values, self.centre)
        return (min(len(moved), 2), moved if len(moved) == 1 else [], values)

    def labels(self) -> dict[str, str]:
        """A short name per setting: its value, or on several axes what differs from the centre."""
        names = [axis.symbol for axis in self.axes]
        labels, rest = {}, 0
        for setting in self.settings:
            values = self.values(setting)
            if len(values) == 1 or (len(values) == 2 and self.centre is None):
                labels[setting] = ", ".join(f"{value:g}" for value in values)
            elif values == self.centre:
                labels[setting] = "centre"
            elif self.centre is not None and len(moved := _moved(values, self.centre)) == 1:
                labels[setting] = f"{names[moved[0]]} = {values[moved[0]]:g}"
            else:
                rest += 1
                labels[setting] = f"mix {rest}" if self.centre else f"setting {rest}"
        return labels


def _moved(one: tuple[float, ...], other: tuple[float, ...]) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What lies in one or several results folders.

    records: one number per row (`bench/run/records.py`), with the entry it belongs to and its kind.
    measured: one row per measured method, seed and setting; `cells` is a tuple of cell ids.
    cells: one row per finished training; `seconds` is the training phase, `phases` all of them.
    superseded: how many older measurements were left out, per task, preset and experiment.
    damaged: a sentence for each measurement that was left out because its files are not what was
    written; `run` makes them anew.
    """

    records: pd.DataFrame
    cells: pd.DataFrame
    measured: pd.DataFrame
    superseded: dict[Key, int] = field(default_factory=dict)
    damaged: dict[Key, list[str]] = field(default_factory=dict)

    @functools.cached_property
    def runs(self) -> list[Run]:
        """One per task, preset and experiment; the newest experiment has the plain folder name."""
        methods = self.measured[self.measured["kind"] == "method"]
        found: list[Run] = []
        for (task, preset), group in methods.groupby(["task", "preset"], sort=True):
            newest_first = group.groupby("experiment")["time"].max().sort_values(ascending=False)
            for place, experiment in enumerate(newest_first.index):
                key = (task, preset, experiment)
                folder = file_name("-".join(key if place else key[:2]))
                if any(folder == run.folder for run in found):  # a-b, c and a, b-c
                    folder += f"-{content_id(key)[:6]}"
                found.append(self._run(key, folder))
        return found

    def _run(self, key: Key, folder: str) -> Run:
        measured = _of(self.measured, key)
        methods = measured[measured["kind"] == "method"].reset_index(drop=True)
        lengths = measured[measured["kind"] == "length"].reset_index(drop=True)
        rows = _of(self.records, key)
        finite = rows[~rows["value"].isin(INFINITE) & rows["value"].notna()]
        pictures = map(sample_of, measured.loc[measured["kind"] == "context", "path"])
        display = methods.loc[methods["time"].idxmax(), "display"]
        measures = {
            name: MeasureStyle(**{key: value for key, value in style.items() if value is not None})
            for name, style in display["measures"].items()
        }
        for name in rows.loc[rows["kind"] == "method", "measure"].unique():
            measures.setdefault(name, MeasureStyle(label=name))
        for name, style in measures.items():  # older records do not say what is an estimate
            known = name.removesuffix("_estimated")
            if not style.estimates and known != name and known in measures:
                measures[name] = dataclasses.replace(style, estimates=known)
        axes = [
            AxisStyle(name=a["name"], low=a["low"], high=a["high"], symbol=a["symbol"] or a["name"])
            for a in display["axes"]
        ]
        settings = [parse_setting(setting) for setting in methods["setting"].unique()]
        constant = {
            axis.name: settings[0][axis.name]
            for axis in axes
            if len(axes) > 1
            and len(settings) > 1
            and len({setting.get(axis.name) for setting in settings}) == 1
        }
        return Run(
            task=key[0],
            preset=key[1],
            experiment=key[2],
            folder=folder,
            records=finite[finite["kind"] == "method"].reset_index(drop=True),
            context=finite[finite["kind"] == "context"].reset_index(drop=True),
            measured=methods,
            cells=self._behind([*methods["cells"], *lengths["cells"]]),
            swept=measured[measured["kind"] == "swept"].reset_index(drop=True),
            swept_records=finite[finite["kind"] == "swept"].reset_index(drop=True),
            lengths=lengths,
            length_records=finite[finite["kind"] == "length"].reset_index(drop=True),
            snapshots=measured[measured["kind"] == "snapshot"].reset_index(drop=True),
            snapshot_records=finite[finite["kind"] == "snapshot"].reset_index(drop=True),
            original=next(filter(None, pictures), None),
            measures=measures,
            fronts=[(x, y) for x, y in display["fronts"] if x in measures and y in measures],
            axes=[axis for axis in axes if axis.name not in constant],
            constant=constant,
            sample_line=display.get("sample_line", ""),
            superseded=self.superseded.get(key, 0),
            not_finite=len(rows) - len(finite),
            infinite=rows[rows["value"].isin(INFINITE) & (rows["kind"] == "method")],
            margin_share=display.get("margin_share") or MARGIN_SHARE,
            damaged=self.damaged.get(key, []),
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


def load_results(*roots: Path) -> Results:
    """Read one or several results folders, of which the newest measurement counts.

    A measurement whose table or picture is not what was written is left out, with a warning.
    FileNotFoundError where a folder is missing; ValueError, naming the file and the way out,
    where one is not ours or damaged.
    """
    entries: dict[str, dict[str, Any]] = {}
    cells: dict[str, dict[str, Any]] = {}
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"there is no results folder {root}: `run` makes one")
        for path in files_in(root, "runs/*/*/*/done.json"):
            cell = _cell(path)
            cells.setdefault(cell["cell"], cell)
        for path in files_in(root, "records/*/*/*.json"):
            entry = _entry(path)
            known = entries.get(entry["entry"])
            if known is None or known["time"] < entry["time"]:
                entries[entry["entry"]] = entry

    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    superseded: dict[Key, int] = {}
    in_order = sorted(entries.values(), key=lambda e: (e["time"], e["entry"]))
    # A method whose version or fields changed is another method: the last one used counts.
    variant = {(*_key(e), e["kind"], e["method"]): e["method_id"] for e in in_order}
    for entry in in_order:
        key = _key(entry)
        names = ("kind", "method", "seed", "setting", "share")
        what = (*key, *(entry[name] for name in names))
        if entry["method_id"] != variant[what[:5]]:
            superseded[key] = superseded.get(key, 0) + 1
            continue
        if what in newest and newest[what]["cells"] != entry["cells"]:
            superseded[key] = superseded.get(key, 0) + 1
        newest[what] = entry

    records, changed = _records(newest.values())
    damaged: dict[Key, list[str]] = {}
    for what, sentence in changed.items():
        damaged.setdefault(what[0], []).append(sentence)
    if changed:
        first = next(iter(changed.values()))
        warnings.warn(f"{len(changed)} measurements are left out; {first}", stacklevel=2)
    whole = [e for e in newest.values() if (_key(e), e["entry"]) not in changed]
    return Results(
        records=records,
        cells=pd.DataFrame(list(cells.values()), columns=CELLS),
        measured=pd.DataFrame(whole, columns=MEASURED),
        superseded=superseded,
        damaged=damaged,
    )


class Changed(ValueError):
    """The files of a measurement are not what was written; the message says which."""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_object(path)
        json.dumps(content, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run again") from None
    return content


def _cell(path: Path) -> dict[str, Any]:
    content = _read(path)
    if fault := misfit(content, CELL):
        raise ValueError(
            f"{path}: {fault}: delete its folder and run again, or report with the version of the "
            "suite that wrote it"
        )
    ledger = content.get("ledger") or {}
    cell = {name: content.get(name) for name in ("task", "preset", "method", "seed", "after")}
    cell |= {"cell": content["id"], "status": content["status"], "path": path}
    cell |= {"reason": content.get("reason") or "", "trained_for": content["trained_for"]}
    cell |= {"provenance": content.get("provenance") or {}}
    cell |= {name: ledger.get(name) for name in CELLS if name in ledger}
    phases = ledger.get("seconds") or {}
    shared = bool(ledger.get("shared_device"))
    cell |= {"processor_seconds": (ledger.get("processor_seconds") or {}).get("train")}
    return cell | {"seconds": phases.get("train"), "phases": phases, "shared_device": shared}


def _entry(path: Path) -> dict[str, Any]:
    content = _read(path)
    fault = misfit(content, ENTRY) or _odd(content)
    if fault:
        raise ValueError(
            f"{path}: {fault}: delete it and run again, or report with the version of the suite "
            "that wrote it"
        )
    kept = ("task", "preset", "experiment", "method", "seed", "setting", "status", "time")
    entry = {name: content[name] for name in kept}
    entry |= {"entry": content["id"], "cells": tuple(content["cells"]), "path": path}
    entry |= {"display": content["display"], "kind": content.get("kind") or "method"}
    entry |= {"method_id": content.get("method_id") or "", "reason": content.get("reason") or ""}
    entry |= {"share": content.get("share") or 1.0, "split": content.get("split") or "test"}
    entry |= {"outside": list(content.get("outside") or []), "sha256": content.get("sha256")}
    entry |= {name: content.get(name) or "" for name in ("device", "device_name")}
    entry |= _role(content)
    # Older heads have neither: what is not known is None, what costs nothing is 0 or {}.
    entry |= {"answering_flops": content.get("answering_flops")}
    entry |= {"tuning": content["tuning"] or {} if "tuning" in content else None}
    entry |= {"picture_is_whole": picture_is_whole(path, content)}
    return entry | {"provenance": content.get("provenance") or {}}


# Of the methods of heads that do not say so: role, whether tuned, label.
OLDER = {
    "fixed_grid": ("reference", False, "fixed grid"),
    "fixed_grid_tuned": ("reference", True, "fixed grid tuned"),
    "yoto": ("under test", False, "YOTO"),
    "yoto_tuned": ("under test", True, "YOTO tuned"),
    "single_model": ("floor", False, "single model"),
    "warm_grid": ("warm start", False, "warm grid"),
}


def _role(content: dict[str, Any]) -> dict[str, Any]:
    """The role, whether tuned and the label of the method of a head, older ones included."""
    plain, bracket, changed = content["method"].partition("[")
    role, tuned, label = OLDER.get(plain, ("", False, plain.replace("_", " ")))
    return {
        "role": content.get("role", role),
        "tuned": content.get("tuned", tuned),
        "label": content.get("label", label + bracket + changed),
    }


def _odd(content: dict[str, Any]) -> str:
    """What is wrong with an entry's axes and setting, "" where nothing is."""
    axes = content["display"]["axes"]
    names = [axis["name"] for axis in axes]
    if len(set(names)) < len(names) or not all(0 < a["low"] < a["high"] for a in axes):
        return "its axes need different names and 0 < low < high"
    if content.get("kind") != "context":
        try:
            setting = parse_setting(content["setting"])
        except ValueError as error:
            return printable(error)
        if not all(math.isfinite(setting.get(name, math.nan)) for name in names):
            return f"its setting {printable(content['setting'])} does not give {printable(names)}"
    return ""


def _records(
    entries: Iterable[dict[str, Any]],
) -> tuple[pd.DataFrame, dict[tuple[Key, str], str]]:
    """The rows of all entries, column by column: a million rows as tuples take twice as much. And,
    by run and entry, what is wrong with those whose files changed."""
    columns: dict[str, list[Any]] = {name: [] for name in RECORDS}
    changed: dict[tuple[Key, str], str] = {}
    for entry in entries:
        try:
            rows = _rows(entry)
        except Changed as error:
            changed[_key(entry), entry["entry"]] = str(error)
            continue
        for name, values in zip(Record._fields, zip(*rows, strict=True), strict=False):
            columns[name].extend(values)
        for name in ("entry", "kind"):
            columns[name].extend([entry[name]] * len(rows))
    return pd.DataFrame(columns).astype({"value": float}), changed


def _rows(entry: dict[str, Any]) -> list[Record]:
    path = entry["path"].with_suffix(".csv")
    anew = "run again to measure it anew"
    if not entry["picture_is_whole"]:
        raise Changed(f"{path.with_suffix('.png')} is damaged: {anew}")
    if entry["status"] != "done":
        return []
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path} is no ordinary file: delete it and run again to measure it anew")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Changed(
            f"{path} is missing, though {entry['path'].name} says that it was written: {anew}"
        ) from None
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Changed(
            f"{path} is not what was measured (its SHA-256 differs from the one in "
            f"{entry['path'].name}): {anew}"
        )
    try:
        records = loads(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run again") from None
    names = ["task", "preset", "experiment"]
    if entry["kind"] != "context":  # whose methods and settings are curves and points
        names += ["method", "seed", "setting"]
    if {_picked(record, names) for record in records} - {tuple(entry[name] for name in names)}:
        raise ValueError(
            f"{path} has rows of something else than {entry['path'].name}: delete both and run "
            "again to measure it anew"
        )
    return records


def _picked(record: Record, names: list[str]) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


def _key(entry: dict[str, Any]) -> Key:
    return entry["task"], entry["preset"], entry["experiment"]


def _of(frame: pd.DataFrame, key: Key) -> pd.DataFrame:
    task, preset, experiment = key
    chosen = (frame["task"] == task) & (frame["preset"] == preset)
    return frame[chosen & (frame["experiment"] == experiment)]


def file_name(text: str) -> str:
    """The text as the name of a folder or file; one that had to be changed carries its hash, so
    that two names that would look alike stay apart."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text)[:100]
    return text if safe == text and not text.startswith(".") else f"{safe}-{content_id(text)[:6]}"

"""Everything that a results folder stores and that processes tell each other, as typed records.

    done = read(path, Done)            from a file; Damaged, which says where and why
    write_atomic(path, text(done))     the JSON of a record, with its own hash
    copy = from_plain(job, Train)      from JSON's own types

Of the files that `bench/run/layout.py` lists, config.json is a CellConfig, done.json Done,
failed.json a Failure, log.jsonl a LogLine a line, lease.json (and .lease) a Holder, a record's
.json a Head, and what is in configs/ a RunConfig.

A folder may come from anybody, so types, ranges and lengths are those that tables and figures can
take; what is not named here is not read. What older versions lack has a default; see `older`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from bench.files import STORED, printable, read_object, sealed
from bench.registry import describe, revive
from bench.run.older import upgraded
from bench.run.study import Study
from bench.space import parse_setting

Text = Annotated[str, Meta(max_length=STORED, pattern=r"^[^\0\ud800-\udfff]*$")]
# Whole numbers stay whole: ids and tables tell 1 from 1.0.
Number = Annotated[int, Meta(gt=-(2**62), lt=2**62)] | Annotated[float, Meta(gt=-1e30, lt=1e30)]
Amount = Annotated[int, Meta(ge=0, lt=2**62)] | Annotated[float, Meta(ge=0, lt=1e30)]
Flops = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0, lt=1e30)]  # see `Ledger`
Share = Annotated[float, Meta(gt=0, le=1)]
Moment = Annotated[float, Meta(ge=0, lt=1e11)]  # seconds since 1970
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
Values = tuple[Number, ...]  # a setting
Split = Literal["test", "validation"]

Kind = TypeVar("Kind")


# What is trained and compared ---------------------------------------------------------------------


class Plugin(Struct, kw_only=True):
    """A task or method: where its class is, and its fields."""

    target: Text = field(name="class")
    fields: dict[str, Any]

    @classmethod
    def of(cls, task_or_method: Any) -> Plugin:
        return from_plain(describe(task_or_method), cls)

    def revive(self, base: type[Any]) -> Any:
        """The task or method again. ValueError where it is none, or of other code."""
        return revive(to_plain(self), base)


class Earlier(Struct, kw_only=True):
    """A cell that the one before it in a list starts from; None is the later one's."""

    id: Text
    seed: Seed
    trained_for: tuple[Values, ...]
    task: Plugin | None = None
    method: Plugin | None = None


class CellConfig(Struct, kw_only=True, tag_field="kind", tag="cell"):
    """A training: all a worker needs besides the results folder. `before` goes back through the
    cells it starts from: a long chain is a long list, neither deep nor large."""

    id: Text
    preset: Text
    task: Plugin
    method: Plugin
    seed: Seed
    trained_for: tuple[Values, ...]
    before: tuple[Earlier, ...] = ()


class ExperimentConfig(Struct, kw_only=True):
    task: Plugin
    preset: Text
    settings: tuple[Values, ...]
    seeds: tuple[Seed, ...]
    methods: dict[str, Plugin]
    split: Split = "test"
    lengths: tuple[Share, ...] = ()
    study: Study | None = None


class RunConfig(Struct, kw_only=True, tag_field="kind", tag="run"):
    experiments: tuple[ExperimentConfig, ...]


# What came of it ----------------------------------------------------------------------------------


class Provenance(Struct, kw_only=True, omit_defaults=True):
    """Where and with what something was made; never part of an id."""

    commit: Text | None = None
    packages: dict[Text, Text] = {}
    platform: Text | None = None
    processor: Text | None = None
    command: Text | None = None
    time: Text | None = None


class Ledger(Struct, kw_only=True, omit_defaults=True):
    """What a training cost; see `bench/cost.py`. None is unknown, as in older folders."""

    steps: Amount | None = None
    examples: Amount | None = None
    flops_per_step: Flops | None = None
    flops: Flops | None = None
    seconds: dict[Text, Amount] = {}  # by phase
    processor_seconds: dict[Text, Amount] = {}
    peak_memory_bytes: Amount | None = None
    net_memory_bytes: Amount | None = None
    reserved_memory_bytes: Amount | None = None
    parameters: Amount | None = None
    conditioner_parameters: Amount | None = None
    device: Text | None = None
    device_name: Text | None = None
    shared_device: bool | None = None
    captured: bool | None = None  # whether a GPU replayed its steps
    bytes: Amount | None = None
    constants: dict[str, Any] | None = None  # of the task: numbers measured before any training

    def __post_init__(self) -> None:
        if max(self.flops or 0, self.flops_per_step or 0) >= 1e30:  # more than a bound can say
            raise ValueError("FLOPs of 1e30 and more are none")


class Done(Struct, kw_only=True):
    """A finished cell; written last."""

    id: Text
    task: Text
    preset: Text
    method: Text
    seed: Seed
    trained_for: tuple[Values, ...]
    status: Literal["done", "diverged"]
    after: Text | None = None
    reason: Text | None = None
    model_sha256: Text | None = None
    ledger: Ledger = field(default_factory=Ledger)
    provenance: Provenance = field(default_factory=Provenance)


class Failure(Struct, kw_only=True):
    """The last try of a cell ended in an error; the next one takes it away."""

    reason: Text
    time: Moment


class LogLine(Struct, kw_only=True):
    """What `status` reads of a line of a training's log."""

    step: Amount


class Holder(Struct, kw_only=True, frozen=True):
    """The process that works on something; see `bench/run/lease.py`."""

    host: Text
    machine: Text
    pid: Annotated[int, Meta(ge=1, lt=2**31)]  # it becomes part of a path
    started: Text
    token: Text
    beat: Annotated[int, Meta(ge=0, lt=2**62)]


@dataclass(frozen=True, kw_only=True)
class MeasureStyle:
    """How one measure is written: `bench.task.Measure` as it is stored."""

    label: Text
    unit: Text = ""
    better: Literal["lower", "higher", ""] = ""
    digits: Annotated[int, Meta(ge=0, le=12)] = 3
    relative: bool = True
    margin: Text = ""
    worst: Number | None = None
    estimates: Text = ""
    partial: bool = False
    rises: bool = False

    def __post_init__(self) -> None:
        if self.margin and not 0 < float(self.margin.removesuffix("%")) < math.inf:
            raise ValueError("a margin is a positive number, or one of per cent")


@dataclass(frozen=True, kw_only=True)
class AxisStyle:
    """One coefficient: `bench.space.Axis` as it is stored."""

    name: Text
    low: Number
    high: Number
    symbol: Text = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbol", self.symbol or self.name)


class Display(Struct, kw_only=True):
    """How a task writes what it measures."""

    title: Text = ""  # of the task, in words; "" in older folders
    measures: dict[Text, MeasureStyle]
    axes: Annotated[tuple[AxisStyle, ...], Meta(min_length=1)]
    fronts: tuple[tuple[Text, Text], ...] = ()
    sample_line: Text = ""
    margin_share: Share = 0.10

    def __post_init__(self) -> None:
        names = {axis.name for axis in self.axes}
        if len(names) < len(self.axes) or not all(0 < axis.low < axis.high for axis in self.axes):
            raise ValueError("axes need different names and 0 < low < high")
        for name, style in self.measures.items():  # older heads do not say what is an estimate
            known = name.removesuffix("_estimated")
            if not style.estimates and known != name and known in self.measures:
                self.measures[name] = replace(style, estimates=known)


class Tuning(Struct, kw_only=True):
    variants: Amount = 0
    examples: Amount = 0
    flops: Amount = 0
    preset: Text = ""


class Head(Struct, kw_only=True):
    """What the rows beside it are: one method at one setting. Written last.

    kind, share: see `bench.run.plan.Measurement`; "context" for known curves. models: what the
    cells were when it was measured. sha256: of the rows. tuning: UNSET where it is not known, None
    where there was none.
    """

    id: Text
    task: Text
    preset: Text
    experiment: Text
    method: Text
    seed: Seed
    setting: Text
    cells: tuple[Text, ...]
    display: Display
    # Older versions measured snapshots of networks in mid-training: read, and shown nowhere.
    kind: Literal["method", "swept", "length", "snapshot", "context"] = "method"
    share: Share = 1.0
    split: Text = "test"
    status: Literal["done", "diverged", "failed"] = "done"
    role: Text = ""
    tuned: bool = False
    label: Text = ""
    method_id: Text = ""
    tuning: Tuning | UnsetType | None = UNSET
    outside: tuple[Text, ...] = ()
    reason: Text = ""
    study: Study | None = None
    missing: tuple[Text, ...] = ()
    models: tuple[Text, ...] = ()
    sha256: Text | None = None
    picture_sha256: Text | None = None
    device: Text = ""
    device_name: Text = ""
    answering_flops: Amount | None = None
    provenance: Provenance = field(default_factory=Provenance)
    time: Moment = 0.0

    def __post_init__(self) -> None:
        if self.kind == "context":  # whose points are anything
            return
        setting = parse_setting(self.setting)
        names = [axis.name for axis in self.display.axes]
        if not all(math.isfinite(setting.get(name, math.nan)) for name in names):
            raise ValueError(f"the setting {self.setting!r} does not give {names}")


# Work: what is sent to a process, and what it says ------------------------------------------------


class Job(Struct, kw_only=True):
    """One thing to do. root: the results folder. uses: the folders in it that are needed, the one
    written to first. after: the jobs before it."""

    id: str
    label: str
    root: str
    device: str
    uses: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Train(Job, kw_only=True):
    cell: CellConfig
    shared: bool = False  # others use the device meanwhile


class Recording(Job, kw_only=True):
    """Something to write into the records. path: of the head, as seen from `root`."""

    path: str
    task: Plugin
    head: Head


class Measure(Recording, kw_only=True):
    method: Plugin
    setting: Values
    cells: tuple[CellConfig, ...]


class Context(Recording, kw_only=True):
    """Known curves, and the original of the sample."""


class Event(Struct, kw_only=True):
    job: str  # the id of that which is at work


class Started(Event, kw_only=True):
    pass


class Step(Event, kw_only=True):
    step: int
    steps: int
    loss: float
    terms: dict[str, float] = {}
    examples_per_second: float
    seconds_left: float


class Note(Event, kw_only=True):
    note: str


class Waiting(Event, kw_only=True):
    reason: str  # why it is to be tried again, or cannot begin


class Ended(Event, kw_only=True):
    """Busy (another run has it) and lost (its process is gone) are for `schedule.Driver` alone."""

    how: Literal["finished", "failed", "stopped", "busy", "lost"]
    reason: str = ""
    trace: str = ""


# Files --------------------------------------------------------------------------------------------


class Damaged(ValueError):
    """A stored file is not what was written; the message says which and what to do."""


class OtherVersion(Damaged):
    """It is whole, and this version cannot read it."""


def read(path: Path, kind: type[Kind]) -> Kind:
    """A record of this kind from a JSON file. Raises Damaged, and OSError as `open`."""
    try:
        content = read_object(path)
    except ValueError as error:
        raise Damaged(f"{path} is damaged ({printable(error)}): delete it and run again") from None
    try:
        return from_plain(upgraded(content), kind)
    except (ValueError, RecursionError) as error:
        raise OtherVersion(
            f"{path} is not what this version writes ({printable(error)}): delete it and run "
            "again, or use the version of the suite that wrote it"
        ) from None


def from_plain(content: Any, kind: type[Kind]) -> Kind:
    """A record from JSON's own types; ValueError says where it does not fit."""
    return msgspec.convert(content, kind)


def to_plain(record: Any) -> dict[str, Any]:
    """The inverse of `from_plain`."""
    return msgspec.to_builtins(record)


def text(record: Any) -> str:
    """The JSON of a record, with its own hash."""
    return sealed(to_plain(record))

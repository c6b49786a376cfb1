"""Everything that a results folder stores and that processes tell each other, as typed records.

    done = read(path, Done)            from a file; Damaged, which says where and why
    write_atomic(path, text(done))     the JSON of a record, with its own hash

    DIR/runs/<task>/<method>/<cell id>/   config.json: CellConfig, log.jsonl: LogLine a line,
                                          done.json: Done, failed.json: Failure, lease.json: Holder
    DIR/records/<task>/<method>/<id>.json Head, beside the rows it speaks of
    DIR/configs/<id>.json                 RunConfig

A folder may come from anybody, so types, ranges and lengths are those that tables and figures can
take; what is not named here is not read. Folders of older versions are read through `upgraded`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Text = Annotated[str, Meta(max_length=4000, pattern=r"^[^\0]*$")]
Number = Annotated[float, Meta(gt=-1e30, lt=1e30)]
Amount = Annotated[float, Meta(ge=0, lt=1e30)]  # of no training any cost is larger
Share = Annotated[float, Meta(gt=0, le=1)]
Moment = Annotated[float, Meta(ge=0, lt=1e11)]  # seconds since 1970
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
Values = tuple[Number, ...]  # a setting


# What is trained and compared ---------------------------------------------------------------------


class Plugin(Struct, kw_only=True):
    """A task or method: where its class is, and its fields. `bench.registry.revive` makes it."""

    target: Text = field(name="class")
    fields: dict[str, Any]


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
    snapshots: tuple[Share, ...] = ()


class ExperimentConfig(Struct, kw_only=True):
    task: Plugin
    preset: Text
    settings: tuple[Values, ...]
    seeds: tuple[Seed, ...]
    methods: dict[str, Plugin]
    split: Literal["test", "validation"] = "test"
    snapshots: tuple[Share, ...] = ()
    lengths: tuple[Share, ...] = ()


class RunConfig(Struct, kw_only=True, tag_field="kind", tag="run"):
    experiments: tuple[ExperimentConfig, ...]


# What came of it ----------------------------------------------------------------------------------


class Provenance(Struct, kw_only=True):
    """Where and with what something was made; never part of an id."""

    commit: Text | None = None
    packages: dict[Text, Text] = {}
    platform: Text | None = None
    processor: Text | None = None
    command: Text | None = None
    time: Text | None = None


class Ledger(Struct, kw_only=True):
    """What a training cost; see `bench/cost.py`. None is unknown, as in older folders."""

    steps: Amount | None = None
    examples: Amount | None = None
    flops_per_step: Amount | None = None
    flops: Amount | None = None
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
    bytes: Amount | None = None


class Done(Struct, kw_only=True):
    """A finished cell; written last. `snapshots`: SHA-256 of kept weights, by share."""

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
    snapshots: dict[Text, Text | None] = {}
    ledger: Ledger = field(default_factory=Ledger)
    provenance: Provenance = field(default_factory=Provenance)


class Failure(Struct, kw_only=True):
    """The last try of a cell ended in an error; the next one takes it away."""

    reason: Text
    time: Moment


class MeasureStyle(Struct, kw_only=True, forbid_unknown_fields=True):
    """How one measure is written: `bench.task.Measure` as it is stored."""

    label: Text
    unit: Text = ""
    better: Literal["lower", "higher", ""] = ""
    relative: bool = True
    digits: Annotated[int, Meta(ge=0, le=12)] = 3
    margin: Annotated[str, Meta(pattern=r"^([0-9.eE+-]+%?)?$", max_length=40)] = ""
    worst: Number | None = None
    estimates: Text = ""


class AxisStyle(Struct, kw_only=True):
    """One coefficient: `bench.space.Axis` as it is stored."""

    name: Text
    low: Amount
    high: Amount
    symbol: Text = ""


class Display(Struct, kw_only=True):
    """How a task writes what it measures."""

    measures: dict[Text, MeasureStyle]
    axes: Annotated[tuple[AxisStyle, ...], Meta(min_length=1)]
    fronts: tuple[tuple[Text, Text], ...] = ()
    sample_line: Text = ""
    margin_share: Share = 0.10


class Tuning(Struct, kw_only=True):
    variants: Amount = 0
    examples: Amount = 0
    flops: Amount = 0
    preset: Text = ""


class Head(Struct, kw_only=True):
    """What the rows beside it are: one method at one setting. Written last.

    kind, share: see `bench.run.plan.Measurement`; "context" for known curves. models: what the
    cells were when it was measured. sha256: of the rows. tuning: None where it is not known.
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
    kind: Literal["method", "swept", "length", "snapshot", "context"] = "method"
    share: Share = 1.0
    split: Text = "test"
    status: Literal["done", "diverged", "failed"] = "done"
    role: Text = ""
    tuned: bool = False
    label: Text = ""
    method_id: Text = ""
    tuning: Tuning | None = None
    outside: tuple[Text, ...] = ()
    reason: Text = ""
    missing: tuple[Text, ...] = ()
    models: tuple[Text, ...] = ()
    sha256: Text | None = None
    picture_sha256: Text | None = None
    device: Text = ""
    device_name: Text = ""
    answering_flops: Amount | None = None
    provenance: Provenance = field(default_factory=Provenance)
    time: Moment = 0.0


# Work: what is sent to a process, and what it says ------------------------------------------------


class Job(Struct, kw_only=True):
    """One thing to do. root: the results folder. uses: the folders in it that are needed, the one
    written to first. after: the job that comes before it."""

    id: str
    label: str
    root: str
    device: str
    uses: tuple[str, ...] = ()
    after: str | None = None


class Train(Job, kw_only=True):
    cell: CellConfig
    shared: bool = False  # others use the device meanwhile


class Recording(Job, kw_only=True):
    """Something to write into the records. path: of the head, as seen from `root`."""

    path: str
    task: Plugin
    head: Head


class Measure(Recording, kw_only=True):
    """kept_at: after which share of its training the network is."""

    method: Plugin
    setting: Values
    cells: tuple[CellConfig, ...]
    kept_at: float = 1.0


class Context(Recording, kw_only=True):
    """Known curves, and the original of the sample."""


class Event(Struct, kw_only=True):
    """What is told of a job while it is at work; `job` is its id."""

    job: str


class Started(Event, kw_only=True):
    pass


class Step(Event, kw_only=True):
    step: int
    steps: int
    loss: float
    examples_per_second: float
    seconds_left: float


class Note(Event, kw_only=True):
    note: str


class Waiting(Event, kw_only=True):
    """It is to be tried again, or cannot begin."""

    reason: str


class Ended(Event, kw_only=True):
    """finished, failed, stopped: over for this run. Only between a process and `schedule.Driver`:
    busy, another run has it; lost, the process or its machine is gone."""

    how: Literal["finished", "failed", "stopped", "busy", "lost"]
    reason: str = ""
    trace: str = ""

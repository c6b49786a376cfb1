"""The Task contract: an ordinary PyTorch model with several loss terms.

A task knows nothing of coefficients. It builds a plain model and returns unweighted loss terms
per example; a method (`bench/method.py`) decides which coefficients weight them and what is done
to the model so that it can follow them. `bench/tasks/toy.py` is the smallest whole task.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from bench.identity import identifying, plain
from bench.measure import (
    Measure,
    as_many_at_once,
    class_name,
    derived,
    terms_measured,
    terms_traded,
    words_of_the_name,
)
from bench.modulation import linear_maps
from bench.plugins import installed, loading
from bench.showing import Showing
from bench.space import Setting, Space

# Fields marked so are where things lie on this machine; their content enters ids by its digest.
LOCATION = {"location": True}
FEW = 20  # steps of a task's `smoke` preset, where it has none of its own


def location(line: str, *, several: bool = False, part: bool = False) -> Any:
    """A field that says where something lies on this machine ("" for nowhere): a path, or an
    address. The command line has a flag of its name, and `line` is its help. `several`: it may be a
    list, with `;` between its entries, of which those that are no path stay as they are, as the
    name of an artefact. `part`: its content is part of the experiment (`Task.fields`), and nothing
    else stands in for it where it is gone."""
    marks = {**LOCATION, "line": line, "several": several, "part": part}
    return dataclasses.field(default="", metadata=marks)


def option(line: str) -> Any:
    """A field of text that is part of the experiment, as every other, and for which the command
    line has a flag of its name, with `line` as its help: what goes with a `location`."""
    return dataclasses.field(default="", metadata={"option": True, "line": line})


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every network of a task is trained, whatever the method.

    steps: of the optimiser. batch: examples per step. lr: Adam's peak rate.
    schedule: "one_cycle" rises over the first `warmup` share of the steps and falls to nothing on
        a cosine, "constant" stays, "halving" halves at each of `milestones`.
    warmup, milestones: shares of the steps.
    clip: largest gradient norm; 0 switches clipping off.
    weight_decay: decoupled, times the rate, on the task's model and on weights that
        are mixed into it, never on what else a conditioner has.
    geometric_mean: divide an example's loss by the geometric mean of its terms' weights. The best
        answer per setting stays the same, but no end of the range owns the gradient.
    precision: "fp32"; "tf32" for faster, coarser products on a GPU; or "bf16" for autocast (a task
        keeps what needs fp32 in fp32, whose products are then TF32).
    channels_last: memory format of the model. compile: `torch.compile` of the step.
    """

    steps: int
    batch: int
    lr: float
    schedule: str = "one_cycle"
    warmup: float = 0.3
    milestones: tuple[float, ...] = ()
    clip: float = 0.0
    weight_decay: float = 0.0
    geometric_mean: bool = False
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lr <= 0:
            raise ValueError(f"training needs steps, batch >= 1 and lr > 0, got {self}")
        if self.schedule not in ("one_cycle", "constant", "halving"):
            raise ValueError(f"schedule {self.schedule!r}: use one_cycle, constant or halving")
        if self.precision not in ("fp32", "tf32", "bf16"):
            raise ValueError(f"precision {self.precision!r}: use fp32, tf32 or bf16")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A size of experiment: the task with its fields set, how many settings, which seeds.

    methods: by a method's name, the fields in which it differs from its defaults here.
    lengths: shares of the steps for which the reference and the networks under test are trained,
        too, each with its whole schedule, for quality against compute.
    wants: locations of data without which a run of this size is warned of: one that is meant as
        evidence says little on a few pictures.
    memory: bytes that a process takes to train one of its networks on a CPU, as measured, so that
        several are started at once without trying one first; 0 for unknown.
    """

    task: Task
    settings: int
    seeds: tuple[int, ...]
    line: str
    methods: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    lengths: tuple[float, ...] = ()
    wants: tuple[str, ...] = ()
    memory: int = 0


class Data(Protocol):
    """One split of a task's data. `bench/pictures/data.py` has the kinds that exist."""

    @property
    def digest(self) -> str:
        """Hash of the content; cheap, needs no decoding."""

    def to(self, device: torch.device) -> Data:
        """The same data, resident on `device`."""

    def batch(self, count: int, generator: torch.Generator) -> Any:
        """`count` random training examples on the device; `generator` is a CPU generator."""

    def examples(self) -> Iterator[tuple[str, Any]]:
        """Every example by name, each as a batch of one, in a fixed order."""


class Task(ABC):
    """A frozen, keyword-only dataclass whose fields are the experiment.

    Subclasses set `terms` and what else of the class attributes they want to say, and write
    `space`, `model`, `data` and `losses`; the rest has a default. Every field must be plain
    (numbers, strings, truth values, tuples, dataclasses of these). Raise `version` when the same
    fields come to mean something else: old cells then no longer count.
    """

    name: ClassVar[str] = derived(class_name)  # by default the class's, in small letters
    title: ClassVar[str] = derived(words_of_the_name)  # for people; no part of any id
    version: ClassVar[int] = 1
    line: ClassVar[str] = ""  # what it is, for `list`
    sample_line: ClassVar[str] = ""  # what the pictures of `sample` show, for the figure
    terms: ClassVar[tuple[str, ...]]  # the names of the loss terms
    measurement: ClassVar[int] = 1  # raise it when `measure` comes to mean something else
    measured_at_once: ClassVar[int] = 1  # test examples of one shape, at most, in its batches
    measures: ClassVar[dict[str, Measure]] = derived(terms_measured)  # in the tables' order
    loss: ClassVar[Measure] = Measure(label="loss", better="lower", margin="1%")  # the weighted sum
    # The share of the benefit lost that counts as none (see `bench.report.answers.reference`). A
    # tenth of what the grid's further networks buy: who would not train ten times as many networks
    # for the last tenth may call it none, and two halves of a grid of five differ by more.
    margin_share: ClassVar[float] = 0.10
    fronts: ClassVar[tuple[tuple[str, str], ...]] = derived(terms_traded)  # drawn as trade-offs
    # False where more than tensors changes from one training step to the next (`bench/capture.py`)
    captured: ClassVar[bool] = True
    training: Training

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "name" in vars(cls) and "title" not in vars(cls):  # it has not its parent's
            cls.title = derived(words_of_the_name)
        cls.measured_at_once = as_many_at_once(cls)

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        """The sizes this task comes in: smoke, quick, small, paper (or as many as make sense). By
        default quick, every field at its default, and smoke, the same for a few steps."""
        try:
            task = cls()
        except TypeError as error:
            raise ValueError(
                f"{error}: give every field of the task {cls.name!r} a default, as in "
                "`training: Training = Training(steps=2000, batch=64, lr=1e-3)`, or write presets()"
            ) from None
        smoke = task.trained_with(steps=min(FEW, task.training.steps))
        return {
            "smoke": Preset(task=smoke, settings=3, seeds=(0,), line="a few steps, for tests"),
            "quick": Preset(task=task, settings=5, seeds=(0, 1, 2), line="the task as it is"),
        }

    @property
    @abstractmethod
    def space(self) -> Space:
        """The coefficients; every axis carries the name of a loss term."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A new plain model. The caller has seeded torch."""

    def initialise(self, model: nn.Module) -> None:
        """Set the weights training starts from, where the model's own are not wanted."""

    def sites(self, model: nn.Module) -> list[str]:
        """Names of the layers of `model` a conditioner may modulate; by default every convolution
        and linear layer whose weights are its own."""
        return linear_maps(model)

    def entrances(self, model: nn.Module) -> list[str]:
        """Names of the layers that take the input of the model or of one of its parts (encoder,
        decoder), for methods that show coefficients there; none rules such methods out."""
        return []

    def output(self, model: nn.Module) -> str:
        """Name of the last layer, whose result is the model's, for methods that give it an output
        per setting; "" rules such methods out."""
        return ""

    def halves(self, model: nn.Module) -> dict[str, str]:
        """Of an autoencoder, sites by the half they belong to, "encoder" or "decoder", for methods
        that treat the two differently; {} where the model has no halves."""
        return {}

    def scaling(self, model: nn.Module) -> dict[str, tuple[float, ...]]:
        """What is known of how layers' scales follow the coefficients: by site (see `modulate`),
        one exponent per axis. A conditioner may start from it."""
        return {}

    def wider(self, factor: float) -> Self:
        """The same task with `factor` times the channels, or a ValueError."""
        raise ValueError(f"the task {self.name!r} does not say how to widen its model")

    def ranged(self, factor: float) -> Self:
        """The same task with coefficients in a range whose high end is `factor` times its low end,
        about the same geometric middle, or a ValueError. By default for tasks that have the ends of
        their first axis in fields `low` and `high`."""
        if not {"low", "high"} <= self.fields().keys():
            raise ValueError(f"the task {self.name!r} does not say how to change its range")
        low, high = self.space.axes[0].ranged(factor)
        changed: dict[str, Any] = {"low": low, "high": high}
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def with_coefficients(self, count: int) -> Self:
        """The same task with `count` coefficients instead of its own, each in the same range, or a
        ValueError."""
        own = len(self.space.axes)
        raise ValueError(f"the number of coefficients of the task {self.name!r} is fixed, at {own}")

    @abstractmethod
    def data(self, split: str) -> Data:
        """The split "train", "test", or "validation": examples like those of the test split, to
        choose by. ValueError, with the way out, for a split there is not."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """The unweighted `terms` of the training loss by name, each (B,) float32."""

    def measure(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Measures of a plain model in evaluation mode, each (B,); by default the loss terms.

        Every loss term is among them under its own name: the harness adds `loss`, their weighted
        sum. A measure named by `missing` is left out; NaN means that one example has none.
        """
        return self.losses(model, batch)

    def measure_at(self, model: nn.Module, batch: Any, setting: Setting) -> dict[str, Tensor]:
        """Further measures, each (B,), of which the setting is part: a distance to what is best
        there, a level that was asked for."""
        return {}

    def measure_all(self, model: nn.Module, data: Any) -> dict[str, float]:
        """Measures that belong to the test data as a whole, where a task has some. `data` is the
        test split on the model's device; the records name the example "(all)"."""
        return {}

    def lasting(self, share: float) -> Self:
        """The same task with `share` times the training steps, at least one."""
        return self.trained_with(steps=max(1, round(share * self.training.steps)))

    def trained_with(self, **fields: Any) -> Self:
        """The same task with other fields of its training."""
        training = dataclasses.replace(self.training, **fields)
        return dataclasses.replace(self, training=training)  # type: ignore[type-var]

    def varied(self, *, width: float, steps: float, lr: float, weighting: str) -> Self:
        """The same task with `width` times the channels and `steps` and `lr` times those of its
        training, which "geometric_mean" as `weighting` has divide the loss; see `Training`."""
        task = (self.wider(width) if width != 1 else self).lasting(steps)
        changes: dict[str, Any] = {"lr": lr * self.training.lr} if lr != 1 else {}
        if weighting == "geometric_mean":
            changes["geometric_mean"] = True
        return task.trained_with(**changes)

    def settings(self, count: int) -> tuple[Setting, ...]:
        """The settings a comparison takes by default: the full grid, `count` points an axis."""
        return self.space.grid(count)

    def constants(self) -> dict[str, float]:
        """Numbers measured before any training, shared by all methods and kept with each cell."""
        return {}

    def missing(self) -> dict[str, str]:
        """Measures that cannot be had on this machine: name to the reason and the way out."""
        return {}

    def ready(self, model: nn.Module) -> None:
        """Called once on a plain model in evaluation mode before it is measured or shown."""

    def sample(self, model: nn.Module, batch: Any) -> Tensor | None:
        """The output for a batch of one as a picture, (3, H, W) in [0, 1]; None shows nothing."""
        return None

    def original(self, batch: Any) -> Tensor | None:
        """What `sample` is to be compared with, (3, H, W) in [0, 1]; None where it shows both."""
        return None

    def context(self, batch: Any) -> list[tuple[str, str, dict[str, float]]]:
        """Points of known curves for one test example, drawn behind the methods' own:
        (curve, setting, measures), as ("JPEG", "quality=50", {"bpp": 0.8, "psnr": 32.0})."""
        return []

    def showing(self) -> Showing:
        """What `demo` shows of one example, and `export` writes; see `bench/showing.py`."""
        return Showing(self)

    def fields(self) -> dict[str, Any]:
        """The plain fields that are part of the experiment (locations are not)."""
        return identifying(self)

    def locations(self) -> dict[str, Any]:
        """The fields that say where data lies on this machine."""
        return self._marked("location")

    def surroundings(self) -> dict[str, Any]:
        """Those of `locations` that another machine may have otherwise: not what is a `part`."""
        parts = self._marked("part")
        return {name: place for name, place in self.locations().items() if name not in parts}

    def options(self) -> dict[str, Any]:
        """The fields that are part of the experiment and have a flag of their own."""
        return self._marked("option")

    def _marked(self, mark: str) -> dict[str, Any]:
        return {
            f.name: plain(getattr(self, f.name), f.name)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.metadata.get(mark)
        }

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What makes two trainings of this task the same: fields, space and training data."""
        return {
            "name": self.name,
            "version": self.version,
            "source": source_digest(type(self)),
            "fields": self.fields(),
            "axes": [[axis.name, axis.low, axis.high] for axis in self.space.axes],
            "data": self.data("train").digest,
        }


def source_digest(kind: type) -> str:
    """Hash of a plug-in's own file and of what it imports from beside it, or from its package,
    since a user edits a file without thinking of its version; "" for what ships with the suite and
    carries one, and for a class that is in no file."""
    if kind.__module__.partition(".")[0] in loading.SUITE:
        return ""
    if (packaged := installed.source(kind)) is not None:
        return packaged
    try:
        return loading.digest(Path(inspect.getfile(kind)).resolve())
    except (TypeError, OSError):
        return ""


def weighted(
    space: Space, terms: dict[str, Tensor], coefficients: Tensor, geometric_mean: bool = False
) -> Tensor:
    """Sum of coefficient times term per example: terms (B,), coefficients (B, K) to (B,).

    A term without an axis has weight one; an axis without a term is a ValueError.
    `geometric_mean` divides by the geometric mean of all the terms' weights.

    >>> from bench import Axis
    >>> space = Space((Axis(name="rate", low=1.0, high=9.0),))
    >>> terms = {"rate": torch.tensor([1.0]), "distortion": torch.tensor([3.0])}
    >>> weighted(space, terms, torch.tensor([[4.0]]))
    tensor([7.])
    >>> weighted(space, terms, torch.tensor([[4.0]]), geometric_mean=True)
    tensor([3.5000])
    """
    missing = [name for name in space.names if name not in terms]
    if missing:
        raise ValueError(
            f"the axes {missing} name no loss term: the task's losses() returns {list(terms)}"
        )
    columns = {name: coefficients[:, i] for i, name in enumerate(space.names)}
    parts = [columns[name] * term if name in columns else term for name, term in terms.items()]
    total = torch.stack(parts).sum(0)
    if geometric_mean:
        total = total / torch.exp(coefficients.log().sum(1) / len(terms))
    return total

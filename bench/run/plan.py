"""What a run compares: experiments, the cells they need, and what is measured of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from bench.identity import content_id
from bench.method import Cell, Method
from bench.plugins.names import refuse_names
from bench.registry import DEFAULT_METHODS, UNFIT, sized, sized_as, variants
from bench.run.schema import ExperimentConfig, Plugin, Split
from bench.run.study import PLAIN, Factors, Study, changed, labelled
from bench.space import Setting
from bench.task import Preset, Task

SEEDS = 2**32  # so many; torch, numpy and what is added to a seed have room for them


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One method at one setting, from the cells its model is made of.

    kind: "method" for what is compared, "swept" for a setting between or beyond those compared,
    "length" for networks trained for a `share` of the steps with their whole schedule.
    """

    label: str
    method: Method
    seed: int
    setting: Setting
    cells: tuple[Cell, ...]
    kind: str = "method"
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One task with everything that is compared on it.

    methods: by what tables call them; see `bench.registry.variants`.
    split: what is measured on, "test" or, at the compared settings alone, "validation".
    lengths: shares of the steps, above 0 and at most 1, for which the methods with a `role` are
        trained, too; 1 adds nothing to what is compared.
    study: what it changes of the plain experiment, as one of several (`run --widths`).
    memory: bytes that a process takes to train a network on a CPU, 0 for unknown; see `Preset`.
    """

    task: Task
    preset: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    methods: dict[str, Method]
    split: Split = "test"
    lengths: tuple[float, ...] = ()
    study: Study | None = None
    memory: int = 0

    def __post_init__(self) -> None:
        refuse_names(self.task, self.preset, self.methods)
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
                raise ValueError(f"a seed is a whole number from 0 to {SEEDS - 1}, not {seed!r}")
        distinct = len(set(self.lengths)) == len(self.lengths)
        if not distinct or not all(0 < share <= 1 for share in self.lengths):
            raise ValueError(
                f"lengths {self.lengths}: give different shares of the steps, above 0 and at most "
                "1, as in --lengths 0.25,0.5,1"
            )

    @functools.cached_property
    def id(self) -> str:
        """Changes with the task's fields, its training data and the data measured on."""
        return _id(self.task, self.split)

    @functools.cached_property
    def plans(self) -> dict[tuple[int, str], list[Cell]]:
        """What every method plans, by seed and label."""
        return {
            (seed, label): each.plan(self.task, self.settings, seed)
            for seed in self.seeds
            for label, each in self.methods.items()
        }

    @functools.cached_property
    def shorter(self) -> dict[tuple[int, str, float], list[Cell]]:
        """What methods with a `role` plan for a share of the steps, by seed, label and share."""
        return {
            (seed, label, share): method.plan(self.task.lasting(share), self.settings, seed)
            for seed, label in self.plans
            for share in self.lengths
            if (method := self.methods[label]).role in ("reference", "under test") and share < 1
        }

    def _asked(self, label: str, seed: int) -> Iterator[tuple[str, float, Setting]]:
        """What is measured of a method: its kind, the share of the steps, and the setting."""
        method, compared = self.methods[label], self.settings
        yield from (("method", 1.0, setting) for setting in compared)
        if method.swept and seed == self.seeds[0] and self.split == "test":
            yield from (("swept", 1.0, setting) for setting in self.task.space.sweep(compared))
        lengths = [share for share in self.lengths if (seed, label, share) in self.shorter]
        yield from (("length", *each) for each in itertools.product(lengths, compared))

    @functools.cached_property
    def measurements(self) -> list[Measurement]:
        measurements = []
        for seed, label in itertools.product(self.seeds, self.methods):
            method = self.methods[label]
            for kind, share, setting in self._asked(label, seed):
                shorter = self.shorter.get((seed, label, share)) if kind == "length" else None
                used = method.cells_at(self.task, shorter or self.plans[seed, label], setting)
                measurements.append(
                    Measurement(
                        label=label, method=method, seed=seed, setting=setting, cells=tuple(used),
                        kind=kind, share=share,
                    )
                )  # fmt: skip
        return measurements

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, also where several methods use it, after the one it starts from."""
        plans = itertools.chain(self.plans.values(), self.shorter.values())
        planned = (cell for plan in plans for last in plan for cell in last.chain)
        return list({cell.id: cell for cell in planned}.values())

    def measurement_id(self, measurement: Measurement) -> str:
        return content_id(
            {
                "experiment": self.id,
                "preset": self.preset,
                "label": measurement.label,
                "method": measurement.method.identity,
                "seed": measurement.seed,
                "setting": measurement.setting,
                "cells": [cell.id for cell in measurement.cells],
                "share": measurement.share,
                **({"kind": "length"} if measurement.kind == "length" else {}),
            }
        )

    def config(self) -> ExperimentConfig:
        """The experiment as plain values; `experiment_from` makes it again."""
        named = {each.name for each in dataclasses.fields(self)} - {"memory"}  # of this machine
        fields = {name: getattr(self, name) for name in named}
        methods = {label: Plugin.of(each) for label, each in self.methods.items()}
        return ExperimentConfig(**fields | {"task": Plugin.of(self.task), "methods": methods})


def _id(task: Task, split: str) -> str:
    digest = task.data(split).digest
    return content_id({"task": task.identity, split: digest, "measurement": task.measurement})


def experiment_from(config: ExperimentConfig) -> Experiment:
    """The inverse of `Experiment.config`. ValueError where it is none, or of other code."""
    methods = {label: each.revive(Method) for label, each in config.methods.items()}
    fields = structs.asdict(config) | {"task": config.task.revive(Task), "methods": methods}
    try:
        return Experiment(**fields)
    except UNFIT as error:
        raise ValueError(f"this is no run's configuration, or of other code: {error}") from error


def experiment(
    task: str | Task,
    preset_name: str,
    methods: Sequence[str] | None = None,
    settings: int | None = None,
    seeds: Sequence[int] | None = None,
    locations: dict[str, str] | None = None,
    design: str | None = None,
    split: Split = "test",
    lengths: Sequence[float] | None = None,
    factors: Factors = PLAIN,
) -> Experiment:
    """The experiment a command line asks for. ValueError names what is not known.

    task: as `bench.registry.sized` reads it: a name or file, with fields changed in brackets; or
        an object of a class that a worker finds there.
    methods: as `bench.registry.variants` reads them; by default, those of DEFAULT_METHODS that
        apply; "all" stands for every registered one that does. One that does not is an error.
    locations: those the task has no field for are left aside: they are for other tasks of the run.
    design: replaces the task's own choice of settings: "grid" (`settings` points an axis),
        "one-at-a-time", or "random" (`settings` of them, always the same).
    split: "test" or "validation".
    lengths: see `Experiment`; None takes the preset's, on the test split.
    factors: of a study (`bench/run/study.py`); those of PLAIN change nothing.
    """
    if isinstance(task, str):
        chosen, size = sized(task, preset_name, locations)
    else:
        chosen, size = sized_as(task, preset_name)
    (sized_task, factors), study = changed(chosen.task, factors), None
    if sized_task != chosen.task:
        plain = _id(chosen.task, split)
        study = Study(**factors._asdict(), preset=size, experiment=plain)
        size = labelled(size, factors)
    refuse_names(sized_task, preset_name, {})
    _warn_of_few_pictures(chosen, sized_task, size, split)
    named = _named(methods, chosen.methods, sized_task)
    if study and not any(each.role == "reference" for each in named.values()):
        raise ValueError(
            f"{sized_task.name}: a study compares every size with its reference, one network per "
            "setting: add fixed_grid to --methods"
        )
    count = chosen.settings if settings is None else settings
    compared = _laid_out(sized_task, design, count)
    if lengths is None:
        lengths = chosen.lengths if split == "test" else ()
    return Experiment(
        task=sized_task,
        preset=size,
        settings=tuple(dict.fromkeys(compared)),  # rounded, some may be the same
        seeds=tuple(dict.fromkeys(seeds or chosen.seeds)),
        methods=named,
        split=split,
        lengths=tuple(lengths),
        study=study,
        memory=chosen.memory if size == preset_name else 0,
    )


def _named(
    methods: Sequence[str] | None, presets: dict[str, dict[str, Any]], task: Task
) -> dict[str, Method]:
    """See `experiment`."""
    named: dict[str, Method] = {}
    for text in methods or DEFAULT_METHODS:
        for label, variant in variants(text, presets).items():
            reason = variant.refuses(task)
            if reason and methods and text != "all":
                raise ValueError(f"{label} does not apply to {task.name}: {reason}")
            if named.get(label, variant) != variant:  # a copied file keeps the name of the first
                raise ValueError(f"two methods are called {label!r}: give one another `name`")
            if not reason:
                named[label] = variant
    return named


def _laid_out(task: Task, design: str | None, count: int) -> tuple[Setting, ...]:
    """See `experiment`."""
    if design is None:
        return task.settings(count)
    if design == "grid":
        return task.space.grid(count)
    return task.space.one_at_a_time() if design == "one-at-a-time" else task.space.random(count, 0)


def _warn_of_few_pictures(chosen: Preset, task: Task, size: str, split: str) -> None:
    """A warning where a size that is meant as evidence lacks data of the user's."""
    unused = "test_data" if split == "validation" else "validation_data"
    lacking = [name for name in chosen.wants if not task.locations().get(name) and name != unused]
    if lacking:
        flags = " ".join(f"--{name.replace('_', '-')} DIR" for name in lacking)
        warnings.warn(
            f"{task.name} at {size} uses the few pictures that come with the suite, which are "
            f"no evidence: give {flags}",
            stacklevel=3,
        )


def cell_label(cell: Cell, size: str = "") -> str:
    """How a cell is called in the progress table: task, with the fields changed that its `size`
    says, method, setting if fixed, seed."""
    _, bracket, changed = size.partition("[")
    task = cell.task.name + bracket + changed
    trained = " and ".join(map(cell.task.space.words, cell.trained_for))
    return ", ".join(filter(None, [f"{task} {cell.method.name}", trained, f"seed {cell.seed}"]))

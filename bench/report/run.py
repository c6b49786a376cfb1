"""One run as its files have it: frames, and what every table and figure asks of them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.run.looks import Looks
from bench.run.schema import AxisStyle, MeasureStyle
from bench.run.study import Study
from bench.space import parse_setting

Key = tuple[str, str, str]  # task, preset, experiment


@dataclass(frozen=True, kw_only=True)
class Run:
    """One task, preset and experiment.

    records: long, finite values of methods only. context: the same for known curves, where
    `method` is the curve and `setting` the point. measured: one row per method, seed and setting.
    cells: the trainings behind them, those they continued included.
    swept, swept_records: the same as `measured` and `records` for settings between the compared
    ones and beyond them; lengths, length_records: for networks trained for a `share` of the steps
    with their whole schedule.
    original: the picture that samples show an answer to, if there is one.
    partial: the measures that some examples have none of, whatever the method.
    damaged: a sentence for each measurement that was left out, since its files changed.
    looks: which seeds the verdicts were looked at with (`run --decide`); then no others are in any
    frame, and those left out are `unplanned`.
    study: what it changes of the plain run of its family. family: the runs that differ in that
        alone, itself among them; see `bench/report/answers/studies.py`.
    """

    task: str
    preset: str
    experiment: str
    folder: str  # the name of its report
    title: str  # of the task, in words
    records: pd.DataFrame
    context: pd.DataFrame
    measured: pd.DataFrame
    cells: pd.DataFrame
    swept: pd.DataFrame
    swept_records: pd.DataFrame
    lengths: pd.DataFrame
    length_records: pd.DataFrame
    original: Path | None
    measures: dict[str, MeasureStyle]
    fronts: list[tuple[str, str]]
    axes: list[AxisStyle]  # those that vary in this run
    constant: dict[str, float]  # the others, with their value
    sample_line: str
    superseded: int
    not_finite: int
    infinite: pd.DataFrame  # the rows of methods whose value is infinite, which are in no mean
    margin_share: float  # of the benefit lost that counts as none
    partial: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    looks: Looks | None = None
    unplanned: list[int] = field(default_factory=list)
    study: Study | None = None
    family: list[Run] = field(default_factory=list, repr=False, compare=False)

    @property
    def key(self) -> Key:
        return self.task, self.preset, self.experiment

    @functools.cached_property
    def settings(self) -> list[str]:
        """In coefficient order; on several axes the centre, then one at a time, then the rest."""
        return sorted(self.measured["setting"].unique(), key=self._place)

    @functools.cached_property
    def _heads(self) -> dict[str, dict[str, Any]]:
        """Role, whether tuned and label of every method, those with default fields first."""
        rows = self.measured.drop_duplicates("method", keep="last").set_index("method")
        heads = rows[["role", "tuned", "label"]].to_dict("index")
        return dict(sorted(heads.items(), key=lambda item: ("[" in item[0], item[0])))

    def _of_role(self, role: str) -> list[str]:
        return [method for method, head in self._heads.items() if head["role"] == role]

    def _plain(self, method: str) -> bool:
        """Whether its fields are the default ones, and no tuning's."""
        return not self._heads[method]["tuned"] and "[" not in method

    def is_tuned(self, method: str) -> bool:
        """Whether it is the tuned form of a method: its levers are a search's, of any task."""
        return bool(self._heads[method]["tuned"])

    @functools.cached_property
    def methods(self) -> list[str]:
        """The reference, what is under test as it is by default, then the others by name."""
        first = [*filter(None, [self.reference]), *filter(self._plain, self.under_test)]
        return first + sorted(set(self._heads) - set(first))

    @functools.cached_property
    def reference(self) -> str | None:
        """The method that all are compared with: one network per setting, as it is by default, or
        where that was not measured with levers of its own."""
        grids = self._of_role("reference")
        return next(iter([*filter(self._plain, grids), *grids]), None)

    @functools.cached_property
    def tuned_reference(self) -> str | None:
        """A reference with levers of its own."""
        return next((m for m in self._of_role("reference") if m != self.reference), None)

    @functools.cached_property
    def under_test(self) -> list[str]:
        """The networks told their coefficients, the tuned one first."""
        return sorted(self._of_role("under test"), key=lambda m: not self._heads[m]["tuned"])

    @functools.cached_property
    def floor(self) -> str | None:
        """One network for all settings."""
        return next(iter(self._of_role("floor")), None)

    @functools.cached_property
    def warm(self) -> str | None:
        """The reference made cheaper."""
        return next(iter(self._of_role("warm start")), None)

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

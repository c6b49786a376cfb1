"""What share of the benefit a method loses: 0 is the grid, 1 the single middle network everywhere.

    yard = Yardstick.of(run)                      the reference, examined
    yard.standing("yoto", setting)                share, gaps to both references, verdict
    yard.mean_share("yoto")                       over the settings at which it says something

A setting counts where the benefit is clearly above zero, the reference does not fail, and the
method is not the reference itself.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.report import stats
from bench.report.costs import GRID
from bench.report.load import Run
from bench.report.reference import LOSS, GridLosses, examine, in_percent, margin_of

Array = NDArray[np.float64]
SAME = 1e-6  # losses are recorded as 32-bit floats
NO_PAIRS = stats.paired_interval([math.nan])


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One method at one setting, its loss against both references.

    share: of the benefit lost against the harder one; NaN where there is none to lose.
    gap_best: against the best of the grid, in the units of the gaps.
    is_reference: the method uses the very network that the grid has for the setting.
    verdict: "better", "equal", "worse" or "undecided" against the harder reference; "" where none
    can be given. doubt: its p-value (`stats.doubt`), NaN without a verdict.
    """

    share: stats.Interval
    gap_best: stats.Interval
    is_reference: bool
    reference_fails: bool
    verdict: str
    doubt: float


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """The grid's losses and what `examine` found of them, for all methods of a run."""

    run: Run
    grid: GridLosses
    examined: pd.DataFrame

    @classmethod
    def of(cls, run: Run) -> Yardstick | None:
        """None where there is no fixed grid."""
        if GRID not in run.methods:
            return None
        grid = GridLosses.of(run)
        return cls(run=run, grid=grid, examined=examine(run, grid))

    @functools.cached_property
    def failing(self) -> list[str]:
        """The settings at which the reference fails, in order."""
        return list(self.examined.loc[self.examined["fails"], "setting"])

    @functools.cached_property
    def beneficial(self) -> list[str]:
        """The settings at which there is a benefit to lose, in order."""
        return list(self.examined.loc[self.examined["benefit"].notna(), "setting"])

    @functools.cached_property
    def _losses(self) -> dict[str, Array]:
        """(settings, seeds, examples) per method."""
        records = self.run.records[self.run.records["measure"] == LOSS]
        return {method: self.grid.placed(rows) for method, rows in records.groupby("method")}

    @functools.cached_property
    def _same(self) -> set[tuple[str, str]]:
        """The methods and settings at which a method is the reference: it uses the grid's network
        for the setting in every seed, and where it uses others beside it, the losses are equal."""
        cells = self.run.measured.groupby(["method", "setting"])["cells"].agg(frozenset)
        found = set()
        for method, setting in cells.index:
            used, grid = cells[method, setting], cells.get((GRID, setting), frozenset())
            theirs = {cell for each in used for cell in each}
            if {cell for each in grid for cell in each} <= theirs and method != GRID and grid:
                own = self.losses(method)[self._place(setting)]
                apart = np.abs(own - self.grid.own[self._place(setting)])
                near = apart <= SAME * np.abs(own)
                if used == grid or (near | np.isnan(apart)).all():
                    found.add((method, setting))
        return found

    def losses(self, method: str) -> Array:
        """(settings, seeds, examples) where the grid's stand, NaN where there are none."""
        return self._losses.get(method, self.grid.own * math.nan)

    def _place(self, setting: str) -> int:
        return self.grid.settings.index(setting)

    def is_reference(self, method: str, setting: str) -> bool:
        return method == GRID or (method, setting) in self._same

    def measured(self, method: str) -> list[str]:
        """The settings at which a method and the grid have pairs, in order."""
        there = np.isfinite(self.losses(method) - self.grid.own).any((1, 2))
        return [s for s, some in zip(self.grid.settings, there, strict=True) if some]

    def seeds(self, method: str) -> int:
        """How many seeds a method has in common with the grid."""
        return int(np.isfinite(self.losses(method) - self.grid.own).any((0, 2)).sum())

    def counted(self, method: str) -> list[str]:
        """The settings over which means of a method are taken: those at which it was measured,
        is not the reference itself, and the reference does not fail."""
        return [
            setting
            for setting in self.measured(method)
            if setting not in self.failing and not self.is_reference(method, setting)
        ]

    def share(self, method: str, settings: list[str]) -> stats.Interval:
        """The share of the benefit lost, mean over the settings, each counting alike."""
        places = [self._place(setting) for setting in settings]
        if not places:
            return NO_PAIRS
        hard = self.grid.hard[places]
        return stats.mean_ratio_interval(
            self.losses(method)[places] - hard, self.grid.single[places] - hard
        )

    def mean_share(self, method: str) -> tuple[stats.Interval, list[str]]:
        """Over all settings that say something, and which these are."""
        settings = [s for s in self.counted(method) if s in self.beneficial]
        return self.share(method, settings), settings

    def standing(self, method: str, setting: str) -> Standing:
        """Of a method that is not the grid."""
        place, style = self._place(setting), self.run.measures[LOSS]
        own = self.losses(method)[place]
        hard, best = self.grid.hard[place], self.grid.best[place]
        fails, same = setting in self.failing, self.is_reference(method, setting)
        lost = setting in self.beneficial and not fails and not same
        share = self.share(method, [setting]) if lost else NO_PAIRS
        if lost:
            found, margin = share, self.run.margin_share
        else:
            found, margin = self._gap(own, hard), margin_of(style)
        silent = fails or same or math.isnan(margin) or found.seeds < stats.ENOUGH_SEEDS
        return Standing(
            share=share,
            gap_best=self._gap(own, best),
            is_reference=same,
            reference_fails=fails,
            verdict="" if silent else stats.verdict(found, margin, "lower"),
            doubt=math.nan if silent else stats.doubt(found, margin),
        )

    def _gap(self, method: Array, reference: Array) -> stats.Interval:
        """In the units of the gaps: (seeds, examples) each."""
        if in_percent(self.run.measures[LOSS]):
            return stats.scaled(stats.paired_ratio_interval(method, reference), 100)
        return stats.paired_interval(method - reference)

    def decidedly_worse(self, method: str) -> list[str]:
        """The sound settings at which a method is worse, after Holm's correction over them."""
        settings = self.counted(method)
        standings = [self.standing(method, setting) for setting in settings]
        stands = stats.holm([standing.doubt for standing in standings])
        return [
            setting
            for setting, standing, sure in zip(settings, standings, stands, strict=True)
            if sure and standing.verdict == "worse"
        ]

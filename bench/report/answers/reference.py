"""The reference examined, and what share of its benefit a method loses: 0 is the grid, 1 the single
middle network everywhere.

    examine(run)                            per setting: does another network do better there?
    yard = Yardstick.of(run)                None where there is no grid
    yard = Yardstick.tuned(run)             the tuned grid in its place; None where there is none
    yard.share("yoto", settings)            of the benefit lost, mean over settings
    yard.standing("yoto", setting)          that, the gap to the best of the grid, the verdict

The loss of any network at any setting is a weighted sum of its recorded terms, so nothing is
measured for it. Where another network of the grid is better than the one trained for a setting, by
more than what counts as none, the reference fails: of a method that is better or worse than such a
network nothing follows, and nothing is said. A setting counts where the benefit is clearly above
zero, the reference does not fail, and the method is not the reference itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.report.answers import stats
from bench.report.answers.spending import judged
from bench.report.load import MeasureStyle, Run
from bench.report.once import once
from bench.report.text import estimate, one_line
from bench.run.records import WHOLE

LOSS = "loss"
SAME = 1e-6  # losses are recorded as 32-bit floats
NO_PAIRS = stats.paired_interval([math.nan])
Array = NDArray[np.float64]

EXAMINED = [
    *("setting", "own", "rival", "rival_loss", "lost", "low", "high", "interval"),
    *("benefit", "margin", "fails", "why"),
]


def in_percent(style: MeasureStyle) -> bool:
    """Whether gaps of this measure are per cent of the grid's mean."""
    return style.margin.endswith("%") or (style.relative and not style.margin)


def margin_of(style: MeasureStyle) -> float:
    """The equivalence margin in the units of the gap; NaN without one."""
    return float(style.margin.removesuffix("%")) if style.margin else math.nan


def examine(run: Run) -> pd.DataFrame:
    """One row per setting: whether the network trained for it is what others may be measured by.

    own: its mean loss there. rival: the setting of the grid's network that does best there (its
        own where that is the best). rival_loss: what the best of the grid loses there, chosen by
        the other seeds on the other half of the examples. Both in the loss's unit.
    lost, low, high: own - best of grid with its 95 % interval, paired by seed and example, in the
        units of the gaps: per cent of the best, or the loss's unit.
    benefit: what the single middle network loses more than the harder of the two, in the loss's
        unit; NaN where its interval does not exclude nothing.
    margin: in the units of `lost`: `margin_share` of the benefit; NaN without one, and the margin
        of the loss itself counts.
    fails: the interval of what is lost lies beyond the margin. why: in a sentence, plain text.
    """
    yard = Yardstick.of(run)
    return yard.examined.copy() if yard else pd.DataFrame(columns=EXAMINED)


class Yardstick:
    """What the grid's networks lose at every setting: (settings, seeds, examples), NaN where they
    were not measured.

    trained, best: of the network trained for the setting, and of the one that does best there,
        chosen by other seeds and on other examples; see `best_of`.
    hard: whichever of the two is lower in the mean: the reference of every verdict.
    single: of the network for the middle of the range, used everywhere.
    """

    def __init__(self, run: Run, reference: str) -> None:
        grid = run.records[run.records["method"] == reference]
        grid = grid[grid["example"] != WHOLE]
        self.run, self.reference, self.percent = run, reference, in_percent(run.measures[LOSS])
        self.axes = (run.settings, sorted(grid["seed"].unique()), sorted(grid["example"].unique()))
        networks = self._reweighted(grid)
        places = np.arange(len(run.settings))
        self.trained = networks[places, places]
        self.single = networks[run.settings.index(run.middle)]
        self.best, self.rivals = best_of(networks, self.trained)
        with np.errstate(invalid="ignore"):
            harder = _mean(self.best - self.trained) < 0
        self.hard = np.where(harder[:, None, None], self.best, self.trained)
        rows = [self._examined(place) for place in places]
        self.examined = pd.DataFrame(rows, columns=EXAMINED)  # see `examine`
        self.failing = list(self.examined.loc[self.examined["fails"], "setting"])
        self.beneficial = list(self.examined.loc[self.examined["benefit"].notna(), "setting"])

    @staticmethod
    @once
    def of(run: Run) -> Yardstick | None:
        return Yardstick(run, run.reference) if run.reference is not None else None

    @staticmethod
    @once
    def tuned(run: Run) -> Yardstick | None:
        """The tuned grid as the reference, its own middle network the one used everywhere."""
        return Yardstick(run, run.tuned_reference) if run.tuned_reference is not None else None

    def placed(self, records: pd.DataFrame, measure: str) -> Array:
        """One method's values of a measure where the grid's stand: (settings, seeds, examples)."""
        rows = records[records["measure"] == measure].set_index(["setting", "seed", "example"])
        values = rows["value"].reindex(pd.MultiIndex.from_product(self.axes))
        return values.to_numpy(float).reshape([len(axis) for axis in self.axes])

    def _reweighted(self, grid: pd.DataFrame) -> Array:
        """(settings, settings, seeds, examples): the network trained for the first, scored with the
        coefficients of the second.

        The terms without a coefficient, and those of constant ones, are in the recorded loss; what
        changes from setting to setting is what the moving coefficients add."""
        coefficients = np.array([self.run.values(setting) for setting in self.run.settings])
        losses = np.repeat(self.placed(grid, LOSS)[:, None], len(coefficients), 1)
        for place, axis in enumerate(self.run.axes):
            change = coefficients[None, :, place] - coefficients[:, None, place]
            change = change[:, :, None, None]
            added = change * self.placed(grid, axis.name)[:, None]
            losses += np.where(change == 0, 0.0, added)
        return losses

    def _examined(self, place: int) -> dict[str, Any]:
        """A row of `examine`."""
        run, trained, best = self.run, self.trained[place], self.best[place]
        lost = stats.gap_interval(trained, best, percent=self.percent)
        gained = stats.paired_interval(self.single[place] - self.hard[place])
        benefit = gained.estimate if gained.low > 0 else math.nan
        margin = run.margin_share * benefit
        if self.percent:
            margin /= abs(float(_mean(best))) / 100
        none = np.nan_to_num(margin_of(run.measures[LOSS])) if math.isnan(margin) else margin
        setting, rival = run.settings[place], run.settings[self.rivals[place]]
        fails = bool(lost.low > none)
        loss, rival_loss = float(_mean(trained)), float(_mean(best))
        words = loss_words(run, lost.estimate, (lost.low, lost.high))
        why = f"the network trained for {setting_words(run, setting)} loses {words} there against "
        why += f"the one for {setting_words(run, rival)}"
        why += "" if fails else ", which is within the margin or undecided"
        if rival == setting:
            why = "no other network of the grid does better there"
        if math.isnan(loss):
            why = "the grid was not measured there"
        row = {"setting": setting, "own": loss, "rival": rival, "rival_loss": rival_loss}
        row |= {**lost.columns("lost"), "interval": lost.method, "benefit": benefit}
        return row | {"margin": margin, "fails": fails, "why": why}

    @functools.cached_property
    def _losses(self) -> dict[str, Array]:
        by_method = self.run.records.groupby("method")
        return {str(method): self.placed(rows, LOSS) for method, rows in by_method}

    def losses(self, method: str) -> Array:
        """(settings, seeds, examples) where the grid's stand, NaN where there are none."""
        return self._losses.get(method, self.trained * math.nan)

    @functools.cached_property
    def _same(self) -> set[tuple[str, str]]:
        """The methods and settings at which a method is the reference: it uses the grid's network
        for the setting in every seed, and where it uses others beside it, the losses are equal."""
        networks = self.run.measured.groupby(["method", "setting"])["cells"].agg(frozenset)
        same = set()
        for (method, setting), used in networks.items():
            grid = networks.get((self.reference, setting))
            if grid and frozenset().union(*grid) <= frozenset().union(*used):
                place = self.run.settings.index(setting)
                losses = self.losses(method)[place]
                apart = np.abs(losses - self.trained[place]) > SAME * np.abs(losses)
                if used == grid or not apart.any():
                    same.add((method, setting))
        return same

    def is_reference(self, method: str, setting: str) -> bool:
        """Whether the method uses the very network that the grid has for the setting."""
        return method == self.reference or (method, setting) in self._same

    def measured(self, method: str) -> list[str]:
        """The settings at which a method and the grid have pairs, in order."""
        with_pairs = np.isfinite(self.losses(method) - self.trained).any((1, 2))
        return [s for s, some in zip(self.run.settings, with_pairs, strict=True) if some]

    def seeds(self, method: str) -> int:
        """How many seeds a method has in common with the grid."""
        return int(np.isfinite(self.losses(method) - self.trained).any((0, 2)).sum())

    def counted(self, method: str) -> list[str]:
        """The settings over which means of a method are taken: those at which it was measured,
        is not the reference itself, and the reference does not fail."""
        measured = [s for s in self.measured(method) if s not in self.failing]
        return [setting for setting in measured if not self.is_reference(method, setting)]

    def share(self, method: str, settings: list[str]) -> stats.Interval:
        """The share of the benefit lost, mean over the settings, each counting alike; where looks
        are at the method, with the interval of this one."""
        places = [self.run.settings.index(setting) for setting in settings]
        if not places:
            return NO_PAIRS
        hard = self.hard[places]
        lost, benefit = self.losses(method)[places] - hard, self.single[places] - hard
        return judged(self.run, stats.mean_ratio_interval(lost, benefit), method)

    def standing(self, method: str, setting: str) -> dict[str, Any]:
        """The columns of `compare.comparisons` that only the loss of a method has, against both
        references. share: of the benefit lost against the harder one; NaN where there is none to
        lose. gap_best: to the best of the grid, in the units of the gaps. verdict: against the
        harder reference, "" where none can be given. doubt: its p-value, NaN without one."""
        place, style = self.run.settings.index(setting), self.run.measures[LOSS]
        losses, sound = self.losses(method)[place], setting in self.counted(method)
        if sound and setting in self.beneficial:
            share = told = self.share(method, [setting])
            margin = self.run.margin_share
        else:
            share, margin = NO_PAIRS, margin_of(style)
            told = stats.gap_interval(losses, self.hard[place], percent=self.percent)
            told = judged(self.run, told, method)
        silent = not sound or math.isnan(margin) or told.seeds < stats.ENOUGH_SEEDS
        best = stats.gap_interval(losses, self.best[place], percent=self.percent)
        best = judged(self.run, best, method)
        return {
            "verdict": "" if silent else stats.verdict(told, margin, "lower"),
            "doubt": math.nan if silent else stats.doubt(told, margin),
            **best.columns("gap_best", "gap_best_"),
            **share.columns("share", "share_"),
        }

    def decidedly_worse(self, method: str) -> bool:
        """Whether it is so at a sound setting, after Holm's correction over them."""
        standings = [self.standing(method, setting) for setting in self.counted(method)]
        stands = stats.holm([standing["doubt"] for standing in standings])
        worse = [standing["verdict"] == "worse" for standing in standings]
        return bool((stands & np.array(worse, bool)).any())


def best_of(networks: Array, trained: Array) -> tuple[Array, list[int]]:
    """The losses of the grid's best network at every setting, and which it is on all examples.

    For each seed and half of the examples it is chosen by the other seeds on the other half:
    chosen on what it is scored on, the luckiest of several equal networks would pass for better
    than the setting's own. One example cannot be halved, and one seed chooses for itself.
    networks: (settings, settings, seeds, examples), as `_reweighted`; trained: their diagonal.
    """
    _, seeds, examples = trained.shape
    even = np.arange(examples) % 2 == 0
    best, chosen = trained.copy(), []
    for at in range(len(trained)):
        lead = networks[:, at] - trained[at]  # (networks, seeds, examples), 0 for that one
        for seed in range(seeds):
            others = np.arange(seeds) != seed if seeds > 1 else [True]
            for scored in (even, ~even) if examples > 1 else (even,):
                choosing = ~scored if examples > 1 else scored
                place = _lowest(lead[:, others][..., choosing], at)
                best[at, seed, scored] = networks[place, at, seed, scored]
        chosen.append(_lowest(lead, at))
    return best, chosen


def _lowest(lead: Array, default: int) -> int:
    """The network with the lowest mean of its losses less the default's; that one in doubt."""
    means = _mean(lead)
    means = np.where(np.isnan(means), np.inf, means)
    means[default] = 0.0
    place = int(means.argmin())
    return place if means[place] < 0 else default


def _mean(values: Array) -> Array:
    """Over the last two axes, NaN left out; NaN where nothing is there."""
    finite = np.isfinite(values)
    count = finite.sum((-1, -2))
    total = np.where(finite, values, 0.0).sum((-1, -2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def loss_words(run: Run, gap: float, ends: Sequence[float] = ()) -> str:
    """A gap of the loss with its unit: `134 nats [98, 170]`."""
    style = run.measures[LOSS]
    unit, digits = ("%", 1) if in_percent(style) else (one_line(style.unit), style.digits)
    size, _, bounds = estimate(gap, ends, digits).partition(" ")
    return " ".join(filter(None, [size, unit, bounds]))


def setting_words(run: Run, setting: str) -> str:
    """`λ = 0.18`, `s1 = 10` or `the centre`."""
    label = run.labels()[setting]
    if len(run.axes) == 1:
        return f"{one_line(run.axes[0].symbol)} = {label}"
    return f"{'the ' if label == 'centre' else ''}{one_line(label)}"


def failing(run: Run) -> list[str]:
    """The settings at which another network of the grid does better than the one trained for them:
    there nothing is said to be better or worse."""
    yard = Yardstick.of(run)
    return list(yard.failing) if yard else []

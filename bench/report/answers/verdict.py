"""What is said of one method over all settings, and what is left unsaid.

No verdict where the reference fails, where the seeds are fewer than three, or where one network
does as well everywhere; a mean that hides a setting at which a method is decidedly worse is mixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bench.report.answers import spending, stats
from bench.report.answers.reference import NO_PAIRS, Yardstick, setting_words
from bench.report.load import Run

FAILS = "no verdict: the reference fails"
NO_BENEFIT = "no verdict: one network does as well"
MIXED = "mixed"
ORIENTATION = {1: "one seed: orientation", 2: "two seeds: orientation"}
POWER = 0.8
MOST_SEEDS = 1000


def under_test(run: Run) -> str | None:
    """The method the sentence is about: a network told its coefficients, the tuned one first."""
    return next(iter(run.under_test), None)


def judge(yard: Yardstick | None, method: str) -> dict[str, Any]:
    """The columns of `compare.overall` on the share of the benefit lost, mean over
    `share_settings` settings.

    verdict: "better", "equal", "worse", "undecided", "mixed", or why there is none; "" where
    nothing was measured. doubt: its p-value, NaN without one. share_worst: the largest share of a
    setting, with the setting. power: how likely "equal" was, had the share been nothing.
    seeds_needed: how many seeds would settle what is undecided, inf for more than can be said, and
    seeds_more: how many these are beyond those there are.
    """
    share, settings, seeds, verdict = NO_PAIRS, [], 0, ""
    worst: tuple[float, str] = (math.nan, "")
    margin = yard.run.margin_share if yard else math.nan
    if yard and method != yard.reference and yard.measured(method):
        settings = [s for s in yard.counted(method) if s in yard.beneficial]
        share, seeds = yard.share(method, settings), yard.seeds(method)
        verdict = _verdict(yard, method, share, settings)
        shares = [(yard.share(method, [setting]).estimate, setting) for setting in settings]
        worst = max(shares, key=lambda pair: pair[0], default=worst)
    enough = seeds >= stats.ENOUGH_SEEDS
    silent = verdict.startswith("no verdict") or not enough or not settings
    needed = math.nan
    if verdict == "undecided":
        needed = stats.seeds_to_settle(share, margin, POWER, MOST_SEEDS, _tails(yard, method))
    return {
        **share.columns("share_mean", "share_"),
        "share_worst": worst[0],
        "share_worst_setting": worst[1],
        "share_settings": len(settings),
        "verdict": verdict,
        "doubt": math.nan if silent else stats.doubt(share, margin),
        "power": stats.power_of(share, margin) if enough else math.nan,
        "seeds_needed": needed,
        "seeds_more": needed - share.seeds,
    }


def _tails(yard: Yardstick | None, method: str) -> Callable[[int], float]:
    """What its interval leaves on either side, by the number of seeds."""
    looked = yard is not None and method in yard.run.under_test
    return lambda seeds: spending.tail(yard.run, seeds) if yard and looked else stats.TAIL


def settled(yard: Yardstick | None, method: str, verdict: str, most: int) -> bool:
    """Whether further seeds, up to so many, need not be waited for: there is a verdict, or what is
    in its way would not go away. Where no benefit of the grid is seen, that is so if at this spread
    none would be seen at any setting with that many seeds."""
    if verdict == NO_BENEFIT and yard:
        for single, hard in zip(yard.single, yard.hard, strict=True):
            gained = stats.paired_interval(single - hard)
            if gained.estimate > 0 and stats.seeds_to_settle(gained, 0.0, POWER, most) <= most:
                return False
    return verdict != "undecided" and verdict not in ORIENTATION.values()


def _verdict(yard: Yardstick, method: str, share: stats.Interval, settings: list[str]) -> str:
    if (seeds := yard.seeds(method)) < stats.ENOUGH_SEEDS:
        return ORIENTATION[seeds]
    measured = yard.measured(method)
    if failing := [setting for setting in yard.failing if setting in measured]:
        return f"{FAILS} at {', '.join(setting_words(yard.run, setting) for setting in failing)}"
    if not settings:
        return NO_BENEFIT if yard.counted(method) else ""
    verdict = stats.verdict(share, yard.run.margin_share, "lower")
    mixed = verdict in ("equal", "better") and yard.decidedly_worse(method)
    return MIXED if mixed else verdict

"""Verdicts that are looked at after every seed (`run --decide`): the 5 % are spent over the looks.

    tails(20)[5]                            on either side, at 5 seeds of at most 20
    judged(run, "yoto", interval)           the interval that a verdict of this look is from

Looked at after each of twenty seeds, a 95 % interval misses a gap on the margin 22 % of the time at
some look. So by the look at n seeds of at most N no more is spent than Pocock's function allows,
α ln(1 + (e - 1) n / N) (Lan & DeMets 1983), and the intervals are repeated confidence intervals
(Jennison & Turnbull 1989): with 95 % confidence all of them cover at once, so that what any of them
says may be said, whatever led to stop there, and a look that was left out costs nothing but power.
That function, since O'Brien and Fleming's leaves next to nothing for the first seeds.

The levels are exact for independent normal seeds of unknown variance. The intervals are Student's
about the estimate, from the standard errors of seeds and of examples (`stats.half_width`): a
bootstrap of three seeds has no tails to take a level of 0.3 % from.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import stdtr

from bench.report.answers import stats
from bench.report.load import Run

LEVEL = 2 * stats.TAIL
BINS, ANGLES = 1000, 300


def spent(part: float) -> float:
    """Of the level, when this part of the seeds is there."""
    return LEVEL * math.log(1 + (math.e - 1) * part)


@functools.lru_cache(maxsize=16)
def tails(most: int) -> dict[int, float]:
    """By the number of seeds, what an interval of that look leaves on either side, if each number
    of seeds from three to `most` is looked at.

    Student's t of the first n normal values is a function of C = sum / sqrt(sum of squares), and
    with one more value C becomes C cos a + sin a, where a is independent of all before and has a
    density proportional to cos(a)^(n-1) (the new value's angle in n + 1 dimensions). So |C| is a
    Markov chain; here its density where no look has ended it is followed on a grid, and each look
    ends what its share of the level takes from the top (Armitage, McPherson & Rowe 1969).
    """
    nodes, weights = np.polynomial.legendre.leggauss(ANGLES)
    angles = nodes * math.pi / 2
    places, mass = np.array([1.0]), np.array([1.0])  # of |C|, which is one for a single value
    found: dict[int, float] = {}
    for n in range(2, most + 1):
        density = weights * np.cos(angles) ** (n - 2)
        moved = np.abs(places[:, None] * np.cos(angles) + np.sin(angles)).ravel()
        step = math.sqrt(n) / BINS
        whole = np.minimum((moved / step).astype(int), BINS - 1)
        above = moved / step - whole
        carried = (mass[:, None] * density / density.sum()).ravel()
        mass = np.bincount(whole, carried * (1 - above), BINS + 1)
        mass += np.bincount(whole + 1, carried * above, BINS + 1)
        places = np.arange(BINS + 1) * step
        if n < stats.ENOUGH_SEEDS:
            continue
        before = spent((n - 1) / most) if found else 0.0
        edges = np.maximum(places - step / 2, 0)  # below each place; the mass from there on:
        beyond = np.cumsum(mass[::-1])[::-1]
        end = float(np.interp(before - spent(n / most), -beyond, edges))
        mass = mass * np.clip((end - edges) / step, 0, 1)
        found[n] = float(stdtr(n - 1, -end * math.sqrt((n - 1) / (n - end**2))))
    return found


def tail(run: Run, seeds: int) -> float:
    """Of an interval of a network under test, at so many seeds."""
    if run.looks is None:
        return stats.TAIL
    found = tails(len(run.looks.seeds))
    return found[min(max(seeds, stats.ENOUGH_SEEDS), max(found))]


def judged(run: Run, interval: stats.Interval, *methods: str) -> stats.Interval:
    """The interval from which a verdict on these methods is taken: itself, or where a look is at
    one of them, that of the look."""
    if run.looks is None or not set(methods) & set(run.under_test):
        return interval
    return stats.repeated(interval, tail(run, interval.seeds))

"""The statistics of a report: plain functions of arrays, which know no files and no tasks.

    gap = paired_interval(seed_by_example(pairs, "gap"))        mean gap with a 95 % interval
    verdict(gap, margin=0.05, better="lower")                   better, equal, worse or undecided
    holm([doubt(gap, 0.05), ...])                               which claims stand together

A number that cannot be given is NaN, and an interval's `method` says why.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]
Parts = list[tuple[float, int]]  # independent squared standard errors, their degrees of freedom

TAIL = 0.025  # on either side of a 95 % interval
ENOUGH_SEEDS = 3  # to resample them; fewer say too little about the next one
RESAMPLES = 4000
ROUNDING = 1e-12  # differences this small against the values they come from are none


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % interval, or one that leaves `tail` on either side. `method` says how it was made, or
    why `low` and `high` are NaN.

    seeds, examples: how many the estimate rests on, whether or not they were resampled.
    of_seeds, of_examples: the squared standard errors that they bring; 0 where not known.
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan
    method: str
    seeds: int
    examples: int
    of_seeds: float = 0.0
    of_examples: float = 0.0
    tail: float = TAIL

    def parts(self, seeds: int) -> Parts:
        """The standard error at this spread, with so many seeds and the same examples."""
        of_seeds = self.of_seeds * (self.seeds / seeds)
        return [(of_seeds, seeds - 1), (self.of_examples, self.examples - 1)]

    def columns(self, name: str, ends: str = "") -> dict[str, float]:
        """How a frame has it: `<name>`, `<ends>low` and `<ends>high`."""
        return {name: self.estimate, f"{ends}low": self.low, f"{ends}high": self.high}


def seeds_interval(estimate: float, by_seed: ArrayLike) -> tuple[float, float]:
    """Student's 95 % interval about an estimate for which seeds can only be taken whole (a BD-rate,
    a hypervolume): (seeds,) values of one each. NaN for fewer than three, or where one is NaN."""
    values = np.asarray(by_seed, float)
    if len(values) < ENOUGH_SEEDS or not np.isfinite(values).all():
        return math.nan, math.nan
    half = student_half_width([(float(values.var(ddof=1)) / len(values), len(values) - 1)])
    return estimate - half, estimate + half


def seed_by_example(frame: pd.DataFrame, value: str) -> Array:
    """The column `value` of a long frame with `seed` and `example`: (seeds, examples), NaN where
    a pair is absent. ValueError where a pair occurs twice."""
    seeds, seed_names = pd.factorize(frame["seed"], sort=True)
    examples, example_names = pd.factorize(frame["example"], sort=True)
    cells = np.full(len(seed_names) * len(example_names), np.nan)
    place = seeds * len(example_names) + examples
    if len(np.unique(place)) < len(frame):
        raise ValueError("a seed and example occur twice: choose one method, setting and measure")
    cells[place] = frame[value].to_numpy(float)
    return cells.reshape(len(seed_names), len(example_names))


def paired_interval(differences: ArrayLike) -> Interval:
    """The mean difference over all seeds and examples with its 95 % interval.

    differences: method minus reference, (seeds, examples) or (examples,) of one seed; NaN where a
    pair is absent, and a lost pair moves the mean as it does in a plain mean over pairs.

    Three seeds or more: hierarchical bootstrap; seeds are resampled, then examples, once for all
    seeds, since all are measured on the same (Owen 2007): drawing anew for each would count one
    hard picture as several independent ones, and in simulation covers as little as 35 %. Fewer
    seeds: BCa (Efron 1987) over the examples, seeds averaged, and "images only", because it knows
    nothing of another seed. With one example, three seeds are "seeds only" and fewer have no
    interval. Equal differences have one of width zero.

    Both are then widened about the estimate by what Student's t demands for so few seeds and
    examples (Hesterberg 2015; Satterthwaite's degrees of freedom). Without that, resampling three
    seeds covers at most 1 - 2/2³ = 75 % of the time where the seeds matter most, and two pictures
    50 %; with it, simulated coverage is 89 to 99 %, for very skewed differences of eight pictures
    or fewer about 86 %.
    """
    values = np.atleast_2d(np.asarray(differences, float))
    return mean_ratio_interval(values[None], np.where(np.isnan(values), np.nan, 1.0)[None])


def gap_interval(method: ArrayLike, grid: ArrayLike, *, percent: bool) -> Interval:
    """The gap of a method to the grid with its 95 % interval: mean(method - grid), or, where zero
    means something, that in per cent of |mean(grid)|, which is resampled with it.

    Both (seeds, examples) or (examples,), in the same order; a pair counts where both are there.
    ValueError for different shapes.
    """
    first, second = (np.atleast_2d(np.asarray(part, float)) for part in (method, grid))
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal shapes, got {first.shape} and {second.shape}")
    pairs = first - second
    if not percent:
        return paired_interval(pairs)
    base = np.where(np.isnan(pairs), np.nan, second) / 100
    return mean_ratio_interval(pairs[None], (base * np.sign(np.nansum(base)))[None])


def mean_ratio_interval(numerators: ArrayLike, denominators: ArrayLike) -> Interval:
    """The mean over the first axis of sum(numerator) / sum(denominator), with its 95 % interval.

    Both (ratios, seeds, examples), NaN where a pair is absent; every ratio counts alike. The
    interval is as in `paired_interval`; all are resampled together. "no pairs" without ratios, or
    where one of them has none.
    """
    numerator, denominator = np.asarray(numerators, float), np.asarray(denominators, float)
    if numerator.shape != denominator.shape or numerator.ndim != 3:
        shapes = f"{numerator.shape}, {denominator.shape}"
        raise ValueError(f"ratios need two equal shapes of three, got {shapes}")
    finite = np.isfinite(numerator) & np.isfinite(denominator)
    kept = np.ix_(np.full(len(finite), True), finite.any((0, 2)), finite.any((0, 1)))
    finite = finite[kept]
    above, below = (np.where(finite, part[kept], 0.0) for part in (numerator, denominator))
    ratios, seeds, examples = finite.shape
    interval = functools.partial(Interval, seeds=seeds, examples=examples)
    total = below.sum((1, 2), keepdims=True)
    if not ratios or not finite.any((1, 2)).all():
        return interval(estimate=math.nan, method="no interval: no pairs")
    if (total == 0).any():
        return interval(estimate=math.nan, method="no interval: the reference is zero")

    ratio_of_sums = above.sum((1, 2), keepdims=True) / total
    estimate = float(ratio_of_sums.mean())
    few = seeds < ENOUGH_SEEDS
    if few and examples < 2:
        return interval(estimate=estimate, method="no interval: one image only")
    residual = above - ratio_of_sums * below
    residual[np.abs(residual) <= ROUNDING * np.abs(above).max((1, 2), keepdims=True)] = 0
    # What each pair adds to the estimate's deviation, and its share of the denominator.
    deviation, share = residual / total / ratios, below / total
    if few:
        deviation, share = deviation.sum(1, keepdims=True), share.sum(1, keepdims=True)
        name = "BCa, images only"
    else:
        name = "hierarchical bootstrap" + (", seeds only" if examples < 2 else "")
    drawn = _resampled(deviation, share) if deviation.any() else np.zeros(1)
    if not drawn.any():  # equal differences, or ratios whose deviations cancel
        return interval(estimate=estimate, low=estimate, high=estimate, method=name)
    ends = _bca_tails(drawn, deviation[:, 0], share[:, 0]) if few else [TAIL, 1 - TAIL]
    parts = _error_parts(deviation.sum(0))
    widening = student_half_width(parts) / float(-ndtri(TAIL) * drawn.std())
    low, high = (estimate + widening * np.quantile(drawn, ends)).tolist()
    (of_seeds, _), (of_examples, _) = parts
    return interval(
        estimate=estimate, low=low, high=high, method=name, of_seeds=of_seeds,
        of_examples=of_examples,
    )  # fmt: skip


@functools.lru_cache(maxsize=16)
def _weights(count: int, resamples: int, stream: int) -> Array:
    """How often each of `count` units is drawn in each resample: (resamples, count). The same draws
    for every table and figure, so that equal data have equal intervals."""
    generator = np.random.default_rng((count, stream))
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def _resampled(deviation: Array, share: Array) -> Array:
    """The resampled statistic's deviations from the estimate: (resamples,), finite ones only; both
    (ratios, seeds, examples)."""
    ratios, seeds, examples = deviation.shape
    resamples = min(RESAMPLES, max(1000, 1_000_000 // examples))  # 80 MB at 10,000 examples
    of_example, of_seed = _weights(examples, resamples, 0), _weights(seeds, resamples, 1)
    drawn = np.zeros(resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        for above, below in zip(deviation, share, strict=True):
            sums = of_example @ np.concatenate([above, below]).T
            drawn += (sums[:, :seeds] * of_seed).sum(1) / (sums[:, seeds:] * of_seed).sum(1)
    drawn = drawn[np.isfinite(drawn)]
    drawn[np.abs(drawn) <= ROUNDING * np.abs(deviation).max() * examples * ratios] = 0
    return drawn


def _bca_tails(drawn: Array, deviation: Array, share: Array) -> Array:
    """The two levels between which BCa takes its interval: bias correction from the resamples,
    acceleration from the jackknife over examples (Efron 1987); both (ratios, examples)."""
    below = (np.mean(drawn < 0) + np.mean(drawn <= 0)) / 2
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    some = (share != 1).all(0)  # without the others something is left to divide by
    left_out = -(deviation[:, some] / (1 - share[:, some])).sum(0)
    skew = left_out.mean() - left_out
    scale = 6 * (skew**2).sum() ** 1.5
    acceleration = (skew**3).sum() / scale if scale > 0 else 0.0
    shifted = bias + ndtri([TAIL, 1 - TAIL])
    return ndtr(bias + shifted / (1 - acceleration * shifted))


def _error_parts(deviation: Array) -> Parts:
    """From the seeds and from the examples, (seeds, examples); 0 of one alone."""
    return [
        (float(count / (count - 1) * (sums**2).sum()), count - 1) if count > 1 else (0.0, 1)
        for sums in (deviation.sum(1), deviation.sum(0))
        for count in [len(sums)]
    ]


def student_half_width(parts: Parts) -> float:
    """Of the 95 % interval of a sum of independent parts."""
    square = sum(part for part, _ in parts)
    return float(-stdtrit(_freedom(parts), TAIL) * math.sqrt(square)) if square else 0.0


def half_width(parts: Parts, tail: float) -> float:
    """The same with another tail on either side: the root of the sum of squares of what each part
    has alone (Graybill & Wang 1980). In simulated looks at seeds and examples it errs no more often
    than it says, where Satterthwaite's degrees of freedom err up to half as often again."""
    if tail == TAIL:
        return student_half_width(parts)
    return math.sqrt(sum(part * float(stdtrit(degrees, tail)) ** 2 for part, degrees in parts))


def repeated(interval: Interval, tail: float) -> Interval:
    """Student's interval with this tail on either side, about the same estimate and of the same
    standard errors. One of fewer than three seeds, or without ends or width, stays what it is."""
    half = half_width(interval.parts(interval.seeds), tail)
    if interval.seeds < ENOUGH_SEEDS or not half:
        return replace(interval, tail=tail)
    low, high = interval.estimate - half, interval.estimate + half
    return replace(interval, low=low, high=high, tail=tail, method="Student's t, repeated")


def _freedom(parts: Parts) -> float:
    """Satterthwaite's degrees of freedom (1946); parts of nothing do not count."""
    square = sum(part for part, _ in parts)
    return float(square**2 / sum(part**2 / degrees for part, degrees in parts if part))


# What an interval says ----------------------------------------------------------------------------


def verdict(
    interval: Interval, margin: float, better: str
) -> Literal["better", "equal", "worse", "undecided"]:
    """What a 95 % interval of (method minus reference) says, given an equivalence margin.

    - "equal": the whole interval lies inside [-margin, margin], its ends included;
    - "better", "worse": the whole interval lies beyond the margin on that side;
    - "undecided": anything else, and where there is no interval.

    So where it excludes zero but reaches into the margin, it is open whether the difference
    matters. Only one of the three claims can be true; were "excludes zero" the rule, half the
    margin would be worse in a middling study and equal in a large one. (Goeman, Solari & Stijnen
    2010 test the three at once; Kruschke 2018 has the rule for a region of practical equivalence.)

    margin: in the interval's units, 0 or more. better: "lower" or "higher". ValueError otherwise.
    """
    if not 0 <= margin < math.inf:
        raise ValueError(f"an equivalence margin is a finite number from 0 on, got {margin}")
    if better not in ("lower", "higher"):
        raise ValueError(f"a verdict needs better='lower' or better='higher', got {better!r}")
    if -margin <= interval.low and interval.high <= margin:
        return "equal"
    if interval.low > margin:
        return "worse" if better == "lower" else "better"
    if interval.high < -margin:
        return "better" if better == "lower" else "worse"
    return "undecided"


def doubt(interval: Interval, margin: float) -> float:
    """The smallest p-value of the three claims of `verdict`, one-sided: Student's t with the
    interval's own standard error. Since only one of the claims can be true, trying all three needs
    no correction. That of a repeated interval is in proportion to its tail: at most `TAIL` where
    the interval decides. NaN without an interval."""
    square = interval.of_seeds + interval.of_examples
    if not square:
        return 0.0 if math.isfinite(interval.low) else math.nan
    nearest = abs(abs(interval.estimate) - margin)
    parts = interval.parts(interval.seeds)
    if interval.tail == TAIL:
        return float(stdtr(_freedom(parts), -nearest / math.sqrt(square)))
    low, high = 0.0, 0.5  # the tail of the interval that ends at the nearest margin
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if half_width(parts, middle) > nearest else (low, middle)
    return min(high * TAIL / interval.tail, 1.0)


def holm(doubts: ArrayLike, level: float = TAIL) -> NDArray[np.bool_]:
    """Which of several claims stand together, so that one false among them is no likelier than
    `level` (Holm 1979). doubts: (claims,) p-values; NaN is no claim, stands nowhere and does not
    count."""
    values = np.asarray(doubts, float)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    passed = values[order] <= level / (len(order) - np.arange(len(order)))
    stands = np.zeros(len(values), bool)
    stands[order[: int(np.logical_and.accumulate(passed).sum())]] = True
    return stands


def power_of(
    interval: Interval, margin: float, seeds: int = 0, true: float = 0.0, tail: float = 0.0
) -> float:
    """How likely an interval of so many seeds (by default, of those there are), at the spread that
    was found and on the same examples, lies inside the margin, or if `true` is beyond the margin,
    outside it on that side: the two one-sided tests, their estimate taken as normal. tail: of that
    interval, by default as this one's. NaN without a standard error."""
    if not math.isfinite(interval.low) or interval.low == interval.high:
        return math.nan
    parts = interval.parts(seeds or interval.seeds)
    error = math.sqrt(sum(part for part, _ in parts))
    half = half_width(parts, tail or interval.tail)
    if abs(true) > margin:
        return float(ndtr((abs(true) - margin - half) / error))
    return max(0.0, 2 * float(ndtr((margin - half) / error)) - 1)


def seeds_to_settle(
    interval: Interval,
    margin: float,
    power: float,
    most: int,
    tail: Callable[[int], float] = lambda _: TAIL,
) -> float:
    """The number of seeds with which `verdict` would be decided with this power; inf beyond `most`,
    NaN without a standard error. An estimate within the margin is taken as a true value of nothing,
    one beyond it as true. tail: of an interval of so many seeds."""
    true = interval.estimate if abs(interval.estimate) > margin else 0.0
    if math.isnan(power_of(interval, margin)):
        return math.nan
    counts = range(ENOUGH_SEEDS, most + 1)
    for count in counts:
        if power_of(interval, margin, count, true, tail(count)) >= power:
            return float(count)
    return math.inf

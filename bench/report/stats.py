"""The statistics of a report: plain functions of arrays, which know no files and no tasks.

    gap = paired_interval(seed_by_example(pairs, "gap"))        mean gap with a 95 % interval
    verdict(gap, margin=0.05, better="lower")                   better, equal, worse or undecided
    bd_rate(grid_bpp, grid_psnr, bpp, psnr)                     the front, whatever the coefficients
    break_even(conditioned, per_fixed)                          from how many settings on it pays

The calibration gap (same coefficient) is a matter of intervals and verdicts, the front gap (any
coefficient) one of BD-rates and hypervolumes; nothing here mixes the two. A number that cannot be
given is NaN, and where a reader would ask why, its `method` or `reason` says so.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]
Verdict = Literal["better", "equal", "worse", "undecided"]

TAIL = 0.025  # on either side of a 95 % interval
ENOUGH_SEEDS = 3  # to resample them; fewer say too little about the next one
RESAMPLES = 4000
ROUNDING = 1e-12  # differences this small against the values they come from are none


# Intervals --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % interval. `method` says how it was made, or why `low` and `high` are NaN.

    seeds, examples: how many the estimate rests on, whether or not they were resampled.
    of_seeds, of_examples: the squared standard errors that they bring; 0 where not known.
    """

    estimate: float
    low: float
    high: float
    method: str
    seeds: int
    examples: int
    of_seeds: float = 0.0
    of_examples: float = 0.0


def seeds_interval(estimate: float, by_seed: ArrayLike) -> tuple[float, float]:
    """Student's 95 % interval about an estimate for which seeds can only be taken whole (a BD-rate,
    a hypervolume): (seeds,) values of one each. NaN for fewer than three, or where one is NaN."""
    values = np.asarray(by_seed, float)
    if len(values) < ENOUGH_SEEDS or not np.isfinite(values).all():
        return math.nan, math.nan
    half = _student_half_width([(float(values.var(ddof=1)) / len(values), len(values) - 1)])
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

    Three seeds or more: hierarchical bootstrap; seeds are resampled, then examples. All seeds are
    measured on the same examples, so a resample draws them once for all its seeds (Owen 2007):
    drawing anew for each seed would count one hard picture as several independent ones, and in
    simulation covers as little as 35 %. Fewer seeds: BCa (Efron 1987) over the examples, seeds
    averaged, and "images only", because it knows nothing of another seed. With one example, three
    seeds are "seeds only" and fewer have no interval. Equal differences have one of width zero.

    Both are then widened about the estimate by what Student's t demands for so few seeds and
    examples (Hesterberg 2015; Satterthwaite's degrees of freedom). Without that, resampling three
    seeds covers at most 1 - 2/2³ = 75 % of the time where the seeds matter most, and two pictures
    50 %; with it, simulated coverage is 89 to 99 %, for very skewed differences of eight pictures
    or fewer about 86 %.
    """
    values = np.atleast_2d(np.asarray(differences, float))
    return _interval(values[None], np.where(np.isnan(values), np.nan, 1.0)[None])


def paired_ratio_interval(method: ArrayLike, grid: ArrayLike) -> Interval:
    """The relative gap mean(method - grid) / |mean(grid)| with its 95 % interval.

    Both (seeds, examples) or (examples,), in the same order; a pair counts where both are there.
    The interval is as in `paired_interval`; the denominator is resampled with the numerator. Only
    for quantities whose zero means something. ValueError for different shapes.
    """
    first = np.atleast_2d(np.asarray(method, float))
    second = np.atleast_2d(np.asarray(grid, float))
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal shapes, got {first.shape} and {second.shape}")
    pairs = first - second
    base = np.where(np.isnan(pairs), np.nan, second)
    return _interval(pairs[None], (base * np.sign(np.nansum(base)))[None])


def scaled(interval: Interval, factor: float) -> Interval:
    """The same interval in other units; `factor` above zero."""
    changed = {end: factor * getattr(interval, end) for end in ("estimate", "low", "high")}
    changed |= {part: factor**2 * getattr(interval, part) for part in ("of_seeds", "of_examples")}
    return dataclasses.replace(interval, **changed)


def mean_ratio_interval(numerators: ArrayLike, denominators: ArrayLike) -> Interval:
    """The mean over the first axis of sum(numerator) / sum(denominator), with its 95 % interval.

    Both (ratios, seeds, examples), NaN where a pair is absent; every ratio counts alike. The
    interval is as in `paired_interval`; all ratios are resampled together, numerators and
    denominators alike. "no pairs" without ratios, or where one of them has none.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    if above.shape != below.shape or above.ndim != 3:
        raise ValueError(f"ratios need two equal shapes of three, got {above.shape}, {below.shape}")
    return _interval(above, below)


def _interval(numerator: Array, denominator: Array) -> Interval:
    """Of the mean of sum(numerator) / sum(denominator), both (ratios, seeds, examples) with NaN in
    the same places."""
    there = np.isfinite(numerator) & np.isfinite(denominator)
    kept = np.ix_(np.full(len(there), True), there.any((0, 2)), there.any((0, 1)))
    there = there[kept]
    above, below = (np.where(there, part[kept], 0.0) for part in (numerator, denominator))
    ratios, seeds, examples = there.shape
    made = functools.partial(Interval, seeds=seeds, examples=examples)
    nothing, total = math.nan, below.sum((1, 2), keepdims=True)
    if not ratios or not there.any((1, 2)).all() or (total == 0).any():
        why = "the reference is zero" if ratios and there.any((1, 2)).all() else "no pairs"
        return made(estimate=nothing, low=nothing, high=nothing, method=f"no interval: {why}")

    each = above.sum((1, 2), keepdims=True) / total
    estimate = float(each.mean())
    few = seeds < ENOUGH_SEEDS
    if few and examples < 2:
        return made(
            estimate=estimate, low=nothing, high=nothing, method="no interval: one image only"
        )
    residual = above - each * below
    residual[np.abs(residual) <= ROUNDING * np.abs(above).max((1, 2), keepdims=True)] = 0
    # What each pair adds to the estimate's deviation, and its share of the denominator.
    deviation, share = residual / total / ratios, below / total
    if few:
        deviation, share = deviation.sum(1, keepdims=True), share.sum(1, keepdims=True)
        name = "BCa, images only"
    else:
        name = "hierarchical bootstrap" + (", seeds only" if examples < 2 else "")
    if not deviation.any():
        return made(estimate=estimate, low=estimate, high=estimate, method=name)

    drawn = _resampled(deviation, share)
    if not drawn.any():  # ratios whose deviations cancel
        return made(estimate=estimate, low=estimate, high=estimate, method=name)
    ends = _bca_tails(drawn, deviation[:, 0], share[:, 0]) if few else np.array([TAIL, 1 - TAIL])
    parts = _error_parts(deviation.sum(0))
    widening = _student_half_width(parts) / float(-ndtri(TAIL) * drawn.std())
    low, high = estimate + widening * np.quantile(drawn, ends)
    of_seeds, of_examples = (square for square, _ in parts)
    return made(
        estimate=estimate,
        low=float(low),
        high=float(high),
        method=name,
        of_seeds=of_seeds,
        of_examples=of_examples,
    )


@functools.lru_cache(maxsize=16)
def _weights(count: int, resamples: int, stream: int) -> Array:
    """How often each of `count` units is drawn in each resample: (resamples, count).

    The same draws for every table and figure, so that equal data have equal intervals.
    """
    generator = np.random.default_rng((count, stream))
    even = np.full(count, 1 / count)
    return generator.multinomial(count, even, size=resamples).astype(float)


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


def _error_parts(deviation: Array) -> list[tuple[float, int]]:
    """The squared standard errors from the seeds and from the examples, (seeds, examples), each
    with its degrees of freedom; 0 of one alone."""
    return [
        (float(count / (count - 1) * (sums**2).sum()), count - 1) if count > 1 else (0.0, 1)
        for sums in (deviation.sum(1), deviation.sum(0))
        for count in [len(sums)]
    ]


def _student_half_width(parts: list[tuple[float, int]]) -> float:
    """Of a sum of independent parts, each a squared standard error with its degrees of freedom
    (Satterthwaite 1946)."""
    square = sum(part for part, _ in parts)
    return float(stdtrit(_freedom(parts), 1 - TAIL) * math.sqrt(square)) if square else 0.0


def _freedom(parts: list[tuple[float, int]]) -> float:
    """Satterthwaite's degrees of freedom; parts of nothing do not count."""
    square = sum(part for part, _ in parts)
    return float(square**2 / sum(part**2 / degrees for part, degrees in parts if part))


def verdict(interval: Interval, margin: float, better: str) -> Verdict:
    """What a 95 % interval of (method minus reference) says, given an equivalence margin.

    - "equal": the whole interval lies inside [-margin, margin], its ends included;
    - "better", "worse": the whole interval lies beyond the margin on that side;
    - "undecided": anything else, and where there is no interval.

    So an interval that excludes zero but reaches into the margin is undecided: there is a
    difference, but it is open whether it matters. Only one of the three claims can be true, so
    more data do not talk a reader out of a true one; were "excludes zero" the rule, a difference
    of half the margin would be worse in a middling study and equal in a large one. (Goeman, Solari
    & Stijnen 2010 test the three at once; Kruschke 2018 has the rule for a region of practical
    equivalence.)

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
    interval's own standard error and Satterthwaite's degrees of freedom. Since only one of the
    claims can be true, trying all three needs no correction. NaN without an interval."""
    if not math.isfinite(interval.low):
        return math.nan
    nearest = abs(abs(interval.estimate) - margin)
    square = interval.of_seeds + interval.of_examples
    if square == 0:
        return 0.0
    parts = [(interval.of_seeds, interval.seeds - 1), (interval.of_examples, interval.examples - 1)]
    return float(stdtr(_freedom(parts), -nearest / math.sqrt(square)))


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


def power_of_equal(interval: Interval, margin: float) -> float:
    """How likely "equal" was, had the true value been nothing: the two one-sided tests at the
    spread that was found, their estimate taken as normal. NaN without a standard error."""
    return _power(interval, margin, interval.seeds, 0.0)


def seeds_to_settle(interval: Interval, margin: float, power: float, most: int) -> float:
    """The number of seeds with which `verdict` would be decided with this power, at the spread
    that was found and on the same examples; inf beyond `most`, NaN without a standard error.

    An estimate within the margin is taken as a true value of nothing, one beyond it as true.
    """
    true = interval.estimate if abs(interval.estimate) > margin else 0.0
    if math.isnan(_power(interval, margin, interval.seeds, true)):
        return math.nan
    reached = (
        n for n in range(ENOUGH_SEEDS, most + 1) if _power(interval, margin, n, true) >= power
    )
    return float(next(reached, math.inf))


def _power(interval: Interval, margin: float, seeds: int, true: float) -> float:
    """How likely an interval of so many seeds lies inside the margin, or if `true` is beyond the
    margin, outside it on that side."""
    of_seeds = interval.of_seeds * interval.seeds / seeds
    error = math.sqrt(of_seeds + interval.of_examples)
    if not math.isfinite(interval.low) or not error:
        return math.nan
    parts = [(of_seeds, seeds - 1), (interval.of_examples, interval.examples - 1)]
    half = _student_half_width(parts)
    if abs(true) > margin:
        return float(ndtr((abs(true) - margin - half) / error))
    return max(0.0, 2 * float(ndtr((margin - half) / error)) - 1)


# Fronts -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BD:
    """A Bjøntegaard delta: the mean distance of two curves over the range they share.

    value: per cent of rate (`bd_rate`) or units of quality (`bd_psnr`); NaN with a `reason`.
    thirds: the same over the low, middle and high third of the common range.
    overlap: the common range over the range of both curves together, 0 to 1.
    seen, of: the common range, and that of the reference, of what is integrated over: quality in
        `bd_rate`, the rate's decimal logarithm in `bd_psnr`.
    dropped: points left out because they were dominated, doubled or not finite.
    """

    value: float
    thirds: tuple[float, float, float]
    overlap: float
    dropped: int
    reason: str = ""
    seen: tuple[float, float] = (math.nan, math.nan)
    of: tuple[float, float] = (math.nan, math.nan)


def bd_rate(
    rate_reference: ArrayLike, quality_reference: ArrayLike, rate: ArrayLike, quality: ArrayLike
) -> BD:
    """How much more rate the curve needs for the same quality, in per cent; negative is better.

    Each argument (points,), in any order. Quality is higher-is-better: negate what is not, and
    give MS-SSIM in dB if its upper end is to count. Logarithmic rates, Akima interpolation
    (`bjontegaard`), which does not overshoot as the customary cubic does. Dominated points are
    left out first: who may choose coefficients freely would not choose those. Refused where the
    curves share no range, or one has fewer than two points in it, since a mean taken between two
    points of a curve is guessed rather than measured.

    The thirds are equal parts of the common range of quality, not groups of points. ValueError
    only where rates and qualities differ in number.
    """
    return _bd("quality", rate_reference, quality_reference, rate, quality)


def bd_psnr(
    rate_reference: ArrayLike, quality_reference: ArrayLike, rate: ArrayLike, quality: ArrayLike
) -> BD:
    """How much more quality the curve has at the same rate, in units of quality; positive is
    better. Everything else as in `bd_rate`, over the common range of logarithmic rates."""
    return _bd("rate", rate_reference, quality_reference, rate, quality)


def _bd(along: Literal["rate", "quality"], *columns: ArrayLike) -> BD:
    """`columns`: rate and quality of the reference, then of the curve; integrated over `along`."""
    arrays = [np.asarray(column, float).ravel() for column in columns]
    reference, reference_dropped = _front(arrays[0], arrays[1])
    curve, curve_dropped = _front(arrays[2], arrays[3])
    dropped = reference_dropped + curve_dropped

    def refused(reason: str, overlap: float = math.nan) -> BD:
        nothing = (math.nan, math.nan, math.nan)
        return BD(value=math.nan, thirds=nothing, overlap=overlap, dropped=dropped, reason=reason)

    for name, front in (("the reference", reference), ("the curve", curve)):
        if front.shape[1] < 2:
            return refused(f"{name} has fewer than two points that no other dominates")
    bases = [np.log10(front[0]) if along == "rate" else front[1] for front in (reference, curve)]
    low, high = max(base[0] for base in bases), min(base[-1] for base in bases)
    union = max(base[-1] for base in bases) - min(base[0] for base in bases)
    overlap = max(high - low, 0.0) / union
    if overlap == 0:
        return refused(f"the curves share no range of {along}", overlap)
    for name, base in zip(("the reference", "the curve"), bases, strict=True):
        inside = int(((low <= base) & (base <= high)).sum())
        if inside < 2:
            return refused(
                f"{name} has {inside or 'no'} point{'' if inside else 's'} in the common range of "
                f"{along}, and two are needed",
                overlap,
            )

    import bjontegaard

    compare = bjontegaard.bd_psnr if along == "rate" else bjontegaard.bd_rate
    value, *interpolators = compare(
        *reference,
        *curve,
        method="akima",
        require_matching_points=False,
        interpolators=True,
        min_overlap=0,  # the overlap is stated instead of warned of
    )
    ends = np.linspace(low, high, 4)
    before, after = (
        np.array([float(f.integrate(a, b)) for a, b in itertools.pairwise(ends)])
        for f in interpolators
    )
    thirds = (after - before) / np.diff(ends)
    if along == "quality":
        thirds = (10**thirds - 1) * 100
    bottom, middle, top = thirds.tolist()
    return BD(
        value=float(value),
        thirds=(bottom, middle, top),
        overlap=overlap,
        dropped=dropped,
        seen=(float(low), float(high)),
        of=(float(bases[0][0]), float(bases[0][-1])),
    )


def _front(rate: Array, quality: Array) -> tuple[Array, int]:
    """(2, points) with rate and quality both strictly rising, and how many points were left out."""
    if rate.shape != quality.shape:
        raise ValueError(f"a curve needs one quality per rate, got {len(quality)} and {len(rate)}")
    points = np.stack([rate, quality])[:, (rate > 0) & np.isfinite(rate) & np.isfinite(quality)]
    points = points[:, np.lexsort((-points[1], points[0]))]
    before = np.maximum.accumulate(np.concatenate([[-math.inf], points[1]]))[:-1]
    points = points[:, points[1] > before]
    return points, len(rate) - points.shape[1]


def hypervolume_ratio(
    points: ArrayLike, reference_points: ArrayLike, reference_point: ArrayLike
) -> float:
    """The hypervolume of `points` over that of `reference_points`; 1 or more is as good or better.

    points, reference_points: (n, objectives), lower is better in every column (negate what is
    not). reference_point: (objectives,), a corner worse than anything that should count, fixed
    beforehand; points beyond it add nothing. Independent of the objectives' units. Computed by
    `moocore`. NaN without points, or where the reference dominates nothing.
    """
    import moocore

    own, grid, corner = _rows(points), _rows(reference_points), np.asarray(reference_point, float)
    if not len(own) or not len(grid):
        return math.nan
    base = moocore.hypervolume(grid, ref=corner)
    return float(moocore.hypervolume(own, ref=corner) / base) if base > 0 else math.nan


def igd_plus(points: ArrayLike, reference_points: ArrayLike) -> float:
    """IGD+ of `points` (Ishibuchi et al. 2015): the mean distance by which they fall short of the
    reference front; 0 reaches or dominates all of it.

    Both (n, objectives), lower is better. Distances are in units of the reference front's own
    extent in each objective, since bits and decibels cannot be added. Computed by `moocore`. NaN
    without points, or where the front has no extent.
    """
    import moocore

    own, grid = _rows(points), _rows(reference_points)
    if not len(own) or not len(grid):
        return math.nan
    front = moocore.filter_dominated(grid)
    extent = np.ptp(front, axis=0)
    if not (extent > 0).all():
        return math.nan
    return float(moocore.igd_plus(own / extent, ref=front / extent))


def _rows(points: ArrayLike) -> Array:
    """The rows that are finite throughout, as (n, objectives)."""
    rows = np.atleast_2d(np.asarray(points, float))
    return rows[np.isfinite(rows).all(1)]


# The knob ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a method's values follow the grid's at the same settings; perfect is 1, 0, 0.

    slope: of the least-squares line; below one, the knob moves less than it should. offset: mean
    of method minus grid, in the measure's units. deviation: mean of |method - grid| over the
    grid's range, which sees errors that cancel in the offset.
    """

    slope: float
    offset: float
    deviation: float


def coverage(values: ArrayLike, grid_values: ArrayLike) -> float:
    """The share of the grid's range that the method's range covers, 0 to 1.

    Both (settings,), of one measure. What the method reaches beyond the grid does not count, so
    that a shifted range is not a full one. Linear in what it is given: pass logarithms of rates.
    NaN without values, or where the grid does not move.
    """
    own, grid = _finite(values), _finite(grid_values)
    if not len(own) or not len(grid) or np.ptp(grid) == 0:
        return math.nan
    common = min(own.max(), grid.max()) - max(own.min(), grid.min())
    return float(max(common, 0.0) / np.ptp(grid))


def monotonicity(coefficients: ArrayLike, values: ArrayLike) -> float:
    """Spearman's rank correlation of coefficient and measure, -1 to 1, both (settings,).

    NaN for fewer than two settings, and where either is constant.
    """
    pairs = _finite_pairs(coefficients, values)
    ranks = np.stack([pd.Series(column).rank().to_numpy() for column in pairs])
    spread = ranks - ranks.mean(1, keepdims=True) if ranks.shape[1] else ranks
    scale = math.sqrt(float((spread[0] ** 2).sum() * (spread[1] ** 2).sum()))
    return float(spread[0] @ spread[1]) / scale if scale > 0 else math.nan


def calibration(values: ArrayLike, grid_values: ArrayLike) -> Calibration:
    """Method against grid at matched settings, both (settings,) in the same order.

    Linear in what it is given: pass natural logarithms of rates, and `offset` is the mean
    log-ratio. Settings without both values are left out; NaN where the grid does not move.
    """
    own, grid = _finite_pairs(values, grid_values)
    extent = np.ptp(grid) if len(grid) else 0.0
    if extent == 0:
        return Calibration(slope=math.nan, offset=math.nan, deviation=math.nan)
    centred = grid - grid.mean()
    return Calibration(
        slope=float(centred @ own / (centred @ centred)),
        offset=float((own - grid).mean()),
        deviation=float(np.abs(own - grid).mean() / extent),
    )


def cross_matrix(terms: ArrayLike, coefficients: ArrayLike) -> Array:
    """The loss of the model at setting i (row) scored with the coefficients of setting j (column).

    terms: (n, loss terms), the unweighted terms measured at each setting. coefficients: (n, loss
    terms), with ones where a term has no coefficient. Returns (n, n).
    """
    return np.asarray(terms, float) @ np.asarray(coefficients, float).T


def diagonal_wins(matrix: ArrayLike) -> NDArray[np.bool_]:
    """Whether the model told setting j is the best one for setting j, per column: (n,).

    It must beat every other row: a model that ignores its coefficients ties, and wins nothing. A
    column with a NaN is lost.
    """
    square = np.asarray(matrix, float)
    others = np.where(np.eye(len(square), dtype=bool), np.inf, square)
    return np.diag(square) < others.min(0)


def _finite(values: ArrayLike) -> Array:
    flat = np.asarray(values, float).ravel()
    return flat[np.isfinite(flat)]


def _finite_pairs(first: ArrayLike, second: ArrayLike) -> Array:
    """(2, pairs): those of which both are finite. ValueError for different lengths."""
    one, other = np.asarray(first, float).ravel(), np.asarray(second, float).ravel()
    if one.shape != other.shape:
        raise ValueError(f"one value per setting on both sides, got {len(one)} and {len(other)}")
    return np.stack([one, other])[:, np.isfinite(one) & np.isfinite(other)]


# Cost -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """From how many settings on one conditioned network is cheaper than one network per setting.

    crossing: the number of settings, not rounded, at which both cost the same; its `examples`
    counts the fixed networks. settings, earliest, latest: the first whole number beyond it and
    beyond its interval's ends; None for never, and where there is no such number.
    """

    crossing: Interval
    settings: int | None
    earliest: int | None
    latest: int | None


def break_even(
    conditioned: ArrayLike, per_fixed: ArrayLike, first: ArrayLike | None = None
) -> BreakEven:
    """Where conditioned = first + (settings - 1) * per_fixed, in any one unit of cost.

    conditioned: one cost per seed, of all that serves every setting. per_fixed: one cost per
    fixed network, any number of them. first: the costs of a warm-started chain's full run, when
    `per_fixed` are those of the fine-tunes after it; by default the first costs what each does.

    The interval is Student's for independent networks with Satterthwaite's degrees of freedom, to
    first order in their spread. Equal costs (examples, FLOPs) have one of width zero; one network
    on a side has none. NaN costs give NaN: an unknown cost is not left out of a sum. ValueError
    for no costs and for negative ones.
    """
    sides = [_costs(conditioned), _costs(per_fixed), *([] if first is None else [_costs(first)])]
    one, fixed, *start = (side.mean() for side in sides)
    seeds, networks = len(sides[0]), len(sides[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = float(1 + (one - (start[0] if start else fixed)) / fixed)
    half = math.nan
    if not math.isfinite(crossing):
        method = "no interval: a cost is zero or unknown"
    elif min(map(len, sides)) < 2:
        method = "no interval: one network on a side"
    else:
        method = "Student's t"
        later = crossing - len(start)  # how many networks cost `per_fixed`
        slopes = [1 / fixed, later / fixed, *(1 / fixed for _ in start)]
        half = _student_half_width(
            [
                (float(slope**2 * side.var(ddof=1)) / len(side), len(side) - 1)
                for slope, side in zip(slopes, sides, strict=True)
            ]
        )
    low, high = crossing - half, crossing + half
    return BreakEven(
        crossing=Interval(
            estimate=crossing, low=low, high=high, method=method, seeds=seeds, examples=networks
        ),
        settings=_next_whole(crossing),
        earliest=_next_whole(low),
        latest=_next_whole(high),
    )


def _costs(values: ArrayLike) -> Array:
    flat = np.atleast_1d(np.asarray(values, float)).ravel()
    if not len(flat) or (flat < 0).any():
        raise ValueError(f"costs are one number or more, none negative, got {flat.tolist()}")
    return flat


def _next_whole(crossing: float) -> int | None:
    """The first whole number of settings beyond `crossing`, one at least."""
    if math.isnan(crossing) or crossing == math.inf:
        return None
    return math.floor(max(crossing + 1e-9, 0)) + 1  # 1.9999999999 is 2 after summing seconds

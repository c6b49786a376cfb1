"""The report's statistics against scipy, bjontegaard, hand calculation and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.report.stats import (
    BD,
    Interval,
    bd_psnr,
    bd_rate,
    break_even,
    calibration,
    coverage,
    cross_matrix,
    diagonal_wins,
    hypervolume_ratio,
    igd_plus,
    monotonicity,
    paired_interval,
    paired_ratio_interval,
    seed_by_example,
    verdict,
)

# Intervals --------------------------------------------------------------------------------------


def widening(count: int) -> float:
    """What a bootstrap interval over `count` units lacks against Student's t."""
    return scipy.stats.t.ppf(0.975, count - 1) / 1.959964 * math.sqrt(count / (count - 1))


def test_few_seeds_give_the_bca_interval_of_scipy_widened() -> None:
    sample = np.random.default_rng(3).lognormal(0, 1, 20)
    found = paired_interval(sample)
    ends = {
        method: scipy.stats.bootstrap(
            (sample,), np.mean, method=method, n_resamples=20_000, rng=np.random.default_rng(4)
        ).confidence_interval
        for method in ("BCa", "percentile")
    }
    noise = 0.2 * scipy.stats.sem(sample)  # three standard errors of a 2.5 % point of 4000
    assert abs(ends["BCa"].high - ends["percentile"].high) > 2 * noise
    mean = sample.mean()
    assert found.estimate == pytest.approx(mean)
    assert mean + (found.low - mean) / widening(20) == pytest.approx(ends["BCa"].low, abs=noise)
    assert mean + (found.high - mean) / widening(20) == pytest.approx(ends["BCa"].high, abs=noise)
    assert (found.method, found.seeds, found.examples) == ("BCa, images only", 1, 20)


def test_the_relative_gap_is_scipys_paired_bootstrap_of_a_ratio() -> None:
    generator = np.random.default_rng(5)
    grid = generator.lognormal(0, 0.7, 24)
    method = grid * (1.05 + 0.1 * generator.standard_normal(24))

    def gap(method: np.ndarray, grid: np.ndarray, axis: int = -1) -> np.ndarray:
        return (method - grid).mean(axis) / grid.mean(axis)

    expected = scipy.stats.bootstrap(
        (method, grid), gap, paired=True, n_resamples=20_000, rng=np.random.default_rng(6)
    )
    found = paired_ratio_interval(method, grid)
    middle, noise = float(gap(method, grid)), 0.2 * expected.standard_error
    assert found.estimate == pytest.approx(middle)
    for own, other in zip((found.low, found.high), expected.confidence_interval, strict=True):
        assert middle + (own - middle) / widening(24) == pytest.approx(other, abs=noise)


def test_a_negative_loss_has_the_sign_of_the_difference() -> None:
    grid = -np.arange(10.0, 16.0)
    assert paired_ratio_interval(grid + 1, grid).estimate == pytest.approx(1 / 12.5)


def test_two_seeds_are_averaged_and_say_nothing_of_seeds() -> None:
    both = np.random.default_rng(0).normal(size=(2, 12))
    one, two = paired_interval(both.mean(0)), paired_interval(both)
    assert (two.low, two.high) == (pytest.approx(one.low), pytest.approx(one.high))
    assert two.method == "BCa, images only"
    assert two.seeds == 2


def test_three_seeds_give_the_hierarchical_bootstrap_written_as_loops() -> None:
    generator = np.random.default_rng(1)
    seeds, examples = 4, 6
    values = generator.exponential(size=(seeds, 1)) + generator.exponential(size=(1, examples))
    values += 0.3 * generator.normal(size=(seeds, examples))
    drawn = []
    for _ in range(8000):
        rows = [values[i] for i in generator.integers(seeds, size=seeds)]
        columns = generator.integers(examples, size=examples)
        drawn.append(np.mean([row[column] for row in rows for column in columns]))
    squares = [scipy.stats.sem(values.mean(axis)) ** 2 for axis in (1, 0)]
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / 3 + squares[1] ** 2 / 5)
    scale = scipy.stats.t.ppf(0.975, freedom) * sum(squares) ** 0.5 / 1.959964 / np.std(drawn)

    found = paired_interval(values)
    expected = values.mean() + scale * (np.quantile(drawn, [0.025, 0.975]) - values.mean())
    assert [found.low, found.high] == pytest.approx(expected, abs=0.25 * sum(squares) ** 0.5)
    assert found.estimate == pytest.approx(values.mean())
    assert (found.method, found.seeds, found.examples) == ("hierarchical bootstrap", 4, 6)


@pytest.mark.parametrize(
    ("seeds", "examples", "of_seed", "of_example", "of_pair"),
    [(1, 2, 0, 1, 0), (1, 24, 0, 1, 0), (3, 8, 1, 0, 0.01), (3, 8, 0, 1, 0.01), (3, 24, 1, 1, 1)],
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(
    seeds: int, examples: int, of_seed: float, of_example: float, of_pair: float
) -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(500):
        values = of_seed * generator.normal(size=(seeds, 1))
        values = values + of_example * generator.normal(size=(1, examples))
        found = paired_interval(values + of_pair * generator.normal(size=(seeds, examples)))
        covered += found.low <= 0 <= found.high
    assert 0.9 <= covered / 500 <= 0.99


def test_absent_pairs_count_as_in_a_plain_mean() -> None:
    values = np.random.default_rng(7).normal(size=(3, 10))
    values[0, :4] = np.nan
    found = paired_interval(values)
    assert found.estimate == pytest.approx(np.nanmean(values))
    assert found.low < found.estimate < found.high

    lost = np.vstack([values, np.full(10, np.nan)])
    assert paired_interval(lost) == found
    grid = np.full_like(values, 2.0)
    assert paired_ratio_interval(values + grid, grid).estimate == pytest.approx(
        np.nanmean(values) / 2
    )


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ([[0.5]], "no interval: one image only"),
        ([[0.5], [0.7]], "no interval: one image only"),
        ([[math.nan, math.nan]], "no interval: no pairs"),
        ([], "no interval: no pairs"),
    ],
)
def test_too_little_has_no_interval_and_says_why(values: list[list[float]], method: str) -> None:
    found = paired_interval(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.method == method
    assert verdict(found, 10.0, "lower") == "undecided"


def test_one_number_per_seed_is_an_interval_over_seeds_alone() -> None:
    found = paired_interval([[1.0], [2.0], [4.0]])
    assert found.method == "hierarchical bootstrap, seeds only"
    assert found.low < 1
    assert found.high > 4


def test_seeds_and_examples_of_equal_number_are_drawn_independently() -> None:
    effect = np.array([0.0, 1.0, 3.0, 4.0])
    found = paired_interval(effect[:, None] - effect)  # the same draw of both would cancel
    assert found.low < -1
    assert found.high > 1


@pytest.mark.parametrize("shape", [(1, 5), (4, 5), (3, 1)])
def test_equal_differences_have_an_interval_of_width_zero(shape: tuple[int, int]) -> None:
    found = paired_interval(np.full(shape, 0.1))
    assert found.low == found.high == found.estimate == pytest.approx(0.1)
    grid = np.random.default_rng(0).uniform(1, 2, shape)
    found = paired_ratio_interval(1.1 * grid, grid)
    assert found.low == found.high == found.estimate == pytest.approx(0.1)


def test_a_reference_of_zero_has_no_relative_gap() -> None:
    assert "reference is zero" in paired_ratio_interval([1.0, 2.0], [0.0, 0.0]).method
    sparse = paired_ratio_interval([1.0, 1.0, 5.0], [0.0, 0.0, 4.0])
    assert sparse.low <= sparse.estimate <= sparse.high
    with pytest.raises(ValueError, match="equal shapes"):
        paired_ratio_interval([1.0, 2.0], [1.0])


@given(st.integers(1, 4), st.integers(2, 9), st.floats(0.01, 1e6), st.integers(0, 10**6))
def test_intervals_follow_the_unit_and_are_the_same_every_time(
    seeds: int, examples: int, unit: float, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(seeds, examples))
    found, again = paired_interval(values), paired_interval(values)
    assert found == again
    scaled = paired_interval(unit * values)
    expected = [unit * found.low, unit * found.high]
    assert [scaled.low, scaled.high] == pytest.approx(expected, rel=1e-6, abs=1e-9 * unit)


def test_long_frames_become_seed_by_example() -> None:
    frame = pd.DataFrame(
        {"seed": [1, 0, 0], "example": ["a", "b", "a"], "value": [3.0, 2.0, 1.0], "cell": "x"}
    )
    np.testing.assert_array_equal(seed_by_example(frame, "value"), [[1.0, 2.0], [3.0, math.nan]])
    pivot = frame.pivot(index="seed", columns="example", values="value")
    np.testing.assert_array_equal(seed_by_example(frame, "value"), pivot.to_numpy())
    with pytest.raises(ValueError, match="occur twice"):
        seed_by_example(pd.concat([frame, frame]), "value")


@pytest.mark.parametrize(
    ("low", "high", "lower", "higher"),
    [
        (-0.4, 0.6, "equal", "equal"),
        (-1.0, 1.0, "equal", "equal"),
        (0.2, 0.6, "equal", "equal"),  # there is a difference, and it does not matter
        (1.1, 3.0, "worse", "better"),
        (-3.0, -1.1, "better", "worse"),
        (0.2, 1.8, "undecided", "undecided"),  # there is one, and it may or may not matter
        (-1.8, -0.2, "undecided", "undecided"),
        (1.0, 3.0, "undecided", "undecided"),
        (-3.0, 3.0, "undecided", "undecided"),
        (math.nan, math.nan, "undecided", "undecided"),
    ],
)
def test_verdicts(low: float, high: float, lower: str, higher: str) -> None:
    interval = Interval(
        estimate=(low + high) / 2, low=low, high=high, method="", seeds=3, examples=24
    )
    assert verdict(interval, 1.0, "lower") == lower
    assert verdict(interval, 1.0, "higher") == higher


def test_verdicts_without_a_margin_or_a_direction() -> None:
    zero = Interval(estimate=0, low=0, high=0, method="", seeds=3, examples=24)
    above = Interval(estimate=1, low=0.1, high=2, method="", seeds=3, examples=24)
    assert verdict(zero, 0, "lower") == "equal"
    assert verdict(above, 0, "lower") == "worse"
    with pytest.raises(ValueError, match="margin"):
        verdict(zero, -1, "lower")
    with pytest.raises(ValueError, match="better="):
        verdict(zero, 1, "")


# Fronts -----------------------------------------------------------------------------------------

# CompressAI's published Kodak results: bmshj2018-hyperprior at quality 1 to 8, and its one
# variable-rate model (results/image/kodak/bmshj2018-hyperprior-vbr-ans.json), rounded.
ZOO_BPP = [0.13129, 0.20889, 0.31986, 0.47836, 0.66869, 0.93883, 1.25917, 1.66022]
ZOO_PSNR = [27.5815, 29.1967, 30.9722, 32.8382, 34.5263, 36.7433, 38.5838, 40.5569]
VBR_BPP = [
    *(0.13824, 0.19700, 0.24557, 0.29275, 0.36632, 0.42046, 0.50513, 0.59006),
    *(0.69665, 0.79976, 0.92264, 1.05457, 1.21272, 1.35437, 1.53676, 1.70102),
]
VBR_PSNR = [
    *(27.4132, 28.7547, 29.6828, 30.4483, 31.4856, 32.1715, 33.1403, 34.0039),
    *(34.9842, 35.8385, 36.7574, 37.6335, 38.5735, 39.3173, 40.1541, 40.8102),
]


def test_a_curve_with_a_tenth_less_rate_has_a_bd_rate_of_minus_ten() -> None:
    found = bd_rate(ZOO_BPP, ZOO_PSNR, [0.9 * rate for rate in ZOO_BPP], ZOO_PSNR)
    assert found.value == pytest.approx(-10, abs=1e-9)
    assert found.thirds == pytest.approx((-10, -10, -10), abs=1e-9)
    assert (found.overlap, found.dropped, found.reason) == (1, 0, "")


def test_a_curve_half_a_decibel_higher_has_a_bd_psnr_of_half_a_decibel() -> None:
    found = bd_psnr(ZOO_BPP, ZOO_PSNR, ZOO_BPP, [value + 0.5 for value in ZOO_PSNR])
    assert found.value == pytest.approx(0.5, abs=1e-9)
    assert found.thirds == pytest.approx((0.5, 0.5, 0.5), abs=1e-9)


def test_one_published_variable_rate_model_against_the_published_grid() -> None:
    found = bd_rate(ZOO_BPP, ZOO_PSNR, VBR_BPP, VBR_PSNR)
    assert found.value == pytest.approx(0.0, abs=0.01)
    assert found.thirds[0] > 4  # an average of nothing hides a loss at low rates
    assert found.thirds[2] < -2
    assert found.overlap == pytest.approx((40.5569 - 27.5815) / (40.8102 - 27.4132))
    # Known from elsewhere: against the lowest, middle and highest four of the grid's points.
    parts = [
        bd_rate(ZOO_BPP[part], ZOO_PSNR[part], VBR_BPP, VBR_PSNR).value
        for part in (slice(0, 4), slice(2, 6), slice(4, 8))
    ]
    assert parts == pytest.approx([3.97, -1.41, -2.66], abs=0.01)


def test_thirds_of_straight_lines_by_hand() -> None:
    quality = np.array([0.0, 1.0, 2.0])
    found = bd_rate(10**quality, quality, 10 ** (1.5 * quality), quality)
    expected = [(10 ** (0.5 * at) - 1) * 100 for at in (1 / 3, 1, 5 / 3)]
    assert found.thirds == pytest.approx(expected)
    assert found.value == pytest.approx((10**0.5 - 1) * 100)


def test_order_dominated_doubled_and_lost_points_change_nothing() -> None:
    order = np.random.default_rng(0).permutation(len(VBR_BPP))
    rate, quality = np.array(VBR_BPP)[order], np.array(VBR_PSNR)[order]
    rate = np.append(rate, [0.5, rate[0], np.nan, 0.0])
    quality = np.append(quality, [30.0, quality[0], 35.0, 20.0])
    found = bd_rate(ZOO_BPP, ZOO_PSNR, rate, quality)
    clean = bd_rate(ZOO_BPP, ZOO_PSNR, VBR_BPP, VBR_PSNR)
    assert found.dropped == 4
    assert found.value == pytest.approx(clean.value)
    assert found.thirds == pytest.approx(clean.thirds)


def test_nearly_doubled_points_do_not_bend_the_curve() -> None:
    rate = [0.9 * value for value in ZOO_BPP]
    near = bd_rate(ZOO_BPP, ZOO_PSNR, [*rate, rate[3] + 1e-4], [*ZOO_PSNR, ZOO_PSNR[3] + 1e-9])
    assert near.value == pytest.approx(-10, abs=0.05)


@pytest.mark.parametrize(
    ("rate", "quality", "reason"),
    [
        ([0.5], [33.0], "the curve has fewer than two points"),
        ([0.5, 0.5, 0.5], [33.0, 33.0, 33.0], "the curve has fewer than two points"),
        ([0.5, math.nan], [33.0, 34.0], "the curve has fewer than two points"),
        ([], [], "the curve has fewer than two points"),
        ([0.05, 0.06], [20.0, 22.0], "the curves share no range of quality"),
        ([0.05, 0.06], [20.0, ZOO_PSNR[0]], "the curves share no range of quality"),
        ([0.05, 0.14], [20.0, 28.0], "the reference has 1 point in the common range"),
        ([0.3, 0.33], [31.2, 31.4], "the reference has no points in the common range"),
        ([0.05, 0.5], [20.0, 33.0], "the curve has 1 point in the common range"),
    ],
)
def test_curves_that_cannot_be_compared_say_why(
    rate: list[float], quality: list[float], reason: str
) -> None:
    found = bd_rate(ZOO_BPP, ZOO_PSNR, rate, quality)
    assert math.isnan(found.value)
    assert all(map(math.isnan, found.thirds))
    assert found.reason.startswith(reason)
    assert isinstance(bd_psnr(ZOO_BPP, ZOO_PSNR, rate, quality), BD)


def test_hypervolume_of_sets_measured_by_hand() -> None:
    points, corner = [[1, 2], [2, 1]], [3, 3]  # two rectangles of area 2 that share 1
    assert hypervolume_ratio(points, [[0, 0]], corner) == pytest.approx(3 / 9)
    assert hypervolume_ratio([*points, [2, 2], [9, 0]], points, corner) == pytest.approx(1)
    units = np.array([100, 1e-3])
    scaled = hypervolume_ratio(points * units, [[0, 0]], corner * units)
    assert scaled == pytest.approx(3 / 9)
    assert math.isnan(hypervolume_ratio(points, [[4, 4]], corner))
    assert math.isnan(hypervolume_ratio([[math.nan, 1]], points, corner))


def test_igd_plus_of_the_example_of_its_authors() -> None:
    front = np.array([[10, 0], [6, 1], [2, 2], [1, 6], [0, 10]])  # extent 10 in both
    better, worse = [[4, 2], [3, 3], [2, 4]], [[8, 2], [4, 4], [2, 8]]
    assert igd_plus(better, front) == pytest.approx(0.1482842712)
    assert igd_plus(worse, front) == pytest.approx(0.2260112616)
    assert igd_plus(front, front) == 0
    units = np.array([100, 1e-3])
    assert igd_plus(better * units, [*front * units, [2000, 1]]) == pytest.approx(0.1482842712)
    assert math.isnan(igd_plus(better, [[1, 1]]))


# The knob ---------------------------------------------------------------------------------------


def test_coverage_is_the_share_of_the_grids_range() -> None:
    grid = [1.0, 2.0, 5.0]
    assert coverage(grid, grid) == 1
    assert coverage([2.0, 3.0], grid) == 0.25
    assert coverage([4.0, 9.0], grid) == 0.25  # shifted: what lies beyond does not count
    assert coverage([3.0, 3.0], grid) == 0
    assert coverage([6.0, 9.0], grid) == 0
    assert coverage([math.nan, 2.0, 3.0], grid) == 0.25
    assert math.isnan(coverage([1.0, 2.0], [3.0, 3.0]))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_monotonicity_is_scipys_spearman(pairs: list[tuple[int, int]]) -> None:
    coefficients, values = zip(*pairs, strict=True)
    found = monotonicity(coefficients, values)
    if len(set(coefficients)) == 1 or len(set(values)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(coefficients, values).statistic)


def test_monotonicity_leaves_out_lost_settings() -> None:
    assert monotonicity([1, 2, 3, 4], [5, math.nan, 7, 9]) == 1
    assert math.isnan(monotonicity([], []))


def test_calibration_is_a_line_through_matched_settings() -> None:
    grid = np.array([0.2, 0.4, 0.7, 1.1])
    own = 0.5 * grid + 0.3
    found = calibration([*own, math.nan], [*grid, 5.0])
    slope, _ = np.polyfit(grid, own, 1)
    assert found.slope == pytest.approx(slope) == pytest.approx(0.5)
    assert found.offset == pytest.approx((own - grid).mean()) == pytest.approx(0)
    assert found.deviation == pytest.approx((0.2 + 0.1 + 0.05 + 0.25) / 4 / 0.9)
    assert math.isnan(calibration([1.0, 2.0], [3.0, 3.0]).slope)
    with pytest.raises(ValueError, match="both sides"):
        calibration([1.0], [1.0, 2.0])


def test_the_cross_matrix_scores_every_model_with_every_setting() -> None:
    terms, coefficients = np.array([[1.0, 9.0], [3.0, 2.0]]), np.array([[1.0, 0.1], [1.0, 2.0]])
    matrix = cross_matrix(terms, coefficients)
    for i, j in itertools.product(range(2), repeat=2):
        assert matrix[i, j] == pytest.approx(sum(terms[i] * coefficients[j]))
    np.testing.assert_array_equal(diagonal_wins(matrix), [True, True])
    np.testing.assert_array_equal(diagonal_wins(matrix[::-1]), [False, False])


def test_a_model_that_ignores_its_coefficients_wins_no_column() -> None:
    ignorant = cross_matrix(np.ones((3, 2)), np.random.default_rng(0).uniform(size=(3, 2)))
    np.testing.assert_array_equal(diagonal_wins(ignorant), [False, False, False])
    np.testing.assert_array_equal(diagonal_wins([[1.0, math.nan], [2.0, 0.0]]), [True, False])


# Cost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditioned", "per_fixed", "first", "crossing", "settings"),
    [
        (10.0, 5.0, None, 2.0, 3),  # at two settings both cost the same
        (11.0, 5.0, None, 2.2, 3),
        (1.0, 5.0, None, 0.2, 1),
        (12.0, 1.0, 10.0, 3.0, 4),  # a full run, then fine-tunes
        (8.0, 1.0, 10.0, -1.0, 1),
        (0.1 + 0.2, 0.1, None, 3.0, 4),
    ],
)
def test_break_even_by_hand(
    conditioned: float, per_fixed: float, first: float | None, crossing: float, settings: int
) -> None:
    found = break_even(conditioned, per_fixed, first)
    assert found.crossing.estimate == pytest.approx(crossing)
    assert found.settings == settings
    assert math.isnan(found.crossing.low)
    assert found.latest is None
    rest = (first if first is not None else per_fixed) + (settings - 1) * per_fixed
    assert conditioned < rest
    if settings > 1:
        assert conditioned >= rest - per_fixed - 1e-9


def test_break_even_intervals() -> None:
    exact = break_even([8.0] * 3, [4.0] * 15)
    assert (exact.crossing.low, exact.crossing.high) == (2, 2)
    assert (exact.earliest, exact.settings, exact.latest) == (3, 3, 3)

    seconds = np.array([20.0, 22.0, 27.0])
    found = break_even(seconds, [10.0, 10.0])  # only one side varies: Student's t of a mean
    expected = scipy.stats.ttest_1samp(seconds / 10, 0).confidence_interval()
    assert (found.crossing.low, found.crossing.high) == pytest.approx(tuple(expected))
    assert (found.earliest, found.settings, found.latest) == (2, 3, 4)
    chain = break_even(seconds, [10.0, 10.0], first=[20.0, 20.0])
    assert chain.crossing.estimate == pytest.approx(found.crossing.estimate - 1)
    assert chain.crossing.high - chain.crossing.low == pytest.approx(
        found.crossing.high - found.crossing.low
    )


def test_break_even_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        conditioned, fixed = generator.normal(30, 2, 3), generator.normal(10, 1, 5)
        interval = break_even(conditioned, fixed).crossing
        covered += interval.low <= 3 <= interval.high
    assert 0.92 <= covered / 1000 <= 0.98


def test_unknown_and_free_networks_never_break_even() -> None:
    assert break_even([1.0, math.nan], [1.0, 2.0]).settings is None
    assert break_even([1.0, 2.0], [0.0, 0.0]).settings is None
    assert break_even(12.0, 0.0, first=10.0).settings is None  # a peer that trains nothing more
    assert break_even(8.0, 0.0, first=10.0).settings == 1
    assert "unknown" in break_even([1.0, math.nan], [1.0, 2.0]).crossing.method
    with pytest.raises(ValueError, match="one number or more"):
        break_even([], [1.0])

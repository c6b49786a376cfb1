"""The report's intervals and verdicts against scipy, hand calculation and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.report.answers import stats
from bench.report.answers.costs import break_even, first_beyond
from bench.report.answers.stats import (
    Interval,
    gap_interval,
    paired_interval,
    seed_by_example,
    verdict,
)

# Intervals --------------------------------------------------------------------------------------


def widening(count: int) -> float:
    """What a bootstrap interval over `count` units lacks against Student's t."""
    return scipy.stats.t.ppf(0.975, count - 1) / 1.959964 * math.sqrt(count / (count - 1))


def narrowed(found: Interval, count: int) -> list[float]:
    """The ends of the bootstrap interval that was widened."""
    away = [end - found.estimate for end in (found.low, found.high)]
    return [found.estimate + each / widening(count) for each in away]


def test_few_seeds_give_the_bca_interval_of_scipy_widened() -> None:
    sample = np.random.default_rng(3).lognormal(0, 1, 20)
    found = paired_interval(sample)
    bca, percentile = (
        scipy.stats.bootstrap(
            (sample,), np.mean, method=method, n_resamples=20_000, rng=np.random.default_rng(4)
        ).confidence_interval
        for method in ("BCa", "percentile")
    )
    noise = 0.2 * scipy.stats.sem(sample)  # three standard errors of a 2.5 % point of 4000
    assert abs(bca.high - percentile.high) > 2 * noise
    assert found.estimate == pytest.approx(sample.mean())
    assert narrowed(found, 20) == pytest.approx(list(bca), abs=noise)
    assert (found.method, found.seeds, found.examples) == ("BCa, images only", 1, 20)


def test_the_relative_gap_is_scipys_paired_bootstrap_of_a_ratio() -> None:
    generator = np.random.default_rng(5)
    grid = generator.lognormal(0, 0.7, 24)
    method = grid * (1.05 + 0.1 * generator.standard_normal(24))

    def gap(method: np.ndarray, grid: np.ndarray, axis: int = -1) -> np.ndarray:
        return 100 * (method - grid).mean(axis) / grid.mean(axis)

    expected = scipy.stats.bootstrap(
        (method, grid), gap, paired=True, n_resamples=20_000, rng=np.random.default_rng(6)
    )
    found = gap_interval(method, grid, percent=True)
    assert found.estimate == pytest.approx(float(gap(method, grid)))
    noise = 0.2 * expected.standard_error
    assert narrowed(found, 24) == pytest.approx(list(expected.confidence_interval), abs=noise)


def test_two_seeds_are_averaged_and_say_nothing_of_seeds() -> None:
    both = np.random.default_rng(0).normal(size=(2, 12))
    one, two = paired_interval(both.mean(0)), paired_interval(both)
    assert (two.low, two.high) == (pytest.approx(one.low), pytest.approx(one.high))
    assert (two.method, two.seeds) == ("BCa, images only", 2)


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
    of_two = gap_interval(values + 2, np.full_like(values, 2.0), percent=True)
    assert of_two.estimate == pytest.approx(50 * np.nanmean(values))


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
    assert np.isnan([found.low, found.high]).all()
    assert found.method == method
    assert verdict(found, 10.0, "lower") == "undecided"


def test_one_number_per_seed_is_an_interval_over_seeds_alone() -> None:
    found = paired_interval([[1.0], [2.0], [4.0]])
    assert found.method == "hierarchical bootstrap, seeds only"
    assert found.low < 1 < 4 < found.high


def test_seeds_and_examples_of_equal_number_are_drawn_independently() -> None:
    effect = np.array([0.0, 1.0, 3.0, 4.0])
    found = paired_interval(effect[:, None] - effect)  # the same draw of both would cancel
    assert found.low < -1 < 1 < found.high


@pytest.mark.parametrize("shape", [(1, 5), (4, 5), (3, 1)])
def test_equal_differences_have_an_interval_of_width_zero(shape: tuple[int, int]) -> None:
    grid = np.random.default_rng(0).uniform(1, 2, shape)
    ratio = gap_interval(1.1 * grid, grid, percent=True)
    for found, size in ((paired_interval(np.full(shape, 0.1)), 0.1), (ratio, 10)):
        assert found.low == found.high == found.estimate == pytest.approx(size)


def test_relative_gaps_to_negative_sparse_and_zero_references() -> None:
    grid = -np.arange(10.0, 16.0)
    assert gap_interval(grid + 1, grid, percent=True).estimate == pytest.approx(100 / 12.5)
    zero = gap_interval([1.0, 2.0], [0.0, 0.0], percent=True)
    assert "reference is zero" in zero.method
    sparse = gap_interval([1.0, 1.0, 5.0], [0.0, 0.0, 4.0], percent=True)
    assert sparse.low <= sparse.estimate <= sparse.high
    with pytest.raises(ValueError, match="equal shapes"):
        gap_interval([1.0, 2.0], [1.0], percent=False)


@given(st.integers(1, 4), st.integers(2, 9), st.floats(0.01, 1e6), st.integers(0, 10**6))
def test_intervals_follow_the_unit_and_are_the_same_every_time(
    seeds: int, examples: int, unit: float, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(seeds, examples))
    found = paired_interval(values)
    assert paired_interval(values) == found
    scaled = paired_interval(unit * values)
    expected = [unit * found.low, unit * found.high]
    assert [scaled.low, scaled.high] == pytest.approx(expected, rel=1e-6, abs=1e-9 * unit)


def test_long_frames_become_seed_by_example() -> None:
    frame = pd.DataFrame(
        {"seed": [1, 0, 0], "example": ["a", "b", "a"], "value": [3.0, 2.0, 1.0], "cell": "x"}
    )
    np.testing.assert_array_equal(seed_by_example(frame, "value"), [[1.0, 2.0], [3.0, math.nan]])
    with pytest.raises(ValueError, match="occur twice"):
        seed_by_example(pd.concat([frame, frame]), "value")


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (-0.4, 0.6, 1, "equal"),
        (-1.0, 1.0, 1, "equal"),
        (0.0, 0.0, 0, "equal"),
        (0.2, 0.6, 1, "equal"),  # there is a difference, and it does not matter
        (1.1, 3.0, 1, "worse"),
        (0.1, 2.0, 0, "worse"),
        (-3.0, -1.1, 1, "better"),
        (0.2, 1.8, 1, "undecided"),  # there is one, and it may or may not matter
        (1.0, 3.0, 1, "undecided"),
        (-3.0, 3.0, 1, "undecided"),
        (math.nan, math.nan, 1, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, margin: float, expected: str) -> None:
    """The same of its mirror image, where higher is better."""
    for ends, better in (((low, high), "lower"), ((-high, -low), "higher")):
        interval = Interval(
            estimate=sum(ends) / 2, low=ends[0], high=ends[1], method="", seeds=3, examples=24
        )
        assert verdict(interval, margin, better) == expected


@pytest.mark.parametrize(("margin", "better"), [(-1, "lower"), (1, "")])
def test_a_verdict_needs_a_margin_and_a_direction(margin: float, better: str) -> None:
    with pytest.raises(ValueError, match=r"margin is a finite number|better="):
        verdict(paired_interval([0.0, 0.0]), margin, better)


# Decidable --------------------------------------------------------------------------------------


def test_holm_is_what_its_definition_gives() -> None:
    doubts = [0.001, 0.013, 0.012, math.nan, 0.5]
    # 0.001 <= .025 / 4; 0.012 > .025 / 3, and nothing behind it stands.
    assert list(stats.holm(doubts)) == [True, False, False, False, False]
    assert list(stats.holm([0.005, 0.01, 0.02])) == [True, True, True]
    assert list(stats.holm([])) == []


def test_doubt_is_students_where_examples_do_not_matter() -> None:
    random = np.random.default_rng(0)
    values = 0.4 + 0.1 * random.standard_normal((5, 1)) * np.ones((1, 30))
    interval = paired_interval(values)
    error = values[:, 0].std(ddof=1) / math.sqrt(5)
    expected = scipy.stats.t.sf((values.mean() - 0.1) / error, 4)
    assert stats.doubt(interval, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.15), (16, 0.08), (30, 0.12)])
def test_the_power_is_how_often_nothing_comes_out_equal(seeds: int, spread: float) -> None:
    """Against simulation; the power itself, from an estimate of the spread, in its median."""
    random = np.random.default_rng(seeds)
    equal, powers = [], []
    for _ in range(200):
        noise = spread * random.standard_normal((seeds, 1)) + 0.02 * random.standard_normal((1, 8))
        interval = paired_interval(noise)
        equal.append(verdict(interval, 0.1, "lower") == "equal")
        powers.append(stats.power_of(interval, 0.1))
    assert np.median(powers) == pytest.approx(np.mean(equal), abs=0.12)
    if seeds == 3:
        assert np.mean(equal) < 0.15  # three seeds of this spread cannot show it


def test_the_forecast_is_enough_seeds() -> None:
    """What would settle it by the forecast settles it in simulation."""
    random = np.random.default_rng(0)
    pilot = 0.1 * np.array([-1.0, 0.0, 1.0])[:, None] * np.ones((1, 10))  # a deviation of 0.1
    needed = int(stats.seeds_to_settle(paired_interval(pilot), 0.1, 0.8, 1000))
    trials = [paired_interval(0.1 * random.standard_normal((needed, 1))) for _ in range(200)]
    equal = [verdict(trial, 0.1, "lower") == "equal" for trial in trials]
    assert np.mean(equal) == pytest.approx(0.8, abs=0.12)
    wide = paired_interval(10 * random.standard_normal((3, 4)))
    assert stats.seeds_to_settle(wide, 0.1, 0.8, 1000) == math.inf


def test_intervals_over_seeds_are_students() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = stats.seeds_interval(2.5, values)
    half = scipy.stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half))
    assert all(map(math.isnan, stats.seeds_interval(1.0, [1.0, 2.0])))
    assert all(map(math.isnan, stats.seeds_interval(1.0, [1.0, 2.0, math.nan])))


def test_several_ratios_are_resampled_together() -> None:
    """Of one ratio as `gap_interval`; of two that mirror each other nothing is left."""
    random = np.random.default_rng(0)
    grid = 1 + random.random((4, 12))
    method = grid * (1 + 0.1 * random.standard_normal((4, 12)))
    alone = gap_interval(method, grid, percent=True)
    assert stats.mean_ratio_interval((method - grid)[None], grid[None] / 100) == alone
    both = stats.mean_ratio_interval([method - grid, grid - method], [grid, grid])
    assert (both.estimate, both.low, both.high) == pytest.approx((0, 0, 0), abs=1e-9)


# Cost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditioned", "per_fixed", "crossing", "settings"),
    [
        (10.0, 5.0, 2.0, 3),  # at two settings both cost the same
        (11.0, 5.0, 2.2, 3),
        (1.0, 5.0, 0.2, 1),
        (0.1 + 0.2, 0.1, 3.0, 4),
    ],
)
def test_break_even_by_hand(
    conditioned: float, per_fixed: float, crossing: float, settings: int
) -> None:
    found = break_even(conditioned, per_fixed)
    assert found.estimate == pytest.approx(crossing)
    assert first_beyond(found.estimate) == settings
    assert math.isnan(first_beyond(found.high))
    assert conditioned < settings * per_fixed
    assert settings == 1 or conditioned >= (settings - 1) * per_fixed - 1e-9


def test_break_even_intervals() -> None:
    exact = break_even([8.0] * 3, [4.0] * 15)
    assert (exact.low, exact.estimate, exact.high) == (2, 2, 2)
    assert first_beyond(exact.high) == 3

    seconds = np.array([20.0, 22.0, 27.0])
    found = break_even(seconds, [10.0, 10.0])  # only one side varies: Student's t of a mean
    expected = scipy.stats.ttest_1samp(seconds / 10, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert [*map(first_beyond, (found.low, found.estimate, found.high))] == [2, 3, 4]


def test_break_even_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        conditioned, fixed = generator.normal(30, 2, 3), generator.normal(10, 1, 5)
        interval = break_even(conditioned, fixed)
        covered += interval.low <= 3 <= interval.high
    assert 0.92 <= covered / 1000 <= 0.98


@pytest.mark.parametrize("costs", [([1.0, math.nan], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0])])
def test_unknown_and_free_networks_never_break_even(costs: Any) -> None:
    found = break_even(*costs)
    assert math.isnan(first_beyond(found.estimate))
    assert "zero or unknown" in found.method


@pytest.mark.parametrize("costs", [[], [-1.0]])
def test_costs_are_there_and_not_negative(costs: list[float]) -> None:
    with pytest.raises(ValueError, match="one number or more"):
        break_even(costs, [1.0])

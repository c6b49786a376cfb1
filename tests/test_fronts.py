"""Fronts and knobs against bjontegaard, scipy, hand calculation and published curves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.report.answers.fronts import (
    BD,
    bd_psnr,
    bd_rate,
    calibration,
    coverage,
    diagonal_wins,
    hypervolume_ratio,
    igd_plus,
    monotonicity,
)

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


@pytest.mark.parametrize(
    ("bd", "rate", "lift", "size"), [(bd_rate, 0.9, 0, -10), (bd_psnr, 1, 0.5, 0.5)]
)
def test_a_tenth_less_rate_and_half_a_decibel_more(
    bd: Callable[..., BD], rate: float, lift: float, size: float
) -> None:
    curve = [rate * bpp for bpp in ZOO_BPP], [psnr + lift for psnr in ZOO_PSNR]
    found = bd(ZOO_BPP, ZOO_PSNR, *curve)
    assert (found.value, *found.thirds) == pytest.approx([size] * 4, abs=1e-9)
    assert (found.overlap, found.reason) == (1, "")


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
    assert (found.value, *found.thirds) == pytest.approx((clean.value, *clean.thirds))


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
    assert all(map(math.isnan, (found.value, *found.thirds)))
    assert found.reason.startswith(reason)
    bd_psnr(ZOO_BPP, ZOO_PSNR, rate, quality)  # is no error


POINTS, CORNER, UNITS = np.array([[1, 2], [2, 1]]), np.array([3, 3]), np.array([100, 1e-3])
FRONT = np.array([[10, 0], [6, 1], [2, 2], [1, 6], [0, 10]])  # of IGD+'s authors; extent 10 in both
BETTER, WORSE = np.array([[4, 2], [3, 3], [2, 4]]), [[8, 2], [4, 4], [2, 8]]
GRID = [1.0, 2.0, 5.0]
VALUES = [*(0.5 * np.array([0.2, 0.4, 0.7, 1.1]) + 0.3), math.nan]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (hypervolume_ratio(POINTS, [[0, 0]], CORNER), 3 / 9),  # two areas of 2 that share 1
        (hypervolume_ratio([*POINTS, [2, 2], [9, 0]], POINTS, CORNER), 1),
        (hypervolume_ratio(POINTS * UNITS, [[0, 0]], CORNER * UNITS), 3 / 9),
        (hypervolume_ratio(POINTS, [[4, 4]], CORNER), math.nan),
        (hypervolume_ratio([[math.nan, 1]], POINTS, CORNER), math.nan),
        (igd_plus(BETTER, FRONT), 0.1482842712),
        (igd_plus(WORSE, FRONT), 0.2260112616),
        (igd_plus(FRONT, FRONT), 0),
        (igd_plus(BETTER * UNITS, [*FRONT * UNITS, [2000, 1]]), 0.1482842712),
        (igd_plus(BETTER, [[1, 1]]), math.nan),
        (coverage(GRID, GRID), 1),
        (coverage([2.0, 3.0], GRID), 0.25),
        (coverage([4.0, 9.0], GRID), 0.25),  # shifted: what lies beyond does not count
        (coverage([3.0, 3.0], GRID), 0),
        (coverage([6.0, 9.0], GRID), 0),
        (coverage([math.nan, 2.0, 3.0], GRID), 0.25),
        (coverage([1.0, 2.0], [3.0, 3.0]), math.nan),
        (monotonicity([1, 2, 3, 4], [5, math.nan, 7, 9]), 1),
        (monotonicity([], []), math.nan),
        (calibration(VALUES, [0.2, 0.4, 0.7, 1.1, 5.0]), (0.2 + 0.1 + 0.05 + 0.25) / 4 / 0.9),
        (calibration([1.0, 2.0], [3.0, 3.0]), math.nan),
    ],
)
def test_what_can_be_counted_by_hand(found: float, expected: float) -> None:
    assert found == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_monotonicity_is_scipys_spearman(pairs: list[tuple[int, int]]) -> None:
    coefficients, values = zip(*pairs, strict=True)
    found = monotonicity(coefficients, values)
    if len(set(coefficients)) == 1 or len(set(values)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(coefficients, values).statistic)


@pytest.mark.parametrize(
    ("matrix", "wins"),
    [
        ([[1.9, 19.0], [3.2, 7.0]], [True, True]),
        ([[3.2, 7.0], [1.9, 19.0]], [False, False]),
        ([[1.0, 2.0], [1.0, 2.0]], [False, False]),  # who ignores its coefficients wins nothing
        ([[1.0, math.nan], [2.0, 0.0]], [True, False]),
    ],
)
def test_a_model_wins_the_setting_it_is_told(matrix: list[list[float]], wins: list[bool]) -> None:
    assert diagonal_wins(matrix).tolist() == wins

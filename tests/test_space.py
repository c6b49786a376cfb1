"""Coefficients: grids, draws, encodings, and what is refused."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.space import Axis, Space, format_setting, parse_setting

ONE = Space((Axis(name="a", low=0.0018, high=0.18),))
TWO = Space((Axis(name="a", low=0.1, high=10.0), Axis(name="b", low=2.0, high=50.0)))


def test_grids_are_log_spaced_with_both_ends() -> None:
    assert ONE.grid(3) == ((0.0018,), (0.018,), (0.18,))
    assert ONE.grid(1) == ((0.018,),)
    assert TWO.grid(2) == ((0.1, 2), (0.1, 50), (10, 2), (10, 50))
    with pytest.raises(ValueError, match="one point or more"):
        ONE.grid(0)


def test_one_at_a_time_moves_one_axis() -> None:
    assert TWO.one_at_a_time() == ((1, 10), (0.1, 10), (10, 10), (1, 2), (1, 50))


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.integers(1, 20))
def test_every_grid_lies_inside_its_axis(low: float, ratio: float, points: int) -> None:
    space = Space((Axis(name="a", low=low, high=low * ratio),))
    assert not any(space.outside(setting) for setting in space.grid(points))


def test_draws_follow_their_law_and_are_independent() -> None:
    """Unlike the released code's."""
    generator = torch.Generator().manual_seed(0)
    many = TWO.sample(20_000, generator)
    place = TWO.encode(many)
    assert place.abs().max() <= 1
    torch.testing.assert_close(place.mean(0), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(place.std(0), torch.full((2,), 1 / math.sqrt(3)), atol=0.02, rtol=0)
    assert abs(torch.corrcoef(place.T)[0, 1]) < 0.02
    uniform = TWO.sample(4000, generator, law="uniform")
    assert abs(uniform[:, 1].mean() - 26) < 0.7
    root = TWO.sample(4000, generator, law="cube_root")[:, 1] ** (1 / 3)
    assert abs(root.mean() - (2 ** (1 / 3) + 50 ** (1 / 3)) / 2) < 0.03
    levels = TWO.sample(500, generator, levels=3)
    assert sorted(set(levels[:, 0].tolist())) == pytest.approx([0.1, 1.0, 10.0])
    assert set(levels[:, 1].tolist()) == set(torch.tensor(TWO.axes[1].at_each(3)).tolist())
    for drawn in (many, uniform, levels):
        assert not any(TWO.outside(tuple(row)) for row in drawn.double().tolist())
    for _ in range(20):
        parts = (TWO.encode(TWO.sample(4, generator, stratified=True)) + 1) / 2 * 4
        assert sorted(parts[:, 0].long().tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("axis", [0, 1])
def test_the_ends_law_is_the_arcsine_law_on_the_logarithmic_axis(axis: int) -> None:
    """Stratified, the i-th smallest of n places lies between the law's quantiles i / n and
    (i + 1) / n, whatever was drawn, on each axis."""
    count, law = 1000, scipy.stats.beta(0.5, 0.5)
    drawn = TWO.sample(count, torch.Generator().manual_seed(0), "ends", stratified=True)
    place = ((TWO.encode(drawn)[:, axis] + 1) / 2).double().sort().values.numpy()
    bounds = law.ppf([i / count for i in range(count + 1)])
    assert (place >= bounds[:-1] - 1e-6).all()
    assert (place <= bounds[1:] + 1e-6).all()
    assert scipy.stats.kstest(place, scipy.stats.arcsine.cdf).statistic <= 1 / count + 1e-3
    # Levels: each the more often, the nearer to an end, by the law's share of its equal part.
    values = TWO.sample(count, torch.Generator().manual_seed(1), "ends", 4, stratified=True)
    found = [int((values[:, axis] == level).sum()) for level in values[:, axis].unique()]
    assert found == pytest.approx([1000 / 3, 1000 / 6, 1000 / 6, 1000 / 3], abs=2)
    plain = TWO.sample(count, torch.Generator().manual_seed(0), "ends")
    assert scipy.stats.kstest((TWO.encode(plain)[:, axis] + 1) / 2, "arcsine").pvalue > 0.01
    assert not torch.equal(plain[:, 0], plain[:, 1])


def test_a_setting_outside_is_named_with_its_range() -> None:
    assert ONE.outside((0.5,)) == ["a = 0.5 is outside [0.0018, 0.18]"]
    assert ONE.outside((0.01,)) == []
    assert "2 values" in ONE.outside((0.01, 1.0))[0]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (2, 1), (1, math.inf), (-1, 1)])
def test_impossible_axes_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < low < high"):
        Axis(name="a", low=low, high=high)


def test_settings_are_written_and_read() -> None:
    text = format_setting(["a", "b"], (0.0018, 100.0))
    assert text == "a=0.0018;b=100"
    assert parse_setting(text) == {"a": 0.0018, "b": 100.0}
    with pytest.raises(ValueError, match="is no setting"):
        parse_setting("nonsense")


def test_a_sweep_stands_between_the_settings_and_beyond_the_range() -> None:
    one = Space((Axis(name="a", low=0.1, high=10.0),))
    assert one.sweep(one.grid(3)) == ((0.0316,), (0.316,), (3.16,), (31.6,))
    two = Space((Axis(name="a", low=0.1, high=10.0), Axis(name="b", low=1.0, high=4.0)))
    held = two.sweep(((0.1, 2.0), (1.0, 2.0), (10.0, 2.0)))
    assert held == ((0.0316, 2.0), (0.316, 2.0), (3.16, 2.0), (31.6, 2.0))
    both = two.sweep(two.one_at_a_time())
    assert len(both) == 8
    assert {setting[1] for setting in both if setting[0] == 1.0} == {0.707, 1.41, 2.83, 5.66}
    assert two.sweep(((1.0, 2.0),)) == ()

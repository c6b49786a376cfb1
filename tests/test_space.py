"""Coefficients: grids, draws, encodings, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.space import Axis, Space, format_setting, parse_setting

ONE = Space((Axis(name="a", low=0.0018, high=0.18),))
TWO = Space((Axis(name="a", low=0.1, high=10), Axis(name="b", low=1, high=100)))


def test_grids_are_log_spaced_with_both_ends() -> None:
    assert ONE.grid(3) == ((0.0018,), (0.018,), (0.18,))
    assert ONE.grid(1) == ((0.018,),)
    assert TWO.grid(2) == ((0.1, 1), (0.1, 100), (10, 1), (10, 100))
    with pytest.raises(ValueError, match="one point or more"):
        ONE.grid(0)


def test_one_at_a_time_moves_one_axis() -> None:
    centre, *moved = TWO.one_at_a_time()
    assert centre == (1.0, 10.0)
    assert all(sum(a != b for a, b in zip(centre, s, strict=True)) == 1 for s in moved)
    assert len(moved) == 4


def test_draws_are_log_uniform_and_independent() -> None:
    drawn = TWO.encode(TWO.sample(20_000, torch.Generator().manual_seed(0)))
    assert drawn.min() >= -1
    assert drawn.max() <= 1
    torch.testing.assert_close(drawn.mean(0), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full((2,), 1 / math.sqrt(3)), atol=0.02, rtol=0)
    assert abs(torch.corrcoef(drawn.T)[0, 1]) < 0.02


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.integers(1, 20))
def test_every_grid_lies_inside_its_axis(low: float, ratio: float, points: int) -> None:
    space = Space((Axis(name="a", low=low, high=low * ratio),))
    for setting in space.grid(points):
        assert space.outside(setting) == []


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

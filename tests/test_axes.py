"""How far apart a method's answers are along each coefficient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.run.plan import experiment
from benchmarks import axes


@pytest.fixture(autouse=True)
def _fetched(fetched: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fetched("digits")

    def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).abs().max()

    monkeypatch.setattr(axes, "lpips", lambda net: apart)


def test_one_network_that_is_told_nothing_does_not_move(
    tmp_path: Path, completed: Callable[..., Any]
) -> None:
    """The grid's networks differ, and what is measured is the pictures that they make."""
    planned = experiment("digits", "smoke", ["fixed_grid", "single_model"])
    completed(tmp_path, planned)
    frame = axes.distances(planned, tmp_path, seed=0)
    assert set(frame["coefficient"]) == {"kl"}
    assert frame["example"].nunique() == 270
    table = axes.summed(frame).set_index("method")
    assert table.at["single_model", "mean"] == 0 < table.at["fixed_grid", "mean"]
    assert table["ratio"].to_dict() == {"fixed_grid": 1.0, "single_model": 0.0}


def test_the_others_stay_at_the_middle() -> None:
    planned = experiment("quadratic[coefficients=2]", "smoke", ["fixed_grid"])
    for place in (0, 1):
        low, high = axes._ends(planned, place)
        assert (low[place], high[place]) == (0.1, 10.0)
        assert low[1 - place] == high[1 - place] == 1.0


def test_without_the_networks_it_says_what_to_do(tmp_path: Path) -> None:
    planned: Any = experiment("digits", "smoke", ["fixed_grid"])
    with pytest.raises(RuntimeError, match="fixed_grid: a network is not trained"):
        axes.distances(planned, tmp_path, seed=0)


def test_of_several_paintings_each_has_its_rows_and_told_networks_every_axis(
    tmp_path: Path,
    completed: Callable[..., Any],
    fetched: Callable[[str], None],
    two_paintings: str,
    small_pictures: Path,
) -> None:
    fetched("style")
    places = {"paintings": two_paintings, "test_data": str(small_pictures)}
    task = "style[training.steps=1]"
    planned = experiment(task, "smoke", ["fixed_grid", "yoto"], settings=3, locations=places)
    completed(tmp_path, planned)
    table = axes.summed(axes.distances(planned, tmp_path, seed=0))
    assert list(table["of"].unique()) == ["all", "bars", "dots"]
    found = table.set_index(["of", "method", "coefficient"])
    assert found.at[("all", "yoto", "content"), "pictures"] == 2  # a photograph counts once
    assert found.at[("dots", "yoto", "content"), "pictures"] == 2
    assert set(table.loc[table["method"] == "fixed_grid", "coefficient"]) == {"content"}
    assert set(table.loc[table["method"] == "yoto", "coefficient"]) == set(planned.task.space.names)
    for of in ("all", "bars", "dots"):
        ratio = found.at[(of, "yoto", "content"), "mean"]
        ratio /= found.at[(of, "fixed_grid", "content"), "mean"]
        assert found.at[(of, "yoto", "content"), "ratio"] == pytest.approx(ratio)
    assert found["ratio"].isna()["all", "yoto", "style_relu1_2"]

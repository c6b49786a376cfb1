"""Levers that were searched for: what presets take, what the search costs, and the same right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import levers
from bench.registry import METHODS, method, preset, task_class, variants
from bench.report.load import load_results
from benchmarks import search

SEARCHED = json.loads(levers.FILE.read_text())


def test_every_method_has_as_many_variants() -> None:
    for name, tried in search.VARIANTS.items():
        assert tried[0] == "", "the defaults are one of them"
        made = [each for _, each in search.tried(name, {}).values()]
        assert len(set(made)) == len(tried) == search.COUNT, name
        assert [fields for fields, _ in search.tried(name, {}, 4).values()] == tried[:4]
    # What has nothing to tune, and what is tuned under another name
    rest = {"yoto", "fixed_grid", "single_model", "interpolation", "unconditioned", "step_scaling"}
    assert set(METHODS) == {*search.VARIANTS, *rest}


def test_presets_for_evidence_take_what_was_found_and_its_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {
        "fields": {"lr": 2.0}, "variants": 8, "preset": "quick", "examples": 10, "flops": 20
    }  # fmt: skip
    monkeypatch.setattr(levers, "_searched", lambda: {"quadratic": {"subspace": kept}})
    kind = task_class("quadratic")
    assert preset(kind, "quick").methods == {}
    ((_, chosen),) = variants("subspace", preset(kind, "trained").methods).items()
    assert chosen.lr == 2
    assert levers.tuning("quadratic", chosen).examples == 10
    assert levers.tuning("quadratic", method("subspace")) is None  # other fields, not searched for
    assert levers.tuning("digits", chosen) is None
    own = levers.tuning("compression", method("yoto_tuned"))
    assert own.variants == 15
    found = {"compression": {"yoto_tuned": kept | {"fields": {}}}}
    monkeypatch.setattr(levers, "_searched", lambda: found)
    both = levers.tuning("compression", method("yoto_tuned"))
    assert (both.variants, both.flops) == (15 + 8, own.flops + 20)


@pytest.mark.parametrize("task", sorted(SEARCHED))
def test_the_levers_kept_are_those_of_the_table(task: str) -> None:
    """In `results/reference/search-*`: the least gap, and the cost of all variants together."""
    import pandas as pd

    (found,) = Path("results/reference").glob(f"search-*/{task}.csv")
    table = pd.read_csv(found, keep_default_na=False)
    usual = preset(task_class(task), "quick").methods
    (size,) = {kept["preset"] for kept in SEARCHED[task].values()}
    assert search.best(table, size, usual) == SEARCHED[task]
    assert table.groupby("method").size().nunique() == 1, "the same right to be tuned"
    of_presets = [each.methods.items() for each in task_class(task).presets().values()]
    found = {name: kept["fields"] for name, kept in SEARCHED[task].items()}.items()
    assert any(found <= of_preset for of_preset in of_presets), "the evidence takes what was found"


def test_the_gap_is_the_mean_over_settings_and_seeds(tmp_path: Path) -> None:
    """On made-up records, against the sum by hand; a network that diverged is never the best."""
    from tests.synthetic import write_results

    write_results(tmp_path, methods=("fixed_grid", "yoto"))
    (run,) = load_results(tmp_path).runs
    losses = run.records[run.records["measure"] == "loss"]
    by = losses.groupby(["method", "setting", "seed"])["value"].mean()
    yoto, grid = by["yoto"], by["fixed_grid"]
    expected = (100 * (yoto - grid) / grid.abs()).mean()
    assert search.gaps(run, [0, 1, 2])["yoto"] == pytest.approx(expected)
    assert search.gaps(run, [0, 1, 2])["fixed_grid"] == 0
    run.measured.loc[run.measured["method"] == "yoto", "status"] = "diverged"
    assert search.gaps(run, [0, 1, 2])["yoto"] == float("inf")

"""Networks trained for other shares of the steps: what is planned, what the report concludes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ideal import DECADES, ideal, run_of, shortened, told, write_ideal

from bench.registry import METHODS, TASKS, method, preset, task_class
from bench.report import build
from bench.report.answer_table import answer_sheet
from bench.report.answers.compare import quality_compute
from bench.report.answers.lengths import MOVED, benefits, needed, same_loss, trained_out
from bench.run.plan import experiment, experiment_from
from bench.run.runner import Run
from bench.run.schema import ExperimentConfig, from_plain
from bench.run.schema import to_plain as as_plain
from bench.run.store import Store

CPU = torch.device("cpu")
ROLES = {
    "reference": {"fixed_grid", "fixed_grid_tuned"},
    "under test": {"yoto", "yoto_tuned"},
}


def test_the_reference_and_the_networks_under_test_have_lengths() -> None:
    by_role = {role: {n for n in METHODS if method(n).role == role} for role in ROLES}
    assert by_role == ROLES


@pytest.mark.parametrize("task", TASKS)
def test_a_quick_run_trains_other_lengths_where_that_takes_seconds(task: str) -> None:
    presets = task_class(task).presets()
    assert presets["smoke"].lengths == ()
    assert presets["quick"].lengths == ((0.5, 1.0) if task in ("quantiles", "digits") else ())


def test_each_length_has_networks_of_its_own_with_their_whole_schedule() -> None:
    names = ["yoto", "yoto[steps=2]", "fixed_grid", "warm_grid", "single_model"]
    plain = experiment("toy", "smoke", names)
    asked = replace(plain, lengths=(0.25, 0.5, 1.0))
    added = {cell.id: cell for cell in asked.cells}
    for cell in plain.cells:
        del added[cell.id]  # what is compared stays what it is
    steps = sorted((c.method.name, c.task.training.steps) for c in added.values())
    grid = [("fixed_grid", 75)] * 3 + [("fixed_grid", 150)] * 3
    assert steps == [*grid, *(("yoto", count) for count in (75, 150, 150, 300))]
    for cell in added.values():
        whole = next(c for c in plain.cells if c.method == cell.method)
        fewer = replace(whole.task.training, steps=cell.task.training.steps)
        assert cell.task.training == fewer
    kinds = [m.kind for m in asked.measurements if m.kind not in ("method", "swept")]
    assert kinds == ["length"] * 3 * 2 * 3  # settings, shares, methods
    ids = [asked.measurement_id(m) for m in asked.measurements]
    assert len(set(ids)) == len(ids)
    same = {plain.measurement_id(m) for m in plain.measurements}
    assert same < set(ids)
    assert experiment_from(from_plain(as_plain(asked.config()), ExperimentConfig)) == asked


def test_lengths_are_asked_for_on_the_command_line_or_by_the_preset() -> None:
    assert experiment("toy", "smoke", lengths=[0.5, 1.0]).lengths == (0.5, 1.0)
    assert preset(task_class("compression"), "paper").lengths == (0.25, 0.5, 1.0)
    assert experiment("toy", "smoke").lengths == ()
    for wrong in ([0.0], [2.0], [0.5, 0.5], [math.nan]):
        with pytest.raises(ValueError, match="shares of the steps, above 0 and at most 1"):
            experiment("toy", "smoke", lengths=wrong)


def test_a_run_trains_measures_and_loads_them(tmp_path: Path) -> None:
    found = experiment("toy", "smoke", ["yoto", "fixed_grid"], lengths=[0.5])
    run = Run(tmp_path, [found], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert run.failures == []
    assert run.record_jobs() == []
    loaded = run_of(tmp_path)
    assert set(loaded.lengths["share"]) == {0.5}
    used = {cell for cells in loaded.lengths["cells"] for cell in cells}
    steps = loaded.cells.set_index("cell")["steps"]
    assert set(steps[sorted(used)]) == {150}
    heads = [json.loads(path.read_text()) for path in tmp_path.glob("records/toy/*/*.json")]
    assert {(h["kind"], h["share"]) for h in heads} == {
        ("method", 1.0), ("swept", 1.0), ("length", 0.5)
    }  # fmt: skip
    quality = quality_compute(loaded).set_index(["method", "share"])
    assert quality["flops"].xs(0.5, level="share").to_numpy() == pytest.approx(
        quality["flops"].xs(1.0, level="share").to_numpy() / 2, rel=1e-3
    )  # answering costs the same after either
    (report,) = build(tmp_path)
    halved = pd.read_csv(report.folder / "trained_out.csv")
    assert set(halved["method"]) == {"yoto", "fixed_grid"}
    assert (report.folder / "same_loss.csv").exists()
    assert answer_sheet([report.run]).rows[0][7] in ("yes", "no")
    cell = next(iter(found.shorter.values()))[0]
    assert Store(tmp_path).result(cell).ledger.steps == 150  # type: ignore[union-attr]


def test_the_crossing_is_where_the_drawn_curve_crosses() -> None:
    curve = [(1.0, 9.0), (4.0, 5.0), (16.0, 1.0)]
    for points, level, compute in (
        (curve, 5.0, 4),
        (curve, 3.0, 8),  # half-way on a logarithmic axis
        (curve, 1.0, 16),
        (curve, 0.9, math.nan),  # it never comes down to it
        (curve, 9.1, math.nan),  # it starts below: the cost is not known
        ([(1.0, 3.0), (2.0, 3.0)], 3.0, 1),
        ([], 1.0, math.nan),
        ([(1.0, math.nan), (2.0, 0.0)], 0.5, math.nan),
        ([(1.0, 4.0), (2.0, 6.0), (8.0, 0.0)], 3.0, 4),
    ):
        assert needed(points, level) == pytest.approx(compute, nan_ok=True)


def test_compute_for_the_same_loss(tmp_path: Path) -> None:
    """yoto loses 20 %, as the grid does at a quarter of its steps: 2e13 FLOPs against 4e13."""

    def late(name: str, *arguments: Any) -> dict[str, float]:
        return told(worse=1.2 if name == "yoto" else 1.0)(name, *arguments)

    write_ideal(tmp_path, values=late, seeds=(0, 1))
    assert same_loss(run_of(tmp_path)).empty
    shortened(tmp_path, "fixed_grid", 0.25, 1.4)
    (row,) = same_loss(run_of(tmp_path)).to_dict("records")
    assert (row["method"], row["flops"]) == ("yoto", pytest.approx(4e13))
    assert row["loss_gap"] == pytest.approx(20)
    assert row["grid_flops"] == pytest.approx(4e13)  # between 2e13 and 8e13
    assert row["ratio"] == pytest.approx(1)
    shortened(tmp_path, "fixed_grid", 0.5, 1.1)
    (row,) = same_loss(run_of(tmp_path)).to_dict("records")
    assert row["grid_flops"] == pytest.approx(2e13 * 2 ** (2 / 3))
    shortened(tmp_path, "yoto", 0.5, 1.2)  # what it comes to it has after half of its steps
    (row,) = same_loss(run_of(tmp_path)).to_dict("records")
    assert row["flops"] == pytest.approx(2e13)
    assert row["ratio"] == pytest.approx(2 ** (2 / 3))


def test_trained_out_is_a_quarter_of_a_tenth_of_the_benefit(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told(), seeds=(0, 1, 2))
    run = run_of(tmp_path)
    assert trained_out(run).empty
    assert run.middle in ("distortion=10", "distortion=100")
    gained = benefits(run)
    pictures = np.array([np.random.default_rng(place).standard_normal() for place in range(6)])
    at = float(run.middle.split("=")[1])
    for coefficient in DECADES:
        losses = []
        for knob in (at, coefficient):
            codes = [ideal(knob, hard) for hard in pictures]
            losses.append(np.mean([coefficient * c["distortion"] + c["rate"] for c in codes]))
        benefit = gained[f"distortion={coefficient:g}"]
        assert benefit == pytest.approx(losses[0] - losses[1], abs=1e-9)
        assert benefit >= 0

    full = run.records.query("measure == 'loss' and method == 'fixed_grid'")
    mean = full.groupby("setting")["value"].mean()
    shortened(tmp_path, "fixed_grid", 0.5, 1.01)
    found = trained_out(run_of(tmp_path)).set_index("setting")
    assert set(found["method"]) == {"fixed_grid"}
    for setting, row in found.iterrows():
        assert row["moved"] == pytest.approx(0.01 * mean[setting])
        assert row["low"] <= row["moved"] <= row["high"]
        if setting == run.middle:
            assert math.isnan(row["trained_out"])  # there is no benefit to be a share of
            continue
        assert row["limit"] == pytest.approx(MOVED * run.margin_share * gained[setting])
        assert row["trained_out"] == float(0.01 * mean[setting] < gained[setting] / 40)
    assert set(found["trained_out"].dropna()) == {0.0, 1.0}
    assert found["shown"].dropna().equals(found["trained_out"].dropna())  # seeds do not differ

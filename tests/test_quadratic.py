"""The quadratic compromises: the least loss against a numerical optimum, what width is enough."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from bench import FixedGrid
from bench.method import build
from bench.plugins.names import refuse_names
from bench.registry import preset, sized, task_class
from bench.task import weighted
from bench.tasks.quadratic import MOST, Quadratic
from bench.train import fit

TASK: Quadratic = preset(task_class("quadratic"), "smoke").task


def several(coefficients: int, **fields: Any) -> Quadratic:
    return replace(TASK, coefficients=coefficients, **fields)


@pytest.mark.parametrize("coefficients", [1, 2, 5])
def test_regret_is_what_a_numerical_optimum_would_save(coefficients: int) -> None:
    task = several(coefficients, dimension=3)
    torch.manual_seed(0)
    model, batch = task.model(), task.data("test").tensor[:4]
    for setting in task.settings(3)[::3]:
        with torch.no_grad():
            terms = task.measure(model, batch)
            losses = weighted(task.space, terms, torch.tensor([setting] * len(batch)))
            regret = task.measure_at(model, batch, setting)["regret"]
        for row, loss, claimed in zip(batch.double().numpy(), losses, regret, strict=True):

            def of(y: Any, row: Any = row, setting: Any = setting) -> float:
                return float(np.dot([1, *setting], ((y - row[1:]) ** 2).mean(1)))

            least = minimize(of, np.zeros(3), tol=1e-10).fun
            assert float(claimed) == pytest.approx(float(loss) - least, rel=1e-4, abs=1e-5)


def test_targets_are_rotations_and_those_of_fewer_stay() -> None:
    matrices = several(MOST).rotations()
    identity = torch.eye(TASK.dimension, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity)
    assert torch.equal(several(2).rotations(), matrices[:3])
    row = several(2).data("train").tensor[5].double()
    torch.testing.assert_close(row[1:], matrices[:3] @ row[0], rtol=0, atol=1e-6)


def test_units_for_each_target_are_enough_to_follow_every_setting() -> None:
    """Of a network whose hidden units are scaled by what their target weighs, and nothing else."""
    task = several(2, hidden=3 * TASK.dimension)
    matrices, batch = task.rotations().float(), task.data("test").tensor
    for setting in task.settings(5):
        weights = torch.tensor([1.0, *setting])
        scales = (weights / weights.sum()).repeat_interleave(task.dimension)
        model: Any = task.model()
        with torch.no_grad():
            for layer in model:
                layer.bias.zero_()
            model[0].weight.copy_(scales[:, None] * matrices.flatten(0, 1))
            model[1].weight.copy_(torch.eye(task.dimension).repeat(1, 3))
            assert task.measure_at(model, batch, setting)["regret"].max() < 1e-10


def test_as_many_units_as_dimensions_are_not() -> None:
    """With U and V square, U diag(s) V at one setting after its inverse at another has the real
    eigenvalues s / s'; that of the best answers has complex ones."""
    first, second = TASK.rotations()
    low, high = ((first + c * second) / (1 + c) for (c,) in TASK.settings(2))
    eigenvalues = torch.linalg.eigvals(torch.linalg.solve(low, high))
    assert eigenvalues.imag.abs().max() > 0.1


def test_a_network_of_its_own_reaches_the_least_loss(tmp_path: Path) -> None:
    """With as many units as dimensions."""
    narrow = replace(TASK, hidden=TASK.dimension)
    cell = FixedGrid().plan(narrow, narrow.settings(2), 0)[1]
    network = build(cell)
    draw = functools.partial(cell.method.draw, cell)
    fit(cell.task, network, draw, 0, torch.device("cpu"), tmp_path)
    (setting,) = cell.trained_for
    regret = TASK.measure_at(network.model, TASK.data("test").tensor, setting)["regret"]
    assert regret.max() < 1e-6


@pytest.mark.parametrize("coefficients", [1, 3, MOST])
def test_names_axes_and_settings_follow_the_number_of_coefficients(coefficients: int) -> None:
    task = several(coefficients, ratio=64.0)
    refuse_names(task, "smoke", {})
    assert len(task.terms) == coefficients + 1
    assert [(axis.low, axis.high) for axis in task.space.axes] == [(0.125, 8.0)] * coefficients
    assert set(task.measures) == {"regret", *task.terms}
    settings = task.settings(5)
    assert len(set(settings)) == (5 if coefficients == 1 else 1 + 2 * coefficients + 4)
    assert not any(task.space.outside(setting) for setting in settings)


def test_width_and_range_can_be_changed() -> None:
    assert TASK.wider(2).hidden == 2 * TASK.hidden
    assert TASK.wider(0.5).hidden == TASK.hidden // 2
    (axis,) = TASK.ranged(4).space.axes
    assert (axis.low, axis.high) == (0.5, 2.0)


def test_what_makes_no_sense_is_refused_with_what_does() -> None:
    for word, hint in {
        "quadratic[coefficients=9]": "use 1 to 8",
        "quadratic[ratio=1]": "above 1",
        "quadratic[hidden=0]": "use 1 or more",
    }.items():
        with pytest.raises(ValueError, match=hint):
            sized(word, "smoke")


def test_the_model_is_linear() -> None:
    assert not [m for m in TASK.model().modules() if not isinstance(m, nn.Linear | nn.Sequential)]

"""Every task × method keeps the contract; `--task FILE` and `--method FILE` add a user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from baselines.hypernetwork import Generated
from bench.artefacts import Unavailable
from bench.conditioning import Modulated, Network
from bench.data import PictureError
from bench.method import Cell, build
from bench.registry import describe, method, preset, task_class
from bench.runner import Experiment, Run
from bench.store import cell_config, cell_from
from bench.task import weighted
from bench.train import Interrupted, fit, optimiser

CPU = torch.device("cpu")


@dataclass
class Pair:
    """One task at its smallest preset with one method, and a batch of training data."""

    experiment: Experiment

    @property
    def task(self):
        return self.experiment.task

    @property
    def method(self):
        return next(iter(self.experiment.methods.values()))

    @property
    def cell(self) -> Cell:
        return self.experiment.cells[0]

    def batch(self, count: int = 3):
        return self.task.data("train").batch(count, torch.Generator().manual_seed(7))

    def draw(self, count: int = 3) -> torch.Tensor:
        return self.method.draw(self.cell, count, torch.Generator().manual_seed(1))

    def terms(self, network: Network, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(11)  # the same noise for every call
        network.condition(coefficients)
        return self.task.losses(network.model, self.batch(len(coefficients)))


@pytest.fixture
def pair(task_name: str, method_name: str) -> Pair:
    smallest = preset(task_class(task_name), "smoke")
    try:
        smallest.task.data("train").to(CPU)
    except (Unavailable, PictureError) as error:
        pytest.skip(str(error))
    tried = method(method_name)
    if reason := tried.refuses(smallest.task):
        pytest.skip(reason)
    return Pair(
        Experiment(
            task=smallest.task,
            preset="smoke",
            settings=smallest.task.settings(2),
            seeds=(0,),
            methods={tried.name: tried},
        )
    )


@torch.no_grad()
def disturb(network: Network) -> None:
    """Move a conditioner off its start, at which coefficients may do nothing yet."""
    for parameter in network.conditioner.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape))


def test_terms_are_per_example_and_finite(pair: Pair) -> None:
    network = build(pair.cell)
    terms = pair.terms(network, pair.draw())
    assert tuple(terms) == pair.task.terms
    for name, term in terms.items():
        assert term.shape == (3,), name
        assert term.dtype == torch.float32, name
        assert term.isfinite().all(), name
    assert set(pair.task.space.names) <= set(terms)


def test_every_coefficient_changes_the_gradient(pair: Pair) -> None:
    space = pair.task.space
    (centre,) = space.grid(1)
    network = build(pair.cell)

    def gradient(setting: tuple[float, ...]) -> torch.Tensor:
        coefficients = torch.tensor([setting] * 3)
        network.zero_grad()
        weighted(space, pair.terms(network, coefficients), coefficients).mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    middle = gradient(centre)
    for i, axis in enumerate(space.axes):
        moved = gradient((*centre[:i], axis.high, *centre[i + 1 :]))
        assert not torch.allclose(moved, middle, rtol=1e-3), axis.name


def test_every_conditioning_parameter_learns(pair: Pair) -> None:
    network = build(pair.cell)
    if network.conditioner is None:
        pytest.skip("this method adds no parameters")
    disturb(network)
    coefficients = pair.draw()
    terms = pair.terms(network, coefficients)
    weighted(pair.task.space, terms, coefficients).mean().backward()
    stepped = {
        id(p) for g in optimiser(network, pair.task.training).param_groups for p in g["params"]
    }
    for name, parameter in network.conditioner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert id(parameter) in stepped, name


def test_the_output_follows_the_setting(pair: Pair) -> None:
    network = build(pair.cell)
    if network.conditioner is None:
        pytest.skip("this method does not condition")
    disturb(network)
    settings = pair.task.space.grid(2)
    low, high = (torch.tensor([setting] * 3) for setting in (settings[0], settings[-1]))
    at_low, at_high = pair.terms(network, low), pair.terms(network, high)
    assert any(not torch.equal(at_low[name], at_high[name]) for name in at_low)


def test_folding_changes_nothing_beyond_rounding(pair: Pair) -> None:
    network = build(pair.cell)
    setting = pair.task.space.grid(2)[0]
    with torch.no_grad():
        before = pair.terms(network, torch.tensor([setting] * 3))
        network.release()
        plain = network.at(setting)
        torch.manual_seed(11)
        after = pair.task.losses(plain, pair.batch())
    assert not any(isinstance(m, Modulated | Generated) for m in plain.modules())
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4)


def test_ids_are_stable_across_processes(pair: Pair) -> None:
    config = json.dumps(cell_config(pair.cell, "smoke"))
    code = (
        "import json, sys; from bench.store import cell_from; "
        "print(cell_from(json.load(sys.stdin)).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=config,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        check=True,
    )
    assert done.stdout.strip() == pair.cell.id


def test_a_configuration_makes_the_cell_again(pair: Pair) -> None:
    again = cell_from(json.loads(json.dumps(cell_config(pair.cell, "smoke"))))
    assert again.task == pair.cell.task
    assert again.method == pair.cell.method
    assert describe(again.task) == describe(pair.cell.task)


def test_trains_resumes_to_the_same_bits_and_measures(pair: Pair, tmp_path: Path) -> None:
    cell, task = pair.cell, pair.task

    def trained(folder: Path, stops: list[int]) -> dict[str, torch.Tensor]:
        folder.mkdir()
        for stop in [*stops, -1]:
            network, asked = build(cell), iter(range(10**9))

            def draw(count: int, generator: torch.Generator) -> torch.Tensor:
                return cell.method.draw(cell, count, generator)

            try:
                fit(
                    task, network, draw, cell.seed, CPU, folder,
                    should_stop=lambda asked=asked, stop=stop: next(asked) + 1 == stop,
                )  # fmt: skip
            except Interrupted:
                assert stop > 0
        return network.state_dict()

    whole, resumed = trained(tmp_path / "whole", []), trained(tmp_path / "resumed", [1, 2])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "resumed")]
    steps = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    assert steps[0] == steps[1]

    run = Run(tmp_path / "results", [pair.experiment], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert run.failures == []
    assert run.train_jobs() == []
    assert run.record_jobs() == []
    from bench.records import loads

    tables = list((tmp_path / "results" / "records" / task.name).glob("*/*.csv"))
    records = [r for table in tables for r in loads(table.read_text(), str(table))]
    own = [r for r in records if r.method == pair.method.name]
    expected = {"loss", *task.measures} - set(task.missing())
    swept = task.space.sweep(pair.experiment.settings) if pair.method.swept else ()
    assert {r.measure for r in own} == expected
    assert {r.setting for r in own} == {
        ";".join(f"{n}={v:g}" for n, v in zip(task.space.names, s, strict=True))
        for s in (*pair.experiment.settings, *swept)
    }
    weights = {(r.setting, r.example): r.value for r in own if r.measure == "loss"}
    for (setting, example), loss in weights.items():
        values = {r.measure: r.value for r in own if (r.setting, r.example) == (setting, example)}
        coefficient = dict(part.split("=") for part in setting.split(";"))
        total = sum(float(coefficient.get(name, 1)) * values[name] for name in task.terms)
        assert loss == pytest.approx(total, rel=1e-4)

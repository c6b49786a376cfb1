"""Every task × method keeps the contract; `--task FILE` and `--method FILE`, or the names of
installed plug-ins, add a user's own, and `--device cuda` tests it on a GPU."""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.conditioners import Conditioner, Network
from bench.cost import parameters
from bench.measuring import mixed_up
from bench.method import Cell, build
from bench.registry import METHODS, TASKS, describe, method, preset, task_class
from bench.run.plan import Experiment
from bench.run.records import loads
from bench.run.runner import Run
from bench.run.schema import CellConfig, from_plain, to_plain
from bench.run.store import cell_config, cell_from
from bench.run.work import exact
from bench.space import format_setting, parse_setting
from bench.task import weighted
from bench.train import Interrupted, fit, objective, optimiser

PLACES = {  # fixtures with data of tasks
    "beta_vae_shapes3d": {"train_data": "shapes3d"},
    "compression": {"test_data": "small_pictures"},
    "style": {"test_data": "small_pictures"},
    "style_paintings": {"test_data": "small_pictures", "paintings": "two_paintings"},
}
# Tasks in another form, whose batches and models are others: by the task's name.
VARIANTS = {"style_paintings": "style"}


@functools.cache
def planned(task_name: str, method_name: str, **places: str) -> Experiment:
    """One task at its smallest preset, with its data at these places, and one method."""
    smallest = preset(task_class(VARIANTS.get(task_name, task_name)), "smoke").task
    smallest = smallest.trained_with(steps=min(smallest.training.steps, 4))
    smallest = replace(smallest, **places)
    tried = method(method_name)
    few = smallest.settings(2)
    return Experiment(
        task=smallest, preset="smoke", settings=few, seeds=(0,), methods={tried.name: tried}
    )


@dataclass
class Candidate:
    """A method that applies to a task, and what its network is."""

    task: str
    method: str
    first: bool  # no other method trains the same network, or one that differs by its start alone
    conditioner: Conditioner | None


# The network, loss and training of `beta_vae_scenes` on other pictures, and dense layers as in
# `digits`, `quantiles` and `toy`: the main methods will do.
ALIKE = {"beta_vae_cifar10", "beta_vae_shapes3d", "fairness", "quadratic"}


@functools.cache
def candidates(tasks: tuple[str, ...], methods: tuple[str, ...]) -> list[Candidate]:
    chosen: list[Candidate] = []
    for task_name in tasks:
        seen = []
        for method_name in methods:
            experiment = planned(task_name, method_name)
            (tried,) = experiment.methods.values()
            if tried.refuses(experiment.task) or (task_name in ALIKE and not tried.role):
                continue
            cell = tried.plan(experiment.task, experiment.settings, 0)[0]
            made = cell.method.conditioner(cell.task, cell.method.model(cell.task))
            training = (cell.task, cell.method)
            fresh = training not in seen and tried.like not in methods
            chosen.append(Candidate(task_name, method_name, fresh, made))
            seen.append(training)
    return chosen


def over(which: Callable[[Candidate], bool]) -> pytest.MarkDecorator:
    """A test that runs over some of the pairs alone."""
    return pytest.mark.over.with_args(which)


distinct = over(lambda pair: pair.first)
conditioned = over(lambda pair: pair.first and pair.conditioner is not None)
learned = over(lambda pair: pair.first and parameters(pair.conditioner) > 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair" in metafunc.fixturenames:
        files = {what: metafunc.config.getoption(f"--{what}") for what in ("task", "method")}
        mark = metafunc.definition.get_closest_marker("over")
        which = mark.args[0] if mark else lambda pair: True
        pairs = [
            pytest.param(
                (one.task, one.method),
                id=f"{one.task}-{one.method}",
                marks=[pytest.mark.xdist_group("cifar10")] if "cifar10" in one.task else [],
            )
            for one in candidates((*TASKS, *VARIANTS, *files["task"]), (*METHODS, *files["method"]))
            if which(one)
        ]
        metafunc.parametrize("pair", pairs, indirect=True)


@dataclass
class Pair:
    """An experiment of one task and one method, and a batch of training data."""

    experiment: Experiment
    device: torch.device

    @property
    def task(self):
        return self.experiment.task

    @property
    def method(self):
        return next(iter(self.experiment.methods.values()))

    @property
    def cell(self) -> Cell:
        """The method's first own; the experiment's may be one that it starts from."""
        return self.method.plan(self.task, self.experiment.settings, 0)[0]

    def network(self) -> Network:
        return build(self.cell).to(self.device)

    def batch(self, count: int = 3):
        data = self.task.data("train").to(self.device)
        return data.batch(count, torch.Generator().manual_seed(7))

    def draw(self, count: int = 3) -> torch.Tensor:
        drawn = self.cell.method.draw(self.cell, count, torch.Generator().manual_seed(1))
        return drawn.to(self.device)

    def ends(self, count: int = 3) -> list[torch.Tensor]:
        """The coefficients of the lowest and the highest setting, each (count, K)."""
        low, *_, high = self.task.space.grid(2)
        return [torch.tensor([setting] * count, device=self.device) for setting in (low, high)]

    def terms(self, network: Network, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(11)  # the same noise for every call
        network.condition(coefficients)
        return self.task.losses(network.model, self.batch(len(coefficients)))

    def trained(self, cell: Cell, folder: Path, stop: int = -1) -> Network:
        """Its network, from scratch or on from the folder's checkpoint."""
        network, steps = build(cell), itertools.count(1)
        draw = functools.partial(cell.method.draw, cell)
        folder.mkdir(exist_ok=True)
        stopping = lambda: next(steps) == stop  # noqa: E731
        fit(cell.task, network, draw, cell.seed, self.device, folder, should_stop=stopping)
        return network


@pytest.fixture
def pair(request: pytest.FixtureRequest, fetched: Callable[[str], None]) -> Pair:
    task_name, method_name = request.param
    fetched(VARIANTS.get(task_name, task_name))
    wanted = PLACES.get(task_name, {}).items()
    places = {field: str(request.getfixturevalue(fixture)) for field, fixture in wanted}
    device = torch.device(request.config.getoption("--device"))
    return Pair(planned(task_name, method_name, **places), device)


@torch.no_grad()
def disturb(network: Network) -> None:
    """Move a conditioner off its start, at which coefficients may do nothing yet."""
    for parameter in network.conditioner.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))


# Of a term's size, between the two ends of the range. Rounding makes 1e-6 of a difference.
MATTERS = 1e-3


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of two terms, (B,), relative to their size."""
    return float(((one - other).abs().mean() / (one.abs() + other.abs()).mean()).detach())


@distinct
def test_terms_are_per_example_and_finite(pair: Pair) -> None:
    network = pair.network()
    terms = pair.terms(network, pair.draw())
    assert tuple(terms) == pair.task.terms
    for name, term in terms.items():
        assert term.shape == (3,), name
        assert term.dtype == torch.float32, name
        assert term.isfinite().all(), name
    assert set(pair.task.space.names) <= set(terms)


@distinct
def test_every_coefficient_changes_the_gradient(pair: Pair) -> None:
    space = pair.task.space
    (centre,) = space.grid(1)
    network = pair.network()

    def gradient(setting: tuple[float, ...]) -> torch.Tensor:
        coefficients = torch.tensor([setting] * 3, device=pair.device)
        network.zero_grad()
        weighted(space, pair.terms(network, coefficients), coefficients).mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    middle = gradient(centre)
    for i, axis in enumerate(space.axes):
        moved = gradient((*centre[:i], axis.high, *centre[i + 1 :]))
        assert not torch.allclose(moved, middle, rtol=1e-3), axis.name


@learned
def test_every_conditioning_parameter_learns(pair: Pair) -> None:
    network = pair.network()
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


@conditioned
def test_the_output_follows_the_setting_wherever_it_was_moved(pair: Pair) -> None:
    """`to` replaces a module's buffers: what a conditioner kept of them is then nobody's."""
    network = pair.network()
    disturb(network)
    before = [pair.terms(network, end) for end in pair.ends()]
    network.to(torch.float64).to(torch.float32)
    after = [pair.terms(network, end) for end in pair.ends()]
    for low, high in (before, after):
        assert max(map(difference, low.values(), high.values())) > MATTERS
    torch.testing.assert_close(after, before)


@distinct
def test_folding_changes_nothing_beyond_rounding(pair: Pair) -> None:
    network = pair.network()
    setting = pair.task.space.grid(2)[0]
    with torch.no_grad():
        before = pair.terms(network, pair.ends()[0])
        network.release()
        plain = network.at(setting)
        torch.manual_seed(11)
        after = pair.task.losses(plain, pair.batch())
    untouched = pair.cell.method.model(pair.task)
    assert [type(m) for m in plain.modules()] == [type(m) for m in untouched.modules()]
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Callable[[dict], str]]:
    """Asks another process for the id of a configuration's cell."""
    code = (
        "import json, sys\nfrom bench.run.store import cell_from\n"
        "from bench.run.schema import CellConfig, from_plain\n"
        "for line in sys.stdin:\n"
        "    print(cell_from(from_plain(json.loads(line), CellConfig)).id, flush=True)"
    )
    words, pipes = [sys.executable, "-c", code], {"stdin": subprocess.PIPE, "stdout": -1}
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    with subprocess.Popen(words, text=True, env=environment, **pipes) as process:

        def ask(config: dict) -> str:
            print(json.dumps(config), file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield ask


@distinct
def test_a_configuration_makes_the_cell_again_here_and_elsewhere(
    pair: Pair, elsewhere: Callable[[dict], str]
) -> None:
    config = to_plain(cell_config(pair.cell, "smoke"))
    again = cell_from(from_plain(config, CellConfig))
    assert (again.task, again.method) == (pair.cell.task, pair.cell.method)
    assert describe(again.task) == describe(pair.cell.task)
    assert elsewhere(config) == again.id == pair.cell.id


@distinct
def test_a_resume_ends_with_the_same_bits(pair: Pair, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "resumed")]
    whole = pair.trained(pair.cell, folders[0])
    for stop in (1, 2):
        with pytest.raises(Interrupted):
            pair.trained(pair.cell, folders[1], stop)
    resumed = pair.trained(pair.cell, folders[1])
    state = resumed.state_dict()
    for name, value in whole.state_dict().items():
        if pair.device.type == "cpu":
            assert torch.equal(value, state[name]), name
        else:  # a GPU adds in any order, and Adam makes a step of any difference
            step = pair.cell.task.training.lr
            torch.testing.assert_close(state[name], value, rtol=1e-2, atol=step)
    assert [line["step"] for line in log(folders[0])] == [x["step"] for x in log(folders[1])]


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("option", "tolerance"), [({"channels_last": True}, 0.02), ({"precision": "bf16"}, 0.05)]
)  # in another format the noise of a codec's latents comes in another order
@over(lambda pair: pair.method == "yoto")
def test_format_and_precision_change_rounding_alone(
    pair: Pair, option: dict, tolerance: float, tmp_path: Path
) -> None:
    compare_with_plain(pair, option, tolerance, tmp_path)


@over(lambda pair: (pair.task, pair.method) == ("compression", "yoto"))
def test_a_captured_step_changes_rounding_alone(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU what `torch.compile` captures, without the code it makes: that takes a minute."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    if pair.device.type == "cpu":
        captured = functools.partial(torch.compile, backend=backend)
        monkeypatch.setattr(torch, "compile", captured)
    compare_with_plain(pair, {"compile": True}, 1e-3, tmp_path)
    assert graphs or pair.device.type != "cpu"
    # What comes before the backward pass is one graph: this fails where something breaks it.
    batch = pair.task.data("train").to(pair.device).batch(2, torch.Generator())
    coefficients = pair.cell.method.draw(pair.cell, 2, torch.Generator()).to(pair.device)
    network = build(pair.cell).to(pair.device)
    torch.compile(objective, fullgraph=True)(pair.task, network, batch, coefficients)


def compare_with_plain(pair: Pair, option: dict, tolerance: float, folder: Path) -> None:
    """Two steps with the option and without."""
    kinds = set()

    def note(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(layer, nn.Linear | nn.Conv2d) and isinstance(output, torch.Tensor):
            kinds.add(output.dtype)

    cells = [
        replace(pair.cell, task=pair.cell.task.trained_with(**{**fields, "steps": 2}))
        for fields in ({}, option)
    ]
    pair.trained(cells[0], folder / "plain")
    with nn.modules.module.register_module_forward_hook(note):
        network = pair.trained(cells[1], folder / "option")
    for one, other in zip(log(folder / "plain"), log(folder / "option"), strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=tolerance)
    if "precision" in option:
        assert torch.bfloat16 in kinds
    weights = [w for w in network.model.parameters() if w.dim() == 4 and min(w.shape[1:3]) > 1]
    in_format = [w.is_contiguous(memory_format=torch.channels_last) for w in weights]
    assert all(in_format) if option.get("channels_last") else not any(in_format)


@over(lambda pair: pair.method == "fixed_grid")
@torch.no_grad()
def test_an_example_has_the_same_numbers_alone_and_among_others(pair: Pair) -> None:
    """But for `ROUNDING`: in a batch of another size sums are in another order."""
    model = pair.network().model.eval()
    pair.task.ready(model)
    with exact():
        assert not mixed_up(pair.task, model, pair.task.data("test").to(pair.device).examples())


def test_trains_and_measures(pair: Pair, tmp_path: Path, completed: Callable[..., Run]) -> None:
    task = pair.task
    run = completed(tmp_path, pair.experiment, device=str(pair.device))
    assert run.train_jobs() == []
    assert run.record_jobs() == []
    tables = list((tmp_path / "records" / task.name).glob("*/*.csv"))
    records = [r for table in tables for r in loads(table.read_text(), str(table))]
    records = [r for r in records if r.method == pair.method.name]
    expected = {"loss", *task.measures} - set(task.missing())
    swept = task.space.sweep(pair.experiment.settings) if pair.method.swept else ()
    assert {r.measure for r in records} == expected
    asked = (*pair.experiment.settings, *swept)
    assert {r.setting for r in records} == {format_setting(task.space.names, s) for s in asked}
    values = {(r.setting, r.example, r.measure): r.value for r in records}
    for setting, example in {(r.setting, r.example) for r in records if r.measure == "loss"}:
        weight = parse_setting(setting)
        total = sum(weight.get(name, 1) * values[setting, example, name] for name in task.terms)
        assert values[setting, example, "loss"] == pytest.approx(total, rel=1e-4)

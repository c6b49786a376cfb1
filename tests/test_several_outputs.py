"""One network with an output per setting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.several_outputs import Chosen, SeveralOutputs
from bench.conditioners import Network
from bench.method import build
from bench.registry import preset, task_class
from bench.task import weighted
from bench.train import optimiser, optimiser_step

TASK = preset(task_class("quantiles"), "smoke").task
SETTINGS = TASK.settings(3)
(CELL,) = SeveralOutputs().plan(TASK, SETTINGS, 0)


def outputs(network: Network) -> nn.ModuleList:
    return network.conditioner.layers  # type: ignore[union-attr, return-value]


def coefficients(*settings: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(settings)


def test_it_starts_as_the_plain_model_and_counts_its_outputs() -> None:
    network = build(CELL)
    batch = TASK.data("train").batch(6, torch.Generator().manual_seed(0))
    torch.manual_seed(CELL.seed)
    plain = TASK.model()
    network.condition(coefficients(*SETTINGS, *SETTINGS))
    terms = TASK.losses(network.model, batch)
    for name, term in TASK.losses(plain, batch).items():
        torch.testing.assert_close(terms[name], term)
    last = plain[4]
    assert len(outputs(network)) == 3
    count = sum(p.numel() for p in network.parameters())
    own = sum(p.numel() for p in plain.parameters())
    assert count == own + 2 * sum(p.numel() for p in last.parameters())


def test_outputs_decay_as_the_rest_does() -> None:
    network = build(CELL)
    (group, spared) = optimiser(network, TASK.trained_with(weight_decay=0.5).training).param_groups
    assert len(group["params"]) == len(list(network.parameters()))
    assert not spared["params"]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_an_output_is_moved_by_its_own_setting_alone(moved: int) -> None:
    network = build(CELL)
    batch = TASK.data("train").batch(4, torch.Generator().manual_seed(0))
    before = [layer.weight.clone() for layer in outputs(network)]
    adam = optimiser(network, TASK.training)
    optimiser_step(TASK, network, adam, batch, coefficients(*[SETTINGS[moved]] * 4))
    changed = [
        not torch.equal(layer.weight, weight)
        for layer, weight in zip(outputs(network), before, strict=True)
    ]
    assert changed == [place == moved for place in range(3)]


def test_every_example_follows_its_own_output_and_so_does_the_plain_model() -> None:
    network = build(CELL)
    with torch.no_grad():
        for place, layer in enumerate(outputs(network)):
            layer.weight.zero_()
            layer.bias.fill_(place)
    batch = TASK.data("train").batch(3, torch.Generator().manual_seed(0))[:, :-1]
    network.condition(coefficients(SETTINGS[2], SETTINGS[0], SETTINGS[1]))
    assert network.model(batch)[:, 0].tolist() == [2, 0, 1]
    network.release()
    between = (0.9 * SETTINGS[2][0],)  # the nearest one's
    for setting, value in (*zip(SETTINGS, (0, 1, 2), strict=True), (between, 2)):
        again = build(CELL)
        again.load_state_dict(network.state_dict())
        plain = again.at(setting)
        assert plain(batch)[:, 0].tolist() == [value] * 3
        assert not any(isinstance(layer, Chosen) for layer in plain.modules())


def test_settings_have_equal_shares_of_every_batch_and_are_part_of_the_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [CELL.method.draw(CELL, 7, generator) for _ in range(300)]
    counts = torch.stack([(batch == coefficients(*SETTINGS).T).sum(0) for batch in rows])
    assert ((counts == 2) | (counts == 3)).all()
    assert counts.float().mean(0) == pytest.approx(7 / 3, abs=0.1)
    others = SeveralOutputs().plan(TASK, TASK.settings(5), 0)
    assert others[0].id != CELL.id
    assert len({cell.id for cell in SeveralOutputs().plan(TASK, SETTINGS, 0)} | {CELL.id}) == 1
    chosen = SeveralOutputs(settings=SETTINGS[:2]).plan(TASK, SETTINGS, 0)[0]
    assert chosen.method.settings == SETTINGS[:2]


def test_a_gradient_is_that_of_the_outputs_alone_and_of_what_they_share() -> None:
    """The shared layers learn from all settings: the sum of what each would teach them."""
    network = build(CELL)
    batch = TASK.data("train").batch(3, torch.Generator().manual_seed(0))

    def shared(rows: slice) -> torch.Tensor:
        network.zero_grad()
        told = coefficients(*SETTINGS)[rows]
        network.condition(told)
        weighted(TASK.space, TASK.losses(network.model, batch[rows]), told).sum().backward()
        return network.model[0].weight.grad.clone()  # type: ignore[index, union-attr]

    alone = [shared(slice(place, place + 1)) for place in range(3)]
    torch.testing.assert_close(shared(slice(3)), torch.stack(alone).sum(0))


@pytest.mark.parametrize(("task", "applies"), [("toy", True), ("compression", False)])
def test_it_applies_where_a_task_names_its_last_layer(task: str, applies: bool) -> None:
    reason = SeveralOutputs().refuses(preset(task_class(task), "smoke").task)
    assert ("names no last layer" in reason) == (not applies)

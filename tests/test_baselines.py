"""What defines each competing method, beyond the contract that all of them keep."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from scipy.spatial.distance import cosine
from torch import nn

from baselines.concatenation import Penalised, cosine_penalty
from baselines.gain_units import Gains
from baselines.interpolation import Interpolation, mixture
from baselines.step_scaling import StepScaling, scale_step
from baselines.warm_grid import WarmGrid
from bench import Axis, Cell, Concatenation, Encoding, Gates, Network, Space
from bench.method import build
from bench.registry import METHODS, TASKS, method, preset, split_methods, task_class, variants
from bench.run.plan import experiment, experiment_from
from bench.run.runner import Run
from bench.run.schema import CellConfig, ExperimentConfig, Ledger, from_plain, to_plain
from bench.run.store import Store, cell_config, cell_from
from bench.train import objective

CPU = torch.device("cpu")
TWO = Space((Axis(name="kl", low=0.1, high=10.0), Axis(name="pixels", low=1.0, high=25.0)))
TOY = preset(task_class("toy"), "smoke").task
CODEC = preset(task_class("compression"), "smoke").task


def crops(count: int = 2) -> torch.Tensor:
    return CODEC.data("train").batch(count, torch.Generator().manual_seed(3))


def performed(run: Run, *only: slice) -> list[str]:
    """Train (those of the cells) and measure; what failed."""
    jobs = run.train_jobs()
    for part in only or (slice(None),):
        run.execute(jobs[part], "training", lambda: False)
    if not only:
        run.execute(run.record_jobs(), "measuring", lambda: False)
    return run.failures


# Interpolation


def test_end_points_are_exact_and_are_the_grids_own() -> None:
    settings = TOY.space.grid(3)
    cells = Interpolation().plan(TOY, settings, 0)
    grid = method("fixed_grid").plan(TOY, settings, 0)
    assert [cell.id for cell in cells] == [grid[0].id, grid[-1].id]

    for setting, expected in zip(settings, (1.0, 2.0, 3.0), strict=True):
        networks = [build(cell) for cell in cells]
        for network, value in zip(networks, (1.0, 3.0), strict=True):
            network.load_state_dict(
                {name: torch.full_like(t, value) for name, t in network.state_dict().items()}
            )
        for parameter in Interpolation().at(TOY, cells, networks, setting).parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


def test_several_coefficients_have_one_end_point_each() -> None:
    space = Space(tuple(Axis(name=name, low=0.1, high=10.0) for name in "abc"))
    ends = [(10.0, 0.1, 1.0), (0.1, 10.0, 1.0)]  # the third coefficient does not move
    for setting, shares in (
        *((ends[0], [1, 0]), (ends[1], [0, 1]), ((1.0, 1.0, 1.0), [0.5, 0.5])),
        *(((0.1, 0.1, 1.0), [0.5, 0.5]), ((10.0, 1.0, 1.0), [2 / 3, 1 / 3])),
    ):
        assert mixture(space, ends, setting) == pytest.approx(shares)
    task = preset(task_class("style"), "quick").task
    cells = Interpolation().plan(task, task.settings(5), 0)
    assert [cell.trained_for[0] for cell in cells] == [
        (10.0, 1.0, 1.0, 0.1, 1.0),
        (0.1, 1.0, 1.0, 10.0, 1.0),
    ]


# Gain units


def test_gains_hit_their_levels_and_are_geometric_between() -> None:
    levels = TOY.space.axes[0].at_each(5)
    gains = Gains(CODEC.model(), levels)
    assert gains.sites == ["g_a.6", "before:g_s.0", "h_a.4", "before:h_s.0"]
    with torch.no_grad():
        gains.log_gains.normal_(generator=torch.Generator().manual_seed(0))
    rows = torch.cat([scale for scale, _ in gains(torch.tensor(levels)[:, None])], 1)
    torch.testing.assert_close(rows, gains.log_gains.exp())
    for share in (0.5, 0.75):
        between = torch.tensor([[levels[1] ** (1 - share) * levels[2] ** share]])
        (mixed,) = torch.cat([scale for scale, _ in gains(between)], 1)
        expected = rows[1] ** (1 - share) * rows[2] ** share
        torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-6)
    outside = torch.cat([scale for scale, _ in gains(torch.tensor([[1e-9], [1e9]]))], 1)
    torch.testing.assert_close(outside, rows[[0, -1]])


# Gates


def test_gates_are_exact_on_a_linear_vae() -> None:
    """Lucas et al. (NeurIPS 2019): a linear β-VAE's decoder has, for data of covariance
    eigenvalues v and noise s², columns of length sqrt(v - β s²), or none where that is negative;
    the best encoder for a decoder d is d / (d² + β s²) per axis."""
    beta = torch.logspace(-2, 1, 50)[:, None]
    noise, variance = 0.5, torch.tensor([0.2, 1.0, 3.0, 8.0])
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    space = Space((Axis(name="kl", low=0.01, high=10.0),))
    gates = Gates(layers, ["0", "1"], Encoding(space, "log"), closing=["1"])
    decoder = variance.sqrt() * 1.5
    with torch.no_grad():
        gates.weight[:4], gates.bias[:4] = -1.0, (decoder**2 / noise).log()
        gates.weight[4:], gates.bias[4:] = 1.0, (noise / variance).log()
        (opening, _), (closing, _) = gates(beta)
    torch.testing.assert_close(opening / decoder, decoder / (decoder**2 + beta * noise))
    exact = (variance - beta * noise).clamp(min=0).sqrt()
    torch.testing.assert_close(variance.sqrt() * closing, exact, atol=3e-3, rtol=1e-4)
    assert (exact == 0).any()


def test_a_shut_gate_has_finite_gradients() -> None:
    layers = nn.Sequential(nn.Linear(1, 3))
    gates = Gates(layers, ["0"], Encoding(TOY.space, "log"), closing=["0"])
    with torch.no_grad():
        gates.bias.copy_(torch.tensor([-2.0, 0.0, 5.0]))
    gates(torch.ones(2, 1))[0][0].sum().backward()
    assert gates.bias.grad is not None
    assert gates.bias.grad.isfinite().all()
    assert gates.bias.grad[0] != 0


# Concatenation


def test_concatenation_is_a_constant_further_channel() -> None:
    """Against a convolution that has the channel, which is constant beyond the border."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1))
    concatenation = Concatenation(model, ["0"], Encoding(TOY.space, "log"))
    taps = torch.randn(5, 1, 3, 3)
    with torch.no_grad():
        concatenation.weight.copy_(taps.sum((2, 3)))
    x, coefficients = torch.randn(2, 3, 8, 8), torch.tensor([[0.2], [7.0]])
    plain: nn.Conv2d = model[0]  # type: ignore[assignment]
    inside = nn.functional.pad(x, (1, 1, 1, 1))
    channel = coefficients.log()[..., None, None].expand(2, 1, 10, 10)
    expected = nn.functional.conv2d(
        torch.cat([inside, channel], 1), torch.cat([plain.weight, taps], 1), plain.bias
    )
    network = Network(model, concatenation)
    network.condition(coefficients)
    torch.testing.assert_close(network.model(x), expected, rtol=1e-4, atol=1e-5)


def test_the_cosine_penalty_is_scipys_cosine_per_example_and_has_no_units() -> None:
    """Of terms in their own order, with one that has no axis, between vectors relative to the
    middle of the range; a term in other units with its axis in theirs changes nothing."""
    generator = torch.Generator().manual_seed(0)

    def penalty(unit: float, factor: float = 2.0) -> torch.Tensor:
        axes = (
            Axis(name="kl", low=0.1, high=10.0),
            Axis(name="pixels", low=1 / unit, high=25 / unit),
        )
        model = nn.Sequential(nn.Linear(2, 3))
        made = Penalised(model, ["0"], Encoding(Space(axes), "log"), factor)
        terms = {"pixels": unit * losses[:, 1], "prior": losses[:, 2], "kl": losses[:, 0]}
        return made.penalty(terms, coefficients / torch.tensor([1.0, unit]))

    losses = torch.rand(4, 3, generator=generator) * torch.tensor([1.0, 0.2, 3.0])
    coefficients = TWO.sample(4, generator)
    lengths = [row * torch.tensor([1.0, 5.0, 1.0]) for row in losses]
    weights = [torch.cat([row / torch.tensor([1.0, 5.0]), torch.ones(1)]) for row in coefficients]
    cosines = [1 - cosine(a, b) for a, b in zip(lengths, weights, strict=True)]
    size = torch.stack(lengths).norm(dim=1).mean()
    assert penalty(1.0).item() == pytest.approx(-2 * size.item() * sum(cosines) / 4, rel=1e-5)
    assert penalty(1000.0).item() == pytest.approx(penalty(1.0).item(), rel=1e-5)
    assert penalty(1.0, 6.0).item() == pytest.approx(3 * penalty(1.0).item(), rel=1e-5)


def test_the_cosine_penalty_turns_each_examples_losses_towards_its_own_weights() -> None:
    weights = torch.tensor([[0.1, 1.0], [10.0, 1.0], [1.0, 1.0]])
    logs = torch.zeros(3, 2, requires_grad=True)  # of the losses, all on the diagonal
    descent = torch.optim.SGD([logs], lr=0.5)
    for step in range(2000):
        descent.zero_grad()
        cosine_penalty(logs.exp(), weights, 1.0).backward()
        if step == 0:  # where it is the weights' way already, there is nowhere to go
            assert logs.grad is not None
            torch.testing.assert_close(logs.grad[2], torch.zeros(2), atol=1e-6, rtol=0)
            assert (logs.grad[:2].sign() == torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).all()
        descent.step()
    for loss, weight in zip(logs.detach().exp(), weights, strict=True):
        assert cosine(loss, weight) < 1e-3


def test_concatenation_takes_the_penalty_only_where_it_is_asked_for() -> None:
    plain, penalised = method("concatenation"), method("concatenation", cosine=2.0)
    made = [each.conditioner(TOY, TOY.model()) for each in (plain, penalised)]
    assert [type(each) is Concatenation for each in made] == [True, False]
    losses = []
    for each in (plain, penalised):
        cell = Cell(task=TOY, method=each, seed=0)
        generator = torch.Generator().manual_seed(0)
        batch = TOY.data("train").batch(4, generator)
        losses.append(objective(TOY, build(cell), batch, each.draw(cell, 4, generator))[0])
    assert losses[1] < losses[0]
    with pytest.raises(ValueError, match="cosine -1: use 0"):
        method("concatenation", cosine=-1)


# A network told its coefficients that starts from a fixed one


@pytest.mark.parametrize("task", ["toy", "style", "beta_vae_scenes"])
def test_yoto_warm_is_the_grids_middle_network_before_its_first_step(task: str) -> None:
    found = experiment(task, "quick", ["fixed_grid", "yoto_warm"])
    grid, (cell,) = found.plans[0, "fixed_grid"], found.plans[0, "yoto_warm"]
    assert cell.after is not None
    assert cell.after.id in [each.id for each in grid]
    assert cell.after.trained_for == found.task.space.grid(1)
    trained = build(cell.after).model
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)  # as training might have left it
    network = build(cell, before=trained)
    assert sum(each.numel() for each in network.conditioner.parameters()) > 0
    at = network.at(found.settings[0])
    for name, value in trained.state_dict().items():
        assert torch.equal(at.state_dict()[name], value), name


def test_presets_give_yoto_warm_what_they_give_yoto_tuned() -> None:
    for task in TASKS:
        tuned, warm = experiment(task, "quick", ["yoto_tuned", "yoto_warm"]).methods.values()
        changed = {name for name, value in asdict(tuned).items() if getattr(warm, name) != value}
        assert changed - {"exact_start"} == {"warm_start"}, task
        assert warm.exact_start


# Step scaling


@torch.no_grad()
def test_a_scaled_step_leaves_the_prediction_and_undoes_itself() -> None:
    codec = build(Cell(task=CODEC, method=method("fixed_grid"), seed=0)).model.eval()
    picture = crops()
    before = {"y": codec.g_a(picture), "out": codec(picture)}
    scales = codec.h_s(codec.h_a(before["y"].abs()))
    scale_step(codec, 4.0)
    y = codec.g_a(picture)
    torch.testing.assert_close(y, 4 * before["y"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codec.h_s(codec.h_a(y.abs())), 4 * scales, rtol=1e-4, atol=1e-5)
    finer = codec(picture)
    error = [(out["x_hat"] - picture).square().mean() for out in (before["out"], finer)]
    assert error[1] < error[0]
    scale_step(codec, 0.25)
    again = codec(picture)
    torch.testing.assert_close(again["x_hat"], before["out"]["x_hat"], rtol=1e-3, atol=1e-3)


def test_the_step_grows_finer_with_the_weight_of_distortion() -> None:
    tried, steps = StepScaling(), []
    (cell,) = tried.plan(CODEC, CODEC.settings(3), 0)
    for setting in ((0.0018,), (0.18,)):
        network = build(cell)
        before = network.model.g_a[-1].weight.clone()
        model = tried.at(CODEC, [cell], [network], setting)
        steps.append((model.g_a[-1].weight / before).nanmedian().item())
    assert steps[0] < steps[1]


# The warm-started grid, and dependent cells in general


def test_the_chain_goes_outwards_from_the_grids_middle() -> None:
    settings = TOY.space.grid(5)
    cells = WarmGrid().plan(TOY, settings, 0)
    assert cells[0].id == method("fixed_grid").plan(TOY, [settings[2]], 0)[0].id
    after = {cell.trained_for[0]: cell.after for cell in cells}
    assert {s: a and a.trained_for[0] for s, a in after.items()} == {
        settings[2]: None,
        settings[1]: settings[2],
        settings[3]: settings[2],
        settings[0]: settings[1],
        settings[4]: settings[3],
    }
    assert {cell.task.training.steps for cell in cells[1:]} == {30}
    faster = WarmGrid(lr=2.0, rate=0.5).plan(TOY, settings, 0)
    tuned = method("fixed_grid", lr=2.0).plan(TOY, [settings[2]], 0)
    assert [cell.id for cell in faster[:1]] == [cell.id for cell in tuned]
    assert {cell.task.training.lr for cell in faster[1:]} == {TOY.training.lr}
    again = cell_from(from_plain(to_plain(cell_config(cells[-1], "smoke")), CellConfig))
    assert again.id == cells[-1].id
    assert again.chain[0].id == cells[0].id


@pytest.mark.parametrize("on", ["here", "pool"])
def test_a_child_starts_from_its_trained_parent(tmp_path: Path, on: str) -> None:
    found = experiment("toy", "smoke", ["warm_grid", "yoto[warm_start=0.1,steps=0.5]"])
    run = Run(tmp_path, [found], CPU, on, 2 if on == "pool" else 1)
    assert performed(run) == []
    assert run.train_jobs() == []
    child = next(cell for cell in found.cells if cell.method.name == "yoto")
    assert child.after is not None
    parent = Store(tmp_path).network(child.after)
    start = build(child, parent.model)
    torch.testing.assert_close(start.model[0].layer.weight, parent.model[0].weight)
    ledgers = [Store(tmp_path).result(cell).ledger for cell in (child, child.after)]
    assert [ledger.steps for ledger in ledgers] == [150, 30]


def test_a_child_without_its_parent_says_what_to_run(tmp_path: Path) -> None:
    found = experiment("toy", "smoke", ["warm_grid"])
    (failure,) = performed(Run(tmp_path, [found], CPU), slice(1, 2))
    assert "run_bench.py cell " + found.cells[0].id in failure


def test_the_command_of_a_child_trains_what_it_starts_from(tmp_path: Path) -> None:
    """So the commands of `run --dry` may run in any order, as in an array of a batch system."""
    from bench.cli import main

    found = experiment("toy", "smoke", ["warm_grid"])
    words = ["run", "toy", "--preset", "smoke", "--methods", "warm_grid", "--out", str(tmp_path)]
    assert main([*words, "--dry"]) == 0
    assert main(["cell", found.cells[-1].id, "--out", str(tmp_path)]) == 0
    done = [Store(tmp_path).result(cell) is not None for cell in found.cells]
    assert done == [cell in found.cells[-1].chain for cell in found.cells]


def test_a_diverged_parent_is_a_result_of_its_children(tmp_path: Path) -> None:
    found = experiment("toy", "smoke", ["warm_grid"])
    Store(tmp_path).prepare(found.cells[0], "smoke")
    nothing = Ledger(steps=0, examples=0, flops=0)
    Store(tmp_path).give_up(found.cells[0], "smoke", "the loss became non-finite", nothing)
    assert performed(Run(tmp_path, [found], CPU), slice(None)) == []
    last = Store(tmp_path).result(found.cells[-1])
    assert last.status == "diverged"
    assert "the loss became non-finite" in last.reason


# Names, fields, and what applies where


def test_variants_are_named_by_what_they_change() -> None:
    both = ["yoto[law=uniform,hidden=8]", "fixed_grid"]
    assert split_methods(", ".join(both)) == both
    presets = {"yoto": {"hidden": 256, "multiplier": 0.01}}
    ((label, made),) = variants("yoto[hidden=64, stratified=true]", presets).items()
    assert label == "yoto[hidden=64, stratified=True]"
    assert (made.hidden, made.stratified, made.multiplier) == (64, True, 0.01)
    for text, message in {
        "yoto[hiden=3]": "did you mean hidden",
        "yoto[hidden=many]": "hidden is of type int",
        "yoto[law=normal]": "law 'normal': use one of log_uniform",
        "yoto[levels=1]": "use 2 or more",
        "yoto[hidden=3": "closing bracket",
        "yoti": "did you mean yoto",
    }.items():
        with pytest.raises(ValueError, match=message):
            variants(text, {})


def test_a_method_that_does_not_apply_is_an_error_only_where_it_was_named() -> None:
    with pytest.raises(ValueError, match="gain_units does not apply to toy: its model is no codec"):
        experiment("toy", "smoke", ["yoto", "gain_units"])
    every = experiment("toy", "smoke", ["all"])
    assert "gain_units" not in every.methods
    assert "hypernetwork" in every.methods
    by_task = {
        "compression": {"gates", "hypernetwork", "instance_norm", "several_outputs"},
        "style": {
            *("gates", "concatenation", "gain_units", "gain_bank", "several_outputs"),
            *("step_scaling", "vbr"),
        },
        "beta_vae_scenes": {
            *("instance_norm", "gain_units", "gain_bank", "several_outputs", "step_scaling", "vbr")
        },
    }
    for task, missing in by_task.items():
        quick = preset(task_class(task), "quick").task
        refused = {name for name in METHODS if method(name).refuses(quick)}
        assert refused - {"hypernetwork"} == missing - {"hypernetwork"}, task


def test_levers_change_the_cell_and_nothing_else_is_shared() -> None:
    levers = (
        "encoding=raw law=uniform levels=5 per_example=false stratified=true kind=gates lr=2 "
        "kind=concat weighting=running_mean weighting=geometric_mean scale=free steps=2 "
        "warm_start=0.5 law=ends"
    )
    every = ["yoto", *(f"yoto[{lever}]" for lever in levers.split())]
    found = experiment("toy", "smoke", every)
    assert len({cell.id for cell in found.cells}) == len(every) + 1  # and the parent
    rates = [found.plans[0, name][0].task.training.lr for name in ("yoto", "yoto[lr=2.0]")]
    assert rates[1] == 2 * rates[0]
    wide = experiment("compression", "smoke", ["yoto[width=2]"]).cells[0]
    assert (wide.task.width, wide.task.latents) == (16, 24)
    with pytest.raises(ValueError, match="does not say how to widen"):
        len(experiment("toy", "smoke", ["yoto[width=2]"]).cells)
    with pytest.raises(ValueError, match="a whole number of times"):
        len(experiment("beta_vae_scenes", "smoke", ["yoto[width=1.5]"]).cells)


def test_validation_is_another_experiment_on_the_same_networks(tmp_path: Path) -> None:
    splits = ("test", "validation")
    test, validation = (experiment("toy", "smoke", ["yoto"], split=split) for split in splits)
    assert [c.id for c in test.cells] == [c.id for c in validation.cells]
    assert test.id != validation.id
    assert performed(Run(tmp_path, [test, validation], CPU)) == []
    heads = [json.loads(path.read_text()) for path in tmp_path.glob("records/toy/yoto/*.json")]
    assert {head["split"] for head in heads} == set(splits)
    replayed = experiment_from(from_plain(to_plain(validation.config()), ExperimentConfig))
    assert replayed.id == validation.id
    with pytest.raises(ValueError, match="--validation-data"):
        len(experiment("compression", "smoke", ["yoto"], split="validation").id)

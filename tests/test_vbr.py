"""CompressAI's variable-rate codec."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.vbr import CODECS
from bench import Cell
from bench.method import build
from bench.registry import method, preset, task_class
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.run.schema import CellConfig, from_plain, to_plain
from bench.run.store import Store, cell_config, cell_from

CODEC = preset(task_class("compression"), "smoke").task
SETTINGS = CODEC.settings(5)
KNOWN = "dab0775a3029"


def crops(count: int = 2) -> torch.Tensor:
    return CODEC.data("train").batch(count, torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("codec", CODECS)
def test_the_decoder_sees_whole_numbers_as_it_did_in_training(codec: str) -> None:
    """Where a density's median is no whole number, too: rounding is about it."""
    model = build(Cell(task=replace(CODEC, codec=codec), method=method("vbr"), seed=0)).model.eval()
    seen = []
    model.h_s.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    model.train()(crops(1))
    biases = model.entropy_bottleneck.biases[0]
    biases += 0.7 * torch.ones_like(biases)  # moves every median
    CODEC.ready(model.eval())
    medians = model.entropy_bottleneck.quantiles[..., 1]
    assert medians.abs().max() > 0.5
    model(crops(1))
    coded = model.compress(crops(1))
    decoded = model.decompress(coded["strings"], coded["shape"])
    assert len(seen) == 4
    for z in seen:
        torch.testing.assert_close(z, z.round(), rtol=0, atol=1e-6)
    torch.testing.assert_close(decoded["x_hat"], model(crops(1))["x_hat"].clamp(0, 1))


@pytest.mark.parametrize("codec", ["scale_hyperprior", "mean_scale_hyperprior"])
def test_the_variable_rate_codec_is_compressais_own(codec: str) -> None:
    """At its top level it is `ScaleHyperpriorVbr` with the same weights and that step."""
    import compressai.models

    task = replace(CODEC, codec=codec)
    network = build(Cell(task=task, method=method("vbr"), seed=0))
    theirs = getattr(compressai.models, CODECS[codec])(task.width, task.latents).eval()
    model = network.at((0.18,)).eval()
    step = math.sqrt(10)
    assert model.scale.item() == pytest.approx(step)
    state = {k: v for k, v in model.state_dict().items() if k != "scale"}
    theirs.load_state_dict({**state, "Gain": theirs.Gain.detach()})
    picture = crops(1)
    with torch.no_grad():
        ours, expected = model(picture), theirs(picture, inputscale=torch.tensor([step]))
        torch.testing.assert_close(ours["x_hat"], expected["x_hat"])
        for name, likelihood in expected["likelihoods"].items():
            torch.testing.assert_close(ours["likelihoods"][name], likelihood)


def test_levers_and_stages_leave_what_was_trained_before_its_id() -> None:
    for fields in ({}, {"fixed": 0.0}):
        assert [cell.id for cell in method("vbr", **fields).plan(CODEC, SETTINGS, 0)] == [KNOWN]
    (cell,) = method("vbr", lr=2.0).plan(CODEC, SETTINGS, 0)
    assert cell.task.training.lr == 2 * CODEC.training.lr
    drawn = cell.method.draw(cell, 5, torch.Generator().manual_seed(0))
    assert (drawn == drawn[0]).all()
    for fields in ({"fixed": 1.0}, {"fixed": -0.1}):
        with pytest.raises(ValueError, match="a share from 0 to below 1"):
            method("vbr", **fields)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_both_stages_of_the_variable_rate_codec_have_the_steps_of_one_training(
    share: float,
) -> None:
    task = CODEC.trained_with(steps=10)
    (cell,) = method("vbr", fixed=share).plan(task, task.settings(2), 0)
    before, last = cell.chain
    assert last is cell
    steps = [each.task.training.steps for each in cell.chain]
    assert steps == {0.001: [1, 9], 0.3: [3, 7], 0.999: [9, 1]}[share]
    assert before.trained_for == ((0.018,),)
    again = cell_from(from_plain(to_plain(cell_config(cell, "smoke")), CellConfig))
    assert [each.id for each in again.chain] == [each.id for each in cell.chain]


def test_the_first_stage_is_the_fixed_rate_codec_and_the_second_goes_on_from_it(
    tmp_path: Path,
) -> None:
    found = experiment("compression", "smoke", ["vbr[fixed=0.5]"])
    (cell,) = found.cells[-1:]
    assert cell.after is not None
    run = Run(tmp_path, [found], torch.device("cpu"))
    run.execute(run.train_jobs(), "training", lambda: False)
    assert run.failures == []
    ledgers = [Store(tmp_path).result(each).ledger for each in cell.chain]
    assert [ledger.steps for ledger in ledgers] == [2, 2]
    first = Store(tmp_path).network(cell.after).model.eval()
    plain = CODEC.model().eval()
    plain.load_state_dict(first.state_dict(), strict=False)
    with torch.no_grad():
        ours, theirs = (model(crops(1)) for model in (first, plain))
    torch.testing.assert_close(ours["x_hat"], theirs["x_hat"])
    start = build(cell, first).model
    assert start.stage == 2
    assert all(torch.equal(first.state_dict()[k], v) for k, v in start.state_dict().items())

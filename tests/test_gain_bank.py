"""A bank of gains folds into CompressAI's own codec, its density included."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck

from baselines.gain_bank import Bank, GainBank
from baselines.gain_units import Gains, GainUnits
from bench import Cell, KnownScale, Network
from bench.method import build
from bench.registry import preset, task_class
from bench.tasks.compression import CODECS

TASK = preset(task_class("compression"), "smoke").task
AXIS = TASK.space.axes[0]


def crops(count: int) -> torch.Tensor:
    return TASK.data("train").batch(count, torch.Generator().manual_seed(3))


def network(codec: str = "scale_hyperprior", **fields: object) -> Network:
    """One off its start, with medians that are no whole numbers."""
    task = replace(TASK, codec=codec)
    made = build(Cell(task=task, method=GainBank(**fields), seed=0)).eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.conditioner.rows.add_(
            torch.randn(made.conditioner.rows.shape, generator=generator) / 3
        )
        density = made.model.entropy_bottleneck
        density.biases[0].add_(1.3)
        density._update_quantiles(rtol=1e-7, atol=1e-6)
    return made


@torch.no_grad()
def test_rows_are_hit_and_scales_are_geometric_between() -> None:
    levels = AXIS.at_each(8)
    made = network(rows=8)
    bank = made.conditioner
    assert isinstance(bank, Bank)
    inside = [*(f"g_a.{i}" for i in (0, 2, 4, 6)), *(f"g_s.{i}" for i in (0, 2, 4))]
    assert bank.sites == [*inside, "before:g_s.0"]
    rows = torch.cat(bank.mixed(torch.tensor(levels)[:, None]), 1)
    torch.testing.assert_close(rows, bank.rows)
    for share in (0.25, 0.5):
        between = torch.tensor([[levels[3] ** (1 - share) * levels[4] ** share]])
        scales = torch.cat([scale for scale, _ in bank(between)], 1)[0]
        ends = bank.rows[3:5, : len(scales)].exp()
        torch.testing.assert_close(scales, ends[0] ** (1 - share) * ends[1] ** share)
    beyond = torch.cat(bank.mixed(torch.tensor([[1e-9], [1e9]])), 1)
    torch.testing.assert_close(beyond, bank.rows[[0, -1]])


@torch.no_grad()
def test_the_start_is_the_plain_codec_or_the_tasks_law() -> None:
    model, places = TASK.model(), torch.tensor([[AXIS.low], [0.007], [AXIS.high]])
    bank = GainBank().conditioner(TASK, model)
    assert isinstance(bank, Bank)
    assert not bank.rows.any()
    bank = GainBank(prior=True).conditioner(TASK, model)
    bank._density = [model.entropy_bottleneck]
    law = TASK.scaling(model)
    expected = dict(zip(law, KnownScale(TASK.space, law)(places), strict=True))
    for site, (scale, _) in zip(bank.sites, bank(places), strict=True):
        known = expected[site][0] if site in law else torch.ones(3, 1)
        torch.testing.assert_close(scale, known.expand_as(scale), rtol=1e-3, atol=0)


def test_the_law_leaves_gain_units_that_were_trained_without_it_their_id() -> None:
    for made in (GainUnits(), GainUnits(prior=False)):
        (cell,) = made.plan(TASK, TASK.settings(5), 0)
        assert cell.id == "2977c3b803a7"


@torch.no_grad()
def test_gain_units_start_from_the_law_at_every_site_that_it_names() -> None:
    model, places = TASK.model(), torch.tensor([[AXIS.low], [0.007], [AXIS.high]])
    law = TASK.scaling(model)
    expected = dict(zip(law, KnownScale(TASK.space, law)(places), strict=True))
    gains = GainUnits(prior=True).conditioner(TASK, model)
    assert isinstance(gains, Gains)
    assert set(law) <= set(gains.sites)
    for site, (gain, _) in zip(gains.sites, gains(places), strict=True):
        known = expected[site][0] if site in law else torch.ones(3, 1)
        torch.testing.assert_close(gain, known.expand_as(gain), rtol=1e-3, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("setting", [AXIS.high, 0.0231])
def test_the_folded_codec_is_the_conditioned_one_and_codes_as_it_says(
    codec: str, setting: float
) -> None:
    made, picture = network(codec, prior=True), crops(1)
    made.condition(torch.tensor([[setting]]))
    conditioned = made.model(picture)
    made.release()
    assert not torch.equal(made.model(picture)["x_hat"], conditioned["x_hat"])
    folded = made.at((setting,))
    plain = TASK.__class__.model(replace(TASK, codec=codec)).eval()
    assert [type(part) for part in folded.modules()] == [type(part) for part in plain.modules()]
    out = folded(picture)
    torch.testing.assert_close(out["x_hat"], conditioned["x_hat"], rtol=1e-4, atol=1e-5)
    for name, likelihood in conditioned["likelihoods"].items():
        torch.testing.assert_close(out["likelihoods"][name], likelihood, rtol=1e-3, atol=1e-6)
    folded.update(force=True)  # with the folded quantiles
    coded = folded.compress(picture)
    decoded = folded.decompress(coded["strings"], coded["shape"])["x_hat"]
    clamped = conditioned["x_hat"].clamp(0, 1)
    torch.testing.assert_close(decoded, clamped, rtol=1e-4, atol=1e-5)
    estimated = sum(-part.log2().sum().item() for part in conditioned["likelihoods"].values())
    written = 8 * sum(len(string) for part in coded["strings"] for string in part)
    assert written == pytest.approx(estimated, rel=0.05, abs=160)  # of two ends of streams


@torch.no_grad()
def test_the_prior_is_the_librarys_with_the_folded_weights() -> None:
    made, z = network(), 5 * torch.randn(3, TASK.width, 2, 4, generator=torch.Generator())
    places = torch.tensor([[AXIS.low], [0.011], [AXIS.high]])
    made.condition(places)
    for training in (True, False):
        torch.manual_seed(5)
        values, likelihoods = made.model.entropy_bottleneck(z, training)
        for i, place in enumerate(places[:, 0].tolist()):
            theirs = EntropyBottleneck(TASK.width)
            theirs.load_state_dict(copy.deepcopy(made).at((place,)).entropy_bottleneck.state_dict())
            if training:  # the same noise: the density at what was seen
                likelihood, _, _ = theirs._likelihood(values[i].flatten(1)[:, None])
                likelihood = theirs.likelihood_lower_bound(likelihood).reshape(z[i].shape)
            else:
                theirs.eval()
                rounded, (likelihood,) = theirs(z[i : i + 1])
                torch.testing.assert_close(values[i : i + 1], rounded)
            torch.testing.assert_close(likelihoods[i], likelihood, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_each_example_follows_its_own_coefficient() -> None:
    made, pictures = network(), crops(3)
    places = torch.tensor([[AXIS.low], [0.011], [AXIS.high]])
    made.condition(places)
    together = made.model(pictures)
    for i in range(3):
        made.condition(places[i : i + 1])
        alone = made.model(pictures[i : i + 1])
        torch.testing.assert_close(together["x_hat"][i], alone["x_hat"][0], rtol=1e-4, atol=1e-4)
        for name, likelihood in together["likelihoods"].items():
            torch.testing.assert_close(
                likelihood[i], alone["likelihoods"][name][0], rtol=1e-3, atol=1e-5
            )


def test_a_bank_has_two_rows() -> None:
    with pytest.raises(ValueError, match="gain_bank: rows 1: use 2 or more"):
        GainBank(rows=1)

"""What a task knows of scales, beside any mechanism: `prior`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.conditioners import KnownScale, Network
from bench.method import Cell, build
from bench.registry import method, preset, task_class
from bench.scaled import Scaled

CODEC = preset(task_class("compression"), "smoke").task
METHODS = ("subspace", "low_rank", "kernel_mix", "concatenation", "unconditioned")


def network(name: str, **fields: object) -> Network:
    made = build(Cell(task=CODEC, method=method(name, **fields), seed=0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # off the start, at which coefficients may do nothing yet
        for parameter in made.conditioner.parameters() if made.conditioner else ():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


def terms(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)  # the same noise for every call
    return CODEC.losses(model, torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(3)))


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("name", METHODS)
def test_it_is_the_mechanisms_own_network_with_its_layers_scaled(name: str, place: int) -> None:
    setting = CODEC.settings(5)[place]
    both = network(name, prior=True)
    both.condition(torch.tensor([setting] * 3))
    together = terms(both.model)
    both.release()
    folded = both.at(setting)
    plain = network(name).at(setting)
    assert [type(m) for m in folded.modules()] == [type(m) for m in plain.modules()]
    scaled = Network(plain, KnownScale(CODEC.space, CODEC.scaling(plain))).at(setting)
    for key, value in scaled.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[key], value)
    for key, value in terms(scaled).items():
        torch.testing.assert_close(together[key], value, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_every_example_is_scaled_for_its_own_coefficients() -> None:
    low, *_, high = CODEC.settings(5)
    both = network("low_rank", prior=True)

    def latents(*settings: tuple[float, ...]) -> torch.Tensor:
        both.condition(torch.tensor(settings))
        pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        return both.model.g_a(pictures)

    mixed = latents(low, high)
    torch.testing.assert_close(mixed[:1], latents(low, low)[:1])
    torch.testing.assert_close(mixed[1:], latents(high, high)[1:])
    assert mixed[1].std() > 3 * latents(low, low)[1].std()


@torch.no_grad()
def test_released_it_scales_nothing_and_its_factors_stay_fp32() -> None:
    low, *_ = CODEC.settings(5)
    both, pictures = network("low_rank", prior=True), torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        both.condition(torch.tensor([low, low]))
    assert {factor.dtype for factor in both.conditioner._factors.values()} == {torch.float32}
    scaled = both.model.g_a(pictures)
    both.release()
    plain = network("low_rank")
    torch.testing.assert_close(both.model.g_a(pictures), plain.model.g_a(pictures))
    assert not torch.allclose(both.model.g_a(pictures), scaled)


def test_a_task_that_knows_of_no_scale_is_left_as_it_is() -> None:
    toy = preset(task_class("toy"), "smoke").task
    told = method("subspace", prior=True).whole_conditioner(toy, toy.model())
    assert told is not None
    assert not isinstance(told, Scaled)


def test_a_mechanism_that_starts_from_it_has_it_once() -> None:
    for name in ("yoto", "gain_units", "gain_bank"):
        told = method(name, prior=True).whole_conditioner(CODEC, CODEC.model())
        assert not isinstance(told, Scaled)

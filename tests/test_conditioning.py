"""Modulation and folding: exact for every kind of layer, and refused where they cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.conditioning import FiLM, Network, fold, matching, modulate

LAYERS = {
    "conv": nn.Conv2d(4, 6, 3, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "transposed": nn.ConvTranspose2d(4, 6, 5, stride=2, padding=2, output_padding=1),
    "transposed, grouped": nn.ConvTranspose2d(4, 6, 3, groups=2),
    "linear": nn.Linear(4, 6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_folded_layer_equals_scale_and_shift(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]
    x = torch.randn(2, 4) if name == "linear" else torch.randn(2, 4, 8, 8)
    scale, shift = torch.randn(1, 6), torch.randn(1, 6)
    with torch.no_grad():
        y = layer(x)
        shape = (1, 6) + (1,) * (y.dim() - 2)
        expected = y * scale.reshape(shape) + shift.reshape(shape)
        torch.testing.assert_close(fold(layer, scale, shift)(x), expected, rtol=1e-4, atol=1e-5)


def test_film_is_two_perceptrons_per_site() -> None:
    """Against the same perceptrons written out one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3), nn.Conv2d(5, 8, 3))
    film = FiLM(model, ["0", "1", "2"], axes=2, hidden=16, multiplier=0.1)
    coefficients = torch.rand(4, 2) + 0.5
    hidden = nn.functional.leaky_relu(film.inner(coefficients.log()), 0.2)
    chunks = hidden.split(16, dim=1)  # perceptrons in the order of the widths: 5 first, then 8
    order = [2, 3, 0, 1, 4, 5]
    outputs = {}
    weights = [w for group in film.outer for w in group]
    biases = [b for group in film.bias for b in group]
    for chunk, member, weight, bias in zip(chunks, order, weights, biases, strict=True):
        outputs[member] = 0.1 * (chunk @ weight + bias)
    for site, (scale, shift) in enumerate(film(coefficients)):
        torch.testing.assert_close(scale, 1 + outputs[2 * site])
        torch.testing.assert_close(shift, outputs[2 * site + 1])
    assert [s.shape for s, _ in film(coefficients)] == [(4, 8), (4, 5), (4, 8)]


def test_a_plain_model_stays_plain_until_conditioned() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    x = torch.randn(2, 3)
    before = model(x)
    modulate(model, ["0"])
    assert torch.equal(model(x), before)


def test_a_linear_layer_is_modulated_along_its_last_dimension() -> None:
    """A transformer's (batch, tokens, channels), also where there are as many of both."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5))
    x = torch.randn(2, 5, 3)
    (site,) = modulate(model, ["0"])
    site.modulation = (torch.randn(2, 5), torch.randn(2, 5))
    with torch.no_grad():
        scale, shift = (part[:, None] for part in site.modulation)
        torch.testing.assert_close(model(x), site.layer(x) * scale + shift)


def test_folding_leaves_a_tied_weight_alone() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    before = other.weight.clone()
    fold(one, torch.full((1, 3), 2.0), torch.zeros(1, 3))
    assert torch.equal(other.weight, before)
    assert torch.equal(one.weight, 2 * before)


def test_mistakes_are_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with pytest.raises(TypeError, match="ReLU cannot be modulated"):
        FiLM(model, ["1"], 1, 4, 0.1)
    modulate(model, ["0"])
    with pytest.raises(ValueError, match="modulated already"):
        modulate(model, ["0"])
    assert matching(["g_a.0", "g_s.0", "h_a.0"], "g_*") == ["g_a.0", "g_s.0"]
    with pytest.raises(ValueError, match=r"the task offers g_a\.0"):
        matching(["g_a.0"], "nothing")


def test_a_released_network_can_be_copied() -> None:
    import copy

    model = nn.Sequential(nn.Linear(3, 3))
    network = Network(model, FiLM(model, ["0"], 1, 4, 0.1))
    network.condition(torch.ones(2, 1))
    network.release()
    twin = copy.deepcopy(network)
    twin.condition(torch.full((2, 1), 3.0))
    assert network._sites[0].modulation is None
    assert twin._sites[0] is twin.model[0]

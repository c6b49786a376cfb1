"""Modulation and folding: exact for every kind of layer, and refused where they cannot be."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from bench.conditioners import ENCODINGS, Balance, Encoding, FiLM, Network
from bench.modulation import fold, fold_before, matching, modulate
from bench.space import Axis, Space

ONE = Space((Axis(name="a", low=0.1, high=10.0),))
TWO = Space((Axis(name="a", low=0.1, high=10.0), Axis(name="b", low=2.0, high=50.0)))
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
        fold(layer, scale, shift)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_under_bf16_scales_near_one_are_not_rounded_to_its_steps() -> None:
    """bf16 has nothing between 1 and 1 + 2^-7: a scale there is multiplied in fp32."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    model = nn.Sequential(layer)
    (wrapper,) = modulate(model, ["0"])
    wrapper.after = (torch.full((1, 1), 1 + 3 / 1024), torch.full((1, 1), -1.0))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.ones(1, 1, 2, 2))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torch.full((1, 1, 2, 2), 3 / 1024))


@pytest.mark.parametrize("name", ["conv", "transposed", "linear"])
def test_a_scale_before_a_layer_folds_exactly(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(copy.deepcopy(LAYERS[name]))
    x = torch.randn(2, 4) if name == "linear" else torch.randn(2, 4, 8, 8)
    scale = torch.randn(1, 4)
    with torch.no_grad():
        expected = model(x * scale.reshape((1, 4) + (1,) * (x.dim() - 2)))
        before, after = modulate(model, ["before:0", "0"])
        assert before is after
        before.before, after.after = scale, (None, None)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        fold_before(before.layer, scale)
        torch.testing.assert_close(before.layer(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="one group"):
        fold_before(LAYERS["grouped"], scale)


def test_film_is_two_perceptrons_per_site() -> None:
    """Against the same perceptrons written out one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3), nn.Conv2d(5, 8, 3))
    film = FiLM(model, ["0", "1", "2"], Encoding(TWO, "log"), 16, 0.1)
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
    site.after = (torch.randn(2, 5), torch.randn(2, 5))
    with torch.no_grad():
        scale, shift = (part[:, None] for part in site.after)
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
        FiLM(model, ["1"], Encoding(ONE, "log"), 4, 0.1)
    modulate(model, ["0"])
    with pytest.raises(ValueError, match="modulated already"):
        modulate(model, ["0"])
    assert matching(["g_a.0", "g_s.0", "h_a.0"], "g_*") == ["g_a.0", "g_s.0"]
    assert matching(["g_a.0", "g_s.0", "h_a.0"], "!h_*") == ["g_a.0", "g_s.0"]
    assert matching(["g_a.0", "g_s.0", "h_a.0"], "g_* !*_s.*") == ["g_a.0"]
    with pytest.raises(ValueError, match=r"the task offers g_a\.0"):
        matching(["g_a.0"], "nothing")


def test_a_released_network_can_be_copied() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    network = Network(model, FiLM(model, ["0"], Encoding(ONE, "log"), 4, 0.1))
    network.condition(torch.ones(2, 1))
    network.release()
    twin = copy.deepcopy(network)
    twin.condition(torch.full((2, 1), 3.0))
    assert network.model[0].after == (None, None)
    assert twin.model[0].after[0] is not None


def test_encodings() -> None:
    drawn = TWO.sample(20_000, torch.Generator().manual_seed(0))
    codes = {kind: Encoding(TWO, kind)(drawn) for kind in ENCODINGS}
    for kind, code in codes.items():
        assert code.shape == (20_000, Encoding(TWO, kind).width)
    assert torch.equal(codes["raw"], drawn)
    assert torch.equal(codes["log"], drawn.log())
    torch.testing.assert_close(codes["standardised"].mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(codes["standardised"].var(0), torch.ones(2), atol=0.03, rtol=0)
    assert torch.equal(codes["sinusoidal"][:, :2], codes["standardised"])
    assert codes["sinusoidal"][:, 2:].abs().max() <= 1
    with pytest.raises(ValueError, match="use one of raw, log"):
        Encoding(ONE, "linear")


def test_balance_learns_the_size_of_the_loss_per_axis() -> None:
    """A loss a^2 / sqrt(b) times noise: weights times losses must come out alike everywhere."""
    balance, generator = Balance(TWO), torch.Generator().manual_seed(0)
    for _ in range(3000):
        drawn = TWO.sample(8, generator)
        loss = drawn[:, 0] ** 2 / drawn[:, 1].sqrt()
        balance(drawn, loss * torch.rand(8, generator=generator).add(0.5))
    drawn = TWO.sample(4000, generator)
    size = drawn[:, 0] ** 2 / drawn[:, 1].sqrt()
    shared = (size * balance(drawn, size)).log()
    assert size.log().std() > 2
    # Within a bin the loss still varies: by a factor of ten to the half along the first axis.
    assert shared.std() < 0.5
    low, high = shared[drawn[:, 0] < 1], shared[drawn[:, 0] > 1]
    assert abs(low.mean() - high.mean()) < 0.2
    assert balance.table.mean(1).abs().max() < 1e-5
    before = balance.table.clone()
    assert balance(drawn[:2], torch.tensor([-1.0, 0.0])).isfinite().all()
    torch.testing.assert_close(balance.table, before)


def test_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    many = TWO.sample(4000, generator)
    assert abs(torch.corrcoef(many.log().T)[0, 1]) < 0.05  # independent, unlike the released code
    place = (many[:, 1] / 2).log() / math.log(25)
    assert abs(place.mean() - 0.5) < 0.02
    uniform = TWO.sample(4000, generator, law="uniform")
    assert abs(uniform[:, 1].mean() - 26) < 0.7
    root = TWO.sample(4000, generator, law="cube_root")[:, 1] ** (1 / 3)
    assert abs(root.mean() - (2 ** (1 / 3) + 50 ** (1 / 3)) / 2) < 0.03
    levels = TWO.sample(500, generator, levels=3)
    assert sorted(set(levels[:, 0].tolist())) == pytest.approx([0.1, 1.0, 10.0])
    assert set(levels[:, 1].tolist()) == set(torch.tensor(TWO.axes[1].at_each(3)).tolist())
    for _ in range(20):
        drawn = TWO.sample(4, generator, stratified=True)
        parts = (drawn[:, 0] / 0.1).log() / math.log(100) * 4
        assert sorted(parts.long().tolist()) == [0, 1, 2, 3]
    for each in (many, uniform, levels):
        assert not any(TWO.outside(tuple(row)) for row in each.double().tolist())

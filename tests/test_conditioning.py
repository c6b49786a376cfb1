"""Modulation and folding: exact for every kind of layer, and refused where they cannot be."""

from __future__ import annotations

import copy
import doctest

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bench import cost, identity, modulation, space, task
from bench.conditioners import (
    ENCODINGS,
    Balance,
    ConditionalNorm,
    Encoding,
    FiLM,
    KnownScale,
    Network,
)
from bench.modulation import affine, fold, fold_before, matching, modulate
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


def layer_and_input(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layer = copy.deepcopy(LAYERS[name])
    return layer, torch.randn(2, 4) if name == "linear" else torch.randn(2, 4, 8, 8)


def spread(part: Tensor, x: Tensor) -> Tensor:
    return part.reshape(*part.shape, *(1,) * (x.dim() - 2))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [cost, identity, modulation, space, task])
def test_the_examples_in_docstrings_are_true(module) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_folded_layer_equals_scale_and_shift(name: str) -> None:
    layer, x = layer_and_input(name)
    scale, shift = torch.randn(1, 6), torch.randn(1, 6)
    y = layer(x)
    fold(layer, scale, shift)
    close(layer(x), y * spread(scale, y) + spread(shift, y))


@pytest.mark.parametrize("name", ["conv", "transposed", "linear"])
@torch.no_grad()
def test_a_scale_before_a_layer_folds_exactly(name: str) -> None:
    layer, x = layer_and_input(name)
    model = nn.Sequential(layer)
    scale = torch.randn(1, 4)
    expected = model(x * spread(scale, x))
    before, after = modulate(model, ["before:0", "0"])
    assert before is after
    before.before = scale
    close(model(x), expected)
    fold_before(before.layer, scale)
    close(before.layer(x), expected)
    with pytest.raises(TypeError, match="one group"):
        fold_before(LAYERS["grouped"], scale)


def test_under_bf16_scales_near_one_are_not_rounded_to_its_steps() -> None:
    """bf16 has nothing between 1 and 1 + 2^-7: a scale there is multiplied in fp32."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    (wrapper,) = modulate(model, ["0"])
    wrapper.after = (torch.full((1, 1), 1 + 3 / 1024), torch.full((1, 1), -1.0))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.ones(1, 1, 2, 2))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torch.full((1, 1, 2, 2), 3 / 1024))


@pytest.mark.parametrize("shapes", [("bc", "bc"), ("1c", "1c"), ("b1", "bc"), ("bc", "")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_modulation_has_the_numbers_of_torchs_own_rules(
    shapes: tuple[str, str], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    sizes = {"b": 3, "c": 5, "1": 1}
    scale, shift = ((torch.randn([sizes[s] for s in shape]) if shape else None) for shape in shapes)
    x, gradient = (torch.randn(3, 5, 9, 7).to(dtype) for _ in range(2))
    leaves = [part.requires_grad_() for part in (x, scale, shift) if part is not None]
    wide = x.float()
    factor, offset = (None if part is None else spread(part, x) for part in (scale, shift))
    plain = wide * factor if offset is None else torch.addcmul(offset, wide, factor)
    plain.to(dtype).backward(gradient)
    expected = [plain.to(dtype), *(leaf.grad for leaf in leaves)]
    for leaf in leaves:
        leaf.grad = None
    wrapper = modulation.Modulated(nn.Identity())
    wrapper.after = scale, shift
    y = wrapper(x)
    y.backward(gradient)
    assert y.dtype == dtype
    for ours, theirs in zip([y, *(leaf.grad for leaf in leaves)], expected, strict=True):
        assert torch.equal(ours, theirs)


class Kernels(TorchDispatchMode):
    """Counts the operations that a GPU would start a kernel for."""

    FREE = ("empty", "empty_like", "empty_strided", "detach", "_unsafe_view")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if not operation.is_view and operation.overloadpacket.__name__ not in self.FREE:
            self.count += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("scale", ["linear", "exponential", "free"])
def test_a_further_modulated_layer_takes_five_kernels_a_step(scale: str) -> None:
    """One there, and four back: to what is modulated, and a product and two sums to scale and
    shift. In a captured step their number is what conditioning costs."""

    def kernels(sites: int, modulated: bool) -> int:
        model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(sites)))
        film = FiLM(model, list("0123"[:sites]), Encoding(ONE, "log"), 8, 0.1, scale)
        network = Network(model, film) if modulated else Network(model)
        with Kernels() as seen:
            network.condition(torch.ones(2, 1))
            network.model(torch.ones(2, 4, 3, 3)).sum().backward()
        return seen.count

    added = [kernels(sites, True) - kernels(sites, False) for sites in (2, 3, 4)]
    assert added[2] - added[1] == added[1] - added[0] == 5


def test_under_autocast_modulations_are_computed_in_fp32() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    network = Network(model, FiLM(model, ["0"], Encoding(ONE, "log"), 4, 0.1))
    network.condition(torch.full((2, 1), 3.0))
    plain = model[0].after
    with torch.autocast("cpu", torch.bfloat16):
        network.condition(torch.full((2, 1), 3.0))
    for ours, expected in zip(model[0].after, plain, strict=True):
        assert torch.equal(ours, expected)


def test_film_is_two_perceptrons_per_site() -> None:
    """Against the same perceptrons written out one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3), nn.Conv2d(5, 8, 3))
    film = FiLM(model, ["0", "1", "2"], Encoding(TWO, "log"), 16, 0.1)
    coefficients = torch.rand(4, 2) + 0.5
    hidden = nn.functional.leaky_relu(film.inner(coefficients.log()), 0.2)
    chunks = hidden.split(16, dim=1)  # perceptrons in the order of the widths: 5 first, then 8
    order = [2, 3, 0, 1, 4, 5]
    weights = [w for group in film.outer for w in group]
    biases = [b for group in film.bias for b in group]
    outputs = {
        member: 0.1 * (chunk @ weight + bias)
        for chunk, member, weight, bias in zip(chunks, order, weights, biases, strict=True)
    }
    for site, (scale, shift) in enumerate(film(coefficients)):
        torch.testing.assert_close(scale, 1 + outputs[2 * site])
        torch.testing.assert_close(shift, outputs[2 * site + 1])
    assert [s.shape for s, _ in film(coefficients)] == [(4, 8), (4, 5), (4, 8)]


NORMS = {
    "instance": (nn.InstanceNorm2d(6, affine=True), F.instance_norm),
    "group": (nn.GroupNorm(3, 6), lambda x: F.group_norm(x, 3)),
    "layer": (nn.LayerNorm(6), lambda x: F.layer_norm(x, (6,))),
}


@pytest.mark.parametrize("name", NORMS)
@torch.no_grad()
def test_adaptive_norms_start_plain_and_are_a_norm_then_an_affine_map(name: str) -> None:
    """Against torch's own normalisation without parameters, and the shared embedding, SiLU and a
    layer per norm written out."""
    torch.manual_seed(0)
    made, normalised = NORMS[name]
    norm = copy.deepcopy(made)
    norm.weight.uniform_(0.5, 2)
    norm.bias.uniform_(-1, 1)
    weight, bias = norm.weight.clone(), norm.bias.clone()
    last = name == "layer"  # where channels come last: as many tokens as channels
    x = torch.randn(2, 6, 6) if last else torch.randn(2, 6, 5, 5)
    model = nn.Sequential(norm, nn.Sequential(copy.deepcopy(norm)))
    plain, coefficients = model(x), torch.tensor([[0.3, 4.0], [7.0, 30.0]])
    encoding = Encoding(TWO, "sinusoidal")
    conditioner = ConditionalNorm(model, ["0", "1.0"], encoding, 8, adaptive=True)
    network = Network(model, conditioner)
    network.condition(coefficients)
    assert torch.equal(network.model(x), plain)

    first, second, heads = (m for m in conditioner.perceptron if isinstance(m, nn.Linear))
    heads.weight.normal_()
    heads.bias.normal_()
    shared = F.silu(second(F.silu(first(encoding(coefficients)))))
    scales, shifts = F.linear(shared, heads.weight, heads.bias).split(12, 1)
    expected = x
    for scale, shift in zip(scales.split(6, 1), shifts.split(6, 1), strict=True):
        spreads = [p[:, None] if last else p[..., None, None] for p in (scale, shift)]
        own = [p if last else p[:, None, None] for p in (weight, bias)]
        affine = normalised(expected) * own[0] + own[1]
        expected = affine * (1 + spreads[0]) + spreads[1]
    network.condition(coefficients)
    close(network.model(x), expected)
    network.release()
    close(network.at((7.0, 30.0))(x)[1], expected[1])


def test_conditional_norms_are_refused_where_there_is_none() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match="0 are no norms to be conditioned: use kind=film"):
        ConditionalNorm(model, ["0", "1"], Encoding(ONE, "log"), 4, adaptive=True)
    with pytest.raises(TypeError, match="or \\(of one dimension\\) layer norm"):
        modulation.channels(nn.LayerNorm((3, 3)))


def test_a_known_scale_is_a_product_of_powers_of_the_coefficients() -> None:
    """Alone, and as the start of FiLM, at its own sites and at further ones."""
    prior = {"1": (0.5, 0.0), "before:0": (-1.0, 2.0)}
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    film = FiLM(model, ["0", "1"], Encoding(TWO, "log"), 4, 0.1, "exponential", True, prior)
    assert film.sites == ["0", "1", "before:0"]
    coefficients = torch.tensor([[0.4, 30.0]])
    known = [0.4**0.5, (30 / 10) ** 2 / 0.4]
    assert [s.item() for s, _ in KnownScale(TWO, prior)(coefficients)] == pytest.approx(known)
    scales = [scale.mean().item() for scale, _ in film(coefficients)]
    assert scales == pytest.approx([1.0, *known])


def test_a_plain_model_stays_plain_until_conditioned() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3)), torch.randn(2, 3)
    before = model(x)
    modulate(model, ["0"])
    assert torch.equal(model(x), before)


@torch.no_grad()
def test_a_linear_layer_is_modulated_along_its_last_dimension() -> None:
    """A transformer's (batch, tokens, channels), also where there are as many of both."""
    model, x = nn.Sequential(nn.Linear(3, 5)), torch.randn(2, 5, 3)
    (site,) = modulate(model, ["0"])
    site.after = (torch.randn(2, 5), torch.randn(2, 5))
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
    with pytest.raises(ValueError, match=r"the task offers g_a\.0"):
        matching(["g_a.0"], "nothing")
    with pytest.raises(ValueError, match="use one of raw, log"):
        Encoding(ONE, "linear")


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


def test_a_modulated_layer_can_be_differentiated_in_every_way() -> None:
    """As torch's own product can: twice, forwards, and for a batch of examples at once."""
    x, scale = torch.randn(2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return (x * scale + 1).square().sum()

    def ours(x: torch.Tensor) -> torch.Tensor:
        return affine(x, scale, torch.ones_like(scale)).square().sum()

    for derivative in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        torch.testing.assert_close(derivative(ours)(x), derivative(plain)(x))
    rows = torch.func.vmap(lambda row: affine(row, scale[0], None))(x)
    torch.testing.assert_close(rows, x * scale[0])
    inputs = (x.requires_grad_(), scale.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x, s: affine(x, s, None), inputs)
    halved = x.detach().bfloat16().requires_grad_()
    (slope,) = torch.autograd.grad(
        affine(halved, scale.float(), None).sum(), halved, create_graph=True
    )
    assert slope.dtype == torch.bfloat16
    slope.sum().backward()


def test_what_a_known_scale_was_applied_to_may_be_changed_in_place() -> None:
    """As by a residual: the gradient of an input does not ask for the input."""
    x = torch.randn(2, 3, requires_grad=True)
    hidden = x * 1
    out = affine(hidden, torch.full((2, 1), 2.0), None)
    hidden += out
    (hidden.sum() + out.sum()).backward()
    assert torch.equal(x.grad, torch.full_like(x, 5.0))

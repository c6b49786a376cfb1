"""Methods that mix weights: subspace, low_rank, kernel_mix, and the hypernetwork's code."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.flop_counter import FlopCounterMode

from baselines.kernel_mix import Kernels
from baselines.low_rank import Adapters
from baselines.subspace import Corners
from bench import Axis, Conditioner, Encoding, Network, Reweighting, Space, linear_maps
from bench.conditioners import ENCODINGS
from bench.cost import count_flops
from bench.registry import method, preset, task_class
from bench.tasks.quadratic import Quadratic
from bench.train import objective, optimiser
from bench.weights import flat

SMOKE = preset(task_class("quadratic"), "smoke").task

SPACE = Space(tuple(Axis(name=name, low=0.1, high=10.0) for name in "ab"))
LAYERS = {
    "linear": lambda: nn.Linear(6, 5),
    "conv": lambda: nn.Conv2d(6, 5, 3, stride=2, padding=1, padding_mode="reflect"),
    "conv without bias": lambda: nn.Conv1d(6, 5, 3, dilation=2, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(6, 5, 5, stride=2, padding=2, output_padding=1),
    "3d": lambda: nn.Conv3d(6, 5, 3, padding="same"),
}
INPUT = {"linear": (6,), "conv without bias": (6, 9), "3d": (6, 4, 5, 6)}


def drawn(count: int = 3) -> torch.Tensor:
    return SPACE.sample(count, torch.Generator().manual_seed(0))


@torch.no_grad()
def shaken(conditioner: Conditioner) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in conditioner.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def test_shares_are_those_of_the_losses() -> None:
    middle, high = SPACE.shares(torch.tensor([[1.0, 1.0], [10.0, 1.0]]))
    torch.testing.assert_close(middle, torch.full((3,), 1 / 3))
    torch.testing.assert_close(high, torch.tensor([1.0, 10.0, 1.0]) / 12)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["low_rank", "kernel_mix"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_example_has_the_layer_of_its_own_setting(name: str, kind: str) -> None:
    """In a batch as in the folded layer, which is torch's own: the weights are a mix of those of
    the losses."""
    torch.manual_seed(0)
    x, coefficients = torch.randn(3, *INPUT.get(name, (6, 8, 9))), drawn()
    model = nn.Sequential(LAYERS[name]())
    before = {key: value.clone() for key, value in model[0].state_dict().items()}
    if kind == "low_rank":
        conditioner: Conditioner = Adapters(model, SPACE, rank=2, scale=4.0)
    else:
        conditioner = Kernels(model, SPACE, affine=True)
    start = Network(model, conditioner)
    start.condition(coefficients)
    plain = LAYERS[name]()
    plain.load_state_dict(before)
    torch.testing.assert_close(start.model(x), plain(x), rtol=1e-4, atol=1e-5)
    shaken(conditioner)
    start.condition(coefficients)
    together = start.model(x)
    assert not torch.allclose(together, plain(x), atol=1e-2)
    for row, (one, setting) in enumerate(zip(x.split(1), coefficients.tolist(), strict=True)):
        torch.manual_seed(0)
        torch.randn(3, *INPUT.get(name, (6, 8, 9)))
        fresh = nn.Sequential(LAYERS[name]())
        if kind == "low_rank":
            same: Conditioner = Adapters(fresh, SPACE, rank=2, scale=4.0)
        else:
            same = Kernels(fresh, SPACE, affine=True)
        same.load_state_dict(conditioner.state_dict())
        folded = Network(fresh, same).at(tuple(setting))[0]
        assert type(folded) is type(plain)
        torch.testing.assert_close(folded(one), together[row : row + 1], rtol=1e-3, atol=1e-4)


def test_adapters_have_their_rank() -> None:
    model = nn.Sequential(nn.Linear(9, 8))
    before = model[0].weight.detach().clone()
    adapters = Adapters(model, SPACE, rank=1, scale=1.0)
    shaken(adapters)
    change = Network(model, adapters).at((10.0, 10.0))[0].weight - before
    assert torch.linalg.matrix_rank(change) == 3  # one per loss


@torch.no_grad()
def test_kernels_mix_in_the_losses_shares() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3))
    kernels = Kernels(model, SPACE, affine=False)
    shaken(kernels)
    own = torch.cat([parameter.flatten() for parameter in model.parameters()])
    every = torch.stack([own, *kernels.further[0]])
    expected = torch.tensor([1.0, 10.0, 0.1]) / 11.1 @ every
    folded = Network(model, kernels).at((10.0, 0.1))
    torch.testing.assert_close(parameters_to_vector(folded.parameters()), expected)


# Subspaces


@torch.no_grad()
def test_a_subspace_is_linear_between_its_corners() -> None:
    task = preset(task_class("toy"), "smoke").task
    model = task.model()
    corners = Corners(model, task.space, "places", 0.0)
    shaken(corners)
    first = parameters_to_vector(model.parameters()).clone()
    last = corners.corners[0].clone()
    axis = task.space.axes[0]
    network = Network(model, corners)
    for share in (0.0, 0.5, 1.0):
        setting = torch.tensor([[axis.low * (axis.high / axis.low) ** share]])
        network.condition(setting)
        assert {type(m) for m in model.modules()} == {type(m) for m in task.model().modules()}
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        read = torch.cat([part.flatten() for m in layers for part in (m.weight, m.bias)])
        torch.testing.assert_close(read, first * (1 - share) + last * share, rtol=1e-3, atol=1e-4)
    network.release()
    torch.testing.assert_close(parameters_to_vector(model.parameters()), first)
    by_share = Corners(task.model(), task.space, "shares", 0.0)
    torch.testing.assert_close(by_share.shares(setting), task.space.shares(setting))


def test_the_cosine_keeps_corners_apart() -> None:
    """Its value is torch's, and a step against its gradient makes it smaller."""
    model = nn.Sequential(nn.Linear(3, 2))
    corners = Corners(model, SPACE, "shares", apart=2.0)
    shaken(corners)
    Network(model, corners)
    penalty = corners.penalty({}, drawn())
    first = parameters_to_vector(model.parameters())
    one, two = corners.corners
    pairs = ((first, one), (first, two), (one, two))
    expected = sum(F.cosine_similarity(a, b, 0) ** 2 for a, b in pairs) * 2 / 3
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    with torch.no_grad():
        corners.corners -= 0.01 * corners.corners.grad
    assert corners.penalty({}, drawn()) < penalty
    assert Corners(model, SPACE, "shares", apart=0.0).penalty({}, drawn()) is None


def test_the_penalty_is_part_of_the_loss_of_training() -> None:
    task = preset(task_class("toy"), "smoke").task
    batch = task.data("train").batch(4, torch.Generator().manual_seed(0))
    losses = []
    for apart in (0.0, 3.0):
        torch.manual_seed(0)
        model = task.model()
        conditioner = method("subspace", apart=apart).conditioner(task, model)
        coefficients = task.space.sample(1, torch.Generator().manual_seed(0)).repeat(4, 1)
        loss, _ = objective(task, Network(model, conditioner), batch, coefficients)
        losses.append(loss.item())
    assert losses[1] - losses[0] == pytest.approx(3.0, rel=1e-4)  # corners start as one


def test_corners_decay_as_the_models_weights_do() -> None:
    task = preset(task_class("toy"), "smoke").task.trained_with(weight_decay=0.5)
    for name, decaying in (("subspace", 1), ("low_rank", 2), ("kernel_mix", 1), ("yoto", 0)):
        model = task.model()
        adam = optimiser(Network(model, method(name).conditioner(task, model)), task.training)
        decays = {group["weight_decay"]: len(group["params"]) for group in adam.param_groups}
        assert decays[0.5] == len(list(model.parameters())) + decaying, name


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.two(x), self.one.weight)  # reads a weight, as attention does


class Doubled(Reweighting):
    names = ("one.weight",)

    def weights(self, coefficients: torch.Tensor, own: list[torch.Tensor]) -> list[torch.Tensor]:
        return [coefficients[0, 0] * own[0]]


@torch.no_grad()
def test_tied_and_read_weights_follow_and_stay_tied() -> None:
    model, x = Tied(), torch.randn(2, 4)
    before = model(x)
    network = Network(model, Doubled())
    network.condition(torch.tensor([[3.0]]))
    torch.testing.assert_close(model(x), 9 * before)
    network.release()
    torch.testing.assert_close(model(x), before)
    folded = network.at((2.0,))
    torch.testing.assert_close(folded(x), 4 * before)
    assert folded.one.weight is folded.two.weight
    vector_to_parameters(torch.zeros(16), folded.parameters())
    assert folded(x).abs().sum() == 0


@pytest.mark.parametrize("name", ["subspace", "low_rank", "kernel_mix", "hypernetwork"])
def test_frozen_layers_stay_as_they_are(name: str) -> None:
    class Frozen(Quadratic):
        name = "frozen"

        def model(self) -> nn.Module:
            model = super().model()
            next(layer for layer in model if isinstance(layer, nn.Linear)).requires_grad_(False)
            return model

    task = Frozen(
        **{key: getattr(SMOKE, key) for key in SMOKE.fields()} | {"training": SMOKE.training}
    )
    model = task.model()
    before, start = model[0].weight.clone(), model[1].weight.clone()
    conditioner = method(name).conditioner(task, model)
    shaken(conditioner)
    folded = Network(model, conditioner).at(task.space.grid(1)[0])
    torch.testing.assert_close(folded[0].weight, before)
    assert not torch.equal(folded[1].weight, start)


@torch.no_grad()
@pytest.mark.parametrize(
    "make", [lambda m: Adapters(m, SPACE, 2, 4.0), lambda m: Kernels(m, SPACE, True)]
)
def test_other_precisions_and_what_is_no_batch(make: Callable[[nn.Module], Conditioner]) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)).double()
    network = Network(model, make(model))
    network.condition(drawn())
    x = torch.randn(3, 2, 3, 3, dtype=torch.double)
    assert network.model(x).dtype == torch.double
    with pytest.raises(ValueError, match="'0' sees \\(6, 2, 3, 3\\) for a batch of 3"):
        network.model(torch.cat([x, x]))
    network.condition(drawn(1))
    assert len(network.model(x)) == 3


def test_a_grouped_convolution_costs_what_its_groups_do() -> None:
    """Where torch's own counter has its kernels' gradient as if there were one group."""
    x = torch.randn(1, 32, 9, 9)
    for kind in (nn.Conv2d, nn.ConvTranspose2d):
        whole, grouped = kind(32, 16, 3), kind(32, 16, 3, groups=8)
        one, eight = (
            count_flops(lambda layer=layer: layer(x).sum().backward()) for layer in (whole, grouped)
        )
        assert one == 8 * eight
        both = count_flops(lambda layer=whole: layer(x.clone().requires_grad_()).sum().backward())
        with FlopCounterMode(display=False) as counter:  # without groups it is torch's
            whole(x.clone().requires_grad_()).sum().backward()
        assert both == counter.get_total_flops()


def test_levers_without_a_meaning_are_refused() -> None:
    for name, fields in (
        *(("subspace", {"stratified": True}), ("several_outputs", {"law": "ends"})),
        *(("yoto", {"per_example": False, "stratified": True}), ("low_rank", {"rank": 0})),
    ):
        with pytest.raises(ValueError, match=f"{name}: "):
            method(name, **fields)


def test_what_cannot_be_mixed_is_left_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3), nn.MultiheadAttention(4, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.LayerNorm(4),
    )  # fmt: skip
    assert linear_maps(model) == ["1"]


# The hypernetwork's code


def test_the_circles_code_has_one_length() -> None:
    code = Encoding(SPACE, "circle")(torch.tensor([[0.1, 10.0], [1.0, 1.0], [10.0, 0.3]]))
    assert code.shape == (3, Encoding(SPACE, "circle").width)
    torch.testing.assert_close(code.norm(dim=1), torch.full((3,), math.sqrt(2)))
    torch.testing.assert_close(code[0], torch.tensor([1.0, 0, 0, 1]), atol=1e-6, rtol=0)
    shares = Encoding(SPACE, "shares")
    torch.testing.assert_close(shares(drawn()), SPACE.shares(drawn()))
    assert shares.width == 3
    others = set(ENCODINGS) - {"circle", "shares"}
    assert all(Encoding(SPACE, kind)(drawn(9)).norm(dim=1).std() > 0.1 for kind in others)
    task = preset(task_class("toy"), "smoke").task
    made = method("hypernetwork", invariant=True).conditioner(task, task.model())
    assert made.trunk[0].kind == "circle"


@pytest.mark.parametrize("invariant", [False, True])
def test_the_hypernetwork_follows_and_learns_where_all_units_are_negative(invariant: bool) -> None:
    task = preset(task_class("toy"), "smoke").task
    model = task.model()
    made = method("hypernetwork", invariant=invariant).conditioner(task, model)
    for layer in made.trunk:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.bias, -100.0)
    own = [model.get_parameter(name) for name in made.names]
    ends = [flat(made.weights(torch.tensor([s]), own)) for s in task.space.grid(2)]
    assert not torch.equal(*ends)
    ends[0].square().sum().backward()
    assert all(parameter.grad.any() for parameter in made.trunk.parameters())

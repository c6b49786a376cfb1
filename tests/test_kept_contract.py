"""What `run` refuses before it trains, and by which name; and that all else is measured as it was
trained."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bench.conditioners import Network
from bench.faithful import Unfaithful, faithful
from bench.method import build
from bench.modulation import Modulated, fold, modulate
from bench.plugins.contract import ContractError, check
from bench.run.records import loads
from bench.run.runner import Run
from bench.run.store import packed, unpacked
from tests.users_models import REFUSED, WORKS, Built, D, linear, of, shared, tied

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", WORKS)
def test_a_model_of_this_kind_is_trained_and_measured_as_trained(
    kind: str, tmp_path: Path, completed: Callable[..., Run]
) -> None:
    further = [] if kind == "transformer" else ["hypernetwork"]
    completed(tmp_path, of(kind, "yoto_tuned", "fixed_grid", "interpolation", *further))
    values: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for path in tmp_path.glob("records/*/*/*.csv"):
        for row in loads(path.read_text(), str(path)):
            values[row.method][row.setting, row.example, row.measure] = row.value
    assert {setting for setting, *_ in values["fixed_grid"]} == {"nearness=0.1", "nearness=10"}
    if kind != "noise of its own":  # between two networks lie those networks, too
        for key, value in values["fixed_grid"].items():
            assert values["interpolation"][key] == value, key


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_of_this_kind_is_refused_by_name_before_training(kind: str) -> None:
    *_, says = REFUSED[kind]
    with pytest.raises((ContractError, ValueError), match=says):
        check(of(kind, "fixed_grid", "yoto"))


def test_the_hypernetwork_is_refused_on_an_attention_by_the_layers_name() -> None:
    for kind, name in (("attention's projection", "a"), ("an attention inside", "layer.self_attn")):
        with pytest.raises(ContractError, match=rf"hypernetwork cannot .* '{name}\.out_proj' is"):
            check(of(kind, "hypernetwork"))


def test_checking_disturbs_no_random_numbers() -> None:
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    check(of("dropout", "yoto", "fixed_grid", "hypernetwork"))
    assert torch.equal(torch.rand(3), first)


# What losses() and measure() return


Values = dict[str, Any]


def each(change: Callable[[Tensor], Any]) -> Callable[[Values], Values]:
    return lambda values: {name: change(value) for name, value in values.items()}


def also(**further: Any) -> Callable[[Values], Values]:
    return lambda values: values | further


def only(name: str) -> Callable[[Values], Values]:
    return lambda values: {name: values[name]}


@pytest.mark.parametrize(
    ("hook", "change", "says"),
    [
        ("losses", each(Tensor.mean), r"shape \(\) for 'nearness' .* \(3,\)"),
        ("losses", each(Tensor.double), r"the term 'nearness' as torch\.float64: add \.float\(\)"),
        ("losses", each(lambda term: term[:, None]), r"shape \(3, 1\) for 'nearness'"),
        ("losses", also(size=torch.full((3,), torch.inf)), r"the term 'size' as \[inf, inf, inf\]"),
        ("losses", also(penalty=torch.zeros(3)), "returns 'penalty', which `terms` does not name"),
        ("losses", only("size"), r"returns \['size'\], without the loss term 'nearness'"),
        ("losses", tuple, "returns a tuple, not its numbers by name"),
        ("measure", only("nearness"), "without the loss term 'size'"),
        ("measure", each(Tensor.mean), r"shape \(\) for 'nearness' of a batch of 1"),
        ("measure", also(sise=torch.zeros(1)), "'sise': did you mean size"),
        ("measure", each(Tensor.item), "returns a float for 'nearness'"),
    ],
)
def test_what_a_task_returns_is_asked(
    hook: str,
    change: Callable[[Values], Any],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = getattr(Built, hook)
    monkeypatch.setattr(Built, hook, lambda *words: change(sound(*words)))
    run = Run(tmp_path, [of("called twice", "fixed_grid")], CPU)
    with pytest.raises(ContractError, match=rf"{hook}\(\) of .*{says}"):
        run.open_data()


# What is stored is what was trained


class Forgetful(nn.Module):
    """Learns something outside of its weights file."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = linear(), how
        self.steps, self.mean = 0, torch.zeros(D)
        self.register_buffer("centre", torch.zeros(D), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.how == "python":
            self.steps += 1
            return y * (1 + 0.01 * self.steps)
        if self.training and self.how == "attribute":
            self.mean = self.mean + 0.1 * y.mean(0).detach()
        elif self.training and self.how == "buffer":
            self.centre += 0.1 * y.mean(0).detach()
        elif self.training and self.how == "weights" and not hasattr(self, "more"):
            self.more = linear()
        return y + self.mean + self.centre


@pytest.mark.parametrize("how", ["python", "attribute", "buffer", "weights", ""])
@pytest.mark.parametrize("trained_by", ["fixed_grid", "yoto"])
def test_what_a_network_keeps_outside_its_file_is_found(
    how: str, trained_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORKS, "forgetful", (lambda: Forgetful(how), None))
    (cell, *_) = of("forgetful", trained_by).cells
    network = build(cell).train()
    x = torch.randn(64, D) + 1
    for _ in range(20):
        network.model(x)
    weights = packed(network)
    state = copy.deepcopy(network.state_dict())
    if not how:
        return faithful(cell, network, lambda: unpacked(cell, weights), CPU)
    says = "a new one cannot take" if how == "weights" else "the term '.*' is .* as trained and"
    with pytest.raises(Unfaithful, match=rf"{trained_by} on built: .*{says}"):
        faithful(cell, network, lambda: unpacked(cell, weights), CPU)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    return None


def test_a_layer_at_two_places_is_scaled_at_both_and_folded_once() -> None:
    torch.manual_seed(0)
    model = shared()
    x, scale, shift = torch.randn(2, D), torch.rand(2, D) + 0.5, torch.randn(2, D)
    weight, bias = model[0].weight.detach().clone(), model[0].bias.detach().clone()

    def expected(row: int) -> Tensor:
        layer = lambda y: F.linear(y, weight, bias) * scale[row] + shift[row]  # noqa: E731
        return layer(F.leaky_relu(layer(x[row]), 0.5))

    (wrapper,) = modulate(model, ["0"])
    assert model[0] is model[2][0] is wrapper
    wrapper.after = (scale, shift)
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.stack([expected(0), expected(1)]))
        fold(wrapper.layer, scale[:1], shift[:1])
        torch.testing.assert_close(nn.Sequential(wrapper.layer)(x[:1]).shape, x[:1].shape)


def test_tied_weights_are_folded_apart() -> None:
    torch.manual_seed(0)
    model, x = tied(), torch.randn(5, D)
    one, two = (weight.detach().clone() for weight in (model[0].bias, model[2].bias))
    weight = model[0].weight.detach().clone()
    for wrapper, factor in zip(modulate(model, ["0", "2"]), (2.0, 3.0), strict=True):
        fold(wrapper.layer, torch.full((1, D), factor), None)
    inner = torch.tanh(2 * F.linear(x, weight, one))
    torch.testing.assert_close(model(x), 3 * F.linear(inner, weight, two))


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_a_parametrized_layer_is_folded_and_its_copies_are_left_alone(norm: str) -> None:
    torch.manual_seed(0)
    layer = getattr(parametrizations, norm)(linear()).eval()
    twin, x = copy.deepcopy(layer), torch.randn(3, D)
    before, scale, shift = layer(x), torch.rand(1, D) + 0.5, torch.randn(1, D)
    with torch.no_grad():
        fold(layer, scale, shift)
    assert type(layer) is nn.Linear
    torch.testing.assert_close(layer(x), before * scale + shift)
    torch.testing.assert_close(twin(x), before)


def test_buffers_are_mixed_like_weights_and_counts_are_the_nearests() -> None:
    found = of("batch norm", "interpolation")
    cells, networks = found.cells, [build(cell) for cell in found.cells]
    for value, network in zip((1.0, 3.0), networks, strict=True):
        norm = network.model[1]
        norm.running_var.fill_(value)
        norm.num_batches_tracked.fill_(int(10 * value))
    copies = copy.deepcopy(networks)
    mixed = found.methods["interpolation"].at(found.task, cells, copies, (5.62,))  # at 7/8
    torch.testing.assert_close(mixed[1].running_var, torch.full((8,), 2.75), rtol=1e-3, atol=0)
    assert mixed[1].num_batches_tracked == 30
    end = found.methods["interpolation"].at(found.task, cells, copy.deepcopy(networks), (0.1,))
    for name, value in networks[0].model.state_dict().items():
        assert torch.equal(end.state_dict()[name], value), name


def test_a_network_that_is_not_finite_does_not_spoil_the_other_end() -> None:
    found = of("called twice", "interpolation")
    networks = [build(cell) for cell in found.cells]
    with torch.no_grad():
        networks[1].model.a.weight.fill_(torch.nan)
    end = found.methods["interpolation"].at(found.task, found.cells, networks, (0.1,))
    assert end.a.weight.isfinite().all()


def test_weights_of_all_types_come_back_from_their_file(tmp_path: Path) -> None:
    for kind in ("complex, double", "double", "batch norm", "tied"):
        (cell, *_) = of(kind, "yoto").cells
        network = build(cell)
        again = unpacked(cell, packed(network)).state_dict()
        for name, value in network.state_dict().items():
            assert again[name].dtype == value.dtype
            assert torch.equal(again[name], value), name


def test_wrappers_leave_no_trace_at_a_setting() -> None:
    (cell, *_) = of("shared", "yoto").cells
    model = build(cell).at((1.0,))
    assert isinstance(build(cell), Network)
    assert not [m for m in model.modules() if isinstance(m, Modulated)]
    assert model[0] is model[2][0]

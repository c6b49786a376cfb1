"""Users' models of every kind, after bug reports of people who do this: those that are trained and
measured as trained, and those that are refused by name; each as a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bench.registry import method, preset
from bench.run.plan import Experiment
from bench.tasks.toy import Toy

D = 4


class Net(nn.Module):
    """A model of named parts and a function of them and the input, (B, 4) to (B, 4)."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.how = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def linear(**options: Any) -> nn.Linear:
    return nn.Linear(D, D, **options)


def shared() -> nn.Module:
    layer = linear()
    return nn.Sequential(layer, nn.LeakyReLU(0.5), nn.Sequential(layer))


def tied() -> nn.Module:
    model = nn.Sequential(linear(), nn.Tanh(), linear())
    model[2].weight = model[0].weight
    return model


def held_in_a_list(forward: Callable[[Any, Tensor], Any]) -> nn.Module:
    model = Net(forward, layer=linear())
    model.kept = [model.layer]
    return model


def own_generator() -> nn.Module:
    noise = torch.Generator().manual_seed(0)
    return Net(lambda self, x: self.a(x) + 0.1 * torch.randn(x.shape, generator=noise), a=linear())


class Standardised(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return F.linear(x, weight, self.bias)


class ComplexNet(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.spectrum = nn.Parameter(torch.randn(D // 2 + 1, dtype=dtype))
        self.mix = nn.Linear(D // 2 + 1, D // 2 + 1, bias=False, dtype=torch.cfloat)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = self.mix((torch.fft.rfft(x) * self.spectrum).to(torch.cfloat))
        return torch.fft.irfft(spectrum, n=x.shape[1])


def attention(self: Any, x: Tensor) -> Tensor:
    return self.layer(x[:, None])[:, 0]


def sequence(self: Any, x: Tensor) -> Tensor:
    steps = x[:, :, None] if self.gru.batch_first else x.T[:, :, None]
    y = self.out(self.gru(steps)[0])[:, :, 0]
    return y if self.gru.batch_first else y.T


def recurrent(batch_first: bool, steps: int = D) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.cat([sequence(self, x[:, :steps]), x[:, steps:]], 1)

    return Net(forward, gru=nn.GRU(1, 3, batch_first=batch_first), out=nn.Linear(3, 1))


def convolution(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), *layers, nn.Flatten(1))


def partly_frozen() -> nn.Module:
    model = nn.Sequential(linear(), nn.ReLU(), linear())
    model[0].requires_grad_(False)
    return model


# What works: built, and named sites (None stands for every linear layer and convolution)
WORKS: dict[str, tuple[Callable[[], nn.Module], list[str] | None]] = {
    "shared": (shared, None),
    "shared, by its second name": (shared, ["2.0"]),
    "tied": (tied, None),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(linear())), None),
    "spectral norm": (lambda: nn.Sequential(parametrizations.spectral_norm(linear())), None),
    "orthogonal": (lambda: nn.Sequential(parametrizations.orthogonal(linear(bias=False))), None),
    "complex": (lambda: ComplexNet(torch.cfloat), None),
    "complex, double": (lambda: ComplexNet(torch.cdouble), None),
    "double": (lambda: Net(lambda s, x: s.a(x.double()).float(), a=linear().double()), None),
    "double without a bias": (
        lambda: Net(lambda s, x: s.a(x.double()).float(), a=linear(bias=False).double()), None,
    ),
    "transformer": (
        lambda: Net(attention, layer=nn.TransformerEncoderLayer(D, 1, 3, 0.1, batch_first=True)),
        ["layer.linear1", "layer.linear2"],
    ),
    "called twice": (lambda: Net(lambda s, x: s.a(s.a(x).relu()), a=linear()), None),
    "in place": (lambda: nn.Sequential(linear(), nn.ReLU(inplace=True), linear()), None),
    "several outputs": (lambda: Net(lambda s, x: (s.a(x), {"more": x}), a=linear()), None),
    "frozen in part": (partly_frozen, None),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, D)), None,
    ),
    "dropout": (lambda: nn.Sequential(linear(), nn.Dropout(0.3), linear()), None),
    "batch first": (lambda: recurrent(batch_first=True), None),
    "padding": (
        lambda: convolution(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
                            nn.Conv2d(2, 1, 3, padding=1, padding_mode="circular")), None,
    ),
    "groups": (
        lambda: convolution(nn.Conv2d(1, 4, 1), nn.ConvTranspose2d(4, 4, 1, groups=2),
                            nn.Conv2d(4, 1, 1)), None,
    ),
    "running statistics": (
        lambda: convolution(nn.Conv2d(1, 4, 1),
                            nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
                            nn.Conv2d(4, 1, 1)), ["1", "3"],
    ),
    "noise of its own": (own_generator, None),
}  # fmt: skip
# What is refused before any training, with what the refusal says
REFUSED: dict[str, tuple[Callable[[], Any], list[str] | None, str]] = {
    "attention's projection": (
        lambda: Net(lambda s, x: s.a(x[:, None], x[:, None], x[:, None])[0][:, 0],
                    a=nn.MultiheadAttention(D, 2, batch_first=True)),
        None, r"'a\.out_proj' is never called by losses\(\): its weights are read",
    ),
    "an attention inside": (
        lambda: Net(attention, layer=nn.TransformerEncoderLayer(D, 1, 3, batch_first=True)),
        None, r"'layer\.self_attn\.out_proj' is never called",
    ),
    "weights read": (
        lambda: Net(lambda s, x: F.linear(s.a(x), s.a.weight.T), a=linear()),
        None, r"reads 'weight' of the layer 'a' instead of calling it",
    ),
    "time first": (lambda: recurrent(False), None, "'out' sees .* for a batch of 3: where"),
    "time first, as many steps as examples": (
        lambda: recurrent(False, 3), None, "the coefficients of one example change the losses of",
    ),
    "time first, two steps": (lambda: recurrent(False, 2), None, "'out' sees"),
    "time first, one step": (lambda: recurrent(False, 1), None, "'out' sees"),
    "examples and places in one dimension": (
        lambda: Net(lambda s, x: s.a(x.reshape(-1, 2)).view(x.shape), a=nn.Linear(2, 2)),
        None, r"'a' sees \(6, 2\) for a batch of 3",
    ),
    "examples mixed": (
        lambda: Net(lambda s, x: s.a(x) - s.a(x).mean(0), a=linear()), None, "or a loss that mixes",
    ),
    "recurrent": (
        lambda: recurrent(True), ["gru"], "the layer 'gru' cannot be modulated: a GRU cannot be",
    ),
    "weight norm of old": (
        lambda: nn.Sequential(nn.utils.weight_norm(linear())), None,
        r"the layer '0' keeps in 'weight' .*use torch\.nn\.utils\.parametrizations",
    ),
    "spectral norm of old": (
        lambda: nn.Sequential(nn.utils.spectral_norm(linear())), None,
        "the layer '0' cannot be modulated: its weight is no parameter",
    ),
    "standardised": (
        lambda: nn.Sequential(Standardised(D, D)), None, "its conditioner does something else: on",
    ),
    "a list": (
        lambda: held_in_a_list(lambda s, x: s.kept[0](x)), ["layer"],
        "'layer' is also called past what is put around it",
    ),
    "a list, too": (
        lambda: held_in_a_list(lambda s, x: s.kept[0](s.layer(x))), ["layer"], "is also called past"
    ),
    "shared, named twice": (shared, ["0", "2.0"], r"'2\.0' is modulated already, as '0'"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(D)), ["0"], "no weights before its first call"),
    "frozen": (lambda: partly_frozen()[:1], None, "no parameter is trained"),
    "no sites": (shared, [], r"the task's sites\(\) names no layer"),
    "no such site": (shared, ["layer1"], r"sites\(\): no layer of the model is called 'layer1'"),
    "not a module": (lambda: (lambda x: x), [], "not a torch.nn.Module"),
    "no effect": (
        lambda: nn.Sequential(linear(), nn.LayerNorm(D), Net(lambda s, x: 0 * x)), ["0"],
        "do not follow its coefficients at all",
    ),
    "fails": (
        lambda: Net(lambda s, x: s.a(x).nothing, a=linear()), None,
        r"losses\(\) .* failed on a few examples .*has no attribute 'nothing' \(line \d+ of .*py\)",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Built(Toy):
    """The toy with one of the models above."""

    name: ClassVar[str] = "built"

    kind: str = ""

    def model(self) -> nn.Module:
        return (WORKS | REFUSED)[self.kind][0]()

    def sites(self, model: nn.Module) -> list[str]:
        named = (WORKS | REFUSED)[self.kind][1]
        kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
        every = [name for name, layer in model.named_modules() if isinstance(layer, kinds)]
        return every if named is None else named

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        y = model(batch)
        y = y[0] if isinstance(y, tuple) else y
        return {"nearness": (y - batch).square().mean(1), "size": y.square().mean(1)}


def of(kind: str, *methods: str) -> Experiment:
    small = Built(
        kind=kind, training=replace(preset(Toy, "smoke").task.training, steps=20, batch=4)
    )
    return Experiment(
        task=small, preset="smoke", settings=small.space.grid(2), seeds=(0,),
        methods={name: method(name) for name in methods},
    )  # fmt: skip

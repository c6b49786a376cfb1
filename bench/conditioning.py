"""Conditioning added to a model from outside: `layer(x)` becomes `layer(x) * scale + shift`.

`modulate` wraps the named layers of any model; a `Conditioner` turns a batch of coefficients into
their scales and shifts; `fold` writes one setting's scales and shifts into the layers' weights,
so that the result is the plain model again, at no cost. FiLM: Perez et al., AAAI 2018; as used
for loss-conditional training: Dosovitskiy & Djolonga, ICLR 2020.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.space import Setting

Modulation = tuple[Tensor, Tensor]  # scale and shift of one layer, each (B, C)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Modulated(nn.Module):
    """A layer whose output is scaled and shifted per example and channel (dimension 1; the last
    one of a linear layer)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.modulation: Modulation | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.modulation is None:
            return y
        width = self.modulation[0].shape[1]
        if isinstance(self.layer, nn.Linear):  # channels come last
            shape = (-1, *(1,) * (y.dim() - 2), width)
        else:
            shape = (-1, width, *(1,) * (y.dim() - 2))
        scale, shift = (part.to(y.dtype).reshape(shape) for part in self.modulation)
        return torch.addcmul(shift, y, scale)


def modulate(model: nn.Module, sites: Sequence[str]) -> list[Modulated]:
    """Wrap the layers named `sites` of `model`, in place, and return the wrappers in order."""
    wrapped = []
    for name in sites:
        layer = model.get_submodule(name)
        if isinstance(layer, Modulated):
            raise ValueError(f"the layer {name!r} is modulated already")
        owner, _, attribute = name.rpartition(".")
        wrapped.append(Modulated(layer))
        setattr(model.get_submodule(owner), attribute, wrapped[-1])
    return wrapped


def matching(sites: Sequence[str], patterns: str) -> list[str]:
    """Those of `sites` that match one of the comma-separated shell patterns, in their order."""
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    chosen = [site for site in sites if any(fnmatch.fnmatchcase(site, p) for p in wanted)]
    if not chosen:
        raise ValueError(f"no site matches {patterns!r}; the task offers {', '.join(sites)}")
    return chosen


def channels(layer: nn.Module) -> int:
    """The number of output channels of a layer that ends in a linear map of its channels."""
    if isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        return layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.InstanceNorm2d) and layer.affine:
        return layer.num_features
    raise TypeError(
        f"a {type(layer).__name__} cannot be modulated: use a convolution, a linear layer or an "
        "affine instance norm"
    )


class Conditioner(nn.Module, ABC):
    """Turns coefficients (B, K) into one modulation per site. `sites` are layer names."""

    sites: list[str]

    @abstractmethod
    def forward(self, coefficients: Tensor) -> list[Modulation]: ...


class FiLM(Conditioner):
    """Per site and channel, scale = 1 + m * MLP(log c) and shift = m * MLP(log c).

    Scale and shift come from two separate perceptrons with one hidden layer, fed the natural
    logarithm of the coefficients, and `multiplier` m keeps the start near the plain model:
    no exp, no sigmoid. Leaky ReLU of slope 0.2, weights from a truncated normal of variance
    2 / fan-in, biases zero (all as in Dosovitskiy & Djolonga's released code). The perceptrons
    of all sites run as one batched product per output width, not two small products per site.
    """

    def __init__(
        self, model: nn.Module, sites: list[str], axes: int, hidden: int, multiplier: float
    ) -> None:
        super().__init__()
        self.sites = sites
        self.hidden, self.multiplier = hidden, multiplier
        widths = [channels(model.get_submodule(site)) for site in sites]
        # Perceptron 2i scales site i, perceptron 2i + 1 shifts it. They lie sorted by width.
        self._groups = {
            width: [2 * i + part for i, w in enumerate(widths) if w == width for part in (0, 1)]
            for width in sorted(set(widths))
        }
        self.inner = nn.Linear(axes, 2 * len(sites) * hidden)
        self.outer = nn.ParameterList()
        self.bias = nn.ParameterList()
        for width, members in self._groups.items():
            self.outer.append(_normal(torch.empty(len(members), hidden, width), fan_in=hidden))
            self.bias.append(torch.zeros(len(members), 1, width))
        _normal(self.inner.weight, fan_in=axes)
        nn.init.zeros_(self.inner.bias)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        with torch.autocast(coefficients.device.type, enabled=False):
            hidden = F.leaky_relu(self.inner(coefficients.log()), 0.2)
            hidden = hidden.unflatten(1, (2 * len(self.sites), self.hidden)).transpose(0, 1)
            parts: dict[int, Tensor] = {}
            groups = hidden.split([len(members) for members in self._groups.values()])
            for group, members, weight, bias in zip(
                groups, self._groups.values(), self.outer, self.bias, strict=True
            ):
                out = torch.baddbmm(bias, group, weight) * self.multiplier
                parts |= dict(zip(members, out.unbind(0), strict=True))
        return [(1 + parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]


@torch.no_grad()
def _normal(weight: Tensor, fan_in: int) -> Tensor:
    """Fill with a normal cut at two standard deviations, of variance 2 / fan_in after the cut."""
    sigma = (2 / fan_in) ** 0.5 / 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)


class Network(nn.Module):
    """A task's model and, if a method conditions it, the conditioner that modulates it."""

    def __init__(self, model: nn.Module, conditioner: Conditioner | None = None) -> None:
        super().__init__()
        self.model = model
        self.conditioner = conditioner
        self._sites = modulate(model, conditioner.sites) if conditioner is not None else []

    def condition(self, coefficients: Tensor) -> None:
        """Let the model's next calls follow `coefficients`, (B, K) on the model's device."""
        if self.conditioner is not None:
            modulations = self.conditioner(coefficients)
            for site, modulation in zip(self._sites, modulations, strict=True):
                site.modulation = modulation

    def release(self) -> None:
        """Forget the modulation of the last step (and the graph that hangs on it)."""
        for site in self._sites:
            site.modulation = None

    @torch.no_grad()
    def at(self, setting: Setting) -> nn.Module:
        """The plain model for one setting; this network's own layers are used up for it."""
        if self.conditioner is None:
            return self.model
        device = next(self.conditioner.parameters()).device
        modulations = self.conditioner(torch.tensor([setting], device=device))
        for name, (scale, shift) in zip(self.conditioner.sites, modulations, strict=True):
            owner, _, attribute = name.rpartition(".")
            site = self.model.get_submodule(name)
            assert isinstance(site, Modulated)
            setattr(self.model.get_submodule(owner), attribute, fold(site.layer, scale, shift))
        return self.model


def fold(layer: nn.Module, scale: Tensor, shift: Tensor) -> nn.Module:
    """Write scale and shift, each (1, C), into the layer's weight and bias. Exact but for
    rounding, since such layers are linear in both."""
    channels(layer)  # refuses what cannot be folded
    scale, shift = scale.reshape(-1), shift.reshape(-1)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, nn.Parameter)
    assert bias is None or isinstance(bias, nn.Parameter)
    if isinstance(layer, TRANSPOSED):  # (in, out / groups, ...)
        groups = int(layer.groups)  # type: ignore[arg-type]
        by_group = weight.unflatten(0, (groups, -1))
        shape = (groups, 1, -1) + (1,) * (weight.dim() - 2)
        layer.weight = nn.Parameter((by_group * scale.reshape(shape)).flatten(0, 1))
    else:
        layer.weight = nn.Parameter(weight * scale.reshape((-1,) + (1,) * (weight.dim() - 1)))
    layer.bias = nn.Parameter(shift.clone() if bias is None else bias * scale + shift)
    return layer

"""What lets a model follow coefficients, added to it from outside.

A `Conditioner` turns a batch of coefficients into what the model follows, most of them
(`Modulating`) into scales and shifts of its layers (`bench/modulation.py`), which fold away at one
setting. FiLM: Perez et al., AAAI 2018; as used for loss-conditional training: Dosovitskiy &
Djolonga, ICLR 2020.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.balance import Balance
from bench.modulation import BEFORE, NORMS, Modulation, channels, fold, fold_before, modulate, put
from bench.space import Setting, Space, places, shares

# How coefficients are shown to a network

ENCODINGS = ("raw", "log", "standardised", "sinusoidal", "circle", "shares")
WAVES = 3  # frequencies of the sinusoidal encoding: a half, one and two periods over the range


class Encoding(nn.Module):
    """Coefficients (B, K) to a network's input (B, `width`).

    kind: "raw" values; "log", their natural logarithms, as released; "standardised", the
    logarithm with mean 0 and deviation 1 under a log-uniform draw; "sinusoidal", that and sines
    and cosines of the place in the range; "circle", cosine and sine of a quarter turn over the
    range, so that the code's length is the same for all (Ortiz et al., ICLR 2024); "shares", those
    of the losses (`Space.shares`).
    """

    low: Tensor
    high: Tensor
    middle: Tensor
    radius: Tensor

    def __init__(self, space: Space, kind: str) -> None:
        super().__init__()
        if kind not in ENCODINGS:
            raise ValueError(f"encoding {kind!r}: use one of {', '.join(ENCODINGS)}")
        self.space, self.kind = space, kind
        low, high = space.log_bounds()
        # On the device with the module: put there in every step, they would be waited for.
        kept = {"low": low, "high": high, "middle": (low + high) / 2, "radius": (high - low) / 2}
        for name, constant in kept.items():
            self.register_buffer(name, constant, persistent=False)
        self.width = len(self.low) * {"sinusoidal": 1 + 2 * WAVES, "circle": 2}.get(kind, 1)
        self.width += kind == "shares"

    def forward(self, coefficients: Tensor) -> Tensor:
        if self.kind == "raw":
            return coefficients
        if self.kind == "shares":
            return shares(coefficients, self.middle)
        if self.kind == "log":
            return coefficients.log()
        place = self.place(coefficients)
        if self.kind == "circle":
            angle = math.pi / 4 * (place + 1)
            return torch.cat([angle.cos(), angle.sin()], 1)
        standardised = math.sqrt(3) * place  # a uniform draw from [-1, 1] has the variance 1/3
        if self.kind == "standardised":
            return standardised
        angles = [math.pi / 2 * 2**wave * place for wave in range(WAVES)]
        waves = (part for angle in angles for part in (angle.sin(), angle.cos()))
        return torch.cat([standardised, *waves], 1)

    def place(self, coefficients: Tensor) -> Tensor:
        """`Space.encode`: (B, K) to [-1, 1]."""
        return places(coefficients, self.low, self.radius)


# Conditioners


class Conditioner(nn.Module, ABC):
    """Lets a model follow coefficients. The model it is attached to is no part of it."""

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Change `model`, in place, so that `condition` can steer it. Called once."""

    @abstractmethod
    def condition(self, coefficients: Tensor) -> None:
        """Let the model's next calls follow `coefficients`, (B, K) on its device."""

    @abstractmethod
    def release(self) -> None:
        """Forget the coefficients (and the graph that hangs on them)."""

    @abstractmethod
    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        """Make the attached `model` a plain one for one setting, (1, K), in place."""

    def decaying(self) -> list[nn.Parameter]:
        """Those of its parameters that are weights like the model's, which decay with these."""
        return []

    def penalty(self, terms: Mapping[str, Tensor], coefficients: Tensor) -> Tensor | None:
        """What training adds to the loss of a batch, a scalar; None adds nothing. Called after
        `condition`, with the unweighted terms, each (B,), and the coefficients, (B, K)."""
        return None


def in_fp32(coefficients: Tensor) -> contextlib.AbstractContextManager:
    """In it what is made of coefficients is computed in fp32, within autocast, too."""
    device = coefficients.device.type
    halved = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if halved else contextlib.nullcontext()


class Modulating(Conditioner):
    """A conditioner that scales and shifts layers: `sites` are their names."""

    sites: list[str]

    @abstractmethod
    def forward(self, coefficients: Tensor) -> list[Modulation]:
        """One modulation per site, computed in fp32; a site before a layer takes a scale only."""

    def attach(self, model: nn.Module) -> None:
        self._wrappers = modulate(model, self.sites)  # a list: their weights stay the model's

    def condition(self, coefficients: Tensor) -> None:
        with in_fp32(coefficients):
            modulations = self(coefficients)
        for site, wrapper, part in zip(self.sites, self._wrappers, modulations, strict=True):
            if site.startswith(BEFORE):
                wrapper.before = part[0]
            else:
                wrapper.after = part

    def release(self) -> None:
        for wrapper in self._wrappers:
            wrapper.before, wrapper.after = None, (None, None)

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        self.condition(coefficients)
        for wrapper in dict.fromkeys(self._wrappers):  # one layer may be two sites
            fold(wrapper.layer, *wrapper.after)
            if wrapper.before is not None:
                fold_before(wrapper.layer, wrapper.before)
            put(model, wrapper.name, wrapper.layer)


class KnownScale(Modulating):
    """Sites scaled by a product of powers of the coefficients, each relative to the middle of its
    range: by site, one exponent per axis (`Task.scaling`). Nothing is learned."""

    middle: Tensor
    powers: Tensor

    def __init__(self, space: Space, prior: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        self.sites = list(prior)
        low, high = space.log_bounds()
        rows = torch.tensor([list(exponents) for exponents in prior.values()])
        self.register_buffer("middle", (low + high) / 2, persistent=False)
        self.register_buffer("powers", rows, persistent=False)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        factors = ((coefficients.log() - self.middle) @ self.powers.T).exp()
        return [(factor[:, None], None) for factor in factors.unbind(1)]


SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda part: 1 + part,
    "exponential": torch.exp,
    "free": lambda part: part,
}


class FiLM(Modulating):
    """Per site and channel, scale = 1 + m * MLP(code) and shift = m * MLP(code).

    Scale and shift come from two separate perceptrons with one hidden layer, fed the encoded
    coefficients, and `multiplier` m keeps the start near the plain model: no exp, no sigmoid.
    Leaky ReLU of slope 0.2, weights from a truncated normal of variance 2 / fan-in, biases zero
    (all as in Dosovitskiy & Djolonga's released code). The perceptrons of all sites run as one
    batched product per output width, not two small products per site.

    scale: "linear" as above; "exponential", exp(m * MLP), which covers orders of magnitude;
    "free", MLP alone for scale and shift, which does not start near the plain model.
    exact: the last layers start at zero, so that the start is the plain model (or `prior`).
    prior: sites whose scale is multiplied with that of `KnownScale`. Further sites are allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: list[str],
        encoding: Encoding,
        hidden: int,
        multiplier: float,
        scale: str = "linear",
        exact: bool = False,
        prior: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r}: use one of {', '.join(SCALES)}")
        self.sites = list(dict.fromkeys([*sites, *prior]))
        self.encoding, self.hidden, self.scale = encoding, hidden, scale
        self.multiplier = 1.0 if scale == "free" else multiplier
        self.known = KnownScale(encoding.space, prior) if prior else None
        widths = [channels(model.get_submodule(site)) for site in sites]
        self._count = 2 * len(sites)
        # Perceptron 2i scales site i, perceptron 2i + 1 shifts it. They lie sorted by width.
        self._sorted = sorted(range(len(widths)), key=widths.__getitem__)
        self._widths = sorted(widths)
        self._groups = {width: 2 * widths.count(width) for width in sorted(set(widths))}
        self.inner = nn.Linear(encoding.width, self._count * hidden)
        self.outer = nn.ParameterList()
        self.bias = nn.ParameterList()
        for width, count in self._groups.items():
            weight = torch.zeros(count, hidden, width)
            self.outer.append(weight if exact else _normal(weight, fan_in=hidden))
            self.bias.append(torch.zeros(count, 1, width))
        _normal(self.inner.weight, fan_in=encoding.width)
        nn.init.zeros_(self.inner.bias)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        hidden = F.leaky_relu(self.inner(self.encoding(coefficients)), 0.2)
        hidden = hidden.unflatten(1, (self._count, self.hidden))
        # Split, then transposed: so the gradient is put together as `inner` takes it.
        groups = hidden.split(list(self._groups.values()), 1)
        outs = [
            torch.baddbmm(bias, group.transpose(0, 1), weight).flatten()
            for group, weight, bias in zip(groups, self.outer, self.bias, strict=True)
        ]
        # All in one row, so that one kernel serves all sites, whatever their widths.
        row = outs[0] if len(outs) == 1 else torch.cat(outs)
        count = coefficients.shape[0]  # `len` would fix it in a graph that is exported
        sizes = [count * width for width in self._widths for _ in ("scale", "shift")]
        parts = (row * self.multiplier).split(sizes)
        scales = SCALES[self.scale](torch.cat(parts[::2])).split(sizes[::2])
        pairs = zip(self._sorted, self._widths, scales, parts[1::2], strict=True)
        by_place = {i: (s.view(count, width), t.view(count, width)) for i, width, s, t in pairs}
        modulations: list[Modulation] = [by_place[i] for i in range(len(by_place))]
        if self.known is None:
            return modulations
        by_site: dict[str, Modulation] = dict(zip(self.sites, modulations, strict=False))
        for site, (factor, _) in zip(self.known.sites, self.known(coefficients), strict=True):
            before, shift = by_site.get(site, (None, None))
            by_site[site] = (factor if before is None else before * factor, shift)
        return list(by_site.values())


@torch.no_grad()
def _normal(weight: Tensor, fan_in: int) -> Tensor:
    """Fill with a normal cut at two standard deviations, of variance 2 / fan_in after the cut."""
    sigma = (2 / fan_in) ** 0.5 / 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)


class Gates(Modulating):
    """Per site and channel one gate in (0, 1), with w and b learned: sigmoid(w · code + b), and
    at `closing` sites sqrt(relu(1 - exp(w · code + b))).

    Bae et al., "Multi-Rate VAE", ICLR 2023, whose encoder has the former and whose decoder the
    latter. Starts nearly open, with small w.
    """

    def __init__(
        self, model: nn.Module, sites: list[str], encoding: Encoding, closing: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.sites, self.encoding = sites, encoding
        self._shapes = [closing_gate if site in closing else torch.sigmoid for site in sites]
        self._widths = [channels(model.get_submodule(site)) for site in sites]
        start = torch.tensor([-4.0 if site in closing else 4.0 for site in sites])
        self.weight = nn.Parameter(0.1 * torch.randn(sum(self._widths), encoding.width))
        self.bias = nn.Parameter(start.repeat_interleave(torch.tensor(self._widths)))

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        lines = F.linear(self.encoding(coefficients), self.weight, self.bias)
        parts = zip(self._shapes, lines.split(self._widths, 1), strict=True)
        return [(shape(line), None) for shape, line in parts]


def closing_gate(x: Tensor) -> Tensor:
    """sqrt(relu(1 - exp(x))), but 0.001 where that is less: the root has no slope at zero."""
    return (-torch.expm1(x)).clamp(min=1e-6).sqrt()


class Concatenation(Modulating):
    """The encoded coefficients as further input channels of the sites' layers. Constant channels,
    beyond the picture's border too, add to each output channel a constant that is linear in the
    code, which is what is learned here."""

    def __init__(self, model: nn.Module, sites: list[str], encoding: Encoding) -> None:
        super().__init__()
        self.sites, self.encoding = sites, encoding
        layers = [model.get_submodule(site) for site in sites]
        self._widths = [channels(layer) for layer in layers]
        self.weight = nn.Parameter(torch.empty(sum(self._widths), encoding.width))
        with torch.no_grad():
            rows = self.weight.split(self._widths)
            for row, layer in zip(rows, layers, strict=True):  # as if it were one of its inputs
                fan_in = layer.weight.numel() / channels(layer) + encoding.width  # type: ignore[operator]
                row.uniform_(-(fan_in**-0.5), fan_in**-0.5)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        shifts = F.linear(self.encoding(coefficients), self.weight)
        return [(None, shift) for shift in shifts.split(self._widths, 1)]


class ConditionalNorm(Modulating):
    """A scale and an offset behind affine norms, all from one perceptron.

    Babaeizadeh & Ghiasi, "Adjustable Real-Time Style Transfer", ICLR 2020, where one network of
    the coefficients replaces what the norms would learn for themselves: so it is where the method
    freezes these (`baselines/instance_norm.py`); else both are trained. Starts at scale 1, offset
    0 up to a small part that depends on the coefficients.

    adaptive: as AdaLN has it (Peebles & Xie's DiT, ICCV 2023; QARV, TPAMI 2023): two layers with
        SiLU that all norms share, then one linear layer per norm that starts at zero, so that the
        start is the plain model. DiT's gates of residual branches are left out.
    """

    def __init__(
        self, model: nn.Module, sites: list[str], encoding: Encoding, hidden: int, adaptive: bool
    ) -> None:
        super().__init__()
        self.sites = sites
        layers = [model.get_submodule(site) for site in sites]
        others = [s for s, m in zip(sites, layers, strict=True) if not isinstance(m, NORMS)]
        if others:
            raise ValueError(f"{', '.join(others)} are no norms to be conditioned: use kind=film")
        self._widths = [channels(layer) for layer in layers]
        inner: list[nn.Module] = [encoding, nn.Linear(encoding.width, hidden)]
        inner += [nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()] if adaptive else [nn.ReLU()]
        last = nn.Linear(hidden, 2 * sum(self._widths))
        self.perceptron = nn.Sequential(*inner, last)
        nn.init.normal_(last.weight, std=0.0 if adaptive else 0.1 / math.sqrt(hidden))
        nn.init.zeros_(last.bias)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        both = self.perceptron(coefficients).chunk(2, 1)
        scales, shifts = (part.split(self._widths, 1) for part in (1 + both[0], both[1]))
        return list(zip(scales, shifts, strict=True))


# The whole


class Network(nn.Module):
    """A task's model and, if a method has them, its conditioner and its balance of the loss."""

    def __init__(
        self,
        model: nn.Module,
        conditioner: Conditioner | None = None,
        balance: Balance | None = None,
    ) -> None:
        super().__init__()
        self.model, self.conditioner, self.balance = model, conditioner, balance
        if conditioner is not None:
            conditioner.attach(model)

    def condition(self, coefficients: Tensor) -> None:
        """Let the model's next calls follow `coefficients`, (B, K) on the model's device."""
        if self.conditioner is not None:
            self.conditioner.condition(coefficients)

    def release(self) -> None:
        """Forget the coefficients of the last step (and the graph that hangs on them)."""
        if self.conditioner is not None:
            self.conditioner.release()

    @torch.no_grad()
    def at(self, setting: Setting) -> nn.Module:
        """The plain model for one setting; this network's own layers are used up for it."""
        if self.conditioner is not None:
            device = next(self.parameters()).device  # all of them may be the conditioner's
            self.conditioner.bake(self.model, torch.tensor([setting], device=device))
        return self.model

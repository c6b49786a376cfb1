"""Layers modulated from outside: `layer(x)` becomes `layer(x) * scale + shift`.

`modulate` wraps the named layers of any model; `fold` writes one setting's scales and shifts into
the layers' weights, so that the result is the plain model again, at no cost.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Modulation = tuple[Tensor | None, Tensor | None]  # scale, shift of a site: (B, C) or (B, 1)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm)
HALF = (torch.bfloat16, torch.float16)
BEFORE = "before:"  # prefix of a site that scales what goes into a layer, not what comes out


class Modulated(nn.Module):
    """A layer whose output (or input, if `before`) is scaled and shifted per example and channel
    (dimension 1; the last one of linear layers and layer norms). Examples come first, (B, ...)."""

    def __init__(self, layer: nn.Module, name: str = "") -> None:
        super().__init__()
        self.layer = layer
        self.name = name  # in its model, for errors
        self.before: Tensor | None = None
        self.after: Modulation = (None, None)

    def forward(self, x: Tensor) -> Tensor:
        if self.before is not None:
            x = affine(x, self._spread(self.before, x), None)
        y = self.layer(x)
        scale, shift = (part if part is None else self._spread(part, y) for part in self.after)
        if scale is not None:
            return affine(y, scale, shift)
        return y if shift is None else (y + shift).to(y.dtype)

    def _spread(self, part: Tensor, x: Tensor) -> Tensor:
        """(B, C) in the shape that multiplies x, in its precision but no less than fp32."""
        same_batch(self.name, x, part.shape[0])
        ones = (1,) * (x.dim() - 2)
        last = isinstance(self.layer, nn.Linear | nn.LayerNorm)  # where channels come last
        shape = (part.shape[0], *ones, part.shape[1]) if last else (*part.shape, *ones)
        return (part if x.dtype in HALF else part.to(x.dtype)).reshape(shape)


def affine(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """`Affine`, or the same in torch's terms for a compiler, which joins kernels by itself."""
    if not torch.compiler.is_compiling():
        return Affine.apply(x, scale, shift)
    wide = x.float() if x.dtype in HALF else x
    return (wide * scale if shift is None else torch.addcmul(shift, wide, scale)).to(x.dtype)


class Affine(torch.autograd.Function):
    """x * scale + shift, rounded to x's type once: not in bf16, whose steps around a scale of one
    are 2^-7. None for a shift adds nothing. Scale and shift, fp32 or wider, broadcast against x.

    The same numbers as by torch's own rules, which multiply each factor with one before its
    gradient is taken, and of half precision write an fp32 copy at every step: by fewer kernels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        out = torch.empty_like(x) if x.dtype in HALF else None
        if shift is None:
            return torch.mul(x, scale, out=out)
        return torch.addcmul(shift, x, scale, out=out)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, scale, shift = inputs
        kept = x if ctx.needs_input_grad[1] else None  # else a model may change it in place
        ctx.save_for_backward(kept, scale)
        ctx.save_for_forward(kept, scale)
        ctx.shift = None if shift is None else shift.shape
        ctx.set_materialize_grads(False)  # what has no derivative is None, not zeros

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return None, None, None
        (x, scale), (of_x, of_scale, of_shift) = ctx.saved_tensors, ctx.needs_input_grad
        to_x = to_scale = to_shift = None
        if of_x:
            # A gradient that is itself to be differentiated cannot be written into a tensor.
            halved = gradient.dtype in HALF and not torch.is_grad_enabled()
            out = torch.empty_like(gradient) if halved else None
            to_x = torch.mul(gradient, scale.conj(), out=out).to(gradient.dtype)
        wide = gradient.to(scale.dtype) if of_scale or of_shift else gradient
        if of_scale:
            to_scale = (wide * x.conj()).sum_to_size(scale.shape)
        if of_shift:
            to_shift = wide.sum_to_size(ctx.shift)
        return to_x, to_scale, to_shift

    @staticmethod
    def jvp(ctx: Any, of_x: Any, of_scale: Any, of_shift: Any) -> Tensor:
        x, scale = ctx.saved_tensors
        products = [part * by for part, by in ((of_x, scale), (of_scale, x)) if part is not None]
        return functools.reduce(torch.add, products if of_shift is None else [*products, of_shift])


def same_batch(name: str, x: Tensor, count: int) -> None:
    """ValueError where the layer `name` sees x, which is no batch of as many examples as were told
    their coefficients, nor all told the same. Sizes are taken from shapes: in a graph that is
    exported, where nothing can be refused, `len` would fix them."""
    if not torch.compiler.is_exporting() and count not in (1, x.shape[0]):
        raise ValueError(
            f"the layer {name!r} sees {tuple(x.shape)} for a batch of {count}: where "
            "the first dimension is not the batch (as time first) no example can be told its "
            "own coefficients; put the batch first, or leave the layer out of sites()"
        )


def modulate(model: nn.Module, sites: Sequence[str]) -> list[Modulated]:
    """Wrap the layers of `sites` of `model`, in place, and return each site's wrapper. A layer
    may be a site twice, once with the prefix `before:`. ValueError, with the layer's name, where
    one cannot be modulated and folded."""
    if len(set(sites)) < len(sites):
        raise ValueError(f"a layer is named twice: {', '.join(sites)}")
    wrappers: dict[str, Modulated] = {}
    for name in dict.fromkeys(site.removeprefix(BEFORE) for site in sites):
        layer = model.get_submodule(name)
        if isinstance(layer, Modulated):
            raise ValueError(
                f"the layer {name!r} is modulated already, as {layer.name!r}: where one layer "
                "stands at several places, name one of them"
            )
        if reason := unfoldable(layer):
            raise ValueError(f"the layer {name!r} cannot be modulated: {reason}")
        wrappers[name] = Modulated(layer, name)
        put(model, name, wrappers[name])
    return [wrappers[site.removeprefix(BEFORE)] for site in sites]


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Make `layer` the submodule of `model` called `name`, and stand wherever else in the model
    that one stood: a layer at two places is one layer."""
    before = model.get_submodule(name)
    for owner in list(model.modules()):
        for attribute, child in list(owner._modules.items()):  # with duplicates
            if child is before and owner is not layer:
                setattr(owner, attribute, layer)


def unfoldable(layer: nn.Module) -> str:
    """Why scales and shifts cannot be written into a layer's weights; "" where they can."""
    try:
        channels(layer)
    except TypeError as error:
        return str(error)
    for name in ("weight", "bias"):
        kept = name in layer._parameters or parametrize.is_parametrized(layer, name)
        if not kept and getattr(layer, name, None) is not None:
            return (
                f"its {name} is no parameter but computed from others before every call, as by "
                "torch.nn.utils.weight_norm and spectral_norm: take those of "
                "torch.nn.utils.parametrizations"
            )
    if isinstance(layer.weight, nn.parameter.UninitializedParameter):
        return "it has no weights before its first call: give it its number of inputs"
    return ""


def linear_maps(model: nn.Module) -> list[str]:
    """Names of a model's convolutions and linear layers whose weights are parameters of their own,
    read by their own call alone: those that may be computed from others, or added to."""
    kinds = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
    read_elsewhere = nn.modules.linear.NonDynamicallyQuantizableLinear  # by attention
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
        and not isinstance(layer, read_elsewhere)
        and getattr(layer, "groups", 1) == 1
        and not hasattr(layer, "mask")  # as a codec's context model has, whose weights obey it
        and not unfoldable(layer)
        and not parametrize.is_parametrized(layer)
        and layer.weight.requires_grad
    ]


def matching(sites: Sequence[str], patterns: str) -> list[str]:
    """Those of `sites` that match one of the shell patterns (separated by commas or spaces), in
    their order; a pattern that begins with `!` takes out again.

    >>> matching(["g_a.0", "g_s.0", "h_a.0"], "g_* !*_s.*"), matching(["g_a.0", "h_a.0"], "!h_*")
    (['g_a.0'], ['g_a.0'])
    """
    words = patterns.replace(",", " ").split()
    unwanted = [word[1:] for word in words if word.startswith("!")]
    wanted = [word for word in words if not word.startswith("!")] or ["*"]

    def matches(site: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(site, pattern) for pattern in patterns)

    if not sites:
        raise ValueError(
            "the task's sites() names no layer, so there is nothing to condition: let it name "
            "convolutions or linear layers, or choose methods that condition nothing"
        )
    chosen = [site for site in sites if matches(site, wanted) and not matches(site, unwanted)]
    if not chosen:
        raise ValueError(f"no site matches {patterns!r}; the task offers {', '.join(sites)}")
    return chosen


def channels(layer: nn.Module) -> int:
    """The number of output channels of a layer that ends in a linear map of its channels."""
    if isinstance(layer, nn.GroupNorm) and layer.affine:
        return layer.num_channels
    if (
        isinstance(layer, nn.LayerNorm)
        and layer.elementwise_affine
        and len(layer.weight.shape) == 1
    ):
        return len(layer.weight)
    if isinstance(layer, CONVOLUTIONS + TRANSPOSED):
        return layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.InstanceNorm2d) and layer.affine:
        return layer.num_features
    raise TypeError(
        f"a {type(layer).__name__} cannot be modulated: use a convolution, a linear layer or an "
        "affine instance, group or (of one dimension) layer norm"
    )


def fold(layer: nn.Module, scale: Tensor | None, shift: Tensor | None) -> None:
    """Write scale and shift, each (1, C) or (1, 1), into the layer's weight and bias, in place.
    Exact but for rounding, since such layers are linear in both."""
    width = channels(layer)
    weight, bias = own_parameters(layer)
    if scale is not None:
        scale = scale.to(weight.dtype).reshape(-1).expand(width)
        if isinstance(layer, TRANSPOSED):  # (in, out / groups, ...)
            groups = int(layer.groups)
            by_group = weight.unflatten(0, (groups, -1))
            shape = (groups, 1, -1) + (1,) * (weight.dim() - 2)
            weight = nn.Parameter((by_group * scale.reshape(shape)).flatten(0, 1))
        else:
            weight = nn.Parameter(weight * scale.reshape((-1,) + (1,) * (weight.dim() - 1)))
        bias = None if bias is None else nn.Parameter(bias * scale)
    if shift is not None:
        shift = shift.to(weight.dtype).reshape(-1).expand(width)
        bias = nn.Parameter(shift.clone() if bias is None else bias + shift)
    layer.weight, layer.bias = weight, bias  # type: ignore[assignment]


def own_parameters(layer: Any) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Weight and bias of a layer as parameters; a parametrization ends with its present value.
    TypeError where they are computed in another way."""
    if reason := unfoldable(layer):
        raise TypeError(reason)
    if parametrize.is_parametrized(layer):
        # Not by torch's remove_parametrizations: it changes the class, which copies share.
        values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}
        del layer.parametrizations
        layer.__class__ = type(layer).__bases__[0]
        for name, value in values.items():
            layer.register_parameter(name, nn.Parameter(value))
    return layer.weight, layer.bias


def fold_before(layer: nn.Module, scale: Tensor) -> None:
    """Write the scale, (1, C) or (1, 1), of a layer's input channels into its weight, in place."""
    if getattr(layer, "groups", 1) != 1 or not isinstance(
        layer, CONVOLUTIONS + TRANSPOSED + (nn.Linear,)
    ):
        raise TypeError(f"the input of {layer} cannot be scaled: use a layer of one group")
    weight, _ = own_parameters(layer)
    place = 0 if isinstance(layer, TRANSPOSED) else 1
    shape = [1] * weight.dim()
    shape[place] = -1
    layer.weight = nn.Parameter(weight * scale.to(weight.dtype).reshape(shape))

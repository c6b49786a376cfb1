"""What a task knows of its layers' scales (`Task.scaling`), beside any conditioner."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bench.conditioners import Conditioner, KnownScale, in_fp32
from bench.modulation import BEFORE, affine, fold, fold_before, same_batch


class Scaled(Conditioner):
    """`inner`, and layers scaled besides: by hooks around whatever it made of them, and at one
    setting in the weights of the plain layers that it leaves."""

    def __init__(self, inner: Conditioner, known: KnownScale) -> None:
        super().__init__()
        self.inner, self.known = inner, known

    def attach(self, model: nn.Module) -> None:
        self.inner.attach(model)
        self._factors: dict[str, Tensor] = {}
        self._hooks = [self._hook(model, site) for site in self.known.sites]

    def _hook(self, model: nn.Module, site: str) -> RemovableHandle:
        layer = model.get_submodule(site.removeprefix(BEFORE))
        if site.startswith(BEFORE):
            return layer.register_forward_pre_hook(
                lambda _, inputs: (self._scale(site, inputs[0]), *inputs[1:])
            )
        return layer.register_forward_hook(lambda _, inputs, output: self._scale(site, output))

    def _scale(self, site: str, x: Tensor) -> Tensor:
        factor = self._factors.get(site)
        if factor is None:
            return x
        same_batch(site, x, len(factor))
        return affine(x, factor.reshape(-1, *(1,) * (x.dim() - 1)), None)

    def condition(self, coefficients: Tensor) -> None:
        self.inner.condition(coefficients)
        with in_fp32(coefficients):
            parts = self.known(coefficients)
        self._factors = {s: f for s, (f, _) in zip(self.known.sites, parts, strict=True)}

    def release(self) -> None:
        self.inner.release()
        self._factors = {}

    def bake(self, model: nn.Module, coefficients: Tensor) -> None:
        self.condition(coefficients)
        self.inner.bake(model, coefficients)
        for hook in self._hooks:
            hook.remove()
        for site, factor in self._factors.items():
            layer = model.get_submodule(site.removeprefix(BEFORE))
            if site.startswith(BEFORE):
                fold_before(layer, factor)
            else:
                fold(layer, factor, None)

    def decaying(self) -> list[nn.Parameter]:
        return self.inner.decaying()

    def penalty(self, terms: Mapping[str, Tensor], coefficients: Tensor) -> Tensor | None:
        return self.inner.penalty(terms, coefficients)

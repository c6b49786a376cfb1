"""CompressAI's variable-rate hyperprior codec: a quantiser step per λ, learned reconstruction.

`ScaleHyperpriorVbr` and `MeanScaleHyperpriorVbr` of CompressAI 1.2.8, unmodified; Kamisli, Racape
& Choi, "Variable-Rate Learned Image Compression with Multi-Objective Optimization and
Quantization-Reconstruction Offsets", DCC 2024. Kept: latents are scaled by the inverse of the step
before rounding, a small network moves the reconstruction points by deviation and step, rounding is
straight-through. As shipped the steps take no gradient: they are proportional to λ^-1/2, which is
what holds here too, in units that put the step of the middle λ at one. The recipe of training was
never published; ours: eight levels of λ, one drawn per batch (the class takes one), the weighted
loss alone instead of multi-objective optimisation, the variable-rate path from the first step on,
the same steps and rates as every other method. Any λ in between has a step in between.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import Cell, Conditioner, OneNetwork, Task
from bench.tasks.codec import in_full_precision
from bench.tasks.compression import Compression

CODECS = {
    "scale_hyperprior": "ScaleHyperpriorVbr",
    "mean_scale_hyperprior": "MeanScaleHyperpriorVbr",
}


@dataclass(frozen=True, kw_only=True)
class VariableRate(OneNetwork):
    """levels: how many λ, log-spaced over the range, are trained for."""

    name = "vbr"
    line = "CompressAI's variable-rate codec: a quantiser step per λ (compression)"
    swept = True

    levels: int = 8

    def refuses(self, task: Task) -> str:
        if not isinstance(task, Compression):
            return "it is a codec of its own, for the compression task"
        return "" if task.codec in CODECS else f"CompressAI has no variable-rate {task.codec}"

    def model(self, task: Task) -> nn.Module:
        assert isinstance(task, Compression)
        model = codec(CODECS[task.codec])(task.width, task.latents)
        in_full_precision(model)
        return model

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return QuantiserStep(task.space.axes[0].at(0.5))

    def draw(self, cell: Cell, count: int, generator: torch.Generator) -> Tensor:
        return cell.task.space.sample(1, generator, levels=self.levels).repeat(count, 1)


class QuantiserStep(Conditioner):
    """Gives the codec its inverse step, sqrt(λ / middle); the whole batch has one λ."""

    def __init__(self, middle: float) -> None:
        super().__init__()
        self.middle = middle

    def attach(self, model: Any) -> None:
        self._codec = [model]  # not its buffer, which a move to another device replaces

    def condition(self, coefficients: Tensor) -> None:
        self._codec[0].scale.copy_((coefficients[0] / self.middle).sqrt())

    def release(self) -> None:
        pass

    def bake(self, model: Any, coefficients: Tensor) -> None:
        model.scale.copy_((coefficients[0] / self.middle).sqrt())


@functools.cache
def codec(name: str) -> Any:
    """CompressAI's class under the interface of its fixed-rate codecs, at the step `scale`."""
    import compressai.models

    class AtStep(getattr(compressai.models, name)):  # type: ignore[misc]
        def __init__(self, width: int, latents: int) -> None:
            super().__init__(width, latents)
            self.register_buffer("scale", torch.ones(1))
            del self.Gain  # its eight steps are replaced by `scale`

        def _get_scale(self, *_: Any) -> Tensor:
            return self.scale

        def compress(self, x: Tensor) -> dict[str, Any]:
            return super().compress(x, inputscale=self.scale)

        def decompress(self, strings: Any, shape: Any) -> dict[str, Any]:
            return super().decompress(strings, shape, inputscale=self.scale)

        def update(self, *args: Any, **options: Any) -> bool:
            return compressai.models.CompressionModel.update(self, *args, **options)

    return AtStep

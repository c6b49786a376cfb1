"""CompressAI's variable-rate hyperprior codec: a quantiser step per λ, learned reconstruction.

`ScaleHyperpriorVbr` and `MeanScaleHyperpriorVbr` of CompressAI 1.2.8; Kamisli, Racape & Choi,
"Variable-Rate Learned Image Compression with Multi-Objective Optimization and
Quantization-Reconstruction Offsets", DCC 2024. Kept: latents are scaled by the inverse of the step
before rounding, a small network moves the reconstruction points by deviation and step, rounding is
straight-through. As shipped the steps take no gradient: they are proportional to λ^-1/2, which is
what holds here too, in units that put the step of the middle λ at one. Ours: eight levels of λ,
one drawn per batch (the class takes one), the weighted loss alone instead of multi-objective
optimisation, the same steps and rates as every other method. Any λ in between has its step. The
medians of z, about which it is rounded, are zero in training, where nothing moves them; as they are
solved for afterwards (`Compression.ready`) they are rounded, so that the decoder sees the whole
numbers that it was trained with.

The script of training was never published (CompressAI's issues 283 and 323 ask for it). Public are
its stages: the class' `stage=1`, "for initial training", is the fixed-rate codec, and the paper
trains on from there. So do its relatives: QVRF (github.com/bytedance/QRAF, README: 2,000 epochs at
the highest λ, then twice 500 at any, the optimiser begun anew; or from a fixed-rate network).
`fixed` is that first stage, at the middle λ, whose step is one here; in the default, the
variable-rate path is trained from the first step on.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench import ADDED, Cell, Conditioner, Fixed, Levers, Setting, Task
from bench.tasks.codec import in_mixed_precision
from bench.tasks.compression import Compression

CODECS = {
    "scale_hyperprior": "ScaleHyperpriorVbr",
    "mean_scale_hyperprior": "MeanScaleHyperpriorVbr",
}


@dataclass(frozen=True, kw_only=True)
class VariableRate(Levers):
    """levels: how many λ, log-spaced over the range, are trained for; 0 for any.
    fixed: share of the training steps in which the codec is a fixed-rate one, for the middle λ.
        Both stages have a whole schedule of the learning rate. QVRF's share is two thirds.
    Other levers of training: see `Levers`.
    """

    name = "vbr"
    line = "CompressAI's variable-rate codec: a quantiser step per λ (compression)"
    swept = True
    version = 2  # the first coded z about medians that training had not seen

    levels: int = 8
    fixed: float = field(default=0.0, metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fixed < 1:
            raise ValueError(f"{self.name}: fixed {self.fixed}: use a share from 0 to below 1")

    @property
    def together(self) -> bool:
        return True

    def refuses(self, task: Task) -> str:
        if not isinstance(task, Compression):
            return "it is a codec of its own, for the compression task"
        return "" if task.codec in CODECS else f"CompressAI has no variable-rate {task.codec}"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        (cell,) = super().plan(task, settings, seed)
        if not self.fixed:
            return [cell]
        steps = cell.task.training.steps
        first = min(max(1, round(self.fixed * steps)), steps - 1)
        (before,) = FixedStage().plan(cell.task.trained_with(steps=first), settings, seed)
        rest = cell.task.trained_with(steps=steps - first)
        return [Cell(task=rest, method=self, seed=seed, after=before)]

    def model(self, task: Task) -> nn.Module:
        return variable_rate(task, stage=2)

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return QuantiserStep(task.space.axes[0].at(0.5))


@dataclass(frozen=True, kw_only=True)
class FixedStage(Fixed):
    """The first stage of `vbr[fixed=...]`: the class' fixed-rate codec, for the middle λ."""

    name = "vbr_fixed"
    line = "the fixed-rate stage of vbr"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        return [Cell(task=task, method=self, seed=seed, trained_for=task.space.grid(1))]

    def model(self, task: Task) -> nn.Module:
        return variable_rate(task, stage=1)


def variable_rate(task: Task, stage: int) -> nn.Module:
    """CompressAI's codec for a task; stage 1 is the path of the fixed-rate codec."""
    assert isinstance(task, Compression)
    model: nn.Module = codec(CODECS[task.codec])(task.width, task.latents, stage)
    in_mixed_precision(model)
    return model


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


class Filling(TorchFunctionMode):
    """While it lasts, `x[mask] = number` fills: the same numbers, but on a GPU an assignment counts
    the mask first, and waits for it in every step."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.__setitem__:
            target, place, value = args
            mask = isinstance(place, Tensor) and place.dtype == torch.bool
            if mask and place.shape == target.shape and not isinstance(value, Tensor):
                target.masked_fill_(place, value)
                return None
        return function(*args, **(kwargs or {}))


@functools.cache
def codec(name: str) -> Any:
    """CompressAI's class under the interface of its fixed-rate codecs, at the step `scale`."""
    import compressai.models

    class AtStep(getattr(compressai.models, name)):  # type: ignore[misc]
        def __init__(self, width: int, latents: int, stage: int) -> None:
            super().__init__(width, latents)
            self.stage = stage
            self.register_buffer("scale", torch.ones(1))
            del self.Gain  # its eight steps are replaced by `scale`

        def forward(self, x: Tensor) -> Any:
            with Filling():
                return super().forward(x, stage=self.stage)

        def _get_scale(self, *_: Any) -> Tensor:
            return self.scale

        def compress(self, x: Tensor) -> dict[str, Any]:
            return super().compress(x, inputscale=self.scale)

        def decompress(self, strings: Any, shape: Any) -> dict[str, Any]:
            return super().decompress(strings, shape, inputscale=self.scale)

        def update(self, *args: Any, **options: Any) -> bool:
            plain = compressai.models.CompressionModel.update
            done = plain(self, *args, **options)
            self.entropy_bottleneck.quantiles.data[..., 1].round_()
            return plain(self, force=True) or done

    return AtStep

"""Conditional instance norm: the norms' scales and offsets come from a network of the coefficients.

Babaeizadeh & Ghiasi, "Adjustable Real-Time Style Transfer", ICLR 2020, the closest peer of
loss-conditional style transfer. Kept: every instance norm is conditioned, by one perceptron with a
hidden layer that sees the coefficients themselves, drawn uniformly from their range, instead of the
norms' own parameters, which are not trained; losses are divided by their normal size (the task's
normalisers). Changed: the range is the task's, [0.1, 10] times the middle, where theirs is [0, 1],
so that all methods answer the same settings.
"""

from dataclasses import dataclass

from torch import nn

from bench import ConditionalNorm, Conditioner, Encoding, Levers, Task


@dataclass(frozen=True, kw_only=True)
class InstanceNorm(Levers):
    """hidden: width of the perceptron. encoding: how coefficients are shown. law: their draw."""

    name = "instance_norm"
    version = 2  # in the first the norms' own parameters were trained, too
    line = "instance norms' scale and offset from one network (style)"
    swept = True

    hidden: int = 128
    encoding: str = "raw"
    law: str = "uniform"

    def refuses(self, task: Task) -> str:
        return "" if norms(task.model()) else "its model has no affine instance norm"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        for name in norms(model):
            model.get_submodule(name).requires_grad_(False)
        encoding = Encoding(task.space, self.encoding)
        return ConditionalNorm(model, norms(model), encoding, self.hidden, adaptive=False)


def norms(model: nn.Module) -> list[str]:
    """The names of a model's affine instance norms."""
    layers = model.named_modules()
    return [name for name, m in layers if isinstance(m, nn.InstanceNorm2d) and m.affine]

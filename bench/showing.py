"""What can be shown at once of a task: a picture of the user's, what a network makes of it, and
the numbers of that one example. `run_bench.py demo` asks for nothing else.

`Task.showing()` gives one. This class does for every task, from its `sample`, `original` and
`measure`; a task with more to show (pictures of any size, latents, paintings to choose from)
returns a subclass of its own, as `bench/tasks/style.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.space import Setting


class Showing:
    """takes: what a picture of the user's has to be, for the page; "" where the task takes none.
    blends: what an example may be a mixture of, by name, as paintings; () for nothing of the kind.
    """

    takes: str = ""
    blends: tuple[str, ...] = ()

    def __init__(self, task: Any) -> None:
        self.task = task

    def received(self, picture: Tensor) -> Any:
        """A user's picture, (3, H, W) in [0, 1], as a batch of one. Called where `takes` is set."""
        raise ValueError(f"the task {self.task.name!r} takes no picture")

    def blended(self, batch: Any, shares: Sequence[float]) -> Any:
        """The same example as a mixture of `blends` by these shares, which sum to one."""
        return batch

    def original(self, batch: Any) -> Tensor | None:
        """The example itself as a picture, (3, H, W) in [0, 1]."""
        return self.task.original(batch)

    def described(self, batch: Any) -> str:
        """The example in words, where it is no picture; "" says nothing."""
        return ""

    def picture(self, model: nn.Module, batch: Any) -> Tensor | None:
        """What a plain model makes of the example, (3, H, W) in [0, 1]: one pass, and no coding."""
        return self.task.sample(model, batch)

    def measured(self, model: nn.Module, batch: Any, setting: Setting) -> dict[str, float]:
        """The measures of the one example, by name; those that cannot be had are left out."""
        values = {
            **self.task.measure(model, batch),
            **self.task.measure_at(model, batch, setting),
        }
        return {name: value.item() for name, value in values.items()}

    def also(self, setting: Setting) -> str:
        """How else a setting is written, as a quantile's level for its coefficient; "" for none."""
        return ""

    def latents(self, model: nn.Module, batch: Any) -> Tensor | None:
        """The example's code, (L,), where a model has one that can be moved by hand."""
        return None

    def decoded(self, model: nn.Module, latents: Tensor) -> Tensor:
        """The picture of a code: (L,) to (3, H, W) in [0, 1]. Called where there are `latents`."""
        raise ValueError(f"the task {self.task.name!r} has no latents")

    def recall(self, constants: Mapping[str, float]) -> None:
        """Take these for `Task.constants`, as they were measured where the network was trained: its
        training data may not be here."""


def fitting(picture: Tensor, side: int) -> Tensor:
    """The middle square of a picture, (3, H, W) in [0, 1], at `side` pixels: (3, side, side)."""
    shorter = min(picture.shape[-2:])
    top, left = ((length - shorter) // 2 for length in picture.shape[-2:])
    square = picture[None, :, top : top + shorter, left : left + shorter]
    size = (side, side)
    small = torch.nn.functional.interpolate(square, size, mode="bicubic", antialias=True)
    return small[0].clamp(0, 1)

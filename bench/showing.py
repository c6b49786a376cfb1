"""What can be shown at once of a task: a picture of the user's, what a network makes of it, and
the numbers of that one example (`run_bench.py demo` asks for nothing else); and which pieces of a
network run alone (`run_bench.py export`).

`Task.showing()` gives one. This class does for every task, from its `sample`, `original` and
`measure`; a task with more to show (pictures of any size, latents, paintings to choose from)
returns a subclass of its own, as `bench/tasks/style.py` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.space import Setting


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a model that runs alone, as `export` writes it.

    module: in evaluation mode, with the model's own layers, so that it follows what these follow;
        it takes `examples`' inputs in their order and gives a tensor, or a tuple of several.
    examples: from a number, the inputs of one example by name, each (1, ...); further numbers give
        others, some of another size where `free` says so.
    outputs: the names of what the module gives.
    free: by input, the name of each dimension of any size, as {"x": {0: "batch", 2: "height"}}.
        The batch is always called "batch".
    multiples: what such sizes must be multiples of, by name.
    reference: what was trained and measured, where `module` is the same computed in another way.
    line: what one has to know who runs it. constants: numbers that belong to it, by name.
    """

    module: nn.Module
    examples: Callable[[int], Mapping[str, Tensor]]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]
    multiples: Mapping[str, int] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None
    line: str = ""
    constants: Mapping[str, Sequence[float]] = field(default_factory=dict)


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

    def called(self, example: str) -> str:
        """How a test example is called where one of `blends` is chosen beside it."""
        return example

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

    def lacking(self) -> str:
        """Why some of `measured` cannot be had on this machine, and the way out; "" for none."""
        return "; ".join(dict.fromkeys(self.task.missing().values()))

    def latents(self, model: nn.Module, batch: Any) -> Tensor | None:
        """The example's code, (L,), where a model has one that can be moved by hand."""
        return None

    def decoded(self, model: nn.Module, latents: Tensor) -> Tensor:
        """The picture of a code: (L,) to (3, H, W) in [0, 1]. Called where there are `latents`."""
        raise ValueError(f"the task {self.task.name!r} has no latents")

    def recall(self, constants: Mapping[str, float]) -> None:
        """Take these for `Task.constants`, as they were measured where the network was trained: its
        training data may not be here."""

    def parts(self, model: nn.Module) -> dict[str, Part]:
        """The pieces of `model` that are exported, by the name of their file. `model` is a plain
        one, or follows the coefficients it was last told. By default it is whole, with what
        `Task.measure` calls it with for the first test examples."""
        self.task.ready(model)
        calls = list(itertools.islice(self._calls(), 8))
        if not calls or not all(isinstance(part, Tensor) for part in calls[0]):
            raise ValueError(
                f"the task {self.task.name!r} does not call its model with tensors alone, so it is "
                "not known how to export it: let its `showing()` say so with `parts`"
            )
        count = len(calls[0])
        names = ["x"] if count == 1 else [f"x{place}" for place in range(count)]
        with torch.no_grad():
            given = model(*calls[0])
        outputs = 1 if isinstance(given, Tensor) else len(given)
        return {
            "network": Part(
                module=model,
                examples=lambda number: dict(zip(names, calls[number % len(calls)], strict=True)),
                outputs=("y",) if outputs == 1 else tuple(f"y{i}" for i in range(outputs)),
                free={name: {0: "batch"} for name in names},
            )
        }

    def live(self, model: nn.Module) -> Part | None:
        """What `demo --static` runs in a browser: from x, a picture (1, 3, H, W) in [0, 1], and
        `shares` (1, P) where there are `blends`, to what is shown of it in the same form, called
        "picture"; to the latents (1, L), called so, where `parts` have a "decoder" of them; and to
        those measures, each (1,) and by name, that need nothing else. None without a picture."""
        return None

    @torch.no_grad()
    def _calls(self) -> Iterator[tuple[Any, ...]]:
        """What a model is first called with where each test example is measured."""
        model = self.task.model().eval()
        self.task.ready(model)
        seen: list[tuple[Any, ...]] = []
        hook = model.register_forward_pre_hook(lambda _, given: seen.append(given))
        for _, batch in self.task.data("test").examples():
            seen.clear()
            self.task.measure(model, batch)
            yield from seen[:1]
        hook.remove()


def fitting(picture: Tensor, side: int) -> Tensor:
    """The middle square of a picture, (3, H, W) in [0, 1], at `side` pixels: (3, side, side)."""
    shorter = min(picture.shape[-2:])
    top, left = ((length - shorter) // 2 for length in picture.shape[-2:])
    square = picture[None, :, top : top + shorter, left : left + shorter]
    size = (side, side)
    small = torch.nn.functional.interpolate(square, size, mode="bicubic", antialias=True)
    return small[0].clamp(0, 1)

"""A CUDA graph's stand-in on a CPU: a tape of what a step told the device to do.

As a graph it knows no Python: a replay does the same operations on the same tensors again. So what
a graph would get wrong of a step (a number in Python that changes, an input or a weight that is
another tensor next time, a value that was read back) the tape gets wrong, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# On a GPU these wait until it has come so far: their result's shape or Python's next line depends
# on values. `lift_fresh` is a tensor made of Python's numbers, which are copied from the host.
WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"),
}


def waits(operation: Any, args: Any) -> bool:
    """Whether the host would wait for the device, or copy to it."""
    name = operation.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):  # a mask is counted first
        masks = (torch.bool, torch.uint8)
        return any(isinstance(x, Tensor) and x.dtype in masks for x in args[1])
    return name in WAITING


class Watch(TorchDispatchMode):
    """RuntimeError for an operation that waits for the device."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        if waits(operation, args):
            raise RuntimeError(f"called a synchronising operation, {operation}")
        return operation(*args, **(kwargs or {}))


class Notes(TorchDispatchMode):
    """All operations, with what they were given and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = operation(*args, **(kwargs or {}))
        self.lines.append((operation, args, kwargs or {}, result))
        return result


class Tape:
    """A `bench.capture.Recorder`. `ordinary`, `recorded` and `replayed` count."""

    def __init__(self) -> None:
        self.ordinary = self.recorded = self.replayed = 0

    def apart(self, step: Callable[[], Any]) -> Any:
        self.ordinary += 1
        return step()

    @contextlib.contextmanager
    def unattended(self) -> Iterator[None]:
        with Watch():
            yield

    def record(self, step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        self.recorded += 1
        with Notes() as notes:
            result = step()

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for operation, args, kwargs, before in notes.lines:
                if operation.is_view:
                    continue  # of tensors that stay where they are
                given = {id(x) for x in tree_leaves((args, kwargs))}
                again = operation(*args, **kwargs)
                for place, value in zip(tree_leaves(before), tree_leaves(again), strict=True):
                    if isinstance(place, Tensor) and id(place) not in given:
                        place.copy_(value)

        return result, replay

    def randomness(self) -> Tensor:
        return torch.get_rng_state()

    def restore_randomness(self, state: Tensor) -> None:
        torch.set_rng_state(state)

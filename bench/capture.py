"""A training step captured once as a CUDA graph and replayed after that.

A step of a small network launches hundreds of kernels, each of which the GPU finishes before the
host has launched the next. A graph launches all of them at once. What is captured is what the GPU
was told to do, in these very places of its memory: no line of Python runs again. So a step can be
replayed only if nothing but tensors changes from one to the next, and it must not wait for the
device. Both are asked of the step itself: the first that is replayed is also done in the ordinary
way, from the same weights and with the same random numbers, and has to give the same losses.
Where it does not, the training goes on step by step and a warning says why.

A task that cannot be captured says so: `captured = False` in its class. A machine on which nothing
can be is told so by the environment: YOTO_BENCH_CAPTURE=0.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Losses = tuple[Tensor, dict[str, Tensor]]  # the loss, a scalar, and its terms, each (B,)

ORDINARY = 3  # steps before the capture: libraries choose kernels, the optimiser makes its state
# Of a loss, between a replayed step and the ordinary one: they run the same kernels on the same
# numbers, but sums that a GPU takes in any order.
TOLERANCE = 1e-4
WAY_OUT = "`captured = False` in the task's class spares the attempt"
VARIABLE = "YOTO_BENCH_CAPTURE"


class Recorder(Protocol):
    """Records what a device is told to do, and tells it again."""

    def apart(self, step: Callable[[], Any]) -> Any:
        """Do the step in the ordinary way, where it can be recorded after that."""

    def unattended(self) -> contextlib.AbstractContextManager[None]:
        """While it lasts, an operation that waits for the device is a RuntimeError."""

    def record(self, step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What the step returns, and what does it again and fills the same tensors anew."""

    def randomness(self) -> Tensor:
        """The state of the device's random numbers."""

    def restore_randomness(self, state: Tensor) -> None: ...


class CudaGraphs:
    """Of one GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream = torch.cuda.Stream(device)

    def apart(self, step: Callable[[], Any]) -> Any:
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            result = step()
        usual.wait_stream(self.stream)
        return result

    @contextlib.contextmanager
    def unattended(self) -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says of itself that it does not see all
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def record(self, step: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            result = step()
        return result, graph.replay

    def randomness(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device)

    def restore_randomness(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self.device)


def recorder(device: torch.device) -> Recorder | None:
    """What captures steps on `device`; None where nothing does, as on a CPU."""
    wanted = os.environ.get(VARIABLE) != "0"
    return CudaGraphs(device) if device.type == "cuda" and wanted else None


class Captured:
    """`step` for inputs like the first ones: ordinary for `ORDINARY` steps, then captured and
    replayed. Its losses are copies, since every replay overwrites the last one's.

    step: takes a batch (tensors, or any nesting of them) and the coefficients, (B, K).
    state: all tensors that a step changes, once `ORDINARY` were done.
    """

    def __init__(
        self,
        step: Callable[[Any, Tensor], Losses],
        state: Callable[[], Sequence[Tensor]],
        recorder: Recorder,
    ) -> None:
        self._step, self._state, self._recorder = step, state, recorder
        self._taken = 0
        self._replay: Callable[[], None] | None = None
        self.refused = ""  # why steps are not replayed, where one was to be

    @property
    def active(self) -> bool:
        """Whether steps are replayed now."""
        return self._replay is not None

    @property
    def preparing(self) -> bool:
        """Whether the next step is one of those until steps are captured."""
        return self._taken <= ORDINARY

    def __call__(self, batch: Any, coefficients: Tensor) -> Losses:
        inputs = batch, coefficients
        leaves, shape = tree_flatten(inputs)
        if self._taken == ORDINARY:
            self._taken += 1
            return self._capture(inputs)
        if self._replay is None:
            self._taken += 1
            ordinary = self.refused or self._taken > ORDINARY
            step = lambda: self._step(*inputs)  # noqa: E731
            return step() if ordinary else self._recorder.apart(step)
        if _kind(leaves) != self._kind or shape != self._shape:
            return self._step(*inputs)  # a batch of another size is a program of its own
        self._fill(leaves)
        self._replay()
        return self._losses()

    def _capture(self, inputs: tuple[Any, Tensor]) -> Losses:
        """The first replayed step, or the same step in the ordinary way."""
        take, state = self._recorder, list(self._state())
        before = _Moment(state, take)
        try:
            with take.unattended():
                losses = take.apart(lambda: self._step(*inputs))
        except RuntimeError as error:
            before.restore()
            self._refuse(f"it waits for the device ({error})")
            return self._step(*inputs)
        after = _Moment(state, take)
        leaves, self._shape = tree_flatten(inputs)
        self._kind = _kind(leaves)
        self._given = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        static = tree_unflatten(self._given, self._shape)
        try:
            self._flat, self._replay = take.record(lambda: self._packed(self._step(*static)))
        except RuntimeError as error:
            raise RuntimeError(
                f"the training step could not be captured as a CUDA graph ({error}): set "
                f"{VARIABLE}=0 in the environment to train step by step"
            ) from error
        before.restore()
        self._replay()
        replayed = self._losses()
        if apart := _apart(losses, replayed):
            after.restore()
            self._replay = None
            self._refuse(
                f"replayed, it gives another {apart}: something in it that is no tensor changes "
                "from step to step"
            )
            return losses
        return replayed

    def _refuse(self, why: str) -> None:
        self.refused = why
        warnings.warn(
            f"the training step cannot be replayed, so it is slower than it could be: {why}; "
            f"{WAY_OUT}",
            stacklevel=4,
        )

    def _fill(self, leaves: Sequence[Any]) -> None:
        for place, value in zip(self._given, leaves, strict=True):
            if isinstance(place, Tensor):
                place.copy_(value, non_blocking=True)

    def _packed(self, losses: Losses) -> Tensor:
        """All of them in one tensor, so that a copy is one kernel."""
        loss, terms = losses
        self._names = list(terms)
        parts = [*terms.values()]
        return torch.stack([loss.expand_as(parts[0]), *parts])

    def _losses(self) -> Losses:
        loss, *terms = self._flat.clone().unbind(0)
        return loss[0], dict(zip(self._names, terms, strict=True))


class _Moment:
    """What a training is at this moment, to come back to it. On the host: what a network takes of
    the device's memory is measured."""

    def __init__(self, state: Sequence[Tensor], recorder: Recorder) -> None:
        self._state, self._recorder = state, recorder
        self._values = [tensor.detach().to("cpu", copy=True) for tensor in state]
        self._randomness = recorder.randomness()

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, value in zip(self._state, self._values, strict=True):
            tensor.copy_(value)
        self._recorder.restore_randomness(self._randomness)


def _kind(leaves: Sequence[Any]) -> list[Any]:
    """What inputs have in common that one captured step can take; what is no tensor is part of the
    program."""
    return [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves]


def _apart(ordinary: Losses, replayed: Losses) -> str:
    """Which of the losses differs by more than `TOLERANCE`, "" for none."""
    pairs = {"loss": (ordinary[0], replayed[0])}
    pairs |= {f"term {name!r}": (term, replayed[1][name]) for name, term in ordinary[1].items()}
    for name, (one, other) in pairs.items():
        size = float(one.abs().max())
        if not torch.allclose(one, other, TOLERANCE, TOLERANCE * size, equal_nan=True):
            return name
    return ""

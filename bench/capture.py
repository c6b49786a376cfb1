"""A training step captured once as a CUDA graph and replayed after that.

A step of a small network launches hundreds of kernels, each of which the GPU finishes before the
host has launched the next. A graph launches all of them at once. What is captured is what the GPU
was told to do, in these very places of its memory: no line of Python runs again. So a step can be
replayed only if nothing but tensors changes from one to the next, and it must not wait for the
device. Both are asked of the step itself: the first that is replayed is also done in the ordinary
way, from the same weights and with the same random numbers, and has to give the same losses and
change the same. Where it does not, the training goes on step by step and a warning says why. It is
asked once: what changes seldom, by less than `TOLERANCE` a step, or in less than `CHANGE` of the
weights, is not seen.

A task that cannot be captured says so: `captured = False` in its class. A machine on which nothing
can be is told so by the environment: YOTO_BENCH_CAPTURE=0.
"""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

Losses = tuple[Tensor, dict[str, Tensor]]  # the loss, a scalar, and its terms, each (B,)

ORDINARY = 3  # steps before the capture: libraries choose kernels, the optimiser makes its state
# Of a loss, between a replayed step and the ordinary one: they run the same kernels on the same
# numbers, but for sums that a GPU takes in any order.
TOLERANCE = 1e-4
# Of a tensor's change in a step, and of all numbers that may be in tensors with another: gradients
# are such sums, too, and Adam makes a whole step of one that is rounding alone.
CHANGE = 0.1
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
        try:
            with torch.cuda.stream(self.stream):
                return step()
        finally:
            usual.wait_stream(self.stream)

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
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        gc.collect()  # what is freed during the capture would be in it
        gc.disable()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                result = step()
        finally:
            gc.enable()
            torch.cuda.set_stream(usual)  # also where the capture ended in an error
        return result, graph.replay

    def randomness(self) -> Tensor:
        return torch.cuda.get_rng_state(self.device)

    def restore_randomness(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self.device)


def recorder(device: torch.device) -> Recorder | None:
    """What captures steps on `device`; None where nothing does, as on a CPU."""
    wanted = os.environ.get(VARIABLE) != "0"
    return CudaGraphs(device) if device.type == "cuda" and wanted else None


def changing(network: nn.Module, adam: torch.optim.Optimizer) -> list[Tensor]:
    """All tensors that a step changes, once there was one."""
    moments = (value for values in adam.state.values() for value in values.values())
    return [*network.parameters(), *network.buffers(), *moments]


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
        self.replayed = False  # whether the last step was

    @property
    def preparing(self) -> bool:
        """Whether the next step is one of those until steps are captured."""
        return self._taken <= ORDINARY

    def __call__(self, batch: Any, coefficients: Tensor) -> Losses:
        inputs = batch, coefficients
        self._taken += 1
        if self._taken <= ORDINARY:
            return self._recorder.apart(lambda: self._step(*inputs))
        if self._taken == ORDINARY + 1:
            return self._capture(inputs)
        leaves, shape = tree_flatten(inputs)
        # A batch of another size is a program of its own.
        self.replayed = bool(self._replay) and (_kind(leaves), shape) == (self._kind, self._shape)
        if not self.replayed:
            return self._step(*inputs)
        for place, value in zip(self._given, leaves, strict=True):
            if isinstance(place, Tensor):
                place.copy_(value, non_blocking=True)
        return self._again()

    def _capture(self, inputs: tuple[Any, Tensor]) -> Losses:
        """The first replayed step, or the same step in the ordinary way."""
        recorder, state = self._recorder, list(self._state())
        before = _Moment(state, recorder)
        try:
            with recorder.unattended():
                losses = recorder.apart(lambda: self._step(*inputs))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            before.restore()
            self._refuse(f"it waits for the device ({error})")
            return self._step(*inputs)
        after = _Moment(state, recorder)
        leaves, self._shape = tree_flatten(inputs)
        self._kind = _kind(leaves)
        self._given = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        static = tree_unflatten(self._given, self._shape)
        try:
            self._flat, self._replay = recorder.record(lambda: self._packed(self._step(*static)))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # of the end of the capture, often, and then not the cause
            raise RuntimeError(
                f"the training step could not be captured as a CUDA graph "
                f"({error.__context__ or error}): set {VARIABLE}=0 in the environment to train "
                "step by step"
            ) from error
        before.restore()
        replayed = self._again()
        if why := _differing(losses, replayed) or _changed(before, after):
            after.restore()
            self._replay = None
            self._refuse(
                f"replayed, it {why}: something in it that is no tensor changes from step to step"
            )
            return losses
        self.replayed = True
        return replayed

    def _refuse(self, why: str) -> None:
        warnings.warn(
            f"the training step cannot be replayed, so it is slower than it could be: {why}; "
            f"{WAY_OUT}",
            stacklevel=4,
        )

    def _packed(self, losses: Losses) -> Tensor:
        """All of them in one tensor, so that a copy is one kernel."""
        loss, terms = losses
        self._names = list(terms)
        parts = [*terms.values()]
        return torch.stack([loss.expand_as(parts[0]), *parts])

    def _again(self) -> Losses:
        """Replay the step on what is in its inputs."""
        assert self._replay is not None
        self._replay()
        loss, *terms = self._flat.clone().unbind(0)
        return loss[0], dict(zip(self._names, terms, strict=True))


class _Moment:
    """What a training is at this moment, to come back to it. On the host: what a network takes of
    the device's memory is measured."""

    def __init__(self, state: Sequence[Tensor], recorder: Recorder) -> None:
        self.state, self._recorder = state, recorder
        self.values = [tensor.detach().to("cpu", copy=True) for tensor in state]
        self._randomness = recorder.randomness()

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, value in zip(self.state, self.values, strict=True):
            tensor.copy_(value)
            tensor.grad = None  # a step that was broken off may have left one
        self._recorder.restore_randomness(self._randomness)


def _kind(leaves: Sequence[Any]) -> list[Any]:
    """What inputs have in common that one captured step can take; what is no tensor is part of the
    program."""
    return [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves]


def _differing(ordinary: Losses, replayed: Losses) -> str:
    """Which of the losses differs by more than `TOLERANCE`, "" for none."""
    pairs = {"loss": (ordinary[0], replayed[0])}
    pairs |= {f"term {name!r}": (term, replayed[1][name]) for name, term in ordinary[1].items()}
    for name, (one, other) in pairs.items():
        size = float(one.nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(one, other, TOLERANCE, TOLERANCE * size, equal_nan=True):
            return f"gives another {name}"
    return ""


def _changed(before: _Moment, ordinary: _Moment) -> str:
    """Whether what a replayed step made of `before` is not what the ordinary one did; "" for no."""
    numbers = others = 0
    for tensor, old, new in zip(before.state, before.values, ordinary.values, strict=True):
        if old.dim() and (old.is_floating_point() or old.is_complex()):
            step, off = (new - old).norm(), (tensor.detach().cpu() - new).norm()
            numbers += old.numel()
            others += old.numel() * bool(off > CHANGE * step)
    return "changes the network in another way" if others > CHANGE * numbers else ""

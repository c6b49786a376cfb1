"""Whether an exported file computes what PyTorch does: it is loaded again and run.

Nothing counts as written that does not give PyTorch's own numbers, at both ends of the range of
coefficients and in its middle, on inputs of two sizes where sizes are free. An example at which
PyTorch's own answer jumps when its input moves by `NUDGE` (a latent that is rounded the other way)
says nothing and makes place for the next one.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.conditioners import Network
from bench.showing import Part
from bench.space import Setting, Space

TOLERANCE = 1e-4  # of an output in [-1, 1]; of a larger one, times its largest value
NUDGE = 1e-5  # of inputs, relative where they are above one; fp32 has steps of 6e-8
TRIES = 60  # examples, until one is found at which PyTorch's own answer is steady


class NotExported(RuntimeError):
    """A file is not what it should be, or cannot be made; the message says which and why."""


# What is exported ---------------------------------------------------------------------------------


@dataclass
class Source:
    """What a file is made from: a network that is told its coefficients, or a plain model.

    tell: lets `model` follow coefficients, (B, K); None for a plain model. setting: what a plain
    one answers for, None for all. rows: whether each example may have coefficients of its own.
    """

    model: nn.Module
    space: Space
    conditioner: nn.Module | None = None
    setting: Setting | None = None
    rows: bool = True

    @classmethod
    def of(cls, network: Network, space: Space, rows: bool) -> Source:
        return cls(network.model, space, network.conditioner, rows=rows)

    @property
    def settings(self) -> list[Setting]:
        """Those that are tried: both ends of the range and its middle, or its own."""
        if self.conditioner is None:
            return [self.setting or ()]
        (middle,) = self.space.grid(1)
        axes = self.space.axes
        return [tuple(axis.low for axis in axes), middle, tuple(axis.high for axis in axes)]

    @contextlib.contextmanager
    def following(self, coefficients: Tensor) -> Iterator[None]:
        """In it the model follows these coefficients."""
        conditioner: Any = self.conditioner
        if conditioner is not None:
            conditioner.condition(coefficients)
        try:
            yield
        finally:
            if conditioner is not None:
                conditioner.release()


def several(given: Any) -> tuple[Tensor, ...]:
    return (given,) if isinstance(given, Tensor) else tuple(given)


def stacked(examples: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """The inputs of several examples of one size as a batch."""
    return [torch.cat([example[name] for example in examples]) for name in examples[0]]


# The check ----------------------------------------------------------------------------------------

Runner = Callable[[list[Tensor]], tuple[Tensor, ...]]


def onnx_runner(path: Path) -> Runner:
    """The file by ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails comes as an exception, too
    options.intra_op_num_threads = max(1, torch.get_num_threads())
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        # An input on which nothing depends is no input of the graph
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(map(torch.from_numpy, session.run(None, given)))

    return run


def pt2_runner(path: Path) -> Runner:
    """Without the guards, which take what was so of the one example traced (two rows of latents and
    not one, sides that are multiples of four) for a condition: the numbers are what counts."""
    load = torch.export.load(path).module
    optional = "check_guards" in inspect.signature(load).parameters
    module = load(check_guards=False) if optional else load()
    return lambda inputs: several(module(*inputs))


@dataclass
class Plan:
    """The inputs that a file is tried on, and what PyTorch gives for them."""

    part: Part
    source: Source
    rows: bool
    batched: bool

    def __post_init__(self) -> None:
        self.passed_over = 0
        self.cases = list(self._cases())

    def _cases(self) -> Iterator[tuple[list[Tensor], tuple[Tensor, ...]]]:
        """Per setting, one example, and a batch of three of another size, of which each has
        coefficients of its own where it may."""
        settings = self.source.settings
        for place in range(len(settings)):
            turned = [*settings[place:], *settings[:place]]
            yield self._case(turned[:1], 1, 0)
            count = 3 if self.batched else 1
            yield self._case((turned * 3)[:count] if self.rows else turned[:1], count, 1)

    def _case(
        self, settings: Sequence[Setting], count: int, first: int
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Examples number `first`, `first` + 2, … so that all are of one size."""
        coefficients = torch.tensor(list(settings)) if self.source.conditioner else None
        examples: list[Mapping[str, Tensor]] = []
        number = first + 10
        for _ in range(TRIES):
            row = None if coefficients is None else coefficients[[len(examples) % len(settings)]]
            with self._following(row):
                example = self.part.examples(number)
            number += 2
            if self._steady(list(example.values()), row):
                examples.append(example)
                if len(examples) == count:
                    inputs = stacked(examples)
                    wanted = self._wanted(inputs, coefficients)
                    return inputs + ([] if coefficients is None else [coefficients]), wanted
            else:
                self.passed_over += 1
        raise NotExported(
            f"of {TRIES} examples PyTorch's own answer moves by more than the tolerance when the "
            f"input moves by {NUDGE:g}: no file can be told right from wrong by these"
        )

    def _following(self, coefficients: Tensor | None) -> contextlib.AbstractContextManager[None]:
        if coefficients is None:
            return contextlib.nullcontext()
        return self.source.following(coefficients)

    def _wanted(self, inputs: Sequence[Tensor], coefficients: Tensor | None) -> tuple[Tensor, ...]:
        with self._following(coefficients):
            return several((self.part.reference or self.part.module)(*inputs))

    def _steady(self, inputs: list[Tensor], row: Tensor | None) -> bool:
        wanted = self._wanted(inputs, row)
        noise = torch.Generator().manual_seed(0)
        moves = [
            NUDGE * x.abs().clamp(min=1) * torch.empty_like(x).uniform_(-1, 1, generator=noise)
            if x.is_floating_point()
            else torch.zeros_like(x)
            for x in inputs
        ]
        for sign in (1, -1):
            moved = [x + sign * move for x, move in zip(inputs, moves, strict=True)]
            for here, there in zip(wanted, self._wanted(moved, row), strict=True):
                if not (there - here).abs().max() <= 5 * tolerance(here):
                    return False
        return True


def tolerance(wanted: Tensor) -> float:
    return TOLERANCE * max(1.0, wanted.abs().max().item())


def compare(runner: Runner, plan: Plan) -> dict[str, Any]:
    """How far what a file gives is from what PyTorch gives, the largest over all cases."""
    names = plan.part.outputs
    absolute, relative = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    beyond: list[str] = []
    for inputs, wanted in plan.cases:
        given = runner([value.contiguous() for value in inputs])
        for name, here, there in zip(names, given, wanted, strict=True):
            if here.shape != there.shape:
                raise NotExported(f"{name} is {tuple(here.shape)} and not {tuple(there.shape)}")
            error = (here.double() - there.double()).abs().max().item()
            size = there.abs().max().item()
            if not error <= tolerance(there):
                beyond.append(f"{name} is off by {error:.3g}, of at most {tolerance(there):.3g}")
            absolute[name] = max(absolute[name], error)
            relative[name] = max(relative[name], error / size if size else 0.0)
    return {
        "largest_absolute_error": absolute,
        "largest_relative_error": relative,  # to the largest value of the output
        "beyond": beyond,
        "tolerance": f"{TOLERANCE:g} times an output's largest value, which counts as one or more",
        "inputs": len(plan.cases),
        "passed_over": plan.passed_over,
        "settings": [list(setting) for setting in plan.source.settings if setting],
    }


def refuse(checks: Mapping[str, dict[str, Any]]) -> None:
    """NotExported where a check found an error beyond the tolerance."""
    for name, check in checks.items():
        if beyond := check.pop("beyond"):
            raise NotExported(
                f"{name} does not compute what PyTorch does: {beyond[0]} ({len(beyond)} of "
                f"{check['inputs']} inputs); it is deleted"
            )

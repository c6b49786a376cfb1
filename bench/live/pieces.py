"""A piece of a trained network as ONNX and as a torch.export program, checked against PyTorch.

    write("network", part, Source(model, space, setting=(0.3,)), folder)

A network that is told its coefficients is exported with these as its last input, `coefficients`,
(B, K), a row per example, or (1, K) where a method has one setting per batch; what answers for one
setting is a plain model without that input. Which pieces of a model are exported is the task's
(`Showing.parts`). What is written is checked (`bench/live/check.py`) before it counts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.live.check import (
    NotExported,
    Plan,
    Source,
    compare,
    onnx_runner,
    pt2_runner,
    refuse,
    stacked,
)
from bench.showing import Part

NEEDED = ("onnx", "onnxscript", "onnxruntime")
COEFFICIENTS = "coefficients"


class Untraceable(NotExported):
    """torch.export cannot follow what a network does with its inputs."""


def require() -> None:
    """ValueError, with the way out, where what writes and runs ONNX is not installed."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise ValueError(f"export needs {', '.join(absent)}: pip install -e '.[export]'")


class Conditioned(nn.Module):
    """A piece of a conditioned network, with the coefficients as its last input. It holds no more
    than the piece and the conditioner, so that no file has the whole network in it."""

    def __init__(self, piece: nn.Module, source: Source) -> None:
        super().__init__()
        self.piece, self.conditioner = piece, source.conditioner
        self._following = source.following

    def forward(self, *inputs: Tensor) -> Any:
        with self._following(inputs[-1]):
            return self.piece(*inputs[:-1])


# Writing ------------------------------------------------------------------------------------------


@dataclass
class Written:
    """An exported piece: its files, and what is known of them, as config.json has it."""

    stem: str
    files: list[Path]
    about: dict[str, Any]
    errors: dict[str, float]  # the largest of each output, over all files
    shares: dict[str, float]  # the same, of the output's largest value
    seconds: float


def write(stem: str, part: Part, source: Source, folder: Path, *, programs: bool = True) -> Written:
    """`stem`.onnx and, with `programs`, `stem`.pt2 in `folder`, checked. Raises Untraceable, and
    NotExported where what a file gives is not what PyTorch gives; then neither is left."""
    began = time.monotonic()
    files = [folder / f"{stem}.onnx", *([folder / f"{stem}.pt2"] if programs else [])]
    try:
        with quiet(), torch.no_grad():
            program, rows, batched = traced(part, source, files[0])
            shapes = rename_sizes(part, rows, files[0])
            runners = {files[0].name: onnx_runner(files[0])}
            for file in files[1:]:
                torch.export.save(program, file)
                runners[file.name] = pt2_runner(file)
            plan = Plan(part, source, rows, batched)
            found = {name: compare(runner, plan) for name, runner in runners.items()}
        refuse(found)
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        raise
    errors, shares = (
        {output: max(check[kind][output] for check in found.values()) for output in part.outputs}
        for kind in ("largest_absolute_error", "largest_relative_error")
    )
    about = {
        **shapes,
        "setting": source.setting,
        "multiples": dict(part.multiples),
        "line": part.line,
        "constants": {name: list(values) for name, values in part.constants.items()},
        "checks": found,
    }
    return Written(stem, files, about, errors, shares, time.monotonic() - began)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters log every step and warn of their own future."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(nowhere):
                yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def traced(part: Part, source: Source, path: Path) -> tuple[Any, bool, bool]:
    """Write the ONNX file of a piece and give its exported program; whether each example has
    coefficients of its own, and whether the batch may be of any size. Tried is what is of most use
    first."""
    ways = [(rows, True) for rows in ((True, False) if source.rows else (False,))]
    if source.conditioner is None:
        ways = [(False, True)]
    free = any("batch" in sizes.values() for sizes in part.free.values())
    ways = [*(ways if free else []), (False, False)]
    for rows, batched in ways:
        try:
            program = _traced(part, source, rows, batched)
            to_onnx(program, part, source, path)
            return program, rows, batched
        except Exception as error:  # the exporters have as many kinds as there are causes
            cause: BaseException = error
    while cause.__cause__ is not None:  # the first is the exact one
        cause = cause.__cause__
    reason = str(cause).strip().split("\n")[0][:300] or type(cause).__name__
    raise Untraceable(f"torch.export or ONNX cannot follow it ({reason})")


def _traced(part: Part, source: Source, rows: bool, batched: bool) -> Any:
    middle = source.settings[len(source.settings) // 2]
    example = part.examples(0)
    inputs = stacked([example] * (2 if batched else 1))
    sizes: dict[str, Any] = {}
    shapes: list[dict[int, Any]] = []
    for name in example:
        shape = {}
        for place, size in part.free.get(name, {}).items():
            if size == "batch" and not batched:
                continue
            multiple = part.multiples.get(size, 1)
            if size not in sizes:  # of what is neither, torch.export finds the least size
                dim = torch.export.Dim
                units = dim(f"{size}_units") if multiple > 1 else dim.AUTO
                sizes[size] = (
                    dim(size) if size == "batch" else units if multiple == 1 else multiple * units
                )
            shape[place] = sizes[size]
        shapes.append(shape)
    module: nn.Module = part.module
    if source.conditioner is not None:
        module = Conditioned(module, source).eval()
        inputs.append(torch.tensor([middle] * (2 if rows else 1)))
        shapes.append({0: sizes["batch"]} if rows else {})
    given = tuple(inputs)
    return torch.export.export(module, given, dynamic_shapes=_by_argument(module, shapes))


def _by_argument(module: nn.Module, shapes: list[dict[int, Any]]) -> Any:
    """`*inputs` is one argument of a function, whose shapes are a tuple in the tuple."""
    return (tuple(shapes),) if isinstance(module, Conditioned) else tuple(shapes)


def to_onnx(program: Any, part: Part, source: Source, path: Path) -> None:
    """One file with the weights in it."""
    names = [*part.examples(0), *([COEFFICIENTS] if source.conditioner else [])]
    made: Any = torch.onnx.export(
        program, input_names=names, output_names=list(part.outputs), dynamo=True, verbose=False
    )
    made.save(str(path), external_data=False)


def rename_sizes(part: Part, rows: bool, path: Path) -> dict[str, Any]:
    """Call the free sizes of a file's inputs by their names, in the file, and give the shapes of
    inputs and outputs as config.json has them: a number, or the name or expression of a size."""
    import onnx

    wanted = {**part.free, **({COEFFICIENTS: {0: "batch"}} if rows else {})}
    model = onnx.load(str(path))
    known: dict[str, str] = {}
    for value in model.graph.input:
        for place, name in wanted.get(value.name, {}).items():
            dimension = value.type.tensor_type.shape.dim[place]
            if dimension.dim_param:
                known[dimension.dim_param] = name
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = sized(dimension.dim_param, known)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))

    def shapes(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "type": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
                "shape": [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]

    return {
        "opset": max(entry.version for entry in model.opset_import if not entry.domain),
        "inputs": shapes(model.graph.input),
        "outputs": shapes(model.graph.output),
    }


SYMBOL = re.compile(r"(?:(\d+)\*)?(s\d+)")


def sized(expression: str, known: Mapping[str, str]) -> str:
    """A size in an exporter's symbols by the names of the inputs' sizes.

    >>> sized("4*s12", {"64*s12": "height"}), sized("16*s3", {"s3": "width"})
    ('height/16', '16*width')
    """
    units = {}
    for symbol, name in known.items():
        if parts := SYMBOL.fullmatch(symbol):
            units[parts[2]] = name, int(parts[1] or 1)

    def named(parts: re.Match[str]) -> str:
        if parts[2] not in units:
            return parts[0]
        (name, unit), count = units[parts[2]], int(parts[1] or 1)
        if count == unit:
            return name
        if unit % count == 0:
            return f"{name}/{unit // count}"
        return f"{count}*{name}" if unit == 1 else f"{count}*{name}/{unit}"

    return SYMBOL.sub(named, expression)


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", *NEEDED)}

"""What the JSON of a results folder must look like before any number in it is believed.

    if fault := misfit(content, ENTRY): raise ValueError(fault)     "display.axes[0].low is 'x'"

A folder may come from anybody, so types, ranges and lengths are those that tables and figures can
take. What is not named here is not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.files import printable

LONGEST = 4000  # characters of a text: a message, a command, a file's name
SIZE = 1e30  # no cost of a training is larger


@dataclass(frozen=True, kw_only=True)
class Fields:
    """An object: names and what they hold. Those of `needed` must be there, the others may be
    missing or null; `closed` allows no others."""

    needed: dict[str, Any]
    other: dict[str, Any]
    closed: bool = False


@dataclass(frozen=True)
class Each:
    """A list, or with `named` an object, whose elements are all alike."""

    shape: Any
    named: bool = False
    count: int | None = None
    empty: bool = True


Shape = Callable[[Any], bool] | Fields | Each


def text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST and "\0" not in value


def truth(value: Any) -> bool:
    return isinstance(value, bool)


def number(value: Any) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and -SIZE < value < SIZE  # refuses NaN too


def amount(value: Any) -> bool:
    return number(value) and value >= 0


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def one_of(*values: Any) -> Shape:
    return lambda value: isinstance(value, str) and value in values


def moment(value: Any) -> bool:
    return number(value) and 0 <= value < 1e11  # before the year 5000


def share(value: Any) -> bool:
    return number(value) and 0 < value <= 1


def digits(value: Any) -> bool:
    return whole(value) and 0 <= value <= 12


def margin(value: Any) -> bool:
    """As `bench.task.Measure` has it: a number, or per cent; "" for none."""
    try:
        return value == "" or (text(value) and 0 < float(value.removesuffix("%")) < math.inf)
    except ValueError:
        return False


PROVENANCE = Fields(
    needed={},
    other={
        **dict.fromkeys(("commit", "platform", "processor", "command", "time"), text),
        "packages": Each(text, named=True),
    },
)
MEASURE = Fields(
    needed={"label": text},
    other={
        "unit": text,
        "better": one_of("lower", "higher", ""),
        "digits": digits,
        "relative": truth,
        "margin": margin,
        "worst": number,
        "estimates": text,
    },
    closed=True,
)
AXIS = Fields(needed={"name": text, "low": amount, "high": amount, "symbol": text}, other={})
DISPLAY = Fields(
    needed={
        "measures": Each(MEASURE, named=True),
        "axes": Each(AXIS, empty=False),
        "fronts": Each(Each(text, count=2)),
    },
    other={"sample_line": text, "margin_share": share},
)
ENTRY = Fields(
    needed={
        **dict.fromkeys(("id", "task", "preset", "experiment", "method", "setting"), text),
        "seed": whole,
        "status": one_of("done", "diverged", "failed"),
        "time": moment,
        "cells": Each(text),
        "display": DISPLAY,
    },
    other={
        "kind": one_of("method", "swept", "length", "snapshot", "context"),
        "share": share,
        **dict.fromkeys(("method_id", "reason", "split", "sha256", "device", "device_name"), text),
        "answering_flops": amount,
        "tuning": Fields(
            needed=dict.fromkeys(("variants", "examples", "flops"), amount), other={"preset": text}
        ),
        "outside": Each(text),
        "provenance": PROVENANCE,
    },
)
LEDGER = Fields(
    needed={},
    other={
        **dict.fromkeys(("steps", "examples", "flops_per_step", "flops", "bytes"), amount),
        **dict.fromkeys(("parameters", "conditioner_parameters", "peak_memory_bytes"), amount),
        **dict.fromkeys(("net_memory_bytes", "reserved_memory_bytes"), amount),
        **dict.fromkeys(("seconds", "processor_seconds"), Each(amount, named=True)),
        **dict.fromkeys(("device", "device_name"), text),
        "shared_device": truth,
    },
)
CELL = Fields(
    needed={"id": text, "status": text, "trained_for": Each(Each(number))},
    other={
        **dict.fromkeys(("task", "preset", "method", "after", "reason"), text),
        "seed": whole,
        "ledger": LEDGER,
        "provenance": PROVENANCE,
    },
)


def misfit(content: Any, shape: Shape, where: str = "") -> str:
    """Where content does not have its shape, and what is there; "" where it has."""
    if isinstance(shape, Fields):
        return _misfit_of_fields(content, shape, where)
    if isinstance(shape, Each):
        if not isinstance(content, dict if shape.named else list):
            return _told(content, where)
        if (shape.count or len(content)) != len(content) or not (content or shape.empty):
            return _told(content, where)
        items = list(content.items() if isinstance(content, dict) else enumerate(content))
        if wrong := [name for name, _ in items if shape.named and not text(name)]:
            return _told(wrong[0], where)
        dot = ".{}" if shape.named else "[{}]"
        found = (misfit(value, shape.shape, where + dot.format(name)) for name, value in items)
        return next(filter(None, found), "")
    return "" if shape(content) else _told(content, where)


def _misfit_of_fields(content: Any, shape: Fields, where: str) -> str:
    if not isinstance(content, dict):
        return _told(content, where)
    before = f"{where}." if where else ""
    for name, inner in shape.needed.items():
        if name not in content:
            return f"it lacks {before}{name}"
        if fault := misfit(content[name], inner, before + name):
            return fault
    for name, inner in shape.other.items():
        value = content.get(name)
        if value is not None and (fault := misfit(value, inner, before + name)):
            return fault
    if shape.closed and (unknown := set(content) - {*shape.needed, *shape.other}):
        return f"{where} has an unknown {printable(min(unknown))[:80]}"
    return ""


def _told(content: Any, where: str) -> str:
    try:
        shown = json.dumps(content)
    except (ValueError, RecursionError):
        shown = type(content).__name__
    return f"its {printable(where)[:200]} is {shown[:80]}"

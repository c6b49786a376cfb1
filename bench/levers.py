"""Levers that were searched for, by task and method, and what finding them took.

`python -m benchmarks.search` tries the same number of variants of every method on validation
examples and writes the best into `levers.json`, which the presets for evidence take (`found`).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from bench.identity import plain
from bench.method import Method, Tuning

FILE = Path(__file__).with_name("levers.json")


@functools.cache
def _searched() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(FILE.read_text())
    return found


def found(task: str) -> dict[str, dict[str, Any]]:
    """By method the fields that did best on a task, for `Preset.methods`."""
    return {method: kept["fields"] for method, kept in _searched().get(task, {}).items()}


def changed(method: Method) -> dict[str, Any]:
    """The fields in which a method differs from its defaults."""
    usual = plain(type(method)())
    return {name: value for name, value in plain(method).items() if value != usual[name]}


def tuning(task: str, method: Method) -> Tuning | None:
    """What finding the fields that a method has took; None where they were not searched for.

    A search that set out from a class's own `Method.tuning` counts that, too."""
    before = method.tuning.get(task)
    kept = _searched().get(task, {}).get(method.name)
    if kept is None or changed(method) != kept["fields"]:
        return before
    costs = {key: value for key, value in kept.items() if key != "fields"}
    for name in ("variants", "examples", "flops") if before else ():
        costs[name] += getattr(before, name)
    return Tuning(**costs)

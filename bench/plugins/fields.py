"""Fields of tasks and methods changed from a command line, in brackets behind a name.

    bracketed("toy[dimension=8]")                                  ("toy", "dimension=8")
    changed(task, "width=32, training.steps=4000, training.milestones=0.5:0.8")

A dot leads into a field that is itself a dataclass, colons stand between the items of a tuple
(`name=` alone is an empty one), `none` is None, and quotes keep a comma: `train_data="a, b"`.
Values are read as the field's own type, and refused by the dataclass's own checks.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from bench.plugins.names import near

Plugin = TypeVar("Plugin")

TRUTH = {"true": True, "false": False}
NAMED = re.compile(r"(.+?\.py(?::\w+)?)(?=\[|$)", re.DOTALL)  # a plug-in's file, whose path may
FIELD = re.compile(  # hold brackets
    r"""[\s,]*([^\s=,]+)\s*=\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""", re.DOTALL
)


def bracketed(text: str) -> tuple[str, str]:
    """A name, or a plug-in's file, and what stands in brackets behind it, "" for nothing."""
    file = NAMED.match(text)
    name = file[1] if file else text.partition("[")[0]
    rest = text[len(name) :]
    if rest and not rest.endswith("]"):
        raise ValueError(f"{text!r} wants a closing bracket: {name}[field=value,...]")
    return name, rest[1:-1]


def changed(plugin: Plugin, text: str, what: str = "") -> tuple[Plugin, dict[str, Any]]:
    """`plugin`, a dataclass, with the fields of `name=value, ...` changed, and these by name.

    what: what it is called in messages. ValueError for a name it has not, which gives near ones,
    for a value of another type, and for what the dataclass itself refuses.
    """
    what = what or str(getattr(plugin, "name", type(plugin).__name__))
    hints = dict(_leaves(plugin))
    values: dict[str, Any] = {}
    text = text.strip(" ,\t\n")
    while text:
        part = FIELD.match(text)
        if part is None:
            raise ValueError(f"{text!r}: write {what}[field=value,...]")
        name, value = part[1], part[2]
        if name not in hints:
            if inside := [leaf for leaf in hints if leaf.startswith(f"{name}.")]:
                raise ValueError(f"{name} of {what} has fields of its own: {', '.join(inside)}")
            raise near(name, hints, f"field of {what}")
        if name in values:
            raise ValueError(f"{name} of {what} is given twice")
        quoted = value[:1] in ("'", '"') and len(value) > 1 and value[0] == value[-1]
        try:
            values[name] = _read(value[1:-1] if quoted else value, hints[name])
        except ValueError as error:
            reason = f": {error}" if str(error) else ""
            raise ValueError(
                f"'{name}={value}': {name} is {_called(hints[name])}{reason}"
            ) from None
        text = text[part.end() :].strip(" ,\t\n")
    try:
        return (_with(plugin, values) if values else plugin), values
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{what} cannot be made with {shown(values)}: {error}") from error


def differing(plugin: Any, other: Any) -> dict[str, Any]:
    """The fields of a dataclass, by dotted name, in which it is unlike another of its kind."""
    values, others = (
        {name: operator.attrgetter(name)(each) for name, _ in _leaves(each)}
        for each in (plugin, other)
    )
    return {name: v for name, v in values.items() if name not in others or others[name] != v}


def shown(values: dict[str, Any]) -> str:
    """Changed fields as a label says them: `width=32, training.milestones=0.5:0.8`."""
    return ", ".join(f"{name}={_written(value)}" for name, value in values.items())


def _written(value: Any) -> str:
    return ":".join(map(_written, value)) if isinstance(value, tuple) else str(value)


def _leaves(plugin: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass and of those in its fields, by dotted name, with their types."""
    hints = typing.get_type_hints(type(plugin))
    for field in (field for field in dataclasses.fields(plugin) if field.init):
        value = getattr(plugin, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _leaves(value, f"{before}{field.name}.")
        else:
            yield before + field.name, hints[field.name]


def _with(plugin: Any, values: dict[str, Any]) -> Any:
    """The dataclass with fields replaced, those of one inner dataclass together."""
    fields: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        before = getattr(plugin, first)
        if rest:
            inner.setdefault(first, {})[rest] = value
        elif before != value or isinstance(before, bool) != isinstance(value, bool):
            fields[name] = value  # 1 and 1.0 are one number and would be two ids
    fields |= {first: _with(getattr(plugin, first), parts) for first, parts in inner.items()}
    return dataclasses.replace(plugin, **fields)


def _read(text: str, hint: Any) -> Any:
    """A value of a type from its text; ValueError, with nothing or the reason, where it is none."""
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return _first(text, parts)
    if kind is typing.Literal:
        choices = {str(choice): choice for choice in parts}
        if text not in choices:
            raise ValueError
        return choices[text]
    if kind is tuple:
        items = text.split(":") if text else []
        kinds = [parts[0]] * len(items) if parts[-1] is Ellipsis else list(parts)
        if len(kinds) != len(items):
            raise ValueError(f"it has {len(kinds)} items, not {len(items)}")
        return tuple(_read(item.strip(), part) for item, part in zip(items, kinds, strict=True))
    if kind is bool:
        if text.lower() not in TRUTH:
            raise ValueError("write true or false")
        return TRUTH[text.lower()]
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            raise ValueError from None
        if not math.isfinite(number):
            raise ValueError("write a finite number")
        return number
    if kind is str:
        return text
    raise ValueError("such a field is set in the task's file, not on a command line")


def _first(text: str, kinds: tuple[Any, ...]) -> Any:
    """The value of the first of several types that takes the text."""
    if type(None) in kinds and text in ("none", "None"):
        return None
    *kinds, last = (kind for kind in kinds if kind is not type(None))  # type: ignore[assignment]
    for kind in kinds:
        try:
            return _read(text, kind)
        except ValueError:
            continue
    return _read(text, last)


def _called(hint: Any) -> str:
    """A field's type in an error, and how it is written where that is not plain."""
    if typing.get_origin(hint) is tuple:
        return f"of type {hint}, written with colons, as in 0.5:0.8"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return f"of type {hint.__name__ if isinstance(hint, type) else hint}"

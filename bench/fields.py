"""Fields of tasks and methods changed from a command line, in brackets behind a name.

    bracketed("toy[dimension=8]")                                  ("toy", "dimension=8")
    changed(task, "width=32, training.steps=4000, training.milestones=0.5:0.8")

A dot leads into a field that is itself a dataclass, colons stand between the items of a tuple
(`name=` alone is an empty one), `none` is None, and quotes keep a comma: `train_data="a, b"`.
Values are read as the field's own type, and refused by the dataclass's own checks.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

Plugin = TypeVar("Plugin")

TRUTH = {"true": True, "false": False}
NAMED = re.compile(r"(.+?\.py(?::\w+)?)(?=\[|$)", re.DOTALL)  # a plug-in's file, whose path may
FIELD = re.compile(  # hold brackets
    r"""[\s,]*([^\s=,]+)\s*=\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""", re.DOTALL
)


class UnknownName(ValueError):
    """A name that is not known; the message gives near ones, or all."""


def near(name: str, known: Iterable[str], what: str) -> UnknownName:
    """The error for a misspelt name. Of dotted names the last part alone may be near, too."""
    known = list(known)
    last = [each for each in known if "." in each and each.rpartition(".")[2] == name]
    close = last or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not close:
        ends = {each.rpartition(".")[2]: each for each in known}
        close = [ends[end] for end in difflib.get_close_matches(name, ends, n=3, cutoff=0.7)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return UnknownName(f"no {what} is called {name!r}: {hint}")


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
    if not text.strip(" ,\t\n"):
        return plugin, {}
    what = what or str(getattr(plugin, "name", type(plugin).__name__))
    hints = dict(_leaves(plugin))
    values: dict[str, Any] = {}
    place = 0
    while text[place:].strip(" ,\t\n"):
        part = FIELD.match(text, place)
        if part is None:
            raise ValueError(f"{text[place:].strip()!r}: write {what}[field=value,...]")
        name, value = part[1], part[2]
        if name not in hints:
            if any(leaf.startswith(f"{name}.") for leaf in hints):
                inside = ", ".join(leaf for leaf in hints if leaf.startswith(f"{name}."))
                raise ValueError(f"{name} of {what} has fields of its own: {inside}")
            raise near(name, hints, f"field of {what}")
        if name in values:
            raise ValueError(f"{name} of {what} is given twice")
        quoted = value[:1] in ("'", '"') and len(value) > 1 and value[0] == value[-1]
        try:
            values[name] = _read(value[1:-1] if quoted else value, hints[name])
        except ValueError as error:
            said = f": {error}" if str(error) else ""
            raise ValueError(f"'{name}={value}': {name} is {_called(hints[name])}{said}") from None
        place = part.end()
    try:
        return _with(plugin, values), values
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{what} cannot be made with {shown(values)}: {error}") from error


def shown(values: dict[str, Any]) -> str:
    """Changed fields as a label says them: `width=32, training.milestones=0.5:0.8`."""
    return ", ".join(f"{name}={_written(value)}" for name, value in values.items())


def _written(value: Any) -> str:
    return ":".join(map(_written, value)) if isinstance(value, tuple) else str(value)


def _leaves(plugin: Any, before: str = "") -> Iterable[tuple[str, Any]]:
    """The fields of a dataclass and of those in its fields, by dotted name, with their types."""
    hints = typing.get_type_hints(type(plugin))
    for field in dataclasses.fields(plugin):
        value = getattr(plugin, field.name)
        if not field.init:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _leaves(value, f"{before}{field.name}.")
        else:
            yield before + field.name, hints[field.name]


def _with(plugin: Any, values: dict[str, Any]) -> Any:
    """The dataclass with fields replaced, those of one inner dataclass together."""
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(first, {})[rest] = value
        else:
            own[name] = _as_before(getattr(plugin, name), value)
    for first, parts in inner.items():
        own[first] = _with(getattr(plugin, first), parts)
    return dataclasses.replace(plugin, **own)


def _as_before(before: Any, value: Any) -> Any:
    """`before` where the value is equal: 1 and 1.0 are one number and would be two ids."""
    same = before == value and isinstance(before, bool) == isinstance(value, bool)
    return before if same else value


def _read(text: str, hint: Any) -> Any:
    """A value of a type from its text; ValueError, with nothing or the reason, where it is none."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in parts and text in ("none", "None"):
            return None
        for part in parts:
            if part is not type(None):
                try:
                    return _read(text, part)
                except ValueError as error:
                    reason = error
        raise reason
    if origin is typing.Literal:
        for choice in parts:
            if str(choice) == text:
                return choice
        raise ValueError("")
    if origin is tuple:
        items = text.split(":") if text else []
        kinds = [parts[0]] * len(items) if parts[-1] is Ellipsis else list(parts)
        if len(kinds) != len(items):
            raise ValueError(f"it has {len(kinds)} items, not {len(items)}")
        return tuple(_read(item.strip(), kind) for item, kind in zip(items, kinds, strict=True))
    return _simple(text, hint)


def _simple(text: str, hint: Any) -> Any:
    if hint is bool:
        if text.lower() not in TRUTH:
            raise ValueError("write true or false")
        return TRUTH[text.lower()]
    if hint in (int, float):
        try:
            number = hint(text)
        except ValueError:
            raise ValueError("") from None
        if not math.isfinite(number):
            raise ValueError("write a finite number")
        return number
    if hint is str:
        return text
    raise ValueError("such a field is set in the task's file, not on a command line")


def _called(hint: Any) -> str:
    """A field's type in an error, and how it is written where that is not plain."""
    name = str(getattr(hint, "__name__", hint) if isinstance(hint, type) else hint)
    if typing.get_origin(hint) is tuple:
        return f"of type {hint}, written with colons, as in 0.5:0.8"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return f"of type {name}"

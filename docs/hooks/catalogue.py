"""A hook of MkDocs: lists made from the code whenever the site is built, and never kept.

A page has `<!-- from the code: NAME -->` where the list NAME of `LISTS` belongs.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from docstrings import as_markdown, meanings

from bench import HOMES
from bench.cli import COMMANDS, MORE, locations
from bench.conditioners import ENCODINGS, SCALES
from bench.method import WEIGHTINGS, Levers
from bench.registry import (
    DEFAULT_METHODS,
    DEFAULT_TASKS,
    METHODS,
    TASKS,
    method,
    preset,
    task_class,
)
from bench.report.sections import SECTIONS
from bench.space import LAWS
from bench.task import Training
from bench.yoto import KINDS

MARK = re.compile(r"<!-- from the code: ([a-z ]+) -->")
LINK = re.compile(r"\]\((?=\w)")
(ANSWER,) = Path(__file__).resolve().parents[2].glob("results/reference/trained-*/answer.md")
USUAL = "quick"  # the preset whose fields are shown


def on_page_markdown(markdown: str, **_: Any) -> str:
    return MARK.sub(lambda match: "\n".join(LISTS[match[1]]()), markdown)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield ""
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)
    yield ""


def _row(cells: Iterable[object]) -> str:
    written = (" ".join(str(cell).split()).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(written)} |"


def code(value: object) -> str:
    return f"`{value}`" if str(value) else ""


# Commands -----------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    for name, (line, _, options) in COMMANDS.items():
        yield f"## {name}\n"
        yield f"{line[:1].upper()}{line[1:]}.\n"
        places = [_written(option) for option in options if not option[0].startswith("-")]
        yield f"    {' '.join(['python run_bench.py', name, *places])}\n"
        yield from table(("", "what it is", "if left out"), map(_option, options))
        if name in MORE:
            yield f"{MORE[name][:1].upper()}{MORE[name][1:].rstrip('.')}.\n"


def _written(option: tuple[str, str, dict[str, Any]]) -> str:
    name, _, how = option
    shown = str(how.get("metavar") or name.upper())
    return {"*": f"[{shown} ...]", "+": f"{shown} ...", "?": f"[{shown}]"}.get(
        str(how.get("nargs")), shown
    )


def _option(option: tuple[str, str, dict[str, Any]]) -> tuple[str, str, str]:
    flag, text, how = option
    takes = "" if not flag.startswith("-") or "action" in how else str(how.get("metavar") or "")
    if how.get("choices"):
        takes = "{" + ",".join(map(str, how["choices"])) + "}"
    elif flag.startswith("-") and "action" not in how and not takes:
        takes = flag.strip("-").upper()
    default = how.get("default")
    known = default not in (None, argparse.SUPPRESS, math.inf) and "action" not in how
    return code(f"{flag} {takes}".strip()), text.replace("%%", "%"), code(default) if known else ""


# Fields -------------------------------------------------------------------------------------------


def said_of(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those it comes from say of its fields."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    found = {
        field.name: field.metadata["line"]
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.metadata.get("line")
    }
    for each in kind.__mro__:
        text = vars(each).get("__doc__") or ""
        if text.startswith(f"{each.__name__}("):  # a dataclass's own, of its signature
            continue
        for several, what in meanings(inspect.cleandoc(text), names)[1].items():
            for name in several.split(", "):
                if not what.lower().startswith("see "):
                    found.setdefault(name, _spelt_out(what, each))
    return found


def _spelt_out(text: str, kind: type) -> str:
    """The values in place of the name of a constant in `one of NAMES`."""

    def values(match: re.Match[str]) -> str:
        constant = getattr(importlib.import_module(kind.__module__), match[1], None)
        return f"one of {', '.join(map(code, constant))}" if constant else match[0]

    return re.sub(r"one of ([A-Z_]+)\b", values, text)


def about(kind: type) -> str:
    """What a dataclass's own docstring says before it comes to the fields."""
    text = vars(kind).get("__doc__") or ""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if text.startswith(f"{kind.__name__}("):  # a dataclass's own, of its signature
        return ""
    return meanings(inspect.cleandoc(text), names)[0]


def fields_of(plugin: Any, without: Iterable[str] = ()) -> Iterator[str]:
    """A table of a dataclass's fields with the values that this one has."""
    said, left_out = said_of(type(plugin)), set(without)
    shown = [field for field in dataclasses.fields(plugin) if field.name not in left_out]
    if shown:
        rows = (
            (code(f.name), code(_value(getattr(plugin, f.name))), said.get(f.name, ""))
            for f in shown
        )
        yield from table(("field", "value", "what it is"), rows)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ":".join(map(str, value)) if isinstance(value, tuple) else str(value)


# Methods ------------------------------------------------------------------------------------------


def _quick() -> dict[str, Any]:
    return {name: preset(task_class(name), USUAL).task for name in TASKS}


def methods() -> Iterator[str]:
    """A row a method, then a section each."""
    tasks = _quick()
    applies = {
        name: [where for where, task in tasks.items() if not method(name).refuses(task)]
        for name in METHODS
    }
    rows = []
    for name in METHODS:
        where = applies[name]
        words = "all" if len(where) == len(TASKS) else ", ".join(where)
        star = "yes" if name in DEFAULT_METHODS else ""
        rows.append((f"[`{name}`](#{name})", method(name).line, words, star))
    yield from table(("name", "what it is", "tasks", "without `--methods`"), rows)
    for name in METHODS:
        each = method(name)
        yield f"## `{name}` {{#{name}}}\n"
        module = importlib.import_module(type(each).__module__)
        yield as_markdown(inspect.getdoc(module) or "", ()) + "\n"
        role = f" Its role in a comparison: {each.role}." if each.role else ""
        yield f"In tables: {each.written()}.{role}\n"
        yield from _fields_of_method(each)


def _fields_of_method(each: Any) -> Iterator[str]:
    """Those of a variant of another method that differ; of any other its own."""
    parents = {type(method(name)): name for name in METHODS}
    parent = next((kind for kind in type(each).__mro__[1:] if kind in parents), Levers)
    same = [
        field.name
        for field in dataclasses.fields(parent)
        if getattr(each, field.name, None) == field.default
    ]
    inherited = [name for name in same if hasattr(each, name)]
    yield from fields_of(each, inherited)
    if parent in parents:
        yield f"All other fields are those of [`{parents[parent]}`](#{parents[parent]}).\n"
    elif inherited:
        yield f"It also has {', '.join(map(code, inherited))}: see [levers](levers.md).\n"


def levers() -> Iterator[str]:
    said = said_of(Levers)
    rows = (
        (code(field.name), code(_value(field.default)), said[field.name])
        for field in dataclasses.fields(Levers)
    )
    yield from table(("lever", "default", "what it does"), rows)


def levers_of_yoto() -> Iterator[str]:
    inherited = {field.name for field in dataclasses.fields(Levers)}
    yield from fields_of(method("yoto"), inherited)
    kinds = {"encoding": ENCODINGS, "law": LAWS, "weighting": WEIGHTINGS, "kind": KINDS}
    kinds["scale"] = tuple(SCALES)
    rows = ((code(name), ", ".join(map(code, values))) for name, values in kinds.items())
    yield from table(("lever", "its values"), rows)


# Tasks --------------------------------------------------------------------------------------------


def tasks() -> Iterator[str]:
    every = _quick()
    rows = ((f"[`{name}`](#{name})", task.line) for name, task in every.items())
    yield from table(("name", "what it is"), rows)
    first: dict[str, str] = {}  # of each module, which says what its tasks have in common
    for name, task in every.items():
        yield f"## `{name}` {{#{name}}}\n"
        module = importlib.import_module(type(task).__module__)
        if first.setdefault(module.__name__, name) == name:
            yield as_markdown(inspect.getdoc(module) or "", ()) + "\n"
        else:
            other = first[module.__name__]
            yield f"The task and its loss are those of [`{other}`](#{other}).\n"
        yield about(type(task)) + "\n"
        if name in DEFAULT_TASKS:
            yield "Part of a run that names no task.\n"
        yield from _coefficients(task)
        yield from _measures(task)
        sizes = (
            (code(size), each.settings, len(each.seeds), each.line)
            for size, each in task.presets().items()
        )
        yield "Presets; times on a GPU are guesses, not measurements:"
        yield from table(("preset", "settings", "seeds", "meant for"), sizes)
        if flags := [(code(flag), how["help"]) for flag, how in locations([name]).items()]:
            yield "Flags of its own; in brackets what is taken without:"
            yield from table(("flag", "what it is"), flags)
        yield f"Fields, with the values of `{USUAL}`:"
        yield from fields_of(task, ["training", *task.locations(), *task.options()])
        yield f"`training` at `{USUAL}`: {_training(task.training)}.\n"


def _coefficients(task: Any) -> Iterator[str]:
    axes = []
    for axis in task.space.axes:
        symbol = f" ({axis.symbol})" if axis.symbol else ""
        axes.append(f"`{axis.name}`{symbol} from {axis.low:g} to {axis.high:g}")
    yield f"Loss terms: {', '.join(map(code, task.terms))}. Coefficients: {', '.join(axes)}.\n"


def _measures(task: Any) -> Iterator[str]:
    rows = (
        (code(name), each.label, each.unit, each.better, each.margin)
        for name, each in task.measures.items()
    )
    yield "Measures; a difference within the margin counts as none:"
    yield from table(("measure", "in tables", "unit", "better", "margin"), rows)


def _training(training: Training) -> str:
    return ", ".join(
        f"`{field.name}={_value(value)}`"
        for field in dataclasses.fields(training)
        if (value := getattr(training, field.name)) != field.default
    )


def training() -> Iterator[str]:
    said = said_of(Training)
    rows = (
        (
            code(f"training.{field.name}"),
            "" if field.default is dataclasses.MISSING else code(_value(field.default)),
            said.get(field.name, ""),
        )
        for field in dataclasses.fields(Training)
    )
    yield from table(("field", "default", "what it is"), rows)


# The answer ---------------------------------------------------------------------------------------


def answer() -> Iterator[str]:
    """The committed table of the evidence, its links from here."""
    yield LINK.sub(rf"](results/reference/{ANSWER.parent.name}/", ANSWER.read_text("utf-8"))


# Tables of a report -------------------------------------------------------------------------------


def tables_of_a_report() -> Iterator[str]:
    for section in SECTIONS:
        yield f"### {section.title}\n"
        yield section.words + "\n"


# Public names -------------------------------------------------------------------------------------


THEMES = {  # the modules of the public names, in the order a reader needs them
    "Results and trained networks": (
        *("bench.comparison", "bench.report.load", "bench.live.networks"),
    ),
    "A task": (
        *("bench.task", "bench.measure", "bench.space", "bench.showing"),
        "bench.tasks.photographs",
    ),
    "Data, and measures of pictures": ("bench.pictures", "bench.files"),
    "A method": ("bench.method", "bench.fixed_grid", "bench.yoto", "bench.registry", "bench.run"),
    "What lets a model follow coefficients": (
        *("bench.conditioners", "bench.modulation", "bench.weights", "bench.balance"),
        "bench.cost",
    ),
    "Identity": ("bench.identity", "bench.plugins"),
}


def public_names() -> Iterator[str]:
    """A directive of mkdocstrings for each name, by theme; of constants a line."""
    left = dict(HOMES)
    for theme, modules in THEMES.items():
        names = [name for name, home in left.items() if home.startswith(modules)]
        yield f"## {theme}\n"
        if theme.startswith("Results"):
            yield _directive("bench.load_results")
        yield from _names({name: left.pop(name) for name in names})
    if left:
        yield "## More\n"
        yield from _names(left)


def _names(homes: dict[str, str]) -> Iterator[str]:
    constants = []
    for name, home in homes.items():
        value = getattr(importlib.import_module(home), name)
        if inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__"):
            yield _directive(f"{home}.{name}")
        else:
            constants.append(f"- `{name}` = `{value!r}`")
    yield "\n".join(constants) + "\n"


def _directive(name: str) -> str:
    return f"::: {name}\n"


LISTS: dict[str, Callable[[], Iterator[str]]] = {
    "answer": answer,
    "commands": commands,
    "methods": methods,
    "levers": levers,
    "levers of yoto": levers_of_yoto,
    "tasks": tasks,
    "training": training,
    "public names": public_names,
    "tables of a report": tables_of_a_report,
}

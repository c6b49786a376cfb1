"""`list`: the tasks with their presets, and the methods, as text or as JSON."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from typing import Any

import bench
from bench.files import printable, printable_lines
from bench.registry import DEFAULT_METHODS, DEFAULT_TASKS, EXAMPLE, method, offered, task_class

FIELDS = (
    f'any field of a task can be changed, as in "{EXAMPLE}[width=32,training.steps=4000,'
    'training.milestones=0.5:0.8]": colons between the items of a tuple, quotes around commas'
)
TIMES = "times are estimates; `status` says how long what is left takes here"
KEYS = (
    "--json prints one object. `version`: of the suite. `tasks` and `methods`: lists. Every entry "
    "has `name`, `package` (name and version of the installed package it is from, null for "
    "the suite), `default` (whether a run that names none has it) and `error` (why it cannot be "
    "used, null where it can; an entry with an error has nothing more). A task has `title`, "
    "`line`, "
    "`presets` (each `name`, `line`, `settings`, `seeds`, `steps`, `batch`), `coefficients` (each "
    "`name`, `symbol`, `low`, `high`), `measures` (each name with its `label` and `unit`), `flags` "
    "(of `run`, for its data and options) and `fields` (each with its value in the preset quick, "
    "or the first). A method has `line`, `role`, `tuned`, `fields` (with their defaults) and "
    "`tasks` (those that it applies to, in the same preset)"
)


def catalogue() -> dict[str, Any]:
    """What `list --json` prints; see `KEYS`. Everything is imported, that of installed packages
    too."""
    examples: dict[str, Any] = {}  # a task each, by its name, that methods are asked about
    return {
        "version": bench.__version__,
        "tasks": _entries("task", DEFAULT_TASKS, _task, examples),
        "methods": _entries("method", DEFAULT_METHODS, _method, examples),
    }


def _entries(
    what: str,
    usual: tuple[str, ...],
    facts: Callable[[str, dict[str, Any]], dict[str, Any]],
    examples: dict[str, Any],
) -> list[dict[str, Any]]:
    entries, offers = [], offered(what)
    counts = Counter(offer.name for offer in offers)
    for offer in offers:
        name = offer.name if counts[offer.name] == 1 else offer.whole_name
        entry: dict[str, Any] = {"name": name, "package": offer.origin or None}
        entry |= {"default": not offer.origin and offer.name in usual, "error": None}
        try:
            entry |= facts(name, examples)
        except Exception as error:  # of an installed package, which may be anybody's
            if not offer.origin:
                raise
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            entry["error"] = f"{kind}{error}"
        entries.append(entry)
    return entries


def _task(name: str, examples: dict[str, Any]) -> dict[str, Any]:
    from bench.identity import plain

    kind: Any = task_class(name)
    presets = kind.presets()
    task = presets.get("quick", next(iter(presets.values()))).task
    known = {
        "title": kind.title,
        "line": kind.line,
        "presets": [
            {
                "name": size,
                "line": each.line,
                "settings": each.settings,
                "seeds": list(each.seeds),
                "steps": each.task.training.steps,
                "batch": each.task.training.batch,
            }
            for size, each in presets.items()
        ],
        "coefficients": [
            {"name": axis.name, "symbol": axis.symbol, "low": axis.low, "high": axis.high}
            for axis in task.space.axes
        ],
        "measures": {
            key: {"label": each.label, "unit": each.unit} for key, each in task.measures.items()
        },
        "flags": [
            "--" + field.replace("_", "-") for field in {**task.locations(), **task.options()}
        ],
        "fields": plain(task),
    }
    examples[name] = task
    return known


def _method(name: str, examples: dict[str, Any]) -> dict[str, Any]:
    from bench.identity import plain

    each = method(name)
    return {
        "line": each.line,
        "role": each.role,
        "tuned": each.tuned,
        "fields": plain(each),
        "tasks": [label for label, task in examples.items() if _applies(each, task)],
    }


def _applies(each: Any, task: Any) -> bool:
    try:
        return not each.refuses(task)
    except Exception:  # one of the two may be anybody's
        return False


def _name(entry: dict[str, Any]) -> str:
    return printable(entry["name"]) + (
        f" [{printable(entry['package'])}]" if entry["package"] else ""
    )


def _line(entry: dict[str, Any]) -> str:
    reason = entry["error"]
    return printable_lines(reason if reason else entry["line"])


def listing(options: Namespace) -> int:
    """Print it."""
    known = catalogue()
    if options.json:
        print(json.dumps(known, indent=2, ensure_ascii=False))
        return 0
    for task in known["tasks"]:
        print(f"{_name(task)}: {printable(task.get('title') or _line(task))}")
        if "title" in task:
            print(f"    {_line(task)}")
        for size in task.get("presets", []):
            seeds = f"{len(size['seeds'])} seed{'s' * (len(size['seeds']) > 1)}"
            counts = f"{size['settings']} settings, {seeds}"
            print(f"    {size['name']:14} {counts:22} {size['line']}")
    print(f"\n{TIMES}\n{FIELDS}")
    print("\nmethods (*: in a run that names none)")
    for each in known["methods"]:
        print(f"  {'*' if each['default'] else ' '} {_name(each):17} {_line(each)}")
    print("\nwhich applies to which task, at its quick preset")
    whole = [[each for each in known[kind] if not each["error"]] for kind in ("tasks", "methods")]
    tasks, methods = ([printable(each["name"]) for each in kind] for kind in whole)
    print(f"    {'':17} {'  '.join(tasks)}")
    for label, each in zip(methods, whole[1], strict=True):
        marks = [
            ("yes" if task["name"] in each["tasks"] else "-").center(len(name))
            for name, task in zip(tasks, whole[0], strict=True)
        ]
        print(f"    {label:17} {'  '.join(marks)}".rstrip())
    return 0

"""What plug-ins may call themselves, their terms and measures, and the error for a misspelt name.

    refuse_names(task, preset, methods)      ValueError says which name, why, and a better one
    raise near("yotto", METHODS, "method")   UnknownName: did you mean yoto?

Names become folders and columns, so they are looked at when an experiment is planned, before
anything is trained under one that no report can use.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

WHOLE = "(all)"  # the `example` of a measure of the whole test set
LONGEST = 64  # characters; a folder's name holds two such and a word
MOST_BYTES = 120  # of UTF-8, of which a folder's name may have 255
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
# Behind a preset's name: the fields that a command line changed, and the factors of a study.
CHANGED = re.compile(r"\[.*(=|\dx width|range \d|\d coefficient).*\]$")
IN_FOLDERS = "_-."
IN_COLUMNS = "_-. ()+#%*&@!~^'"  # what settings, lists and paths do not need for themselves


class UnknownName(ValueError):
    """A name that is not known; the message gives near ones, or all."""


def near(name: str, known: Iterable[str], what: str) -> UnknownName:
    """The error for a misspelt name. Of dotted names the last part alone may be near, too."""
    known = list(known)
    close = [each for each in known if each.endswith(f".{name}")]
    close = close or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not close:
        ends = {each.rpartition(".")[2]: each for each in known}
        close = [ends[end] for end in difflib.get_close_matches(name, ends, n=3, cutoff=0.7)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return UnknownName(f"no {what} is called {name!r}: {hint}")


def refuse_names(task: Any, preset: str, methods: dict[str, Any]) -> None:
    """Raise ValueError where a name of a task, its parts or a method (by label) will not do."""
    _refuse("the task is", task.name, IN_FOLDERS, "its class attribute `name`")
    what = f"of the task {task.name!r}"
    key = CHANGED.sub("", preset) if isinstance(preset, str) else preset
    _refuse(f"a preset {what} is", key, IN_FOLDERS, "the key in `presets`")
    for label, method in methods.items():
        _refuse("the method is", method.name, IN_FOLDERS, "its class attribute `name`")
        if not label.isprintable():
            raise ValueError(f"the method {label!r} has control characters in its fields")
    if isinstance(task.terms, str) or not task.terms:
        raise ValueError(f'`terms` {what} must be a tuple of names, as ("rate", "distortion")')
    for kind, names in (("term", task.terms), ("measure", task.measures)):
        seen: set[str] = set()
        for name in names:
            _refuse(f"a {kind} {what} is", name, IN_COLUMNS, f"it in `{kind}s`")
            if name in ("loss", WHOLE):
                raise ValueError(f"the task {task.name!r} may not call a {kind} {name!r}")
            if (spelling := unicodedata.normalize("NFKC", name)) in seen:
                raise ValueError(f"`{kind}s` {what} has {name!r} twice, or in two spellings")
            seen.add(spelling)
    for name in task.space.names:
        if name not in task.terms:
            hint = str(near(str(name), task.terms, "term")).partition(": ")[2]
            raise ValueError(
                f"an axis {what} is called {name!r}, and there is no such loss term to multiply: "
                f"{hint}"
            )
    for name in (name for pair in task.fronts for name in pair):
        if name not in (*task.measures, "loss"):
            raise ValueError(f"`fronts` {what}: {near(name, task.measures, 'measure')}")


def _refuse(what: str, name: Any, further: str, where: str) -> None:
    if reason := unfit(name, further):
        better = suggestion(str(name))
        raise ValueError(f"{what} called {name!r}, {reason}: change {where}, as to {better!r}")


def unfit(name: Any, further: str = IN_FOLDERS) -> str:
    """Why a name is no name of a folder or column, as a clause; "" where it is one. Letters of any
    script, digits and the characters `further` are allowed."""
    if not isinstance(name, str):
        return f"a {type(name).__name__}, not text"
    if not name:
        return "which is empty"
    if len(name) > LONGEST or len(name.encode(errors="replace")) > MOST_BYTES:
        return f"which is longer than {LONGEST} characters or {MOST_BYTES} bytes"
    if RESERVED.fullmatch(name):
        return "which Windows keeps for a device"
    odd = [char for char in name if not (_is_letter(char) or char in further)]
    if odd:
        return f"with the character {odd[0]!r}, which has a meaning in paths or settings"
    if not (name[0] == "_" or _is_letter(name[0])):
        return f"which begins with {name[0]!r}"
    return f"which ends with {name[-1]!r}" if name[-1] in ". " else ""


def suggestion(name: str) -> str:
    """A name like this one that will do."""
    kept = "".join(char if _is_letter(char) or char in "_-" else "-" for char in name)
    short = re.sub("-+", "-", kept).strip("-")[: LONGEST // 2]
    return short if short and not unfit(short) else f"my_{short}"[:LONGEST] if short else "my_task"


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"  # letters, their marks, and digits

"""Completion in the shell: commands, options, tasks, presets and methods, by argcomplete.

    pip install 'yoto-bench[completion]'
    eval "$(register-python-argcomplete yoto-bench)"       in bash or zsh, as in ~/.bashrc

The shell then asks this program at every TAB, in a process of its own, so nothing heavy is
imported: names of installed plug-ins come from their packages' metadata.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import Any

from bench.registry import offered

# Of the suite's tasks together (a test looks them up); those of one task would take its import.
PRESETS = (
    *("smoke", "quick", "small-cpu", "small", "trained", "paper", "paper-2x", "paper-4x"),
    *("paper-wide", "narrow", "four-paintings"),
)
WORDS = {"task": "task", "tasks": "task", "method": "method", "methods": "method"}


def asked() -> bool:
    """Whether a shell started this process to complete a line."""
    return "_ARGCOMPLETE" in os.environ


def answer(parser: argparse.ArgumentParser) -> None:
    """Tell the shell how its line may go on, and end the process; nothing without argcomplete."""
    try:
        import argcomplete
    except ImportError:
        return
    from argcomplete.completers import DirectoriesCompleter, FilesCompleter, SuppressCompleter

    places = {"DIR": DirectoriesCompleter(), "FILE": FilesCompleter()}
    for action in _actions(parser):
        completer = _completer(action.dest) or places.get(str(action.metavar))
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]
    nothing = SuppressCompleter()
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=nothing)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    actions = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions += [each for sub in action.choices.values() for each in _actions(sub)]
    return actions


def _completer(dest: str) -> Callable[..., list[str]] | None:
    """What completes an option of this name."""
    if dest == "preset":
        return lambda **_: list(PRESETS)
    if dest not in WORDS:
        return None
    what, listed = WORDS[dest], dest == "methods"

    def names(prefix: str, **_: Any) -> list[str]:
        before = re.match(r"(.*,)?", prefix)[0] if listed else ""  # type: ignore[index]
        known = [*dict.fromkeys(offer.name for offer in offered(what)), *["all"] * listed]
        return [before + name for name in known]

    return names

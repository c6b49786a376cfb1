"""The words of a command that goes on with a run, where and as it was running."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from argparse import Namespace
from pathlib import Path

CONTINUED = ("device", "on", "address", "per_device", "limit", "decide", "most", "budget", "log")


def changed(options: Namespace, *names: str) -> list[str]:
    """Those of the options that are not as usual."""
    return [name for name in names if vars(options)[name] != vars(options.usual)[name]]


def program() -> list[str]:
    """The words before a command, as they work in any folder."""
    usual = shutil.which("python")
    same = usual and os.path.dirname(usual) == os.path.dirname(sys.executable)
    python = "python" if same else sys.executable
    script = Path(__file__).resolve().parent.parent / "run_bench.py"
    return [python, str(script)] if script.is_file() else [python, "-m", "run_bench"]


def continuation(options: Namespace, config: Path) -> str:
    """The command that continues a run where and as it was running."""
    words = [*program(), "run", "--config", str(config.absolute())]
    return shlex.join([*words, *flags(options, *CONTINUED)])


def flags(options: Namespace, *names: str) -> list[str]:
    """Where things lie, and the options of these names that are not as usual, as words."""
    words = ["--out", os.path.abspath(options.out)]
    words += ["--cache", os.path.abspath(options.cache)] if options.cache else []
    for name in changed(options, *names):
        value = vars(options)[name]
        words += ["--" + name.replace("_", "-"), *([] if value is True else [str(value)])]
    return words

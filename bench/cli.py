"""The command line: which commands there are, what they take, and how a process begins and ends.
What each does is in `bench/commands.py`.

python run_bench.py                       the default run, and its report
python run_bench.py run toy --preset smoke
python run_bench.py list

Nothing heavy is imported before it is known to be needed, so `--help` is instant.
"""

from __future__ import annotations

import argparse
import codecs
import difflib
import io
import math
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench import commands, completion, listing
from bench.files import drawing_to_files, expanded, printable_lines
from bench.listing import FIELDS
from bench.live import command as live
from bench.registry import DEFAULT_TASKS, EXAMPLE, offered

DESCRIPTION = """\
One loss-conditional network (YOTO) against one network per loss coefficient: quality at matching
coefficients, and the compute each side cost. Without a command: `run`, the quick preset."""

BROKEN_PIPE = 141  # what a shell says of a program whose reader went away
HELP = ("-h", "--help")


def place(path: str) -> str:
    """A path of a command line, with `~` written out: a shell leaves it in `--out=~/results`."""
    try:
        return expanded(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# The commands -------------------------------------------------------------------------------------

Option = tuple[str, str, dict[str, Any]]  # its name, its line of help, and what argparse is told
DIR: dict[str, Any] = {"type": place, "metavar": "DIR"}
FILE: dict[str, Any] = {"type": place, "metavar": "FILE"}
MANY: dict[str, Any] = {"nargs": "*"}
MAY: dict[str, Any] = {"nargs": "?"}
YES: dict[str, Any] = {"action": "store_true"}


def one_of(*names: str, usual: str | None = None) -> dict[str, Any]:
    return {"choices": names, "default": usual}


CACHE: Option = ("--cache", "folder for downloaded weights and pictures", DIR)
DEVICE: Option = ("--device", "auto (default), cpu, cuda, cuda:N", {"default": "auto"})
OUT: Option = ("--out", "results folder (results)", {"default": "results", **DIR})
FOLDER: Option = ("folder", "results folder (results)", {"default": "results", **MAY, **DIR})
FOLDERS: Option = ("folders", "results folders, read as one (results)", MANY | DIR)
PRESET: Option = (
    "--preset",
    "the size: smoke (seconds, for tests), quick (default), small-cpu, small, paper and, of some "
    "tasks, others as `trained`: `list` has them all",
    {"default": "quick"},
)
AUTO = (
    "cells at once on a device, in a pool or on Ray; auto (default): as many as its free memory "
    "holds of the largest cell of the task and a quarter more, at most one a core; where the size "
    "of a cell is not known, the first runs alone to be measured"
)
LENGTHS = (
    "train the reference and the networks under test for these shares of the steps, too, each with "
    "its whole schedule (the preset's choice)"
)
DECIDE = (
    "add one seed after another, of --seeds first, until the verdict on each network told its "
    "coefficients is decided; the level of 5 %% is spent over the looks"
)
WIDTHS = "a study: the whole comparison at each of these factors of the model's width"
RANGES = "a study: with each of these ranges of the coefficients, the high end over the low end"
COUNTS = "a study: with each of these numbers of coefficients"
ON = (
    "where cells run: one after another here, in a pool of processes, or on a Ray cluster; auto "
    "(default): a pool where there are several cores"
)
LOG = "write the loss and terms of every training to DIR/tensorboard, too (needs the extra)"
METHODS = (
    "names or files; A[field=value,...] changes a field; all: every one that applies to the task "
    "(the default: those marked * in `list`, which cost little beside the grid)"
)
RUN: tuple[Option, ...] = (
    ("tasks", "names, or your own file.py; TASK[...] changes fields", MANY | {"metavar": "TASK"}),
    PRESET,
    ("--methods", METHODS, {"metavar": "A,B"}),
    ("--settings", "points on the grid", {"type": int, "metavar": "N"}),
    (
        "--design",
        "how settings are laid out (the task's own choice)",
        one_of("grid", "one-at-a-time", "random"),
    ),
    ("--seeds", "comma-separated seeds", {"metavar": "0,1,2"}),
    ("--lengths", LENGTHS, {"metavar": "0.25,0.5,1"}),
    ("--decide", DECIDE, YES),
    ("--most", "with --decide: seeds at most (20)", {"type": int, "metavar": "N"}),
    ("--budget", "with --decide: time at most, as in 90s, 30m or 2h (none)", {"metavar": "TIME"}),
    ("--widths", WIDTHS, {"metavar": "1,2,4"}),
    ("--ranges", RANGES, {"metavar": "4,16,64"}),
    ("--coefficients", COUNTS, {"metavar": "1,2,4"}),
    DEVICE,
    ("--on", ON, one_of("auto", "here", "pool", "ray", usual="auto")),
    ("--address", "the Ray cluster ($RAY_ADDRESS, or one started here)", {"metavar": "HOST:PORT"}),
    ("--limit", "of a network (none)", {"type": float, "default": math.inf, "metavar": "SECONDS"}),
    ("--per-device", AUTO, {"default": "auto", "metavar": "N"}),
    OUT,
    (
        "--split",
        "what is measured on: choose by validation, report test (default)",
        one_of("test", "validation", usual="test"),
    ),
    ("--log", LOG, one_of("tensorboard")),
    ("--config", "replay a stored run or cell", FILE),
    ("--dry", "only print the commands of missing cells", YES),
    ("--again", "delete what this run made; do it again", YES),
    CACHE,
)
REPORT: tuple[Option, ...] = (
    FOLDERS,
    ("--out", "where to write (DIR/report, of the first)", DIR),
    ("--tables", "print all tables, too, and not the answers alone", YES),
    ("--explain", "print what is behind TASK-PRESET/METHOD/SETTING", {"metavar": "ROW"}),
    CACHE,
)
TIME: tuple[Option, ...] = (
    ("task", "a name or file", {"default": EXAMPLE, "metavar": "TASK", **MAY}),
    PRESET,
    ("--steps", "steps per round (30)", {"type": int, "default": 30}),
    ("--rounds", "alternations (5)", {"type": int, "default": 5}),
    DEVICE,
    CACHE,
)
LIST: tuple[Option, ...] = (("--json", "as JSON, for programs; the keys are below", YES), CACHE)
MERGE: tuple[Option, ...] = (("folders", "results folders", {"nargs": "+", **DIR}), OUT, CACHE)
NEW: tuple[Option, ...] = (("file", "such as mytask.py", FILE),)
FETCH: tuple[Option, ...] = (("names", "artefacts (all)", MANY | {"metavar": "NAME"}), CACHE)
DEMO: tuple[Option, ...] = (
    ("folder", "a results folder (results, and the networks that ship)", MAY | DIR),
    ("task", "one task alone, by name, or by your own file.py, which is then run", MAY),
    ("--seed", "of the networks (the first that is finished)", {"type": int, "metavar": "N"}),
    (
        "--side",
        "longer side of the largest picture answered for whole (768)",
        {"type": int, "default": 768, "metavar": "PIXELS"},
    ),
    ("--host", "address to serve on (this machine alone)", {"default": "127.0.0.1"}),
    ("--static", "write the page for a host without a server, and end", {"dest": "static", **DIR}),
    ("--port", "port (any that is free)", {"type": int, "default": 0}),
    (
        "--no-browser",
        "print the address and open nothing",
        {"action": "store_false", "dest": "open"},
    ),
    DEVICE,
    CACHE,
)
CELL: tuple[Option, ...] = (("id", "the beginning of a cell's id", {}), OUT, DEVICE, CACHE)
EXPORT: tuple[Option, ...] = (
    ("task", "a name or file", {"metavar": "TASK"}),
    ("method", "as tables call it", {"metavar": "METHOD"}),
    ("--from", "results folder (results, then the shipped zoo)", {"dest": "source", **DIR}),
    ("--at", "a setting: folded there, too; numbers or name=value;...", {"metavar": "0.018"}),
    ("--preset", "its size (the only plain one)", {"metavar": "NAME"}),
    ("--seed", "its seed (the first)", {"type": int, "metavar": "N"}),
    ("--out", "where to write (export/TASK-METHOD)", DIR),
    CACHE,
)


COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], tuple[Option, ...]]] = {
    "run": ("train what is missing, measure, and write the report", commands.run, RUN),
    "report": ("rebuild tables and figures from the records", commands.report, REPORT),
    "list": ("tasks with their presets, and methods", listing.listing, LIST),
    "status": (
        "what is done, running, failed and missing, and how long it takes",
        commands.status,
        (FOLDER, CACHE),
    ),
    "merge": ("join the results folders of several machines", commands.merge, MERGE),
    "clean": (
        "delete checkpoints and torn files of finished networks",
        commands.clean,
        (FOLDER, CACHE),
    ),
    "time": ("the harness against a bare loop, conditioned against fixed", commands.timed, TIME),
    "export": (
        "take a trained network away: ONNX, torch.export and safetensors, checked",
        live.export,
        EXPORT,
    ),
    "new": ("write a new task file to start from", commands.new, NEW),
    "fetch": ("download weights and pictures beforehand", commands.fetch, FETCH),
    "demo": ("a page of sliders on what trained networks make of your picture", live.demo, DEMO),
    "cell": ("train one planned cell (see run --dry)", commands.cell, CELL),
}
LOCATED = (
    "Where data lies is told by flags of the tasks' own: name the tasks before --help to see them."
)
MORE = {  # below the options
    "run": f"{FIELDS}. {LOCATED}",
    "list": f"{listing.TIMES}; {FIELDS}. {listing.KEYS}.",
    "time": f"{FIELDS}. {LOCATED}",
}


WITH_TASKS = ("run", "time")

# Words to options ---------------------------------------------------------------------------------


def parser(flags: Mapping[str, dict[str, Any]] | None = None) -> argparse.ArgumentParser:
    """flags: those that the commands with tasks take besides, and what argparse is told of each."""
    top = argparse.ArgumentParser(
        prog="run_bench.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", help="print the version, and the commit of a checkout", **YES)
    subs = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, (line, act, options) in COMMANDS.items():
        sub = subs.add_parser(name, help=line, description=line, epilog=MORE.get(name))
        sub.set_defaults(act=act)
        for flag, text, how in options:
            sub.add_argument(flag, help=text, **how)
        if name in WITH_TASKS and flags:
            group = sub.add_argument_group("the data of these tasks")
            for flag, how in flags.items():
                group.add_argument(flag, **how)
    return top


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; those of a run with `locations`, by the names of the tasks'
    fields, and with the `usual` ones. ValueError for a flag that no task has."""
    if words[0] not in WITH_TASKS:
        return parser().parse_args(words)
    known = [*HELP, *(name for name, *_ in COMMANDS[words[0]][2])]
    flags = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
    unknown = [flag for flag in flags if not any(name.startswith(flag) for name in known)]
    asked = [word for word in words if word not in HELP]
    first = parser(dict.fromkeys(unknown, MAY)).parse_args(asked)
    tasks = first.tasks if words[0] == "run" else [first.task]
    located: dict[str, dict[str, Any]] = {}
    if unknown or (tasks and len(asked) < len(words)):
        theirs = locations(tasks or DEFAULT_TASKS)
        located = {flag: how for flag, how in theirs.items() if flag not in known}
    for flag in unknown:
        if not any(name.startswith(flag) for name in located):
            close = difflib.get_close_matches(flag, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            takes = ", ".join(located) or "no location"
            raise ValueError(f"{flag}: no task of this run takes one{hint}; they take {takes}")
    options = parser(located).parse_args(words)
    options.usual = parser().parse_args(words[:1])
    names = [flag.removeprefix("--").replace("-", "_") for flag in located]
    options.locations = {name: vars(options)[name] for name in names if vars(options)[name]}
    return options


def locations(tasks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The flags for what lies somewhere and for what goes with it, of tasks as they are named, and
    what argparse is told of each."""
    from dataclasses import fields

    from bench.plugins.fields import bracketed
    from bench.registry import task_class

    kinds: dict[str, dict[str, Any]] = {
        "location": {"type": place, "metavar": "PATH"},
        "option": {"metavar": "TEXT"},
    }
    return {
        "--" + field.name.replace("_", "-"): {"help": field.metadata.get("line", ""), **how}
        for task in tasks
        for field in fields(task_class(bracketed(task)[0]))
        for kind, how in kinds.items()
        if field.metadata.get(kind)
    }


# A process ----------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 something failed, 2 misuse, 130 stopped, 141
    where what reads the output went away, as `| head` does."""
    forgiving_streams()
    if completion.asked():
        completion.answer(parser())
    try:
        try:
            with drawing_to_files():  # by plug-ins and in workers, too
                return _main(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # here, and not while the interpreter ends
    except BrokenPipeError:
        left = [stream for stream in (sys.stdout, sys.stderr) if _reader_left(stream)]
        for stream in left:  # what is still to be written goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not left:
            raise
        return BROKEN_PIPE
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # so rich ends a program
            return BROKEN_PIPE
        raise


def _main(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(commands.version())
        return 0
    if not words or (words[0].startswith("-") and words[0] not in HELP):
        words = ["run", *words]
    if words[0] not in (*COMMANDS, *HELP):
        return _fail(_near_command(words[0]))
    cache = os.environ.get("YOTO_BENCH_CACHE")
    try:
        options = parsed(words)
        if getattr(options, "cache", None):
            os.environ["YOTO_BENCH_CACHE"] = options.cache
        _plain_warnings()
        return int(options.act(options))
    except KeyboardInterrupt:
        print("stopped; give the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("YOTO_BENCH_TRACE"):
            raise
        return _fail(str(error))
    finally:  # the process may go on, as a notebook or a test does
        if cache is None:
            os.environ.pop("YOTO_BENCH_CACHE", None)
        else:
            os.environ["YOTO_BENCH_CACHE"] = cache


def _fail(message: str) -> int:
    print(f"run_bench.py: {printable_lines(message)}", file=sys.stderr)
    return 2


def _near_command(word: str) -> str:
    close = difflib.get_close_matches(word, COMMANDS, n=2)
    named = word.partition("[")[0] in {offer.name for offer in offered("task")}
    if named or word.endswith(".py") or ".py[" in word:
        return f"to run a task write: run_bench.py run {word}"
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(COMMANDS)}"
    return f"no command is called {word!r}: {hint}"


def forgiving_streams() -> None:
    """Let characters that the terminal's encoding does not have be replaced, not be errors; the
    bytes of a path, which were no text of that encoding, go out as they came in."""

    def forgive(error: UnicodeError) -> tuple[bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        codes = map(ord, error.object[error.start : error.end])
        return bytes(c & 255 if 0xDC80 <= c <= 0xDCFF else ord("?") for c in codes), error.end

    codecs.register_error("forgiving", forgive)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="forgiving")


def _reader_left(stream: Any) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file
        return False


def _plain_warnings() -> None:
    """Our own warnings as one line each; libraries' deprecation notes are not for users."""
    warnings.formatwarning = (  # type: ignore[assignment]
        lambda message, *_, **__: f"note: {printable_lines(message)}\n"
    )
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)

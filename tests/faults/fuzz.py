"""Feeds damaged and hostile content to everything that reads files.

    python -m tests.faults.fuzz --seconds 60            every reader, so long altogether
    python -m tests.faults.fuzz --only record,state     some of them
    python -m tests.faults.fuzz --plain                 without atheris, though it is installed

A reader may give a value or one of our own errors with a message. Anything else (a KeyError, a
RecursionError, ten seconds without an answer, a crash) is a finding: it is printed, and the content
kept. Where atheris is installed, it leads the search by the lines of `bench` that are reached;
elsewhere seeded random changes of sound files are tried. Either way JSON is also changed as JSON,
and hashes are made to fit, since few damaged bytes get past a parser or a hash. Each reader runs in
a process of its own, so that a crash is noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import os
import pickle
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LED = __name__ == "__main__" and "--plain" not in sys.argv and find_spec("atheris") is not None
if LED:
    import atheris

    instrumented = atheris.instrument_imports(include=["bench"])
else:
    instrumented = contextlib.nullcontext()

with instrumented:
    import torch

    from .readers import READERS, Reader, results

HANG = 10  # seconds
MEMORY = 8 * 2**30  # bytes, above which an allocation fails
OURS = (ValueError, RuntimeError, FileNotFoundError, pickle.UnpicklingError)


@dataclasses.dataclass(frozen=True)
class Finding:
    reader: str
    content: bytes
    trace: str


# ------------------------------------------------------------------ changes


def deep(levels: int) -> Any:
    found: Any = 0
    for _ in range(levels):
        found = [found]
    return found


NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, 1e308, -0.0),
    *(float("nan"), float("inf"), "", "x", "x" * 5000, "\ud800", "\0", "../../../tmp/x", "/etc"),
    *("=1+1", "<script>", "a=1;a=2", "distortion=nan", "[", "\u202e", "bench.cli:main", "a.py:b"),
    *([], [[]], {}, {"": {}}, [None], {"x": 1}, deep(40), list(range(50)), "run_bench:main"),
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in JSON."""
    yield path
    inside = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in inside:
        yield from places(value, (*path, key))


def changed_json(content: bytes, chance: random.Random) -> bytes:
    """A sound JSON text with one to three of its values replaced, removed, renamed or wrapped."""
    tree = copy.deepcopy(json.loads(content))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice(list(places(tree)))
        if not path:
            if chance.random() < 0.05:
                return json.dumps(chance.choice(NASTY)).encode()
            continue
        *above, last = path
        inside = tree
        for key in above:
            inside = inside[key]
        kind = chance.random()
        if kind < 0.15:
            del inside[last]
        elif kind < 0.25 and isinstance(inside, dict):
            inside[chance.choice(("x", "", "../x", "loss"))] = inside.pop(last)
        elif kind < 0.35:
            inside[last] = [inside[last]] if chance.random() < 0.5 else {"x": inside[last]}
        elif kind < 0.37:  # nested as deep as the parser allows, and deeper
            text = json.dumps(tree)
            levels = chance.choice((300, 900, 3000, 200_000))
            return text.replace(json.dumps(inside[last]), "[" * levels + "]" * levels, 1).encode()
        else:
            inside[last] = copy.deepcopy(chance.choice(NASTY))
    return json.dumps(tree).encode()


INTERESTING = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"../", b'"', b",")


def changed_bytes(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Flipped, cut, doubled, overwritten and spliced."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place, kind = chance.randrange(len(data) + 1), chance.randrange(7)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = chance.randrange(256)
        elif kind == 2:
            data[place:] = b"" if chance.random() < 0.3 else data[place + chance.randrange(1, 9) :]
        elif kind == 3:
            data[place:place] = data[place : place + chance.randrange(64)]
        elif kind == 4:
            word = chance.choice(INTERESTING)
            data[place : place + len(word)] = word
        elif kind == 5:
            other = chance.choice(others)
            data[place:] = other[chance.randrange(len(other) + 1) :]
        elif place + 4 <= len(data):
            number = chance.choice((0, 1, 255, 65536, 2**31 - 1, 2**32 - 1))
            data[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)
    return bytes(data)


def changed(reader: Reader, chance: random.Random) -> bytes:
    seeds = reader.seeds()
    content = chance.choice(seeds)
    if reader.is_json and chance.random() < 0.8:
        return changed_json(content, chance)
    return changed_bytes(content, chance, seeds)


# ------------------------------------------------------------------ trying


class Hang(BaseException):
    """No answer in time."""


def attempt(name: str, content: bytes) -> Finding | None:
    """Let one reader read one content."""

    def late(*_: object) -> None:
        raise Hang(f"no answer in {HANG} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANG)
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[name].read(content, Path(folder))
    except RecursionError:  # a RuntimeError, but none of ours
        return Finding(name, content, traceback.format_exc())
    except OURS as error:
        return None if str(error) else Finding(name, content, "an error without a message")
    except (Exception, Hang):
        return Finding(name, content, traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def plain(name: str, count: int | None, seconds: float, seed: int) -> tuple[int, list[Finding]]:
    """Seeded changes, `count` of them or for so many seconds; (how many, different findings)."""
    chance, found, tried = random.Random(f"{name} {seed}"), {}, 0
    for content in READERS[name].seeds():  # what is sound must be read: this raises what is wrong
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[name].read(content, Path(folder))
    until = time.monotonic() + seconds  # from here on: the first reading imports
    while time.monotonic() < until and (count is None or tried < count):
        finding, tried = attempt(name, changed(READERS[name], chance)), tried + 1
        if finding:
            found.setdefault(where(finding), finding)
    return tried, list(found.values())


def where(finding: Finding) -> str:
    """What makes two findings the same: the error, and the last lines that led to it."""
    lines = [line.strip() for line in finding.trace.splitlines() if line.startswith("  File")]
    return f"{finding.reader}: {finding.trace.splitlines()[-1][:40]} {lines[-1:]}"


def guided(name: str, seconds: float, seed: int, folder: Path) -> None:
    """Let atheris lead; does not come back. Its runs are counted on the standard error."""
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for place, content in enumerate(READERS[name].seeds()):
        (corpus / str(place)).write_bytes(content)
    known: set[str] = set()

    def one(data: bytes) -> None:
        chance = random.Random(data)
        for content in (data, changed(READERS[name], chance)):
            finding = attempt(name, content)
            if finding and where(finding) not in known:
                known.add(where(finding))
                report(finding, folder)

    options = [f"-max_total_time={max(1, int(seconds))}", f"-seed={seed + 1}", "-rss_limit_mb=8192"]
    options += ["-max_len=65536", f"-artifact_prefix={folder}/crash-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def report(finding: Finding, folder: Path) -> None:
    digest = hashlib.sha256(finding.content).hexdigest()[:12]
    path = folder / f"{finding.reader}-{digest}"
    path.write_bytes(finding.content)
    trace = finding.trace.splitlines()
    shown = "\n".join([*trace[:3], "  ...", *trace[-8:]] if len(trace) > 12 else trace)
    print(f"FINDING {finding.reader} {path}\n{shown}\n", flush=True)


def main() -> int:
    top = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    top.add_argument("--seconds", type=float, default=60.0, help="for all readers together")
    top.add_argument("--seed", type=int, default=0)
    top.add_argument("--only", default=",".join(READERS), help="readers, by commas")
    top.add_argument("--plain", action="store_true", help="without atheris")
    top.add_argument("--keep", type=Path, help="where contents that are findings are kept")
    options = top.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="findings-"))
    names = options.only.split(",")
    if unknown := set(names) - set(READERS):
        top.error(f"there is no reader {min(unknown)}: there are {', '.join(READERS)}")
    print(f"{'led by atheris' if LED else 'seeded random changes'}, findings in {folder}")
    torch.set_num_threads(1)
    results()
    tried = bad = 0
    for name in names:
        within = folder / name
        within.mkdir(parents=True, exist_ok=True)
        log = within / "log.txt"
        work = functools.partial(single, name, options.seconds / len(names), options.seed, within)
        crashed = apart(work, log, options.seconds / len(names) + 10 * HANG)
        said = log.read_text(errors="replace")
        count = 2 * sum(map(int, re.findall(r"Done (\d+) runs", said)))  # each once as it is
        count += sum(map(int, re.findall(r"^tried (\d+)", said, re.M)))
        findings = said.count("FINDING ")
        print(
            f"{name:14} {count:8} contents, {findings} findings{', CRASHED' * crashed}", flush=True
        )
        if findings or crashed:
            print(said[-4000:])
        tried, bad = tried + count, bad + findings + crashed
    print(f"{tried} contents, {bad} findings")
    return 1 if bad else 0


def apart(work: Callable[[], None], log: Path, limit: float) -> bool:
    """Do it in a process of its own, whose output goes to a file; whether it crashed, or did not
    end in `limit` seconds (a hang in C code hears no signal of Python's)."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        with open(log, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    until = time.monotonic() + limit
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.1)
    return ended[1] != 0


def single(name: str, seconds: float, seed: int, folder: Path) -> None:
    """What the process of one reader does."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if LED:
        guided(name, seconds, seed, folder)
    if (statm := Path("/proc/self/statm")).exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    tried, findings = plain(name, None, seconds, seed)
    for finding in findings:
        report(finding, folder)
    print(f"tried {tried}")


if __name__ == "__main__":
    sys.exit(main())

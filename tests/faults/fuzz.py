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
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
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
    import numpy as np
    import torch
    from PIL import Image

    from bench.files import SEAL, sealed
    from bench.pictures.data import Pictures
    from bench.pictures.downloads import arrays_only, member
    from bench.report.load import load_results
    from bench.run import folders, lease
    from bench.run.plan import experiment, experiment_from
    from bench.run.records import Record, dumps, loads
    from bench.run.runner import Run
    from bench.run.schema import CellConfig, RunConfig, read
    from bench.run.store import Store, cell_from
    from bench.train import MAGIC, STATE, load_state

HANG = 10  # seconds
MEMORY = 8 * 2**30  # bytes, above which an allocation fails
CPU = torch.device("cpu")
OURS = (ValueError, RuntimeError, FileNotFoundError, pickle.UnpicklingError)

Read = Callable[[bytes, Path], object]


@dataclasses.dataclass(frozen=True)
class Reader:
    """read: what is fuzzed, given content and an empty folder. seeds: sound contents."""

    read: Read
    seeds: Callable[[], list[bytes]]
    is_json: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    reader: str
    content: bytes
    trace: str


# ------------------------------------------------------------------ sound files


@functools.cache
def place() -> tempfile.TemporaryDirectory[str]:
    """Goes with this process."""
    return tempfile.TemporaryDirectory(prefix="fuzz-")


@functools.cache
def results() -> Path:
    """A small run's results folder."""
    root = Path(place().name) / "results"
    run = Run(root, [experiment("toy", "smoke", ["fixed_grid", "yoto"])], CPU)
    with contextlib.redirect_stdout(io.StringIO()):
        run.execute(run.train_jobs(), "training", lambda: False)
        run.execute(run.record_jobs(), "measuring", lambda: False)
    run.save_config()
    assert not run.failures
    return root


def files(pattern: str, count: int = 2) -> list[bytes]:
    return [path.read_bytes() for path in sorted(results().glob(pattern))[:count]]


def unsealed(pattern: str) -> list[bytes]:
    """Such files without their seal, so that what is changed in them is read."""
    objects = [json.loads(content) for content in files(pattern)]
    return [json.dumps({k: v for k, v in o.items() if k != SEAL}).encode() for o in objects]


def states() -> list[bytes]:
    tensors = {"a": torch.zeros(2, 3), "b": torch.arange(4)}
    state: dict[str, Any] = dict.fromkeys(STATE, 0) | {"network": tensors, "random": tensors}
    found = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=new)
        found.append(file.getvalue())
    return found


def archives(kind: str) -> list[bytes]:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a/b.txt", b"b" * 100)
            made.writestr("c", b"c")
    else:
        with tarfile.open(fileobj=file, mode=kind) as tar:
            for name in ("a/b.txt", "c"):
                entry = tarfile.TarInfo(name)
                entry.size = 100
                tar.addfile(entry, io.BytesIO(bytes(100)))
    return [file.getvalue()]


def pickles() -> list[bytes]:
    content = {"net": {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32([1, 2]), "text", 3]}}
    return [pickle.dumps(content, protocol=protocol) for protocol in (3, 4)]


def pictures() -> list[bytes]:
    found = []
    for kind in ("png", "jpeg", "tiff", "webp"):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            Image.linear_gradient("L").resize((9, 12)).convert(mode).save(file, kind, exif=exif)
            found.append(file.getvalue())
    return found


def rows() -> list[bytes]:
    names = ("plain", "=1+1", "'=x", 'a\r\n"b"', "日本, 語")
    made = [Record("t", "p", "e", "m", 0, "c", "s=1", name, "loss", 0.1) for name in names]
    return [*files("records/*/*/*.csv"), dumps(made).encode()]


# ------------------------------------------------------------------ readers


def read_records(content: bytes, folder: Path) -> None:
    found = loads(content.decode("utf-8", "replace"), "a file")
    again = loads(dumps(found), "a file")
    assert repr(again) == repr(found), "records do not come back as they were"


def read_cell(content: bytes, folder: Path) -> object:
    (folder / "config.json").write_bytes(content)
    return cell_from(read(folder / "config.json", CellConfig))


def read_run(content: bytes, folder: Path) -> object:
    (folder / "config.json").write_bytes(content)
    found = read(folder / "config.json", RunConfig)
    return [experiment_from(each) for each in found.experiments]


def look_after(name: str, content: bytes, folder: Path) -> None:
    """Everything that `status`, `clean` and `merge` read of a cell."""
    root = folder / "results"
    cell = root / "runs/toy/yoto/0123456789ab"
    cell.mkdir(parents=True)
    (cell / "config.json").write_bytes(files("runs/toy/yoto/*/config.json")[0])
    (cell / name).write_bytes(content)
    folders.status(root)
    folders.clean(root)
    folders.merge([root], folder / "out")
    assert {path.name for path in folder.iterdir()} <= {"results", "out"}


def read_lease(content: bytes, folder: Path) -> None:
    path = folder / "lease.json"
    path.write_bytes(content)
    holder = lease.read(path)
    assert holder is not None
    lease.alive(path, holder)


@functools.cache
def reported() -> Path:
    """A results folder of one method's records, in which one file at a time is exchanged."""
    root = Path(tempfile.mkdtemp(dir=place().name)) / "results"  # one for every forked process
    shutil.copytree(results() / "records/toy/yoto", root / "records/toy/yoto")
    for done in results().glob("runs/toy/yoto/*/done.json"):
        (root / done.relative_to(results())).parent.mkdir(parents=True)
        shutil.copyfile(done, root / done.relative_to(results()))
    return root


def report_on(content: bytes, folder: Path, name: str) -> None:
    """A results folder of which one file is this; a table is sealed with its hash again."""
    root = reported()
    table = min(root.glob("records/toy/yoto/*.csv"))
    head, done = table.with_suffix(".json"), min(root.glob("runs/toy/yoto/*/done.json"))
    before = {path: path.read_bytes() for path in (head, table, done)}
    try:
        {"head": head, "table": table, "done": done}[name].write_bytes(content)
        if name == "table":
            digest = {"sha256": hashlib.sha256(content).hexdigest()}
            head.write_text(sealed(json.loads(before[head]) | digest))
        for run in load_results(root).runs:
            assert run.folder
            assert "/" not in run.folder
            run.labels()
    finally:
        for path, whole in before.items():
            path.write_bytes(whole)


def read_state(content: bytes, folder: Path) -> object:
    path = folder / "state.pt"
    path.write_bytes(MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return load_state(path, CPU)


def read_weights(content: bytes, folder: Path) -> object:
    root = folder / "results"
    whole = next(results().glob("runs/toy/fixed_grid/*"))
    cell = root / whole.relative_to(results())
    shutil.copytree(whole, cell)
    (cell / "model.safetensors").write_bytes(content)
    done = json.loads((cell / "done.json").read_bytes())
    done["model_sha256"] = hashlib.sha256(content).hexdigest()
    (cell / "done.json").write_text(sealed(done))
    return Store(root).network(cell_from(read(cell / "config.json", CellConfig)))


def read_member(content: bytes, folder: Path) -> object:
    (folder / "archive").write_bytes(content)
    return member(folder / "archive", "a/b.txt")


def read_picture(content: bytes, folder: Path) -> None:
    (folder / "a.png").write_bytes(content)
    Pictures([folder / "a.png"]).to(CPU)


READERS: dict[str, Reader] = {
    "record": Reader(read_records, rows),
    "cell": Reader(read_cell, lambda: unsealed("runs/*/*/*/config.json"), True),
    "run": Reader(read_run, lambda: unsealed("configs/*.json"), True),
    "report-head": Reader(
        functools.partial(report_on, name="head"),
        lambda: unsealed("records/toy/yoto/*.json")[:1],  # that of the table which is there
        True,
    ),
    "report-table": Reader(
        functools.partial(report_on, name="table"), lambda: files("records/toy/yoto/*.csv", 1)
    ),
    "report-cell": Reader(
        functools.partial(report_on, name="done"),
        lambda: unsealed("runs/toy/yoto/*/done.json"),
        True,
    ),
    "status-config": Reader(
        functools.partial(look_after, "config.json"),
        lambda: unsealed("runs/*/*/*/config.json"),
        True,
    ),
    "status-done": Reader(
        functools.partial(look_after, "done.json"), lambda: unsealed("runs/*/*/*/done.json"), True
    ),
    "status-log": Reader(
        functools.partial(look_after, "log.jsonl"), lambda: files("runs/*/*/*/log.jsonl")
    ),
    "lease": Reader(
        read_lease,
        lambda: [json.dumps({**lease._self(), "token": "t", "beat": 3}).encode()],
        True,
    ),
    "state": Reader(read_state, states),
    "weights": Reader(read_weights, lambda: files("runs/*/fixed_grid/*/model.safetensors", 1)),
    "pickle": Reader(lambda content, folder: arrays_only(content), pickles),
    "tar": Reader(read_member, lambda: archives("w") + archives("w:gz")),
    "zip": Reader(read_member, lambda: archives("zip")),
    "picture": Reader(read_picture, pictures),
}


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

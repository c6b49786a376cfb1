"""Running the suite in a forked child with a fault inside, and comparing what it leaves.

A fork has everything imported already, so that a run lasts a second or two and hundreds can be
broken; it calls the same `bench.cli.main` as the command line does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TASK = f"{Path(__file__).with_name('faulty.py')}:Faulty"
METHODS = "fixed_grid,yoto,warm_grid"
WAYS_OUT = re.compile(
    r"free some space|--out|delete |run again|is kept as|put aside|give the same command again|"
    r"--per-device|--limit|to continue"
)
HUNG = 124  # the exit status of a child that never ended, as timeout(1) has it
Act = Callable[[str, Path], None]  # called before an operation, with what it is and on which file


@dataclass(kw_only=True)
class Ended:
    """A finished child: its exit status (negative for a signal), all it printed, and seconds."""

    code: int
    output: str
    seconds: float

    @property
    def clear(self) -> bool:
        """Whether it succeeded, or said what to do and showed no traceback."""
        if "Traceback (most recent call last)" in self.output:
            return False
        # What every run with a failure ends with says nothing of this one.
        said = self.output.replace("run again to try these once more", "")
        return self.code == 0 or bool(WAYS_OUT.search(said))


class Child:
    """A run of the suite in a process group of its own, started at once."""

    count = 0

    def __init__(
        self,
        *words: str,
        prepare: Callable[[], None] = lambda: None,
        report: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        Child.count += 1
        self.log = Path(os.environ["TMPDIR"]) / f"output-{Child.count}"
        self.began = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(words, prepare, report, environment or {})

    def _be(
        self,
        words: tuple[str, ...],
        prepare: Callable[[], None],
        report: bool,
        environment: dict[str, str],
    ) -> None:
        """The child's whole life. Checkpoints come every 10 ms, to be interrupted between them."""
        code = 70
        try:
            os.setsid()
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(output, stream)
            sys.stdout = os.fdopen(1, "w", buffering=1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            os.environ.update(environment)
            import bench.cli
            import bench.commands
            import bench.train

            bench.train.CHECKPOINT_SECONDS = 0.01
            if not report:
                bench.commands._report = lambda *_, **__: None
            prepare()
            code = bench.cli.main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)

    def send(self, sign: int) -> None:
        """A signal to the child and its workers, as a terminal or a batch system sends it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, sign)

    def wait(self, seconds: float = 600) -> Ended:
        """Until it ends; one that does not is killed, and has the status `HUNG`."""
        until, killed = time.monotonic() + seconds, False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until and not killed:
                self.send(signal.SIGKILL)
                killed = True
            time.sleep(0.005)
        took = time.monotonic() - self.began
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        code = HUNG if killed else os.waitstatus_to_exitcode(status)
        return Ended(code=code, output=text, seconds=took)


def command(root: Path, preset: str = "smoke", methods: str = METHODS) -> list[str]:
    words = ["run", TASK, "--preset", preset, "--methods", methods, "--on", "here"]
    return [*words, "--out", str(root)]


def run(root: Path, **options: Any) -> Ended:
    """The command, from start to end, with the faults of `options` (see `Child`)."""
    words = options.pop("words", None) or command(root)
    return Child(*words, **options).wait()


# Every step that changes the disk


def watch(root: Path, act: Act) -> None:
    """From now on call `act` before everything in this process that changes a file below `root`:
    open, append, fsync, rename, link, remove, mkdir. It may die, raise, or fill the disk."""
    busy = False

    def tell(what: str, path: Any) -> None:
        nonlocal busy
        if busy or not isinstance(path, str | os.PathLike):
            return
        path = Path(path)
        if not path.is_absolute() or not path.is_relative_to(root):
            return
        busy = True
        try:
            act(f"{what} {kind(path, root)}", path)
        finally:
            busy = False

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = details
            if flags & os.O_APPEND:
                tell("append", path)
            elif flags & (os.O_WRONLY | os.O_RDWR):
                tell("open", path)
        elif event in ("os.rename", "os.link"):
            tell(event.removeprefix("os."), details[1])
        elif event in ("os.remove", "os.mkdir"):
            tell(event.removeprefix("os."), details[0])

    before = os.fsync

    def fsync(descriptor: int) -> None:
        tell("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        before(descriptor)

    if Path("/proc/self/fd").exists():
        os.fsync = fsync
    sys.addaudithook(hook)


def kind(path: Path, root: Path) -> str:
    """What a file is for, whatever its hash and its process: "done.json", "record .csv"."""
    top = path.relative_to(root).parts[:1]
    name = re.sub(r"^\.(.+)\.[0-9a-f-]+\.tmp$", r"\1", path.name)
    if name.startswith("lease.json"):
        return "lease.json"
    if name.startswith(".write-"):
        return "probe"
    if top in (("records",), ("report",), ("configs",)):
        return f"{top[0]} {Path(name).suffix}".strip()
    return name if "." in name else "folder"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(root: Path, what: str, occurrence: int) -> Callable[[], None]:
    """Prepare a child that kills itself right before the n-th (from 0) operation `what`.

    "torn X" is a process killed in the middle of writing X: half of it is there.
    """
    torn = what.startswith("torn ")
    wanted = what.replace("torn log.jsonl", "append log.jsonl").replace("torn ", "fsync ")
    left = occurrence

    def act(now: str, path: Path) -> None:
        nonlocal left
        if now != wanted:
            return
        left -= 1
        if left >= 0:
            return
        if torn and wanted.startswith("append"):
            with open(path, "a") as log:
                log.write('{"step": 4, "lo')
        elif torn:
            os.truncate(path, path.stat().st_size // 2)
        die()

    return lambda: watch(root, act)


def operations(root: Path, **options: Any) -> list[str]:
    """Everything an undisturbed run does to the disk, in order."""
    path = Path(os.environ["TMPDIR"]) / "operations"

    def note(what: str, _: Path) -> None:
        with open(path, "a") as file:
            file.write(what + "\n")

    ended = run(root, prepare=lambda: watch(root, note), **options)
    assert ended.code == 0, ended.output
    found = path.read_text().splitlines()
    path.unlink()
    return found


# Comparing


@dataclass(kw_only=True)
class Count:
    """A row of the table. `said` explains every number but `tried`."""

    name: str
    tried: int = 0
    lost: int = 0
    double: int = 0
    wrong: int = 0
    unclear: int = 0
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.lost + self.double + self.wrong + self.unclear

    def blame(self, column: str, text: str) -> None:
        setattr(self, column, getattr(self, column) + 1)
        self.said.append(f"{column}: {text}")

    def expect_clear(self, ended: Ended, where: str) -> None:
        if not ended.clear:
            self.blame("unclear", f"{where}: exit status {ended.code}, {ended.output[-1500:]}")

    def compare(self, root: Path, reference: Path, where: str) -> None:
        """Count what differs between a results folder and the undisturbed one."""
        for column, text in differences(root, reference):
            self.blame(column, f"{where}: {text}")


# These are no results; `clean` frees them.
LITTER = re.compile(r"\.tmp$|\.damaged$|^lease\.json|\.lease|^state\.pt$")
UNTIMED = {"provenance", "time", "check"}  # what may differ between two runs that are the same
LEDGER = {"seconds", "processor_seconds", "peak_memory_bytes", "net_memory_bytes", "shared_device"}


def differences(root: Path, reference: Path) -> Iterator[tuple[str, str]]:
    ours, theirs = _results(root), _results(reference)
    for place in sorted(theirs.keys() - ours.keys()):
        yield "lost", place
    for place in sorted(ours.keys() - theirs.keys()):
        yield "double", place
    for place in sorted(ours.keys() & theirs.keys()):
        one, other = ours[place], theirs[place]
        if place.endswith("log.jsonl"):
            yield from _log_differences(place, one, other)
        elif _essence(one) != _essence(other):
            yield "wrong", place


def _results(root: Path) -> dict[str, Path]:
    found = [path for top in ("runs", "records") for path in (root / top).rglob("*")]
    return {
        str(path.relative_to(root)): path
        for path in found
        if path.is_file() and not LITTER.search(path.name)
    }


def _essence(path: Path) -> Any:
    """What must be the same: all bytes, but of JSON not when and how fast it was made."""
    if path.suffix != ".json":
        return path.read_bytes()
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return path.read_bytes()
    content = {key: value for key, value in content.items() if key not in UNTIMED}
    if isinstance(content.get("ledger"), dict):
        content["ledger"] = {k: v for k, v in content["ledger"].items() if k not in LEDGER}
    return content


def _log_differences(place: str, one: Path, other: Path) -> Iterator[tuple[str, str]]:
    lines = [_log_lines(path) for path in (one, other)]
    if lines[0] and "lost" in lines[0][0]:  # it was damaged, and says from where on it is whole
        since = lines[0].pop(0)["step"]
        lines[1] = [line for line in lines[1] if line["step"] > since]
    steps = [[line.get("step") for line in each] for each in lines]
    if len(set(steps[0])) < len(steps[0]):
        yield "double", f"{place}: lines"
    if set(steps[1]) - set(steps[0]):
        yield "lost", f"{place}: {len(set(steps[1]) - set(steps[0]))} lines"
    elif lines[0] != lines[1]:
        yield "wrong", place


def _log_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            line = {"step": None}
        lines.append({key: line[key] for key in line if key != "examples_per_second"})
    return lines

"""The fault classes of processes: killed, stopped, out of memory, hanging, several at once. Each
function breaks runs in one way and returns its `Count`; `disk.py` and `damage.py` have more."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rig import (
    Child,
    Count,
    Ended,
    command,
    die_at,
    operations,
    run,
)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where a campaign works, how long it may take, and the undisturbed runs it compares with."""

    work: Path
    chance: random.Random
    quick: bool
    whole: Path  # an undisturbed run of the preset smoke, with its report
    long: Path  # and one of the preset long

    def folder(self) -> Path:
        """A new place for results."""
        path = self.work / f"results-{self.chance.getrandbits(48):012x}"
        return path

    def some(self, things: list[Any], few: int) -> list[Any]:
        """All, or a random `few` in a quick campaign."""
        if not self.quick or len(things) <= few:
            return things
        return self.chance.sample(things, few)

    @contextlib.contextmanager
    def attempt(
        self, count: Count, where: str, *, root: Path | None = None, again: bool = True,
        long: bool = False, report: bool = False,
    ) -> Iterator[Path]:  # fmt: skip
        """A new place for a run with a fault; afterwards the same command is given again without
        it, and what lies there is compared with an undisturbed run."""
        root = root or self.folder()
        count.tried += 1
        yield root
        if again and (ended := run(root, report=report)).code != 0:
            count.blame("lost", f"{where}: {ended.output[-1500:]}")
        count.compare(root, self.long if long else self.whole, where)
        clear_away(root)


def undisturbed(root: Path, preset: str = "smoke", report: bool = False) -> Path:
    ended = run(root, words=command(root, preset), report=report)
    assert ended.code == 0, ended.output
    return root


def clear_away(*roots: Path) -> None:
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)


def import_everything(work: Path) -> None:
    """Do one run in this process, so that no child has to import anything again."""
    import bench.cli

    with open(work / "warm.txt", "w") as output, contextlib.redirect_stdout(output):
        assert bench.cli.main(command(work / "warm")) == 0
    clear_away(work / "warm")


# Killed


def kill_at_random_moments(lab: Lab) -> Count:
    """kill -9 at random times over whole runs, each restarted until done; with the report, but in
    a quick campaign."""
    count = Count(name="kill -9 at a random moment")
    report, root = not lab.quick, lab.folder()
    usual = run(root, words=command(root, "long"), report=report).seconds
    clear_away(root)
    wanted = 3 if lab.quick else 50
    while count.tried < wanted:
        root, kills, most = lab.folder(), 0, 8
        while True:
            child = Child(*command(root, "long"), report=report)
            if kills < most and count.tried < wanted:
                time.sleep(lab.chance.uniform(0, usual))
                child.send(signal.SIGKILL)
            ended = child.wait()
            if ended.code != -signal.SIGKILL:
                break
            kills += 1
            count.tried += 1
        if ended.code != 0:
            count.blame("lost", f"after {kills} kills: {ended.output[-1500:]}")
        count.compare(root, lab.long, f"after {kills} kills")
        if report and not (root / "report" / "index.html").exists():
            count.blame("lost", "the report")
        clear_away(root)
    return count


def kill_the_codec(lab: Lab) -> Count:
    """The codec's smoke preset, with photographs and real coding: undisturbed, and killed three
    times at random moments."""
    count = Count(name="kill -9, compression smoke")
    reference, root = lab.folder(), lab.folder()
    words = ["run", "compression", "--preset", "smoke", "--methods", "fixed_grid,yoto", "--out"]
    usual = run(reference, words=[*words, str(reference)])
    for _ in range(3):
        child = Child(*words, str(root))
        time.sleep(lab.chance.uniform(0.1, 0.6) * usual.seconds)
        child.send(signal.SIGKILL)
        count.tried += child.wait().code == -signal.SIGKILL
    ended = run(root, words=[*words, str(root)])
    if usual.code or ended.code:
        count.blame("lost", (usual.output + ended.output)[-1500:])
    count.compare(root, reference, f"after {count.tried} kills")
    clear_away(root, reference)
    return count


def kill_at_every_step(lab: Lab) -> Count:
    """kill -9 right before each kind of change to the disk, and in the middle of each write: the
    first time it happens and a random later time."""
    count = Count(name="kill -9 before each step of a write")
    seen = operations(root := lab.folder(), report=True)
    clear_away(root)
    torn = [f"torn {each.split(' ', 1)[1]}" for each in seen if each.startswith("fsync ")]
    every = [*seen, *torn, *(["torn log.jsonl"] * seen.count("append log.jsonl"))]
    for what in lab.some(sorted(set(every)), 5):
        times = every.count(what)
        occurrences = {times // 2} if lab.quick else {0, lab.chance.randrange(times)}
        for occurrence in sorted(occurrences):
            with lab.attempt(
                count, f"{what}, time {occurrence}", report=(report := " report" in what)
            ) as root:
                ended = run(root, prepare=die_at(root, what, occurrence), report=report)
                # It may come less often than in the first run.
                count.tried -= ended.code != -signal.SIGKILL
    return count


# Clocks, writers, memory, hangs, signals


def jumping_clock(lab: Lab) -> Count:
    """The clock jumps by up to a year, forwards and backwards, at every look at it, in two runs
    that take each other for another machine: ledgers stay sane and no lease expires early."""
    count = Count(name="clock that jumps, two machines")

    def prepare(number: int) -> Callable[[], None]:
        chance, true = random.Random(number), time.time

        def jump() -> None:
            from bench.run import lease

            lease._machine = lambda: f"machine {number}"
            time.time = lambda: true() + chance.uniform(-3e7, 3e7)

        return jump

    for _ in range(1 if lab.quick else 5):
        with lab.attempt(count, "clock", again=False) as root:
            began = time.monotonic()
            together(count, root, [prepare(lab.chance.getrandbits(20)) for _ in range(2)])
            passed = time.monotonic() - began
            for done in root.glob("runs/*/*/*/done.json"):
                seconds = json.loads(done.read_bytes())["ledger"]["seconds"]
                if not all(0 <= value <= passed for value in seconds.values()):
                    count.blame("wrong", f"{done}: {seconds}")
    return count


def writers(lab: Lab) -> Count:
    """Two and four runs at once on one folder, one of them killed meanwhile."""
    count = Count(name="several writers, one killed")
    for many in (2,) if lab.quick else (2, 2, 2, 4, 4, 4):
        with lab.attempt(count, f"{many} writers", again=False) as root:
            together(count, root, [lambda: None] * many, lab.chance.uniform(0.05, 1.0))
    return count


def together(
    count: Count, root: Path, prepared: list[Callable[[], None]], killed_after: float | None = None
) -> None:
    """Several runs at once, the first of them killed after so many seconds; the others succeed."""
    children = [Child(*command(root), prepare=prepare) for prepare in prepared]
    if killed_after is not None:
        time.sleep(killed_after)
        children[0].send(signal.SIGKILL)
    ends = [child.wait() for child in children]
    for ended in ends[killed_after is not None :]:
        if ended.code != 0:
            count.blame("lost", f"{len(ends)} at once: {ended.output[-1500:]}")


def out_of_memory(lab: Lab) -> Count:
    """Memory ends in one network: it is recorded with a way out, its batch is not changed, the
    others go on, and it is trained once there is memory."""
    count = Count(name="out of memory in one network")

    def narrow() -> None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, resource.RLIM_INFINITY))

    for fault in lab.some(["cuda memory", "memory", "real memory"], 1):
        limited = fault == "real memory" and Path("/proc/self/statm").exists()
        with lab.attempt(count, fault) as root:
            prepare = narrow if limited else lambda: None
            ended = run(root, environment={"FAULT": fault}, prepare=prepare)
            others_go_on(count, lab, root, ended, "out of memory", fault)
    return count


def others_go_on(count: Count, lab: Lab, root: Path, ended: Ended, reason: str, where: str) -> None:
    """One network failed with a reason; the others are done."""
    count.expect_clear(ended, where)
    if ended.code != 1 or reason not in ended.output:
        count.blame("unclear", f"{where}: exit status {ended.code}, {ended.output[-1500:]}")
    for method in ("fixed_grid", "warm_grid"):
        done, whole = (
            len(list(folder.glob(f"runs/faulty/{method}/*/done.json")))
            for folder in (root, lab.whole)
        )
        if done != whole:
            count.blame("lost", f"{where}: the others did not go on")
    if list(root.glob("runs/faulty/yoto/*/done.json")):
        count.blame("wrong", f"{where}: it counts as done")


def hanging_worker(lab: Lab) -> Count:
    """A network never comes to the end of a step: a pool kills it after `--limit`; here, Ctrl-C
    twice ends it, which is all that can be done from inside the process."""
    count = Count(name="hang")
    hangs = {"environment": {"FAULT": "hang"}}
    if not lab.quick:
        with lab.attempt(count, "pool") as root:
            pool = ("--on", "pool", "--per-device", "2", "--limit", "60")
            ended = Child(*command(root), *pool, **hangs).wait()
            others_go_on(count, lab, root, ended, "timeout: not done after 60 seconds", "pool")
    with lab.attempt(count, "here") as root:
        child = Child(*command(root), **hangs)
        ready(root, "runs/faulty/yoto/*/lease.json")
        child.send(signal.SIGINT)
        time.sleep(0.5)
        child.send(signal.SIGINT)
        ended = child.wait(20)
        if ended.code != 130:
            count.blame("unclear", f"here: exit status {ended.code}, {ended.output[-1500:]}")
        count.expect_clear(ended, "here")
    return count


def ready(root: Path, pattern: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not list(root.glob(pattern)) and time.monotonic() < until:
        time.sleep(0.005)


def diverging(lab: Lab) -> Count:
    """The loss becomes NaN: a result that is stored, measured as such and shown."""
    count = Count(name="non-finite loss", tried=1)
    root = lab.folder()
    ended = run(root, environment={"FAULT": "nan"}, report=True)
    count.expect_clear(ended, "run")
    (done,) = (json.loads(p.read_bytes()) for p in root.glob("runs/faulty/yoto/*/done.json"))
    shown = "diverged" in (root / "report/faulty-smoke/report.md").read_text()
    if ended.code != 0 or done["status"] != "diverged" or not shown:
        count.blame("wrong", f"{ended.code}, {done['status']}, in the report: {shown}")
    clear_away(root)
    return count


def signals(lab: Lab) -> Count:
    """SIGINT and SIGTERM once: the step is finished, the state saved, the command to continue
    printed, and that command continues. SIGINT twice: at once; SIGTERM twice: as once. Here, and
    in a pool."""
    count = Count(name="SIGINT, SIGTERM, once and twice")
    places = [()] if lab.quick else [(), ("--on", "pool", "--per-device", "2")]
    signs = (signal.SIGINT, signal.SIGTERM)
    for extra, sign, times in lab.some(list(itertools.product(places, signs, (1, 2))), 2):
        where = f"{sign.name} {times} times, {' '.join(extra) or 'here'}"
        with lab.attempt(count, where) as root:
            ended, took = interrupted(root, extra, sign, times)
            text = f"{where}: exit status {ended.code} after {took:.1f} s, {ended.output[-1500:]}"
            if ended.code != 130 or (times == 2 and took > 20):
                count.blame("unclear", text)
            line = next((x for x in ended.output.splitlines() if " run --config " in x), "")
            if times == 1 or sign == signal.SIGTERM:
                if not line:
                    count.blame("unclear", f"no command to continue: {text}")
                if not list(root.glob("runs/*/*/*/state.pt")):
                    count.blame("lost", f"{where}: the state")
            if line and (again := run(root, words=line.split()[2:])).code != 0:
                count.blame("lost", f"{where}: {again.output[-1500:]}")
    return count


def interrupted(
    root: Path, extra: tuple[str, ...], sign: signal.Signals, times: int
) -> tuple[Ended, float]:
    """A run that gets a signal so often, and seconds until it ended after the last."""
    child = Child(*command(root), *extra, environment={"PACE": "0.05"})
    ready(root, "runs/*/*/*/log.jsonl")
    for _ in range(times):
        child.send(sign)
        asked = time.monotonic()
        time.sleep(0.15)
    ended = child.wait(60)
    return ended, time.monotonic() - asked


LONG = (kill_the_codec,)  # not in a quick campaign
CLASSES: list[Callable[[Lab], Count]] = [
    *(kill_at_random_moments, kill_at_every_step, kill_the_codec),
    *(jumping_clock, writers, out_of_memory, hanging_worker, diverging, signals),
]

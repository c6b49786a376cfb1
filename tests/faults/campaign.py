"""The fault classes: each function breaks runs in one way and returns its `Count`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rig import (
    Act,
    Child,
    Count,
    Ended,
    command,
    die_at,
    differences,
    operations,
    run,
    watch,
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
    methods = ["--preset", "smoke", "--methods", "fixed_grid,yoto"]
    reference, root = lab.folder(), lab.folder()
    usual = run(reference, words=["run", "compression", *methods, "--out", str(reference)])
    if usual.code != 0:
        count.blame("lost", usual.output[-1500:])
        return count
    words = ["run", "compression", *methods, "--out", str(root)]
    for _ in range(3):
        child = Child(*words)
        time.sleep(lab.chance.uniform(0.1, 0.6) * usual.seconds)
        child.send(signal.SIGKILL)
        count.tried += child.wait().code == -signal.SIGKILL
    ended = run(root, words=words)
    if ended.code != 0:
        count.blame("lost", ended.output[-1500:])
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
        for occurrence in sorted(
            {0, lab.chance.randrange(times)} if not lab.quick else {times // 2}
        ):
            where = f"{what}, time {occurrence}"
            root, report = lab.folder(), " report" in what
            ended = run(root, prepare=die_at(root, what, occurrence), report=report)
            if ended.code != -signal.SIGKILL:  # it came less often than in the first run
                count.compare(root, lab.whole, f"{where}, not killed")
                clear_away(root)
                continue
            count.tried += 1
            again = run(root, report=report)
            if again.code != 0:
                count.blame("lost", f"{where}: {again.output[-1500:]}")
            count.compare(root, lab.whole, where)
            clear_away(root)
    return count


# The disk


def full_disk(lab: Lab) -> Count:
    """The disk is full from one write on: an error with a way out; when there is space again the
    same command completes the run."""
    count = Count(name="full disk")
    seen = operations(root := lab.folder(), report=True)
    clear_away(root)
    kinds = sorted(
        {each for each in seen if each.split()[0] in ("open", "append", "mkdir", "link")}
    )
    for what in lab.some(kinds, 4):
        times = seen.count(what)
        for occurrence in {0, times // 2} if not lab.quick else {times // 2}:
            count.tried += 1
            where = f"{what}, time {occurrence}"
            with small_disk(lab) as (disk, fill, free):
                root = disk / "results"

                def act(now: str, path: Path, what=what, left=[occurrence]) -> None:  # noqa: B006
                    left[0] -= now == what
                    if left[0] < 0:
                        fill()

                def prepare(root: Path = root, act: Act = act) -> None:
                    watch(root, act)

                report = " report" in what
                ended = run(root, prepare=prepare, report=report)
                count.expect_clear(ended, where)
                if ended.code == 0 and list(differences(root, lab.whole)):
                    count.blame("wrong", f"{where}: says that it is done")
                free()
                again = run(root, report=report)
                if again.code != 0:
                    count.blame("lost", f"{where}: {again.output[-1500:]}")
                count.compare(root, lab.whole, where)
    return count


def full_disk_and_a_failure(lab: Lab) -> Count:
    """A cell fails while failures.log cannot be written: the run says both and goes on."""
    count = Count(name="full disk while a failure is noted")
    root = lab.folder()

    def act(now: str, path: Path) -> None:
        if "failures.log" in now:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    ended = run(root, prepare=lambda: watch(root, act), environment={"FAULT": "memory"})
    count.tried += 1
    others_go_on(count, lab, root, ended, "out of memory", "failures.log")
    return count


@contextlib.contextmanager
def small_disk(lab: Lab) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """(folder, fill it, free it): a tmpfs where we may mount one; else `fill` raises ENOSPC."""
    disk = lab.folder()
    disk.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk))

    def fill() -> None:
        if not mounted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with contextlib.suppress(OSError), open(disk / "ballast", "ab", buffering=0) as ballast:
            while ballast.write(b"0" * 65536):
                pass

    def free() -> None:
        (disk / "ballast").unlink(missing_ok=True)

    try:
        yield disk, fill, free
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)
        clear_away(disk)


def mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True).returncode == 0
    except OSError:
        return False


def read_only_folder(lab: Lab) -> Count:
    """The results folder may be read and not written: half a run is in it, and stays as it is."""
    count = Count(name="read-only results folder")
    root = lab.folder()
    run(root, prepare=die_at(root, "rename done.json", 2))
    for done in root.glob("runs/*/*/*/done.json"):
        (done.parent / "state.pt").touch()  # something to clean
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    mounted = mount("--bind", str(root), str(root))
    bound = mounted and mount("-o", "remount,ro,bind", str(root))

    def refuse(now: str, path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    prepare = (lambda: None) if bound else (lambda: watch(root, refuse))
    tries = [command(root), ["report", str(root)], ["clean", str(root)]]
    tries += [["merge", str(lab.whole), "--out", str(root)]]
    try:
        for words in tries:
            ended = run(root, words=words, prepare=prepare, report=True)
            count.tried += 1
            count.expect_clear(ended, words[0])
            if ended.code == 0 and words[0] != "report":
                count.blame("wrong", f"{words[0]} says it did what it cannot have done")
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(root)], check=False)
    if before != {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}:
        count.blame("wrong", "files changed")
    run(root)
    count.compare(root, lab.whole, "afterwards")
    clear_away(root)
    return count


# Damaged files

FINISHED = (
    *("runs/*/*/*/done.json", "runs/*/*/*/config.json", "runs/*/*/*/log.jsonl"),
    *("runs/*/*/*/model.safetensors", "runs/*/*/*/model-*.safetensors"),
    *("records/*/*/*.csv", "records/*/*/*.json", "records/*/*/*.png", "configs/*.json"),
)


def damage(path: Path, how: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "cut":
        data = data[: chance.randrange(1, max(2, len(data)))]
    elif how == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "digit":  # the flip that is still a number
        places = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
        place = chance.choice(places or range(len(data)))
        data[place] = 0x30 + (data[place] - 0x30 + chance.randrange(1, 10)) % 10
    else:  # somebody else's
        data[:] = b"\x80\x04\x95garbage\xff\x00" * 3
    path.write_bytes(bytes(data))


HOWS = ("empty", "cut", "flip", "digit", "garbage")


def damaged_results(lab: Lab) -> Count:
    """A file of a finished run is damaged: `report` says so or is right; `run` mends it, or says
    what to delete, and is right afterwards."""
    count = Count(name="damaged file of a finished run")
    expected = numbers(lab.whole)
    jobs = [
        (pattern, how) for pattern in FINISHED for how in HOWS for _ in range(1 + (how == "flip"))
    ]
    for pattern, how in lab.some(jobs, 5):
        root = lab.folder()
        shutil.copytree(lab.whole, root)
        shutil.rmtree(root / "report")
        path = lab.chance.choice(sorted(root.glob(pattern)))
        damage(path, how, lab.chance)
        count.tried += 1
        where = f"{path.relative_to(root)}, {how}"
        examine(count, root, path, expected, where, report=not lab.quick)
        again = run(root)
        count.expect_clear(again, f"{where}, run")
        if again.code == 0 and numbers(root) != expected:
            count.blame("wrong", f"{where}: run's numbers")
        elif again.code != 0:  # do what it says
            follow(again.output, root)
            again = run(root)
            if again.code != 0 or numbers(root) != expected:
                count.blame("lost", f"{where}: {again.output[-1500:]}")
        clear_away(root)
    return count


def examine(count: Count, root: Path, path: Path, expected: Any, where: str, report: bool) -> None:
    """What `report`, `status` and `merge` make of it: no number but the right one."""
    merged = root.with_name(f"{root.name}-merged")
    looks = [["status", str(root)], ["merge", str(root), "--out", str(merged)]]
    for words in [*([["report", str(root)]] if report else []), *looks]:
        ended = run(root, words=words, report=report)
        count.expect_clear(ended, f"{where}, {words[0]}")
    clear_away(merged)
    try:
        found = numbers(root)
    except (ValueError, OSError) as error:
        if str(path) not in str(error) and str(path.with_suffix("")) not in str(error):
            count.blame("unclear", f"{where}: the error names another file: {error}")
        return
    except Exception as error:
        count.blame("unclear", f"{where}: {type(error).__name__}: {error}")
        return
    # A measurement whose table changed is left out, and named.
    fewer = path.parts[-4] == "records" and set(found[0]) < set(expected[0])
    if found != expected and not fewer:
        count.blame("wrong", f"{where}: the report's numbers")


def numbers(root: Path) -> Any:
    """Every number a report is made of, but seconds."""
    from bench.report.load import load_results

    results = load_results(root)
    kept = ["cell", "task", "preset", "method", "seed", "trained_for", "after", "status", "steps",
            "examples", "flops_per_step", "flops", "parameters", "bytes"]  # fmt: skip
    measured = ["entry", "method", "seed", "setting", "cells", "status", "kind", "share"]
    return (
        sorted(results.records.itertuples(index=False, name=None)),
        sorted(map(repr, results.cells[kept].itertuples(index=False, name=None))),
        sorted(map(repr, results.measured[measured].itertuples(index=False, name=None))),
    )


def follow(output: str, root: Path) -> None:
    """Delete what an error says to delete."""
    for word in output.replace(":", " ").replace(",", " ").split():
        path = Path(word)
        if path.is_absolute() and path.is_relative_to(root) and path != root and path.exists():
            if path.name == "failures.log" or path.suffix == ".py":
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def damaged_weights(lab: Lab) -> Count:
    """Weights are damaged after `done.json` was written and before they are measured."""
    count = Count(name="damaged weights before measuring")
    patterns = ("runs/*/yoto/*/model.safetensors", "runs/*/fixed_grid/*/model-*.safetensors")
    jobs = [(pattern, how) for pattern in patterns for how in HOWS if how != "digit"]
    for pattern, how in lab.some(jobs, 2):
        root = lab.folder()
        shutil.copytree(lab.whole, root)
        clear_away(root / "records", root / "report")
        path = lab.chance.choice(sorted(root.glob(pattern)))
        damage(path, how, lab.chance)
        count.tried += 1
        where = f"{path.relative_to(root)}, {how}"
        ended = run(root)
        count.expect_clear(ended, where)
        if ended.code == 0 and list(differences(root, lab.whole)):
            count.blame("wrong", f"{where}: measured without a word")
        follow(ended.output, root)
        again = run(root)
        if again.code != 0:
            count.blame("lost", f"{where}: {again.output[-1500:]}")
        count.compare(root, lab.whole, where)
        clear_away(root)
    return count


UNFINISHED = ("state.pt", "log.jsonl", "config.json", "lease.json", "model-*.safetensors")


def damaged_half_run(lab: Lab) -> Count:
    """A run is killed in a training, and a file of that cell is damaged before it goes on."""
    count = Count(name="damaged file of an unfinished run")
    jobs = [(pattern, how) for pattern in UNFINISHED for how in HOWS]
    for pattern, how in lab.some(jobs, 4):
        root = lab.folder()
        occurrence = lab.chance.randrange(2, 5)
        ended = run(root, prepare=die_at(root, "open model.safetensors", occurrence))
        (folder,) = (path.parent for path in root.glob("runs/*/*/*/lease.json"))
        # The warm grid's snapshots are kept and never read: damage to them shows nowhere.
        found = (
            [] if "-*" in pattern and "warm_grid" in folder.parts else sorted(folder.glob(pattern))
        )
        if not found:
            clear_away(root)
            continue
        damage(found[0], how, lab.chance)
        count.tried += 1
        where = f"{found[0].relative_to(root)}, {how}"
        ended = run(root)
        count.expect_clear(ended, where)
        if ended.code != 0:
            follow(ended.output, root)
            ended = run(root)
        if ended.code != 0:
            count.blame("lost", f"{where}: {ended.output[-1500:]}")
        count.compare(root, lab.whole, where)
        clear_away(root)
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
        root = lab.folder()
        numbers_ = (lab.chance.getrandbits(20), lab.chance.getrandbits(20))
        began = time.monotonic()
        children = [Child(*command(root), prepare=prepare(number)) for number in numbers_]
        ends = [child.wait() for child in children]
        passed = time.monotonic() - began
        count.tried += 1
        for ended in ends:
            if ended.code != 0:
                count.blame("lost", ended.output[-1500:])
        count.compare(root, lab.whole, "clock")
        for done in root.glob("runs/*/*/*/done.json"):
            seconds = json.loads(done.read_bytes())["ledger"]["seconds"]
            if not all(0 <= value <= passed for value in seconds.values()):
                count.blame("wrong", f"{done}: {seconds}")
        clear_away(root)
    return count


def writers(lab: Lab) -> Count:
    """Two and four runs at once on one folder, one of them killed meanwhile."""
    count = Count(name="several writers, one killed")
    for many in (2,) if lab.quick else (2, 2, 2, 4, 4, 4):
        root = lab.folder()
        children = [Child(*command(root)) for _ in range(many)]
        time.sleep(lab.chance.uniform(0.05, 1.0))
        children[0].send(signal.SIGKILL)
        ends = [child.wait() for child in children]
        count.tried += 1
        for ended in ends[1:]:
            if ended.code != 0:
                count.blame("lost", f"{many} writers: {ended.output[-1500:]}")
        count.compare(root, lab.whole, f"{many} writers")
        clear_away(root)
    return count


def out_of_memory(lab: Lab) -> Count:
    """Memory ends in one network: it is recorded with a way out, its batch is not changed, the
    others go on, and it is trained once there is memory."""
    count = Count(name="out of memory in one network")

    def narrow() -> None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, resource.RLIM_INFINITY))

    for fault in lab.some(["cuda memory", "memory", "real memory"], 1):
        limited = fault == "real memory" and Path("/proc/self/statm").exists()
        root = lab.folder()
        ended = run(root, environment={"FAULT": fault}, prepare=narrow if limited else lambda: None)
        count.tried += 1
        others_go_on(count, lab, root, ended, "out of memory", fault)
    return count


def others_go_on(count: Count, lab: Lab, root: Path, ended: Ended, said: str, where: str) -> None:
    """One network failed with `said`; the others are done; without the fault all is as ever."""
    count.expect_clear(ended, where)
    if ended.code != 1 or said not in ended.output:
        count.blame("unclear", f"{where}: exit status {ended.code}, {ended.output[-1500:]}")
    for kinds in ("fixed_grid", "warm_grid"):
        done = len(list(root.glob(f"runs/faulty/{kinds}/*/done.json")))
        if done != len(list(lab.whole.glob(f"runs/faulty/{kinds}/*/done.json"))):
            count.blame("lost", f"{where}: the others did not go on")
    if list(root.glob("runs/faulty/yoto/*/done.json")):
        count.blame("wrong", f"{where}: it counts as done")
    again = run(root)
    if again.code != 0:
        count.blame("lost", f"{where}: {again.output[-1500:]}")
    count.compare(root, lab.whole, where)
    clear_away(root)


def hanging_worker(lab: Lab) -> Count:
    """A network never comes to the end of a step: a pool kills it after `--limit`; here, Ctrl-C
    twice ends it, which is all that can be done from inside the process."""
    count = Count(name="hang")
    if not lab.quick:
        root = lab.folder()
        words = [*command(root), "--on", "pool", "--per-device", "2", "--limit", "60"]
        ended = Child(*words, environment={"FAULT": "hang"}).wait()
        count.tried += 1
        others_go_on(count, lab, root, ended, "timeout: not done after 60 seconds", "pool")
    root = lab.folder()
    child = Child(*command(root), environment={"FAULT": "hang"})
    ready(root, "runs/faulty/yoto/*/lease.json")
    child.send(signal.SIGINT)
    time.sleep(0.5)
    child.send(signal.SIGINT)
    ended = child.wait(20)
    count.tried += 1
    if ended.code != 130:
        count.blame("unclear", f"here: exit status {ended.code}, {ended.output[-1500:]}")
    count.expect_clear(ended, "here")
    run(root)
    count.compare(root, lab.whole, "here")
    clear_away(root)
    return count


def ready(root: Path, pattern: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not list(root.glob(pattern)) and time.monotonic() < until:
        time.sleep(0.005)


def diverging(lab: Lab) -> Count:
    """The loss becomes NaN: a result that is stored, measured as such and shown."""
    count = Count(name="non-finite loss")
    root = lab.folder()
    ended = run(root, environment={"FAULT": "nan"}, report=True)
    count.tried += 1
    count.expect_clear(ended, "run")
    (done,) = (json.loads(p.read_bytes()) for p in root.glob("runs/faulty/yoto/*/done.json"))
    report = (root / "report/faulty-smoke/report.md").read_text()
    if ended.code != 0 or done["status"] != "diverged" or "diverged" not in report:
        count.blame(
            "wrong", f"{ended.code}, {done['status']}, in the report: {'diverged' in report}"
        )
    clear_away(root)
    return count


def signals(lab: Lab) -> Count:
    """SIGINT and SIGTERM once: the step is finished, the state saved, the command to continue
    printed, and that command continues. SIGINT twice: at once; SIGTERM twice: as once. Here, and
    in a pool."""
    count = Count(name="SIGINT, SIGTERM, once and twice")
    pool = ("--on", "pool", "--per-device", "2")
    cases = [
        (extra, sign, times)
        for extra in ((), pool)
        for sign in (signal.SIGINT, signal.SIGTERM)
        for times in (1, 2)
    ]
    for extra, sign, times in lab.some(cases[:4] if lab.quick else cases, 2):
        root = lab.folder()
        where = f"{sign.name} {times} times, {' '.join(extra) or 'here'}"
        child = Child(*command(root), *extra, environment={"PACE": "0.05"})
        ready(root, "runs/*/*/*/log.jsonl")
        for _ in range(times):
            child.send(sign)
            asked = time.monotonic()
            time.sleep(0.15)
        ended = child.wait(60)
        took = time.monotonic() - asked
        count.tried += 1
        if ended.code != 130 or (times == 2 and took > 20):
            text = f"{where}: exit status {ended.code} after {took:.1f} s, {ended.output[-1500:]}"
            count.blame("unclear", text)
        line = next((x for x in ended.output.splitlines() if " run --config " in x), "")
        asks = times == 1 or sign == signal.SIGTERM
        if asks and not line:
            count.blame("unclear", f"{where}: no command to continue: {ended.output[-1500:]}")
        if asks and not list(root.glob("runs/*/*/*/state.pt")):
            count.blame("lost", f"{where}: the state")
        words = line.split()[2:] if line else command(root)
        again = run(root, words=words)
        if again.code != 0:
            count.blame("lost", f"{where}: {again.output[-1500:]}")
        count.compare(root, lab.whole, where)
        clear_away(root)
    return count


LONG = (kill_the_codec,)  # not in a quick campaign
CLASSES: list[Callable[[Lab], Count]] = [
    kill_at_random_moments,
    kill_at_every_step,
    kill_the_codec,
    full_disk,
    full_disk_and_a_failure,
    read_only_folder,
    damaged_results,
    damaged_weights,
    damaged_half_run,
    jumping_clock,
    writers,
    out_of_memory,
    hanging_worker,
    diverging,
    signals,
]

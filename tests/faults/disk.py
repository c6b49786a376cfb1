"""Fault classes of the disk: full, full while a failure is noted, read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .campaign import Lab, clear_away, others_go_on
from .rig import Count, command, die_at, differences, operations, run, watch


def full_disk(lab: Lab) -> Count:
    """The disk is full from one write on: an error with a way out; when there is space again the
    same command completes the run."""
    count = Count(name="full disk")
    seen = operations(root := lab.folder(), report=True)
    clear_away(root)
    kinds = {each for each in seen if each.split()[0] in ("open", "append", "mkdir", "link")}
    for what in lab.some(sorted(kinds), 4):
        times = seen.count(what)
        for occurrence in {times // 2} if lab.quick else {0, times // 2}:
            fill_the_disk(lab, count, what, occurrence)
    return count


def fill_the_disk(lab: Lab, count: Count, what: str, occurrence: int) -> None:
    where, report = f"{what}, time {occurrence}", " report" in what
    with (
        small_disk(lab) as (disk, fill, free),
        lab.attempt(count, where, root=disk / "results", report=report) as root,
    ):
        left = occurrence

        def act(now: str, path: Path) -> None:
            nonlocal left
            left -= now == what
            if left < 0:
                fill()

        ended = run(root, prepare=lambda: watch(root, act), report=report)
        count.expect_clear(ended, where)
        if ended.code == 0 and list(differences(root, lab.whole)):
            count.blame("wrong", f"{where}: says that it is done")
        free()


def full_disk_and_a_failure(lab: Lab) -> Count:
    """A cell fails while failures.log cannot be written: the run says both and goes on."""
    count = Count(name="full disk while a failure is noted")

    def act(now: str, path: Path) -> None:
        if "failures.log" in now:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with lab.attempt(count, "failures.log") as root:
        ended = run(root, prepare=lambda: watch(root, act), environment={"FAULT": "memory"})
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

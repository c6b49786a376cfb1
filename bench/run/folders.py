"""Looking after results folders: what is done and what is left, joining several, freeing space,
and whether one can be written to.

    for row in status(Path("results")): print(row.task, row.method, row.done, row.left)

Reads and moves files only: no torch, no task, no plug-in of the results is run. Folders may come
from anybody: links are not followed out of them, and no name in a file decides what is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import statistics
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.files import files_in, leading_out, printable, read_ordinary, write_atomic
from bench.run import layout, lease
from bench.run.looks import Looks
from bench.run.schema import CellConfig, Damaged, Done, Head, Kind, LogLine, RunConfig, read

MOST = 1e12  # seconds or steps; what says more is not believed
LOG_BYTES = 64 * 2**20  # a line a hundredth of a run, or every hundred steps


@dataclass(kw_only=True)
class Progress:
    """The cells of one task and method. `seconds` is training time spent by those finished;
    `left` an estimate for the others, None where nothing can be compared with."""

    task: str
    method: str
    done: int = 0
    running: int = 0
    begun: int = 0  # a checkpoint, and nobody at work
    missing: int = 0
    failed: int = 0  # ended by an error: tried again by the next run
    diverged: int = 0  # a result, not tried again
    seconds: float = 0.0
    left: float | None = 0.0


class Conflict(ValueError):
    """Folders that cannot be joined: both have the same thing with other content."""


def status(root: Path) -> list[Progress]:
    """One row per task and method of what was ever planned in `root`, in order of their names.

    A cell that is left takes as long per step as the finished ones of its method, or else of its
    task. FileNotFoundError where the folder is missing.
    """
    _there(root)
    rows: dict[tuple[str, str], Progress] = {}
    paces: dict[tuple[str, ...], list[float]] = defaultdict(list)
    open_steps: dict[tuple[str, str], float] = defaultdict(float)
    for path in files_in(root, layout.PLANNED):
        folder = path.parent
        key = folder.parts[-3], folder.parts[-2]
        row = rows.setdefault(key, Progress(task=key[0], method=key[1]))
        done = _sound(folder / layout.DONE, Done)
        if done is None:
            state = _state(folder)
            setattr(row, state, getattr(row, state) + 1)
            open_steps[key] += max(0.0, _planned_steps(path) - _logged(folder / layout.LOG))
            continue
        row.done += done.status == "done"
        row.diverged += done.status == "diverged"
        took, steps = (_amount(n) for n in (done.ledger.seconds.get("train"), done.ledger.steps))
        row.seconds += took
        if took and steps:
            paces[key].append(took / steps)
            paces[key[:1]].append(took / steps)
    for key, steps in open_steps.items():
        pace = paces[key] or paces[key[:1]]
        if steps:
            rows[key].left = steps * statistics.median(pace) if pace else None
    return [rows[key] for key in sorted(rows)]


def _state(folder: Path) -> str:
    """Of a cell that is not finished, a field of `Progress`."""
    if lease.held(folder / layout.LEASE):
        return "running"
    if (folder / layout.FAILED).exists():
        return "failed"
    return "begun" if (folder / layout.STATE).exists() else "missing"


def _planned_steps(config: Path) -> float:
    cell = _sound(config, CellConfig)
    training = cell.task.fields.get("training") if cell else None
    return _amount(training.get("steps")) if isinstance(training, dict) else 0.0


def _logged(log: Path) -> float:
    """The last whole line's step in a log, 0 where there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in reversed(read_ordinary(log, LOG_BYTES).splitlines()):
            with contextlib.suppress(ValueError, RecursionError):  # the last may be torn
                return _amount(msgspec.json.decode(line, type=LogLine).step)
    return 0.0


def clean(root: Path) -> tuple[int, int]:
    """Delete checkpoints and torn files of finished cells; (files, bytes) that were freed."""
    left = [
        path
        for done in files_in(root, layout.FINISHED)
        for pattern in layout.LEFT_BEHIND
        for path in done.parent.glob(pattern)
        if path.is_symlink() or not path.is_dir()  # a folder is none of ours
    ]
    left += files_in(root, layout.RECORD_LEASES)
    files = freed = 0
    for path in left:
        if layout.is_lease(path) and lease.held(path):
            continue
        freed += path.lstat().st_size
        path.unlink(missing_ok=True)
        files += 1
    return files, freed


def merge(sources: Sequence[Path], out: Path) -> tuple[int, int]:
    """Copy the finished cells and whole records of `sources` into `out`; how many of each. What
    was asked for, and planned to be looked at, goes with them.

    Nothing is copied before everything was compared. Conflict, naming the first of them, where two
    folders have the same cell with other weights, the same measurement with other numbers, or
    were looked at with other seeds;
    ValueError for a record that is not what was measured; FileNotFoundError for a missing folder.
    """
    for source in sources:
        _there(source)
    known: dict[str, tuple[Any, Path]] = {}  # by its place in a folder: what it is, and where
    conflicts: list[str] = []
    for root in [out, *sources]:
        for pattern in (layout.FINISHED, layout.HEADS, layout.LOOKS):
            for last in files_in(root, pattern):
                place, content = str(last.relative_to(root)), _content(last)
                if content[0] == "failed":  # nothing was measured
                    continue
                other, where = known.setdefault(place, (content, last))
                if other != content:
                    conflicts.append(f"{where} and {last}")
    if conflicts:
        more = f" (and {len(conflicts) - 5} more)" if len(conflicts) > 5 else ""
        raise Conflict(
            f"{len(conflicts)} results differ, and nothing was copied: "
            + "; ".join(conflicts[:5])
            + f"{more}: keep one of each, or report the folders apart"
        )
    copied: Counter[str] = Counter()
    for place, (_, last) in known.items():
        if last != out / place:
            _copy(last, out / place)
            copied[Path(place).parts[0]] += 1
    for root in sources:
        for asked in files_in(root, layout.CONFIGS):
            target = out / asked.relative_to(root)
            if not target.exists() and _sound(asked, RunConfig) is not None:
                write_atomic(target, asked.read_bytes())
    return copied["runs"], copied["records"]


def _content(last: Path) -> tuple[str, str | None]:
    """What a finished cell, a whole record or a plan of looks is. ValueError where it is not what
    was written."""
    if last.parent.name == layout.LOOKED:
        return "looks", str(read(last, Looks).seeds)
    if last.name == layout.DONE:
        done = read(last, Done)
        return done.status, done.model_sha256
    head, table = read(last, Head), layout.table_of(last)
    ordinary = table.is_file() and not table.is_symlink()
    if not ordinary or hashlib.sha256(table.read_bytes()).hexdigest() != head.sha256:
        raise ValueError(
            f"{table} is not what was measured: delete it, and run again where it was made"
        )
    return head.status, head.sha256


def _copy(last: Path, target: Path) -> None:
    """Copy a cell's files, or a record's; `last` is the one that says they are whole."""
    if last.name == layout.DONE:
        files = [path for path in last.parent.iterdir() if not layout.is_left_behind(path)]
    else:  # by their names: to look for them among all records takes as long as these are
        files = [layout.table_of(last), layout.picture_of(last)]
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in files:
        if path.is_file() and not path.is_symlink() and path != last:
            shutil.copyfile(path, target.parent / path.name)
    write_atomic(target, last.read_bytes())


def _there(root: Path) -> None:
    if not root.is_dir():
        raise FileNotFoundError(f"there is no results folder {root}: `run` makes one")


def _sound(path: Path, kind: type[Kind]) -> Kind | None:
    """What is stored there, or None where there is nothing, or it is damaged."""
    try:
        return read(path, kind)
    except (FileNotFoundError, Damaged):
        return None


def _amount(value: Any) -> float:
    """A number of seconds or steps; 0 for what can be none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < MOST else 0.0


# Before anything is written -----------------------------------------------------------------------


def usable(root: Path) -> Path:
    """A results folder that can be written to. ValueError where a link inside it leads out of
    it: what looks at the folder follows none, so that what is written through one would never be
    seen again."""
    link = leading_out(root)
    if link is not None:
        raise ValueError(
            f"{printable(link)} is a link out of the results folder, and no command follows one: "
            f"make {printable(root)} itself the link, or name the other disk with --out"
        )
    writable(root)
    return root


def writable(root: Path) -> None:
    """OSError with the way out unless files can be written below `root`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to the results folder {root} ({error.strerror}): make it "
            "writable, or choose another with --out"
        ) from None
    if shutil.disk_usage(root).free < 50 * 2**20:
        text = f"less than 50 MiB are free at {root}: a full disk stops the run"
        warnings.warn(text, stacklevel=2)

"""Looking after results folders: what is done and what is left, joining several, freeing space.

    for row in status(Path("results")): print(row.task, row.method, row.done, row.left)

Reads and moves files only: no torch, no task, no plug-in of the results is run. Folders may come
from anybody: links are not followed out of them, and no name in a file decides what is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.files import files_in, read_object, read_ordinary, write_atomic
from bench.run import lease

MOST = 1e12  # seconds or steps
LOG_BYTES = 64 * 2**20  # a line a hundredth of a run, or every hundred steps
LEFT_BEHIND = ("state.pt", "failed.json", "*.damaged", ".*.tmp", "lease.json", "lease.json.*")


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
    if not root.is_dir():
        raise FileNotFoundError(f"there is no results folder {root}: `run` makes one")
    rows: dict[tuple[str, str], Progress] = {}
    paces: dict[tuple[str, ...], list[float]] = defaultdict(list)
    open_steps: dict[tuple[str, str], int] = defaultdict(int)
    for folder, config in _cells(root):
        key = folder.parts[-3], folder.parts[-2]
        row = rows.setdefault(key, Progress(task=key[0], method=key[1]))
        result = _json(folder / "done.json")
        if result is not None:
            took = _amount(_at(result, "ledger", "seconds", "train"))
            steps = _amount(_at(result, "ledger", "steps"))
            row.seconds += took
            if result.get("status") == "done":
                row.done += 1
            else:
                row.diverged += 1
            if took and steps:
                paces[key].append(took / steps)
                paces[key[:1]].append(took / steps)
            continue
        holder = lease.read(folder / "lease.json")
        if holder is not None and lease.alive(folder / "lease.json", holder):
            row.running += 1
        elif (folder / "failed.json").exists():
            row.failed += 1
        elif (folder / "state.pt").exists():
            row.begun += 1
        else:
            row.missing += 1
        steps = int(_amount(_at(config, "task", "fields", "training", "steps")))
        open_steps[key] += max(0, steps - _logged(folder / "log.jsonl"))
    for key, row in rows.items():
        pace = paces[key] or paces[key[:1]]
        if open_steps[key]:
            row.left = open_steps[key] * statistics.median(pace) if pace else None
    return [rows[key] for key in sorted(rows)]


def clean(root: Path) -> tuple[int, int]:
    """Delete checkpoints and torn files of finished cells; (files, bytes) that were freed."""
    files = freed = 0
    for done in files_in(root, "runs/*/*/*/done.json"):
        for pattern in LEFT_BEHIND:
            for path in done.parent.glob(pattern):
                holder = lease.read(path) if path.name == "lease.json" else None
                if holder is not None and lease.alive(path, holder):
                    continue
                size = path.lstat().st_size
                if path.is_dir() and not path.is_symlink():
                    continue  # none of ours
                path.unlink(missing_ok=True)
                files, freed = files + 1, freed + size
    for path in files_in(root, "records/*/*/*.lease*"):
        holder = lease.read(path) if path.suffix == ".lease" else None
        if holder is None or not lease.alive(path, holder):
            size = path.lstat().st_size
            path.unlink(missing_ok=True)
            files, freed = files + 1, freed + size
    return files, freed


def merge(sources: Sequence[Path], out: Path) -> tuple[int, int]:
    """Copy the finished cells and whole records of `sources` into `out`; how many of each.

    Nothing is copied before everything was compared. Conflict, naming the first of them, where two
    folders have the same cell with other weights, or the same measurement with other numbers;
    ValueError for a record that is not what was measured; FileNotFoundError for a missing folder.
    """
    for source in sources:
        if not source.is_dir():
            raise FileNotFoundError(f"there is no results folder {source}")
    chosen: dict[str, Path] = {}  # the last file of each thing, by its place in a folder
    known: dict[str, tuple[Any, Path]] = {}
    conflicts: list[str] = []
    for root in [out, *sources]:
        for last in _wholes(root):
            place, content = str(last.relative_to(root)), _json(last)
            if content is None:
                raise ValueError(f"{last} is damaged: delete it, and run again where it was made")
            is_cell = last.name == "done.json"
            digest = (content.get("status"), content.get("model_sha256" if is_cell else "sha256"))
            if not is_cell and _digest(last.with_suffix(".csv")) != digest[1]:
                raise ValueError(
                    f"{last.with_suffix('.csv')} is not what was measured: delete it, and run "
                    "again where it was made"
                )
            if place in known and known[place][0] != digest:
                conflicts.append(f"{known[place][1]} and {last}")
            elif place not in known:
                known[place] = digest, last
                if root is not out:
                    chosen[place] = last
    if conflicts:
        more = f" (and {len(conflicts) - 5} more)" if len(conflicts) > 5 else ""
        raise Conflict(
            f"{len(conflicts)} results differ, and nothing was copied: "
            + "; ".join(conflicts[:5])
            + f"{more}: keep one of each, or report the folders apart"
        )
    counts = {True: 0, False: 0}
    for place, last in chosen.items():
        target, is_cell = out / place, last.name == "done.json"
        # By their names: to look for a record's files among all records takes as long as these are.
        beside = (last.with_suffix(ending) for ending in (".csv", ".png"))
        found = last.parent.iterdir() if is_cell else beside
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in found:
            if path.is_file() and not path.is_symlink() and path != last and _keeps(path):
                shutil.copyfile(path, target.parent / path.name)
        write_atomic(target, last.read_bytes())  # last, as always
        counts[is_cell] += 1
    return counts[True], counts[False]


def _cells(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files_in(root, "runs/*/*/*/config.json"):
        yield path.parent, _json(path) or {}


def _wholes(root: Path) -> Iterator[Path]:
    yield from files_in(root, "runs/*/*/*/done.json")
    yield from files_in(root, "records/*/*/*.json")


def _keeps(path: Path) -> bool:
    return not any(path.match(pattern) for pattern in LEFT_BEHIND)


def _digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none."""
    try:
        return read_object(path)
    except (FileNotFoundError, ValueError):
        return None


def _at(content: Any, *names: str) -> Any:
    """What lies under these names in nested objects, None where one is missing."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _amount(value: Any) -> float:
    """A number of seconds or steps; 0 for what can be none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < MOST else 0.0


def _logged(log: Path) -> int:
    """The last whole line's step in a log, 0 where there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        text = read_ordinary(log, LOG_BYTES).decode(errors="replace")
        for line in reversed(text.splitlines()):
            # The last may be torn.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                return int(_amount(json.loads(line)["step"]))
    return 0

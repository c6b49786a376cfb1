"""Looking after results folders: what is done and what is left, joining several, freeing space.

    for row in status(Path("results")): print(row.task, row.method, row.done, row.left)

Reads and moves files only: no torch, no task, no plug-in of the results is run.
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

from bench import lease
from bench.records import write_atomic

LEFT_BEHIND = ("state.pt", "state.damaged", ".*.tmp", "lease.json", "lease.json.*")


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
    failed: int = 0  # diverged and the like: results, not tried again
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
            ledger = result.get("ledger") or {}
            took = (ledger.get("seconds") or {}).get("train") or 0.0
            row.seconds += took
            if result.get("status") == "done":
                row.done += 1
            else:
                row.failed += 1
            if took and ledger.get("steps"):
                paces[key].append(took / ledger["steps"])
                paces[key[:1]].append(took / ledger["steps"])
            continue
        holder = lease.read(folder / "lease.json")
        if holder is not None and lease.alive(folder / "lease.json", holder):
            row.running += 1
        elif (folder / "state.pt").exists():
            row.begun += 1
        else:
            row.missing += 1
        steps = config.get("task", {}).get("fields", {}).get("training", {}).get("steps", 0)
        open_steps[key] += max(0, steps - _logged(folder / "log.jsonl"))
    for key, row in rows.items():
        pace = paces[key] or paces[key[:1]]
        if open_steps[key]:
            row.left = open_steps[key] * statistics.median(pace) if pace else None
    return [rows[key] for key in sorted(rows)]


def clean(root: Path) -> tuple[int, int]:
    """Delete checkpoints and torn files of finished cells; (files, bytes) that were freed."""
    files = freed = 0
    for done in root.glob("runs/*/*/*/done.json"):
        for pattern in LEFT_BEHIND:
            for path in done.parent.glob(pattern):
                holder = lease.read(path) if path.name == "lease.json" else None
                if holder is not None and lease.alive(path, holder):
                    continue
                size = path.stat().st_size
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
                raise ValueError(f"{last.with_suffix('.csv')} is not what was measured")
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
    for path in sorted(root.glob("runs/*/*/*/config.json")):
        yield path.parent, _json(path) or {}


def _wholes(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("runs/*/*/*/done.json"))
    yield from sorted(root.glob("records/*/*/*.json"))


def _keeps(path: Path) -> bool:
    return not any(path.match(pattern) for pattern in LEFT_BEHIND)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "missing"


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _logged(log: Path) -> int:
    """The last whole line's step in a log, 0 where there is none."""
    with contextlib.suppress(FileNotFoundError):
        for line in reversed(log.read_text().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last may be torn
                return int(json.loads(line)["step"])
    return 0

"""Where things lie in a results folder.

    DIR/runs/<task>/<method>/<cell id>/   config.json log.jsonl state.pt model.safetensors done.json
                                          (and failed.json where the last try ended in an error;
                                          lease.json while somebody trains it)
    DIR/records/<task>/<method>/<id>.csv  .json (and .png): one method measured at one setting
                                          (and .lease while somebody does)
    DIR/configs/<id>.json                 every `run` as it was asked for
    DIR/tasks/<digest>/<task>.py          a task that a notebook defined, with what it uses
    DIR/looks/<id>.json                   which seeds `run --decide` looks at, and in which order

Files are written under a temporary name and renamed; `done.json` and a record's .json, its head,
come last, so that whatever lacks them is unfinished.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

CONFIG, LOG, DONE, FAILED = "config.json", "log.jsonl", "done.json", "failed.json"
STATE, WEIGHTS, LEASE = "state.pt", "model.safetensors", "lease.json"

# Patterns below a results folder
PLANNED = f"runs/*/*/*/{CONFIG}"
FINISHED = f"runs/*/*/*/{DONE}"
HEADS = "records/*/*/*.json"
CONFIGS = "configs/*.json"
LOOKED = "looks"
LOOKS = f"{LOOKED}/*.json"
RECORD_LEASES = "records/*/*/*.lease*"
# What a finished cell's folder does not need
LEFT_BEHIND = (STATE, FAILED, "*.damaged", ".*.tmp", LEASE, f"{LEASE}.*")


def cell_folder(root: Path, task: str, method: str, identifier: str) -> Path:
    return root / "runs" / task / method / identifier


def head_path(root: Path, task: str, method: str, identifier: str) -> Path:
    return root / "records" / task / method / f"{identifier}.json"


def run_config_path(root: Path, identifier: str) -> Path:
    return root / "configs" / f"{identifier}.json"


def looks_path(root: Path, identifier: str) -> Path:
    return root / LOOKED / f"{identifier}.json"


def table_of(head: Path) -> Path:
    """The rows beside a record's head."""
    return head.with_suffix(".csv")


def picture_of(head: Path) -> Path:
    return head.with_suffix(".png")


def lease_path(head: Path) -> Path:
    """Of whoever makes this record."""
    return head.with_suffix(".lease")


def is_lease(path: Path) -> bool:
    return path.name == LEASE or path.suffix == ".lease"


def is_left_behind(path: Path) -> bool:
    return any(path.match(pattern) for pattern in LEFT_BEHIND)


def says_whole(place: str) -> bool:
    """Whether a file, by its place in a results folder, is one that is written last."""
    return any(PurePosixPath(place).match(pattern) for pattern in (FINISHED, HEADS))

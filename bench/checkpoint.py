"""A training's state and its log on disk, believed only as far as they are whole.

The state (`state.pt`) stands behind its own SHA-256, and keeps that of the log (`log.jsonl`) as it
was then. Either may be damaged: a training then starts anew, or loses lines and no step.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from bench.cost import out_of_memory
from bench.files import append_line, write_atomic

MAGIC = b"yoto-bench state 1 "
STATE = {
    *("step", "network", "optimiser", "random", "window", "seconds", "devices"),
    *("peak", "shared"),
}


def save_state(path: Path, state: dict[str, Any]) -> None:
    payload = io.BytesIO()
    torch.save(state, payload)
    data = payload.getvalue()
    write_atomic(path, MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint, or None where there is none. A damaged one is put aside with a warning."""
    if not path.exists():
        return None
    head, _, data = path.read_bytes().partition(b"\n")
    if head == MAGIC + hashlib.sha256(data).hexdigest().encode():
        try:
            state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
            if isinstance(state, dict) and state.keys() >= STATE:
                return state
        except Exception as error:
            if out_of_memory(error):
                raise
            # Else it is nothing that we wrote, whatever it raises; weights_only runs nothing.
    path.replace(path.with_suffix(".damaged"))
    warnings.warn(
        f"the checkpoint {path} is damaged: it is kept as state.damaged and this training "
        "starts anew",
        stacklevel=2,
    )
    return None


def log_digest(path: Path) -> str:
    """SHA-256 of a log as far as it is written."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def restore_log(path: Path, step: int, digest: str | None = None) -> None:
    """Drop the log lines after `step`: a killed run wrote them, and they will come again. Where
    those left are not what `digest` says, none can be believed, and one says so in their place."""
    _keep_lines_until(path, step)
    if digest is not None and digest != log_digest(path):
        warnings.warn(f"{path} is damaged: its lines until now are lost", stacklevel=2)
        _keep_lines_until(path, -1)
        lost = {"step": step, "lost": "the lines until this step were damaged"}
        append_line(path, json.dumps(lost))


def _keep_lines_until(path: Path, step: int) -> None:
    if path.exists():
        lines = []
        for line in path.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last may be torn
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
        write_atomic(path, "".join(lines))

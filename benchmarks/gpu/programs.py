"""Programs on a GPU machine, each with its seconds: nothing that one leaves behind goes on beside
the next, whose speed it would change."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Notes from one program to the next on the same machine.
NOTES = Path(tempfile.gettempdir())
PACES = NOTES / "yoto-bench-rows.csv"  # left by `speed` for `reference`
NO_CAPTURE = NOTES / "yoto-bench-no-capture"  # left by `check` where steps cannot be captured
MPS = {"CUDA_MPS_PIPE_DIRECTORY": "/tmp/mps", "CUDA_MPS_LOG_DIRECTORY": "/tmp/mps-log"}


def python(
    words: Sequence[object], seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[int, list[str]]:
    """Run a Python program for at most so many seconds; its exit status (-9 where its time was
    over) and the lines that it printed. It and all processes it started are gone after that."""
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(1.0, seconds))
        end(process)
        file.seek(0)
        lines = file.read().strip().splitlines() or ["no output"]
    return process.returncode, lines


def end(process: subprocess.Popen) -> None:
    """Kill a process that leads a session, and whatever is left of that."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def capturable() -> dict[str, str]:
    """What the environment of programs needs where `check` saw that no step can be captured."""
    return {"YOTO_BENCH_CAPTURE": "0"} if NO_CAPTURE.exists() else {}


@contextlib.contextmanager
def mps() -> Iterator[bool]:
    """NVIDIA's daemon that lets processes use a GPU at once, while it lasts; whether it runs."""
    for folder in MPS.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    none, around = subprocess.DEVNULL, {**os.environ, **MPS}
    tell = functools.partial(
        subprocess.run, check=True, stdout=none, stderr=none, timeout=20, env=around
    )
    command = "nvidia-cuda-mps-control"
    try:
        tell([command, "-d"], stdin=none)
    except (OSError, subprocess.SubprocessError):
        yield False
        return
    before = {name: os.environ.get(name) for name in MPS}
    os.environ |= MPS
    try:
        yield True
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            tell([command], input=b"quit\n")
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        time.sleep(1)

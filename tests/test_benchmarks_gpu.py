"""The programs for a GPU machine, rehearsed on the CPU: each ends well and leaves its files."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import rows
from benchmarks.gpu import programs

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "check": ([sys.executable, "-m", "benchmarks.gpu.check", "2400"], "check.txt"),
    "speed": ([sys.executable, "-m", "benchmarks.gpu.speed", "500"], "rows.csv"),
    "reference": (
        [sys.executable, "-m", "benchmarks.gpu.reference", "150", "compression=20"],
        "compression.tar.xz",
    ),
}


def test_a_reference_run_is_planned_at_the_pace_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("DEVICE", "cpu")
    reference = importlib.import_module("benchmarks.gpu.reference")
    stage = reference.STAGES["beta_vae_scenes"]
    monkeypatch.setattr(reference, "PACES", tmp_path / "rows.csv")
    assert reference.pace(stage) == (stage.pace, reference.AT_ONCE, False)  # nothing was measured
    cpu, same = torch.device("cpu"), ([1.0], [1.0])
    table = [
        rows.row(f"packing, {title}", cpu, what, "1 at once", same, value, "s/network")
        for title, what, value in (
            ("compression, small, 400 steps a network", "11 at once", 1.0),
            ("beta_vae_scenes, small, 600 steps a network", "16 at once", 0.5),
            ("beta_vae_scenes, small, 600 steps a network", "16 in one process", 0.1),
            ("beta_vae_scenes, small, 600 steps a network, MPS", "16 at once", 0.2),
        )
    ]
    rows.append(reference.PACES, table)
    assert reference.pace(stage) == (3000, 16, True)  # MPS, where that is faster
    assert reference.pace(reference.STAGES["compression"]) == (400, 11, False)


def test_nothing_that_a_program_started_outlasts_it(tmp_path: Path) -> None:
    """Else it would slow what is measured next."""
    file = tmp_path / "pid"
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(file)!r}, 'w').write(str(child.pid))\n"
        "print('started', flush=True)\n"
    )
    for rest, seconds, status in (("", 20, 0), ("time.sleep(60)", 2, -9)):
        assert programs.python(("-c", code + rest), seconds) == (status, ["started"])
        until = time.monotonic() + 20
        while runs(int(file.read_text())) and time.monotonic() < until:  # it is being killed
            time.sleep(0.05)
        assert not runs(int(file.read_text()))


def runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.slow
@pytest.mark.timeout(3000)  # check: 13 minutes on two cores
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_for_a_gpu_machine_is_rehearsed(name: str, tmp_path: Path) -> None:
    command, left = PROGRAMS[name]
    cache = os.environ.get("YOTO_BENCH_CACHE", str(Path.home() / ".cache" / "yoto-bench"))
    environment = {"DEVICE": "cpu", "OUT": str(tmp_path), "YOTO_BENCH_CACHE": cache}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "FAIL" not in ended.stdout, ended.stdout[-6000:]
    assert (tmp_path / left).stat().st_size > 0
    if name == "reference":
        with tarfile.open(tmp_path / left) as archive:
            names = archive.getnames()
        assert any(each.endswith("done.json") for each in names)
        assert not any(each.endswith(".safetensors") for each in names)

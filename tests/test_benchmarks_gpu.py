"""The programs for a GPU machine, rehearsed on the CPU: each ends well and leaves its files."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "check": ([sys.executable, "-m", "benchmarks.gpu.check", "2400"], "check.txt"),
    "speed": (["bash", "benchmarks/gpu/speed", "400"], "rows.csv"),
    "reference": (
        [sys.executable, "-m", "benchmarks.gpu.reference", "150", "compression=20"],
        "compression.tar.xz",
    ),
}


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

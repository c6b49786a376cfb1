"""What each job gets of a cluster's nodes, which files go there and back, and what is said where
there is no cluster."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.run import cluster, nodes

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.xdist_group("ray")


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "NodeManagerHostname": name, "Resources": resources}


def test_shares_of_cores_and_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    alike = [node("a", CPU=8), node("b", CPU=8), node("c", alive=False, CPU=2), node("d")]
    whole = cluster.share(alike, "cpu", 1)
    assert whole == cluster.Share(cpus=8, gpus=0, threads=3, crowded=False)
    assert whole.slots(alike) == 2
    assert cluster.share(alike, "cpu", 3) == cluster.Share(cpus=2, gpus=0, threads=3, crowded=True)
    many = cluster.share(alike, "cpu", 16)
    assert (many.cpus, many.threads, many.slots(alike)) == (0.5, 3, 32)
    assert cluster.share([node("a", CPU=4), node("b", CPU=16)], "cpu", 1).crowded  # four on b
    assert cluster.share([node("a", CPU=1), node("a", CPU=1)], "cpu", 1).crowded  # one machine
    unlike = [node("a", CPU=8, memory=16e9), node("b", CPU=64, memory=16e9)]
    four = cluster.share(unlike, "cpu", 4, memory=int(4e9))
    assert (four.cpus, four.memory, four.slots(unlike)) == (2, int(4e9), 8)  # four on each
    assert cluster.share(unlike, "cpu", 1, memory=int(99e9)).slots(unlike) == 2  # one always runs
    gpus = [node("a", CPU=16, GPU=2), node("b", CPU=64)]
    third = cluster.share(gpus, "cuda", 3)
    assert third == cluster.Share(cpus=0, gpus=0.3333, threads=2, crowded=True)
    assert third.slots(gpus) == 6
    assert cluster.share(gpus, "cuda", 1) == cluster.Share(
        cpus=0, gpus=1.0, threads=8, crowded=False
    )
    with pytest.raises(RuntimeError, match="no node with a GPU"):
        cluster.share(alike, "cuda", 1)


def test_what_says_it_is_whole_is_written_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(nodes, "write_atomic", lambda path, data: order.append(path.name))
    files = ["runs/t/m/c/done.json", "runs/t/m/c/model.safetensors", "runs/t/m/c/config.json"]
    records = ["records/t/m/i.json", "records/t/m/i.csv", "records/t/m/i.png"]
    nodes.write_back(tmp_path, dict.fromkeys([*files, *records], b""), [])
    assert set(order[-2:]) == {"done.json", "i.json"}
    for place in ("../x", "/x", "runs/../../x"):
        with pytest.raises(ValueError, match="no place in a results folder"):
            nodes.write_back(tmp_path, {place: b""}, [])


def test_leases_and_torn_files_are_not_carried(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "t"
    folder.mkdir(parents=True)
    for name in ("done.json", ".done.json.7.tmp", "lease.json", "lease.json.a.new", "state.pt"):
        (folder / name).write_text(name)
    assert set(nodes.pack(tmp_path, [folder, tmp_path / "none"])) == {
        "runs/t/done.json",
        "runs/t/state.pt",
    }
    copy = shutil.copytree(folder, tmp_path / "copy" / "runs" / "t")
    nodes.write_back(tmp_path / "copy", {}, ["runs/t/state.pt", "../runs/t/done.json"])
    assert not (copy / "state.pt").exists()
    assert (folder / "done.json").exists()


def test_what_to_do_without_ray_or_beside_a_broken_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["run", "toy", "--preset", "smoke", "--on", "ray", "--out", str(tmp_path / "r")]
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("raise ImportError('needs NumPy 2.0')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "needs NumPy 2.0" in said
    assert "pip uninstall pyarrow" in said
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(words) == 2
    assert "pip install 'yoto-bench[ray]'" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    before = time.monotonic()
    with pytest.raises(RuntimeError, match=r"can be joined at 127\.0\.0\.1:1 .*RAY_ADDRESS"):
        cluster.connect("127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    with pytest.raises(RuntimeError, match=r"joined at 127\.0\.0\.1:2"):
        cluster.connect()
    assert time.monotonic() - before < 30
    assert main(["run", "toy", "--address", "h:1", "--out", "x", "--dry"]) == 2
    assert "needs --on ray" in capsys.readouterr().err

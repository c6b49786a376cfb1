"""GPUs of a Ray cluster, which Ray only counts: a job has the one it was given, in a process that
does several jobs, and what a process holds is given back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from bench.run import capacity, cluster, nodes
from bench.run.schema import Ended, Event

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.xdist_group("ray")
test_ray = pytest.importorskip("test_ray")
VISIBLE = "4,GPU-5"  # as `ray start` was given them: torch counts them from 0
AT_ONCE = 4  # two GPUs, two jobs on each


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    """One of two GPUs, and a head that runs nothing but this process."""
    from ray.cluster_utils import Cluster

    here = {"node_ip_address": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", test_ray.PATH)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        several = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, **here})
        patch.setenv("CUDA_VISIBLE_DEVICES", VISIBLE)
        several.add_node(num_cpus=2, num_gpus=2, **here)
        patch.delenv("CUDA_VISIBLE_DEVICES")
        cluster.connect(several.address)
        yield several
    ray.shutdown()
    several.shutdown()


def work(job: Any, emit: Any, should_stop: Any) -> None:
    """Leaves word of where it runs, and waits for what it is to do."""
    root = Path(job.root)
    word = {"pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
    word |= {"device": job.device, "threads": capacity.threads()}
    (root / f"{job.id}.json").write_text(json.dumps(word))
    wanted = {"meet": AT_ONCE, "wait": 1}.get(job.do, 0)
    pattern = "*meet.json" if job.do == "meet" else "go"
    until = time.monotonic() + 120
    while len(list(root.glob(pattern))) < wanted:
        assert time.monotonic() < until, "the others did not run meanwhile"
        time.sleep(0.02)


def words_of(
    root: Path,
    does: list[str],
    per_device: int,
    look: Callable[[list[Event]], None] | None = None,
    kind: str = "cuda",
) -> list[dict[str, Any]]:
    """Run the jobs; what each left, in their order. `look` sees what was told, now and then."""
    events: list[Event] = []
    share = cluster.share(cluster.nodes(), kind, per_device)
    jobs = test_ray.stands(root, does, device=kind)

    def stop() -> bool:
        if look is not None:
            look(events)
        return False

    nodes.run(jobs, work, events.append, stop, share)
    assert len(test_ray.ends(events, "finished")) == len(jobs), events
    return [json.loads((root / f"{job.id}.json").read_text()) for job in jobs]


def end(processes: set[int]) -> None:
    """They end soon, and with them what CUDA holds for each."""
    until = time.monotonic() + 20
    while any(map(psutil.pid_exists, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, processes))


def test_two_jobs_share_a_gpu_and_their_processes_do_more(node: Any, tmp_path: Path) -> None:
    words = words_of(tmp_path, ["meet"] * AT_ONCE + [""] * 12, per_device=2)
    assert {word["device"] for word in words} == {"cuda"}
    assert sorted(word["gpu"] for word in words[:AT_ONCE]) == ["4", "4", "GPU-5", "GPU-5"]
    places = {(word["pid"], word["gpu"]) for word in words}
    assert len(places) == len({word["pid"] for word in words}) == AT_ONCE  # a GPU for life
    end({pid for pid, _ in places})


def test_others_have_their_turn(node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "TURN", 0.0)
    words = words_of(tmp_path, [""] * 3, per_device=1)
    assert len({word["pid"] for word in words}) == 3


def hold(seconds: float) -> None:
    """What another run does with a GPU."""
    time.sleep(seconds)


def test_a_gpu_without_a_job_is_given_back(node: Any, tmp_path: Path) -> None:
    """To what others run on the cluster, while another job goes on."""
    others: list[Any] = []

    def look(events: list[Event]) -> None:
        if not others and any(isinstance(event, Ended) for event in events):
            others.append(ray.remote(num_gpus=1)(hold).remote(0))
        if others and ray.wait(others, timeout=0)[0]:
            (tmp_path / "go").touch()

    words_of(tmp_path, ["wait", ""], per_device=1, look=look)


def test_a_share_of_several_cores_has_as_many_threads_as_everywhere(
    node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would train other bits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (word,) = words_of(tmp_path, [""], per_device=1, kind="cpu")
    assert word["threads"] == 1


def who_looks(kind: str, gpus: int) -> int:
    """Instead of `cluster.free`: the process, where it sees the node's GPUs."""
    return os.getpid() if (os.environ["CUDA_VISIBLE_DEVICES"], gpus) == (VISIBLE, 2) else 0


def test_who_asks_for_free_memory_sees_all_gpus_and_holds_none(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "free", who_looks)
    busy = ray.remote(num_gpus=2)(hold).remote(60)  # it need not wait for that
    (room,) = cluster.rooms("cuda")
    ray.cancel(busy, force=True)
    assert room.free
    assert room.cores == 1
    end({room.free})


def test_the_fullest_gpu_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: ([70, 50, 10][place], 80))
    assert cluster.free("cuda", 2) == 50  # the third is not Ray's
    assert cluster.free("cuda", 8) == 10


def test_where_ray_hides_no_gpu_a_process_hides_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": ["3"]})
    stand_in = SimpleNamespace(get_runtime_context=lambda: context)
    monkeypatch.setattr(cluster, "ray_module", lambda: stand_in)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    cluster.see_its_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"  # Ray's own affair
    monkeypatch.setenv(cluster.SEES_ALL, "1")
    cluster.see_its_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"

"""On a real Ray cluster of several nodes on this machine: nothing that is lost changes a result."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.run import cluster, nodes, runner
from bench.run.lease import Lease
from bench.run.plan import Experiment, experiment
from bench.run.runner import Run
from bench.run.schedule import Driver
from bench.run.schema import Ended, Event, Job, Plugin, Started, Step, Train, Waiting
from bench.run.work import perform
from bench.train import Interrupted

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.xdist_group("ray")
ROOT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
LONG = 1500  # steps: long enough to be in their midst, seconds
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A head that runs nothing but this process, and two nodes of one core."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)  # nodes have what they were started with
        several = Cluster(initialize_head=True, head_node_args=options)
        for _ in range(2):
            several.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        cluster.connect(several.address)
        yield several
    ray.shutdown()
    several.shutdown()


def planned() -> Experiment:
    """Six networks, one chain among them, that take long enough to be disturbed."""
    found = experiment("toy", "smoke", ["yoto", "fixed_grid", "warm_grid"])
    training = replace(found.task.training, steps=LONG)
    return replace(found, task=replace(found.task, training=training))


def watched(job: Job, emit: Any, should_stop: Any) -> None:
    """`perform` with frequent checkpoints, leaving word where it ran and from what it went on."""
    import bench.train

    bench.train.CHECKPOINT_SECONDS = 0.1
    root = Path(job.root)
    word = {
        "job": job.id,
        "node": ray.get_runtime_context().get_node_id(),
        "pid": os.getpid(),
        "root": job.root,
        "begun": any((root / place / "state.pt").exists() for place in job.uses[:1]),
    }
    (root / "words").mkdir(parents=True, exist_ok=True)
    (root / "words" / f"{time.time_ns()} {job.id}").write_text(json.dumps(word))
    perform(job, emit, should_stop)


def words(root: Path) -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(root.glob("words/*"))]
    return [json.loads(text) for text in texts if text]


def contents(root: Path) -> dict[str, bytes]:
    """All that must not differ: weights and records."""
    paths = [*root.glob("runs/*/*/*/*.safetensors"), *root.glob("records/*/*/*.csv")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def go(root: Path, on: str, stop: Callable[[], bool] = lambda: False) -> Run:
    run = Run(root, [planned()], CPU, on, per_device=1)
    run.complete(stop)
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("here")
    assert go(root, "here").failures == []
    found = contents(root)
    assert sorted(Path(name).suffix for name in found) == [".csv"] * 13 + [".safetensors"] * 6
    return found


def left_clean(root: Path) -> None:
    left = [*root.glob("**/lease*"), *root.glob("**/*.tmp"), *root.glob(".ray-*")]
    assert not [*left, *root.glob("**/state.*")]


def test_a_node_lost_in_mid_training_changes_no_bit(
    head: Any, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "perform", watched)
    lost: list[str] = []

    def tick() -> bool:
        """Once a network has a checkpoint, the node it is on is killed, and another one joins."""
        for state in tmp_path.glob("runs/*/*/*/state.pt") if not lost else ():
            where = [word["node"] for word in words(tmp_path) if word["job"] == state.parent.name]
            if where and not (state.parent / "done.json").exists():
                lost.append(state.parent.name)
                (node,) = [node for node in head.worker_nodes if node.node_id == where[-1]]
                head.remove_node(node)
                head.add_node(num_cpus=1, node_ip_address="127.0.0.1")
                break
        return False

    assert go(tmp_path, "ray", tick).failures == []
    first, *again = [word for word in words(tmp_path) if word["job"] in lost]
    assert again
    assert again[-1]["begun"]  # it went on from the checkpoint
    assert again[-1]["pid"] != first["pid"]
    assert {word["root"] for word in words(tmp_path)} == {str(tmp_path)}
    assert len({word["node"] for word in words(tmp_path)}) >= 2
    assert contents(tmp_path) == undisturbed
    left_clean(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs a path of two meanings")
def test_without_a_shared_folder_the_bytes_come_back(
    head: Any, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This path means another folder in every process that was started elsewhere."""
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    root = Path("/proc/self/cwd/results")
    monkeypatch.setattr(runner, "perform", watched)
    assert go(root, "ray").failures == []
    roots = [Path(word["root"]) for word in words(tmp_path / "results")]
    assert len({word["job"] for word in words(tmp_path / "results")}) == 6 + 13
    assert root not in roots
    assert not [folder for folder in roots if folder.exists()]
    assert contents(tmp_path / "results") == undisturbed
    left_clean(tmp_path / "results")


def drive(root: str, address: str) -> None:
    """A driver of its own, until everything is done."""
    runner.perform = watched  # type: ignore[assignment]
    cluster.connect(address)
    run = go(Path(root), "ray")
    sys.exit(len(run.failures))


def driver(root: Path, address: str, command: str = "drive") -> subprocess.Popen:
    code = f"import sys, test_ray; test_ray.{command}(*sys.argv[1:])"
    words = [sys.executable, "-W", "ignore", "-c", code, str(root), address]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    where = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=where, start_new_session=True, **both)


def wait_for(there: Callable[[], Any], process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not there() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.02)
    assert there()


def test_a_killed_driver_comes_back_and_goes_on(
    head: Any, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    first = driver(tmp_path, head.address)
    wait_for(lambda: list(tmp_path.glob("runs/*/*/*/state.pt")), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(list(tmp_path.glob("runs/*/*/*/done.json"))) < 6
    second = driver(tmp_path, head.address)
    output = second.communicate(timeout=300)[0].decode()
    assert second.returncode == 0, output
    assert contents(tmp_path) == undisturbed
    for log in tmp_path.glob("runs/*/*/*/log.jsonl"):  # nobody else trained it meanwhile
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == sorted(set(steps)), log
    for killed in tmp_path.glob(".ray-*"):  # its token: it could not take it away
        killed.unlink()
    left_clean(tmp_path)


# Stand-ins for networks


class Stand(Job, kw_only=True):
    """A stand-in for a network. `do`: what `work` does instead of training."""

    do: str
    task: Plugin | None = None


class Cell(Train, kw_only=True):
    do: str = "work"
    cell: Any = None


def work(job: Any, emit: Any, should_stop: Any) -> None:
    mark = Path(job.root) / job.id
    before = mark.exists()
    mark.touch()
    emit(Step(job=job.id, step=1, steps=0, loss=0, examples_per_second=0, seconds_left=0))
    if job.do == "die" or (job.do == "die once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if job.do == "fail":
        raise ValueError("as asked [/x]")
    until = time.monotonic() + 60
    while job.do in ("wait", "hang") and time.monotonic() < until:
        if job.do == "wait" and should_stop():
            raise Interrupted("state saved")
        time.sleep(0.02)


def events_of(
    jobs: list[Any], stop: Callable[[list], bool] = lambda events: False, limit: float = math.inf
) -> list[Event]:
    events: list[Event] = []
    share = cluster.share(cluster.nodes(), "cpu", 1)
    nodes.run(jobs, work, events.append, lambda: stop(events), share, limit)
    return events


def stands(root: Path, does: list[str], **more: Any) -> list[Stand]:
    more = {"label": "", "root": str(root), "device": "cpu", **more}
    return [Stand(id=f"{place} {do}", do=do, **more) for place, do in enumerate(does)]


def ends(events: list[Event], how: str) -> dict[str, str]:
    """Of the jobs that ended so, their reasons."""
    return {e.job: e.reason for e in events if isinstance(e, Ended) and e.how == how}


def test_a_death_is_tried_again_a_failure_is_not(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes.Ray, "retries", 1)
    events = events_of(stands(tmp_path, ["die", "fail", "die once", "work"]))
    assert set(ends(events, "finished")) == {"2 die once", "3 work"}
    failed = ends(events, "failed")
    assert failed["1 fail"] == "ValueError: as asked [/x]"
    assert failed["0 die"].startswith("its process died, 2 times")
    assert sorted(e.job for e in events if isinstance(e, Waiting)) == ["0 die", "2 die once"]
    assert len([e for e in events if isinstance(e, Started) and e.job == "1 fail"]) == 1


def test_one_that_hangs_is_killed_and_the_others_go_on(head: Any, tmp_path: Path) -> None:
    events = events_of(stands(tmp_path, ["hang", "work", "work"]), limit=3)
    assert "timeout: not done after 3 seconds" in ends(events, "failed")["0 hang"]
    assert len(ends(events, "finished")) == 2
    again = events_of(stands(tmp_path, ["work", "work"]))  # and its place is free again
    assert len(ends(again, "finished")) == 2


class SlowAtFirst(nodes.Mailbox):
    posts = 0

    def post(self, events: list) -> bool:
        self.posts += 1
        time.sleep(4 if self.posts <= 2 else 0)
        return super().post(events)


def test_a_stop_lets_jobs_save_and_begins_no_more(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a third begin beside the first two while these wait for an answer."""
    monkeypatch.setattr(nodes, "Mailbox", SlowAtFirst)
    begun = lambda events: sum(isinstance(e, Step) for e in events) >= 2  # noqa: E731
    events = events_of(stands(tmp_path, ["wait"] * 8), begun)
    assert set(ends(events, "stopped")) == {"0 wait", "1 wait"}
    assert len([e for e in events if isinstance(e, Started)]) == 2
    assert not ends(events, "finished")


def test_few_of_many_jobs_are_handed_over_at_once(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, fill = [0], Driver._fill

    def counted(self: Driver) -> None:
        fill(self)
        at_once.append(len(self.at_work))

    monkeypatch.setattr(Driver, "_fill", counted)
    events = events_of(stands(tmp_path, ["work"] * 40))
    assert len(ends(events, "finished")) == 40
    assert 2 <= max(at_once) <= 4


def test_another_runs_lease_is_kept_where_no_folder_is_shared(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes.Path, "touch", lambda *_: None)  # nobody sees the token
    (tmp_path / "cell").mkdir()
    other = Lease(tmp_path / "cell" / "lease.json").hold()
    other.__enter__()

    def released(events: list[Event]) -> bool:
        if len([e for e in events if isinstance(e, Waiting)]) == 2:
            other.__exit__(None, None, None)
            events.append(Event(job="released"))
        return False

    job = Cell(id="a", label="", root=str(tmp_path), device="cpu", uses=("cell",))
    events = events_of([job], released)
    reason = next(e.reason for e in events if isinstance(e, Waiting))
    assert f"process {os.getpid()} on " in reason
    assert ends(events, "finished")
    assert not (tmp_path / "cell" / "lease.json").exists()


def test_a_plug_in_runs_where_it_is_and_is_missed_where_it_is_not(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    nowhere = Plugin(target="/no/where/mine.py:Mine", fields={})
    failed = ends(events_of(stands(tmp_path, ["work"], task=nowhere)), "failed")
    assert "the plug-in /no/where/mine.py is not on the node" in failed["0 work"]
    task = tmp_path / "mytask.py"
    assert main(["new", str(task)]) == 0
    monkeypatch.chdir(tmp_path)  # nodes are elsewhere, and see the folder all the same
    monkeypatch.setattr(nodes.Ray, "_send_along", None)
    run = Run(Path("r"), [experiment(str(task), "smoke", ["fixed_grid"], 1)], CPU, "ray", 1)
    run.execute(run.train_jobs(), "training", lambda: False)
    assert run.failures == []
    assert len(list(tmp_path.glob("r/runs/mytask/fixed_grid/*/done.json"))) == 1


def test_every_node_that_can_run_says_what_is_free(head: Any) -> None:
    found = cluster.rooms("cpu")
    assert [each.cores for each in found] == [1, 1]
    assert all(each.free > 2**20 for each in found)
    assert cluster.rooms("cuda") == []
    assert cluster.device("auto") == "cpu"
    with pytest.raises(ValueError, match="has no GPU"):
        cluster.device("cuda")
    with pytest.raises(ValueError, match="Ray chooses among GPUs"):
        cluster.device("cuda:1")


def test_where_the_code_is_missing_that_is_said(
    head: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    code = "def work(job, emit, should_stop): pass\nclass Server:\n    def serve(self, *_): pass"
    (tmp_path / "only_here.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    share = cluster.share(cluster.nodes(), "cpu", 1)
    for job in ("of the job", "of the process"):
        events: list[Event] = []
        nodes.run(stands(tmp_path, [job]), only_here.work, events.append, lambda: False, share)
        (reason,) = ends(events, "failed").values()
        assert "No module named 'only_here': the suite and what it needs must be" in reason
        assert "\n" not in reason
        monkeypatch.setattr(nodes, "Server", only_here.Server)


def command(root: str, address: str) -> None:
    """As a user gives it, on a cluster of its own, with networks that never end by themselves."""
    from bench.tasks.toy import Toy

    presets = Toy.presets()
    training = replace(presets["smoke"].task.training, steps=10**6)
    task = replace(presets["smoke"].task, training=training)
    Toy.presets = classmethod(lambda cls: {"smoke": replace(presets["smoke"], task=task)})
    words = ["run", "toy", "--preset", "smoke", "--methods", "yoto,fixed_grid", "--on", "ray"]
    sys.exit(main([*words, "--address", address, "--out", root]))


def test_ctrl_c_reaches_the_terminals_processes_and_everything_is_saved(tmp_path: Path) -> None:
    process = driver(tmp_path, "local", "command")
    wait_for(lambda: list(tmp_path.glob("runs/*/*/*/log.jsonl")), process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 130, output
    assert "Ray at local" in output
    assert "stopped, everything done so far is kept" in output
    assert len(list(tmp_path.glob("runs/*/*/*/state.pt"))) == 1  # the first runs alone
    assert not list(tmp_path.glob("runs/*/*/*/lease*"))

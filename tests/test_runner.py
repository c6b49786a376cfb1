"""What is measured beside the compared settings: between and beyond them, and during training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.files import read_object
from bench.method import build
from bench.report.load import load_results
from bench.run.plan import experiment
from bench.run.records import picture_is_whole
from bench.run.runner import Run
from bench.run.schema import AxisStyle, Damaged, Display, Done, Head, read
from bench.run.store import Store
from bench.run.work import perform
from bench.space import Axis, Space
from bench.train import Interrupted, fit, out_of_memory

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy with snapshots at a quarter and a half."""
    root = tmp_path_factory.mktemp("runner") / "results"
    found = replace(
        experiment("toy", "smoke", ["yoto", "fixed_grid", "single_model"]), snapshots=(0.25, 0.5)
    )
    run = Run(root, [found], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert run.failures == []
    assert run.record_jobs() == []
    return root


def test_a_sweep_stands_between_the_settings_and_beyond_the_range() -> None:
    one = Space((Axis(name="a", low=0.1, high=10.0),))
    assert one.sweep(one.grid(3)) == ((0.0316,), (0.316,), (3.16,), (31.6,))
    two = Space((Axis(name="a", low=0.1, high=10.0), Axis(name="b", low=1.0, high=4.0)))
    held = two.sweep(((0.1, 2.0), (1.0, 2.0), (10.0, 2.0)))
    assert held == ((0.0316, 2.0), (0.316, 2.0), (3.16, 2.0), (31.6, 2.0))
    both = two.sweep(two.one_at_a_time())
    assert len(both) == 8
    assert {setting[1] for setting in both if setting[0] == 1.0} == {0.707, 1.41, 2.83, 5.66}
    assert two.sweep(((1.0, 2.0),)) == ()


def test_conditioned_networks_are_swept_and_flagged_outside(done: Path) -> None:
    (run,) = load_results(done).runs
    assert set(run.swept["method"]) == {"yoto"}
    assert len(run.swept) == 4
    assert sorted(map(len, run.swept["outside"])) == [0, 0, 1, 1]
    assert set(run.swept_records["setting"]) == set(run.swept["setting"])
    assert set(run.measured["setting"]) == {"nearness=0.1", "nearness=1", "nearness=10"}


def test_snapshots_are_the_network_on_its_way(done: Path, tmp_path: Path) -> None:
    (run,) = load_results(done).runs
    shares = run.snapshots.groupby("method")["share"].agg(["nunique", "size"])
    assert shares.loc["yoto"].tolist() == [2, 6]
    assert shares.loc["fixed_grid"].tolist() == [2, 6]
    assert "single_model" not in shares.index  # the grid's own network, measured there
    loss = run.snapshot_records[run.snapshot_records["measure"] == "loss"]
    loss = loss.merge(run.snapshots[["entry", "share"]], on="entry").groupby(["method", "share"])
    final = run.records[run.records["measure"] == "loss"].groupby("method")["value"].mean()
    assert loss["value"].mean()["fixed_grid", 0.25] > final["fixed_grid"]

    (cell,) = experiment("toy", "smoke", ["yoto"]).cells
    kept = {}
    network = build(cell)

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        return cell.method.draw(cell, count, generator)

    def keep(trained: torch.nn.Module) -> None:
        kept["half"] = {k: v.clone() for k, v in trained.state_dict().items()}

    fit(cell.task, network, draw, cell.seed, CPU, tmp_path, snapshots={150: keep})
    stored = Store(done).network(cell, 0.5).state_dict()
    assert all(torch.equal(value, kept["half"][name]) for name, value in stored.items())


def test_cells_without_snapshots_are_not_measured_at_them(tmp_path: Path) -> None:
    plain = experiment("toy", "smoke", ["yoto"])
    first = Run(tmp_path, [plain], CPU)
    first.execute(first.train_jobs(), "training", lambda: False)
    asked = Run(tmp_path, [replace(plain, snapshots=(0.5,))], CPU)
    assert asked.train_jobs() == []
    assert {job.head.kind for job in asked.record_jobs()} == {"method", "swept"}


def test_a_damaged_end_of_a_cell_is_put_aside_and_the_cell_trained_anew(
    done: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(done, tmp_path / "results")
    found = replace(experiment("toy", "smoke", ["yoto"]), snapshots=(0.25, 0.5))
    path = Store(root).folder(found.cells[0]) / "done.json"
    text = path.read_text()
    assert '"steps": 300' in text
    for broken in (text[:100], text.replace('"steps": 300', '"steps": 301')):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"done\.json is damaged"):
            load_results(root)
        run = Run(root, [found], CPU)
        with pytest.warns(
            UserWarning, match=r"kept as done\.damaged and this cell is trained anew"
        ):
            (job,) = run.train_jobs()
        run.execute([job], "training", lambda: False)
        assert read_object(path)["model_sha256"] == json.loads(text)["model_sha256"]
    assert run.record_jobs() == []  # the same weights


@pytest.mark.parametrize(
    ("old", "new"), [('"seed": 0', '"seed": 1'), ("nearness=0.1", "nearness=0.3"), ("{", "")]
)
def test_a_changed_head_of_a_record_is_noticed(
    done: Path, tmp_path: Path, old: str, new: str
) -> None:
    root = shutil.copytree(done, tmp_path / "results")
    found = replace(experiment("toy", "smoke", ["yoto"]), snapshots=(0.25, 0.5))
    text = lambda path: path.read_text()  # noqa: E731
    path = min(p for p in root.glob("records/toy/yoto/*.json") if old in text(p))
    path.write_text(text(path).replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"{path.name} is damaged.*delete it and run again"):
        load_results(root)
    (job,) = Run(root, [found], CPU).record_jobs()
    assert root / job.path == path


def test_a_changed_picture_is_noticed_and_a_deleted_one_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "records/toy/yoto/x.json"
    axes = (AxisStyle(name="a", low=0.1, high=1.0),)
    head = Head(
        id="x",
        task="toy",
        preset="smoke",
        experiment="e",
        method="yoto",
        seed=0,
        setting="a=1",
        cells=("c",),
        display=Display(measures={}, axes=axes),
    )
    Store(tmp_path).write_records(path, head, [], b"picture")
    digest = read(path, Head).picture_sha256
    assert picture_is_whole(path, digest)
    path.with_suffix(".png").write_bytes(b"picturf")
    assert not picture_is_whole(path, digest)
    path.with_suffix(".png").unlink()
    assert picture_is_whole(path, digest)


def test_a_failure_that_cannot_be_noted_stops_nothing(tmp_path: Path, capsys) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["fixed_grid"])], CPU)
    jobs = run.train_jobs()
    jobs[0].cell.id = "another"
    (tmp_path / "failures.log").mkdir()  # a write to it fails
    run.execute(jobs, "training", lambda: False)
    assert len(run.missing_cells()) == 1
    assert "cannot be made again" in run.failures[0]
    assert "failures.log" in run.failures[1]


def test_memory_that_is_short_on_a_cpu_is_called_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("the shapes do not fit"))


def test_a_snapshot_damaged_before_its_network_was_done_is_not_taken_for_the_result(
    tmp_path: Path,
) -> None:
    found = replace(experiment("toy", "smoke", ["yoto"]), snapshots=(0.5,))
    run, seen = Run(tmp_path, [found], CPU), []
    (job,) = run.train_jobs()

    def late() -> bool:
        seen.append(1)
        return len(seen) == 200

    with pytest.raises(Interrupted):
        perform(job, lambda event: None, late)
    path = Store(tmp_path).folder(found.cells[0]) / "model-0.5.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    perform(job, lambda event: None, lambda: False)
    assert set(read(path.with_name("done.json"), Done).snapshots) == {"0.5"}
    with pytest.raises(Damaged, match=r"model-0\.5\.safetensors is damaged"):
        Store(tmp_path).network(found.cells[0], 0.5)


def test_a_damaged_configuration_is_written_again(tmp_path: Path) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["yoto"])], CPU)
    (job,) = run.train_jobs()
    config = Store(tmp_path).folder(run.experiments[0].cells[0]) / "config.json"
    text = config.read_bytes()
    config.write_bytes(text[:-9])
    perform(job, lambda event: None, lambda: False)
    assert config.read_bytes() == text


def test_what_another_run_is_writing_is_not_tidied_away(tmp_path: Path) -> None:
    (cell,) = experiment("toy", "smoke", ["yoto"]).cells
    folder = Store(tmp_path).prepare(cell, "smoke")
    for name in (".config.json.ab12.tmp", ".state.pt.ab12.tmp"):
        (folder / name).touch()
    Store(tmp_path).tidy(cell)
    assert sorted(p.name for p in folder.iterdir()) == [".config.json.ab12.tmp", "config.json"]


def test_a_damaged_snapshot_is_noticed(done: Path, tmp_path: Path) -> None:
    root = shutil.copytree(done, tmp_path / "results")
    cell = experiment("toy", "smoke", ["yoto"]).cells[0]
    folder = Store(root).folder(cell)
    done_json = read(folder / "done.json", Done)
    assert set(done_json.snapshots) == {"0.25", "0.5"}
    assert done_json.weights_sha256(0.25) == done_json.snapshots["0.25"] != done_json.model_sha256
    path = folder / "model-0.5.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=r"model-0\.5\.safetensors is damaged"):
        Store(root).network(cell, 0.5)

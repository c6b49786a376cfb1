"""What is measured beside the compared settings: between and beyond them, and during training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.method import build
from bench.report.load import load_results
from bench.runner import Run, experiment
from bench.space import Axis, Space
from bench.store import Store, weights_digest
from bench.train import fit

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
    assert {job["head"]["kind"] for job in asked.record_jobs()} == {"method", "swept"}


def test_a_damaged_snapshot_is_noticed(done: Path, tmp_path: Path) -> None:
    import shutil

    from bench.store import Damaged

    root = shutil.copytree(done, tmp_path / "results")
    cell = experiment("toy", "smoke", ["yoto"]).cells[0]
    folder = Store(root).folder(cell)
    digests = json.loads((folder / "done.json").read_text())["snapshots"]
    assert set(digests) == {"0.25", "0.5"}
    assert weights_digest({"snapshots": digests}, 0.25) == digests["0.25"]
    path = folder / "model-0.5.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=r"model-0\.5\.safetensors is damaged"):
        Store(root).network(cell, 0.5)

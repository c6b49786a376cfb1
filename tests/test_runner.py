"""A run: what it measures, and what becomes of files that are damaged."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from bench import Examples
from bench.cost import out_of_memory
from bench.files import read_object, sealed
from bench.report.load import load_results
from bench.run.plan import experiment
from bench.run.records import picture_is_whole
from bench.run.runner import Run
from bench.run.schema import (
    AxisStyle,
    Damaged,
    Display,
    Done,
    Ended,
    Head,
    Ledger,
    RunConfig,
    read,
    to_plain,
)
from bench.run.store import Store
from bench.run.work import perform

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runner") / "results"
    found = experiment("toy", "smoke", ["yoto", "fixed_grid", "single_model"])
    run = Run(root, [found], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert run.failures == []
    assert run.record_jobs() == []
    return root


def test_conditioned_networks_are_swept_and_flagged_outside(done: Path) -> None:
    (run,) = load_results(done).runs
    assert set(run.swept["method"]) == {"yoto"}
    assert len(run.swept) == 4
    assert sorted(map(len, run.swept["outside"])) == [0, 0, 1, 1]
    assert set(run.swept_records["setting"]) == set(run.swept["setting"])
    assert set(run.measured["setting"]) == {"nearness=0.1", "nearness=1", "nearness=10"}


def test_a_split_without_an_example_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examples, "examples", lambda self: iter(()))
    found = experiment("toy", "smoke", ["yoto"], split="validation")
    with pytest.raises(ValueError, match="split 'validation' of the task 'toy' holds no example"):
        Run(tmp_path, [found], CPU).open_data()


def test_a_damaged_end_of_a_cell_is_put_aside_and_the_cell_trained_anew(
    done: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(done, tmp_path / "results")
    found = experiment("toy", "smoke", ["yoto"])
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
    found = experiment("toy", "smoke", ["yoto"])
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
        id="x", task="toy", preset="smoke", experiment="e", method="yoto", seed=0, setting="a=1",
        cells=("c",), display=Display(measures={}, axes=axes),
    )  # fmt: skip
    Store(tmp_path).write_records(path, head, [], b"picture")
    digest = read(path, Head).picture_sha256
    assert picture_is_whole(path, digest)
    path.with_suffix(".png").write_bytes(b"picturf")
    assert not picture_is_whole(path, digest)
    path.with_suffix(".png").unlink()
    assert picture_is_whole(path, digest)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"seed": -1}, "`$.seed`"),
        ({"seed": True}, "`$.seed`"),
        ({"id": "a\0"}, "`$.id`"),
        ({"id": "\ud800"}, "`$.id`"),
        ({"status": "fine"}, "`$.status`"),
        ({"reason": "x" * 4001}, "`$.reason`"),
        ({"trained_for": [[1.0], ["x"]]}, "`$.trained_for[1][0]`"),
        ({"trained_for": [[1e31]]}, "`$.trained_for[0][0]`"),
        ({"ledger": {"seconds": {"train": math.nan}}}, "`$.ledger.seconds[...]`"),
        ({"ledger": {"steps": 2**62}}, "`$.ledger.steps`"),
        ({"ledger": {"flops": 10**31}}, "`$.ledger`"),
    ],
)
def test_what_no_table_can_take_is_refused_with_its_place(
    tmp_path: Path, change: dict[str, object], where: str
) -> None:
    path = tmp_path / "done.json"
    done = Done(
        id="x", task="toy", preset="smoke", method="yoto", seed=0, trained_for=((1.0,),),
        status="done", ledger=Ledger(flops=10**29),
    )  # fmt: skip
    path.write_text(sealed(to_plain(done)))
    assert read(path, Done) == done
    path.write_text(sealed({**to_plain(done), **change}))
    with pytest.raises(Damaged) as caught:
        read(path, Done)
    assert where in str(caught.value)
    assert "delete it and run again" in str(caught.value)


def test_what_is_stored_of_long_texts_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run_bench.py", *["--seeds"] * 2000])
    run = Run(tmp_path, [experiment("toy", "smoke", ["yoto", "fixed_grid"])], CPU)
    first = run.experiments[0].cells[0]
    run.store.prepare(first, "smoke")
    run.store.give_up(first, "smoke", "not finite " * 1000, Ledger())
    ended = run.store.result(first)
    assert ended is not None
    assert str(ended.reason).startswith("not finite not finite")
    assert len(str(ended.provenance.command)) == 4000
    job = run.record_jobs()[0]
    run._note_failure(Ended(job=job.id, how="failed", reason="x" * 5000), job)
    (row,) = load_results(tmp_path).measured.to_dict("records")
    assert row["status"] == "failed"
    assert row["reason"].startswith("xxx")


def test_a_chain_says_once_what_diverged(tmp_path: Path) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["warm_grid"], settings=4)], CPU)
    jobs = run.train_jobs()
    chain = max((cell.chain for cell in run.experiments[0].cells), key=len)
    assert len(chain) == 3
    run.store.give_up(chain[0], "smoke", "not finite", Ledger())
    for cell in chain[1:]:
        (job,) = (job for job in jobs if job.id == cell.id)
        perform(job, lambda event: None, lambda: False)
        ended = run.store.result(cell)
        assert ended is not None
        assert ended.reason == "what it starts from diverged: not finite"


def test_a_result_of_another_version_is_neither_read_nor_put_aside(tmp_path: Path) -> None:
    run = Run(tmp_path, [experiment("toy", "smoke", ["yoto"])], CPU)
    (job,) = run.train_jobs()
    perform(job, lambda event: None, lambda: False)
    path = run.store.folder(run.experiments[0].cells[0]) / "done.json"
    content = {k: v for k, v in read_object(path).items() if k != "check"}
    path.write_text(sealed({**content, "status": "stopped early"}))
    with pytest.raises(Damaged, match="use the version of the suite that wrote it"):
        run.train_jobs()
    assert "stopped early" in path.read_text()


def test_a_changed_configuration_of_a_run_is_noticed(tmp_path: Path) -> None:
    path = Run(tmp_path, [experiment("toy", "smoke", ["yoto"])], CPU).save_config()
    assert read(path, RunConfig).experiments[0].preset == "smoke"
    path.write_text(path.read_text().replace('"steps": 300', '"steps": 301'))
    with pytest.raises(Damaged):
        read(path, RunConfig)


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

"""What is done per cell does not depend on how many cells there are: counted, not timed."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bench.method
import bench.run.store
from bench.method import Cell
from bench.registry import method, preset, task_class
from bench.run import plan, runner, schedule
from bench.run.board import LONGEST, Board
from bench.run.folders import merge
from bench.run.lease import Busy
from bench.run.records import Record, dumps, loads
from bench.run.schema import CellConfig, Ended, Job, Started, Waiting, from_plain, plain
from bench.run.store import Store, cell_config, cell_from
from benchmarks import growth

TOY = preset(task_class("toy"), "smoke").task


def stand(name: str, after: str | None = None, kind: type[Job] = Job) -> Job:
    return kind(id=name, label=f"job {name}", root="", device="cpu", after=after)


LOOKS = [0]


class Looked(Job, kw_only=True):
    """A job that counts how often anybody looks at it."""

    def __getattribute__(self, name: str) -> Any:
        LOOKS[0] += 1
        return super().__getattribute__(name)


def looks(count: int, length: int) -> int:
    """How often jobs are looked at while `count` of them, in chains of `length`, are done."""
    jobs = growth.chained([stand(str(place), kind=Looked) for place in range(count)], length)
    done: list[str] = []
    LOOKS[0] = 0
    schedule.here(jobs, growth.idle, lambda event: done.append(event.job), lambda: False)
    looked = LOOKS[0]
    assert list(dict.fromkeys(done)) == [str(place) for place in range(count)]
    return looked


@pytest.mark.parametrize("length", [1, 10, 200])
def test_dispatch_looks_at_each_job_a_few_times(length: int) -> None:
    assert looks(800, length) == 4 * looks(200, length)


def test_a_queue_gives_children_after_their_parents_and_busy_ones_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "RETRY", 0.0)
    jobs = [stand("a"), stand("b", "a"), stand("c", "gone"), stand("d", "b")]
    queue = schedule.Queue(jobs)
    a = queue.take()
    assert a == jobs[0]
    queue.postpone(a)
    assert [queue.take(), queue.take()] == [jobs[2], jobs[0]]
    assert queue.take() is None
    assert len(queue) == 2
    queue.ended(jobs[0])
    assert queue.take() == jobs[1]
    assert queue.take() is None
    queue.ended(jobs[1])
    assert queue.take() == jobs[3]
    assert not queue


def test_a_busy_parent_holds_its_children_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY", 0.01)
    tried: list[str] = []

    def work(job: Job, emit: Any, should_stop: Any) -> None:
        tried.append(job.id)
        if tried.count("parent") == 1 and job.id == "parent":
            raise Busy("another run has it")

    jobs = [stand("parent"), stand("child", "parent"), stand("other")]
    schedule.here(jobs, work, lambda event: None, lambda: False)
    assert tried == ["parent", "other", "parent", "child"]


class Rows(dict):
    """The rows of a board, counting how many are gone through."""

    seen = 0

    def values(self) -> Any:
        for value in super().values():
            self.seen += 1
            yield value


@pytest.mark.parametrize("terminal", [False, True])
def test_the_board_does_not_go_through_its_rows(terminal: bool) -> None:
    jobs = [stand(str(place)) for place in range(50)]
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    board = Board("training", jobs, console)
    board.rows = Rows(board.rows)
    with board:
        schedule.here(jobs, growth.idle, board.handle, lambda: False)
        first = board.rows.seen
        for _ in range(20):
            table = board._table()
    assert board.rows.seen == first <= 2  # one row is shown while all wait
    assert str(table.title).startswith("training: 50 of 50")
    assert table.row_count == LONGEST + 1
    shown = [str(cell) for cell in table.columns[0].cells]
    assert shown[-2:] == ["job 49", "… 38 above, 0 waiting"]


def test_the_board_shows_running_jobs_below_those_that_ended() -> None:
    jobs = [stand(str(place)) for place in range(30)]
    board = Board("training", jobs, Console(file=io.StringIO(), force_terminal=True))
    with board:
        for place in range(20):
            board.handle(Started(job=str(place)))
        for place in range(1, 20):
            board.handle(Ended(job=str(place), how="finished"))
        board.handle(Started(job="20"))
        board.handle(Waiting(job="20", reason="another run has it"))
        shown = [str(cell) for cell in board._table().columns[0].cells]
    assert shown[:-1] == [f"job {place}" for place in range(9, 20)] + ["job 0"]
    assert shown[-1] == "… 8 above, 10 waiting"


def counted(monkeypatch: pytest.MonkeyPatch, places: dict[Any, str]) -> dict[str, int]:
    """Count the calls of functions, by name."""
    counts = dict.fromkeys(places.values(), 0)

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            counts[name] += 1
            return real(*values, **named)

        return call

    for module, name in places.items():
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return counts


def test_planning_and_looking_again_grow_with_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked = {}, []
    cells = plan.Experiment.cells.func
    watched = property(lambda each: asked.append(1) or cells(each))
    for count in (20, 80):
        root = tmp_path / str(count)
        run = growth.grid(root, count)
        growth.stored(run)
        growth.measured(run, run.record_jobs(), examples=1, measures=2)
        with monkeypatch.context() as patch:
            counts = counted(
                patch,
                {bench.method: "content_id", bench.run.store: "read_json", runner.Store: "result"},
            )
            asked.clear()
            patch.setattr(plan.Experiment, "cells", watched)
            again = growth.grid(root, count)
            assert again.train_jobs() == []
            assert again.record_jobs() == []
        found[count] = [*counts.values(), len(asked)]
    few, many = found[20], found[80]
    assert many[:-1] == [4 * number for number in few[:-1]]
    assert few[:-1] == [20, 40, 40]  # one identity, and its result for training and measuring
    assert many[-1] == few[-1]  # all cells are gone through as often, however many there are


def test_a_whole_id_is_found_without_listing_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = growth.grid(tmp_path, 20)
    run.train_jobs()
    store, cell = Store(tmp_path), run.experiments[0].cells[7]
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": listed.append(str(path)) or real(path))
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": listed.append(str(path)) or names(path))
    assert store.find(cell.id) == store.folder(cell)
    assert str(store.folder(cell).parent) not in listed
    assert store.find(cell.id[:10]) == store.folder(cell)
    assert str(store.folder(cell).parent) in listed
    with pytest.raises(ValueError, match="20 cells in"):
        store.find("")


def test_merging_lists_each_folder_of_records_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = growth.grid(tmp_path / "one", 20)
    growth.stored(run)
    growth.measured(run, run.record_jobs(), examples=1, measures=2)
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": listed.append(str(path)) or real(path))
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": listed.append(str(path)) or names(path))
    assert merge([tmp_path / "one"], tmp_path / "two") == (20, 20)
    assert listed.count(str(tmp_path / "one/records/toy/fixed_grid")) == 1
    assert len(list((tmp_path / "two").glob("records/toy/fixed_grid/*.csv"))) == 20


def chain(count: int) -> list[Cell]:
    cells: list[Cell] = []
    for place in range(count):
        name = "warm_grid" if place else "fixed_grid"
        cells.append(
            Cell(
                task=TOY if not place else cells[1].task if place > 1 else TOY.lasting(0.1),
                method=method(name) if place < 2 else cells[1].method,
                seed=0,
                trained_for=((1 + place / 1000,),),
                after=cells[-1] if place else None,
            )
        )
    return cells


def test_a_long_chain_is_a_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, calls = {}, {}
    for count in (300, 1200):  # nested, the longer one would be too deep for Python and for JSON
        with monkeypatch.context() as patch:
            counts = counted(patch, {bench.method: "content_id", bench.run.store: "describe"})
            last = chain(count)[-1]
            text = json.dumps(plain(cell_config(last, "smoke")))
            again = cell_from(from_plain(json.loads(text), CellConfig))
            calls[count] = counts
        assert again.id == last.id
        assert [cell.id for cell in again.chain] == [cell.id for cell in last.chain]
        sizes[count] = len(text)
    assert sizes[1200] < 4.1 * sizes[300]
    assert calls[300] == {"content_id": 600, "describe": 4}
    assert calls[1200] == {"content_id": 2400, "describe": 4}


def test_a_changed_ancestor_is_noticed() -> None:
    config = json.loads(json.dumps(cell_config(chain(3)[-1], "smoke")))
    assert [set(part) for part in config["before"]] == [
        {"id", "seed", "trained_for"},
        {"id", "seed", "trained_for", "task", "method"},
    ]
    config["before"][1]["seed"] = 1
    with pytest.raises(ValueError, match="cannot be made again"):
        cell_from(config)
    del config["before"]
    with pytest.raises(ValueError, match="no cell's configuration"):
        cell_from(config)


def test_settings_that_were_trained_for_need_no_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TOY.space.grid(50)
    cells = method("fixed_grid").plan(TOY, settings, 0)
    with monkeypatch.context() as patch:
        patch.setattr(type(TOY.space), "distance", lambda *_: pytest.fail("a distance"))
        found = [method("fixed_grid").cells_at(TOY, cells, setting) for setting in settings]
    assert found == [[cell] for cell in cells]
    assert method("fixed_grid").cells_at(TOY, cells, (0.1001,)) == [cells[0]]


def test_read_rows_share_their_names() -> None:
    text = dumps(Record("a", "b", "c", "d", 0, "e", "f=1", str(i), "loss", 1.0) for i in range(9))
    rows = loads(text, "here") + loads(text, "there")
    assert len(rows) == 18
    for column in ("task", "method", "setting", "measure"):
        assert len({id(getattr(row, column)) for row in rows}) == 1
    assert len({id(row.example) for row in rows}) == 9


def test_every_step_of_the_program_runs(tmp_path: Path) -> None:
    steps = {**growth.SERIES["cells"][2], **growth.SERIES["chain"][2]}
    for name, step in steps.items():
        if "pool" not in name:  # tests/test_executors.py has the pool
            step(tmp_path / "results", 4)()
    assert (tmp_path / "results/report/toy-smoke/report.md").exists()
    assert len(list((tmp_path / "results-merged").glob("runs/toy/fixed_grid/*/done.json"))) == 4


def test_the_exponent_is_the_slope_of_the_upper_decade() -> None:
    rows = [{"size": n, "seconds": 1e-6 * n**1.5 + (n < 100) * 9} for n in (10, 100, 300, 1000)]
    assert growth.exponent(rows, "seconds") == pytest.approx(1.5)
    assert math.isnan(growth.exponent(rows[:1], "seconds"))
    assert math.isnan(growth.exponent(rows, "absent"))

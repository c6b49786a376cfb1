"""What is done per cell does not depend on how many cells there are: counted, not timed."""

from __future__ import annotations

import io
import json
import math
import os
import pkgutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.method import Cell
from bench.registry import method, preset, task_class
from bench.run import schedule
from bench.run.board import LONGEST, Board
from bench.run.folders import merge
from bench.run.lease import Busy
from bench.run.records import Record, dumps, loads
from bench.run.schema import CellConfig, Ended, Job, Started, Waiting, from_plain, read, to_plain
from bench.run.store import Store, cell_config, cell_from
from benchmarks import growth

TOY = preset(task_class("toy"), "smoke").task


def stand(name: str, *after: str, kind: type[Job] = Job) -> Job:
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


def counting(monkeypatch: pytest.MonkeyPatch, *places: str) -> Counter[str]:
    """Count the calls of functions, each by where it is looked up."""
    calls: Counter[str] = Counter()
    for place in places:
        module, _, name = place.rpartition(".")
        real = getattr(pkgutil.resolve_name(module), name)

        def call(*values: Any, place: str = place, real: Any = real, **named: Any) -> Any:
            calls[place] += 1
            return real(*values, **named)

        monkeypatch.setattr(place, call)
    return calls


def whole(root: Path, count: int) -> Any:
    """A run of `count` cells that finds everything stored."""
    run = growth.grid(root, count)
    growth.stored(run)
    growth.measured(run, run.record_jobs(), examples=1, measures=2)
    return growth.grid(root, count)


def test_planning_and_looking_again_grow_with_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {}
    for count in (20, 80):
        again = whole(tmp_path / str(count), count)
        with monkeypatch.context() as patch:
            calls[count] = counting(
                patch,
                "bench.method.content_id",
                "bench.run.plan.content_id",
                "bench.run.store.read",
                "bench.run.schema.read",
            )
            assert again.train_jobs() == []
            assert again.record_jobs() == []
    assert calls[20].keys() == calls[80].keys()
    assert all(calls[80][place] <= 4 * calls[20][place] for place in calls[20])


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The folders that anybody lists."""
    folders: Counter[str] = Counter()

    def listing(real: Any) -> Any:
        return lambda path=".": folders.update([str(path)]) or real(path)

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, listing(getattr(os, name)))
    return folders


def test_a_whole_id_is_found_without_listing_the_cells(
    tmp_path: Path, listed: Counter[str]
) -> None:
    run = growth.grid(tmp_path, 20)
    run.train_jobs()
    store, cell = Store(tmp_path), run.experiments[0].cells[7]
    listed.clear()
    assert store.find(cell.id) == store.folder(cell)
    assert str(store.folder(cell).parent) not in listed
    assert store.find(cell.id[:10]) == store.folder(cell)
    assert str(store.folder(cell).parent) in listed
    for wrong, count in (("", 20), ("zzz", 0), ("..", 0), (f"../fixed_grid/{cell.id}", 0)):
        with pytest.raises(ValueError, match=rf"{count} cells in .* have an id that begins with"):
            store.find(wrong)


def test_merging_lists_each_folder_of_records_once(tmp_path: Path, listed: Counter[str]) -> None:
    whole(tmp_path / "one", 20)
    listed.clear()
    assert merge([tmp_path / "one"], tmp_path / "two") == (20, 20)
    assert listed[str(tmp_path / "one/records/toy/fixed_grid")] == 1
    assert len(list((tmp_path / "two").glob("records/toy/fixed_grid/*.csv"))) == 20


def chain(count: int) -> list[Cell]:
    """Each starts from the one before it."""
    cells = [
        Cell(task=TOY.lasting(0.1), method=method("fixed_grid"), seed=0, trained_for=((1.0,),))
    ]
    warm = method("warm_grid")
    for place in range(1, count):
        trained_for = ((1 + place / 1000,),)
        cells.append(Cell(task=TOY, method=warm, seed=0, trained_for=trained_for, after=cells[-1]))
    return cells


def test_a_long_chain_is_a_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, calls = {}, {}
    places = ("bench.method.content_id", "bench.run.schema.describe")
    for count in (300, 1200):  # nested, the longer one would be too deep for Python and for JSON
        with monkeypatch.context() as patch:
            calls[count] = counting(patch, *places)
            last = chain(count)[-1]
            text = json.dumps(to_plain(cell_config(last, "smoke")))
            again = cell_from(from_plain(json.loads(text), CellConfig))
        assert [cell.id for cell in again.chain] == [cell.id for cell in last.chain]
        sizes[count] = len(text)
    assert sizes[1200] < 4.1 * sizes[300]
    identities, descriptions = ([calls[n][place] for n in (300, 1200)] for place in places)
    assert 0 < identities[1] <= 4 * identities[0]
    assert 0 < descriptions[1] == descriptions[0]


def test_a_changed_ancestor_is_noticed() -> None:
    config = cell_config(chain(3)[-1], "smoke")
    described = [(each.task is None, each.method is None) for each in config.before]
    assert described == [(True, True), (False, False)]
    config.before[1].seed = 1
    with pytest.raises(ValueError, match="cannot be made again"):
        cell_from(config)


def test_a_chain_that_an_older_version_wrote_nested_is_the_same(tmp_path: Path) -> None:
    last = chain(3)[-1]
    nested: dict[str, Any] | None = None
    for cell in last.chain:
        nested = {**to_plain(cell_config(cell, "smoke")), "after": nested}
        del nested["before"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(nested))
    assert cell_from(read(path, CellConfig)).id == last.id


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

"""The one table that ends a run and opens the page: what it says, and that it reads anywhere."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from ideal import edit, losing, run_of, told, write_ideal
from rich.console import Console
from test_report import write_results

from bench.registry import DEFAULT_TASKS, TASKS, task_class
from bench.report import build, load_results
from bench.report.answer_table import answer_lines, answer_sheet, remarks
from bench.report.answers.answer import answers
from bench.report.headings import settings_line
from bench.report.notes import notes, warnings
from bench.report.sentence import verdict_points
from bench.run import runner
from bench.run.board import PACE, Board
from bench.run.schema import Ended, Job, Note, Started, Step
from bench.space import Axis, Space

THREE = (0, 1, 2)
GRIDS = ("fixed_grid", "fixed_grid_tuned", "yoto", "yoto_tuned")


def rows(root: Path) -> list[dict[str, Any]]:
    return answers(run_of(root)).to_dict("records")


# What it says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        (losing(0.02), "equal"),
        (losing(0.3), "worse"),
        (losing(-0.3), "better"),
        (losing(0.05, 0.6), "undecided"),
    ],
)
def test_the_answer_in_a_word(tmp_path: Path, values: Any, answer: str) -> None:
    write_ideal(tmp_path, values=values, seeds=THREE, fronts=(), ends=10000.0)
    (cells,) = answer_sheet([run_of(tmp_path)]).rows
    assert cells[:3] == ["image compression, quick", "as published", answer]
    assert cells[5:] == ["0.40×", "3", "not known", "3"]


def test_like_is_compared_with_like(tmp_path: Path) -> None:
    """The tuned network with the tuned grid, which is twice as good as the plain one."""

    def values(method: str, setting: Any, hard: float, noise: Any) -> dict[str, float]:
        codec = told()(method, setting, hard, noise)
        return codec | {"loss": codec["loss"] + 0.1 * (method in ("fixed_grid", "yoto"))}

    write_ideal(tmp_path, values=values, seeds=THREE, methods=GRIDS, fronts=(), ends=10000.0)
    plain, tuned = rows(tmp_path)
    assert (plain["method"], plain["compared"]) == ("yoto", "as published")
    assert (tuned["method"], tuned["compared"]) == ("yoto_tuned", "both tuned")
    assert plain["share_mean"] == pytest.approx(0, abs=1e-6)
    assert tuned["share_mean"] == pytest.approx(0, abs=1e-6)  # and not −… % of the plain grid's
    (use, *_) = verdict_points(run_of(tmp_path))
    assert "of the tuned grid's benefit" in use.text


def test_a_tuned_network_beside_an_untuned_grid_is_no_fair_match(tmp_path: Path) -> None:
    write_results(tmp_path, methods=("fixed_grid", "yoto_tuned"))
    tried = {"variants": 7, "examples": 1, "flops": 1, "preset": "quick"}
    edit(tmp_path, "records/*/yoto_tuned/*.json", lambda head: {"tuning": tried})
    (row,) = rows(tmp_path)
    assert row["compared"] == "tuned alone"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "one seed"),
        ({"seeds": (0, 1)}, "two seeds"),
        ({"methods": ("fixed_grid",)}, "no network told its coefficients"),
        ({"methods": ("yoto",)}, "there is no fixed grid"),
        ({"diverged": tuple(("yoto", 0, place) for place in range(5))}, "it failed"),
    ],
)
def test_why_there_is_no_verdict(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    write_results(tmp_path, **options)
    (cells,) = answer_sheet([run_of(tmp_path)]).rows
    assert cells[2] == f"no verdict: {why}"


def test_one_seed_is_called_a_demonstration(tmp_path: Path) -> None:
    write_results(tmp_path / "one")
    write_results(tmp_path / "three", seeds=THREE)
    one, three = (load_results(tmp_path / name).runs for name in ("one", "three"))
    assert any("a demonstration, not evidence" in remark for remark in remarks(one))
    assert not any("demonstration" in remark for remark in remarks(three))


def test_a_claim_that_does_not_survive_the_correction_is_marked_and_explained(
    tmp_path: Path,
) -> None:
    write_ideal(tmp_path, values=losing(0.3), seeds=THREE, fronts=(), ends=10000.0)
    run = run_of(tmp_path)
    answers(run)  # kept with the run, so that it can be changed here
    name = next(name for name in vars(run) if name.endswith("answer.answers"))
    vars(run)[name]["stands"] = False
    (cells,) = answer_sheet([run]).rows
    assert cells[2] == "worse °"
    assert any(remark.startswith("°") for remark in remarks([run]))


def test_pages_show_tasks_in_an_order_of_their_own(tmp_path: Path) -> None:
    for task in ("toy", "compression", "beta_vae_scenes"):
        write_results(tmp_path, task=task)
    names = [report.run.task for report in build(tmp_path)]
    assert names == ["compression", "beta_vae_scenes", "toy"]
    text = (tmp_path / "report" / "index.html").read_text()
    assert "<h2>Image compression, quick</h2>" in text
    assert "<h2>β-VAE, rendered scenes, quick</h2>" in text  # a capital β looks like a B
    table = text[text.index('<table class="answers">') :]
    assert re.findall(r'href="#run-(\d)">([^<]*)<', table)[:2] == [
        ("0", "image compression, quick"), ("1", "β-VAE, rendered scenes, quick"),
    ]  # fmt: skip


# In a terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100])
def test_it_fits_and_is_aligned(tmp_path: Path, width: int) -> None:
    write_ideal(tmp_path, values=losing(0.02), seeds=THREE, methods=GRIDS, ends=10000.0)
    write_results(tmp_path, task="beta_vae_scenes", preset="small-cpu[training.steps=41600]")
    sheet = answer_sheet(load_results(tmp_path).runs)
    lines = [*answer_lines(sheet, width)]
    assert max(len(line) for _, line in lines) <= width
    rows = [line for kind, line in lines if kind == "row" and "×" in line]
    assert len(rows) == 3
    assert len({line.rindex("×") for line in rows}) == 1  # one below the other
    whole = " ".join(" ".join(line for _, line in lines).split())
    for row in sheet.rows:
        assert all(word in whole for cell in row for word in cell.split())
    assert [line for kind, line in lines if kind == "task"] == [
        next(row[0] for row in sheet.rows if row[0]),
        next(row[0] for row in sheet.rows[1:] if row[0]),
    ]


# While jobs run -----------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_in_ten_seconds_and_failures_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("bench.run.board.time.monotonic", lambda: clock[0])
    jobs = [Job(id=str(n), label=f"job {n}", root="", device="cpu") for n in range(40)]
    text = io.StringIO()
    with Board("training", jobs, Console(file=text, width=200)) as board:
        for job in jobs:
            board.handle(Started(job=job.id))
            for step in range(5):
                clock[0] += 1.0
                board.handle(
                    Step(job=job.id, step=step, steps=5, loss=1, examples_per_second=1,
                         seconds_left=1)
                )  # fmt: skip
            if job.id == "3":
                board.handle(Note(job=job.id, note="diverged: the loss is nan"))
            how: Any = "failed" if job.id == "5" else "finished"
            board.handle(Ended(job=job.id, how=how, reason="no memory" * (how == "failed")))
    lines = text.getvalue().splitlines()
    assert "job 3: diverged: the loss is nan" in lines
    assert "job 5: failed (no memory)" in lines
    assert lines[-1] == "training 40/40 in 3:20, 1 failed"
    assert len(lines) - 3 <= clock[0] / PACE
    assert len(lines) > 10
    assert re.fullmatch(r"training 1/40, 0:10: job 1, step 4/5, loss 1, 0:01 left", lines[0])


# Words --------------------------------------------------------------------------------------------


def test_settings_are_written_with_their_symbols() -> None:
    one = Space((Axis(name="distortion", low=0.0018, high=0.18, symbol="λ"),))
    assert one.words((0.018,)) == "λ = 0.018"
    many = Space(
        tuple(Axis(name=f"relu{k}_2", low=0.1, high=10.0, symbol=f"s{k}") for k in (1, 2, 3))
    )
    assert many.words((1.0, 1.0, 0.1)) == "s3 = 0.1"
    assert many.words((10.0, 1.0, 0.1)) == "s1 = 10, s3 = 0.1"
    assert many.words((1.0, 1.0, 1.0)) == "centre"
    assert Space((Axis(name="nearness", low=0.1, high=10.0),)).words((1.0,)) == "nearness = 1"


def test_what_the_symbols_stand_for_is_said(tmp_path: Path) -> None:
    write_results(tmp_path)
    assert settings_line(run_of(tmp_path)).startswith("λ weighs 255²·MSE (")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_title_in_words_and_an_id_without_it(name: str) -> None:
    kind: Any = task_class(name)
    assert "_" not in kind.title
    assert "title" not in str(sorted(kind.presets()["smoke"].task.fields()))


def test_a_title_is_stored_and_a_folder_without_one_reads(tmp_path: Path) -> None:
    kind: Any = task_class(DEFAULT_TASKS[0])
    assert runner.display(kind.presets()["smoke"].task).title == kind.title
    write_results(tmp_path, task="my_task")
    assert run_of(tmp_path).title == "my task"


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("A Xeon, 2 threads", "Trained with 1 and 2 threads a network (A Xeon)"),
        ("Another, 1 threads", "Trained on different devices (A Xeon, 1 threads; Another, 1"),
    ],
)
def test_one_processor_with_other_threads_is_no_other_device(
    tmp_path: Path, device: str, words: str
) -> None:
    write_results(tmp_path)

    def named(name: str) -> Any:
        return lambda done: {"ledger": done["ledger"] | {"device_name": name}}

    edit(tmp_path, "runs/*/*/*/done.json", named("A Xeon, 1 threads"))
    edit(tmp_path, "runs/*/yoto/*/done.json", named(device))
    (report,) = build(tmp_path)
    assert any(note.startswith(words) for note in report.notes)
    run = report.run
    facts = notes(run, report.comparisons, report.overall, report.savings)
    assert facts == report.notes
    assert warnings(run, report.reference)[0].startswith("One seed is a demonstration")

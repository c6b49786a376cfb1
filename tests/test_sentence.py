"""What a run says in words: what the numbers say, and no more than they can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ideal import MEASURES, losing, overall_of, run_of, told, write_ideal
from test_report import write_results

from bench.report.answer_table import answer_sheet
from bench.report.answers import compare
from bench.report.answers.verdict import under_test
from bench.report.sentence import verdict_points, verdict_sentence
from bench.report.tables import overall_sheet

THREE = (0, 1, 2)


@pytest.mark.parametrize(
    ("values", "seeds", "words"),
    [
        (
            losing(0.2),
            THREE,
            [
                "Use it today? No. YOTO loses 20 % [20, 20] of the grid's benefit (at worst",
                "over the 4 of 5 settings where there is a benefit.",
                "That is worse than the grid, beyond the margin of 10 %.",
                "It costs 0.40× the grid's compute and is cheaper from 3 settings on.",
            ],
        ),
        (
            losing(-0.2),
            THREE,
            [
                "Use it today? Yes. YOTO loses −20 % [−20, −20] of the grid's benefit",
                "That is better than the grid, beyond the margin of 10 %.",
                "Cheapest good option: YOTO",
            ],
        ),
        (losing(0.04), THREE, ["today? Yes.", "That is equal, within the margin of 10 %."]),
        (
            losing(0.0, 0.4),
            THREE,
            ["Undecided. YOTO", "beyond the margin of 10 % is undecided; at this spread"],
        ),
        (losing(0.2), (0,), ["No answer yet. One seed is a demonstration, not evidence."]),
        (losing(0.2), (0, 1), ["No answer yet. Two seeds are a demonstration, not"]),
    ],
)
def test_the_sentence_says_what_the_numbers_say(
    tmp_path: Path, values: Any, seeds: tuple[int, ...], words: list[str]
) -> None:
    write_ideal(tmp_path, values=values, seeds=seeds, fronts=(), ends=10000.0)
    sentence = verdict_sentence(run_of(tmp_path))
    assert [part for part in words if part not in sentence] == []
    assert sentence.startswith("image compression, quick: Use it today?")
    assert "Not known: It is not known whether the grid is trained out" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ("fixed_grid", "unconditioned")}, "no network told its coefficients"),
        ({"methods": ("yoto",)}, "no fixed grid"),
        ({"diverged": tuple(("yoto", 0, place) for place in range(5))}, "YOTO failed, so there"),
    ],
)
def test_the_sentence_is_honest_where_there_is_none(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    write_results(tmp_path, measures=MEASURES, **options)
    sentence = verdict_sentence(run_of(tmp_path))
    assert words in sentence
    assert "there is no verdict" in sentence


def test_what_failed_is_shown_as_failed(tmp_path: Path) -> None:
    write_results(tmp_path, diverged=tuple(("yoto", 0, place) for place in range(5)))
    row = overall_of(tmp_path).loc["yoto"]
    assert row["status"] == "failed"
    assert pd.isna(row["loss_gap_mean"])


def test_the_sentence_is_about_the_best_known_variant(tmp_path: Path) -> None:
    names = ("fixed_grid", "yoto_tuned[width=2.0]", "yoto", "yoto_tuned")
    write_ideal(tmp_path, methods=names, values=told())
    run = run_of(tmp_path)
    assert under_test(run) == "yoto_tuned"
    assert "YOTO tuned loses" in verdict_sentence(run)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, None], ""),
        ([0.0, 1.0], "The grid is not trained out: this says who learns faster"),
        ([None, None], "It is not known whether the grid is trained out"),
    ],
)
def test_what_is_not_known_of_the_yardstick_is_said(
    tmp_path: Path, values: list[float], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved = pd.DataFrame(
        {"method": ["fixed_grid"] * 2, "trained_out": pd.Series(values, dtype=float)}
    )
    monkeypatch.setattr("bench.report.answers.answer.trained_out", lambda run: halved)
    write_ideal(tmp_path, values=losing(0.02), seeds=THREE)
    said = [point.text for point in verdict_points(run_of(tmp_path)) if point.head == "Not known:"]
    assert [text[: len(words)] for text in said] == [words] * bool(words)
    cells = [row[7] for row in answer_sheet([run_of(tmp_path)]).rows]
    assert cells == ["no" if "not trained" in words else "not known" if words else "yes"]


def test_the_best_of_a_column_is_marked_and_the_grid_is_not(tmp_path: Path) -> None:
    methods = ("fixed_grid", "yoto", "a")
    write_ideal(tmp_path, values=losing(0.2), seeds=THREE, methods=methods, fronts=(), ends=10000.0)
    run = run_of(tmp_path)
    sheet = overall_sheet(run, compare.overall(run))
    marked = {(sheet.rows[row][0], sheet.head[column]) for row, column in sheet.best}
    assert ("a", "benefit lost (%)") in marked
    assert ("a", "FLOPs") in marked  # half of YOTO's
    assert not [mark for mark in marked if mark[0] == "fixed grid"]
    assert not [mark for mark in marked if mark[1] == "loss gap (%)"]  # signed gaps cancel
    assert "**" in sheet.markdown()
    assert r"\textbf{" in sheet.latex()

"""What `--widths`, `--ranges`, `--coefficients` and `--lengths` plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli import parsed
from bench.commands import _experiments
from bench.run.plan import Experiment, cell_label, experiment, experiment_from
from bench.run.schema import ExperimentConfig, from_plain, to_plain
from bench.run.study import Factors, combinations, labelled

BLEND = str(Path(__file__).with_name("blend.py"))
THREE = (0, 1, 2)
NAMES = ["yoto", "fixed_grid"]
WIDTHS = (0.5, 1.0, 2.0)


def asked(*words: str) -> list[Experiment]:
    return _experiments(
        parsed(["run", *words, "--preset", "smoke", "--methods", "yoto,fixed_grid"])
    )


def test_a_study_is_one_experiment_a_combination() -> None:
    plain = experiment(BLEND, "smoke", NAMES)
    found = asked(BLEND, "--widths", ".5,1,2", "--ranges", "100,16")
    by_size = {each.preset: each for each in found}
    assert list(by_size) == [
        "smoke[0.5x width]", "smoke[0.5x width, range 16]", "smoke", "smoke[range 16]",
        "smoke[2x width]", "smoke[2x width, range 16]",
    ]  # fmt: skip
    assert by_size["smoke"] == plain  # the task's own range is no other
    assert by_size["smoke"].id == plain.id
    ids = [[m and each.measurement_id(m) for m in each.measurements] for each in (plain, found[2])]
    assert ids[0] == ids[1]
    small = by_size["smoke[0.5x width, range 16]"]
    assert (small.task.hidden, small.task.low, small.task.high) == (4, 0.25, 4.0)
    assert small.study is not None
    assert (small.study.preset, small.study.experiment) == ("smoke", plain.id)
    assert {each.settings for each in found if "range" not in each.preset} == {plain.settings}
    assert small.settings == ((0.25,), (1.0,), (4.0,))
    for each in found:
        assert set(each.methods) == set(NAMES)
        assert experiment_from(from_plain(to_plain(each.config()), ExperimentConfig)) == each
    assert cell_label(small.cells[0], small.preset).startswith("blend[0.5x width, range 16] yoto")


def test_cells_are_shared_with_the_same_task_by_another_name() -> None:
    wide = experiment(BLEND, "smoke", NAMES, factors=Factors(width=2))
    named = experiment(f"{BLEND}[hidden=16]", "smoke", NAMES)
    assert {cell.id for cell in wide.cells} == {cell.id for cell in named.cells}
    assert wide.preset != named.preset  # and so tables are not mixed


def test_every_number_of_coefficients_has_a_grid_of_its_own() -> None:
    found = {each.preset: each for each in asked("quadratic", "--coefficients", "1,2,4")}
    assert list(found) == ["smoke", "smoke[2 coefficients]", "smoke[4 coefficients]"]
    plain, two, four = found.values()
    assert plain == experiment("quadratic", "smoke", NAMES)
    assert [len(each.settings) for each in (two, four)] == [2 * 2 + 1 + 4, 2 * 4 + 1 + 4]
    assert two.study is not None
    assert (two.study.coefficients, two.study.experiment) == (2, plain.id)
    assert experiment_from(from_plain(to_plain(two.config()), ExperimentConfig)) == two
    units = [each.task.hidden / (len(each.task.terms)) for each in (plain, two, four)]
    assert len(set(units)) == 1  # as many a target, so that every number is as solvable
    assert four.task.with_coefficients(1) == plain.task
    (wide,) = asked("quadratic", "--coefficients", "2", "--widths", "2", "--ranges", "16")
    assert wide.preset == "smoke[2x width, range 16, 2 coefficients]"
    assert (wide.task.hidden, wide.task.ratio) == (2 * two.task.hidden, 16.0)
    (narrow,) = asked("quadratic[coefficients=2]", "--coefficients", "1")
    assert narrow.preset == "smoke[coefficients=2, 1 coefficient]"


def test_lengths_belong_to_every_width() -> None:
    found = asked(BLEND, "--widths", "1,2", "--lengths", "0.5,1")
    assert {kind for each in found for kind in (m.kind for m in each.measurements)} >= {"length"}
    assert all(each.lengths == (0.5, 1.0) for each in found)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["toy", "--widths", "1,2"], "toy --widths 2: .* does not say how to widen its model"),
        (["toy", "--ranges", "16"], "toy --ranges 16: .* does not say how to change its range"),
        ([BLEND, "--widths", ".01"], r"blend --widths 0.01: 0.01 times 8 units leaves none"),
        ([BLEND, "--widths", "0,1"], "--widths: 0 is no factor above 0"),
        ([BLEND, "--ranges", "1,4"], "--ranges: 1 is no factor above 1"),
        ([BLEND, "--widths", "wide"], "--widths 'wide': give numbers, as in --widths 1,2,4"),
        ([BLEND, "--coefficients", "2"], "blend --coefficients 2: the number .* is fixed, at 1"),
        (["quadratic", "--coefficients", "9"], "quadratic --coefficients 9: .* use 1 to 8"),
        (["quadratic", "--coefficients", "1.5"], "--coefficients: 1.5 is no whole number of 1"),
        (["quadratic", "--coefficients", "0,1"], "--coefficients: 0 is no whole number of 1"),
    ],
)
def test_what_cannot_be_studied_is_said_before_any_training(words: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        asked(*words)


def test_a_study_wants_the_reference_at_every_size() -> None:
    with pytest.raises(ValueError, match="add fixed_grid to --methods"):
        experiment(BLEND, "smoke", ["yoto"], factors=Factors(width=2))


def test_sizes_keep_the_fields_that_were_changed() -> None:
    assert labelled("quick[a=1]", Factors(2, 16)) == "quick[a=1, 2x width, range 16]"
    assert labelled("quick", Factors(coefficients=4)) == "quick[4 coefficients]"
    assert combinations([1, 2, 1], None) == [(1, None, None), (2, None, None)]
    assert combinations(None, None, [1.0, 2.0]) == [(1, None, 1), (1, None, 2)]
    assert combinations(None, None) == [(1.0, None, None)]

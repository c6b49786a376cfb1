"""Fields changed from a command line: what is read, what is refused, and what it is then called."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from bench.cli import main
from bench.identity import identifying
from bench.plugins.fields import bracketed, changed, shown
from bench.registry import describe, preset, revive, sized, task_class
from bench.report.load import load_results
from bench.run.plan import experiment
from bench.task import Task, Training


@dataclass(frozen=True, kw_only=True)
class Inner:
    count: int = 1
    deep: Training = field(default_factory=lambda: Training(steps=1, batch=1, lr=1))


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "outer"
    share: float = 0.5
    on: bool = False
    kind: Literal["a", "b"] = "a"
    most: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "x")
    odd: Any = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("share=2, on=true, kind=b", {"share": 2.0, "on": True, "kind": "b"}),
        ("share=.5, most=7", {"share": 0.5, "most": 7}),
        ("most=none", {"most": None}),
        ("sizes=4:5:6, pair=3:y", {"sizes": (4, 5, 6), "pair": (3, "y")}),
        ("sizes=", {"sizes": ()}),
        (" , ", {}),
        ("name='a, b=c'", {"name": "a, b=c"}),
        ('name="it\'s", on=True', {"name": "it's", "on": True}),
        ("name=it's,on=true", {"name": "it's", "on": True}),
        ("inner.count=3,inner.deep.milestones=0.5:0.8",
         {"inner.count": 3, "inner.deep.milestones": (0.5, 0.8)}),
    ],
)  # fmt: skip
def test_a_value_is_read_as_the_fields_type(text: str, expected: dict[str, Any]) -> None:
    made, values = changed(Outer(), text)
    assert values == expected
    for name, value in expected.items():
        at: Any = made
        for part in name.split("."):
            at = getattr(at, part)
        assert at == value
        assert type(at) is type(value)
    again, _ = changed(Outer(), shown(values).replace("a, b=c", "'a, b=c'"))
    assert again == made  # what a label says can be given again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shar=1", "no field of outer is called 'shar': did you mean share"),
        ("milestones=1", "did you mean inner.deep.milestones"),
        ("inner.deep.step=1", "did you mean inner.deep.steps"),
        ("zzz=1", "there are name, share"),
        ("inner=1", "inner of outer has fields of its own: inner.count"),
        ("most=x", "most is of type int | None"),
        ("share=much", "share is of type float"),
        ("share=nan", "finite"),
        ("on=perhaps", "write true or false"),
        ("kind=c", "kind is one of a, b"),
        ("sizes=1:x", "written with colons"),
        ("pair=1", "it has 2 items, not 1"),
        ("odd=1", "set in the task's file"),
        ("share", "write outer.field=value"),
        ("share=1,share=2", "given twice"),
        ("inner.deep.steps=0", "training needs steps"),
        ("inner.deep.precision=fp8", "use fp32, tf32 or bf16"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(Outer(), text)


def test_an_equal_value_keeps_the_number_it_was() -> None:
    """1 and 1.0 are one number, and would be two ids."""
    task = Outer(share=1)
    assert identifying(changed(task, "share=1.0")[0]) == identifying(task)
    assert repr(changed(task, "share=1")[0].share) == "1"


def test_a_file_may_lie_in_a_folder_with_brackets_or_colons() -> None:
    assert bracketed("a [b]/my.py[x=1]") == ("a [b]/my.py", "x=1")
    assert bracketed("a 12:30/my.py:Name[x=1]") == ("a 12:30/my.py:Name", "x=1")
    assert bracketed("a [b]/my.py") == ("a [b]/my.py", "")
    with pytest.raises(ValueError, match="closing bracket"):
        bracketed("toy[x=1")


def test_a_size_says_what_was_changed_in_one_order_and_a_location_by_its_last_part(
    tmp_path: Path,
) -> None:
    chosen, size = sized("compression[width=32,training.steps=9,codec=factorized_prior]", "quick")
    assert size == "quick[codec=factorized_prior, training.steps=9, width=32]"
    assert (chosen.task.width, chosen.task.training.steps) == (32, 9)
    plain = preset(task_class("compression"), "quick")
    assert replace(chosen, task=plain.task) == plain
    assert sized("compression", "quick") == (plain, "quick")
    given, size = sized(f"compression[train_data='{tmp_path}/a, b']", "smoke", {"train_data": "x"})
    assert given.task.train_data == f"{tmp_path}/a, b"
    assert size == "smoke[train_data=a, b]"


def test_locations_are_expanded_and_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    places = {"train_data": "pics", "test_data": "~/pics", "style": "painting.jpg"}
    task = sized("compression[validation_data=~/x]", "smoke", places)[0].task
    assert task.train_data == str(tmp_path / "pics")
    assert (task.test_data, task.validation_data) == ("/somewhere/pics", "/somewhere/x")
    assert sized("compression[train_data=s3://a/b]", "smoke")[0].task.train_data == "s3://a/b"


def test_a_varied_task_shares_nothing_with_the_plain_one_but_what_is_equal() -> None:
    plain = experiment("toy", "smoke", ["fixed_grid"])
    varied = experiment("toy[dimension=8]", "smoke", ["fixed_grid"])
    named = experiment("toy[dimension=4]", "smoke", ["fixed_grid"])  # as it is
    assert plain.id != varied.id
    assert not {cell.id for cell in plain.cells} & {cell.id for cell in varied.cells}
    assert [cell.id for cell in named.cells] == [cell.id for cell in plain.cells]
    assert (plain.preset, varied.preset) == ("smoke", "smoke[dimension=8]")
    ids = [each.measurement_id(each.measurements[0]) for each in (plain, varied, named)]
    assert len(set(ids)) == 3
    assert revive(describe(varied.task), Task) == varied.task  # type: ignore[type-abstract]


def test_several_variations_in_one_run_each_with_a_report_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.commands._report", lambda *_: None)  # figures take seconds
    words = ["toy", "toy[dimension=8,training.steps=9]", "toy[ training.steps=9, dimension = 8 ]"]
    out = ["--methods", "fixed_grid", "--settings", "1", "--out", str(tmp_path)]
    assert main(["run", *words, "--preset", "smoke", *out]) == 0
    text = capsys.readouterr().out
    assert "networks: 2 planned" in text
    assert "toy (smoke[dimension=8, training.steps=9]): 1 settings" in text
    assert "jobs 4/4 in " in text
    plain, varied = [run.folder for run in load_results(tmp_path).runs]
    assert plain == "toy-smoke"
    assert varied.startswith("toy-smoke_dimension_8__training.steps_9_-")
    (config,) = tmp_path.glob("configs/*.json")
    assert main(["run", "--config", str(config), "--out", str(tmp_path)]) == 0
    assert "2 planned, 2 stored, 0 to train" in capsys.readouterr().out


def test_misspelt_fields_are_answered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answers = {
        "toy[steps=3]": "did you mean training.steps?",
        "toy[dimension=x]": "dimension is of type int",
        "toy[dimension=8": "closing bracket",
    }
    for word, message in answers.items():
        for words in (["run", word, "--out", str(tmp_path)], ["time", word]):
            assert main(words) == 2
            assert message in capsys.readouterr().err


def test_evidence_wants_pictures_of_the_users(tmp_path: Path) -> None:
    for task in ("compression", "style"):
        for size in ("small-cpu", "small", "paper"):
            both = "no evidence: give --train-data DIR --test-data DIR"
            with pytest.warns(UserWarning, match=both):
                experiment(task, size)
        with pytest.warns(UserWarning, match="no evidence: give --test-data DIR"):
            experiment(f"{task}[train_data={tmp_path}]", "paper")
        experiment(task, "small", locations={"train_data": "x", "test_data": "y"})

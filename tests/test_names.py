"""Names that are refused when an experiment is planned, with the way out, and those that fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bench.plugins.names import refuse_names, suggestion, unfit
from bench.registry import METHODS, TASKS, method, preset, task_class
from bench.run.plan import Experiment, experiment
from bench.space import Axis, Space
from bench.task import Measure
from bench.tasks.toy import Toy


def like(**attributes: Any) -> Any:
    """The toy with other class attributes."""
    kind = type("Other", (Toy,), attributes)
    return dataclass(frozen=True, kw_only=True)(kind)(training=preset(Toy, "smoke").task.training)


def planned(task: Any, **fields: Any) -> Experiment:
    asked: dict[str, Any] = {"settings": ((1.0,),), "seeds": (0,), "methods": {}, **fields}
    return Experiment(task=task, preset=asked.pop("preset", "smoke"), **asked)


@pytest.mark.parametrize(
    "name",
    ["vae/celeb A", "..", ".", "", " ", "a\\b", "a\0b", "a\nb", "\x1b[31m", "a" * 65, "語" * 41,
     "-rf", ".hidden", "con", "NUL.txt", "Lpt1", "com9", "a.", "a ", "a:b", "a*", "a?b", "a|b",
     "a=b", "a;b", "a,b", "a[b]", "a\u202eb", "a\ud800", "~", "$HOME", "`x`", 7, None],
)  # fmt: skip
def test_a_name_that_is_no_folder_is_refused_when_planned(name: Any) -> None:
    with pytest.raises(ValueError, match=r"the task is called .* change its class attribute"):
        planned(like(name=name))
    tried = method("fixed_grid")
    object.__setattr__(tried, "name", name)
    with pytest.raises(ValueError, match=r"the method is called .* change its class attribute"):
        planned(like(name="fine"), methods={"fine": tried})
    with pytest.raises(ValueError, match=r"a preset of the task 'toy' is called"):
        planned(like(name="toy"), preset=name)
    assert unfit(suggestion(str(name))) == ""


@pytest.mark.parametrize(
    "name", ["größe", "任务", "टास्क", "my-task.v2", "_x", "2d", "console", "é"]
)
def test_letters_of_any_script_are_names(name: str) -> None:
    assert planned(like(name=name)).task.name == name


def test_the_way_out_is_near() -> None:
    with pytest.raises(ValueError, match=r"as to 'vae-celeb-A'"):
        planned(like(name="vae/celeb A"))


@pytest.mark.parametrize(
    "name", ["a=b", "a;b", "a,b", "a/b", "..", "", "-a", "loss", "(all)", "a\tb"]
)
def test_terms_and_measures_are_no_settings_nor_paths(name: str) -> None:
    lower = Measure(label="", better="lower")
    both = {"nearness": lower, "size": lower, name: lower}
    for changed in ({"measures": both}, {"terms": ("nearness", "size", name)}):
        with pytest.raises(ValueError, match=r"of the task 'toy'|the task 'toy' may not call a"):
            planned(like(**changed))


def test_measures_may_have_units_in_their_names() -> None:
    lower = Measure(label="", better="lower")
    measures = {"nearness": lower, "size": lower, "top-1 (%)": lower, "größe": lower}
    assert planned(like(measures=measures))


def along(name: str) -> property:
    return property(lambda self: Space((Axis(name=name, low=0.1, high=1.0),)))


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("space", along("tau"), "called 'tau', .* there are nearness, size"),
        ("space", along("nearnes"), "did you mean nearness"),
        ("terms", "nearness", "must be a tuple of names"),
        ("terms", ("nearness", "size", "size"), "'size' twice"),
        ("fronts", (("sise", "nearness"),), "`fronts` of the task 'toy'.*did you mean size"),
    ],
)
def test_axes_terms_and_fronts_belong_together(attribute: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        planned(like(**{attribute: value}))


@pytest.mark.parametrize("seed", [99999999999999999999, -1, 2**32, 1.5, True])
def test_a_seed_that_no_generator_takes_is_refused_when_planned(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"a seed is a whole number from 0 to 4294967295, not"):
        experiment("toy", "smoke", ["yoto"], seeds=[seed])


def test_the_largest_seed_draws() -> None:
    (cell,) = experiment("toy", "smoke", ["yoto"], seeds=[2**32 - 1]).cells
    assert cell.seed == 2**32 - 1


@pytest.mark.parametrize("design", ["random", "grid", None])
def test_settings_that_coincide_are_one(
    design: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = property(lambda self: Space((Axis(name="nearness", low=1.0, high=1.3),)))
    monkeypatch.setattr(Toy, "space", coarse)
    plan = experiment("toy", "smoke", ["fixed_grid"], settings=100, design=design)
    assert len(plan.cells) == len(plan.settings) == len(set(plan.settings)) <= 31


def test_all_that_ships_has_fit_names() -> None:
    methods = {name: method(name) for name in METHODS}
    for name in TASKS:
        for size in task_class(name).presets():
            refuse_names(preset(task_class(name), size).task, size, methods)

"""`compare`: the answers of `run` and its report, in one call, for tasks of a notebook."""

from __future__ import annotations

import dataclasses
import linecache
import math
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bench
from bench import Examples, Task, compare
from bench.comparison import Comparison
from bench.plugins import interactive
from bench.report.answers.compare import comparisons, overall
from bench.report.load import AxisStyle
from bench.run import runner
from bench.run.board import Board, shown
from bench.run.schema import Ended, Started, Train
from bench.tasks.toy import Toy

ROOT = Path(__file__).parent.parent
QUIETLY: dict[str, Any] = {"methods": "yoto,fixed_grid", "on": "here", "progress": False}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    task = Toy.presets()["smoke"].task.trained_with(steps=120)
    out = tmp_path_factory.mktemp("compared")
    return compare(task, settings=3, seeds=[0, 1, 2], preset="smoke", out=out, **QUIETLY)


def test_the_numbers_are_those_of_the_report(compared: Comparison) -> None:
    row = overall(compared.run).set_index("method").loc["yoto"]
    verdict = compared.verdict
    assert verdict == compared.verdicts["yoto"]
    assert (verdict.network, verdict.answer, verdict.seeds) == ("yoto", row["verdict"], 3)
    assert (verdict.share, verdict.low, verdict.high) == tuple(
        row[name] for name in ("share_mean", "share_low", "share_high")
    )
    assert str(verdict) == verdict.sentence
    assert repr(compared).startswith(verdict.sentence)
    gaps = compared.gaps
    assert list(gaps["nearness"]) == [0.1, 1.0, 10.0]
    assert set(gaps["method"]) == {"yoto"}
    whole = comparisons(compared.run).query("measure == 'loss'")
    assert list(gaps["gap"]) == list(whole["gap"])
    assert set(gaps["unit"]) == {"%"}
    assert (gaps["pairs"] == 3 * 16).all()
    assert (compared.root / "report").exists() is False
    assert "smoke[training.steps=120]" in compared.report().read_text()


def test_a_second_call_trains_nothing_and_shows_what_was_asked_for(
    compared: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError("something is to be done")

    monkeypatch.setattr(runner.Run, "complete", refuse)
    again = {"preset": "smoke", "settings": 3, "out": compared.root, **QUIETLY}
    fewer = compare(compared.planned.task, seeds=[0], **again)  # of the three that are there
    assert fewer.run.seeds == [0]
    assert fewer.verdict.answer.startswith("one seed")
    alone = compare(compared.planned.task, seeds=[0, 1, 2], **again | {"methods": ["fixed_grid"]})
    assert alone.verdict.answer == "no verdict"
    assert math.isnan(alone.verdict.share)
    assert alone.gaps.empty


def test_figures_networks_and_names_that_are_not_there(compared: Comparison) -> None:
    for what in ("", "front", "gap", "measures"):
        lines = [line for axes in compared.plot(what).axes for line in axes.lines]
        marks = {line.get_marker() for line in lines} - {"None", ""}
        assert marks >= ({"s"} if what == "gap" else {"o", "s"}), what
    model = compared.load("yoto").at(1.0)
    assert isinstance(model, nn.Module)
    assert model(torch.zeros(1, 4)).shape == (1, 4)
    with pytest.raises(ValueError, match="no method of this comparison"):
        compared.load("yoto[steps=2]")
    with pytest.raises(ValueError, match="did you mean gap"):
        compared.plot("gaps")
    with pytest.raises(ValueError, match="did you mean yoto"):
        compared.load("yotto")


def test_the_card_shows_names_as_text(compared: Comparison) -> None:
    axes = [AxisStyle(name="nearness", low=0.1, high=10.0, symbol="<script>c")]
    odd = replace(compared, run=dataclasses.replace(compared.run, axes=axes))
    card = odd._repr_html_()
    assert "<script>" not in card
    assert "&lt;script&gt;c" in card
    assert card.index("Use it today?") < card.index("<table>")
    assert card.count("<tr>") == 3  # a head, and two methods


def test_what_will_not_do_is_said(tmp_path: Path) -> None:
    class Bare(Task):
        terms = ("a", "b")

    for task, more, says in (
        ("toi", {}, "did you mean toy"),
        (3, {}, "a int is no task: give a class"),
        (Bare, {}, "lacks data, losses, model, space"),
        ("toy", {"seeds": 3}, r"seeds=\[0, 1, 2\]"),
        ("toy", {"preset": "quik"}, "did you mean quick"),
        ("toy", {"methods": ["yotto"]}, "did you mean yoto"),
    ):
        with pytest.raises(ValueError, match=says):
            compare(task, out=tmp_path, **more)  # type: ignore[arg-type]


# A task says only what it must --------------------------------------------------------------------

SMALLEST = """
from dataclasses import dataclass
import torch
from torch import nn
from bench import Axis, Examples, Space, Task, Training, compare

SCALE = {scale}
ROWS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


def size(y):
    return SCALE * y.square().mean(1)


@dataclass(frozen=True, kw_only=True)
class OurShrinking(Task):
    terms = ("distance", "size")
    space = Space((Axis(name="size", low=0.1, high=10.0),))
    training: Training = Training(steps=4, batch=8, lr=1e-2)

    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def data(self, split):
        return Examples(ROWS[:32] if split == "train" else ROWS[32:])

    def losses(self, model, batch):
        y = model(batch)
        return {{"distance": (y - batch).square().mean(1), "size": size(y)}}
"""
CALL = """
result = compare(OurShrinking, methods="yoto,fixed_grid", settings=2, seeds=[0], out="results",
                 on={on!r}, progress=False)
print(*(sorted(result.run.cells["cell"])))
"""


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs cells as a notebook does: in `__main__`, which has no file, their text kept."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    names = []

    def run(text: str) -> dict[str, Any]:
        names.append(f"<ipython-input-{len(names)}-test>")
        linecache.cache[names[-1]] = len(text), None, text.splitlines(True), names[-1]
        exec(compile(text, names[-1], "exec"), vars(module))
        return vars(module)

    yield run
    for name in names:
        linecache.cache.pop(name, None)


def written(kind: type, folder: Path) -> tuple[type, str]:
    made = interactive.in_a_file(kind, folder, "task")
    return made, Path(str(sys.modules[made.__module__].__file__)).read_text()


def test_what_a_task_leaves_out_follows_from_the_rest(
    main: Callable[[str], dict[str, Any]],
) -> None:
    kind = main(SMALLEST.format(scale=1))["OurShrinking"]
    task, model = kind(), kind().model()
    assert (kind.name, task.name, task.fronts) == (*["our_shrinking"] * 2, (("size", "distance"),))
    assert task.sites(model) == ["0", "2"]
    assert list(task.measures) == ["distance", "size"]
    row = task.data("test").tensor[:1]
    assert task.measure(model, row).keys() == task.losses(model, row).keys()
    presets = kind.presets()
    assert presets["quick"].task == task
    assert presets["quick"].seeds == (0, 1, 2)
    lacking = main("class Lacking(OurShrinking):\n    training: Training\n")
    with pytest.raises(ValueError, match=r"is no dataclass.*write `@dataclass\(frozen"):
        bench.registry.preset(type("Plain", (), {}), "quick")
    lacking = dataclasses.make_dataclass(
        "Lacking", [("width", int)], bases=(kind,), frozen=True, kw_only=True
    )
    with pytest.raises(ValueError, match="'width': give every field of the task 'lacking' a defau"):
        lacking.presets()
    assert Toy.fronts == (("size", "nearness"),)


def test_examples_of_several_tensors_keep_labels_whole() -> None:
    inputs, labels = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2])
    examples = Examples((inputs, labels)).to(torch.device("cpu"))
    x, y = examples.batch(50, torch.Generator().manual_seed(0))
    assert y.dtype == torch.int64
    assert torch.equal(x[:, 0], 2.0 * y)
    (name, (x, y)), *_ = examples.examples()
    assert (name, x.tolist(), y.tolist()) == ("0", [[0.0, 1.0]], [0])
    assert examples.digest == Examples((inputs, labels)).digest
    assert (
        len({examples.digest, Examples(inputs).digest, Examples((inputs, labels + 1)).digest}) == 3
    )
    with pytest.raises(ValueError, match=r"they have \[3, 2\] rows"):
        Examples((inputs, labels[:2]))


# Classes of a notebook or a script ----------------------------------------------------------------


def test_a_variable_of_its_own_is_no_name_from_outside(
    main: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """A cell's variable may be called as one inside a method, `result = compare(…)` for one."""
    text = SMALLEST.format(scale=2)
    named = text.replace("def size(y):", "def size(y):\n    result = y", 1)
    assert named != text
    kind = main(named)["OurShrinking"]
    first, before = written(kind, tmp_path)
    main("result = nn.Linear(1, 1)\ny = object()\n")
    second, after = written(kind, tmp_path)
    assert second is first
    assert before == after


def test_a_kept_class_that_is_another_is_not_run(
    main: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    kind = main(SMALLEST.format(scale=2))["OurShrinking"]
    _, text = written(kind, tmp_path)
    (place,) = tmp_path.glob("*/task.py")
    place.write_text("raise SystemExit('run')\n")
    with pytest.raises(ValueError, match="is not what this class is kept as: delete it"):
        interactive.in_a_file(kind, tmp_path, "task")
    place.write_text(text)
    (place.parent / "torch.py").write_text("raise SystemExit('run')\n")
    with pytest.raises(ValueError, match=r"torch\.py, which is none of ours: delete it"):
        interactive.in_a_file(kind, tmp_path, "task")


def test_a_place_to_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean pool"):
        compare("toy", preset="smoke", on="pol", out=tmp_path, progress=False)


def test_a_class_of_a_notebook_is_written_with_what_it_uses(
    main: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    first, text = written(main(SMALLEST.format(scale=2))["OurShrinking"], tmp_path)
    assert "SCALE = 2\n" in text
    assert "def size(y):" in text
    assert "from torch import nn" in text
    assert "compare" not in text
    assert first.__module__ != "__main__"
    example = torch.ones(1, 4)
    assert first().losses(nn.Identity(), example)["size"].item() == 2
    rows = main("")["ROWS"]
    assert torch.equal(first().data("test").tensor, rows[32:])
    same, _ = written(main(SMALLEST.format(scale=2))["OurShrinking"], tmp_path)
    assert same is first  # the same cells, run once more
    main("SCALE = 3")
    other, _ = written(main("")["OurShrinking"], tmp_path)
    assert other().losses(nn.Identity(), example)["size"].item() == 3
    main("from functools import cache\n\n@cache\ndef size(y):\n    return 4 + 0 * y.mean(1)\n")
    cached, text = written(main("")["OurShrinking"], tmp_path)
    assert "@cache\ndef size" in text
    assert "SCALE" not in text
    assert cached().losses(nn.Identity(), example)["size"].item() == 4
    main("ROWS *= 2")  # changed in place: what counts is the value
    doubled, _ = written(main("")["OurShrinking"], tmp_path)
    assert torch.equal(doubled().data("test").tensor, 2 * rows[32:])
    assert torch.equal(other().data("test").tensor, rows[32:])
    assert len({kind().identity["source"] for kind in (first, other, doubled)}) == 3


def test_a_function_that_was_defined_anew_is_the_one_that_counts(
    main: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    kind = main(SMALLEST.format(scale=1))["OurShrinking"]
    before, _ = written(kind, tmp_path)
    main("def size(y):\n    return 7 + 0 * y.mean(1)\n")
    after, text = written(kind, tmp_path)
    assert after().losses(nn.Identity(), torch.ones(1, 4))["size"].item() == 7
    assert after is not before
    assert text.count("def size") == 1


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("SCALE = nn.Linear(1, 1)", "uses 'SCALE', a Linear, from outside the class"),
        ("size = lambda y: y.mean(1)", "uses 'size', and no `class` or `def` of this name"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_way_out(
    cell: str, says: str, main: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    kind = main(SMALLEST.format(scale=1))["OurShrinking"]
    main(cell)
    with pytest.raises(ValueError, match=says) as refused:
        interactive.in_a_file(kind, tmp_path, "task")
    assert "%%writefile ourshrinking.py" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_module_of_the_users_is_part_of_what_the_class_is(
    main: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "our_losses.py").write_text("def size(y):\n    return y.abs().mean(1)\n")
    kind = main(SMALLEST.format(scale=1))["OurShrinking"]
    main("from our_losses import size")
    _, text = written(kind, tmp_path / "tasks")
    digest = bench.file_digest(tmp_path / "our_losses.py")
    assert "from our_losses import size" in text
    assert f"# our_losses.py: SHA-256 {digest}" in text
    sys.modules.pop("our_losses")


def run_script(folder: Path, text: str) -> list[str]:
    (folder / "script.py").write_text(text)
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_script_needs_no_guard_and_an_edited_task_trains_anew(tmp_path: Path) -> None:
    """Neither the processes of a pool nor the task's file run the script once more."""
    begun = "open('runs.txt', 'a').write('begun\\n')\n"
    first = run_script(tmp_path, begun + SMALLEST.format(scale=1) + CALL.format(on="pool"))
    assert (tmp_path / "runs.txt").read_text() == "begun\n"
    assert len(first) == 3
    again = run_script(tmp_path, "\n" + SMALLEST.format(scale=1) + CALL.format(on="here"))
    assert again == first
    edited = run_script(tmp_path, SMALLEST.format(scale=2) + CALL.format(on="here"))
    assert not set(edited) & set(first)
    assert len(list(tmp_path.glob("results/runs/our_shrinking/*/*/done.json"))) == 6


# What is shown meanwhile --------------------------------------------------------------------------


def job() -> Train:
    return Train(
        id="a",
        label="ours",
        root="",
        device="cpu",
        uses=(),
        cell=None,  # type: ignore[arg-type]
    )


def test_a_notebook_sees_one_table_that_ends_as_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display
    from rich.console import Console

    seen: list[Any] = []
    handle = types.SimpleNamespace(update=seen.append)
    monkeypatch.setattr(
        IPython.display, "display", lambda what, display_id: seen.append(what) or handle
    )
    with Board("training", [job()], Console(force_jupyter=True)) as board:
        board.note("nothing but the table")
        board.handle(Started(job="a"))
        board.handle(Ended(job="a", how="finished"))
    assert str(seen[-1]).startswith("training: 1 of 1 in 0:0")
    assert "ours" not in str(seen[-1])
    assert "text/html" in seen[0]._repr_mimebundle_([], [])


def test_nothing_is_shown_where_nobody_wants_it(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (False, True):
        with shown(wanted), Board("training", [job()]) as board:
            board.handle(Ended(job="a", how="finished"))
        assert bool(capsys.readouterr().out) is wanted

"""Exported networks: what ONNX Runtime gives is what PyTorch gives, or nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import Examples, Part, Showing, cli
from bench.live import check, networks, pieces
from bench.live.check import Source
from bench.live.export import export
from bench.registry import preset, task_class
from bench.run.plan import experiment
from bench.run.runner import Run

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
pytest.importorskip("onnxscript", reason="pip install -e '.[export]'")

BETWEEN = (0.37,)  # of toy's range, neither an end nor the middle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of networks that nobody measured."""
    root = tmp_path_factory.mktemp("export") / "results"
    methods = ["yoto", "fixed_grid", "hypernetwork", "unconditioned", "interpolation"]
    _train(root, experiment("toy[training.steps=30]", "smoke", methods, 2))
    return root


def _train(root: Path, planned: Any) -> None:
    run = Run(root, [planned], torch.device("cpu"))
    run.open_data()
    run.execute(run.train_jobs(), "training", lambda: False)
    assert run.failures == []
    run.save_config()


def _entry(root: Path, label: str) -> networks.Entry:
    (exhibit,) = networks.catalogue(root)
    return exhibit.methods[label]


def by_onnx(path: Path, **inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: value.numpy().astype(np.float32) for name, value in inputs.items()}
    return [torch.from_numpy(value) for value in session.run(None, given)]


def _command(*words: object) -> int:
    return cli.main(["export", *map(str, words)])


def _config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


# The command --------------------------------------------------------------------------------------


def test_a_conditioned_network_follows_its_coefficients(trained: Path, tmp_path: Path) -> None:
    """Five rows, each with a setting of its own at which nothing was checked, against the plain
    models that answer there; and the plain model that is exported at one of them."""
    out = tmp_path / "taken"
    assert _command("toy", "yoto", "--from", trained, "--at", BETWEEN[0], "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {
        *(f"network{at}.{kind}" for at in ("", "-at-0.37") for kind in ("onnx", "pt2")),
        *("network.safetensors", "network-at-0.37.safetensors", "config.json"),
    }
    x = torch.randn(5, 4)
    coefficients = torch.tensor([BETWEEN, (0.2,), (3.3,), (7.0,), (0.11,)])
    (given,) = by_onnx(out / "network.onnx", x=x, coefficients=coefficients)
    entry = _entry(trained, "yoto")
    with torch.no_grad():
        rows = [entry.at(c.item())(row[None]) for c, row in zip(coefficients, x, strict=True)]
        assert (given - torch.cat(rows)).abs().max() < 1e-5
        assert (given[0] - given[1]).abs().max() > 1e-3
    (folded,) = by_onnx(out / "network-at-0.37.onnx", x=x)
    assert (folded[0] - given[0]).abs().max() < 1e-5
    program = torch.export.load(out / "network.pt2").module(check_guards=False)
    assert (program(x, coefficients) - given).abs().max() < 1e-5


def test_the_configuration_says_what_there_is(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken"
    assert _command("toy", "yoto", "--from", trained, "--out", out) == 0
    content = _config(out)
    assert content["axes"] == [{"name": "nearness", "low": 0.1, "high": 10.0, "symbol": "c"}]
    assert content["loss_terms"] == ["nearness", "size"]
    network = content["networks"]["network"]
    assert [value["shape"] for value in network["inputs"]] == [["batch", 4], ["batch", 1]]
    assert set(network["checks"]) == {"network.onnx", "network.pt2"}
    for each in network["checks"].values():
        assert each["largest_absolute_error"]["y"] < 1e-5
        assert each["settings"] == [[0.1], [1.0], [10.0]]
    (cell,) = content["cells"]
    (done,) = trained.glob("runs/toy/yoto/*/done.json")
    assert cell["id"] == done.parent.name
    assert cell["model_sha256"] == json.loads(done.read_text())["model_sha256"]
    assert content["files"]["network.safetensors"]["sha256"] == cell["model_sha256"]
    assert str(tmp_path) not in (out / "config.json").read_text()


def test_a_grid_has_a_file_per_setting(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "taken"
    assert _command("toy", "fixed_grid", "--from", trained, "--out", out) == 0
    assert {path.name for path in out.glob("*.onnx")} == {
        "network-at-0.1.onnx",
        "network-at-10.onnx",
    }
    x = torch.randn(3, 4)
    (given,) = by_onnx(out / "network-at-10.onnx", x=x)
    with torch.no_grad():
        assert (given - _entry(trained, "fixed_grid").at(10.0)(x)).abs().max() < 1e-5
    assert len(_config(out)["cells"]) == 2
    assert _command("toy", "fixed_grid", "--from", trained, "--at", 7, "--out", out) == 0
    assert [path.name for path in out.glob("*.onnx")] == ["network-at-7.onnx"]  # it replaces
    assert "of the network trained for 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "names", "shape"),
    [
        ("hypernetwork", ["network", "network-at-0.37"], [1, 1]),  # one setting for a whole batch
        ("interpolation", ["network-at-0.37"], None),
        ("unconditioned", ["network"], None),  # the same at all settings
    ],
)
def test_what_other_methods_give(
    trained: Path, tmp_path: Path, label: str, names: list[str], shape: list[int] | None
) -> None:
    out = export("toy", label, root=trained, at="nearness=0.37", out=tmp_path / "taken", say=str)
    assert sorted(path.stem for path in out.glob("*.onnx")) == sorted(names)
    x = torch.randn(3, 4)
    given = [
        by_onnx(
            out / f"{name}.onnx", x=x, **({"coefficients": torch.tensor([BETWEEN])} if told else {})
        )
        for name in names
        for told in [shape is not None and name == "network"]
    ]
    with torch.no_grad():
        wanted = _entry(trained, label).at(*BETWEEN)(x)
    assert all((each - wanted).abs().max() < 1e-5 for (each,) in given)
    if shape:
        assert _config(out)["networks"]["network"]["inputs"][1]["shape"] == shape


# Refusals -----------------------------------------------------------------------------------------


def test_a_file_that_computes_something_else_is_refused(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = pieces.onnx_runner

    def tampered(path: Path) -> Callable[[list[Tensor]], tuple[Tensor, ...]]:
        run = whole(path)
        return lambda inputs: tuple(value + 1e-3 for value in run(inputs))

    monkeypatch.setattr(pieces, "onnx_runner", tampered)
    assert _command("toy", "yoto", "--from", trained, "--out", tmp_path / "taken") == 1
    said = capsys.readouterr().err
    assert "network.onnx does not compute what PyTorch does: y is off by 0.001" in said
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pieces, "NEEDED", ("onnx", "no_such_runtime"))
    assert _command("toy", "yoto", "--from", trained, "--out", tmp_path / "taken") == 2
    assert "export needs no_such_runtime: pip install -e '.[export]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("toy", "yotto"), "did you mean yoto"),
        (("toy", "yoto", "--at", "1,2"), "--at '1,2': give a number above 0 for nearness, as 1"),
        (("toy", "yoto", "--at", "size=1"), "give a number above 0 for nearness"),
        (("toy", "yoto", "--seed", "7"), "no network of 'toy' and seed 7"),
        (("toy", "yoto", "--preset", "quick"), "no preset with such a network is called 'quick'"),
        (("digits", "yoto"), "no network of 'digits'"),
    ],
)
def test_what_is_not_there_is_said(
    trained: Path, words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command(*words, "--from", trained) == 2
    assert said in capsys.readouterr().err


def test_nothing_of_others_is_overwritten(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert _command("toy", "yoto", "--from", trained, "--out", tmp_path) == 2
    assert "holds something else (thesis.tex): name another one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_task_of_the_users_is_exported_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "mine.py"]) == 0
    planned = experiment("./mine.py", "smoke", ["yoto"], 2)
    _train(Path("results"), planned)
    assert _command("./mine.py", "yoto") == 0
    assert (tmp_path / "export" / "mine-yoto" / "network.onnx").exists()
    ran = tmp_path / "ran"
    with open("mine.py", "a") as file:
        file.write(f"\nopen({str(ran)!r}, 'w')\n")
    assert _command("toy", "yoto", "--out", "other") == 2
    assert not ran.exists()
    assert "no network of 'toy'" in capsys.readouterr().err


class Forked(nn.Module):
    """Takes one way or the other, as the numbers are."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_said(tmp_path: Path) -> None:
    part = Part(
        module=Forked(),
        examples=lambda number: {"x": torch.full((1, 4), float(number))},
        outputs=("y",),
        free={"x": {0: "batch"}},
    )
    space = preset(task_class("toy"), "smoke").task.space
    with pytest.raises(pieces.Untraceable, match=r"torch\.export or ONNX cannot follow it"):
        pieces.write("network", part, Source(part.module, space), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_conditioned_network_that_cannot_be_traced_names_the_way_out(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(pieces, "_traced", never)
    with pytest.raises(
        check.NotExported, match=r"cannot follow it \(no\)\): add --at .*as --at 1, for"
    ):
        export("toy", "yoto", root=trained, out=trained.parent / "never", say=str)


class Inside(nn.Module):
    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return x["x"]


def test_a_model_of_other_inputs_is_refused() -> None:
    class Odd:
        name = "odd"

        def ready(self, model: nn.Module) -> None:
            pass

        def model(self) -> nn.Module:
            return Inside()

        def data(self, split: str) -> Examples:
            return Examples(torch.randn(3, 4), digest="x")

        def measure(self, model: nn.Module, batch: Tensor) -> None:
            model({"x": batch})

    with pytest.raises(ValueError, match="let its `showing\\(\\)` say so with `parts`"):
        Showing(Odd()).parts(Inside())


def test_examples_that_tell_nothing_are_passed_over() -> None:
    """A tie of rounding is decided by the last bit; there no file can be judged."""
    part = Part(
        module=nn.Module(),
        examples=lambda number: {"x": torch.full((1, 2), 0.5 if number < 14 else 0.3)},
        outputs=("y",),
        free={},
        reference=torch.round,
    )
    space = preset(task_class("toy"), "smoke").task.space
    plan = check.Plan(part, Source(nn.Module(), space), rows=False, batched=False)
    assert plan.passed_over == 4
    assert all(inputs[0].max() < 0.4 for inputs, _ in plan.cases)

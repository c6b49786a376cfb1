"""Exported networks of every task and kind of method: ONNX Runtime against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import Network
from bench.live import check, pieces
from bench.live.check import Source
from bench.method import Cell, build
from bench.registry import method, preset, task_class
from bench.space import Setting
from bench.tasks.codec_parts import erfc

pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
pytest.importorskip("onnxscript", reason="pip install -e '.[export]'")

from test_export import by_onnx

PAIRS = [
    ("quadratic", "low_rank"),
    ("quantiles", "several_outputs"),
    ("registration", "yoto"),
    ("beta_vae_scenes", "yoto_tuned"),
    ("beta_vae_cifar10", "yoto"),
    ("digits", "gates"),
    ("digits", "kernel_mix"),
    ("style", "yoto"),
    ("fairness", "yoto"),
]
OTHER: dict[str, tuple[int, ...]] = {"style": (2, 3, 37, 50)}  # a size at which nothing was checked


def conditioned(task: Any, name: str) -> Network:
    """A network nobody trained, of which every weight moves."""
    planned = method(name)
    (cell,) = planned.plan(task, task.settings(2), 0)
    network = build(Cell(task=cell.task, method=cell.method, seed=0), start=False).eval()
    with torch.no_grad():
        for parameter in network.conditioner.parameters():  # type: ignore[union-attr]
            parameter += 0.03 * torch.randn(parameter.shape)
    return network


def settings_between(task: Any, count: int) -> list[Setting]:
    return [*task.space.random(count, seed=5)]


@pytest.mark.parametrize(("name", "label"), PAIRS)
def test_every_task_gives_its_pieces(
    name: str, label: str, tmp_path: Path, fetched: Callable[[str], None]
) -> None:
    if name == "fairness":
        fetched(name)
    task = preset(task_class(name), "smoke").task
    network = conditioned(task, label)
    source = Source.of(network, task.space, rows=True)
    for stem, part in task.showing().parts(network.model).items():
        written = pieces.write(stem, part, source, tmp_path)
        assert max(written.errors.values()) < 1e-4
        inputs = dict(part.examples(3))
        if name in OTHER:
            inputs = {"x": torch.rand(OTHER[name])}
        count = len(next(iter(inputs.values())))
        coefficients = torch.tensor(settings_between(task, count))
        given = by_onnx(tmp_path / f"{stem}.onnx", **inputs, coefficients=coefficients)
        with torch.no_grad(), source.following(coefficients):
            wanted = check.several(part.module(*inputs.values()))
        for here, there in zip(given, wanted, strict=True):
            assert (here - there).abs().max() <= check.tolerance(there)


@pytest.fixture(params=["scale_hyperprior", "mean_scale_hyperprior", "factorized_prior"])
def codec(request: pytest.FixtureRequest) -> tuple[Any, Network]:
    smoke = preset(task_class("compression"), "smoke").task
    task = type(smoke)(**{**vars(smoke), "codec": request.param, "start": "library"})
    return task, conditioned(task, "yoto")


def test_a_codecs_pass_and_its_pieces(codec: tuple[Any, Network], tmp_path: Path) -> None:
    """Pictures of a size at which nothing was checked, at other settings: bits as estimated by the
    library's own pass; and analysis, rounding and synthesis are that pass."""
    task, network = codec
    parts = task.showing().parts(network.model)
    hyper = task.codec != "factorized_prior"
    assert list(parts) == ["codec", "analysis", "synthesis", *(["hyper"] if hyper else [])]
    source = Source.of(network, task.space, rows=True)
    whole = task.codec == "scale_hyperprior"  # the others have the same transforms
    for stem in parts if whole else ("codec", *list(parts)[3:]):
        pieces.write(stem, parts[stem], source, tmp_path, programs=whole and stem != "codec")
    multiple = network.model.downsampling_factor
    x = torch.rand(2, 3, 3 * multiple, 2 * multiple)
    coefficients = torch.tensor(settings_between(task, 2))
    x_hat, bits = by_onnx(tmp_path / "codec.onnx", x=x, coefficients=coefficients)
    with torch.no_grad(), source.following(coefficients):
        out: Any = network.model(x)
    estimated = task.losses(lambda _: out, x)["bpp"] * x[0, 0].numel()
    assert ((bits - estimated).abs() / estimated).max() < 1e-4
    assert (x_hat - out["x_hat"]).abs().max() < 1e-3  # a latent may be rounded the other way
    if whole:
        y, *_ = by_onnx(tmp_path / "analysis.onnx", x=x, coefficients=coefficients)
        told = {"y_hat": y.round(), "coefficients": coefficients}
        (again,) = by_onnx(tmp_path / "synthesis.onnx", **told)
        assert (again - x_hat).abs().max() < 1e-3


def test_what_a_browser_runs_of_a_codec(tmp_path: Path) -> None:
    """The decoded picture, and its measures as the task takes them, but for the coding."""
    task = preset(task_class("compression"), "smoke").task
    network = conditioned(task, "yoto")
    source = Source.of(network, task.space, rows=True)
    pieces.write("live", task.showing().live(network.model), source, tmp_path, programs=False)
    x = torch.rand(1, 3, 192, 64)
    coefficients = torch.tensor(settings_between(task, 1))
    picture, rate, psnr, distortion = by_onnx(
        tmp_path / "live.onnx", x=x, coefficients=coefficients
    )
    with torch.no_grad(), source.following(coefficients):
        out: Any = network.model(x)
    wanted = task.fidelity(out["x_hat"], x)
    assert (picture - out["x_hat"].clamp(0, 1)).abs().max() < 1e-3
    assert rate.item() == pytest.approx(task.losses(lambda _: out, x)["bpp"].item(), rel=1e-3)
    assert psnr.item() == pytest.approx(wanted["psnr"].item(), abs=0.01)
    assert distortion.item() == pytest.approx(wanted["distortion"].item(), rel=1e-3)


def test_erfc_is_as_good_in_its_tail() -> None:
    """The tail is what costs many bits: 1 - erf has nothing of it from 4 on."""
    x = torch.linspace(-6, 9, 4001)
    wanted = torch.erfc(x.double())
    assert ((erfc(x).double() - wanted) / wanted).abs().max() < 2e-5
    assert ((erfc(x.double()) - wanted) / wanted).abs().max() < 1.3e-7

"""The benchmarks of style training, of the roofline and of packing: what they count and compare."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.cost import count_flops
from bench.run.schema import Ended
from bench.tasks import style_terms as task_style
from bench.tasks.style import Style
from bench.tasks.style_terms import STYLE_LAYERS
from benchmarks import packing, roofline, rows, style

CPU = torch.device("cpu")
SMOKE = Style.presets()["smoke"].task
FLOAT = 4  # bytes


def traffic(work: object) -> int:
    with roofline.Traffic() as counter:
        work()  # type: ignore[operator]
    return counter.total


def test_bytes_and_flops_of_a_linear_layer() -> None:
    layer, x = nn.Linear(30, 20), torch.randn(8, 30)
    out, weights = 8 * 20, 20 * 30 + 20
    assert traffic(lambda: layer(x)) == FLOAT * (8 * 30 + weights + out)
    assert count_flops(lambda: layer(x)) == 2 * 8 * 30 * 20
    # Backward of the sum, by hand: ones for the sum (1) are expanded, which is free; the weight's
    # gradient reads a broadcast scalar and x and writes as many as weights; the bias' reads the
    # scalar and writes 20.
    loss = layer(x).sum()
    expected = 1 + (1 + 8 * 30 + 20 * 30) + (1 + 20)
    assert traffic(loss.backward) == pytest.approx(FLOAT * expected, abs=FLOAT * 4)


def test_bytes_flops_and_product_of_a_convolution() -> None:
    layer, x = nn.Conv2d(3, 5, 3, stride=2, padding=1), torch.randn(2, 3, 8, 8)
    out, weights = 2 * 5 * 4 * 4, 5 * 27 + 5
    with roofline.Traffic() as counter:
        y = layer(x)
    assert counter.total == FLOAT * (2 * 3 * 64 + weights + out)
    assert count_flops(lambda: layer(x)) == 2 * out * 27
    assert counter.products == {(2 * 4 * 4, 5, 27): 1}
    up = nn.ConvTranspose2d(5, 3, 4, stride=2)
    with roofline.Traffic() as counter:
        up(y)
    ((m, n, k),) = counter.products
    assert 2 * m * n * k == count_flops(lambda: up(y))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_convolution_reads_no_picture_on_the_way_back(frozen: bool) -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False).requires_grad_(not frozen)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    y = layer(x)
    gradient = torch.randn_like(y)
    forward_too = 0 if frozen else x.numel() + layer.weight.numel()
    expected = y.numel() + layer.weight.numel() + x.numel() + forward_too
    found = traffic(lambda: torch.autograd.grad(y, [x] if frozen else [x, layer.weight], gradient))
    assert found == FLOAT * expected


def test_bytes_of_views_writes_and_broadcasts() -> None:
    x, y = torch.randn(6, 10), torch.randn(6, 10)
    assert traffic(lambda: x.t().reshape(10, 2, 3)[2:].detach()) == 0
    assert traffic(lambda: torch.empty_like(x)) == 0
    assert traffic(lambda: x.add_(y)) == FLOAT * 3 * 60  # both read, one written
    assert traffic(lambda: x.zero_()) == FLOAT * 60
    assert traffic(lambda: x.copy_(y)) == FLOAT * 2 * 60
    assert traffic(lambda: x[:, :1].expand(6, 10) + y) == FLOAT * (6 + 60 + 60)
    assert traffic(lambda: x * x) == FLOAT * 2 * 60  # read once


def test_bytes_of_the_optimisers_step() -> None:
    layer = nn.Linear(30, 20, bias=False)
    adam = torch.optim.AdamW(layer.parameters(), fused=True)
    layer.weight.grad = torch.ones_like(layer.weight)
    adam.step()
    found = traffic(adam.step)
    least = (
        FLOAT * 600 * (4 + 3)
    )  # weights, gradients and two moments read; all but gradients written
    assert least <= found <= least + FLOAT * (600 + 50)  # torch lists the gradients as written, too


def test_the_published_terms_are_the_tasks_own() -> None:
    """A style term is a mean over the entries of a Gram matrix there, their sum here."""
    generator = torch.Generator().manual_seed(1)
    picture = SMOKE.data("train").batch(2, generator)[..., :32, :32]
    output = picture.flip(-1) * 0.8 + 0.1
    grams = task_style.painting_grams(SMOKE, CPU)
    with torch.no_grad():
        raw = task_style.raw_terms(SMOKE, output, picture)
        wanted = [matrix.expand(2, -1, -1) for matrix in grams]
        content, terms = style.published_terms(
            style.slices(CPU), output, picture, wanted, SMOKE.content_layer
        )
    torch.testing.assert_close(content, raw["content"].mean(), rtol=1e-4, atol=0)
    for name, term, matrix in zip(STYLE_LAYERS, terms, grams, strict=True):
        own = raw[f"style_{name}"].mean()
        torch.testing.assert_close(term * matrix.numel(), own, rtol=1e-4, atol=0)


def test_neither_side_computes_gradients_of_vgg() -> None:
    ours = task_style.vgg(SMOKE.vgg_weights, STYLE_LAYERS, CPU)
    for net in (ours, style.slices(CPU)):
        assert sum(1 for _ in net.parameters()) == 2 * 10  # no deeper than relu4_3
        assert not any(weight.requires_grad for weight in net.parameters())
    content = task_style.vgg(SMOKE.vgg_weights, ("relu2_2",), CPU)
    assert sum(1 for _ in content.parameters()) == 2 * 4


def test_files_are_read_scaled_and_cropped() -> None:
    paths = SMOKE.data("train").paths
    picture = style.Files(paths, 40)[0]
    assert picture.shape == (3, 40, 40)
    assert 0 <= picture.min() < picture.max() <= 1


def kept(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_programs_run_and_append_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "SQUARE", 128)  # bf16 takes a minute where it is emulated
    monkeypatch.setattr(roofline, "CHANNELS", 16)
    out, figure = tmp_path / "rows.csv", tmp_path / "roof.png"
    small = ["--device", "cpu", "--steps", "1", "--rounds", "1", "--out", str(out)]
    made = style.main(["--preset", "smoke", "--content-layer", "relu2_2", *small])
    assert [row.what for row in made][1:] == 2 * ["harness, fp32", "harness, bf16"]
    assert "pictures in memory" in made[-1].against
    made += roofline.main(["compression/smoke", *small, "--figure", str(figure)])
    assert figure.stat().st_size > 10_000
    made += packing.main(
        ["toy", "--preset", "smoke", "--packed", "1", "2", "--one-process", *small]
    )
    assert [row.what for row in made][-3:] == ["2 at once", "1 in one process", "2 in one process"]
    table = kept(out)
    assert len(table) == len(made) == 9
    assert tuple(table[0]) == (
        "benchmark", "device", "what", "against", "ratio", "low", "high", "rounds", "value",
        "unit", "commit", "date",
    )  # fmt: skip
    for row in table:
        assert float(row["low"]) == float(row["ratio"]) == float(row["high"]) > 0
        assert row["rounds"] == "1"


def test_a_row_is_the_median_ratio_of_its_rounds() -> None:
    made = rows.row("b", CPU, "fast", "slow", ([2.0, 8.0, 3.0], [1.0, 2.0, 1.0]), 5.0, "ms")
    assert (made.ratio, made.low, made.high, made.rounds) == (3.0, 2.0, 4.0, 3)


def test_a_failing_network_ends_packing_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(jobs, work, emit, should_stop, workers):  # type: ignore[no-untyped-def]
        emit(Ended(job=jobs[0].id, how="failed", reason="no memory", trace="there"))

    monkeypatch.setattr(packing.processes, "pool", fails)
    with pytest.raises(SystemExit, match="no memory"):
        packing.main(["toy", "--preset", "smoke", "--packed", "1", "--steps", "1"])


def test_the_share_is_of_the_larger_limit() -> None:
    step = roofline.Step(
        name="x", task=SMOKE, run=int, ordinary=int, flops=100, moved=30, least=1, largest=(1, 1, 1)
    )
    each = roofline.Measured(
        step=step, seconds=[8.0, 8.0], flops=[25.0, 50.0], bytes=[10.0, 10.0], ceilings={}
    )
    assert each.limits == [(4.0, 3.0), (2.0, 3.0)]
    assert each.attainable == [4.0, 3.0]


def test_gram_matrices_agree() -> None:
    features = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(style.gram(features), task_style.gram(features))
    by_hand = torch.einsum("bchw,bdhw->bcd", features, features) / 60
    torch.testing.assert_close(style.gram(features), by_hand)

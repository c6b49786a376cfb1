"""The benchmarks of the codec: both sides do the same work, from the same weights, on the same
pictures. How fast they are is not tested."""

from __future__ import annotations

import copy
import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bench.tasks.compression import Compression
from bench.tasks.toy import Toy
from benchmarks import conditioning, evaluation, rows, training

CPU = torch.device("cpu")
SMOKE = replace(Compression.presets()["smoke"].task, start="library")
SHORT: Any = SMOKE.trained_with(steps=2)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    noise = Image.effect_noise((200, 260), 60).convert("RGB")
    (tmp_path / "given").mkdir()
    noise.save(tmp_path / "given" / "large.jpg")
    noise.crop((0, 0, 100, 260)).save(tmp_path / "given" / "small.png")
    (tmp_path / "cut").mkdir()
    paths = sorted((tmp_path / "given").iterdir())
    return evaluation.cut(paths, tmp_path / "cut")


def without_lpips(folder: Path) -> evaluation.WithoutLpips:
    given = {field.name: getattr(SMOKE, field.name) for field in fields(SMOKE)}
    return evaluation.WithoutLpips(**{**given, "test_data": str(folder)})


def test_pictures_are_cut_to_multiples_of_64_and_small_ones_left_out(files: list[Path]) -> None:
    (one,) = files
    with Image.open(one) as picture:
        assert picture.size == (192, 256)


def test_the_harness_finds_the_bytes_and_psnr_of_eval_model(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = without_lpips(tmp_path / "cut")
    networks = evaluation.save_networks(task, 2, tmp_path)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1) as workers:
        speeds, found = evaluation.compare(task, networks, files, 1, workers, workers)
    assert torch.get_num_threads() == threads
    assert evaluation.differences(found) == []
    assert all(len(values) == 1 for values in speeds.values())
    first, second = found[evaluation.LIBRARY]
    assert first["bpp"] < second["bpp"]  # networks of different rates
    found["one process"][1]["bpp"] += 8 / (192 * 256)  # one byte
    found["one process"][0]["psnr"] -= 0.01
    assert len(evaluation.differences(found)) == 2


def test_the_documented_loop_and_the_harness_start_from_equal_weights() -> None:
    cell = training.fixed_cell(SHORT, 3)
    theirs, ours = training.start(cell), training.build(cell).model
    other = training.start(training.fixed_cell(SHORT, 4))
    state = theirs.state_dict()
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in ours.state_dict().items())
    assert not torch.equal(other.g_a[0].weight, theirs.g_a[0].weight)
    assert training.held_out_loss(cell, theirs) == pytest.approx(
        training.held_out_loss(cell, copy.deepcopy(ours)), rel=1e-6
    )


def test_every_training_loop_runs_and_learns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = training.measure(SHORT, CPU, rounds=1, workers=0, parts=True)
    assert [row.what for row in made[::2]] == [*list(training.ladder())[1:], "harness"]
    assert all(row.value > 0 for row in made)
    rows.append(tmp_path / "rows.csv", made)
    with open(tmp_path / "rows.csv") as file:
        assert len(list(csv.DictReader(file))) == len(made)
    cell = training.fixed_cell(SHORT, 0)
    before = training.held_out_loss(cell, training.start(cell))
    longer = training.fixed_cell(SHORT.trained_with(steps=10), 0)
    for choices in (training.Choices(), list(training.ladder().values())[-1]):
        assert training.documented(longer, CPU, choices, 0).loss < before


def test_the_choices_change_speed_but_not_what_is_learned() -> None:
    """The same pictures and noise: one choice after another leaves the loss where it was."""
    cell = training.fixed_cell(SHORT, 0)
    chosen = list(training.ladder().values())[1:]
    losses = [training.documented(cell, CPU, choices, 0).loss for choices in chosen]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-3)


def test_conditioning_has_a_row_for_the_step_and_for_folded_inference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    task: Any = Toy.presets()["smoke"].task
    made = conditioning.measure(task, CPU, steps=2, rounds=1)
    assert [row.what for row in made] == ["harness, fixed", "harness, conditioned", "folded"]
    models = conditioning.models(task)
    assert [type(a) for a in models["plain"].modules()] == [
        type(b) for b in models["folded"].modules()
    ]  # folded is plain


def test_conditioning_has_a_row_for_every_method_that_trains_one_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--task", "toy", "--preset", "smoke", "--steps", "2", "--rounds", "1"]
    made = conditioning.main([*words, "--methods", "all,yoto[law=ends]"])
    whats = {row.what for row in made}
    assert {"subspace", "low_rank", "yoto_warm", "yoto[law=ends]"} <= whats
    assert not whats & {"fixed_grid", "warm_grid", "interpolation", "gain_bank"}
    assert {row.against for row in made} == {"fixed_grid"}
    assert "yoto[law=ends]" in capsys.readouterr().out

"""Sample sheets, strips and films: which pictures are on them, in which order, how large."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from full_results import METHODS, SIZES, STYLE_AXES, full_results, picture
from PIL import Image

from bench.report.figures import films, important
from bench.report.load import AxisStyle, Run, load_results
from bench.space import parse_setting


def run_of(root: Path, task: str, methods: tuple[str, ...] = METHODS, **more: Any) -> Run:
    full_results(root, task, methods, pictured=True, shares=(), pictures=1, **more)
    (run,) = load_results(root).runs
    return run


def colours_of(data: bytes) -> set[Any]:
    with Image.open(io.BytesIO(data)) as shown:
        return {colour for _, colour in shown.convert("RGB").getcolors(10**7)}


def colour(method: str, setting: str) -> Any:
    return picture(method, tuple(parse_setting(setting).values())).getpixel((0, 0))


@pytest.mark.parametrize("task", SIZES)
def test_the_sample_sheet_has_the_original_and_at_most_five_methods(
    tmp_path: Path, task: str
) -> None:
    run = run_of(tmp_path, task, context=task == "compression")
    gaps = pd.DataFrame({"method": METHODS, "loss_gap_mean": [*range(len(METHODS) - 1), -1]})
    sheet = films.samples(run, important(run, gaps))
    assert sheet is not None
    seen = colours_of(sheet)
    shown = {m for m in METHODS if any(colour(m, setting) in seen for setting in run.settings)}
    wanted = ["fixed_grid", "yoto_tuned", "yoto", METHODS[-1], "concatenation"]
    assert shown == set(wanted[: 2 if len(run.axes) > 1 else 5])  # there three lines of settings
    assert ((1, 2, 3) in seen) == (run.original is not None) == (task == "compression")
    assert all(colour(method, setting) in seen for method in shown for setting in run.settings)


def test_a_sweep_shows_one_network_in_the_order_of_its_coefficient(tmp_path: Path) -> None:
    run = run_of(tmp_path, "compression", ("fixed_grid", "yoto_tuned"))
    (axis,) = run.axes
    frames = films.along_axis(run, "yoto_tuned", 0)
    size = SIZES["compression"]
    assert [frame.value for frame in frames] == sorted(
        v for (v,) in size["settings"] + size["swept"]
    )
    assert [frame.outside for frame in frames] == [True, *[False] * 9, True]
    colours = [picture("yoto_tuned", (frame.value,)).getpixel((0, 0)) for frame in frames]
    with Image.open(io.BytesIO(films.animation(frames, axis, "said"))) as film:
        assert film.n_frames == 2 * len(frames) - 2  # to the end and back
        assert film.info["loop"] == 0
        for place in (0, 4, 10, 11):
            film.seek(place)
            assert film.convert("RGB").getpixel((5, 5)) == colours[min(place, 20 - place)]
    kept = {colours[round(i * 10 / 8)] for i in range(9)}
    assert kept <= colours_of(films.strip(frames, axis, "said"))


def test_a_sweep_moves_one_coefficient_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path, "style", ("fixed_grid", "yoto"))
    for place in range(5):
        frames = films.along_axis(run, "yoto", place)
        assert [f.value for f in frames] == [0.0316, 0.1, 0.316, 1.0, 3.16, 10.0, 31.6]
        assert [f.outside for f in frames] == [True, *[False] * 5, True]
    assert set(films.sweeps(run, "yoto")) == {f"sweep_{axis['name']}" for axis in STYLE_AXES}


def noise(path: Path, *size: int) -> np.ndarray:
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_noisy_pictures_still_make_a_small_animation(tmp_path: Path) -> None:
    frames = [films.Frame(1.5**i, outside=False, path=tmp_path / f"{i}.png") for i in range(15)]
    for frame in frames:
        noise(frame.path, 256, 256)
    axis = AxisStyle(name="a", low=1.0, high=300.0, symbol="a")
    assert len(films.animation(frames, axis, "said")) < 1_500_000


def test_pictures_are_shown_at_their_own_size_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    photograph = noise(path, 400, 600)  # is cut
    assert (np.asarray(films.shown(path, 170)) == photograph[115:285, 215:385]).all()
    small = noise(path, 32, 32)  # is enlarged by whole pixels
    seen = np.asarray(films.shown(path, 170))
    assert seen.shape == (160, 160, 3)
    assert (seen[::5, ::5] == small).all()
    noise(path, 256, 256)
    assert films.shown(path, 170).size == (170, 170)  # a sheet is shrunk, not cut

"""Trained networks at work: what ships, what a folder holds, and answers to a slider."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench import load
from bench.cli import main
from bench.live.answers import MOST_PIXELS, Answers, Asked, Refused, Superseded
from bench.live.networks import ZOO, catalogue, exhibited
from bench.live.rooms import within
from bench.run.schema import Damaged
from bench.space import format_setting
from bench.task import weighted
from benchmarks.zoo import TABLES, card

CPU = torch.device("cpu")
TASK = """
import pathlib
pathlib.Path({mark!r}).write_text("it ran")
from bench.tasks.toy import Toy
class Mine(Toy):
    name = "mine"
"""


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def shipped() -> Answers:
    return Answers(exhibited(ZOO, "", None), CPU)


def place(answers: Answers, task: str) -> int:
    (found,) = [i for i, room in enumerate(answers.rooms) if room.exhibit.task.name == task]
    return found


def asked(answers: Answers, task: str, *setting: float, **more: Any) -> Asked:
    how = {"input": "example:0", "method": "yoto_tuned", **more}
    return Asked(exhibit=place(answers, task), setting=setting, **how)


def pixels(side: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(side["picture"]))))


def png(*shape: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


# What ships ---------------------------------------------------------------------------------------


def test_what_ships_is_small_whole_and_names_no_machine() -> None:
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    for path in files:
        if path.suffix not in (".safetensors", ".jpg"):
            assert not re.search(r"/(tmp|home|root|work|Users)/", path.read_text()), path
    for exhibit in catalogue(ZOO):
        reference = exhibit.reference
        assert reference is not None
        assert set(reference.settings) == set(exhibit.settings)
        for entry in exhibit.methods.values():
            assert entry.method.tuned  # both sides have the same right to be
            for stored in entry.stored:
                data = (stored.folder / "model.safetensors").read_bytes()
                assert hashlib.sha256(data).hexdigest() == stored.done.model_sha256
                assert (stored.done.provenance.commit or "").removesuffix("+") != ""


@pytest.mark.parametrize("task", ["digits", "quantiles", "beta_vae_scenes"])
def test_the_numbers_on_the_card_are_those_of_what_ships(task: str) -> None:
    table = pd.read_csv(ZOO / "numbers.csv").query("task == @task and method == 'yoto_tuned'")
    (exhibit,) = catalogue(ZOO, task)
    setting = exhibit.settings[0]
    model, rows = exhibit.methods["yoto_tuned"].at(*setting), []
    for _, batch in exhibit.task.data("test").examples():
        values = exhibit.task.measure(model, batch)
        rows.append({name: value.item() for name, value in values.items()})
    at = format_setting(exhibit.task.space.names, setting)
    known = table[table["setting"] == at].set_index("measure")["kept"]
    assert len(known) >= 2
    for name, value in pd.DataFrame(rows).mean().items():
        assert known[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_the_card_has_the_tables_of_what_ships() -> None:
    page = (ZOO / "README.md").read_text()
    assert page.partition(TABLES)[2].strip() == card().strip()


def test_half_precision_costs_next_to_nothing() -> None:
    """No measure moves by more than half a per cent, most by less than a ten-thousandth."""
    table = pd.read_csv(ZOO / "numbers.csv")
    moved = (table["kept"] - table["trained"]).abs() / table["trained"].abs().clip(lower=1e-3)
    assert set(table["task"]) >= {"compression", "digits", "beta_vae_scenes", "quantiles"}
    assert moved.max() < 0.005
    assert moved.median() < 1e-4


def test_a_shipped_network_is_a_plain_model_at_a_setting() -> None:
    from compressai.models import ScaleHyperprior

    codec = load("compression/yoto_tuned").at(0.018)
    assert isinstance(codec, ScaleHyperprior)
    assert not any("Modulated" in type(layer).__name__ for layer in codec.modules())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    coded = codec.compress(picture)  # it is ready to code
    decoded = codec.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert decoded.shape == picture.shape


def test_coefficients_by_name_and_those_that_are_none() -> None:
    network = load("beta_vae_scenes/yoto_tuned")
    first, second = network.at(1.0, 1.0), network.at(kl=1.0)
    same = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in same)
    with pytest.raises(ValueError, match=r"2 coefficients \(kl, reconstruction\)"):
        network.at(1.0)
    with pytest.raises(ValueError, match="did you mean kl"):
        network.at(kll=1.0)
    for none in ((-1.0, 1.0), (math.inf, 1.0), (math.nan, 1.0), ("x", 1.0)):
        with pytest.raises(ValueError, match="numbers above 0"):
            network.at(*none)
    with pytest.raises(ValueError, match="not both"):
        network.at(8.0, reconstruction=1.0)
    with pytest.raises(ValueError, match="did you mean yoto_tuned"):
        load("compression/yoto_tuned_")
    with pytest.raises(ValueError, match="no network of 'nothing'"):
        load("nothing/yoto")


# A folder -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of a task in somebody's file."""
    folder = tmp_path_factory.mktemp("mine")
    file = folder / "mine.py"
    file.write_text(TASK.format(mark=str(folder / "ran")))
    words = ["run", str(file), "--preset", "smoke", "--methods", "yoto,fixed_grid"]
    assert main([*words, "--out", str(folder / "results")]) == 0
    (folder / "ran").unlink()
    return folder


def test_nothing_in_a_folder_is_run_unless_its_task_is_named(mine: Path) -> None:
    warned = pytest.warns(UserWarning, match="is no part of the suite and is not run")
    with warned, pytest.raises(ValueError, match="is finished"):
        catalogue(mine / "results")
    assert not (mine / "ran").exists()
    (exhibit,) = catalogue(mine / "results", "mine")
    assert set(exhibit.methods) == {"yoto", "fixed_grid"}
    (same,) = catalogue(mine / "results", str(mine / "mine.py"))
    assert same.task == exhibit.task


def test_a_task_of_the_users_is_shown_for_nothing(mine: Path) -> None:
    answers = Answers(catalogue(mine / "results", "mine"), CPU)
    (listed,) = answers.listed()
    start = tuple(axis["start"] for axis in listed["axes"])
    question = Asked(exhibit=0, input="example:0", method="yoto", setting=start, rest=True)
    reply = answers.answer(question, never)
    assert reply["own"]["measures"].keys() >= {"loss", *answers.rooms[0].exhibit.task.terms}
    assert reply["beside"]["method"] == "fixed_grid"


def test_a_folder_without_networks_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name a results folder, or `run` first"):
        catalogue(tmp_path)


def test_damaged_weights_are_told(mine: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "results"
    shutil.copytree(mine / "results", copy)
    for path in copy.glob("runs/*/yoto/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    (exhibit,) = catalogue(copy, "mine")
    with pytest.raises(Damaged, match="SHA-256"):
        exhibit.methods["yoto"].at(*exhibit.settings[0])


def test_merged_folders_can_be_shown(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert main(["merge", str(mine / "results"), "--out", str(out)]) == 0
    assert catalogue(out, "mine")


def test_training_data_need_not_be_where_it_was(tmp_path: Path) -> None:
    data = tmp_path / "photos"
    data.mkdir()
    (data / "a.png").write_bytes(png(80, 80, 3))
    out = tmp_path / "results"
    words = ["run", "compression", "--preset", "smoke", "--methods", "yoto,fixed_grid"]
    places = ["--train-data", str(data), "--test-data", str(data)]
    assert main([*words, *places, "--out", str(out)]) == 0
    data.rename(tmp_path / "moved")
    answers = Answers(catalogue(out), CPU)
    assert answers.inputs(0)[0]["name"] == "astronaut"


# Answers ------------------------------------------------------------------------------------------


def test_an_answer_is_what_the_task_makes_and_measures(shipped: Answers) -> None:
    room = shipped.rooms[place(shipped, "compression")]
    task = room.exhibit.task
    data = png(96, 128, 3)
    upload = shipped.receive(place(shipped, "compression"), data)
    assert (upload["width"], upload["height"], upload["taken"]) == (128, 96, [128, 96])
    question = asked(shipped, "compression", 0.03, input=upload["input"], rest=True)
    reply = shipped.answer(question, never)
    picture = torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1) / 255
    for side, entry, at in (
        ("own", room.exhibit.methods["yoto_tuned"], (0.03,)),
        ("beside", room.exhibit.methods["fixed_grid_tuned"], (0.018,)),
    ):
        with torch.no_grad():
            model = entry.at(*at)
            values = task.measure(model, picture[None])
            shown = task.sample(model, picture[None])
        assert np.abs(pixels(reply[side]) / 255 - shown.permute(1, 2, 0).numpy()).max() < 0.003
        for name, value in reply[side]["measures"].items():
            if name != "loss":
                assert value == pytest.approx(values[name].item(), rel=1e-5), name
        terms = {name: values[name] for name in task.terms}
        loss = weighted(task.space, terms, torch.tensor([[0.03]])).item()  # for both
        assert reply[side]["measures"]["loss"] == pytest.approx(loss, rel=1e-5)
        assert reply[side]["setting"] == list(at)


def test_while_a_slider_moves_a_large_picture_is_answered_small(shipped: Answers) -> None:
    where = place(shipped, "compression")
    upload = shipped.receive(where, png(700, 1000, 3))
    assert upload["taken"] == [768, 538]
    how: dict[str, Any] = {"input": upload["input"]}
    shipped.rooms[where].pace = {"yoto_tuned": 1e-6, "fixed_grid_tuned": 1e-6}
    quick = shipped.answer(asked(shipped, "compression", 0.01, **how), never)["own"]
    assert quick["width"] * quick["height"] <= 0.05 / 1e-6
    assert "measures" not in quick
    original = shipped.original(asked(shipped, "compression", 0.01, **how))
    assert Image.open(io.BytesIO(original or b"")).size == (768, 538)


def test_the_setting_moves_the_answer_and_is_kept(shipped: Answers) -> None:
    low, high = (shipped.answer(asked(shipped, "digits", b, rest=True), never) for b in (0.02, 2))
    assert low["own"]["measures"]["kl"] > 2 * high["own"]["measures"]["kl"]
    room = shipped.rooms[place(shipped, "digits")]
    models = len(room.models)
    shipped.answer(asked(shipped, "digits", 0.02, rest=True), never)
    assert len(room.models) == models
    outside = shipped.answer(asked(shipped, "digits", 4.0), never)
    assert "outside" in outside["outside"][0]


def test_latents_are_decoded(shipped: Answers) -> None:
    reply = shipped.answer(asked(shipped, "digits", 0.2), never)["own"]
    latents = tuple(reply["latents"])
    assert len(latents) == 8
    same = shipped.answer(asked(shipped, "digits", 0.2, latents=latents), never)["own"]
    assert np.abs(pixels(reply).astype(int) - pixels(same)).max() <= 1
    moved = (latents[0] + 2, *latents[1:])
    other = shipped.answer(asked(shipped, "digits", 0.2, latents=moved), never)["own"]
    assert np.abs(pixels(reply).astype(int) - pixels(other)).max() > 20
    with pytest.raises(Refused, match="no latents"):
        shipped.answer(asked(shipped, "digits", 0.2, latents=(1.0,)), never)
    with pytest.raises(Refused, match="no latents"):
        shipped.answer(asked(shipped, "compression", 0.2, latents=(1.0,)), never)


def test_a_quantile_is_written_as_its_level(shipped: Answers) -> None:
    reply = shipped.answer(asked(shipped, "quantiles", 3.0, rest=True), never)
    assert reply["also"] == "τ = 0.75"
    assert reply["own"]["picture"] is None
    first = shipped.inputs(place(shipped, "quantiles"))[0]
    assert re.fullmatch(r"x = \(.*\), y = -?\d\.\d\d", first["text"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"no picture", "no JPEG, PNG, TIFF or WebP"),
        (png(40, 40, 3)[:200], "cannot be used"),
        (png(8, 40, 3), "fewer than 16"),
    ],
    ids=["empty", "text", "cut", "tiny"],
)
def test_what_is_no_picture_is_refused(shipped: Answers, data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        shipped.receive(place(shipped, "compression"), data)


def test_a_bomb_is_refused_before_it_is_decoded(
    shipped: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = int(MOST_PIXELS**0.5) + 8
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(Refused, match=f"more than {MOST_PIXELS:,} are not taken"):
        shipped.receive(place(shipped, "compression"), file.getvalue())


def test_questions_that_have_no_answer(shipped: Answers) -> None:
    for change, words in (
        ({"input": "example:99"}, "no such example"),
        ({"input": "example:x"}, "no such example"),
        ({"input": "gone"}, "no longer kept"),
        ({"method": "../../etc"}, "no such method"),
    ):
        with pytest.raises(Refused, match=words):
            shipped.answer(asked(shipped, "digits", 0.2, **change), never)
    with pytest.raises(Refused, match="2 values"):
        shipped.answer(asked(shipped, "digits", 0.2, 0.2), never)
    with pytest.raises(Refused, match="takes no picture"):
        shipped.receive(place(shipped, "quantiles"), png(40, 40, 3))
    with pytest.raises(Refused, match="no such task"):
        shipped.inputs(-1)


def test_uploads_are_forgotten_in_time(shipped: Answers) -> None:
    where = place(shipped, "compression")
    names = [shipped.receive(where, png(16 + i, 16, 3))["input"] for i in range(20)]
    assert len(shipped.uploads) == 16
    with pytest.raises(Refused, match="no longer kept"):
        shipped.original(asked(shipped, "compression", 0.01, input=names[0]))


def test_a_superseded_answer_stops_between_two_steps(shipped: Answers) -> None:
    steps = iter([False, False, True])
    with pytest.raises(Superseded):
        shipped.answer(asked(shipped, "digits", 0.77, rest=True), lambda: next(steps))


def test_pictures_are_made_smaller_never_larger() -> None:
    picture = torch.rand(1, 3, 100, 200)
    assert within(picture, 10**6, 10**4) is picture
    assert within(picture, 5000, 10**4).shape == (1, 3, 50, 100)
    assert within(picture, 10**6, 50).shape == (1, 3, 25, 50)


def test_the_configurations_that_ship_can_be_read_as_any_folder() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert json.loads((ZOO / "configs" / "digits.json").read_text())["kind"] == "run"
        assert main(["status", str(ZOO)]) == 0

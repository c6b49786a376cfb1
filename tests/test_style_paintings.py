"""One network for several paintings: what is drawn, learned, folded, measured, shown, refused."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cli import main
from bench.conditioners import Network
from bench.live.answers import Answers, Asked
from bench.live.networks import catalogue
from bench.method import Cell, build
from bench.pictures import downloads
from bench.pictures.data import PictureError
from bench.pictures.downloads import Unavailable
from bench.registry import method, sized
from bench.tasks import style_terms
from bench.tasks.painter import Painted, Painter
from bench.tasks.paintings import Commissioned, listed
from bench.tasks.style import FOUR, PAINTING, Style
from bench.tasks.style_terms import STYLE_TERMS
from bench.train import Trainer, fit

CPU = torch.device("cpu")
PRESETS = Style.presets()
SMOKE = PRESETS["smoke"].task
CENTRE = SMOKE.space.grid(1)[0]


@pytest.fixture
def two(two_paintings: str, fetched: Callable[[str], None]) -> Style:
    fetched("style")
    return replace(SMOKE, paintings=two_paintings)


def own_shares(count: int, place: int) -> torch.Tensor:
    return torch.eye(2)[place].expand(count, -1)


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    """Move every painting's rows off the start, at which all are the same."""
    for part in model.modules():
        if isinstance(part, Painted):
            part.scale.uniform_(0.5, 2)
            part.shift.normal_(0, 0.5)


# What it is ---------------------------------------------------------------------------------------


def test_without_paintings_nothing_changes(fetched: Callable[[str], None]) -> None:
    """The ids of networks that were trained before there was a choice."""
    fetched("style")
    known = {"smoke": "0efa6ad16959", "small-cpu": "0c8cbf81b8e9"}
    tasks = {identifier: PRESETS[name].task for name, identifier in known.items()}
    tasks["8c6fa68675cf"] = PRESETS["quick"].task.trained_with(steps=240)  # as it once was
    for identifier, task in tasks.items():
        assert Cell(task=task, method=method("yoto"), seed=0).id == identifier
        assert "paintings" not in task.fields()
    model = SMOKE.model()
    assert not [part for part in model.modules() if isinstance(part, Painted)]
    assert list(model.state_dict())[:4] == [
        *("body.start.conv.weight", "body.start.conv.bias"),
        *("body.start.norm.weight", "body.start.norm.bias"),
    ]


def test_one_painting_is_that_painting(fetched: Callable[[str], None], tmp_path: Path) -> None:
    fetched("style")
    copy = str(shutil.copy(downloads.get(PAINTING), tmp_path / "copy.jpg"))
    for paintings in (PAINTING, copy, str(tmp_path)):
        one = replace(SMOKE, paintings=paintings)
        assert one.identity == SMOKE.identity
        assert one.several == one.showing().blends == ()
        assert one.measures == SMOKE.measures
        assert one.constants() == SMOKE.constants()


def test_content_in_its_order_makes_the_id(two: Style, tmp_path: Path) -> None:
    first, second = two.paintings.split(";")
    moved = [str(shutil.copy(path, tmp_path / f"x{Path(path).name}")) for path in (first, second)]

    def cell(*paintings: str) -> str:
        task = replace(two, paintings=";".join(paintings))
        return Cell(task=task, method=method("yoto"), seed=0).id

    assert cell(*moved) == cell(first, second)
    assert len({cell(first, second), cell(second, first), cell(first, PAINTING), cell("")}) == 4


def test_the_preset_has_four_pinned_paintings_and_small_cpus_network() -> None:
    chosen, small = PRESETS["four-paintings"], PRESETS["small-cpu"]
    assert chosen.task.several == FOUR
    assert len(set(chosen.task.fields()["paintings"])) == 4
    assert replace(chosen.task, paintings="").lasting(1 / 4) == small.task
    seen = chosen.task.training.steps * chosen.task.training.batch / 4
    assert seen == small.task.training.steps * small.task.training.batch


def test_locations_stay_names_or_become_absolute(
    two_paintings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in two_paintings.split(";"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    given = f"dots.png; {PAINTING};bars.png"
    chosen, size = sized("style", "smoke", {"paintings": given})
    assert chosen.task.paintings == f"{tmp_path}/dots.png;{PAINTING};{tmp_path}/bars.png"
    assert chosen.task.several == ("dots", PAINTING, "bars")
    assert size == "smoke"
    bracketed, size = sized("style[paintings=dots.png;bars.png]", "smoke")
    assert bracketed.task.several == ("dots", "bars")
    assert size == "smoke[paintings=dots.png;bars.png]"
    assert sized("style", "smoke", {"paintings": "."})[0].task.several == ("bars", "dots")


@pytest.mark.parametrize(
    ("paintings", "fields", "reason"),
    [
        ("nowhere.png;dots.png", {}, "nowhere.png: there is no such painting; it is a picture"),
        ("circus-sideshow;dots.png;sideshow", {}, "sideshow: there is no such painting"),
        (f"dots.png;{PAINTING};dots.png", {}, "two paintings are called 'dots'"),
        ("dots.png;bars.png", {"style": "dots.png"}, "--style and --paintings both"),
        ("dots.png;bars.png", {"instance_norm": False}, "instance_norm=true, or one painting"),
    ],
)
def test_nonsense_is_refused(
    paintings: str,
    fields: dict[str, Any],
    reason: str,
    two_paintings: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(two_paintings.split(";")[0]).parent)
    with pytest.raises(ValueError, match=reason):
        replace(SMOKE, paintings=paintings, **fields).fields()


def test_the_same_picture_twice_is_refused_before_any_training(
    two_paintings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = two_paintings.split(";")[0]
    shutil.copy(first, tmp_path / "again.png")
    words = ["run", "style", "--preset", "smoke", "--paintings", f"{first};{tmp_path}/again.png"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "are the same picture: leave one out" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/runs/*"))


# What is drawn and learned ------------------------------------------------------------------------


def test_paintings_are_drawn_uniformly_and_pictures_as_for_one(two: Style) -> None:
    data, plain = two.data("train"), SMOKE.data("train")
    assert isinstance(data, Commissioned)
    pictures, shares = data.batch(4, torch.Generator().manual_seed(3))
    assert torch.equal(pictures, plain.batch(4, torch.Generator().manual_seed(3)))
    assert shares.shape == (4, 2)
    drawn = torch.cat([data.batch(50, torch.Generator().manual_seed(i))[1] for i in range(40)])
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert (drawn.sum(1) == 1).all()
    assert abs(drawn[:, 0].mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_every_method_sees_the_same(two: Style, tmp_path: Path) -> None:
    batches = []
    for name in ("fixed_grid", "yoto", "instance_norm"):
        cell = method(name).plan(two, [CENTRE], 0)[0]
        draw = functools.partial(cell.method.draw, cell)
        trainer = Trainer(cell.task, build(cell), draw, 0, CPU, tmp_path)
        batches.append(torch.cat([trainer.inputs()[0][1] for _ in range(8)]))
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])
    assert len(batches[0].unique(dim=0)) == 2


def test_the_blend_of_one_is_that_one_alone() -> None:
    """A painting's rows, folded into the norms of a network for one, and half of each."""
    torch.manual_seed(0)
    both, x = Painter(4, 1, True, True, 2), torch.rand(2, 3, 32, 36)
    disturb(both)
    with torch.no_grad():
        for place in (0, 1):
            alone = Painter(4, 1, True, True)
            kept = {k: v for k, v in both.state_dict().items() if "painted" not in k}
            for name, part in both.named_modules():
                if isinstance(part, Painted):
                    norm = name.replace("painted", "norm")
                    scale, shift = part.scale[place], part.shift[place]
                    kept[f"{norm}.weight"] = kept[f"{norm}.weight"] * scale
                    kept[f"{norm}.bias"] = kept[f"{norm}.bias"] * scale + shift
            alone.load_state_dict(kept)
            torch.testing.assert_close(both(x, own_shares(2, place)), alone(x))
        ends = [both(x, own_shares(2, place)) for place in (0, 1)]
        apart = both(x, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        torch.testing.assert_close(apart, torch.stack([ends[0][0], ends[1][1]]))
        half = both(x, torch.full((2, 2), 0.5))
    assert min((half - end).abs().max() for end in ends) > 1e-2


def test_folding_and_export_are_exact(two: Style) -> None:
    cell = Cell(task=two, method=method("yoto", hidden=8), seed=0)
    network: Network = build(cell).eval()
    disturb(network.model)
    setting, x, shares = (0.2, 1.0, 3.0, 5.0, 0.1), torch.rand(2, 3, 40, 32), torch.rand(2, 2)
    with torch.no_grad():
        network.condition(torch.tensor([setting]))
        conditioned = network.model(x, shares)
        network.release()
        plain = network.at(setting)
        torch.testing.assert_close(plain(x, shares), conditioned, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(plain, (x, shares)).module()
        torch.testing.assert_close(exported(x, shares), plain(x, shares))


def test_a_short_training_tells_the_paintings_apart(two: Style, tmp_path: Path) -> None:
    task = two.trained_with(steps=150, batch=4)
    cell = method("fixed_grid").plan(task, [(0.1, 10.0, 10.0, 10.0, 10.0)], 0)[0]
    network = build(cell)
    fit(task, network, functools.partial(cell.method.draw, cell), 0, CPU, tmp_path)
    pictures, _ = task.data("train").batch(8, torch.Generator().manual_seed(9))

    class Swapped(nn.Module):
        def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
            return network.model(x, shares.flip(1))

    with torch.no_grad():
        for place in (0, 1):
            batch = pictures, own_shares(8, place)
            own, other = task.losses(network.model, batch), task.losses(Swapped(), batch)
            style = [sum(terms[name] for name in STYLE_TERMS).mean() for terms in (own, other)]
            assert style[0] < 0.5 * style[1], place


# What is measured and shown -----------------------------------------------------------------------


def test_an_empty_picture_scores_one_for_each_painting(two: Style) -> None:
    crops, _ = two.data("train").batch(style_terms.NORMALISED_ON, torch.Generator().manual_seed(0))
    assert set(two.constants()) == {
        "content", *(f"{term} {name}" for term in STYLE_TERMS for name in ("bars", "dots"))
    }  # fmt: skip

    def empty(x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True).expand_as(x)

    with torch.no_grad():
        for place in (0, 1):
            terms = two.losses(empty, (crops, own_shares(len(crops), place)))  # type: ignore[arg-type]
            for name in ("content", *STYLE_TERMS):
                assert terms[name].mean().item() == pytest.approx(1, rel=1e-3), name


def test_every_picture_is_measured_with_every_painting(two: Style) -> None:
    torch.manual_seed(0)
    model, task = two.model().eval(), two
    examples = dict(task.data("test").examples())
    assert list(examples)[:2] == ["astronaut / bars", "astronaut / dots"]
    assert len(examples) == 2 * len(list(SMOKE.data("test").examples()))
    with torch.no_grad():
        values = task.measure(model, examples["astronaut / dots"])
    assert set(values) == set(task.measures)
    assert not [name for name in values if name.endswith("_raw")]
    for name in ("content", "style", "lpips"):
        assert values[f"{name} dots"].item() == values[name].item()
        assert values[f"{name} bars"].isnan().all()
    assert task.sample(model, examples["astronaut / dots"]).shape == (3, 32, 32)
    assert task.original(examples["astronaut / dots"]).shape == (3, 32, 32)
    assert task.data("test").digest != SMOKE.data("test").digest
    assert task.data("train").digest == SMOKE.data("train").digest


def test_a_users_picture_is_shown_whole_in_any_mixture(two: Style) -> None:
    torch.manual_seed(0)
    model, showing = two.model().eval(), two.showing()
    disturb(model)
    picture = torch.rand(3, 45, 70)
    batch = showing.received(picture)
    assert showing.blends == ("bars", "dots")
    assert torch.equal(showing.original(batch), picture)
    dots = showing.blended(batch, [0, 1])
    one, other = showing.picture(model, batch), showing.picture(model, dots)
    assert one.shape == picture.shape
    assert (one - other).abs().max() > 0.01
    own = showing.measured(model, dots, CENTRE)
    assert set(own) == {name for name in two.measures if not name.endswith((" bars", " dots"))}
    mixed = showing.measured(model, showing.blended(batch, [0.25, 0.75]), CENTRE)
    assert set(mixed) == {"content", "lpips", "tv"}
    for shares in ([1.0], [0.5, 0.6], [1.5, -0.5]):
        with pytest.raises(ValueError, match="that sum to 1"):
            showing.blended(batch, shares)
    with pytest.raises(ValueError, match="70 x 12 pixels: give one with 16 a side"):
        showing.received(picture[:, :12])
    (_, example), *_ = two.data("test").examples()
    assert showing.picture(model, example).shape == showing.original(example).shape


def test_of_one_painting_a_picture_is_shown_as_ever(fetched: Callable[[str], None]) -> None:
    fetched("style")
    torch.manual_seed(0)
    model, showing = SMOKE.model().eval(), SMOKE.showing()
    picture = torch.rand(3, 33, 50)
    batch = showing.blended(showing.received(picture), [])
    assert torch.equal(batch[0], picture)
    assert showing.blends == ()
    assert set(showing.measured(model, batch, CENTRE)) == set(SMOKE.measures)


def test_without_weights_what_needs_them_is_left_out(
    two: Style, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> None:
        raise Unavailable("it cannot be had")

    monkeypatch.setattr(style_terms, "vgg", nothing)
    monkeypatch.setattr("bench.tasks.style.lpips_missing", lambda: {"lpips": "none here"})
    showing = two.showing()
    batch = showing.received(torch.rand(3, 40, 40))
    assert set(showing.measured(two.model(), batch, CENTRE)) == {"tv"}
    assert showing.lacking() == "none here; it cannot be had"  # said on the page
    assert set(two.missing()) == {"lpips", "lpips bars", "lpips dots"}


def test_recalled_constants_are_used_where_the_training_data_is_not(two: Style) -> None:
    known = two.constants()
    elsewhere = replace(two, train_data="/nowhere")
    identity = two.fields()
    with pytest.raises(PictureError, match="nowhere"):
        elsewhere.constants()
    with pytest.raises(ValueError, match="no 'style_relu1_2 bars'"):
        elsewhere.showing().recall(SMOKE.constants())
    doubled = {name: 2 * value for name, value in known.items()}
    elsewhere.showing().recall(doubled)
    assert elsewhere.constants() == doubled
    assert elsewhere == replace(two, train_data="/nowhere")
    assert elsewhere.fields() == identity
    batch = elsewhere.showing().received(torch.rand(3, 40, 40))
    model = two.model().eval()
    ours = two.showing().measured(model, batch, CENTRE)
    theirs = elsewhere.showing().measured(model, batch, CENTRE)
    assert theirs["style"] == pytest.approx(ours["style"] / 2)
    gone = replace(elsewhere, paintings="gone/bars.png;gone/dots.png")
    gone.showing().recall(known)
    assert set(gone.showing().measured(model, batch, CENTRE)) == {"lpips", "tv"}


def test_the_live_page_mixes_the_paintings_where_they_and_the_data_are_gone(
    two_paintings: str, small_pictures: Path, tmp_path: Path, fetched: Callable[[str], None]
) -> None:
    fetched("style")
    kept = [shutil.copy(path, tmp_path) for path in two_paintings.split(";")]
    shutil.copytree(small_pictures, tmp_path / "photos")
    words = ["run", "style[training.steps=1]", "--preset", "smoke", "--methods", "yoto,fixed_grid"]
    words += ["--paintings", ";".join(kept), "--train-data", str(tmp_path / "photos")]
    words += ["--test-data", str(small_pictures), "--out", str(tmp_path / "out")]
    assert main(words) == 0

    def numbers() -> dict[str, float]:
        answers = Answers(catalogue(tmp_path / "out", "style"), CPU)
        (listed,) = answers.listed()
        assert listed["blends"] == ["bars", "dots"]
        one, half = (
            Asked(exhibit=0, input="example:0", method="yoto", setting=CENTRE, rest=True, shares=s)
            for s in ((0.0, 1.0), (0.5, 0.5))
        )
        pictures = [answers.answer(each, lambda: False)["own"] for each in (one, half)]
        assert pictures[0]["picture"] != pictures[1]["picture"]
        assert not [name for name in pictures[1]["measures"] if name.startswith("style")]
        return pictures[0]["measures"]

    shutil.rmtree(tmp_path / "photos")
    whole = numbers()
    assert {"loss", "style", "content"} <= set(whole)
    assert not {"style dots", "style bars"} & set(whole)  # it is of one painting
    for path in kept:
        Path(path).unlink()
    style_terms.painting_grams.cache_clear()
    assert set(numbers()) == {"lpips", "tv"}


def test_names_of_files_become_names_of_measures(tmp_path: Path, two_paintings: str) -> None:
    odd = tmp_path / "[1] a=b, é.png"
    shutil.copy(two_paintings.split(";")[0], odd)
    assert list(listed(f"{odd};{PAINTING};")) == ["1- a-b- é", PAINTING]
    assert listed("") == {}

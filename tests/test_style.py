"""Style transfer: its terms against independent code, the normalisers, ids, and no weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16

from bench.conditioners import Encoding, FiLM, Network
from bench.method import Cell, build
from bench.modulation import channels, fold
from bench.pictures import downloads
from bench.pictures.data import PictureError
from bench.pictures.downloads import Unavailable
from bench.pictures.perceptual import IMAGENET_MEAN, IMAGENET_STD
from bench.registry import method
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.tasks import style, style_terms
from bench.tasks.painter import Painter
from bench.tasks.style import Style
from bench.tasks.style_terms import STYLE_LAYERS, STYLE_TERMS

CPU = torch.device("cpu")
SMOKE = Style.presets()["smoke"].task


def crops(count: int = 2, seed: int = 3) -> torch.Tensor:
    return SMOKE.data("train").batch(count, torch.Generator().manual_seed(seed))


def by_torchvision(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """VGG-16's features by torchvision's own network, with the artefact's weights."""
    stored = load_file(downloads.get("vgg16-convs"))
    net = vgg16(weights=None).features.eval()
    convs = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    for i, conv in enumerate(convs):
        conv.load_state_dict({"weight": stored[f"{i}.weight"], "bias": stored[f"{i}.bias"]})
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = (x - mean) / std
    ends = {"relu1_2": 4, "relu2_2": 9, "relu3_3": 16, "relu4_3": 23}
    return {name: net[:end](x) for name, end in ends.items()}


@torch.no_grad()
def test_raw_terms_by_torchvision_and_einsum() -> None:
    picture = F.avg_pool2d(crops(), SMOKE.shrink)
    output = (picture.flip(-1) * 0.8 + 0.1).clone()
    raw = style_terms.raw_terms(SMOKE, output, picture)
    seen, wanted = by_torchvision(output), by_torchvision(picture)
    content = ((seen["relu3_3"] - wanted["relu3_3"]) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(raw["content"], content, rtol=1e-4, atol=1e-4)

    painting = Image.open(downloads.get(style.PAINTING)).convert("RGB")
    side = SMOKE.style_size
    width = round(painting.width * side / painting.height)
    small = np.asarray(painting.resize((width, side), Image.Resampling.BICUBIC)) / 255
    left = (width - side) // 2
    square = torch.tensor(small[:, left : left + side].transpose(2, 0, 1), dtype=torch.float32)
    shown = by_torchvision(square[None])
    for name in STYLE_LAYERS:

        def gram(f: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bchw,bdhw->bcd", f, f) / f[0].numel()

        expected = ((gram(seen[name]) - gram(shown[name])) ** 2).sum((1, 2))
        # Pillow rounds differently after resizing
        torch.testing.assert_close(raw[f"style_{name}"], expected, rtol=0.02, atol=1e-3)

    step = np.diff(output.numpy(), axis=3), np.diff(output.numpy(), axis=2)
    tv = sum((part**2).mean((1, 2, 3)) for part in step)
    np.testing.assert_allclose(raw["tv"].numpy(), tv, rtol=1e-4)


def test_an_empty_picture_scores_one_and_the_painting_no_style() -> None:
    def empty(x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True).expand_as(x)

    batch = SMOKE.data("train").batch(style_terms.NORMALISED_ON, torch.Generator().manual_seed(0))
    with torch.no_grad():
        terms = SMOKE.losses(empty, batch)  # type: ignore[arg-type]
        for name in ("content", *STYLE_TERMS):
            assert terms[name].mean().item() == pytest.approx(1, rel=1e-3), name
        assert terms["tv"].abs().max() == 0
        unchanged = SMOKE.losses(nn.Identity(), batch)
        assert unchanged["content"].max() == 0

        (_, painting) = next(style_terms.Pictures([downloads.get(style.PAINTING)]).examples())
        square = style_terms.middle(style_terms.shorter(painting, SMOKE.style_size), SMOKE.crop)
        own = SMOKE.normalised(style_terms.raw_terms(SMOKE, square, square))
    assert max(own[name].item() for name in STYLE_TERMS) < 1e-6


def test_normalisers_are_the_cells_constants_whatever_the_training() -> None:
    longer = replace(SMOKE, training=replace(SMOKE.training, steps=9, lr=0.1), width=5)
    assert longer.constants() == SMOKE.constants()
    assert set(SMOKE.constants()) == set(SMOKE.space.names)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    style_terms.normalisers.cache_clear()
    SMOKE.constants()
    assert torch.equal(torch.get_rng_state(), before)  # the training's noise is not touched


def test_terms_are_per_example() -> None:
    model = build(Cell(task=SMOKE, method=method("unconditioned"), seed=0)).model
    batch = crops(3)
    with torch.no_grad():
        together = SMOKE.losses(model, batch)
        alone = SMOKE.losses(model, batch[1:2])
    for name in SMOKE.terms:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_sites_are_effective_and_fold_away(norm: bool) -> None:
    """A scale before a normalisation would be undone by it: the output must follow every site."""
    task = replace(SMOKE, instance_norm=norm)
    torch.manual_seed(0)
    model = task.model()
    sites = task.sites(model)
    kind = nn.InstanceNorm2d if norm else nn.Conv2d
    assert len(sites) == 7
    assert all(isinstance(model.get_submodule(site), kind) for site in sites)
    assert "pixels" not in sites
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = Network(model, FiLM(model, sites, Encoding(task.space, "log"), 8, 0.5))
    setting = (0.2, 1.0, 3.0, 5.0, 0.1)
    with torch.no_grad():
        plain = network.model(x)
        for name in sites:
            site = network.model.get_submodule(name)
            assert site.after == (None, None)
            width = channels(site.layer)
            # One scale for all channels would be undone by the next normalisation.
            scale = torch.linspace(0.5, 2, width)[None]
            site.after = (scale, torch.zeros(1, width))
            assert (network.model(x) - plain).abs().max() > 1e-3
            site.after = (None, None)
        network.condition(torch.tensor([setting]))
        conditioned = network.model(x)
        network.release()
        torch.testing.assert_close(network.at(setting)(x), conditioned, rtol=1e-4, atol=1e-5)


def test_a_folded_instance_norm_is_conditional_instance_norm() -> None:
    layer = nn.InstanceNorm2d(4, affine=True)
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    scale, shift = torch.tensor([[0.5, 2.0, -1.0, 3.0]]), torch.tensor([[1.0, 0.0, 2.0, -1.0]])
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
        expected = layer(x) * scale[..., None, None] + shift[..., None, None]
        fold(layer, scale, shift)
        torch.testing.assert_close(layer(x), expected)
    with pytest.raises(TypeError, match="affine"):
        fold(nn.InstanceNorm2d(4), scale, shift)


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_the_painter_keeps_the_size_and_starts_near_the_photograph(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, *size)
    with torch.no_grad():
        near, far = (Painter(4, 1, True, residual)(x) for residual in (True, False))
    assert near.shape == far.shape == x.shape
    assert near.min() >= 0
    assert near.max() <= 1

    def alike(y: torch.Tensor) -> float:
        return np.corrcoef(x.flatten().numpy(), y.flatten().numpy())[0, 1]

    assert alike(near) > 0.6 > abs(alike(far))


def test_the_painting_makes_the_id_not_its_place(tmp_path: Path) -> None:
    def cell(path: Path | str) -> str:
        return Cell(task=replace(SMOKE, style=str(path)), method=method("yoto"), seed=0).id

    same = tmp_path / "copy.jpg"
    shutil.copy(downloads.get(style.PAINTING), same)
    other = tmp_path / "other.png"
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(other)
    assert cell(same) == cell("")
    assert cell(other) != cell("")
    with pytest.raises(PictureError, match="nowhere"):
        cell(tmp_path / "nowhere.png")


def test_without_weights_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(name: str) -> Path:
        raise Unavailable(f"{name} cannot be had")

    for cached in (style_terms.vgg, style_terms.painting_grams, style_terms.normalisers):
        cached.cache_clear()
    monkeypatch.setattr("bench.pictures.perceptual.get", nothing)
    run = Run(tmp_path, [experiment("style", "smoke", ["yoto"])], CPU)
    with pytest.raises(Unavailable, match="--vgg-weights FILE"):
        run.open_data()
    run.execute(run.train_jobs(), "training", lambda: False)
    assert "--vgg-weights FILE" in run.failures[0]
    assert run.missing_cells()


def test_a_users_weights_are_used_and_enter_the_id(tmp_path: Path) -> None:
    stored = load_file(downloads.get("vgg16-convs"))
    halved = {name: value / 2 if name == "0.weight" else value for name, value in stored.items()}
    save_file(halved, tmp_path / "other.safetensors")
    other = replace(SMOKE, vgg_weights=str(tmp_path / "other.safetensors"))
    assert other.fields() != SMOKE.fields()
    assert other.constants() != SMOKE.constants()
    save_file(stored, tmp_path / "same.safetensors")
    same = replace(SMOKE, vgg_weights=str(tmp_path / "same.safetensors"))
    assert same.fields() == SMOKE.fields()


def test_settings_begin_with_the_centre_and_move_one_coefficient_at_a_time() -> None:
    settings = SMOKE.settings(15)
    assert len(set(settings)) == 15
    centre = settings[0]
    assert centre == SMOKE.space.grid(1)[0]
    moved = [
        [(i, value) for i, value in enumerate(setting) if value != centre[i]]
        for setting in settings[1:11]
    ]
    assert all(len(differences) == 1 for differences in moved)
    assert {differences[0] for differences in moved} == {
        (i, value) for i in range(5) for value in (SMOKE.low, SMOKE.high)
    }
    assert SMOKE.settings(15) == settings
    assert SMOKE.settings(5) == settings[:5]


def test_measures_are_raw_and_normalised_on_the_middle_square() -> None:
    picture = torch.rand(1, 3, 40, 70, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        values = SMOKE.measure(nn.Identity(), picture)
        assert SMOKE.sample(nn.Identity(), picture).shape == (3, 32, 32)
    assert set(values) == set(SMOKE.measures)
    assert values["lpips"].item() == pytest.approx(0, abs=1e-6)
    by = SMOKE.constants()
    for name in STYLE_TERMS:
        raw = values[f"{name}_raw"].item()
        assert values[name].item() == pytest.approx(raw / by[name], rel=1e-5)
    mean = np.mean([values[name].item() for name in STYLE_TERMS])
    assert values["style"].item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("name", Style.presets())
def test_every_preset_is_normalised_and_weighs_evenly(name: str) -> None:
    task = Style.presets()[name].task
    assert task.training.geometric_mean
    assert len(task.settings(Style.presets()[name].settings)) == Style.presets()[name].settings
    assert len(task.sites(task.model())) == 5 + 2 * task.blocks


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"content_layer": "relu5_1"}, "relu2_2 or relu3_3"),
        ({"crop": 16}, "32 pixels"),
        # Its middle square would be as large as the training pictures, and there is none.
        ({"style_size": 48, "crop": 64}, "style_size 48 needs to be 64, the crop, or more"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SMOKE, **fields)
    assert replace(SMOKE, style_size=64, crop=64).crop == 64

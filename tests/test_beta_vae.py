"""β-VAE: parameters derived by hand, likelihoods against torch.distributions, data, scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributions as D
from torch import nn

from bench.conditioners import Encoding, FiLM
from bench.cost import count_flops, parameters
from bench.pictures.data import PictureError
from bench.pictures.scenes import Scenes
from bench.registry import preset, task_class
from bench.tasks import beta_vae_data
from bench.tasks.autoencoder import variance_scaling
from bench.tasks.beta_vae import BetaVae, Cifar10, OurScenes, Shapes3D
from bench.tasks.beta_vae_data import Held, Pool

VARIANTS = [Cifar10, OurScenes, Shapes3D]


def task(kind: type[BetaVae], width: int = 1) -> BetaVae:
    return replace(preset(kind, "paper").task, width=width)


def side(of: BetaVae) -> int:
    return 32 if of.layout.gaussian else 64


# ------------------------------------------------------------------ the networks


def conv(before: int, after: int) -> int:
    return 9 * before * after + after


def linear(before: int, after: int) -> int:
    return before * after + after


@pytest.mark.parametrize(
    ("width", "of_cifar10", "of_shapes3d"),
    [(1, 506_094, 619_447), (2, 1_625_814, 2_457_943), (4, 5_707_686, 9_792_151)],
)
def test_parameters_by_hand(width: int, of_cifar10: int, of_shapes3d: int) -> None:
    """The released files are width 2 of CIFAR-10 (16, 32, 64 channels and 512 wide dense layers)
    and width 1 of Shapes3D (8 to 64 channels and 256)."""
    a, b, c, d, dense = (width * count for count in (8, 16, 32, 64, 256))
    encoder = conv(3, a) + conv(a, a) + conv(a, b) + conv(b, b) + conv(b, c) + conv(c, c)
    encoder += linear(16 * c, dense) + linear(dense, 512)  # 256 means, 256 deviations
    decoder = linear(256, dense) + linear(dense, 16 * c)
    decoder += 2 * conv(c, c) + conv(c, b) + conv(b, b) + conv(b, a) + conv(a, a) + conv(a, 6)
    assert encoder + decoder == of_cifar10 == parameters(task(Cifar10, width).model())
    encoder = conv(3, a) + conv(a, b) + conv(b, c) + conv(c, d)
    encoder += linear(16 * d, dense) + linear(dense, 20)
    decoder = linear(10, dense) + linear(dense, 16 * d)
    decoder += conv(d, d) + conv(d, c) + conv(c, b) + conv(b, a) + conv(a, 3)
    assert encoder + decoder == of_shapes3d == parameters(task(OurScenes, width).model())
    assert of_shapes3d == parameters(task(Shapes3D, width).model())


@pytest.mark.parametrize(
    ("width", "of_parameters", "of_products"), [(1, 26, 4.7), (2, 15, 2.5), (4, 8.4, 1.3)]
)
def test_films_share_is_the_published_sites_share(
    width: int, of_parameters: float, of_products: float
) -> None:
    """Per cent added by FiLM with 512 hidden units, as derived elsewhere from the same facts."""
    variant = task(Cifar10, width)
    model = variant.model()
    film = FiLM(
        model, variant.sites(model), Encoding(variant.space, "log"), hidden=512, multiplier=0.1
    )
    channels = [8 * width, 16 * width, 32 * width]
    by_hand = sum(2 * (linear(2, 512) + linear(512, c)) for c in channels + channels)
    assert parameters(film) == by_hand
    assert 100 * by_hand / parameters(model) == pytest.approx(of_parameters, rel=0.03)
    with torch.no_grad():
        plain = count_flops(lambda: model(torch.zeros(1, 3, 32, 32)))
        added = count_flops(lambda: film(torch.ones(1, 2)))
    assert 100 * added / plain == pytest.approx(of_products, rel=0.03)


@pytest.mark.parametrize("kind", VARIANTS)
def test_sites_are_the_last_convolution_of_each_block(kind: type[BetaVae]) -> None:
    variant = task(kind)
    model = variant.model()
    sites = variant.sites(model)
    assert len(sites) == 2 * len(variant.layout.channels)
    layers = [model.get_submodule(site) for site in sites]
    widths = [*variant.layout.channels, *variant.layout.channels[::-1]]
    assert [layer.out_channels for layer in layers] == widths
    half = len(layers) // 2
    assert all(type(layer) is nn.Conv2d for layer in layers[:half])
    assert all(type(layer) is nn.ConvTranspose2d for layer in layers[half:])
    assert all(layer.stride == (2, 2) for layer in layers[half:])
    first = [block[0] for block in model.down]
    assert all(layer.stride == (2, 2) for layer in first)
    strides = [m.stride for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert strides.count((2, 2)) == len(sites)


@pytest.mark.parametrize("kind", VARIANTS)
def test_shapes(kind: type[BetaVae]) -> None:
    variant = task(kind)
    mean, std, out = variant.model()(torch.rand(2, 3, side(variant), side(variant)))
    assert mean.shape == std.shape == (2, variant.layout.latents)
    assert (std > 0).all()
    assert out.shape == (2, 6 if variant.layout.gaussian else 3, side(variant), side(variant))


def test_the_start_has_the_right_variance() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    for fan, count in (("in", 64 * 9), ("avg", 96 * 9)):
        variance_scaling(layer, 2 / (1 + 0.3**2), fan)
        assert layer.weight.var().item() == pytest.approx(2 / 1.09 / count, rel=0.02)
        assert layer.weight.abs().max() <= 2 * math.sqrt(2 / 1.09 / count) / 0.8796
        assert not layer.bias.any()
    # As TensorFlow counts, the inputs of a transposed convolution are the other side's.
    transposed = nn.ConvTranspose2d(64, 128, 3)
    variance_scaling(transposed, 1.0, "in")
    assert transposed.weight.var().item() == pytest.approx(1 / (128 * 9), rel=0.02)


def test_a_deep_signal_keeps_its_size_at_the_start() -> None:
    torch.manual_seed(0)
    for kind in (Cifar10, OurScenes):
        variant = task(kind)
        out = variant.model().decode(torch.randn(64, variant.layout.latents))
        assert 0.1 < out.std() < 10


# ------------------------------------------------------------------ the loss


@pytest.mark.parametrize("kind", [Cifar10, OurScenes])
def test_terms_are_sums_in_nats(kind: type[BetaVae]) -> None:
    """Against torch.distributions, with the same noise."""
    torch.manual_seed(3)
    variant = task(kind)
    model = variant.model()
    x = torch.rand(3, 3, side(variant), side(variant))
    noise = torch.randn(3, variant.layout.latents)
    terms = variant.losses(model, x, noise)
    seen = 2 * x - 1 if variant.layout.gaussian else x
    mean, std = model.encode(seen)
    out = model.decode(mean + std * noise)
    if variant.layout.gaussian:
        spread = nn.functional.softplus(out[:, 3:]) + 1e-6
        likelihood = D.Normal(out[:, :3], spread).log_prob(seen)
    else:
        likelihood = D.ContinuousBernoulli(logits=out).log_prob(seen)
        likelihood -= D.ContinuousBernoulli(logits=out)._cont_bern_log_norm()  # of the density
    kl = D.kl_divergence(D.Normal(mean, std), D.Normal(0.0, 1.0))
    torch.testing.assert_close(terms["kl"], kl.sum(1))
    torch.testing.assert_close(
        terms["reconstruction"], -likelihood.flatten(1).sum(1), rtol=1e-4, atol=0.1
    )


def test_training_samples_and_measuring_repeats() -> None:
    variant = task(OurScenes)
    torch.manual_seed(0)
    model = variant.model().eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, other = variant.losses(model, x), variant.losses(model, x)
        assert torch.equal(one["kl"], other["kl"])
        assert not torch.equal(one["reconstruction"], other["reconstruction"])
        values, again = variant.measure(model, x), variant.measure(model, x[1:])
    assert torch.equal(values["elbo"], -values["kl"] - values["reconstruction"])
    for name in values:  # the noise belongs to the picture, not to its place in a batch
        torch.testing.assert_close(again[name], values[name][1:], rtol=1e-5, atol=1e-2)


def test_the_papers_settings() -> None:
    cifar10, scenes = task(Cifar10), task(OurScenes)
    assert cifar10.settings(13) == tuple((2.0**k, 1.0) for k in range(-3, 10))
    settings = scenes.settings(14)
    assert settings == tuple((2.0**k, 1.0) for k in range(-1, 13))
    outside = [bool(scenes.space.outside(setting)) for setting in settings]
    assert outside == [False] * 11 + [True] * 3
    few = scenes.settings(5)
    assert [beta for beta, _ in few] == pytest.approx([0.5, 2.83, 16, 90.5, 512], rel=0.01)
    assert not any(scenes.space.outside(setting) for setting in few)


def test_another_range_moves_beta_alone_and_is_not_left() -> None:
    scenes = preset(OurScenes, "quick").task
    ranged = scenes.ranged(16.0)
    (beta, rec), (_, same) = ranged.space.axes, scenes.space.axes
    assert (beta.low, beta.high) == pytest.approx((1.0, 16.0))  # about 4, as 0.5 to 32
    assert rec == same
    assert not any(ranged.space.outside(setting) for setting in ranged.settings(9))


@pytest.mark.parametrize("pixels", [16, 32, 64])
def test_smaller_scenes_have_a_block_less(pixels: int) -> None:
    small = replace(preset(OurScenes, "smoke").task, side=pixels)
    batch = small.data("train").batch(2, torch.Generator().manual_seed(0))
    assert batch.shape == (2, 3, pixels, pixels)
    model = small.model()
    assert model(batch)[2].shape == batch.shape
    assert model.corner[1:] == (4, 4)
    _, held = next(small.data("test").examples())
    assert held.shape == (1, 3, pixels, pixels)


def test_the_side_is_no_part_of_older_ids_and_is_checked() -> None:
    whole = preset(OurScenes, "smoke").task
    assert "side" not in whole.fields()
    half = replace(whole, side=32)
    assert half.fields()["side"] == 32
    assert half.data("train").digest != whole.data("train").digest
    assert half.data("test").digest != whole.data("test").digest
    with pytest.raises(ValueError, match="side 48: use 64, 32 or 16"):
        replace(whole, side=48)


@pytest.mark.parametrize(
    ("kind", "steps", "halvings"),
    [
        (Cifar10, 1_200_000, (600_000, 780_000, 960_000, 1_140_000)),
        (OurScenes, 700_000, (300_000, 390_000, 480_000, 570_000)),
    ],
)
def test_the_papers_rate_halves_where_released(
    kind: type[BetaVae], steps: int, halvings: tuple[int, ...]
) -> None:
    from bench.train import rate_at

    training = task(kind).training
    assert training.steps == steps
    for count, step in enumerate(halvings):
        assert rate_at(training, step - 1) == pytest.approx(training.lr / 2**count)
        assert rate_at(training, step + 1) == pytest.approx(training.lr / 2 ** (count + 1))


# ------------------------------------------------------------------ the data


def test_crops_are_parts_of_their_picture() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(256, (6, 12, 12, 3), dtype=torch.uint8)
    pool = Pool("d", lambda: pictures, range(2, 6), crop=8)
    crops = pool.batch(200, torch.Generator().manual_seed(1))
    assert crops.shape == (200, 3, 8, 8)
    planes = pictures.permute(0, 3, 1, 2) / 255
    windows = planes.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5)
    both = torch.stack([windows, windows.flip(-1)])
    values = set()
    for crop in crops:
        places = (both == crop).flatten(4).all(-1).nonzero()
        assert len(places) == 1
        values.add(tuple(places[0].tolist()))
    assert {place[0] for place in values} == {0, 1}  # mirrored or not
    assert {place[1] for place in values} == {2, 3, 4, 5}  # the first two are held out
    assert {place[2] for place in values} == set(range(5)) == {place[3] for place in values}
    whole = Pool("d", lambda: pictures, torch.tensor([4])).to(torch.device("cpu"))
    assert torch.equal(whole.batch(1, torch.Generator().manual_seed(1))[0], planes[4])


def test_held_out_pictures_are_not_trained_on() -> None:
    variant = preset(OurScenes, "quick").task
    train, test = variant.data("train"), variant.data("test")
    assert isinstance(test, Held)
    assert len(list(test.examples())) == 64
    assert sum(len(part) for part in test.parts()) == 2000 == len(test.factors)
    held = Scenes("test", 2000)
    assert not set(held.numbers.tolist()) & set(train.numbers.tolist())
    with pytest.raises(ValueError, match="held out"):
        test.batch(1, torch.Generator())


def test_shapes3d_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="--train-data FILE"):
        task(Shapes3D).data("train")
    wrong = tmp_path / "3dshapes.h5"
    wrong.write_bytes(b"no such thing")
    variant = replace(task(Shapes3D), train_data=str(wrong))
    with pytest.raises(PictureError, match=r"h5py|no 3dshapes"):
        variant.data("train").batch(1, torch.Generator())


def test_shapes3d_reads_its_file(shapes3d: Path) -> None:
    pictures = beta_vae_data._shapes3d(shapes3d)[0].permute(0, 3, 1, 2) / 255
    variant = replace(task(Shapes3D), train_data=str(shapes3d), recorded=4, evaluated=8)
    held = torch.cat(list(variant.data("test").parts()))
    rows = [int((pictures == p).flatten(1).all(1).nonzero()) for p in held]
    factors = variant.data("test").factors
    assert factors[:, 0].tolist() == [row // 120 for row in rows]
    assert factors[:, 5].tolist() == [row % 2 for row in rows]
    batch = variant.data("train").batch(100, torch.Generator().manual_seed(0))
    assert not any((batch == p).flatten(1).all(1).any() for p in held)


@pytest.mark.xdist_group("cifar10")  # whose enlarged pictures a process makes once
def test_cifar10_is_enlarged_and_split_as_released(artefact: Callable[[str], Path]) -> None:
    artefact("cifar10")
    train = beta_vae_data._cifar10_train()
    assert train.shape == (40_000, 40, 40, 3)
    assert train.dtype == torch.uint8
    original = beta_vae_data._cifar10()["train_images"][10_000 + 123].float()
    # By hand: output pixel 17 reads place (17 + 0.5) * 32 / 40 - 0.5 = 13.5, pixel 20 reads 15.9.
    expected = (0.1 * original[15] + 0.9 * original[16])[13:15].mean(0).int()
    assert (train[123, 20, 17] == expected).all()
    test, factors = beta_vae_data._cifar10_held("test_images", 10)
    assert test.shape == (10, 3, 32, 32)
    assert factors is None
    chosen, _ = beta_vae_data._cifar10_held("train_images", 20_000)
    assert len(chosen) == 10_000  # what is left of the training split


# ------------------------------------------------------------------ scores


def test_numbers_about_the_whole_data_set() -> None:
    variant = preset(OurScenes, "smoke").task
    torch.manual_seed(0)
    with torch.no_grad():
        values = variant.measure_all(variant.model(), variant.data("test"))
    assert set(values) == {"active_units", "mig"}
    assert 0 <= values["mig"] <= 1
    assert {*values, "kl", "reconstruction", "elbo"} == set(variant.measures)


@pytest.mark.parametrize("name", ["beta_vae_scenes", "beta_vae_cifar10", "beta_vae_shapes3d"])
def test_presets_are_registered(name: str) -> None:
    presets = task_class(name).presets()
    sizes = ("smoke", "quick", "small-cpu", "small", "paper", "paper-2x", "paper-4x")
    more = {"trained"} if name == "beta_vae_scenes" else set()
    assert {*sizes, *more} == set(presets)
    assert [presets[p].task.width for p in ("paper", "paper-2x", "paper-4x")] == [1, 2, 4]
    rows = [p.task.recorded * p.settings * len(p.seeds) for p in presets.values()]
    assert max(rows) < 50_000  # a measure; ten methods with four measures stay at two million


def test_the_sheet_of_samples() -> None:
    variant = preset(OurScenes, "smoke").task
    torch.manual_seed(0)
    with torch.no_grad():
        sheet = variant.sample(variant.model(), torch.zeros(1, 3, 64, 64))
    assert sheet.shape == (3, 4 * 64, 4 * 64)
    first = next(variant.data("test").parts(1))[0]
    assert torch.equal(sheet[:, :64, :64], first)

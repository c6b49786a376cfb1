"""The codec task against CompressAI's own modules, and its measures on awkward pictures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import GDN
from compressai.losses import RateDistortionLoss
from compressai.models import ScaleHyperprior
from PIL import Image

from bench import registry
from bench.method import build
from bench.pictures import measures
from bench.tasks.codec import components, in_mixed_precision, pad, remembering
from bench.tasks.compression import CODECS, Compression

SMOKE = Compression.presets()["smoke"].task


def model(task: Compression = SMOKE, started: bool = True, ready: bool = False):
    torch.manual_seed(0)
    network = task.model().eval()
    if started:
        task.initialise(network)
    if ready:
        task.ready(network)
    return network


def test_the_entropy_models_equal_the_librarys_with_the_same_noise() -> None:
    torch.manual_seed(0)
    theirs = ScaleHyperprior(8, 12)
    ours = copy.deepcopy(theirs)
    in_mixed_precision(ours)
    assert type(ours.entropy_bottleneck) is not EntropyBottleneck
    x = torch.rand(2, 3, 128, 64)
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        outputs = []
        for codec in (theirs, ours):
            torch.manual_seed(3)
            codec.zero_grad()
            out = codec(x)
            (out["x_hat"].square().mean() - out["likelihoods"]["z"].log().mean()).backward()
            outputs.append((out, [p.grad for p in codec.parameters() if p.grad is not None]))
        (one, gradients), (other, others) = outputs
        assert torch.equal(one["x_hat"], other["x_hat"])
        assert all(torch.equal(one["likelihoods"][k], other["likelihoods"][k]) for k in "yz")
        assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert theirs.state_dict().keys() == ours.state_dict().keys()


def test_scales_have_the_places_in_the_coders_table_that_the_library_gives_them() -> None:
    codec = ScaleHyperprior(8, 12)
    codec.update()
    theirs = codec.gaussian_conditional
    ours = copy.deepcopy(codec)
    in_mixed_precision(ours)
    table = theirs.scale_table
    beside = [torch.nextafter(table, torch.full_like(table, end)) for end in (0.0, math.inf)]
    scales = torch.cat([table, *beside, torch.tensor([-1.0, 0.0, 1e-9, 1e9]), torch.rand(999) * 80])
    places = ours.gaussian_conditional.build_indexes(scales)
    assert places.dtype == torch.int32
    assert torch.equal(places, theirs.build_indexes(scales))
    assert set(places.tolist()) == set(range(len(table)))


def test_the_loss_is_compressais_for_one_lambda() -> None:
    codec, batch = model(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        terms = SMOKE.losses(codec, batch)
        theirs = RateDistortionLoss(lmbda=0.01)(codec(batch), batch)
    ours = (0.01 * terms["distortion"] + terms["bpp"]).mean()
    assert ours.item() == pytest.approx(theirs["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(64, 64), (50, 70), (1, 1), (17, 130)])
def test_pictures_of_any_size_are_coded_and_decoded(codec: str, size: tuple[int, int]) -> None:
    task = replace(SMOKE, codec=codec)
    network = model(task, ready=True)
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        values = task.measure(network, picture)
    assert set(task.terms) <= set(values)
    assert values["psnr"].item() == pytest.approx(
        10 * math.log10(255**2 / values["distortion"].item()), abs=1e-3
    )
    assert values["bpp"].item() * size[0] * size[1] == pytest.approx(
        8 * round(values["bpp"].item() * size[0] * size[1] / 8)
    )  # whole bytes
    if min(size) <= 160:
        assert values["ms_ssim"].isnan()


def test_a_transform_is_computed_once_for_equal_inputs_and_never_stale() -> None:
    codec = model()
    calls = []
    codec.g_a[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(1, 3, 64, 64)
    plain = codec.g_a(x)
    assert len(calls) == 1
    with torch.no_grad(), remembering(codec):
        first = codec.g_a(x)
        first.zero_()  # a caller that changes its result in place does not change the next one's
        assert torch.equal(codec.g_a(x.clone()), plain)
        assert len(calls) == 2
        x[0, 0, 0, 0] += 1  # the same tensor, another picture
        changed = codec.g_a(x)
        assert len(calls) == 3
        assert not torch.equal(changed, plain)
        codec.g_a(x[..., :32])  # another size
        assert len(calls) == 4
    assert torch.equal(codec.g_a(x), changed)
    assert torch.equal(codec.g_a(x), changed)
    assert len(calls) == 6  # outside, nothing is remembered


@pytest.mark.parametrize("codec", CODECS)
def test_measures_are_those_of_coding_decoding_and_forward_computed_apart(codec: str) -> None:
    task = replace(SMOKE, codec=codec)
    network = model(task, ready=True)
    picture = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(1))
    calls = []
    network.g_s[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        values = task.measure(network, picture)
        assert len(calls) == 1
        coded = network.compress(picture)
        decoded = network.decompress(coded["strings"], coded["shape"])["x_hat"]
        written = sum(len(string) for part in coded["strings"] for string in part)
        estimated = task.losses(network, picture)["bpp"]
        fidelity = task.fidelity(decoded, picture)
    assert values["bpp"].item() == pytest.approx(8 * written / 192**2)
    assert torch.equal(values["bpp_estimated"], estimated)
    assert all(torch.equal(values[name], value) for name, value in fidelity.items())


def test_a_decoder_that_does_not_repeat_the_encoders_arithmetic_is_found() -> None:
    network = model(ready=True)
    network.h_s[-1].register_forward_hook(
        lambda layer, inputs, out: out * torch.empty_like(out).uniform_(0.2, 5)
    )
    torch.manual_seed(0)
    with torch.no_grad(), pytest.raises(RuntimeError, match="use --device cpu"):
        SMOKE.measure(network, torch.rand(1, 3, 64, 64))


def test_coded_and_estimated_bits_agree_on_a_large_picture() -> None:
    network = model(ready=True)
    (_, picture) = next(iter(SMOKE.data("test").examples()))
    with torch.no_grad():
        values = SMOKE.measure(network, picture)
    assert values["bpp"].item() == pytest.approx(values["bpp_estimated"].item(), rel=0.25)


def test_the_start_is_a_codec_already() -> None:
    """With enough channels, analysis and synthesis are inverses up to the quantiser's step."""
    task = replace(SMOKE, width=64, latents=192)
    crops = task.data("train").batch(4, torch.Generator().manual_seed(5))
    started, plain = model(task), model(task, started=False)
    with torch.no_grad():
        good = measures.psnr(started.g_s(started.g_a(crops)), crops).mean()
        poor = measures.psnr(plain.g_s(plain.g_a(crops)), crops).mean()
        terms = task.losses(started, crops)
    assert good > 28
    assert good > poor + 12
    assert terms["bpp"].mean() < 1.5


def test_the_start_is_the_same_every_time_and_for_every_method_but_not_for_every_seed() -> None:
    def start(label: str, seed: int) -> dict[str, torch.Tensor]:
        (cell,) = registry.method(label).plan(SMOKE, [(0.018,)], seed)
        return build(cell).model.state_dict()

    fixed, other = start("fixed_grid", 1), start("vbr", 1)
    shared = [name for name in fixed if name.startswith(("g_a.", "g_s."))]
    assert all(torch.equal(fixed[name], other[name]) for name in shared)
    again = start("fixed_grid", 1)
    assert all(torch.equal(fixed[name], again[name]) for name in fixed)
    # Of 8 channels all are components; of 16, the 12 of a block of colour pixels are.
    wide = replace(SMOKE, width=16)
    noise = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        codec = wide.model()
        wide.initialise(codec)
        noise.append(codec.g_a[0].weight)
    assert torch.equal(noise[0][:12], noise[1][:12])
    assert not torch.equal(noise[0][12:], noise[1][12:])


def test_what_is_rounded_or_shown_stays_fp32_under_bf16() -> None:
    codec = model().train()
    seen: dict[str, torch.dtype] = {}
    for name in ("g_a", "g_s", "h_a", "h_s"):
        hook = lambda _, __, out, name=name: seen.update({name: out.dtype})  # noqa: E731
        getattr(codec, name).register_forward_hook(hook)
    first: list[torch.dtype] = []
    codec.g_a[0].register_forward_hook(lambda _, __, out: first.append(out.dtype))
    last: list[torch.dtype] = []  # what the layer is given whose output is rounded
    codec.g_a[-1].register_forward_pre_hook(lambda _, given: last.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        codec(torch.rand(1, 3, 64, 64))
    assert first == [torch.bfloat16]
    assert last == [torch.float32]
    assert set(seen.values()) == {torch.float32}


def under_autocast(layer: GDN, x: torch.Tensor) -> torch.Tensor:
    """What autocast makes of CompressAI's GDN on a GPU: powers and inverse roots in fp32."""
    gamma, beta = layer.gamma_reparam(layer.gamma), layer.beta_reparam(layer.beta)
    parts = (x.float() ** 2, gamma[:, :, None, None], beta)
    norm = torch.nn.functional.conv2d(*(part.bfloat16() for part in parts))
    return x * (norm.sqrt() if layer.inverse else norm.float().rsqrt())


@pytest.mark.parametrize("largest", [4.0, 1000.0])
@pytest.mark.parametrize("inverse", [False, True])
def test_a_normalisation_in_half_precision_errs_as_little_as_under_autocast(
    inverse: bool, largest: float
) -> None:
    """Against float64, of the output as the next layer sees it, and of all gradients."""
    seeded = torch.Generator().manual_seed(0)
    codec = replace(SMOKE, width=32).model()
    plain = GDN(32, inverse=inverse)
    with torch.no_grad():
        plain.gamma.add_(0.05 * torch.rand(32, 32, generator=seeded))
    ours, *_ = (m for m in codec.modules() if isinstance(m, GDN) and m.inverse == inverse)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(4, 32, 16, 16, generator=seeded)
    x = (x * largest / x.abs().max()).bfloat16()
    gradient = torch.randn(x.shape, generator=seeded).bfloat16()

    def results(layer: GDN, compute: Callable, x: torch.Tensor) -> list[torch.Tensor]:
        layer.zero_grad()
        x = x.clone().requires_grad_()
        y = compute(x)
        y.backward(gradient.to(y.dtype))
        seen = y if y.dtype == torch.float64 else y.bfloat16()
        return [
            part.detach().double() for part in (seen, x.grad, layer.beta.grad, layer.gamma.grad)
        ]

    def computed(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ours(x)

    theirs = results(plain, lambda x: under_autocast(plain, x), x)
    halved = results(ours, computed, x)
    exact = results(plain.double(), plain, x.double())
    assert computed(x).dtype == torch.bfloat16
    assert torch.equal(halved[0], theirs[0])
    for one, other, true in zip(halved, theirs, exact, strict=True):
        assert (one - true).norm() <= 1.5 * (other - true).norm()
    assert torch.equal(ours(x.float()), plain.float()(x.float()))


def test_components_are_orthonormal_and_sorted() -> None:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x.cumsum(-1).cumsum(-2)  # neighbours alike, as in pictures
    basis = components(x).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(12), atol=1e-5, rtol=0)
    blocks = torch.nn.functional.unfold(x, 2, stride=2).transpose(1, 2).flatten(0, 1)
    energy = (blocks @ basis.T).square().sum(0)
    assert torch.equal(energy.sort(descending=True).values, energy)


def test_padding_repeats_the_edge() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad(x, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[..., :2, :3], x)
    assert padded[0, 0, 3].tolist() == [3.0, 4.0, 5.0, 5.0]


def test_the_jpeg_curve_is_pillows() -> None:
    (_, picture) = next(iter(SMOKE.data("test").examples()))
    points = {setting: values for _, setting, values in SMOKE.context(picture[..., :192, :192])}
    assert points["quality=90"]["bpp"] > points["quality=10"]["bpp"]
    assert points["quality=90"]["psnr"] > points["quality=10"]["psnr"] + 5


def test_unusual_pictures_run_through_the_whole_task(tmp_path: Path) -> None:
    """Grey, 16-bit, CMYK, transparent and tiny test pictures are measured; names are kept."""
    noise = Image.effect_noise((70, 50), 60)
    noise.save(tmp_path / "grey.png")
    Image.merge("CMYK", [noise] * 4).save(tmp_path / "cmyk.jpg")
    Image.merge("RGBA", [noise] * 4).save(tmp_path / "transparent.png")
    noise.convert("I").point(lambda v: v * 257).convert("I;16").save(tmp_path / "sixteen.png")
    noise.crop((0, 0, 3, 2)).convert("RGB").save(tmp_path / "tiny.png")
    task = replace(SMOKE, test_data=str(tmp_path))
    network = model(task, ready=True)
    names = []
    for name, picture in task.data("test").examples():
        with torch.no_grad():
            values = task.measure(network, picture)
        assert values["psnr"].isfinite(), name
        names.append(name)
    assert names == ["cmyk.jpg", "grey.png", "sixteen.png", "tiny.png", "transparent.png"]


def test_an_unknown_codec_or_start_is_named() -> None:
    with pytest.raises(ValueError, match="use one of scale_hyperprior"):
        replace(SMOKE, codec="scale")
    with pytest.raises(ValueError, match='use "pca"'):
        replace(SMOKE, start="random")

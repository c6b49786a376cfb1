"""LPIPS against its own package and published numbers; VGG-16 against torchvision's."""

import math
import warnings

import lpips
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from bench.pictures import downloads, perceptual
from bench.pictures.perceptual import LPIPS_LAYERS, VGGFeatures

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
ARTEFACTS = {"alex": "alexnet-convs", "vgg": "vgg16-convs"}


def with_weights(network, path):
    """Somebody else's network with the artefact's weights."""
    stored = load_file(path)
    convs = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    for position, conv in enumerate(convs[: len(stored) // 2]):
        conv.weight.data, conv.bias.data = stored[f"{position}.weight"], stored[f"{position}.bias"]
    return network.eval()


@pytest.fixture
def no_weights(monkeypatch):
    def unavailable(name):
        raise downloads.Unavailable(f"{name} cannot be had")

    monkeypatch.setattr(perceptual, "get", unavailable)


def test_lpips_vgg_gives_the_documented_number(artefact):
    """torchmetrics' documentation: seed 123, build the metric, draw two batches: 0.3493.

    Building it draws the start values of torchvision's VGG-16 and of five heads, so the same has
    to be drawn here before the pictures.
    """
    artefact("vgg16-convs")
    torch.manual_seed(123)
    torchvision.models.vgg16(weights=None, init_weights=False)
    for channels in (64, 128, 256, 512, 512):
        torch.nn.Conv2d(channels, 1, 1, bias=False)
    x, y = torch.rand(10, 3, 100, 100) * 2 - 1, torch.rand(10, 3, 100, 100) * 2 - 1
    assert perceptual.lpips("vgg")(x, y).mean().item() == pytest.approx(0.3493, abs=1e-4)


@pytest.mark.parametrize("net", LPIPS_LAYERS)
def test_lpips_is_the_packages(net, artefact):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    with_weights(package.net, artefact(ARTEFACTS[net]))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 64, 83, generator=generator) * 2 - 1
    strength = torch.tensor([0.02, 0.2, 1.0])[:, None, None, None]
    y = (x + strength * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    ours = perceptual.lpips(net)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, y), package(x, y).flatten(), rtol=1e-4, atol=1e-6)
    alone = torch.cat([ours(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(ours(x, y), alone, rtol=1e-4, atol=1e-6)
    assert ours(x, x).abs().max() < 1e-6


def test_lpips_refuses_what_it_cannot_measure(no_weights):
    with pytest.raises(ValueError, match=r"squeeze.*use alex or vgg"):
        perceptual.LPIPS("squeeze")
    with pytest.raises(downloads.Unavailable, match="alexnet-convs"):
        perceptual.LPIPS("alex")
    with pytest.raises(downloads.Unavailable, match="vgg16-convs"):
        VGGFeatures(["relu1_1"])


def test_lpips_checks_its_input(artefact):
    artefact("alexnet-convs")
    distance = perceptual.lpips("alex")
    assert perceptual.lpips("alex") is distance
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    x = torch.zeros(2, 3, 64, 64)
    for wrong in (x + 1.5, x - 2, x * math.nan):
        with pytest.raises(ValueError, match=r"2 \* x - 1"):
            distance(x, wrong)
    assert distance(x[..., :31], x[..., :31]).isnan().tolist() == [True, True]
    assert not distance(x[..., :32], x[..., :32]).isnan().any()


def test_vgg_features_are_torchvisions(artefact):
    network = torchvision.models.vgg16(weights=None)
    features = with_weights(network, artefact("vgg16-convs")).features
    x = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        taps = VGGFeatures(STYLE_LAYERS)(x)
        for layer, index in zip(STYLE_LAYERS, (3, 8, 15, 22), strict=True):
            expected = features[: index + 1]((x - mean) / std)
            torch.testing.assert_close(taps[layer], expected, rtol=1e-4, atol=1e-4)
    assert list(taps) == list(STYLE_LAYERS)


def test_vgg_goes_no_deeper_than_asked_and_passes_gradients(artefact):
    artefact("vgg16-convs")
    network = VGGFeatures(["relu2_2", "relu1_1"])
    assert list(network.trunk._modules)[-1] == "relu2_2"
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    network(x)["relu2_2"].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(ValueError, match=r"relu9_9.*choose among relu1_1"):
        VGGFeatures(["relu9_9"])


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_users_own_weights(tmp_path, ending, no_weights):
    """A state dict as torchvision lays it out, untrained, its keys sorted by name."""
    features = torchvision.models.vgg16(weights=None).features.state_dict()
    state = {f"features.{name}": features[name] for name in sorted(features)}  # 10 before 2
    path = tmp_path / f"mine.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    trunk = VGGFeatures(["relu5_3"], weights=path).trunk
    assert torch.equal(trunk.get_submodule("conv1_1").weight, state["features.0.weight"])
    assert torch.equal(trunk.get_submodule("conv5_3").bias, state["features.28.bias"])


def test_a_users_weights_that_do_not_fit(tmp_path, no_weights):
    with pytest.raises(ValueError, match="no weights file"):
        VGGFeatures(["relu1_1"], weights=tmp_path / "absent.pth")
    path = tmp_path / "short.pth"
    torch.save(
        {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}, path
    )
    with pytest.raises(ValueError, match="13 convolutions"):
        VGGFeatures(["relu1_1"], weights=path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="read safely"):
        VGGFeatures(["relu1_1"], weights=path)

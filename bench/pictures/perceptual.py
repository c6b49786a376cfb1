"""Networks that see: VGG-16's features for style transfer, and the LPIPS distance.

LPIPS' linear heads (v0.1) come from the `lpips` package's files. The package itself is not
imported, since that takes seconds; a test holds our thirty lines to its numbers. Weights that
cannot be had raise `Unavailable`: a random network never stands in for a trained one.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.identity import file_digest
from bench.pictures.artefacts import convolutions
from bench.pictures.downloads import Unavailable, get

# What both backbones were trained on: RGB in [0, 1], less this mean, over this deviation. LPIPS
# states the same numbers for [-1, 1]: shift 2 * mean - 1, scale 2 * std.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LPIPS_LAYERS = {
    "alex": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
}
LPIPS_MIN_SIDE = 32  # the deepest layers see less than one whole field below it
HEADS = {  # SHA-256 of the heads in lpips 0.1.4
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}

# Blocks of convolutions (output channels, kernel, stride, padding), and the pool behind each block.
VGG_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # how many, and how wide
TRUNKS = {
    "vgg": ([[(width, 3, 1, 1)] * depth for depth, width in VGG_BLOCKS], (2, 2)),
    "alex": (
        [[(64, 11, 4, 2)], [(192, 5, 1, 2)], [(384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]],
        (3, 2),
    ),
}


class LPIPS(nn.Module):
    """Learned perceptual distance, v0.1, net "alex" or "vgg": 0 for equal pictures."""

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in LPIPS_LAYERS:
            hint = ", whose weights no package registry has" if net.startswith("squeeze") else ""
            raise ValueError(f"LPIPS with net {net!r} cannot be had{hint}: use alex or vgg")
        self.net = net
        self.trunk = _trunk(net, LPIPS_LAYERS[net], None)
        self.heads = nn.ParameterList(_heads(net))
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("shift", (2 * mean - 1)[:, None, None])
        self.register_buffer("scale", (2 * std)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two batches (B, 3, H, W) of RGB in [-1, 1], not [0, 1], to their distances (B,).

        Raises ValueError for values outside [-1, 1]; NaN for pictures under 32 pixels a side.
        """
        both = torch.cat([x, y])
        low, high = torch.stack(both.aminmax()).tolist()  # a GPU is waited for once
        if not (low >= -1.001 and high <= 1.001):
            raise ValueError(
                f"LPIPS takes pictures in [-1, 1], got values in [{low:.3g}, {high:.3g}]: "
                "give it 2 * x - 1 for x in [0, 1]"
            )
        if min(x.shape[-2:]) < LPIPS_MIN_SIDE:
            return x.new_full(x.shape[:1], math.nan)
        both = (both - self.shift) / self.scale
        distance = x.new_zeros(len(x))
        taps = _taps(self.trunk, both, LPIPS_LAYERS[self.net])
        for features, head in zip(taps.values(), self.heads, strict=True):
            unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
            one, other = unit.chunk(2)
            distance = distance + ((one - other).square() * head).sum(1).mean((1, 2))
        return distance


@functools.cache
def lpips_missing() -> dict[str, str]:
    """Why a task's measure "lpips" (AlexNet) cannot be had on this machine; empty where it can."""
    try:
        get("alexnet-convs")
    except Unavailable as error:
        return {"lpips": str(error)}
    return {}


@functools.cache
def lpips(net: str = "alex", device: torch.device | str = "cpu") -> LPIPS:
    """The one LPIPS of this process for a net and a device; `Unavailable` without weights.

    On a CPU in the memory format that is faster there, pooling above all."""
    distance = LPIPS(net).to(device)
    if distance.shift.device.type == "cpu":
        distance.to(memory_format=torch.channels_last)
    return distance


class VGGFeatures(nn.Module):
    """VGG-16's rectified features: (B, 3, H, W) RGB in [0, 1] to {layer: (B, C, h, w)}.

    layers: among relu1_1 to relu5_3; nothing deeper than the deepest is computed.
    weights: a file of the user's own, torchvision's .pth or .safetensors; else the artefact.

    Frozen, but gradients flow to the picture.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Sequence[str], weights: Path | None = None) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.trunk = _trunk("vgg", self.layers, weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return _taps(self.trunk, (x - self.mean) / self.std, self.layers)


def _taps(trunk: nn.Sequential, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of the named layers, in the order in which they were asked for."""
    outputs = {}
    for name, layer in trunk.named_children():
        x = layer(x)
        if name in layers:
            outputs[name] = x
    return {name: outputs[name] for name in layers}


def _trunk(net: str, layers: Sequence[str], weights: Path | None) -> nn.Sequential:
    """A backbone up to the deepest of `layers`, with its trained convolutions."""
    modules: dict[str, nn.Module] = {}
    convs: list[nn.Conv2d] = []
    blocks, pool = TRUNKS[net]
    before = 3
    for block, shapes in enumerate(blocks, 1):
        for place, (width, kernel, stride, padding) in enumerate(shapes, 1):
            convs.append(nn.Conv2d(before, width, kernel, stride, padding))
            name = f"{block}_{place}" if net == "vgg" else str(len(convs))
            modules |= {f"conv{name}": convs[-1], f"relu{name}": nn.ReLU(inplace=True)}
            before = width
        modules[f"pool{block}"] = nn.MaxPool2d(*pool)
    names = list(modules)
    unknown = [layer for layer in layers if layer not in modules or not layer.startswith("relu")]
    if unknown or not layers:
        known = ", ".join(name for name in names if name.startswith("relu"))
        raise ValueError(f"no layers {unknown or '(none given)'} in {net}: choose among {known}")
    state = _load(weights or get({"vgg": "vgg16-convs", "alex": "alexnet-convs"}[net]))
    for position, conv in enumerate(convs):
        weight, bias = state.get(f"{position}.weight"), state.get(f"{position}.bias")
        if weight is None or bias is None or weight.shape != conv.weight.shape:
            raise ValueError(
                f"{weights} does not hold the {len(convs)} convolutions of {net}: give the file "
                "that torchvision downloads, or leave the option out"
            )
        conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    deepest = max(names.index(layer) for layer in layers)
    return nn.Sequential(OrderedDict(list(modules.items())[: deepest + 1]))


def _load(path: Path) -> dict[str, Tensor]:
    """Convolutions by position from a .safetensors or a torch file, which may carry no code."""
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}: check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: torch.from_numpy(array) for name, array in convolutions(state).items()}
    except Exception as error:
        raise ValueError(
            f"{path} holds no weights that can be read safely ({error}): give a state dict of "
            "tensors, saved by torch.save or safetensors"
        ) from error


def _heads(net: str) -> list[nn.Parameter]:
    """The learned channel weights of LPIPS v0.1, one (C, 1, 1) per layer."""
    package = importlib.util.find_spec("lpips")  # finds without importing
    folder = Path(package.origin).parent if package and package.origin else Path("lpips")
    path = folder / "weights" / "v0.1" / f"{net}.pth"
    if not path.is_file():
        raise Unavailable(f"LPIPS' heads are missing ({path}): pip install 'lpips>=0.1.4'")
    if file_digest(path) != HEADS[net]:
        raise Unavailable(f"{path} is not LPIPS 0.1's: pip install lpips==0.1.4")
    state = torch.load(path, map_location="cpu", weights_only=True)
    heads = [state[f"lin{i}.model.1.weight"] for i in range(len(LPIPS_LAYERS[net]))]
    return [nn.Parameter(head[0], requires_grad=False) for head in heads]

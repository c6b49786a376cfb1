"""The networks of the β-VAE tasks; no conditioning in them. The convolutional one is that of the
method's released code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Part, kl_to_standard_normal

SLOPE = 0.3  # of the convolutions' leaky ReLU
DENSE_SLOPE = 0.2  # of the dense layers': the released code leaves it at TensorFlow's default
EPSILON = 1e-6  # added to every standard deviation


@dataclass(frozen=True, kw_only=True)
class Layout:
    """channels: of the encoder's blocks; the decoder mirrors them. convs: per block. hidden: width
    of the dense layer on either side of the latents. gaussian: whether the decoder gives each
    pixel a standard deviation, too. fan: "avg" or "in", what the convolutions' starting variance
    is scaled by."""

    channels: tuple[int, ...]
    convs: int
    hidden: int
    latents: int
    gaussian: bool
    fan: str


class Autoencoder(nn.Module):
    """For pictures of 4 · 2^blocks pixels a side, `width` times as wide as its layout but for the
    latents. No normalisation anywhere, biases start at zero."""

    def __init__(self, layout: Layout, width: int = 1) -> None:
        super().__init__()
        channels = tuple(width * count for count in layout.channels)
        convs, hidden, latents = layout.convs, width * layout.hidden, layout.latents
        self.corner = (channels[-1], 4, 4)
        corner = math.prod(self.corner)
        self.down = nn.ModuleList(
            block(nn.Conv2d, before, after, convs, 0)
            for before, after in zip((3, *channels[:-1]), channels, strict=True)
        )
        self.code = dense(corner, hidden, 2 * latents)
        self.uncode = dense(latents, hidden, corner)
        self.up = nn.ModuleList(
            block(nn.ConvTranspose2d, before, after, convs, convs - 1)
            for before, after in zip((channels[-1], *channels[:0:-1]), channels[::-1], strict=True)
        )
        self.pixels = nn.Conv2d(channels[0], 6 if layout.gaussian else 3, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                variance_scaling(layer, 2.0, "in")
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                variance_scaling(layer, 2 / (1 + SLOPE**2), layout.fan)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each (B, latents) float32."""
        for place, down in enumerate(self.down):
            x = down(x)
            if place < len(self.down) - 1:  # as released: none before the dense layers
                x = F.leaky_relu(x, SLOPE)
        mean, spread = self.code(x.flatten(1)).float().chunk(2, 1)
        return mean, F.softplus(spread) + EPSILON

    def decode(self, z: Tensor) -> Tensor:
        """(B, latents) to what the likelihood takes, (B, 3 or 6, H, W) float32."""
        x = self.uncode(z).unflatten(1, self.corner)
        for up in self.up:
            x = F.leaky_relu(up(x), SLOPE)
        return self.pixels(x).float()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation, and the decoding of one sample of the latents."""
        mean, std = self.encode(x)
        noise = torch.randn_like(mean) if noise is None else noise
        return mean, std, self.decode(mean + std * noise)


class DenseAutoencoder(nn.Module):
    """For rows of `pixels` numbers: one hidden layer each way, with the other network's start."""

    def __init__(self, pixels: int, hidden: int, latents: int) -> None:
        super().__init__()
        self.code = dense(pixels, hidden, 2 * latents)
        self.uncode = dense(latents, hidden, pixels)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                variance_scaling(layer, 2.0, "in")

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each (B, latents) float32."""
        mean, spread = self.code(x).float().chunk(2, 1)
        return mean, F.softplus(spread) + EPSILON

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation, and the pixels' logits for one sample of the latents."""
        mean, std = self.encode(x)
        noise = torch.randn_like(mean) if noise is None else noise
        return mean, std, self.uncode(mean + std * noise).float()


class Encoder(nn.Module):
    """What an autoencoder here makes of pictures in [0, 1]: mean and deviation of the latents."""

    def __init__(self, model: Any, symmetric: bool = False) -> None:
        """symmetric: it was trained on pixels in [-1, 1]."""
        super().__init__()
        self.model, self.symmetric = model, symmetric

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.model.encode(2 * x - 1 if self.symmetric else x)
        return mean, std


class Decoder(nn.Module):
    """`decoded`, given an autoencoder's model and latents, as a module of the latents alone."""

    def __init__(self, model: nn.Module, decoded: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.decoded = model, decoded

    def forward(self, z: Tensor) -> Tensor:
        return self.decoded(self.model, z)


class Reconstruction(nn.Module):
    """A picture to its reconstruction from the mean code, that code, and the divergence of the
    code's distribution from the prior. Around both halves, given how a picture is what the encoder
    takes and how what the decoder gives is a picture."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        taken: Callable[[Tensor], Tensor] = lambda x: x,
        shown: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.taken, self.shown = encoder, decoder, taken, shown

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = self.encoder(self.taken(x))
        return self.shown(self.decoder(mean)), mean, kl_to_standard_normal(mean, std)


def reconstruction_part(module: Reconstruction, side: int) -> Part:
    """See `Showing.live`, for pictures of so many pixels a side."""

    def examples(number: int) -> dict[str, Tensor]:
        noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(number))
        return {"x": noise.sigmoid()}

    return Part(
        module=module.eval(), examples=examples, outputs=("picture", "latents", "kl"), free={}
    )


def autoencoder_parts(
    encoder: nn.Module, decoder: nn.Module, latents: int, shape: tuple[int, ...], line: str
) -> dict[str, Part]:
    """Both halves as `export` writes them, tried with random pictures of this shape, in [0, 1],
    and with latents of the prior."""

    def noise(number: int, *size: int) -> Tensor:
        return torch.randn(1, *size, generator=torch.Generator().manual_seed(number))

    return {
        "encoder": Part(
            module=encoder,
            examples=lambda number: {"x": noise(number, *shape).sigmoid()},
            outputs=("mean", "std"),
            free={"x": {0: "batch"}},
            line=f"x: {line} Gives mean and standard deviation of the latents.",
        ),
        "decoder": Part(
            module=decoder,
            examples=lambda number: {"z": noise(number, latents)},
            outputs=("picture",),
            free={"z": {0: "batch"}},
            line="z: latents, as the encoder's mean, or drawn from a standard normal. Gives the "
            "mean picture, in [0, 1].",
        ),
    }


def block(kind: type[nn.Module], before: int, after: int, convs: int, strided: int) -> nn.Module:
    """3x3 convolutions with leaky ReLUs between them; number `strided` changes the resolution.

    A conditioner modulates the last one, so the ReLU after it is not in here.
    """
    layers: list[nn.Module] = []
    for place in range(convs):
        options: dict[str, Any] = {"kernel_size": 3, "padding": 1}
        if place == strided:
            options["stride"] = 2
            if kind is nn.ConvTranspose2d:
                options["output_padding"] = 1
        layers += [nn.LeakyReLU(SLOPE)] if place else []
        layers.append(kind(before if place == 0 else after, after, **options))
    return nn.Sequential(*layers)


def dense(before: int, hidden: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(before, hidden), nn.LeakyReLU(DENSE_SLOPE), nn.Linear(hidden, after)
    )


def variance_scaling(layer: Any, scale: float, fan: str) -> None:
    """Normal weights of variance scale / fan, cut off at two standard deviations and corrected
    for that, and zero biases: what the released code's initialiser does, in place."""
    taps = layer.weight[0, 0].numel()
    fan_in, fan_out = layer.weight.shape[1] * taps, layer.weight.shape[0] * taps
    std = math.sqrt(scale / (fan_in if fan == "in" else (fan_in + fan_out) / 2))
    std /= 0.87962566103423978  # of a standard normal cut off at two
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(layer.bias)

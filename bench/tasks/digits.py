"""β-VAE on handwritten digits: real data, small enough that two cores train it out.

    python run_bench.py run digits                          a minute or two on two CPU cores
    python run_bench.py run "digits[hidden=4]"              a small network; 4 to 256 make sense

The 1797 digits of 8 x 8 pixels that come with scikit-learn (Alpaydin & Kaynak's, 13 writers), drawn
at random into 1257 to train on, 270 to choose by and 270 to test on. Dense layers: pixels,
`hidden` units, `LATENTS` latents, and back.

The loss is β · KL + (-log p(x|z)), in nats a digit, with one sample of z. Pixels, 0 to 16, are
divided by 16 and taken as the mean of a Bernoulli: a perfect decoder would lose the entropy of the
grey values, 13.7 nats, and the mean digit, all that is left above β = 3, loses 27.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import Axis, Examples, Measure, Part, Preset, Showing, Space, Task, Training, fitting
from bench.levers import found
from bench.pictures import measures
from bench.pictures.downloads import ARTEFACTS, get
from bench.tasks.autoencoder import (
    Decoder,
    DenseAutoencoder,
    Encoder,
    Reconstruction,
    autoencoder_parts,
    reconstruction_part,
)
from bench.tasks.beta_vae import MEASURES, BetaVae

SIDE, GREY = 8, 16  # pixels a side, and the value of a white one
LATENTS = 8
SPLITS = {"train": (0, 1257), "validation": (1257, 1527), "test": (1527, 1797)}
TEN = tuple(range(10))  # seeds
MEMORY = 760_000_000  # bytes of a process that trains one


@dataclass(frozen=True, kw_only=True)
class Digits(Task):
    """hidden: units of the encoder's and the decoder's hidden layer. low, high: the range of β."""

    name: ClassVar[str] = "digits"
    title: ClassVar[str] = "β-VAE, handwritten digits"
    line: ClassVar[str] = "β-VAE with dense layers on scikit-learn's handwritten digits"
    terms: ClassVar[tuple[str, ...]] = BetaVae.terms
    measures: ClassVar[dict[str, Measure]] = {
        name: replace(measure, digits=2, margin="0.1" if measure.unit else "")  # in nats
        for name, measure in MEASURES.items()
    }
    loss: ClassVar[Measure] = replace(BetaVae.loss, digits=2, margin="0.1")
    fronts: ClassVar[tuple[tuple[str, str], ...]] = BetaVae.fronts
    sample_line: ClassVar[str] = "A test digit, its reconstruction, two samples of the prior."
    measured_at_once: ClassVar[int] = 512

    hidden: int = 64
    low: float = 0.02
    high: float = 2.0
    training: Training

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"{self.name}: hidden {self.hidden}: use 1 or more, as 64")

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        quick = cls(training=Training(steps=3000, batch=64, lr=0.02, warmup=0.1))
        smoke, long = quick.trained_with(steps=20, batch=8), quick.trained_with(steps=8000)
        return {
            "smoke": Preset(task=smoke, settings=2, seeds=(0,), line="a second, for tests"),
            "quick": Preset(
                task=quick,
                settings=5,
                seeds=(0, 1, 2),
                line="a minute or two on two CPU cores",
                lengths=(0.5, 1.0),
                memory=MEMORY,
            ),
            "trained": Preset(
                task=long,
                settings=5,
                seeds=TEN,
                methods=found(cls.name),
                line="evidence: an hour on two CPU cores",
                memory=MEMORY,
            ),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="kl", low=self.low, high=self.high, symbol="β"),))

    def model(self) -> nn.Module:
        return DenseAutoencoder(SIDE**2, self.hidden, LATENTS)

    def sites(self, model: nn.Module) -> list[str]:
        return ["code.0", "uncode.0"]

    entrances = sites

    def halves(self, model: nn.Module) -> dict[str, str]:
        return {"code.0": "encoder", "uncode.0": "decoder"}

    def wider(self, factor: float) -> Digits:
        return replace(self, hidden=max(1, round(factor * self.hidden)))

    def data(self, split: str) -> Examples:
        first, end = SPLITS[split]
        digest = f"{ARTEFACTS['digits'].content}, {split}, {first} to {end}"
        return Examples(digits()[first:end].float() / GREY, digest=digest)

    def losses(
        self, model: nn.Module, batch: Tensor, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        mean, std, logits = model(batch, noise)
        kl = measures.kl_to_standard_normal(mean, std)
        return {"kl": kl, "reconstruction": measures.bernoulli_nll(batch, logits)}

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        """With one sample of the latents. Its noise follows from the digit, so that every method
        sees the same."""
        places = torch.arange(1, SIDE**2 + 1, device=batch.device)
        seeds = ((batch * GREY).round().long() * places).sum(1).tolist()
        terms = self.losses(model, batch, torch.cat([noise(1, s) for s in seeds]).to(batch))
        return {**terms, "elbo": -terms["kl"] - terms["reconstruction"]}

    def measure_all(self, model: Any, data: Examples) -> dict[str, float]:
        return {"active_units": float(measures.active_units(model.encode(data.tensor)[0]))}

    def sample(self, model: Any, batch: Tensor) -> Tensor:
        """From the mean code; the samples' codes are the same for every model and setting."""
        codes = torch.cat([model.encode(batch)[0], noise(2, 0).to(batch)])
        pictures = torch.cat([batch, model.uncode(codes).sigmoid()]).unflatten(1, (SIDE, SIDE))
        row = torch.cat([*pictures], 1).expand(3, -1, -1)
        return row.repeat_interleave(8, 1).repeat_interleave(8, 2)

    def showing(self) -> Digit:
        return Digit(self)


class Digit(Showing):
    """One digit, its reconstruction from the mean code, and the code itself."""

    takes = "a white digit on black, which is made 8 x 8 pixels of grey"

    def received(self, picture: Tensor) -> Tensor:
        return grey(fitting(picture, SIDE)[None])

    def original(self, batch: Tensor) -> Tensor:
        return batch[0].unflatten(0, (SIDE, SIDE)).expand(3, -1, -1)

    def picture(self, model: nn.Module, batch: Tensor) -> Tensor:
        return self.decoded(model, self.latents(model, batch))

    def latents(self, model: Any, batch: Tensor) -> Tensor:
        return model.encode(batch)[0][0]

    def decoded(self, model: Any, latents: Tensor) -> Tensor:
        return self.original(model.uncode(latents[None]).sigmoid())

    def parts(self, model: Any) -> dict[str, Part]:
        halves = Encoder(model), Decoder(model, lambda inner, z: inner.uncode(z).sigmoid())
        line = "rows of 8 x 8 pixels, in [0, 1]."
        return autoencoder_parts(*halves, LATENTS, (SIDE**2,), line)

    def live(self, model: Any) -> Part:
        encoder, decoder = (part.module for part in self.parts(model).values())
        return reconstruction_part(Reconstruction(encoder, decoder, grey, coloured), SIDE)


def grey(pictures: Tensor) -> Tensor:
    """(B, 3, 8, 8) in [0, 1] to rows of the pixels' 17 levels of grey, (B, 64)."""
    return (GREY * pictures.mean(1)).round().flatten(1) / GREY


def coloured(rows: Tensor) -> Tensor:
    """(B, 64) to (B, 3, 8, 8)."""
    return rows.unflatten(1, (1, SIDE, SIDE)).expand(-1, 3, -1, -1)


def noise(count: int, seed: int) -> Tensor:
    return torch.randn(count, LATENTS, generator=torch.Generator().manual_seed(seed))


def digits() -> Tensor:
    """All 1797 in the splits' random order: (1797, 64) uint8 from 0 to 16."""
    from safetensors.torch import load_file

    images = load_file(get("digits"))["images"].flatten(1)
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]

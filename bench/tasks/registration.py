"""Deformable image registration: similarity of the pictures against smoothness of the deformation.

    python run_bench.py run registration                        a minute or two on two CPU cores
    python run_bench.py run registration --preset trained --train-data DIR --test-data DIR

A network sees two grey pictures, `fixed` and `moving`, and answers with the displacement that makes
the one of the other (Balakrishnan et al., "VoxelMorph", TMI 2019). How stiff it should be is a
coefficient that users of such networks search one training at a time, and for which Hoopes et al.
train one network ("HyperMorph", IPMI 2021). The loss is 1000 · MSE + λ · mean squared gradient of
the displacement: at small λ the network aligns whatever it can, at large λ it hardly moves.

The pairs are crops of photographs, each deformed in a way that is known, so that the error of the
displacement can be told (`bench/tasks/registration_data.py`, with the convention). In flat parts
of pictures nothing shows it: there no network finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import Axis, Measure, Preset, Space, Training
from bench.levers import found
from bench.pictures import measures
from bench.tasks.photographs import OnPhotographs
from bench.tasks.registration_data import Pairs, endpoint_error, jacobian, roughness, warp
from bench.tasks.unet import UNet

GRID, FINER = 4, 4  # pixels between the lines that show a deformation; the sheet's enlargement


@dataclass(frozen=True, kw_only=True)
class Registration(OnPhotographs):
    """side: of the pictures, a multiple of 8. width: channels of the first layer.
    shrink: so many pixels of a photograph's side are averaged into one.
    pairs: test pairs of each test picture. reach: of a pair's largest displacement, in pixels.
    waves: half-waves along x and y, at most. noise: its standard deviation on both pictures.
    low, high: the range of λ.
    """

    name: ClassVar[str] = "registration"
    title: ClassVar[str] = "image registration"
    line: ClassVar[str] = "2-D image registration: similarity against smoothness, deformation known"
    terms: ClassVar[tuple[str, ...]] = ("similarity", "smoothness")
    measures: ClassVar[dict[str, Measure]] = {
        "similarity": Measure(label="1000 · MSE", better="lower", margin="1%", worst=50.0),
        "smoothness": Measure(
            label="squared gradient", better="lower", digits=4, margin="2%", worst=1.0
        ),
        "endpoint_error": Measure(
            label="endpoint error", unit="px", better="lower", digits=3, margin="0.02", worst=5.0
        ),
        "folded": Measure(label="folded", unit="%", better="lower", relative=False, digits=2),
    }
    sample_line: ClassVar[str] = (
        "In each block: fixed, moving; moving deformed, and a grid with it."
    )
    fronts: ClassVar[tuple[tuple[str, str], ...]] = tuple(
        ("smoothness", other) for other in ("similarity", "endpoint_error")
    )
    measured_at_once: ClassVar[int] = 16

    side: int = 64
    width: int = 8
    shrink: int = 3
    pairs: int = 16
    reach: float = 8.0
    waves: int = 2
    noise: float = 0.01
    low: float = 1.0
    high: float = 1000.0
    training: Training

    def __post_init__(self) -> None:
        if self.side % 8 or self.side < 16:
            raise ValueError(f"side {self.side}: use a multiple of 8, 16 or more")

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        trained = cls(training=Training(steps=8000, batch=8, lr=5e-3, warmup=0.1))
        quick = replace(trained.lasting(700 / 8000), side=32, reach=4.0)
        smoke = replace(quick, side=16, width=4, pairs=2).trained_with(steps=4, batch=4)

        def size(task: Registration, settings: int, seeds: int, line: str, **more: Any) -> Preset:
            return Preset(
                task=task, settings=settings, seeds=tuple(range(seeds)), line=line, **more
            )

        given = {"wants": ("train_data", "test_data"), "methods": found(cls.name)}
        return {
            "smoke": size(smoke, 2, 1, "a second, for tests"),
            "quick": size(quick, 5, 1, "a minute or two on two CPU cores"),
            "trained": size(trained, 5, 5, "64 x 64: an hour on two CPU cores", **given),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="smoothness", low=self.low, high=self.high, symbol="λ"),))

    def model(self) -> nn.Module:
        return UNet(self.width)

    def sites(self, model: Any) -> list[str]:
        return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]

    def entrances(self, model: Any) -> list[str]:
        return ["down.0"]

    def halves(self, model: Any) -> dict[str, str]:
        names = self.sites(model)
        return {n: "encoder" if n.startswith("down.") else "decoder" for n in names}

    def wider(self, factor: float) -> Registration:
        return replace(self, width=round(factor * self.width))

    def data(self, split: str) -> Pairs:
        pictures = self.pictures(split, self.shrink * self.side)
        made: dict[str, Any] = {"reach": self.reach, "waves": self.waves, "noise": self.noise}
        return Pairs(pictures=pictures, shrink=self.shrink, count=self.pairs, **made)

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return self.compared(model(batch[:, :2]), batch)

    def compared(self, displacement: Tensor, batch: Tensor) -> dict[str, Tensor]:
        """The terms of a displacement for these pairs."""
        similarity = 1000 * measures.mse(warp(batch[:, 1:2], displacement), batch[:, :1])
        return {"similarity": similarity, "smoothness": roughness(displacement)}

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        displacement = model(batch[:, :2])
        return {
            **self.compared(displacement, batch),
            "endpoint_error": endpoint_error(displacement, batch[:, 2:]),
            "folded": 100 * (jacobian(displacement) <= 0).float().mean((1, 2)),
        }

    def sample(self, model: nn.Module, batch: Tensor) -> Tensor:
        u, finer = model(batch[:, :2]), (FINER * self.side, FINER * self.side)
        shown = [*batch[:, :2].split(1, 1), warp(batch[:, 1:2], u)]
        fixed, moving, moved = (F.interpolate(picture, finer) for picture in shown)
        places = torch.arange(finer[0], device=batch.device) % (FINER * GRID) < 2
        grid = (places | places[:, None]).float().expand_as(fixed)
        u = FINER * F.interpolate(u, finer, mode="bilinear", align_corners=True)
        columns = torch.cat([fixed, moved], 2), torch.cat([moving, warp(grid, u)], 2)
        return torch.cat(columns, 3).clamp(0, 1)[0].expand(3, -1, -1)

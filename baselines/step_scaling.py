"""Another step for the quantiser of one trained codec: no training at all.

The fixed network of the middle setting codes y · s instead of y, with the entropy model's
deviations (and means) scaled by s, and divides again before the synthesis. For every λ the factor
s is the one of a ladder with the least loss on training crops. Common practice, as in JPEG's
quality; our own formulation. The cell is the fixed grid's, and is costed in both rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench import (
    Cell,
    Fixed,
    FixedGrid,
    Network,
    Setting,
    Task,
    fold,
    fold_before,
    weighted,
)


@dataclass(frozen=True, kw_only=True)
class StepScaling(Fixed):
    """reach: the ladder goes from 1 / reach to reach. rungs: their number. crops: training crops
    that each rung is tried on."""

    name = "step_scaling"
    line = "the grid's middle network with another quantiser step (compression)"

    reach: float = 16.0
    rungs: int = 33
    crops: int = 16

    def refuses(self, task: Task) -> str:
        model, needed = task.model(), ("g_a", "g_s", "h_a")
        if len(task.space.axes) == 1 and all(hasattr(model, part) for part in needed):
            return ""
        return f"its model is no codec of one λ with the transforms {', '.join(needed)}"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        return [FixedGrid().middle(task, settings, seed)]

    def at(
        self, task: Task, cells: Sequence[Cell], networks: Sequence[Network], setting: Setting
    ) -> nn.Module:
        (network,) = networks
        codec: Any = network.model.eval()
        device = next(codec.parameters()).device
        batch = task.data("train").to(device).batch(self.crops, torch.Generator().manual_seed(0))
        coefficients = torch.tensor([setting], device=device).repeat(self.crops, 1)
        ladder = (torch.linspace(-1, 1, self.rungs) * torch.tensor(self.reach).log()).exp()
        losses, reached = [], 1.0
        for step in ladder.tolist():
            scale_step(codec, step / reached)
            reached = step
            terms = task.losses(codec, batch)
            losses.append(weighted(task.space, terms, coefficients).mean())
        best = ladder[torch.stack(losses).argmin()].item()
        scale_step(codec, best / reached)
        return codec


@torch.no_grad()
def scale_step(codec: Any, factor: float) -> None:
    """Make a codec quantise y · `factor` and undo it behind, in place and exactly: the hyperprior
    sees what it did before, and its prediction is scaled."""
    scale = torch.full((1, 1), factor, device=next(codec.parameters()).device)
    last = next(layer for layer in reversed(codec.h_s) if hasattr(layer, "weight"))
    fold(codec.g_a[-1], scale, None)
    fold_before(codec.g_s[0], 1 / scale)
    fold_before(codec.h_a[0], 1 / scale)
    fold(last, scale, None)

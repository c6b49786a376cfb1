"""Weights between trained end points: nothing is conditioned, and every setting in between is free.

Wang et al., "Deep Network Interpolation", CVPR 2019; Rame et al., "Rewarded Soups", NeurIPS 2023.
Kept: the end points start from the same weights, and are mixed linearly, weight by weight, with
their buffers (the averages of batch norms); whole numbers are the nearest end point's. One
coefficient has two end points, the fixed grid's own networks at the ends of the range, mixed by the
place of the coefficient on the logarithmic axis. Of several coefficients, each that varies among
the settings has one: the network with this one at its high end and the others at their low; they
are mixed in proportion to the places of the coefficients. Simplified: rewarded soups fine-tune a
common pretrained network, here the start is the task's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import Cell, Fixed, FixedGrid, Network, Setting, Space, Task


@dataclass(frozen=True, kw_only=True)
class Interpolation(Fixed):
    name = "interpolation"
    line = "weights mixed between fixed networks at the ends of the range"

    def plan(self, task: Task, settings: Sequence[Setting], seed: int) -> list[Cell]:
        axes = task.space.axes
        moving = [i for i in range(len(axes)) if len({setting[i] for setting in settings}) > 1]
        moving = moving or [0]
        low = [axes[i].low if i in moving else settings[0][i] for i in range(len(axes))]
        ends = [(*low[:i], axes[i].high, *low[i + 1 :]) for i in moving]
        if len(moving) == 1:
            ends.insert(0, tuple(low))
        return FixedGrid().plan(task, ends, seed)

    def cells_at(self, task: Task, cells: Sequence[Cell], setting: Setting) -> list[Cell]:
        return list(cells)

    @torch.no_grad()
    def at(
        self, task: Task, cells: Sequence[Cell], networks: Sequence[Network], setting: Setting
    ) -> nn.Module:
        ends = [cell.trained_for[0] for cell in cells]
        shares = mixture(task.space, ends, setting)
        nearest = max(range(len(cells)), key=shares.__getitem__)
        mixed = networks[nearest].model
        used = [i for i in range(len(cells)) if shares[i]]  # nothing of the others, not 0 * inf
        if len(used) > 1:
            states = [network.model.state_dict() for network in networks]
            sums = {
                name: sum(shares[i] * states[i][name] for i in used)
                for name, value in states[nearest].items()
                if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
            }
            for name, value in sums.items():  # counts and flags stay the nearest network's
                states[nearest][name].copy_(value)
        return mixed


def mixture(space: Space, ends: Sequence[Setting], setting: Setting) -> list[float]:
    """Shares of the end points at a setting; they sum to one, and a setting that is an end point
    has it alone. Beyond the range the nearest end counts; where every coefficient is at its low
    end, all networks share alike."""
    places = [axis.place(value) for axis, value in zip(space.axes, setting, strict=True)]
    moving = [i for i in range(len(places)) if len({end[i] for end in ends}) > 1]
    if len(moving) == 1:
        return [1 - places[moving[0]], places[moving[0]]]
    total = sum(places[i] for i in moving)
    return [places[i] / total if total else 1 / len(moving) for i in moving]

"""One network whose channels are scaled by a linear function of the coefficients' logarithms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bench import Conditioner, Encoding, Levers, Modulating, Modulation, Task, channels


@dataclass(frozen=True, kw_only=True)
class LinearGains(Levers):
    name = "linear_gains"
    line = "a gain per channel, linear in the log-coefficients"

    def conditioner(self, task: Task, model: nn.Module) -> Conditioner:
        return Gains(model, task.sites(model), Encoding(task.space, "standardised"))


class Gains(Modulating):
    """Starts as the plain model: every gain is one."""

    def __init__(self, model: nn.Module, sites: list[str], encoding: Encoding) -> None:
        super().__init__()
        self.sites, self.encoding = sites, encoding
        widths = [channels(model.get_submodule(site)) for site in sites]
        self.gains = nn.ModuleList(nn.Linear(encoding.width, width) for width in widths)
        for gain in self.gains:
            nn.init.zeros_(gain.weight)
            nn.init.zeros_(gain.bias)

    def forward(self, coefficients: Tensor) -> list[Modulation]:
        code = self.encoding(coefficients)
        return [(1 + gain(code), None) for gain in self.gains]

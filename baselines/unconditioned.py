"""The ablation: coefficients are drawn for the loss as in loss-conditional training, but the
network is not told. What it loses against `yoto` is what the conditioning does.
"""

from dataclasses import dataclass

from bench import OneNetwork


@dataclass(frozen=True, kw_only=True)
class Unconditioned(OneNetwork):
    name = "unconditioned"
    line = "random coefficients in the loss, no conditioning: the ablation"

"""The ablation: coefficients are drawn for the loss as in loss-conditional training, but the
network is not told. What it loses against `yoto` is what the conditioning does. With `prior` it is
told by what the task knows of scales, and learns nothing of its own from that: what a mechanism
that starts from there loses or wins against it is the mechanism's.
"""

from dataclasses import dataclass

from bench import Levers


@dataclass(frozen=True, kw_only=True)
class Unconditioned(Levers):
    name = "unconditioned"
    line = "random coefficients in the loss, no conditioning: the ablation"

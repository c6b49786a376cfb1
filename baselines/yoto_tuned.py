"""YOTO with the levers set that closed the gap to the grid best, beside the default `yoto`.

What it took to find them is a cost: `tuning`, from `results/reference/ablation-*`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench import Tuning, Yoto


@dataclass(frozen=True, kw_only=True)
class YotoTuned(Yoto):
    name = "yoto_tuned"
    line = "YOTO with the levers that closed its gap best"
    label = "YOTO tuned"
    tuned = True
    tuning: ClassVar[Mapping[str, Tuning]] = {
        "compression": Tuning(variants=15, preset="quick", examples=25_600, flops=60952045260800),
        "beta_vae_scenes": Tuning(
            variants=21, preset="quick", examples=457_600, flops=18460059238400
        ),
        "style": Tuning(variants=5, preset="quick", examples=2_400, flops=38632049049600),
    }

    encoding: str = "standardised"
    stratified: bool = True
    weighting: str = "geometric_mean"
    scale: str = "exponential"
    exact_start: bool = True
    prior: bool = True

"""The fixed grid with the levers that helped it most, beside the plain one.

A network told its coefficients may be tuned (`baselines/yoto_tuned.py`), and so may the grid that
it is measured against: about as many variants were tried of one as of the other (`tuning`), at the
size `quick`, on validation examples (`results/reference/ablation-grid-*`: the middle and the ends
of the range, one seed). Of the levers that cost no more, the least mean loss decided. On codecs it
is the known scale of the quantiser as the start (`prior`), before every weighting and learning rate
tried; on the other tasks, which know no scale, another learning rate, where trainings are as short:
see their presets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from bench import ADDED, FixedGrid, Tuning


@dataclass(frozen=True, kw_only=True)
class FixedGridTuned(FixedGrid):
    name = "fixed_grid_tuned"
    line = "the fixed grid with the levers that helped it most"
    tuned = True
    tuning: ClassVar[Mapping[str, Tuning]] = {
        "compression": Tuning(variants=16, preset="quick", examples=76_800, flops=182726767718400),
        "beta_vae_scenes": Tuning(
            variants=17, preset="quick", examples=1_060_800, flops=41865515827200
        ),
        "style": Tuning(variants=6, preset="quick", examples=8_640, flops=139069457694720),
    }

    prior: bool = field(default=True, metadata=ADDED)

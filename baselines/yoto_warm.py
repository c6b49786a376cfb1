"""YOTO tuned that starts from one trained fixed network, the grid's middle one.

What most practice does: QVRF (Tong et al., ICIP 2023) and its relatives take a trained network of
one rate and then train it over the range. All else is `yoto_tuned`'s by default, so that the two
differ by the start alone; where levers were searched (`bench/levers.py`), each has its own. FiLM
starts as that network exactly, at every setting; where the task knows how scales follow the
coefficients (`prior`, compression), at the middle setting, and elsewhere with these scales, much as
`step_scaling` has it. The fixed network's training counts in full: with `steps=1` a row costs two
networks (`steps` and `warm_start` divide it otherwise), of which a comparison with the grid trains
the first anyway.
"""

from dataclasses import dataclass
from typing import ClassVar

from baselines.yoto_tuned import YotoTuned


@dataclass(frozen=True, kw_only=True)
class YotoWarm(YotoTuned):
    name = "yoto_warm"
    line = "YOTO tuned from the grid's trained middle network on"
    role = ""  # a competitor of the two under test: not trained to other lengths
    label = "YOTO warm"
    like: ClassVar[str] = "yoto_tuned"

    warm_start: float = 1.0

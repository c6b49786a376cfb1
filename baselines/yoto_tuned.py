"""YOTO with the levers set that closed the gap to the grid best, beside the default `yoto`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.yoto import Yoto


@dataclass(frozen=True, kw_only=True)
class YotoTuned(Yoto):
    name: ClassVar[str] = "yoto_tuned"
    line: ClassVar[str] = "YOTO with the levers that closed its gap best"

    encoding: str = "standardised"
    stratified: bool = True
    weighting: str = "geometric_mean"
    scale: str = "exponential"
    exact_start: bool = True
    prior: bool = True

"""The fixed grid with the levers set that helped it most, beside the plain one.

A network told its coefficients may be tuned (`baselines/yoto_tuned.py`), and so may the grid that
it is measured against: on the same validation pictures, with as many variants tried. Where no lever
helps, or none applies to a task, its networks are the grid's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from baselines.fixed_grid import FixedGrid
from bench.identity import ADDED


@dataclass(frozen=True, kw_only=True)
class FixedGridTuned(FixedGrid):
    name: ClassVar[str] = "fixed_grid_tuned"
    line: ClassVar[str] = "the fixed grid with the levers that helped it: the harder reference"

    prior: bool = field(default=True, metadata=ADDED)

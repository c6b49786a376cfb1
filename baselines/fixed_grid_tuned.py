"""The fixed grid with the lever set that is known to help it, beside the plain one.

A network told its coefficients may be tuned (`baselines/yoto_tuned.py`), and so may the grid that
it is measured against. Its one lever, the known scale of the quantiser as the start (`prior`), was
not searched for: it follows from `Task.scaling`, the first lever of the tuned network, too. The
others (`weighting`, `lr`, `steps`, `width`) have not been tried on it: more variants were tried of
the tuned network than of this grid. Where no lever applies to a task, its networks are the grid's
own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from baselines.fixed_grid import FixedGrid
from bench.identity import ADDED


@dataclass(frozen=True, kw_only=True)
class FixedGridTuned(FixedGrid):
    name: ClassVar[str] = "fixed_grid_tuned"
    line: ClassVar[str] = "the fixed grid with the known scale as its start, where a task knows one"

    prior: bool = field(default=True, metadata=ADDED)

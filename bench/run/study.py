"""What an experiment of a study changes of a task: the width of its model, the range of its
coefficients.

    run TASK --widths 1,2,4 --ranges 4,16      one experiment per combination

An experiment that changes nothing is the plain one, and shares its networks and records.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from bench.files import STORED

Factor = Annotated[float, Meta(gt=0, lt=1e9)]
Name = Annotated[str, Meta(max_length=STORED, pattern=r"^[^\0\ud800-\udfff]*$")]
SAME = 0.01  # ranges are rounded to three significant digits


@dataclass(frozen=True, kw_only=True)
class Study:
    """Of an experiment that is not the plain one: the factor of its width, the ratio of the ends of
    its range (None for the task's own), and the preset and the id of the plain experiment."""

    width: Factor = 1.0
    range: Factor | None = None
    preset: Name
    experiment: Name


def combinations(
    widths: Sequence[float] | None, ranges: Sequence[float] | None
) -> list[tuple[float, float | None]]:
    """Every width with every range, each once. ValueError for what is no factor."""
    for name, given, least in (("--widths", widths, 0), ("--ranges", ranges, 1)):
        if wrong := [value for value in given or () if not least < value < math.inf]:
            raise ValueError(f"{name}: {wrong[0]:g} is no factor above {least}")
    spans: Sequence[float | None] = ranges or [None]
    return list(dict.fromkeys(itertools.product(widths or [1.0], spans)))


def changed(task: Any, width: float, span: float | None) -> tuple[Any, float | None]:
    """The task with these factors, itself where they change nothing, and the span, None where it is
    the task's own. ValueError, which names the task, where it has no such factor."""
    try:
        wide = task if width == 1 else task.wider(width)
        ranged = wide if span is None else wide.ranged(span)
        return (wide, None) if _same_range(ranged, wide) else (ranged, span)
    except ValueError as error:
        flag = f"--widths {width:g}" if width != 1 else ""
        flag += f" --ranges {span:g}" if span is not None else ""
        reason = str(error).removeprefix(f"{task.name}: ")
        raise ValueError(f"{task.name} {flag.strip()}: {reason}") from None


def _same_range(task: Any, other: Any) -> bool:
    pairs = zip(task.space.axes, other.space.axes, strict=True)
    ends = [end for one, two in pairs for end in (one.low / two.low, one.high / two.high)]
    return all(abs(end - 1) < SAME for end in ends)


def labelled(size: str, width: float, span: float | None) -> str:
    """How tables call the size of such an experiment: `quick[2x width, range 16]`."""
    words = [f"{width:g}x width"] if width != 1 else []
    words += [f"range {span:g}"] if span is not None else []
    base, _, fields = size.removesuffix("]").partition("[")
    return f"{base}[{', '.join(filter(None, [fields, *words]))}]"

"""What an experiment of a study changes of a task: the width of its model, the range of its
coefficients, how many there are.

    run TASK --widths 1,2,4 --ranges 4,16 --coefficients 1,2      one experiment per combination

An experiment that changes nothing is the plain one, and shares its networks and records.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from bench.files import STORED

Factor = Annotated[float, Meta(gt=0, lt=1e9)]
Count = Annotated[int, Meta(ge=1, lt=10**9)]
Name = Annotated[str, Meta(max_length=STORED, pattern=r"^[^\0\ud800-\udfff]*$")]
SAME = 0.01  # ranges are rounded to three significant digits


@dataclass(frozen=True, kw_only=True)
class Study:
    """Of an experiment that is not the plain one: the factor of its width, the ratio of the ends of
    its range and the number of its coefficients (None for the task's own), and the preset and the
    id of the plain experiment."""

    width: Factor = 1.0
    range: Factor | None = None
    coefficients: Count | None = None
    preset: Name
    experiment: Name


class Factors(NamedTuple):
    """What a study asks of one experiment; None stands for the task's own. See `Study`."""

    width: float = 1.0
    range: float | None = None
    coefficients: int | None = None

    def words(self) -> list[str]:
        """Those that change something, as tables write them."""
        width, span, count = self
        words = [f"{width:g}x width"] if width != 1 else []
        words += [f"range {span:g}"] if span is not None else []
        return words + ([f"{count} coefficient{'s' * (count > 1)}"] if count is not None else [])

    def flags(self) -> str:
        """The command line that asks for those that change something."""
        width, span, count = self
        flags = [f"--widths {width:g}"] if width != 1 else []
        flags += [f"--ranges {span:g}"] if span is not None else []
        return " ".join(flags + ([f"--coefficients {count}"] if count is not None else []))


PLAIN = Factors()


def combinations(
    widths: Sequence[float] | None,
    ranges: Sequence[float] | None,
    counts: Sequence[float] | None = None,
) -> list[Factors]:
    """Every width with every range and every number of coefficients, each once. ValueError for what
    is no factor."""
    for name, given, least in (("--widths", widths, 0), ("--ranges", ranges, 1)):
        if wrong := [value for value in given or () if not least < value < math.inf]:
            raise ValueError(f"{name}: {wrong[0]:g} is no factor above {least}")
    if wrong := [value for value in counts or () if not 1 <= value < 1e9 or value % 1]:
        raise ValueError(f"--coefficients: {wrong[0]:g} is no whole number of 1 or more")
    spans: Sequence[float | None] = ranges or [None]
    numbers: Sequence[int | None] = [int(count) for count in counts or ()] or [None]
    every = itertools.product(widths or [1.0], spans, numbers)
    return list(dict.fromkeys(Factors(*each) for each in every))


def changed(task: Any, factors: Factors) -> tuple[Any, Factors]:
    """The task with these factors, itself where they change nothing, and the factors, None where
    they are the task's own. ValueError, which names the task, where it has no such factor."""
    width, span, count = factors
    if count == len(task.space.axes):
        count = None
    try:
        several = task if count is None else task.with_coefficients(count)
        wide = several if width == 1 else several.wider(width)
        ranged = wide if span is None else wide.ranged(span)
        if _same_range(ranged, wide):
            ranged, span = wide, None
        return ranged, Factors(float(width), span, count)
    except ValueError as error:
        reason = str(error).removeprefix(f"{task.name}: ")
        raise ValueError(f"{task.name} {factors.flags()}: {reason}") from None


def _same_range(task: Any, other: Any) -> bool:
    pairs = zip(task.space.axes, other.space.axes, strict=True)
    ends = [end for one, two in pairs for end in (one.low / two.low, one.high / two.high)]
    return all(abs(end - 1) < SAME for end in ends)


def labelled(size: str, factors: Factors) -> str:
    """How tables call the size of such an experiment: `quick[2x width, range 16]`."""
    base, _, fields = size.removesuffix("]").partition("[")
    return f"{base}[{', '.join(filter(None, [fields, *factors.words()]))}]"

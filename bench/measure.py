"""What a task says of its numbers: how each is called, and what is said where the task is silent.

>>> class Denoising:
...     name, measures = derived(class_name), derived(terms_measured)
...     terms = ("fidelity", "roughness")
>>> Denoising.name, Denoising.measures["roughness"].label
('denoising', 'roughness')
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How one measured number is called in tables and figures, and which way is better.

    margin: the largest difference that counts as none, set before any comparison: in the
        measure's unit, or, as "1%", of the fixed grid's value; "" says nothing of the kind.
    worst: a value worse than any that matters: the reference point of hypervolumes.
    estimates: the measure of which this one is an estimate, as of the bytes that a coder writes;
        the report shows by how much they differ.
    partial: only some examples have one, whatever the method; the others' NaN is no lost value.
    rises: it must rise with every coefficient, for each example alone; the report shows how often
        it falls from one setting to the next ("crossings", as quantiles of a higher level that lie
        below those of a lower one are called).
    """

    label: str
    unit: str = ""
    better: str = ""  # "lower", "higher", or "" where neither is
    relative: bool = True  # whether a difference may be given in per cent
    digits: int = 3
    margin: str = ""
    worst: float | None = None
    estimates: str = ""
    partial: bool = False
    rises: bool = False

    def __post_init__(self) -> None:
        if self.margin and not float(self.margin.removesuffix("%")) > 0:
            raise ValueError(f'{self.label}: margin {self.margin!r}: write "0.05" or "1%"')


# What follows from other class attributes of a task ----------------------------------------------


class Derived:
    """A class attribute that follows from others where a subclass does not set it."""

    def __init__(self, of: Callable[[Any], Any]) -> None:
        self.of = of

    def __get__(self, task: Any, kind: type) -> Any:
        return self.of(kind if task is None else task)


def derived(of: Callable[[Any], Any]) -> Any:
    return Derived(of)


def class_name(task: Any) -> str:
    """`OurDenoiser` as `our_denoiser`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _kind(task).__name__).lower()


def words_of_the_name(task: Any) -> str:
    """`our_denoiser` as `our denoiser`."""
    return str(task.name).replace("_", " ")


def terms_measured(task: Any) -> dict[str, Measure]:
    """Every loss term as a measure, the less the better."""
    return {term: Measure(label=term.replace("_", " "), better="lower") for term in task.terms}


def terms_traded(task: Any) -> tuple[tuple[str, str], ...]:
    """Two loss terms are a trade-off, where a task says nothing of its measures."""
    if not isinstance(inspect.getattr_static(_kind(task), "measures"), Derived):
        return ()
    return ((task.terms[1], task.terms[0]),) if len(task.terms) == 2 else ()


def as_many_at_once(kind: Any) -> int:
    """`Task.measured_at_once` of a class: what it or its parent says, but 1 where it measures by
    other code than the class that says it, wherever that code is inherited from."""
    owner = next(each for each in kind.__mro__ if "measured_at_once" in vars(each))
    hooks = ("measure", "measure_at", "losses")
    same = all(getattr(kind, hook) is getattr(owner, hook) for hook in hooks)
    return int(owner.measured_at_once) if same else 1


def _kind(task: Any) -> type:
    return task if isinstance(task, type) else type(task)

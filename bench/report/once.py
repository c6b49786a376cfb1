"""What is worked out of a run at the first question and kept with it: tables, figures, the page and
the sentence ask for the same answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import pandas as pd

from bench.report.load import Run

Answer = TypeVar("Answer")


def once(question: Callable[[Run], Answer]) -> Callable[[Run], Answer]:
    """Kept as a cached property is, by runs that do not know their questions; of a frame everyone
    has a copy."""
    name = f"{question.__module__}.{question.__qualname__}"

    @functools.wraps(question)
    def answer(run: Run) -> Answer:
        if name not in vars(run):
            vars(run)[name] = question(run)
        kept = vars(run)[name]
        return kept.copy() if isinstance(kept, pd.DataFrame) else kept

    return answer

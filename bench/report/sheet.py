"""A table as it is read, made from the rows of a frame and a list of columns.

sheet_of(rows, [Column("method", name), value("PSNR (dB)", "psnr", 2, "higher")])
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench.report.text import estimate, latex_table, markdown_table, number, ratio

Row = dict[Any, Any]


class Sheet(NamedTuple):
    """Text cells, of which the first `left` columns are names.

    groups: the number of rows per method. best: the (row, column) of every cell that no other in
    its column (at the same setting, where the rows are settings) beats.
    """

    head: list[str]
    rows: list[list[str]]
    left: int
    groups: list[int]
    best: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        return markdown_table(self.head, self.rows, self.left, self.best)

    def latex(self) -> str:
        return latex_table(self.head, self.rows, self.left, self.best, self.groups)


class Column(NamedTuple):
    """A heading and how a row is written below it.

    key, better: the entry of a row whose "lower" or "higher" values are bold. plain: how that value
    is compared, where the cell shows more.
    """

    head: str
    text: Callable[[Row], str]
    key: Any = ""
    better: str = ""
    plain: Callable[[Row], str] | None = None

    def unless(self, other: Callable[[Row], str]) -> Column:
        """With another text in the rows for which there is one."""
        return self._replace(text=lambda row: other(row) or self.text(row))

    def then(self, more: Callable[[Row], str]) -> Column:
        """With more text behind."""
        return self._replace(text=lambda row: self.text(row) + more(row))


def value(
    head: str,
    key: Any,
    digits: int,
    better: str = "",
    *,
    sign: bool = False,
    ends: Sequence[Any] | None = None,
) -> Column:
    """Of a number, with its interval where the keys of its `ends` are given."""

    def text(row: Row) -> str:
        if ends is None:
            return number(row[key], digits, sign=sign)
        return estimate(row[key], [row[end] for end in ends], digits, sign=sign)

    return Column(head, text, key, better)


def times(head: str, key: str) -> Column:
    """Of a ratio; the less the better."""
    return Column(head, lambda row: ratio(row[key]), key, "lower")


def sheet_of(
    rows: Sequence[Row],
    columns: Sequence[Column],
    *,
    left: int = 1,
    within: str = "",
    stands_out: Callable[[Row], bool] = lambda row: True,
) -> Sheet:
    """One line of cells per row. With two columns of names, a method stands once for its rows.

    within: cells compete for the best of their column with those of rows that have the same entry
    of that name, where `stands_out` lets them.
    """
    cells = [[column.text(row) for column in columns] for row in rows]
    best = set()
    for place, column in enumerate(columns):
        rivals: dict[Any, list[tuple[int, float, str]]] = {}
        for line, row in enumerate(rows):
            if column.better and stands_out(row):
                read = (column.plain or column.text)(row)
                rivals.setdefault(row.get(within), []).append((line, row[column.key], read))
        for group in rivals.values():
            best |= {(line, place) for line in _best(column.better, group)}
    groups = [len(rows)]
    if left == 2:
        groups = [len([*part]) for _, part in itertools.groupby(row["method"] for row in rows)]
        for line in set(range(len(rows))) - set(itertools.accumulate(groups, initial=0)):
            cells[line][0] = ""
    return Sheet([column.head for column in columns], cells, left, groups, frozenset(best))


def _best(better: str, candidates: Sequence[tuple[int, float, str]]) -> set[int]:
    """The rows, of (row, value, text), that read like the best value; none where all do."""
    finite = [c for c in candidates if math.isfinite(c[1])]
    if len({text for _, _, text in finite}) < 2:
        return set()
    _, _, best = (min if better == "lower" else max)(finite, key=lambda c: c[1])
    return {row for row, _, text in finite if text == best}

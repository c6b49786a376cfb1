"""One measured number is one row: the long CSV every table and figure is made from.

`setting` is written `name=value;name=value`; `example` is the picture's (or vector's) name;
`experiment` tells apart runs of one task and preset whose fields, training data or test data
differ, so that no table ever mixes them.

A text that a spreadsheet would take for a formula (a picture may be called `=1+1.png`) is written
with an apostrophe before it, which `loads` takes away again; numbers are never touched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.files import guarded, printable, unguarded
from bench.plugins.names import WHOLE as WHOLE
from bench.run.layout import picture_of


class Record(NamedTuple):
    task: str
    preset: str
    experiment: str
    method: str
    seed: int
    cell: str
    setting: str
    example: str
    measure: str
    value: float


def dumps(records: Iterable[Record]) -> str:
    """Records as CSV text with a header; values keep every digit, texts every character."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(Record._fields)
    for record in records:
        names = [guarded(each) if isinstance(each, str) else each for each in record[:-1]]
        odd = any("\r" in each for each in names if isinstance(each, str))  # not quoted by itself
        (quoting if odd else writer).writerow([*names, repr(float(record.value))])
    return text.getvalue()


def loads(text: str, source: str) -> list[Record]:
    """Parse CSV text; ValueError names `source` and the line where it is not ours."""
    rows = csv.reader(io.StringIO(text))
    records: list[Record] = []
    as_written = "'" not in text  # nothing was guarded, as a rule
    try:
        header = next(rows, None)
        if header is None or tuple(header) != Record._fields:
            raise ValueError(f"no record file: its first line is {printable(header)[:200]}")
        for row in rows:
            *names, value = row if as_written else map(unguarded, row)
            names = [sys.intern(name) for name in names]  # a million rows repeat a few names
            task, preset, experiment, method, seed, cell, setting, example, measure = names
            records.append(
                Record(
                    task, preset, experiment, method, int(seed), cell, setting, example, measure,
                    float(value),
                )
            )  # fmt: skip
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{source}, line {rows.line_num}: {printable(error)}") from None
    return records


def picture_is_whole(head: Path, digest: str | None) -> bool:
    """Whether the picture beside a record's head is what was drawn. One that was deleted, to save
    space, is no damage; nor is there any where its SHA-256 is not known."""
    picture = picture_of(head)
    if digest is None or not picture.exists():
        return True
    return hashlib.sha256(picture.read_bytes()).hexdigest() == digest

"""One measured number is one row: the long CSV every table and figure is made from.

`setting` is written `name=value;name=value`; `example` is the picture's (or vector's) name;
`experiment` tells apart runs of one task and preset whose fields, training data or test data
differ, so that no table ever mixes them.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

WHOLE = "(all)"  # the `example` of a measure of the whole test set


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
    """Records as CSV text with a header; values keep every digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Record._fields)
    for record in records:
        writer.writerow([*record[:-1], repr(float(record.value))])
    return text.getvalue()


def loads(text: str, source: str) -> list[Record]:
    """Parse CSV text; ValueError names `source` and the line where it is not ours."""
    rows = csv.reader(io.StringIO(text))
    header = next(rows, None)
    if header is None or tuple(header) != Record._fields:
        raise ValueError(f"{source} is no record file: its first line is {header}")
    records = []
    for number, row in enumerate(rows, 2):
        try:
            *names, value = row
            names = [sys.intern(name) for name in names]  # a million rows repeat a few names
            task, preset, experiment, method, seed, cell, setting, example, measure = names
            records.append(
                Record(
                    task, preset, experiment, method, int(seed), cell, setting, example, measure,
                    float(value),
                )
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: {error}") from None
    return records


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write to a temporary name in the same folder, flush to the disk, then rename.

    Readers see the old file or the whole new one. An OSError (a full disk, a folder without
    write permission) leaves the old file as it was and says what to do.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{error.strerror} while writing {path}; what was there is unharmed: free some space "
            "or choose another folder with --out, then give the same command again to continue",
        ) from error

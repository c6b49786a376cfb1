"""One measured number is one row: the long CSV every table and figure is made from.

`setting` is written `name=value;name=value`; `example` is the picture's (or vector's) name;
`experiment` tells apart runs of one task and preset whose fields, training data or test data
differ, so that no table ever mixes them.

A text that a spreadsheet would take for a formula (a picture may be called `=1+1.png`) is written
with an apostrophe before it, which `loads` takes away again; numbers are never touched.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench.untrusted import guarded, printable, unguarded

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


def picture_is_whole(record: Path, head: dict[str, Any]) -> bool:
    """Whether the picture beside a record's JSON file is what was drawn. One that was deleted, to
    save space, is no damage; nor is there any where `head` does not know of one."""
    digest, picture = head.get("picture_sha256"), record.with_suffix(".png")
    if digest is None or not picture.exists():
        return True
    return hashlib.sha256(picture.read_bytes()).hexdigest() == digest


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write to a temporary name in the same folder, flush to the disk, then rename.

    Readers see the old file or the whole new one. An OSError (a full disk, a folder without
    write permission) leaves the old file as it was and says what to do.
    """
    data = content.encode() if isinstance(content, str) else content
    # Not the process's number: processes of two containers have the same one.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # never through a planted link
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise with_way_out(error, path) from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file. An OSError says what to do; the last line may then be torn."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise with_way_out(error, path) from error


def with_way_out(error: OSError, path: Path) -> OSError:
    return OSError(
        error.errno,
        f"{error.strerror} while writing {path}; what was there is unharmed: free some space or "
        "choose another folder with --out, then give the same command again to continue",
    )

"""One measured number is one row: the long CSV every table and figure is made from.

`setting` is written `name=value;name=value`; `example` is the picture's (or vector's) name;
`experiment` tells apart runs of one task and preset whose fields, training data or test data
differ, so that no table ever mixes them.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

WHOLE = "(all)"  # the `example` of a measure of the whole test set
SEAL = "check"  # the entry of a stored JSON object that is the SHA-256 of the others


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


def sealed(content: dict[str, Any]) -> str:
    """The JSON text of an object that says itself when it was changed: one flipped bit in a
    ledger or a setting would else be another number, and still JSON."""
    seal = _seal(json.loads(json.dumps(content)))
    return json.dumps({**content, SEAL: seal}, indent=1) + "\n"


def unsealed(text: str | bytes) -> dict[str, Any]:
    """The object `sealed` wrote, or one without a seal. ValueError where it is none or changed."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _seal(content):
        raise ValueError("its content is not what was written")
    return content


def picture_is_whole(record: Path, head: dict[str, Any]) -> bool:
    """Whether the picture beside a record's JSON file is what was drawn. One that was deleted, to
    save space, is no damage; nor is there any where `head` does not know of one."""
    digest, picture = head.get("picture_sha256"), record.with_suffix(".png")
    if digest is None or not picture.exists():
        return True
    return hashlib.sha256(picture.read_bytes()).hexdigest() == digest


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
        with open(temporary, "wb") as file:
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
        with open(path, "a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise with_way_out(error, path) from error


def with_way_out(error: OSError, path: Path) -> OSError:
    return OSError(
        error.errno,
        f"{error.strerror} while writing {path}; what was there is unharmed: free some space or "
        "choose another folder with --out, then give the same command again to continue",
    )

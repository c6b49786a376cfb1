"""Text and files from elsewhere: names of pictures, results folders of other machines.

printable("a\\x1b[2J")           text that a terminal shows and does not obey
guarded("=1+1")                 a cell that a spreadsheet shows and does not compute
read_object(path)               JSON that is an object, of a sane size and depth
for path in files_in(root, "records/*/*/*.json"): ...      none outside of `root`
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import category

SEAL = "check"  # the entry of a stored JSON object that is the SHA-256 of the others
STORED = 4000  # characters of one text, such as a reason or a command
JSON_BYTES = 16 * 2**20  # a run's configuration with 10,000 settings takes a tenth of it

_JOINERS = "\u200c\u200d"  # which some scripts need between letters
# What spreadsheets take for the beginning of a formula, the full-width forms included.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def printable(text: object) -> str:
    """The text with line breaks, control characters, marks of direction and bytes that are no text
    written out (`\\x1b`, `\\udcff`), so that it can be printed and encoded anywhere."""
    text = str(text)
    if text.isprintable():
        return text

    def shown(c: str) -> str:
        well = c.isprintable() or c in _JOINERS or category(c) == "Zs"
        return c if well else c.encode("unicode_escape").decode()

    return "".join(map(shown, text))


def brief(text: object) -> str:
    """A text as records hold one: printable, and cut where it is longer than they read."""
    shown = printable_lines(text)
    return shown if len(shown) <= STORED else shown[: STORED - 1] + "…"


def expanded(path: str) -> str:
    """A path with `~` or `~user` at its beginning written out; ValueError where nobody's home
    folder is known by that."""
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        raise ValueError(
            f"{printable(path)}: there is no such home folder here: write the path out, or begin "
            "the name of a file that is called so with ./"
        )
    return whole


def printable_lines(text: object) -> str:
    """`printable`, but for line breaks."""
    return "\n".join(map(printable, str(text).split("\n")))


def guarded(text: str) -> str:
    """A text cell of a CSV file that no spreadsheet takes for a formula: an apostrophe, the sign
    spreadsheets have for text, goes before a formula's first character (and before apostrophes
    that stand there already, so that `unguarded` gives back every text)."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The inverse of `guarded`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def sealed(content: dict[str, Any]) -> str:
    """The JSON text of an object that says itself when it was changed: one flipped bit in a
    ledger or a setting would else be another number, and still JSON."""
    plain = json.loads(json.dumps({name: content[name] for name in content if name != SEAL}))
    return json.dumps({**plain, SEAL: _seal(plain)}, indent=1) + "\n"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, `sealed` or not.

    ValueError, which says what is wrong but not where, for anything else: too large, too deep,
    changed, no ordinary file; OSError as `open`.
    """
    data = read_ordinary(path, JSON_BYTES)
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        seal = value.pop(SEAL, None)
        if seal is not None and seal != _seal(value):
            raise ValueError("its content is not what was written")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_ordinary(path: Path, limit: int) -> bytes:
    """The bytes of an ordinary file, at most `limit` of them; ValueError for a pipe, a device or
    a larger file, OSError as `open`. Never waits for a pipe's other end."""

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ValueError("it is no ordinary file")
        return descriptor

    with open(path, "rb", opener=opener) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return data


@contextlib.contextmanager
def drawing_to_files() -> Iterator[None]:
    """While it lasts, matplotlib is imported for files alone, whatever `MPLBACKEND` says: a
    notebook leaves there what a program cannot import."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "Agg"
    try:
        yield
    finally:
        os.environ.pop("MPLBACKEND")
        if before is not None:
            os.environ["MPLBACKEND"] = before


def leading_out(root: Path) -> Path | None:
    """The first link among the folders of a results folder that leads out of it, None without."""
    top = root.resolve()
    level = [root / name for name in ("runs", "records", "configs", "looks", "tasks", "report")]
    for depth in range(4):  # runs/<task>/<method>/<cell>
        for folder in level:
            if folder.is_symlink() and not folder.resolve().is_relative_to(top):
                return folder
        parents, level = level if depth < 3 else [], []
        for folder in parents:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                level += [folder / entry.name for entry in entries if entry.is_dir()]
    return None


def files_in(root: Path, pattern: str) -> Iterator[Path]:
    """The ordinary files in `root` that match, in order. Links to files, and folders that lead
    out of `root`, are passed over with one warning."""
    top, left = root.resolve(), []
    inside = functools.cache(lambda folder: folder.resolve().is_relative_to(top))
    for path in sorted(root.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if stat.S_ISREG(path.lstat().st_mode) and inside(path.parent):
                yield path
            else:
                left.append(path)
    if left:
        warnings.warn(
            f"{len(left)} of the files in {printable(root)} are links or no ordinary files and "
            f"are passed over, the first is {printable(left[0])}",
            stacklevel=2,
        )


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write to a temporary name in the same folder, flush to the disk, then rename.

    Readers see the old file or the whole new one. An OSError (a full disk, a folder without
    write permission) leaves the old file as it was and says what to do.
    """
    data = content.encode() if isinstance(content, str) else content
    # Not the process's number: processes of two containers have the same one.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with with_way_out(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:  # never through a planted link
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file. An OSError says what to do; the last line may then be torn."""
    with with_way_out(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextlib.contextmanager
def with_way_out(path: Path) -> Iterator[None]:
    """While it lasts, an OSError says what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror} while writing {path}; what was there is unharmed: free some space "
            "or choose another folder with --out, then give the same command again to continue",
        ) from error

"""What quantile regression learns from: data whose quantiles are known, or the rows of a CSV file.

    csv_rows("train", "sales.csv", "", "price", held_out=256, seed=0)

Of a CSV, columns of numbers are standardised, gaps take the median (and, if the training rows have
gaps, a further input says where); columns of text become one input per category. What is left out
or filled in is said once. All of that is decided by the training rows alone. Which rows these are
is drawn: of a series over time, give the later rows as `test_data`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench import Examples, file_digest, read_ordinary
from bench.files import printable
from bench.plugins.names import near

# Synthetic ----------------------------------------------------------------------------------------

INPUTS = 4


def true_quantile(inputs: Tensor, level: float | Tensor) -> Tensor:
    """The target's quantile at a level, a number or (N,), given inputs (N, 4) in [-1, 1]: (N,).

    A shifted lognormal: location + scale · (exp(s z) - 1) / s with z standard normal. The location
    depends on the first three inputs, the scale on the third, the skewness s (0.1 to 0.9) on the
    fourth.
    """
    a, b, c, d = inputs.unbind(1)
    skewness = 0.5 + 0.4 * d
    z = torch.special.ndtri(torch.as_tensor(level, dtype=torch.float64, device=inputs.device))
    noise = torch.expm1(skewness * z.to(inputs.dtype)) / skewness
    return (torch.pi * a).sin() + b * c + 0.5 * (0.7 * c).exp() * noise


@functools.lru_cache(maxsize=8)
def synthetic_rows(count: int, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, INPUTS + 1, generator=generator, dtype=torch.float64)
    inputs = 2 * draws[:, :INPUTS] - 1
    target = true_quantile(inputs, draws[:, INPUTS].clamp(1e-9, 1 - 1e-9))
    rows = torch.cat([inputs, target[:, None]], 1).float()
    return Examples(rows, digest=f"shifted lognormal, {count} rows, seed {seed}")


# A CSV --------------------------------------------------------------------------------------------

MOST_BYTES = 64 * 2**20
LEAST_ROWS = 50
HELD_SHARE = 0.15  # of the rows, at most, for each of the splits that are not trained on
LEVELS = 32  # categories of a column of text, at most
FEW = 10_000  # training rows, which a network of the default size may learn by heart
MOSTLY = 0.9  # so many numbers make a column one of numbers
SEPARATORS = ",;\t|"
COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?")  # a number as in 1.234,5

Encoder = Callable[[pd.DataFrame], np.ndarray]  # rows as text to inputs (N, inputs)
State = tuple[str, int, int]  # of a file: path, time of change, bytes


class TableError(ValueError):
    """A file that is no table to learn from, and what to do about it."""


def csv_rows(
    split: str, train_data: str, test_data: str, target: str, held_out: int, seed: int
) -> Examples:
    """Rows of inputs, then the target, of a split; the same for the same content, target and seed.
    `held_out` rows at most are tested and validated on. TableError where that cannot be."""
    states = _state(train_data), _state(test_data) if test_data else None
    return _splits(*states, target, held_out, seed)[split]


def _state(path: str) -> State:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise TableError(f"{printable(path)}: {error.strerror}: check the path") from None
    return path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4)  # so that notes are given once
def _splits(
    train: State, test: State | None, target: str, held_out: int, seed: int
) -> dict[str, Examples]:
    notes: list[str] = []
    frame = _with_target(Path(train[0]), target, notes)
    if len(frame) < LEAST_ROWS:
        raise TableError(
            f"{printable(train[0])} has {len(frame)} rows with a target, and {LEAST_ROWS} is the "
            "least that can be split and learned from: give more rows"
        )
    held = max(1, min(held_out, int(HELD_SHARE * len(frame))))
    order = torch.randperm(len(frame), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = {
        "validation": frame.iloc[order[:held]],
        "test": frame.iloc[order[held : 2 * held]],
        "train": frame.iloc[order[2 * held :]],
    }
    if test:
        parts["train"] = frame.iloc[order[held:]]
        tested = _with_target(Path(test[0]), target, notes)
        parts["test"] = tested.sample(min(held_out, len(tested)), random_state=seed)
    held_rows = pd.concat([parts["validation"], parts["test"]])
    encoders = _encoders(parts["train"], held_rows, target, notes)
    if lacking := [name for name in frame if name not in parts["test"]]:
        raise TableError(f"{printable(test[0] if test else '')} has no column {lacking[0]!r}")
    rows = {
        name: np.concatenate([encode(part) for encode in encoders], 1)
        for name, part in parts.items()
    }
    _say(train[0], parts, rows["train"].shape[1] - 1, notes)
    # What is trained on is the same whatever else is tested on.
    learned = file_digest(Path(train[0])), test is not None, target, held_out, seed
    tested_on = file_digest(Path(test[0])) if test else ""
    digests = {
        name: hashlib.sha256(repr((name, *learned, *more)).encode()).hexdigest()
        for name, more in (("train", ()), ("validation", ()), ("test", (tested_on,)))
    }
    return {
        name: Examples(
            torch.from_numpy(rows[name]).float(), digests[name],
            [f"row {number}" for number in part.index],
        )
        for name, part in parts.items()
    }  # fmt: skip


def _say(place: str, parts: dict[str, pd.DataFrame], inputs: int, notes: list[str]) -> None:
    counts = ", ".join(f"{len(parts[name])} {name}" for name in ("train", "validation", "test"))
    lines = [f"{printable(Path(place).name)}: rows: {counts}; {inputs} inputs", *notes]
    if len(parts["train"]) < FEW:
        lines.append(
            'so few rows may be learned by heart: try "quantiles[training.weight_decay=1]" with '
            "--split validation"
        )
    warnings.warn("\n    ".join(lines), stacklevel=4)


def _with_target(path: Path, target: str, notes: list[str]) -> pd.DataFrame:
    """The rows that have a target, which must be a number."""
    frame, where = read_csv(path), printable(path)
    columns = ", ".join(map(printable, frame.columns[:20])) + ", …" * (len(frame.columns) > 20)
    if not target:
        raise TableError(f"{where}: which column is to be predicted? --target, one of {columns}")
    if target not in frame:
        raise TableError(f"{where}: {near(target, frame.columns, 'column')}")
    text, values = frame[target], _numbers(frame[target])
    if len(odd := text[text.notna() & values.isna()]):
        raise TableError(
            f"{where}: the target {target!r} is no number in {len(odd)} of {len(frame)} rows, as "
            f"in row {odd.index[0]} ({printable(odd.iloc[0])[:40]!r}): name a column of numbers, "
            "or correct or empty these cells"
        )
    if gaps := int(text.isna().sum()):
        notes.append(f"{gaps} rows of {printable(path.name)} have no {target!r} and are left out")
    return frame[text.notna()]


def _encoders(
    train: pd.DataFrame, held: pd.DataFrame, target: str, notes: list[str]
) -> list[Encoder]:
    """How each column becomes inputs, by the training rows; the target is the last."""
    encoders = [
        encoder
        for name in train.columns
        if name != target and (encoder := _column(train[name], held[name], notes)) is not None
    ]
    values = _numbers(train[target])
    if not encoders:
        why = "\n".join(["no column is left to predict from:", *notes])
        raise TableError(f"{why}\ngive a table with columns of numbers, or of few categories")
    if not values.std() > 0:
        raise TableError(f"the target {target!r} is {values.iloc[0]:g} in all training rows")
    notes.append(
        f"all is in standard deviations of {printable(target)!r} ({values.std():.6g}) from its "
        f"mean ({values.mean():.6g})"
    )
    scale = float(values.mean()), float(values.std())
    return [*encoders, lambda rows: _standard(_numbers(rows[target]), *scale)]


def _column(train: pd.Series, held: pd.Series, notes: list[str]) -> Encoder | None:
    """Of one column that is no target; None, and a note, where it is left out. What the rows that
    are held out lack, or have that training rows do not, is said."""
    name, shown = str(train.name), repr(printable(train.name))
    there = train.dropna()
    values = _numbers(there)
    unread = there[values.isna()]
    if there.nunique() < 2 and (there.empty or len(there) == len(train)):
        notes.append(f"{shown} is left out: it is the same in all rows")
        return None
    if len(unread) <= (1 - MOSTLY) * len(there):
        finite = values.dropna()
        whole = finite.is_unique and (finite % 1 == 0).all() and len(finite) == len(train)
        if whole and finite.max() - finite.min() < 2 * len(finite):
            notes.append(f"{shown} is left out: it numbers the rows")
            return None
        gaps, held_gaps = len(train) - len(finite), int(_numbers(held).isna().sum())
        if gaps or held_gaps:
            texts = ", ".join(map(printable, sorted(unread.unique())[:3]))
            among = f" (some have {texts})" if texts else ""
            notes.append(
                f"{shown}: {gaps} training and {held_gaps} held-out rows have no number{among} and "
                "get the median"
            )
        return functools.partial(
            _as_numbers, name, float(finite.median()), bool(gaps),
            (float(finite.mean()), float(finite.std()) or 1.0),
        )  # fmt: skip
    levels = sorted(there.unique())
    if len(levels) > LEVELS:
        notes.append(
            f"{shown} is left out: {len(levels)} different texts (such as "
            f"{printable(levels[0])[:30]!r}; {LEVELS} is the most); a date or a code may be put "
            "into columns of numbers"
        )
        return None
    if gaps := len(train) - len(there):
        notes.append(f"{shown}: {gaps} training rows have nothing, a category of its own")
    known = held.isin(levels) | (held.isna() if gaps else False)
    if unknown := int((~known).sum()):
        notes.append(f"{shown}: {unknown} held-out rows have what no training row has: no category")
    return functools.partial(_as_categories, name, levels, bool(gaps))


def _as_numbers(
    name: str, median: float, gaps: bool, scale: tuple[float, float], rows: pd.DataFrame
) -> np.ndarray:
    values = _numbers(rows[name])
    inputs = [_standard(values.fillna(median), *scale)]
    if gaps:
        inputs.append(values.isna().to_numpy(float)[:, None])
    return np.concatenate(inputs, 1)


def _as_categories(name: str, levels: list[str], gaps: bool, rows: pd.DataFrame) -> np.ndarray:
    """One input per category; all are 0 for one that the training rows do not have."""
    inputs = [(rows[name] == level).fillna(False).to_numpy(float) for level in levels]
    if gaps:
        inputs.append(rows[name].isna().to_numpy(float))
    return np.stack(inputs, 1)


def _standard(values: pd.Series, mean: float, deviation: float) -> np.ndarray:
    return ((values.to_numpy(float) - mean) / deviation)[:, None]


def _numbers(texts: pd.Series) -> pd.Series:
    """float64; NaN where there is nothing, or no finite number."""
    values = pd.to_numeric(texts, errors="coerce").astype("float64")
    return values.where(np.isfinite(values))


# Reading ------------------------------------------------------------------------------------------


def read_csv(path: Path) -> pd.DataFrame:
    """All cells of a CSV file as text, or missing, by the names of the columns; rows are numbered
    from 1. Separated by commas, semicolons, tabs or bars; UTF-8, or UTF-16 with its mark; numbers
    with a decimal comma (1.234,5) where no comma separates. TableError says what is wrong."""
    where = printable(path)
    text = _text(path)
    first = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").partition("\n")[0])
    separator = max(SEPARATORS, key=first.count)
    if not first.count(separator):
        raise TableError(
            f"{where}: its first line has one column alone: it must name columns, separated by a "
            "comma, semicolon, tab or bar"
        )
    try:
        lines = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
        header = [name.strip() for name in next(line for line in lines if line)]
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, dtype=str, skipinitialspace=True
        ).iloc[1:]
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError, StopIteration) as error:
        raise TableError(f"{where} cannot be read as a table: {str(error).strip()}") from None
    names = [name or f"column {place}" for place, name in enumerate(header, 1)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"{where} has two columns called {printable(twice[0])!r}: rename one")
    frame.columns = pd.Index(names)
    frame = frame.apply(lambda column: column.str.strip())
    return _with_points(frame) if separator != "," else frame


def _text(path: Path) -> str:
    where = printable(path)
    if path.is_dir():
        raise TableError(f"{where} is a folder: name the CSV file in it")
    try:
        data = read_ordinary(path, MOST_BYTES)
    except ValueError as error:
        raise TableError(f"{where}: {error}: give a CSV file, or a sample of its rows") from None
    except OSError as error:
        raise TableError(f"{where}: {error.strerror}: check the path") from None
    if data.startswith((b"PK", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")):
        raise TableError(f"{where} is a spreadsheet or an archive: save it as CSV, uncompressed")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TableError(f"{where} is no UTF-8 in line {line}: save it as CSV UTF-8") from None
    if "\0" in text or not text.strip():
        raise TableError(f"{where} is {'no text' if text.strip() else 'empty'}: give a CSV file")
    return text


def _with_points(frame: pd.DataFrame) -> pd.DataFrame:
    """Where some column has decimal commas: its numbers, and those of columns like it, with a
    decimal point and nothing between the thousands."""
    like = [name for name in frame if (cells := frame[name].dropna()).str.fullmatch(COMMA).all()
            and len(cells)]  # fmt: skip
    if not any(frame[name].str.contains(",").any() for name in like):
        return frame
    change = {
        name: frame[name].str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        for name in like
    }
    return frame.assign(**change)

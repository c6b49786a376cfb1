"""Bags of people of the Adult table, women first, so that a bag has a gap between the two groups.

Becker & Kohavi, "Adult", UCI Machine Learning Repository, 1996 (from the US census of 1994): does a
person earn over $50,000 a year? The authors' split into training and test rows is kept.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.pictures.data import sent
from bench.pictures.downloads import ARTEFACTS, get

COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation"),
    *("relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week"),
    *("native_country", "income"),
)
NUMBERS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
HEAVY = ("capital_gain", "capital_loss")  # zero for most and up to 99,999: their logarithm
# fnlwgt says how many people a row stands for and nothing of the person; education is
# education_num in words; sex is the protected attribute, and race is protected, too.
LEFT_OUT = ("fnlwgt", "education", "sex", "race", "income")
CATEGORIES = tuple(name for name in COLUMNS if name not in (*NUMBERS, *LEFT_OUT))
FEATURES = 84  # five numbers, and the values of the categories
SPLIT_SEED = 0
CPU = torch.device("cpu")
HELD = 0.1  # of the training rows, to choose by


class People(NamedTuple):
    """features (N, F): numbers standardised on the training rows, categories one-hot, an unknown
    ("?") as one of its own. earns, women: (N,), 1 or 0."""

    features: Tensor
    earns: Tensor
    women: Tensor


@dataclass(frozen=True)
class Bags:
    """Bags (B, n, F + 1) of n people, float32, their label the last column. The first third are
    women, as among all (33 %), the others men; both drawn uniformly, with repetition in training.
    """

    split: str
    size: int
    device: torch.device = CPU

    @property
    def digest(self) -> str:
        return f"{ARTEFACTS['adult'].content}, {self.split}, {self.size} {HELD} {SPLIT_SEED}"

    def to(self, device: torch.device) -> Bags:
        people(self.split)
        return replace(self, device=torch.device(device))

    @functools.cached_property
    def everybody(self) -> People:
        return People(*(part.to(self.device) for part in people(self.split)))

    @functools.cached_property
    def _groups(self) -> tuple[Tensor, Tensor]:
        """(women, F + 1) and (men, F + 1)."""
        features, earns, women = self.everybody
        rows = torch.cat([features, earns[:, None]], 1)
        return rows[women == 1], rows[women == 0]

    @property
    def _counts(self) -> tuple[int, int]:
        return self.size // 3, self.size - self.size // 3

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        parts = []
        for group, number in zip(self._groups, self._counts, strict=True):
            drawn = torch.randint(len(group), (count, number), generator=generator)
            parts.append(group[sent(drawn, self.device)])
        return torch.cat(parts, 1)

    def examples(self) -> Iterator[tuple[str, Tensor]]:
        """Bags that share nobody, of a fixed random order; what is left over is in none."""
        seeded = torch.Generator().manual_seed(SPLIT_SEED)
        groups = []
        for group, number in zip(self._groups, self._counts, strict=True):
            order = torch.randperm(len(group), generator=seeded).to(self.device)
            groups.append(group[order].split(number))
        for number, bag in enumerate(zip(*groups, strict=False)):
            if sum(map(len, bag)) == self.size:
                yield f"bag {number}", torch.cat(bag)[None]


def people(split: str) -> People:
    """The rows of "train" (nine tenths of the authors'), "validation" (the rest) or "test"."""
    training, test = _table(get("adult"))
    if split == "test":
        return test
    order = torch.randperm(len(training.earns), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held, kept = order.split([(n := round(HELD * len(order))), len(order) - n])
    rows = {"train": kept, "validation": held}[split]
    return People(*(part[rows] for part in training))


@functools.lru_cache(maxsize=1)
def _table(path: Path) -> tuple[People, People]:
    """The authors' training and test rows. The test rows begin after a line with a bar, and their
    labels end in a full stop."""
    with path.open(newline="") as file:
        lines = [row for row in csv.reader(file, skipinitialspace=True) if row]
    (bar,) = (number for number, row in enumerate(lines) if row[0].startswith("|"))
    rows = np.array(lines[:bar] + lines[bar + 1 :])
    column = {name: rows[:, place] for place, name in enumerate(COLUMNS)}
    features = [_standardised(name, column[name].astype(float), bar) for name in NUMBERS]
    for name in CATEGORIES:
        features += [column[name] == value for value in np.unique(column[name][:bar])]
    earns, women = np.char.startswith(column["income"], ">50K"), column["sex"] == "Female"
    table = [np.stack(features, 1), earns, women]
    whole = [torch.from_numpy(part.astype(np.float32)) for part in table]
    return People(*(part[:bar] for part in whole)), People(*(part[bar:] for part in whole))


def _standardised(name: str, values: np.ndarray, training: int) -> np.ndarray:
    values = np.log1p(values) if name in HEAVY else values
    return (values - values[:training].mean()) / values[:training].std()

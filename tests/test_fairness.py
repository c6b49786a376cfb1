"""Fair classification: the table as it was published, bags, and the gap against numpy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.tasks import fairness_data
from bench.tasks.fairness import Fairness, gap, squared_gap
from bench.tasks.fairness_data import CATEGORIES, COLUMNS, FEATURES, NUMBERS, people

QUICK = Fairness.presets()["quick"].task
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adult(artefact: Callable[[str], Path]) -> Path:
    return artefact("adult")


@pytest.fixture(scope="module")
def rows(adult: Path) -> list[dict[str, str]]:
    with adult.open(newline="") as file:
        lines = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == len(COLUMNS)]
    return [dict(zip(COLUMNS, row, strict=True)) for row in lines]


def test_the_table_is_the_published_one(rows: list[dict[str, str]]) -> None:
    """Counts and shares of adult.names: 32,561 training rows and 16,281 test rows; 23.93 % of all
    earn over $50,000, and 24.78 % of those without unknowns."""
    assert len(rows) == 48_842
    assert sum(row["income"].endswith(".") for row in rows) == 16_281
    assert np.mean([row["income"].startswith(">") for row in rows]) == pytest.approx(
        0.2393, abs=5e-5
    )
    known = [row for row in rows if "?" not in row.values()]
    assert len(known) == 45_222
    assert np.mean([row["income"].startswith(">") for row in known]) == pytest.approx(
        0.2478, abs=5e-5
    )


def test_rows_become_numbers(rows: list[dict[str, str]]) -> None:
    test = people("test")
    theirs = [row for row in rows if row["income"].endswith(".")]
    assert test.features.shape == (16_281, FEATURES)
    assert test.women.tolist() == [row["sex"] == "Female" for row in theirs]
    assert test.earns.tolist() == [row["income"] == ">50K." for row in theirs]
    ages = np.array([float(row["age"]) for row in theirs])
    assert np.corrcoef(test.features[:, 0], ages)[0, 1] == pytest.approx(1, abs=1e-6)
    onehot = test.features[:, len(NUMBERS) :]
    assert set(onehot.unique().tolist()) == {0, 1}
    assert onehot.sum(1).eq(len(CATEGORIES)).all()  # every value of the test rows is known


def test_splits_share_nobody_and_are_standardised(adult: Path) -> None:
    parts = {split: people(split) for split in ("train", "validation", "test")}
    assert [len(part.earns) for part in parts.values()] == [29_305, 3_256, 16_281]
    training = torch.cat([parts["train"].features, parts["validation"].features])
    numbers = training[:, : len(NUMBERS)]
    torch.testing.assert_close(numbers.mean(0), torch.zeros(len(NUMBERS)), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        numbers.std(0, correction=0), torch.ones(len(NUMBERS)), atol=1e-4, rtol=0
    )
    whole, _ = fairness_data._table(adult)
    assert torch.equal(training.sum(0).round(), whole.features.sum(0).round())
    with pytest.raises(KeyError):
        people("nothing")


def test_bags_have_women_first_and_share_nobody(adult: Path) -> None:
    data = QUICK.data("test").to(CPU)
    bags = dict(data.examples())
    assert len(bags) == 5
    assert all(bag.shape == (1, 3240, FEATURES + 1) for bag in bags.values())
    everybody = data.everybody
    taken = torch.cat(list(bags.values()), 1)[0]
    counts = {}
    for row in torch.cat([everybody.features, everybody.earns[:, None]], 1).numpy():
        counts[row.tobytes()] = counts.get(row.tobytes(), 0) + 1
    for row in taken.numpy():  # no row more often than it is there
        counts[row.tobytes()] -= 1
    assert min(counts.values()) == 0
    wives = 5 + [f"{n}={v}" for n, v in categories(adult)].index("relationship=Wife")
    husbands = 5 + [f"{n}={v}" for n, v in categories(adult)].index("relationship=Husband")
    for bag in (*bags.values(), QUICK.data("train").batch(3, torch.Generator())):
        third = bag.shape[1] // 3
        assert bag[:, :third, wives].sum() > 50 * bag[:, :third, husbands].sum()
        assert bag[:, third:, husbands].sum() > 50 * bag[:, third:, wives].sum()
    choosing = dict(QUICK.data("validation").to(CPU).examples())
    assert [bag.shape[1] for bag in choosing.values()] == 4 * [648]
    again = dict(QUICK.data("test").examples())
    assert all(torch.equal(bag, again[name]) for name, bag in bags.items())


def categories(adult: Path) -> list[tuple[str, str]]:
    with adult.open(newline="") as file:
        lines = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == len(COLUMNS)]
    columns = dict(zip(COLUMNS, zip(*lines, strict=True), strict=True))
    return [(name, value) for name in CATEGORIES for value in sorted(set(columns[name]))]


def test_the_squared_gap_has_no_bias() -> None:
    """The square of a bag's own gap has; and it is the mean over all pairs of pairs of people."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20_000, 24, generator=generator, dtype=torch.float64)
    scores[:, :8] += 0.3
    estimates = squared_gap(scores)
    error = float(estimates.std()) / len(estimates) ** 0.5
    assert float(estimates.mean()) == pytest.approx(0.3**2, abs=4 * error)
    own = (scores[:, :8].mean(1) - scores[:, 8:].mean(1)).square().mean()
    assert float(own) > 0.3**2 + 20 * error
    women, men = scores[0, :8].numpy(), scores[0, 8:].numpy()
    within = [
        sum(x[i] * x[j] for i in range(len(x)) for j in range(len(x)) if i != j)
        / (len(x) * (len(x) - 1))
        for x in (women, men)
    ]
    theirs = sum(within) - 2 * women.mean() * men.mean()
    assert float(estimates[0]) == pytest.approx(theirs)


def test_measures_of_a_network_that_is_known(adult: Path) -> None:
    class OnlyAge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[..., :1]

    data = QUICK.data("test").to(CPU)
    values = QUICK.measure_all(OnlyAge(), data)
    age, women = data.everybody.features[:, 0].numpy(), data.everybody.women.numpy() == 1
    scores = 1 / (1 + np.exp(-age.astype(float)))
    for name, value in (("score_gap", scores), ("decision_gap", age > 0)):
        theirs = 100 * abs(value[women].mean() - value[~women].mean())
        assert values[name] == pytest.approx(theirs, rel=1e-5)
    assert gap(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.0, 0.0, 1.0])) == 0
    bag = next(data.examples())[1]
    measured = QUICK.measure(OnlyAge(), bag)
    assert {*measured, *values} == set(QUICK.measures)
    x, earns = bag[0, :, 0].double().numpy(), bag[0, :, -1].numpy() == 1
    probability = 1 / (1 + np.exp(np.where(earns, -x, x)))
    assert float(measured["cross_entropy"]) == pytest.approx(-np.log(probability).mean(), rel=1e-5)
    assert float(measured["accuracy"]) == pytest.approx(100 * np.mean((x > 0) == earns), rel=1e-5)


def test_sizes_and_ranges() -> None:
    assert QUICK.wider(2).width == 2 * QUICK.width
    (axis,) = QUICK.ranged(16).space.axes
    assert (axis.low, axis.high) == (0.433, 6.93)  # √3 / 4 and 4 √3, to three digits
    with pytest.raises(ValueError, match="6 and 30"):
        replace(QUICK, bag=5)

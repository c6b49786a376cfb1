"""The digits: data against scikit-learn's own, terms against torch.distributions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import distributions as D

from bench.registry import preset, task_class
from bench.tasks.digits import LATENTS, Digits, digits

TASK: Digits = preset(task_class("digits"), "smoke").task
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as scikit-learn documents them


@pytest.fixture(autouse=True)
def _fetched(fetched: Callable[[str], None]) -> None:
    fetched("digits")


def test_the_file_is_what_everybody_knows(artefact: Callable[[str], Path]) -> None:
    arrays = load_file(artefact("digits"))
    assert arrays["images"].shape == (1797, 8, 8)
    assert arrays["images"].max() == 16
    assert np.bincount(arrays["labels"]).tolist() == COUNTS
    assert arrays["images"][0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_the_file_is_scikit_learns(artefact: Callable[[str], Path]) -> None:
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    arrays = load_file(artefact("digits"))
    assert np.array_equal(arrays["images"], theirs.images)
    assert np.array_equal(arrays["labels"], theirs.target)


def test_splits_are_disjoint_and_cover_everything() -> None:
    parts = [TASK.data(split).tensor for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1257, 270, 270]
    assert torch.equal((torch.cat(parts) * 16).byte(), digits())
    assert all(part.min() == 0 and part.max() == 1 for part in parts)
    assert len({TASK.data(split).digest for split in ("train", "validation", "test")}) == 3
    # Drawn at random: the file's order goes by writer
    assert abs(float(parts[0].mean() - parts[2].mean())) < 0.01


def test_terms_are_those_of_torch_distributions() -> None:
    torch.manual_seed(0)
    model: Any = TASK.model()
    x, noise = torch.rand(5, 64), torch.randn(5, LATENTS)
    mean, std = model.encode(x)
    logits = model.uncode(mean + std * noise)
    kl = D.kl_divergence(D.Normal(mean, std), D.Normal(0.0, 1.0)).sum(1)
    grey = D.Bernoulli(logits=logits, validate_args=False)  # between 0 and 1, too
    terms = TASK.losses(model, x, noise)
    torch.testing.assert_close(terms["kl"], kl)
    torch.testing.assert_close(terms["reconstruction"], -grey.log_prob(x).sum(1))


def test_measured_noise_belongs_to_the_digit_and_training_noise_does_not() -> None:
    model, x = TASK.model(), TASK.data("test").tensor[:3]
    with torch.no_grad():
        values, again = TASK.measure(model, x), TASK.measure(model, x[1:])
        one, other = TASK.losses(model, x), TASK.losses(model, x)
    assert torch.equal(values["elbo"], -values["kl"] - values["reconstruction"])
    for name in values:
        torch.testing.assert_close(again[name], values[name][1:])
    assert not torch.equal(one["reconstruction"], other["reconstruction"])
    assert {*values, *TASK.measure_all(model, TASK.data("test"))} == set(TASK.measures)


def test_active_units_are_those_that_move() -> None:
    model: Any = TASK.model()
    with torch.no_grad():
        model.code[2].weight[3:LATENTS] = 0
    assert TASK.measure_all(model, TASK.data("test")) == {"active_units": 3}


def test_the_picture_shows_the_digit_first() -> None:
    model, (_, batch) = TASK.model().eval(), next(TASK.data("test").examples())
    with torch.no_grad():
        picture = TASK.sample(model, batch)
    assert picture.shape == (3, 64, 4 * 64)
    assert 0 <= picture.min() <= picture.max() <= 1
    assert torch.equal(picture[0, ::8, :64:8], batch.view(8, 8))


def test_width_and_range_can_be_changed() -> None:
    assert TASK.wider(0.25).hidden == TASK.hidden // 4
    ranged = TASK.ranged(4.0)
    assert ranged.high / ranged.low == pytest.approx(4)
    assert ranged.high * ranged.low == pytest.approx(TASK.high * TASK.low)
    with pytest.raises(ValueError, match="use 1 or more"):
        replace(TASK, hidden=0)

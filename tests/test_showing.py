"""What every task shows of one example: `demo` asks for nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.registry import TASKS, preset, task_class
from bench.showing import fitting


def is_picture(picture: Tensor | None) -> bool:
    if picture is None:
        return True
    inside = picture.min() >= 0 and picture.max() <= 1
    return picture.dim() == 3 and picture.shape[0] == 3 and bool(inside)


@pytest.mark.parametrize("name", sorted(TASKS.keys() - {"beta_vae_shapes3d"}))
@torch.no_grad()
def test_an_example_and_a_picture_of_ones_own(name: str, small_pictures: Path) -> None:
    task: Any = preset(task_class(name), "smoke").task
    if "test_data" in task.locations() and name in ("compression", "style"):
        task = replace(task, test_data=str(small_pictures))
    torch.manual_seed(0)
    model = task.model().eval()
    task.ready(model)
    showing = task.showing()
    setting = task.space.grid(1)[0]
    _, batch = next(iter(task.data("test").examples()))
    batches = [batch]
    if showing.takes:
        batches.append(showing.received(torch.rand(3, 80, 100)))
    for each in batches:
        assert is_picture(showing.original(each))
        assert is_picture(showing.picture(model, each))
        values = showing.measured(model, each, setting)
        assert values.keys() <= {*task.measures, *task.terms}
        assert all(isinstance(value, float) for value in values.values())
        assert isinstance(showing.described(each), str)
    assert isinstance(showing.also(setting), str)
    if showing.takes:
        assert showing.original(batches[1]) is not None
        assert showing.picture(model, batches[1]) is not None
    latents = showing.latents(model, batch)
    if latents is not None:
        assert torch.allclose(
            showing.decoded(model, latents), showing.picture(model, batch), atol=1e-6
        )


def test_a_task_that_takes_no_picture_says_so() -> None:
    showing = preset(task_class("toy"), "smoke").task.showing()
    with pytest.raises(ValueError, match="takes no picture"):
        showing.received(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="no latents"):
        showing.decoded(torch.nn.Identity(), torch.zeros(2))


def test_the_middle_square_is_what_is_fitted() -> None:
    picture = torch.zeros(3, 40, 80)
    picture[:, :, 20:60] = 0.5
    assert fitting(picture, 10).shape == (3, 10, 10)
    assert torch.allclose(fitting(picture, 10), torch.full((3, 10, 10), 0.5), atol=0.05)
    turned = fitting(picture.transpose(1, 2), 10)
    assert torch.allclose(turned, fitting(picture, 10).transpose(1, 2), atol=1e-6)

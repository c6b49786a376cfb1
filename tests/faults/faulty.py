"""The task under fault: the toy, with a picture and a context curve so that every kind of file is
written, and misbehaviour on request.

The environment variable FAULT breaks conditioned networks alone, so that others can go on:
"cuda memory", "memory", "real memory", "hang", "nan"; PACE makes every step last so many seconds.
Neither is part of the experiment: the cells are the same with and without.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.task import Preset, Training
from bench.tasks.toy import Toy


@dataclass(frozen=True, kw_only=True)
class Faulty(Toy):
    name: ClassVar[str] = "faulty"
    line: ClassVar[str] = "the toy, with faults on request"
    sample_line: ClassVar[str] = "the answer's first three numbers as a colour"

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        smoke = cls(training=Training(steps=60, batch=16, lr=0.03))
        long = replace(smoke, training=replace(smoke.training, steps=400))
        return {
            "smoke": Preset(task=smoke, settings=3, seeds=(0,), line=""),
            "long": Preset(task=long, settings=3, seeds=(0,), line=""),
        }

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        time.sleep(float(os.environ.get("PACE", "0")))
        terms = super().losses(model, batch)
        conditioned = not isinstance(model.get_submodule("0"), nn.Linear)
        if conditioned and torch.is_grad_enabled() and (fault := os.environ.get("FAULT")):
            return misbehave(fault, terms)
        return terms

    def sample(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch)[0, :3].sigmoid()[:, None, None].expand(3, 8, 8)

    def original(self, batch: Tensor) -> Tensor:
        return batch[0, :3].sigmoid()[:, None, None].expand(3, 8, 8)

    def context(self, batch: Tensor) -> list[tuple[str, str, dict[str, float]]]:
        size = batch.square().mean().item()
        return [("halved", "share=0.5", {"size": size / 4, "nearness": size / 4})]


def misbehave(fault: str, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    if fault == "cuda memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    if fault == "memory":
        raise MemoryError
    if fault == "real memory":
        torch.empty(1 << 40)
    while fault == "hang":
        time.sleep(0.1)
    return {name: term * float("nan") for name, term in terms.items()}

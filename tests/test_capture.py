"""Steps that are captured and replayed train the same network, whatever the task and the method:
on a CPU a tape of operations stands for the CUDA graph (`tests/tape.py`)."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tape import Tape, waits
from test_contract import Pair, distinct, pair, pytest_generate_tests  # noqa: F401
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bench import capture
from bench.capture import ORDINARY, Captured
from bench.method import build
from bench.registry import method
from bench.tasks.toy import Toy
from bench.train import Trainer, objective

CPU = torch.device("cpu")
STEPS = ORDINARY + 4
TOY = Toy.presets()["smoke"].task


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Those of the trainings from now on."""
    used: list[Tape] = []

    def recorder(device: torch.device) -> Tape:
        used.append(Tape())
        return used[-1]

    monkeypatch.setattr(capture, "recorder", recorder)
    return used


@distinct
def test_replayed_steps_train_the_same_network(
    pair: Pair,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if pair.device.type != "cpu":
        pytest.skip("on a GPU every training compares its first replay with an ordinary step")
    cell = replace(pair.cell, task=pair.cell.task.trained_with(steps=STEPS))
    plain = pair.trained(cell, tmp_path / "plain")
    (tape,) = replayed = [Tape()]
    monkeypatch.setattr(capture, "recorder", lambda device: replayed.pop())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = pair.trained(cell, tmp_path / "captured")
    assert (tape.ordinary, tape.recorded, tape.replayed) == (ORDINARY + 1, 1, STEPS - ORDINARY)
    same(plain, captured)
    assert losses(tmp_path / "captured") == losses(tmp_path / "plain")


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    state = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, state[name]), name


def losses(folder: Path) -> list[tuple[float, dict[str, float]]]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["loss"], line["terms"]) for line in lines]


class Devices(TorchDispatchMode):
    """The operations that have a tensor on the host among what they are given or give."""

    def __init__(self) -> None:
        super().__init__()
        self.on_the_host: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = operation(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if any(x.device.type != "meta" for x in tensors) or waits(operation, args):
            self.on_the_host.append(str(operation))
        return result


@distinct
def test_a_step_asks_nothing_of_the_host(
    pair: Pair,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the device "meta", whose tensors have no values: as on a GPU, tensors of the host cannot
    be mixed with its own, and what is read back is an error."""
    network, batch, coefficients = pair.network(), pair.batch(), pair.draw()
    network = copy.deepcopy(network, {id(x): valueless(x) for x in tensors(network)})
    batch, coefficients = tree_map(valueless, (batch, coefficients))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    objective(pair.task, network, batch, coefficients)  # a task may compute something once
    with Devices() as devices:
        objective(pair.task, network, batch, coefficients)[0].backward()
    assert devices.on_the_host == []


def tensors(network: torch.nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def valueless(tensor: Tensor) -> Tensor:
    moved = tensor.detach().to("meta")
    kind = torch.nn.Parameter if isinstance(tensor, torch.nn.Parameter) else lambda x, _: x
    return kind(moved, tensor.requires_grad)


# Steps that cannot be replayed


class Counting(Toy):
    """Its loss depends on how often it was asked for."""

    def losses(self, model: torch.nn.Module, batch: Tensor) -> dict[str, Tensor]:
        terms = super().losses(model, batch)
        return {**terms, "size": terms["size"] * (1 + 0.01 * next(COUNTER))}


class Reading(Toy):
    """Python sees a value of the device in every step."""

    def losses(self, model: torch.nn.Module, batch: Tensor) -> dict[str, Tensor]:
        terms = super().losses(model, batch)
        return {**terms, "size": terms["size"] * (1.0 if terms["size"].mean().item() > 1 else 2.0)}


class Ordinary(Counting):
    """It says so itself."""

    captured = False


COUNTER = itertools.count()


def trainer(task: Toy, folder: Path) -> Trainer:
    cell = method("yoto").plan(task, task.space.grid(3), 0)[0]
    folder.mkdir()
    draw = functools.partial(cell.method.draw, cell)
    return Trainer(task, build(cell), draw, 0, CPU, folder)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Counting, "replayed, it gives another loss: something in it that is no tensor changes"),
        (Reading, r"it waits for the device \(called a synchronising operation, aten\._local_scal"),
        (Ordinary, ""),
    ],
)
def test_a_step_that_cannot_be_replayed_is_done_in_the_ordinary_way(
    kind: type[Toy], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = kind(training=TOY.training)
    networks = {}
    for name, recorder in (("plain", None), ("asked", Tape())):
        monkeypatch.setattr(capture, "recorder", lambda device, recorder=recorder: recorder)
        monkeypatch.setitem(globals(), "COUNTER", itertools.count())
        training = trainer(task, tmp_path / name)
        for step in range(ORDINARY + 1):
            asks = recorder and why and step == ORDINARY
            warned = pytest.warns(UserWarning, match=f"{why}.*`captured = False` in the task's")
            with warned if asks else contextlib.nullcontext():
                training.advance()
        assert not training.captured
        networks[name] = training.network
        training.advance()  # it goes on
    same(networks["plain"], networks["asked"]) if kind is not Counting else None


def test_what_cannot_be_recorded_says_the_way_out(tmp_path: Path, monkeypatch) -> None:
    tape = Tape()
    monkeypatch.setattr(capture, "recorder", lambda device: tape)

    def record(step: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(tape, "record", record)
    training = trainer(TOY, tmp_path / "a")
    for _ in range(ORDINARY):
        training.advance()
    with pytest.raises(RuntimeError, match=r"not permitted.*: set YOTO_BENCH_CAPTURE=0 in the"):
        training.advance()


@pytest.mark.parametrize(("device", "value"), [("cpu", "1"), ("cuda", "0")])
def test_nothing_is_captured_on_a_cpu_or_where_it_is_not_wanted(
    device: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOTO_BENCH_CAPTURE", value)
    assert capture.recorder(torch.device(device)) is None


# What changes, and what stays


def test_a_batch_of_another_size_is_an_ordinary_step() -> None:
    weight = torch.ones(1)

    def step(batch: dict[str, Tensor], coefficients: Tensor) -> capture.Losses:
        loss = batch["x"].sum() * weight + coefficients.sum()
        weight.add_(1)
        return loss.sum(), {"term": batch["x"] * weight}

    tape = Tape()
    captured = Captured(step, lambda: [weight], tape)
    kept = []
    for number in range(ORDINARY + 4):
        size = 2 if number == ORDINARY + 2 else 3
        batch, coefficients = {"x": torch.full((size,), 1.0 + number)}, torch.ones(1)
        loss, terms = captured(batch, coefficients)
        kept.append((loss, terms["term"]))
        assert weight.item() == number + 2
    assert tape.replayed == 3
    for number, (loss, term) in enumerate(kept):  # copies, which no replay changed
        size = 2 if number == ORDINARY + 2 else 3
        assert loss.item() == size * (1 + number) * (1 + number) + 1
        assert term.tolist() == [(1.0 + number) * (2 + number)] * size


def test_a_training_that_was_stopped_is_captured_anew(tmp_path: Path, tapes: list[Tape]) -> None:
    """From the checkpoint on, steps are ordinary, then replayed: to the same bits."""
    whole, stopped = trainer(TOY, tmp_path / "whole"), trainer(TOY, tmp_path / "stopped")
    for _ in range(12):
        whole.advance()
    for _ in range(5):
        stopped.advance()
    stopped.save()
    (tmp_path / "stopped").rename(tmp_path / "later")
    again = trainer(TOY, tmp_path / "stopped")
    (tmp_path / "later" / "state.pt").rename(tmp_path / "stopped" / "state.pt")
    again.restore()
    for _ in range(7):
        again.advance()
    same(whole.network, again.network)
    assert [tape.replayed for tape in tapes] == [9, 2, 4]
    assert torch.equal(whole.window[-1][0], again.window[-1][0])
    assert {"train", "compile", "data"} & again.clock.seconds.keys() == {"compile", "data"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_replays_what_an_ordinary_step_does(tmp_path: Path) -> None:
    cell = method("yoto").plan(TOY, TOY.space.grid(3), 0)[0]
    draw = functools.partial(cell.method.draw, cell)
    training = Trainer(TOY, build(cell), draw, 0, torch.device("cuda"), tmp_path)
    for _ in range(STEPS):
        training.advance()
    assert training.captured
    assert training.ledger()["captured"]

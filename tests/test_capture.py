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
from test_contract import Pair, distinct, over, pair, pytest_generate_tests  # noqa: F401
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bench import capture
from bench.capture import ORDINARY, Captured
from bench.method import Cell, build
from bench.registry import method
from bench.tasks.toy import Toy
from bench.train import Diverged, Trainer, objective

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
    compare_with_ordinary(pair, pair.cell, tmp_path, monkeypatch)


@over(lambda one: one.method == "yoto" and one.task in ("compression", "toy"))
def test_replayed_steps_balance_the_loss_as_ordinary_ones_do(
    pair: Pair,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a step follows in buffers goes on from replay to replay."""
    balanced = replace(pair.cell.method, weighting="running_mean")
    cell = balanced.plan(pair.task, pair.experiment.settings, 0)[0]
    compare_with_ordinary(pair, cell, tmp_path, monkeypatch)


def compare_with_ordinary(
    pair: Pair,  # noqa: F811
    cell: Cell,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trained by replayed steps and by ordinary ones: the same bits on a CPU."""
    cell = replace(cell, task=cell.task.trained_with(steps=STEPS))
    recorders = {"plain": None, "captured": Tape()}
    if pair.device.type != "cpu":
        recorders["captured"] = capture.recorder(pair.device)
    networks = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as of a step that cannot be replayed
        for name, recorder in recorders.items():
            monkeypatch.setattr(capture, "recorder", lambda device, recorder=recorder: recorder)
            networks[name] = pair.trained(cell, folder / name)
    plain, captured = networks.values()
    if pair.device.type != "cpu":
        assert recorders["captured"] is not None
        near(plain, captured, cell.task.training.lr)
        return
    tape = recorders["captured"]
    assert (tape.ordinary, tape.recorded, tape.replayed) == (ORDINARY + 1, 1, STEPS - ORDINARY)
    same(plain, captured)
    assert losses(folder / "captured") == losses(folder / "plain")


def near(one: torch.nn.Module, other: torch.nn.Module, step: float) -> None:
    """A GPU adds in any order, and Adam makes a step of any difference."""
    state = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-2, atol=2 * step, msg=name)


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


class Watching(Toy):
    """Python sees a gradient in every step, when others are there already."""

    def losses(self, model: torch.nn.Module, batch: Tensor) -> dict[str, Tensor]:
        early = next(model.parameters()) * 1  # so that its gradient is late
        if early.requires_grad:
            early.register_hook(lambda gradient: gradient * float(gradient.isfinite().all()))
        terms = super().losses(model, batch)
        return {**terms, "size": terms["size"] + 0 * early.sum()}


class Ordinary(Counting):
    """It says so itself."""

    captured = False


COUNTER = itertools.count()


def trainer(task: Toy, folder: Path) -> Trainer:
    cell = method("yoto", weighting="running_mean").plan(task, task.space.grid(3), 0)[0]
    folder.mkdir()
    draw = functools.partial(cell.method.draw, cell)
    return Trainer(task, build(cell), draw, 0, CPU, folder)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Counting, "replayed, it gives another loss: something in it that is no tensor"),
        (Watching, r"it waits for the device \(called a synchronising operation, aten\._local_sca"),
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
        networks[name] = copy.deepcopy(training.network)
        training.advance()  # it goes on
    same(networks["plain"], networks["asked"])


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


def test_a_loss_that_is_not_finite_is_no_reason_to_stop(tmp_path: Path, tapes: list[Tape]) -> None:
    """The log says that it diverged, as it would of ordinary steps."""
    task = TOY.trained_with(lr=1e30, schedule="constant")
    training = trainer(task, tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STEPS):
            training.advance()
    assert training.captured
    with pytest.raises(Diverged, match="non-finite"):
        training.log()


def test_a_replay_that_changes_the_network_in_another_way_is_refused() -> None:
    """The losses of a step are those before it: what it makes of the network is compared, too."""
    weight, pace = torch.ones(4), itertools.count(1)

    def step(batch: Tensor, coefficients: Tensor) -> capture.Losses:
        loss = (batch * weight).sum()
        weight.add_(float(next(pace)))
        return loss, {"term": batch * 1}

    captured = Captured(step, lambda: [weight], Tape())
    for number in range(ORDINARY + 1):
        asking = pytest.warns(UserWarning, match="changes the network in another way")
        with asking if number == ORDINARY else contextlib.nullcontext():
            captured(torch.ones(4), torch.ones(1))
    assert weight.tolist() == [1.0 + sum(range(1, ORDINARY + 2))] * 4

"""The one training loop, for every task and every method.

A fixed network and a conditioned one run the same lines: draw coefficients, condition, sum the
weighted terms, step. Data order, the model's start and the noise inside it depend on the seed
alone, so methods differ in nothing but what they are. Nothing waits for the device but the log
(a hundred times a run, or every hundred steps) and a checkpoint every `CHECKPOINT_SECONDS`. On a
GPU a step is captured and replayed (`bench/capture.py`).

    trainer = Trainer(task, network, draw, seed, device, folder)
    trainer.restore()                   where an earlier process left off
    while trainer.step < task.training.steps:
        trainer.advance()               one optimiser step
    trainer.save()
    trainer.ledger()                    what it cost until now

`fit` is this loop with its log and checkpoints.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import capture
from bench.capture import ORDINARY, Losses
from bench.checkpoint import load_state, log_digest, restore_log, save_state
from bench.conditioners import Network
from bench.cost import Clock, Memory, count_flops, device_name, parameters, size
from bench.files import append_line
from bench.pictures.data import sent
from bench.task import Task, Training, weighted

CHECKPOINT_SECONDS = 20.0
COMPILING = ORDINARY + 1  # steps that compile, some for new guards, where any do

Draw = Callable[[int, torch.Generator], Tensor]


class Diverged(RuntimeError):
    """The loss became non-finite between the steps that the message names; `ledger` is what was
    spent until then."""

    def __init__(self, message: str, ledger: dict[str, Any]) -> None:
        super().__init__(message)
        self.ledger = ledger


class Interrupted(RuntimeError):
    """Training was asked to stop; its state is saved."""


def fit(
    task: Task,
    network: Network,
    draw: Draw,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: Callable[[dict[str, Any]], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    shared: bool = False,
    log_every: int | None = None,
) -> dict[str, Any]:
    """Train `network` in place and return its ledger (see `bench/cost.py`).

    `shared` says that other cells use the device meanwhile, so that nobody quotes its seconds;
    `log_every` is the number of steps between log lines, by default a hundredth of them, at most
    a hundred.

    Goes on from `folder/state.pt` where there is one; on a CPU the result has the same bits as
    that of an undisturbed run. Log lines go to `folder/log.jsonl`.

    Raises Diverged, Interrupted (the state is saved), OSError (nowhere to save).
    """
    steps = task.training.steps
    log_every = log_every or max(1, min(steps // 100, 100))
    with arithmetic(task.training.precision):
        trainer = Trainer(task, network, draw, seed, device, folder, shared)
        trainer.restore()
        saved = time.monotonic()
        with trainer.clock.phase("train"):
            while trainer.step < steps:
                trainer.advance()
                done = trainer.step
                if done % log_every == 0 or done == steps:
                    progress(trainer.log())
                stop = should_stop()
                if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    trainer.save()
                    saved = time.monotonic()
                if stop and done < steps:
                    raise Interrupted(f"stopped after step {done} of {steps}, state saved")
    network.eval()
    return trainer.ledger()


@dataclass
class Trainer:
    """One network's training, as far as it has come: `step` optimiser steps. Begins from the seed,
    whatever `folder` holds; see `fit` for the fields."""

    task: Task
    network: Network
    draw: Draw
    seed: int
    device: torch.device
    folder: Path
    shared: bool = False

    def __post_init__(self) -> None:
        self.training = self.task.training
        self.network.to(self.device).train()
        if self.training.channels_last:
            self.network.model.to(memory_format=torch.channels_last)
        self.adam = optimiser(self.network, self.training)
        self.rate: Tensor = self.adam.param_groups[0]["lr"]  # one for all groups
        self.data = self.task.data("train").to(self.device)
        self.generators = {"data": torch.Generator(), "coefficients": torch.Generator()}
        self._sow()
        self.flops = step_flops(self.task, self.network, *self.inputs())
        self._sow()
        torch.manual_seed(self.seed)
        self.memory = Memory(self.device, held=size(self.network))
        self._earlier_peaks: dict[str, int] = {}
        self.clock, self.devices = Clock(self.device), [device_name(self.device)]
        self.state_file, self.log_file = self.folder / "state.pt", self.folder / "log.jsonl"
        self.window: list[Losses] = []  # since the last log line, which takes their means
        self.compute = self._step_function()
        self._go_on_from(0)

    def _step_function(self) -> Callable[[Any, Tensor], Losses]:
        """What does a step with a batch and its coefficients."""
        step = torch.compile(optimiser_step) if self.training.compile else optimiser_step
        whole = functools.partial(step, self.task, self.network, self.adam)
        state = functools.partial(capture.changing, self.network, self.adam)
        recorder = capture.recorder(self.device) if self.task.captured else None
        return capture.Captured(whole, state, recorder) if recorder else whole

    @property
    def captured(self) -> bool:
        """Whether the last step was replayed."""
        return isinstance(self.compute, capture.Captured) and self.compute.replayed

    def _prepares(self) -> bool:
        """Whether the next step is one of the first, until steps are compiled or captured."""
        compiles = self.training.compile and self.step < self._first + COMPILING
        return compiles or (isinstance(self.compute, capture.Captured) and self.compute.preparing)

    def _sow(self) -> None:
        self.generators["data"].manual_seed(self.seed)
        self.generators["coefficients"].manual_seed(self.seed + 1_000_003)

    def _go_on_from(self, step: int) -> None:
        self.step = self._first = step
        self._paced = step, time.monotonic()

    def inputs(self) -> tuple[Any, Tensor]:
        """The next batch and its coefficients, (B, K), on the device."""
        coefficients = self.draw(self.training.batch, self.generators["coefficients"])
        batch = self.data.batch(self.training.batch, self.generators["data"])
        return batch, sent(coefficients, self.device)

    def advance(self) -> None:
        """One optimiser step, at the rate of its place in the schedule."""
        with self.clock.phase("compile") if self._prepares() else contextlib.nullcontext():
            with self.clock.phase("data", synchronise=False):
                batch, coefficients = self.inputs()
            self.rate.fill_(rate_at(self.training, self.step))
            self.window.append(self.compute(batch, coefficients))
        self.step += 1

    def log(self) -> dict[str, Any]:
        """Write a log line of the steps since the last and return it, with what is left to do.
        Raises Diverged."""
        training, done = self.training, self.step
        losses, terms = _stacked(self.window)
        loss, *means = torch.stack([part.mean() for part in (losses, *terms.values())]).tolist()
        if not all(map(math.isfinite, (loss, *means))):
            since = done - len(self.window)
            text = f"the loss became non-finite between steps {since} and {done}"
            raise Diverged(text, self.ledger())
        paced, mark = self._paced
        pace = (done - paced) * training.batch / (time.monotonic() - mark)
        line = {"step": done, "loss": loss, "terms": dict(zip(terms, means, strict=True))}
        line |= {"lr": rate_at(training, done - 1), "examples_per_second": round(pace, 1)}
        append_line(self.log_file, json.dumps(line))
        self.window, self._paced = [], (done, time.monotonic())
        left = (training.steps - done) * training.batch / pace
        return {**line, "steps": training.steps, "seconds_left": left}

    def save(self) -> None:
        """Write all that `restore` needs to go on with the same bits."""
        with self.clock.phase("checkpoint"):
            random = {name: generator.get_state() for name, generator in self.generators.items()}
            random["cpu"] = torch.get_rng_state()
            if self.device.type == "cuda":
                random["cuda"] = torch.cuda.get_rng_state(self.device)
            state = {
                "step": self.step,
                "network": self.network.state_dict(),
                "optimiser": self.adam.state_dict(),
                "random": random,
                "window": _stacked(self.window) if self.window else None,
                "seconds": self.clock.seconds,
                "processor": self.clock.processor,
                "devices": self.devices,
                **self.peaks(),
                "shared": self.shared,
                "log": log_digest(self.log_file),
            }
            save_state(self.state_file, state)

    def restore(self) -> None:
        """Go on from the state that was saved, where there is one, and rid the log of what came
        after it. What older checkpoints lack is not known of the time before them."""
        state = load_state(self.state_file, self.device)
        if state is None:
            restore_log(self.log_file, 0)
            return
        restore_log(self.log_file, state["step"], state.get("log"))
        try:
            self.network.load_state_dict(state["network"])
            self.adam.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"the checkpoint {self.state_file} is of another network (was the code changed?): "
                f"delete it and run again ({error})"
            ) from error
        for group in self.adam.param_groups:
            group["lr"], group["capturable"] = self.rate, self.device.type == "cuda"
        random = state["random"]
        for name, generator in self.generators.items():
            generator.set_state(random[name].cpu())
        torch.set_rng_state(random["cpu"].cpu())
        if self.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"].cpu(), self.device)
        self.clock = Clock(self.device, state["seconds"], state.get("processor"))
        self.devices = list(dict.fromkeys([*state["devices"], *self.devices]))
        self._earlier_peaks = {name: state.get(name, 0) for name in self.peaks()}
        self.shared = self.shared or state["shared"]
        if isinstance(state["window"], tuple):  # older checkpoints have sums
            losses, terms = state["window"]
            by_step = zip(*terms.values(), strict=True)
            named = (dict(zip(terms, parts, strict=True)) for parts in by_step)
            self.window = list(zip(losses, named, strict=True))
        self._go_on_from(state["step"])

    def peaks(self) -> dict[str, int]:
        """Bytes of memory at most, those of earlier processes included; see `Memory`."""
        now = {name: getattr(self.memory, name) for name in ("peak", "net", "reserved")}
        return {name: max(self._earlier_peaks.get(name, 0), value) for name, value in now.items()}

    def ledger(self) -> dict[str, Any]:
        """What the training has cost until now, by the names of the stored records."""
        clock, peaks = self.clock, self.peaks()
        cuda = self.device.type == "cuda"
        return {
            "steps": self.step,
            "examples": self.step * self.training.batch,
            "flops_per_step": self.flops,
            "flops": self.flops * self.step,
            "seconds": {phase: round(value, 3) for phase, value in clock.seconds.items()},
            "processor_seconds": {phase: round(v, 3) for phase, v in clock.processor.items()},
            "peak_memory_bytes": peaks["peak"],
            "net_memory_bytes": peaks["net"],
            **({"reserved_memory_bytes": peaks["reserved"]} if cuda else {}),
            **({"captured": self.captured} if cuda else {}),
            "parameters": parameters(self.network.model),
            "conditioner_parameters": parameters(self.network.conditioner),
            "device": self.device.type,
            "device_name": ", then ".join(self.devices),
            "shared_device": self.shared,
        }


def _stacked(window: list[Losses]) -> Losses:
    """The losses (steps,) and the terms, each (steps, B)."""
    losses, terms = zip(*window, strict=True)
    return torch.stack(losses), {
        name: torch.stack([each[name] for each in terms]) for name in terms[0]
    }


# What a step is


def optimiser_step(
    task: Task, network: Network, adam: torch.optim.Optimizer, batch: Any, coefficients: Tensor
) -> Losses:
    """One step on a batch, all of it on the device: the rate, a tensor, is in the optimiser. So it
    can be compiled, or captured, whole, and leaves nothing of the coefficients behind. Returns the
    loss and the terms, as `objective`."""
    loss, terms = objective(task, network, batch, coefficients)
    loss.backward()
    network.release()
    if task.training.clip:
        tracked = [p for group in adam.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(tracked, task.training.clip)
    adam.step()
    adam.zero_grad(set_to_none=True)
    return loss.detach(), {name: term.detach() for name, term in terms.items()}


def objective(task: Task, network: Network, batch: Any, coefficients: Tensor) -> Losses:
    """The loss of a batch, a scalar, and its unweighted terms, each (B,)."""
    network.condition(coefficients)
    halved = task.training.precision == "bf16"
    device = coefficients.device.type
    with torch.autocast(device, torch.bfloat16) if halved else contextlib.nullcontext():
        terms = task.losses(network.model, batch)
    loss = weighted(task.space, terms, coefficients, task.training.geometric_mean)
    if network.balance is not None:
        loss = loss * network.balance(coefficients, loss.detach())
    total = loss.mean()
    if network.conditioner is not None:
        penalty = network.conditioner.penalty(terms, coefficients)
        total = total if penalty is None else total + penalty
    return total, terms


def optimiser(network: Network, training: Training) -> torch.optim.Optimizer:
    """Adam on everything; the decoupled weight decay spares what a conditioner has that is no
    weights of the model."""
    groups: list[dict[str, Any]] = [
        {"params": list(network.model.parameters()), "weight_decay": training.weight_decay}
    ]
    if network.conditioner is not None:
        groups[0]["params"] += network.conditioner.decaying()
        decaying = {id(parameter) for parameter in groups[0]["params"]}
        others = [p for p in network.conditioner.parameters() if id(p) not in decaying]
        groups.append({"params": others, "weight_decay": 0.0})
    tensors = [p for group in groups for p in group["params"]]
    if not training.weight_decay:  # one group is one call of the kernel
        groups = [{"params": tensors, "weight_decay": 0.0}]
    fused = not any(p.is_complex() for p in tensors)  # that kernel has no complex numbers
    # A tensor, so that another rate is no other program. A GPU's kernel reads single precision.
    device = tensors[0].device
    precision = torch.float64 if device.type == "cpu" else torch.float32
    rate = torch.tensor(training.lr, dtype=precision, device=device)
    adam = torch.optim.AdamW(groups, lr=rate, fused=fused, capturable=device.type == "cuda")
    adam._warned_capturable_if_run_uncaptured = True  # the first steps are; torch warns of each
    return adam


def step_flops(task: Task, network: Network, batch: Any, coefficients: Tensor) -> int:
    """FLOPs of one optimiser step's forward and backward, counted in eager mode on a copy.

    After one step that is not counted: a task may compute something once, on its first call.
    """
    twin, device = copy.deepcopy(network), coefficients.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with torch.no_grad():
            objective(task, twin, batch, coefficients)
        return count_flops(lambda: objective(task, twin, batch, coefficients)[0].backward())


def rate_at(training: Training, step: int) -> float:
    """The learning rate of a step (from 0)."""
    peak, done = training.lr, step / training.steps
    if training.schedule == "constant":
        return peak
    if training.schedule == "halving":
        return peak * 0.5 ** sum(done >= milestone for milestone in training.milestones)
    start, end = peak / 25, peak / 25e4
    if done < training.warmup:
        low, high, part = start, peak, done / training.warmup
    else:
        low, high, part = peak, end, (done - training.warmup) / (1 - training.warmup)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """While it lasts, a GPU's fp32 products are fp32 where `precision` says so, and TF32 (10 bits
    of mantissa) otherwise, whatever a library's default is."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before

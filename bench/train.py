"""The one training loop, for every task and every method.

A fixed network and a conditioned one run the same lines: draw coefficients, condition, sum the
weighted terms, step. Data order, the model's start and the noise inside it depend on the seed
alone, so methods differ in nothing but what they are. Nothing waits for the device but the log
(a hundred times a run, or every hundred steps) and a checkpoint every `CHECKPOINT_SECONDS`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bench.conditioners import Network
from bench.cost import Clock, Memory, count_flops, device_name, parameters, size
from bench.files import append_line, write_atomic
from bench.task import Task, Training, weighted

CHECKPOINT_SECONDS = 20.0
MAGIC = b"yoto-bench state 1 "
STATE = {
    *("step", "network", "optimiser", "random", "window", "window_steps", "seconds", "devices"),
    *("peak", "shared"),
}

Draw = Callable[[int, torch.Generator], Tensor]


class Diverged(RuntimeError):
    """The loss became non-finite; the message says between which steps.

    `ledger` is what was spent until then.
    """

    def __init__(self, message: str, ledger: dict[str, Any]) -> None:
        super().__init__(message)
        self.ledger = ledger


def out_of_memory(error: Exception) -> bool:
    """Whether memory was short: torch's CPU allocator says so in a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class Interrupted(RuntimeError):
    """Training was asked to stop; its state is saved."""


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


def in_its_precision(training: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a task, called under the arithmetic of the task's training."""

    @functools.wraps(training)
    def called(task: Task, *args: Any, **options: Any) -> Any:
        with arithmetic(task.training.precision):
            return training(task, *args, **options)

    return called


def objective(
    task: Task, network: Network, batch: Any, coefficients: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, a scalar, and its unweighted terms, each (B,)."""
    network.condition(coefficients)
    device = coefficients.device.type
    with torch.autocast(device, torch.bfloat16, enabled=task.training.precision == "bf16"):
        terms = task.losses(network.model, batch)
    loss = weighted(task.space, terms, coefficients, task.training.geometric_mean)
    if network.balance is not None:
        loss = loss * network.balance(coefficients, loss.detach())
    return loss.mean(), terms


def optimiser(network: Network, training: Training) -> torch.optim.Optimizer:
    """Adam on everything; the decoupled weight decay spares the conditioner."""
    groups: list[dict[str, Any]] = [
        {"params": list(network.model.parameters()), "weight_decay": training.weight_decay}
    ]
    if network.conditioner is not None:
        groups.append({"params": list(network.conditioner.parameters()), "weight_decay": 0.0})
    tensors = [p for group in groups for p in group["params"]]
    fused = not any(p.is_complex() for p in tensors)  # that kernel has no complex numbers
    return torch.optim.AdamW(groups, lr=training.lr, fused=fused)


def step_flops(
    task: Task, network: Network, batch: Any, coefficients: Tensor, device: torch.device
) -> int:
    """FLOPs of one optimiser step's forward and backward, counted in eager mode on a copy.

    After one step that is not counted: a task may compute something once, on its first call.
    """
    twin = copy.deepcopy(network)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with torch.no_grad():
            objective(task, twin, batch, coefficients)
        return count_flops(lambda: objective(task, twin, batch, coefficients)[0].backward())


@in_its_precision
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
    snapshots: Mapping[int, Callable[[Network], str | None]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Train `network` in place and return its ledger (see `bench/cost.py`).

    `shared` says that other cells use the device meanwhile, so that nobody quotes its seconds;
    `log_every` is the number of steps between log lines, by default a hundredth of them, at most
    a hundred. `snapshots` are called with the network after that many steps; what they return,
    the digest of what they stored, is in the ledger under `snapshots`, by step.

    Goes on from `folder/state.pt` where there is one; on a CPU the result has the same bits as
    that of an undisturbed run. Log lines go to `folder/log.jsonl`.

    Raises Diverged, Interrupted (the state is saved), OSError (nowhere to save).
    """
    training = task.training
    network.to(device)
    if training.channels_last:
        network.model.to(memory_format=torch.channels_last)
    network.train()
    adam = optimiser(network, training)
    tracked = [p for group in adam.param_groups for p in group["params"]]
    data = task.data("train").to(device)
    data_order, coefficient_order = torch.Generator(), torch.Generator()
    data_order.manual_seed(seed)
    coefficient_order.manual_seed(seed + 1_000_003)

    def inputs() -> tuple[Any, Tensor]:
        coefficients = draw(training.batch, coefficient_order)
        if device.type == "cuda":
            coefficients = coefficients.pin_memory()
        batch = data.batch(training.batch, data_order)
        return batch, coefficients.to(device, non_blocking=True)

    batch, coefficients = inputs()
    flops = step_flops(task, network, batch, coefficients, device)
    data_order.manual_seed(seed)
    coefficient_order.manual_seed(seed + 1_000_003)
    torch.manual_seed(seed)

    memory = Memory(device, held=size(network))
    state_file, log_file = folder / "state.pt", folder / "log.jsonl"
    generators = {"data": data_order, "coefficients": coefficient_order}
    state = load_state(state_file, device)
    keep_log_until(log_file, state["step"] if state is not None else 0)
    if state is not None and state.get("log", log_digest(log_file)) != log_digest(log_file):
        warnings.warn(f"{log_file} is damaged: its lines until now are lost", stacklevel=2)
        keep_log_until(log_file, -1)  # none of them can be believed; the checkpoint is sound
        lost = {"step": state["step"], "lost": "the lines until this step were damaged"}
        append_line(log_file, json.dumps(lost))
    first, window_steps = 0, 0
    window: Tensor | None = None
    seconds: dict[str, float] = {}
    processor: dict[str, float] = {}
    kept: dict[int, str | None] = {}  # in the checkpoint, so that a snapshot damaged since shows
    devices, peak = [device_name(device)], {"peak": 0, "net": 0, "reserved": 0}
    if state is not None:
        try:
            network.load_state_dict(state["network"])
            adam.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"the checkpoint {state_file} is of another network (was the code changed?): "
                f"delete it and run again ({error})"
            ) from error
        for name, generator in generators.items():
            generator.set_state(state["random"][name].cpu())
        torch.set_rng_state(state["random"]["cpu"].cpu())
        if device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu(), device)
        first, window, seconds = state["step"], state["window"], state["seconds"]
        devices = list(dict.fromkeys([*state["devices"], *devices]))
        # What older checkpoints lack is not known of the time before them.
        processor = state.get("processor", {})
        peak = {name: state.get(name, 0) for name in peak}
        shared = shared or state["shared"]
        kept = state.get("snapshots", {})
        window_steps = state["window_steps"]
        window = window.to(device) if window is not None else None

    def peaks() -> dict[str, int]:
        return {name: max(before, getattr(memory, name)) for name, before in peak.items()}

    def save(step: int) -> None:
        random = {name: generator.get_state() for name, generator in generators.items()}
        random["cpu"] = torch.get_rng_state()
        if device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(device)
        save_state(
            state_file,
            {
                "step": step,
                "network": network.state_dict(),
                "optimiser": adam.state_dict(),
                "random": random,
                "window": window,
                "window_steps": window_steps,
                "seconds": clock.seconds,
                "processor": clock.processor,
                "devices": devices,
                **peaks(),
                "shared": shared,
                "log": log_digest(log_file),
                "snapshots": kept,
            },
        )

    def ledger(steps: int) -> dict[str, Any]:
        return {
            "steps": steps,
            "examples": steps * training.batch,
            "flops_per_step": flops,
            "flops": flops * steps,
            "seconds": {phase: round(value, 3) for phase, value in clock.seconds.items()},
            "processor_seconds": {phase: round(v, 3) for phase, v in clock.processor.items()},
            "peak_memory_bytes": peaks()["peak"],
            "net_memory_bytes": peaks()["net"],
            **({"reserved_memory_bytes": peaks()["reserved"]} if device.type == "cuda" else {}),
            "parameters": parameters(network.model),
            "conditioner_parameters": parameters(network.conditioner),
            "device": device.type,
            "device_name": ", then ".join(devices),
            "shared_device": shared,
        }

    compute = torch.compile(objective) if training.compile else objective
    log_every = log_every or max(1, min(training.steps // 100, 100))
    clock = Clock(device, seconds, processor)
    names: list[str] = []
    saved = mark = time.monotonic()
    paced = first  # the step at `mark`
    warm = 3 if training.compile else 0  # steps that compile (and compile again for new guards)
    with clock.phase("train"), contextlib.ExitStack() as compiling:
        for step in range(first, training.steps):
            if warm and step == first:
                compiling.enter_context(clock.phase("compile"))
            elif step == first + warm:
                compiling.close()
            with clock.phase("data", synchronise=False):
                batch, coefficients = inputs()
            for group in adam.param_groups:
                group["lr"] = rate_at(training, step)
            loss, terms = compute(task, network, batch, coefficients)
            loss.backward()
            if training.clip:
                torch.nn.utils.clip_grad_norm_(tracked, training.clip)
            adam.step()
            adam.zero_grad(set_to_none=True)

            with torch.no_grad():
                sums = torch.stack([loss, *(term.mean() for term in terms.values())])
            window = sums if window is None else window + sums
            window_steps += 1
            names = list(terms)
            done = step + 1
            if done % log_every == 0 or done == training.steps:
                values = (window / window_steps).tolist()
                if not all(map(math.isfinite, values)):
                    since = done - window_steps
                    text = f"the loss became non-finite between steps {since} and {done}"
                    raise Diverged(text, ledger(done))
                pace = (done - paced) * training.batch / (time.monotonic() - mark)
                means = dict(zip(names, values[1:], strict=True))
                line = {"step": done, "loss": values[0], "terms": means}
                line |= {"lr": rate_at(training, step), "examples_per_second": round(pace, 1)}
                append_line(log_file, json.dumps(line))
                left = (training.steps - done) * training.batch / pace
                progress({**line, "steps": training.steps, "seconds_left": left})
                window, window_steps, mark, paced = None, 0, time.monotonic(), done
            if done in snapshots:
                with clock.phase("checkpoint"):
                    kept[done] = snapshots[done](network)
            stop = should_stop()
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                with clock.phase("checkpoint"):
                    save(done)
                saved = time.monotonic()
            if stop and done < training.steps:
                raise Interrupted(f"stopped after step {done} of {training.steps}, state saved")
    network.release()
    network.eval()
    return {**ledger(training.steps), "snapshots": kept}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint behind its own SHA-256, so that damage is noticed."""
    payload = io.BytesIO()
    torch.save(state, payload)
    data = payload.getvalue()
    write_atomic(path, MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint, or None where there is none. A damaged one is put aside with a warning."""
    if not path.exists():
        return None
    content = path.read_bytes()
    head, _, data = content.partition(b"\n")
    if head == MAGIC + hashlib.sha256(data).hexdigest().encode():
        try:
            state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
            if isinstance(state, dict) and state.keys() >= STATE:
                return state
        except Exception as error:
            if out_of_memory(error):
                raise
            # Else it is nothing that we wrote, whatever it raises; weights_only runs nothing.
    path.replace(path.with_suffix(".damaged"))
    warnings.warn(
        f"the checkpoint {path} is damaged: it is kept as state.damaged and this training "
        "starts anew",
        stacklevel=2,
    )
    return None


def log_digest(path: Path) -> str:
    """SHA-256 of a log as far as it is written; a checkpoint keeps it, so that damage shows."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def keep_log_until(path: Path, step: int) -> None:
    """Drop the log lines after `step`: a killed run wrote them, and they will come again."""
    if path.exists():
        lines = []
        for line in path.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last may be torn
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
        write_atomic(path, "".join(lines))

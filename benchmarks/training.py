"""Training one codec: the harness against a loop after CompressAI's documented example.

    python -m benchmarks.training
    python -m benchmarks.training --parts                   which choice makes what part
    python -m benchmarks.training --preset small --batch 4 --steps 8

Both train `ScaleHyperprior` from the same weights at one λ, on the same pictures, with the same
batch, crop, peak rate and number of steps. The documented loop decodes and crops a file for every
example, in a data loader's own processes, has a second Adam for the bottleneck's quantiles (with a
loss of its own), a constant rate, and computes in fp32. The harness keeps the pictures in memory as
bytes, solves for the quantiles when the network is measured, and has the preset's memory format,
precision and schedule; it runs in a process of its own, whose heap keeps freed memory, as a job
of `run` does. The loss on held-out crops after the last step is compared, too: in units of
the documented loop's, so that more than one is worse.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.method import Cell, build
from bench.pictures.data import Pictures
from bench.registry import method
from bench.run.runner import choose_device
from bench.run.timing import alternate, seconds_a_step, show, wait
from bench.task import weighted
from bench.tasks.codec import in_mixed_precision
from bench.tasks.compression import Compression
from bench.train import fit
from benchmarks import rows
from benchmarks.evaluation import begin_worker

DOCUMENTED = "documented loop"
HELD_OUT = 32  # crops of test pictures


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the harness does otherwise, each by itself in the documented loop."""

    in_memory: bool = False
    no_second_optimiser: bool = False
    own_bottleneck: bool = False
    channels_last: bool = False
    fused: bool = False


def ladder() -> dict[str, Choices]:
    """The documented loop, and with one choice after another."""
    found, reached = {DOCUMENTED: Choices()}, Choices()
    for name, choice in (
        ("+ pictures in memory", "in_memory"),
        ("+ no second optimiser", "no_second_optimiser"),
        ("+ own bottleneck and GDN", "own_bottleneck"),
        ("+ channels_last", "channels_last"),
        ("+ fused AdamW", "fused"),
    ):
        reached = replace(reached, **{choice: True})
        found[name] = reached
    return found


@dataclass(frozen=True)
class Outcome:
    """Examples per second, and the loss on the held-out crops afterwards."""

    speed: float
    loss: float


def fixed_cell(task: Compression, seed: int) -> Cell:
    """The harness's network for the middle λ."""
    (setting,) = task.space.grid(1)
    return Cell(task=task, method=method("fixed_grid"), seed=seed, trained_for=(setting,))


def start(cell: Cell) -> Any:
    """CompressAI's own class with the weights that the harness starts from."""
    from compressai.models import ScaleHyperprior

    codec = ScaleHyperprior(cell.task.width, cell.task.latents)  # type: ignore[attr-defined]
    codec.load_state_dict(build(cell).model.state_dict())
    return codec


class Files:
    """Random crops of files, each decoded when it is asked for, as `compressai.datasets` has it."""

    def __init__(self, paths: Sequence[Path], crop: int) -> None:
        from torchvision import transforms

        self.paths = paths
        self.transform = transforms.Compose([transforms.RandomCrop(crop), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def from_files(
    paths: Sequence[Path], crop: int, count: int, batch: int, workers: int, device: torch.device
) -> Iterator[Tensor]:
    """`count` batches from the documented loader. One epoch of that length: with a few pictures
    its own would start the processes anew all the time."""
    from torch.utils.data import DataLoader, RandomSampler

    files: Any = Files(paths, crop)
    sampler = RandomSampler(files, replacement=True, num_samples=count * batch)
    pinned = device.type == "cuda"  # as the example has it
    loader = DataLoader(files, batch, sampler=sampler, num_workers=workers, pin_memory=pinned)
    return iter(loader)


def in_memory(data: Pictures, batch: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield data.batch(batch, generator)


def documented(cell: Cell, device: torch.device, choices: Choices, workers: int) -> Outcome:
    """The loop of CompressAI's documentation, with some of the harness's choices."""
    from compressai.losses import RateDistortionLoss

    task: Any = cell.task
    training, ((weight,),) = task.training, cell.trained_for
    codec = start(cell).to(device).train()
    if choices.own_bottleneck:
        in_mixed_precision(codec)
    if choices.channels_last:
        codec = codec.to(memory_format=torch.channels_last)
    named = dict(codec.named_parameters())
    main = [p for name, p in named.items() if not name.endswith(".quantiles")]
    kind: Any = torch.optim.AdamW if choices.fused else torch.optim.Adam
    options = {"fused": True} if choices.fused else {}
    optimiser = kind(main, lr=training.lr, weight_decay=0.0, **options)
    quantiles = [p for name, p in named.items() if name.endswith(".quantiles")]
    second = torch.optim.Adam(quantiles, lr=1e-3)
    criterion = RateDistortionLoss(lmbda=weight)

    torch.manual_seed(cell.seed)
    data = task.data("train").to(device)
    if choices.in_memory:
        batches = in_memory(data, training.batch, cell.seed)
    else:
        count = training.steps + 1
        batches = from_files(data.paths, task.crop, count, training.batch, workers, device)
    next(batches)  # the processes have started
    wait(device)
    begin = time.perf_counter()
    for _ in range(training.steps):
        batch = next(batches).to(device)
        optimiser.zero_grad()
        second.zero_grad()
        loss = criterion(codec(batch), batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
        if not choices.no_second_optimiser:
            codec.aux_loss().backward()
            second.step()
    wait(device)
    speed = training.steps * training.batch / (time.perf_counter() - begin)
    return Outcome(speed, held_out_loss(cell, codec))


def harness(cell: Cell, device: torch.device) -> Outcome:
    """The same by `bench.train.fit`."""
    task = cell.task
    network = build(cell)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return cell.method.draw(cell, count, generator)

    with tempfile.TemporaryDirectory() as folder:
        # As seldom as in a long training: a GPU is waited for.
        ledger = fit(task, network, draw, cell.seed, device, Path(folder), log_every=100)
    speed = task.training.batch / seconds_a_step(ledger)
    return Outcome(speed, held_out_loss(cell, network.model))


@torch.no_grad()
def held_out_loss(cell: Cell, codec: Any) -> float:
    """The mean loss on the same crops of test pictures, with quantised latents."""
    task: Any = cell.task
    device = next(codec.parameters()).device
    codec.eval()
    task.ready(codec)
    crops = Pictures(task.data("test").paths, task.crop, device=device)
    batch = crops.batch(HELD_OUT, torch.Generator().manual_seed(1))
    coefficients = torch.tensor(cell.trained_for, device=device).expand(HELD_OUT, 1)
    return weighted(task.space, task.losses(codec, batch), coefficients).mean().item()


def compare(
    task: Compression, device: torch.device, rounds: int, workers: int, parts: bool, by: Executor
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Examples per second and held-out losses of each loop, one number a round, each round from
    its own seed. `by` runs the harness."""
    losses: dict[str, list[float]] = {}
    seeds: dict[str, int] = {}

    def loop(name: str, train: Callable[[Cell], Outcome]) -> Callable[[], float]:
        def once() -> float:
            seeds[name] = seeds.get(name, -1) + 1
            outcome = train(fixed_cell(task, seeds[name]))
            losses.setdefault(name, []).append(outcome.loss)
            return outcome.speed

        return once

    chosen = ladder() if parts else {DOCUMENTED: Choices()}
    loops = {
        name: loop(name, lambda cell, c=choices: documented(cell, device, c, workers))  # type: ignore[misc]
        for name, choices in chosen.items()
    }
    loops["harness"] = loop("harness", lambda cell: by.submit(harness, cell, device).result())
    for each in loops.values():
        each()  # warm up
    losses.clear()
    return alternate(loops, rounds), losses


def measure(
    task: Compression, device: torch.device, rounds: int, workers: int, parts: bool
) -> list[rows.Row]:
    """The rows, printed as tables, too."""
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker, (threads,)) as by:
        speeds, losses = compare(task, device, rounds, workers, parts, by)
    training = task.training
    title = f"training, {task.width}/{task.latents}, crop {task.crop}, batch {training.batch}"
    names = [name for name in speeds if name != DOCUMENTED]
    against = dict.fromkeys(names, DOCUMENTED)
    show(
        f"{title}, {training.steps} steps, {device}", speeds, against,
        {"examples/s": lambda value: f"{value:.1f}"},
    )  # fmt: skip
    show("loss on held-out crops", losses, against, {"loss": lambda value: f"{value:.4f}"})
    made = []
    for name in names:
        for what, values, other, unit in (
            (name, speeds, f"{DOCUMENTED}, times as fast", "examples/s"),
            (f"{name}, loss", losses, f"{DOCUMENTED}, loss", "loss"),
        ):
            pairs = (values[name], values[DOCUMENTED])
            middle = statistics.median(values[name])
            made.append(rows.row(title, device, what, other, pairs, middle, unit))
    return made


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = rows.parser("training", __doc__, steps=60)
    parser.add_argument("--task", default="compression", help="compression[field=value,...]")
    parser.add_argument("--preset", default="quick", help="size of the task (quick)")
    parser.add_argument("--batch", type=int, help="the preset's")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="the preset's")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="that decode (cores)")
    parser.add_argument("--parts", action="store_true", help="with the choices in between")
    parser.add_argument("--train-data", default="", metavar="DIR", help="pictures to train on")
    options = parser.parse_args(arguments)
    task = rows.task(options.task, options.preset, Compression)
    fields = {name: getattr(options, name) for name in ("batch", "precision")}
    task = task.trained_with(
        steps=options.steps, compile=False, **{k: v for k, v in fields.items() if v is not None}
    )
    task = replace(task, start="library", train_data=options.train_data or task.train_data)
    made = measure(
        task, choose_device(options.device), options.rounds, options.workers, options.parts
    )
    rows.append(options.out, made)
    return made


if __name__ == "__main__":
    main()

"""Training a style network: the harness against the loop of PyTorch's published example.

    python -m benchmarks.style
    python -m benchmarks.style --content-layer relu2_2 --train-data DIR

Both train the task's own network on the same files with the same batch and crop, through VGG-16 up
to relu4_3. The published loop (pytorch/examples, fast_neural_style) reads, scales and crops each
picture in every step and computes all four layers for the output and for the photograph; it is
timed a second time with its pictures already in memory, which tells the reading apart. The harness
keeps the pictures, computes the photograph's features no deeper than the content layer, and does
what the loop does not: a third loss, clipping, a schedule. It runs in a process of its own, whose
heap keeps freed memory, as a job of `run` does; at the preset's precision, and once more in
bfloat16, which changes the numbers and needs a processor that has it.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from bench.cost import count_flops
from bench.method import Cell, build
from bench.pictures import downloads
from bench.pictures.perceptual import IMAGENET_MEAN, IMAGENET_STD
from bench.registry import method
from bench.run.runner import choose_device
from bench.run.timing import alternate, seconds_a_step, show, wait
from bench.tasks.paintings import file_of
from bench.tasks.style import Style
from bench.tasks.style_terms import CONTENT_LAYERS, STYLE_LAYERS
from bench.train import fit
from benchmarks import rows
from benchmarks.evaluation import begin_worker

ENDS = (4, 9, 16, 23)  # of torchvision's `features`: relu1_2, relu2_2, relu3_3, relu4_3
CONTENT_WEIGHT, STYLE_WEIGHT = 1e5, 1e10  # the example's own


class Slices(nn.Module):
    """torchvision's VGG-16, frozen, in four slices as in the example: (B, 3, H, W) in [0, 1] to the
    features at the end of each."""

    def __init__(self) -> None:
        from safetensors.torch import load_file
        from torchvision.models import vgg16

        super().__init__()
        features = vgg16(weights=None).features
        stored = load_file(downloads.get("vgg16-convs"))
        convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
        for i, layer in enumerate(convolutions):
            layer.load_state_dict({"weight": stored[f"{i}.weight"], "bias": stored[f"{i}.bias"]})
        starts = (0, *ENDS)
        self.slices = nn.ModuleList(
            features[start:end] for start, end in zip(starts, ENDS, strict=False)
        )
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        x, found = (x - mean) / std, []
        for part in self.slices:
            x = part(x)
            found.append(x)
        return found


def gram(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, C, C)."""
    count, channels, height, width = features.shape
    flat = features.view(count, channels, height * width)
    return flat.bmm(flat.transpose(1, 2)) / (channels * height * width)


def published_terms(
    vgg: nn.Module, output: Tensor, picture: Tensor, grams: Sequence[Tensor], content_layer: str
) -> tuple[Tensor, list[Tensor]]:
    """The example's content term and its four style terms, scalars, before any weight.

    A style term is the mean over the C x C entries of a Gram matrix; the task's is their sum.
    """
    of_output, of_picture = vgg(output), vgg(picture)
    place = STYLE_LAYERS.index(content_layer)
    content = F.mse_loss(of_output[place], of_picture[place])
    style = [F.mse_loss(gram(seen), wanted) for seen, wanted in zip(of_output, grams, strict=True)]
    return content, style


class Files(torch.utils.data.Dataset[Tensor]):
    """Picture files, read, scaled and cropped whenever they are asked for."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        from torchvision import transforms

        self.paths = paths
        self.change = transforms.Compose(
            [transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        with Image.open(self.paths[place]) as picture:
            return cast(Tensor, self.change(picture.convert("RGB")))


def published(task: Style, cell: Cell, device: torch.device, batches: Iterable[Tensor]) -> float:
    """Seconds per step of the example's loop over `batches`."""
    model = build(cell).model.to(device)
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    vgg = slices(device)
    painting = Files([file_of(entry) for entry in task.shown.values()], task.crop)[0]
    count, content_sum, style_sum = task.training.batch, 0.0, 0.0
    grams = [gram(seen) for seen in vgg(painting.repeat(count, 1, 1, 1).to(device))]
    model.train()
    wait(device)
    begin = time.perf_counter()
    for picture in batches:
        adam.zero_grad()
        picture = picture.to(device)
        content, style = published_terms(vgg, model(picture), picture, grams, task.content_layer)
        content = CONTENT_WEIGHT * content
        painted = STYLE_WEIGHT * cast(Tensor, sum(style))
        (content + painted).backward()
        adam.step()
        content_sum += content.item()
        style_sum += painted.item()
    wait(device)
    return (time.perf_counter() - begin) / task.training.steps


@functools.cache
def slices(device: torch.device) -> nn.Module:
    return Slices().to(device)


def harness(cell: Cell, device: torch.device) -> dict[str, Any]:
    """The ledger of a training of all steps."""
    draw = functools.partial(cell.method.draw, cell)
    with tempfile.TemporaryDirectory() as folder:
        return fit(cell.task, build(cell), draw, 0, device, Path(folder), log_every=100)


def per_step(cell: Cell, device: torch.device) -> float:
    """Seconds of one step of the harness, without what is done once."""
    ledger = harness(cell, device)
    return seconds_a_step(ledger)


def measure(task: Style, device: torch.device, rounds: int, by: Executor) -> list[rows.Row]:
    """The table and its rows. The steps of a round are those of the task's training; `by` runs the
    harness."""
    (setting,) = task.settings(1)

    def cell(**training: object) -> Cell:
        changed = task.trained_with(**training)
        return Cell(task=changed, method=method("fixed_grid"), seed=0, trained_for=(setting,))

    count = task.training.batch * task.training.steps
    paths = task.pictures("train").paths
    files = Files((paths * -(-count // len(paths)))[:count], task.crop)
    loader = torch.utils.data.DataLoader(files, batch_size=task.training.batch)
    kept = list(loader)
    ours = f"harness, {task.training.precision}"
    loops: dict[str, Callable[[], float]] = {
        "published loop": lambda: published(task, cell(), device, loader),
        "published loop, pictures in memory": lambda: published(task, cell(), device, kept),
        ours: lambda: by.submit(per_step, cell(), device).result(),
        "harness, bf16": lambda: by.submit(per_step, cell(precision="bf16"), device).result(),
    }
    one, two = (
        count_flops(functools.partial(published, task, cell(), device, kept[:1] * steps))
        for steps in (1, 2)
    )
    theirs, own = two - one, harness(cell(), device)["flops_per_step"]
    for loop in loops.values():
        loop()  # warm up
    seconds = alternate(loops, rounds)
    title = f"style, content {task.content_layer}, {task.crop} pixels, batch {task.training.batch}"
    names = list(seconds)
    show(
        f"{title}, {device}",
        seconds,
        dict.fromkeys(names[1:], names[0]),
        {
            "ms per step": lambda s: f"{1000 * s:.1f}",
            "examples/s": lambda s: f"{task.training.batch / s:.1f}",
        },
    )
    print(
        f"FLOPs of one step: {theirs / 1e9:.2f} G in the published loop, {own / 1e9:.2f} G in the "
        f"harness, {theirs / own:.3f} times fewer: at one rate of arithmetic, what sharing can save"
    )
    return [
        rows.row(
            title, device, name, f"{other}, times as fast", (seconds[other], seconds[name]),
            task.training.batch / statistics.median(seconds[name]), "examples/s",
        )
        for place, other in enumerate(names[:2])
        for name in names[place + 1:]
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = rows.parser("style", __doc__, steps=8)
    parser.add_argument("--task", default="style", help="style[field=value,...]")
    parser.add_argument("--preset", default="quick", help="size of the task (quick)")
    parser.add_argument("--content-layer", choices=CONTENT_LAYERS, help="the preset's")
    parser.add_argument("--train-data", default="", metavar="DIR", help="pictures to train on")
    options = parser.parse_args(arguments)
    task = rows.task(options.task, options.preset, Style)
    task = task.trained_with(steps=options.steps, compile=False)
    task = dataclasses.replace(
        task,
        content_layer=options.content_layer or task.content_layer,
        train_data=options.train_data or task.train_data,
    )
    if task.several:
        parser.error("the published loop has one painting: use --task style with none or one")
    device, spawn = choose_device(options.device), get_context("spawn")
    with ProcessPoolExecutor(1, spawn, begin_worker, (torch.get_num_threads(),)) as by:
        made = measure(task, device, options.rounds, by)
    rows.append(options.out, made)
    return made


if __name__ == "__main__":
    main()

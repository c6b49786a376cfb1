"""Coded bytes and measures of test pictures at six settings: the harness against CompressAI's own
`compressai.utils.eval_model`, in pictures per second.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --pictures KODAK --count 6

Both load the same networks (six, which two or three cores share evenly), build the coder's tables
and read the same files, cut to multiples of 64 pixels, since the two pad differently. The library's
program goes through them on one thread, as it sets itself. The harness does so in one process with
a thread per core, and in a process per core with one thread each, which is `run --on pool
--per-device CORES`. LPIPS, which the library does not measure, is left out but for the last row.
Bytes, PSNR and MS-SSIM are compared, too, and a difference is an error.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from bench.cost import keep_freed_memory
from bench.run.timing import alternate, show
from bench.tasks.compression import Compression
from benchmarks import rows

LIBRARY = "eval_model"
MEASURES = {"bpp": "bpp", "psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}  # ours: the library's
# Rounding only: a byte more or less would be 1e-5 bpp, and the library's pixels go up to 255.
TOLERANCE = {"bpp": 1e-6, "psnr": 1e-3, "ms_ssim": 1e-5}

Values = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WithoutLpips(Compression):
    """The task with no more measures than the library's program has."""

    def missing(self) -> dict[str, str]:
        return {"lpips": "the library's program has none"}


def save_networks(task: Compression, count: int, folder: Path) -> list[Path]:
    """The untrained start as codecs at `count` settings, each with its own quantiser step, so that
    their rates are like those of trained ones."""
    from baselines.step_scaling import scale_step

    torch.manual_seed(0)
    codec = task.model().eval()
    task.initialise(codec)
    paths, reached = [], 1.0
    for (weight,) in task.space.grid(count):
        step = (weight / task.space.axes[0].at(0.5)) ** 0.5
        scale_step(codec, step / reached)
        reached = step
        paths.append(folder / f"{weight:g}.pt")
        torch.save(codec.state_dict(), paths[-1])
    return paths


def cut(files: Sequence[Path], folder: Path) -> list[Path]:
    """The pictures as PNG files whose sides are multiples of 64; small ones are left out."""
    from PIL import Image

    made = []
    for number, file in enumerate(files):
        with Image.open(file) as picture:
            width, height = (side // 64 * 64 for side in picture.size)
            if min(width, height) >= 192:  # MS-SSIM needs 161
                made.append(folder / f"{number:03}.png")
                picture.convert("RGB").crop((0, 0, width, height)).save(made[-1])
    return made


def theirs(network: Path, files: Sequence[Path]) -> Values:
    """The means over the pictures that the library's program finds for a network."""
    from compressai.models import ScaleHyperprior
    from compressai.utils.eval_model.__main__ import eval_model

    codec = ScaleHyperprior.from_state_dict(torch.load(network, weights_only=True)).eval()
    codec.update(force=True, update_quantiles=True)
    found = eval_model(
        codec, Path(), Path(), files, architecture="bmshj2018-hyperprior", half=False,
        per_image=False,
    )  # fmt: skip
    return {ours: found[name] for ours, name in MEASURES.items()}


@torch.no_grad()
def ours(task: Compression, network: Path) -> Values:
    """The means over the task's test pictures that the harness finds for a network."""
    codec = task.model().eval()
    codec.load_state_dict(torch.load(network, weights_only=True))
    task.ready(codec)
    found = [task.measure(codec, batch) for _, batch in task.data("test").examples()]
    return {name: sum(each[name].item() for each in found) / len(found) for name in MEASURES}


def begin_worker(threads: int) -> None:
    """Make a process what one is that runs the harness's jobs."""
    keep_freed_memory()
    torch.set_num_threads(threads)


def compare(
    task: WithoutLpips, networks: Sequence[Path], files: Sequence[Path], rounds: int,
    alone: Executor, workers: Executor,
) -> tuple[dict[str, list[float]], dict[str, list[Values]]]:  # fmt: skip
    """Pictures per second of each way, one number a round, and what it found for each network."""
    whole = Compression(**{field.name: getattr(task, field.name) for field in fields(task)})
    found: dict[str, list[Values]] = {}

    def harness(of: Compression, by: Executor) -> list[Values]:
        return list(by.map(ours, [of] * len(networks), networks))

    ways: dict[str, Callable[[], list[Values]]] = {
        LIBRARY: lambda: [theirs(network, files) for network in networks],
        "one process": lambda: harness(task, alone),
        "a process per core": lambda: harness(task, workers),
    }
    if not whole.missing():
        ways["a process per core, with LPIPS"] = lambda: harness(whole, workers)

    def timed(name: str) -> float:
        begin = time.perf_counter()
        found[name] = ways[name]()
        return len(networks) * len(files) / (time.perf_counter() - begin)

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the library's program sets it when it starts
    try:
        for name in ways:
            timed(name)  # warm up
        loops = {name: lambda name=name: timed(name) for name in ways}
        return alternate(loops, rounds), found
    finally:
        torch.set_num_threads(before)


def differences(found: dict[str, list[Values]]) -> list[str]:
    """Where a way's values are not those of the library's program."""
    return [
        f"{way}, network {number}: {name} is {one[name]}, not {other[name]}"
        for way, values in found.items()
        for number, (one, other) in enumerate(zip(values, found[LIBRARY], strict=True))
        for name in MEASURES
        if not abs(one[name] - other[name]) <= TOLERANCE[name]
    ]


def measure(
    task: Compression, pictures: str, count: int, settings: int, rounds: int, cores: int
) -> list[rows.Row]:
    """The rows, printed as a table, too. RuntimeError where bytes, PSNR or MS-SSIM differ."""
    given = {field.name: getattr(task, field.name) for field in fields(task)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "pictures").mkdir()
        whole = task if not pictures else replace(task, test_data=pictures)
        chosen = whole.data("test").paths[:count]
        files = cut(chosen, folder / "pictures")
        networks = save_networks(task, settings, folder)
        bare = WithoutLpips(**{**given, "test_data": str(folder / "pictures")})
        spawn = get_context("spawn")
        with (
            ProcessPoolExecutor(1, spawn, begin_worker, (cores,)) as alone,
            ProcessPoolExecutor(cores, spawn, begin_worker, (1,)) as workers,
        ):
            speeds, found = compare(bare, networks, files, rounds, alone, workers)
    if wrong := differences(found):
        raise RuntimeError("the values differ, so the speeds mean nothing: " + "; ".join(wrong))
    title = f"evaluation, {len(files)} pictures at {settings} settings, {cores} cores"
    ways = [way for way in speeds if way != LIBRARY]
    show(title, speeds, dict.fromkeys(ways, LIBRARY), {"pictures/s": lambda value: f"{value:.2f}"})
    return [
        rows.row(
            title, torch.device("cpu"), way, f"{LIBRARY}, times as fast",
            (speeds[way], speeds[LIBRARY]), statistics.median(speeds[way]), "pictures/s",
        )
        for way in ways
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", default="compression", help="compression[field=value,...]")
    parser.add_argument("--preset", default="quick", help="size of the task (quick)")
    parser.add_argument("--pictures", default="", metavar="DIR", help="scikit-image's by default")
    parser.add_argument("--count", type=int, default=4, help="pictures at most (4)")
    parser.add_argument("--settings", type=int, default=6, help="networks (6)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations (5)")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="to use (all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="append the rows to this CSV file")
    options = parser.parse_args(arguments)
    task = rows.task(options.task, options.preset, Compression)
    made = measure(
        task, options.pictures, options.count, options.settings, options.rounds,
        options.cores,
    )  # fmt: skip
    rows.append(options.out, made)
    return made


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))

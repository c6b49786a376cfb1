"""How near a training step comes to what the device can do, and what holds the rest.

    python -m benchmarks.roofline
    python -m benchmarks.roofline compression/small --figure roofline.png

For each case, TASK or TASK/PRESET: the FLOPs of one step (forward and backward, two per
multiply-add) and its bytes, the device's own ceilings, measured in alternation with the step, the
time those allow, max(FLOPs / ceiling of arithmetic, bytes / ceiling of copying), and the share of
it achieved. The ceiling of arithmetic is the highest of three, at the precision the task trains
with: a matrix product of 2048 x 2048, one of the shape of the task's largest convolution, and a
large convolution, since on some processors convolutions run twice as fast as matrix products.

Bytes are counted operation by operation: every tensor that one reads or writes counts once, views
and uninitialised memory are free, and a broadcast tensor counts as what is stored. Parameters,
gradients and the optimiser's state are in it, since the optimiser's step is counted too. It is what
a step moves when no operation leaves anything in a cache for the next. The second number, at
least, is what any implementation has to move: weights and gradients each read and written once,
the optimiser's state likewise, and the batch read.
"""

from __future__ import annotations

import functools
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.capture import ORDINARY
from bench.cost import count_flops, device_name, keep_freed_memory
from bench.files import drawing_to_files
from bench.method import Cell, build
from bench.registry import method
from bench.run.runner import choose_device
from bench.run.timing import alternate, ratios, wait
from bench.task import Task
from bench.train import Trainer, arithmetic, optimiser_step
from benchmarks import rows

CASES = ("compression", "compression/small", "style", "beta_vae_scenes")
SQUARE = 2048  # side of the matrices of the ceiling
CHANNELS, PLACES = 256, 64  # of the large convolution: 3 x 3, channels in and out, side
COPIED = {"cpu": 2**28, "cuda": 2**30}  # bytes; several times the largest caches
SHOWN = 6  # operations in the table of what holds the rest
ATEN = torch.ops.aten
FREE = {ATEN.empty, ATEN.empty_like, ATEN.empty_strided, ATEN.new_empty, ATEN.new_empty_strided,
        ATEN._unsafe_view, ATEN._local_scalar_dense}  # fmt: skip
WRITE_ONLY = {ATEN.copy_, ATEN.fill_, ATEN.zero_, ATEN.normal_, ATEN.uniform_}


# Counting


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, and lists convolutions as matrix products.

    total: bytes. products: how often each (M, N, K) occurs that a forward convolution amounts to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.products: Counter[tuple[int, int, int]] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        packet = operation.overloadpacket
        if not operation.is_view and packet not in FREE:
            self.total += moved(operation, args, kwargs or {}, result)
        if packet is ATEN.convolution:
            self.products[product(args, result)] += 1
        return result


def moved(operation: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
    """Bytes one operation reads and writes."""
    packet = operation.overloadpacket
    read, written = [], []
    for place, argument in enumerate(operation._schema.arguments):
        given = args[place] if place < len(args) else kwargs.get(argument.name)
        found = tensors(given)
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += found
            if packet in WRITE_ONLY:
                continue
        read += found
    if packet is ATEN.convolution_backward:
        gradient, picture, weight = args[:3]
        to_picture, to_weight, _ = args[10]  # which gradients are wanted
        read = [gradient, *([weight] if to_picture else []), *([picture] if to_weight else [])]
    given_out = {id(tensor) for tensor in written}
    written += [tensor for tensor in tensors(result) if id(tensor) not in given_out]
    return sum(map(stored, {id(t): t for t in read}.values())) + sum(map(stored, written))


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def stored(tensor: Tensor) -> int:
    """Bytes of the elements that are there: a broadcast dimension repeats them."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()


def product(args: Sequence[Any], result: Tensor) -> tuple[int, int, int]:
    """(M, N, K) of the matrix product with as many FLOPs as a convolution of one group."""
    picture, weight, transposed = args[0], args[1], args[6]
    places = (picture if transposed else result)[:, 0].numel()
    outside = weight.shape[1] if transposed else weight.shape[0]
    return places, outside, weight.numel() // outside


# Measuring


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step of a task's fixed network, ready to run, and what it amounts to.

    run: as training does it; on a GPU it is replayed after a few calls. ordinary: it never is.
    moved: bytes, operation by operation. least: bytes no implementation can do without.
    largest: (M, N, K) of the product that most of the convolutions' FLOPs go to.
    """

    name: str
    task: Task
    run: Callable[[], object]
    ordinary: Callable[[], object]
    flops: int
    moved: int
    least: int
    largest: tuple[int, int, int]

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.task.training.precision == "bf16" else torch.float32


def prepare(case: str, device: torch.device) -> Step:
    """A case as in training, on one batch, warmed up and counted in eager mode."""
    parts = re.fullmatch(r"(.+)/([\w-]+)", case)  # a file's path, or a field's, has "/", too
    name, size = parts.groups() if parts else (case, "quick")
    task: Task = rows.task(name, size)
    (setting,) = task.settings(1)
    cell = Cell(task=task, method=method("fixed_grid"), seed=0, trained_for=(setting,))
    draw, folder = functools.partial(cell.method.draw, cell), Path(tempfile.gettempdir())
    trainer = Trainer(task, build(cell), draw, 0, device, folder)
    adam, (batch, coefficients) = trainer.adam, trainer.inputs()
    tracked = [p for group in adam.param_groups for p in group["params"]]
    step = functools.partial(optimiser_step, task, trainer.network, adam, batch, coefficients)
    step()  # what is computed once, and the optimiser's state
    with Traffic() as traffic:
        step()
    state = sum(t.nbytes for values in adam.state.values() for t in values.values())
    weights = sum(p.nbytes for p in tracked)
    heavy = max(traffic.products, key=lambda mnk: traffic.products[mnk] * mnk[0] * mnk[1] * mnk[2],
                default=(SQUARE,) * 3)  # fmt: skip
    return Step(
        name=f"{name}, {size}",
        task=task,
        run=functools.partial(trainer.compute, batch, coefficients),
        ordinary=step,
        flops=count_flops(step),
        moved=traffic.total,
        least=2 * (2 * weights + state) + sum(t.nbytes for t in tensors(batch)),
        largest=heavy,
    )


def timed(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds of one of `times` calls."""
    wait(device)
    begin = time.perf_counter()
    for _ in range(times):
        work()
    wait(device)
    return (time.perf_counter() - begin) / times


def matmul(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of an (M, N, K) matrix product."""
    m, n, k = shape
    a, b = (torch.randn(size, device=device, dtype=dtype) for size in ((m, k), (k, n)))
    out = torch.empty(m, n, device=device, dtype=dtype)
    return rate(lambda: torch.mm(a, b, out=out), 2 * m * n * k, device)


@torch.no_grad()
def convolution(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a convolution that suits its library: many channels, stored last."""
    count = 1 if device.type == "cpu" else 64
    layer = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, device=device, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(count, CHANNELS, PLACES, PLACES, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    return rate(lambda: layer(x), 2 * x.numel() * CHANNELS * 9, device)


def rate(work: Callable[[], object], flops: int, device: torch.device) -> float:
    """FLOP/s, the best of four: a ceiling is what can be reached."""
    times = max(1, int((5e9 if device.type == "cpu" else 5e12) / flops))
    return flops / min(timed(work, times, device) for _ in range(4))


def copy(device: torch.device) -> float:
    """Bytes/s read and written by a copy, the best of four."""
    source = torch.ones(COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    seconds = min(timed(lambda: target.copy_(source), 1, device) for _ in range(4))
    return 2 * source.nbytes / seconds


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one case, one number a round: seconds of a step, FLOP/s at its precision, bytes/s."""

    step: Step
    seconds: list[float]
    flops: list[float]
    bytes: list[float]
    ceilings: dict[str, float]  # medians, for the table

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Seconds that the arithmetic and the memory need, by round."""
        pairs = zip(self.flops, self.bytes, strict=True)
        return [(self.step.flops / f, self.step.moved / b) for f, b in pairs]

    @property
    def attainable(self) -> list[float]:
        return [max(pair) for pair in self.limits]


def measure(step: Step, device: torch.device, steps: int, rounds: int) -> Measured:
    """Run a step in alternation with the ceilings it is held against."""
    square = (SQUARE,) * 3
    loops: dict[str, Callable[[], float]] = {
        "step": lambda: timed(step.run, steps, device),
        "copy": lambda: copy(device),
    }
    for dtype, short in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for shape in (square, step.largest):
            name = f"{short} {' x '.join(map(str, shape))}"
            loops[name] = functools.partial(matmul, shape, dtype, device)
        loops[f"{short} convolution"] = functools.partial(convolution, dtype, device)
    for _ in range(ORDINARY + 1):
        step.run()  # until it is compiled, or captured
    found = alternate(loops, rounds)
    own = "bf16" if step.dtype == torch.bfloat16 else "fp32"
    products = [values for name, values in found.items() if name.startswith(own)]
    return Measured(
        step=step,
        seconds=found["step"],
        flops=[max(together) for together in zip(*products, strict=True)],
        bytes=found["copy"],
        ceilings={name: statistics.median(v) for name, v in found.items() if name != "step"},
    )


def shares(step: Step, device: torch.device, steps: int) -> list[tuple[str, float]]:
    """The operations that a step's time on the device goes to, by their share of it."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        timed(step.ordinary, steps, device)  # a replay does not say which operation is which
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        if event.device_type != DeviceType.CPU or event.is_user_annotation:
            continue  # a kernel's time is also that of the operation which launched it
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        spent[event.key.removeprefix("aten::")] += own
    whole = sum(spent.values()) or 1
    return [(name, own / whole) for name, own in spent.most_common(SHOWN)]


# Showing


def show(each: Measured, operations: Sequence[tuple[str, float]], device: torch.device) -> None:
    step, seconds = each.step, statistics.median(each.seconds)
    share, low, high = ratios(each.attainable, each.seconds)
    arithmetic, memory = (statistics.median(side) for side in zip(*each.limits, strict=True))
    table = Table(title=f"{step.name}: {device_name(device)}", title_justify="left")
    table.add_column("one step")
    table.add_column("", justify="right")
    for name, text in {
        "FLOPs": f"{step.flops / 1e9:.2f} G",
        "bytes, operation by operation": f"{step.moved / 1e6:.0f} MB",
        "bytes, at least": f"{step.least / 1e6:.0f} MB",
        **{
            f"ceiling, {name}": f"{value / 1e9:.1f} {'GB/s' if name == 'copy' else 'GFLOP/s'}"
            for name, value in each.ceilings.items()
        },
        "time for the arithmetic": f"{1000 * arithmetic:.1f} ms",
        "time for the memory": f"{1000 * memory:.1f} ms",
        "time taken": f"{1000 * seconds:.1f} ms",
        "attainable / taken": f"{share:.2f} ({low:.2f} to {high:.2f})",
        **{f"spent in {name}": f"{100 * part:.0f} %" for name, part in operations},
    }.items():
        table.add_row(name, text)
    Console().print(table)


def draw(found: Sequence[Measured], device: torch.device, path: Path) -> None:
    """GFLOP/s against FLOPs per byte, under the roofs that were measured."""
    with drawing_to_files():
        import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib import style, ticker

    from bench.report.figures.look import DPI, SINGLE, STYLE

    def roof(which: str) -> float:
        return max(v for each in found for name, v in each.ceilings.items() if which in name)

    def number(axis: Any) -> None:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))

    giga = 1e-9
    colours = sns.color_palette("colorblind")
    slope = giga * roof("copy")
    with style.context(["default", sns.axes_style("ticks"), STYLE]):
        figure, axes = plt.subplots(figsize=(1.35 * SINGLE, 0.95 * SINGLE), layout="constrained")
        intensity = [each.step.flops / each.step.moved for each in found]
        left = min(*intensity, 1.0) / 2
        right = 4 * max(*intensity, giga * roof("bf16") / slope)
        for which, colour in (("fp32", "black"), ("bf16", "0.55")):
            top = giga * roof(which)
            axes.plot([left, top / slope, right], [left * slope, top, top], color=colour, lw=1.2)
            axes.annotate(f"{which}, {top:.3g}", (right, top), (-2, 3),
                          textcoords="offset points", ha="right", color=colour)  # fmt: skip
        for place, (each, x) in enumerate(zip(found, intensity, strict=True)):
            y = giga * each.step.flops / statistics.median(each.seconds)
            limit = min(x * slope, giga * statistics.median(each.flops))
            look = {"color": colours[place % len(colours)], "marker": "osD^vP"[place % 6]}
            axes.plot([x, x], [y, limit], color=look["color"], lw=0.9, ls=":")
            axes.plot(x, y, **look, ls="none", label=f"{each.step.name} ({100 * y / limit:.0f} %)")
        axes.set(xscale="log", yscale="log", xlim=(left, right))
        number(axes.xaxis)
        number(axes.yaxis)
        axes.set_xlabel("FLOPs per byte moved, counted operation by operation")
        axes.set_ylabel("GFLOP/s")
        axes.set_title(f"{device_name(device)}; copies at {slope:.3g} GB/s", loc="left")
        axes.legend(loc="lower right", title="share of the attainable", title_fontsize=7)
        sns.despine(figure)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> list[rows.Row]:
    parser = rows.parser("roofline", __doc__, steps=4)
    parser.add_argument("cases", nargs="*", metavar="TASK[/PRESET]", help=" ".join(CASES))
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the roofline")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    keep_freed_memory()  # as `run` does
    found, made = [], []
    for case in options.cases or CASES:
        step = prepare(case, device)
        with arithmetic(step.task.training.precision):
            found.append(each := measure(step, device, options.steps, options.rounds))
        made.append(
            rows.row(
                "roofline", device, each.step.name, "attainable time over time taken",
                (each.attainable, each.seconds), 1000 * statistics.median(each.seconds), "ms/step",
            )
        )  # fmt: skip
        rows.append(options.out, made[-1:])
    for each in found:  # after all: a profiler may slow what comes after it
        with arithmetic(each.step.task.training.precision):
            show(each, shares(each.step, device, options.steps), device)
    if options.figure:
        draw(found, device, options.figure)
    return made


if __name__ == "__main__":
    main()

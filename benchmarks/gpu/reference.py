"""Networks to quote, within a budget; what is finished lies in $OUT as TASK.tar.xz in the end.

    . .gpu/main/setup && python3 -m benchmarks.gpu.reference SECONDS [TASK[=STEPS] ...]

Each of the tasks (or of those named) is the preset `small` with other steps: those given, or as
many as fit at the pace that `speed` measured on this machine, or else at an H100's. Training ends
at STOPPED of a task's time; then what its finished networks allow is measured, without known
curves, which are left to the machine that makes the report. SIGTERM ends it at once and packs what
there is. DEVICE=cpu rehearses it, smaller.
"""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.run.capacity import cores
from bench.run.plan import Experiment, experiment
from bench.run.runner import Run, choose_device
from bench.run.schedule import stopping
from bench.run.schema import Measure
from benchmarks.gpu.programs import PACES, capturable, mps

OUT, DEVICE = Path(os.environ["OUT"]), os.environ["DEVICE"]
TINY = DEVICE == "cpu"
AT_ONCE = 2 if TINY else cores()
PLANNED, STOPPED = 0.7, 0.85  # when training should end, and has to, as shares of a task's time
START = 30  # seconds until processes train


@dataclass(frozen=True, kw_only=True)
class Stage:
    """tasks: in the words of `run`, each with its share of a network's work. pace: steps a second
    of all networks together on one H100, each launched by itself. share: of the seconds."""

    tasks: dict[str, float]
    methods: tuple[str, ...]
    settings: int
    pace: float
    share: float


STAGES = {
    # Over the range and on the pictures of `small-cpu`. Drop seeds (SEED=1), never widths.
    "beta_vae_scenes": Stage(
        tasks={
            "beta_vae_scenes[low=0.5,high=32,recorded=64,evaluated=2000]": 1,
            "beta_vae_scenes[low=0.5,high=32,recorded=64,evaluated=2000,width=2]": 2,
            "beta_vae_scenes[low=0.5,high=32,recorded=64,evaluated=2000,width=4]": 4,
        },
        methods=("yoto", "fixed_grid"),
        settings=3,
        pace=360,
        share=0.4,
    ),
    "compression": Stage(
        tasks={"compression": 1},
        methods=("yoto", "yoto_tuned", "fixed_grid", "warm_grid", "step_scaling"),
        settings=5,
        pace=190,
        share=0.6,
    ),
}


def planned(stage: Stage, steps: int) -> list[Experiment]:
    """The comparison of each task; the label says which fields are not those of `small`."""
    places = {"train_data": ".gpu/main/photos", "test_data": ".gpu/main/kodak"}
    here = {name: place for name, place in places.items() if Path(place).is_dir()}
    size = "smoke" if TINY else "small"
    return [
        experiment(
            text.removesuffix("]") + f"{',' if '[' in text else '['}training.steps={steps}]",
            size, stage.methods, stage.settings, [int(os.environ.get("SEED", "0"))], here,
        )
        for text in stage.tasks
    ]  # fmt: skip


def affordable(stage: Stage, seconds: float) -> int:
    """How many steps every network can have in so many seconds: all of them together at the pace of
    all, and the longest chain of networks that wait for one another at the pace of one of many."""
    nominal = 1000
    cells = [
        (work, cell)
        for work, each in zip(stage.tasks.values(), planned(stage, nominal), strict=True)
        for cell in each.cells
    ]
    networks = sum(work * cell.task.training.steps / nominal for work, cell in cells)
    longest = max(
        sum(work * part.task.training.steps for part in cell.chain) / nominal
        for work, cell in cells
    )
    together, at_once, _ = pace(stage)
    left = 0.8 * (seconds - START) * together
    steps = int(min(left / networks, left / at_once / longest))
    return 20 if TINY else min(20_000, max(20, steps // 100 * 100))


def pace(stage: Stage) -> tuple[float, int, bool]:
    """Steps a second of all networks together and how many were at once, as `speed` measured them
    here, or as they are known; and whether that is under MPS, which is taken where it is faster."""
    name, *_ = stage.tasks
    measured = [(0.0, 0, False)]
    with contextlib.suppress(OSError), open(PACES, newline="") as file:
        for row in csv.DictReader(file):
            kind, _, size = row["benchmark"].partition(", small, ")
            if kind == f"packing, {name.partition('[')[0]}" and "at once" in row["what"]:
                steps, count = int(size.split()[0]), int(row["what"].split()[0])
                measured.append((steps / float(row["value"]), count, size.endswith("MPS")))
    known = (stage.pace, AT_ONCE, False)
    return max(measured) if max(measured)[0] else known


def perform(name: str, steps: int, seconds: float, asked: Callable[[], bool]) -> str:
    """Train, measure and pack one stage; what came of it in a line."""
    begin, stage = time.monotonic(), STAGES[name]

    def by(share: float) -> Callable[[], bool]:
        return lambda: asked() or time.monotonic() > begin + share * seconds

    experiments = planned(stage, steps or affordable(stage, PLANNED * seconds))
    root = Path("results/gpu") / name
    at_once = min(AT_ONCE, sum(len(each.cells) for each in experiments))
    run = Run(root, experiments, choose_device(DEVICE), "pool", at_once)
    run.save_config()
    run.open_data()
    with run.keeping():  # the processes that trained are there to measure
        trained = train_and_measure(run, by)
    print(*(f"failed: {failure}" for failure in run.failures), sep="\n")
    size = pack(root, OUT / f"{name}.tar.xz")
    networks, numbers = (
        len(list(root.glob(pattern))) for pattern in ("runs/*/*/*/done.json", "records/*/*/*.csv")
    )
    return (
        f"{name}: {networks} of {sum(len(each.cells) for each in experiments)} networks, {numbers} "
        f"of {sum(len(each.measurements) for each in experiments)} measurements, {size / 1e6:.1f} "
        f"MB; {trained - begin:.0f} s until trained, {time.monotonic() - trained:.0f} s to measure"
    )


def train_and_measure(run: Run, by: Callable[[float], Callable[[], bool]]) -> float:
    """All that there is time for; when training ended."""
    run.execute(run.train_jobs(), "training", by(STOPPED))
    trained = time.monotonic()
    jobs: list[Measure] = [
        job
        for job in run.record_jobs()
        if isinstance(job, Measure)
        and all((run.store.root / place / "done.json").exists() for place in job.uses)
    ]
    jobs.sort(key=lambda job: job.head.kind)  # method, then swept
    run.execute(jobs, "measuring", by(1.0))
    return trained


def pack(root: Path, archive: Path) -> int:
    """Records, configurations, ledgers and logs; samples, too, where they are not too much."""
    words = ["tar", "-C", str(root), "-cJf", str(archive), "--exclude=*.safetensors"]
    for without in ("state.pt", "*.png"):
        words.append(f"--exclude={without}")
        subprocess.run([*words, "."], check=True, env={**os.environ, "XZ_OPT": "-3 -T0"})
        if (size := archive.stat().st_size) < 16 * 2**20:
            break
    return size


def main() -> None:
    end, lines = time.monotonic() + float(sys.argv[1]), []
    left = [word.partition("=")[::2] for word in sys.argv[2:] or STAGES]
    os.environ |= capturable()
    daemon = mps() if any(pace(STAGES[name])[2] for name, _ in left) else contextlib.nullcontext()
    with daemon, stopping() as asked:
        while left and not asked():
            share = STAGES[left[0][0]].share / sum(STAGES[name].share for name, _ in left)
            name, steps = left.pop(0)
            try:
                seconds = share * (end - time.monotonic()) - 10  # to pack it
                lines.append(perform(name, int(steps or 0), seconds, asked))
            except Exception as error:  # what another task finished stays
                lines.append(f"{name}: FAIL {type(error).__name__} {error}")
    print(*lines, sep="\n")


if __name__ == "__main__":  # the pools start this file anew
    main()

"""What breaks on this device: a line an item, OK or FAIL, in $OUT/check.txt; the log in check.log.

. .gpu/main/setup && python3 -m benchmarks.gpu.check [SECONDS]     DEVICE=cpu rehearses it
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

from benchmarks.gpu.programs import NO_CAPTURE, capturable, end, python

if not {"DEVICE", "OUT", "YOTO_BENCH_CACHE"} <= os.environ.keys():
    sys.exit(__doc__)
DEVICE, OUT = os.environ["DEVICE"], Path(os.environ["OUT"])
TINY, WORK = DEVICE == "cpu", Path(tempfile.gettempdir()) / f"check-{os.getpid()}"
LOCK = threading.Lock()
TASKS = ["compression", "beta_vae_scenes", "toy", "style"]
if not (Path(os.environ["YOTO_BENCH_CACHE"]) / "vgg16-convs.safetensors").exists():
    TASKS.remove("style")  # .gpu/vgg was not brought along


def probe_steps(*cases: str) -> None:
    """Fifty steps of TASK/PRESET: pace, operations that wait for the device, memory."""
    import torch

    from bench import experiment
    from bench.method import build
    from bench.train import fit

    ordinary: list[str] = []
    for case in cases:
        name, size = case.split("/")
        plan = experiment(name, size, ["yoto"], settings=1, seeds=[0])
        task = plan.task.trained_with(steps=70, **({"batch": 2} if TINY else {}))
        (cell,) = plan.methods["yoto"].plan(task, plan.settings, 0)
        marks: list[float] = []

        def watch(marks: list[float] = marks) -> bool:
            if not TINY and len(marks) in (10, 60):
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode("warn" if len(marks) == 10 else "default")
            marks.append(time.perf_counter())
            return False

        with warnings.catch_warnings(record=True) as caught, tempfile.TemporaryDirectory() as to:
            warnings.simplefilter("always")
            ledger = fit(
                task, build(cell), partial(cell.method.draw, cell), 0, torch.device(DEVICE),
                Path(to), should_stop=watch, log_every=1000,
            )  # fmt: skip
        waits = {f"{w.filename}:{w.lineno}" for w in caught if "called a synchr" in str(w.message)}
        pace, peak = 20 * (marks[60] - marks[10]), ledger["peak_memory_bytes"] >> 20
        print(f"{case}: {pace:.2f} ms a step, waits {sorted(waits)}, peak {peak} MiB")
        if not TINY and not ledger["captured"]:
            ordinary += [f"{case}: {w.message}" for w in caught if "replayed" in str(w.message)]
    if not TINY:
        (free, total), kept = torch.cuda.mem_get_info(), torch.cuda.memory_reserved()
        print(f"{kept >> 20} MiB reserved, {(total - free - kept) >> 20} MiB taken beside")
    if ordinary:
        raise RuntimeError(f"steps are not replayed: {ordinary}")


def probe_agree() -> None:
    """Every method on every task, off its start: losses and gradients as on the CPU, in fp32."""
    import torch

    from bench import registry
    from bench.method import build
    from bench.run.work import exact
    from bench.task import weighted

    numbers: dict[str, dict[str, float]] = {"cpu": {}, DEVICE: {}}
    for name, label in ((name, label) for name in TASKS for label in registry.METHODS):
        size = registry.preset(registry.task_class(name), "smoke")
        method = registry.method(label, **size.methods.get(label, {}))
        if method.refuses(size.task):
            continue
        cell = method.plan(size.task, size.task.settings(2), 0)[0]
        batch = size.task.data("train").batch(4, torch.Generator().manual_seed(7))
        given = cell.method.draw(cell, 4, torch.Generator().manual_seed(1))
        for place in numbers:
            network = build(cell)
            with torch.no_grad():
                for weight in network.conditioner.parameters() if network.conditioner else ():
                    weight.add_(0.02 * torch.randn(weight.shape))
            network.to(place).eval()
            noiseless = patch("torch.randn_like", torch.zeros_like)
            with noiseless, exact():
                network.condition(given.to(place))
                terms = size.task.losses(network.model, batch.to(place))
                weighted(size.task.space, terms, given.to(place)).mean().backward()
            slopes = [p.grad.norm() for p in network.parameters() if p.grad is not None]
            terms["slope"] = torch.stack(slopes).norm()
            values = {f"{name} {label} {key}": term.mean().item() for key, term in terms.items()}
            numbers[place] |= values
    print(farthest(numbers["cpu"], numbers[DEVICE], 0.01))


def farthest(one: dict[str, float], other: dict[str, float], tolerance: float) -> str:
    """The largest relative differences of numbers by name (below 0.05, in units of that)."""
    off = {
        key: abs(value - other.get(key, float("nan"))) / max(abs(value), 0.05)
        for key, value in one.items()
        if value == value
    }
    worst = sorted(off, key=lambda key: (off[key] == off[key], -off[key]))[:3]
    text = f"of {len(off)} farthest: " + ", ".join(f"{key} {off[key]:.2g}" for key in worst)
    if not off or not all(value <= tolerance for value in off.values()):
        raise RuntimeError(f"apart by more than {tolerance:g}, {text}")
    return text


def apart(one: str, other: str, tolerance: float) -> str:
    """How far the means over examples in two results folders are apart."""
    from bench.run.records import loads

    means: list[dict[str, float]] = []
    for name in (one, other):
        values: dict[str, list[float]] = {}
        for path in (WORK / name).glob("records/*/*/*.csv"):
            for r in loads(path.read_text(), str(path)):
                values.setdefault(f"{r.method} {r.measure} at {r.setting}", []).append(r.value)
        means.append({key: fmean(each) for key, each in values.items()})
    return farthest(means[0], means[1], tolerance)


def shell(*words: object, most: float = math.inf) -> str:
    """Run a Python program, for `most` seconds, its output into the log; what it printed.
    RuntimeError if it fails."""
    status, lines = python(words, min(most, END - time.monotonic()), capturable())
    with LOCK, open(OUT / "check.log", "a") as log:
        print(f"\n===== {words} (status {status})", *lines, sep="\n", file=log)
    if time.monotonic() > END:
        raise RuntimeError("no time left")
    if status:
        telling = [line for line in lines if "Error" in line or "failed" in line.lower()]
        raise RuntimeError(f"status {status}: " + " | ".join((telling or lines)[-6:]))
    return " | ".join(lines[-3:])


def run(out: str, *words: str) -> str:
    shell("run_bench.py", "run", *words, "--out", WORK / out)
    return ""


def both(task: str) -> str:
    """Every method, trained on the CPU; its networks are measured there and on the device."""
    words = (task, "--preset", "smoke", "--methods", "all", "--device")
    run(f"{task}-cpu", *words, "cpu")
    ignore = shutil.ignore_patterns("records")
    shutil.copytree(WORK / f"{task}-cpu", WORK / f"{task}-moved", ignore=ignore)
    run(f"{task}-moved", *words, DEVICE)
    return apart(f"{task}-cpu", f"{task}-moved", 0.01)


def replayed(out: str, task: str, methods: str) -> str:
    """Trained and measured on the device; which methods' steps were not replayed."""
    run(out, task, "--preset", "smoke", "--methods", methods, "--device", DEVICE)
    ledgers = {
        path.parent.parent.name: json.loads(path.read_text())["ledger"]
        for path in (WORK / out).glob("runs/*/*/*/done.json")
    }
    ordinary = [method for method, ledger in ledgers.items() if not ledger.get("captured")]
    if ordinary and not TINY and not NO_CAPTURE.exists():
        raise RuntimeError(f"steps of {', '.join(ordinary)} are not replayed (see check.log)")
    return f"{len(ledgers)} methods"


def resumed() -> str:
    """Asked to stop, then killed, then finished."""
    root, task = WORK / "stopped", "toy" if TINY else "compression"
    words = ["run_bench.py", "run", task, "--methods", "yoto", "--settings", "1", "--seeds", "0"]
    words += ["--device", DEVICE, "--out", str(root)]
    for sign, status in {signal.SIGTERM: 130, signal.SIGKILL: -9}.items():
        process = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.DEVNULL, start_new_session=True
        )
        first = 0
        try:
            while process.poll() is None and time.monotonic() < END:
                size = sum(path.stat().st_size for path in root.glob("runs/*/yoto/*/log.jsonl"))
                first = first or size
                if size > first + 1000:
                    process.send_signal(sign)
                    process.wait(60)
                time.sleep(0.05)
        finally:
            end(process)
        if process.returncode != status:
            raise RuntimeError(f"{sign.name}: status {process.returncode}, not {status}")
    shell(*words)
    (log,) = root.glob("runs/*/yoto/*/log.jsonl")
    steps = [json.loads(line)["step"] for line in log.open()]
    if steps != sorted(set(steps)):
        raise RuntimeError("steps were logged twice")
    return f"{steps[-1]} steps"


def item(name: str, work: Callable[[], str]) -> None:
    begin = time.monotonic()
    try:
        line = f"OK   {name}: {work()}"
    except Exception as error:  # the others go on
        line = f"FAIL {name}: {error or type(error)}"
    line = f"{line[:1200]} ({time.monotonic() - begin:.0f} s)"
    with LOCK, open(OUT / "check.txt", "a") as file:
        print(line, flush=True)
        print(line, file=file)


def main() -> None:
    probe = partial(shell, "-m", "benchmarks.gpu.check", "--probe")
    size = "smoke" if TINY else "small"
    cases = [f"{task}/{'quick' if task == 'toy' and not TINY else size}" for task in TASKS]
    NO_CAPTURE.unlink(missing_ok=True)
    item("alone", partial(probe, "steps", *cases, most=60 if not TINY else math.inf))
    if "could not be captured" in (OUT / "check.txt").read_text():
        NO_CAPTURE.touch()  # all that follows is done step by step
    os.environ["OMP_NUM_THREADS"] = "2"  # from here on many at a time
    smoke = ("--preset", "smoke", "--device", DEVICE, "--methods")
    pool = ("toy", "beta_vae_scenes", *smoke, "yoto,fixed_grid", "--settings", "4", "--on", "pool")
    tests = ("tests/test_contract.py", "tests/test_capture.py", "-k", "not host")
    contract = ("-m", "pytest", "-q", "-n", "4", *tests, "--device", DEVICE)
    items: dict[str, Callable[[], str]] = {
        "the contract suite": partial(shell, *contract, *(["-k", "toy"] if TINY else [])),
        "losses and gradients as on the CPU": partial(probe, "agree"),
        "stopped, killed, resumed": resumed,
        **{f"{task}, measured on both": partial(both, task) for task in TASKS},
        **{f"{t}, all methods": partial(replayed, f"{t}-here", t, "all") for t in TASKS},
        "as many as fit": partial(run, "auto", *pool),
        "torch.compile": partial(
            replayed, "compiled", "toy[training.compile=true]", "yoto,fixed_grid"
        ),
    }  # fmt: skip
    with ThreadPoolExecutor(1 if TINY else 8) as crew:
        list(crew.map(item, items, items.values()))
    for task in TASKS:
        item(f"{task}, trained on both", partial(apart, f"{task}-cpu", f"{task}-here", 0.15))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        {"steps": probe_steps, "agree": probe_agree}[sys.argv[2]](*sys.argv[3:])
    else:
        END = time.monotonic() + float((sys.argv[1:] or ["400"])[0])
        main()

"""Golden numbers: what the smallest training of every task gives, the same from commit to commit.

    pytest tests/test_golden.py                               compares
    YOTO_BENCH_RENEW=1 pytest tests/test_golden.py -n 0       writes tests/expected/golden.json

Ids, parameters and FLOPs are compared exactly, losses within what another processor changes in so
few steps. A changed number is no fault where it was meant; then the version is raised where the
same fields come to mean something else, and the file is renewed.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.method import build
from bench.registry import TASKS, method, preset, task_class
from bench.train import fit

FILE = Path(__file__).parent / "expected" / "golden.json"
GROUP = {"beta_vae_cifar10": [pytest.mark.xdist_group("cifar10")]}
PAIRS = [
    pytest.param(task_name, method_name, marks=GROUP.get(task_name, []))
    for task_name in TASKS
    if task_name != "beta_vae_shapes3d"  # whose file everybody brings
    for method_name in ("fixed_grid", "yoto")
]


def cut_normal(weight: torch.Tensor, std: float, a: float, b: float) -> torch.Tensor:
    """A normal cut at a = -b. torch's own makes other numbers of a seed in other versions."""
    share = math.erf(b / std / math.sqrt(2))
    with torch.no_grad():
        return weight.uniform_(-share, share).erfinv_().mul_(math.sqrt(2) * std)


@pytest.mark.parametrize(("task_name", "method_name"), PAIRS)
def test_the_smallest_training_gives_the_golden_numbers(
    task_name: str,
    method_name: str,
    fetched: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched(task_name)
    monkeypatch.setattr(nn.init, "trunc_normal_", cut_normal)
    smoke = preset(task_class(task_name), "smoke")
    task = smoke.task
    trained = method(method_name, **smoke.methods.get(method_name, {}))
    cell = trained.plan(task, task.settings(2), 0)[0]
    draw = functools.partial(trained.draw, cell)
    ledger = fit(cell.task, build(cell), draw, cell.seed, torch.device("cpu"), tmp_path)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    counted = {name: ledger[name] for name in ("parameters", "conditioner_parameters")}
    counted |= {"id": cell.id, "flops_per_step": ledger["flops_per_step"]}
    losses = {"loss": last["loss"], **last["terms"]}

    golden = json.loads(FILE.read_text())
    label = f"{task_name}, {method_name}"
    if os.environ.get("YOTO_BENCH_RENEW"):
        golden[label] = counted | {name: float(f"{value:.5g}") for name, value in losses.items()}
        FILE.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
        return
    assert counted == {name: golden[label][name] for name in counted}
    assert losses == pytest.approx({name: golden[label][name] for name in losses}, rel=2e-2)

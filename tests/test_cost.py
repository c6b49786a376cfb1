"""What networks cost: the clock, memory, what answering and tuning take, and when it pays."""

from __future__ import annotations

import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ideal import edit, row_of, run_of
from test_report import write_results

from baselines.fixed_grid_tuned import FixedGridTuned
from baselines.hypernetwork import WeightMaker
from baselines.yoto_tuned import YotoTuned
from bench import cost
from bench.checkpoint import load_state
from bench.conditioners import Encoding
from bench.cost import Clock, Memory, count_flops, stepping
from bench.method import Method, build
from bench.registry import method
from bench.report import cost_tables
from bench.report.answers import compare, costs
from bench.report.load import load_results
from bench.report.notes import notes
from bench.report.sentence import verdict_sentence
from bench.run.plan import experiment
from bench.run.runner import Run
from bench.space import Axis, Space
from bench.train import Interrupted, fit

CPU = torch.device("cpu")
MEBI = 2**20
REFERENCE = Path(__file__).parent.parent / "results/reference"
ABLATION = REFERENCE / "ablation-quick-cpu-amd-epyc/records.tar.xz"
GRID_ABLATION = REFERENCE / "ablation-grid-quick-cpu-amd-epyc/records.tar.xz"


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock; the processor's runs twice as fast. Nobody waits for a device."""
    now = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cost.time, "process_time", lambda: 2 * now[0])
    monkeypatch.setattr(cost.torch.cuda, "synchronize", lambda *_: None)
    return now


@pytest.mark.parametrize(("device", "trained"), [("cpu", 4.0), ("cuda", 7.0)])
def test_waiting_for_data_pauses_the_step_on_a_cpu_and_not_on_a_gpu(
    times: list[float], device: str, trained: float
) -> None:
    clock = Clock(torch.device(device))
    with clock.phase("train"):
        times[0] += 1
        with clock.phase("data", synchronise=False):
            times[0] += 3
        times[0] += 3
        with clock.phase("checkpoint"):
            times[0] += 5
    assert clock.seconds == {"train": trained, "data": 3.0, "checkpoint": 5.0}
    assert clock.processor == {name: 2 * value for name, value in clock.seconds.items()}
    ledger = {"seconds": clock.seconds, "device": device}
    assert stepping(ledger) == 7.0


def test_the_clock_goes_on_through_a_resume(times: list[float]) -> None:
    clock = Clock(CPU, {"train": 1.0}, {"train": 8.0})
    with clock.phase("train"):
        times[0] += 2
    assert clock.seconds == {"train": 3.0}
    assert clock.processor == {"train": 12.0}


def test_processor_seconds_are_kept_in_the_checkpoint(tmp_path: Path) -> None:
    (cell,) = experiment("toy", "smoke", ["yoto"]).cells
    draw = functools.partial(cell.method.draw, cell)
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == 200

    with pytest.raises(Interrupted):
        fit(cell.task, build(cell), draw, 0, CPU, tmp_path, should_stop=stop)
    state = load_state(tmp_path / "state.pt", CPU)
    assert state is not None
    assert state["processor"]["train"] > 0
    ledger = fit(cell.task, build(cell), draw, 0, CPU, tmp_path)
    assert ledger["processor_seconds"]["train"] > state["processor"]["train"]
    assert ledger["processor_seconds"].keys() == ledger["seconds"].keys()
    assert 0 < ledger["net_memory_bytes"] < ledger["peak_memory_bytes"]


def test_net_memory_is_what_came_since(monkeypatch: pytest.MonkeyPatch) -> None:
    held = torch.ones(64 * MEBI // 4)
    memory = Memory(CPU)
    more = torch.ones(48 * MEBI // 4)
    del more
    assert 40 * MEBI < memory.net < 56 * MEBI  # the peak, though it is gone
    assert memory.peak > memory.net + held.nbytes
    assert Memory(CPU, held=held.nbytes).net >= held.nbytes  # the network's own


def test_net_memory_on_a_gpu_leaves_out_what_was_allocated(monkeypatch) -> None:
    asked: list[str] = []
    for name, value in (
        ("reset_peak_memory_stats", None), ("memory_allocated", 100),
        ("max_memory_allocated", 700), ("max_memory_reserved", 900),
    ):  # fmt: skip
        monkeypatch.setattr(
            cost.torch.cuda, name, lambda *_, name=name, value=value: asked.append(name) or value
        )
    memory = Memory(torch.device("cuda"), held=30)
    assert asked == ["reset_peak_memory_stats", "memory_allocated"]
    assert (memory.peak, memory.net, memory.reserved) == (700, 630, 900)


def test_the_hypernetworks_product_is_counted() -> None:
    """A linear layer 5 to 3: 3 · 5 + 3 weights from 16 units, at 2 FLOPs a multiply-add."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 3))
    maker = WeightMaker(model, Encoding(Space((Axis(name="a", low=1, high=4),)), "log"), 16)
    maker.attach(model)
    trunk = 2 * (1 * 16 + 16 * 16)
    with torch.no_grad():
        counted = count_flops(lambda: maker.condition(torch.tensor([[2.0]])))
    assert counted == trunk + 2 * 18 * 16


def test_what_a_method_does_to_answer_is_measured_and_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baselines.single_model import SingleModel

    def search(self: Any, task: Any, cells: Any, networks: Any, setting: Any) -> Any:
        model = networks[0].model
        for _ in range(10):
            model(torch.zeros(32, task.dimension))
        return model

    monkeypatch.setattr(SingleModel, "at", search)
    run = Run(tmp_path, [experiment("toy", "smoke", ["fixed_grid", "single_model"])], CPU)
    run.execute(run.train_jobs(), "training", lambda: False)
    run.execute(run.record_jobs(), "measuring", lambda: False)
    assert run.failures == []
    each = 10 * 2 * 32 * 4 * 4
    heads = [json.loads(p.read_text()) for p in tmp_path.glob("records/toy/single_model/*.json")]
    assert [head["answering_flops"] for head in heads] == [each] * 3
    found = costs.savings(run_of(tmp_path)).set_index("method")
    trained = found.at["fixed_grid", "flops"] / 3
    assert found.at["single_model", "answering_flops"] == 3 * each
    assert found.at["single_model", "flops"] == trained + 3 * each
    assert found.at["fixed_grid", "answering_flops"] == 0
    assert (found["processor_seconds"] > 0).all()
    assert (found["net_memory_bytes"] > 0).all()
    row = row_of(costs.break_evens(run_of(tmp_path)), method="single_model", unit="flops")
    assert row["crossing"] == pytest.approx(trained / (trained - each))


def test_a_search_as_dear_as_a_training_never_pays(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1))
    heads(tmp_path, "single_model", answering_flops=2 * 10**13)
    row = row_of(costs.break_evens(run_of(tmp_path)), method="single_model", unit="flops")
    assert math.isnan(row["settings"])
    assert row_of(costs.break_evens(run_of(tmp_path)), method="yoto", unit="flops")["settings"] == 3


def heads(root: Path, name: str, **more: Any) -> None:
    edit(root, f"records/*/{name}/*.json", lambda head: more)


def ledgers(root: Path, **more: Any) -> None:
    edit(root, "runs/*/*/*/done.json", lambda done: {"ledger": done["ledger"] | more})


def test_finding_the_levers_is_paid_before_the_first_setting(tmp_path: Path) -> None:
    """yoto costs two grid networks and found its levers in seven more: nine, cheaper from ten."""
    write_results(tmp_path, seeds=(0, 1))
    tried = {"variants": 7, "examples": 7 * 8000, "flops": 7 * 2 * 10**13, "preset": "quick"}
    before = costs.break_evens(run_of(tmp_path))
    assert before["settings_tuned"].isna().all()  # older records do not say
    assert (
        "FLOPs, tuning counted" not in cost_tables.break_even_sheet(run_of(tmp_path), before).head
    )
    heads(tmp_path, "yoto", tuning=tried, answering_flops=0)
    heads(tmp_path, "unconditioned", tuning=None, answering_flops=0)
    found = costs.break_evens(run_of(tmp_path))
    for unit in ("flops", "examples"):
        row = row_of(found, method="yoto", unit=unit)
        assert (row["settings"], row["settings_tuned"]) == (3, 10)
        row = row_of(found, method="unconditioned", unit=unit)
        assert row["settings"] == row["settings_tuned"] == 2
    assert math.isnan(row_of(found, method="yoto", unit="seconds")["settings_tuned"])
    sheet = cost_tables.break_even_sheet(run_of(tmp_path), found)
    (cells,) = [row for row in sheet.rows if row[0] == "YOTO"]
    assert sheet.head[-1] == "FLOPs, tuning counted"
    assert cells[-1] == "10"
    said = verdict_sentence(run_of(tmp_path))
    assert "cheaper from 3 settings on (from 10, the search for its levers counted)." in said
    saved = costs.savings(run_of(tmp_path)).set_index("method")
    assert saved.at["yoto", "tuning_variants"] == 7
    assert saved.at["yoto", "tuning_flops"] == 14 * 10**13
    assert saved.at["unconditioned", "tuning_variants"] == 0
    assert np.isnan(saved.at[costs.ALL, "tuning_flops"])


@pytest.mark.parametrize(
    "grids", [("fixed_grid",), ("fixed_grid", "fixed_grid_tuned"), ("fixed_grid_tuned",)]
)
def test_a_tuned_method_beside_an_untuned_grid_is_told(
    grids: tuple[str, ...], tmp_path: Path
) -> None:
    write_results(tmp_path, methods=(*grids, "yoto"))
    tried = {"variants": 7, "examples": 1, "flops": 1, "preset": "quick"}
    for name in ("yoto", *(grid for grid in grids if grid != "fixed_grid")):
        heads(tmp_path, name, tuning=tried)
    run = run_of(tmp_path)
    frames = compare.comparisons(run), compare.overall(run), costs.savings(run)
    told = any("levers of YOTO were found" in note for note in notes(run, *frames))
    assert told == ("fixed_grid_tuned" not in grids)
    said = verdict_sentence(run)
    assert ("levers of YOTO were searched for and the grid's were not" in said) == told


def test_the_processors_seconds_are_quoted_of_a_shared_device(tmp_path: Path) -> None:
    write_results(tmp_path, shared=("fixed_grid", "yoto", "unconditioned"))
    assert costs.savings(run_of(tmp_path))[["seconds", "processor_seconds"]].isna().all(axis=None)
    ledgers(tmp_path, processor_seconds={"train": 60.0, "data": 1.0})
    saved = costs.savings(run_of(tmp_path)).set_index("method")
    assert saved["seconds"].isna().all()
    assert saved.at["fixed_grid", "processor_seconds"] == 300
    assert saved.at["yoto", "processor_seconds_ratio"] == pytest.approx(0.2)
    assert "processor time" in cost_tables.savings_sheet(run_of(tmp_path), saved.reset_index()).head
    ledgers(tmp_path, device="cuda")  # there it says little of the work
    assert costs.savings(run_of(tmp_path))["processor_seconds"].isna().all()


def test_the_table_of_costs_shows_net_memory(tmp_path: Path) -> None:
    write_results(tmp_path)
    ledgers(tmp_path, net_memory_bytes=5 * 10**6)
    run = run_of(tmp_path)
    sheet = cost_tables.savings_sheet(run, costs.savings(run))
    column = sheet.head.index("net memory")
    assert {row[column] for row in sheet.rows} == {"5 MB"}


@pytest.mark.parametrize(
    ("tuned", "methods", "archives"),
    [
        (YotoTuned, "yoto*", [ABLATION, GRID_ABLATION]),
        (FixedGridTuned, "fixed_grid*", [GRID_ABLATION]),
    ],
)
def test_what_found_the_levers_is_what_the_ablation_trained(
    tuned: type[Method], methods: str, archives: list[Path], tmp_path: Path
) -> None:
    for archive in archives:
        shutil.unpack_archive(archive, tmp_path)
    for task, tuning in tuned.tuning.items():
        variants: dict[str, set[str]] = {}
        for path in tmp_path.glob(f"records/{task}/{methods}/*.json"):
            record = json.loads(path.read_text())
            variants.setdefault(record["method"], set()).update(record["cells"])
        used = set().union(*variants.values())
        ends = tmp_path.glob(f"runs/{task}/*/*/done.json")
        done = {path.parent.name: json.loads(path.read_text()) for path in ends}
        chains = used | {done[cell]["after"] for cell in used if done[cell]["after"]}
        ledgers = [done[cell]["ledger"] for cell in chains]
        assert tuning.variants == len({frozenset(cells) for cells in variants.values()})
        assert tuning.examples == sum(ledger["examples"] for ledger in ledgers)
        assert tuning.flops == sum(ledger["flops"] for ledger in ledgers)
        assert {done[cell]["preset"] for cell in chains} == {tuning.preset}


@pytest.mark.parametrize("task", FixedGridTuned.tuning)
def test_the_tuned_grid_has_the_levers_that_did_best_in_the_search(
    task: str, tmp_path: Path
) -> None:
    """Least loss, as the mean over settings and validation examples of what it is in the plain
    grid's, in per cent, or in nats where the task's own gaps are."""
    shutil.unpack_archive(GRID_ABLATION, tmp_path)
    (run,) = [run for run in load_results(tmp_path).runs if run.task == task]
    assert set(run.measured["split"]) == {"validation"}
    losses = run.records[run.records["measure"] == "loss"]
    table = losses.pivot_table(index=["setting", "example"], columns="method", values="value")
    assert not table.isna().any(axis=None)
    plain = table["fixed_grid"] if run.measures["loss"].relative else 1.0
    means = table.div(plain, axis=0).mean()
    best = means.filter(like="fixed_grid").idxmin()
    planned = experiment(task, "quick", ["fixed_grid_tuned", best])
    cells = [{cell.id for cell in cells} for cells in planned.plans.values()]
    assert cells[0] == cells[1]
    if any(name.startswith("yoto") for name in means.index):  # its rate was searched beside
        planned = experiment(task, "quick", ["yoto_tuned", means.filter(like="yoto").idxmin()])
        assert len({cell.task.training.lr for cell in planned.cells}) == 1


def test_only_what_was_tuned_says_so() -> None:
    assert method("yoto").tuning == method("single_model").tuning == {}

"""Test examples measured together: in order, each with its own numbers, and with one wait for the
device a measure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import measuring
from bench.plugins.contract import ContractError, check
from bench.registry import method, preset, task_class
from bench.run import schema
from bench.run.plan import Experiment
from bench.run.runner import Run
from bench.run.work import measured
from bench.tasks.toy import Toy

ROWS = torch.randn(7, 4, generator=torch.Generator().manual_seed(5))
EXAMPLES = [(str(place), row[None]) for place, row in enumerate(ROWS)]


@dataclass(frozen=True, kw_only=True)
class Several(Toy):
    name: ClassVar[str] = "several"
    measured_at_once: ClassVar[int] = 5


@dataclass(frozen=True, kw_only=True)
class Centred(Several):
    """Its numbers follow from the other examples."""

    name: ClassVar[str] = "centred"
    measured_at_once: ClassVar[int] = 5

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return self.losses(model, batch - batch.mean(0) / 2)


@dataclass(frozen=True, kw_only=True)
class Shuffled(Several):
    """The numbers of its examples change places."""

    name: ClassVar[str] = "shuffled"
    measured_at_once: ClassVar[int] = 5

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {name: term.flip(0) for name, term in self.losses(model, batch).items()}


@dataclass(frozen=True, kw_only=True)
class Averaged(Several):
    """One number for all, as one that was written for a single example."""

    name: ClassVar[str] = "averaged"
    measured_at_once: ClassVar[int] = 5

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {name: term.mean()[None] for name, term in self.losses(model, batch).items()}


@dataclass(frozen=True, kw_only=True)
class WrittenForOne(Several):
    name: ClassVar[str] = "written_for_one"

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        assert len(batch) == 1
        return self.losses(model, batch)


def smallest(kind: type[Toy]) -> Any:
    return preset(kind, "smoke").task.trained_with(steps=2)


def experiment(task: Any) -> Experiment:
    chosen = {"fixed_grid": method("fixed_grid")}
    settings = task.space.grid(2)
    return Experiment(task=task, preset="smoke", settings=settings, seeds=(0,), methods=chosen)


def test_neighbours_of_one_shape_are_put_together_in_order() -> None:
    wide = [(f"wide {i}", torch.zeros(1, 9)) for i in range(2)]
    batches = list(measuring.alike([*EXAMPLES, *wide, EXAMPLES[0]], 5))
    assert [names for names, _ in batches] == [
        list("01234"), list("56"), ["wide 0", "wide 1"], ["0"],
    ]  # fmt: skip
    assert torch.equal(torch.cat([batch for names, batch in batches[:2]]), ROWS)
    assert [len(names) for names, _ in measuring.alike(EXAMPLES, 1)] == [1] * 7
    assert list(measuring.alike([], 5)) == []


def test_tuples_are_joined_and_what_cannot_be_joined_stays_alone() -> None:
    pairs = [(name, (row, torch.tensor([int(name)]))) for name, row in EXAMPLES]
    ((names, (rows, labels)), *_) = measuring.alike(pairs, 7)
    assert names == list("0123456")
    assert torch.equal(rows, ROWS)
    assert labels.tolist() == list(range(7))
    bags = [("a", torch.zeros(3, 4)), ("b", torch.zeros(3, 4))]  # the first dimension is no batch
    for odd in (bags, [("a", {"x": ROWS[:1]}), ("b", {"x": ROWS[:1]})]):
        assert [(names[0], batch) for names, batch in measuring.alike(odd, 7)] == odd


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="measured_at_once 0: use 1 or more"):
        list(measuring.alike(EXAMPLES, 0))


def test_rows_come_by_example_also_where_a_measure_is_not_of_all() -> None:
    batches = [
        (["a", "b"], {"one": torch.tensor([1.0, 2.0]), "two": torch.tensor([3.0, 4.0])}),
        (["c"], {"two": torch.tensor([5.0])}),
    ]
    assert measuring.rows(batches) == [
        ("a", "one", 1.0), ("a", "two", 3.0), ("b", "one", 2.0), ("b", "two", 4.0),
        ("c", "two", 5.0),
    ]  # fmt: skip


def test_a_measure_written_anew_is_given_one_example_at_a_time() -> None:
    assert Several.measured_at_once == 5
    assert WrittenForOne.measured_at_once == 1
    assert task_class("toy").measured_at_once == 1


@pytest.mark.parametrize("kind", [Centred, Shuffled])
def test_mixed_up_examples_are_refused_with_the_way_out(kind: type[Toy]) -> None:
    says = r"measures 'nearness' of the example '.' as .* alone .* or set measured_at_once = 1"
    with pytest.raises(ContractError, match=rf"{kind.name!r} {says}"):
        check(experiment(smallest(kind)))


def test_a_number_for_the_batch_is_refused_by_the_check_and_in_a_run() -> None:
    task = smallest(Averaged)
    says = r"measure\(\) of the task 'averaged' returns \(1,\) for 'nearness' of a batch of "
    with pytest.raises(ContractError, match=says + "3: .* or set measured_at_once = 1"):
        check(experiment(task))
    with pytest.raises(ValueError, match=says + "7: .* or set measured_at_once = 1"):
        measuring.measures(task, task.model(), ROWS, (1.0,), 7)


@pytest.mark.parametrize("kind", [Several, WrittenForOne])
def test_what_keeps_the_contract_is_let_through(kind: type[Toy]) -> None:
    check(experiment(smallest(kind)))


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_a_run_measures_together_what_it_measures_one_by_one_without_a_wait_a_number(
    tmp_path: Path,
) -> None:
    rows, calls = [], []
    for kind in (Toy, Several):
        root = tmp_path / kind.__name__
        run = Run(root, [experiment(smallest(kind))], torch.device("cpu"))
        run.execute(run.train_jobs(), "training", lambda: False)
        assert run.failures == []
        job = run.record_jobs()[0]
        assert isinstance(job, schema.Measure)
        with torch.no_grad(), Counting() as counted:
            records, _ = measured(run.store, job, job.task.revive(Toy))
        rows.append({(record.example, record.measure): record.value for record in records})
        calls.append(counted.calls)
    alone, together = rows
    assert list(together) == list(alone)  # 16 examples, in batches of 5
    assert together == pytest.approx(alone, rel=1e-5)
    assert calls[0]["_local_scalar_dense"] == calls[1]["_local_scalar_dense"] <= 1
    assert calls[1]["addmm"] == 4 < calls[0]["addmm"] == 16


def test_one_at_a_time_the_bits_are_those_of_the_task_itself() -> None:
    task = smallest(Toy)
    model = task.model().eval()
    with torch.no_grad():
        for _, batch in measuring.alike(EXAMPLES, task.measured_at_once):
            values = measuring.measures(task, model, batch, (1.0,), 1)
            for name, value in task.measure(model, batch).items():
                assert torch.equal(values[name], value)


class Halved:
    """A mixin that measures by code of its own."""

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {name: term / 2 for name, term in super().measure(model, batch).items()}  # type: ignore[misc]


def test_who_measures_by_other_code_is_given_one_example_at_a_time() -> None:
    class Mixed(Halved, Several):
        pass

    class Otherwise(Several):
        def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
            return super().losses(model, batch)

    class Further(Several):
        def measure_at(self, *_: Any) -> dict[str, Tensor]:
            return {}

    class Alike(Several):
        line = "nothing else"

    class Below(Mixed):
        measured_at_once = 3

    kinds = (Several, Alike, Mixed, Otherwise, Further, Below)
    assert [kind.measured_at_once for kind in kinds] == [5, 5, 1, 1, 1, 3]


def test_what_a_task_fills_anew_keeps_each_examples_number(tmp_path: Path, completed: Any) -> None:
    buffer = torch.zeros(1)

    class Refilled(Toy):
        name = "refilled"

        def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
            terms = self.losses(model, batch)
            return {**terms, "size": buffer.copy_(terms["size"])}

    task = Refilled(training=smallest(Toy).training)
    model = task.model()
    expected = [task.losses(model, row)["size"].item() for _, row in EXAMPLES]
    batches = []
    for names, batch in measuring.alike(EXAMPLES, 1):
        values = measuring.measures(task, model, batch, (1.0,), 1)
        batches.append((names, {name: measuring.kept(value) for name, value in values.items()}))
    rows = [value for _, name, value in measuring.rows(batches) if name == "size"]
    assert rows == expected
    whole = [(["a"], {"n": measuring.kept(torch.tensor([2**24 + 1]))})]
    whole.append((["b"], {"n": measuring.kept(torch.tensor([float("nan")]))}))
    assert measuring.rows(whole)[0] == ("a", "n", 2**24 + 1)

"""The training loop: fairness between methods, divergence, damage, full disks."""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import files
from bench.checkpoint import MAGIC, load_state, restore_log, save_state
from bench.method import Cell, build
from bench.registry import method
from bench.tasks.toy import Toy
from bench.train import Diverged, Interrupted, fit, rate_at

CPU = torch.device("cpu")
TASK = Toy.presets()["smoke"].task


def toy(**training) -> Toy:
    return Toy(training=replace(TASK.training, **training))


def cell(name: str = "yoto", task: Toy = TASK) -> Cell:
    planned = method(name).plan(task, task.space.grid(3), 0)
    return planned[len(planned) // 2]


def run(trained: Cell, folder: Path, **options):
    network = build(trained)
    draw = functools.partial(trained.method.draw, trained)
    ledger = fit(trained.task, network, draw, trained.seed, CPU, folder, **options)
    return network, ledger


def interrupted(folder: Path, after: int = 1, **options) -> Path:
    """The checkpoint of a training that was stopped after so many steps."""
    folder.mkdir(exist_ok=True)
    steps = iter(range(1, after + 1))
    with pytest.raises(Interrupted, match=f"after step {after} of 300, state saved"):
        run(cell(), folder, should_stop=lambda: next(steps) == after, **options)
    return folder / "state.pt"


def same(ours: torch.nn.Module, theirs: torch.nn.Module, **near: float) -> None:
    near = near or {"rtol": 0, "atol": 0}
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], value, **near)


def test_it_learns_the_closed_form(tmp_path: Path) -> None:
    network, _ = run(cell("fixed_grid"), tmp_path)
    (c,) = cell("fixed_grid").trained_for[0]
    best = c / (1 + c) * torch.eye(TASK.dimension)
    torch.testing.assert_close(network.model[0].weight.detach(), best, atol=0.02, rtol=0)


def test_methods_of_a_seed_share_start_data_and_noise(tmp_path: Path) -> None:
    """The plain model starts with the same weights, and the batches come in the same order."""
    plain, conditioned = build(cell("fixed_grid")), build(cell("yoto"))
    weights = dict(plain.model.named_parameters())
    for name, value in conditioned.model.named_parameters():
        assert torch.equal(value, weights[name.replace("0.layer.", "0.")])
    seen: dict[str, list[torch.Tensor]] = {}
    for name in ("fixed_grid", "yoto"):

        class Spy(Toy):
            batches = seen.setdefault(name, [])

            def losses(self, model, batch):
                self.batches.append(torch.cat([batch.flatten(), torch.rand(1)]))
                return super().losses(model, batch)

        run(cell(name, Spy(training=toy(steps=5).training)), tmp_path)
    assert len(seen["yoto"]) == 2 + 5  # FLOPs are counted in the second call
    for ours, theirs in zip(seen["fixed_grid"][2:], seen["yoto"][2:], strict=True):
        assert torch.equal(ours, theirs)


def test_a_non_finite_loss_stops_the_cell(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="between steps 0 and 3") as caught:
        run(cell("fixed_grid", toy(lr=1e30, schedule="constant")), tmp_path)
    assert caught.value.ledger["steps"] == 3


# Checkpoints and logs


def test_a_damaged_checkpoint_is_noticed_and_put_aside(tmp_path: Path) -> None:
    state = interrupted(tmp_path)
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.warns(UserWarning, match=r"damaged: it is kept as state\.damaged"):
        assert load_state(state, CPU) is None
    assert (tmp_path / "state.damaged").exists()


def test_a_checkpoint_of_another_network_says_what_to_do(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(RuntimeError, match=r"of another network .*: delete it and run again"):
        run(cell("fixed_grid"), tmp_path)


def test_a_sound_checkpoint_stays_where_memory_is_short(tmp_path: Path, monkeypatch) -> None:
    state = interrupted(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", lambda *_, **__: torch.empty(1 << 50))
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            load_state(state, CPU)
    assert load_state(state, CPU) is not None


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    buffer = io.BytesIO()
    torch.save({"step": Payload()}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    (tmp_path / "state.pt").write_bytes(MAGIC + digest + b"\n" + buffer.getvalue())
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_state(tmp_path / "state.pt", CPU) is None
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch) -> None:
    state = interrupted(tmp_path)
    before = state.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="free some space"):
        save_state(state, {"step": 2})
    assert state.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if ".tmp" in p.name] == []


def test_lines_after_the_checkpoint_are_dropped_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": s}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "lo')
    restore_log(log, 2)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: log.write_bytes(b""),
        lambda log: log.write_bytes(b"\xff{\n3\n"),
        lambda log: log.write_text(log.read_text().replace('"loss": 0.', '"loss": 1.')),
        Path.unlink,
    ],
)
def test_a_damaged_log_loses_its_lines_and_not_the_checkpoint(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    whole, _ = run(cell(), tmp_path)
    log = interrupted(tmp_path / "broken", after=100, log_every=5).with_name("log.jsonl")
    damage(log)
    steps: list[int] = []
    with pytest.warns(UserWarning, match=r"log\.jsonl is damaged: its lines until now are lost"):
        again, _ = run(cell(), log.parent, log_every=5, progress=lambda e: steps.append(e["step"]))
    first, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert first == {"step": 100, "lost": "the lines until this step were damaged"}
    assert [line["step"] for line in lines] == steps == [*range(105, 301, 5)]
    same(whole, again)


def test_a_log_on_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()  # a write to it fails
    with pytest.raises(OSError, match=r"while writing .*log\.jsonl.*free some space"):
        files.append_line(tmp_path / "log.jsonl", "{}")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"while writing .*free some space"):
        files.write_atomic(tmp_path / "file" / "config.json", "{}")


# Rates, costs, compilation


def test_one_cycle_is_torchs() -> None:
    training = replace(TASK.training, steps=50, lr=0.1, warmup=0.3)
    adam = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(adam, 0.1, 51, pct_start=16 / 51)
    for step in range(0, 50, 7):
        while theirs.last_epoch < step:
            adam.step()
            theirs.step()
        assert rate_at(training, step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)


def test_halving_halves_at_its_milestones() -> None:
    training = replace(TASK.training, steps=100, lr=1.0, schedule="halving", milestones=(0.5, 0.8))
    assert [rate_at(training, s) for s in (0, 49, 50, 79, 80)] == [1, 1, 0.5, 0.5, 0.25]


def test_the_ledger_counts(tmp_path: Path) -> None:
    _, ledger = run(cell("yoto"), tmp_path)
    assert ledger["examples"] == TASK.training.steps * TASK.training.batch
    rows, width = TASK.training.batch, TASK.dimension
    # forward and the weight's gradient of one linear layer: 2 FLOPs a multiply-add each; the
    # conditioner's products come on top.
    assert ledger["flops_per_step"] > 2 * 2 * rows * width * width
    _, plain = run(cell("fixed_grid"), tmp_path)
    assert plain["flops_per_step"] == 2 * 2 * rows * width * width
    assert ledger["flops"] == ledger["flops_per_step"] * ledger["steps"]
    assert plain["parameters"] == width * width + width
    assert plain["conditioner_parameters"] == 0


def test_compiled_steps_train_the_same_network(tmp_path: Path) -> None:
    eager, _ = run(cell("yoto", toy(steps=5)), tmp_path)
    compiled, ledger = run(cell("yoto", toy(steps=5, compile=True)), tmp_path)
    assert "compile" in ledger["seconds"]
    same(eager, compiled, rtol=1e-4, atol=1e-6)

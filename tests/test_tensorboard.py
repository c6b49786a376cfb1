"""`run --log tensorboard`, read back as TensorBoard reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.run import runner
from bench.run.schema import CellConfig, Ended, Plugin, Step, Train
from bench.run.tensorboard import TensorBoard, folder

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
TOY = ["run", "toy", "--preset", "smoke", "--methods", "yoto,fixed_grid", "--log", "tensorboard"]


def curves(place: Path) -> dict[str, dict[int, float]]:
    """By name, the value at each step."""
    events = accumulator.EventAccumulator(str(place))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: {each.step: each.value for each in events.Scalars(name)} for name in names}


def networks(out: Path) -> dict[str, Path]:
    """The folders below `tensorboard`, by the cell that is the end of their name."""
    return {place.name.split()[-1]: place for place in out.glob("tensorboard/*/*/*")}


@pytest.mark.parametrize("how", [[], ["--on", "pool", "--per-device", "2"]])
def test_every_training_has_its_loss_and_terms(tmp_path: Path, how: list[str]) -> None:
    assert main([*TOY, *how, "--out", str(tmp_path)]) == 0
    logs = {path.parent.name: path for path in tmp_path.glob("runs/*/*/*/log.jsonl")}
    assert networks(tmp_path).keys() == logs.keys()
    assert len(logs) == 4
    for cell, place in networks(tmp_path).items():
        lines = [json.loads(line) for line in logs[cell].read_text().splitlines()]
        read = curves(place)
        assert set(read) == {"loss", "terms/nearness", "terms/size"}
        for line in lines:
            assert read["loss"][line["step"]] == pytest.approx(line["loss"])
            assert read["terms/size"][line["step"]] == pytest.approx(line["terms"]["size"])
        assert len(read["loss"]) == len(lines)
    names = sorted(place.name.rpartition(" ")[0] for place in networks(tmp_path).values())
    assert names == ["c = 0.1 seed 0", "c = 1 seed 0", "c = 10 seed 0", "seed 0"]


def test_where_the_package_is_missing_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main([*TOY, "--out", str(tmp_path)]) == 2
    assert "pip install 'yoto-bench[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def job(root: Path, label: str = "toy yoto, seed 0") -> Train:
    plugin = Plugin(target="bench.tasks.toy:Toy", fields={})
    config = CellConfig(
        id="0123456789ab", preset="smoke", task=plugin, method=plugin, seed=0, trained_for=()
    )
    uses = ("runs/toy/yoto/0123456789ab",)
    return Train(id="a", label=label, root=str(root), device="cpu", uses=uses, cell=config)


def step(number: int, loss: float) -> Step:
    return Step(
        job="a", step=number, steps=9, loss=loss, terms={"size": 2 * loss},
        examples_per_second=1, seconds_left=1,
    )  # fmt: skip


def test_steps_that_a_resumed_training_does_again_count_once(tmp_path: Path) -> None:
    """A kill leaves steps beyond the checkpoint; they are done once more."""
    for numbers, loss in (((1, 2, 3), 5.0), ((2, 3, 4), 7.0)):
        log = TensorBoard(tmp_path)
        for number in numbers:
            log.handle(step(number, loss), job(tmp_path))
        log.handle(Ended(job="a", how="stopped"), job(tmp_path))
    read = curves(tmp_path / "tensorboard" / folder(job(tmp_path)))
    assert read["loss"] == {1: 5, 2: 7, 3: 7, 4: 7}


def test_a_disk_that_takes_no_more_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = TensorBoard(tmp_path)
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.warns(UserWarning, match="no more is written to"):
        log.handle(step(1, 1.0), job(tmp_path))
    log.handle(step(2, 1.0), job(tmp_path))


def test_a_name_that_no_folder_can_have_is_shortened(tmp_path: Path) -> None:
    long = "style yoto, " + ", ".join(f"term{i} = 1" for i in range(40)) + ", seed 0"
    assert folder(job(tmp_path, long)).name == "seed 0 0123456789ab"


def test_a_run_goes_on_with_the_same_log(tmp_path: Path) -> None:
    """The line that a stopped run prints has it."""
    from bench.cli import parsed
    from bench.continuing import continuation

    line = continuation(parsed([*TOY, "--out", str(tmp_path)]), tmp_path / "config.json")
    assert "--log tensorboard" in line
    assert runner.Run(tmp_path, [], runner.choose_device("cpu")).listeners == []

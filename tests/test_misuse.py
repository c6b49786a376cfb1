"""What is said on misuse, with the way out, and the flags that the tasks of a run have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from bench.cli import main, parsed

TOY = ["run", "toy", "--preset", "smoke"]
SMALL = ["run", "compression", "--preset", "smoke", "--methods", "yoto"]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def picture(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    Image.effect_noise((96, 96), 60).convert("RGB").save(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum"], "did you mean run"),
        (["toy"], "run_bench.py run toy"),
        (["run", "compresion"], "did you mean compression"),
        ([*TOY, "--methods", "yotto"], "did you mean yoto"),
        (["run", "toy", "--preset", "quik"], "did you mean quick?"),
        (["run", "./nothing.py"], "there is no file"),
        ([*TOY, "--seeds", "one"], "whole numbers"),
        ([*TOY, "--lengths", "half"], "shares of the steps, as in 0.25,0.5,1"),
        ([*TOY, "--lengths", "0.5,2"], "above 0 and at most 1"),
        (["run", "--config", "x.json", "--lengths", "1"], "leave out lengths"),
        ([*TOY, "--on", "here", "--per-device", "2"], "needs --on pool"),
        ([*TOY, "--train-data", "x"], "--train-data: no task of this run takes one; they take no"),
        (
            ["run", "style", "--train-dota", "x"],
            "takes one; they take --train-data, --test-data",
        ),
        ([*TOY, "--dri"], "did you mean --dry?"),
        (["run", "toyy", "--my-data", "x"], "did you mean toy"),
        (["run", "--config", "x.json", "--train-data", "x"], "leave out train_data"),
        ([*TOY, "--device", "cuda:77x"], "use auto, cpu, cuda"),
        (["run", "compression", "--preset", "smoke", "--test-data", "/nowhere"], "/nowhere"),
        (["report", "/nowhere"], "no results folder"),
        ([*TOY, "--settings", "0"], "needs 1 or more"),
        (["run", "--config", "x.json", "--seeds", "1"], "leave out seeds"),
        (["run", "--config", "/nowhere.json"], "/nowhere.json"),
        (["fetch", "alexnet"], "did you mean alexnet-convs"),
        (["cell", "abc"], "0 cells"),
        (["new", "mytask"], "name it mytask.py"),
    ],
)
def test_misuse_is_answered_with_the_way_out(
    words: list[str], said: str, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_what_no_table_can_take_is_said_before_any_training(tmp_path: Path, capsys) -> None:
    file = tmp_path / "mine.py"
    assert main(["new", str(file)]) == 0
    edit(file, 'better="lower"', 'better="low"')
    assert main(["run", str(file), "--preset", "smoke", "--out", str(tmp_path / "results")]) == 2
    assert "mine: tables cannot take" in capsys.readouterr().err
    assert not list(tmp_path.glob("results/runs/*/*/*/done.json"))


def test_one_cells_configuration_takes_no_flags_of_a_run(tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path)]
    assert main([*TOY, "--methods", "yoto", "--dry", *out]) == 0
    (config,) = tmp_path.glob("runs/*/*/*/config.json")
    assert main(["run", "--config", str(config), "--dry", *out]) == 2
    assert "leave out dry" in capsys.readouterr().err
    assert not (config.parent / "done.json").exists()


def test_a_users_own_location_gets_its_flag(tmp_path: Path, capsys) -> None:
    file = tmp_path / "mine.py"
    assert main(["new", str(file)]) == 0
    edit(file, "    training: Training\n", LOCATED)
    edit(file, "import torch\n", "import torch\nfrom bench.task import location\n")
    words = ["run", str(file), "--preset", "smoke"]
    for given in (["--my-data", "x"], ["--my-data=x"], ["--my-d", "x"]):  # shortened, too
        assert parsed([*words, *given]).locations == {"my_data": "x"}
        assert parsed([*words[:1], *given, *words[1:]]).tasks == [str(file)]
    out = tmp_path / "out"
    dry = ["--methods", "yoto", "--dry", "--out", str(out), "--my-data", str(tmp_path)]
    assert main([*words, *dry]) == 0
    (config,) = out.glob("runs/*/*/*/config.json")
    assert json.loads(config.read_text())["task"]["fields"]["my_data"] == str(tmp_path)
    with pytest.raises(SystemExit):
        main(["run", str(file), "--help"])
    assert "--my-data PATH" in (text := capsys.readouterr().out)
    assert "a folder of what I have" in text
    assert main([*words, "--your-data", "x"]) == 2
    assert "--your-data: no task of this run takes one" in (text := capsys.readouterr().err)
    assert "they take --my-data" in text


LOCATED = """\
    training: Training
    my_data: str = location("a folder of what I have")
    out: str = location("a flag of the command's own")
"""


def test_an_empty_or_broken_folder_of_pictures_is_named(tmp_path: Path, capsys) -> None:
    words = [*SMALL, "--out", str(tmp_path / "out")]
    (tmp_path / "empty").mkdir()
    assert main([*words, "--train-data", str(tmp_path / "empty")]) == 2
    assert str(tmp_path / "empty") in capsys.readouterr().err
    half = picture(tmp_path / "broken", "half.jpg")
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    assert main([*words, "--test-data", str(half.parent)]) == 2
    assert "half.jpg" in capsys.readouterr().err


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("runs/*/*/*/*.safetensors")}


def test_again_deletes_nothing_that_cannot_be_made_anew(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    import bench.pictures.data as data

    picture(tmp_path / "pictures", "one.png")
    out = tmp_path / "out"
    words = [*SMALL, "--out", str(out), "--train-data", str(tmp_path / "pictures")]
    assert main(words) == 0
    kept = contents(out)
    # The file stays as it is for the plan, and decoding it fails.
    data._decode.cache_clear()
    data._on_device.cache_clear()
    monkeypatch.setattr(data, "read_picture", lambda path: "as if it were truncated")
    assert main([*words, "--again"]) == 2
    assert "as if it were truncated" in capsys.readouterr().err
    assert contents(out) == kept


def test_no_cluster_is_started_for_a_misspelt_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.run import cluster

    asked: list[object] = []
    monkeypatch.setattr(cluster, "connect", asked.append)
    assert main(["run", "toyy", "--on", "ray", "--out", str(tmp_path)]) == 2
    assert "did you mean toy" in capsys.readouterr().err
    assert asked == []

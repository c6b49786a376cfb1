"""The commands where people run them: other folders, other locales, no home, a notebook's
environment, a reader that went away, a scratch disk behind a link."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from bench.cli import main, parsed, parser
from bench.files import drawing_to_files, expanded, leading_out
from bench.pictures import downloads
from bench.pictures.perceptual import lpips_missing

ROOT = Path(__file__).parent.parent
PROGRAM = [sys.executable, str(ROOT / "run_bench.py")]
SMALL = ["--preset", "smoke", "--methods", "fixed_grid", "--settings", "1"]
NOTEBOOK = "module://matplotlib_inline.backend_inline"


def planned(root: Path, task: str) -> Path:
    """A results folder with one cell of a task that was planned."""
    folder = root / "runs" / task / "fixed_grid" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return root


def program(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, cwd=cwd, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("words", [["status"], ["--help"]])
def test_a_reader_that_went_away_is_no_error(tmp_path: Path, words: list[str]) -> None:
    where = [str(planned(tmp_path, "toy"))] if words == ["status"] else []
    ours, theirs = os.pipe()
    os.close(ours)
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*PROGRAM, *words, *where], stdout=theirs, stderr=-1, env=quiet)
    os.close(theirs)
    assert done.stderr.decode() == ""
    assert done.returncode in ({0, 141} if "--help" in words else {141})  # newer argparse: 0


# Locales, a notebook's environment


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:surrogateescape"])
def test_characters_that_a_terminal_has_not_are_replaced(tmp_path: Path, encoding: str) -> None:
    done = program("status", planned(tmp_path, "β-vae"), PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?-vae" in done.stdout


def test_the_bytes_of_a_path_go_out_as_they_came_in(tmp_path: Path) -> None:
    """Where Python takes the file system for ASCII."""
    file = tmp_path / "tâche.py"
    done = program("new", file, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0
    assert str(file).encode() in done.stdout
    assert "tâche.py" in file.read_text(encoding="utf-8")


def test_a_whole_run_in_an_odd_environment(tmp_path: Path) -> None:
    """A notebook's, an ASCII locale, another folder, and a home, all at once."""
    odd = {"HOME": str(tmp_path), "MPLBACKEND": NOTEBOOK, "PYTHONIOENCODING": "ascii"}
    odd["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # its list of fonts takes seconds
    done = program("run", "toy", *SMALL, "--out=~/r", cwd=tmp_path, LC_ALL="C", **odd)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r/report/toy-smoke/measures.png").is_file()
    assert not (tmp_path / "~").exists()


def test_figures_are_for_files_and_the_environment_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for before in (NOTEBOOK, None):
        monkeypatch.setenv("MPLBACKEND", before) if before else monkeypatch.delenv("MPLBACKEND")
        with contextlib.suppress(KeyError), drawing_to_files():
            assert os.environ["MPLBACKEND"] == "Agg"
            raise KeyError
        assert os.environ.get("MPLBACKEND") == before


# No home


@pytest.fixture
def nowhere_named(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("YOTO_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_home_the_measure_is_left_out_and_the_variable_named(
    nowhere_named: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    nowhere_named.setattr(Path, "home", nobody)
    assert "YOTO_BENCH_CACHE" in lpips_missing.__wrapped__()["lpips"]
    assert main(["fetch", "alexnet-convs"]) == 1
    assert "YOTO_BENCH_CACHE" in capsys.readouterr().out
    nowhere_named.setenv("XDG_CACHE_HOME", "/caches")
    if sys.platform != "darwin":
        assert downloads.cache_folder() == Path("/caches/yoto-bench")


def test_a_home_that_cannot_be_written_to_names_the_variable(
    nowhere_named: pytest.MonkeyPatch,
) -> None:
    nowhere_named.setenv("HOME", "/dev/null")
    assert "YOTO_BENCH_CACHE" in lpips_missing.__wrapped__()["lpips"]


# Paths


def test_every_path_of_a_command_line_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    flags = ["train-data", "test-data", "validation-data", "style", "vgg-weights"]
    words = [f"--{name}=~/x" for name in [*flags, "out", "config", "cache"]]
    options = parsed(["run", "style", *words])
    places = [options.out, options.config, options.cache, *options.locations.values()]
    assert places == ["/somewhere/x"] * 8
    for command in ("report", "merge"):
        assert parser().parse_args([command, "~/a", "~"]).folders == ["/somewhere/a", "/somewhere"]
    for command in ("status", "clean"):
        assert parser().parse_args([command, "~/a"]).folder == "/somewhere/a"
    assert parser().parse_args(["new", "~/a.py"]).file == "/somewhere/a.py"
    assert expanded("a/~") == "a/~"
    with pytest.raises(ValueError, match=r"no such home folder here.*begin.*with \./"):
        expanded("~nobody-of-this-name/x")


def test_a_plan_made_with_relative_paths_is_trained_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "else").mkdir()
    Image.effect_noise((96, 96), 60).convert("RGB").save(tmp_path / "pics" / "one.png")
    monkeypatch.chdir(tmp_path)
    words = ["run", "compression", *SMALL, "--train-data", "pics", "--out", "r", "--cache", "c"]
    assert main([*words, "--dry"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    command = shlex.split(line)
    assert Path(command[1]).samefile(ROOT / "run_bench.py")
    assert command[4:] == ["--out", str(tmp_path / "r"), "--cache", str(tmp_path / "c")]
    (config,) = tmp_path.glob("r/runs/*/*/*/config.json")
    fields = json.loads(config.read_text())["task"]["fields"]
    assert fields["train_data"] == str(tmp_path / "pics")
    monkeypatch.chdir(tmp_path / "else")
    assert main(["cell", config.parent.name[:6], "--out", "../r"]) == 0
    assert (config.parent / "done.json").is_file()


def test_a_folder_of_a_plug_in_may_have_colons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a folder 12:30:05"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["new", f"{folder}/mytask.py"]) == 0
    for word in ("mytask.py", "mytask.py:Mytask", "mytask.py[dimension=3]"):
        words = ["run", f"{folder.name}/{word}", *SMALL, "--out", "r", "--dry"]
        capsys.readouterr()
        assert main(words) == 0
        (line,) = capsys.readouterr().out.splitlines()
    monkeypatch.chdir(folder)
    assert main(shlex.split(line)[2:]) == 0  # `cell ID --out ...`


# Links


def test_no_command_writes_through_a_link_out_of_its_results_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    for place in ("runs", "records", "runs/toy", "runs/toy/fixed_grid"):
        (scratch / place).mkdir(parents=True, exist_ok=True)
        root = tmp_path / place.replace("/", "-")
        (root / place).parent.mkdir(parents=True)
        (root / place).symlink_to(scratch / place)
        for words in (["run", "toy", *SMALL], ["cell", "abc"], ["merge", str(scratch)]):
            assert main([*words, "--out", str(root)]) == 2
            said = capsys.readouterr().err
            assert f"{root / place} is a link out of the results folder" in said
            assert f"make {root} itself the link" in said
        assert main(["status", str(root)]) == 0  # looks, and follows nothing
    assert not [path for path in scratch.rglob("*") if path.is_file()]


def test_a_results_folder_may_be_a_link_and_links_inside_may_stay_inside(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "disk" / "toy").mkdir(parents=True)
    (real / "runs").symlink_to("disk")
    (tmp_path / "results").symlink_to(real)
    assert leading_out(tmp_path / "results") is None
    assert leading_out(tmp_path / "absent") is None
    (real / "records").symlink_to(tmp_path / "gone")
    assert leading_out(tmp_path / "results") == tmp_path / "results" / "records"


def test_looking_at_a_folder_says_what_it_passes_over(tmp_path: Path) -> None:
    other = planned(tmp_path / "other", "toy")
    (tmp_path / "r").mkdir()
    (tmp_path / "r/runs").symlink_to(other / "runs")
    with pytest.warns(UserWarning, match="are links or no ordinary files and are passed over"):
        assert main(["status", str(tmp_path / "r")]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["status", str(other)]) == 0

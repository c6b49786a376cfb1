"""What a shell offers at TAB: as argcomplete asks the program, and in bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.completion import PRESETS
from bench.registry import METHODS, TASKS, task_class

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("argcomplete")


def offered(line: str, folder: Path, code: str = "", **environment: str) -> set[str]:
    """The words that may stand where a line ends."""
    answer = folder / "answer"
    answer.touch()
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'yoto-bench'\n{code}\n"
         "from bench.cli import main\nmain()"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n",
             "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": line,
             "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1", **environment},
        cwd=folder,
        check=True,
    )  # fmt: skip
    return {word.strip() for word in answer.read_text().splitlines()}


def test_commands_options_tasks_presets_and_methods(tmp_path: Path) -> None:
    def at(line: str) -> set[str]:
        return offered(line, tmp_path)

    assert {"run", "report", "list", "demo"} <= at("yoto-bench ")
    assert at("yoto-bench rep") == {"report"}
    assert at("yoto-bench run --see") == {"--seeds"}
    assert {*TASKS} <= at("yoto-bench run ")
    assert at("yoto-bench run quan") == {"quantiles"}
    assert at("yoto-bench run toy quan") == {"quantiles"}
    assert at("yoto-bench run toy --preset ") == {*PRESETS}
    assert {"here", "pool", "ray"} <= at("yoto-bench run toy --on ")
    assert at("yoto-bench run toy --methods ") == {*METHODS, "all"}
    assert at("yoto-bench run toy --methods yoto,fixed_grid_") == {"yoto,fixed_grid_tuned"}
    assert at("yoto-bench export toy low") == {"low_rank"}
    (tmp_path / "results").mkdir()
    assert at("yoto-bench run toy --seeds ") == set()  # no files, where none are asked for
    assert at("yoto-bench report res") == {"results/"}


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import os\nleave = os._exit\n"
        "def check(code):\n"
        "    leave(9 if {'torch', 'numpy', 'rich', 'msgspec'} & set(sys.modules) else code)\n"
        "os._exit = check"
    )
    assert {*TASKS} <= offered("yoto-bench run ", tmp_path, code)


def test_an_installed_plug_in_is_offered(tmp_path: Path) -> None:
    about = tmp_path / "site" / "acme-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[yoto_bench.tasks]\nshrink = acme:Toy\n")
    path = f"{ROOT}:{about.parent}"
    assert offered("yoto-bench run shr", tmp_path, PYTHONPATH=path) == {"shrink"}


def test_presets_are_those_of_the_suites_tasks() -> None:
    assert {*PRESETS} == {size for name in TASKS for size in task_class(name).presets()}


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_a_line(tmp_path: Path) -> None:
    program = tmp_path / "yoto-bench"
    program.write_text(f"#!{sys.executable}\nfrom bench.cli import main\nmain()\n")
    program.chmod(0o755)
    register = Path(sys.executable).with_name("register-python-argcomplete")
    script = (
        f'eval "$({register} yoto-bench)"\n'
        "COMP_LINE='yoto-bench run toy --methods yoto,fixed_grid_t'\n"
        "COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=4; COMP_TYPE=9\n"
        "_python_argcomplete yoto-bench\n"
        'echo "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == ["yoto,fixed_grid_tuned"], done.stderr


def test_without_the_package_the_program_runs_as_ever(monkeypatch, capsys) -> None:
    from bench.cli import main

    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("yoto-bench ")

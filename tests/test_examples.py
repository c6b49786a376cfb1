"""What lies in `examples/` and the tutorial in `docs/`, run as they are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*command: str, folder: Path, **more: str) -> str:
    environment = {**ENVIRONMENT, **more}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outputs(notebook: dict) -> list[dict]:
    return [each for cell in notebook["cells"] for each in cell.get("outputs", [])]


def test_the_notebook_runs_and_shows_verdict_and_figure(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    text = (EXAMPLES / "own_model.ipynb").read_text("utf-8")
    assert "steps=1000" in text
    notebook = nbformat.reads(text.replace("steps=1000", "steps=100"), as_version=4)
    metadata = {"metadata": {"path": str(tmp_path)}}
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # for the kernel
    try:
        nbclient.NotebookClient(notebook, timeout=300, resources=metadata).execute()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}
    shown = outputs(notebook)
    kinds = {kind for each in shown for kind in each.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    cards = [each.get("data", {}).get("text/html", "") for each in shown]
    assert any("Use it today?" in card and "<table>" in card for card in cards)
    assert len(list(tmp_path.glob("results/tasks/*/detection.py"))) == 1


def test_the_stored_notebook_has_its_outputs_and_no_place_of_a_machine() -> None:
    text = (EXAMPLES / "own_model.ipynb").read_text("utf-8")
    assert len(text) < 200_000
    assert not re.search(r"/(home|tmp|root|work|Users|usr)/", text)
    shown = outputs(json.loads(text))
    assert not [each for each in shown if each["output_type"] == "error"]
    assert any("image/png" in each.get("data", {}) for each in shown)


def test_a_table_is_made_and_compared_on(tmp_path: Path) -> None:
    words = ("--preset", "smoke", "--methods", "yoto,fixed_grid", "--settings", "2")
    script = str(EXAMPLES / "quantiles_csv.py")
    told = run(sys.executable, script, *words, folder=tmp_path)
    table = (tmp_path / "rentals.csv").read_text()
    assert table.startswith("hour,day,temperature,rain,rented\n")
    assert len(table.splitlines()) == 4001
    assert "as published" in told
    assert list(tmp_path.glob("results/report/quantiles-smoke*/report.md"))
    run(sys.executable, "-c", f"import runpy; runpy.run_path({script!r})", folder=tmp_path)
    assert (tmp_path / "rentals.csv").read_text() == table  # nothing runs where it is imported


# The tutorial -------------------------------------------------------------------------------------

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
ANSWERS = ["worse", "undecided", "equal"]


def tutorial() -> str:
    return "".join(re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL))


def test_the_tutorial_runs_as_it_is_written_but_for_the_steps(tmp_path: Path) -> None:
    quick = re.sub(r"Training\(steps=\d+", "Training(steps=20", tutorial())
    assert quick.count("steps=20,") == 2
    (tmp_path / "smoothing.py").write_text(quick)
    told = run(sys.executable, "smoothing.py", folder=tmp_path)
    assert told.count("smoothing, quick") >= 3
    assert told.rstrip().endswith(")")  # the plain model
    assert "Denoiser(" in told
    assert (tmp_path / "front.png").stat().st_size > 5000
    assert len(list(tmp_path.glob("results/runs/smoothing/*/*/done.json"))) == 18 + 18 + 3


def test_the_answers_of_the_tutorial_are_those_of_its_text() -> None:
    said = re.findall(r"loses \*\*.*?\*\*.*?\*\*(\w+)\*\*", TUTORIAL, re.DOTALL)
    assert said == ANSWERS


@pytest.mark.slow
def test_the_tutorial_gives_the_answers_that_it_says(tmp_path: Path) -> None:
    ends = "print([each.verdict.answer for each in (first, second, third)])\n"
    (tmp_path / "smoothing.py").write_text(tutorial() + ends)
    told = run(sys.executable, "smoothing.py", folder=tmp_path)
    assert told.splitlines()[-1] == str(ANSWERS)


# Slurm --------------------------------------------------------------------------------------------

# Does what Slurm would, at once: every task of an array, then what depends on it.
SBATCH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$(dirname "$0")/asked.txt"
for word in "$@"; do
    case $word in
        --array=*) range=${word#--array=1-}; last=${range%%%*} ;;
        --parsable) parsable=1 ;;
    esac
    wrapped=$word
done
for task in $(seq "${last:-1}"); do SLURM_ARRAY_TASK_ID=$task bash -c "$wrapped" >&2; done
[ -z "${parsable:-}" ] || echo '7;cluster'
"""


def test_slurm_trains_each_network_once_then_measures(tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text(SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    words = shlex.split("toy --preset smoke --methods yoto,fixed_grid --settings 2")
    more = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OUT": "shared results",  # with a blank
        "SBATCH": "--gres=gpu:1 --time=10",
        "PYTHON": sys.executable,
    }
    script = str(EXAMPLES / "slurm.sh")
    assert "3 networks to train" in run("bash", script, *words, folder=tmp_path, **more)
    array, last = (tmp_path / "asked.txt").read_text().splitlines()
    assert array.startswith("--parsable --gres=gpu:1 --time=10 --array=1-3%50 --wrap sed -n")
    assert last.startswith("--gres=gpu:1 --time=10 --dependency=afterany:7 --wrap ")
    results = tmp_path / "shared results"
    assert len(list(results.glob("runs/toy/*/*/done.json"))) == 3
    assert (results / "report" / "index.html").is_file()
    assert "0 networks to train" in run("bash", script, *words, folder=tmp_path, **more)
    *_, again = (tmp_path / "asked.txt").read_text().splitlines()
    assert "--dependency" not in again


def test_the_scripts_are_clean() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    run("shellcheck", *map(str, EXAMPLES.glob("*.sh")), folder=ROOT)

"""What leads out of a report: tables for papers, what is behind a row, results in Python."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ideal import MEASURES, row_of, run_of, told
from test_report import LAMBDA, write_results

import bench
from bench.report import build
from bench.report.answers import compare
from bench.report.explain import explain
from bench.report.load import CELLS, MEASURED, RECORDS, load_results
from bench.report.text import estimate, latex, latex_table

# Tables for papers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (estimate(3.14, (2.0, 4.44), 1, sign=True), "+3.1 [+2.0, +4.4]"),
        (estimate(3.14, (2.0, math.nan), 1), "3.1"),
        (estimate(559.7, (-788.7, 1908.1), 1, sign=True), "+560 [−789, +1908]"),
        (estimate(12.345, (), 2), "12.3"),
        (estimate(math.nan, (math.nan, math.nan), 1), "—"),
        (estimate(-0.04, (-0.04, 0.01), 1, sign=True), "0.0 [0.0, 0.0]"),
        (
            latex("50 % of λ_1 & β² ± −3 × [é]"),
            r"50 \% of $\lambda$\_1 \& $\beta$$^2$ $\pm$ $-$3 $\times$ {[}e]",
        ),
        (
            latex("a\\b{c}~^#$漢"),
            r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\#\$?",
        ),
    ],
)
def test_how_estimates_and_latex_are_written(number: str, text: str) -> None:
    assert number == text


def test_a_latex_table_is_whole() -> None:
    text = latex_table(["method", "a & b"], [["x_y", "1"], ["z", "2"]], 1, {(1, 1)}, [1, 1])
    lines = text.splitlines()
    assert lines[1:3] == [r"\begin{tabular}{lr}", r"\toprule"]
    assert r"method & a \& b \\" in lines
    assert r"z & \textbf{2} \\" in lines
    assert lines.index(r"\addlinespace") == lines.index(r"x\_y & 1 \\") + 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_every_table_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.figures.figures", lambda *_: {})
    nasty = "$x_1^2$ & {50 %} #~\\ <β> 漢"
    write_results(
        tmp_path / "r", measures=MEASURES, methods=("fixed_grid", "yoto", "a_b[c=1.0]"),
        axes=[{**LAMBDA[0], "symbol": nasty}], seeds=(0, 1), diverged=(("yoto", 0, 1),),
        values=told(), outside=(4,),
    )  # fmt: skip
    (built,) = build(tmp_path / "r")
    tables = [path for path in built.paths if path.suffix == ".tex"]
    assert len(tables) >= 5
    body = "\n\n".join(rf"\input{{{path}}}" for path in tables)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{body}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


# Behind a row -----------------------------------------------------------------------------------


def test_a_row_leads_to_its_records_trainings_commit_and_command(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, seeds=(0, 1), methods=("fixed_grid", "yoto"))
    results, run = load_results(tmp_path), run_of(tmp_path)
    text = explain(results, "compression-quick/yoto/0.018")
    behind = run.measured[run.measured["setting"] == "distortion=0.018"]
    for entry in behind.to_dict("records"):  # its own, and the grid's it is compared with
        assert str(entry["path"].with_suffix(".csv")) in text
        assert str(tmp_path / "runs/compression" / entry["method"] / entry["cells"][0]) in text
    other = run.measured[run.measured["setting"] == "distortion=0.18"]
    assert not any(path.stem in text for path in other["path"])
    for words in ("commit 0123456789ab", "run_bench.py run compression", "torch 2.9.0"):
        assert words in text
    gaps = compare.comparisons(run)
    gap = row_of(gaps, method="yoto", setting="distortion=0.018", measure="loss")
    assert estimate(gap["gap"], (gap["low"], gap["high"]), 1, sign=True) in text
    assert explain(results, "compression-quick/yoto/distortion=0.018") == text
    whole = explain(results, "compression-quick/yoto")
    assert all(path.stem in whole for path in other["path"])


@pytest.mark.parametrize(
    ("row", "way_out"),
    [
        ("nothing/yoto", "compression-quick"),
        ("compression-quick/yot", "fixed_grid, yoto"),
        ("compression-quick/yoto/7", "0.018 (distortion=0.018)"),
    ],
)
def test_a_row_that_is_not_there_is_an_error_that_names_the_others(
    tmp_path: Path, row: str, way_out: str
) -> None:
    write_results(tmp_path, methods=("fixed_grid", "yoto"))
    with pytest.raises(ValueError, match=r"there are|it has") as caught:
        explain(load_results(tmp_path), row)
    assert way_out in str(caught.value)


# In Python --------------------------------------------------------------------------------------


def test_results_load_from_python_without_torch(tmp_path: Path) -> None:
    write_results(tmp_path)
    code = (
        "import sys; from bench import load_results\n"
        "early = {'torch', 'pandas'} & set(sys.modules)\n"
        "results = load_results(sys.argv[1])\n"
        "assert not early and 'torch' not in sys.modules\n"
        "print(len(results.records))"
    )
    command, root = [sys.executable, "-c", code, str(tmp_path)], Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(load_results(tmp_path).records)


@pytest.mark.parametrize("columns", [RECORDS, MEASURED, CELLS])
def test_every_column_is_documented(columns: list[str]) -> None:
    words = set((bench.__doc__ or "").replace(",", " ").replace("(", " ").replace(".", " ").split())
    assert not set(columns) - words

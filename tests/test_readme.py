"""The README's table of every method says what the committed tables say."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"
SECTION = (ROOT / "README.md").read_text("utf-8").split("### Every method")[1].split("\n## ")[0]
HEADER, _, *LINES = re.findall(r"^\| .+|^\|-.+", SECTION.split("\n- ")[0], re.M)
TASKS = [cell.strip() for cell in HEADER.split("|")[2:-2]]


def rows() -> dict[str, list[str]]:
    """By method its cells; "... `lever`" is a form of the method above."""
    found, base = {}, ""
    for line in LINES:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        (word,) = re.findall("`(.+)`", name)
        base = base if name.startswith("...") else word
        found[base if word == base else f"{base}[{word}]"] = cells
    return found


@pytest.mark.parametrize("task", TASKS)
def test_shares_verdicts_and_costs(task: str) -> None:
    (path,) = REFERENCE.glob(f"peers-*/{task}-trained/overall.csv")
    table = pd.read_csv(path)
    written = {"false": "False", "true": "True", "cosine=1]": "cosine=1.0]"}
    said = {}
    for name, cells in rows().items():
        for ours, theirs in written.items():
            name = name.replace(ours, theirs)
        said[name] = cells[TASKS.index(task)], cells[-1]
    judged = table[table["share_mean"].notna() & table["method"].ne("single_model")]
    assert {name for name, (share, _) in said.items() if "[" in share} == set(judged["method"])
    for row in judged.itertuples():
        share, cost = said[row.method]
        mean, low, high, verdict = re.fullmatch(r"(\S+) \[(\S+), (\S+)\] (\w+)", share).groups()
        numbers = [float(number.replace("−", "-")) for number in (mean, low, high)]
        exact = [100 * number for number in (row.share_mean, row.share_low, row.share_high)]
        for number, of_table in zip(numbers, exact, strict=True):
            assert number == pytest.approx(of_table, abs=0.5 if abs(of_table) >= 9.5 else 0.051)
        assert row.verdict.startswith(verdict)
        step = row.flops_ratio / row.examples_ratio
        least, *most = map(float, cost.split(" to "))
        assert least - 0.006 <= step <= (most or [least])[0] + 0.006

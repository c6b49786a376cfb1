"""The tables of methods say what the committed tables say."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference"
EVIDENCE = (ROOT / "results" / "EVIDENCE.md").read_text("utf-8")
TRAINED = ("quadratic", "quantiles", "digits", "fairness", "registration")
FOLDERS = {
    "compression": "small-cpu-*/compression-small-cpu",
    "style transfer": "small-cpu-*/style-small-cpu",
    "β-VAE": "small-cpu-*/beta_vae_scenes-small-cpu",
    **{task: f"peers-*/{task}-trained" for task in TRAINED},
}
NAMES = {"false": "False", "true": "True", "cosine=1]": "cosine=1.0]"}  # as typed: as recorded


def shares_and_costs() -> dict[str, dict[str, tuple[str, str, str]]]:
    """By task and method its share and its cost as written, and the cost's heading.

    "... `lever`" is a form of the method above.
    """
    found: dict[str, dict[str, tuple[str, str, str]]] = {}
    for header, body in re.findall(r"^(\| .+ FLOPs.* \|)\n\|[-|]+\n((?:\|.+\n)+)", EVIDENCE, re.M):
        _, *tasks, heading = (cell.strip() for cell in header.split("|")[1:-1])
        if not set(tasks) <= set(FOLDERS):
            continue
        base = ""
        for line in body.splitlines():
            name, *shares, cost = (cell.strip() for cell in line.split("|")[1:-1])
            (word,) = re.findall("`(.+)`", name)
            base = base if name.startswith("...") else word
            method = base if word == base else f"{base}[{word}]"
            for ours, theirs in NAMES.items():
                method = method.replace(ours, theirs)
            for task, share in zip(tasks, shares, strict=True):
                found.setdefault(task, {})[method] = share, cost, heading
    return found


TABLES = shares_and_costs()


def test_every_table_of_methods_is_found() -> None:
    assert set(TABLES) == set(FOLDERS)


@pytest.mark.parametrize("task", sorted(TABLES))
def test_shares_verdicts_and_costs(task: str) -> None:
    (path,) = REFERENCE.glob(f"{FOLDERS[task]}/overall.csv")
    table = pd.read_csv(path)
    flops = pd.read_csv(path.with_name("savings.csv")).set_index("method")
    judged = table[table["share_mean"].notna() & table["method"].ne("single_model")]
    said = {method for method, (share, *_) in TABLES[task].items() if "[" in share}
    assert said == set(judged["method"])
    for row in judged.itertuples():
        share, cost, heading = TABLES[task][row.method]
        mean, low, high, verdict = re.fullmatch(r"(\S+) \[(\S+), (\S+)\] (\w+ ?°?)", share).groups()
        numbers = [float(number.replace("−", "-")) for number in (mean, low, high)]
        exact = [100 * number for number in (row.share_mean, row.share_low, row.share_high)]
        for number, of_table in zip(numbers, exact, strict=True):
            assert number == pytest.approx(of_table, abs=0.5 if abs(of_table) >= 9.5 else 0.051)
        certain = row.stands or row.verdict == "undecided"
        assert row.verdict + ("" if certain else " °") == verdict
        paid = flops.at[row.method, "flops_ratio"]
        if "step" in heading:
            paid /= flops.at[row.method, "examples_ratio"]
        least, *most = map(float, cost.split(" to "))
        assert least - 0.006 <= paid <= (most or [least])[0] + 0.006

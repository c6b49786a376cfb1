"""The table of published codecs follows from the committed curves."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from bench.report.answers.fronts import BD, bd_rate

ROOT = Path(__file__).parent.parent
EVIDENCE = (ROOT / "results" / "EVIDENCE.md").read_text("utf-8")
CURVES = pd.read_csv(ROOT / "results" / "published" / "kodak.csv")
ROWS = re.findall(
    r"^\| ([\w-]+) \| (vbr|QVRF|QARV)[^|]* \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", EVIDENCE, re.M
)


def against_its_grid(codec: str, curve: str, decoded: str = "float") -> BD:
    of_codec = CURVES[CURVES["codec"] == codec]
    grid = of_codec[(of_codec["curve"] == "grid") & (of_codec["decoded"] == "float")]
    one = of_codec[(of_codec["curve"] == curve) & (of_codec["decoded"] == decoded)]
    assert (of_codec.groupby(["curve", "decoded"])["source"].nunique() == 1).all()
    return bd_rate(grid["bpp"], grid["psnr"], one["bpp"], one["psnr"])


def test_every_published_network_has_its_row() -> None:
    networks = CURVES.loc[CURVES["curve"] != "grid", ["codec", "curve"]].drop_duplicates()
    assert {(codec, curve) for codec, curve, *_ in ROWS} == set(
        networks.itertuples(index=False, name=None)
    )


@pytest.mark.parametrize(("codec", "curve", "numbers"), [(c, n, rest) for c, n, *rest in ROWS])
def test_a_row_follows_from_its_curves(codec: str, curve: str, numbers: list[str]) -> None:
    found = against_its_grid(codec, curve)
    written = [float(number.replace("−", "-")) for number in numbers]
    assert written == pytest.approx([found.value, *found.thirds], abs=0.051)
    assert found.overlap > 0.79


def test_the_sentence_counts_the_credible_ones_and_says_what_8_bits_cost() -> None:
    over = []
    for codec, curve, *_ in ROWS:
        found = against_its_grid(codec, curve)
        over.append(max(abs(found.value) - 2, *(abs(third) - 5 for third in found.thirds)))
    assert sum(by <= 0 for by in over) == 4
    assert sum(0 < by < 1 for by in over) == 2
    for codec in ("hyperprior", "mean-scale"):
        (written,) = re.findall(rf"\+(\S+) % \({codec};\s\+(\S+),\s\+(\S+), \+(\S+)\)", EVIDENCE)
        found = against_its_grid(codec, "grid", "8 bits")
        assert [*map(float, written)] == pytest.approx([found.value, *found.thirds], abs=0.051)

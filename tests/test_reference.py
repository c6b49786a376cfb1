"""The committed tables follow from the committed records."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pandas as pd
import pytest

from bench.report import compare
from bench.report.load import load_results

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
ARCHIVES = sorted(REFERENCE.glob("*/records.tar.xz"))


def test_there_are_references() -> None:
    assert ARCHIVES


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.parent.name)
def test_committed_tables_follow_from_committed_records(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    runs = load_results(tmp_path).runs
    assert {run.folder for run in runs} == {p.parent.name for p in archive.parent.glob("*/*.md")}
    for run in runs:
        for name, frame in (
            ("summary", compare.summary(run)),
            ("comparisons", compare.comparisons(run)),
            ("overall", compare.overall(run)),
        ):
            committed = pd.read_csv(archive.parent / run.folder / f"{name}.csv")
            # By way of text, so that empty cells and whole numbers are read alike.
            text = tmp_path / f"{run.folder}-{name}.csv"
            frame.to_csv(text, index=False)
            pd.testing.assert_frame_equal(pd.read_csv(text), committed, rtol=1e-6, atol=1e-9)

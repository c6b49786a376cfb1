"""The committed records, of several older versions, are read as they were written, and the
committed tables follow from them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench.report.answers import compare
from bench.report.answers.reference import examine
from bench.report.load import CELLS, MEASURED, Results, load_results
from bench.run.layout import FINISHED, HEADS, table_of

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
ARCHIVES = sorted(REFERENCE.glob("*/records.tar.xz"))
ELSEWHERE = {"entry": "id", "cell": "id", "phases": "seconds"}  # columns by other names
FROM_LEDGER = {"seconds", "processor_seconds"}  # columns that have one phase


def test_there_are_references() -> None:
    assert ARCHIVES


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.parent.name)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of committed tables, and beside it `results`."""
    root = tmp_path_factory.mktemp(request.param.parent.name)
    shutil.unpack_archive(request.param, root / "results")
    (root / "committed").symlink_to(request.param.parent)
    return root


@pytest.fixture(scope="module")
def results(archive: Path) -> Results:
    return load_results(archive / "results")


def agree(frame: pd.DataFrame, columns: list[str], contents: dict[str, dict]) -> None:
    """Every value of these columns is the one in the JSON, where it has one."""
    assert {str(path) for path in frame["path"]} <= contents.keys()
    compared = set()
    for row in frame.to_dict("records"):
        content = contents[str(row["path"])]
        content = {**content.get("ledger", {}), **content}
        for name in columns:
            stored = content.get(ELSEWHERE.get(name, name))
            stored = (stored or {}).get("train") if name in FROM_LEDGER else stored
            if stored is not None and name != "display":
                value = json.loads(json.dumps(row[name]))  # tuples are lists there
                assert value == stored, (row["path"], name)
                compared.add(name)
    assert len(compared) > len(columns) / 2


def test_records_of_older_versions_are_read_as_they_were_written(
    archive: Path, results: Results
) -> None:
    root = archive / "results"
    heads, cells = (
        {str(path): json.loads(path.read_text()) for path in root.glob(pattern)}
        for pattern in (HEADS, FINISHED)
    )
    agree(results.measured, MEASURED, heads)
    agree(results.cells, CELLS, cells)
    assert len(results.cells) == len(cells)
    for path, rows in results.records.merge(results.measured[["entry", "path"]]).groupby("path"):
        table = table_of(path)
        assert hashlib.sha256(table.read_bytes()).hexdigest() == heads[str(path)]["sha256"]
        stored = pd.read_csv(table, float_precision="round_trip")
        assert rows["value"].tolist() == stored["value"].tolist()
        assert rows["measure"].tolist() == stored["measure"].tolist()


def test_committed_tables_follow_from_committed_records(archive: Path, results: Results) -> None:
    committed = (archive / "committed").resolve()
    assert {run.folder for run in results.runs} == {p.parent.name for p in committed.glob("*/*.md")}
    for run in results.runs:
        answers = {"overall": compare.overall, "versus": compare.versus, "reference": examine}
        for name, answer in answers.items():
            frame, path = answer(run), committed / run.folder / f"{name}.csv"
            if frame.empty:
                assert not path.exists()
                continue
            # By way of text, so that empty cells and whole numbers are read alike.
            text = archive / f"{run.folder}-{name}.csv"
            frame.to_csv(text, index=False)
            expected = pd.read_csv(path)
            now = pd.read_csv(text)
            later = now.columns.difference(expected.columns)  # columns that the tables lack
            assert now[later].isna().all(axis=None)
            pd.testing.assert_frame_equal(now.drop(columns=later), expected, rtol=1e-6, atol=1e-9)

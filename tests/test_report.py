"""The report from synthetic results: loading, and its numbers against plain arithmetic."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import (
    CODEC,
    LAMBDA,
    LAMBDAS,
    METHODS,
    STYLE_AXES,
    Noise,
    change,
    codec,
    draws,
    frame_of,
    has_note,
    heads,
    page_of,
    report_of,
    shown,
    style_settings,
    undrawn,
    write_results,
)

from bench.report import build, load_results, terminal_tables

__all__ = [
    "CODEC",
    "LAMBDA",
    "STYLE_AXES",
    "Noise",
    "draws",
    "frame_of",
    "style_settings",
    "undrawn",
]

# Loading ----------------------------------------------------------------------------------------


def test_loading_gives_every_number_once(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1))
    results = load_results(tmp_path)
    methods = results.records[results.records["kind"] == "method"]
    assert len(methods) == 4 * 2 * 5 * 6 * len(CODEC)
    assert methods["value"].sum() == pytest.approx(frame_of(tmp_path)["value"].sum())
    assert len(results.measured) == 4 * 2 * 5 + 1
    assert len(results.cells) == 2 * (5 + 1 + 1)  # the single model trains nothing of its own
    assert set(results.cells["seconds"]) == {50.0, 105.0}
    (run,) = results.runs
    assert run.methods == ["fixed_grid", "yoto", "single_model", "unconditioned"]
    assert set(run.context["method"]) == {"JPEG"}


def test_two_roots_read_as_one_and_nothing_twice(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_results(one, seeds=(0,))
    write_results(other, seeds=(0, 1))
    both, alone = load_results(one, other), load_results(other)
    assert len(both.records) == len(alone.records)
    assert len(both.cells) == len(alone.cells)
    assert both.superseded == {}


def test_a_measurement_without_its_json_is_unfinished(tmp_path: Path) -> None:
    write_results(tmp_path)
    before = len(load_results(tmp_path).measured)
    heads(tmp_path)[0].unlink()
    assert len(load_results(tmp_path).measured) == before - 1
    assert len(build(tmp_path)[0].summary) == 4 * 5 - 1


@pytest.mark.parametrize("harm", ["changed", "missing", "picture"])
def test_a_measurement_that_changed_is_left_out_and_named(tmp_path: Path, harm: str) -> None:
    write_results(tmp_path)
    whole = load_results(tmp_path)
    record = heads(tmp_path)[0]
    culprit = record.with_suffix(".png" if harm == "picture" else ".csv")
    if harm == "changed":
        culprit.write_text(culprit.read_text().replace("picture0", "picture9", 1))
    elif harm == "missing":
        culprit.unlink()
    else:
        change(record, picture_sha256="0" * 64)
        culprit.write_bytes(b"another")
    with pytest.warns(UserWarning, match="1 measurements are left out; .*run again to measure"):
        left = load_results(tmp_path)
    entry = json.loads(record.read_text())["id"]
    assert set(whole.measured["entry"]) - set(left.measured["entry"]) == {entry}
    assert len(left.records) == len(whole.records) - (whole.records["entry"] == entry).sum()
    (run,) = left.runs
    assert [str(culprit) in sentence for sentence in run.damaged] == [True]
    with pytest.warns(UserWarning, match="left out"):
        (built,) = build(tmp_path)
    assert has_note(built, "1 measurements are not what was written")


@pytest.mark.parametrize("harm", ["torn", "lacking", "cell"])
def test_what_is_damaged_is_named_with_the_way_out(tmp_path: Path, harm: str) -> None:
    write_results(tmp_path)
    culprit = heads(tmp_path)[0]
    if harm == "torn":
        culprit.write_text(culprit.read_text()[:50])
    elif harm == "lacking":
        content = json.loads(culprit.read_text())
        del content["cells"]
        culprit.write_text(json.dumps(content))
    else:
        culprit = next(tmp_path.glob("runs/*/yoto/*/done.json"))
        culprit.write_text("[]")
    with pytest.raises((ValueError, FileNotFoundError), match="run again") as caught:
        load_results(tmp_path)
    assert str(culprit) in str(caught.value)


def test_no_folder_is_an_error_and_an_empty_one_an_empty_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results folder"):
        build(tmp_path / "nowhere")
    assert build(tmp_path) == []
    assert not (tmp_path / "report").exists()


def test_the_newest_version_of_a_method_counts(tmp_path: Path) -> None:
    def shifted(method: str, *rest: Any) -> dict[str, float]:
        return {name: value + 1 for name, value in codec(method, *rest).items()}

    new = report_of(tmp_path, methods=("yoto",), values=shifted, version=2, at=2000.0).summary
    built = report_of(tmp_path, version=1, at=1000.0)
    newest = built.summary[built.summary["method"] == "yoto"].reset_index(drop=True)
    pd.testing.assert_frame_equal(newest, new)
    assert built.run.superseded == 5
    assert has_note(built, "5 older measurements")
    yoto = built.savings.set_index("method").loc["yoto"]
    assert yoto["networks"] == 1  # the old version's network is not in the sum


def test_an_older_variant_of_a_method_is_left_out(tmp_path: Path) -> None:
    """Also at the settings at which the new variant was not measured."""
    write_results(tmp_path)
    change(heads(tmp_path)[-1], method_id="new", time=2e9)
    (built,) = build(tmp_path)
    assert len(built.summary[built.summary["method"] == "yoto"]) == 1
    assert built.run.superseded == len(LAMBDAS) - 1


def test_the_newest_experiment_has_the_plain_folder(tmp_path: Path) -> None:
    write_results(tmp_path, experiment="old", at=1.0)
    write_results(tmp_path, experiment="new", at=2.0, pictures=3)
    write_results(tmp_path, preset="smoke", experiment="old", at=1.0)
    built = {b.run.key: b.folder.name for b in build(tmp_path)}
    assert built == {
        ("compression", "quick", "new"): "compression-quick",
        ("compression", "quick", "old"): "compression-quick-old",
        ("compression", "smoke", "old"): "compression-smoke",
    }
    only = build(tmp_path, out=tmp_path / "elsewhere", only={("compression", "quick", "old")})
    assert [b.folder for b in only] == [tmp_path / "elsewhere" / "compression-quick-old"]
    assert only[0].summary["pictures"].eq(6).all()


# Numbers ----------------------------------------------------------------------------------------


def test_summary_and_gaps_against_plain_arithmetic(tmp_path: Path) -> None:
    built = report_of(tmp_path, seeds=(0, 1, 2))
    rows, setting = frame_of(tmp_path), "distortion=0.18"
    at = rows[(rows["setting"] == setting) & (rows["measure"] == "psnr")]
    values = {
        method: at[at["method"] == method].sort_values(["seed", "example"])["value"].to_numpy()
        for method in METHODS
    }
    row = built.summary.set_index(["method", "setting"]).loc[("yoto", setting)]
    assert row["psnr"] == pytest.approx(values["yoto"].mean())
    assert row["seeds"] == 3
    assert row["psnr_sd"] == pytest.approx(values["yoto"].reshape(3, 6).mean(1).std(ddof=1))

    gap = (values["yoto"] - values["fixed_grid"]).mean()
    row = built.comparisons.set_index(["method", "setting", "measure"]).loc["yoto", setting, "psnr"]
    # It has no margin in dB here.
    assert row["gap"] == pytest.approx(100 * gap / values["fixed_grid"].mean())
    assert (row["pairs"], row["pictures"], row["seeds"]) == (18, 6, 3)
    middle = built.comparisons.query("method == 'single_model' and setting == 'distortion=0.018'")
    assert (middle["gap"] == 0).all()  # the very same network
    assert "fixed_grid" not in set(built.comparisons["method"])


def test_pairs_that_lack_a_partner_are_left_out_and_said(tmp_path: Path) -> None:
    write_results(tmp_path)
    write_results(tmp_path / "more", pictures=4)
    for path in (tmp_path / "records/compression/fixed_grid").iterdir():
        path.unlink()
    for path in (tmp_path / "more/records/compression/fixed_grid").iterdir():
        path.rename(tmp_path / "records/compression/fixed_grid" / path.name)
    (built,) = build(tmp_path)
    assert set(built.comparisons["pairs"]) == {4}
    assert set(built.comparisons["unpaired"]) == {2}
    assert has_note(built, "YOTO: 10 measured examples have no partner")


@pytest.mark.usefixtures("draws")
def test_without_a_grid_there_are_no_gaps_but_a_report(tmp_path: Path) -> None:
    built = report_of(tmp_path, methods=("yoto", "unconditioned"))
    assert (built.comparisons["pairs"] == 0).all()
    assert built.savings["flops_ratio"].isna().all()
    assert not (built.folder / "gap.png").exists()
    assert "no fixed grid" in page_of(built)
    assert "40 T" in "".join(map(shown, terminal_tables([built])))  # amounts instead of ratios


@pytest.mark.usefixtures("draws")
def test_the_grid_alone_makes_a_report(tmp_path: Path) -> None:
    built = report_of(tmp_path, methods=("fixed_grid",), pictures=1, settings=((0.018,),))
    assert built.comparisons.empty
    assert not (built.folder / "comparisons.md").exists()
    assert "no verdict" in built.sentence


@pytest.mark.usefixtures("draws")
def test_all_diverged_still_makes_a_report(tmp_path: Path) -> None:
    built = report_of(
        tmp_path, methods=("yoto",), settings=((0.018,),), diverged=(("yoto", 0, 0),), context=False
    )
    assert list(built.summary["status"]) == ["diverged"]
    assert not list(built.folder.glob("*.png"))


# What it cost -----------------------------------------------------------------------------------


def test_costs_are_per_seed_and_over_different_cells(tmp_path: Path) -> None:
    costs = report_of(tmp_path, seeds=(0, 1, 2)).savings.set_index("method")
    grid, yoto, single = (costs.loc[m] for m in ("fixed_grid", "yoto", "single_model"))
    assert (grid["networks"], grid["examples"], grid["flops"]) == (5, 40_000, 1e14)
    assert (yoto["networks"], yoto["examples"], yoto["flops"]) == (1, 16_000, 4e13)
    assert yoto["parameters"] == 1_500_000  # with its conditioner
    assert (yoto["seconds"], yoto["bytes_ratio"]) == (105.0, pytest.approx(0.25))
    assert (single["networks"], single["flops_ratio"]) == (1, pytest.approx(0.2))
    every = costs.iloc[-1]
    assert every.name == "all, each network once"
    assert every["networks"] == 5 + 1 + 1  # not the single model's a second time


def test_seconds_of_a_shared_device_are_not_quoted(tmp_path: Path) -> None:
    built = report_of(tmp_path, shared=("yoto",))
    costs = built.savings.set_index("method")
    assert math.isnan(costs.at["yoto", "seconds"])
    assert costs.at["fixed_grid", "seconds"] == 250.0
    assert costs.at["yoto", "flops_ratio"] == pytest.approx(0.4)
    assert has_note(built, "No seconds are quoted of YOTO:")


def test_seconds_of_different_devices_have_no_ratio(tmp_path: Path) -> None:
    write_results(tmp_path)
    for path in tmp_path.glob("runs/*/yoto/*/done.json"):
        path.write_text(path.read_text().replace("a CPU, 2 threads", "a GPU"))
    costs = build(tmp_path)[0].savings.set_index("method")
    assert costs.at["yoto", "seconds"] == 105.0
    assert math.isnan(costs.at["yoto", "seconds_ratio"])
    assert costs.at["unconditioned", "seconds_ratio"] == pytest.approx(0.2)


def test_seconds_of_steps_that_were_not_replayed_have_no_ratio(tmp_path: Path) -> None:
    write_results(tmp_path)
    # "yoto" is from before there were replays, whose ledgers do not say.
    for method, more in (("fixed_grid", True), ("yoto", None), ("unconditioned", True)):
        for path in tmp_path.glob(f"runs/*/{method}/*/done.json"):
            done = json.loads(path.read_text())
            captured = {} if more is None else {"captured": more}
            change(path, ledger={**done["ledger"], "device": "cuda", **captured})
    costs = build(tmp_path)[0].savings.set_index("method")
    assert costs.at["yoto", "seconds"] == 105.0
    assert math.isnan(costs.at["yoto", "seconds_ratio"])
    assert costs.at["fixed_grid", "device"] == costs.at["yoto", "device"] + ", replayed"
    assert costs.at["unconditioned", "seconds_ratio"] == pytest.approx(0.2)


def test_what_a_network_was_continued_from_costs_but_is_not_stored(tmp_path: Path) -> None:
    write_results(tmp_path)
    (yoto,) = tmp_path.glob("runs/*/yoto/*/done.json")
    (first,) = tmp_path.glob("runs/*/unconditioned/*/done.json")
    change(yoto, after=json.loads(first.read_text())["id"])
    costs = build(tmp_path)[0].savings.set_index("method")
    assert (costs.at["yoto", "networks"], costs.at["yoto", "flops"]) == (2, 6e13)
    assert costs.at["yoto", "parameters"] == 1_500_000


@pytest.mark.parametrize(
    ("ledger", "note"),
    [
        (None, "YOTO: 1 of its trainings have no done.json"),
        ({"device": "cpu", "shared_device": False}, "YOTO: a training"),
    ],
)
def test_a_training_without_its_ledger_leaves_its_cost_open(
    tmp_path: Path, ledger: dict[str, Any] | None, note: str
) -> None:
    write_results(tmp_path)
    (path,) = tmp_path.glob("runs/*/yoto/*/done.json")
    if ledger is None:
        path.unlink()
    else:
        change(path, status="diverged", ledger=ledger)
    (built,) = build(tmp_path)
    costs = built.savings.set_index("method")
    assert costs.loc[["yoto", "all, each network once"], "flops"].isna().all()
    assert costs.at["yoto", "networks"] == 1
    assert has_note(built, note)

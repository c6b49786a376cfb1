"""The answers of a report, against plain arithmetic, closed forms and other implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bjontegaard
import moocore
import numpy as np
import pandas as pd
import pytest
from ideal import (
    DECADES,
    MEASURES,
    also,
    edit,
    overall_of,
    row_of,
    run_of,
    shortened,
    told,
    write_ideal,
)
from test_report import CODEC, STYLE_AXES, Noise, frame_of, style_settings, write_results

from bench.identity import content_id
from bench.report.answers import compare, costs, stats
from bench.report.answers.knob import cross
from bench.report.answers.reference import in_percent, margin_of
from bench.report.load import MeasureStyle

# Gaps -------------------------------------------------------------------------------------------


def test_every_gap_against_plain_arithmetic(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1, 2), measures=MEASURES)
    frame = compare.comparisons(run_of(tmp_path))
    assert len(frame) == 3 * 5 * len(CODEC)
    assert list(frame["measure"][:2]) == ["loss", "bpp"]
    rows = frame_of(tmp_path)
    for measure, percent in (("loss", True), ("psnr", False), ("lpips", True)):
        at = rows[(rows["measure"] == measure) & (rows["setting"] == "distortion=0.18")]
        one, grid = (
            at[at["method"] == m].pivot(index="seed", columns="example", values="value").to_numpy()
            for m in ("yoto", "fixed_grid")
        )
        row = row_of(frame, method="yoto", setting="distortion=0.18", measure=measure)
        gap = (one - grid).mean()
        assert row["gap"] == pytest.approx(100 * gap / grid.mean() if percent else gap)
        interval = stats.gap_interval(one, grid, percent=percent)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        assert (row["percent"], row["pairs"], row["seeds"], row["pictures"]) == (percent, 18, 3, 6)
        assert row["grid"] == pytest.approx(grid.mean())
        assert row["interval"] == "hierarchical bootstrap"
    assert set(frame.loc[frame["measure"] == "lpips", "verdict"]) == {""}  # it has no margin


@pytest.mark.parametrize(
    ("margin", "relative", "percent", "size"),
    [
        ("1%", True, True, 1.0),
        ("0.5", True, False, 0.5),
        ("2", False, False, 2.0),
        ("", True, True, math.nan),
        ("", False, False, math.nan),
    ],
)
def test_a_gap_has_the_unit_of_its_margin(
    margin: str, relative: bool, percent: bool, size: float
) -> None:
    style = MeasureStyle(label="x", margin=margin, relative=relative, better="lower")
    assert in_percent(style) == percent
    assert margin_of(style) == pytest.approx(size, nan_ok=True)


def test_a_row_reads_better_equal_worse_or_undecided(tmp_path: Path) -> None:
    """Other measures against their own margin, where they have one and a better direction."""
    off = {"yoto": 1.05, "a": 0.95, "b": 1.002}

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        spread = 0.03 * noise() if method == "c" else 0.0
        bpp = (10 + hard) * off.get(method, 1.0 + spread)
        return told()("fixed_grid", setting, hard, noise) | {"bpp": bpp, "mystery": bpp}

    measures = {name: MEASURES[name] for name in ("loss", "distortion", "bpp")}
    measures |= {"mystery": {"label": "?", "unit": "", "margin": "1%"}}
    write_ideal(
        tmp_path, methods=("fixed_grid", "yoto", "a", "b", "c"), values=values, measures=measures,
        fronts=(), seeds=(0, 1, 2),
    )  # fmt: skip
    frame = compare.comparisons(run_of(tmp_path))
    verdicts = frame[frame["measure"] == "bpp"].groupby("method")["verdict"].unique().map(list)
    assert list(verdicts[["yoto", "a", "b"]]) == [["worse"], ["better"], ["equal"]]
    assert "undecided" in verdicts["c"]
    assert set(frame.loc[frame["measure"] == "mystery", "verdict"]) == {""}  # no better direction
    assert set(frame.loc[frame["measure"] == "loss", "verdict"]) == {"equal"}


@pytest.mark.parametrize(("seeds", "widened"), [(1, 1.02), (4, 1.6)])
def test_the_mean_gap_has_the_interval_of_resampling_its_ratios(seeds: int, widened: float) -> None:
    """Against a bootstrap that does not linearise: draw seeds and pictures, divide means at every
    setting, average the ratios. widened: by Student's t for so few, see paired_interval."""
    random = np.random.default_rng(0)
    pictures, settings = 60, 4
    hard = np.exp(0.5 * random.standard_normal(pictures))
    grid = hard * np.array([1, 3, 10, 30])[:, None, None] * np.ones((settings, seeds, 1))
    off = np.array([0.02, 0.05, -0.01, 0.1])[:, None, None]
    noise = 0.08 * random.standard_normal(grid.shape) + 0.02 * random.standard_normal((1, seeds, 1))
    method = grid * (1 + off + noise)
    places = pd.MultiIndex.from_product(
        map(range, grid.shape), names=["setting", "seed", "example"]
    )
    frame = pd.DataFrame({"value": method.ravel(), "grid": grid.ravel()}, places).reset_index()
    found = compare.mean_gap(frame, percent=True)
    ratios = method.mean((1, 2)) / grid.mean((1, 2)) - 1
    assert found.estimate == pytest.approx(100 * ratios.mean())
    drawn = []
    for _ in range(4000):
        some = random.integers(seeds, size=seeds) if seeds > 1 else [0]
        whom = random.integers(pictures, size=pictures)
        one, other = (part[:, some][:, :, whom].mean((1, 2)) for part in (method, grid))
        drawn.append(100 * (one / other - 1).mean())
    width = np.ptp(np.quantile(drawn, [0.025, 0.975]))
    assert (found.high - found.low) / width == pytest.approx(widened, rel=0.15)


def test_a_pair_that_lacks_a_setting_leaves_the_mean_of_the_others(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1), diverged=(("yoto", 1, 4),), measures=MEASURES)
    gaps = compare.comparisons(run_of(tmp_path))
    gaps = gaps[(gaps["measure"] == "loss") & (gaps["method"] == "yoto")]
    gaps = gaps[~gaps["reference_fails"]].set_index("setting")["gap"]
    row = overall_of(tmp_path).loc["yoto"]
    assert row["loss_gap_mean"] == pytest.approx(gaps.mean())
    assert row["loss_gap_worst"] == pytest.approx(gaps.max())
    assert row["worst_setting"] == gaps.idxmax()
    assert row["status"] == "partly failed"


# Fronts -----------------------------------------------------------------------------------------


def test_fronts_against_the_libraries_themselves(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, seeds=(0, 1))
    means = frame_of(tmp_path).pivot_table(
        index=["method", "setting"], columns="measure", values="value"
    )
    grid, yoto = (means.loc[m, ["bpp", "psnr"]].sort_values("bpp") for m in ("fixed_grid", "yoto"))
    rows = overall_of(tmp_path)
    for name, bd in (("bd_rate", bjontegaard.bd_rate), ("bd_quality", bjontegaard.bd_psnr)):
        curves = (grid["bpp"], grid["psnr"], yoto["bpp"], yoto["psnr"])
        value = bd(*curves, method="akima", require_matching_points=False, min_overlap=0)
        assert rows.at["yoto", name] == pytest.approx(value)
    assert rows.at["yoto", "bd_low"] > rows.at["yoto", "bd_mid"]  # its excess is least there
    corner = np.array([4.0, -15.0])
    volumes = [moocore.hypervolume(part.to_numpy() * [1, -1], ref=corner) for part in (yoto, grid)]
    assert rows.at["yoto", "hypervolume_ratio"] == pytest.approx(volumes[0] / volumes[1])
    assert rows.at["yoto", "igd_plus"] > 0
    assert list(rows.loc["fixed_grid", ["hypervolume_ratio", "igd_plus"]]) == [1, 0]
    assert math.isnan(rows.at["single_model", "bd_rate"])
    assert "fewer than two points" in rows.at["single_model", "bd_reason"]


def test_a_front_of_two_losses_has_no_bd_rate(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, fronts=(("bpp", "distortion"),))
    row = overall_of(tmp_path).loc["yoto"]
    assert math.isnan(row["bd_rate"])
    assert "not a rate against a quality" in row["bd_reason"]
    assert math.isnan(row["hypervolume_ratio"])  # the task names no worst distortion
    assert row["igd_plus"] >= 0


# The knob ---------------------------------------------------------------------------------------


def test_a_perfect_knob_is_perfect_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """One that does nothing, one that turns the wrong way, one that turns half as far."""
    knobs: dict[str, Callable[[float], float]] = {
        "stuck": lambda c: 30.0,
        "reversed": lambda c: 1000 / c,
        "half": lambda c: c**0.5,
    }
    write_ideal(tmp_path, methods=("fixed_grid", "yoto", *knobs), values=told(**knobs))
    for between in (3.0, 50.0, 400.0):
        also(tmp_path, "yoto", between, "swept", told())
    also(tmp_path, "yoto", 5000.0, "swept", told(yoto=lambda c: 1.0), outside=True)
    frame = overall_of(tmp_path)
    off = np.mean(np.abs(np.log10(30) - np.arange(4))) / 3
    expected = {
        "yoto": [1, 1, 0, 1],
        "fixed_grid": [1, 1, 0, 1],
        "stuck": [0, math.nan, off, 0],
        "reversed": [1, -1, np.mean([3, 1, 1, 3]) / 3, 0],
        "half": [0.5, 1, 0.25, 0.5],  # right at the ends
    }
    columns = ["coverage", "monotonicity", "calibration", "diagonal"]
    for method, values in expected.items():
        assert list(frame.loc[method, columns]) == pytest.approx(values, nan_ok=True, abs=1e-12)
    assert frame.at["yoto", "held_out"] == pytest.approx(0, abs=1e-9)
    assert math.isnan(frame.at["stuck", "held_out"])


def test_held_out_settings_are_compared_with_what_their_neighbours_promise(tmp_path: Path) -> None:
    """Ten per cent too much at one of two, on the seed that was swept."""
    write_ideal(tmp_path, values=told())
    also(tmp_path, "yoto", 3.0, "swept", told())
    also(tmp_path, "yoto", 50.0, "swept", told(worse=1.1))
    assert overall_of(tmp_path).at["yoto", "held_out"] == pytest.approx(5)


def test_the_cross_matrix_is_what_scoring_anew_gives(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, seeds=(0, 1))
    run = run_of(tmp_path)
    found = cross(run, "yoto")
    rows = frame_of(tmp_path).query("method == 'yoto'")
    means = rows.pivot_table(index="setting", columns="measure", values="value")
    for one in run.settings:
        for other in run.settings:
            coefficient = float(other.removeprefix("distortion="))
            scored = coefficient * means.at[one, "distortion"] + means.at[one, "rate"]
            assert found.at[one, other] == pytest.approx(scored)
    with pytest.raises(ValueError, match="choose from"):
        cross(run, "nothing")


def test_several_coefficients_have_a_line_each(tmp_path: Path) -> None:
    """From the centre each of five coefficients has a low and a high end; two mixtures have no
    line. The fourth coefficient does nothing, the fifth turns the wrong way."""
    names = [axis["name"] for axis in STYLE_AXES]

    def values(method: str, setting: tuple[float, ...], *_: Any) -> dict[str, float]:
        terms = {name: c**-0.5 for name, c in zip(names, setting, strict=True)}
        terms |= {names[3]: 1.0, names[4]: setting[4] ** 0.5} if method == "yoto" else {}
        return terms | {"loss": sum(c * terms[n] for n, c in zip(names, setting, strict=True))}

    write_results(
        tmp_path, settings=style_settings(), axes=STYLE_AXES, values=values, context=False,
        fronts=(), methods=("fixed_grid", "yoto"),
        measures={name: {"label": name, "better": "lower"} for name in ("loss", *names)},
    )  # fmt: skip
    frame = overall_of(tmp_path)
    assert frame.at["fixed_grid", "monotonicity"] == pytest.approx(1)
    assert frame.at["yoto", "monotonicity"] == pytest.approx((3 - 1) / 4)  # a constant has none
    assert frame.at["yoto", "coverage"] == pytest.approx(4 / 5)


# Compute ----------------------------------------------------------------------------------------


def test_quality_of_each_length_of_the_training(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told(), seeds=(0, 1))
    assert compare.quality_compute(run_of(tmp_path)).empty
    for method, worse in (("fixed_grid", 1.2), ("yoto", 1.5)):
        shortened(tmp_path, method, 0.25, worse)
        for coefficient in DECADES:  # what older versions kept in mid-training says nothing
            also(tmp_path, method, coefficient, "snapshot", told(), share=0.5)
    found = compare.quality_compute(run_of(tmp_path))
    assert list(found["method"]) == ["fixed_grid", "fixed_grid", "yoto", "yoto"]
    assert list(found["share"]) == [0.25, 1, 0.25, 1]
    assert list(found["loss_gap"]) == pytest.approx([20, 0, 50, 0])
    assert list(found["flops"]) == pytest.approx([2e13, 8e13, 1e13, 4e13])  # per seed
    assert found["percent"].all()


def test_a_share_that_lacks_settings_is_left_out(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told())
    for coefficient in (1.0, 10.0):
        also(tmp_path, "fixed_grid", coefficient, "length", told(), share=0.5)
    assert set(compare.quality_compute(run_of(tmp_path))["share"]) == {1.0}


def test_what_a_shorter_training_started_from_counts_too(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told(), methods=("fixed_grid", "yoto", "unconditioned"))
    shortened(tmp_path, "yoto", 0.5)
    first = min(tmp_path.glob("runs/*/unconditioned/*")).name
    edit(tmp_path, "runs/*/yoto/*/done.json", lambda done: {"after": first})
    found = compare.quality_compute(run_of(tmp_path))
    assert row_of(found, method="yoto", share=0.5)["flops"] == pytest.approx(2e13 + 2e13)


def test_from_how_many_settings_on_it_is_cheaper(tmp_path: Path) -> None:
    """A conditioned network of two grid networks' FLOPs is cheaper from three settings on."""
    write_results(tmp_path, seeds=(0, 1, 2), measures=MEASURES)
    slower = iter(1 + 0.02 * (place % 3) for place in range(100))

    def slow(done: dict[str, Any]) -> dict[str, Any]:
        seconds = done["ledger"]["seconds"]
        return {"ledger": done["ledger"] | {"seconds": {"train": seconds["train"] * next(slower)}}}

    edit(tmp_path, "runs/*/*/*/done.json", slow)
    found = costs.break_evens(run_of(tmp_path))
    flops = row_of(found, method="yoto", unit="flops")
    assert flops["crossing"] == flops["low"] == flops["high"] == 2
    assert (flops["settings"], flops["earliest"], flops["latest"]) == (3, 3, 3)
    seconds = row_of(found, method="yoto", unit="seconds")
    assert seconds["low"] < seconds["crossing"] < seconds["high"]
    assert seconds["crossing"] == pytest.approx(2.1, rel=0.05)
    assert overall_of(tmp_path).at["yoto", "break_even"] == 3
    assert "fixed_grid" not in set(found["method"])


def test_a_chain_of_short_trainings_is_cheaper_from_the_second_setting_on(tmp_path: Path) -> None:
    write_results(tmp_path, methods=("fixed_grid", "warm_grid"), measures=MEASURES)
    (trained,) = tmp_path.glob("runs/*/warm_grid/*/done.json")

    def with_network(head: dict[str, Any]) -> dict[str, Any]:
        """One of its own per setting, the middle one in full."""
        cell = content_id(head["setting"])
        new = trained.parent.with_name(cell) / "done.json"
        new.parent.mkdir()
        new.write_text(trained.read_text())
        flops = 2e13 if head["setting"] == "distortion=0.018" else 2e12
        edit(new.parent, "*", lambda c: {"id": cell, "ledger": c["ledger"] | {"flops": flops}})
        return {"cells": [cell]}

    edit(tmp_path, "records/*/warm_grid/*.json", with_network)
    row = row_of(costs.break_evens(run_of(tmp_path)), method="warm_grid", unit="flops")
    assert row["settings"] == 2
    assert math.isnan(row["crossing"])
    overall = overall_of(tmp_path)
    assert overall.at["warm_grid", "flops_ratio"] == pytest.approx((1 + 4 * 0.1) / 5)
    assert overall.at["fixed_grid", "against_warm"] == pytest.approx(5 / 1.4)


def test_seconds_of_other_devices_break_nothing_even(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES)
    gpu = {"device_name": "a GPU"}
    edit(tmp_path, "runs/*/yoto/*/done.json", lambda done: {"ledger": done["ledger"] | gpu})
    found = costs.break_evens(run_of(tmp_path))
    assert math.isnan(row_of(found, method="yoto", unit="seconds")["settings"])
    assert row_of(found, method="yoto", unit="flops")["settings"] == 3


def test_without_a_grid_nothing_is_compared_but_all_is_answered(tmp_path: Path) -> None:
    write_results(tmp_path, methods=("yoto", "unconditioned"), measures=MEASURES)
    run = run_of(tmp_path)
    assert compare.comparisons(run)["gap"].isna().all()
    frame = overall_of(tmp_path)
    assert frame["loss_gap_mean"].isna().all()
    assert frame.at["yoto", "monotonicity"] == 1
    assert costs.break_evens(run)["settings"].isna().all()
    assert compare.quality_compute(run)["loss_gap"].isna().all()


def test_an_answer_is_worked_out_once_and_everyone_has_a_copy(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told())
    run = run_of(tmp_path)
    frame = compare.overall(run)
    frame["method"] = "spoilt"
    assert list(compare.overall(run)["method"]) == ["fixed_grid", "yoto"]

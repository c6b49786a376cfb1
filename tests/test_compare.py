"""The answers of a report, against plain arithmetic, closed forms and other implementations."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bjontegaard
import moocore
import numpy as np
import pandas as pd
import pytest
from test_report import (
    CODEC,
    LAMBDA,
    STYLE_AXES,
    Noise,
    frame_of,
    style_settings,
    write_results,
)

import bench
from bench.identity import content_id
from bench.report import build, compare, costs, stats
from bench.report.explain import explain
from bench.report.load import CELLS, MEASURED, RECORDS, MeasureStyle, Run, load_results
from bench.report.reference import in_percent, margin_of
from bench.report.text import estimate, latex, latex_table
from bench.report.verdict import under_test, verdict_sentence
from bench.run.records import Record, dumps
from bench.space import format_setting

MARGINS = {"loss": "1%", "bpp": "1%", "psnr": "0.05"}
MEASURES = {
    name: {**style, "margin": MARGINS.get(name, ""), "worst": {"bpp": 4.0, "psnr": 15.0}.get(name)}
    for name, style in CODEC.items()
}


def run_of(root: Path) -> Run:
    (run,) = load_results(root).runs
    return run


def row_of(frame: pd.DataFrame, **where: Any) -> Any:
    (row,) = frame[(frame[list(where)] == list(where.values())).all(axis=1)].to_dict("records")
    return row


def ideal(coefficient: float, hard: float = 0.0) -> dict[str, float]:
    """The best codec there is: rate = -log distortion has its least loss at distortion 1 / λ."""
    distortion, rate = 1 / coefficient, 3 + math.log(coefficient)
    bpp = rate * math.exp(0.3 * hard)
    return {
        "distortion": distortion,
        "rate": rate,
        "loss": coefficient * distortion + rate,
        "bpp": bpp,
        "psnr": 10 * math.log10(255**2 / distortion),
    }


Told = Callable[[float], float]


def told(**knobs: Told) -> Callable[..., dict[str, float]]:
    """Methods that answer a coefficient with the best codec for another."""

    def values(
        method: str, setting: tuple[float, ...], hard: float, noise: Noise
    ) -> dict[str, float]:
        (coefficient,) = setting
        found = ideal(knobs.get(method, lambda c: c)(coefficient), hard)
        loss = coefficient * found["distortion"] + found["rate"]
        return found | {"loss": loss}

    return values


def write_ideal(root: Path, **more: Any) -> None:
    """Coefficients 1, 10, 100, 1000 of the best codec."""
    options: dict[str, Any] = {
        "axes": [{"name": "distortion", "low": 1.0, "high": 1000.0, "symbol": "λ"}],
        "settings": ((1.0,), (10.0,), (100.0,), (1000.0,)),
        "measures": {name: MEASURES[name] for name in ("loss", "bpp", "psnr", "distortion")},
        "fronts": (("bpp", "psnr"),),
        "context": False,
        "methods": ("fixed_grid", "yoto"),
    }
    write_results(root, **(options | more))


def also(
    root: Path,
    method: str,
    setting: float,
    kind: str,
    values: Callable[..., dict[str, float]],
    share: float = 1.0,
    outside: bool = False,
) -> None:
    """One more measurement of a method that is there, of another kind."""
    paths = sorted(root.glob(f"records/*/{method}/*.json"))
    heads = [json.loads(path.read_text()) for path in paths]
    text = format_setting(["distortion"], (setting,))
    same = [head for head in heads if head["setting"] == text and head["kind"] == "method"]
    for head in same or [h for h in heads if h["kind"] == "method"][:1]:
        rows = [
            Record(
                head["task"], head["preset"], head["experiment"], method, head["seed"], "", text,
                f"picture{picture}", name, value,
            )
            for picture in range(6)
            for name, value in values(
                method, (setting,), float(np.random.default_rng(picture).standard_normal()), None
            ).items()
        ]  # fmt: skip
        csv = dumps(rows)
        head |= {
            "kind": kind,
            "share": share,
            "setting": text,
            "id": content_id([head["id"], kind, text, share]),
        }
        head |= {"sha256": hashlib.sha256(csv.encode()).hexdigest()}
        head |= {"outside": ["λ is outside its range"] if outside else []}
        path = root / "records" / head["task"] / method / f"{head['id']}.json"
        path.with_suffix(".csv").write_text(csv)
        path.write_text(json.dumps(head))


# Gaps -------------------------------------------------------------------------------------------


def test_every_gap_against_plain_arithmetic(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1, 2), measures=MEASURES)
    found = compare.comparisons(run_of(tmp_path))
    assert len(found) == 3 * 5 * len(CODEC)
    assert list(found["measure"][:2]) == ["loss", "bpp"]
    rows = frame_of(tmp_path)
    for measure, percent in (("loss", True), ("psnr", False), ("lpips", True)):
        at = rows[(rows["measure"] == measure) & (rows["setting"] == "distortion=0.18")]
        one, grid = (
            at[at["method"] == m].pivot(index="seed", columns="example", values="value").to_numpy()
            for m in ("yoto", "fixed_grid")
        )
        row = row_of(found, method="yoto", setting="distortion=0.18", measure=measure)
        gap = (one - grid).mean()
        assert row["gap"] == pytest.approx(100 * gap / grid.mean() if percent else gap)
        whole = stats.paired_ratio_interval(one, grid) if percent else None
        interval = stats.paired_interval(one - grid) if whole is None else whole
        assert row["low"] == pytest.approx((100 if percent else 1) * interval.low)
        assert row["high"] == pytest.approx((100 if percent else 1) * interval.high)
        assert (row["percent"], row["pairs"], row["seeds"], row["pictures"]) == (percent, 18, 3, 6)
        assert row["grid"] == pytest.approx(grid.mean())
        assert row["interval"] == "hierarchical bootstrap"
    assert set(found.loc[found["measure"] == "lpips", "verdict"]) == {""}  # it has no margin


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
    write_results(
        tmp_path, methods=("fixed_grid", "yoto", "a", "b", "c"), values=values, measures=measures,
        fronts=(), context=False, seeds=(0, 1, 2),
    )  # fmt: skip
    found = compare.comparisons(run_of(tmp_path))
    verdicts = found[found["measure"] == "bpp"].groupby("method")["verdict"].unique().map(list)
    assert verdicts["yoto"] == ["worse"]
    assert verdicts["a"] == ["better"]
    assert verdicts["b"] == ["equal"]
    assert "undecided" in verdicts["c"]
    assert set(found.loc[found["measure"] == "mystery", "verdict"]) == {""}  # no better direction
    assert set(found.loc[found["measure"] == "loss", "verdict"]) == {"equal"}


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_mean_gap_has_the_interval_of_resampling_its_ratios(seeds: int) -> None:
    """Against a bootstrap that does not linearise: draw seeds and pictures, divide means at every
    setting, average the ratios."""
    random = np.random.default_rng(0)
    pictures, settings = 60, 4
    hard = np.exp(0.5 * random.standard_normal(pictures))
    grid = hard * np.array([1, 3, 10, 30])[:, None, None] * np.ones((settings, seeds, 1))
    off = np.array([0.02, 0.05, -0.01, 0.1])[:, None, None]
    noise = 0.08 * random.standard_normal(grid.shape) + 0.02 * random.standard_normal((1, seeds, 1))
    method = grid * (1 + off + noise)
    frame = pd.DataFrame(
        [
            (f"s{s}", seed, p, method[s, seed, p], grid[s, seed, p])
            for s in range(settings)
            for seed in range(seeds)
            for p in range(pictures)
        ],
        columns=["setting", "seed", "example", "value", "grid"],
    )
    found = compare.mean_gap(frame, percent=True)
    ratios = method.mean((1, 2)) / grid.mean((1, 2)) - 1
    assert found.estimate == pytest.approx(100 * ratios.mean())
    drawn = []
    for _ in range(4000):
        some = random.integers(seeds, size=seeds) if seeds > 1 else [0]
        whom = random.integers(pictures, size=pictures)
        one, other = (part[:, some][:, :, whom].mean((1, 2)) for part in (method, grid))
        drawn.append(100 * (one / other - 1).mean())
    widened = {1: 1.02, 4: 1.6}[seeds]  # Student's t for so few seeds, see paired_interval
    width = np.ptp(np.quantile(drawn, [0.025, 0.975]))
    assert (found.high - found.low) / width == pytest.approx(widened, rel=0.15)


def test_a_pair_that_lacks_a_setting_leaves_the_mean_of_the_others(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1), diverged=(("yoto", 1, 4),), measures=MEASURES)
    run = run_of(tmp_path)
    gaps = compare.comparisons(run)
    of_loss = gaps[(gaps["measure"] == "loss") & (gaps["method"] == "yoto")]
    of_loss = of_loss[~of_loss["reference_fails"]]
    row = row_of(compare.overall(run), method="yoto")
    assert row["loss_gap_mean"] == pytest.approx(of_loss["gap"].mean())
    assert row["loss_gap_worst"] == pytest.approx(of_loss["gap"].max())
    assert row["worst_setting"] == of_loss.loc[of_loss["gap"].idxmax(), "setting"]
    assert row["status"] == "partly failed"


def test_what_failed_is_shown_as_failed(tmp_path: Path) -> None:
    lost = tuple(("yoto", 0, place) for place in range(5))
    write_results(tmp_path, diverged=lost, measures=MEASURES)
    run = run_of(tmp_path)
    row = row_of(compare.overall(run), method="yoto")
    assert row["status"] == "failed"
    assert math.isnan(row["loss_gap_mean"])
    assert "failed" in verdict_sentence(run)


# Fronts -----------------------------------------------------------------------------------------


def test_fronts_against_the_libraries_themselves(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, seeds=(0, 1))
    run = run_of(tmp_path)
    means = frame_of(tmp_path).pivot_table(
        index=["method", "setting"], columns="measure", values="value"
    )
    grid, yoto = (means.loc[m, ["bpp", "psnr"]].sort_values("bpp") for m in ("fixed_grid", "yoto"))
    row = row_of(compare.overall(run), method="yoto")
    expected = bjontegaard.bd_rate(
        grid["bpp"], grid["psnr"], yoto["bpp"], yoto["psnr"],
        method="akima", require_matching_points=False, min_overlap=0,
    )  # fmt: skip
    assert row["bd_rate"] == pytest.approx(expected)
    assert row["bd_low"] > row["bd_mid"]  # its excess is least in the middle
    assert row["bd_quality"] == pytest.approx(
        bjontegaard.bd_psnr(
            grid["bpp"], grid["psnr"], yoto["bpp"], yoto["psnr"],
            method="akima", require_matching_points=False, min_overlap=0,
        )
    )  # fmt: skip
    corner = np.array([4.0, -15.0])
    volumes = [moocore.hypervolume(part.to_numpy() * [1, -1], ref=corner) for part in (yoto, grid)]
    assert row["hypervolume_ratio"] == pytest.approx(volumes[0] / volumes[1])
    assert row["igd_plus"] > 0
    reference = row_of(compare.overall(run), method="fixed_grid")
    assert (reference["hypervolume_ratio"], reference["igd_plus"]) == (1, 0)
    single = row_of(compare.overall(run), method="single_model")
    assert math.isnan(single["bd_rate"])
    assert "fewer than two points" in single["bd_reason"]


def test_a_front_of_two_losses_has_no_bd_rate(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, fronts=(("bpp", "distortion"),))
    row = row_of(compare.overall(run_of(tmp_path)), method="yoto")
    assert math.isnan(row["bd_rate"])
    assert "not a rate against a quality" in row["bd_reason"]
    assert math.isnan(row["hypervolume_ratio"])  # the task names no worst distortion
    assert row["igd_plus"] >= 0


# The knob ---------------------------------------------------------------------------------------


def test_a_perfect_knob_is_perfect_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """One that does nothing, one that turns the wrong way, one that turns half as far."""
    knobs: dict[str, Told] = {
        "stuck": lambda c: 30.0,
        "reversed": lambda c: 1000 / c,
        "half": lambda c: c**0.5,
    }
    write_ideal(tmp_path, methods=("fixed_grid", "yoto", *knobs), values=told(**knobs))
    for between in (3.0, 50.0, 400.0):
        also(tmp_path, "yoto", between, "swept", told())
    also(tmp_path, "yoto", 5000.0, "swept", told(yoto=lambda c: 1.0), outside=True)
    found = compare.overall(run_of(tmp_path)).set_index("method")
    knob = found[["coverage", "monotonicity", "calibration", "diagonal"]]
    assert list(knob.loc["yoto"]) == pytest.approx([1, 1, 0, 1])
    assert list(knob.loc["fixed_grid"]) == pytest.approx([1, 1, 0, 1])
    off = np.mean(np.abs(np.log10(30) - np.arange(4))) / 3
    assert list(knob.loc["stuck"]) == pytest.approx([0, math.nan, off, 0], nan_ok=True)
    assert list(knob.loc["reversed"]) == pytest.approx([1, -1, np.mean([3, 1, 1, 3]) / 3, 0])
    assert list(knob.loc["half"]) == pytest.approx([0.5, 1, 0.25, 0.5])  # right at the ends
    assert found.at["yoto", "held_out"] == pytest.approx(0, abs=1e-9)
    assert math.isnan(found.at["stuck", "held_out"])


def test_held_out_settings_are_compared_with_what_their_neighbours_promise(tmp_path: Path) -> None:
    """Ten per cent too much at one of two, on the seed that was swept."""
    write_ideal(tmp_path, values=told())
    also(tmp_path, "yoto", 3.0, "swept", told())

    def worse(*arguments: Any) -> dict[str, float]:
        values = told()(*arguments)
        return values | {"loss": 1.1 * values["loss"]}

    also(tmp_path, "yoto", 50.0, "swept", worse)
    row = row_of(compare.overall(run_of(tmp_path)), method="yoto")
    assert row["held_out"] == pytest.approx(5)


def test_the_cross_matrix_is_what_scoring_anew_gives(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, seeds=(0, 1))
    run = run_of(tmp_path)
    found = compare.cross(run, "yoto")
    rows = frame_of(tmp_path).query("method == 'yoto'")
    means = rows.pivot_table(index="setting", columns="measure", values="value")
    for one in run.settings:
        for other in run.settings:
            coefficient = float(other.removeprefix("distortion="))
            scored = coefficient * means.at[one, "distortion"] + means.at[one, "rate"]
            assert found.at[one, other] == pytest.approx(scored)
    with pytest.raises(ValueError, match="choose from"):
        compare.cross(run, "nothing")


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
    found = compare.overall(run_of(tmp_path)).set_index("method")
    assert found.at["fixed_grid", "monotonicity"] == pytest.approx(1)
    assert found.at["yoto", "monotonicity"] == pytest.approx((3 - 1) / 4)  # a constant has none
    assert found.at["yoto", "coverage"] == pytest.approx(4 / 5)


# Compute ----------------------------------------------------------------------------------------


def shortened(root: Path, method: str, share: float, worse: float = 1.0) -> None:
    """Networks of `also`'s settings, trained for a share of the steps at a share of the cost."""
    for path in sorted(root.glob(f"runs/*/{method}/*/done.json")):
        done = json.loads(path.read_text())
        if done["ledger"]["steps"] % 1000:
            continue  # itself one
        done["id"] = f"{done['id']}-{share:g}"
        for cost in ("steps", "flops"):
            done["ledger"][cost] = int(done["ledger"][cost] * share)
        folder = path.parent.with_name(done["id"])
        folder.mkdir()
        (folder / "done.json").write_text(json.dumps(done))

    def brief(*arguments: Any) -> dict[str, float]:
        values = told()(*arguments)
        return values | {"loss": worse * values["loss"]}

    for coefficient in (1.0, 10.0, 100.0, 1000.0):
        also(root, method, coefficient, "length", brief, share=share)
    for path in root.glob(f"records/*/{method}/*.json"):
        head = json.loads(path.read_text())
        if (head["kind"], head.get("share")) == ("length", share):
            head["cells"] = [f"{cell}-{share:g}" for cell in head["cells"]]
            path.write_text(json.dumps(head))


def test_quality_of_each_length_of_the_training(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told(), seeds=(0, 1))
    assert compare.quality_compute(run_of(tmp_path)).empty
    for method, worse in (("fixed_grid", 1.2), ("yoto", 1.5)):
        shortened(tmp_path, method, 0.25, worse)
        for coefficient in (1.0, 10.0, 100.0, 1000.0):
            also(tmp_path, method, coefficient, "snapshot", told(), share=0.5)  # says nothing
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
    found = compare.quality_compute(run_of(tmp_path))
    assert set(found["share"]) == {1.0}


def test_what_a_shorter_training_started_from_counts_too(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=told(), methods=("fixed_grid", "yoto", "unconditioned"))
    shortened(tmp_path, "yoto", 0.5)
    continued(tmp_path, "yoto", "unconditioned")
    found = compare.quality_compute(run_of(tmp_path))
    assert row_of(found, method="yoto", share=0.5)["flops"] == pytest.approx(2e13 + 2e13)


def continued(root: Path, method: str, earlier: str) -> None:
    """Let the trainings of a method have begun from the first of another."""
    first = json.loads(min(root.glob(f"runs/*/{earlier}/*/done.json")).read_text())["id"]
    for path in root.glob(f"runs/*/{method}/*/done.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"after": first}))


def test_from_how_many_settings_on_it_is_cheaper(tmp_path: Path) -> None:
    """A conditioned network of two grid networks' FLOPs is cheaper from three settings on."""
    write_results(tmp_path, seeds=(0, 1, 2), measures=MEASURES)
    for place, path in enumerate(sorted(tmp_path.glob("runs/*/*/*/done.json"))):
        content = json.loads(path.read_text())
        content["ledger"]["seconds"]["train"] *= 1 + 0.02 * (place % 3)
        path.write_text(json.dumps(content))
    run = run_of(tmp_path)
    found = costs.break_evens(run)
    flops = row_of(found, method="yoto", unit="flops")
    assert flops["crossing"] == flops["low"] == flops["high"] == 2
    assert (flops["settings"], flops["earliest"], flops["latest"]) == (3, 3, 3)
    seconds = row_of(found, method="yoto", unit="seconds")
    assert seconds["low"] < seconds["crossing"] < seconds["high"]
    assert seconds["crossing"] == pytest.approx(2.1, rel=0.05)
    assert row_of(compare.overall(run), method="yoto")["break_even"] == 3
    assert "fixed_grid" not in set(found["method"])


def test_a_chain_of_short_trainings_is_cheaper_from_the_second_setting_on(tmp_path: Path) -> None:
    write_results(tmp_path, methods=("fixed_grid", "warm_grid"), measures=MEASURES)
    cells = sorted(tmp_path.glob("runs/*/warm_grid/*/done.json"))
    for path in tmp_path.glob("records/*/warm_grid/*.json"):  # a network of its own per setting
        head = json.loads(path.read_text())
        content = json.loads(cells[0].read_text())
        content["id"] = content_id(head["setting"])
        content["ledger"]["flops"] = 2e13 if head["setting"] == "distortion=0.018" else 2e12
        new = cells[0].parent.parent / content["id"] / "done.json"
        new.parent.mkdir()
        new.write_text(json.dumps(content))
        path.write_text(json.dumps(head | {"cells": [content["id"]]}))
    run = run_of(tmp_path)
    row = row_of(costs.break_evens(run), method="warm_grid", unit="flops")
    assert row["settings"] == 2
    assert math.isnan(row["crossing"])
    overall = compare.overall(run).set_index("method")
    assert overall.at["warm_grid", "flops_ratio"] == pytest.approx((1 + 4 * 0.1) / 5)
    assert overall.at["fixed_grid", "against_warm"] == pytest.approx(5 / 1.4)


def test_seconds_of_other_devices_break_nothing_even(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES)
    for path in tmp_path.glob("runs/*/yoto/*/done.json"):
        path.write_text(path.read_text().replace("a CPU, 2 threads", "a GPU"))
    found = costs.break_evens(run_of(tmp_path))
    assert math.isnan(row_of(found, method="yoto", unit="seconds")["settings"])
    assert row_of(found, method="yoto", unit="flops")["settings"] == 3


def test_without_a_grid_nothing_is_compared_but_all_is_answered(tmp_path: Path) -> None:
    write_results(tmp_path, methods=("yoto", "unconditioned"), measures=MEASURES)
    run = run_of(tmp_path)
    assert compare.comparisons(run)["gap"].isna().all()
    found = compare.overall(run).set_index("method")
    assert found["loss_gap_mean"].isna().all()
    assert found.at["yoto", "monotonicity"] == 1
    assert costs.break_evens(run)["settings"].isna().all()
    assert compare.quality_compute(run)["loss_gap"].isna().all()


# In words ---------------------------------------------------------------------------------------


def losing(share: float, spread: float = 0.0) -> Callable[..., dict[str, float]]:
    """A network told its coefficients that loses this share of the benefit; the middle network of
    `ideal`'s grid of 1, 10, ..., 10000 is told 100."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        (coefficient,) = setting
        found = told()("fixed_grid", setting, hard, noise)
        benefit = coefficient / 100 + math.log(100) - 1 - math.log(coefficient)
        lost = (share + spread * noise()) * benefit if method == "yoto" else 0.0
        return found | {"loss": found["loss"] + lost}

    return values


GAINS = "Of what the grid gains over its middle network used everywhere, one network (YOTO) loses"


@pytest.mark.parametrize(
    ("values", "seeds", "said"),
    [
        (losing(0.2), (0, 1, 2), f"{GAINS} 20 % [20, 20] over the 4 of 5 settings"),
        (losing(0.2), (0, 1, 2), "worse than the grid by more than the margin of 10 % of the"),
        (losing(-0.2), (0, 1, 2), f"{GAINS} −20 % [−20, −20] over the 4 of 5 settings"),
        (losing(-0.2), (0, 1, 2), "better than the grid by more than the margin of 10 %"),
        (losing(0.04), (0, 1, 2), "That is equal within the margin of 10 % of the benefit."),
        (losing(0.0, 0.4), (0, 1, 2), "is undecided; at this spread"),
        (losing(0.2), (0,), "One seed: an orientation, no verdict."),
        (losing(0.2), (0, 1), "Two seeds: an orientation, no verdict."),
        (losing(0.2), (0, 1, 2), "It costs 0.40× the grid's compute and"),
        (losing(0.2), (0, 1, 2), "is cheaper from 3 settings on."),
    ],
)
def test_the_sentence_says_what_the_numbers_say(
    tmp_path: Path, values: Any, seeds: tuple[int, ...], said: str
) -> None:
    write_ideal(
        tmp_path, values=values, seeds=seeds, fronts=(),
        axes=[{"name": "distortion", "low": 1.0, "high": 10000.0, "symbol": "λ"}],
        settings=((1.0,), (10.0,), (100.0,), (1000.0,), (10000.0,)),
    )  # fmt: skip
    sentence = verdict_sentence(run_of(tmp_path))
    assert said in sentence
    assert sentence.startswith("compression, quick: It is not known whether the grid is trained")
    assert sentence.count(".\n") == 0


def test_the_sentence_is_honest_where_there_is_none(tmp_path: Path) -> None:
    write_results(tmp_path / "grid", methods=("fixed_grid", "unconditioned"))
    assert "no network told its coefficients" in verdict_sentence(run_of(tmp_path / "grid"))
    write_results(tmp_path / "yoto", methods=("yoto",))
    assert "no fixed grid" in verdict_sentence(run_of(tmp_path / "yoto"))


def test_the_sentence_is_about_the_best_known_variant(tmp_path: Path) -> None:
    names = ("fixed_grid", "yoto_tuned[width=2.0]", "yoto", "yoto_tuned")
    write_results(tmp_path, methods=names, values=told(), measures=MEASURES, context=False)
    run = run_of(tmp_path)
    assert under_test(run) == "yoto_tuned"
    assert "(YOTO tuned)" in verdict_sentence(run)


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
    axes = [{**LAMBDA[0], "symbol": nasty}]
    write_results(
        tmp_path / "r", measures=MEASURES, methods=("fixed_grid", "yoto", "a_b[c=1.0]"), axes=axes,
        seeds=(0, 1), diverged=(("yoto", 0, 1),), values=told(), outside=(4,),
    )  # fmt: skip
    (built,) = build(tmp_path / "r")
    tables = [path for path in built.paths if path.suffix == ".tex"]
    assert len(tables) >= 5
    body = "\n\n".join(rf"\input{{{path}}}" for path in tables)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{body}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_best_of_a_column_is_marked_and_the_grid_is_not(tmp_path: Path) -> None:
    from bench.report.tables import overall_sheet

    write_ideal(
        tmp_path, values=losing(0.2), seeds=(0, 1, 2), methods=("fixed_grid", "yoto", "a"),
        fronts=(), axes=[{"name": "distortion", "low": 1.0, "high": 10000.0, "symbol": "λ"}],
        settings=((1.0,), (10.0,), (100.0,), (1000.0,), (10000.0,)),
    )  # fmt: skip
    run = run_of(tmp_path)
    frame = compare.overall(run)
    sheet = overall_sheet(run, frame)
    marked = {(sheet.rows[row][0], sheet.head[column]) for row, column in sheet.best}
    shares = frame.set_index("method")["share_mean"]
    first = "YOTO" if shares["yoto"] < shares["a"] else "a"
    assert (first, "benefit lost (%)") in marked
    assert ("a", "FLOPs") in marked  # half of YOTO's
    assert not [mark for mark in marked if mark[0] == "fixed grid"]
    assert not [mark for mark in marked if mark[1] == "loss gap (%)"]  # signed gaps cancel
    assert "**" in sheet.markdown()
    assert r"\textbf{" in sheet.latex()


# Behind a row -----------------------------------------------------------------------------------


def test_a_row_leads_to_its_records_trainings_commit_and_command(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, seeds=(0, 1), methods=("fixed_grid", "yoto"))
    results = load_results(tmp_path)
    text = explain(results, "compression-quick/yoto/0.018")
    run = results.runs[0]
    behind = run.measured[run.measured["setting"] == "distortion=0.018"]
    for entry in behind.to_dict("records"):  # its own, and the grid's it is compared with
        assert str(entry["path"].with_suffix(".csv")) in text
        assert entry["cells"][0] in text
        assert str(tmp_path / "runs/compression" / entry["method"] / entry["cells"][0]) in text
    other = run.measured[run.measured["setting"] == "distortion=0.18"]
    assert not any(path.stem in text for path in other["path"])
    assert "commit 0123456789ab" in text
    assert "run_bench.py run compression" in text
    assert "torch 2.9.0" in text
    gap = row_of(
        compare.comparisons(run), method="yoto", setting="distortion=0.018", measure="loss"
    )
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
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(load_results(tmp_path).records)


@pytest.mark.parametrize("columns", [RECORDS, MEASURED, CELLS])
def test_every_column_is_documented(columns: list[str]) -> None:
    words = set((bench.__doc__ or "").replace(",", " ").replace("(", " ").replace(".", " ").split())
    assert not set(columns) - words

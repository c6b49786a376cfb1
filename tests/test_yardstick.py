"""The reference examined, and shares of the benefit: against closed forms and simulations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ideal import DECADES, MEASURES, benefit, ideal, overall_of, row_of, run_of, told, write_ideal
from test_report import Noise, write_results

from bench.report.answer_table import answer_sheet
from bench.report.answers import compare, stats
from bench.report.answers.knob import reached
from bench.report.answers.reference import best_of, examine
from bench.report.sentence import verdict_sentence
from bench.report.tables import overall_sheet, reference_sheet, setting_labels, versus_sheet
from bench.tasks.compression import scan_bytes

COEFFICIENTS = (*DECADES, 10000.0)
Lost = Callable[[float, float, Noise], float]


def write(root: Path, grid: Callable[[float], float] = lambda c: c, **lost: Lost | float) -> None:
    """A grid of networks told `grid(c)` instead of c, and methods that lose shares of the benefit:
    lost(coefficient, hard, noise), or always the same."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        (coefficient,) = setting
        if method not in lost:
            return told(fixed_grid=grid)(method, setting, hard, noise)
        codec, share = ideal(coefficient), lost[method]
        share = share if isinstance(share, float) else share(coefficient, hard, noise)
        return codec | {"loss": codec["loss"] + share * benefit(coefficient)}

    write_losses(root, ("fixed_grid", *lost), values)


def write_losses(root: Path, methods: tuple[str, ...], values: Any, seeds: Any = (0, 1, 2)) -> None:
    measures = {name: MEASURES[name] for name in ("loss", "distortion")}
    write_ideal(
        root, methods=methods, values=values, seeds=seeds, fronts=(), ends=10000.0,
        measures=measures,
    )  # fmt: skip


# The reference ----------------------------------------------------------------------------------


def test_a_sound_reference_holds_and_its_benefit_is_the_closed_form(tmp_path: Path) -> None:
    write(tmp_path)
    found = examine(run_of(tmp_path)).set_index("setting")
    assert list(found.index) == [f"distortion={c:g}" for c in COEFFICIENTS]
    assert not found["fails"].any()
    assert list(found["rival"]) == list(found.index)
    assert list(found["lost"]) == [0] * 5
    expected = [benefit(c) if c != 100 else math.nan for c in COEFFICIENTS]
    assert list(found["benefit"]) == pytest.approx(expected, nan_ok=True)
    at = found.loc["distortion=1000"]
    assert at["own"] == pytest.approx(4 + math.log(1000))
    assert at["margin"] == pytest.approx(10 * benefit(1000) / at["own"])  # a tenth, in per cent


def test_a_reference_that_fails_is_found_and_silences_every_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network for 10,000 is one for 10: all its neighbours do better there."""
    write(tmp_path, grid=lambda c: 10.0 if c == 10000 else c, yoto=0.5)
    run = run_of(tmp_path)
    found = examine(run).set_index("setting")
    assert list(found.index[found["fails"]]) == ["distortion=10000"]
    at = found.loc["distortion=10000"]
    assert at["rival"] == "distortion=1000"
    own, best = (10000 / k + 3 + math.log(k) for k in (10, 1000))
    assert at["lost"] == pytest.approx(100 * (own - best) / best)
    assert at["rival_loss"] == pytest.approx(best)
    assert "the network trained for λ = 10000 loses" in at["why"]
    compared = compare.comparisons(run)
    there = compared["setting"] == "distortion=10000"
    assert set(compared.loc[there, "verdict"]) == {""}
    assert list(compared["reference_fails"]) == list(there)
    loss = compared[compared["measure"] == "loss"].set_index("setting")
    assert math.isnan(loss.at["distortion=10000", "share"])
    assert loss.at["distortion=10", "verdict"] == "worse"
    row = overall_of(tmp_path).loc["yoto"]
    assert row["verdict"] == "no verdict: the reference fails at λ = 10000"
    assert row["share_settings"] == 3  # without it and without the middle
    assert row["share_mean"] == pytest.approx(0.5)
    halved = pd.DataFrame({"method": ["fixed_grid"] * 2, "trained_out": [0.0, 1.0]})
    monkeypatch.setattr("bench.report.answers.answer.trained_out", lambda run: halved)
    sentence = verdict_sentence(run)
    assert "No answer. The grid is no fair yardstick: at λ = 10000 its own network" in sentence
    assert "The grid is not trained out" in sentence
    assert not {"better", "worse", "equal", "Yes.", "No."} & {*sentence.split()}
    (cells,) = answer_sheet([run]).rows
    assert cells[2] == "no verdict: the grid fails at λ = 10000"
    assert setting_labels(run)["distortion=10000"] == "10000 §"
    assert "fails" in reference_sheet(run, examine(run)).rows[4]
    assert overall_sheet(run, compare.overall(run)).rows[1][3] == "no verdict §"


def test_the_verdict_is_that_against_the_harder_reference(tmp_path: Path) -> None:
    """Its own network loses 9 % of the benefit against another one: no failure, but whoever is as
    good as it has lost that much already."""
    best, single = ideal(1000)["loss"], 13 + math.log(100)
    write(tmp_path, yoto=0.05)
    frame = compare.comparisons(run_of(tmp_path))
    row = row_of(frame, setting="distortion=1000", measure="loss", method="yoto")
    assert row["share"] == pytest.approx(0.05)
    assert row["gap"] == row["gap_best"] == pytest.approx(5 * (single - best) / best)


def test_crossed_halves_do_not_let_noise_fail_a_sound_reference() -> None:
    """Networks that differ by noise alone, of seeds and of examples: the best of five on one half
    is none on the other. Chosen and scored on the same, it would look better by far more."""
    random = np.random.default_rng(0)
    gains, naive, fails = [], [], 0
    for _ in range(200):
        level = 0.5 * random.standard_normal((5, 1, 3, 1))  # of a network and its seed
        losses = 10 + level + random.standard_normal((5, 1, 3, 40)) + np.zeros((1, 5, 1, 1))
        own = losses[np.arange(5), np.arange(5)]
        best, chosen = best_of(losses, own)
        gains.append((own - best)[0].mean())
        naive.append((own[0] - losses[chosen[0], 0]).mean())
        fails += stats.paired_interval((own - best)[0]).low > 0.1
    assert np.mean(gains) < 0.03 < np.mean(naive)
    assert fails / 200 < 0.06


def test_noise_of_examples_alone_gives_no_rival_a_lead() -> None:
    random = np.random.default_rng(1)
    leads = []
    for _ in range(400):
        losses = np.repeat(10 + random.standard_normal((4, 1, 3, 20)), 4, 1)
        own = losses[np.arange(4), np.arange(4)]
        leads.append((own - best_of(losses, own)[0]).mean())
    assert abs(np.mean(leads)) < 3 * np.std(leads) / 20


# Shares -----------------------------------------------------------------------------------------


def test_shares_are_what_they_were_made(tmp_path: Path) -> None:
    """0 is the grid, 1 the single middle network, which is left out where it is the grid's own."""
    write(tmp_path, nothing=0.0, half=0.5, ahead=-0.3, rising=lambda c, *_: math.log10(c) / 4)
    overall = overall_of(tmp_path).loc[["nothing", "half", "ahead", "rising"]]
    rising = [0, 0.25, 0.75, 1]
    assert list(overall["share_mean"]) == pytest.approx([0, 0.5, -0.3, np.mean(rising)])
    assert overall.at["rising", "share_worst"] == pytest.approx(1)
    assert overall.at["rising", "share_worst_setting"] == "distortion=10000"
    assert set(overall["share_settings"]) == {4}
    assert list(overall["verdict"]) == ["equal", "worse", "better", "worse"]


def test_the_tuned_grid_is_a_reference_of_its_own(tmp_path: Path) -> None:
    """Its own middle network is the one used everywhere; the plain grid, told a third too much,
    is a method like others against it."""
    write(tmp_path, grid=lambda c: 1.3 * c, fixed_grid_tuned=0.0, yoto=0.05)
    run, table = run_of(tmp_path), overall_of(tmp_path)
    assert table.at["yoto", "share_tuned"] == pytest.approx(0.05)
    assert table.at["yoto", "verdict_tuned"] == "equal"
    assert table.at["yoto", "loss_gap_tuned"] > table.at["yoto", "loss_gap_mean"]
    assert table.at["yoto", "share_mean"] < 0.049  # it is nearer to the plain grid
    assert table.at["fixed_grid", "share_tuned"] > 0
    assert math.isnan(table.at["fixed_grid_tuned", "share_tuned"])
    sheet = overall_sheet(run, compare.overall(run))
    column = sheet.head.index("against the tuned grid (%)")
    cells = {row[0]: row[column] for row in sheet.rows}
    assert cells["YOTO"] == "5 [5, 5] equal"
    assert cells["fixed grid tuned"] == "ref."
    write_losses(tmp_path / "only", ("fixed_grid_tuned", "yoto"), told(yoto=lambda c: 1.3 * c))
    assert run_of(tmp_path / "only").reference == "fixed_grid_tuned"
    assert run_of(tmp_path / "only").tuned_reference is None
    write(tmp_path / "plain", yoto=0.05)
    alone = run_of(tmp_path / "plain")
    assert "against the tuned grid (%)" not in overall_sheet(alone, compare.overall(alone)).head


def test_means_leave_out_where_a_method_is_the_reference(tmp_path: Path) -> None:
    write_losses(tmp_path, ("fixed_grid", "single_model"), told(single_model=lambda c: 100.0))
    compared = compare.comparisons(run_of(tmp_path))
    assert set(compared.loc[compared["is_reference"], "setting"]) == {"distortion=100"}
    row = overall_of(tmp_path).loc["single_model"]
    assert (row["gap_settings"], row["share_settings"]) == (4, 4)
    assert row["share_mean"] == pytest.approx(1)
    gaps = [100 * benefit(c) / ideal(c)["loss"] for c in COEFFICIENTS if c != 100]
    assert row["loss_gap_mean"] == pytest.approx(np.mean(gaps))


def test_signs_that_cancel_are_mixed(tmp_path: Path) -> None:
    write(tmp_path, yoto=lambda c, *_: 0.5 if c == 1 else -0.5 / 3)
    row = overall_of(tmp_path).loc["yoto"]
    assert row["share_mean"] == pytest.approx(0)
    assert row["share_worst"] == pytest.approx(0.5)
    assert row["verdict"] == "mixed"
    assert "decidedly worse" in verdict_sentence(run_of(tmp_path))


def test_one_network_that_does_as_well_everywhere_leaves_nothing_to_judge(tmp_path: Path) -> None:
    """Whatever the grid's networks are told, they differ by noise alone."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        codec = told(fixed_grid=lambda c: 100.0)("fixed_grid", setting, hard, noise)
        return codec | {"loss": codec["loss"] + 0.01 * noise()}

    write_losses(tmp_path, ("fixed_grid", "yoto"), values)
    row = overall_of(tmp_path).loc["yoto"]
    assert row["verdict"] == "no verdict: one network does as well"
    assert math.isnan(row["power"])


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_few_seeds_orient_and_judge_nothing(tmp_path: Path, seeds: Any) -> None:
    write_losses(tmp_path, ("fixed_grid", "yoto"), told(yoto=lambda c: 100.0), seeds)
    assert set(compare.comparisons(run_of(tmp_path))["verdict"]) == {""}
    row = overall_of(tmp_path).loc["yoto"]
    assert row["verdict"] == ("one seed" if len(seeds) == 1 else "two seeds") + ": orientation"
    assert math.isnan(row["power"])


def test_a_method_is_told_from_another_by_their_pairs_alone(tmp_path: Path) -> None:
    """Two methods with the same large noise differ by a little everywhere: the pairs see it."""
    write(
        tmp_path, yoto=lambda c, hard, noise: 0.3 * hard, other=lambda c, hard, noise: 0.3 * hard
        + 0.2, noisy=lambda c, hard, noise: 0.1 + noise(),
    )  # fmt: skip
    found = compare.versus(run_of(tmp_path))
    pair = row_of(found, method="yoto", other="other")
    assert pair["settings"] == 5 - 1  # there is no benefit to lose in the middle
    assert pair["high"] < 0
    assert pair["apart"]
    assert not row_of(found, method="yoto", other="noisy")["apart"]


# What else the numbers say ----------------------------------------------------------------------


def test_what_is_written_over_its_estimate(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, context=False)
    assert list(overall_of(tmp_path)["overhead"]) == pytest.approx([100 * (1 / 0.98 - 1)] * 4)


def test_infinite_values_are_counted_beside_the_mean_and_left_out_of_all(tmp_path: Path) -> None:
    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        codec = told()(method, setting, hard, noise)
        perfect = method == "yoto" and hard > 0.5
        return codec | {"psnr": math.inf if perfect else codec["psnr"] + hard}

    write_results(tmp_path, values=values, measures=MEASURES, context=False, pictures=8)
    run = run_of(tmp_path)
    count = sum(np.random.default_rng(p).standard_normal() > 0.5 for p in range(8))
    infinite = compare.summary(run).set_index(["method", "setting"])["psnr_infinite"]
    assert infinite["yoto", "distortion=0.18"] == count > 0
    assert infinite["fixed_grid", "distortion=0.18"] == 0
    row = row_of(compare.comparisons(run), method="yoto", setting="distortion=0.18", measure="psnr")
    assert row["gap"] == pytest.approx(0)  # of the rows that both have
    points = reached(run, run.records)
    assert points["yoto"]["psnr"].to_numpy() == pytest.approx(points["fixed_grid"]["psnr"])


def test_a_scan_is_what_follows_the_headers() -> None:
    segment = b"\xff\xe0\x00\x04ab" + b"\xff\xda\x00\x03x"
    assert scan_bytes(b"\xff\xd8" + segment + b"12345\xff\xd9") == 7


def test_what_is_tested_and_the_warm_start_are_compared_with_every_other(tmp_path: Path) -> None:
    names = ("fixed_grid", "yoto", "yoto_tuned", "warm_grid", "unconditioned", "gates")
    write_results(tmp_path, methods=names)
    found = compare.versus(run_of(tmp_path))
    pairs = {frozenset(pair) for pair in zip(found["method"], found["other"], strict=True)}
    assert len(pairs) == len(found)
    for anchor in ("yoto", "yoto_tuned", "warm_grid"):
        others = set(names) - {"fixed_grid", anchor}
        assert {frozenset({anchor, other}) for other in others} <= pairs
    shown = versus_sheet(run_of(tmp_path), found)
    assert len(shown.groups) == 2 < len(set(found["method"]))

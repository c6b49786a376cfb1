"""The reference examined, and shares of the benefit: against closed forms and simulations."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from test_compare import MEASURES, ideal, row_of, run_of, told
from test_report import Noise, write_results

from bench.report import compare, stats
from bench.report.reference import _best, examine
from bench.report.tables import overall_sheet, reference_sheet, setting_labels
from bench.report.verdict import verdict_sentence
from bench.report.versus import versus
from bench.tasks.compression import scan_bytes

COEFFICIENTS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
THREE = (0, 1, 2)
LENGTHS = pd.DataFrame({"method": ["fixed_grid", "fixed_grid"], "setting": ["a", "b"]})
Lost = Callable[[float, float, Noise], float]


def benefit(coefficient: float) -> float:
    """What the best codec for 100 loses at another coefficient: loss = c / told + 3 + log told."""
    return coefficient / 100 + math.log(100) - 1 - math.log(coefficient)


def write(
    root: Path, grid: Callable[[float], float] = lambda c: c, seeds: Any = THREE, **lost: Lost
) -> None:
    """A grid of networks told `grid(c)` instead of c, and methods that lose shares of the benefit:
    lost(coefficient, hard, noise)."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        (coefficient,) = setting
        if method not in lost:
            return told(fixed_grid=grid)(method, setting, hard, noise)
        found = ideal(coefficient)
        share = lost[method](coefficient, hard, noise)
        return found | {"loss": found["loss"] + share * benefit(coefficient)}

    write_results(
        root, methods=("fixed_grid", *lost), values=values, seeds=seeds, context=False, fronts=(),
        axes=[{"name": "distortion", "low": 1.0, "high": 10000.0, "symbol": "λ"}],
        settings=tuple((c,) for c in COEFFICIENTS),
        measures={name: MEASURES[name] for name in ("loss", "distortion")},
    )  # fmt: skip


def constant(share: float) -> Lost:
    return lambda coefficient, hard, noise: share


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


def test_a_reference_that_fails_is_found_and_silences_every_verdict(tmp_path: Path) -> None:
    """The network for 10,000 is one for 10: all its neighbours do better there."""
    write(tmp_path, grid=lambda c: 10.0 if c == 10000 else c, yoto=constant(0.5))
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
    assert loss["share"].isna()["distortion=10000"]
    assert loss.at["distortion=10", "verdict"] == "worse"
    row = row_of(compare.overall(run), method="yoto")
    assert row["verdict"] == "no verdict: the reference fails at λ = 10000"
    assert row["share_settings"] == 3  # without it and without the middle
    assert row["share_mean"] == pytest.approx(0.5)
    sentence = verdict_sentence(run, trained_out=LENGTHS.assign(trained_out=[0.0, 1.0]))
    assert sentence.startswith("compression, quick: The grid is not trained out: at λ = 10000 its")
    assert "better" not in sentence
    assert "worse" not in sentence
    assert setting_labels(run)["distortion=10000"] == "10000 §"
    assert "fails" in reference_sheet(run, examine(run)).rows[4]
    assert overall_sheet(run, compare.overall(run)).rows[1][3] == "no verdict §"


def test_the_verdict_is_that_against_the_harder_reference(tmp_path: Path) -> None:
    """Its own network loses 9 % of the benefit against another one: no failure, but whoever is as
    good as it has lost that much already."""
    best, single = ideal(1000)["loss"], 13 + math.log(100)
    write(tmp_path, yoto=constant(0.05))
    run = run_of(tmp_path)
    row = row_of(compare.comparisons(run), setting="distortion=1000", measure="loss", method="yoto")
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
        best, chosen = _best(losses, own)
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
        leads.append((own - _best(losses, own)[0]).mean())
    assert abs(np.mean(leads)) < 3 * np.std(leads) / 20


# Shares -----------------------------------------------------------------------------------------


def test_shares_are_what_they_were_made(tmp_path: Path) -> None:
    """0 is the grid, 1 the single middle network, which is left out where it is the grid's own."""
    write(
        tmp_path, nothing=constant(0.0), half=constant(0.5), ahead=constant(-0.3),
        rising=lambda c, hard, noise: math.log10(c) / 4,
    )  # fmt: skip
    overall = compare.overall(run_of(tmp_path)).set_index("method")
    assert list(overall.loc[["nothing", "half", "ahead"], "share_mean"]) == pytest.approx(
        [0, 0.5, -0.3]
    )
    assert overall.at["rising", "share_mean"] == pytest.approx(np.mean([0, 0.25, 0.75, 1]))
    assert overall.at["rising", "share_worst"] == pytest.approx(1)
    assert overall.at["rising", "share_worst_setting"] == "distortion=10000"
    assert set(overall["share_settings"][1:]) == {4}
    assert list(overall.loc[["nothing", "half", "ahead", "rising"], "verdict"]) == [
        "equal", "worse", "better", "worse",
    ]  # fmt: skip


def test_means_leave_out_where_a_method_is_the_reference(tmp_path: Path) -> None:
    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        return told(single_model=lambda c: 100.0)(method, setting, hard, noise)

    write_results(
        tmp_path, methods=("fixed_grid", "single_model"), values=values, seeds=THREE, fronts=(),
        axes=[{"name": "distortion", "low": 1.0, "high": 10000.0, "symbol": "λ"}], context=False,
        settings=tuple((c,) for c in COEFFICIENTS),
        measures={name: MEASURES[name] for name in ("loss", "distortion")},
    )  # fmt: skip
    run = run_of(tmp_path)
    compared = compare.comparisons(run)
    same = set(compared.loc[compared["is_reference"], "setting"])
    assert same == {"distortion=100"}
    row = row_of(compare.overall(run), method="single_model")
    assert (row["gap_settings"], row["share_settings"]) == (4, 4)
    assert row["share_mean"] == pytest.approx(1)
    gaps = [100 * benefit(c) / ideal(c)["loss"] for c in COEFFICIENTS if c != 100]
    assert row["loss_gap_mean"] == pytest.approx(np.mean(gaps))


def test_signs_that_cancel_are_mixed(tmp_path: Path) -> None:
    write(tmp_path, yoto=lambda c, hard, noise: 0.5 if c == 1 else -0.5 / 3)
    row = row_of(compare.overall(run_of(tmp_path)), method="yoto")
    assert row["share_mean"] == pytest.approx(0)
    assert row["share_worst"] == pytest.approx(0.5)
    assert row["verdict"] == "mixed"
    assert "decidedly worse" in verdict_sentence(run_of(tmp_path))


@pytest.mark.parametrize(("seeds", "words"), [((0,), "One seed"), ((0, 1), "Two seeds")])
def test_few_seeds_orient_and_judge_nothing(tmp_path: Path, seeds: Any, words: str) -> None:
    write(tmp_path, seeds=seeds, yoto=constant(0.5))
    run = run_of(tmp_path)
    compared = compare.comparisons(run)
    assert set(compared["verdict"]) == {""}
    row = row_of(compare.overall(run), method="yoto")
    assert row["verdict"] == f"{words.lower()}: orientation"
    assert math.isnan(row["power"])
    assert f"{words}: an orientation, no verdict." in verdict_sentence(run)


def test_a_method_is_told_from_another_by_their_pairs_alone(tmp_path: Path) -> None:
    """Two methods with the same large noise differ by a little everywhere: the pairs see it."""
    write(
        tmp_path, yoto=lambda c, hard, noise: 0.3 * hard, other=lambda c, hard, noise: 0.3 * hard
        + 0.2, noisy=lambda c, hard, noise: 0.1 + noise(),
    )  # fmt: skip
    run = run_of(tmp_path)
    found = versus(run, compare.overall(run))
    pair = row_of(found, method="yoto", other="other")
    assert pair["settings"] == 5 - 1  # there is no benefit to lose in the middle
    assert pair["high"] < 0
    assert pair["apart"]
    assert not row_of(found, method="yoto", other="noisy")["apart"]


# Decidable --------------------------------------------------------------------------------------


def test_holm_is_what_its_definition_gives() -> None:
    doubts = [0.001, 0.013, 0.012, math.nan, 0.5]
    # 0.001 <= .025 / 4; 0.012 > .025 / 3, and nothing behind it stands.
    assert list(stats.holm(doubts)) == [True, False, False, False, False]
    assert list(stats.holm([0.005, 0.01, 0.02])) == [True, True, True]
    assert list(stats.holm([])) == []


def test_doubt_is_students_where_examples_do_not_matter() -> None:
    random = np.random.default_rng(0)
    values = 0.4 + 0.1 * random.standard_normal((5, 1)) * np.ones((1, 30))
    interval = stats.paired_interval(values)
    error = values[:, 0].std(ddof=1) / math.sqrt(5)
    expected = student.sf((values.mean() - 0.1) / error, 4)
    assert stats.doubt(interval, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.15), (16, 0.08), (30, 0.12)])
def test_the_power_is_how_often_nothing_comes_out_equal(seeds: int, spread: float) -> None:
    """Against simulation; the power itself, from an estimate of the spread, in its median."""
    random = np.random.default_rng(seeds)
    equal, powers = [], []
    for _ in range(200):
        noise = spread * random.standard_normal((seeds, 1)) + 0.02 * random.standard_normal((1, 8))
        interval = stats.paired_interval(noise)
        equal.append(stats.verdict(interval, 0.1, "lower") == "equal")
        powers.append(stats.power_of_equal(interval, 0.1))
    assert np.median(powers) == pytest.approx(np.mean(equal), abs=0.12)
    if seeds == 3:
        assert np.mean(equal) < 0.15  # three seeds of this spread cannot show it


def test_the_forecast_is_enough_seeds() -> None:
    """What would settle it by the forecast settles it in simulation."""
    random = np.random.default_rng(0)
    pilot = 0.1 * np.array([-1.0, 0.0, 1.0])[:, None] * np.ones((1, 10))  # a deviation of 0.1
    needed = stats.seeds_to_settle(stats.paired_interval(pilot), 0.1, 0.8, 1000)
    equal = [
        stats.verdict(
            stats.paired_interval(0.1 * random.standard_normal((int(needed), 1))), 0.1, "lower"
        )
        == "equal"
        for _ in range(200)
    ]
    assert np.mean(equal) == pytest.approx(0.8, abs=0.12)
    wide = stats.paired_interval(10 * random.standard_normal((3, 4)))
    assert stats.seeds_to_settle(wide, 0.1, 0.8, 1000) == math.inf


def test_intervals_over_seeds_are_students() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = stats.seeds_interval(2.5, values)
    half = student.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half))
    assert all(map(math.isnan, stats.seeds_interval(1.0, [1.0, 2.0])))
    assert all(map(math.isnan, stats.seeds_interval(1.0, [1.0, 2.0, math.nan])))


def test_several_ratios_are_resampled_together() -> None:
    """Of one ratio as `paired_ratio_interval`; of two that mirror each other nothing is left."""
    random = np.random.default_rng(0)
    grid = 1 + random.random((4, 12))
    method = grid * (1 + 0.1 * random.standard_normal((4, 12)))
    alone = stats.paired_ratio_interval(method, grid)
    assert stats.mean_ratio_interval((method - grid)[None], grid[None]) == alone
    both = stats.mean_ratio_interval([method - grid, grid - method], [grid, grid])
    assert (both.estimate, both.low, both.high) == pytest.approx((0, 0, 0), abs=1e-9)


# What else the numbers say ----------------------------------------------------------------------


def test_what_is_written_over_its_estimate(tmp_path: Path) -> None:
    write_results(tmp_path, measures=MEASURES, context=False)
    overall = compare.overall(run_of(tmp_path)).set_index("method")
    assert list(overall["overhead"]) == pytest.approx([100 * (1 / 0.98 - 1)] * 4)


def test_infinite_values_are_counted_beside_the_mean_and_left_out_of_all(tmp_path: Path) -> None:
    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        found = told()(method, setting, hard, noise)
        found["psnr"] += hard
        perfect = method == "yoto" and hard > 0.5
        return found | {"psnr": math.inf if perfect else found["psnr"]}

    write_results(tmp_path, values=values, measures=MEASURES, context=False, pictures=8)
    run = run_of(tmp_path)
    count = sum(np.random.default_rng(p).standard_normal() > 0.5 for p in range(8))
    summary = compare.summary(run).set_index(["method", "setting"])
    assert summary.at[("yoto", "distortion=0.18"), "psnr_infinite"] == count > 0
    assert summary.at[("fixed_grid", "distortion=0.18"), "psnr_infinite"] == 0
    row = row_of(compare.comparisons(run), method="yoto", setting="distortion=0.18", measure="psnr")
    assert row["gap"] == pytest.approx(0)  # of the rows that both have
    reached = compare._reached(run)
    assert reached["yoto"]["psnr"].to_numpy() == pytest.approx(reached["fixed_grid"]["psnr"])


def test_a_scan_is_what_follows_the_headers() -> None:
    segment = b"\xff\xe0\x00\x04ab" + b"\xff\xda\x00\x03x"
    assert scan_bytes(b"\xff\xd8" + segment + b"12345\xff\xd9") == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, math.nan], "The grid is trained out"),
        ([0.0, 1.0], "The grid is not trained out"),
        ([math.nan, math.nan], "It is not known whether the grid is trained out"),
    ],
)
def test_the_sentence_begins_with_the_yardstick(
    tmp_path: Path, values: list[float], words: str
) -> None:
    write(tmp_path, yoto=constant(0.02))
    sentence = verdict_sentence(run_of(tmp_path), trained_out=LENGTHS.assign(trained_out=values))
    assert sentence.startswith(f"compression, quick: {words}, and no network of it is beaten by a")
    assert ("who learns faster" in sentence) == (words == "The grid is not trained out")

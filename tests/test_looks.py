"""Seeds until it is decided (`run --decide`): what looking after each seed costs, and the loop."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from ideal import MEASURES, losing, overall_of, run_of, write_ideal

from bench import decide
from bench.cli import main, parsed
from bench.decide import Asked, Deciding
from bench.report.answers import compare, spending, stats
from bench.report.answers.costs import savings
from bench.report.answers.reference import Yardstick
from bench.report.answers.verdict import NO_BENEFIT, judge, settled
from bench.report.load import Run, load_results
from bench.report.notes import notes
from bench.report.sentence import verdict_sentence
from bench.run import looks
from bench.run.folders import Conflict, merge
from bench.run.plan import experiment

PATHS = 10_000
CPU = torch.device("cpu")
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
NORMAL: Draw = lambda random, shape: random.standard_normal(shape)  # noqa: E731
OF_STUDENT: Draw = lambda random, shape: random.standard_t(3, shape) / math.sqrt(3)  # noqa: E731
SKEWED: Draw = lambda random, shape: (random.gamma(4, size=shape) - 4) / 2  # noqa: E731

# What all looks together cost --------------------------------------------------------------------


def decisions(
    most: int, true: float, spread: float, draw: Draw = NORMAL, paths: int = PATHS
) -> tuple[np.ndarray, float]:
    """Shares of paths of seeds whose first decided verdict is "equal", "worse" and "better", given
    a margin of one, and the mean number of seeds: Student's t at the levels of `spending`."""
    values = true + spread * draw(np.random.default_rng(most), (paths, most))
    open_, ended = np.ones(paths, bool), np.full(paths, most)
    found = np.zeros(3)
    for n, tail in spending.tails(most).items():
        half = scipy.stats.t.isf(tail, n - 1) * scipy.stats.sem(values[:, :n], axis=1)
        low, high = (values[:, :n].mean(1) + sign * half for sign in (-1, 1))
        claims = np.array([(low >= -1) & (high <= 1), low > 1, high < -1]) & open_
        found += claims.mean(1)
        ended[claims.any(0)] = n
        open_ &= ~claims.any(0)
    return found, float(ended.mean())


@pytest.mark.parametrize("most", [3, 6, 20])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_with_the_true_gap_on_the_margin_all_looks_together_err_in_5_percent(
    most: int, spread: float
) -> None:
    for true in (1.0, -1.0):
        found, _ = decisions(most, true, spread)
        assert found.sum() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / PATHS)
        if spread < 1:
            assert found.sum() > 0.045  # the level is spent, not saved


def test_a_95_percent_interval_after_each_seed_errs_in_far_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spending, "tails", lambda most: dict.fromkeys(range(3, most + 1), 0.025))
    assert decisions(20, 1.0, 0.3)[0].sum() > 0.2


def test_heavy_tails_cost_nothing_and_skewed_seeds_what_they_cost_student() -> None:
    """Of seeds with a skewness of one: 7.6 %, where a single t-test of three seeds has 6.5 %."""
    assert decisions(20, 1.0, 0.7, OF_STUDENT)[0].sum() < 0.05
    skewed, single = (decisions(most, 1.0, 0.7, SKEWED)[0].sum() for most in (20, 3))
    assert 0.055 < single < skewed < 0.085


def test_power_at_no_gap_is_near_that_of_all_seeds_at_once_for_half_of_them() -> None:
    values = 0.8 * np.random.default_rng(0).standard_normal((PATHS, 20))
    half = scipy.stats.t.isf(0.025, 19) * scipy.stats.sem(values, axis=1)
    fixed = (np.abs(values.mean(1)) + half <= 1).mean()
    found, seeds = decisions(20, 0.0, 0.8)
    assert fixed > 0.99
    assert found[0] > 0.97
    assert seeds < 12
    assert decisions(20, 0.0, 0.3)[1] < 5  # and where the seeds hardly differ, for a quarter


@pytest.mark.parametrize("most", [3, 8, 20])
def test_each_look_spends_its_share_as_simulated(most: int) -> None:
    values = np.random.default_rng(0).standard_normal((100_000, most))
    open_ = np.ones(len(values), bool)
    for n, tail in spending.tails(most).items():
        error = scipy.stats.sem(values[:, :n], axis=1)
        open_ &= np.abs(values[:, :n].mean(1)) <= scipy.stats.t.isf(tail, n - 1) * error
        spent = 0.05 * math.log(1 + (math.e - 1) * n / most)
        assert 1 - open_.mean() == pytest.approx(spent, abs=4 * math.sqrt(spent / len(values)))
    assert next(iter(spending.tails(most).values())) == pytest.approx(
        0.025 * math.log(1 + (math.e - 1) * 3 / most), rel=0.005
    )


@pytest.mark.parametrize("of_example", [0.05, 0.015])
def test_intervals_over_seeds_and_examples_hold_over_all_looks(
    of_example: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With examples that are the same at every look, as the suite has them."""
    monkeypatch.setattr(stats, "_resampled", lambda *_: np.array([-1.0, 1.0]))  # of no use here
    random, wrong, paths = np.random.default_rng(0), 0, 250
    for _ in range(paths):
        values = (
            0.1 + 0.04 * random.standard_normal((8, 1)) + 0.01 * random.standard_normal((8, 12))
        )
        values += of_example * random.standard_normal(12)
        for n, tail in spending.tails(8).items():
            interval = stats.repeated(stats.paired_interval(values[:n]), tail)
            if stats.verdict(interval, 0.1, "lower") != "undecided":
                wrong += 1
                break
    assert wrong / paths < 0.05 + 2 * math.sqrt(0.05 * 0.95 / paths)


# From records to a verdict ------------------------------------------------------------------------


def planned(root: Path, seeds: int, **more: Any) -> looks.Looks:
    run = run_of(root)
    each = looks.Looks(
        task=run.task, preset=run.preset, experiment=run.experiment, seeds=tuple(range(seeds)),
        **more,
    )  # fmt: skip
    looks.fix(root, each)
    return each


def write(root: Path, lost: dict[int, float], **more: Any) -> None:
    """A network that loses this share of the benefit, by seed, and a little more or less."""
    measures = {name: MEASURES[name] for name in ("loss", "distortion")}
    for seed, share in lost.items():
        write_ideal(
            root, values=losing(share, 0.01), seeds=(seed,), fronts=(), ends=10000.0,
            measures=measures, **more,
        )  # fmt: skip


LOST = dict(enumerate([0.05, -0.05, 0.0, 0.02, -0.02, 0.03, -0.03, 0.0]))


def notes_of(run: Run) -> set[str]:
    return {*notes(run, compare.comparisons(run), compare.overall(run), savings(run))}


def test_a_report_judges_a_look_at_its_own_level(tmp_path: Path) -> None:
    lost = {seed: 2 * LOST[seed] for seed in range(6)}
    write(tmp_path, lost, methods=("fixed_grid", "yoto", "unconditioned"), pictures=3)
    plain = Yardstick.of(run_of(tmp_path))
    assert plain is not None
    settings = plain.beneficial
    single = plain.share("yoto", settings)
    before = overall_of(tmp_path)
    planned(tmp_path, 12, before=3)
    run = run_of(tmp_path)
    share, tail = Yardstick(run, "fixed_grid").share("yoto", settings), spending.tails(12)[6]
    parts = [(single.of_seeds, 5), (single.of_examples, 2)]
    half = math.sqrt(sum(part * scipy.stats.t.isf(tail, degrees) ** 2 for part, degrees in parts))
    assert [share.low, share.high] == pytest.approx([share.estimate - half, share.estimate + half])
    assert share.estimate == single.estimate
    edge = max(map(abs, (share.low, share.high)))  # were this the margin, it were just decided
    assert stats.doubt(share, edge) == pytest.approx(0.025)
    assert stats.doubt(share, 0.1) > 0.025 > stats.doubt(single, 0.1)
    after = compare.overall(run).set_index("method")
    assert after.at["yoto", "share_low"] < before.at["yoto", "share_low"]
    assert (before.at["yoto", "verdict"], after.at["yoto", "verdict"]) == ("equal", "undecided")
    assert 6 < after.at["yoto", "seeds_needed"] < 20
    shares = ["share_low", "share_high"]
    others = (frame.loc["unconditioned", shares].tolist() for frame in (before, after))
    assert next(others) == next(others)  # nobody stopped because of these
    said = " ".join(notes_of(run))
    assert "4 looks of at most 10" in said
    assert f"level {200 * tail:.2g} %" in said
    assert "3 seeds were there before the number of looks was chosen." in said
    sentence = verdict_sentence(run)
    assert "is undecided after 6 seeds (4 looks of at most 10, over which the 5 % are" in sentence


def test_the_looks_of_a_folder_end_where_the_whole_pipeline_decides(tmp_path: Path) -> None:
    """The same verdict from the same records, whenever the report is made."""
    write(tmp_path, LOST, pictures=3)
    planned(tmp_path, 8)
    whole, found = run_of(tmp_path), []
    for n in range(3, 9):
        part = dataclasses.replace(
            whole,
            records=whole.records[whole.records["seed"] < n],
            measured=whole.measured[whole.measured["seed"] < n],
        )
        found.append(judge(Yardstick.of(part), "yoto")["verdict"])
    assert found == ["undecided"] * 2 + ["equal"] * 4
    assert found[-1] == judge(Yardstick.of(run_of(tmp_path)), "yoto")["verdict"]
    assert "within the margin of 10 %, decided after 8 seeds (6 looks of at" in (
        verdict_sentence(whole)
    )


def test_seeds_beyond_the_looks_are_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys((0, 1, 2, 3, 30), 0.0))
    planned(tmp_path, 4)
    run = run_of(tmp_path)
    assert run.seeds == sorted(run.records["seed"].unique()) == [0, 1, 2, 3]
    assert run.unplanned == [30]
    assert any("not planned with them: seeds 30." in note for note in notes_of(run))


def test_looks_are_fixed_and_go_with_a_folder(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, {0: 0.0, 1: 0.1, 2: 0.2})
    shutil.copytree(one, two)
    kept = planned(one, 10)
    looks.fix(one, kept)
    with pytest.raises(ValueError, match=r"--most 10 and the seeds 0,1,2,\.\.\.,.*--seeds 10"):
        planned(one, 20)
    merge([one, two], tmp_path / "both")
    assert [*looks.every(tmp_path / "both")] == [kept]
    planned(two, 20)
    with pytest.raises(Conflict, match="1 results differ"):
        merge([one, two], tmp_path / "third")
    with pytest.raises(ValueError, match=r"looked at with other seeds.*report the folders apart"):
        load_results(one, two)
    (path,) = one.glob("looks/*.json")
    path.write_text(path.read_text().replace(" 9", " 8"))
    with pytest.raises(ValueError, match="is damaged"):
        load_results(one)


def test_no_seed_is_waited_for_where_none_would_help() -> None:
    assert all(settled(None, "", verdict, 20) for verdict in ("equal", "worse", "mixed", ""))
    assert settled(None, "", "no verdict: the reference fails at λ = 1", 20)
    assert not settled(None, "", "undecided", 20)
    assert not settled(None, "", "two seeds: orientation", 20)
    random = np.random.default_rng(0)
    for benefit, ends in ((0.3, False), (-0.3, True), (0.001, True)):
        yard = object.__new__(Yardstick)
        yard.hard = random.standard_normal((1, 3, 1)) * np.ones((1, 1, 5))
        yard.single = yard.hard + benefit + 0.4 * np.array([[[-1.0], [0.0], [1.0]]])
        assert settled(yard, "yoto", NO_BENEFIT, 20) == ends


# The loop -----------------------------------------------------------------------------------------


def deciding(root: Path, *names: str, seeds: tuple[int, ...] = (), **asked: Any) -> Deciding:
    names = names or ("yoto", "fixed_grid")
    task = "toy[training.steps=2]"
    found = experiment(task, "smoke", names, settings=2, seeds=seeds or None)
    return Deciding(Asked(ordered=bool(seeds), **asked), root, [found], CPU)


def never() -> bool:
    return False


def test_seeds_are_added_until_the_most_and_a_second_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = deciding(tmp_path, most=4, budget=1e-9)
    assert first.complete(never)  # the budget ends in the first batch: nothing was looked at
    assert not [*looks.every(tmp_path)]
    assert "the budget ends within a seed" in capsys.readouterr().out
    stopped = deciding(tmp_path, most=5, seeds=(7, 2))
    assert not stopped.complete(lambda: True)
    assert {seed for each in stopped.experiments for seed in each.seeds} == {7, 2, 8}
    tmp_path = tmp_path / "fresh"
    tmp_path.mkdir()

    run = deciding(tmp_path, most=4, seeds=(7, 2))
    assert run.experiments[0].seeds == (7, 2, 8)
    assert run.complete(never)
    said = capsys.readouterr().out
    assert "3 seeds (look 1 of at most 2): YOTO" in said
    assert "4 seeds (look 2 of at most 2): YOTO" in said
    assert [each.seeds for each in looks.every(tmp_path)] == [(7, 2, 8, 9)]
    (saved,) = {tuple(json.loads(path.read_text())["experiments"][0]["seeds"])
                for path in tmp_path.glob("configs/*.json")} & {(7, 2, 8, 9)}  # fmt: skip
    again = deciding(tmp_path)
    assert again.experiments[0].seeds == saved
    assert again.missing_cells() == again.record_jobs() == []
    for wrong in ({"most": 6}, {"seeds": (1, 2)}):
        with pytest.raises(ValueError, match="leave out --most and --seeds to go on so, or begin"):
            deciding(tmp_path, **wrong)
    (run_there,) = load_results(tmp_path).runs
    assert run_there.looks == looks.stored(tmp_path, run_there.key)
    assert not notes_of(run_there) & {"3 seeds were there before the number of looks was chosen."}


def test_no_seed_is_begun_that_the_budget_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("bench.decide.time.monotonic", lambda: now[0])
    run = deciding(tmp_path, most=9, budget=150.0)

    def a_minute_a_seed(self: Any, stop: Any) -> bool:
        now[0] += 60.0 * (1 if len(self.experiments[0].seeds) > 3 else 3) / 3
        return True

    def undecided(self: Any, say: bool) -> list[Any]:
        every = self.looks[decide._key(self.experiments[0])].seeds
        (each,) = self.experiments
        return [dataclasses.replace(each, seeds=every[: len(each.seeds) + 1])]

    monkeypatch.setattr("bench.run.runner.Run.complete", a_minute_a_seed)
    monkeypatch.setattr(Deciding, "_after_a_look", undecided)
    assert run.complete(never)
    assert len(run.experiments[0].seeds) == 3 + 4  # 60 s, then 20 s each: 140 s
    assert "would take 0:20, and the budget ends before" in capsys.readouterr().out


def test_what_cannot_be_decided_is_said_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the grid and a network told its coefficients"):
        deciding(tmp_path, "yoto")
    with pytest.raises(ValueError, match="needs the grid"):
        deciding(tmp_path, "fixed_grid", "single_model")
    with pytest.raises(ValueError, match="--most 3: --seeds has 4"):
        deciding(tmp_path, seeds=(0, 1, 2, 3), most=3)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--most", "10"], "--most: of --decide"),
        (["--budget", "1h"], "--budget: of --decide"),
        (["--decide", "--most", "2"], "from 3 to 100 seeds"),
        (["--decide", "--budget", "2"], "90s, 30m, 2h or 1d"),
        (["--decide", "--budget", "0h"], "90s, 30m, 2h or 1d"),
        (["--decide", "--again"], "leave out --again"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "toy", "--preset", "smoke", "--out", str(tmp_path), *words]) == 2
    assert why in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_budget_is_a_time_with_its_unit() -> None:
    options = parsed(["run", "toy", "--decide", "--budget", "1.5h", "--seeds", "4"])
    assert decide.asked(options) == Asked(budget=5400.0, ordered=True)
    assert [decide.seconds(text) for text in ("90s", "30m", "2d")] == [90, 1800, 172_800]

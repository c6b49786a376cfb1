"""Studies of width, range and length: what the report makes of records whose losses are known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ideal import benefit, edit, losing, shortened, told, write_ideal
from scipy import stats as scipy_stats
from synthetic import Noise, shown, style_of, undrawn, write_results
from test_figures import assert_legible
from test_study_plans import BLEND, NAMES, THREE, WIDTHS, asked

from bench.report import build, load_results, terminal_tables
from bench.report.answers import claims, studies
from bench.report.answers.compare import overall
from bench.report.answers.costs import step_ratios
from bench.report.figures.studies import factors, gap_study
from bench.report.load import Run
from bench.report.sections import SECTIONS, by_section
from bench.report.sentence import verdict_sentence
from bench.report.study_tables import claims_sheet, study_sheet

__all__ = ["undrawn"]


def write_study(
    root: Path, losses: dict[float, Any], *, grid: float = 0.0, seeds: tuple[int, ...] = THREE
) -> None:
    """A run a width, whose network told its coefficients loses as `losses` say; the grid of a width
    w is better than the plain one by `grid` log2 w."""
    for width, values in losses.items():
        plain = width == 1

        def wider(
            method: str, setting: Any, hard: float, noise: Noise, values: Any = values,
            width: float = width,
        ) -> dict[str, float]:  # fmt: skip
            codec = values(method, setting, hard, noise)
            return codec | {"loss": codec["loss"] - grid * math.log2(width)}

        size = "quick" if plain else f"quick[{width:g}x width]"
        write_ideal(
            root, values=wider, seeds=seeds, fronts=(), ends=10000.0, preset=size,
            experiment=f"e{width:g}",
        )  # fmt: skip
        if not plain:
            study = {"width": width, "range": None, "preset": "quick", "experiment": "e1"}
            mark(root, size, study)


def mark(root: Path, size: str, study: dict[str, Any]) -> None:
    edit(
        root, "records/*/*/*.json",
        lambda head: {"study": study} if head["preset"] == size else {},
    )  # fmt: skip


def home_of(root: Path) -> Run:
    runs = load_results(root).runs
    (home,) = {studies.home(run).key for run in runs}
    return next(run for run in runs if run.key == home)


def answers_of(run: Run) -> dict[str, str]:
    frame = claims.claims(run)
    return dict(zip(frame["claim"], frame["answer"], strict=True))


def test_a_study_knows_its_runs(tmp_path: Path) -> None:
    write_study(tmp_path, {0.5: losing(0.4), 1: losing(0.3), 2: losing(0.2)})
    write_ideal(tmp_path, values=told(), preset="other", experiment="e1")
    runs = {run.preset: run for run in load_results(tmp_path).runs}
    assert {run.preset for run in runs["quick"].family} == {
        "quick", "quick[0.5x width]", "quick[2x width]"
    }  # fmt: skip
    assert runs["other"].family == [runs["other"]]
    assert all(studies.home(run) is runs["quick"] for run in runs["quick"].family)
    assert studies.study(runs["quick[2x width]"]).empty
    assert studies.study(runs["other"]).empty


def test_shares_gaps_and_slopes_are_those_that_were_put_in(tmp_path: Path) -> None:
    lost = {0.5: 0.4, 1.0: 0.3, 2.0: 0.2}
    write_study(tmp_path, {w: losing(share) for w, share in lost.items()}, grid=0.01)
    run = home_of(tmp_path)
    frame = studies.study(run).set_index(["method", "width"])
    full = run.records[(run.records["measure"] == "loss") & (run.records["method"] == "fixed_grid")]
    base = full.groupby("setting")["value"].mean()
    for width, share in lost.items():
        row = frame.loc["yoto", width]
        assert row["share_mean"] == pytest.approx(share)
        gains = {c: benefit(c) for c in (1.0, 10.0, 100.0, 1000.0, 10000.0)}
        gaps = [
            100 * (share * gains[c] - 0.01 * math.log2(width)) / base[f"distortion={c:g}"]
            for c in gains
        ]
        assert row["base"] == pytest.approx(np.mean(gaps), abs=1e-6)
        grid = frame.loc["fixed_grid", width]
        assert grid["base"] == pytest.approx(
            np.mean([-math.log2(width) / base[f"distortion={c:g}"] for c in gains]), abs=1e-6
        )
    slopes = studies.slopes(run).set_index(["method", "of"])
    slope = slopes.loc[("yoto", "lost")]
    assert (slope["factor"], slope["points"], slope["seeds"]) == ("width", 3, 3)
    assert slope[["slope", "low", "high"]].to_numpy(float) == pytest.approx(-0.1)
    expected = np.polyfit([-1, 0, 1], [frame.at[("yoto", w), "base"] for w in WIDTHS], 1)[0]
    assert slopes.loc[("yoto", "base"), "slope"] == pytest.approx(expected, abs=1e-6)
    assert ("fixed_grid", "lost") not in slopes.index


def test_the_interval_of_a_slope_is_students_over_the_seeds(tmp_path: Path) -> None:
    losses = {w: losing(0.2, 0.05 * w) for w in WIDTHS}  # the noise is that of the seed
    write_study(tmp_path, losses)
    run = home_of(tmp_path)
    (line,) = studies.lines(run, "width")
    by_width = []
    for point in line:  # by plain arithmetic: benefits are the same for every seed here
        rows = point.run.records[point.run.records["measure"] == "loss"]
        means = rows.groupby(["method", "seed", "setting"])["value"].mean()
        lost = means["yoto"] - means["fixed_grid"]
        gained = {f"distortion={c:g}": benefit(c) for c in (1.0, 10.0, 1000.0, 10000.0)}
        by_width.append([np.mean([lost[seed, s] / gained[s] for s in gained]) for seed in THREE])
    slopes = np.polyfit(np.log2(WIDTHS), np.array(by_width), 1)[0]
    found = studies.slope_of(run, line, "width", "yoto", "lost")
    assert found is not None
    low, high = scipy_stats.t.interval(0.95, 2, slopes.mean(), scipy_stats.sem(slopes))
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (slopes.mean(), low, high), abs=1e-6
    )
    p = scipy_stats.ttest_1samp(slopes, 0.0).pvalue / 2
    row = studies.slopes(run).query("method == 'yoto' and of == 'lost'").iloc[0]
    assert row["doubt"] == pytest.approx(p, rel=1e-6)


def test_fewer_than_three_seeds_have_no_interval(tmp_path: Path) -> None:
    write_study(tmp_path, {w: losing(0.2 * w) for w in (0.5, 1.0)}, seeds=(0, 1))
    run = home_of(tmp_path)
    slopes = studies.slopes(run).set_index(["method", "of"])
    assert slopes.loc[("yoto", "lost"), "slope"] == pytest.approx(0.1)
    assert math.isnan(slopes.loc[("yoto", "lost"), "low"])
    frame = claims.claims(run).set_index("claim")
    assert frame.loc["small", "answer"] == "undecided"
    assert frame.loc["small", "needs"] == "needs three seeds"


SHRINKING = {0.5: losing(0.4), 1.0: losing(0.2), 2.0: losing(0.0)}
GROWING = {1.0: losing(0.3), 2.0: losing(0.4)}


@pytest.mark.parametrize(
    ("losses", "answers"),
    [
        (SHRINKING, {"small": "supported", "shrinks": "supported", "cheaper": "refuted"}),
        (GROWING, {"small": "supported", "shrinks": "refuted", "cheaper": "refuted"}),
        (
            {w: losing(0.0) for w in (0.5, 1.0)},
            {"small": "refuted", "shrinks": "undecided", "cheaper": "supported"},
        ),
        (
            {w: losing(0.1, 0.2 * w) for w in (0.5, 1.0)},
            {"small": "undecided", "shrinks": "undecided", "cheaper": "undecided"},
        ),
    ],
)
def test_the_claims_are_answered_by_what_was_put_in(
    tmp_path: Path, losses: dict[float, Any], answers: dict[str, str]
) -> None:
    write_study(tmp_path, losses)
    run = home_of(tmp_path)
    found = answers_of(run)
    assert {name: found[name] for name in answers} == answers
    assert found["several"] == "not asked"
    sheet = claims_sheet(run, claims.claims(run))
    texts = dict(zip(claims.CLAIMS, (row[2] for row in sheet.rows), strict=True))
    assert texts["several"] == "not asked (one coefficient moves)"
    for name, answer in answers.items():
        if answer == "undecided":
            wanted = "go narrower" if found["small"] == "refuted" else "would take"
            assert wanted in texts[name]


def test_a_run_by_itself_has_the_claims_that_it_can_answer(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=losing(0.0), seeds=THREE, ends=10000.0)
    assert set(answers_of(home_of(tmp_path))) == {"cheaper", "covers"}
    write_ideal(tmp_path / "one", values=losing(0.0), seeds=(0,), ends=10000.0)
    assert answers_of(home_of(tmp_path / "one")) == {}


def test_the_knob_covers_the_range_and_what_lies_between(tmp_path: Path) -> None:
    between = tuple((10**place,) for place in (0.5, 1.5, 2.5))
    for name, knob, promised in (
        ("follows", lambda c: c, "supported"),
        ("narrow", lambda c: 10 * math.sqrt(c / 10), "refuted"),  # half of the range
    ):
        root = tmp_path / name
        write_ideal(root, values=told(yoto=knob), seeds=THREE, swept=between)
        assert answers_of(home_of(root))["covers"] == promised

    def gap(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        codec = told()(method, setting, hard, noise)
        off = 1.0 if setting in between else 0.0
        return codec | {"loss": codec["loss"] + off * (1 + 0.01 * hard)}

    write_ideal(tmp_path / "gap", values=gap, seeds=THREE, swept=between)
    run = home_of(tmp_path / "gap")
    row = claims.claims(run).set_index("claim").loc["covers"]
    assert row["answer"] == "refuted"  # by what lies between alone
    assert "100 % [100, 100] of the range covered" in row["numbers"]


def test_with_lengths_the_cost_is_that_of_the_same_loss(tmp_path: Path) -> None:
    """yoto loses 20 %, as the grid does between a quarter and half of its steps."""
    for name, shares, answer in (
        ("dear", {0.25: 1.4, 0.5: 1.1}, "refuted"),  # 2^(2/3) of 2e13 FLOPs against 4e13
        ("cheap", {0.5: 1.4}, "supported"),
        ("never", {0.5: 1.1}, "undecided"),  # the grid of half the steps costs as much
    ):
        root = tmp_path / name
        late = lambda m, *rest: told(worse=1.2 if m == "yoto" else 1.0)(m, *rest)  # noqa: E731
        write_ideal(root, values=late, seeds=THREE)
        for share, worse in shares.items():
            shortened(root, "fixed_grid", share, worse)
        run = home_of(root)
        assert answers_of(run)["cheaper"] == answer, name
        if name == "dear":
            ratio = claims.same_loss_ratio(run, "yoto")
            assert ratio is not None
            assert 2**ratio.estimate == pytest.approx(2 ** (2 / 3) / 2)
            shortened(root, "yoto", 0.5, 1.2)  # half of its own steps would have done
            ratio = claims.same_loss_ratio(home_of(root), "yoto")
            assert ratio is not None
            assert 2**ratio.estimate == pytest.approx(2 ** (2 / 3))
    assert set(studies.study(run)["share"]) == {0.5, 1.0}
    row = studies.study(run).set_index(["method", "share"]).loc["fixed_grid", 0.5]
    assert (row["gap"], row["base"]) == (pytest.approx(0.0), pytest.approx(10.0))


@pytest.mark.parametrize(
    ("alone", "together", "answer"),
    [(0.0, 0.0, "supported"), (0.0, 0.5, "refuted"), (0.5, 0.0, "supported")],
)
def test_several_coefficients_are_asked_at_settings_that_move_two(
    tmp_path: Path, alone: float, together: float, answer: str
) -> None:
    """Two codecs side by side, so that the best answer to either coefficient is that to it alone;
    `alone` and `together` are lost of the benefit where one or both are off the middle."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        distortions = {name: 1 / c for name, c in zip(("one", "two"), setting, strict=True)}
        gained = sum(c / 10 + math.log(10) - 1 - math.log(c) for c in setting)
        off = together if 10.0 not in setting else alone
        lost = off * gained if method == "yoto" else 0.0
        return distortions | {"loss": 2 + sum(map(math.log, setting)) + 6 + lost}

    write_results(
        tmp_path, values=values, seeds=THREE, context=False, fronts=(), methods=tuple(NAMES),
        axes=[{"name": name, "low": 1.0, "high": 100.0, "symbol": name} for name in ("one", "two")],
        settings=tuple(itertools.product((1.0, 10.0, 100.0), repeat=2)),
        measures={name: style_of(name) for name in ("loss", "one", "two")},
    )  # fmt: skip
    row = claims.claims(home_of(tmp_path)).set_index("claim").loc["several"]
    assert row["answer"] == answer
    assert row["numbers"].startswith("over 4 mixed settings")


def test_what_conditioning_costs_is_said(tmp_path: Path) -> None:
    write_ideal(tmp_path, values=losing(0.02), seeds=THREE, ends=10000.0)
    assert "a step of its training" not in verdict_sentence(home_of(tmp_path))
    edit(
        tmp_path, "runs/*/yoto/*/done.json",
        lambda done: {"ledger": done["ledger"] | {"flops_per_step": 346 * 10**8}},
    )  # fmt: skip
    run = home_of(tmp_path)
    assert step_ratios(run) == {"fixed_grid": 1.0, "yoto": pytest.approx(1.73)}
    said = "from 3 settings on; a step of its training costs 1.73× the fixed network's."
    assert said in verdict_sentence(run)


# The report -------------------------------------------------------------------------------------


def test_a_run_of_a_study_is_reported_where_its_home_is(
    tmp_path: Path, completed: Callable[..., Any]
) -> None:
    found = asked(BLEND, "--widths", "1,2", "--settings", "2")
    completed(tmp_path, *found)
    heads = [json.loads(path.read_text()) for path in tmp_path.glob("records/*/*/*.json")]
    studied = {head["preset"]: head["study"] for head in heads}
    assert studied["smoke"] is None
    assert studied["smoke[2x width]"] == {
        "width": 2, "range": None, "coefficients": None, "preset": "smoke",
        "experiment": found[0].id,
    }  # fmt: skip
    wide = found[1]
    reports = build(tmp_path, only={(wide.task.name, wide.preset, wide.id)})
    assert [report.run.preset for report in reports] == ["smoke", wide.preset]
    home, other = reports
    assert {"claims", "study"} & set(other.sheets) == set()
    assert any(home.folder.name in note for note in other.notes)
    assert (home.folder / "slopes.csv").exists()
    text = "".join(shown(table) for table in terminal_tables(reports))
    assert "per doubling" in text
    assert "needs --widths" not in text
    rows = home.study.set_index(["method", "width"])
    (plain,) = overall(home.run).query("method == 'yoto'").to_dict("records")
    assert rows.loc[("yoto", 1.0), "gap"] == plain["loss_gap_mean"]
    for each, width in zip(found, (1.0, 2.0), strict=True):
        size = sum(weights.numel() for weights in each.task.model().parameters())
        assert rows.loc[("fixed_grid", width), "parameters"] == size


def test_a_study_of_ranges_has_no_gap_to_the_plain_grid(tmp_path: Path) -> None:
    """Its settings are others: of several factors, one moves at a time."""
    write_ideal(tmp_path, values=told(1.1), seeds=THREE, ends=10000.0, experiment="e1")
    for size, width, spread in (("range 1000", 1.0, 1000.0), ("2x width", 2.0, None)):
        preset = f"quick[{size}]"
        ends = 1000.0 if spread else 10000.0
        write_ideal(
            tmp_path, values=told(1.2), seeds=THREE, preset=preset, experiment=size, ends=ends
        )
        study = {"width": width, "range": spread, "preset": "quick", "experiment": "e1"}
        mark(tmp_path, preset, study)
    run = home_of(tmp_path)
    frame = studies.study(run)
    assert set(frame["range"]) == {1000.0, 10000.0}
    assert frame.loc[frame["range"] == 1000, "base"].isna().all()
    slopes = studies.slopes(run).query("method == 'yoto'").set_index(["factor", "of"])
    assert set(slopes.index) >= {("range", "gap"), ("width", "gap"), ("width", "base")}
    assert ("range", "base") not in slopes.index
    sheet = study_sheet(run, frame)
    assert sheet.head[:3] == ["method", "width", "range"]
    places = [row[1:3] for row in sheet.rows if "per doubling" in row]
    assert ["per doubling", "10000"] in places
    assert ["1×", "per doubling"] in places


def test_the_figure_shows_what_the_table_has(tmp_path: Path) -> None:
    write_study(tmp_path, SHRINKING)
    run = home_of(tmp_path)
    frame = studies.study(run)
    assert list(factors(run, overall(run))) == [("width",)]
    figure = gap_study(run, frame, "width")
    assert figure is not None
    assert_legible([figure])
    lost, own, base = figure.axes
    assert "same-width" in lost.get_title(loc="left")
    assert "1× grid" in base.get_title(loc="left")
    rows = frame[frame["method"] == "yoto"]
    for axes, column, unit in ((lost, "share_mean", 100), (own, "gap", 1), (base, "base", 1)):
        curve = next(line for line in axes.lines if len(line.get_xdata()) == 3)
        assert list(curve.get_xdata()) == [0.5, 1.0, 2.0]
        assert curve.get_ydata() == pytest.approx(unit * rows[column].to_numpy(float))
        assert axes.get_xscale() == "log"
    places = by_section(["gap", "gap_width"], SECTIONS)
    assert (places["study"], places["comparisons"]) == (["gap_width"], ["gap"])

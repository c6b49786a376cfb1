"""What the report makes of a study of the number of coefficients whose losses are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from ideal import edit
from synthetic import Noise, style_of, undrawn, write_results
from test_figures import assert_legible
from test_studies import SHRINKING, THREE, home_of, mark, write_study

from bench.report.answers import claims, studies
from bench.report.answers.compare import overall
from bench.report.figures.studies import factors, scaling
from bench.report.sections import SECTIONS, by_section
from bench.report.study_tables import study_sheet

__all__ = ["undrawn"]

LOST = {1: 0.1, 2: 0.3, 4: 0.5}  # of the benefit, by the number of coefficients


def write_counts(root: Path, *, timed: bool = True) -> None:
    """So many codecs side by side, so that the best answer to a coefficient is that to it alone;
    yoto has 300,000 parameters more and takes half a step more for each."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        told = (10.0,) * len(setting) if method == "single_model" else setting
        distortions = {f"d{place}": 1 / c for place, c in enumerate(told)}
        rate = sum(3 + math.log(c) for c in told)
        loss = rate + sum(c * d for c, d in zip(setting, distortions.values(), strict=True))
        gained = sum(c / 10 + math.log(10) - 1 - math.log(c) for c in setting)
        lost = LOST[len(setting)] * gained if method == "yoto" else 0.0
        return distortions | {"rate": rate, "loss": loss + lost}

    def ledger(done: dict[str, Any]) -> dict[str, Any]:
        count = int(done["preset"][6]) if "[" in done["preset"] else 1
        known, yoto = done["ledger"], done["method"] == "yoto"
        known |= {"conditioner_parameters": 300_000 * count * yoto}
        slower = 1 + count / 2 if yoto else 1.0
        known |= {"flops_per_step": 10**8 * (1 + count * yoto)}
        seconds = {"train": 0.01 * known["steps"] * slower}
        return {"ledger": known | ({"processor_seconds": seconds} if timed else {})}

    for count in LOST:
        middle = (10.0,) * count
        alone = [(*middle[:k], c, *middle[k + 1 :]) for k in range(count) for c in (1.0, 100.0)]
        names, size = [f"d{k}" for k in range(count)], f"quick[{count} coefficients]"
        preset = size if count > 1 else "quick"
        write_results(
            root, values=values, seeds=THREE, context=False, fronts=(), preset=preset,
            methods=("fixed_grid", "single_model", "yoto"), experiment=f"e{count}",
            axes=[{"name": name, "low": 1.0, "high": 100.0, "symbol": name} for name in names],
            settings=tuple(sorted({middle, *alone}, key=lambda s: (s < middle, s > middle))),
            measures={name: style_of(name) for name in ("loss", "rate", *names)},
        )  # fmt: skip
        if count > 1:
            study = {"width": 1.0, "range": None, "coefficients": count}
            mark(root, size, study | {"preset": "quick", "experiment": "e1"})
    edit(root, "runs/*/*/*/done.json", ledger)


def test_what_scales_with_the_number_of_coefficients(tmp_path: Path) -> None:
    write_counts(tmp_path)
    run = home_of(tmp_path)
    assert run.preset == "quick"
    frame = studies.study(run).set_index(["method", "coefficients"])
    for count, share in LOST.items():
        row = frame.loc[("yoto", count)]
        assert row["share_mean"] == pytest.approx(share)
        assert row["kept_ratio"] == pytest.approx(1 + count / 4)
        assert (row["step_ratio"], row["time_ratio"]) == (1 + count, pytest.approx(1 + count / 2))
        assert frame.loc[("single_model", count), "kept_ratio"] == 1
        assert math.isnan(frame.loc[("fixed_grid", count), "kept_ratio"])  # it has one a setting
    assert frame["base"].drop(1, level=1).isna().all()  # that grid's settings are others
    slopes = studies.slopes(run).query("method == 'yoto'").set_index(["factor", "of"])
    assert slopes.loc[("coefficients", "lost"), "slope"] == pytest.approx(0.2)
    assert ("coefficients", "base") not in slopes.index
    sheet = study_sheet(run, studies.study(run))
    assert sheet.head[:2] == ["method", "coefficients"]
    assert "time a step" in sheet.head
    assert [row[1] for row in sheet.rows][:4] == ["1", "2", "4", "1"]
    assert not any("gap to" in head for head in sheet.head)


def test_several_coefficients_are_asked_at_every_number_of_them(tmp_path: Path) -> None:
    """The plain run moves one."""
    write_counts(tmp_path)
    row = claims.claims(home_of(tmp_path)).set_index("claim").loc["several"]
    assert row["answer"] == "refuted"
    lost = [(count, 100 * lost) for count, lost in LOST.items() if count > 1]
    assert row["numbers"] == "; ".join(
        f"{count} coefficients: {share:.0f} % [{share:.0f}, {share:.0f}] of the benefit lost, worse"
        for count, share in lost
    )


@pytest.mark.parametrize("timed", [True, False])
def test_one_figure_says_which_methods_scale(tmp_path: Path, timed: bool) -> None:
    write_counts(tmp_path, timed=timed)
    run = home_of(tmp_path)
    assert list(factors(run, overall(run))) == []
    figure = scaling(run, studies.study(run))
    assert figure is not None
    assert_legible([figure])
    parameters, step, lost = figure.axes
    assert ("processor time" in step.get_title(loc="left")) == timed
    expected = {
        parameters: [1 + count / 4 for count in LOST],
        step: [1 + count / (2 if timed else 1) for count in LOST],
    }
    for axes, values in expected.items():  # a fixed network's are the line at one
        (curve,) = (line for line in axes.lines if len(line.get_xdata()) == 3)
        assert list(curve.get_xdata()) == list(LOST)
        assert curve.get_ydata() == pytest.approx(values)
    curves = [line.get_ydata() for line in lost.lines if len(line.get_xdata()) == 3]
    assert sorted(curve[0] for curve in curves) == pytest.approx([10, 100])
    assert curves[0] == pytest.approx([100 * share for share in LOST.values()])
    assert len(figure.legends[0].get_texts()) == 2
    places = by_section(["scaling", "gap_width"], SECTIONS)
    assert places["study"] == ["scaling", "gap_width"]


def test_no_such_figure_without_such_a_study(tmp_path: Path) -> None:
    write_study(tmp_path, SHRINKING)
    run = home_of(tmp_path)
    assert scaling(run, studies.study(run)) is None

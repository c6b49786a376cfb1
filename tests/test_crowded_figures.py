"""Figures of more methods than can be told apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from full_results import VARIANT, Case, full_results, names_on, said_on
from matplotlib.figure import Figure

from bench.report import appearance, document
from bench.report.figures import tradeoffs
from bench.report.figures.curves import front, gap
from bench.report.figures.tradeoffs import break_even, headline


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("compression")
    full_results(root, "compression", pictures=3, seeds=(0,))
    return Case(root)


def test_a_crowded_headline_names_those_no_better_than_the_middle_network_below(
    full: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = full.overall["share_mean"] >= 1
    lost = [full.run.label(m) for m in full.overall.loc[worse, "method"]]
    assert len(lost) >= 2
    every = headline(full.run, full.overall)
    monkeypatch.setattr(appearance, "READABLE", 14)
    figure = headline(full.run, full.overall)
    assert figure is not None
    assert every is not None
    assert set(names_on(every)) - set(names_on(figure)) == set(lost)
    assert said_on(figure).endswith(f"no better than the middle network: {', '.join(lost)}")


def test_crowded_curves_leave_out_the_forms_of_methods(
    full: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(figure: Figure | None) -> set[str]:
        assert figure is not None
        return {text.get_text() for legend in figure.legends for text in legend.texts}

    every = drawn(gap(full.run, full.comparisons))
    monkeypatch.setattr(appearance, "READABLE", 14)
    figure = gap(full.run, full.comparisons)
    assert every - drawn(figure) == {full.run.label(VARIANT)}
    assert figure is not None
    assert said_on(figure).endswith("are in tables and the heat map")
    beside = front(full.run, full.summary, *full.run.fronts[0])
    assert beside is not None
    assert full.run.label(VARIANT) not in names_on(beside)


def test_a_figure_shows_eight_methods_that_look_as_among_all(full: Case) -> None:
    every, chosen = full.run.methods, appearance.few(full.run, full.overall)
    assert len(chosen) == 8 < len(every)
    assert {"fixed_grid", "yoto", "yoto_tuned", "single_model", "warm_grid"} < set(chosen)
    left = full.overall[~full.overall["method"].isin(chosen)]["loss_gap_mean"].min()
    named = [full.run.reference, full.run.tuned_reference, full.run.warm, full.run.floor]
    best = [m for m in chosen if m not in [*named, *appearance.featured(full.run)]]
    assert full.overall.set_index("method").loc[best, "loss_gap_mean"].max() <= left
    view = appearance.narrowed(full.run, chosen)
    assert view.methods == chosen
    assert full.run.methods == every
    looks = appearance.looks(full.run)
    assert appearance.looks(view) == {method: looks[method] for method in chosen}
    figure = gap(view, full.comparisons[full.comparisons["method"].isin(chosen)])
    assert figure is not None
    labels = {text.get_text() for legend in figure.legends for text in legend.texts}
    assert labels == {full.run.label(method) for method in chosen if method != "fixed_grid"}


def test_of_many_lines_that_cost_the_same_some_are_named(
    full: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named() -> set[str]:
        figure = break_even(full.run)
        assert figure is not None
        return set(names_on(figure))

    every = named()
    monkeypatch.setattr(tradeoffs, "TWINS", 3)
    three = "concatenation, gain units, gates"
    four = f"{three}, YOTO [stratified=True]"
    assert {four, three, "YOTO, YOTO tuned"} < every
    assert named() == every - {four} | {"concatenation, gain units, 2 more"}


def test_forms_stay_where_most_are_such() -> None:
    def left_out(plain: int, forms: int) -> list[str]:
        methods = [*(f"m{i}" for i in range(plain)), *(f"yoto[hidden={i}]" for i in range(forms))]
        return appearance.crowded_out(SimpleNamespace(methods=methods))  # type: ignore[arg-type]

    assert len(left_out(16, 10)) == 10
    assert left_out(2, 20) == left_out(12, 4) == []


def test_the_page_has_the_figures_of_all_methods_on_a_click(full: Case, tmp_path: Path) -> None:
    (built,) = document.build(full.root, out=tmp_path)
    text = (built.folder / "report.md").read_text()
    count = len(full.run.methods)
    assert text.count(f"<details><summary>The same of all {count} methods</summary>") > 1
    for line in text.splitlines():
        if line.startswith("<img "):
            assert (built.folder / line.split('"')[1]).stat().st_size > 0

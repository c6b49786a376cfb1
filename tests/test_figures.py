"""Figures from synthetic results: what is drawn, where, and what is said of it."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from full_results import (
    METHODS,
    SIZES,
    VARIANT,
    Case,
    arrow_of,
    cells_of,
    full_results,
    hollow_on,
    names_on,
    number_in,
    said_on,
    texts_of,
    weak,
)
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text
from PIL import Image

from bench.report import appearance
from bench.report.answers import knob
from bench.report.answers.costs import break_evens, savings
from bench.report.answers.reference import failing
from bench.report.figures import figures, look, moving
from bench.report.figures.curves import measure_parts
from bench.report.figures.matrices import MARKS, heatmap
from bench.report.figures.tradeoffs import headline, quality_compute

FEW = ("fixed_grid", "yoto", "yoto_tuned", "warm_grid", "single_model")
NARROW = ("headline", "quality", "break_even", "cross", "front")


@pytest.fixture(scope="module", params=list(SIZES))
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    context = {"context": True} if request.param == "compression" else {}
    full_results(root, request.param, pictured=True, pictures=3, seeds=(0,), **context)
    return Case(root)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("codecs")
    full_results(root, methods=FEW, pictures=3, seeds=(0, 1, 2))
    return Case(root)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("failing")
    full_results(root, methods=FEW, values=weak, pictures=3, seeds=(0, 1, 2))
    return Case(root)


# All figures ------------------------------------------------------------------------------------


def test_every_figure_is_there_has_its_size_and_is_the_same_again(full: Case) -> None:
    drawn = figures(full.run, full.frames)
    crowded = {"headline", "gap", "quality_compute", "break_even"}
    crowded |= {"_".join(["measures", *part]) for part in measure_parts(full.run, full.overall)}
    crowded |= {f"front_{x}_{y}" for x, y in full.run.fronts}
    wanted = crowded | {f"{name}-all" for name in crowded}
    wanted |= {"heatmap", "samples", "cross_yoto", "cross_yoto_tuned"}
    wanted |= {f"sweep_{axis.name}" for axis in full.run.axes}
    wanted |= set() if full.run.lengths.empty else {"gap_share"}
    assert set(drawn) == wanted
    for name, files in drawn.items():
        endings = {"samples": {"png"}}.get(name, {"svg", "png"})
        assert set(files) == ({"gif", "png"} if name.startswith("sweep_") else endings)
        assert max(map(len, files.values())) < 1_500_000
        if "svg" in files:
            assert files["svg"].rstrip().endswith(b"</svg>")
            width = Image.open(io.BytesIO(files["png"])).width
            assert width in ((680,) if name.startswith(NARROW) else (680, 1400)), name
    if full.run.task == "compression":
        assert figures(full.run, full.frames) == drawn


def assert_legible(figures: Iterable[Figure]) -> None:
    for figure in figures:
        with style.context(["default", look.STYLE]):  # for ticks that are made only now
            FigureCanvasAgg(figure).draw()
        boxes = [(text, Text.get_window_extent(text)) for text in texts_of(figure)]
        assert len(boxes) > 5
        inside = figure.bbox.padded(1)
        for text, box in boxes:
            assert inside.contains(box.x0, box.y0), text
            assert inside.contains(box.x1, box.y1), text
        for (one, box), (other, other_box) in itertools.combinations(boxes, 2):
            assert not box.padded(-0.6).overlaps(other_box), (one, other)


def test_no_name_is_clipped_or_on_another(full: Case) -> None:
    assert_legible(full.drawn.values())


def test_a_dollar_is_a_dollar(tmp_path: Path) -> None:
    label = {"label": "$a very long_name of^ a measure", "unit": "$", "digits": 1}
    odd = SIZES["compression"]["measures"] | {"psnr": label}
    full_results(tmp_path, methods=("fixed_grid", "yoto"), measures=odd, pictures=2)
    assert_legible(Case(tmp_path).drawn.values())


def test_gaps_of_a_loss_with_an_absolute_margin_are_in_its_unit(tmp_path: Path) -> None:
    nats = {"label": "loss", "unit": "nats", "better": "lower", "digits": 1, "margin": "10"}
    full_results(tmp_path, methods=FEW, measures=SIZES["compression"]["measures"] | {"loss": nats})
    drawn = Case(tmp_path).drawn
    assert_legible(drawn.values())
    for name in ("heatmap", "gap", "quality_compute", "cross"):
        words = " ".join(text.get_text() for text in texts_of(drawn[name]))
        assert "nats" in words, name
        assert "loss gap (%)" not in words, name


def as_drawn(*methods: str) -> dict[str, dict[str, Any]]:
    """The looks of the methods of a run that has but them."""
    plain = {name: name.partition("[")[0] for name in methods}
    tuned = [name == "yoto_tuned" for name in plain.values()]
    under_test = sorted((n for n in methods if plain[n].startswith("yoto")), reverse=True)
    measured = pd.DataFrame({"method": methods, "tuned": tuned})
    parts = {"methods": list(methods), "under_test": under_test, "reference": "fixed_grid"}
    return appearance.looks(SimpleNamespace(measured=measured, **parts))  # type: ignore[arg-type]


def test_methods_look_the_same_in_every_task_and_differ_without_colour() -> None:
    every = as_drawn(*METHODS)
    assert all(every[m] == marks for m, marks in as_drawn("fixed_grid", "vbr", "yoto").items())
    assert as_drawn("yoto")["yoto"] == every["yoto"]
    assert every["fixed_grid"]["color"] == "black"
    more = as_drawn(*METHODS, *(f"yoto[hidden={i}]" for i in range(10)))
    assert len({(k["marker"], str(k.get("dashes"))) for k in more.values()}) == len(more)
    grey = [np.dot(to_rgb(more[m]["color"]), (0.299, 0.587, 0.114)) for m in METHODS[:3]]
    assert min(abs(a - b) for a, b in itertools.combinations(grey, 2)) > 0.15


@pytest.mark.parametrize(
    ("methods", "absent"),
    [
        (("fixed_grid",), {"headline", "heatmap", "gap", "break_even", "cross_yoto", "sweep"}),
        (("yoto", "vbr"), {"headline", "heatmap", "gap", "break_even"}),
        (("fixed_grid", "vbr"), {"break_even", "cross_yoto", "sweep"}),
    ],
)
def test_what_a_run_has_no_data_for_is_left_out(
    tmp_path: Path, methods: tuple[str, ...], absent: set[str]
) -> None:
    full_results(tmp_path, methods=methods, shares=(), pictures=2, context=False)
    found = Case(tmp_path)
    drawn = figures(found.run, found.frames)
    assert {"front_bpp_psnr", "measures"} <= set(drawn)
    assert not any(name.startswith(("quality", "samples", *absent)) for name in drawn)


def test_the_best_swept_method_stands_in_for_those_under_test(tmp_path: Path) -> None:
    methods = ("fixed_grid", "concatenation", VARIANT, "vbr")
    full_results(tmp_path, methods=methods, pictured=True, pictures=2)
    found = Case(tmp_path)
    assert moving(found.run, found.overall) == [VARIANT]
    drawn = figures(found.run, found.frames)
    assert "sweep_distortion" in drawn
    assert any(name.startswith("cross_yoto_stratified_True") for name in drawn)


# Each figure ------------------------------------------------------------------------------------


def test_the_heat_map_says_gap_verdict_and_share_the_best_first(codecs: Case) -> None:
    figure = codecs.drawn["heatmap"]
    cells = cells_of(figure)
    frame = codecs.overall[codecs.overall["method"] != "fixed_grid"].sort_values("share_mean")
    of_loss = codecs.comparisons[codecs.comparisons["measure"] == "loss"]
    at = of_loss.set_index(["method", "setting"])
    for row, overall in zip(cells, frame.to_dict("records"), strict=True):
        *gaps, mean, worst = row
        for text, setting in zip(gaps, codecs.run.settings, strict=True):
            found = at.loc[(overall["method"], setting)]
            if found["is_reference"]:
                assert text == "ref."
                continue
            doubtful = found["verdict"] in ("better", "equal", "worse") and not found["stands"]
            assert text.endswith(MARKS[found["verdict"]] + "°" * doubtful)
            assert number_in(text) == pytest.approx(found["gap"], abs=0.51, rel=0.06)
        assert MARKS[overall["verdict"]] in mean
        assert number_in(mean) == pytest.approx(overall["share_mean"], abs=0.051)
        assert number_in(worst) == pytest.approx(overall["share_worst"], abs=0.051)
    assert any("ref." in row for row in cells)  # the warm-started grid's middle is the grid's own
    assert not any(patch.get_hatch() for patch in figure.axes[0].patches)


def test_one_seed_has_no_verdict_anywhere(full: Case) -> None:
    figure = full.drawn["heatmap"]
    assert not set("✓=✗?≷") & set("".join(itertools.chain(*cells_of(figure))))
    assert "orientation, no verdicts" in said_on(figure)


def test_the_heat_map_says_what_failed(tmp_path: Path) -> None:
    lost = (("single_model", 0, 1), ("single_model", 0, 5))  # of all, the first is swept
    methods = ("fixed_grid", "single_model", "yoto")
    full_results(tmp_path, methods=methods, diverged=lost, pictures=2)
    found = Case(tmp_path)
    figure = heatmap(found.run, found.comparisons, found.overall)
    assert figure is not None
    assert any("failed" in row for row in cells_of(figure))


def test_the_rings_of_a_cross_matrix_are_at_the_best_of_each_column(codecs: Case) -> None:
    figure, matrix = codecs.drawn["cross"], knob.cross(codecs.run, "yoto").to_numpy()
    (line,) = figure.axes[0].lines
    rings = {(int(x), int(y)) for x, y in line.get_xydata()}
    assert rings == {(column, row) for column, row in enumerate(matrix.argmin(0))}
    excess = 100 * (matrix / matrix.min(0) - 1)
    said = [number_in(text) for row in cells_of(figure) for text in row]
    assert said == pytest.approx(excess.ravel(), rel=0.05, abs=0.5)


def test_bands_of_the_gap_are_the_intervals(codecs: Case) -> None:
    figure = codecs.drawn["gap"]
    of_loss = codecs.comparisons[codecs.comparisons["measure"] == "loss"]
    at = of_loss[of_loss["method"] == "yoto"]
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(at["low"].min())
    assert corners[:, 1].max() == pytest.approx(at["high"].max())
    assert "hierarchical bootstrap" in said_on(figure)


def test_big_gaps_do_not_flatten_the_small(full: Case) -> None:
    """The method under test may be a hundredth of the worst, and still stand off the grid."""
    figure = full.drawn["gap"]
    axes = figure.axes[0]
    gaps = full.comparisons[full.comparisons["measure"] == "loss"].groupby("method")["gap"].max()
    assert gaps["hypernetwork"] > 8 * gaps["yoto"]
    pixels = axes.transData.transform([(1, gaps["yoto"]), (1, 0)])
    high, low = axes.transAxes.inverted().transform(pixels)[:, 1]
    assert high - low > 0.1


def test_the_headline_has_a_named_point_its_interval_and_its_worst_setting_a_method(
    full: Case,
) -> None:
    figure = full.drawn["headline"]
    (axes,) = figure.axes
    marks = [line for line in axes.lines if len(line.get_xydata()) == 1]
    points = [tuple(m.get_xydata()[0]) for m in marks if m.get_marker() != "_"]
    frame = full.overall.set_index("method").dropna(subset="share_mean")
    by_share = frame.sort_values("share_mean", ascending=False)
    assert [y for _, y in points] == [*by_share["share_mean"], 0.0]  # the grid loses nothing
    assert [x for x, _ in points] == pytest.approx([*by_share["flops_ratio"], 1.0], rel=0.5)
    assert len({x for x, _ in points}) == len(points)  # equal ones apart
    bars = [c.get_segments()[0] for c in axes.collections if hasattr(c, "get_segments")]
    ends = {(bar[0, 1], bar[1, 1]) for bar in bars}
    assert set(zip(frame["share_low"], frame["share_high"], strict=True)) <= ends
    assert set(zip(frame["share_mean"], frame["share_worst"], strict=True)) <= ends
    feet = {m.get_xydata()[0][1] for m in marks if m.get_marker() == "_"}
    assert feet == set(frame.loc[frame["share_worst"] > frame["share_mean"], "share_worst"])
    band = next(patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert (band.get_y(), band.get_height()) == pytest.approx((-0.1, 0.2))
    names = names_on(figure)
    for method, point in zip(by_share.index, points, strict=False):
        name = full.run.label(method).replace("[", " [")
        assert names[name].xy == pytest.approx(point, rel=1e-6)
    assert "orientation, no verdict" in said_on(figure)  # one seed
    assert hollow_on(axes) == set()


def test_a_method_without_a_cost_is_named_below_the_headline(codecs: Case) -> None:
    unknown = codecs.overall.copy()
    unknown.loc[unknown["method"] == "yoto", "flops_ratio"] = math.nan
    figure = headline(codecs.run, unknown)
    assert figure is not None
    assert "YOTO" not in names_on(figure)
    assert said_on(figure).endswith("for want of a share or a cost: YOTO")


def test_the_arrow_ends_where_the_curve_that_is_drawn_crosses(codecs: Case) -> None:
    frame = codecs.quality.set_index(["method", "share"])
    cost, level = frame.loc[("yoto_tuned", 1.0), ["flops", "loss_gap"]]
    grid = frame.loc["fixed_grid"].sort_values("flops")
    falling = grid["loss_gap"].to_numpy()
    assert (np.diff(falling) < 0).all()
    wanted = np.exp(np.interp(-level, -falling, np.log(grid["flops"])))
    figure = codecs.drawn["quality_compute"]
    full = grid["flops"].iloc[-1]
    assert arrow_of(figure) == pytest.approx((cost / full, wanted / full, level))
    assert f"{wanted / cost:.2g}× cheaper" in names_on(figure)
    # Its end lies on the black line: on screen, between two neighbouring points of it.
    axes = figure.axes[0]
    black = [line for line in axes.lines if line.get_color() == "black"]
    (line,) = (line for line in black if len(line.get_xydata()) > 9)
    x, y = axes.transData.transform(line.get_xydata()).T
    tip = axes.transData.transform((wanted / full, level))
    assert np.interp(tip[0], x, y) == pytest.approx(tip[1], abs=0.5)  # pixels


@pytest.mark.parametrize("more", [100.0, -100.0])
def test_there_is_no_arrow_where_the_curve_does_not_come_down_to_the_loss(
    codecs: Case, more: float
) -> None:
    """The grid ends above the loss of the network under test, or begins below it."""
    never = codecs.quality.copy()
    never.loc[never["method"] == "fixed_grid", "loss_gap"] += more
    figure = quality_compute(codecs.run, never)
    assert figure is not None
    assert arrow_of(figure) is None
    assert not any("cheaper" in name or "dearer" in name for name in names_on(figure))
    assert "arrow" not in said_on(figure)


def test_break_even_lines_and_dots_are_the_costs(codecs: Case) -> None:
    figure = codecs.drawn["break_even"]
    costs = savings(codecs.run).set_index("method")
    crossings = break_evens(codecs.run).set_index(["method", "unit"])["crossing"]
    for axes, unit in zip(figure.axes, ("flops", "seconds"), strict=True):
        per = costs.at["fixed_grid", unit] / 5
        lines = [line.get_xydata() for line in axes.lines]
        ends = [line[4, 1] for line in lines if len(line) > 4]
        assert sorted(ends) == pytest.approx(sorted(costs.loc[list(FEW[:4]), unit] / per))
        dots = {line[0, 0] for line in lines if len(line) == 1}
        assert dots == {crossings["yoto", unit], crossings["yoto_tuned", unit]}
        texts = [t.get_text() for t in axes.texts if isinstance(t, Annotation)]
        assert "YOTO, YOTO tuned" in {" ".join(text.split()) for text in texts}


# Where the reference fails ----------------------------------------------------------------------


def test_hollow_is_where_the_reference_fails(failed: Case) -> None:
    run, last = failed.run, failed.run.settings[-1]
    assert failing(run) == [last]
    grid = failed.summary[failed.summary["method"] == "fixed_grid"].set_index("setting").loc[last]
    of_loss = failed.comparisons[failed.comparisons["measure"] == "loss"]
    gaps = of_loss.loc[of_loss["setting"] == last, "gap"]
    assert gaps.nunique() == 4
    frame = failed.overall[failed.overall["method"] != "fixed_grid"]
    assert frame["verdict"].str.startswith("no verdict: the reference fails").all()
    drawn = failed.drawn
    marks = {name: hollow_on(figure.axes[0]) for name, figure in drawn.items()}
    assert marks["front_bpp_psnr"] == {(grid["bpp"], grid["psnr"])}
    assert marks["measures"] == {(0.18, grid["loss"])}
    assert marks["gap"] == {(0.18, 0.0), *((0.18, gap) for gap in gaps)}
    assert {y for _, y in marks["headline"]} == {0.0, *frame["share_mean"]}
    assert marks["quality_compute"]
    assert arrow_of(drawn["quality_compute"]) is None  # nothing is claimed for the same loss
    for name in ("front_bpp_psnr", "measures", "gap", "headline", "quality_compute"):
        assert "hollow: no verdict, for the reference fails at λ = 0.18" in said_on(drawn[name])


def test_the_heat_map_judges_nothing_where_the_reference_fails(failed: Case) -> None:
    figure = failed.drawn["heatmap"]
    cells = cells_of(figure)
    assert all(re.fullmatch(r"\([+−][0-9.]+\)", row[4]) for row in cells)
    assert not any(set("✓=✗") & set(row[5]) for row in cells)  # nor in the mean
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()][4] == "0.18§"
    hatched = [patch.get_x() for patch in axes.patches if patch.get_hatch()]
    assert sorted({round(x, 1) for x in hatched}) == [4, 5.2, 6.2]
    assert "the reference fails" in said_on(figure)


def test_nothing_is_hollow_where_the_reference_holds(codecs: Case) -> None:
    for name, figure in codecs.drawn.items():
        assert name == "cross" or not any(hollow_on(axes) for axes in figure.axes)  # its rings
        assert "hollow" not in said_on(figure)

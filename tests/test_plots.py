"""Figures from synthetic results: fifteen methods, several seeds, sweeps, lengths, pictures."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text
from PIL import Image
from test_report import CODEC, LAMBDA, STYLE_AXES, style_settings, write_results

from bench.identity import content_id
from bench.report import compare, labels, plots, sweeps
from bench.report.costs import break_evens, savings
from bench.report.load import Run, load_results
from bench.space import format_setting, parse_setting

VARIANT = "yoto[stratified=True]"
METHODS = (
    *("fixed_grid", "yoto", "yoto_tuned", "concatenation", "gain_units", "gates", "hypernetwork"),
    *("instance_norm", "interpolation", "single_model", "step_scaling", "unconditioned", "vbr"),
    *("warm_grid", VARIANT),
)
SWEPT = ("yoto", "yoto_tuned", "concatenation", "gain_units", "gates", "hypernetwork", VARIANT)
# Mean excess of the loss, and how much more of it there is at the ends of the range.
OFF = {
    **{"fixed_grid": (0.0, 0.0), "yoto": (0.07, 0.35), "yoto_tuned": (0.005, 0.06)},
    **{"concatenation": (0.1, 0.5), "gain_units": (0.02, 0.1), "gates": (0.04, 0.3)},
    **{"hypernetwork": (0.9, 3.0), "instance_norm": (0.08, 0.3), "interpolation": (0.0, -0.1)},
    **{"single_model": (0.0, 1.6), "step_scaling": (0.01, 0.9), "unconditioned": (0.06, 1.5)},
    **{"vbr": (-0.012, 0.02), "warm_grid": (0.015, 0.0), VARIANT: (0.04, 0.2)},
}
COST = {"warm_grid": 0.1, "hypernetwork": 3.0, "gain_units": 1.02, "yoto": 1.05, "yoto_tuned": 1.05}


def margins(measures: dict[str, dict[str, Any]], **margin: str) -> dict[str, dict[str, Any]]:
    return {k: {**v, **({"margin": margin[k]} if k in margin else {})} for k, v in measures.items()}


MEASURES = margins(CODEC, loss="1%", bpp="1%", psnr="0.05", ms_ssim="0.001", lpips="0.005")


def codec(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """Numbers such as a small codec's, for one picture and any of METHODS: of all networks the one
    that was trained for a coefficient has the lowest loss there."""
    (coefficient,) = setting
    place = math.log(coefficient / 0.0018) / math.log(100)
    mean, ends = OFF[method]
    off = mean + ends * (2 * place - 1) ** 2
    told = {"single_model": 0.5, "unconditioned": 0.55}.get(method, place)
    bpp = 0.21 * 6**told * math.exp(0.3 * hard) * (1 + 0.3 * off) * (1 + 0.01 * noise())
    psnr = 29.42 + 12.22 * told - 1.303 * hard - 2.2 * off + 0.05 * noise()
    distortion = 255**2 * 10 ** (-psnr / 10)
    return {
        "loss": coefficient * distortion + bpp,
        "bpp": bpp,
        "bpp_estimated": bpp * 0.98,
        "psnr": psnr,
        "ms_ssim": 1 - 0.09 * 10 ** (-told) * math.exp(0.2 * hard) * (1 + off),
        "lpips": 0.4 - 0.25 * told + 0.03 * hard + 0.1 * off,
        "distortion": distortion,
        "rate": bpp,
    }


def painter(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """Five weighted terms, each of which falls as its coefficient rises and the others rise with
    it: their product is the same for all networks."""
    mean, ends = OFF[method]
    logs = [math.log10(value) for value in setting]
    off = 1 + mean + 0.3 * ends * sum(value**2 for value in logs) / 5
    told = 0.0 if method in ("single_model", "unconditioned") else 1.0
    terms = [
        0.3 * 10 ** (told * (sum(logs) / 5 - value)) * off * math.exp(0.1 * hard + 0.02 * noise())
        for value in logs
    ]
    names = [axis["name"] for axis in STYLE_AXES]
    found = dict(zip(names, terms, strict=True))
    return {
        "loss": sum(c * t for c, t in zip(setting, terms, strict=True)),
        **found,
        "style": sum(terms[:4]) / 4,
        "lpips": 0.3 + 0.1 * logs[0] + 0.05 * noise(),
    }


def autoencoder(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """Nats; the loss has no zero to be a per cent of."""
    (beta,) = setting
    mean, ends = OFF[method]
    told = 4.0 if method in ("single_model", "unconditioned") else beta
    kl = 40 * told**-0.5 * (1 + 0.1 * mean) + 0.2 * noise()
    nll = 1800 + 40 * told**0.5 + 20 * hard + 40 * (mean + 0.2 * ends) + noise()
    return {"loss": beta * kl + nll, "kl": kl, "reconstruction": nll, "elbo": -kl - nll}


PAINTING = {
    "loss": {"label": "loss", "better": "lower", "margin": "1%"},
    **{a["name"]: {"label": a["name"], "better": "lower"} for a in STYLE_AXES},
    "style": {"label": "style, mean of four layers", "better": "lower", "margin": "2%"},
    "lpips": {"label": "LPIPS to the photograph (AlexNet, v0.1)", "better": "lower"},
}
NATS = {
    "loss": {"label": "β-weighted loss", "better": "lower", "margin": "2", "relative": False},
    "kl": {"label": "rate, KL", "better": "lower", "margin": "0.5"},
    "reconstruction": {"label": "distortion, -log p", "better": "lower", "margin": "2"},
    "elbo": {"label": "ELBO", "better": "higher", "margin": "2"},
}
NATS = {k: {"unit": "nats", "digits": 1, **v} for k, v in NATS.items()}
BETA = [{"name": "kl", "low": 0.5, "high": 32.0, "symbol": "β"}]
SIZES: dict[str, dict[str, Any]] = {
    "compression": {
        "axes": LAMBDA,
        "measures": MEASURES,
        "values": codec,
        "fronts": (("bpp", "psnr"), ("bpp", "lpips")),
        "settings": tuple((v,) for v in (0.0018, 0.00569, 0.018, 0.0569, 0.18)),
        "swept": tuple((v,) for v in (0.00101, 0.0032, 0.0101, 0.032, 0.101, 0.32)),
    },
    "style": {
        "axes": STYLE_AXES,
        "measures": PAINTING,
        "values": painter,
        "fronts": (("style", "content"), ("style", "lpips")),
        "settings": style_settings()[:11],
        "swept": tuple(
            tuple(value if i == axis else 1.0 for i in range(5))
            for axis in range(5)
            for value in (0.0316, 0.316, 3.16, 31.6)
        ),
        "context": False,
    },
    "beta_vae": {
        "axes": BETA,
        "measures": NATS,
        "values": autoencoder,
        "fronts": (("kl", "reconstruction"),),
        "settings": tuple((2.0**k,) for k in range(-1, 6)),
        "swept": tuple((float(f"{2 ** (k + 0.5):.3g}"),) for k in range(-2, 6)),
        "context": False,
    },
}


def full_results(
    root: Path,
    task: str = "compression",
    methods: tuple[str, ...] = METHODS,
    picture: Callable[[str, tuple[float, ...]], Image.Image] | None = None,
    shares: tuple[float, ...] = (0.125, 0.25, 0.5),
    **more: Any,
) -> None:
    """A results folder with all that figures are made of, as the runner would have written it.

    Starts from the plain writer, which measures every method at every setting; then settings that
    are not compared become sweeps, shorter trainings are added, and costs are made to differ.
    """
    size = dict(SIZES[task])
    swept = size.pop("swept")
    compared = size.pop("settings")
    names = [axis["name"] for axis in size["axes"]]
    every = sorted({*compared, *swept}) if len(names) == 1 else (*compared, *swept)
    write_results(root, task=task, methods=methods, settings=every, **{**size, **more})
    extra = {format_setting(names, setting) for setting in swept}
    axes = {axis["name"]: axis for axis in size["axes"]}
    for path in sorted(root.glob(f"records/{task}/*/*.json")):
        head = json.loads(path.read_text())
        if head["kind"] == "context":
            if picture:
                picture("original", ()).save(path.with_suffix(".png"))
            continue
        values = parse_setting(head["setting"])
        if head["setting"] in extra:
            if head["method"] not in SWEPT or head["seed"]:
                path.unlink()
                continue
            head["kind"] = "swept"
            head["outside"] = [
                f"{name} is outside"
                for name, value in values.items()
                if not axes[name]["low"] <= value <= axes[name]["high"]
            ]
            path.write_text(json.dumps(head))
        elif head["method"] in (*SWEPT, "fixed_grid") and head["status"] == "done":
            for share in shares:
                _length(path, head, share)
        if picture and not head["seed"]:
            shown = picture(head["method"], tuple(values.values()))
            shown.save(path.with_suffix(".png"))
    _costs(root, task)


def _length(path: Path, head: dict[str, Any], share: float) -> None:
    """The same measurement of networks trained for a share of the steps, with a higher loss."""
    identity = content_id([head["id"], share])
    head = {**head, "id": identity, "kind": "length", "share": share}
    head["cells"] = [_shorter(path, head, cell, share) for cell in head["cells"]]
    slow = 0.3 if head["method"] == "yoto" else 0.15
    lines = path.with_suffix(".csv").read_text().splitlines()
    for place, line in enumerate(lines):
        *rest, name, value = line.split(",")
        if name == "loss":
            worse = float(value) + abs(float(value)) * slow * (1 / share - 1) ** 0.7
            lines[place] = ",".join([*rest, name, repr(worse)])
    text = "\n".join(lines) + "\n"
    head["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.with_name(f"{identity}.csv").write_text(text)
    path.with_name(f"{identity}.json").write_text(json.dumps(head))


def _shorter(path: Path, head: dict[str, Any], cell: str, share: float) -> str:
    """The ledger of such a network; its id."""
    runs = path.parents[3] / "runs" / head["task"]
    (whole,) = runs.glob(f"*/{cell}/done.json")
    done = json.loads(whole.read_text()) | {"id": f"{cell}-{share:g}"}
    folder = whole.parent.with_name(done["id"])
    folder.mkdir(exist_ok=True)
    (folder / "done.json").write_text(json.dumps(done | {"share": share}))
    return str(done["id"])


def _costs(root: Path, task: str) -> None:
    """Ledgers that differ; the warm-started grid gets a fine-tuning per setting."""
    for path in root.glob(f"runs/{task}/*/*/done.json"):
        done = json.loads(path.read_text())
        factor = COST.get(done["method"], 1.0) * done.get("share", 1.0)
        done["ledger"]["flops"] = int(2e13 * factor)
        done["ledger"]["seconds"]["train"] = 50.0 * factor * (1.2 if "yoto" in str(path) else 1.0)
        path.write_text(json.dumps(done))
    grid = {}
    for path in root.glob(f"records/{task}/fixed_grid/*.json"):
        head = json.loads(path.read_text())
        grid[head["seed"], head["setting"]] = head["cells"][0]
    settings = sorted({setting for _, setting in grid})
    for path in root.glob(f"records/{task}/warm_grid/*.json"):
        head = json.loads(path.read_text())
        first = grid[head["seed"], settings[len(settings) // 2]]
        if head["setting"] == settings[len(settings) // 2]:
            head["cells"] = [first]
        else:
            (old,) = root.glob(f"runs/{task}/warm_grid/{head['cells'][0]}")
            own = content_id([head["cells"], head["setting"]])
            done = json.loads((old / "done.json").read_text())
            new = root / "runs" / task / "warm_grid" / own
            new.mkdir(exist_ok=True)
            (new / "done.json").write_text(json.dumps({**done, "id": own, "after": first}))
            head["cells"] = [own]
        path.write_text(json.dumps(head))


class Case(NamedTuple):
    run: Run
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    overall: pd.DataFrame
    quality: pd.DataFrame


def case(root: Path) -> Case:
    (run,) = load_results(root).runs
    return Case(
        run=run,
        summary=compare.summary(run),
        comparisons=compare.comparisons(run),
        overall=compare.overall(run),
        quality=compare.quality_compute(run),
    )


def sample(method: str, setting: tuple[float, ...]) -> Image.Image:
    """A picture whose colour tells the method and the setting."""
    if method == "original":
        return Image.new("RGB", (300, 280), (1, 2, 3))
    place = [int(40 * (math.log10(value) + 3)) for value in setting]
    return Image.new("RGB", (300, 280), (METHODS.index(method) * 15, sum(place) % 256, 200))


@pytest.fixture(scope="module", params=list(SIZES))
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    context = {"context": True} if request.param == "compression" else {}
    full_results(root, request.param, picture=sample, pictures=3, seeds=(0,), **context)
    return case(root)


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("codecs")
    methods = ("fixed_grid", "yoto", "yoto_tuned", "warm_grid", "single_model")
    full_results(root, methods=methods, picture=sample, pictures=3, seeds=(0, 1, 2))
    return case(root)


def weak(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """As `codec`, but the fixed network for the largest coefficient is worse than its neighbour."""
    found = codec(method, setting, hard, noise)
    if (method, setting) == ("fixed_grid", (0.18,)):
        found["distortion"] *= 3
        found["loss"] = setting[0] * found["distortion"] + found["bpp"]
    return found


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("failing")
    methods = ("fixed_grid", "yoto", "yoto_tuned", "warm_grid", "single_model")
    full_results(root, methods=methods, values=weak, pictures=3, seeds=(0, 1, 2))
    return case(root)


@pytest.fixture(autouse=True)
def _styled() -> Iterator[None]:
    with mpl_style.context(["default", plots.STYLE]):
        yield


def names_on(figure: Figure) -> dict[str, Annotation]:
    """The names beside points, by their text on one line."""
    found = [t for axes in figure.axes for t in axes.texts if isinstance(t, Annotation)]
    return {" ".join(t.get_text().split()): t for t in found if t.get_text()}


def cells_of(figure: Figure) -> list[list[str]]:
    """The texts of a matrix, row by row."""
    places = [(t.get_position(), t.get_text()) for t in figure.axes[0].texts]
    rows = sorted({y for (_, y), _ in places})
    return [[text for (_, y), text in sorted(places) if y == row] for row in rows]


def hollow_on(axes: Axes) -> set[tuple[float, float]]:
    """The places of all hollow marks."""
    marks = [line for line in axes.lines if line.get_markerfacecolor() in ("white", "none")]
    return {tuple(point) for line in marks for point in line.get_xydata()}


def said_on(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def number_in(cell: str) -> float:
    text = re.sub("[✓=✗?≷°]", "", cell).replace("−", "-")
    return 1000 * float(text[:-1]) if text.endswith("k") else float(text)


# All figures ------------------------------------------------------------------------------------


def test_every_figure_is_there_has_its_size_and_is_the_same_again(full: Case) -> None:
    drawn = plots.figures(*full)
    wanted = {"headline", "heatmap", "measures", "gap", "quality_compute", "break_even", "samples"}
    wanted |= {"cross_yoto", "cross_yoto_tuned"}
    wanted |= {f"front_{x}_{y}" for x, y in full.run.fronts}
    wanted |= {f"sweep_{axis.name}" for axis in full.run.axes}
    assert set(drawn) == wanted
    narrow = ("headline", "quality", "break_even", "cross", "front")
    for name, files in drawn.items():
        endings = {"samples": {"png"}}.get(name, {"svg", "png"})
        assert set(files) == ({"gif", "png"} if name.startswith("sweep_") else endings)
        assert max(map(len, files.values())) < 1_500_000
        if "svg" in files:
            assert files["svg"].rstrip().endswith(b"</svg>")
            picture = Image.open(io.BytesIO(files["png"]))
            if name.startswith(narrow):
                assert picture.width == 680, name
            else:
                assert picture.width in (680, 1400), name
    if full.run.task == "beta_vae":
        assert plots.figures(*full) == drawn


def test_no_name_is_clipped_or_on_another(full: Case) -> None:
    run = full.run
    figures = [
        plots.headline(run, full.overall),
        plots.heatmap(run, full.comparisons, full.overall),
        plots.quality_compute(run, full.quality),
        plots.break_even(run),
        plots.cross(run, "yoto"),
        plots.measures(run, full.summary),
        plots.gap(run, full.comparisons),
        *(plots.front(run, full.summary, *pair) for pair in run.fronts),
    ]
    for figure in figures:
        assert figure is not None
        FigureCanvasAgg(figure).draw()
        drawn = [*figure.texts, *(t for legend in figure.legends for t in legend.texts)]
        for axes in figure.axes:
            drawn += [t for t in axes.get_children() if isinstance(t, Text)]
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
                drawn += [axis.label, *(t.label1 for t in ticks), *(t.label2 for t in ticks)]
        texts = {id(t): t for t in drawn if t.get_text().strip() and t.get_visible()}.values()
        boxes = [(text, Text.get_window_extent(text)) for text in texts]
        inside = figure.bbox.padded(1)
        for text, box in boxes:
            assert inside.contains(box.x0, box.y0), text
            assert inside.contains(box.x1, box.y1), text
        for (one, box), (other, other_box) in itertools.combinations(boxes, 2):
            assert not box.padded(-0.6).overlaps(other_box), (one, other)


def test_methods_look_the_same_in_every_task_and_differ_without_colour() -> None:
    every = plots.looks(METHODS)
    few = plots.looks(("fixed_grid", "vbr", "yoto"))
    assert all(every[method] == look for method, look in few.items())
    variants = [f"yoto[hidden={i}]" for i in range(10)]
    found = plots.looks([*METHODS, *variants])
    assert len({(look["marker"], str(look.get("dashes"))) for look in found.values()}) == len(found)
    grey = [np.dot(to_rgb(found[m]["color"]), (0.299, 0.587, 0.114)) for m in METHODS[:3]]
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
    drawn = plots.figures(*case(tmp_path))
    assert {"front_bpp_psnr", "measures"} <= set(drawn)
    assert not {"quality_compute", "samples", *absent} & set(drawn)
    assert not any(name.startswith(tuple(absent)) for name in drawn)


def test_the_best_swept_method_stands_in_for_those_under_test(tmp_path: Path) -> None:
    methods = ("fixed_grid", "concatenation", VARIANT, "vbr")
    full_results(tmp_path, methods=methods, picture=sample, pictures=2)
    found = case(tmp_path)
    assert plots._told(found.run, found.overall) == [VARIANT]
    assert {"cross_yoto_stratified_True", "sweep_distortion"} <= set(plots.figures(*found))


# Each figure ------------------------------------------------------------------------------------


def test_the_headline_has_a_named_point_its_interval_and_its_worst_setting_a_method(
    full: Case,
) -> None:
    figure = plots.headline(full.run, full.overall)
    assert figure is not None
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
        name = plots.method_label(method).replace("[", " [")
        assert names[name].xy == pytest.approx(point, rel=1e-6)
    assert "orientation, no verdict" in said_on(figure)  # one seed
    assert hollow_on(axes) == set()


def test_a_method_without_a_cost_is_named_below_the_headline(codecs: Case) -> None:
    unknown = codecs.overall.copy()
    unknown.loc[unknown["method"] == "yoto", "flops_ratio"] = math.nan
    figure = plots.headline(codecs.run, unknown)
    assert figure is not None
    assert "YOTO" not in names_on(figure)
    assert said_on(figure).endswith("for want of a share or a cost: YOTO")


def test_the_heat_map_says_gap_verdict_and_share_the_best_first(codecs: Case) -> None:
    figure = plots.heatmap(codecs.run, codecs.comparisons, codecs.overall)
    assert figure is not None
    cells = cells_of(figure)
    frame = codecs.overall[codecs.overall["method"] != "fixed_grid"].sort_values("share_mean")
    assert len(cells) == len(frame)
    of_loss = codecs.comparisons[codecs.comparisons["measure"] == "loss"]
    at = of_loss.set_index(["method", "setting"])
    marks = {"better": "✓", "equal": "=", "worse": "✗", "undecided": "?", "mixed": "≷"}
    for row, overall in zip(cells, frame.to_dict("records"), strict=True):
        *gaps, mean, worst = row
        for text, setting in zip(gaps, codecs.run.settings, strict=True):
            found = at.loc[(overall["method"], setting)]
            if found["is_reference"]:
                assert text == "ref."
                continue
            doubtful = found["verdict"] in ("better", "equal", "worse") and not found["stands"]
            assert text.endswith(marks[found["verdict"]] + "°" * doubtful)
            assert number_in(text) == pytest.approx(found["gap"], abs=0.51, rel=0.06)
        assert marks[overall["verdict"]] in mean
        assert number_in(mean) == pytest.approx(overall["share_mean"], abs=0.051)
        assert number_in(worst) == pytest.approx(overall["share_worst"], abs=0.051)
    assert any("ref." in row for row in cells)  # the warm-started grid's middle is the grid's own
    assert not any(patch.get_hatch() for patch in figure.axes[0].patches)


def test_one_seed_has_no_verdict_anywhere(full: Case) -> None:
    figure = plots.heatmap(full.run, full.comparisons, full.overall)
    assert figure is not None
    assert not set("✓=✗?≷") & set("".join(itertools.chain(*cells_of(figure))))
    assert "orientation, no verdicts" in said_on(figure)


def test_the_heat_map_says_what_failed(tmp_path: Path) -> None:
    lost = (("single_model", 0, 1), ("single_model", 0, 5))  # of all, the first is swept
    methods = ("fixed_grid", "single_model", "yoto")
    full_results(tmp_path, methods=methods, diverged=lost, pictures=2)
    found = case(tmp_path)
    figure = plots.heatmap(found.run, found.comparisons, found.overall)
    assert figure is not None
    assert any("failed" in row for row in cells_of(figure))


def arrow_of(figure: Figure) -> tuple[float, float, float] | None:
    """From which compute to which, and at which gap; None without an arrow."""
    for text in figure.axes[0].texts:
        if isinstance(text, Annotation) and not text.get_text():
            return float(text.xy[0]), float(text.xyann[0]), float(text.xy[1])
    return None


def test_the_arrow_ends_where_the_curve_that_is_drawn_crosses(codecs: Case) -> None:
    frame = codecs.quality.set_index(["method", "share"])
    level = frame.at[("yoto_tuned", 1.0), "loss_gap"]
    grid = frame.loc["fixed_grid"].sort_values("flops")
    falling = grid["loss_gap"].to_numpy()
    assert (np.diff(falling) < 0).all()
    wanted = np.exp(np.interp(-level, -falling, np.log(grid["flops"])))
    figure = plots.quality_compute(codecs.run, codecs.quality)
    assert figure is not None
    full = grid["flops"].iloc[-1]
    cost = frame.at[("yoto_tuned", 1.0), "flops"]
    assert arrow_of(figure) == pytest.approx((cost / full, wanted / full, level))
    assert f"{wanted / cost:.2g}× cheaper" in names_on(figure)
    # Its end lies on the black line: on screen, between two neighbouring points of it.
    axes = figure.axes[0]
    (line,) = (
        each for each in axes.lines if each.get_color() == "black" and len(each.get_xydata()) > 9
    )
    x, y = axes.transData.transform(line.get_xydata()).T
    tip = axes.transData.transform((wanted / full, level))
    assert np.interp(tip[0], x, y) == pytest.approx(tip[1], abs=0.5)  # pixels


@pytest.mark.parametrize("gap", [100.0, -100.0])
def test_there_is_no_arrow_where_the_curve_does_not_come_down_to_the_loss(
    codecs: Case, gap: float
) -> None:
    """The grid ends above the loss of the network under test, or begins below it."""
    moved = codecs.quality.assign(loss_gap=codecs.quality["loss_gap"] + gap)
    never = codecs.quality.where(codecs.quality["method"] != "fixed_grid", moved)
    figure = plots.quality_compute(codecs.run, never)
    assert figure is not None
    assert arrow_of(figure) is None
    assert not any("cheaper" in name or "dearer" in name for name in names_on(figure))
    assert "arrow" not in said_on(figure)


def test_without_lengths_there_is_no_quality_against_compute(tmp_path: Path) -> None:
    """What was kept in mid-schedule is no point of it."""
    full_results(tmp_path, methods=("fixed_grid", "yoto"), pictures=2, context=False)
    found = case(tmp_path)
    assert len(found.quality) == 8
    assert plots.quality_compute(found.run, found.quality) is not None
    for path in tmp_path.glob("records/*/*/*.json"):
        head = json.loads(path.read_text())
        if head["kind"] == "length":
            path.write_text(json.dumps({**head, "kind": "snapshot"}))
    found = case(tmp_path)
    assert len(found.run.snapshots)
    assert found.quality.empty
    assert plots.quality_compute(found.run, found.quality) is None


# Where the reference fails ----------------------------------------------------------------------


def test_hollow_is_where_the_reference_fails(failing: Case) -> None:
    run = failing.run
    assert plots.failing(run) == [run.settings[-1]]
    figure = plots.front(run, failing.summary, "bpp", "psnr")
    grid = failing.summary[failing.summary["method"] == "fixed_grid"].set_index("setting")
    assert hollow_on(figure.axes[0]) == {tuple(grid.loc[run.settings[-1], ["bpp", "psnr"]])}
    assert "hollow: no verdict, for the reference fails at λ = 0.18" in said_on(figure)
    figure = plots.measures(run, failing.summary)
    assert hollow_on(figure.axes[0]) == {(0.18, grid.at[run.settings[-1], "bpp"])}
    assert "hollow" in said_on(figure)
    figure = plots.gap(run, failing.comparisons)
    gaps = failing.comparisons[failing.comparisons["measure"] == "loss"]
    wanted = {(0.18, gap) for gap in gaps.loc[gaps["setting"] == run.settings[-1], "gap"]}
    assert hollow_on(figure.axes[0]) == {(0.18, 0.0), *wanted}
    assert len(wanted) == 4


def test_the_headline_is_hollow_for_methods_without_a_verdict(failing: Case) -> None:
    figure = plots.headline(failing.run, failing.overall)
    assert figure is not None
    frame = failing.overall[failing.overall["method"] != "fixed_grid"]
    assert frame["verdict"].str.startswith("no verdict: the reference fails").all()
    assert {y for _, y in hollow_on(figure.axes[0])} == {0.0, *frame["share_mean"]}
    assert "hollow: no verdict" in said_on(figure)


def test_the_heat_map_judges_nothing_where_the_reference_fails(failing: Case) -> None:
    figure = plots.heatmap(failing.run, failing.comparisons, failing.overall)
    assert figure is not None
    cells = cells_of(figure)
    assert all(re.fullmatch(r"\([+−][0-9.]+\)", row[4]) for row in cells)
    assert not any(set("✓=✗") & set(row[5]) for row in cells)  # nor in the mean
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()][4] == "0.18§"
    hatched = [patch.get_x() for patch in axes.patches if patch.get_hatch()]
    assert sorted({round(x, 1) for x in hatched}) == [4, 5.2, 6.2]
    assert "the reference fails" in said_on(figure)


def test_no_compute_for_the_same_loss_is_claimed_where_the_reference_fails(failing: Case) -> None:
    figure = plots.quality_compute(failing.run, failing.quality)
    assert figure is not None
    assert arrow_of(figure) is None
    assert hollow_on(figure.axes[0])


def test_nothing_is_hollow_where_the_reference_holds(codecs: Case) -> None:
    run = codecs.run
    figures = [
        plots.headline(run, codecs.overall),
        plots.quality_compute(run, codecs.quality),
        plots.front(run, codecs.summary, "bpp", "psnr"),
        plots.measures(run, codecs.summary),
        plots.gap(run, codecs.comparisons),
        plots.break_even(run),
    ]
    for figure in figures:
        assert figure is not None
        assert all(not hollow_on(axes) for axes in figure.axes)
        assert "hollow" not in said_on(figure)


def test_break_even_lines_and_dots_are_the_costs(codecs: Case) -> None:
    figure = plots.break_even(codecs.run)
    assert figure is not None
    costs = savings(codecs.run).set_index("method")
    crossings = break_evens(codecs.run).set_index(["method", "unit"])["crossing"]
    for axes, unit in zip(figure.axes, ("flops", "seconds"), strict=True):
        per = costs.at["fixed_grid", unit] / 5
        lines = [line.get_xydata() for line in axes.lines]
        ends = [line[4, 1] for line in lines if len(line) > 4]
        wanted = [
            costs.at[m, unit] / per for m in ("fixed_grid", "warm_grid", "yoto", "yoto_tuned")
        ]
        assert sorted(ends) == pytest.approx(sorted(wanted))
        dots = {line[0, 0] for line in lines if len(line) == 1}
        assert dots == {crossings["yoto", unit], crossings["yoto_tuned", unit]}
        assert "YOTO, YOTO tuned" in {
            " ".join(t.get_text().split()) for t in axes.texts if isinstance(t, Annotation)
        }


def test_the_rings_of_a_cross_matrix_are_at_the_best_of_each_column(full: Case) -> None:
    figure = plots.cross(full.run, "yoto")
    assert figure is not None
    matrix = compare.cross(full.run, "yoto").to_numpy()
    rings = {(int(x), int(y)) for line in figure.axes[0].lines for x, y in line.get_xydata()}
    assert rings == {(column, row) for column, row in enumerate(matrix.argmin(0))}
    cells = cells_of(figure)
    assert all(cells[row][column] == "0" for column, row in rings)
    worst = np.unravel_index((matrix / matrix.min(0)).argmax(), matrix.shape)
    excess = matrix[worst] - matrix[:, worst[1]].min()
    if full.run.task != "beta_vae":  # there in nats
        excess *= 100 / matrix[:, worst[1]].min()
    assert number_in(cells[worst[0]][worst[1]]) == pytest.approx(excess, rel=0.05, abs=0.5)


def test_bands_of_the_gap_are_the_intervals(codecs: Case) -> None:
    figure = plots.gap(codecs.run, codecs.comparisons)
    of_loss = codecs.comparisons[codecs.comparisons["measure"] == "loss"]
    at = of_loss[of_loss["method"] == "yoto"]
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(at["low"].min())
    assert corners[:, 1].max() == pytest.approx(at["high"].max())
    assert "hierarchical bootstrap" in figure.get_supxlabel()


def test_big_gaps_do_not_flatten_the_small(full: Case) -> None:
    """The method under test may be a hundredth of the worst, and still stand off the grid."""
    axes = plots.gap(full.run, full.comparisons).axes[0]
    of_loss = full.comparisons[full.comparisons["measure"] == "loss"].set_index("method")
    assert of_loss.loc["hypernetwork", "gap"].max() > 8 * of_loss.loc["yoto", "gap"].max()
    at = axes.transAxes.inverted().transform(
        axes.transData.transform([(1, of_loss.loc["yoto", "gap"].max()), (1, 0)])
    )
    assert at[0, 1] - at[1, 1] > 0.1


# Pictures ---------------------------------------------------------------------------------------


def colours_of(data: bytes) -> set[Any]:
    with Image.open(io.BytesIO(data)) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(10**7)}


def test_the_sample_sheet_has_the_original_and_at_most_five_methods(full: Case) -> None:
    sheet = sweeps.samples(full.run, plots._for_sheet(full.run, full.overall))
    assert sheet is not None
    found = colours_of(sheet)
    shown = {m for m in METHODS for s in full.run.settings if _colour(full.run, m, s) in found}
    several = len(full.run.axes) > 1  # three lines of settings
    assert {"fixed_grid", "yoto_tuned"} <= shown
    assert len(shown) == (2 if several else 5)
    assert ((1, 2, 3) in found) == (full.run.original is not None)
    for method in shown:
        assert all(_colour(full.run, method, setting) in found for setting in full.run.settings)


def _colour(run: Run, method: str, setting: str) -> Any:
    return sample(method, tuple(parse_setting(setting).values())).getpixel((0, 0))


def test_a_sweep_shows_one_network_in_the_order_of_its_coefficient(codecs: Case) -> None:
    (axis,) = codecs.run.axes
    frames = sweeps.along_axis(codecs.run, "yoto_tuned", 0)
    values = [frame.value for frame in frames]
    assert values == sorted(
        v for (v,) in SIZES["compression"]["settings"] + SIZES["compression"]["swept"]
    )
    assert [frame.outside for frame in frames] == [True, *[False] * 9, True]
    with Image.open(io.BytesIO(sweeps.animation(frames, axis, "said"))) as film:
        assert film.n_frames == 2 * len(frames) - 2  # to the end and back
        assert film.info["loop"] == 0
        for place in (0, 4, 10, 11):
            film.seek(place)
            frame = frames[min(place, 2 * len(frames) - 2 - place)]
            seen = film.convert("RGB").getpixel((5, 5))
            assert seen == sample("yoto_tuned", (frame.value,)).getpixel((0, 0))
    strip = colours_of(sweeps.strip(frames, axis, "said"))
    kept = [frames[round(i * 10 / 8)].value for i in range(9)]
    assert {sample("yoto_tuned", (v,)).getpixel((0, 0)) for v in kept} <= strip


def test_a_sweep_moves_one_coefficient_alone(tmp_path: Path) -> None:
    full_results(tmp_path, "style", methods=("fixed_grid", "yoto"), picture=sample, pictures=1)
    run = case(tmp_path).run
    for place in range(5):
        frames = sweeps.along_axis(run, "yoto", place)
        assert [f.value for f in frames] == [0.0316, 0.1, 0.316, 1.0, 3.16, 10.0, 31.6]
        assert [f.outside for f in frames] == [True, *[False] * 5, True]
    assert set(sweeps.sweeps(run, "yoto")) == {f"sweep_{axis['name']}" for axis in STYLE_AXES}


def test_noisy_pictures_still_make_a_small_animation(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = []
    for place in range(15):
        path = tmp_path / f"{place}.png"
        Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)
        frames.append(sweeps.Frame(value=1.5**place, outside=False, path=path))
    axis = sweeps.AxisStyle(name="a", low=1.0, high=300.0, symbol="a")
    assert len(sweeps.animation(frames, axis, "said")) < 1_500_000


def test_pictures_are_shown_at_their_own_size_or_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def kept(*size: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        return pixels, np.asarray(sweeps.shown(tmp_path / "a.png", 170))

    pixels, seen = kept(400, 600)  # a photograph is cut
    assert (seen == pixels[115:285, 215:385]).all()
    pixels, seen = kept(32, 32)  # a small picture is enlarged by whole pixels
    assert seen.shape == (160, 160, 3)
    assert (seen[::5, ::5] == pixels).all()
    assert kept(256, 256)[1].shape == (170, 170, 3)  # a sheet is shrunk, not cut


# Names ------------------------------------------------------------------------------------------


def test_names_keep_off_each_other_and_off_points() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        figure = Figure(figsize=(3.4, 2.6))
        axes = figure.subplots()
        axes.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
        points = random.random((15, 2))
        points[:8, 0] = 0.2  # a column, as of networks that all cost the same
        axes.plot(*points.T, "o", markersize=4)
        wanted = [
            labels.Label(text=f"a method {i}", at=[tuple(point)], colour="red", bold=i < 3)
            for i, point in enumerate(points.tolist())
        ]
        labels.name_all(axes, wanted, points)
        FigureCanvasAgg(figure).draw()
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        for text, box, (x, y) in zip(axes.texts, boxes, points, strict=True):
            assert text.xy == pytest.approx((x, y))
            assert axes.bbox.contains(box.x0, box.y0)
            assert axes.bbox.contains(box.x1, box.y1)
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        covered = sum(box.contains(*at) for box in boxes for at in axes.transData.transform(points))
        assert covered == 0


def test_a_box_is_counted_from_its_corners() -> None:
    random = np.random.default_rng(0)
    points = random.random((500, 2)) * [60, 40] + [10, 20]
    frame = np.array([10.0, 20.0, 70.0, 60.0])
    taken = labels._raster(points, frame)
    low = random.integers(0, 30, (50, 2))
    boxes = np.concatenate([low, low + random.integers(1, 30, (50, 2))], 1)
    for box, count in zip(boxes, labels._count(taken, boxes.astype(float)), strict=True):
        at = points - frame[:2]
        assert count == ((at >= box[:2]) & (at < box[2:])).all(1).sum()


def test_leaders_are_found_to_hit_boxes_and_each_other() -> None:
    """Against points along the lines, one pair at a time."""
    random = np.random.default_rng(1)

    def some(count: int) -> labels._Places:
        start, end, corner = (random.random((count, 2)) * 20 for _ in range(3))
        box = np.concatenate([corner, corner + 5], 1)
        rest = {"away": np.zeros(count), "cost": np.zeros(count)}
        return labels._Places(anchor=start, box=box, end=end, **rest)

    one, other = some(30), some(20)
    hits, crosses = labels._hits(one, other.box), labels._cross(one, other)
    share = np.linspace(0, 1, 4001)[:, None]
    for i, j in np.ndindex(30, 20):
        line = one.anchor[i] + share * (one.end[i] - one.anchor[i])
        inside = (line > other.box[j, :2]) & (line < other.box[j, 2:])
        assert hits[i, j] == inside.all(1).any()
        basis = np.stack([one.end[i] - one.anchor[i], other.anchor[j] - other.end[j]], 1)
        at = np.linalg.solve(basis, other.anchor[j] - one.anchor[i])
        assert crosses[i, j] == ((at > 0) & (at < 1)).all()

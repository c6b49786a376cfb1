"""Synthetic results with all that figures are made of: fifteen methods, several seeds, settings
beyond the compared ones, shorter trainings, pictures, costs. And what is read off a figure."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from PIL import Image
from test_report import CODEC, LAMBDA, STYLE_AXES, style_settings, write_results

from bench.identity import content_id
from bench.report.figures import look
from bench.report.figures.curves import front, gap, measures
from bench.report.figures.matrices import cross, heatmap
from bench.report.figures.tradeoffs import break_even, headline, quality_compute
from bench.report.load import load_results
from bench.report.sections import frames_of
from bench.space import format_setting, parse_setting

Setting = tuple[float, ...]
Noise = Callable[[], float]

VARIANT = "yoto[stratified=True]"
SWEPT = ("yoto", "yoto_tuned", "concatenation", "gain_units", "gates", "hypernetwork", VARIANT)
# Mean excess of the loss, and how much more of it there is at the ends of the range.
OFF = {
    **{"fixed_grid": (0.0, 0.0), "yoto": (0.07, 0.35), "yoto_tuned": (0.005, 0.06)},
    **{"concatenation": (0.1, 0.5), "gain_units": (0.02, 0.1), "gates": (0.04, 0.3)},
    **{"hypernetwork": (0.9, 3.0), "instance_norm": (0.08, 0.3), "interpolation": (0.0, -0.1)},
    **{"single_model": (0.0, 1.6), "step_scaling": (0.01, 0.9), "unconditioned": (0.06, 1.5)},
    **{"vbr": (-0.012, 0.02), "warm_grid": (0.015, 0.0), VARIANT: (0.04, 0.2)},
}
METHODS = tuple(OFF)
COST = {"warm_grid": 0.1, "hypernetwork": 3.0, "gain_units": 1.02, "yoto": 1.05, "yoto_tuned": 1.05}


def codec(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
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
        **{"loss": coefficient * distortion + bpp, "distortion": distortion, "psnr": psnr},
        **{"bpp": bpp, "bpp_estimated": bpp * 0.98, "rate": bpp},
        "ms_ssim": 1 - 0.09 * 10 ** (-told) * math.exp(0.2 * hard) * (1 + off),
        "lpips": 0.4 - 0.25 * told + 0.03 * hard + 0.1 * off,
    }


def weak(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
    """As `codec`, but the fixed network for the largest coefficient is worse than its neighbour."""
    values = codec(method, setting, hard, noise)
    if (method, setting) == ("fixed_grid", (0.18,)):
        values["distortion"] *= 3
        values["loss"] = setting[0] * values["distortion"] + values["bpp"]
    return values


def painter(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
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
    return {
        "loss": sum(c * t for c, t in zip(setting, terms, strict=True)),
        **dict(zip((axis["name"] for axis in STYLE_AXES), terms, strict=True)),
        "style": sum(terms[:4]) / 4,
        "lpips": 0.3 + 0.1 * logs[0] + 0.05 * noise(),
    }


MARGINS = {"loss": "1%", "bpp": "1%", "psnr": "0.05", "ms_ssim": "0.001", "lpips": "0.005"}
PAINTING = {
    "loss": {"label": "loss", "better": "lower", "margin": "1%"},
    **{a["name"]: {"label": a["name"], "better": "lower"} for a in STYLE_AXES},
    "style": {"label": "style, mean of four layers", "better": "lower", "margin": "2%"},
    "lpips": {"label": "LPIPS to the photograph (AlexNet, v0.1)", "better": "lower"},
}
SIZES: dict[str, dict[str, Any]] = {
    "compression": {
        "axes": LAMBDA,
        "measures": {k: v | {"margin": MARGINS.get(k, "")} for k, v in CODEC.items()},
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
}


def picture(method: str, setting: Setting) -> Image.Image:
    """One whose colour tells the method and the setting."""
    place = sum(int(40 * (math.log10(value) + 3)) for value in setting) % 256
    return Image.new("RGB", (300, 280), (METHODS.index(method) * 15, place, 200))


def full_results(
    root: Path,
    task: str = "compression",
    methods: tuple[str, ...] = METHODS,
    *,
    pictured: bool = False,
    shares: tuple[float, ...] = (0.125, 0.25, 0.5),
    **more: Any,
) -> None:
    """A results folder as the runner would have written it.

    Starts from the plain writer, which measures every method at every setting; then settings that
    are not compared become sweeps, shorter trainings are added, and costs are made to differ.
    """
    size = dict(SIZES[task])
    swept, compared, axes = size.pop("swept"), size.pop("settings"), size["axes"]
    every = sorted({*compared, *swept}) if len(axes) == 1 else (*compared, *swept)
    write_results(root, task=task, methods=methods, settings=every, **{**size, **more})
    extra = {format_setting([axis["name"] for axis in axes], setting) for setting in swept}
    for path in sorted(root.glob(f"records/{task}/*/*.json")):
        head = json.loads(path.read_text())
        if head["kind"] == "context":
            if pictured:
                Image.new("RGB", (300, 280), (1, 2, 3)).save(path.with_suffix(".png"))
            continue
        values = parse_setting(head["setting"])
        if head["setting"] in extra:
            if head["method"] not in SWEPT or head["seed"]:
                path.unlink()
                continue
            beyond = [a["name"] for a in axes if not a["low"] <= values[a["name"]] <= a["high"]]
            head |= {"kind": "swept", "outside": [f"{name} is outside" for name in beyond]}
            path.write_text(json.dumps(head))
        elif head["method"] in (*SWEPT, "fixed_grid") and head["status"] == "done":
            for share in shares:
                _shorter(path, head, share)
        if pictured and not head["seed"]:
            picture(head["method"], tuple(values.values())).save(path.with_suffix(".png"))
    _costs(root, task)


def _shorter(path: Path, head: dict[str, Any], share: float) -> None:
    """The same measurement of networks trained for a share of the steps, with a higher loss, and
    their ledgers."""
    cells = []
    for cell in head["cells"]:
        (whole,) = path.parents[3].glob(f"runs/{head['task']}/*/{cell}/done.json")
        done = json.loads(whole.read_text()) | {"id": f"{cell}-{share:g}", "share": share}
        folder = whole.parent.with_name(done["id"])
        folder.mkdir(exist_ok=True)
        (folder / "done.json").write_text(json.dumps(done))
        cells.append(done["id"])
    slow = 0.3 if head["method"] == "yoto" else 0.15
    lines = path.with_suffix(".csv").read_text().splitlines()
    for place, line in enumerate(lines):
        *rest, name, value = line.split(",")
        if name == "loss":
            worse = float(value) + abs(float(value)) * slow * (1 / share - 1) ** 0.7
            lines[place] = ",".join([*rest, name, repr(worse)])
    text = "\n".join(lines) + "\n"
    identity, digest = content_id([head["id"], share]), hashlib.sha256(text.encode()).hexdigest()
    changed = {"id": identity, "kind": "length", "share": share, "cells": cells, "sha256": digest}
    path.with_name(f"{identity}.csv").write_text(text)
    path.with_name(f"{identity}.json").write_text(json.dumps(head | changed))


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
    if not settings:
        return
    middle = settings[len(settings) // 2]
    for path in root.glob(f"records/{task}/warm_grid/*.json"):
        head = json.loads(path.read_text())
        first = grid[head["seed"], middle]
        cell = first
        if head["setting"] != middle:
            (old,) = root.glob(f"runs/{task}/warm_grid/{head['cells'][0]}/done.json")
            cell = content_id([head["cells"], head["setting"]])
            new = root / "runs" / task / "warm_grid" / cell
            new.mkdir(exist_ok=True)
            done = json.loads(old.read_text()) | {"id": cell, "after": first}
            (new / "done.json").write_text(json.dumps(done))
        path.write_text(json.dumps(head | {"cells": [cell]}))


# What is drawn from them -------------------------------------------------------------------------


class Case:
    """A run, its frames, and all its figures but sheets, strips and films, by name."""

    def __init__(self, root: Path, task: str = "") -> None:
        self.root = root
        (self.run,) = (run for run in load_results(root).runs if task in run.task)
        self.frames = frames_of(self.run)
        self.summary, self.overall = self.frames["summary"], self.frames["overall"]
        self.comparisons, self.quality = self.frames["comparisons"], self.frames["quality"]

    @functools.cached_property
    def drawn(self) -> dict[str, Figure]:
        run = self.run
        with style.context(["default", look.STYLE]):
            every = {
                "headline": headline(run, self.overall),
                "heatmap": heatmap(run, self.comparisons, self.overall),
                "quality_compute": quality_compute(run, self.quality),
                "break_even": break_even(run),
                "cross": cross(run, "yoto"),
                "measures": measures(run, self.summary),
                "gap": gap(run, self.comparisons),
                **{f"front_{x}_{y}": front(run, self.summary, x, y) for x, y in run.fronts},
            }
        return {name: figure for name, figure in every.items() if figure is not None}


def names_on(figure: Figure) -> dict[str, Annotation]:
    """The names beside points, by their text on one line."""
    texts = [t for axes in figure.axes for t in axes.texts if isinstance(t, Annotation)]
    return {" ".join(t.get_text().split()): t for t in texts if t.get_text()}


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


def texts_of(figure: Figure) -> list[Text]:
    """All that is written on a figure, ticks out of sight aside."""
    drawn = [*figure.texts, *(t for legend in figure.legends for t in legend.texts)]
    for axes in figure.axes:
        drawn += [t for t in axes.get_children() if isinstance(t, Text)]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            drawn += [axis.label, *(t.label1 for t in ticks), *(t.label2 for t in ticks)]
    return list({id(t): t for t in drawn if t.get_text().strip() and t.get_visible()}.values())


def arrow_of(figure: Figure) -> tuple[float, float, float] | None:
    """From which compute to which, and at which gap; None without an arrow."""
    for text in figure.axes[0].texts:
        if isinstance(text, Annotation) and not text.get_text():
            return float(text.xy[0]), float(text.xyann[0]), float(text.xy[1])
    return None

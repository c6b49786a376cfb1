"""Tables of numbers in colour: gaps and verdicts of all methods, and one model at all settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from bench.report.answers.compare import LOST
from bench.report.answers.knob import cross as losses_of_told
from bench.report.answers.reference import LOSS, failing, in_percent, margin_of
from bench.report.answers.stats import ENOUGH_SEEDS
from bench.report.answers.verdict import FAILS, MIXED
from bench.report.figures import look
from bench.report.figures.look import plain
from bench.report.headings import SIGN, gap_title
from bench.report.load import Run
from bench.report.text import number, one_line

GOOD_BAD = LinearSegmentedColormap.from_list("good_bad", ["#0173b2", "#ffffff", "#d55e00"])
MARKS = {"better": "✓", "equal": "=", "worse": "✗", "undecided": "?", MIXED: "≷"}
CLAIMS = ("better", "equal", "worse")
DOUBT = "°"  # of a claim that does not stand after Holm's correction, as in the tables
NUMBER = 0.31  # inches that a number with its mark needs


class Cell(NamedTuple):
    """A text and the colour behind it; hatched where nothing follows from the number."""

    text: str
    colour: Any = "0.93"  # what is not judged is grey
    bold: bool = False
    hatched: bool = False


def _matrix(
    figure: Figure, rows: Sequence[Sequence[Cell]], lefts: Any, tall: Any, size: float
) -> Axes:
    """Cells a unit wide and as `tall` as their row, their texts legible on any colour; what columns
    (above) and rows are is left to the ticks, which stand in their middles."""
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.subplots()
    tops = np.cumsum([0.0, *tall])
    for row, top, height in zip(rows, tops, tall, strict=False):
        for cell, left in zip(row, lefts, strict=True):
            box: dict[str, Any] = {"facecolor": cell.colour, "edgecolor": "white", "linewidth": 0.8}
            axes.add_patch(Rectangle((left, top), 1, height, **box))
            if cell.hatched:
                box = {"facecolor": "none", "edgecolor": "0.8", "linewidth": 0, "hatch": "//////"}
                axes.add_patch(Rectangle((left, top), 1, height, **box))
            dark = np.dot(to_rgb(cell.colour), (0.299, 0.587, 0.114)) < 0.5
            axes.text(
                left + 0.5, top + height / 2, cell.text, ha="center", va="center_baseline",
                fontsize=size, color="white" if dark else "0.1",
                weight="bold" if cell.bold else "normal",
            )  # fmt: skip
    axes.set(xlim=(0, lefts[-1] + 1), ylim=(tops[-1], 0))
    axes.set(xticks=np.add(lefts, 0.5), yticks=(tops[1:] + tops[:-1]) / 2)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=2, labelsize=look.SMALL)
    axes.grid(visible=False)
    sns.despine(ax=axes, left=True, bottom=True)
    return axes


def heatmap(run: Run, comparisons: pd.DataFrame, overall: pd.DataFrame) -> Figure | None:
    """The loss gap of every method (the best first) at every setting with its verdict, and beside
    it the share of the benefit lost, mean and worst. Numbers and marks say all; colour (blue
    better, orange worse) is for the overview. Where the reference fails a cell is hatched, has no
    colour and no mark."""
    of_loss = comparisons[comparisons["measure"] == LOSS]
    of_loss = of_loss[of_loss["method"] != run.reference]
    if not (of_loss["pairs"] > 0).any():
        return None
    shares = overall[overall["method"] != run.reference]
    shares = shares.sort_values(["share_mean", "loss_gap_mean"]).set_index("method")
    parts = ["mean", "worst"] if shares["share_mean"].notna().any() else []
    names = [look.two_lines(run.label(method), 24) for method in shares.index]
    tall = [1 + 0.6 * name.count("\n") for name in names]
    several, count = len(run.axes) > 1, len(run.settings)
    aside = 0.1 + 0.052 * max(len(line) for name in names for line in name.split("\n"))
    narrow = (look.SINGLE - aside) / (count + len(parts) + 0.2) > NUMBER
    width = look.SINGLE if narrow else look.DOUBLE
    figure = Figure(figsize=(width, 0.19 * sum(tall) + (0.65 if several else 0.45)))
    gap_cell = _gap_cells(run, of_loss)
    rows = [
        [gap_cell(method, setting) for setting in run.settings]
        + [_share_cell(run, share, part) for part in parts]
        for method, share in shares.iterrows()
    ]
    lefts = [*range(count), *(count + 0.2 + place for place in range(len(parts)))]
    axes = _matrix(figure, rows, lefts, tall, 6.0)
    signs = {setting: SIGN.strip() for setting in failing(run)}
    heads = [plain(label) + signs.get(s, "") for s, label in run.labels().items()] + parts
    axes.set_xticklabels(heads, rotation=90 if several else 0, fontsize=6)
    axes.set_yticklabels(names, linespacing=0.95)
    title = gap_title(run)[0] + ("" if several else f" at {one_line(run.axes[0].symbol)} =")
    axes.set_title(plain(title), loc="left", fontsize=7, pad=4)
    if parts:
        axes.set_title("share lost", loc="right", fontsize=7, pad=4)
    look.note(figure, _heat_notes(run, of_loss, shares), width)
    return figure


def _gap_cells(run: Run, of_loss: pd.DataFrame) -> Callable[[str, str], Cell]:
    """What the heat map says of a method at a setting."""
    at = of_loss.set_index(["method", "setting"])
    status = run.measured.assign(lost=run.measured["status"].isin(LOST))
    lost = status.groupby(["method", "setting"])["lost"].all()
    sizes = of_loss.loc[~of_loss["reference_fails"].astype(bool), "gap"].abs()
    most = max(min(sizes.max(), 10 * sizes.median()), 1e-12) if sizes.notna().any() else 1.0
    margin = margin_of(run.measures[LOSS])
    soft = margin if margin > 0 else most / 50  # where shades begin

    def cell(method: str, setting: str) -> Cell:
        if lost.get((method, setting), False):
            return Cell("failed")
        if (method, setting) not in at.index or not math.isfinite(at.at[(method, setting), "gap"]):
            return Cell("—")
        row = at.loc[(method, setting)]
        if row["is_reference"]:
            return Cell("ref.")
        if row["reference_fails"]:
            return Cell(f"({_brief(row['gap'])})", hatched=True)
        return Cell(_brief(row["gap"]) + _mark(row), _shade(row["gap"], soft, most))

    return cell


def _share_cell(run: Run, row: pd.Series, part: str) -> Cell:
    """The mean or the worst share that a method loses: `0.12`, `−0.03`, `3.7`, `66`."""
    value, silent = row[f"share_{part}"], row["verdict"].startswith(FAILS)
    known, mean = math.isfinite(value), part == "mean"
    text = number(value, 2 if abs(value) < 0.995 else 1 if abs(value) < 9.95 else 0)
    colour = _shade(value, run.margin_share, 2.0) if known and not silent else "0.93"
    bold = mean and row["verdict"] in MARKS
    return Cell(text + _mark(row) * (mean and known), colour, bold, hatched=silent)


def _mark(row: pd.Series) -> str:
    """Of a verdict; a claim that does not survive Holm's correction has a small circle."""
    doubtful = row["verdict"] in CLAIMS and not row["stands"]
    return MARKS.get(row["verdict"], "") + DOUBT * doubtful


def _shade(value: float, soft: float, most: float) -> Any:
    """Blue below nothing, orange above, linear up to `soft` and logarithmic beyond."""
    shade = float(np.clip(np.arcsinh(value / soft) / np.arcsinh(most / soft), -1, 1))
    return GOOD_BAD(0.5 + 0.5 * shade)


def _heat_notes(run: Run, of_loss: pd.DataFrame, shares: pd.DataFrame) -> list[str]:
    """The signs that are on the heat map, and no others."""
    drawn = of_loss[~of_loss["is_reference"].astype(bool)]
    judged = pd.concat([drawn[["verdict", "stands"]], shares[["verdict", "stands"]]])
    equal = f"equal within {100 * run.margin_share:g} % of the benefit"
    if (margin := margin_of(run.measures[LOSS])) > 0:
        equal += f", ±{margin:g}\u00a0{_unit(run)}".rstrip() + " where there is none"
    words = {"equal": equal, "undecided": "undecided (95 %)"}
    words[MIXED] = "equal or better in the mean, worse at a setting"
    claims = set(judged["verdict"])
    doubtful = judged["verdict"].isin(CLAIMS) & ~judged["stands"].astype(bool)
    signs = {f"{mark}\u00a0{words.get(word, word)}": word in claims for word, mark in MARKS.items()}
    signs |= {
        f"{DOUBT}\u00a0does not stand after Holm's correction": doubtful.any(),
        "ref.: the grid's own network": of_loss["is_reference"].any(),
        f"{SIGN.strip()}\u00a0hatched, in brackets: the reference fails, no verdict": bool(
            failing(run)
        ),
        "fewer than three seeds: orientation, no verdicts": len(run.seeds) < ENOUGH_SEEDS,
    }
    return [sentence for sentence, holds in signs.items() if holds]


def cross(run: Run, method: str) -> Figure | None:
    """The model told one setting (row), scored with another's coefficients (column): how far its
    loss is above the best row's. A ring marks the best of a column; a perfect knob has them all
    on the diagonal. None for fewer than two settings."""
    matrix = losses_of_told(run, method)
    matrix = matrix.loc[matrix.notna().all(axis=1)]
    values = matrix[matrix.index].to_numpy(float)
    count, several = len(values), len(run.axes) > 1
    if count < 2:
        return None
    best = values.min(axis=0)
    percent = in_percent(run.measures[LOSS]) and bool((best > 0).all())
    excess = 100 * (values - best) / best if percent else values - best
    most = max(float(np.quantile(excess, 0.9)), 1e-12)
    shades = 0.9 * np.minimum(1.0, np.log1p(9 * excess / most) / math.log(10))
    colours = sns.light_palette("#0173b2", as_cmap=True)(shades)
    rows = [
        [Cell(_brief(k).lstrip("+") if k else "0", c) for k, c in zip(lost, row, strict=True)]
        for lost, row in zip(excess, colours, strict=True)
    ]
    height = min(0.27, 2.8 / count) * count + (0.9 if several else 0.65)
    figure = Figure(figsize=(look.SINGLE, height))
    axes = _matrix(figure, rows, range(count), [1] * count, min(7.0, 36 / count + 2))
    best_rows, columns = np.nonzero(excess == 0)
    axes.plot(
        columns + 0.5, best_rows + 0.5, "o", markerfacecolor="none", markeredgecolor="black",
        markersize=min(16.0, 105 / count), markeredgewidth=1.1,
    )  # fmt: skip
    labels = run.labels()
    heads = [plain(labels[setting]) for setting in matrix.index]
    axes.set_xticklabels(heads, rotation=90 if several or count > 7 else 0)
    axes.set_yticklabels(heads, linespacing=0.95)
    axes.xaxis.set_label_position("top")
    symbol = " the coefficients of" if several else f" {one_line(run.axes[0].symbol)}"
    axes.set_xlabel(plain(f"scored with{symbol}"), fontsize=7)
    axes.set_ylabel(plain(f"told{symbol}"), fontsize=7)
    unit = "%" if percent else one_line(run.measures[LOSS].unit)
    caption = f"{run.label(method)}: loss above the best of its column ({unit})".replace(" ()", "")
    look.note(figure, [caption, "ring: the best"], look.SINGLE)
    return figure


def _unit(run: Run) -> str:
    """Of gaps of the loss."""
    style = run.measures[LOSS]
    return "%" if in_percent(style) else one_line(style.unit)


def _brief(value: float) -> str:
    """`+1.7`, `−13`, `+1.2k`: a gap that fits a small cell."""
    if abs(value) >= 999.5:
        return f"{value / 1000:+.2g}k".replace("-", "−")
    return number(value, 1 if abs(value) < 9.95 else 0, sign=True)

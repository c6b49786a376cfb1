"""What of a results folder is committed as evidence, and the answer at the top of the README.

    python -m benchmarks.evidence keep RESULTS PRESET results/reference/trained-cpu-NAME/TASK
    python -m benchmarks.evidence answer results/reference/trained-cpu-NAME

`keep` takes a minute or two: it writes the tables of the plain run that has this preset and the
means over the examples of every measure of every network of its family, with cells and commit,
and of a codec the curve. Where TASK is one of the predeclared tests, it adds the figures, and the
loss of every example of the methods compared there, rounded to six digits. `answer` makes
`answer.csv`, `answer.md` and `answer.png` from these tables: a line a task, a claim a column.
"""

from __future__ import annotations

import argparse
import lzma
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from PIL import Image

from bench.registry import task_class
from bench.report import build
from bench.report.answers import lengths, studies
from bench.report.answers.reference import LOSS, Yardstick
from bench.report.answers.stats import holm
from bench.report.appearance import EDGE, PALETTE, hollow
from bench.report.figures import saved
from bench.report.figures.look import DOUBLE, STYLE, gap_axis, legend_above, note, plain_ticks
from bench.report.load import Run, load_results
from bench.report.text import estimate
from bench.task import Measure

# Of a report's files: tables to read and to count from; of the predeclared tests the figures, too.
KEPT = re.compile(
    r"(overall|reference|versus|claims|study|savings|quality)\.(csv|md)"
    r"|slopes\.csv|front_bpp_psnr\.png"
)
STUDIED = re.compile(r"(gap_width|gap_range|scaling)\.png")
KEY = ["method", "seed", "setting", "measure"]
PAIRS = {  # the two predeclared tests: the network told its coefficients, against which grid
    "published": ("yoto", ""),
    "tuned": ("yoto_tuned", "_tuned"),
}
PLANNED = 8  # tests over which Holm's correction is made, also while some are not run
SHARES = {
    "": ["share_mean", "share_low", "share_high"],
    "_tuned": ["share_tuned", "share_tuned_low", "share_tuned_high"],
}
TASKS = ("quadratic", "quantiles", "digits", "registration")
HEADS = {
    "published": "as published, against the grid",
    "tuned": "both tuned",
    "small": "small networks lose",
    "shrinks": "the loss shrinks with width, to none",
    "cheaper": "cheaper at the same loss",
    "covers": "the knob covers the range",
    "several": "holds for several coefficients",
}
NOTE = [
    "across: width of the model, × the plain one's",
    "0: one network per setting, 100: the middle one everywhere",
    "bands: 95 % intervals over seeds and examples; shaded: what counts as equal",
    "hollow: not known to be trained out, the grid or the network",
]


# What is committed ------------------------------------------------------------------------------


def keep(results: Path, preset: str, folder: Path) -> None:
    """The family of runs whose plain one has this preset, in a folder that is emptied before."""
    homes = [run for run in load_results(results).runs if studies.home(run) is run]
    (run,) = [run for run in homes if run.preset == preset]
    primary = folder.name in TASKS
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as place:
        build(results, out=Path(place), only={run.key})
        for path in sorted((Path(place) / run.folder).iterdir()):
            content = path.read_bytes()
            empty = path.suffix == ".csv" and content.count(b"\n") < 2
            kept = KEPT.fullmatch(path.name) or (primary and STUDIED.fullmatch(path.name))
            if kept and not empty:
                (folder / path.name).write_bytes(content)
                if path.suffix == ".png":
                    _fewer_colours(folder / path.name)
    _write(pd.concat(map(_means, run.family or [run])), folder / "means.csv.xz", "%.7g")
    if primary:
        _write(_losses(run), folder / "losses.csv.xz", "%.6g")
    halved = [
        lengths.trained_out(each).assign(
            size=each.preset, width=each.study.width if each.study else 1.0
        )
        for each in run.family or [run]
    ]
    moved = pd.concat(halved)
    if primary or len(moved):  # the answer says of each of its tasks what is not known
        moved.to_csv(folder / "trained_out.csv", index=False)


def _write(frame: pd.DataFrame, path: Path, digits: str) -> None:
    text = frame.to_csv(index=False, float_format=digits).encode()
    path.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def _fewer_colours(path: Path) -> None:
    """A third of the bytes, with no difference that one sees in a figure."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def _means(run: Run) -> pd.DataFrame:
    """One row per network, setting and measure: the mean over so many examples, from which cells
    of which commit. share: of the training's steps. Known curves, as JPEG's, have no seed and no
    cells."""
    points = run.context.groupby(["method", "setting", "measure"], sort=False)["value"]
    known = points.agg(mean="mean", examples="size").reset_index()
    parts = [known.assign(share=1.0, cells="", commit="")]
    frames = ((run.measured, run.records), (run.lengths, run.length_records))
    for measured, records in frames:
        heads = measured.assign(
            cells=[";".join(cells) for cells in measured["cells"]],
            commit=[origin.get("commit", "") for origin in measured["provenance"]],
        )[["entry", "share", "cells", "commit"]]
        rows = records.merge(heads, on="entry")
        grouped = rows.groupby([*KEY, "share", "cells", "commit"], sort=False)["value"]
        parts.append(grouped.agg(mean="mean", examples="size").reset_index())
    means = pd.concat([part for part in parts if len(part)])
    means = means.sort_values(["share", *KEY], kind="stable").astype({"seed": "Int64"})
    means.insert(0, "size", run.preset)
    return means[["size", "share", *KEY, "mean", "examples", "cells", "commit"]]


def _losses(run: Run) -> pd.DataFrame:
    """One row per method, seed and setting with the loss of every example: of both grids their own
    networks, the harder of these and the best of the grid ("hard"), which is what others are
    measured by, and their middle network; and the networks under test."""
    plain, tuned = Yardstick.of(run), Yardstick.tuned(run)
    assert plain is not None
    tables: dict[str, np.ndarray] = {}
    for yard in filter(None, (plain, tuned)):
        parts = {"": yard.trained, " hard": yard.hard, " middle": yard.single}
        tables |= {f"{yard.reference}{part}": values for part, values in parts.items()}
    tables |= {name: plain.losses(name) for name, _ in PAIRS.values() if name in run.methods}
    settings, seeds, examples = plain.axes
    index = pd.MultiIndex.from_product([settings, seeds], names=["setting", "seed"])
    frames = [
        pd.DataFrame(values.reshape(len(index), len(examples)), index, examples).assign(method=name)
        for name, values in tables.items()
    ]
    return pd.concat(frames).set_index("method", append=True).reset_index()


# The answer -------------------------------------------------------------------------------------


def answers(folder: Path) -> pd.DataFrame:
    """One row per task and claim: its answer, the numbers, the seeds, the table it is from.
    stands: after Holm's correction, of the predeclared tests over all of them, of a claim over its
    own table."""
    rows = [row for task in TASKS if (folder / task).is_dir() for row in _rows(folder / task)]
    frame = pd.DataFrame(rows)
    told = frame["answer"].isin(["equal", "better", "worse"])
    planned = [*frame["doubt"], *[1.0] * (PLANNED - frame["doubt"].notna().sum())]
    stands = (holm(planned)[: len(frame)] & told) | frame["held"].eq(True)
    return frame.drop(columns="held").assign(stands=stands)


def _rows(task: Path) -> Iterator[dict[str, Any]]:
    overall = pd.read_csv(task / "overall.csv").set_index("method")
    for claim, (method, against) in PAIRS.items():
        if method not in overall.index or pd.isna(overall.at[method, f"verdict{against}"]):
            continue  # not measured
        row = overall.loc[method]
        share = [100 * row[name] for name in SHARES[against]]
        yield {
            "task": task.name, "claim": claim, "answer": row[f"verdict{against}"],
            "doubt": row[f"doubt{against}"], "seeds": row["seeds"],
            "numbers": estimate(share[0], share[1:], 1) + " %",
            "loss": _loss_gap(task.name, row, against), "table": "overall.md",
        }  # fmt: skip
    published = PAIRS["published"][0]
    said = (
        pd.read_csv(task / "claims.csv", keep_default_na=False).set_index("method").loc[published]
    )
    for row in said.to_dict("records"):
        yield {
            "task": task.name, "claim": row["claim"], "answer": row["answer"],
            "numbers": (row["numbers"] or row["needs"]).removeprefix("'"), "table": "claims.md",
            "held": row["stands"],
        }  # fmt: skip
    halved = pd.read_csv(task / "trained_out.csv")
    halved = halved[(halved["size"] == "trained") & halved["trained_out"].notna()]
    for method, rows in halved.groupby("method"):
        out, shown, of = int(rows["trained_out"].sum()), int(rows["shown"].sum()), len(rows)
        yield {
            "task": task.name, "claim": f"trained out: {method}",
            "answer": "yes" if out == of else "no", "table": "trained_out.csv",
            "numbers": f"{out} of {of} settings, {shown} with the whole interval",
        }  # fmt: skip


def _loss_gap(task: str, row: pd.Series, against: str) -> str:
    """Mean over settings, to the same grid: in per cent, or in the loss's unit."""
    names = ("loss_gap_mean", "loss_gap_low", "loss_gap_high")
    if against:
        names = ("loss_gap_tuned", "loss_gap_tuned_low", "loss_gap_tuned_high")
    gap, *ends = (row[name] for name in names)
    loss: Measure = getattr(task_class(task), LOSS)
    digits, unit = (1, "%") if row["percent"] else (loss.digits, loss.unit)
    return f"{estimate(gap, ends, digits, sign=True)} {unit}"


def table(frame: pd.DataFrame) -> str:
    """A line a task, a claim a column, as the README has it: each cell a link to its table."""
    lines = [["", *HEADS.values()], ["---"] * (1 + len(HEADS))]
    for task, rows in frame.groupby("task", sort=False):
        at = rows.set_index("claim", drop=False)
        cells = [_cell(at.loc[claim]) if claim in at.index else "" for claim in HEADS]
        lines.append([f"`{task}`", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(row: pd.Series) -> str:
    words = row["answer"]
    if row["claim"] in PAIRS:
        words += f" {row['numbers']}; loss {row['loss']}; n = {row['seeds']:.0f}"
    if not row["stands"] and row["answer"] not in ("undecided", "not asked"):
        words += " °"
    return f"[{words}]({row['task']}/{row['table']})"


def figure(folder: Path) -> Figure:
    """The share of the benefit lost against the width, a line a task, with 95 % bands: of the
    network as published against the plain grid, and of the tuned one against the tuned grid."""
    drawn = Figure(figsize=(DOUBLE, 2.6), layout="constrained")
    panels = drawn.subplots(1, 2, sharex=True, sharey=True)
    marks = [
        EDGE | look
        for look in ({"color": c, "marker": m} for c, m in zip(PALETTE, "sod^", strict=False))
    ]
    handles, reached, remarks = [], [], list(NOTE)
    silent: dict[str, list[str]] = {name: [] for name in PAIRS}
    for task, mark in zip(TASKS, marks, strict=False):
        if not (folder / task).is_dir():
            continue
        rows = _widths(folder / task)
        if _untuned(rows):
            pairs = [("verdict", "verdict_tuned"), *zip(*SHARES.values(), strict=True)]
            rows = rows.assign(**{tuned: rows[plain] for plain, tuned in pairs})
            remarks.append(f"the tuned grid of {task} is the plain one")
        for axes, (claim, (method, against)) in zip(panels, PAIRS.items(), strict=True):
            at = rows[rows["method"] == method].sort_values("width")
            none = at[f"verdict{against}"].astype(str).str.startswith("no verdict")
            silent[claim] += [f"{task} at {width:g}×" for width in at.loc[none, "width"]]
            at = at[~none]
            middle, low, high = (100 * at[name].astype(float) for name in SHARES[against])
            axes.plot(at["width"], middle, **mark)
            axes.fill_between(at["width"], low, high, color=mark["color"], alpha=0.2, linewidth=0)
            if middle.notna().sum() == 1:  # a band of no width
                axes.vlines(at["width"], low, high, color=mark["color"], alpha=0.3, linewidth=4)
            over = [_trained_out(folder / task, width, method, against) for width in at["width"]]
            still = ~np.array(over, bool)
            axes.plot(at["width"][still], middle[still], **hollow(mark | {"zorder": 5}))
            reached += [*middle, *low, *high]
        handles.append(Line2D([], [], **mark, label=task))
    titles = ("as published, against the plain grid", "tuned, against the tuned grid")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_xscale("log", base=2)
        axes.set_title(title, loc="left")
        gap_axis(axes, reached, 10)
        plain_ticks(axes.xaxis, FixedLocator([2.0**k for k in range(-4, 3)]))
        sns.despine(ax=axes)
    panels[0].set_ylabel("benefit lost (%)")
    legend_above(drawn, handles)
    sides = [
        f"{', '.join(places)} ({side})"
        for side, places in zip(("left", "right"), silent.values(), strict=True)
        if places
    ]
    if sides:
        remarks.append(f"without a verdict and left out: {'; '.join(sides)}")
    note(drawn, remarks, DOUBLE)
    return drawn


def _trained_out(task: Path, width: float, method: str, against: str) -> bool:
    """Whether halving moves neither the network nor its grid at any setting that has a benefit."""
    halved = pd.read_csv(task / "trained_out.csv")
    grid = f"fixed_grid{against}"
    grid = grid if grid in set(halved["method"]) else "fixed_grid"  # no better one was found
    at = halved[(halved["width"] == width) & halved["method"].isin([method, grid])]
    known = at["trained_out"].dropna()
    return len(known) > 0 and bool(known.eq(1).all())


def _widths(task: Path) -> pd.DataFrame:
    """The rows of a study at the plain task's other factors, the most frequent range among them."""
    study = pd.read_csv(task / "study.csv")
    usual = study["range"].mode()[0]
    return study[(study["share"] == 1) & (study["coefficients"] == 1) & (study["range"] == usual)]


def _untuned(at: pd.DataFrame) -> bool:
    """Whether a search found no better grid than the plain one: wherever it was measured, the tuned
    grid gives every method the same share."""
    known = at[at["share_tuned"].notna() & at["share_mean"].notna()]
    return len(known) > 0 and np.allclose(known["share_tuned"], known["share_mean"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    kept = commands.add_parser("keep")
    kept.add_argument("results", type=Path)
    kept.add_argument("preset")
    kept.add_argument("folder", type=Path)
    commands.add_parser("answer").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "keep":
        keep(given.results, given.preset, given.folder)
        return
    found = answers(given.folder)
    found.to_csv(given.folder / "answer.csv", index=False)
    (given.folder / "answer.md").write_text(table(found))
    with style.context(["default", sns.axes_style("ticks"), STYLE]):
        (given.folder / "answer.png").write_bytes(saved(figure(given.folder))["png"])
    _fewer_colours(given.folder / "answer.png")


if __name__ == "__main__":
    main()

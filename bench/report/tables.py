"""Tables as they are read: the answers of a run as text, for Markdown, LaTeX and the terminal.

Each `*_sheet` makes a `Sheet` of text cells from a frame of `bench/report/compare.py` or
`costs.py`; the frames themselves are the CSV.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from bench.report.compare import LOST, entries_of, measures_of
from bench.report.costs import ALL, GRID, tuned_grid
from bench.report.load import Run
from bench.report.reference import LOSS, in_percent, setting_words
from bench.report.stats import ENOUGH_SEEDS
from bench.report.text import (
    NOTHING,
    estimate,
    latex_table,
    markdown_table,
    measure_label,
    method_label,
    number,
    one_line,
    ratio,
    short,
)
from bench.report.verdict import FAILS, MIXED, MOST_SEEDS, NO_BENEFIT, ORIENTATION
from bench.run.records import WHOLE

SIGN = " §"  # of a setting at which the reference fails
FLOOR = "single_model"

SIGN = " §"  # of a setting at which the reference fails


class Sheet(NamedTuple):
    """A table as it is read: text cells, of which the first `left` columns are names.

    groups: the number of rows per method. best: the (row, column) of every cell that no other in
    its column (at the same setting, where the rows are settings) beats.
    """

    head: list[str]
    rows: list[list[str]]
    left: int
    groups: list[int]
    best: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        return markdown_table(self.head, self.rows, self.left, self.best)

    def latex(self) -> str:
        return latex_table(self.head, self.rows, self.left, self.best, self.groups)


def _best(better: str, candidates: Sequence[tuple[int, float, str]]) -> set[int]:
    """The rows, of (row, value, text), that read like the best value; none where all do."""
    there = [c for c in candidates if math.isfinite(c[1])]
    if not better or len({text for _, _, text in there}) < 2:
        return set()
    _, _, best = (min if better == "lower" else max)(there, key=lambda c: c[1])
    return {row for row, _, text in there if text == best}


# One row per method -----------------------------------------------------------------------------


class Column(NamedTuple):
    head: str
    text: Callable[[dict[str, Any]], str]
    value: str = ""  # the column of the frame that is compared
    better: str = ""


def overall_sheet(run: Run, frame: pd.DataFrame, *, narrow: bool = False) -> Sheet:
    """What is lost and what is saved; `narrow` leaves out what a terminal has no room for."""
    title, digits = gap_title(run)
    labels = setting_labels(run)
    where = "" if narrow else f" (at {setting_head(run)})"

    def at(setting: str) -> str:
        return "" if narrow or not setting else f" ({labels[setting]})"

    def share(row: dict[str, Any]) -> str:
        if row["method"] == GRID:
            return "ref."
        ends = [100 * row[f"share_{part}"] for part in ("mean", "low", "high")]
        return estimate(ends[0], ends[1:], 0)

    def worst_share(row: dict[str, Any]) -> str:
        return number(100 * row["share_worst"], 0) + at(row["share_worst_setting"])

    def gap(row: dict[str, Any]) -> str:
        if row["method"] == GRID:
            return "ref."
        ends = (row["loss_gap_low"], row["loss_gap_high"])
        return estimate(row["loss_gap_mean"], ends, digits, sign=True)

    def worst_gap(row: dict[str, Any]) -> str:
        if row["method"] == GRID:
            return "ref."
        return estimate(row["loss_gap_worst"], (), digits, sign=True) + at(row["worst_setting"])

    def averaged(row: dict[str, Any]) -> str:
        return f"{row['share_settings']}, {row['gap_settings']}" if row["gap_settings"] else NOTHING

    columns = [
        Column("benefit lost (%)", share, "share_mean", "lower"),
        Column(f"worst{where}", worst_share, "share_worst", "lower"),
        Column("verdict", _overall_verdict),
    ]
    if not narrow:
        columns += [
            Column(title, gap),  # signed gaps may cancel: the smallest mean is not the best
            Column(f"worst{where}", worst_gap, "loss_gap_worst", "lower"),
            Column("settings in the means", averaged),
            Column("power", _number("power", 2)),
            Column("seeds to settle", _to_settle),
        ]
    columns += [
        Column("BD-rate (%)", _number("bd_rate", 1, sign=True), "bd_rate", "lower"),
        *([] if narrow else [Column("overlap", _overlap)]),
        Column("FLOPs", _ratio("flops_ratio"), "flops_ratio", "lower"),
    ]
    if not narrow:
        columns += [
            Column("time", _ratio("seconds_ratio"), "seconds_ratio", "lower"),
            Column("stored", _ratio("bytes_ratio"), "bytes_ratio", "lower"),
            Column("FLOPs / warm grid", _ratio("against_warm"), "against_warm", "lower"),
            Column("FLOPs / cheapest equal", _ratio("against_peer"), "against_peer", "lower"),
        ]
    columns.append(Column("pays from", _number("break_even", 0), "break_even", "lower"))
    if not narrow:
        columns.append(Column("seeds", lambda row: str(_seeds(run, row["method"]))))
    return _by_method(frame, columns)


def knob_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """The front, whatever the coefficients, and how well the coefficients steer."""
    title, digits = gap_title(run)
    quality = f"BD-{measure_label(run.measures[run.fronts[0][1]])}" if run.fronts else ""
    columns = [
        Column("BD-rate (%)", _with_ends("bd_rate", "bd", 1, sign=True), "bd_rate", "lower"),
        *(
            Column(f"{part} third", _number(f"bd_{part}", 1, sign=True), f"bd_{part}", "lower")
            for part in ("low", "mid", "high")
        ),
        Column("sees of the grid's range", _seen),
        Column(quality, _number("bd_quality", 2, sign=True), "bd_quality", "higher"),
        Column(
            "hypervolume",
            _with_ends("hypervolume_ratio", "hypervolume", 3),
            "hypervolume_ratio",
            "higher",
        ),
        Column("IGD+", _number("igd_plus", 3), "igd_plus", "lower"),
        Column("coverage", _number("coverage", 2), "coverage", "higher"),
        Column("monotonicity", _number("monotonicity", 2), "monotonicity", "higher"),
        Column("calibration", _with_ends("calibration", "calibration", 3), "calibration", "lower"),
        Column("diagonal", _number("diagonal", 2), "diagonal", "higher"),
        Column(title.replace("loss gap", "held out"), _number("held_out", digits, sign=True)),
        Column("over its estimate (%)", _number("overhead", 1, sign=True), "overhead", "lower"),
    ]
    return _by_method(frame, columns)


def _by_method(frame: pd.DataFrame, columns: Sequence[Column]) -> Sheet:
    """One row per method; a column with nothing in it is left out, and only rows with a verdict are
    candidates for the best."""
    rows = frame.to_dict("records")
    texts = [
        [column.text(row) if row["status"] != "failed" else "failed" for row in rows]
        for column in columns
    ]
    kept = [i for i, text in enumerate(texts) if {*text} - {NOTHING, "failed"}]
    best = {
        (row, place)
        for place, i in enumerate(kept, 1)
        if columns[i].value
        for row in _best(
            columns[i].better,
            [
                (n, row[columns[i].value], texts[i][n])
                for n, row in enumerate(rows)
                if _may_stand_out(row["method"], row["verdict"])
            ],
        )
    }
    marks = {"partly failed": " ‡"}
    names = [method_label(row["method"]) + marks.get(row["status"], "") for row in rows]
    cells = [[name, *(texts[i][n] for i in kept)] for n, name in enumerate(names)]
    head = ["method", *(columns[i].head for i in kept)]
    return Sheet(head, cells, 1, [len(cells)], frozenset(best))


def _may_stand_out(method: str, verdict: str) -> bool:
    """Whether a row may be bold: where nothing is said of it, the type says nothing either, and the
    floor is there to be measured by."""
    decided = verdict in ("better", "equal", "worse", "undecided", MIXED)
    return decided and method not in (GRID, FLOOR)


def _overall_verdict(row: dict[str, Any]) -> str:
    """Short enough for a column: the sentence and the notes say the rest."""
    verdict = row["verdict"]
    if verdict.startswith(FAILS):
        return f"no verdict{SIGN}"
    if verdict == NO_BENEFIT:
        return "no benefit"
    if verdict in ORIENTATION.values():
        return "orientation"
    return _marked(verdict, row["stands"]) or NOTHING


def _marked(verdict: str, stands: bool) -> str:
    """A claim that does not survive Holm's correction over its table has a small circle."""
    return verdict if stands or verdict in ("", "undecided", MIXED) else f"{verdict} °"


def _to_settle(row: dict[str, Any]) -> str:
    """How many seeds would settle what is undecided."""
    return (
        f"over {MOST_SEEDS}" if row["seeds_needed"] == math.inf else number(row["seeds_needed"], 0)
    )


def _with_ends(
    name: str, ends: str, digits: int, *, sign: bool = False
) -> Callable[[dict[str, Any]], str]:
    return lambda row: estimate(
        row[name], (row[f"{ends}_ci_low"], row[f"{ends}_ci_high"]), digits, sign=sign
    )


def _overlap(row: dict[str, Any]) -> str:
    """The share of the grid's range of quality that a BD-rate rests on."""
    there = math.isfinite(row["bd_rate"]) and row["method"] != GRID
    return number(row["bd_overlap"], 2) if there else NOTHING


def _seen(row: dict[str, Any]) -> str:
    """`24.0 to 33.5 of 23.1 to 36.2`: the range of quality that a BD-rate rests on."""
    if not math.isfinite(row["bd_seen_low"]) or row["method"] == GRID:
        return NOTHING
    low, high, first, last = (
        number(row[name], 1) for name in ("bd_seen_low", "bd_seen_high", "bd_of_low", "bd_of_high")
    )
    return f"{low} to {high} of {first} to {last}"


def _number(name: str, digits: int, *, sign: bool = False) -> Callable[[dict[str, Any]], str]:
    return lambda row: number(row[name], digits, sign=sign)


def _ratio(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: ratio(row[name])


def _seeds(run: Run, method: str) -> int:
    of_method = run.measured[run.measured["method"] == method]
    return int(of_method.loc[~of_method["status"].isin(LOST), "seed"].nunique())


# One row per method and setting -----------------------------------------------------------------


def summary_sheet(
    run: Run,
    frame: pd.DataFrame,
    measures: Sequence[str],
    compared: pd.DataFrame | None = None,
) -> Sheet:
    """`measures` per method and setting, ± the standard deviation over seeds where there are two
    or more; with `compared`, the gap of the loss behind them and no deviations."""
    labels = setting_labels(run)
    silent = set(run.yardstick.failing if run.yardstick else ())  # where no row stands out
    if len(run.seeds) < ENOUGH_SEEDS:
        silent = set(run.settings)
    head = ["method", setting_head(run), *(measure_label(run.measures[m]) for m in measures)]
    gaps: dict[Any, float] = {}
    if compared is not None:
        title, digits = gap_title(run)
        head.append(title)
        of_loss = compared[compared["measure"] == LOSS]
        gaps = of_loss.set_index(["method", "setting"])["gap"].to_dict()
    rows: list[list[str]] = []
    groups, candidates = [], []
    for method in run.methods:
        of_method = frame[frame["method"] == method]
        groups.append(len(of_method))
        for place, row in enumerate(of_method.to_dict("records")):
            gone = row["status"] in LOST
            mark = " ‡" if row["status"] == "some lost" else ""
            cells = [method_label(method) if not place else "", labels[row["setting"]] + mark]
            for measure in measures:
                digits_here = run.measures[measure].digits
                text = number(row[measure], digits_here)
                if row["setting"] not in silent and method != FLOOR:
                    candidates.append((row["setting"], measure, len(rows), row[measure], text))
                spread = number(row[f"{measure}_sd"], digits_here)
                if row.get(f"{measure}_infinite", 0):
                    text += f" ({row[f'{measure}_infinite']} ∞)"
                if compared is None and spread != NOTHING:
                    text += f" ± {spread}"
                cells.append(row["status"] if gone else text)
            if compared is not None:
                gap = number(gaps.get((method, row["setting"])), digits, sign=True)
                cells.append("ref." if method == GRID else gap)
            rows.append(cells)
    best = _best_of_settings(run, candidates, list(measures), 2)
    return Sheet(head, rows, 2, groups, best)


def gaps_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Δ of every measure, its 95 % interval, and the verdict on the loss."""
    labels = setting_labels(run)
    names = measures_of(run)
    lost = {
        (method, setting): entries["status"].iloc[0]
        for method, setting, entries in entries_of(run)
        if entries["status"].isin(LOST).all()
    }
    head = ["method", setting_head(run)]
    for name in names:
        style = run.measures[name]
        shown = dataclasses.replace(style, unit="%") if in_percent(style) else style
        head.append("Δ " + measure_label(shown))
    # Of the loss, which comes first.
    head[3:3] = ["Δ best of grid", "benefit lost (%)", "verdict"]
    rows: list[list[str]] = []
    groups, candidates = [], []
    for method in (m for m in run.methods if m != GRID):
        of_method = frame[frame["method"] == method]
        settings = [s for s in run.settings if (of_method["setting"] == s).any()]
        groups.append(len(settings))
        for place, setting in enumerate(settings):
            at = of_method[of_method["setting"] == setting].set_index("measure")
            cells = [method_label(method) if not place else "", labels[setting]]
            for name in names:
                row, style = at.loc[name], run.measures[name]
                digits = 1 if row["percent"] else style.digits
                text = number(row["gap"], digits, sign=True)
                size = abs(row["gap"]) if not style.better else row["gap"]
                if _may_stand_out(method, at.at[LOSS, "verdict"]):
                    candidates.append((setting, name, len(rows), size, text))
                gap = estimate(row["gap"], (row["low"], row["high"]), digits, sign=True)
                cells.append(lost.get((method, setting), gap))
            cells[3:3] = _of_the_loss(at.loc[LOSS], 1 if in_percent(run.measures[LOSS]) else 3)
            rows.append([*cells, str(at["pairs"].max())])
    best = _best_of_settings(run, candidates, [names[0], "", "", "", *names[1:]], 2)
    return Sheet([*head, "pairs"], rows, 2, groups, best)


def _of_the_loss(row: pd.Series, digits: int) -> list[str]:
    """The gap to the best of the grid, the share of the benefit lost, and the verdict."""
    ends = (row["gap_best_low"], row["gap_best_high"])
    share = [100 * row[name] for name in ("share", "share_low", "share_high")]
    verdict = "is the ref." if row["is_reference"] else _marked(row["verdict"], row["stands"])
    return [
        estimate(row["gap_best"], ends, digits, sign=True),
        estimate(share[0], share[1:], 0),
        verdict or NOTHING,
    ]


def _best_of_settings(
    run: Run,
    candidates: Sequence[tuple[str, str, int, float, str]],
    measures: Sequence[str],
    first: int,
) -> frozenset[tuple[int, int]]:
    """The best cells at each setting, of (setting, measure, row, value, text); column `first`
    holds the first of `measures`."""
    found: dict[tuple[str, str], list[tuple[int, float, str]]] = {}
    for setting, measure, *rest in candidates:
        found.setdefault((setting, measure), []).append(tuple(rest))  # type: ignore[arg-type]
    return frozenset(
        (row, first + measures.index(measure))
        for (_, measure), cells in found.items()
        for row in _best(run.measures[measure].better, cells)
    )


def reference_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Per setting: what its own network loses there against the best of the grid."""
    labels, style = setting_labels(run), run.measures[LOSS]
    title, digits = gap_title(run)
    unit = title.removeprefix("loss gap").strip()
    rows = []
    for row in frame.to_dict("records"):
        own = row["rival"] == row["setting"]
        ends = (row["low"], row["high"])
        rows.append(
            [
                labels[row["setting"]],
                number(row["own"], style.digits),
                "its own" if own else labels[row["rival"]],
                NOTHING if own else number(row["rival_loss"], style.digits),
                NOTHING if own else estimate(row["lost"], ends, digits, sign=True),
                number(row["benefit"], style.digits),
                number(row["margin"], digits),
                "fails" if row["fails"] else "holds",
            ]
        )
    head = [setting_head(run), measure_label(style), "best network", "its loss", f"lost {unit}"]
    head += ["benefit", f"margin {unit}", "reference"]
    return Sheet([each.strip() for each in head], rows, 1, [len(rows)])


def versus_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Pairs of methods: the paired difference, and whether it tells them apart."""
    title, digits = gap_title(run)
    unit = title.removeprefix("loss gap").strip()
    rows, groups = [], []
    for method, part in frame.groupby("method", sort=False):
        groups.append(len(part))
        for place, row in enumerate(part.to_dict("records")):
            ends = (row["low"], row["high"])
            apart = ("better" if row["high"] < 0 else "worse") if row["apart"] else "not told apart"
            rows.append(
                [
                    method_label(str(method)) if not place else "",
                    method_label(row["other"]),
                    estimate(row["difference"], ends, digits, sign=True),
                    str(row["settings"]),
                    apart,
                ]
            )
    return Sheet(["method", "less", f"Δ loss {unit}".strip(), "settings", ""], rows, 2, groups)


# At what cost -----------------------------------------------------------------------------------

_COST_HEADS = {
    "networks": ("networks", ""),
    "steps": ("steps", ""),
    "examples": ("examples", ""),
    "flops": ("FLOPs", ""),
    "seconds": ("train time", "s"),
    "parameters": ("parameters", ""),
    "bytes": ("stored", "B"),
}


def savings_sheet(frame: pd.DataFrame) -> Sheet:
    """Amount and ratio per cost, with peak memory and device: the Markdown table."""
    heads = _cost_heads(frame)
    head = ["method", *(label for label, _ in heads.values()), "net memory", "device"]
    rows = []
    for row in frame.to_dict("records"):
        cells = [_cost_label(row["method"])]
        for name, (_, unit) in heads.items():
            amount, share = short(row[name], unit), ratio(row[f"{name}_ratio"])
            cells.append(amount if share == NOTHING else f"{amount} ({share})")
        rows.append([*cells, short(row["net_memory_bytes"], "B"), row["device"] or NOTHING])
    return Sheet(head, rows, 1, [len(rows) - 1, 1])


def ratios_sheet(frame: pd.DataFrame) -> Sheet:
    """The grid in absolute numbers and everything else as a ratio to it: the terminal's table."""
    heads = _cost_heads(frame)
    head = ["method", *(label for label, _ in heads.values())]
    rows = []
    for row in frame.to_dict("records"):
        amounts = [short(row[name], unit) for name, (_, unit) in heads.items()]
        ratios = [ratio(row[f"{name}_ratio"]) for name in heads]
        absolute = row["method"] == GRID or all(r == NOTHING for r in ratios)
        rows.append([_cost_label(row["method"]), *(amounts if absolute else ratios)])
    return Sheet(head, rows, 1, [len(rows) - 1, 1])


def _cost_heads(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The columns with their labels and units; the time is the processor's where that is known."""
    if frame["processor_seconds"].isna().all():
        return _COST_HEADS
    timed = {"seconds": ("processor_seconds", ("processor time", "s"))}
    return dict(timed.get(name, (name, head)) for name, head in _COST_HEADS.items())


def _cost_label(method: str) -> str:
    return method if method == ALL else method_label(method)


def quality_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """The loss gap of networks trained for each share of the steps, of the methods that were."""
    title, digits = gap_title(run)
    rows, groups = [], []
    for method, part in frame.groupby("method", sort=False):
        if len(part) < 2:
            continue
        groups.append(len(part))
        for place, row in enumerate(part.to_dict("records")):
            gap = estimate(row["loss_gap"], (row["low"], row["high"]), digits, sign=True)
            name = method_label(method) if not place else ""
            rows.append([name, f"{row['share']:g}", short(row["flops"]), gap])
    return Sheet(["method", "share of the steps", "FLOPs", title], rows, 2, groups)


def break_even_sheet(frame: pd.DataFrame) -> Sheet:
    """From how many settings on a method is cheaper than the grid, with its 95 % interval."""
    units = {"examples": "examples", "flops": "FLOPs", "seconds": "train time"}
    if (frame["unit"].eq("processor_seconds") & frame["settings"].notna()).any():
        units["processor_seconds"] = "processor time"
    tuned = frame["settings_tuned"].notna().any()
    rows = []
    for method, part in frame.groupby("method", sort=False):
        of = part.set_index("unit")
        cells = []
        for unit in units:
            row = of.loc[unit]
            cells.append(estimate(row["settings"], (row["earliest"], row["latest"]), 0))
        if tuned:
            cells.append(number(of.at["flops", "settings_tuned"], 0))
        rows.append([method_label(method), *cells])
    more = ["FLOPs, tuning counted"] if tuned else []
    return Sheet(["method", *units.values(), *more], rows, 1, [len(rows)])


# Shared -------------------------------------------------------------------------------------------


def main_measures(run: Run) -> list[str]:
    """The few that a narrow table or figure shows: those of the fronts, else the first three."""
    fronts = dict.fromkeys(name for pair in run.fronts for name in pair)
    return list(fronts)[:4] or [name for name in run.measures if name != LOSS][:3]


def gap_title(run: Run) -> tuple[str, int]:
    """How gaps of the loss are called, with their unit, and their digits."""
    style = run.measures[LOSS]
    if in_percent(style):
        return "loss gap (%)", 1
    unit = f" ({one_line(style.unit)})" if style.unit else ""
    return f"loss gap{unit}", style.digits


def empty_measures(run: Run) -> list[str]:
    """Measures that were named but never taken."""
    found = set(run.records["measure"])
    return [name for name in run.measures if name not in found]


def setting_head(run: Run) -> str:
    return one_line(run.axes[0].symbol) if len(run.axes) == 1 else "setting"


def setting_labels(run: Run) -> dict[str, str]:
    """Short names of the settings; one outside the training range carries a dagger, one at which
    the reference fails a section sign."""
    outside = set(run.measured.loc[run.measured["outside"].map(len) > 0, "setting"])
    marks = dict.fromkeys(outside, " †")
    for setting in run.yardstick.failing if run.yardstick else ():
        marks[setting] = marks.get(setting, "") + SIGN
    return {s: label + marks.get(s, "") for s, label in run.labels().items()}


def origin(run: Run) -> dict[str, list[str]]:
    """With what the numbers were made: every differing value, as one line each."""
    sources = [*run.measured["provenance"], *run.cells["provenance"]]

    def every(name: str) -> list[str]:
        return list(dict.fromkeys(one_line(s[name]) for s in sources if s.get(name)))

    packages: dict[str, set[str]] = {}
    for source in sources:
        for name, version in source.get("packages", {}).items():
            packages.setdefault(name, set()).add(str(version))
    devices = run.cells["device_name"].dropna()
    return {
        "commit": every("commit"),
        "trained on": sorted({one_line(name) for name in devices}),
        "platform": every("platform"),
        "seeds": [str(seed) for seed in run.seeds],
        "packages": [f"{n} {' and '.join(sorted(found))}" for n, found in sorted(packages.items())],
        "experiment": [run.experiment],
        "command": every("command"),
    }


def size_line(run: Run) -> str:
    """`4 methods, 5 settings, 1 seed, 6 pictures`."""
    counts = [len(run.methods), len(run.settings), len(run.seeds)]
    counts.append(examples(run))
    names = ("method", "setting", "seed", "example")
    return ", ".join(
        f"{n} {name}{'' if n == 1 else 's'}" for n, name in zip(counts, names, strict=True)
    )


def examples(run: Run) -> int:
    """How many test examples were measured."""
    return int(run.records.loc[run.records["example"] != WHOLE, "example"].nunique())


def notes(run: Run, gaps: pd.DataFrame, overall: pd.DataFrame, saving: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the tables, one sentence each; plain text."""
    count = examples(run)
    found = [
        f"{one_line(name)} = {value:g} at every setting." for name, value in run.constant.items()
    ]
    if len(run.seeds) == 1:
        found.append(
            f"One seed, {count} examples: intervals are over examples only (BCa), and nothing "
            "here says how much another seed would change."
        )
    elif len(run.seeds) < ENOUGH_SEEDS:
        found.append(
            f"{len(run.seeds)} seeds, {count} examples: means are over both, intervals over "
            "examples only (BCa, the seeds averaged), for so few seeds say little of the next."
        )
    else:
        found.append(
            f"{len(run.seeds)} seeds, {count} examples: means and intervals are over both "
            "(hierarchical bootstrap)."
        )
    if (splits := set(run.measured["split"])) != {"test"}:
        found.append(f"Measured on the {' and '.join(sorted(splits))} split: to choose by only.")
    uneven = run.measured.groupby(["method", "setting"])["seed"].nunique()
    if uneven.nunique() > 1:
        found.append("Not every method has every seed yet: the seeds are unequal in number.")
    found += [
        f"{one_line(run.measures[name].label)} was not measured (for want of its weights, or "
        "because the run is unfinished): its column is empty."
        for name in empty_measures(run)
    ]
    outside = sorted({s for sentences in run.measured["outside"] for s in sentences})
    if outside:
        found.append("† outside the range of coefficients trained for: " + "; ".join(outside) + ".")
    lost = run.measured[run.measured["status"].isin(LOST)]
    for (method, status, why), rows in lost.groupby(["method", "status", "reason"]):
        places = []
        for setting, entries in rows.groupby("setting"):
            seeds = ", ".join(str(seed) for seed in sorted(entries["seed"]))
            places.append(f"{one_line(setting)} (seed {seeds})")
        measured = run.measured[run.measured["method"] == method]
        some = (~measured["status"].isin(LOST) & measured["setting"].isin(rows["setting"])).any()
        found.append(
            f"{'‡ ' if some else ''}{status.capitalize()}: {method_label(method)} at "
            + ", ".join(places)
            + (f": {one_line(why)}" if why else "")
            + ("; the numbers are the other seeds'." if some else ".")
        )
    if GRID not in run.methods:
        found.append("There is no fixed grid in this run: no gaps and no ratios can be given.")
    elif len(gaps):
        for method, part in gaps.groupby("method"):
            lost = part.groupby("setting")["unpaired"].max().sum()
            if lost:
                found.append(
                    f"{method_label(method)}: {int(lost)} measured examples have no partner in "
                    "the fixed grid (same setting, seed and example) and are in no gap."
                )
    if overall["bd_rate"].notna().any():
        refused = overall[overall["bd_reason"] != ""]
        for reason, rows in refused.groupby("bd_reason"):
            found.append(f"No BD-rate for {_listed(rows['method'])}: {reason}.")
    untimed: list[str] = []
    grid_settings = saving.loc[saving["method"] == GRID, "settings"]
    for row in saving[saving["method"] != ALL].to_dict("records"):
        label = method_label(row["method"])
        if row["missing_cells"]:
            found.append(
                f"{label}: {row['missing_cells']} of its trainings have no done.json in this "
                "folder, so its cost is unknown."
            )
        elif math.isnan(row["flops"]):
            found.append(
                f"{label}: a training (diverged, as a rule) left no ledger, so the cost is unknown."
            )
        elif math.isnan(row["seconds"]):
            untimed.append(label)
        if len(grid_settings) and row["settings"] != grid_settings.iloc[0]:
            found.append(
                f"{label} was measured at {row['settings']} settings and the fixed grid at "
                f"{grid_settings.iloc[0]}: their costs are not for the same work."
            )
    if untimed:
        found.append(
            f"No seconds are quoted of {', '.join(untimed)}: a training shared its device with "
            "another or was not timed."
        )
    devices = saving.loc[saving["method"] == ALL, "device"].iloc[0]
    if ";" in devices:
        found.append(f"Trained on different devices ({devices}): seconds are compared on one only.")
    if run.measured.loc[run.measured["status"] == "done", "answering_flops"].isna().any():
        found.append(
            "What a method does to answer for a setting (a search, say) was not counted in all of "
            "these measurements: then it is in no cost, and neither is the tuning of its levers."
        )
    tuned = saving.loc[saving["tuning_variants"] > 0, "method"]
    if len(tuned) and not tuned_grid(run):
        found.append(
            f"The levers of {_listed(tuned)} were found by trying variants, and the fixed grid has "
            "none: fixed_grid_tuned is the grid with the same right."
        )
    kinds = sorted({kind for kind in run.measured["device"] if kind})
    if len(kinds) > 1:
        found.append(
            f"Measured on different kinds of device ({one_line(', '.join(kinds))}): coded bytes of "
            "one may differ from those of the other."
        )
    if run.damaged:
        found.append(
            f"{len(run.damaged)} measurements are not what was written and were left out: "
            f"{one_line(run.damaged[0])}."
        )
    if run.superseded:
        found.append(
            f"{run.superseded} older measurements of changed methods lie in the folder and were "
            "left out: the newest count."
        )
    if run.not_finite:
        found.append(f"{run.not_finite} measured values are not finite and in no mean.")
    for measure, rows in run.infinite.groupby("measure"):
        counts = rows.groupby("method").size()
        by_method = ", ".join(f"{method_label(str(m))} {counts[m]}" for m in counts.index)
        found.append(
            f"{one_line(run.measures[str(measure)].label)} is infinite in some rows ({by_method}): "
            "each mean is of the others (how many are missing stands beside it), gaps are of rows "
            "that both sides have, and fronts of rows that all have."
        )
    if run.yardstick and run.yardstick.failing:
        failing = ", ".join(setting_words(run, setting) for setting in run.yardstick.failing)
        found.append(
            f"§ the reference fails at {failing}: another network of the grid is better there than "
            "the one trained for it, beyond the margin; no method is judged there."
        )
    return found


def _listed(methods: Iterable[str]) -> str:
    return ", ".join(method_label(method) for method in methods)


def sheets(run: Run, frames: dict[str, pd.DataFrame]) -> dict[str, Sheet]:
    """Every table that has something in it, by name, in the order of the report."""
    found = {
        "reference": reference_sheet(run, frames["reference"]),
        "overall": overall_sheet(run, frames["overall"]),
        "versus": versus_sheet(run, frames["versus"]),
        "knob": knob_sheet(run, frames["overall"]),
        "comparisons": gaps_sheet(run, frames["comparisons"]),
        "summary": summary_sheet(run, frames["summary"], list(run.measures)),
        "quality": quality_sheet(run, frames["quality"]),
        "savings": savings_sheet(frames["savings"]),
        "break_even": break_even_sheet(frames["break_even"]),
    }
    return {name: sheet for name, sheet in found.items() if sheet.rows}


def rich_table(sheet: Sheet, title: str, caption: str = "") -> Table:
    """For the terminal: numbers to the right, a rule between methods, nothing interpreted."""
    table = Table(
        title=Text(one_line(title), style="bold"),
        caption=Text(caption + "\n", style="dim") if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, label in enumerate(sheet.head):
        widest = max(len(row[place]) for row in sheet.rows)
        head = textwrap.fill(label, max(11, widest)).replace("\u00a0", " ")  # rich breaks there
        justify: Literal["left", "right"] = "left" if place < sheet.left else "right"
        table.add_column(Text(head), justify=justify, overflow="fold", min_width=min(widest, 24))
    ends = {sum(sheet.groups[: i + 1]) for i in range(len(sheet.groups) - 1)}
    for count, row in enumerate(sheet.rows, 1):
        cells = [Text(one_line(cell)) for cell in row]
        for place, cell in enumerate(cells):
            if cell.plain in LOST:
                cell.stylize("red")
            elif (count - 1, place) in sheet.best:
                cell.stylize("bold")
        table.add_row(*cells, end_section=count in ends)
    return table

"""The tables of a report: the answers of a run as text, for Markdown, LaTeX, HTML and terminals.

Each `*_sheet(run, frame)` makes a `Sheet` from a frame of `bench/report/answers/` and a list of
columns; the frames themselves are the CSV.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import pandas as pd

from bench.report.answers.compare import LOST, entries_of, measures_of
from bench.report.answers.costs import step_ratios
from bench.report.answers.reference import LOSS, failing, in_percent
from bench.report.answers.stats import ENOUGH_SEEDS
from bench.report.answers.verdict import FAILS, MIXED, MOST_SEEDS, NO_BENEFIT, ORIENTATION
from bench.report.headings import SIGN, gap_title, in_its_unit, setting_head, setting_labels
from bench.report.load import Run
from bench.report.sheet import Column, Row, Sheet, sheet_of, times, value
from bench.report.text import NOTHING, estimate, measure_label, number, ratio

DECIDED = ("better", "equal", "worse", "undecided", MIXED)


def main_measures(run: Run) -> list[str]:
    """The few that a narrow table or figure shows: those of the fronts, else the first three."""
    fronts = dict.fromkeys(name for pair in run.fronts for name in pair)
    return list(fronts)[:4] or [name for name in run.measures if name != LOSS][:3]


def _may_stand_out(run: Run, method: str, verdict: str) -> bool:
    """Whether a row may be bold: where nothing is said of it, the type says nothing either, and the
    floor is there to be measured by."""
    return verdict in DECIDED and method not in (run.reference, run.floor)


def _marked(verdict: str, stands: bool) -> str:
    """A claim that does not survive Holm's correction over its table has a small circle."""
    certain = stands or verdict in ("", "undecided", MIXED)
    return (verdict if certain else f"{verdict} °") or NOTHING


def methods_column(run: Run) -> Column:
    return Column("method", lambda row: run.label(row["method"]))


def _reference(run: Run) -> Callable[[Row], str]:
    return lambda row: "ref." if row["method"] == run.reference else ""


def spread_out(frame: pd.DataFrame, names: list[str], by: str) -> list[Row]:
    """One row per value of `names`, with all others under (value of `by`, column)."""
    rows: list[Row] = []
    for values, part in frame.groupby(names, sort=False):
        row: Row = dict(zip(names, values, strict=True))
        for at in part.to_dict("records"):
            row |= {(at[by], column): content for column, content in at.items()}
        rows.append(row)
    return rows


# One row per method -----------------------------------------------------------------------------


def overall_sheet(run: Run, frame: pd.DataFrame, *, narrow: bool = False) -> Sheet:
    """What is lost and what is saved; `narrow` leaves out what a terminal has no room for."""
    title, digits = gap_title(run)
    labels, reference, steps = setting_labels(run), _reference(run), step_ratios(run)
    shares = ["share_mean", "share_low", "share_high", "share_worst"]
    frame = frame.assign(**{name: 100 * frame[name] for name in shares})
    done = run.measured[~run.measured["status"].isin(LOST)].groupby("method")["seed"].nunique()
    frame["seeds_done"] = frame["method"].map(done).fillna(0)
    worst = "worst" if narrow else f"worst (at {setting_head(run)})"

    def at(key: str) -> Callable[[Row], str]:
        """The setting in brackets."""
        return lambda row: f" ({labels[row[key]]})" if row[key] and not narrow else ""

    def overlap(row: Row) -> str:
        """The share of the grid's range of quality that a BD-rate rests on."""
        known = math.isfinite(row["bd_rate"]) and not reference(row)
        return number(row["bd_overlap"], 2) if known else NOTHING

    def averaged(row: Row) -> str:
        return f"{row['share_settings']}, {row['gap_settings']}" if row["gap_settings"] else NOTHING

    def needed(row: Row) -> str:
        """How many seeds would settle what is undecided."""
        return f"over {MOST_SEEDS}" if row["seeds_needed"] == math.inf else ""

    ends = ("loss_gap_low", "loss_gap_high")
    mean_gap = value(title, "loss_gap_mean", digits, sign=True, ends=ends)  # may cancel: none best
    worst_gap = value(worst, "loss_gap_worst", digits, "lower", sign=True, ends=())
    lost = [
        value("benefit lost (%)", shares[0], 0, "lower", ends=shares[1:3]).unless(reference),
        value(worst, shares[3], 0, "lower").then(at("share_worst_setting")),
        Column("verdict", overall_verdict),
    ]
    if not narrow and frame["share_tuned"].notna().any():
        lost.append(against_tuned(run))
    bd_rate = value("BD-rate (%)", "bd_rate", 1, "lower", sign=True)
    flops, pays = times("FLOPs", "flops_ratio"), value("pays from", "break_even", 0, "lower")
    if narrow:
        return _by_method(run, frame, [*lost, bd_rate, flops, pays])
    columns = [
        *lost,
        mean_gap.unless(reference),
        worst_gap.then(at("worst_setting")).unless(reference),
        Column("settings in the means", averaged),
        value("power", "power", 2),
        value("seeds to settle", "seeds_needed", 0).unless(needed),
        bd_rate,
        Column("overlap", overlap),
        Column("a step's FLOPs", lambda row: ratio(steps.get(row["method"]))),
        flops,
        times("time", "seconds_ratio"),
        times("stored", "bytes_ratio"),
        times("FLOPs / warm grid", "against_warm"),
        times("FLOPs / cheapest equal", "against_peer"),
        pays,
        value("seeds", "seeds_done", 0),
    ]
    return _by_method(run, frame, columns)


def overall_verdict(row: Row) -> str:
    """Short enough for a column: the sentence and the notes say the rest."""
    verdict = row["verdict"]
    if verdict.startswith(FAILS):
        return f"no verdict{SIGN}"
    if verdict == NO_BENEFIT:
        return "no benefit"
    if verdict in ORIENTATION.values():
        return "orientation"
    return _marked(verdict, row["stands"])


def against_tuned(run: Run) -> Column:
    """The share of the benefit lost with the tuned grid as the reference, and the verdict."""

    def text(row: Row) -> str:
        if row["method"] == run.tuned_reference:
            return "ref."
        part = ("share_tuned", "share_tuned_low", "share_tuned_high")
        share, *ends = (100 * row[name] for name in part)
        verdict = {"verdict": row["verdict_tuned"], "stands": row["stands_tuned"]}
        return f"{estimate(share, ends, 0)} {overall_verdict(verdict)}"

    return Column("against the tuned grid (%)", text)


def knob_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """The front, whatever the coefficients, and how well the coefficients steer."""
    title, digits = gap_title(run)
    quality = f"BD-{measure_label(run.measures[run.fronts[0][1]])}" if run.fronts else ""

    def seen(row: Row) -> str:
        """`24.0 to 33.5 of 23.1 to 36.2`: the range of quality that a BD-rate rests on."""
        if not math.isfinite(row["bd_seen_low"]) or row["method"] == run.reference:
            return NOTHING
        names = ("bd_seen_low", "bd_seen_high", "bd_of_low", "bd_of_high")
        low, high, first, last = (number(row[name], 1) for name in names)
        return f"{low} to {high} of {first} to {last}"

    def ends(name: str) -> tuple[str, str]:
        return f"{name}_ci_low", f"{name}_ci_high"

    columns = [
        value("BD-rate (%)", "bd_rate", 1, "lower", sign=True, ends=ends("bd")),
        value("low third", "bd_low", 1, "lower", sign=True),
        value("mid third", "bd_mid", 1, "lower", sign=True),
        value("high third", "bd_high", 1, "lower", sign=True),
        Column("sees of the grid's range", seen),
        value(quality, "bd_quality", 2, "higher", sign=True),
        value("hypervolume", "hypervolume_ratio", 3, "higher", ends=ends("hypervolume")),
        value("IGD+", "igd_plus", 3, "lower"),
        value("coverage", "coverage", 2, "higher"),
        value("monotonicity", "monotonicity", 2, "higher"),
        value("calibration", "calibration", 3, "lower", ends=ends("calibration")),
        value("diagonal", "diagonal", 2, "higher"),
        value(title.replace("loss gap", "held out"), "held_out", digits, sign=True),
        value("over its estimate (%)", "overhead", 1, "lower", sign=True),
        value("crossings (%)", "crossings", 1, "lower"),
    ]
    return _by_method(run, frame, columns)


def _by_method(run: Run, frame: pd.DataFrame, columns: Sequence[Column]) -> Sheet:
    """One row per method; a column with nothing in it is left out."""
    rows = frame.to_dict("records")
    columns = [
        column.unless(lambda row: "failed" if row["status"] == "failed" else "")
        for column in columns
        if {column.text(row) for row in rows if row["status"] != "failed"} - {NOTHING}
    ]
    methods = methods_column(run).then(lambda row: " ‡" if row["status"] == "partly failed" else "")
    return sheet_of(
        rows,
        [methods, *columns],
        stands_out=lambda row: _may_stand_out(run, row["method"], row["verdict"]),
    )


# One row per method and setting -----------------------------------------------------------------


def summary_sheet(
    run: Run,
    frame: pd.DataFrame,
    measures: Sequence[str] = (),
    compared: pd.DataFrame | None = None,
) -> Sheet:
    """`measures` (all, unless given) per method and setting, ± the standard deviation over seeds
    where there are two or more; with `compared`, the gap of the loss behind them and no
    deviations."""
    labels = setting_labels(run)
    silent = set(failing(run))  # where no row stands out
    if len(run.seeds) < ENOUGH_SEEDS:
        silent = set(run.settings)

    def measured(name: str) -> Column:
        style = run.measures[name]
        mean = value(measure_label(style), name, style.digits, style.better)

        def infinite(row: Row) -> str:
            return f" ({row[f'{name}_infinite']} ∞)" if row.get(f"{name}_infinite", 0) else ""

        def spread(row: Row) -> str:
            text = number(row[f"{name}_sd"], style.digits)
            return "" if compared is not None or text == NOTHING else f" ± {text}"

        column = mean.then(infinite).then(spread)._replace(plain=mean.text)
        return column.unless(lambda row: row["status"] if row["status"] in LOST else "")

    setting = Column(setting_head(run), lambda row: labels[row["setting"]])
    setting = setting.then(lambda row: " ‡" if row["status"] == "some lost" else "")
    columns = [methods_column(run), setting, *map(measured, measures or run.measures)]
    if compared is not None:
        title, digits = gap_title(run)
        gaps = compared.loc[compared["measure"] == LOSS, ["method", "setting", "gap"]]
        frame = frame.merge(gaps, how="left", on=["method", "setting"])
        columns.append(value(title, "gap", digits, sign=True).unless(_reference(run)))
    return sheet_of(
        frame.to_dict("records"),
        columns,
        left=2,
        within="setting",
        stands_out=lambda row: row["setting"] not in silent and row["method"] != run.floor,
    )


def gaps_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Δ of every measure, its 95 % interval, and the verdict on the loss."""
    labels, names = setting_labels(run), measures_of(run)
    shares = ["share", "share_low", "share_high"]
    frame = frame.assign(**{name: 100 * frame[name].astype(float) for name in shares})
    frame["most_pairs"] = frame.groupby(["method", "setting"])["pairs"].transform("max")
    rows = spread_out(frame, ["method", "setting"], "measure")
    lost = {
        (method, setting): entries["status"].iloc[0]
        for method, setting, entries in entries_of(run)
        if entries["status"].isin(LOST).all()
    }

    def change(name: str) -> Column:
        style = run.measures[name]
        if in_percent(style):
            style = dataclasses.replace(style, unit="%", digits=1)
        head, key, ends = (
            f"Δ {measure_label(style)}",
            (name, "gap"),
            [(name, "low"), (name, "high")],
        )
        plain = value(head, key, style.digits, sign=True)
        column = value(head, key, style.digits, style.better, sign=True, ends=ends)
        column = column.unless(lambda row: lost.get((row["method"], row["setting"]), ""))
        return column._replace(plain=plain.text)

    def of_loss(head: str, key: str, digits: int, *, sign: bool) -> Column:
        ends = [(LOSS, f"{key}_low"), (LOSS, f"{key}_high")]
        return value(head, (LOSS, key), digits, sign=sign, ends=ends)

    def verdict(row: Row) -> str:
        if row[LOSS, "is_reference"]:
            return "is the ref."
        return _marked(row[LOSS, "verdict"], row[LOSS, "stands"])

    percent = in_percent(run.measures[LOSS])
    columns = [
        methods_column(run),
        Column(setting_head(run), lambda row: labels[row["setting"]]),
        change(LOSS),
        of_loss("Δ best of grid", "gap_best", 1 if percent else 3, sign=True),
        of_loss("benefit lost (%)", "share", 0, sign=False),
        Column("verdict", verdict),
        *map(change, names[1:]),
        value("pairs", (LOSS, "most_pairs"), 0),
    ]
    return sheet_of(
        rows,
        columns,
        left=2,
        within="setting",
        stands_out=lambda row: _may_stand_out(run, row["method"], row[LOSS, "verdict"]),
    )


def reference_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Per setting: what its own network loses there against the best of the grid."""
    labels, style, digits = setting_labels(run), run.measures[LOSS], gap_title(run)[1]

    def nothing(row: Row) -> str:
        return NOTHING if row["rival"] == row["setting"] else ""

    ends = ("low", "high")
    columns = [
        Column(setting_head(run), lambda row: labels[row["setting"]]),
        value(measure_label(style), "own", style.digits),
        Column("best network", lambda row: "its own" if nothing(row) else labels[row["rival"]]),
        value("its loss", "rival_loss", style.digits).unless(nothing),
        value(in_its_unit(run, "lost"), "lost", digits, sign=True, ends=ends).unless(nothing),
        value("benefit", "benefit", style.digits),
        value(in_its_unit(run, "margin"), "margin", digits),
        Column("reference", lambda row: "fails" if row["fails"] else "holds"),
    ]
    return sheet_of(frame.to_dict("records"), columns)


def versus_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Pairs of methods: the paired difference, and whether it tells them apart; of the best row and
    of what the verdict is about. The other pairs are in the CSV file."""
    shown = frame[frame["method"].isin(list(dict.fromkeys(frame["method"]))[:2])]
    head, digits = in_its_unit(run, "Δ loss"), gap_title(run)[1]

    def apart(row: Row) -> str:
        return ("better" if row["high"] < 0 else "worse") if row["apart"] else "not told apart"

    columns = [
        methods_column(run),
        Column("less", lambda row: run.label(row["other"])),
        value(head, "difference", digits, sign=True, ends=("low", "high")),
        Column("settings", lambda row: str(row["settings"])),
        Column("", apart),
    ]
    return sheet_of(shown.to_dict("records"), columns, left=2)

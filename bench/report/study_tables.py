"""The tables of a study and of the paper's claims; as `bench/report/tables.py`."""

from __future__ import annotations

import math

import pandas as pd

from bench.report.answers import studies
from bench.report.answers.claims import CLAIMS
from bench.report.answers.verdict import MOST_SEEDS
from bench.report.headings import gap_title, in_its_unit
from bench.report.load import Run
from bench.report.sheet import Column, Row, Sheet, sheet_of, times, value
from bench.report.tables import against_tuned, methods_column, overall_verdict
from bench.report.text import NOTHING, short

HEADS = {"width": "width", "range": "range", "coefficients": "coefficients", "share": "length"}
SLOPE = "per doubling"


def study_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """Every method at every point, and behind them what a doubling of each factor changes."""
    if frame.empty:
        return Sheet([], [], 2, [])
    title, digits = gap_title(run)
    moving = [name for name in studies.FACTORS if frame[name].nunique() > 1]
    slopes = _slope_rows(studies.slopes(run))
    frame = pd.concat([frame.assign(slope=""), slopes]) if len(slopes) else frame.assign(slope="")
    order = {method: place for place, method in enumerate(frame["method"].unique())}
    frame = frame.sort_values("method", key=lambda names: names.map(order), kind="stable")
    shares = ["share_mean", "share_low", "share_high"]
    frame = frame.assign(**{name: 100 * frame[name].astype(float) for name in shares})

    def factor(name: str) -> Column:
        sign = "×" if name not in studies.MOVING else ""

        def text(row: Row) -> str:
            return SLOPE if row["slope"] == name else f"{row[name]:g}{sign}"

        return Column(HEADS[name], text)

    def reference(row: Row) -> str:
        return "ref." if row["method"] == run.reference and not row["slope"] else ""

    def slope(row: Row) -> str:
        return NOTHING if row["slope"] else ""

    def verdict(row: Row) -> str:
        return NOTHING if row["slope"] or reference(row) else overall_verdict(row)

    def base_itself(row: Row) -> str:
        return "ref." if reference(row) and row["base_low"] == row["base_high"] == 0 else ""

    base = " ".join(["1×"] * ("width" in moving) + ["full"] * ("share" in moving))
    to_base = value(
        in_its_unit(run, f"gap to the {base} grid"), "base", digits, sign=True,
        ends=("base_low", "base_high"),
    )  # fmt: skip
    columns = [
        methods_column(run),
        *map(factor, moving),
        value("benefit lost (%)", "share_mean", 0, ends=shares[1:]).unless(reference),
        Column("verdict", verdict),
        *([against_tuned(run).unless(slope)] if frame["share_tuned"].notna().any() else []),
        value(title, "gap", digits, sign=True, ends=("gap_low", "gap_high")).unless(reference),
        *([to_base.unless(base_itself)] if base else []),
        Column("parameters", lambda row: short(row["parameters"])),
        times("FLOPs", "flops_ratio"),
        times("step", "step_ratio"),
        *([times("time a step", "time_ratio")] if frame["time_ratio"].notna().any() else []),
        value("seeds", "seeds", 0),
    ]
    sheet = sheet_of(frame.to_dict("records"), columns, left=2)
    return sheet._replace(left=1 + len(moving), best=frozenset())


def narrowed(sheet: Sheet) -> Sheet:
    """What a terminal has room for."""
    less = ("numbers", "loss gap", "parameters", "seeds", "step", "time a step")
    kept = [place for place, head in enumerate(sheet.head) if not head.startswith(less)]
    rows = [[row[place] for place in kept] for row in sheet.rows]
    return sheet._replace(head=[sheet.head[place] for place in kept], rows=rows)


def _slope_rows(slopes: pd.DataFrame) -> pd.DataFrame:
    """One row per method and line, its slopes where the table has what they are of."""
    names = {"lost": "share", "gap": "gap", "base": "base"}
    rows = []
    fixed = ["method", "factor", *studies.FACTORS]
    for key, part in slopes.groupby(fixed, sort=False, dropna=False):
        row: Row = dict(zip(fixed, key, strict=True)) | {"slope": key[1], "verdict": ""}
        for at in part.to_dict("records"):
            name = names[at["of"]]
            row["share_mean" if name == "share" else name] = at["slope"]
            row |= {f"{name}_low": at["low"], f"{name}_high": at["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def claims_sheet(run: Run, frame: pd.DataFrame) -> Sheet:
    """The paper's claims of every method under test, their answers and the numbers behind them."""

    def answer(row: Row) -> str:
        seeds, needs = row["seeds_needed"], row["needs"]
        if row["answer"] == "undecided" and not needs and not math.isnan(seeds):
            many = f"over {MOST_SEEDS}" if math.isinf(seeds) else f"{seeds:.0f}"
            needs = f"would take {many} seeds"
        decided = row["answer"] in ("supported", "refuted")
        circle = "" if row["stands"] or not decided else " °"
        return f"{row['answer']} ({needs})" if needs else row["answer"] + circle

    columns = [
        methods_column(run),
        Column("claim", lambda row: CLAIMS[row["claim"]]),
        Column("answer", answer),
        Column("numbers", lambda row: row["numbers"] or NOTHING),
    ]
    sheet = sheet_of(frame.to_dict("records"), columns, left=2)
    return sheet._replace(left=4)

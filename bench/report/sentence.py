"""What a run says of the network told its coefficients, in words: at most five points.

for point in verdict_points(run): print(point.head, point.text)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.report.answers.answer import (
    BOTH_TUNED,
    NO_VERDICT,
    answers,
    grid_trained_out,
    yardstick,
)
from bench.report.answers.compare import overall, versus
from bench.report.answers.costs import savings, step_words, tuned_alone
from bench.report.answers.reference import Yardstick, loss_words, setting_words
from bench.report.answers.spending import LEVEL
from bench.report.answers.stats import ENOUGH_SEEDS
from bench.report.answers.verdict import MIXED, MOST_SEEDS
from bench.report.load import Run
from bench.report.text import estimate, one_line, ratio

GOOD = ("equal", "better")


class Point(NamedTuple):
    head: str
    text: str


def verdict_sentence(run: Run) -> str:
    """All of it in a paragraph of plain text."""
    return joined(run, verdict_points(run))


def joined(run: Run, points: Sequence[Point]) -> str:
    words = " ".join(f"{point.head} {point.text}" for point in points)
    return f"{one_line(run.title)}, {one_line(run.preset)}: {words}"


def verdict_points(run: Run) -> list[Point]:
    """Whether to use it today, the cheapest good option, the best single network, the network as
    published, and what is not known: those of which something can be said."""
    rows = answers(run).to_dict("records")
    best = rows[-1]  # the tuned one, where there is one
    points = [
        Point("Use it today?", _use(run, best)),
        Point("Cheapest good option:", _cheapest(run, best)),
        Point("Best single network:", _single(run, best)),
        Point("As published:", "" if len(rows) < 2 else _short(run, rows[0])),
        Point("Not known:", _unknown(run, best)),
    ]
    return [point for point in points if point.text]


# Use it today? ------------------------------------------------------------------------------------


def _use(run: Run, row: dict[str, Any]) -> str:
    if not row["method"] or run.reference is None:
        why = "there is no fixed grid to compare with" if row["method"] else f"{row['why']} is here"
        return f"No answer: {why}, so there is no verdict."
    network = run.label(row["method"])
    if math.isnan(row["share_mean"]) and row["why"] in (
        "it failed",
        "no setting in common with the grid",
    ):
        why = "failed" if row["why"] == "it failed" else "has no setting in common with the grid"
        return f"No answer: {network} {why}, so there is no verdict."
    lost = _lost(run, network, row)
    parts = [_opening(run, row), _failing(run, row), lost, _judged(run, row), _cost(run, row)]
    status = overall(run).set_index("method").at[row["method"], "status"]
    return " ".join(filter(None, [*parts, "" if status == "done" else "Some of it failed."]))


def _opening(run: Run, row: dict[str, Any]) -> str:
    """The answer first."""
    if row["answer"] == NO_VERDICT:
        seeds = int(row["seeds"])
        if 0 < seeds < ENOUGH_SEEDS:
            count = "One seed is" if seeds == 1 else "Two seeds are"
            return f"No answer yet. {count} a demonstration, not evidence."
        if row["why"] == "one network does as well":
            return (
                "Not needed: one network, trained for the middle setting alone, does as well at "
                "every setting, so there is no benefit to lose."
            )
        return "No answer."
    if row["answer"] in GOOD:
        return (
            "Yes." if row["flops_ratio"] < 1 else "Not to save compute: it is as good, not cheaper."
        )
    return {"worse": "No.", MIXED: "Not at every setting."}.get(row["answer"], "Undecided.")


def _failing(run: Run, row: dict[str, Any]) -> str:
    """Where the grid is no yardstick, and by how much."""
    yard = yardstick(run, row["method"])
    if yard is None or not yard.failing or row["answer"] != NO_VERDICT:
        return ""
    places = [
        f"at {setting_words(run, each['setting'])} its own network loses "
        f"{loss_words(run, each['lost'])} against the one for {setting_words(run, each['rival'])}"
        for each in yard.examined[yard.examined["fails"]].to_dict("records")
    ]
    more = f", and so on at {len(places) - 2} more" if len(places) > 2 else ""
    return f"The grid is no fair yardstick: {', '.join(places[:2])}{more}."


def _lost(run: Run, network: str, row: dict[str, Any]) -> str:
    """What it loses of the benefit, on average and at worst, and over which settings."""
    count, every = int(row["share_settings"]), int(row["settings"])
    if not count or math.isnan(row["share_mean"]):
        return ""
    worst = estimate(100 * row["share_worst"], (), 0)
    place = setting_words(run, row["share_worst_setting"])
    over = (
        "" if count == every else f", over the {count} of {every} settings where there is a benefit"
    )
    grid = "the tuned grid's" if row["compared"] == BOTH_TUNED else "the grid's"
    return (
        f"{network} loses {_share(row)} of {grid} benefit (at worst {worst} %, at {place}){over}."
    )


def _share(row: dict[str, Any]) -> str:
    """`8 % [−21, 35]`."""
    share, low, high = (100 * row[f"share_{part}"] for part in ("mean", "low", "high"))
    size, _, bounds = estimate(share, (low, high), 0).partition(" ")
    return f"{size} % {bounds}".strip()


def _judged(run: Run, row: dict[str, Any]) -> str:
    """The verdict, how often it was looked at, and what would settle it."""
    looked, margin = _looked(run, row), f"the margin of {100 * run.margin_share:g} %"
    sure = "" if row["stands"] is True else ", but not after the correction for several methods (°)"
    if row["answer"] == "undecided":
        return f"Whether that is beyond {margin} is undecided{looked}{_forecast(run, row)}."
    return {
        "better": f"That is better than the grid, beyond {margin}{looked}{sure}.",
        "equal": f"That is equal, within {margin}{looked}{sure}.",
        "worse": f"That is worse than the grid, beyond {margin}{looked}{sure}.",
        MIXED: f"On average that is no loss, but at some settings it is decidedly worse{looked}.",
    }.get(row["answer"], "")


def _looked(run: Run, row: dict[str, Any]) -> str:
    """` after 5 seeds (3 looks of at most 18, over which the 5 % are spent as by Pocock)`."""
    yard = Yardstick.of(run)
    if run.looks is None or yard is None:
        return ""
    seeds = yard.seeds(row["method"])
    looks = run.looks.number(seeds)
    decided = "" if row["answer"] == "undecided" else ", decided"
    return (
        f"{decided} after {seeds} seeds ({looks} look{'s' * (looks > 1)} of at most "
        f"{run.looks.most}, over which the {100 * LEVEL:g} % are spent as by Pocock)"
    )


def _forecast(run: Run, row: dict[str, Any]) -> str:
    """`; at this spread about 18 seeds, 2 h more, would settle it`."""
    needed = row["seeds_needed"]
    if math.isnan(needed):
        return ""
    if math.isinf(needed):
        return f"; at this spread {MOST_SEEDS} seeds would not settle it"
    of_all = overall(run).set_index("method").loc[row["method"]]
    hours = of_all["hours_needed"] if of_all["seeds_needed"] == needed else math.nan
    time = f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
    if hours < 1:
        time = f"{max(60 * hours, 1):.0f} min"
    more = f", {time} more," if hours > 0 else ""
    return f"; at this spread about {needed:.0f} seeds{more} would settle it"


def _cost(run: Run, row: dict[str, Any]) -> str:
    """What it costs, and from how many settings on it is cheaper, its tuning not counted and
    counted; and what conditioning adds to a step."""
    parts = []
    if row["flops_ratio"] > 0:
        parts.append(f"costs {ratio(row['flops_ratio'])} the grid's compute")
    if math.isfinite(row["break_even"]):
        tuned = row["break_even_tuned"]
        counted = f" (from {tuned:.0f}, the search for its levers counted)"
        counted = counted if tuned > row["break_even"] else ""
        parts.append(f"is cheaper from {row['break_even']:.0f} settings on{counted}")
    costs = f"It {' and '.join(parts)}" if parts else ""
    step = step_words(run, str(row["method"]))
    step = f"a step of its training {step}" if step else ""
    return f"{'; '.join(filter(None, [costs, step]))}." if parts else ""


# The other points ---------------------------------------------------------------------------------


def _rows(run: Run) -> list[dict[str, Any]]:
    """What is compared with the fixed grid, as `overall` judges it; none where nothing is said."""
    yard = Yardstick.of(run)
    if yard is None or yard.failing or len(run.seeds) < ENOUGH_SEEDS:
        return []
    rows = overall(run).to_dict("records")
    return [row for row in rows if row["method"] not in (run.reference, run.floor)]


def _cheapest(run: Run, best: dict[str, Any]) -> str:
    """The least compute among what is as good as the grid."""
    rows = _rows(run)
    if not any(row["verdict"] for row in rows):
        return ""
    good = [row for row in rows if row["verdict"] in GOOD and row["flops_ratio"] < 1]
    if not good:
        return (
            "none. Nothing that was compared is shown to be as good as the grid for less compute."
        )
    return _of(run, min(good, key=lambda row: row["flops_ratio"]))


def _single(run: Run, best: dict[str, Any]) -> str:
    """Among methods that keep one network for all settings, the one that loses least."""
    kept = savings(run).set_index("method")["networks"]
    rows = [row for row in _rows(run) if kept.get(row["method"]) == 1]
    rows = [row for row in rows if math.isfinite(row["share_mean"])]
    if len(rows) < 2:
        return ""
    first = min(rows, key=lambda row: row["share_mean"])
    pairs = versus(run)
    pair = pairs[
        ((pairs["method"] == first["method"]) & (pairs["other"] == best["method"]))
        | ((pairs["method"] == best["method"]) & (pairs["other"] == first["method"]))
    ]
    close = len(pair) > 0 and not pair["apart"].iloc[0]
    rival = f", not told apart from {run.label(best['method'])}" if close else ""
    return _of(run, first).removesuffix(".") + f"{rival}."


def _of(run: Run, row: dict[str, Any]) -> str:
    """`YOTO, which loses 35 % [6, 58] of the benefit (undecided), for 0.35× the grid's compute.`"""
    sure = row["stands"] is True or row["verdict"] in ("undecided", MIXED)
    verdict = row["verdict"] if sure else f"{row['verdict']} °"
    verdict = f" ({verdict})" if row["verdict"] in (*GOOD, "worse", "undecided", MIXED) else ""
    paid = f", for {ratio(row['flops_ratio'])} the grid's compute" if row["flops_ratio"] > 0 else ""
    benefit = "the untuned grid's benefit" if run.tuned_reference else "the benefit"
    return f"{run.label(row['method'])}, which loses {_share(row)} of {benefit}{verdict}{paid}."


def _short(run: Run, row: dict[str, Any]) -> str:
    """The network as published, in a line."""
    if math.isnan(row["share_mean"]):
        return ""
    return _of(run, row | {"verdict": row["answer"]})


def _unknown(run: Run, row: dict[str, Any]) -> str:
    """What a reader may take for known, and is not."""
    parts = []
    yard = yardstick(run, row["method"])
    known = grid_trained_out(run, yard.reference) if yard else 1.0
    if math.isnan(known):
        parts.append(
            "It is not known whether the grid is trained out (`run --lengths 0.5,1` asks)."
        )
    elif not known:
        parts.append(
            "The grid is not trained out: this says who learns faster, not who ends better."
        )
    if row["method"] in tuned_alone(run):
        parts.append(
            f"The levers of {run.label(row['method'])} were searched for and the grid's were not "
            "(no tuned grid is in this run): like is not compared with like."
        )
    return " ".join(parts)

"""What a run says of the network told its coefficients, in words; it begins with the yardstick."""

from __future__ import annotations

import math

import pandas as pd

from bench.report.answers.compare import overall
from bench.report.answers.costs import break_evens, step_words, tuned_alone
from bench.report.answers.lengths import trained_out
from bench.report.answers.reference import Yardstick, loss_words, setting_words
from bench.report.answers.spending import LEVEL
from bench.report.answers.verdict import MIXED, MOST_SEEDS, ORIENTATION, under_test
from bench.report.load import Run
from bench.report.text import estimate, one_line, ratio


def verdict_sentence(run: Run) -> str:
    """All of it in a paragraph of plain text."""
    where = f"{one_line(run.task)}, {one_line(run.preset)}:"
    method, yard = under_test(run), Yardstick.of(run)
    if method is None:
        return f"{where} no network told its coefficients was measured, so there is no verdict."
    if yard is None:
        return f"{where} there is no fixed grid to compare with, so there is no verdict."
    row = overall(run).set_index("method").loc[method]
    network = f"ne network ({run.label(method)})"
    start = f"{where} {_yardstick(yard)}"
    if math.isnan(row["loss_gap_mean"]) and not yard.measured(method):
        why = "failed" if row["status"] == "failed" else "has no setting in common with the grid"
        return f"{start} O{network} {why}, so there is no verdict."
    unlike = ""
    if method in tuned_alone(run):
        unlike = (
            f"The levers of {run.label(method)} were searched for and the grid's were not (no "
            "tuned grid is in this run): like is not compared with like."
        )
    failed = "" if row["status"] == "done" else "Some of its measurements failed."
    sentences = [start, unlike, _lost(run, f"o{network}", row), _judged(run, row)]
    return " ".join(filter(None, [*sentences, _cost(run, row), failed]))


def _yardstick(yard: Yardstick) -> str:
    """The first sentence: what the grid is worth as a yardstick."""
    run, failing = yard.run, yard.examined[yard.examined["fails"]]
    halved = trained_out(run)
    known = halved.loc[halved["method"] == run.reference, "trained_out"].dropna()
    follows = ""
    if len(known) and known.all():
        begins = "The grid is trained out"
    elif len(known) or len(failing):
        # A network that its neighbour beats at its own setting has not found what it was made for.
        begins = "The grid is not trained out"
        follows = "; what follows says who learns faster"
    else:
        begins = "It is not known whether the grid is trained out"
    if not len(failing):
        sound = "no network of it is beaten by a neighbour beyond the margin"
        return f"{begins}, and {sound}{follows}."
    places = [
        f"at {setting_words(run, row['setting'])} its own network loses "
        f"{loss_words(run, row['lost'])} against the one for {setting_words(run, row['rival'])}"
        for row in failing.to_dict("records")
    ]
    return f"{begins}: {', '.join(places)}{follows}, and nothing is said of a method there."


def _lost(run: Run, network: str, row: pd.Series) -> str:
    """What it loses of the benefit, on average and at worst, and over which settings."""
    count, every = int(row["share_settings"]), len(run.settings)
    if not count:
        return ""
    share, low, high = (100 * row[f"share_{part}"] for part in ("mean", "low", "high"))
    size, _, bounds = estimate(share, (low, high), 0).partition(" ")
    worst = estimate(100 * row["share_worst"], (), 0)
    place = setting_words(run, row["share_worst_setting"])
    over = "" if count == every else f" over the {count} of {every} settings where there is some"
    return (
        "Of what the grid gains over its middle network used everywhere, "
        f"{network} loses {f'{size} % {bounds}'.strip()}{over} (at worst {worst} %, at {place})."
    )


def _judged(run: Run, row: pd.Series) -> str:
    """The verdict, how often it was looked at, and what would settle it."""
    verdict, looked = row["verdict"], _looked(run, row)
    margin = f"{100 * run.margin_share:g} % of the benefit"
    if verdict.startswith("no verdict"):
        return f"{verdict[0].upper()}{verdict[1:]}."
    if verdict in ORIENTATION.values():
        seeds, _, _ = verdict.partition(":")
        return f"{seeds.capitalize()}: an orientation, no verdict."
    if verdict == "undecided":
        open_ = f"is undecided{looked}{_forecast(row)}"
        return f"Whether that matters, given a margin of {margin}, {open_}."
    return {
        "better": f"That is better than the grid by more than the margin of {margin}{looked}.",
        "equal": f"That is equal within the margin of {margin}{looked}.",
        "worse": f"That is worse than the grid by more than the margin of {margin}{looked}.",
        MIXED: f"On average that is no loss, but at some settings it is decidedly worse{looked}.",
        "": "",
    }[verdict]


def _looked(run: Run, row: pd.Series) -> str:
    """` after 5 seeds (3 looks of at most 18, over which the 5 % are spent as by Pocock)`."""
    yard = Yardstick.of(run)
    if run.looks is None or yard is None:
        return ""
    seeds = yard.seeds(str(row.name))
    looks = run.looks.number(seeds)
    decided = "" if row["verdict"] == "undecided" else ", decided"
    return (
        f"{decided} after {seeds} seeds ({looks} look{'s' * (looks > 1)} of at most "
        f"{run.looks.most}, over which the {100 * LEVEL:g} % are spent as by Pocock)"
    )


def _forecast(row: pd.Series) -> str:
    """`; at this spread about 18 seeds, 2 h more, would settle it`."""
    needed, hours = row["seeds_needed"], row["hours_needed"]
    if math.isnan(needed):
        return ""
    if math.isinf(needed):
        return f"; at this spread {MOST_SEEDS} seeds would not settle it"
    time = f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
    if hours < 1:
        time = f"{max(60 * hours, 1):.0f} min"
    more = f", {time} more," if hours > 0 else ""
    return f"; at this spread about {needed:.0f} seeds{more} would settle it"


def _cost(run: Run, row: pd.Series) -> str:
    """What it costs, and from how many settings on it is cheaper, its tuning not counted and
    counted; and what conditioning adds to a step."""
    parts = []
    if row["flops_ratio"] > 0:
        parts.append(f"costs {ratio(row['flops_ratio'])} the grid's compute")
    if math.isfinite(row["break_even"]):
        frame = break_evens(run).query("unit == 'flops'").set_index("method")
        tuned = frame.at[row.name, "settings_tuned"]
        counted = f" (from {tuned:.0f}, the search for its levers counted)"
        counted = counted if tuned > row["break_even"] else ""
        parts.append(f"is cheaper from {row['break_even']:.0f} settings on{counted}")
    costs = f"It {' and '.join(parts)}" if parts else ""
    step = step_words(run, str(row.name))
    step = f"a step of its training {step}" if step else ""
    return f"{'; '.join(filter(None, [costs, step]))}." if parts else ""

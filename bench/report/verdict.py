"""What a run says in words, and what it leaves unsaid.

    judge(yard, method)                 one method against the harder reference
    verdict_sentence(run, overall(run)) all of it in a sentence, which begins with the yardstick

No verdict where the reference fails, where the seeds are fewer than three, or where one network
does as well everywhere; a mean that hides a setting at which a method is decidedly worse is mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from bench.report import stats
from bench.report.costs import GRID, break_evens, tuned_grid, tuning
from bench.report.load import Run
from bench.report.reference import LOSS, in_percent, setting_words
from bench.report.shares import NO_PAIRS, Yardstick
from bench.report.text import estimate, method_label, one_line, ratio

FAILS = "no verdict: the reference fails"
NO_BENEFIT = "no verdict: one network does as well"
MIXED = "mixed"
ORIENTATION = {1: "one seed: orientation", 2: "two seeds: orientation"}
POWER = 0.8
MOST_SEEDS = 1000
UNDER_TEST = ("yoto_tuned", "yoto")  # whom the sentence is about: the first that was measured


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The share of the benefit lost, mean over `settings`, and what is said of it.

    verdict: "better", "equal", "worse", "undecided", "mixed", or why there is none; "" where
    nothing was measured. doubt: its p-value, NaN without one. worst: the largest share of a
    setting, with the setting. power: how likely "equal" was, had the share been nothing.
    seeds_needed: how many seeds would settle what is undecided, inf for more than can be said.
    """

    share: stats.Interval
    settings: list[str]
    worst: float
    worst_setting: str
    verdict: str
    doubt: float
    power: float
    seeds_needed: float


NOT_JUDGED = Judgement(
    share=NO_PAIRS, settings=[], worst=math.nan, worst_setting="", verdict="", doubt=math.nan,
    power=math.nan, seeds_needed=math.nan,
)  # fmt: skip


def judge(yard: Yardstick | None, method: str) -> Judgement:
    """One method over all the settings at which it can be judged."""
    if yard is None or method == GRID or not yard.measured(method):
        return NOT_JUDGED
    share, settings = yard.mean_share(method)
    margin, seeds = yard.run.margin_share, yard.seeds(method)
    each = {setting: yard.share(method, [setting]).estimate for setting in settings}
    worst = max(each, key=lambda setting: each[setting], default="")
    verdict = _verdict(yard, method, share, settings)
    silent = verdict.startswith("no verdict") or seeds < stats.ENOUGH_SEEDS or not settings
    return Judgement(
        share=share,
        settings=settings,
        worst=each.get(worst, math.nan),
        worst_setting=worst,
        verdict=verdict,
        doubt=math.nan if silent else stats.doubt(share, margin),
        power=math.nan if seeds < stats.ENOUGH_SEEDS else stats.power_of_equal(share, margin),
        seeds_needed=(
            stats.seeds_to_settle(share, margin, POWER, MOST_SEEDS)
            if verdict == "undecided"
            else math.nan
        ),
    )


def _verdict(yard: Yardstick, method: str, share: stats.Interval, settings: list[str]) -> str:
    if (seeds := yard.seeds(method)) < stats.ENOUGH_SEEDS:
        return ORIENTATION[seeds]
    if failing := [s for s in yard.failing if s in yard.measured(method)]:
        places = ", ".join(setting_words(yard.run, setting) for setting in failing)
        return f"{FAILS} at {places}"
    if not settings:
        return "" if not yard.counted(method) else NO_BENEFIT
    verdict = stats.verdict(share, yard.run.margin_share, "lower")
    mixed = verdict in ("equal", "better") and yard.decidedly_worse(method)
    return MIXED if mixed else verdict


# In words ---------------------------------------------------------------------------------------


def under_test(run: Run) -> str | None:
    """The method the sentence is about: a network told its coefficients, the best known first."""
    found = [method for method in run.methods if method.split("[")[0] in UNDER_TEST]
    return min(found, key=lambda m: (UNDER_TEST.index(m.split("[")[0]), "[" in m), default=None)


def verdict_sentence(
    run: Run, frame: pd.DataFrame | None = None, *, trained_out: pd.DataFrame | None = None
) -> str:
    """What the run says of the network told its coefficients; it begins with the yardstick.

    frame: `overall(run)`, where there is one already. trained_out: one row per method and setting,
    in the column of that name 1 where half of the training would have done, 0 where it would not,
    NaN where nobody knows; None where networks of one length were trained. Plain text.
    """
    where = f"{one_line(run.task)}, {one_line(run.preset)}:"
    method = under_test(run)
    if method is None:
        return f"{where} no network told its coefficients was measured, so there is no verdict."
    yard = run.yardstick
    if yard is None:
        return f"{where} there is no fixed grid to compare with, so there is no verdict."
    if frame is None:
        from bench.report.compare import overall

        frame = overall(run)
    row = frame.set_index("method").loc[method]
    name = f"one network ({method_label(method)})"
    start = f"{where} {_yardstick(yard, _whole(trained_out))}"
    if math.isnan(row["loss_gap_mean"]) and not yard.measured(method):
        why = "failed" if row["status"] == "failed" else "has no setting in common with the grid"
        return f"{start} {name[0].upper()}{name[1:]} {why}, so there is no verdict."
    sentences = [start, _unlike(run, method), _lost(run, name, row), _judged(run, row)]
    sentences.append(_cost(run, method, row))
    if row["status"] != "done":
        sentences.append("Some of its measurements failed.")
    return " ".join(filter(None, sentences))


def _whole(trained_out: pd.DataFrame | None) -> bool | None:
    """Whether the grid is trained out at every setting of which that is known; None for nowhere."""
    if trained_out is None:
        return None
    known = trained_out.loc[trained_out["method"] == GRID, "trained_out"].dropna()
    return bool(known.all()) if len(known) else None


def _yardstick(yard: Yardstick, trained_out: bool | None) -> str:
    """The first sentence: what the grid is worth as a yardstick."""
    failing = yard.examined[yard.examined["fails"]]
    # A network that its neighbour beats at its own setting has not found what it was trained for.
    begins = {
        True: "The grid is trained out",
        False: "The grid is not trained out",
        None: "It is not known whether the grid is trained out",
    }[False if len(failing) and trained_out is None else trained_out]
    follows = "; what follows says who learns faster" if "not trained" in begins else ""
    if not len(failing):
        sound = "no network of it is beaten by a neighbour beyond the margin"
        return f"{begins}, and {sound}{follows}."
    run, style = yard.run, yard.run.measures[LOSS]
    unit = "%" if in_percent(style) else one_line(style.unit)
    digits = 1 if in_percent(style) else style.digits
    places = [
        f"at {setting_words(run, row.setting)} its own network loses "
        f"{estimate(row.lost, (), digits)} {unit}".rstrip()
        + f" against the one for {setting_words(run, row.rival)}"
        for row in failing.itertuples()
    ]
    lost = ", ".join(places)
    return f"{begins}: {lost}{follows}, and nothing is said of a method there."


def _unlike(run: Run, method: str) -> str:
    """That a tuned method stands beside a grid that nobody tuned."""
    variants = tuning(run.measured[run.measured["method"] == method])["variants"]
    if not variants > 0 or tuned_grid(run):
        return ""
    return (
        f"The levers of {method_label(method)} were searched for and the grid's were not "
        "(fixed_grid_tuned, not in this run): like is not compared with like."
    )


def _lost(run: Run, name: str, row: pd.Series) -> str:
    """What it loses of the benefit, on average and at worst, and over which settings."""
    count, every = int(row["share_settings"]), len(run.settings)
    if not count:
        return ""
    share, low, high = (100 * row[f"share_{part}"] for part in ("mean", "low", "high"))
    size, _, bounds = estimate(share, (low, high), 0).partition(" ")
    worst = estimate(100 * row["share_worst"], (), 0)
    place = setting_words(run, row["share_worst_setting"])
    over = "" if count == every else f" over the {count} of {every} settings where there is some"
    lost = f"{size} % {bounds}".strip()
    return (
        f"Of what the grid gains over its middle network used everywhere, {name} loses {lost}"
        f"{over} (at worst {worst} %, at {place})."
    )


def _judged(run: Run, row: pd.Series) -> str:
    """The verdict, and what would settle it."""
    verdict = row["verdict"]
    margin = f"{100 * run.margin_share:g} % of the benefit"
    if verdict.startswith("no verdict"):
        return f"{verdict[0].upper()}{verdict[1:]}."
    if verdict in ORIENTATION.values():
        seeds, _, _ = verdict.partition(":")
        return f"{seeds.capitalize()}: an orientation, no verdict."
    if verdict == "undecided":
        return f"Whether that matters, given a margin of {margin}, is {forecast(row)}."
    return {
        "better": f"That is better than the grid by more than the margin of {margin}.",
        "equal": f"That is equal within the margin of {margin}.",
        "worse": f"That is worse than the grid by more than the margin of {margin}.",
        MIXED: "On average that is no loss, but at some settings it is decidedly worse.",
        "": "",
    }[verdict]


def forecast(row: pd.Series) -> str:
    """`undecided; at this spread about 18 seeds, 2 h, would settle it`."""
    needed, hours = row["seeds_needed"], row.get("hours_needed", math.nan)
    if math.isnan(needed):
        return "undecided"
    if math.isinf(needed):
        return f"undecided; at this spread {MOST_SEEDS} seeds would not settle it"
    more = f", {duration(hours)} more," if hours > 0 else ""
    return f"undecided; at this spread about {needed:.0f} seeds{more} would settle it"


def duration(hours: float) -> str:
    """`20 min`, `2 h` or `3 days`."""
    if hours < 1:
        return f"{max(60 * hours, 1):.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _cost(run: Run, method: str, row: pd.Series) -> str:
    """What it costs, and from how many settings on it is cheaper, its tuning not counted and
    counted."""
    cost = row["flops_ratio"]
    parts = [f"costs {ratio(cost)} the grid's compute"] if cost > 0 else []
    if math.isfinite(alone := row["break_even"]):
        frame = break_evens(run).query("unit == 'flops'").set_index("method")
        tuned = frame["settings_tuned"].get(method, math.nan)
        counted = f" (from {tuned:.0f}, the search for its levers counted)" if tuned > alone else ""
        parts.append(f"is cheaper from {alone:.0f} settings on{counted}")
    return f"It {' and '.join(parts)}." if parts else ""

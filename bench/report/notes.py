"""What a reader must know before believing the tables, one sentence each; plain text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import pandas as pd

from bench.report.answers.compare import LOST
from bench.report.answers.costs import ALL, tuned_alone
from bench.report.answers.reference import failing, setting_words
from bench.report.answers.spending import LEVEL, tail
from bench.report.answers.stats import ENOUGH_SEEDS
from bench.report.answers.studies import home
from bench.report.headings import SIGN, examples, term_label
from bench.report.load import Run
from bench.report.text import one_line

MANY = 3  # settings at which a grid fails: that many have a sentence each


def notes(run: Run, gaps: pd.DataFrame, overall: pd.DataFrame, saving: pd.DataFrame) -> list[str]:
    """All that apply; the frames are `comparisons`, `overall` and `savings`."""
    return [
        *_design(run),
        *_looks(run),
        *_lost(run),
        *_without_a_pair(run, gaps),
        *_without_a_front(run, overall),
        *_costs(run, saving[saving["method"] != ALL]),
        *_devices(run, saving),
        *_left_out(run),
        *_infinite(run),
        *_failing(run),
    ]


def warnings(run: Run, examined: pd.DataFrame) -> list[str]:
    """What stands before all other notes: too few seeds, and settings of which nothing is said."""
    seeds = len(run.seeds)
    count = "One seed is" if seeds == 1 else f"{seeds} seeds are"
    few = (
        f"{count} a demonstration, not evidence. Nothing is called better, equal or worse before "
        f"there are {ENOUGH_SEEDS} seeds."
    )
    return [few] * (seeds < ENOUGH_SEEDS) + _unfit(run, examined[examined["fails"].astype(bool)])


def _unfit(run: Run, failing: pd.DataFrame) -> list[str]:
    places = [setting_words(run, setting) for setting in failing["setting"]]
    silence = "Nothing is called better or worse there"
    if len(places) > MANY:
        return [
            f"{SIGN.strip()} The grid fails at {len(places)} of {len(run.settings)} settings: "
            f"{', '.join(places)}. Another of its networks does better there than the one trained "
            f"for the setting. {silence}."
        ]
    return [
        f"{SIGN.strip()} The grid fails at {place}. {silence}: {why}."
        for place, why in zip(places, failing["why"], strict=True)
    ]


def _unlike(run: Run) -> Iterator[str]:
    if tuned := tuned_alone(run):
        yield (
            f"The levers of {_listed(run, tuned)} were found by trying variants, and the fixed "
            "grid has none: measure a tuned grid beside it, which has the same right."
        )


def _design(run: Run) -> Iterator[str]:
    if (first := home(run)) is not run:
        yield f"One of a study: what is lost at its other sizes, too, is in {first.folder}."
    for name, constant in run.constant.items():
        yield f"The coefficient of {term_label(run, name)} is {constant:g} at every setting."
    count, seeds = examples(run), len(run.seeds)
    if seeds == 1:
        yield (
            f"One seed, {count} examples: intervals are over examples only (BCa), and nothing "
            "here says how much another seed would change."
        )
    elif seeds < ENOUGH_SEEDS:
        yield (
            f"{seeds} seeds, {count} examples: means are over both, intervals over examples only "
            "(BCa, the seeds averaged), for so few seeds say little of the next."
        )
    else:
        yield (
            f"{seeds} seeds, {count} examples: means and intervals are over both (hierarchical "
            "bootstrap)."
        )
    if (splits := set(run.measured["split"])) != {"test"}:
        yield f"Measured on the {' and '.join(sorted(splits))} split: to choose by only."
    if run.measured.groupby(["method", "setting"])["seed"].nunique().nunique() > 1:
        yield "Not every method has every seed yet: the seeds are unequal in number."
    for name in run.measures.keys() - set(run.records["measure"]):
        yield (
            f"{one_line(run.measures[name].label)} was not measured (for want of its weights, or "
            "because the run is unfinished): its column is empty."
        )
    if outside := sorted({s for sentences in run.measured["outside"] for s in sentences}):
        yield f"† outside the range of coefficients trained for: {'; '.join(outside)}."


def _looks(run: Run) -> Iterator[str]:
    if run.looks is None:
        return
    seeds, most = len(run.seeds), len(run.looks.seeds)
    looks, level = run.looks.number(seeds), 200 * tail(run, seeds)
    count = f"{looks} look{'s' * (looks != 1)} of at most {run.looks.most}"
    yield (
        f"Verdicts were looked at after each seed from the third ({count}, `run --decide`). "
        f"So that all looks together err no more than {100 * LEVEL:g} % of the time, the level is "
        "spent over them by Pocock's spending function (Lan and DeMets 1983): of "
        f"{_listed(run, run.under_test)}, the shares, the gaps per setting and the verdicts at "
        f"{seeds} of {most} seeds have Student's intervals of level {level:.2g} %, in place of "
        f"{100 * LEVEL:g} %. All other intervals are as if this were the only look."
    )
    if run.looks.before:
        yield f"{run.looks.before} seeds were there before the number of looks was chosen."
    if run.unplanned:
        yield (
            f"Left out, since the looks were not planned with them: seeds "
            f"{', '.join(map(str, run.unplanned))}. Another results folder counts them."
        )


def _lost(run: Run) -> Iterator[str]:
    gone = run.measured["status"].isin(LOST)
    lost = run.measured[gone]
    for (method, status, why), rows in lost.groupby(["method", "status", "reason"]):
        places = []
        for setting, entries in rows.groupby("setting"):
            seeds = ", ".join(str(seed) for seed in sorted(entries["seed"]))
            places.append(f"{setting_words(run, setting)} (seed {seeds})")
        at_those = run.measured["setting"].isin(rows["setting"]) & (
            run.measured["method"] == method
        )
        some = (at_those & ~gone).any()
        yield (
            f"{'‡ ' if some else ''}{status.capitalize()}: {run.label(method)} at "
            + ", ".join(places)
            + (f": {one_line(why)}" if why else "")
            + ("; the numbers are the other seeds'." if some else ".")
        )


def _without_a_pair(run: Run, gaps: pd.DataFrame) -> Iterator[str]:
    if run.reference is None:
        yield "There is no fixed grid in this run: no gaps and no ratios can be given."
        return
    for method, part in gaps.groupby("method"):
        if lost := part.groupby("setting")["unpaired"].max().sum():
            yield (
                f"{run.label(method)}: {int(lost)} measured examples have no partner in the fixed "
                "grid (same setting, seed and example) and are in no gap."
            )


def _without_a_front(run: Run, overall: pd.DataFrame) -> Iterator[str]:
    refused = overall[(overall["bd_reason"] != "") & overall["bd_rate"].notna().any()]
    for reason, rows in refused.groupby("bd_reason"):
        yield f"No BD-rate for {_listed(run, rows['method'])}: {reason}."


def _costs(run: Run, saving: pd.DataFrame) -> Iterator[str]:
    untimed: list[str] = []
    of_grid = saving.loc[saving["method"] == run.reference, "settings"]
    for row in saving.to_dict("records"):
        label = run.label(row["method"])
        if row["missing_cells"]:
            yield (
                f"{label}: {row['missing_cells']} of its trainings have no done.json in this "
                "folder, so its cost is unknown."
            )
        elif math.isnan(row["flops"]):
            yield (
                f"{label}: a training (diverged, as a rule) left no ledger, so the cost is unknown."
            )
        elif math.isnan(row["seconds"]):
            untimed.append(row["method"])
        if len(of_grid) and row["settings"] != of_grid.iloc[0]:
            yield (
                f"{label} was measured at {row['settings']} settings and the fixed grid at "
                f"{of_grid.iloc[0]}: their costs are not for the same work."
            )
    if untimed:
        yield (
            f"No seconds are quoted of {_listed(run, untimed)}: a training shared its device with "
            "another or was not timed."
        )


def _devices(run: Run, saving: pd.DataFrame) -> Iterator[str]:
    devices = saving.loc[saving["method"] == ALL, "device"].iloc[0]
    names, threads = _processors(devices)
    if len(names) > 1:
        yield f"Trained on different devices ({devices}): seconds are compared on one only."
    elif len(threads) > 1:
        counts = " and ".join(sorted(threads, key=int))
        yield (
            f"Trained with {counts} threads a network ({one_line(names.pop())}): seconds are "
            "compared between networks of as many threads only."
        )
    if run.measured.loc[run.measured["status"] == "done", "answering_flops"].isna().any():
        yield (
            "What a method does to answer for a setting (a search, say) was not counted in all of "
            "these measurements: then it is in no cost, and neither is the tuning of its levers."
        )
    yield from _unlike(run)
    kinds = sorted({kind for kind in run.measured["device"] if kind})
    if len(kinds) > 1:
        yield (
            f"Measured on different kinds of device ({one_line(', '.join(kinds))}): coded bytes of "
            "one may differ from those of the other."
        )


def _processors(devices: str) -> tuple[set[str], set[str]]:
    """The different machines in a list of device names, and the different numbers of threads."""
    listed = [one.strip() for each in devices.split(";") for one in each.split(", then ")]
    matches = [re.fullmatch(r"(.*), (\d+) threads", one) for one in listed]
    names = {match[1] if match else one for match, one in zip(matches, listed, strict=True)}
    return names, {match[2] for match in matches if match}


def _left_out(run: Run) -> Iterator[str]:
    if run.damaged:
        yield (
            f"{len(run.damaged)} measurements are not what was written and were left out: "
            f"{one_line(run.damaged[0])}."
        )
    if run.superseded:
        yield (
            f"{run.superseded} older measurements of changed methods lie in the folder and were "
            "left out: the newest count."
        )
    if run.not_finite:
        yield f"{run.not_finite} measured values are not finite and in no mean."
    if run.partial:
        labels = "; ".join(one_line(run.measures[name].label) for name in run.partial)
        yield f"Not every example has these, and their means are over those that do: {labels}."


def _infinite(run: Run) -> Iterator[str]:
    for measure, rows in run.infinite.groupby("measure"):
        counts = rows.groupby("method").size()
        by_method = ", ".join(f"{run.label(method)} {n}" for method, n in counts.items())
        yield (
            f"{one_line(run.measures[measure].label)} is infinite in some rows ({by_method}): "
            "each mean is of the others (how many are missing stands beside it), gaps are of rows "
            "that both sides have, and fronts of rows that all have."
        )


def _failing(run: Run) -> Iterator[str]:
    if settings := failing(run):
        places = ", ".join(setting_words(run, setting) for setting in settings)
        yield (
            f"§ the reference fails at {places}: another network of the grid is better there than "
            "the one trained for it, beyond the margin; no method is judged there."
        )


def _listed(run: Run, methods: Iterable[str]) -> str:
    return ", ".join(map(run.label, methods))

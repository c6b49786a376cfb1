"""The paper's claims as hypotheses, each with its test and an answer.

    claims(run)             one row per claim and method under test

Dosovitskiy & Djolonga (ICLR 2020) and their article say of a network told its coefficients, against
one network per setting:

    small       small conditioned networks lose
    shrinks     the loss shrinks with width and ends at none
    cheaper     one network costs less than the grid at the same quality
    covers      the knob covers the range, between the grid's points too
    several     it holds for several coefficients

A claim is made of parts, each an interval or a verdict against a limit that is set here or by the
task, before any result. It is supported where every part holds (each at 2.5 %, one-sided, as the
verdicts; no correction is needed for several that must all hold), refuted where one does not (its
p-value times the number of parts), and undecided else. Over the table Holm's correction is made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.report.answers import stats, studies
from bench.report.answers.compare import overall, quality_compute
from bench.report.answers.knob import held_out, knob, reached
from bench.report.answers.lengths import least_compute, needed
from bench.report.answers.reference import LOSS, Yardstick, loss_words, margin_of
from bench.report.answers.verdict import MIXED, MOST_SEEDS, POWER
from bench.report.load import Run
from bench.report.once import once
from bench.report.text import estimate, ratio

CLAIMS = {
    "small": "small conditioned networks lose",
    "shrinks": "the loss shrinks with width and ends at none",
    "cheaper": "one network costs less than the grid at the same quality",
    "covers": "the knob covers the range, between the grid's points too",
    "several": "it holds for several coefficients",
}
NO_LOSS, LOSS_LEFT = ("equal", "better"), ("worse", MIXED)
WIDTHS = "needs --widths .5,1,2"
GROUPS = 10  # of examples, for the jackknife
COLUMNS = ["method", "claim", "answer", "needs", "seeds_needed", "doubt", "stands", "numbers"]


class Part(NamedTuple):
    """holds: None where it is undecided. doubt: the p-value of what is said; NaN without one.
    seeds: with how many it would be decided. why: it cannot be, at any number of seeds."""

    words: str
    holds: bool | None
    doubt: float = math.nan
    seeds: float = math.nan
    why: str = ""


@once
def claims(run: Run) -> pd.DataFrame:
    """One row per claim and method under test, in the home run of a study or a run by itself.

    answer: "supported", "refuted", "undecided" or "not asked". needs: what would answer it: the
    option that was not given, or why seeds would not. seeds_needed: with how many seeds it would
    be decided with a power of 80 %. doubt: its p-value; stands: after Holm's correction over the
    table. numbers: what is behind it, plain text.

    Claims that were not asked are there beside others of a study. Empty without a reference, and
    with fewer than three seeds where there is no study.
    """
    studied = bool(studies.points(run))
    enough = len(run.seeds) >= stats.ENOUGH_SEEDS
    rows: list[dict[str, Any]] = []
    if Yardstick.of(run) is not None and studies.home(run) is run and (enough or studied):
        for method in run.under_test:
            found = _claims(run, method)
            rows += [
                {"method": method, "claim": name, **_answer(parts)}
                for name, parts in found.items()
                if studied or not isinstance(parts, str)
            ]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    decided = frame["answer"].isin(["supported", "refuted"])
    return frame.assign(stands=decided & stats.holm(frame["doubt"].astype(float)))


def _claims(run: Run, method: str) -> dict[str, list[Part] | str]:
    """The parts of every claim; what it needs, where it was not asked."""
    line = next(iter(studies.lines(run, "width")), [])
    line = [point for point in line if method in point.run.methods]
    found: dict[str, list[Part] | str] = dict.fromkeys(CLAIMS, WIDTHS)
    if len(line) > 1:
        found |= {"small": _small(line, method), "shrinks": _shrinks(run, line, method)}
    return found | {
        "cheaper": _cheaper(run, method),
        "covers": [_covers(run, method), _between(run, method)],
        "several": _several_counts(run, method),
    }


def _answer(parts: list[Part] | str) -> dict[str, Any]:
    """Of the parts together; see the top of this file."""
    if isinstance(parts, str):
        return {"answer": "not asked", "needs": parts, "numbers": ""}
    numbers = "; ".join(part.words for part in parts if part.words)
    row = {"answer": "undecided", "needs": "", "numbers": numbers}
    against = [part.doubt for part in parts if part.holds is False]
    if against:
        doubt = min(1.0, len(parts) * float(np.min(against)))
        return row | {"answer": "refuted", "doubt": doubt}
    if all(part.holds for part in parts):
        return row | {"answer": "supported", "doubt": max(part.doubt for part in parts)}
    open_ = [part for part in parts if part.holds is None]
    why = next((part.why for part in open_ if part.why), "")
    seeds = max((part.seeds for part in open_ if part.seeds > 0), default=math.nan)
    return row | {"needs": why, "seeds_needed": seeds}


# Parts ------------------------------------------------------------------------------------------


def beyond(interval: stats.Interval, limit: float, words: str, *, above: bool) -> Part:
    """Whether what the interval is of lies above the limit, or below it."""
    if not math.isfinite(interval.low):
        why = "needs three seeds" if interval.seeds < stats.ENOUGH_SEEDS else interval.method
        return Part(words, None, why=why)
    ends = {name: getattr(interval, name) - limit for name in ("estimate", "low", "high")}
    moved = dataclasses.replace(interval, **ends)
    if moved.low > 0 or moved.high < 0 or moved.low == moved.high:
        return Part(words, (moved.estimate > 0) == above, stats.doubt(moved, 0.0))
    return Part(words, None, seeds=stats.seeds_to_settle(moved, 0.0, POWER, MOST_SEEDS))


def _quality(run: Run, method: str, where: str, row: dict[str, Any] | None = None) -> Part:
    """Whether nothing is lost: the verdict on the share of the benefit lost."""
    row = row or overall(run).set_index("method").loc[method].to_dict()
    verdict = str(row["verdict"])
    share = [100 * row[f"share_{part}"] for part in ("mean", "low", "high")]
    lost, _, ends = estimate(share[0], share[1:], 0).partition(" ")
    words = f"{where}: {f'{lost} % {ends}'.strip()} of the benefit lost"
    words += f", {verdict}" if verdict in (*NO_LOSS, *LOSS_LEFT, "undecided") else ""
    if verdict in (*NO_LOSS, *LOSS_LEFT):
        doubt = stats.TAIL if verdict == MIXED else row["doubt"]  # after a correction of its own
        return Part(words, verdict in NO_LOSS, doubt)
    why = "needs three seeds" if verdict.endswith("orientation") else verdict or "not measured"
    return Part(words, None, seeds=row["seeds_needed"], why=why if verdict != "undecided" else "")


def _small(line: list[studies.Point], method: str) -> list[Part]:
    """At the smallest width, more than the margin of the benefit is lost."""
    first = line[0]
    part = _quality(first.run, method, f"{first.width:g}× width")
    if part.words.endswith(MIXED):
        return [part._replace(holds=None, why="no loss on average, but at some settings")]
    return [part._replace(holds=None if part.holds is None else not part.holds)]


def _shrinks(run: Run, line: list[studies.Point], method: str) -> list[Part]:
    """The slope of the share lost per doubling is below nothing, and at the largest width the
    verdict is no loss; undecided where nothing is lost at the smallest: what is not there does not
    shrink."""
    first, last = line[0], line[-1]
    end = _quality(last.run, method, f"{last.width:g}× width")
    slope = studies.slope_of(run, line, "width", method, "lost")
    if slope is None:
        return [Part("", None, why="no setting with a benefit at every width"), end]
    ends = (100 * slope.low, 100 * slope.high)
    change, _, bounds = estimate(100 * slope.estimate, ends, 1, sign=True).partition(" ")
    words = f"{f'{change} points {bounds}'.strip()} per doubling"
    if _quality(first.run, method, "").holds:
        why = f"nothing is lost at {first.width:g}× width: go narrower"
        end = end._replace(holds=None, seeds=math.nan) if end.holds else end
        return [Part(words, None, why=why), end]
    return [beyond(slope, 0.0, words, above=False), end]


def _cheaper(run: Run, method: str) -> list[Part]:
    """With lengths: the compute at which the grid's curve comes down to the method's loss, over the
    method's, is above one. Without: no loss by the verdict, and fewer FLOPs."""
    saved = same_loss_ratio(run, method)
    if saved is not None and math.isnan(saved.estimate):
        return [Part("", None, why="the grid's lengths do not reach its loss in every seed")]
    if saved is not None:
        low, middle, high = (2**end for end in (saved.low, saved.estimate, saved.high))
        words = f"for its loss the grid takes {ratio(middle)} its compute"
        words += f" [{ratio(low)}, {ratio(high)}]" if math.isfinite(low) else ""
        return [beyond(saved, 0.0, words, above=True)]
    row = overall(run).set_index("method").loc[method]
    cost = row["flops_ratio"]
    words = f"{ratio(cost)} the grid's FLOPs for {len(run.settings)} settings"
    known = Part(words, bool(cost < 1), 0.0) if cost > 0 else Part("", None, why="no costs")
    return [_quality(run, method, f"over {row['share_settings']} of them"), known][::-1]


def same_loss_ratio(run: Run, method: str) -> stats.Interval | None:
    """log2 of what `lengths.same_loss` gives as a ratio, with Student's interval over the seeds,
    each with its own curves; None where the grid has one length. A loss beyond an end of the grid's
    curve bounds the ratio: it counts where the bound says enough, and is NaN where it does not."""
    line = next(iter(studies.lines(run, "share")), [])
    base = next((point for point in line if point.run is run), None)
    quality = quality_compute(run).set_index(["method", "share"])["flops"]
    if base is None or run.reference is None or not quality.gt(0).all():
        return None
    curves = [studies.gaps_by_seed(point, base, run.reference) for point in line]
    trained = [point for point in line if method in point.run.methods]
    of_method = [studies.gaps_by_seed(point, base, method) for point in trained]
    costs, own_costs = (
        [float(quality.get((name, point.share), math.nan)) for point in points]
        for name, points in ((run.reference, line), (method, trained))
    )
    levels, values = studies.gaps_by_seed(base, base, method), []
    for seed in sorted(set(levels).intersection(*curves, *of_method)):
        curve = [(cost, at[seed]) for cost, at in zip(costs, curves, strict=True)]
        own_curve = [(cost, at[seed]) for cost, at in zip(own_costs, of_method, strict=True)]
        enough, own = needed(curve, levels[seed]), least_compute(own_curve, levels[seed])
        if math.isnan(enough):
            above = levels[seed] > curve[0][1]  # the shortest is better already
            enough = costs[0] if above else costs[-1]
            enough = enough if (enough < own) == above else math.nan
        values.append(math.log2(enough / own))
    return studies.student(np.array(values)) if values else None


def _covers(run: Run, method: str) -> Part:
    """All but `margin_share` of the grid's range of the weighted terms."""
    values = []
    for _, records in run.records.groupby("seed"):
        at = reached(run, records)
        values.append(knob(run, at[method], at[run.reference or ""])["coverage"])
    if not any(map(math.isfinite, values)):
        return Part("", None, why="the grid has no range")
    found = studies.student(np.array([value for value in values if math.isfinite(value)]))
    bounds = (100 * found.low, 100 * found.high)
    words, _, ends = estimate(100 * found.estimate, bounds, 0).partition(" ")
    limit = 1 - run.margin_share
    return beyond(found, limit, f"{f'{words} % {ends}'.strip()} of the range covered", above=True)


def _between(run: Run, method: str) -> Part:
    """At settings between the compared ones the loss exceeds what its neighbours promise by less
    than the loss's own margin: delete-a-group jackknife over the examples, for one seed has them.
    """
    names = ("records", "swept_records")
    frames = {name: getattr(run, name) for name in names}
    frames = {name: rows[rows["method"] == method] for name, rows in frames.items()}
    value, margin = held_out(run, method), margin_of(run.measures[LOSS])
    if math.isnan(value):
        return Part("", None, why="nothing was measured between the grid's points")
    if math.isnan(margin):
        return Part("", None, why="the loss has no margin of its own")
    examples = sorted(frames["swept_records"]["example"].unique())
    count = min(GROUPS, len(examples))
    left = []
    for group in range(count if count > 1 else 0):
        kept = [example for place, example in enumerate(examples) if place % count != group]
        parts = {name: rows[rows["example"].isin(kept)] for name, rows in frames.items()}
        left.append(held_out(dataclasses.replace(run, **parts), method))
    square = (count - 1) * float(np.var(left)) if left else math.nan
    half = stats.student_half_width([(square, count - 1)]) if left else math.nan
    found = stats.Interval(
        estimate=value, low=value - half, high=value + half, method="one example", examples=count,
        seeds=stats.ENOUGH_SEEDS, of_examples=np.nan_to_num(square),
    )  # fmt: skip
    words = f"between, {loss_words(run, value, (found.low, found.high))} over the neighbours'"
    part = beyond(found, margin, words, above=False)
    return part._replace(seeds=math.nan, why=part.why or "examples, not seeds, would decide")


def _several_counts(run: Run, method: str) -> list[Part] | str:
    """The verdict at every number of coefficients above one of a study, over all of its settings;
    else `_several` of the run itself."""
    line = next(iter(studies.lines(run, "coefficients")), [])
    more = [p for p in line if p.coefficients > 1 and method in p.run.methods]
    parts = [_quality(p.run, method, f"{p.coefficients} coefficients") for p in more]
    return parts or _several(run, method)


def _several(run: Run, method: str) -> list[Part] | str:
    """No loss, as in the verdicts, over the settings at which two coefficients or more are off the
    middle of their ranges."""
    yard = Yardstick.of(run)
    if len(run.axes) < 2 or yard is None:
        return "one coefficient moves"
    mixed = [setting for setting in yard.counted(method) if len(list(_off(run, setting))) > 1]
    if not mixed:
        return "needs --design random or grid"
    settings = [setting for setting in mixed if setting in yard.beneficial]
    if not settings:
        return [Part("", None, why="no benefit to lose at such settings")]
    share = yard.share(method, settings)
    verdict = stats.verdict(share, run.margin_share, "lower")
    row: dict[str, Any] = {
        **share.columns("share_mean", "share_"),
        "verdict": verdict if share.seeds >= stats.ENOUGH_SEEDS else "orientation",
        "doubt": stats.doubt(share, run.margin_share),
        "seeds_needed": stats.seeds_to_settle(share, run.margin_share, POWER, MOST_SEEDS),
    }
    return [_quality(run, method, f"over {len(settings)} mixed settings", row)]


def _off(run: Run, setting: str) -> Iterator[str]:
    """The coefficients that are off the middle, by more than rounding."""
    for axis, value in zip(run.axes, run.values(setting), strict=True):
        place = math.log(value / axis.low) / math.log(axis.high / axis.low)
        if abs(place - 0.5) > 0.02:
            yield axis.name

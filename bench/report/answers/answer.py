"""The answer of a run in a row or two: the network told its coefficients as published, and tuned.

    answers(run)            what the one table of a whole report shows, a row per network

Like is compared with like: the network as published with the fixed grid as it is, a tuned one with
the tuned grid, where there is one.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bench.report.answers.compare import overall
from bench.report.answers.costs import break_evens
from bench.report.answers.lengths import trained_out
from bench.report.answers.reference import Yardstick, setting_words
from bench.report.answers.verdict import FAILS, NO_BENEFIT, ORIENTATION, judge
from bench.report.load import Run
from bench.report.once import once

NO_VERDICT = "no verdict"
PUBLISHED, BOTH_TUNED, TUNED_ALONE = "as published", "both tuned", "tuned alone"
FEW = 2  # settings that are listed

COLUMNS = [
    *("task", "title", "preset", "method", "compared", "answer", "why", "stands"),
    *("share_mean", "share_low", "share_high", "share_worst", "share_worst_setting"),
    *("share_settings", "settings", "seeds", "seeds_needed", "flops_ratio"),
    *("break_even", "break_even_tuned", "trained_out"),
]


@once
def answers(run: Run) -> pd.DataFrame:
    """One row for the network as published and one for a tuned one, of those that were measured;
    where there is none of either, a row that says so.

    compared: what is compared with what, in words. answer: "equal", "better", "worse", "mixed",
        "undecided" or "no verdict"; why: of "no verdict", in a few words. stands: whether it
        survives Holm's correction over the methods.
    share_*: of the benefit lost, mean over `share_settings` of `settings` settings, against the
        grid it is compared with. flops_ratio: to the fixed grid's.
    break_even_tuned: with the search for its levers counted; NaN where that is not known.
    trained_out: of that grid, 1.0 or 0.0; NaN where it is not known.
    """
    frame = pd.DataFrame([_row(run, method) for method in _asked(run) or [""]])
    return frame.reindex(columns=COLUMNS)


def _asked(run: Run) -> list[str]:
    """The network as published, and the tuned one."""
    tuned = [method for method in run.under_test if run.is_tuned(method)]
    return [each[0] for each in ([m for m in run.under_test if m not in tuned], tuned) if each]


def yardstick(run: Run, method: str) -> Yardstick | None:
    """The grid that a method is compared with."""
    tuned = Yardstick.tuned(run) if method and run.is_tuned(method) else None
    return tuned or Yardstick.of(run)


def _row(run: Run, method: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task": run.task,
        "title": run.title,
        "preset": run.preset,
        "method": method,
    }
    row |= {"answer": NO_VERDICT, "settings": len(run.settings), "seeds": len(run.seeds)}
    yard = yardstick(run, method)
    if not method:
        return row | {"why": "no network told its coefficients"}
    tuned = run.is_tuned(method)
    against = yard is not None and yard.reference == run.tuned_reference
    fair = yard is not None and run.is_tuned(yard.reference)
    row["compared"] = (BOTH_TUNED if fair else TUNED_ALONE) if tuned else PUBLISHED
    of_all = overall(run).set_index("method").loc[method].to_dict()
    judged = judge(yard, method) if against else of_all
    row |= {name: judged[name] for name in COLUMNS if name in judged}
    frame = break_evens(run).query("unit == 'flops'").set_index("method")
    return row | {
        **_answered(run, yard, method, str(judged["verdict"])),
        "stands": of_all["stands_tuned" if against else "stands"],
        "seeds": yard.seeds(method) if yard else len(run.seeds),
        "flops_ratio": of_all["flops_ratio"],
        "break_even": of_all["break_even"],
        "break_even_tuned": frame["settings_tuned"].get(method, math.nan),
        "trained_out": grid_trained_out(run, yard.reference) if yard else math.nan,
    }


def _answered(run: Run, yard: Yardstick | None, method: str, verdict: str) -> dict[str, str]:
    """The answer, and why there is none."""
    why = ""
    if yard is None:
        why = "there is no fixed grid"
    elif not yard.measured(method):
        lost = run.measured.loc[run.measured["method"] == method, "status"].ne("done").all()
        why = "it failed" if lost else "no setting in common with the grid"
    elif verdict.startswith(FAILS):
        why = f"the grid fails at {places(run, yard.failing)}"
    elif verdict == NO_BENEFIT:
        why = "one network does as well"
    elif verdict in ORIENTATION.values():
        why = verdict.partition(":")[0]
    elif not verdict:
        why = "it is the grid's own network everywhere"
    return {"answer": NO_VERDICT if why else verdict, "why": why}


def places(run: Run, settings: list[str]) -> str:
    """`β = 8` or `3 of 5 settings`."""
    if len(settings) > FEW:
        return f"{len(settings)} of {len(run.settings)} settings"
    return " and ".join(setting_words(run, setting) for setting in settings)


def grid_trained_out(run: Run, reference: str) -> float:
    """Whether half of the training would have done for every network of a grid of which that is
    known: 1.0 or 0.0; 0.0, too, where a network is beaten at its own setting, which has not learnt
    what it was made for; NaN where nothing is known."""
    halved = trained_out(run)
    known = halved.loc[halved["method"] == reference, "trained_out"].dropna()
    yard = Yardstick.tuned(run) if reference == run.tuned_reference else Yardstick.of(run)
    if yard is not None and yard.failing and not (len(known) and known.all()):
        return 0.0
    return float(known.all()) if len(known) else math.nan

"""`run --decide`: one seed after another, until the verdict on every network under test is decided,
the budget ends, or as many seeds are there as were to be looked at.

    asked = decide.asked(options)                       None without --decide
    run = decide.Deciding(asked, root, experiments, device)
    run.complete(stop)

A look is a report's verdict of what lies in the folder, at the level that is left to it
(`bench/report/answers/spending.py`); which seeds are looked at, `bench/run/looks.py` keeps there.
"""

from __future__ import annotations

import math
import re
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.report.answers.reference import Yardstick
from bench.report.answers.verdict import judge, settled
from bench.report.load import Run as Reported
from bench.report.load import load_results
from bench.report.text import estimate, one_line
from bench.run import looks, runner
from bench.run.board import clock
from bench.run.plan import Experiment
from bench.run.schedule import Stop

SEEDS = 20  # at most, where nobody says
Key = tuple[str, str, str]  # task, preset, experiment
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """most: seeds; None takes what the folder is being looked at with, or else `SEEDS`. budget: in
    seconds, from now. ordered: the experiments' seeds were asked for, and are not a preset's."""

    most: int | None = None
    budget: float = math.inf
    ordered: bool = False
    dry: bool = False


def asked(options: Namespace) -> Asked | None:
    """What the options say; ValueError where they cannot be."""
    if not options.decide:
        if given := [f"--{name}" for name in ("most", "budget") if vars(options)[name] is not None]:
            raise ValueError(f"{' and '.join(given)}: of --decide, which is missing")
        return None
    if options.again:
        raise ValueError("--decide goes on from what is there: leave out --again, or name an --out")
    most = options.most
    if most is not None and not looks.FIRST <= most <= looks.MOST:
        raise ValueError(
            f"--most {most}: from {looks.FIRST} to {looks.MOST} seeds can be looked at"
        )
    return Asked(
        most=most, budget=seconds(options.budget), ordered=bool(options.seeds), dry=options.dry
    )


def seconds(text: str | None) -> float:
    """`90s`, `30m`, `2h` or `1.5d` in seconds, inf for None. ValueError for anything else."""
    if text is None:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or not float(found[1]):
        raise ValueError(f"--budget {text}: give a time with its unit, as in 90s, 30m, 2h or 1d")
    return float(found[1]) * UNITS[found[2]]


class Deciding(runner.Run):
    """A run whose experiments gain seeds. At first they have those that were begun, three at least;
    where all of these are there and something is undecided, one more."""

    def __init__(
        self, asked: Asked, root: Path, experiments: Sequence[Experiment], *where: Any
    ) -> None:
        """where: as `runner.Run` takes it. ValueError where nothing could be decided, or where the
        folder is being looked at with other seeds."""
        super().__init__(root, experiments, *where)
        self.said: dict[Key, list[int]] = {}  # the seeds of the last look that was printed
        self.asked, self.end = asked, time.monotonic() + asked.budget
        there = {run.key: run.seeds for run in load_results(self.store.root).runs}
        self.looks = {_key(each): self._planned(each, there) for each in experiments}
        reported = self._reported()
        self.adding = 1 if reported else looks.FIRST  # seeds that the next batch adds, for its time
        self.experiments = [self._begun(each, reported.get(_key(each))) for each in experiments]
        if not self.missing_cells() and not self.record_jobs():
            self.experiments = self._after_a_look(say=False)

    def _planned(self, planned: Experiment, there: dict[Key, list[int]]) -> looks.Looks:
        """With which seeds it is looked at: those of the folder, or else those asked for and the
        ones that follow."""
        label, kept = planned.task.name, looks.stored(self.store.root, _key(planned))
        if not _has_grid(planned) or not _under_test(planned):
            raise ValueError(
                f"{label}: --decide needs the grid and a network told its coefficients, as in "
                "--methods fixed_grid,yoto"
            )
        most, given = self.asked.most, planned.seeds
        if kept is not None:
            other = self.asked.ordered and kept.seeds[: len(given)] != given
            if other or most not in (None, len(kept.seeds)):
                raise ValueError(looks.refusal(self.store.root, kept))
            return kept
        if most is not None and most < len(given) and self.asked.ordered:
            raise ValueError(f"--most {most}: --seeds has {len(given)}")
        following = range(max(given) + 1, max(given) + 1 + looks.MOST)
        seeds = (*given, *following)[: most or max(SEEDS, min(len(given), looks.MOST))]
        before = len({*seeds} & {*there.get(_key(planned), [])})
        task, preset, experiment = _key(planned)
        return looks.Looks(
            task=task, preset=preset, experiment=experiment, seeds=seeds,
            before=before if before >= looks.FIRST else 0,
        )  # fmt: skip

    def _begun(self, planned: Experiment, run: Reported | None) -> Experiment:
        """With the seeds up to the last of which something was measured."""
        seeds, there = self.looks[_key(planned)].seeds, run.seeds if run else []
        count = max((place for place, seed in enumerate(seeds, 1) if seed in there), default=0)
        return replace(planned, seeds=seeds[: max(count, looks.FIRST)])

    def _reported(self) -> dict[Key, Reported]:
        """What this folder has of the experiments of this run, as a report looks at it."""
        results = load_results(self.store.root)
        results = replace(results, looks=results.looks | self.looks)
        return {run.key: run for run in results.runs if run.key in self.looks}

    def _after_a_look(self, *, say: bool) -> list[Experiment]:
        """The experiments, with one more seed where a verdict is open and another look planned."""
        if not self.asked.dry:
            for planned in self.experiments:
                looks.fix(self.store.root, self.looks[_key(planned)])
        reported, grown = self._reported(), []
        for planned in self.experiments:
            run, every, more = reported.get(_key(planned)), self.looks[_key(planned)].seeds, False
            yard = Yardstick.of(run) if run else None
            for method in _under_test(planned):
                row = judge(yard, method)
                more = more or not settled(yard, method, row["verdict"], len(every))
                if say and run and self.said.get(run.key) != run.seeds:
                    print(_said(run, method, row))
            if say and run:
                self.said[run.key] = run.seeds
            grown.append(replace(planned, seeds=every[: len(planned.seeds) + more]))
        return grown

    def complete(self, stop: Stop) -> bool:
        """Train, measure and look until all is decided, or cannot be any more, which is printed;
        False where a stop was asked for."""
        try:
            with self.keeping():
                return self._until_decided(stop)
        finally:
            self.save_config()  # of the seeds that were reached

    def _until_decided(self, stop: Stop) -> bool:
        while True:
            begun, failed = time.monotonic(), len(self.failures)
            if not super().complete(lambda: stop() or time.monotonic() > self.end):
                if stop():
                    return False
                if self.missing_cells() or self.record_jobs():
                    print("the budget ends within a seed: what is done is kept, to be gone on from")
                    return True
            if len(self.failures) > failed:
                return True
            took, self.adding = (time.monotonic() - begun) / self.adding, 1
            grown = self._after_a_look(say=True)
            if [each.seeds for each in grown] == [each.seeds for each in self.experiments]:
                return True
            if time.monotonic() + took > self.end:
                print(f"no seed is added: it would take {clock(took)}, and the budget ends before")
                return True
            self.experiments = grown


def _key(planned: Experiment) -> Key:
    return planned.task.name, planned.preset, planned.id


def _under_test(planned: Experiment) -> list[str]:
    return [label for label, method in planned.methods.items() if method.role == "under test"]


def _has_grid(planned: Experiment) -> bool:
    """Whether there is a reference, with its fields as they are by default."""
    plain = {label: m for label, m in planned.methods.items() if "[" not in label and not m.tuned}
    return any(method.role == "reference" for method in plain.values())


def _said(run: Reported, method: str, row: dict[str, Any]) -> str:
    """`toy, quick, 4 seeds (look 2 of at most 18): YOTO loses 12 % [−3, 27] of the benefit:
    undecided, about 7 seeds would settle it`."""
    assert run.looks is not None
    where = f"{one_line(run.task)}, {one_line(run.preset)}, {len(run.seeds)} seeds"
    look = f"look {run.looks.number(len(run.seeds))} of at most {run.looks.most}"
    mean, *ends = (100 * row[f"share_{part}"] for part in ("mean", "low", "high"))
    size, _, bounds = estimate(mean, ends, 0).partition(" ")
    share = "" if math.isnan(mean) else f"loses {f'{size} % {bounds}'.strip()}: "
    needed = row["seeds_needed"]
    more = f", about {needed:.0f} seeds would settle it" if math.isfinite(needed) else ""
    return f"{where} ({look}): {run.label(method)} {share}{row['verdict'] or 'not measured'}{more}"

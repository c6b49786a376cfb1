"""What the page's sliders move through: every measured setting of every method, and beside it the
fixed network that was trained nearest to it.

    knob = knob_of(report)                      settings, numbers, gaps; pictures as their files
    shown = knob.data(Previews.fitting(knob.paths, room))       the same as JSON for the script
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image, features

from bench.report.answers.reference import LOSS, failing, in_percent
from bench.report.appearance import looks
from bench.report.headings import term_label
from bench.report.load import Run
from bench.report.pictures import opened, sample_of
from bench.report.rendering import data_uri
from bench.report.sections import Built
from bench.report.tables import main_measures
from bench.report.text import estimate, measure_label, one_line
from bench.run.records import WHOLE

SIDE = 384  # pixels of a picture shown: one to one on a wide screen
SMALL = 12_000  # bytes below which a picture goes in as it is
LADDER = ((SIDE, 90), (SIDE, 80), (SIDE, 65), (256, 65))  # side and quality, until all fit
TINY = 1e-300  # stands for zero where a logarithm is taken: a setting given by hand may hold one

# Pictures ---------------------------------------------------------------------------------------


class Previews(NamedTuple):
    """Pictures as data for the page, by the file they come from."""

    sources: dict[Path, str]
    side: int

    @classmethod
    def fitting(cls, paths: Iterable[Path], room: int) -> Previews:
        """As good as `room` bytes allow, which a few of them are tried for."""
        paths = sorted(set(paths))
        tried = paths[:: max(1, len(paths) // 8)]
        for side, quality in LADDER:
            some = sum(len(preview(path, side, quality)) for path in tried)
            if some * len(paths) <= room * len(tried):
                break
        return cls({path: preview(path, side, quality) for path in paths}, side)

    def about(self, paths: Iterable[Path]) -> str:
        """What a reader must know of these."""
        sizes = set()
        for path in paths:
            if not self.sources[path].startswith("data:image/png"):
                with Image.open(path, formats=("PNG",)) as picture:  # decoded for its preview
                    sizes.add(picture.size)
        if not sizes:
            return ""
        listed = ", ".join(f"{width} × {height}" for width, height in sorted(sizes))
        cut = any(max(size) > self.side for size in sizes)
        part = f"the middle {self.side} × {self.side} of " if cut else ""
        return (
            f"Previews: {part}{listed} pixels, recompressed for this page. The numbers are those "
            "of the pictures themselves."
        )


def preview(path: Path, side: int, quality: int) -> str:
    """The middle `side` by `side` pixels, since scaling would hide what a codec does to them; a
    small PNG as it is."""
    picture, data = opened(path), path.read_bytes()
    if len(data) <= SMALL:
        return data_uri("image/png", data)
    width, height = picture.size
    left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
    middle = picture.crop((left, top, min(width, left + side), min(height, top + side)))
    coded = io.BytesIO()
    kind = "webp" if features.check("webp") else "jpeg"
    middle.save(coded, kind, quality=quality, method=2)  # twice as fast as 4, hardly larger
    return data_uri(f"image/{kind}", coded.getvalue())


# Settings ---------------------------------------------------------------------------------------


class Knob(NamedTuple):
    """Everything that the sliders of a run show, or nothing to move; pictures are paths."""

    content: dict[str, Any] | None
    paths: list[Path]

    def data(self, previews: Previews) -> dict[str, Any]:
        """The content as JSON, each different picture in it once."""
        sources = list(dict.fromkeys(previews.sources[path] for path in self.paths))
        places = {source: place for place, source in enumerate(sources)}

        def placed(thing: Any) -> Any:
            if isinstance(thing, Path):
                return places[previews.sources[thing]]
            if isinstance(thing, dict):
                return {key: placed(value) for key, value in thing.items()}
            return [placed(value) for value in thing] if isinstance(thing, list) else thing

        return placed(self.content) | {"pictures": sources, "preview": previews.about(self.paths)}


def knob_of(report: Built) -> Knob:
    """The sliders of a report, without content where no method but the grid was measured."""
    run = report.run
    methods = [method for method in run.methods if method != run.reference]
    if not methods or LOSS not in run.measures:
        return Knob(None, [])
    shown = list(dict.fromkeys([LOSS, *main_measures(run)]))
    used = list(dict.fromkeys([*shown, *(name for front in run.fronts for name in front)]))
    points, marks = _Points(report, used), looks(run)
    first = run.under_test[0] if run.under_test else methods[0]
    content = {
        "axes": [
            {
                "name": term_label(run, a.name),
                "symbol": one_line(a.symbol),
                "low": a.low,
                "high": a.high,
            }
            for a in run.axes
        ],
        "measures": {
            name: {
                "name": one_line(run.measures[name].label),
                "label": measure_label(run.measures[name]),
                "decimals": run.measures[name].digits,
            }
            for name in used
        },
        "shown": shown,
        "fronts": [list(front) for front in run.fronts],
        "rescored": points.linear,
        "grid": points.of(run.reference),
        "methods": [
            {
                "label": run.label(method),
                "colour": marks[method]["color"],
                "marker": marks[method]["marker"],
                "swept": method in set(run.swept["method"]),
                "points": points.of(method),
            }
            for method in methods
        ],
        "first": methods.index(first),
        "start": list(run.centre or run.values(run.settings[len(run.settings) // 2])),
        "original": run.original,
    }
    return Knob(content, points.paths + ([run.original] if run.original is not None else []))


class _Points:
    """The measured settings of a run's methods.

    linear: whether every coefficient's term was measured, so that the loss of a network at other
    coefficients follows from its terms.
    """

    def __init__(self, report: Built, measures: list[str]) -> None:
        self.run: Run = report.run
        self.measures = measures
        self.axes = [axis.name for axis in self.run.axes]
        self.paths: list[Path] = []
        self.failing = set(failing(self.run))
        self.rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
        entries = pd.concat([self.run.measured, self.run.swept]).sort_values("seed", kind="stable")
        for row in entries.to_dict("records"):
            self.rows.setdefault(row["method"], {}).setdefault(row["setting"], []).append(row)

        records = pd.concat([self.run.records, self.run.swept_records])
        self.linear = set(self.axes) <= set(records["measure"])
        records = records[records["measure"].isin([*measures, *self.axes])]
        key = ["method", "setting"]
        totals = records.groupby([*key, "measure", "seed"])["value"].agg(["sum", "count"])
        self.totals = {index: (total, count) for index, total, count in totals.itertuples()}
        single = records[records["example"] != WHOLE]
        self.examples = single.groupby(key)["example"].nunique().to_dict()

        compared = report.comparisons
        compared = compared[compared["measure"].isin(measures) & compared["gap"].notna()]
        self.gaps: dict[tuple[str, str], dict[str, Any]] = {}
        for row in compared.to_dict("records"):
            at = self.gaps.setdefault((row["method"], row["setting"]), {})
            ends = (row["low"], row["high"])
            at[row["measure"]] = self._gap(row["measure"], row["gap"], ends, row["verdict"])

    def of(self, method: str | None) -> list[dict[str, Any]]:
        """One per setting, in the order of coefficients."""
        return (
            [self._point(method, setting) for setting in self._settings(method)] if method else []
        )

    def _settings(self, method: str) -> list[str]:
        return sorted(self.rows[method], key=self.run.values)

    def _point(self, method: str, setting: str) -> dict[str, Any]:
        rows, run = self.rows[method][setting], self.run
        seeds = {row["seed"] for row in rows if row["status"] == "done"}
        kind = "compared" if any(row["kind"] == "method" for row in rows) else "between"
        point: dict[str, Any] = {
            "at": list(run.values(setting)),
            "kind": "outside" if any(row["outside"] for row in rows) else kind,
            **self._measured(method, setting, seeds),
            "fails": setting in self.failing,
            "gaps": self.gaps.get((method, setting), {}),
            "seeds": len(seeds),
            "examples": self.examples.get((method, setting), 0),
        }
        if run.reference not in (None, method):
            point["beside"] = fixed = self._nearest_fixed(setting, seeds)
            losses = [each["numbers"].get(LOSS) for each in (point, fixed)]
            if not fixed["exact"] and self.linear and None not in losses:
                gap = losses[0] - losses[1]
                if in_percent(run.measures[LOSS]) and losses[1]:
                    gap *= 100 / abs(losses[1])
                point["gaps"] = {LOSS: self._gap(LOSS, gap)}  # no interval is claimed for it
        return point

    def _measured(self, method: str, setting: str, seeds: set[int]) -> dict[str, Any]:
        """Numbers over these seeds, and the picture of the first seed that has one."""
        rows = self.rows[method][setting]
        done = [row for row in rows if row["status"] == "done"]
        picture = next(filter(None, (sample_of(row["path"]) for row in done)), None)
        self.paths += [picture] if picture else []
        return {
            "status": "done" if done else rows[0]["status"],
            "numbers": self._means(method, setting, seeds, self.measures),
            "picture": picture,
        }

    def _nearest_fixed(self, setting: str, seeds: set[int]) -> dict[str, Any]:
        """The fixed network trained nearest to `setting`, its loss scored with that setting."""
        grid, at = str(self.run.reference), self.run.values(setting)
        settings = self._settings(grid)
        near = min(settings, key=lambda each: self._distance(at, self.run.values(each)))
        trained_for = self.run.values(near)
        content = self._measured(grid, near, seeds)
        if LOSS in content["numbers"] and self.linear:
            terms = self._means(grid, near, seeds, self.axes)
            content["numbers"][LOSS] += sum(
                (new - old) * terms[name]
                for name, new, old in zip(self.axes, at, trained_for, strict=True)
            )
        place = {"exact": trained_for == at, "index": settings.index(near)}
        return {**content, "at": list(trained_for), **place}

    def _distance(self, one: Sequence[float], other: Sequence[float]) -> float:
        """In units of the logarithmic axes' lengths."""
        return math.hypot(
            *(
                math.log(max(a, TINY) / max(b, TINY)) / math.log(axis.high / axis.low)
                for axis, a, b in zip(self.run.axes, one, other, strict=True)
            )
        )

    def _means(
        self, method: str, setting: str, seeds: set[int], measures: Sequence[str]
    ) -> dict[str, float]:
        """Over examples and these seeds, of what was measured."""
        means = {}
        for measure in measures:
            keys = [(method, setting, measure, seed) for seed in sorted(seeds)]
            parts = [self.totals[key] for key in keys if key in self.totals]
            if parts:
                means[measure] = sum(p[0] for p in parts) / sum(p[1] for p in parts)
        return means

    def _gap(
        self, measure: str, gap: float, ends: tuple[float, ...] = (), verdict: str = ""
    ) -> dict[str, str]:
        style = self.run.measures[measure]
        digits, unit = (1, "%") if in_percent(style) else (style.digits, one_line(style.unit))
        first, _, interval = estimate(gap, ends, digits, sign=True).partition(" ")
        return {"gap": f"{first} {unit}".rstrip(), "ends": interval, "verdict": verdict}

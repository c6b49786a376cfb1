"""From the files of a run to its report: tables, figures and one page that links them.

    built = build(Path("results"))              results/report/<task>-<preset>/report.md
    for table in terminal_tables(built): console.print(table)

Needs only what lies in the results folder: no torch, no task. Other uses of the same files start
at `bench.report.load.load_results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records import write_atomic
from bench.report import tables
from bench.report.load import Results, Run, load_results
from bench.report.text import escape, one_line

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["Built", "Results", "Run", "build", "load_results", "terminal_tables"]


@dataclass(frozen=True, kw_only=True)
class Built:
    """The report of one task, preset and experiment. `paths` has the page first."""

    run: Run
    folder: Path
    paths: list[Path]
    summary: pd.DataFrame
    gaps: pd.DataFrame
    savings: pd.DataFrame
    notes: list[str]


def build(
    root: Path, out: Path | None = None, only: set[tuple[str, str, str]] | None = None
) -> list[Built]:
    """Write the reports of everything in the results folder `root`; [] where nothing is measured.

    `out` defaults to `root/report`; `only` names the (task, preset, experiment)s to write.
    FileNotFoundError and ValueError as `load_results`.
    """
    results = load_results(root)
    out = out if out is not None else root / "report"
    return [
        _build(run, out / run.folder) for run in results.runs if only is None or run.key in only
    ]


def _build(run: Run, folder: Path) -> Built:
    from bench.report.plots import figures

    summary, gaps, savings = tables.summary(run), tables.gaps(run), tables.savings(run)
    notes = tables.notes(run, gaps, savings)
    sheets = {
        "summary": tables.summary_sheet(run, summary, list(run.measures)).markdown(),
        "gaps": tables.gaps_sheet(run, gaps).markdown() if len(gaps) else "",
        "savings": tables.savings_sheet(savings).markdown(),
    }
    heads = {
        "summary": "Mean over examples and seeds at every setting.",
        "gaps": "Method minus fixed grid at the same setting, paired by example and seed: mean ± "
        "standard deviation over examples. The loss is given in per cent of the grid's loss, too.",
        "savings": "What the networks of each method cost for all settings of this run, per seed, "
        "and in brackets the ratio to the fixed grid's. Networks that two methods use count in "
        "full for each. Parameters and bytes are those that must be kept.",
    }
    frames = {"summary": summary, "gaps": gaps, "savings": savings}
    drawn = figures(run, summary, gaps)

    files: dict[str, str | bytes] = {"report.md": _page(run, heads, sheets, drawn, notes)}
    for name, frame in frames.items():
        files[f"{name}.csv"] = frame.to_csv(index=False, lineterminator="\n")
        body = sheets[name] or "There is nothing to compare with.\n"
        files[f"{name}.md"] = "\n".join([heads[name], "", body, *_bullets(notes), ""])
    for name, endings in drawn.items():
        files |= {f"{name}.{ending}": data for ending, data in endings.items()}

    for stale in (
        p for glob in ("front_*", "measures.*", "gap.*", "samples.*") for p in folder.glob(glob)
    ):
        if stale.name not in files:
            stale.unlink()  # a figure of an earlier build that this one no longer has
    for name, content in files.items():
        write_atomic(folder / name, content)
    return Built(
        run=run, folder=folder, paths=[folder / name for name in files], notes=notes, **frames
    )


def terminal_tables(built: Sequence[Built]) -> list[Table]:
    """Two tables per report, at most 100 columns wide: the measures that matter with the loss
    gap, and the costs as ratios to the grid's."""
    found = []
    for report in built:
        run = report.run
        title = f"{one_line(run.task)}, {one_line(run.preset)}: {tables.size_line(run)}"
        measures = tables.main_measures(run)
        if tables.LOSS in run.measures and tables.LOSS not in measures:
            measures.append(tables.LOSS)
        sheet = tables.summary_sheet(run, report.summary, measures, report.gaps)
        found.append(tables.rich_table(sheet, title, "\n".join(report.notes)))
        grid = tables.GRID in run.methods
        found.append(
            tables.rich_table(
                tables.ratios_sheet(report.savings),
                "Cost for all settings" + (": × of the fixed grid's" if grid else ""),
            )
        )
    return found


def _page(
    run: Run, heads: dict[str, str], sheets: dict[str, str], drawn: dict[str, Any], notes: list[str]
) -> str:
    """The report's Markdown page."""
    titles = {
        "summary": "Quality at the same coefficients",
        "gaps": "Gap to one network per setting",
        "savings": "Cost",
    }
    lines = [f"# {escape(run.task)}, {escape(run.preset)}", "", f"{tables.size_line(run)}.", ""]
    lines += ["## Read this first", "", *_bullets(notes), ""]
    fronts = [name for name in drawn if name.startswith("front_")]
    placed = {"summary": [*fronts, "measures", "samples"], "gaps": ["gap"], "savings": []}
    for name, title in titles.items():
        lines += [f"## {title}", ""]
        for figure in (f for f in placed[name] if f in drawn):
            width = 440 if figure.startswith("front_") else 700
            lines += [f'<img src="{figure}.png" alt="{figure}" width="{width}">', ""]
            if "svg" in drawn[figure]:
                lines += [f"[{escape(figure)} as SVG]({figure}.svg)", ""]
        lines += [heads[name], "", sheets[name] or "There is nothing to compare with.\n"]
    if len(run.axes) > 1:
        labels = tables.setting_labels(run)
        lines += ["## Settings", ""]
        lines += [f"- {escape(labels[s])}: {escape(s)}" for s in run.settings] + [""]
    files = [f"[{name}.{end}]({name}.{end})" for name in titles for end in ("csv", "md")]
    lines += ["## Files", "", ", ".join(files) + ".", ""]
    lines += ["## Provenance", "", *_provenance(run), ""]
    return "\n".join(lines)


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [f"- {escape(sentence)}" for sentence in sentences]


def _provenance(run: Run) -> list[str]:
    """With what the numbers were made: every differing value is listed."""
    sources: list[dict[str, Any]] = [*run.measured["provenance"], *run.cells["provenance"]]

    def every(name: str) -> list[str]:
        return list(dict.fromkeys(one_line(s[name]) for s in sources if s.get(name)))

    packages: dict[str, set[str]] = {}
    for source in sources:
        for name, version in source.get("packages", {}).items():
            packages.setdefault(name, set()).add(str(version))
    devices = sorted({one_line(name) for name in run.cells["device_name"].dropna()})
    facts = {
        "commit": every("commit"),
        "trained on": devices,
        "platform": every("platform"),
        "packages": [f"{name} {' and '.join(sorted(v))}" for name, v in sorted(packages.items())],
        "command": every("command"),
        "experiment": [run.experiment],
    }
    return [f"- {name}: {escape(', '.join(found) or 'unknown')}" for name, found in facts.items()]

"""From the files of a run to its report: tables, figures and the pages that link them.

    built = build(Path("results"))              results/report/<task>-<preset>/report.md
    for table in terminal_tables(built): console.print(table)

Needs only what lies in the results folders: no torch, no task. Other uses of the same files start
at `bench.report.load.load_results`; `bench/report/compare.py` has the numbers.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.files import drawing_to_files, guarded, printable, write_atomic
from bench.report import compare, costs, lengths, reference, tables, verdict, versus
from bench.report.load import Results, Run, load_results
from bench.report.text import escape, one_line

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["Built", "Results", "Run", "build", "load_results", "terminal_tables"]

HEADS = {
    "reference": "Whether the network trained for a setting is the grid's best there: the loss of "
    "any network at any setting is a weighted sum of its recorded terms. Best network: chosen by "
    "the other seeds on the other half of the examples. Benefit: what the middle network, used "
    "there, loses more, where that is clearly above nothing; the margin is a share of it, and the "
    "loss's own margin where there is none. The reference fails (§) where the 95 % interval of "
    "what it loses lies beyond the margin: no method is judged there.",
    "overall": "What each method loses against one network per setting, at the same coefficients, "
    "and what it saves. Benefit lost: (its loss - the reference's) / (the middle network's used "
    "everywhere - the reference's), per setting where that is clearly above nothing; 0 is the "
    "grid, 1 one network. The reference is the harder of the grid's own network and the grid's "
    "best there. Means over settings with their 95 % interval, the worst setting beside them; "
    "settings at which a method is the reference itself, or the reference fails (§), are left "
    "out, and how many are averaged is said (of the benefit, of the gap). Verdict: on the benefit "
    "lost, with a margin of a tenth unless the task says otherwise; ° does not survive Holm's "
    "correction over the table; mixed: no worse on average, but decidedly at some setting. The "
    "loss gap is against the grid's own networks. Intervals know other seeds and examples, not "
    "other machines: another CPU moved a network of the same seed by up to 3.7 %. Costs are those "
    "of all networks for all settings of this run, as ratios to the fixed grid's; two columns "
    "divide the FLOPs by those of the warm-started grid and of the cheapest other method that is "
    "better or equal. Pays from: the number of settings from which on its FLOPs are fewer than "
    "the grid's. Bold: the best of a column among rows with a verdict, the middle network "
    "aside; which differences are more than chance is in the next table. Power: how likely "
    "`equal` was, had nothing been lost; seeds to "
    "settle: with how many what is undecided would be decided with a probability of 80 %, at this "
    "spread and on these examples.",
    "versus": "The loss of one method less that of another at the same settings, examples and "
    "seeds: mean over the settings at which they are different networks, with its 95 % interval, "
    "in per cent of the other's or the loss's unit. The best row of the table before, and the "
    "method the verdict is about, against every other. Told apart: the interval excludes nothing, "
    "with three seeds or more, after Holm's correction over the table.",
    "knob": "The front, whatever the coefficients: BD-rate, and over the low, middle and high "
    "third of the common range, which is named, for of the rest it sees nothing; hypervolume over "
    "the grid's; IGD+ to the grid's front. And the knob: the share of the grid's range covered, "
    "the rank correlation of coefficient and weighted term (1 is right), the mean distance to the "
    "grid's term over its range (0 is right), the share of settings at which being told that "
    "setting gives the lowest loss, and the excess of the loss between the compared settings over "
    "what its neighbours promise. Intervals are Student's over the seeds, three or more. Over its "
    "estimate: by how much what is written is larger than what was estimated.",
    "comparisons": "Method minus fixed grid at the same setting, paired by example and seed: mean "
    "and 95 % interval; in per cent of the grid's mean where the margin is. Behind the loss: the "
    "gap to the best of the grid, the share of the benefit lost against the harder of the two, "
    "and the verdict on it; where there is no benefit, on the gap. § the reference fails there; ° "
    "does not survive Holm's correction over the table. Bold: the best at a setting.",
    "summary": "Mean over examples and seeds at every setting, ± the standard deviation over "
    "seeds. Bold: the best at a setting.",
    "quality": "The loss gap, mean over settings, of networks trained for shares of the steps, "
    "each with its whole schedule, against the grid of all steps.",
    "savings": "What the networks of each method cost for all settings of this run, per seed, "
    "and in brackets the ratio to the fixed grid's. Networks that two methods use count in "
    "full for each. FLOPs include what answering for the settings took (a search, say). Time is "
    "that of the processor, all threads, or on a GPU the device's. Net memory: the largest peak of "
    "a training, without what was there before it. Parameters and bytes are those that must be "
    "kept.",
    "break_even": "The number of settings from which on a method is cheaper than the grid, with "
    "its 95 % interval where several networks on both sides give one; and where the trainings that "
    "found a method's levers are counted, too.",
}
TITLES = {
    "reference": "The reference examined",
    "overall": "Lost and saved",
    "knob": "Front and knob",
    "versus": "Method against method",
    "comparisons": "Gap to one network per setting",
    "summary": "Quality at the same coefficients",
    "quality": "Quality against compute",
    "savings": "Cost",
    "break_even": "Break-even",
}
# Beside which table a figure stands, by how its name begins; `NARROW` ones are a column wide.
FIGURES = {
    "overall": ("headline", "heat"),
    "knob": ("front_", "cross_", "sweep_"),
    "comparisons": ("gap",),
    "summary": ("measures", "samples"),
    "quality": ("quality",),
    "break_even": ("break_even",),
}
NARROW = ("front_", "headline", "quality", "break_even", "cross")


@dataclass(frozen=True, kw_only=True)
class Built:
    """The report of one task, preset and experiment. `paths` has the page first.

    sentence: the verdict in words. The frames are those of `bench/report/compare.py` and
    `costs.py`; quality is `quality_compute`.
    """

    run: Run
    folder: Path
    paths: list[Path]
    sentence: str
    reference: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    overall: pd.DataFrame
    versus: pd.DataFrame
    quality: pd.DataFrame
    savings: pd.DataFrame
    break_even: pd.DataFrame
    notes: list[str]


def build(
    *roots: Path, out: Path | None = None, only: set[tuple[str, str, str]] | None = None
) -> list[Built]:
    """Write the reports of everything in the results folders `roots`, read as one, and the page
    of them all; [] where nothing is measured.

    `out` defaults to `report` in the first root. `only` names the (task, preset, experiment)s to
    write and return; the page shows the others as they were. FileNotFoundError and ValueError as
    `load_results`.
    """
    results = load_results(*roots)
    if out is None:
        out = roots[0] / "report"
        _refuse_outside(roots[0], [out, *(out / run.folder for run in results.runs)])
    wanted = [only is None or run.key in only for run in results.runs]
    reports = [
        _build(run, out / run.folder, write=write)
        for run, write in zip(results.runs, wanted, strict=True)
    ]
    if reports:
        from bench.report.page import page

        command = shlex.join(["python", "run_bench.py", "report", *map(str, roots)])
        write_atomic(out / "index.html", page(results, reports, command))
    return [report for report, write in zip(reports, wanted, strict=True) if write]


def _build(run: Run, folder: Path, *, write: bool) -> Built:
    overall, savings = compare.overall(run), costs.savings(run)
    frames = {
        "reference": reference.examine(run),
        "overall": overall,
        "versus": versus.versus(run, overall),
        "comparisons": compare.comparisons(run),
        "summary": compare.summary(run),
        "quality": compare.quality_compute(run),
        "savings": savings,
        "break_even": costs.break_evens(run),
    }
    notes = tables.notes(run, frames["comparisons"], overall, savings)
    halved = None if run.lengths.empty else lengths.trained_out(run)
    sentence = verdict.verdict_sentence(run, overall, trained_out=halved)
    sheets = tables.sheets(run, frames)
    if write:
        with drawing_to_files():
            from bench.report.figures import figures

        files: dict[str, str | bytes] = {}
        for name, frame in frames.items():
            files[f"{name}.csv"] = csv_of(frame)
        if halved is not None:
            files["trained_out.csv"] = csv_of(halved)
            files["same_loss.csv"] = csv_of(lengths.same_loss(run, frames["quality"]))
        for name, sheet in sheets.items():
            lines = [HEADS[name], "", sheet.markdown(), *_bullets(notes), ""]
            files[f"{name}.md"], files[f"{name}.tex"] = "\n".join(lines), sheet.latex()
        drawn = figures(
            run, frames["summary"], frames["comparisons"], frames["overall"], frames["quality"]
        )
        page = _page(run, sentence, sheets, list(files), drawn, notes)
        for name, endings in drawn.items():
            files |= {f"{name}.{ending}": data for ending, data in endings.items()}
        files = {"report.md": page, **files}
        _replace(folder, files)
        names = list(files)
    else:
        names = sorted(path.name for path in folder.glob("*.*"))
    return Built(
        run=run, folder=folder, paths=[folder / name for name in names], sentence=sentence,
        notes=notes, **frames,
    )  # fmt: skip


def csv_of(frame: pd.DataFrame) -> str:
    """A frame as CSV that no spreadsheet computes: a text cell or heading that begins like a
    formula (`=`, `+`, `-`, `@`, a tab, a line break) gets an apostrophe before it, control
    characters are written out (`\\n`), and numbers stay as they are."""

    def safe(cell: object) -> object:
        return guarded(printable(cell)) if isinstance(cell, str) else cell

    texts = frame.select_dtypes(exclude="number").columns
    cells = frame.assign(**{name: frame[name].map(safe) for name in texts})
    return cells.rename(columns=safe).to_csv(index=False, lineterminator="\n")


def _refuse_outside(root: Path, folders: Iterable[Path]) -> None:
    """A results folder of somebody else's may hold a link in the place of its report."""
    for folder in folders:
        if not folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{folder} leads out of {root}: remove the link or choose --out")


def _replace(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write the files, and delete figures and tables of an earlier build that this one lacks."""
    for path in folder.glob("*.*"):
        ours = path.suffix in (".svg", ".png", ".gif") or path.stem in TITLES
        if ours and path.name not in files:
            path.unlink()
    for name, content in files.items():
        write_atomic(folder / name, content)


def terminal_tables(built: Sequence[Built]) -> list[Table]:
    """Four tables per report, at most 100 columns wide: what is lost and saved, the reference
    examined, the measures that matter with the loss gap, and the costs as ratios to the grid's."""
    found = []
    for report in built:
        run = report.run
        title = f"{one_line(run.task)}, {one_line(run.preset)}: {tables.size_line(run)}"
        measures = tables.main_measures(run)
        if tables.LOSS in run.measures and tables.LOSS not in measures:
            measures.append(tables.LOSS)
        overall = tables.overall_sheet(run, report.overall, narrow=True)
        found.append(tables.rich_table(overall, title, report.sentence))
        if len(report.reference):
            examined = tables.reference_sheet(run, report.reference)
            found.append(tables.rich_table(examined, TITLES["reference"]))
        sheet = tables.summary_sheet(run, report.summary, measures, report.comparisons)
        caption = "\n".join(report.notes)
        found.append(tables.rich_table(sheet, TITLES["summary"], caption))
        grid = tables.GRID in run.methods
        found.append(
            tables.rich_table(
                tables.ratios_sheet(report.savings),
                "Cost for all settings" + (": × of the fixed grid's" if grid else ""),
            )
        )
    return found


def _page(
    run: Run,
    sentence: str,
    sheets: dict[str, tables.Sheet],
    files: Sequence[str],
    drawn: dict[str, dict[str, bytes]],
    notes: list[str],
) -> str:
    """The report's Markdown page: the verdict, what to know first, then tables and figures."""
    lines = [f"# {escape(run.task)}, {escape(run.preset)}", "", escape(sentence), ""]
    lines += [f"{tables.size_line(run)}.", ""]
    lines += ["## Read this first", "", *_bullets(notes), ""]
    left = list(drawn)
    for name, sheet in sheets.items():
        lines += [f"## {TITLES[name]}", ""]
        for figure in [f for f in left if f.startswith(FIGURES.get(name, ()))]:
            lines += _figure(figure, drawn[figure])
            left.remove(figure)
        lines += [HEADS[name], "", sheet.markdown()]
    if left:
        lines += ["## More figures", ""]
        for figure in left:
            lines += _figure(figure, drawn[figure])
    if len(run.axes) > 1:
        labels = tables.setting_labels(run)
        lines += ["## Settings", ""]
        lines += [f"- {escape(labels[s])}: {escape(s)}" for s in run.settings] + [""]
    links = ", ".join(f"[{name}]({name})" for name in sorted(files))
    lines += ["## Files", "", f"{links}.", ""]
    lines += ["## Provenance", "", *_provenance(run), ""]
    return "\n".join(lines)


def _figure(name: str, endings: dict[str, bytes]) -> list[str]:
    """A figure as a picture and, where there is one, a link to its SVG."""
    picture = next(ending for ending in ("gif", "png", "svg") if ending in endings)
    width = 440 if name.startswith(NARROW) else 700
    lines = [f'<img src="{name}.{picture}" alt="{name}" width="{width}">', ""]
    return lines + ([f"[{escape(name)} as SVG]({name}.svg)", ""] if "svg" in endings else [])


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [f"- {escape(sentence)}" for sentence in sentences]


def _provenance(run: Run) -> list[str]:
    facts = tables.origin(run).items()
    return [f"- {name}: {escape(', '.join(found) or 'unknown')}" for name, found in facts]

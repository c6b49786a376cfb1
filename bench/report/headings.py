"""What tables, figures and the page call a run's settings, gaps, size and origin."""

from __future__ import annotations

from bench.report.answers.reference import LOSS, failing, in_percent
from bench.report.load import Run
from bench.report.text import one_line
from bench.run.records import WHOLE

SHORT = ("centre", "mix", "setting")  # how names of settings begin that do not say their values
SIGN = " §"  # of a setting at which the reference fails


def gap_title(run: Run) -> tuple[str, int]:
    """How gaps of the loss are called, with their unit, and their digits."""
    style = run.measures[LOSS]
    return in_its_unit(run, "loss gap"), 1 if in_percent(style) else style.digits


def in_its_unit(run: Run, name: str) -> str:
    """A heading with the unit in which gaps of the loss are given, if there is one."""
    style = run.measures[LOSS]
    unit = "%" if in_percent(style) else one_line(style.unit)
    return f"{name} ({unit})" if unit else name


def setting_head(run: Run) -> str:
    return one_line(run.axes[0].symbol) if len(run.axes) == 1 else "setting"


def setting_labels(run: Run) -> dict[str, str]:
    """Short names of the settings; one outside the training range carries a dagger, one at which
    the reference fails a section sign."""
    outside = set(run.measured.loc[run.measured["outside"].map(len) > 0, "setting"])
    silent = failing(run)
    return {
        setting: label + " †" * (setting in outside) + SIGN * (setting in silent)
        for setting, label in run.labels().items()
    }


def term_label(run: Run, name: str) -> str:
    """How a loss term is called."""
    return one_line(run.measures[name].label if name in run.measures else name)


def settings_line(run: Run) -> str:
    """What the settings' symbols stand for, and what short names of settings mean."""
    spans = {(axis.low, axis.high) for axis in run.axes}
    parts = []
    for axis in run.axes:
        span = f" ({axis.low:g} to {axis.high:g})" if len(spans) > 1 or len(run.axes) == 1 else ""
        parts.append(f"{one_line(axis.symbol)} weighs {term_label(run, axis.name)}{span}")
    each = f"; each from {run.axes[0].low:g} to {run.axes[0].high:g}"
    text = "; ".join(parts) + (each if len(spans) == 1 < len(run.axes) else "")
    named = {label: s for s, label in run.labels().items() if label.split()[0] in SHORT}
    for label, setting in named.items():
        values = zip(run.axes, run.values(setting), strict=True)
        text += f". {label.capitalize()}: " + ", ".join(
            f"{one_line(a.symbol)} = {v:g}" for a, v in values
        )
    return f"{text}."


def examples(run: Run) -> int:
    """How many test examples were measured."""
    return int(run.records.loc[run.records["example"] != WHOLE, "example"].nunique())


def size_line(run: Run) -> str:
    """`4 methods, 5 settings, 1 seed, 6 examples`."""
    counts = {
        "method": len(run.methods),
        "setting": len(run.settings),
        "seed": len(run.seeds),
        "example": examples(run),
    }
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())


def origin(run: Run) -> dict[str, list[str]]:
    """With what the numbers were made: every differing value, as one line each."""
    sources = [*run.measured["provenance"], *run.cells["provenance"]]

    def every(name: str) -> list[str]:
        return list(dict.fromkeys(one_line(s[name]) for s in sources if s.get(name)))

    packages: dict[str, set[str]] = {}
    for source in sources:
        for name, version in source.get("packages", {}).items():
            packages.setdefault(name, set()).add(str(version))
    devices = run.cells["device_name"].dropna()
    return {
        "commit": every("commit"),
        "trained on": sorted({one_line(name) for name in devices}),
        "platform": every("platform"),
        "seeds": [str(seed) for seed in run.seeds],
        "packages": [f"{n} {' and '.join(sorted(v))}" for n, v in sorted(packages.items())],
        "experiment": [run.experiment],
        "command": every("command"),
    }

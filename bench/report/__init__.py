"""The report of a run, from the files in its results folder alone: no torch, no task.

    built = build(Path("results"))              results/report/<task>-<preset>/report.md
    for line in answer_text(built, 100): console.print(line)

Other uses of the same files start at `bench.report.load.load_results`. `answers/` has the numbers,
`figures/` what is drawn of them, `sections.py` what stands where.
"""

from __future__ import annotations

import importlib
from typing import Any

# By the module it is in; imported when it is first touched.
HOMES = {
    **dict.fromkeys(("build", "csv_of", "settle"), "document"),
    **dict.fromkeys(("Results", "Run", "load_results"), "load"),
    "Built": "sections",
    **dict.fromkeys(("answer_text", "last_screen", "terminal_tables"), "terminal"),
}
__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'bench.report' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bench.report.{HOMES[name]}"), name)

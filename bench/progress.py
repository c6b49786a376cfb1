"""What a person sees while jobs run: a live table on a terminal, plain lines when piped.

The loops never print; they send events, and this is the only place that shows them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.untrusted import printable, printable_lines

LONGEST = 12  # rows of the live table; finished jobs beyond are counted, not listed


def clock(seconds: float) -> str:
    """`75` to `1:15`, `3675` to `1:01:15`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Board:
    """Shows the jobs of one phase. Use as a context manager and `handle` every event."""

    def __init__(
        self, title: str, jobs: Sequence[dict[str, Any]], console: Console | None = None
    ) -> None:
        self.title = title
        self.console = console or Console()
        self.rows = {
            job["id"]: {
                "label": job["label"],
                "state": "waiting",
                "begun": time.monotonic(),
                "said": 0.0,
            }
            for job in jobs
        }
        self._live: Live | None = None

    def label(self, job: str) -> str:
        return str(self.rows[job]["label"])

    def __enter__(self) -> Board:
        self.begun = time.monotonic()
        if self.console.is_terminal and self.rows:
            self._live = Live(self._table(), console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()

    def note(self, text: str) -> None:
        """A line on the whole phase, above the table."""
        self.console.print(f"{self.title}: {text}", markup=False, highlight=False, soft_wrap=True)

    def handle(self, event: dict[str, Any]) -> None:
        row = self.rows[event["job"]]
        kind = event["event"]
        if kind == "step" and "note" in event:
            row["note"] = event["note"]
        elif kind == "step":
            row |= event
        elif kind == "started":
            row |= {"state": "running", "begun": time.monotonic()}
        elif kind == "busy":
            told = row.get("note") == event["reason"]
            row |= {"state": "waiting", "note": event["reason"]}
            if told:
                return
        else:
            row |= {"state": kind, "took": time.monotonic() - row["begun"]}
            if kind in ("failed", "stopped"):
                row["note"] = event["reason"]
        if self._live is not None:
            self._live.update(self._table())
        else:
            self._say(kind, row)

    def _say(self, kind: str, row: dict[str, Any]) -> None:
        """Plain lines: every end, and a sign of life each ten seconds."""
        done = sum(r["state"] in ("finished", "failed", "stopped") for r in self.rows.values())
        head = f"{self.title} {done}/{len(self.rows)} {row['label']}:"
        if kind == "step":
            if time.monotonic() - row["said"] < 10 or "step" not in row:
                return
            row["said"] = time.monotonic()
            text = (
                f"step {row['step']}/{row['steps']}, loss {row['loss']:.4g}, "
                f"{row['examples_per_second']:.0f} examples/s, {clock(row['seconds_left'])} left"
            )
        elif kind == "started":
            return
        elif kind == "busy":
            text = f"waiting, {row['note']}"
        else:
            text = f"{kind} after {clock(row['took'])}"
            if "note" in row:
                text += f" ({row['note']})"
        line = printable_lines(f"{head} {text}")
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        done = sum(r["state"] in ("finished", "failed", "stopped") for r in self.rows.values())
        elapsed = clock(time.monotonic() - self.begun)
        table = Table(
            title=f"{self.title}: {done} of {len(self.rows)}, {elapsed}",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for name in ("job", "state", "step", "loss", "examples/s", "left"):
            table.add_column(name, justify="left" if name in ("job", "state") else "right")
        rows = list(self.rows.values())
        active = [r for r in rows if r["state"] != "waiting"] or rows[:1]
        hidden = max(0, len(active) - LONGEST)
        for row in active[hidden:]:
            state = row["state"]
            if state in ("finished", "failed", "stopped"):
                state = f"{state} {clock(row['took'])}"
            cells = ["", "", "", ""]
            if "step" in row:
                left = clock(row["seconds_left"]) if row["state"] == "running" else ""
                cells = [
                    f"{row['step']}/{row['steps']}",
                    f"{row['loss']:.4g}",
                    f"{row['examples_per_second']:.0f}",
                    left,
                ]
            if "note" in row:
                state += f" ({row['note'][:60]})"
            table.add_row(Text(printable(row["label"])), Text(printable(state)), *cells)
        waiting = sum(r["state"] == "waiting" for r in rows)
        if waiting or hidden:
            table.add_row(f"… {hidden} above, {waiting} waiting", "", "", "", "", "", style="dim")
        return table

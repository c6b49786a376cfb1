"""What a person sees while jobs run: a live table on a terminal, plain lines when piped.

The loops never print; they send events, and this is the only place that shows them.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.files import printable, printable_lines

LONGEST = 12  # rows of the live table; jobs beyond are counted, not listed, the oldest first


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
        # Looked after event by event, so that no event and no redrawing looks at all rows.
        self._running: dict[str, dict[str, Any]] = {}
        self._last: deque[dict[str, Any]] = deque(maxlen=LONGEST)  # those that ended
        self._ended = 0
        self._live: Live | None = None

    def label(self, job: str) -> str:
        return str(self.rows[job]["label"])

    def __enter__(self) -> Board:
        self.begun = time.monotonic()
        if self.console.is_terminal and self.rows:
            self._live = Live(
                get_renderable=self._table, console=self.console, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()  # draws it once more

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
            self._running[event["job"]] = row
        elif kind == "busy":
            told = row.get("note") == event["reason"]
            row |= {"state": "waiting", "note": event["reason"]}
            self._running.pop(event["job"], None)
            if told:
                return
        else:
            row |= {"state": kind, "took": time.monotonic() - row["begun"]}
            if kind in ("failed", "stopped"):
                row["note"] = event["reason"]
            self._running.pop(event["job"], None)
            self._last.append(row)
            self._ended += 1
        if self._live is None:
            self._say(kind, row)

    def _say(self, kind: str, row: dict[str, Any]) -> None:
        """Plain lines: every end, and a sign of life each ten seconds."""
        head = f"{self.title} {self._ended}/{len(self.rows)} {row['label']}:"
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
        elapsed = clock(time.monotonic() - self.begun)
        table = Table(
            title=f"{self.title}: {self._ended} of {len(self.rows)}, {elapsed}",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for name in ("job", "state", "step", "loss", "examples/s", "left"):
            table.add_column(name, justify="left" if name in ("job", "state") else "right")
        running = list(self._running.values())
        waiting = len(self.rows) - self._ended - len(running)
        if waiting == len(self.rows):
            running = list(itertools.islice(self.rows.values(), 1))
        active = [*self._last, *running][-LONGEST:]
        hidden = max(0, self._ended + len(running) - LONGEST)
        for row in active:
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
        if waiting or hidden:
            table.add_row(f"… {hidden} above, {waiting} waiting", "", "", "", "", "", style="dim")
        return table

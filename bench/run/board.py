"""What a person sees while jobs run: a live table on a terminal and in a notebook; when piped a
line every ten seconds, and at once what failed or diverged.

The loops never print; they send events, and this is the only place that shows them.

    with shown(False): ...      nothing is shown meanwhile
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.files import printable, printable_lines
from bench.run.schema import Ended, Event, Job, Note, Started, Step, Waiting

LONGEST = 12  # rows of the live table; jobs beyond are counted, not listed, the oldest first
PACE = 10.0  # seconds between two plain lines of one phase
OFTEN = 0.5  # seconds between two looks of the table in a notebook
SHOWN = ContextVar("shown", default=True)
COLUMNS = ("job", "state", "step", "loss", "examples/s", "left")


@contextlib.contextmanager
def shown(whether: bool) -> Iterator[None]:
    """While it lasts, boards are shown, or not."""
    token = SHOWN.set(whether)
    try:
        yield
    finally:
        SHOWN.reset(token)


def clock(seconds: float) -> str:
    """`75` to `1:15`, `3675` to `1:01:15`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(kw_only=True)
class _Row:
    label: str
    state: str = "waiting"
    note: str = ""
    step: Step | None = None
    begun: float = field(default_factory=time.monotonic)

    def cells(self) -> list[str]:
        if self.step is None:
            return ["", "", "", ""]
        step, left = self.step, clock(self.step.seconds_left) if self.state == "running" else ""
        pace = f"{step.examples_per_second:.0f}"
        return [f"{step.step}/{step.steps}", f"{step.loss:.4g}", pace, left]


class Board:
    """Shows the jobs of one phase. Use as a context manager and `handle` every event."""

    def __init__(self, title: str, jobs: Sequence[Job], console: Console | None = None) -> None:
        self.title = title
        self.console = console or Console(quiet=not SHOWN.get())
        self.rows = {job.id: _Row(label=job.label) for job in jobs}
        # Looked after event by event, so that no event and no redrawing looks at all rows.
        self._running: dict[str, _Row] = {}
        self._last: deque[_Row] = deque(maxlen=LONGEST)  # those that ended
        self._ended = self._failed = 0
        self._live: Live | None = None
        self._cell: Any = None  # where a notebook shows the table
        self._drawn = 0.0

    def __enter__(self) -> Board:
        self.begun = self._printed = time.monotonic()
        if self.console.quiet or not self.rows:
            return self
        if self.console.is_jupyter:
            from IPython.display import display

            self._cell = display(self._table(), display_id=True)
        elif self.console.is_terminal:
            self._live = Live(
                get_renderable=self._table, console=self.console, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()  # draws it once more
        elif self._cell is not None:
            took = clock(time.monotonic() - self.begun)
            self._cell.update(Text(f"{self.title}: {self._ended} of {len(self.rows)} in {took}"))
        elif self.rows:
            failed = f", {self._failed} failed" if self._failed else ""
            self._print(f"{self._count()} in {clock(time.monotonic() - self.begun)}{failed}")

    def note(self, text: str) -> None:
        """A line on the whole phase, above the table."""
        if not self.console.is_jupyter:
            self._print(f"{self.title}: {text}")

    def handle(self, event: Event) -> None:
        row = self.rows[event.job]
        urgent = ""  # said at once
        match event:
            case Note():
                row.note = urgent = event.note
            case Started():
                row.state, row.begun = "running", time.monotonic()
                self._running[event.job] = row
            case Step():
                row.step = event
            case Waiting():
                row.state, row.note = "waiting", event.reason
                self._running.pop(event.job, None)
            case Ended():
                row.note = event.reason or row.note
                self._running.pop(event.job, None)
                self._last.append(row)
                self._ended += 1
                self._failed += event.how == "failed"
                row.state = f"{event.how} {clock(time.monotonic() - row.begun)}"
                urgent = f"failed ({row.note})" if event.how == "failed" else ""
        if self._live is not None:
            return
        if self._cell is not None:
            if time.monotonic() - self._drawn > OFTEN:
                self._drawn = time.monotonic()
                self._cell.update(self._table())
        elif urgent:
            self._print(f"{row.label}: {urgent}")
        elif time.monotonic() - self._printed >= PACE:
            self._printed = time.monotonic()
            self._print(f"{self._count()}, {clock(self._printed - self.begun)}: {self._doing(row)}")

    def _count(self) -> str:
        return f"{self.title} {self._ended}/{len(self.rows)}"

    def _doing(self, row: _Row) -> str:
        """What one job is at, and how many others run beside it."""
        text = f"{row.label}, {row.state}" + (f" ({row.note})" if row.note else "")
        if row.step is not None and row.state == "running":
            step, loss, _, left = row.cells()
            text = f"{row.label}, step {step}, loss {loss}, {left} left"
        others = len(self._running) - (row.state == "running")
        return text + (f"; {others} more at work" if others > 0 else "")

    def _print(self, line: str) -> None:
        self.console.print(printable_lines(line), markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        elapsed = clock(time.monotonic() - self.begun)
        title = f"{self.title}: {self._ended} of {len(self.rows)}, {elapsed}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, justify="left" if name in ("job", "state") else "right")
        running = list(self._running.values())
        waiting = len(self.rows) - self._ended - len(running)
        if waiting == len(self.rows):
            running = list(itertools.islice(self.rows.values(), 1))
        hidden = max(0, self._ended + len(running) - LONGEST)
        for row in [*self._last, *running][-LONGEST:]:
            state = row.state + (f" ({row.note[:60]})" if row.note else "")
            table.add_row(Text(printable(row.label)), Text(printable(state)), *row.cells())
        if waiting or hidden:
            table.add_row(f"… {hidden} above, {waiting} waiting", "", "", "", "", "", style="dim")
        return table

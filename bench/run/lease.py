"""Who works on a cell or a measurement: a file beside it, so that several runs can share one
results folder.

    with Lease(folder / "lease.json").hold(): ...        raises Busy where somebody else has it

No server and no clock in common: the holder counts a beat in the file every few seconds, and
whoever waits takes a lease over when its beat has stood still for `PATIENCE` seconds of their own
clock, or at once when the holder was a process of this machine that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.files import with_way_out
from bench.run.schema import Damaged, Holder, to_plain
from bench.run.schema import read as read_record

NOBODY = Holder(host="", machine="", pid=0, started="", token="", beat=0)  # of a damaged lease
PATIENCE = 60.0  # seconds without a beat after which a lease is given up for dead
BEAT = 5.0

# The last beat seen of each lease, and when, by the clock that no one can set back.
_seen: dict[Path, tuple[str, int, float]] = {}


class Busy(RuntimeError):
    """Another run has the cell or measurement; the message says which process on which machine."""


class Lease:
    """The lease at `path`; nothing is taken before `hold`, and the work calls `check`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._lost = False
        self._beaten = time.monotonic()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Take the lease and keep it alive meanwhile. Raises Busy, OSError (nowhere to write)."""
        self._take()
        beats = threading.Thread(target=self._beat, daemon=True)
        beats.start()
        try:
            yield
        finally:
            self._stop.set()
            beats.join()
            if self._mine():  # not taken over meanwhile
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises Busy where another run took the lease over, because this process stood still
        for too long. Costs nothing but where no beat was counted for a while."""
        if not self._lost and time.monotonic() - self._beaten > PATIENCE / 2:
            self._lost, self._beaten = not self._mine(), time.monotonic()
        if self._lost:
            raise Busy("its lease was taken over while this process stood still")

    def _mine(self) -> bool:
        return (read(self.path) or NOBODY).token == self.token

    def _take(self) -> None:
        for _ in range(3):
            try:
                self._write(0, exclusive=True)
                return
            except FileExistsError:
                holder = read(self.path)
            if holder is None:  # released in between
                continue
            if alive(self.path, holder):
                raise Busy(f"process {holder.pid} on {holder.host} is at work on it")
            # Of several that find it dead, one moves it away; if that was a new one, put it back.
            aside = self.path.with_name(f"{self.path.name}.{self.token}.dead")
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path, aside)
                if (read(aside) or holder).token != holder.token:
                    with contextlib.suppress(FileExistsError):
                        os.link(aside, self.path)
                aside.unlink()
        raise Busy("other runs are taking it")

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(BEAT):
            count += 1
            with contextlib.suppress(OSError):  # a full disk: the training itself will say so
                if not self._mine():
                    self._lost = True
                    return
                self._write(count, exclusive=False)
                self._beaten = time.monotonic()

    def _write(self, beat: int, exclusive: bool) -> None:
        pid = os.getpid()
        holder = Holder(
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=started(pid),
            token=self.token,
            beat=beat,
        )
        content = json.dumps(to_plain(holder))
        temporary = self.path.with_name(f"{self.path.name}.{self.token}.new")
        try:
            with with_way_out(self.path):
                temporary.write_text(content, encoding="utf-8")
                if exclusive:
                    self._place(temporary, content)
                else:
                    os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _place(self, written: Path, content: str) -> None:
        """Make the lease, whole at once. FileExistsError where there is one."""
        try:
            os.link(written, self.path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(content)


def read(path: Path) -> Holder | None:
    """A lease's holder; None where there is no lease."""
    try:
        return read_record(path, Holder)
    except FileNotFoundError:
        return None
    except Damaged:
        return NOBODY


def held(path: Path) -> bool:
    """Whether there is a lease whose holder still works."""
    holder = read(path)
    return holder is not None and alive(path, holder)


def alive(path: Path, holder: Holder) -> bool:
    """Whether the holder still works, as far as can be told from here."""
    if holder == NOBODY:
        return False
    if holder.machine == _machine():
        return started(holder.pid) == holder.started
    token, beat, since = _seen.get(path, ("", -1, 0.0))
    if (token, beat) != (holder.token, holder.beat):
        _seen[path] = (holder.token, holder.beat, time.monotonic())
        return True
    return time.monotonic() - since < PATIENCE


def _machine() -> str:
    """Within what process numbers mean the same: this boot of this machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def started(pid: int) -> str:
    """When a process was started, in ticks since the boot, which no change of the clock moves;
    "" for one that is gone. Where there is no /proc, only whether it is there."""
    try:
        if Path("/proc/self/stat").exists():
            text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
            fields = text.rpartition(")")[2].split()
            return "" if fields[0] == "Z" else fields[19]
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except PermissionError:
        pass
    return "running"

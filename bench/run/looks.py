"""When the verdicts of a run may be looked at: `run --decide` adds one seed after another and looks
after each, so what will be looked at is fixed at the first look and kept in the results folder.

    fix(root, Looks(task="toy", preset="quick", experiment="...", seeds=(0, 1, 2, 3, 4)))
    for looks in every(root): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from bench.files import files_in, printable, write_atomic
from bench.identity import content_id
from bench.run import layout
from bench.run.schema import Seed, Text, read, text

FIRST = 3  # seeds at the first look: fewer give no verdict
MOST = 100  # seeds at the last


class Looks(Struct, kw_only=True, frozen=True):
    """Of one task, preset and experiment: a look is at the first three of these seeds, at the first
    four, and so on to all. `before`: how many were there, to be looked at, before this was fixed.
    """

    task: Text
    preset: Text
    experiment: Text
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=FIRST, max_length=MOST)]
    before: Annotated[int, Meta(ge=0, le=MOST)] = 0

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is looked at once")

    @property
    def key(self) -> tuple[str, str, str]:
        return self.task, self.preset, self.experiment

    @property
    def most(self) -> int:
        """How many looks there may be."""
        return self.number(len(self.seeds))

    def number(self, seeds: int) -> int:
        """Which look is at so many seeds; 0 for none yet."""
        return max(0, seeds - FIRST + 1)


def every(root: Path) -> Iterator[Looks]:
    """All that are kept in a results folder. `Damaged` where one is not what was written."""
    for path in files_in(root, layout.LOOKS):
        yield read(path, Looks)


def stored(root: Path, key: tuple[str, str, str]) -> Looks | None:
    path = _path(root, key)
    return read(path, Looks) if path.exists() else None


def fix(root: Path, looks: Looks) -> None:
    """Keep it. ValueError where other looks of this are kept: their level is spent."""
    kept = stored(root, looks.key)
    if kept is not None and kept.seeds != looks.seeds:
        raise ValueError(refusal(root, kept))
    if kept is None:
        path = _path(root, looks.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text(looks))


def refusal(root: Path, kept: Looks) -> str:
    """Why no others can be looked at, and the ways out."""
    first = ",".join(map(str, kept.seeds[:FIRST]))
    fresh = max(kept.seeds) + 1
    return (
        f"{printable(kept.task)}, {printable(kept.preset)} in {root} is being looked at with "
        f"--most {len(kept.seeds)} and the seeds {first},..., over which the level is spent: leave "
        f"out --most and --seeds to go on so, or begin anew with --seeds {fresh} and another --out"
    )


def _path(root: Path, key: tuple[str, str, str]) -> Path:
    return layout.looks_path(root, content_id(list(key)))

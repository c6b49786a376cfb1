"""Fault classes of damaged files: of a finished run, before measuring, of an unfinished run."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from .campaign import Lab, clear_away
from .rig import Count, die_at, differences, run

FINISHED = (
    *("runs/*/*/*/done.json", "runs/*/*/*/config.json", "runs/*/*/*/log.jsonl"),
    *("runs/*/*/*/model.safetensors",),
    *("records/*/*/*.csv", "records/*/*/*.json", "records/*/*/*.png", "configs/*.json"),
)
WEIGHTS = ("runs/*/yoto/*/model.safetensors", "runs/*/fixed_grid/*/model.safetensors")
UNFINISHED = ("state.pt", "log.jsonl", "config.json", "lease.json")
HOWS = ("empty", "cut", "flip", "digit", "garbage")


def damage(path: Path, how: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "cut":
        data = data[: chance.randrange(1, max(2, len(data)))]
    elif how == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "digit":  # the flip that is still a number
        places = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
        place = chance.choice(places or range(len(data)))
        data[place] = 0x30 + (data[place] - 0x30 + chance.randrange(1, 10)) % 10
    else:  # somebody else's
        data[:] = b"\x80\x04\x95garbage\xff\x00" * 3
    path.write_bytes(bytes(data))


def damaged_results(lab: Lab) -> Count:
    """A file of a finished run is damaged: `report` says so or is right; `run` mends it, or says
    what to delete, and is right afterwards."""
    count = Count(name="damaged file of a finished run")
    expected = numbers(lab.whole)
    jobs = [(each, how) for each in FINISHED for how in (*HOWS, "flip")]
    for pattern, how in lab.some(jobs, 5):
        root = lab.folder()
        shutil.copytree(lab.whole, root)
        shutil.rmtree(root / "report")
        path = lab.chance.choice(sorted(root.glob(pattern)))
        damage(path, how, lab.chance)
        count.tried += 1
        where = f"{path.relative_to(root)}, {how}"
        examine(count, root, path, expected, where, report=not lab.quick)
        ended = run(root)
        count.expect_clear(ended, f"{where}, run")
        if ended.code == 0 and numbers(root) != expected:
            count.blame("wrong", f"{where}: run's numbers")
        elif ended.code != 0:
            follow(ended.output, root)
            ended = run(root)
            if ended.code != 0 or numbers(root) != expected:
                count.blame("lost", f"{where}: {ended.output[-1500:]}")
        clear_away(root)
    return count


def examine(count: Count, root: Path, path: Path, expected: Any, where: str, report: bool) -> None:
    """What `report`, `status` and `merge` make of it: no number but the right one."""
    merged = root.with_name(f"{root.name}-merged")
    looks = [["report", str(root)]] if report else []
    looks += [["status", str(root)], ["merge", str(root), "--out", str(merged)]]
    for words in looks:
        count.expect_clear(run(root, words=words, report=report), f"{where}, {words[0]}")
    clear_away(merged)
    try:
        now = numbers(root)
    except (ValueError, OSError) as error:
        if str(path.with_suffix("")) not in str(error):
            count.blame("unclear", f"{where}: the error names another file: {error}")
        return
    except Exception as error:
        count.blame("unclear", f"{where}: {type(error).__name__}: {error}")
        return
    # A measurement whose table changed is left out, and named.
    fewer = path.parts[-4] == "records" and set(now[0]) < set(expected[0])
    if now != expected and not fewer:
        count.blame("wrong", f"{where}: the report's numbers")


def numbers(root: Path) -> Any:
    """Every number a report is made of, but seconds."""
    from bench import load_results

    results = load_results(root)
    kept = ["cell", "task", "preset", "method", "seed", "trained_for", "after", "status", "steps",
            "examples", "flops_per_step", "flops", "parameters", "bytes"]  # fmt: skip
    measured = ["entry", "method", "seed", "setting", "cells", "status", "kind", "share"]
    return (
        sorted(results.records.itertuples(index=False, name=None)),
        sorted(map(repr, results.cells[kept].itertuples(index=False, name=None))),
        sorted(map(repr, results.measured[measured].itertuples(index=False, name=None))),
    )


def follow(output: str, root: Path) -> None:
    """Delete what an error says to delete."""
    for word in output.replace(":", " ").replace(",", " ").split():
        path = Path(word)
        if path.is_absolute() and path.is_relative_to(root) and path != root and path.exists():
            if path.name == "failures.log" or path.suffix == ".py":
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def damaged_weights(lab: Lab) -> Count:
    """Weights are damaged after `done.json` was written and before they are measured."""
    count = Count(name="damaged weights before measuring")
    jobs = [(pattern, how) for pattern in WEIGHTS for how in HOWS if how != "digit"]
    for pattern, how in lab.some(jobs, 2):
        with lab.attempt(count, f"{pattern}, {how}") as root:
            shutil.copytree(lab.whole, root)
            clear_away(root / "records", root / "report")
            damage(lab.chance.choice(sorted(root.glob(pattern))), how, lab.chance)
            ended = run(root)
            count.expect_clear(ended, f"{pattern}, {how}")
            if ended.code == 0 and list(differences(root, lab.whole)):
                count.blame("wrong", f"{pattern}, {how}: measured without a word")
            follow(ended.output, root)
    return count


def damaged_half_run(lab: Lab) -> Count:
    """A run is killed in a training, and a file of that cell is damaged before it goes on."""
    count = Count(name="damaged file of an unfinished run")
    for pattern, how in lab.some([(each, how) for each in UNFINISHED for how in HOWS], 4):
        with lab.attempt(count, f"{pattern}, {how}") as root:
            occurrence = lab.chance.randrange(2, 5)
            run(root, prepare=die_at(root, "open model.safetensors", occurrence))
            (folder,) = (path.parent for path in root.glob("runs/*/*/*/lease.json"))
            paths = sorted(folder.glob(pattern))
            if not paths:
                count.tried -= 1
                continue
            damage(paths[0], how, lab.chance)
            ended = run(root)
            count.expect_clear(ended, f"{pattern}, {how}")
            if ended.code != 0:
                follow(ended.output, root)
    return count

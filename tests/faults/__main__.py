"""The command line of the campaign; `tests/faults/__init__.py` says how it is used."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path


def main() -> int:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few faults of every class")
    parser.add_argument("--only", metavar="A,B", help="classes whose names contain A or B")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (0)")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    options = parser.parse_args()
    memory = Path("/dev/shm")  # where there is one, hundreds of runs need no disk
    where = memory if os.access(memory, os.W_OK) else None
    work = Path(tempfile.mkdtemp(prefix="faults-", dir=where)).resolve()
    os.environ |= {"TMPDIR": str(work), "OMP_NUM_THREADS": "1"}
    try:
        return campaign(work, options)
    finally:
        if options.keep:
            print(f"left: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def campaign(work: Path, options: argparse.Namespace) -> int:
    import torch

    from .campaign import CLASSES, LONG, Lab, import_everything, undisturbed
    from .damage import damaged_half_run, damaged_results, damaged_weights
    from .disk import full_disk, full_disk_and_a_failure, read_only_folder
    from .rig import Count

    torch.set_num_threads(1)
    began = time.monotonic()
    words = (options.only or "").split(",")
    disk = (full_disk, full_disk_and_a_failure, read_only_folder)
    classes = [*CLASSES, *disk, damaged_results, damaged_weights, damaged_half_run]
    chosen = [each for each in classes if any(word in each.__name__ for word in words)]
    chosen = [each for each in chosen if not (options.quick and each in LONG)]
    import_everything(work)
    whole = undisturbed(work / "whole", report=True)
    long = undisturbed(work / "long", "long")
    counts = []
    for each in chosen:
        # A class's moments are the same whichever others are chosen.
        chance = random.Random(zlib.crc32(each.__name__.encode()) + options.seed)
        lab = Lab(work=work, chance=chance, quick=options.quick, whole=whole, long=long)
        since = time.monotonic()
        try:
            count = each(lab)
        except Exception:
            count = Count(name=each.__name__)
            count.blame("unclear", traceback.format_exc())
        count.seconds = time.monotonic() - since
        counts.append(count)
        print(f"{count.name}: {count.tried} tried, {count.bad} bad, {count.seconds:.0f} s")
        for text in count.said:
            print("   ", text.replace("\n", "\n        "))
    show(counts, time.monotonic() - began)
    return 1 if any(count.bad or not count.tried for count in counts) else 0


def show(counts: list, seconds: float) -> None:
    columns = ("tried", "lost", "double", "wrong", "unclear")
    print(f"\n{'fault':38}" + "".join(column.rjust(9) for column in columns) + "  seconds")
    for count in counts:
        row = "".join(str(getattr(count, column)).rjust(9) for column in columns)
        print(f"{count.name:38}{row}{count.seconds:9.0f}")
    sums = "".join(str(sum(getattr(c, column) for c in counts)).rjust(9) for column in columns)
    print(f"{'all':38}{sums}{seconds:9.0f}")


if __name__ == "__main__":
    sys.exit(main())

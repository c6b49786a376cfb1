"""Speed on this device: rows of the benchmarks, the most telling first, in $OUT/rows.csv.

    . .gpu/main/setup && python3 -m benchmarks.gpu.speed [SECONDS]   DEVICE=cpu rehearses it

What the programs print is in $OUT/speed.txt; each has its seconds at most, and MPS comes last.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path

from benchmarks.gpu.programs import NO_CAPTURE, PACES, capturable, mps, python

OUT, DEVICE = Path(os.environ["OUT"]), os.environ["DEVICE"]
PHOTOS = Path(".gpu/main/photos")
DATA = f" --train-data {PHOTOS}" if PHOTOS.is_dir() else ""
PROGRAMS = {  # with the seconds of each at most
    f"training --preset small --steps 300 --rounds 3{DATA}": 80,
    f"style --preset small --steps 60 --rounds 2{DATA}": 70,
    "roofline compression/small style/small beta_vae_scenes/small --steps 30 --rounds 3": 80,
    "conditioning --task compression --preset small --steps 300 --rounds 3": 60,
    "conditioning --task beta_vae_scenes --preset small --steps 2000 --rounds 3": 60,
    "packing beta_vae_scenes --preset small --steps 4000 --rounds 1 --packed 1 16 --one-process":
        100,
    "packing compression --preset small --steps 800 --rounds 1 --packed 1 7": 80,
}  # fmt: skip
UNDER_MPS = "packing beta_vae_scenes --preset small --steps 4000 --rounds 1 --packed 1 16"


def measure(words: str, most: float, end: float) -> None:
    """The rows of a program, within its seconds and what is left of all."""
    if DEVICE == "cpu":
        words = re.sub(r"(--steps|--rounds) \d+", r"\1 1", words.replace("small", "smoke"))
        words, most = re.sub(r"--packed 1 \d+", "--packed 1 2", words), end
    begin = time.monotonic()
    program, *rest = words.split()
    state, lines = "LEFT", ["no time left"]
    if begin < end:
        options = ("--device", DEVICE, "--out", OUT / "rows.csv")
        seconds = min(most, end - begin)
        status, lines = python(
            ("-m", f"benchmarks.{program}", *rest, *options), seconds, capturable()
        )
        state = "FAIL" if status else "OK  "
    line = f"{state} {words} ({time.monotonic() - begin:.0f} s)"
    print(*(lines[-12:] if state == "FAIL" else []), line, sep="\n", flush=True)
    with open(OUT / "speed.txt", "a") as file:
        print(*lines, line, sep="\n", file=file)
    if (OUT / "rows.csv").exists():
        shutil.copy(OUT / "rows.csv", PACES)


def main() -> None:
    end = time.monotonic() + float((sys.argv[1:] or ["300"])[0])
    PACES.unlink(missing_ok=True)
    if NO_CAPTURE.exists():
        print(f"steps are not captured, as `check` saw that they cannot be: {NO_CAPTURE}")
    for words, most in PROGRAMS.items():
        measure(words, most, end)
    with mps() as running:
        if running or DEVICE == "cpu":
            measure(UNDER_MPS, 60, end)
        else:
            print(f"LEFT {UNDER_MPS} under MPS: its daemon does not start")


if __name__ == "__main__":
    main()

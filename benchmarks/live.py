"""From a slider to its picture: what `demo` takes for an answer, over HTTP as a browser asks.

    python -m benchmarks.live                   the networks that ship
    python -m benchmarks.live DIR --side 256

A picture of `--side` pixels a side is given where a task takes pictures, else a test example is
asked for. A sweep of 60 settings over the first coefficient's range, none asked for before: each a
model folded anew, one pass, a PNG and its transfer, as while a slider is dragged, with the fixed
network nearest beside it; then five whole answers, coded and measured. A browser adds the decoding
of the PNG. Milliseconds: median, 95th percentile and most.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import time
from typing import Any

import numpy as np
from PIL import Image

from bench.live.answers import Answers
from bench.live.networks import exhibited
from bench.live.server import Server
from bench.run.runner import choose_device

SETTINGS, WHOLE = 60, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    answers = Answers(exhibited(options.folder, "", None), choose_device(options.device))
    table = [["task", "preset", "moving: median", "95 %", "most", "whole: median"]]
    with Server(answers) as server, server.serving():
        link = http.client.HTTPConnection("127.0.0.1", server.port)
        for exhibit in asked(link, "GET", "/api/exhibits"):
            moving, whole = times(link, exhibit, options.side)
            worst = sorted(moving)[round(0.95 * (len(moving) - 1))]
            numbers = (statistics.median(moving), worst, max(moving), statistics.median(whole))
            table.append([exhibit["task"], exhibit["preset"], *(f"{n:.0f}" for n in numbers)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def times(link: http.client.HTTPConnection, exhibit: Any, side: int) -> tuple[list, list]:
    """Milliseconds of the answers to a moving slider, and of whole ones."""
    given = "example:0"
    if exhibit["takes"]:
        noise = np.random.default_rng(0).normal(size=(side // 16, side // 16, 3))
        picture = Image.fromarray((128 + 40 * noise).clip(0, 255).astype(np.uint8))
        file = io.BytesIO()
        picture.resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
        path = f"/api/picture?exhibit={exhibit['exhibit']}"
        given = asked(link, "POST", path, file.getvalue(), "application/octet-stream")["input"]
    first, *others = exhibit["axes"]
    method = exhibit["methods"][0]["label"]

    def answered(place: float, rest: bool) -> float:
        value = first["low"] * (first["high"] / first["low"]) ** place
        setting = [value, *(axis["start"] for axis in others)]
        question = {"exhibit": exhibit["exhibit"], "input": given, "method": method,
                    "setting": setting, "rest": rest}  # fmt: skip
        begun = time.perf_counter()
        asked(link, "POST", "/api/answer", json.dumps(question).encode(), "application/json")
        return 1000 * (time.perf_counter() - begun)

    for place in (0.01, 0.99):  # what is slow but once
        answered(place, False)
    moving = [answered((i + 0.5) / SETTINGS, False) for i in range(SETTINGS)]
    return moving, [answered((i + 0.3) / WHOLE, True) for i in range(WHOLE)]


def asked(
    link: http.client.HTTPConnection, way: str, path: str, body: bytes = b"", kind: str = ""
) -> Any:
    link.request(way, path, body, {"Content-Type": kind} if kind else {})
    reply = link.getresponse()
    content = json.loads(reply.read())
    if reply.status != 200:
        raise SystemExit(content["error"])
    return content


if __name__ == "__main__":
    main()

"""Results of the best codec there is, and of methods that are told another coefficient or lose a
share of the benefit: what tests of the report compare with closed forms."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from test_report import CODEC, Noise, write_results

from bench.identity import content_id
from bench.report.answers import compare
from bench.report.load import Run, load_results
from bench.run.records import Record, dumps
from bench.space import format_setting

MARGINS = {"loss": "1%", "bpp": "1%", "psnr": "0.05"}
MEASURES = {
    name: {**style, "margin": MARGINS.get(name, ""), "worst": {"bpp": 4.0, "psnr": 15.0}.get(name)}
    for name, style in CODEC.items()
}
DECADES = (1.0, 10.0, 100.0, 1000.0)
Values = Callable[..., dict[str, float]]
Told = Callable[[float], float]


def run_of(root: Path) -> Run:
    (run,) = load_results(root).runs
    return run


def overall_of(root: Path) -> pd.DataFrame:
    return compare.overall(run_of(root)).set_index("method")


def row_of(frame: pd.DataFrame, **where: Any) -> Any:
    (row,) = frame[(frame[list(where)] == list(where.values())).all(axis=1)].to_dict("records")
    return row


def ideal(coefficient: float, hard: float = 0.0) -> dict[str, float]:
    """Rate = -log distortion has its least loss at distortion 1 / λ."""
    distortion, rate = 1 / coefficient, 3 + math.log(coefficient)
    return {
        "distortion": distortion,
        "rate": rate,
        "loss": coefficient * distortion + rate,
        "bpp": rate * math.exp(0.3 * hard),
        "psnr": 10 * math.log10(255**2 / distortion),
    }


def told(worse: float = 1.0, **knobs: Told) -> Values:
    """Methods that answer a coefficient with the best codec for another."""

    def values(
        method: str, setting: tuple[float, ...], hard: float, noise: Noise
    ) -> dict[str, float]:
        (coefficient,) = setting
        codec = ideal(knobs.get(method, lambda c: c)(coefficient), hard)
        return codec | {"loss": worse * (coefficient * codec["distortion"] + codec["rate"])}

    return values


def write_ideal(root: Path, **more: Any) -> None:
    """Coefficients 1, 10, 100, 1000 of the best codec; `ends=10000.0` has one more."""
    high = more.pop("ends", 1000.0)
    options: dict[str, Any] = {
        "axes": [{"name": "distortion", "low": 1.0, "high": high, "symbol": "λ"}],
        "settings": tuple((c,) for c in (*DECADES, *([high] if high > 1000 else []))),
        "measures": {name: MEASURES[name] for name in ("loss", "bpp", "psnr", "distortion")},
        "fronts": (("bpp", "psnr"),),
        "context": False,
        "methods": ("fixed_grid", "yoto"),
    }
    write_results(root, **(options | more))


def also(
    root: Path,
    method: str,
    setting: float,
    kind: str,
    values: Values,
    share: float = 1.0,
    outside: bool = False,
) -> None:
    """One more measurement of a method that is there, of another kind."""
    paths = sorted(root.glob(f"records/*/{method}/*.json"))
    heads = [head for path in paths if (head := json.loads(path.read_text()))["kind"] == "method"]
    text = format_setting(["distortion"], (setting,))
    for head in [head for head in heads if head["setting"] == text] or heads[:1]:
        where = [head[name] for name in ("task", "preset", "experiment", "method", "seed")]
        rows = [
            Record(*where, "", text, f"picture{picture}", name, value)
            for picture in range(6)
            for hard in [float(np.random.default_rng(picture).standard_normal())]
            for name, value in values(method, (setting,), hard, None).items()
        ]
        csv = dumps(rows)
        head |= {"id": content_id([head["id"], kind, text, share]), "kind": kind, "setting": text}
        head |= {"share": share, "sha256": hashlib.sha256(csv.encode()).hexdigest()}
        head |= {"outside": ["λ is outside its range"] if outside else []}
        path = root / "records" / head["task"] / method / f"{head['id']}.json"
        path.with_suffix(".csv").write_text(csv)
        path.write_text(json.dumps(head))


def edit(root: Path, pattern: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite the heads or ledgers that match."""
    for path in sorted(root.glob(pattern)):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | change(content)))


def shortened(root: Path, method: str, share: float, worse: float = 1.0) -> None:
    """Networks of `DECADES`, trained for a share of the steps at a share of the cost."""
    for path in sorted(root.glob(f"runs/*/{method}/*/done.json")):
        done = json.loads(path.read_text())
        if done["ledger"]["steps"] % 1000:
            continue  # itself one
        done["id"] = f"{done['id']}-{share:g}"
        for cost in ("steps", "flops"):
            done["ledger"][cost] = int(done["ledger"][cost] * share)
        folder = path.parent.with_name(done["id"])
        folder.mkdir()
        (folder / "done.json").write_text(json.dumps(done))
    for coefficient in DECADES:
        also(root, method, coefficient, "length", told(worse), share=share)

    def cells(head: dict[str, Any]) -> dict[str, Any]:
        shorter = (head["kind"], head.get("share")) == ("length", share)
        return {"cells": [f"{cell}-{share:g}" for cell in head["cells"]]} if shorter else {}

    edit(root, f"records/*/{method}/*.json", cells)


def losing(share: float, spread: float = 0.0) -> Values:
    """A network told its coefficients that loses this share of the benefit; the middle network of
    `write_ideal(ends=10000.0)` is told 100."""

    def values(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        (coefficient,) = setting
        codec = told()("fixed_grid", setting, hard, noise)
        lost = (share + spread * noise()) * benefit(coefficient) if method == "yoto" else 0.0
        return codec | {"loss": codec["loss"] + lost}

    return values


def benefit(coefficient: float) -> float:
    """What the best codec for 100 loses at another coefficient: loss = c / told + 3 + log told."""
    return coefficient / 100 + math.log(100) - 1 - math.log(coefficient)

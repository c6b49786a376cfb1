"""Synthetic results: folders as the runner writes them, with numbers that a test can foresee."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from bench.identity import content_id
from bench.report import Built, build
from bench.report.load import file_name
from bench.run.records import Record, dumps
from bench.space import Setting, format_setting

Noise = Callable[[], float]


def style_of(
    label: str, unit: str = "", better: str = "lower", digits: int = 3, **more: Any
) -> dict[str, Any]:
    return {"label": label, "unit": unit, "better": better, "digits": digits, **more}


CODEC = {
    "bpp": style_of("rate, coded", "bpp"),
    "bpp_estimated": style_of("rate, estimated", "bpp"),
    "psnr": style_of("PSNR", "dB", "higher", 2),
    "ms_ssim": style_of("MS-SSIM", "", "higher", 4),
    "lpips": style_of("LPIPS (Alex)", digits=4),
    "distortion": style_of("255²·MSE", digits=1),
    "rate": style_of("rate term", "bpp"),
    "loss": style_of("loss"),
}
LAMBDAS = (0.0018, 0.00569, 0.018, 0.0569, 0.18)
SETTINGS = tuple((value,) for value in LAMBDAS)
LAMBDA = [{"name": "distortion", "low": 0.0018, "high": 0.18, "symbol": "λ"}]
METHODS = ("fixed_grid", "single_model", "unconditioned", "yoto")


def codec(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
    """Numbers such as a small codec's, for one picture."""
    (coefficient,) = setting
    tuned = {"single_model": 0.018, "unconditioned": 0.03}.get(method, coefficient)
    place = math.log(tuned / 0.0018) / math.log(100)
    off = 0.12 * (place - 0.45) ** 2 if method == "yoto" else 0.0
    bpp = 0.25 * 5.2**place * math.exp(0.3 * hard) * (1 + off)
    psnr = 25.8 + 5.6 * place - 1.5 * hard - 1.2 * off - 0.25 * (method == "unconditioned")
    bpp *= 1 + 0.004 * noise()
    psnr += 0.03 * noise()
    distortion = 255**2 * 10 ** (-psnr / 10)
    return {
        "bpp": bpp,
        "bpp_estimated": bpp * 0.98,
        "psnr": psnr,
        "ms_ssim": 1 - 0.09 * 10 ** (-place) * math.exp(0.2 * hard),
        "lpips": 0.4 - 0.25 * place + 0.03 * hard,
        "distortion": distortion,
        "rate": bpp * 0.98,
        "loss": coefficient * distortion + bpp * 0.98,
    }


REASON = "loss became non-finite between steps 40 and 50"
PROVENANCE = {
    "commit": "0123456789ab",
    "packages": {"python": "3.12.1", "torch": "2.9.0"},
    "platform": "Linux",
    "processor": "a CPU",
    "command": "run_bench.py run compression",
    "time": "2030-01-01T00:00:00Z",
}


def ledger_of(method: str, shared: bool) -> dict[str, Any]:
    twice = method == "yoto"
    return {
        "steps": 1000 * (1 + twice),
        "examples": 8000 * (1 + twice),
        "flops_per_step": 2 * 10**10,
        "flops": 2 * 10**13 * (1 + twice),
        "seconds": {"train": 105.0 if twice else 50.0, "data": 0.2},
        "peak_memory_bytes": 6 * 10**8,
        "parameters": 1_200_000,
        "conditioner_parameters": 300_000 * twice,
        "bytes": 4 * (1_200_000 + 300_000 * twice),
        "device": "cpu",
        "device_name": "a CPU, 2 threads",
        "shared_device": shared,
    }


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A results folder, and what all records of one run in it share."""

    root: Path
    run: dict[str, str]
    axes: list[dict[str, Any]]
    measures: dict[str, dict[str, Any]]
    fronts: tuple[tuple[str, str], ...]
    at: float
    version: int

    def setting(self, values: Setting) -> str:
        return format_setting([axis["name"] for axis in self.axes], values)

    def beyond(self, values: Setting) -> list[str]:
        return [
            f"{axis['name']} = {value:g}"
            for axis, value in zip(self.axes, values, strict=True)
            if not axis["low"] <= value <= axis["high"]
        ]

    def cell(
        self, method: str, seed: int, trained_for: tuple[Setting, ...], bad: bool, shared: bool
    ) -> str:
        """A training's files; its id."""
        identity = content_id([*self.run.values(), method, seed, trained_for, self.version])
        done = {"task": self.run["task"], "preset": self.run["preset"], "id": identity}
        done |= {"method": method, "seed": seed, "after": None}
        done |= {"status": "diverged" if bad else "done", "trained_for": trained_for}
        done |= {"ledger": ledger_of(method, shared), "provenance": PROVENANCE}
        folder = self.root / "runs" / file_name(self.run["task"]) / file_name(method) / identity
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "done.json").write_text(json.dumps(done | {"reason": REASON} if bad else done))
        return identity

    def entry(
        self, method: str, seed: int, setting: str, cells: list[str], rows: list[Record],
        **more: Any,
    ) -> Path:  # fmt: skip
        """A measurement's files; where its picture belongs."""
        identity = content_id([*self.run.values(), method, seed, setting, cells])
        folder = self.root / "records" / file_name(self.run["task"]) / file_name(method)
        path, text = folder / f"{identity}.csv", dumps(rows)
        folder.mkdir(parents=True, exist_ok=True)
        head = {**self.run, "id": identity, "method": method, "seed": seed, "setting": setting}
        head |= {"cells": cells, "outside": [], "provenance": PROVENANCE, "kind": "method"}
        head |= {"display": {"measures": self.measures, "fronts": self.fronts, "axes": self.axes}}
        head["display"]["sample_line"] = ""
        head |= {"sha256": hashlib.sha256(text.encode()).hexdigest(), "time": self.at, **more}
        if head["status"] == "done":
            path.write_text(text)
        else:
            head["reason"] = REASON
        path.with_suffix(".json").write_text(json.dumps(head))
        return path.with_suffix(".png")

    def curve(self, pictures: int, original: Image.Image | None) -> None:
        """JPEG's, and the picture that samples show an answer to."""
        rows = [
            Record(
                *self.run.values(), "JPEG", 0, "", f"quality={q}", f"picture{number}", name,
                value + 0.1 * number,
            )
            for number in range(pictures)
            for q in (5, 10, 20, 30, 50, 70, 90)
            for name, value in [("bpp", 0.1 * (q / 5) ** 0.9), ("psnr", 21 + 3.4 * math.log(q / 4))]
        ]  # fmt: skip
        path = self.entry("context", 0, "", [], rows, status="done", kind="context")
        if original:
            original.save(path)


def write_results(
    root: Path,
    *,
    task: str = "compression",
    preset: str = "quick",
    experiment: str = "e1",
    methods: tuple[str, ...] = METHODS,
    seeds: tuple[int, ...] = (0,),
    settings: tuple[Setting, ...] = SETTINGS,
    swept: tuple[Setting, ...] = (),
    axes: list[dict[str, Any]] = LAMBDA,
    measures: dict[str, dict[str, Any]] = CODEC,
    fronts: tuple[tuple[str, str], ...] = (("bpp", "psnr"), ("bpp", "lpips")),
    values: Callable[..., dict[str, float]] = codec,
    pictures: int = 6,
    picture: Callable[[str, Setting], Image.Image] | None = None,
    without: tuple[str, ...] = (),
    diverged: tuple[tuple[str, int, int], ...] = (),
    outside: tuple[int, ...] = (),
    context: bool = True,
    original: Image.Image | None = None,
    at: float = 1000.0,
    version: int = 1,
    shared: tuple[str, ...] = (),
) -> None:
    """A results folder as the runner writes it. `diverged` has (method, seed, setting's place);
    methods named after YOTO are `swept` with the first seed; `picture` draws the samples."""
    run = {"task": task, "preset": preset, "experiment": experiment}
    folder = Folder(
        root=root, run=run, axes=axes, measures=measures, fronts=fronts, at=at, version=version
    )
    middle = len(settings) // 2
    lost = {(method, seed) for method, seed, _ in diverged}
    places = list(enumerate([*settings, *swept]))
    for method, seed, (place, setting) in itertools.product(methods, seeds, places):
        compared, bad = place < len(settings), (method, seed, place) in diverged
        if not compared and ("yoto" not in method or seed != seeds[0]):
            continue
        trainer = "fixed_grid" if method == "single_model" else method
        fixed = {"fixed_grid": (setting,), "single_model": (settings[middle],)}.get(method, ())
        gone = bad or (not fixed and (method, seed) in lost)
        cell = folder.cell(trainer, seed, fixed, gone, trainer in shared)
        network = {"single_model": middle, "unconditioned": 0}.get(method, place)
        text, rows = folder.setting(setting), []
        for number in range(0 if bad else pictures):
            hard = float(np.random.default_rng(number).standard_normal())
            random = np.random.default_rng([seed, number, len(trainer), network])
            taken = values(method, setting, hard, random.standard_normal)
            head = (*run.values(), method, seed, cell, text, f"picture{number}")
            rows += [Record(*head, name, v) for name, v in taken.items() if name not in without]
        marks = ["λ is outside its range"] if place in outside else []
        path = folder.entry(
            method, seed, text, [cell], rows, status="diverged" if bad else "done",
            outside=marks if compared else folder.beyond(setting),
            kind="method" if compared else "swept",
        )  # fmt: skip
        if picture and not bad:
            picture(method, setting).save(path)
    if context:
        folder.curve(pictures, original)


STYLE_AXES = [
    {"name": f"style{i}", "low": 0.1, "high": 10.0, "symbol": f"s{i}"} for i in range(1, 5)
] + [{"name": "content", "low": 0.1, "high": 10.0, "symbol": "c"}]


def style_settings() -> tuple[tuple[float, ...], ...]:
    """A centre, each coefficient alone down and up, and two mixtures."""
    alone = [
        tuple(value if i == axis else 1.0 for i in range(5))
        for axis in range(5)
        for value in (0.1, 10.0)
    ]
    return ((1.0,) * 5, *alone, (0.3, 2.0, 0.5, 4.0, 1.5), (7.0, 0.2, 1.0, 0.6, 0.9))


def style(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
    far = sum(math.log(c) ** 2 for c in setting)
    worse = {"yoto": 1.03, "single_model": 1 + 0.05 * far, "unconditioned": 1 + 0.02 * far}
    total = sum(setting) * worse.get(method, 1.0) * math.exp(0.1 * hard + 0.01 * noise())
    content, painted = 3 * setting[4] ** -0.5, 2 * setting[0] ** -0.3
    content, painted = (v * (1 + 0.05 * noise()) for v in (content, painted))
    return {"content": content, "style": painted, "loss": total}


def write_style(root: Path, **more: Any) -> None:
    write_results(
        root,
        task="style",
        settings=style_settings(),
        axes=STYLE_AXES,
        measures={name: style_of(name) for name in ("content", "style", "loss")},
        fronts=(("content", "style"),),
        values=style,
        context=False,
        **more,
    )


def report_of(root: Path, **results: Any) -> Built:
    """Writes results and builds their only report."""
    write_results(root, **results)
    (built,) = build(root)
    return built


@pytest.fixture
def draws() -> None:
    """Used by the tests that look at figures; the others skip drawing them."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "draws" not in request.fixturenames:
        monkeypatch.setattr("bench.report.figures.figures", lambda *_: {})
        monkeypatch.setattr("bench.report.page.page", lambda *_: "")


def frame_of(root: Path) -> pd.DataFrame:
    """All rows of the methods, read without any of the code under test."""
    files = [path for path in root.glob("records/*/*/*.csv") if path.parent.name != "context"]
    return pd.concat([pd.read_csv(path) for path in files])


def shown(table: Any, width: int = 100) -> str:
    console = Console(width=width, color_system=None, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def page_of(built: Built) -> str:
    return (built.folder / "report.md").read_text()


def heads(root: Path, method: str = "yoto") -> list[Path]:
    return sorted(root.glob(f"records/*/{method}/*.json"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def has_note(built: Built, words: str) -> bool:
    return any(words in note for note in built.notes)

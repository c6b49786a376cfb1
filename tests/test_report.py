"""The report from synthetic results: loading, numbers against plain arithmetic, pages, figures."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from bench.cli import main
from bench.identity import content_id
from bench.report import build, load_results, terminal_tables
from bench.report.load import MeasureStyle
from bench.report.text import escape, markdown_table, measure_label, number, ratio, short
from bench.run.records import Record, dumps
from bench.space import format_setting

CODEC: dict[str, dict[str, Any]] = {
    "bpp": {"label": "rate, coded", "unit": "bpp", "better": "lower", "digits": 3},
    "bpp_estimated": {"label": "rate, estimated", "unit": "bpp", "better": "lower", "digits": 3},
    "psnr": {"label": "PSNR", "unit": "dB", "better": "higher", "digits": 2},
    "ms_ssim": {"label": "MS-SSIM", "unit": "", "better": "higher", "digits": 4},
    "lpips": {"label": "LPIPS (Alex)", "unit": "", "better": "lower", "digits": 4},
    "distortion": {"label": "255²·MSE", "unit": "", "better": "lower", "digits": 1},
    "rate": {"label": "rate term", "unit": "bpp", "better": "lower", "digits": 3},
    "loss": {"label": "loss", "unit": "", "better": "lower", "digits": 3},
}
LAMBDAS = (0.0018, 0.00569, 0.018, 0.0569, 0.18)
SETTINGS = tuple((value,) for value in LAMBDAS)
LAMBDA = [{"name": "distortion", "low": 0.0018, "high": 0.18, "symbol": "λ"}]
METHODS = ("fixed_grid", "single_model", "unconditioned", "yoto")


Noise = Callable[[], float]


def codec(method: str, setting: tuple[float, ...], hard: float, noise: Noise) -> dict[str, float]:
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


def write_results(
    root: Path,
    *,
    task: str = "compression",
    preset: str = "quick",
    experiment: str = "e1",
    methods: tuple[str, ...] = METHODS,
    seeds: tuple[int, ...] = (0,),
    settings: tuple[tuple[float, ...], ...] = SETTINGS,
    axes: list[dict[str, Any]] = LAMBDA,
    measures: dict[str, dict[str, Any]] = CODEC,
    fronts: tuple[tuple[str, str], ...] = (("bpp", "psnr"), ("bpp", "lpips")),
    values: Callable[..., dict[str, float]] = codec,
    pictures: int = 6,
    without: tuple[str, ...] = (),
    diverged: tuple[tuple[str, int, int], ...] = (),
    outside: tuple[int, ...] = (),
    context: bool = True,
    at: float = 1000.0,
    version: int = 1,
    shared: tuple[str, ...] = (),
) -> None:
    """A results folder as the runner writes it. `diverged` has (method, seed, setting's place)."""
    names = [axis["name"] for axis in axes]
    display = {"measures": measures, "fronts": fronts, "axes": axes, "sample_line": ""}
    provenance = {
        "commit": "0123456789ab",
        "packages": {"python": "3.12.1", "torch": "2.9.0"},
        "platform": "Linux",
        "processor": "a CPU",
        "command": f"run_bench.py run {task}",
        "time": "2030-01-01T00:00:00Z",
    }

    def cell(method: str, seed: int, trained_for: tuple[tuple[float, ...], ...], bad: bool) -> str:
        conditioned = method == "yoto"
        identity = content_id([task, preset, experiment, method, seed, trained_for, version])
        ledger = {
            "steps": 1000 * (2 if conditioned else 1),
            "examples": 8000 * (2 if conditioned else 1),
            "flops_per_step": 2 * 10**10,
            "flops": 2 * 10**13 * (2 if conditioned else 1),
            "seconds": {"train": 50.0 * (2.1 if conditioned else 1), "data": 0.2},
            "peak_memory_bytes": 6 * 10**8,
            "parameters": 1_200_000,
            "conditioner_parameters": 300_000 if conditioned else 0,
            "bytes": 4 * (1_500_000 if conditioned else 1_200_000),
            "device": "cpu",
            "device_name": "a CPU, 2 threads",
            "shared_device": method in shared,
        }
        done = {
            "id": identity,
            "status": "diverged" if bad else "done",
            "task": task,
            "preset": preset,
            "method": method,
            "seed": seed,
            "trained_for": trained_for,
            "after": None,
            "ledger": ledger,
            "provenance": provenance,
        }
        if bad:
            done["reason"] = "loss became non-finite between steps 40 and 50"
        folder = root / "runs" / task / method / identity
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "done.json").write_text(json.dumps(done))
        return identity

    conditioned_bad = {(method, seed) for method, seed, _ in diverged}

    def entry(
        method: str, seed: int, setting: str, cells: list[str], rows: list[Record], **more: Any
    ) -> None:
        identity = content_id([task, preset, experiment, method, seed, setting, cells])
        path = root / "records" / task / method / f"{identity}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = dumps(rows)
        if more["status"] == "done":
            path.write_text(text)
        content = {
            "id": identity,
            "task": task,
            "preset": preset,
            "experiment": experiment,
            "method": method,
            "seed": seed,
            "setting": setting,
            "cells": cells,
            "outside": [],
            "display": display,
            "provenance": provenance,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "time": at,
            "kind": "method",
            **more,
        }
        if more["status"] != "done":
            content["reason"] = "loss became non-finite between steps 40 and 50"
        path.with_suffix(".json").write_text(json.dumps(content))

    middle = settings[len(settings) // 2]
    for method in methods:
        for seed in seeds:
            for place, setting in enumerate(settings):
                bad = (method, seed, place) in diverged
                trainer = "fixed_grid" if method == "single_model" else method
                fixed = {"fixed_grid": (setting,), "single_model": (middle,)}.get(method, ())
                whole = bad or (not fixed and (method, seed) in conditioned_bad)
                cells = [cell(trainer, seed, fixed, whole)]
                rows = []
                for picture in range(0 if bad else pictures):
                    hard = float(np.random.default_rng(picture).standard_normal())
                    own = {"single_model": len(settings) // 2, "unconditioned": 0}
                    network = own.get(method, place)
                    random = np.random.default_rng([seed, picture, len(trainer), network])
                    taken = values(method, setting, hard, random.standard_normal)
                    rows += [
                        Record(
                            task, preset, experiment, method, seed, cells[0],
                            format_setting(names, setting), f"picture{picture}", name, value,
                        )
                        for name, value in taken.items()
                        if name not in without
                    ]  # fmt: skip
                entry(
                    method,
                    seed,
                    format_setting(names, setting),
                    cells,
                    rows,
                    status="diverged" if bad else "done",
                    outside=["λ is outside its range"] if place in outside else [],
                )
    if context:
        rows = [
            Record(
                task, preset, experiment, "JPEG", 0, "", f"quality={q}", f"picture{picture}",
                name, value + 0.1 * picture,
            )
            for picture in range(pictures)
            for q in (5, 10, 20, 30, 50, 70, 90)
            for name, value in [("bpp", 0.1 * (q / 5) ** 0.9), ("psnr", 21 + 3.4 * math.log(q / 4))]
        ]  # fmt: skip
        entry("context", 0, "", [], rows, status="done", kind="context")


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


def style(method: str, setting: tuple[float, ...], hard: float, noise: Noise) -> dict[str, float]:
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
        measures={
            "content": {"label": "content", "unit": "", "better": "lower", "digits": 3},
            "style": {"label": "style", "unit": "", "better": "lower", "digits": 3},
            "loss": {"label": "loss", "unit": "", "better": "lower", "digits": 3},
        },
        fronts=(("content", "style"),),
        values=style,
        context=False,
        **more,
    )


@pytest.fixture
def draws() -> None:
    """Asked for by the tests that look at figures; the others skip drawing them."""


@pytest.fixture(autouse=True)
def _only_where_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
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


# Loading ----------------------------------------------------------------------------------------


def test_loading_gives_every_number_once(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1))
    results = load_results(tmp_path)
    methods = results.records[results.records["kind"] == "method"]
    assert len(methods) == 4 * 2 * 5 * 6 * len(CODEC)
    assert methods["value"].sum() == pytest.approx(frame_of(tmp_path)["value"].sum())
    assert len(results.measured) == 4 * 2 * 5 + 1
    assert len(results.cells) == 2 * (5 + 1 + 1)  # the single model trains nothing of its own
    assert set(results.cells["seconds"]) == {50.0, 105.0}
    (run,) = results.runs
    assert run.methods == ["fixed_grid", "yoto", "single_model", "unconditioned"]
    assert set(run.context["method"]) == {"JPEG"}


def test_two_roots_read_as_one_and_nothing_twice(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_results(one, seeds=(0,))
    write_results(other, seeds=(0, 1))
    both, alone = load_results(one, other), load_results(other)
    assert len(both.records) == len(alone.records)
    assert len(both.cells) == len(alone.cells)
    assert both.superseded == {}


def test_a_measurement_without_its_json_is_unfinished(tmp_path: Path) -> None:
    write_results(tmp_path)
    before = len(load_results(tmp_path).measured)
    next(tmp_path.glob("records/*/yoto/*.json")).unlink()
    results = load_results(tmp_path)
    assert len(results.measured) == before - 1
    assert len(build(tmp_path)[0].summary) == 4 * 5 - 1


@pytest.mark.parametrize("harm", ["changed", "missing", "picture"])
def test_a_measurement_that_changed_is_left_out_and_named(tmp_path: Path, harm: str) -> None:
    write_results(tmp_path)
    whole = load_results(tmp_path)
    record = next(tmp_path.glob("records/*/yoto/*.json"))
    culprit = record.with_suffix(".png" if harm == "picture" else ".csv")
    if harm == "changed":
        culprit.write_text(culprit.read_text().replace("picture0", "picture9", 1))
    elif harm == "missing":
        culprit.unlink()
    else:
        head = json.loads(record.read_text())
        record.write_text(json.dumps(head | {"picture_sha256": "0" * 64}))
        culprit.write_bytes(b"another")
    with pytest.warns(UserWarning, match="1 measurements are left out; .*run again to measure"):
        left = load_results(tmp_path)
    entry = json.loads(record.read_text())["id"]
    assert set(whole.measured["entry"]) - set(left.measured["entry"]) == {entry}
    assert len(left.records) == len(whole.records) - (whole.records["entry"] == entry).sum()
    (run,) = left.runs
    assert [str(culprit) in sentence for sentence in run.damaged] == [True]
    with pytest.warns(UserWarning, match="left out"):
        (built,) = build(tmp_path)
    assert any("1 measurements are not what was written" in note for note in built.notes)


@pytest.mark.parametrize("harm", ["torn", "lacking", "cell"])
def test_what_is_damaged_is_named_with_the_way_out(tmp_path: Path, harm: str) -> None:
    write_results(tmp_path)
    record = next(tmp_path.glob("records/*/yoto/*.json"))
    culprit = record
    if harm == "torn":
        record.write_text(record.read_text()[:50])
    elif harm == "lacking":
        content = json.loads(record.read_text())
        del content["cells"]
        record.write_text(json.dumps(content))
    else:
        culprit = next(tmp_path.glob("runs/*/yoto/*/done.json"))
        culprit.write_text("[]")
    with pytest.raises((ValueError, FileNotFoundError), match="run again") as caught:
        load_results(tmp_path)
    assert str(culprit) in str(caught.value)


def test_no_folder_is_an_error_and_an_empty_one_an_empty_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results folder"):
        build(tmp_path / "nowhere")
    assert build(tmp_path) == []
    assert not (tmp_path / "report").exists()


def test_the_newest_version_of_a_method_counts(tmp_path: Path) -> None:
    def shifted(method: str, *rest: Any) -> dict[str, float]:
        return {name: value + 1 for name, value in codec(method, *rest).items()}

    write_results(tmp_path, methods=("yoto",), values=shifted, version=2, at=2000.0)
    new = build(tmp_path)[0].summary
    write_results(tmp_path, version=1, at=1000.0)
    (built,) = build(tmp_path)
    found = built.summary[built.summary["method"] == "yoto"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, new)
    assert built.run.superseded == 5
    assert any("5 older measurements" in note for note in built.notes)
    yoto = built.savings.set_index("method").loc["yoto"]
    assert yoto["networks"] == 1  # the old version's network is not in the sum


def test_the_newest_experiment_has_the_plain_folder(tmp_path: Path) -> None:
    write_results(tmp_path, experiment="old", at=1.0)
    write_results(tmp_path, experiment="new", at=2.0, pictures=3)
    write_results(tmp_path, preset="smoke", experiment="old", at=1.0)
    built = {b.run.key: b.folder.name for b in build(tmp_path)}
    assert built == {
        ("compression", "quick", "new"): "compression-quick",
        ("compression", "quick", "old"): "compression-quick-old",
        ("compression", "smoke", "old"): "compression-smoke",
    }
    only = build(tmp_path, out=tmp_path / "elsewhere", only={("compression", "quick", "old")})
    assert [b.folder for b in only] == [tmp_path / "elsewhere" / "compression-quick-old"]
    assert only[0].summary["pictures"].eq(6).all()


# Numbers ----------------------------------------------------------------------------------------


def test_summary_and_gaps_against_plain_arithmetic(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1, 2))
    (built,) = build(tmp_path)
    rows = frame_of(tmp_path)
    setting = "distortion=0.18"
    at = rows[(rows["setting"] == setting) & (rows["measure"] == "psnr")]
    values = {
        method: at[at["method"] == method].sort_values(["seed", "example"])["value"].to_numpy()
        for method in METHODS
    }
    summary = built.summary.set_index(["method", "setting"])
    assert summary.at[("yoto", setting), "psnr"] == pytest.approx(values["yoto"].mean())
    assert summary.at[("yoto", setting), "seeds"] == 3

    by_seed = values["yoto"].reshape(3, 6).mean(1)
    assert summary.at[("yoto", setting), "psnr_sd"] == pytest.approx(by_seed.std(ddof=1))

    gap = values["yoto"] - values["fixed_grid"]
    compared = built.comparisons.set_index(["method", "setting", "measure"])
    found = compared.loc[("yoto", setting, "psnr")]
    grid = values["fixed_grid"].mean()
    assert found["gap"] == pytest.approx(100 * gap.mean() / grid)  # it has no margin in dB here
    assert (found["pairs"], found["pictures"], found["seeds"]) == (18, 6, 3)
    middle = built.comparisons.query("method == 'single_model' and setting == 'distortion=0.018'")
    assert (middle["gap"] == 0).all()  # the very same network
    assert "fixed_grid" not in set(built.comparisons["method"])


def test_pairs_that_lack_a_partner_are_left_out_and_said(tmp_path: Path) -> None:
    write_results(tmp_path)
    write_results(tmp_path / "more", pictures=4)
    for path in (tmp_path / "records/compression/fixed_grid").iterdir():
        path.unlink()
    for path in (tmp_path / "more/records/compression/fixed_grid").iterdir():
        path.rename(tmp_path / "records/compression/fixed_grid" / path.name)
    (built,) = build(tmp_path)
    assert set(built.comparisons["pairs"]) == {4}
    assert set(built.comparisons["unpaired"]) == {2}
    assert any("YOTO: 10 measured examples have no partner" in note for note in built.notes)


def test_without_a_grid_there_are_no_gaps_but_a_report(tmp_path: Path, draws: None) -> None:
    write_results(tmp_path, methods=("yoto", "unconditioned"))
    (built,) = build(tmp_path)
    assert (built.comparisons["pairs"] == 0).all()
    assert built.savings["flops_ratio"].isna().all()
    assert not (built.folder / "gap.png").exists()
    assert "no fixed grid" in (built.folder / "report.md").read_text()
    text = "".join(shown(table) for table in terminal_tables([built]))
    assert "40 T" in text  # amounts instead of ratios


def test_the_grid_alone_makes_a_report(tmp_path: Path, draws: None) -> None:
    write_results(tmp_path, methods=("fixed_grid",), pictures=1, settings=((0.018,),))
    (built,) = build(tmp_path)
    assert built.comparisons.empty
    assert not (built.folder / "comparisons.md").exists()
    assert "no verdict" in built.sentence


def test_costs_are_per_seed_and_over_different_cells(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0, 1, 2))
    found = build(tmp_path)[0].savings.set_index("method")
    grid, yoto, single = (found.loc[m] for m in ("fixed_grid", "yoto", "single_model"))
    assert (grid["networks"], grid["examples"], grid["flops"]) == (5, 40_000, 1e14)
    assert (yoto["networks"], yoto["examples"], yoto["flops"]) == (1, 16_000, 4e13)
    assert yoto["parameters"] == 1_500_000  # with its conditioner
    assert (yoto["seconds"], yoto["bytes_ratio"]) == (105.0, pytest.approx(0.25))
    assert (single["networks"], single["flops_ratio"]) == (1, pytest.approx(0.2))
    every = found.iloc[-1]
    assert every.name == "all, each network once"
    assert every["networks"] == 5 + 1 + 1  # not the single model's a second time


def test_seconds_of_a_shared_device_are_not_quoted(tmp_path: Path) -> None:
    write_results(tmp_path, shared=("yoto",))
    (built,) = build(tmp_path)
    found = built.savings.set_index("method")
    assert math.isnan(found.at["yoto", "seconds"])
    assert found.at["fixed_grid", "seconds"] == 250.0
    assert found.at["yoto", "flops_ratio"] == pytest.approx(0.4)
    assert any(note.startswith("No seconds are quoted of YOTO:") for note in built.notes)


def test_seconds_of_different_devices_have_no_ratio(tmp_path: Path) -> None:
    write_results(tmp_path)
    for path in tmp_path.glob("runs/*/yoto/*/done.json"):
        path.write_text(path.read_text().replace("a CPU, 2 threads", "a GPU"))
    found = build(tmp_path)[0].savings.set_index("method")
    assert found.at["yoto", "seconds"] == 105.0
    assert math.isnan(found.at["yoto", "seconds_ratio"])
    assert found.at["unconditioned", "seconds_ratio"] == pytest.approx(0.2)


def test_what_a_network_was_continued_from_costs_but_is_not_stored(tmp_path: Path) -> None:
    write_results(tmp_path)
    (yoto,) = tmp_path.glob("runs/*/yoto/*/done.json")
    (first,) = tmp_path.glob("runs/*/unconditioned/*/done.json")
    content = json.loads(yoto.read_text())
    yoto.write_text(json.dumps(content | {"after": json.loads(first.read_text())["id"]}))
    found = build(tmp_path)[0].savings.set_index("method")
    assert (found.at["yoto", "networks"], found.at["yoto", "flops"]) == (2, 6e13)
    assert found.at["yoto", "parameters"] == 1_500_000


def test_a_training_that_is_not_here_leaves_its_cost_open(tmp_path: Path) -> None:
    write_results(tmp_path)
    next(tmp_path.glob("runs/*/yoto/*/done.json")).unlink()
    (built,) = build(tmp_path)
    found = built.savings.set_index("method")
    assert math.isnan(found.at["yoto", "flops"])
    assert math.isnan(found.at["all, each network once", "flops"])
    assert any("YOTO: 1 of its trainings have no done.json" in note for note in built.notes)


def test_a_training_without_a_ledger_leaves_its_cost_open(tmp_path: Path) -> None:
    write_results(tmp_path, diverged=(("yoto", 0, 0),))
    for path in tmp_path.glob("runs/*/yoto/*/done.json"):
        content = json.loads(path.read_text())
        ledger = {"device": "cpu", "shared_device": False}
        path.write_text(json.dumps(content | {"status": "diverged", "ledger": ledger}))
    (built,) = build(tmp_path)
    found = built.savings.set_index("method")
    assert math.isnan(found.at["yoto", "flops"])
    assert found.at["yoto", "networks"] == 1
    assert any("YOTO: a training" in note for note in built.notes)


def test_values_that_are_not_finite_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    def broken(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        found = codec(method, setting, hard, noise)
        return found | {"psnr": math.inf if hard > 0.5 else found["psnr"]}

    write_results(tmp_path, values=broken, context=False)
    (built,) = build(tmp_path)
    assert built.summary["psnr"].map(math.isfinite).all()
    rows = frame_of(tmp_path)
    infinite = int((rows["value"] == math.inf).sum())
    assert infinite > 0
    assert any(note.startswith(f"{infinite} measured values") for note in built.notes)


# What is written --------------------------------------------------------------------------------


def test_the_diverged_are_shown_as_such(tmp_path: Path) -> None:
    gone = [("fixed_grid", 0, 2), ("fixed_grid", 1, 2), ("fixed_grid", 0, 4)]
    write_results(tmp_path, seeds=(0, 1), diverged=tuple(gone))
    (built,) = build(tmp_path)
    summary = built.summary.set_index(["method", "setting"])
    assert summary.at[("fixed_grid", "distortion=0.018"), "status"] == "diverged"
    assert math.isnan(summary.at[("fixed_grid", "distortion=0.018"), "psnr"])
    assert summary.at[("fixed_grid", "distortion=0.18"), "status"] == "some lost"
    assert summary.at[("fixed_grid", "distortion=0.18"), "seeds"] == 1
    page = (built.folder / "report.md").read_text()
    assert page.count(" diverged |") == len(CODEC)
    assert "non-finite between steps 40 and 50" in page
    assert "0.18 ‡" in page
    assert "diverged" in shown(terminal_tables([built])[2])
    gap = built.comparisons.set_index(["method", "setting", "measure"])["pairs"]
    assert gap[("yoto", "distortion=0.018", "psnr")] == 0
    assert gap[("yoto", "distortion=0.18", "psnr")] == 6


def test_a_failed_measurement_is_shown_as_failed(tmp_path: Path) -> None:
    write_results(tmp_path, diverged=(("yoto", 0, 1),))
    for path in tmp_path.glob("records/*/yoto/*.json"):
        content = json.loads(path.read_text())
        if content["status"] == "diverged":
            path.write_text(
                json.dumps({**content, "status": "failed", "reason": "out of | memory"})
            )
    (built,) = build(tmp_path)
    assert list(built.summary["status"]).count("failed") == 1
    assert any("Failed: YOTO" in note and "out of | memory" in note for note in built.notes)


def test_an_older_variant_of_a_method_is_left_out(tmp_path: Path) -> None:
    """Also at the settings at which the new variant was not measured."""
    write_results(tmp_path)
    last = max(tmp_path.glob("records/*/yoto/*.json"))
    newer = {"method_id": "new", "time": 2e9}
    last.write_text(json.dumps({**json.loads(last.read_text()), **newer}))
    (built,) = build(tmp_path)
    assert len(built.summary[built.summary["method"] == "yoto"]) == 1
    assert built.run.superseded == len(LAMBDAS) - 1


def test_the_sample_sheet_shows_every_method_at_every_setting(tmp_path: Path, draws: None) -> None:
    from PIL import Image

    write_results(tmp_path)
    for place, path in enumerate(sorted(tmp_path.glob("records/*/*/*.json"))):
        colour = (place * 11 % 256, 90, 200)
        Image.new("RGB", (300, 280), colour).save(path.with_suffix(".png"))
    (built,) = build(tmp_path)
    sheet = built.folder / "samples.png"
    with Image.open(sheet) as picture:
        shown_colours = {colour for _, colour in picture.convert("RGB").getcolors(10**7)}
    entries = built.run.measured["path"]
    for path in entries:
        with Image.open(path.with_suffix(".png")) as picture:
            assert picture.getpixel((0, 0)) in shown_colours
    assert "samples.png" in (built.folder / "report.md").read_text()


def test_all_diverged_still_makes_a_report(tmp_path: Path, draws: None) -> None:
    write_results(
        tmp_path, methods=("yoto",), settings=((0.018,),), diverged=(("yoto", 0, 0),), context=False
    )
    (built,) = build(tmp_path)
    assert list(built.summary["status"]) == ["diverged"]
    assert not list(built.folder.glob("*.png"))


def test_a_measure_without_rows_keeps_its_column_and_a_note(tmp_path: Path) -> None:
    write_results(tmp_path, without=("lpips",))
    (built,) = build(tmp_path)
    assert built.summary["lpips"].isna().all()
    assert "LPIPS (Alex)" in (built.folder / "summary.md").read_text()
    assert any(note.startswith("LPIPS (Alex) was not measured") for note in built.notes)
    assert "LPIPS" in shown(terminal_tables([built])[2])


def test_settings_outside_the_range_are_marked(tmp_path: Path) -> None:
    settings = tuple((c,) for c in (*LAMBDAS, 0.5))
    write_results(tmp_path, settings=settings, outside=(5,))
    (built,) = build(tmp_path)
    assert "0.5 †" in (built.folder / "summary.md").read_text()
    assert list(built.summary["outside_range"][:6]) == [False] * 5 + [True]


def test_known_curves_stay_out_of_the_tables(tmp_path: Path) -> None:
    write_results(tmp_path)
    (built,) = build(tmp_path)
    for path in built.paths:
        if path.suffix in (".csv", ".md"):
            assert "JPEG" not in path.read_text()


def cells_of(line: str) -> int:
    return line.replace("\\|", "").count("|") - 1


def test_no_record_can_break_a_page(tmp_path: Path, draws: None) -> None:
    nasty = "a|b\n# *x* _y_ `z` <script>[l](u) $1$ ~s~ \\"
    measures = {"loss": {"label": nasty, "unit": nasty, "better": "", "digits": 3}}
    axes = [{"name": "distortion", "low": 0.0018, "high": 0.18, "symbol": nasty}]
    write_results(
        tmp_path,
        task="task",
        preset="a|b",
        experiment=nasty,
        methods=("fixed_grid", "x|y [red]"),
        measures=measures,
        axes=axes,
        fronts=(("loss", "psnr"),),
    )
    (built,) = build(tmp_path)
    assert built.folder.parent == tmp_path / "report"
    for path in built.folder.glob("*.md"):
        lines = path.read_text().splitlines()
        assert not any("<script" in line for line in lines)
        assert sum(line.startswith("# ") for line in lines) == (path.name == "report.md")
        for one, other in itertools.pairwise(lines):
            if one.startswith("|") and other.startswith("|"):
                assert cells_of(one) == cells_of(other)  # one width per table
    text = "".join(shown(table, 200) for table in terminal_tables([built]))
    assert "x|y [red]" in text


def test_markdown_escapes_round_trip() -> None:
    text = "a|b *c* _d_ `e` [f](g) <h> & $i$ ~j~ #k {l} \\m"
    unescaped = "".join(
        part[:1] + part[1:] if i else part for i, part in enumerate(escape(text).split("\\"))
    )
    assert unescaped.replace("&lt;", "<").replace("&amp;", "&") == text.replace("\\", "")
    assert escape("two\nlines\x1b[31m") == "two lines \\[31m"
    table = markdown_table(["a", "b|c"], [["1", "22"], ["|", ""]])
    assert [cells_of(line) for line in table.splitlines()] == [2, 2, 2, 2]
    assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(-0.12345, 2), "−0.12"),
        (number(-0.0001, 2, sign=True), "0.00"),
        (number(0.126, 2, sign=True), "+0.13"),
        (number(math.nan), "—"),
        (number(None), "—"),
        (short(3.42e13, "FLOP"), "34.2 TFLOP"),
        (short(999.9), "1 k"),
        (short(5), "5"),
        (short(0), "0"),
        (short(math.nan, "s"), "—"),
        (ratio(0.2), "0.20×"),
        (ratio(0.0123), "0.012×"),
        (ratio(123.4), "123×"),
        (ratio(0), "0.00×"),
        (measure_label(MeasureStyle(label="PSNR", unit="dB", better="higher")), "PSNR (dB)\xa0↑"),
    ],
)
def test_how_numbers_are_written(text: str, expected: str) -> None:
    assert text == expected


def test_many_axes_have_short_settings_and_a_key(tmp_path: Path) -> None:
    write_style(tmp_path)
    (built,) = build(tmp_path)
    labels = list(built.run.labels().values())
    assert labels[:4] == ["centre", "s1 = 0.1", "s1 = 10", "s2 = 0.1"]
    assert labels[-2:] == ["mix 1", "mix 2"]
    assert len(set(labels)) == 13
    page = (built.folder / "report.md").read_text()
    assert escape("style1=0.3;style2=2;style3=0.5;style4=4;content=1.5") in page


def test_terminal_tables_fit_and_lose_nothing(tmp_path: Path) -> None:
    more = ("weight_interpolation", "warm_started_grid", "input_concatenation")
    write_results(tmp_path, methods=METHODS + more, seeds=(0, 1), diverged=(("yoto", 0, 0),))
    write_style(tmp_path)
    for table in terminal_tables(build(tmp_path)):
        narrow = shown(table, 100)
        assert max(map(len, narrow.splitlines())) <= 100
        assert "…" not in narrow
        console = Console(width=100)
        rows = len([line for line in narrow.splitlines() if line.strip()])
        wide = len([line for line in shown(table, 300).splitlines() if line.strip()])
        assert rows <= wide + 5  # only the notes below may take more lines
        assert console.measure(table).minimum <= 100


def test_the_report_says_the_verdict_and_has_every_table_three_times(tmp_path: Path) -> None:
    write_results(tmp_path)
    (built,) = build(tmp_path)
    page = (built.folder / "report.md").read_text()
    assert escape(built.sentence) in page.splitlines()[2]
    names = ("overall", "comparisons", "summary", "savings", "break_even")
    for name in names:
        assert (built.folder / f"{name}.md").read_text().splitlines()[2] in page  # its head
        assert pd.read_csv(built.folder / f"{name}.csv")["method"].nunique() >= 3
        assert r"\toprule" in (built.folder / f"{name}.tex").read_text()
    assert "± " not in (built.folder / "summary.tex").read_text()  # one seed has no spread
    write_results(tmp_path, seeds=(0, 1))
    build(tmp_path)
    assert r" $\pm$ " in (built.folder / "summary.tex").read_text()


def test_the_page_shows_every_run_and_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def page(results: Any, reports: list[Any], command: str) -> str:
        assert command == f"python run_bench.py report {tmp_path}"
        assert len(results.runs) == len(reports)
        seen.append([report.run.folder for report in reports])
        return f"page {len(seen)}"

    monkeypatch.setattr("bench.report.page.page", page)
    write_results(tmp_path)
    write_results(tmp_path, preset="smoke")
    build(tmp_path)
    other = tmp_path / "report" / "compression-smoke" / "report.md"
    other.write_text("as it was")
    (built,) = build(tmp_path, only={("compression", "quick", "e1")})
    assert built.run.preset == "quick"
    assert seen == [["compression-quick", "compression-smoke"]] * 2
    assert (tmp_path / "report" / "index.html").read_text() == "page 2"
    assert other.read_text() == "as it was"


def test_several_folders_make_one_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, out = tmp_path / "one", tmp_path / "other", tmp_path / "out"
    write_results(one, methods=("fixed_grid",))
    write_results(other, methods=("yoto", "unconditioned"), context=False)
    assert main(["report", str(one), str(other), "--out", str(out)]) == 0
    found = pd.read_csv(out / "compression-quick" / "overall.csv").set_index("method")
    assert list(found.index) == ["fixed_grid", "yoto", "unconditioned"]
    assert found["loss_gap_mean"].notna().all()
    assert found.at["yoto", "flops_ratio"] == pytest.approx(0.4)
    assert not (one / "report").exists()
    printed = capsys.readouterr().out
    assert "one network (YOTO) loses" in " ".join(printed.split())
    assert str(out / "index.html") in printed


def test_the_report_command_explains_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path)
    assert main(["report", str(tmp_path), "--explain", "compression-quick/yoto/0.18"]) == 0
    assert "commit 0123456789ab" in capsys.readouterr().out
    assert not (tmp_path / "report").exists()
    assert main(["report", str(tmp_path), "--explain", "compression-quick/nobody"]) == 2
    assert "it has fixed_grid, yoto" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2


# Figures ----------------------------------------------------------------------------------------


def test_figures_have_their_size_and_are_the_same_again(tmp_path: Path, draws: None) -> None:
    write_results(tmp_path)
    (built,) = build(tmp_path)
    names = {"front_bpp_psnr": 680, "front_bpp_lpips": 680, "measures": 1400, "gap": 1400}
    for name, width in names.items():
        with Image.open(built.folder / f"{name}.png") as image:
            assert image.width == width
            pixels = np.asarray(image.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
        svg = (built.folder / f"{name}.svg").read_bytes()
        assert svg.rstrip().endswith(b"</svg>")
    before = {path: path.read_bytes() for path in built.paths}
    (built.folder / "front_of_another_run.png").write_bytes(b"")
    build(tmp_path)
    assert before == {path: path.read_bytes() for path in built.paths}
    assert not (built.folder / "front_of_another_run.png").exists()


# The house --------------------------------------------------------------------------------------


def test_a_report_needs_neither_torch_nor_early_plotting(tmp_path: Path) -> None:
    write_results(tmp_path)
    code = (
        "import sys; from pathlib import Path; import bench.report as r\n"
        "early = {'seaborn', 'matplotlib'} & set(sys.modules)\n"
        "assert not early, early\n"
        "built = r.build(Path(sys.argv[1])); r.terminal_tables(built)\n"
        "late = {'torch', 'compressai', 'bench.task', 'bench.method'} & set(sys.modules)\n"
        "assert not late, late\n"
        "assert 'matplotlib.pyplot' not in sys.modules or not __import__("
        "'matplotlib.pyplot').pyplot.get_fignums()\n"
        "print(built[0].paths[0])"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("compression-quick/report.md")
    assert "Warning" not in done.stderr


def test_every_link_of_the_page_leads_somewhere(tmp_path: Path, draws: None) -> None:
    write_results(tmp_path)
    (built,) = build(tmp_path)
    page = (built.folder / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page) + re.findall(r'src="([^"]+)"', page)
    assert len(links) >= 10
    assert all((built.folder / link).exists() for link in links)
    assert {path.name for path in built.paths} == {path.name for path in built.folder.iterdir()}

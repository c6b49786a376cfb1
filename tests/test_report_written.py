"""What a report writes: Markdown, LaTeX, CSV and the terminal, whatever the results hold."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from synthetic import (
    CODEC,
    METHODS,
    SETTINGS,
    Noise,
    change,
    codec,
    draws,
    frame_of,
    has_note,
    heads,
    page_of,
    report_of,
    shown,
    undrawn,
    write_results,
    write_style,
)

from bench.cli import main
from bench.report import build, terminal_tables
from bench.report.load import MeasureStyle
from bench.report.stamps import STAMP
from bench.report.text import escape, markdown_table, measure_label, number, ratio, short
from bench.space import Setting

__all__ = ["draws", "undrawn"]

# What is written --------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    def broken(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        numbers = codec(method, setting, hard, noise)
        return numbers | {"psnr": math.inf if hard > 0.5 else numbers["psnr"]}

    built = report_of(tmp_path, values=broken, context=False)
    assert built.summary["psnr"].map(math.isfinite).all()
    infinite = int((frame_of(tmp_path)["value"] == math.inf).sum())
    assert infinite > 0
    assert has_note(built, f"{infinite} measured values")


def test_what_an_example_has_none_of_is_no_fault(tmp_path: Path) -> None:
    """Of one of several paintings it has no number for the others."""

    def own(method: str, setting: Any, hard: float, noise: Noise) -> dict[str, float]:
        numbers = codec(method, setting, hard, noise)
        return numbers | {"psnr": math.nan if hard > 0.5 else numbers["psnr"]}

    some = CODEC | {"psnr": CODEC["psnr"] | {"partial": True}}
    built = report_of(tmp_path, values=own, context=False, measures=some)
    assert built.summary["psnr"].map(math.isfinite).all()
    assert built.run.partial == ["psnr"]
    assert built.run.not_finite == 0
    assert has_note(built, "their means are over those that do: PSNR")
    gaps = built.comparisons.set_index("measure")
    assert (gaps.loc["psnr", "pairs"] < gaps.loc["bpp", "pairs"].max()).all()
    assert (gaps["unpaired"] == 0).all()
    lost = report_of(tmp_path / "lost", values=own, context=False)  # where the task does not say so
    assert (lost.run.partial, lost.run.not_finite > 0) == ([], True)


def test_the_diverged_are_shown_as_such(tmp_path: Path) -> None:
    gone = (("fixed_grid", 0, 2), ("fixed_grid", 1, 2), ("fixed_grid", 0, 4))
    built = report_of(tmp_path, seeds=(0, 1), diverged=gone)
    rows = built.summary.set_index(["method", "setting"]).loc["fixed_grid"]
    assert rows.at["distortion=0.018", "status"] == "diverged"
    assert math.isnan(rows.at["distortion=0.018", "psnr"])
    assert rows.at["distortion=0.18", "status"] == "some lost"
    assert rows.at["distortion=0.18", "seeds"] == 1
    page = page_of(built)
    assert page.count(" diverged |") == len(CODEC)
    assert "non-finite between steps 40 and 50" in page
    assert "0.18 ‡" in page
    assert "diverged" in shown(terminal_tables([built])[2])
    gap = built.comparisons.set_index(["method", "setting", "measure"])["pairs"]
    assert gap["yoto", "distortion=0.018", "psnr"] == 0
    assert gap["yoto", "distortion=0.18", "psnr"] == 6


def test_a_failed_measurement_is_shown_as_failed(tmp_path: Path) -> None:
    write_results(tmp_path, diverged=(("yoto", 0, 1),))
    for path in heads(tmp_path):
        if json.loads(path.read_text())["status"] == "diverged":
            change(path, status="failed", reason="out of | memory")
    (built,) = build(tmp_path)
    assert list(built.summary["status"]).count("failed") == 1
    assert any("Failed: YOTO" in note and "out of | memory" in note for note in built.notes)


@pytest.mark.usefixtures("draws")
def test_the_sample_sheet_shows_every_method_at_every_setting(tmp_path: Path) -> None:
    colours = itertools.count()

    def coloured(method: str, setting: Setting) -> Image.Image:
        return Image.new("RGB", (300, 280), (next(colours) * 11 % 256, 90, 200))

    built = report_of(tmp_path, picture=coloured)
    with Image.open(built.folder / "samples.png") as picture:
        there = {colour for _, colour in picture.convert("RGB").getcolors(10**7)}
    for path in built.run.measured["path"]:
        with Image.open(path.with_suffix(".png")) as picture:
            assert picture.getpixel((0, 0)) in there
    assert "samples.png" in page_of(built)


def test_a_measure_without_rows_keeps_its_column_and_a_note(tmp_path: Path) -> None:
    built = report_of(tmp_path, without=("lpips",))
    assert built.summary["lpips"].isna().all()
    assert "LPIPS (Alex)" in (built.folder / "summary.md").read_text()
    assert has_note(built, "LPIPS (Alex) was not measured")
    assert "LPIPS" in shown(terminal_tables([built])[2])


def test_settings_outside_the_range_are_marked(tmp_path: Path) -> None:
    built = report_of(tmp_path, settings=(*SETTINGS, (0.5,)), outside=(5,))
    assert "0.5 †" in (built.folder / "summary.md").read_text()
    assert list(built.summary["outside_range"][:6]) == [False] * 5 + [True]


def test_known_curves_stay_out_of_the_tables(tmp_path: Path) -> None:
    texts = [p.read_text() for p in report_of(tmp_path).paths if p.suffix in (".csv", ".md")]
    assert len(texts) > 10
    assert "JPEG" not in "".join(texts)


def cells_of(line: str) -> int:
    return line.replace("\\|", "").count("|") - 1


@pytest.mark.usefixtures("draws")
def test_no_record_can_break_a_page(tmp_path: Path) -> None:
    nasty = "a|b\n# *x* _y_ `z` <script>[l](u) $1$ ~s~ \\"
    built = report_of(
        tmp_path,
        task="task",
        preset="a|b",
        experiment=nasty,
        methods=("fixed_grid", "x|y [red]"),
        measures={"loss": {"label": nasty, "unit": nasty, "better": "", "digits": 3}},
        axes=[{"name": "distortion", "low": 0.0018, "high": 0.18, "symbol": nasty}],
        fronts=(("loss", "psnr"),),
    )
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
    assert escape("style1=0.3;style2=2;style3=0.5;style4=4;content=1.5") in page_of(built)


def test_terminal_tables_fit_and_lose_nothing(tmp_path: Path) -> None:
    more = ("weight_interpolation", "warm_started_grid", "input_concatenation")
    write_results(tmp_path, methods=METHODS + more, seeds=(0, 1), diverged=(("yoto", 0, 0),))
    write_style(tmp_path)
    for table in terminal_tables(build(tmp_path)):
        narrow, wide = (
            [line for line in shown(table, width).splitlines() if line.strip()]
            for width in (100, 300)
        )
        assert max(map(len, narrow)) <= 100
        assert "…" not in "".join(narrow)
        assert len(narrow) <= len(wide) + 5  # only the notes below may take more lines
        assert Console(width=100).measure(table).minimum <= 100


def test_the_report_says_the_verdict_and_has_every_table_three_times(tmp_path: Path) -> None:
    built = report_of(tmp_path)
    page = page_of(built)
    for point in built.points:
        assert f"- **{escape(point.head)}** {escape(point.text)}" in page.splitlines()
    for name in ("overall", "comparisons", "summary", "savings", "break_even"):
        assert (built.folder / f"{name}.md").read_text().splitlines()[2] in page  # its head
        assert pd.read_csv(built.folder / f"{name}.csv")["method"].nunique() >= 3
        assert r"\toprule" in (built.folder / f"{name}.tex").read_text()
    summary = built.folder / "summary.tex"
    assert "± " not in summary.read_text()  # one seed has no spread
    report_of(tmp_path, seeds=(0, 1))
    assert r" $\pm$ " in summary.read_text()


def test_the_page_shows_every_run_and_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def page(results: Any, reports: list[Any], command: str, going: str) -> str:
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
    overall = pd.read_csv(out / "compression-quick" / "overall.csv").set_index("method")
    assert list(overall.index) == ["fixed_grid", "yoto", "unconditioned"]
    assert overall["loss_gap_mean"].notna().all()
    assert overall.at["yoto", "flops_ratio"] == pytest.approx(0.4)
    assert not (one / "report").exists()
    printed = capsys.readouterr().out
    assert re.search("as published +no verdict: one seed", printed)
    assert "Quality at the same coefficients" not in printed
    assert printed.splitlines()[-1] == f"page: {out / 'index.html'}"
    (row,) = pd.read_csv(out / "answers.csv").to_dict("records")
    assert (row["title"], row["answer"], row["why"]) == (
        *("image compression", "no verdict", "one seed"),
    )
    assert "no verdict: one seed" in (out / "answers.md").read_text()
    assert main(["report", str(one), str(other), "--out", str(out), "--tables"]) == 0
    assert "Quality at the same coefficients" in capsys.readouterr().out


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


@pytest.mark.usefixtures("draws")
def test_figures_have_their_size_and_are_the_same_again(tmp_path: Path) -> None:
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


@pytest.mark.usefixtures("draws")
def test_every_link_of_the_page_leads_somewhere(tmp_path: Path) -> None:
    write_results(tmp_path)
    (built,) = build(tmp_path)
    page = page_of(built)
    links = re.findall(r"\]\(([^)]+)\)", page) + re.findall(r'src="([^"]+)"', page)
    assert len(links) >= 10
    assert all((built.folder / link).exists() for link in links)
    there = {path.name for path in built.folder.iterdir()}
    assert {path.name for path in built.paths} == there - {STAMP}


def test_what_another_run_writes_into_the_folder_now_stays(tmp_path: Path) -> None:
    """Or its file would be gone before it gets its name, and that run would fail."""
    built = report_of(tmp_path)
    now, torn = (built.folder / f".report.md.{name}.tmp" for name in ("now", "torn"))
    for path in (now, torn):
        path.write_text("half")
    os.utime(torn, (0, 0))
    (built.folder / "report.md").unlink()  # so that it is written again
    build(tmp_path)
    assert now.exists()
    assert not torn.exists()

"""The answer at the top of the README, counted again from the committed losses of every example
by other means than the report: a mean, an interval of Student's t over seeds and examples."""

from __future__ import annotations

import itertools
import lzma
import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ideal import losing
from scipy.stats import t as student
from test_studies import write_study

from benchmarks import evidence

ROOT = Path(__file__).parent.parent
(TRAINED,) = (ROOT / "results" / "reference").glob("trained-cpu-*")
SCENES = {  # size and folder
    "trained": "beta_vae_scenes",
    "trained[2x width]": "beta_vae_scenes",
    "trained[training.steps=41600]": "beta_vae_scenes-41600",
}
MOST = 6_000_000  # bytes of all committed evidence
TASKS = sorted(path.parent.name for path in TRAINED.glob("*/losses.csv.xz"))
PRIMARY = [
    (task, claim, method, grid)
    for task in TASKS
    for claim, method, grid in (
        ("published", "yoto", "fixed_grid"),
        ("tuned", "yoto_tuned", "fixed_grid_tuned"),
    )
]


def unpacked(path: Path) -> pd.DataFrame:
    with lzma.open(path, "rt") as text:
        return pd.read_csv(text)


def losses(task: str) -> dict[str, np.ndarray]:
    """By method (settings, seeds, examples)."""
    frame = unpacked(TRAINED / task / "losses.csv.xz").set_index(["method", "setting", "seed"])
    return {
        method: part.to_numpy().reshape(part.index.unique(1).size, -1, part.shape[1])
        for method, part in frame.groupby(level=0, sort=False)
    }


def two_way(values: np.ndarray) -> tuple[float, float]:
    """The mean of (seeds, examples) and half of its 95 % interval: both were drawn."""
    mean, parts = values.mean(), []
    for axis in (1, 0):
        means = values.mean(axis)
        parts.append((means.var(ddof=1) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return mean, 0.0
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    return mean, student.ppf(0.975, freedom) * math.sqrt(variance)


def share_lost(method: np.ndarray, grid: np.ndarray, middle: np.ndarray) -> tuple[float, float]:
    """Of the benefit, mean over the settings where that is clearly above nothing, and half of its
    interval: each setting's ratio of means, linearised."""
    ratios, contributions = [], []
    for lost, gained in zip(method - grid, middle - grid, strict=True):
        benefit, half = two_way(gained)
        if benefit - half > 0:
            ratios.append(lost.mean() / benefit)
            contributions.append((lost - ratios[-1] * gained) / benefit)
    return float(np.mean(ratios)), two_way(np.mean(contributions, 0))[1]


def answers() -> Iterator[dict[str, Any]]:
    yield from pd.read_csv(TRAINED / "answer.csv").to_dict("records")


@pytest.mark.parametrize(("task", "claim", "method", "grid"), PRIMARY)
def test_the_answer_counted_again(task: str, claim: str, method: str, grid: str) -> None:
    """The report's interval is resampled: near, not the same. The reference is the grid's own
    network, or the best of its others where that is lower."""
    of = losses(task)
    hard = of[f"{grid} hard"]
    assert (hard.mean((1, 2)) <= of[grid].mean((1, 2)) + 1e-6).all()
    middle, half = share_lost(of[method], hard, of[f"{grid} middle"])
    (row,) = (row for row in answers() if (row["task"], row["claim"]) == (task, claim))
    said = re.fullmatch(r"(\S+) \[(\S+), (\S+)\] %", row["numbers"])
    assert said is not None
    share, low, high = (float(part.replace("−", "-")) for part in said.groups())
    rounded = 0.1 if "." in said[1] else 0.5
    assert share == pytest.approx(100 * middle, abs=rounded)
    assert high - low == pytest.approx(200 * half, rel=0.4, abs=0.15)
    ends = 100 * (middle - half), 100 * (middle + half)
    if row["answer"] == "equal":
        assert -10 < ends[0] < ends[1] < 10
    if row["answer"] == "worse":
        assert ends[0] > 10


CODEC = ("loss", "distortion")


def codecs() -> pd.DataFrame:
    """The committed losses and distortions of codecs, straight from the archive's tables."""
    (archive,) = (ROOT / "results" / "reference").glob("small-cpu-*/records.tar.xz")
    with tarfile.open(archive) as tar:
        names = [name for name in tar.getnames() if re.match(r"records/compression/.*csv$", name)]
        frame = pd.concat(pd.read_csv(tar.extractfile(name)) for name in names)  # type: ignore[arg-type]
    return frame[frame["measure"].isin(CODEC)]


def test_compression_counted_again_from_its_records() -> None:
    """A network's loss at another λ is its own and the difference of λ times its distortion."""
    frame = codecs().assign(value=lambda rows: rows["value"].astype(float))
    grid = frame[frame["method"] == "fixed_grid"]
    places = sorted(grid["setting"].unique(), key=lambda setting: float(setting.split("=")[1]))
    axes = [places, sorted(grid["seed"].unique()), sorted(grid["example"].unique())]

    def of(method: str, measure: str) -> np.ndarray:
        rows = frame[(frame["method"] == method) & (frame["measure"] == measure)]
        values = rows.set_index(["setting", "seed", "example"])["value"]
        found = values.reindex(pd.MultiIndex.from_product(axes)).to_numpy()
        return found.reshape([len(axis) for axis in axes])

    lambdas = np.array([float(setting.split("=")[1]) for setting in places])
    middle = len(places) // 2
    (table,) = (ROOT / "results" / "reference").glob("small-cpu-*/compression-small-cpu")
    said = pd.read_csv(table / "overall.csv").set_index("method")
    for grid_name, column in (("fixed_grid", "share_mean"), ("fixed_grid_tuned", "share_tuned")):
        loss, distortion = (of(grid_name, measure) for measure in CODEC)
        change = (lambdas - lambdas[middle])[:, None, None]
        everywhere = loss[middle] + change * distortion[middle]
        for method in ("yoto", "yoto_tuned", "vbr"):
            share, _ = share_lost(of(method, "loss"), loss, everywhere)
            assert share == pytest.approx(said.at[method, column], abs=1e-3)


def longer_codecs() -> dict[str, pd.DataFrame]:
    """By method, JPEG among them: a row a setting, the mean over Kodak of every measure."""
    means = unpacked(TRAINED / "compression-32000" / "means.csv.xz")
    tables = means.pivot(index=["method", "setting"], columns="measure", values="mean")
    by_rate = tables.sort_values("bpp")
    return {name.split()[0]: part.droplevel(0) for name, part in by_rate.groupby(level=0)}


def test_the_longer_codec_counted_again() -> None:
    tables = longer_codecs()
    grid, middle = (tables[name]["loss"] for name in ("fixed_grid_tuned", "single_model"))
    benefit = (middle - grid)[lambda rows: rows / grid > 1e-3]
    said = pd.read_csv(TRAINED / "compression-32000" / "overall.csv").set_index("method")
    for method in ("yoto", "yoto_tuned", "step_scaling"):
        gap = tables[method]["loss"] - grid
        assert (gap / benefit).mean() == pytest.approx(said.at[method, "share_mean"], abs=1e-3)
        percent = 100 * (gap / grid).mean()
        assert percent == pytest.approx(said.at[method, "loss_gap_mean"], abs=0.02)


def scenes(size: str) -> dict[str, pd.DataFrame]:
    """By method the terms and the loss at full length, a row a seed and β."""
    means = unpacked(TRAINED / SCENES[size] / "means.csv.xz")
    means = means.query("share == 1 and size == @size")
    table = means.pivot(index=["method", "seed", "setting"], columns="measure", values="mean")
    beta = table.index.get_level_values("setting").str.extract(r"kl=([\d.]+)")[0].astype(float)
    table = table.assign(beta=beta.to_numpy()).droplevel("setting").set_index("beta", append=True)
    return {name: part.droplevel(0) for name, part in table.groupby(level=0)}


@pytest.mark.parametrize("size", SCENES)
def test_scenes_counted_again(size: str) -> None:
    """The middle network's loss elsewhere from its own two terms; β = 1 is its own setting."""
    methods = scenes(size)
    said = pd.read_csv(TRAINED / SCENES[size] / "overall.csv")
    if "width" in size:
        said = pd.read_csv(TRAINED / SCENES[size] / "study.csv").query("width == 2")
    said = said.set_index("method")
    grids = {"fixed_grid": "share_mean", "fixed_grid_tuned": "share_tuned"}
    for name, column in grids.items():
        grid = methods[name]
        middle = grid.xs(1.0, level="beta").reindex(grid.index, level="seed")
        beta = grid.index.get_level_values("beta")
        benefit = beta * middle["kl"] + middle["reconstruction"] - grid["loss"]
        benefit = benefit.groupby("beta").mean().drop(1.0)
        for method in ("yoto", "yoto_tuned"):
            gap = (methods[method]["loss"] - grid["loss"]).groupby("beta").mean()
            share = (gap / benefit).dropna().mean()
            assert share == pytest.approx(said.at[method, column], abs=1e-3), (name, method)


def compute_ratio(task: str, method: str) -> tuple[float, float, float]:
    """To the method's final loss: what the grid's trainings of several lengths cost, over what the
    method's do, each at its first length that is enough (a line in the logarithm of the compute
    between two), and Student's interval of its logarithm over seeds. A curve that starts as low
    costs at most its first length: a bound, which says nothing (NaN) where that is dearer."""
    means = unpacked(TRAINED / task / "means.csv.xz").query("size == 'trained'")
    means = means[(means["measure"] == "loss") & means["method"].isin(["fixed_grid", method])]
    quality = pd.read_csv(TRAINED / task / "quality.csv").set_index(["method", "share"])
    full = means[(means["method"] == "fixed_grid") & (means["share"] == 1)]
    grid = full.set_index(["seed", "setting"])["mean"].rename("grid")
    rows = means.join(grid, on=["seed", "setting"])
    scale = rows["grid"].abs() if quality["percent"].all() else 1.0
    gaps = ((rows["mean"] - rows["grid"]) / scale).groupby(
        [rows["method"], rows["seed"], rows["share"]]
    )
    curves = gaps.mean().unstack("share")

    def enough(name: str, seed: int, level: float) -> float:
        curve = curves.loc[(name, seed)].dropna()
        costs = np.log2([quality.at[(name, share), "flops"] for share in curve.index])
        at = list(zip(costs, curve, strict=True))
        if at[0][1] <= level:
            return at[0][0]
        for (x, high), (x1, low) in itertools.pairwise(at):
            if high >= level >= low:
                return x + (x1 - x) * (high - level) / (high - low)
        return at[-1][0]  # never, and more than this

    ratios = []
    for seed in full["seed"].unique():
        level = curves.at[(method, seed), 1.0]
        ratio = enough("fixed_grid", seed, level) - enough(method, seed, level)
        bound = curves.loc[("fixed_grid", seed)].dropna().iloc[0] < level
        ratios.append(math.nan if bound and ratio > 0 else ratio)
    half = student.ppf(0.975, len(ratios) - 1) * np.std(ratios, ddof=1) / math.sqrt(len(ratios))
    middle = float(np.mean(ratios))
    return 2 ** (middle - half), 2**middle, 2 ** (middle + half)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ["yoto", "yoto_tuned"])
def test_compute_at_the_same_loss_counted_again(task: str, method: str) -> None:
    claims = pd.read_csv(TRAINED / task / "claims.csv", keep_default_na=False)
    claims = claims.set_index(["method", "claim"])
    said = re.findall(r"([\d.]+)×", claims.at[(method, "cheaper"), "numbers"])
    low, middle, high = compute_ratio(task, method)
    if not said:  # "the grid's lengths do not reach its loss"
        assert math.isnan(middle)
        return
    assert [float(part) for part in said] == pytest.approx([middle, low, high], rel=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_means_are_those_of_the_losses_and_name_their_cells(task: str) -> None:
    means = unpacked(TRAINED / task / "means.csv.xz")
    assert means["commit"].str.fullmatch("[0-9a-f]{12}").all()
    assert means["cells"].str.fullmatch("[0-9a-f]{12}(;[0-9a-f]{12})*").all()
    plain = means[(means["size"] == means["size"].iloc[0]) & (means["measure"] == "loss")]
    plain = plain[plain["share"] == 1].set_index(["method", "setting", "seed"])["mean"]
    frame = unpacked(TRAINED / task / "losses.csv.xz").set_index(["method", "setting", "seed"])
    for key, row in frame.iterrows():
        if " " not in key[0]:
            assert row.mean() == pytest.approx(plain[key], rel=1e-5)


def test_trained_out_is_asked_of_the_estimate_and_shown_by_the_interval() -> None:
    tables = [pd.read_csv(TRAINED / task / "trained_out.csv") for task in TASKS]
    rows = pd.concat(tables).dropna(subset="trained_out")
    inside = np.maximum(-rows["low"], rows["high"]) < rows["limit"]
    assert rows["trained_out"].eq(1).equals(rows["moved"].abs() < rows["limit"])
    assert rows["shown"].eq(1).equals(inside)
    assert (rows["trained_out"].eq(1) & ~inside).any()  # the two differ


def test_no_seed_was_used_before() -> None:
    for task in TASKS:
        assert unpacked(TRAINED / task / "losses.csv.xz")["seed"].min() >= 10


def test_the_evidence_is_small() -> None:
    files = (ROOT / "results" / "reference").rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) < MOST


# How it is made ---------------------------------------------------------------------------------


def test_what_is_kept_of_a_results_folder_and_what_is_said_of_it(tmp_path: Path) -> None:
    """Networks that lose known shares, at three widths; there is no tuned grid."""
    write_study(tmp_path / "results", {0.5: losing(0.4), 1: losing(0.02), 2: losing(0.01)})
    kept = tmp_path / "kept" / "quantiles"
    evidence.keep(tmp_path / "results", "quick", kept)
    names = {path.name for path in kept.iterdir()}
    assert {"overall.csv", "study.md", "claims.md", "gap_width.png", "losses.csv.xz"} <= names
    means = unpacked(kept / "means.csv.xz")
    assert set(means["size"]) == {"quick", "quick[0.5x width]", "quick[2x width]"}
    assert set(means["commit"].astype(str)) == {"0123456789ab"}
    loss = unpacked(kept / "losses.csv.xz").set_index(["method", "setting"])
    of = [loss.loc[name].to_numpy()[:, 1:] for name in ("yoto", "fixed_grid", "fixed_grid middle")]
    by_setting = [values.reshape(5, 3, -1).mean((1, 2)) for values in of]
    benefit = by_setting[2] - by_setting[1]
    share = (by_setting[0] - by_setting[1])[benefit > 1e-6] / benefit[benefit > 1e-6]
    assert share == pytest.approx(0.02, rel=1e-3)

    frame = evidence.answers(kept.parent).set_index("claim")
    assert list(frame["task"].unique()) == ["quantiles"]
    assert frame.at["published", "answer"] == "equal"
    assert frame.at["published", "numbers"] == "2.0 [2.0, 2.0] %"
    assert frame.at["published", "stands"]
    assert "tuned" not in frame.index
    assert frame.at["small", "answer"] == frame.at["shrinks", "answer"] == "supported"
    shown = evidence.table(frame.reset_index())
    assert "[equal 2.0 [2.0, 2.0] %; loss " in shown
    assert "; n = 3](quantiles/overall.md)" in shown
    (axes, _) = evidence.figure(kept.parent).axes
    assert axes.lines[0].get_xydata().tolist() == pytest.approx(
        np.array([[0.5, 40], [1, 2], [2, 1]]), rel=1e-6
    )


def test_a_width_is_left_out_where_that_panels_own_grid_gives_no_verdict() -> None:
    panels = evidence.figure(TRAINED).axes
    for axes, (method, against) in zip(panels, evidence.PAIRS.values(), strict=True):
        drawn = [list(line.get_xdata()) for line in axes.lines]
        for task in ("digits", "registration"):
            study = pd.read_csv(TRAINED / task / "study.csv").query("share == 1")
            rows = study[study["method"] == method].sort_values("width")
            told = ~rows[f"verdict{against}"].str.startswith("no verdict")
            assert list(rows["width"][told]) in drawn
            assert told.all() == (against == "_tuned")

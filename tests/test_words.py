"""What the README, the advice and the evidence say in numbers, held to the committed tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_evidence import ROOT, TRAINED, compute_ratio, longer_codecs, unpacked

README = (ROOT / "README.md").read_text("utf-8")


def number(value: float, ends: tuple[float, float] | None = None) -> str:
    """As the README writes a share: `24 % [−22, 96]`."""
    text = f"{100 * value:.0f} %"
    text += f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]" if ends else ""
    return text.replace("-", "−")


def test_the_numbers_of_the_readmes_paragraphs_are_in_the_tables() -> None:
    words = " ".join(README.split())
    (small,) = (ROOT / "results" / "reference").glob("small-cpu-*")
    for folder, said in {
        small / "compression-small-cpu": [("yoto", ""), ("yoto_tuned", "_tuned")],
        small / "style-small-cpu": [("yoto_tuned", "_tuned")],
        TRAINED / "beta_vae_scenes": [
            *[("yoto", ""), ("yoto_tuned", "_tuned"), ("yoto_tuned", ""), ("fixed_grid", "_tuned")]
        ],
        TRAINED / "beta_vae_scenes-41600": [("yoto", ""), ("yoto_tuned", "_tuned")],
    }.items():
        table = pd.read_csv(folder / "overall.csv").set_index("method")
        for method, against in said:
            row = table.loc[method]
            names = ("share_tuned", "share_tuned") if against else ("share_mean", "share")
            ends = row[f"{names[1]}_low"], row[f"{names[1]}_high"]
            assert number(row[names[0]], ends) in words, (folder.name, method, against)
    study = pd.read_csv(TRAINED / "quadratic" / "study.csv")
    narrow = study[(study["method"] == "yoto") & (study["width"] == 0.5) & (study["share"] == 1)]
    assert f"loses {number(narrow['share_mean'].iloc[0])}" in words
    digits = pd.read_csv(TRAINED / "digits" / "study.csv").query("method == 'yoto'")
    for row in digits[(digits["share"] == 1) & (digits["width"] <= 1)].itertuples():
        assert number(row.share_mean, (row.share_low, row.share_high)) in words
    wide = pd.read_csv(TRAINED / "registration" / "study.csv").query("method == 'yoto'")
    for row in wide[wide["share"] == 1].dropna(subset="share_mean").itertuples():
        assert number(row.share_mean, (row.share_low, row.share_high)) in words
    means = unpacked(TRAINED / "registration" / "means.csv.xz").query("share == 1")
    rows = means[(means["method"] == "fixed_grid") & (means["measure"] == "loss")]
    rows = rows.pivot(index=["seed", "setting"], columns="size", values="mean")
    worse = rows["trained[2x width]"] / rows["trained"]
    assert f"{(worse > 1).sum()} of the grid's {len(worse)} networks" in words
    assert f"up to {worse.max():.1f} times" in words
    tuned = means[(means["method"] == "fixed_grid_tuned") & (means["measure"] == "loss")]
    rows = tuned.pivot(index=["seed", "setting"], columns="size", values="mean")
    worse = 100 * (rows["trained[2x width]"] / rows["trained"] - 1)
    ends = worse[worse > 0].sort_values()
    assert (len(worse), len(ends)) == (25, 3)
    assert f"of whose 25 three do so, by {ends.iloc[0]:.0f} to {ends.iloc[-1]:.0f} %" in words
    for task, widths in {
        "registration": (0.5, 1, 2),
        "digits": (4,),
        "beta_vae_scenes": (2,),
    }.items():
        study = pd.read_csv(TRAINED / task / "study.csv").query("method == 'yoto_tuned'")
        at = study[study["share"] == 1].set_index("width")
        for width in widths:
            low, high = at.loc[width, ["share_tuned_low", "share_tuned_high"]]
            assert number(at.at[width, "share_tuned"], (low, high)) in words
    means = unpacked(TRAINED / "digits" / "means.csv.xz").query("share == 1 and measure == 'loss'")
    means = means.groupby(["size", "setting", "method"])["mean"].mean().unstack()
    last = means.xs("kl=2", level="setting")
    lost = (last["yoto"] - last["fixed_grid"]) / (last["single_model"] - last["fixed_grid"])
    sizes = [f"trained[{width}x width]" for width in (0.0625, 0.25, 4)]
    shown = [f"{100 * lost[size]:.0f}" for size in (*sizes[:2], "trained", sizes[2])]
    assert "the share is {}, {}, {} and {} %".format(*shown).replace("-", "−") in words
    wide = means.loc[sizes[2]]
    gap = wide["yoto_tuned"] - wide["fixed_grid_tuned"]
    assert (gap < 0).sum() == 3
    assert "+{:.2f} and +{:.2f} nats at the others".format(*gap[gap > 0].sort_values()) in words
    for longer_run in ("digits-32000", "quadratic-12000", "registration-16000"):
        rows = pd.read_csv(TRAINED / longer_run / "study.csv").query(
            "method == 'yoto' and share == 1"
        )
        row = rows.loc[rows["share_mean"].idxmax()]
        assert number(row["share_mean"], (row["share_low"], row["share_high"])) in words
    longer = digits[digits["width"] == 0.25].sort_values("share")["share_mean"]
    assert "[{:.0f}, {:.0f} and {:.0f} %]".format(*(100 * longer)) in words
    means = unpacked(TRAINED / "quantiles" / "means.csv.xz").query("share == 1")
    plain = means[(means["size"] == "trained") & (means["measure"] == "quantile_error")]
    error = plain.groupby(["seed", "method"])["mean"].mean().unstack()
    shown = [f"{error[name].mean():.3f}".removeprefix("0") for name in ("yoto", "fixed_grid")]
    assert f"({shown[0]} against {shown[1]})" in words
    assert (error["yoto"] > error["fixed_grid"]).all()  # with every seed
    for task in ("quantiles", "quadratic"):
        costs = pd.read_csv(TRAINED / task / "overall.csv").set_index("method")["flops_ratio"]
        assert f"{costs['warm_grid']:.2f}".removeprefix("0") in words


NUMBER = r"[−+-]?(?:\d+(?:\.\d+)?|\.\d+)"
INTERVAL = re.compile(rf"({NUMBER})([^\[\d]{{0,30}})\[({NUMBER})×?, ({NUMBER})×?\]")
NAMED = ("share_tuned", "loss_gap_tuned", "gap", "base")
ESTIMATES = [(name, "low", "high") for name in ("moved", "difference", "lost", "loss_gap")]
ESTIMATES += [(name, f"{name}_low", f"{name}_high") for name in NAMED]
ESTIMATES += [(f"{name}_mean", f"{name}_low", f"{name}_high") for name in ("share", "loss_gap")]


def estimates(folder: Path) -> np.ndarray:
    """(estimates, 3): every mean of a folder's tables with the ends of its interval."""
    found = [np.zeros((0, 3))]
    for path in folder.rglob("*.csv"):
        frame = pd.read_csv(path)
        columns = [list(names) for names in ESTIMATES if set(names) <= set(frame)]
        found += [frame[names].to_numpy(float) for names in columns]
        words = "\n".join(frame["numbers"].dropna()) if "numbers" in frame else ""
        found += [np.array([written(match)]) for match in INTERVAL.finditer(words)]
    return np.vstack(found)


def written(match: re.Match[str]) -> list[float]:
    return [float(match[part].replace("−", "-")) for part in (1, 3, 4)]


def section(page: str, heading: str) -> str:
    text = (ROOT / page).read_text("utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else text


def test_what_jpeg_takes_at_the_same_psnr() -> None:
    """Its rate in the logarithm, on a line between two of its qualities."""
    tables = longer_codecs()
    jpeg = tables["JPEG"]
    words = " ".join((ROOT / "results" / "EVIDENCE.md").read_text("utf-8").split())
    for method in ("fixed_grid_tuned", "yoto_tuned", "yoto"):
        codec = tables[method]
        rate = np.exp(np.interp(codec["psnr"], jpeg["psnr"], np.log(jpeg["bpp"])))
        fewer = [f"{100 * part:.0f}" for part in 1 - codec["bpp"] / rate]
        if method == "yoto":
            assert fewer.pop() == "-4"
            assert "and at the largest λ 4 % more" in words
        assert f"{', '.join(fewer[:-1])} and {fewer[-1]} %" in words


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("README.md", "One network, or one per setting?"),
        ("results/EVIDENCE.md", "Said beforehand"),
        ("results/EVIDENCE.md", "The three tasks of the default run"),
        ("results/EVIDENCE.md", "Problems that two cores train out"),
        ("results/ADVICE.md", ""),
    ],
)
def test_every_interval_stands_in_a_table_that_its_paragraph_links(page: str, heading: str) -> None:
    """Rounded as it is written, in units or per cent; a difference may be told the other way.
    A paragraph that links no table speaks of those that its section links."""
    wrong = []
    whole = section(page, heading)

    def tables(text: str) -> list[np.ndarray]:
        links = re.findall(r"\]\((?:results/)?(reference/[^)#]+)", text)
        paths = {ROOT / "results" / link for link in links}
        return [*map(estimates, {path if path.is_dir() else path.parent for path in paths})]

    for block in re.split(r"\n(?=- |\n|\|)", whole):
        table = np.vstack(tables(block) or tables(whole))
        known = np.vstack([scale * table for scale in (1, 100)])
        known = np.vstack([known, -known[:, [0, 2, 1]]])
        words = re.sub(r"\]\([^)]*\)", "", " ".join(block.split()))
        for match in INTERVAL.finditer(words):
            digits = [len(match[part].partition(".")[2]) for part in (1, 3, 4)]
            near = np.abs(known - written(match)) < 0.51 * 0.1 ** np.array(digits)
            if not near.all(1).any():
                wrong.append(words[max(0, match.start() - 40) : match.end()])
    assert not wrong


def test_the_compute_ratios_of_the_readme() -> None:
    words = " ".join(README.split())
    for task, method in (
        ("digits", "yoto"),
        ("quantiles", "yoto"),
        ("quantiles", "yoto_tuned"),
        ("registration", "yoto_tuned"),
    ):
        low, middle, high = compute_ratio(task, method)
        ends = f"{middle:.1f} times [{low:.1f}, {high:.1f}]"
        assert ends in words, (task, method)
    middle = compute_ratio("quadratic", "yoto")[1]
    assert f"at most {middle:.2f} times".replace("0.", ".") in words


def test_the_readme_has_the_table_and_links_that_lead_somewhere() -> None:
    for line in (TRAINED / "answer.md").read_text("utf-8").splitlines():
        assert re.sub(r"\]\((?=\w)", f"](results/reference/{TRAINED.name}/", line) in README
    for page in ("README.md", "results/README.md", "results/EVIDENCE.md", "results/ADVICE.md"):
        text = (ROOT / page).read_text("utf-8")
        links = re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)|src="([^"]+)"', text)
        for link in filter(None, (one or other for one, other in links)):
            assert "://" in link or ((ROOT / page).parent / link).exists(), (page, link)

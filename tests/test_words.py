"""What the README, the documents and the evidence say in numbers, held to the committed tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_evidence import ROOT, TRAINED, compute_ratio, longer_codecs, unpacked

README = (ROOT / "README.md").read_text("utf-8")
EVIDENCE = (ROOT / "results" / "EVIDENCE.md").read_text("utf-8")
WORDS = " ".join((ROOT / "docs" / "answer.md").read_text("utf-8").split())


def section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else text


def number(value: float, ends: tuple[float, float] | None = None) -> str:
    """As `docs/answer.md` writes a share: `24 % [−22, 96]`."""
    text = f"{100 * value:.0f} %"
    text += f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]" if ends else ""
    return text.replace("-", "−")


def test_the_shares_of_tasks_that_are_not_trained_out() -> None:
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
            assert number(row[names[0]], ends) in WORDS, (folder.name, method, against)


def test_the_shares_by_width_and_length() -> None:
    study = pd.read_csv(TRAINED / "quadratic" / "study.csv")
    narrow = study[(study["method"] == "yoto") & (study["width"] == 0.5) & (study["share"] == 1)]
    assert f"loses {number(narrow['share_mean'].iloc[0])}" in WORDS
    for task, widths in {
        "registration": (0.5, 1, 2),
        "digits": (4,),
        "beta_vae_scenes": (2,),
    }.items():
        study = pd.read_csv(TRAINED / task / "study.csv").query("method == 'yoto_tuned'")
        at = study[study["share"] == 1].set_index("width")
        for width in widths:
            low, high = at.loc[width, ["share_tuned_low", "share_tuned_high"]]
            assert number(at.at[width, "share_tuned"], (low, high)) in WORDS
    for longer_run in ("digits-32000", "quadratic-12000", "registration-16000"):
        rows = pd.read_csv(TRAINED / longer_run / "study.csv").query(
            "method == 'yoto' and share == 1"
        )
        row = rows.loc[rows["share_mean"].idxmax()]
        assert number(row["share_mean"], (row["share_low"], row["share_high"])) in WORDS


def test_the_numbers_of_digits() -> None:
    digits = pd.read_csv(TRAINED / "digits" / "study.csv").query("method == 'yoto'")
    for row in digits[(digits["share"] == 1) & (digits["width"] <= 1)].itertuples():
        assert number(row.share_mean, (row.share_low, row.share_high)) in WORDS
    longer = digits[digits["width"] == 0.25].sort_values("share")["share_mean"]
    assert "[{:.0f}, {:.0f} and {:.0f} %]".format(*(100 * longer)) in WORDS
    means = unpacked(TRAINED / "digits" / "means.csv.xz").query("share == 1 and measure == 'loss'")
    means = means.groupby(["size", "setting", "method"])["mean"].mean().unstack()
    last = means.xs("kl=2", level="setting")
    lost = (last["yoto"] - last["fixed_grid"]) / (last["single_model"] - last["fixed_grid"])
    sizes = [f"trained[{width}x width]" for width in (0.0625, 0.25, 4)]
    shown = [f"{100 * lost[size]:.0f}" for size in (*sizes[:2], "trained", sizes[2])]
    assert "the share is {}, {}, {} and {} %".format(*shown).replace("-", "−") in WORDS
    wide = means.loc[sizes[2]]
    gap = wide["yoto_tuned"] - wide["fixed_grid_tuned"]
    assert (gap < 0).sum() == 3
    assert "+{:.2f} and +{:.2f} nats at the others".format(*gap[gap > 0].sort_values()) in WORDS


def test_the_numbers_of_registration() -> None:
    wide = pd.read_csv(TRAINED / "registration" / "study.csv").query("method == 'yoto'")
    for row in wide[wide["share"] == 1].dropna(subset="share_mean").itertuples():
        assert number(row.share_mean, (row.share_low, row.share_high)) in WORDS
    means = unpacked(TRAINED / "registration" / "means.csv.xz").query("share == 1")
    rows = means[(means["method"] == "fixed_grid") & (means["measure"] == "loss")]
    rows = rows.pivot(index=["seed", "setting"], columns="size", values="mean")
    worse = rows["trained[2x width]"] / rows["trained"]
    assert f"{(worse > 1).sum()} of the grid's {len(worse)} networks" in WORDS
    assert f"up to {worse.max():.1f} times" in WORDS
    tuned = means[(means["method"] == "fixed_grid_tuned") & (means["measure"] == "loss")]
    rows = tuned.pivot(index=["seed", "setting"], columns="size", values="mean")
    worse = 100 * (rows["trained[2x width]"] / rows["trained"] - 1)
    ends = worse[worse > 0].sort_values()
    assert (len(worse), len(ends)) == (25, 3)
    assert f"of whose 25 three do so, by {ends.iloc[0]:.0f} to {ends.iloc[-1]:.0f} %" in WORDS


def test_the_numbers_of_quantiles_and_the_cost_of_a_warm_grid() -> None:
    means = unpacked(TRAINED / "quantiles" / "means.csv.xz").query("share == 1")
    plain = means[(means["size"] == "trained") & (means["measure"] == "quantile_error")]
    error = plain.groupby(["seed", "method"])["mean"].mean().unstack()
    shown = [f"{error[name].mean():.3f}".removeprefix("0") for name in ("yoto", "fixed_grid")]
    assert f"({shown[0]} against {shown[1]})" in WORDS
    assert (error["yoto"] > error["fixed_grid"]).all()  # with every seed
    for task in ("quantiles", "quadratic"):
        costs = pd.read_csv(TRAINED / task / "overall.csv").set_index("method")["flops_ratio"]
        assert f"{costs['warm_grid']:.2f}".removeprefix("0") in WORDS


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


def test_what_jpeg_takes_at_the_same_psnr() -> None:
    """Its rate in the logarithm, on a line between two of its qualities."""
    tables = longer_codecs()
    jpeg = tables["JPEG"]
    words = " ".join(EVIDENCE.split())
    for method in ("fixed_grid_tuned", "yoto_tuned", "yoto"):
        codec = tables[method]
        rate = np.exp(np.interp(codec["psnr"], jpeg["psnr"], np.log(jpeg["bpp"])))
        fewer = [f"{100 * part:.0f}" for part in 1 - codec["bpp"] / rate]
        if method == "yoto":
            assert fewer.pop() == "-4"
            assert "and at the largest λ 4 % more" in words
        assert f"{', '.join(fewer[:-1])} and {fewer[-1]} %" in words


FIRST = "One network, or one per setting?"
SECTIONS = pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("README.md", FIRST),
        ("results/EVIDENCE.md", "Said beforehand"),
        ("results/EVIDENCE.md", "Codecs, style transfer, autoencoders"),
        ("results/EVIDENCE.md", "Problems that two cores train out"),
        ("results/ADVICE.md", ""),
        ("docs/answer.md", ""),
        ("docs/gallery.md", ""),
    ],
)


def paragraphs(page: str, heading: str) -> Iterator[tuple[set[Path], str]]:
    """Each with the folders of the tables that it links, or else its section, and without the
    addresses. README's table is that of answer.md, which another test says."""

    def folders(text: str) -> set[Path]:
        links = re.findall(r"\]\((?:(?:\.\./)?results/)?(reference/[^)#]+)", text)
        paths = {ROOT / "results" / link for link in links}
        return {path if path.is_dir() else path.parent for path in paths}

    whole = section((ROOT / page).read_text("utf-8"), heading)
    for block in re.split(r"\n(?=- |\n|\|)", whole):
        words = re.sub(r"\]\([^)]*\)", "", " ".join(block.split()))
        if not (heading == FIRST and words.startswith("|")):
            yield folders(block) or folders(whole), words


def same(table: np.ndarray, match: re.Match[str]) -> np.ndarray:
    """(estimates,): whether that is what is written, as it is rounded there."""
    digits = [len(match[part].partition(".")[2]) for part in (1, 3, 4)]
    return (np.abs(table - written(match)) < 0.51 * 0.1 ** np.array(digits)).all(1)


@SECTIONS
def test_every_interval_stands_in_a_table_that_its_paragraph_links(page: str, heading: str) -> None:
    """In units or per cent; a difference may be told the other way."""
    wrong = []
    for folders, words in paragraphs(page, heading):
        table = np.vstack([*map(estimates, folders)])
        known = np.vstack([scale * table for scale in (1, 100)])
        known = np.vstack([known, -known[:, [0, 2, 1]]])
        missing = (m for m in INTERVAL.finditer(words) if not same(known, m).any())
        wrong += [words[max(0, match.start() - 40) : match.end()] for match in missing]
    assert not wrong


def verdicts(folder: Path) -> pd.DataFrame:
    """Of a folder's tables the shares in per cent, and whether a verdict on them does not stand."""
    parts = []
    for path in folder.glob("*.csv"):
        frame = pd.read_csv(path)
        for of, mean in (("", "_mean"), ("_tuned", "")):
            names = [f"share{of}{mean}", f"share{of}_low", f"share{of}_high"]
            if {f"stands{of}", *names} <= set(frame):
                told = frame[f"verdict{of}"].isin(["equal", "better", "worse"])
                falls = told & ~frame[f"stands{of}"].eq(True)
                parts.append((100 * frame[names].set_axis(list("abc"), axis=1)).assign(falls=falls))
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*"abc", "falls"])


@SECTIONS
def test_a_verdict_that_does_not_survive_the_correction_is_marked(page: str, heading: str) -> None:
    """Within a word of its interval, wherever every share that it may be has none that stands."""
    unmarked = []
    for folders, words in paragraphs(page, heading):
        table = pd.concat([*map(verdicts, sorted(folders))])
        for match in INTERVAL.finditer(words):
            falls = table["falls"][same(table[list("abc")].to_numpy(float), match)]
            if len(falls) and falls.all() and "°" not in words[match.end() :][:12]:
                unmarked.append(words[max(0, match.start() - 40) : match.end()])
    assert not unmarked


def test_the_speeds_of_the_documents() -> None:
    """Those on a GPU, and how the suite grows."""
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    rows = pd.read_csv(ROOT / "results" / "reference" / "benchmarks-h100.csv")
    rows = rows.set_index(["benchmark", "what"])
    codec, vae = "compression, batch 16, training step", "beta_vae_scenes, batch 64, training step"
    harness = rows.filter(like="training, 128/192", axis=0).loc[(slice(None), "harness"), :]
    (first,) = harness.to_dict("records")
    ends = f"[{first['low']:.2f}, {first['high']:.2f}]".replace("0.", ".")
    assert f"{first['ratio']:.2f} times as fast {ends}" in page
    fixed, told = rows.loc[(vae, "harness, fixed")], rows.loc[(vae, "harness, conditioned")]
    assert f"{rows.loc[(codec, 'harness, conditioned'), 'ratio']:.2f} times the time" in page
    assert (
        f"{told['ratio']:.2f} times the time ({told['value']:.1f} and {fixed['value']:.1f}" in page
    )
    folded = rows.xs("folded", level="what")["ratio"]
    for task in ("compression", "beta_vae"):
        assert f"{folded.filter(like=task).iloc[0]:.2f}".removeprefix("0") in page
    assert f"{rows.xs('harness, bf16', level='what')['ratio'].iloc[0]:.1f} times as fast" in page
    packed = rows.xs("16 at once", level="what")["ratio"].iloc[0]
    assert f"{packed:.1f} times the networks per second of one" in page

    page = " ".join((ROOT / "docs" / "clusters.md").read_text("utf-8").split())
    (path,) = (ROOT / "results" / "reference").glob("benchmarks-cpu-*-growth.json")
    grown = pd.read_json(path).sort_values("size").groupby(["series", "step"]).last()
    times, peak = grown["processor"], grown["peak"] / 1024
    cells = [times["cells", step] for step in ("plan", "dispatch here", "status", "report")]
    words = "takes {:.1f} s, dispatch {:.1f} s, `status` {:.1f} s, and the report {:.0f} s"
    assert words.format(*cells) + f" and {peak['cells', 'report']:.1f} GB" in page
    rows = f"{times['rows', 'report']:.0f} s and {peak['rows', 'report']:.1f} GB"
    assert f"A million records are reported in {rows}" in page


def test_the_compute_ratios() -> None:
    for task, method in (
        ("digits", "yoto"),
        ("quantiles", "yoto"),
        ("quantiles", "yoto_tuned"),
        ("registration", "yoto_tuned"),
    ):
        low, middle, high = compute_ratio(task, method)
        ends = f"{middle:.1f} times [{low:.1f}, {high:.1f}]"
        assert ends in WORDS, (task, method)
    middle = compute_ratio("quadratic", "yoto")[1]
    assert f"at most {middle:.2f} times".replace("0.", ".") in WORDS


def test_the_readme_has_the_table_and_links_that_lead_somewhere() -> None:
    for line in (TRAINED / "answer.md").read_text("utf-8").splitlines():
        task, *cells = line.strip("| ").split(" | ")[:3]
        if "overall.md" in line:
            links = (re.sub(r"\]\(", f"](results/reference/{TRAINED.name}/", c) for c in cells)
            assert f"{task} | {' | '.join(links)} |" in README
    evidence = ("README.md", "results/README.md", "results/EVIDENCE.md", "results/ADVICE.md")
    for page in (*evidence, *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))):
        text = (ROOT / page).read_text("utf-8")
        links = re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)|src="([^"]+)"', text)
        for link in filter(None, (one or other for one, other in links)):
            assert "://" in link or ((ROOT / page).parent / link).exists(), (page, link)

"""Quantile regression: its loss and its data against closed forms, and any CSV of a user's."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from bench.cli import main, parsed
from bench.registry import preset, sized, task_class
from bench.report.answers import compare
from bench.run.plan import experiment
from bench.run.runner import display
from bench.space import format_setting
from bench.tasks import quantiles_data
from bench.tasks.quantiles_data import TableError, csv_rows, read_csv, true_quantile
from tests.ideal import overall_of
from tests.synthetic import style_of, write_results

TASK = preset(task_class("quantiles"), "smoke").task


class Constant(nn.Module):
    """Predicts the same for all rows."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.full((len(rows), 1), self.value)


# The loss and its measures


@pytest.mark.parametrize("level", [0.05, 0.3, 0.5, 0.95])
def test_the_pinball_loss_is_the_fields_and_is_least_at_the_quantile(level: float) -> None:
    draws = stats.gamma(2).rvs(4000, random_state=0)
    batch = torch.tensor(np.column_stack([np.zeros((4000, 4)), draws]), dtype=torch.float32)
    setting = (level / (1 - level),)

    def pinball(value: float) -> float:
        return TASK.measure_at(Constant(value), batch, setting)["pinball"].mean().item()

    def theirs(value: float) -> float:
        """scikit-learn's mean_pinball_loss, written out."""
        difference = draws - value
        sign = (difference >= 0).astype(float)
        return np.mean(level * sign * difference - (1 - level) * (1 - sign) * difference)

    best = np.quantile(draws, level)
    for value in (best, 0.5 * best, 1.5 * best):
        assert pinball(value) == pytest.approx(theirs(value), rel=1e-5)
        assert pinball(value) >= pinball(best)
    terms = TASK.losses(Constant(1.0), batch)
    total = (setting[0] * terms["under"] + terms["over"]).mean().item()
    assert total / (1 + setting[0]) == pytest.approx(pinball(1.0), rel=1e-5)
    assert (terms["under"] * terms["over"] == 0).all()


def test_coverage_is_measured_against_the_level_that_was_asked_for() -> None:
    batch = torch.zeros(10, 5)
    batch[:, 4] = torch.arange(10)
    measured = TASK.measure(Constant(6.5), batch)
    assert measured["coverage"].mean() == pytest.approx(0.7)
    at = TASK.measure_at(Constant(6.5), batch, (4.0,))
    assert at["coverage_error"].mean() == pytest.approx(0.7 - 0.8)
    assert measured["prediction"] == pytest.approx(6.5)
    true = true_quantile(batch[:, :4], 0.8)
    assert at["quantile_error"] == pytest.approx((6.5 - true).abs())


def test_the_true_quantile_is_that_of_many_draws() -> None:
    inputs = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    levels = torch.rand(200_000, generator=torch.Generator().manual_seed(2)).clamp(1e-6, 1 - 1e-6)
    skews = []
    for row in inputs:
        draws = true_quantile(row.repeat(len(levels), 1), levels.double()).numpy()
        for level in (0.05, 0.5, 0.95):
            share = np.mean(draws <= true_quantile(row[None], level).item())
            assert share == pytest.approx(level, abs=4 * (level * (1 - level) / 2e5) ** 0.5)
        skews.append(stats.skew(draws))
        # As scipy has it: a lognormal, shifted.
        a, b, c, d = row.tolist()
        s, scale = 0.5 + 0.4 * d, 0.5 * np.exp(0.7 * c)
        noise = stats.lognorm(s, loc=np.sin(np.pi * a) + b * c - scale / s, scale=scale / s)
        assert true_quantile(row[None], 0.9).item() == pytest.approx(noise.ppf(0.9), abs=1e-5)
    assert min(skews) > 0.2
    assert max(skews) > 1.5 * min(skews)  # it depends on the inputs


def test_splits_are_seeded_and_differ() -> None:
    train, test, other = (TASK.data(split) for split in ("train", "test", "validation"))
    assert len(train.tensor) == TASK.rows
    assert len(test.tensor) == len(other.tensor) == TASK.held_out
    assert len({train.digest, test.digest, other.digest}) == 3
    assert not torch.equal(test.tensor, other.tensor)
    quantiles_data.synthetic_rows.cache_clear()
    assert torch.equal(TASK.data("test").tensor, test.tensor)


def test_range_and_width_are_changed_about_the_same_middle() -> None:
    (axis,) = TASK.ranged(16).space.axes
    assert axis.high / axis.low == pytest.approx(16, rel=1e-2)
    assert axis.high * axis.low == pytest.approx(1, rel=1e-2)
    assert TASK.wider(2).model()[2].weight.shape == (16, 16)


# A CSV file


def rows_of(count: int = 60, seed: int = 0) -> dict[str, list]:
    random = np.random.default_rng(seed)
    size = random.normal(size=count).round(4)
    kind = random.choice(["flat", "house"], count)
    price = (100 + 10 * size + 5 * (kind == "house")).round(3)
    return {"size": [*size], "kind": [*kind], "price": [*price]}


def write(
    path: Path, columns: dict[str, list], separator: str = ",", encoding: str = "utf-8"
) -> str:
    lines = [list(columns), *zip(*columns.values(), strict=True)]
    text = "\n".join(separator.join(map(str, line)) for line in lines)
    path.write_bytes((text + "\n").encode(encoding))
    return str(path)


def taken(path: str, split: str = "train", **how: object) -> tuple[torch.Tensor, str]:
    """The rows, and what was said of them."""
    quantiles_data._splits.cache_clear()
    given = {"test_data": "", "target": "price", "held_out": 256, "seed": 0, **how}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = csv_rows(split, path, **given)
    return data.tensor, "\n".join(str(note.message) for note in said)


def test_numbers_are_standardised_and_categories_have_an_input_each(tmp_path: Path) -> None:
    columns = rows_of(200)
    path = write(tmp_path / "a.csv", columns)
    train, said = taken(path)
    assert train.shape == (140, 1 + 2 + 1)
    for column in (0, 3):
        assert train[:, column].mean() == pytest.approx(0, abs=1e-5)
        assert train[:, column].std() == pytest.approx(1, rel=1e-4)
    assert set(train[:, 1:3].sum(1).tolist()) == {1.0}
    assert "rows: 140 train, 30 validation, 30 test; 3 inputs" in said
    assert "standard deviations of 'price'" in said
    assert "may be learned by heart" in said
    # Each row of the file is in one split, and is what the file has there.
    names = [name for split in ("train", "validation", "test") for name in named(path, split)]
    assert sorted(names) == sorted(f"row {number}" for number in range(1, 201))
    held, _ = taken(path, "test")
    order = [int(name.split()[1]) - 1 for name in named(path, "test")]
    sizes = np.array(columns["size"])[order]
    assert np.corrcoef(held[:, 0], sizes)[0, 1] == pytest.approx(1)


def named(path: str, split: str) -> tuple[str, ...]:
    return csv_rows(split, path, "", "price", 256, 0).names


def test_a_digest_follows_content_target_and_seed_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of())
    copied = write(tmp_path / "b.csv", rows_of())
    other = write(tmp_path / "c.csv", rows_of(seed=1))
    digest = csv_rows("train", path, "", "price", 256, 0).digest
    assert csv_rows("train", copied, "", "price", 256, 0).digest == digest
    assert csv_rows("train", other, "", "price", 256, 0).digest != digest
    assert csv_rows("train", path, "", "size", 256, 0).digest != digest
    assert csv_rows("train", path, "", "price", 256, 1).digest != digest


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings_make_no_difference(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    plain, _ = taken(write(tmp_path / "a.csv", rows_of()))
    other, _ = taken(write(tmp_path / "b.csv", rows_of(), separator, encoding))
    assert torch.equal(plain, other)


def test_decimal_commas_and_points_between_thousands(tmp_path: Path) -> None:
    columns = rows_of()
    plain, _ = taken(write(tmp_path / "a.csv", columns | {"area": list(range(500, 1700, 20))}))
    german = {
        "size": [str(value).replace(".", ",") for value in columns["size"]],
        "kind": columns["kind"],
        "price": [str(value).replace(".", ",") for value in columns["price"]],
        "area": [f"{value:,}".replace(",", ".") for value in range(500, 1700, 20)],
    }
    other, _ = taken(write(tmp_path / "b.csv", german, ";"))
    assert torch.equal(plain, other)


def with_gaps(columns: dict[str, list]) -> dict[str, list]:
    columns["size"][::7] = ["NA"] * len(columns["size"][::7])
    columns["size"][1] = "?"
    columns["kind"][::9] = [""] * len(columns["kind"][::9])
    return columns


# What is done to the columns, how many inputs that makes (two of `size` and `kind` without it), and
# what is said.
COLUMNS = {
    "gaps": (with_gaps, 3 + 2, "'size': ", "no number (some have ?) and get the median"),
    "a category of gaps": (with_gaps, 3 + 2, "'kind': ", "have nothing, a category of its own"),
    "constant": (lambda c: c | {"same": ["x"] * 60}, 3, "'same' is left out", "the same in all"),
    "empty": (lambda c: c | {"none": [""] * 60}, 3, "'none' is left out", "the same in all"),
    "row numbers": (lambda c: {"": [*range(60)], **c}, 3, "'column 1' is", "numbers the rows"),
    "dates": (
        lambda c: c | {"day": [f"2024-{i // 28 + 1:02}-{i % 28 + 1:02}" for i in range(60)]},
        3, "'day' is left out", "different texts (such as '2024-01-01'",
    ),
    "truth values": (lambda c: c | {"new": ["True", "False"] * 30}, 5, "5 inputs", ""),
    "infinite": (
        lambda c: c | {"far": ["inf", *range(1, 9999, 99)][:60]}, 5, "'far': ", "(some have inf"
    ),
    "no target": (lambda c: c | {"price": ["", *c["price"][1:]]}, 3, "1 rows of", "are left out"),
    "a new category": (
        lambda c: c | {"kind": ["rare" if i == 34 else k for i, k in enumerate(c["kind"])]},
        3, "'kind': 1 held-out rows have what no training row has", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_what_becomes_of_a_column_is_said(tmp_path: Path, case: str) -> None:
    change, inputs, *words = COLUMNS[case]
    path = write(tmp_path / "a.csv", change(rows_of()))
    if case == "a new category":  # in a row that is held out
        assert "row 35" in named(path, "test")
    for split in ("train", "validation", "test"):
        rows, said = taken(path, split)
        assert rows.shape[1] == inputs + 1
        assert rows.isfinite().all()
        for word in words:
            assert word in said


def edited(columns: dict[str, list], name: str, place: int, value: str) -> dict[str, list]:
    columns[name][place] = value
    return columns


# The bytes of a file, and what the error says.
REFUSED = {
    "text in the target": (
        edited(rows_of(), "price", 16, "n.a."), "no number in 1 of 60 rows, as in row 17 ('n.a.')"
    ),
    "infinite target": (edited(rows_of(), "price", 3, "inf"), "is no number in 1 of 60 rows"),
    "few rows": (rows_of(40), "has 40 rows with a target, and 50 is the least"),
    "one target": (rows_of() | {"price": [3] * 60}, "is 3 in all training rows"),
    "nothing to learn from": ({"a": [1] * 60, "price": rows_of()["price"]}, "no column is left"),
    "another name": ({"a": [1] * 60, "prise": [1] * 60}, "did you mean prise?"),
    "one column": ({"price": [1] * 60}, "one column alone"),
    "other separator": (b"size^price\n1^2\n", "one column alone"),
    "two of a name": (b"price,price\n1,2\n", "two columns called 'price'"),
    "ragged": (b"a,price\n1,2\n1,2,3\n", "cannot be read as a table"),
    "open quote": (b'a,price\n1,"2\n' + 50 * b"1,2\n", "cannot be read as a table"),
    "empty": (b"", "is empty"),
    "latin-1": ("größe,price\n1,2\n".encode("latin-1"), "no UTF-8 in line 1: save it as CSV UTF-8"),
    "a spreadsheet": (b"PK\x03\x04....", "save it as CSV"),
    "compressed": (b"\x1f\x8b....", "save it as CSV"),
    "binary": (b"a,\0price\n", "is no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_will_not_do_is_refused_with_the_way_out(tmp_path: Path, case: str) -> None:
    content, words = REFUSED[case]
    path = tmp_path / "a.csv"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(TableError) as refused:
        taken(str(path))
    assert words in str(refused.value)


def test_places_that_are_no_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TableError, match="is a folder: name the CSV file"):
        taken(str(tmp_path))
    with pytest.raises(TableError, match="No such file or directory: check the path"):
        taken(str(tmp_path / "none.csv"))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TableError, match="no ordinary file"):
        taken(str(tmp_path / "pipe.csv"))
    path = write(tmp_path / "a.csv", rows_of())
    with pytest.raises(TableError, match=r"which column is to be predicted.*size, kind, price"):
        taken(path, target="")
    monkeypatch.setattr(quantiles_data, "MOST_BYTES", 100)
    with pytest.raises(TableError, match="more than 100 bytes: give a CSV file, or a sample"):
        taken(path)


def test_the_test_file_is_measured_on_and_nothing_of_it_is_learned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of())
    later = write(tmp_path / "b.csv", rows_of(30, seed=5))
    train, said = taken(path, test_data=later)
    assert "rows: 51 train, 9 validation, 30 test" in said
    far = write(tmp_path / "c.csv", {k: v[:25] for k, v in rows_of(30, seed=6).items()})
    assert torch.equal(taken(path, test_data=far)[0], train)
    digests = {
        split: {csv_rows(split, path, place, "price", 256, 0).digest for place in (later, far)}
        for split in ("train", "test")
    }
    assert [len(digests[split]) for split in ("train", "test")] == [1, 2]
    assert len(taken(path, "test", test_data=far)[0]) == 25
    lacking = {name: values for name, values in rows_of().items() if name != "size"}
    with pytest.raises(TableError, match="has no column 'size'"):
        taken(path, test_data=write(tmp_path / "d.csv", lacking))


def test_cells_are_text_and_nothing_is_computed(tmp_path: Path) -> None:
    formulas = {"do": ["=1+1", "=2+2"] * 30}
    frame = read_csv(Path(write(tmp_path / "a.csv", rows_of() | formulas)))
    assert frame["do"].iloc[0] == "=1+1"


# On the command line


def test_the_target_has_a_flag_and_is_part_of_the_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.csv", rows_of())
    words = ["run", "quantiles", "--train-data", path, "--target", "~price"]
    assert parsed(words).locations == {"train_data": path, "target": "~price"}  # it is no path
    where = {"train_data": path, "target": "price"}
    chosen, size = sized("quantiles", "smoke", where)
    assert (chosen.task.target, size) == ("price", "smoke[target=price]")
    assert sized("quantiles[target=price]", "smoke", {"train_data": path}) == (chosen, size)
    assert sized("toy", "smoke", where)[1] == "smoke"
    ids = {experiment("quantiles", "smoke", locations={**where, "target": t}).id
           for t in ("price", "size")}  # fmt: skip
    assert len(ids) == 2
    dry = ["--preset", "smoke", "--methods", "yoto", "--dry", "--out", str(tmp_path / "out")]
    assert main(["run", "quantiles", *dry, "--target", "price"]) == 2
    assert "give its place with --train-data" in capsys.readouterr().err
    assert main([*words[:4], *dry]) == 2
    assert "which column is to be predicted? --target" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", "quantiles", "--help"])
    assert "--target TEXT" in (text := capsys.readouterr().out)
    assert "--train-data PATH" in text


def test_a_csv_has_no_true_quantile(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of())
    task = replace(TASK, train_data=path, target="price")
    model = task.model()
    assert model[0].in_features == 3
    _, example = next(iter(task.data("test").examples()))
    measured = {**task.measure(model, example), **task.measure_at(model, example, (1.0,))}
    assert set(measured) == set(task.measures) == set(TASK.measures) - {"quantile_error"}
    assert "quantile_error" not in display(task).measures
    assert "quantile_error" in display(TASK).measures


# Crossings


def test_crossings_are_counted_per_example_seed_and_pair_of_neighbours(tmp_path: Path) -> None:
    settings = ((1.0,), (3.0,), (9.0,))
    axes = [{"name": "size", "low": 1.0, "high": 9.0, "symbol": "c"}]
    measures = {
        "level": style_of("level", rises=True), "size": style_of("size"), "loss": style_of("loss")
    }  # fmt: skip

    def values(method: str, setting: tuple, hard: float, noise: object) -> dict[str, float]:
        (c,) = setting
        level = {"fixed_grid": c, "yoto": -c if hard > 0 else c, "other": 5.0}[method]
        if method == "other" and c == 9:
            level = 4.0  # one step of two falls; that of equal values does not
        return {"level": level, "size": 1 / c, "loss": 1 + c}

    write_results(
        tmp_path, task="made", seeds=(0, 1), settings=settings, axes=axes, measures=measures,
        methods=("fixed_grid", "yoto", "other"), values=values, fronts=(), context=False,
        pictures=10,
    )  # fmt: skip
    falling = np.mean([np.random.default_rng(p).standard_normal() > 0 for p in range(10)])
    frame = overall_of(tmp_path)
    assert 0 < falling < 1
    assert frame.loc["fixed_grid", "crossings"] == 0
    assert frame.loc["yoto", "crossings"] == pytest.approx(100 * falling)
    assert frame.loc["other", "crossings"] == pytest.approx(50)
    assert format_setting(["size"], settings[1]) == "size=3"
    assert "crossings" in compare.OVERALL

"""That both keep the suite's contract, and train. The package must be installed."""

from pathlib import Path

from bench import experiment, load_results
from bench.cli import main
from bench.plugins.contract import check


def test_they_keep_the_contract() -> None:
    check(experiment("smoothing", "smoke", ["linear_gains", "yoto"]))
    check(experiment("toy", "smoke", ["linear_gains"]))


def test_they_train_and_are_reported(tmp_path: Path) -> None:
    methods = ["--methods", "linear_gains,fixed_grid,single_model"]
    words = ["run", "smoothing", "--preset", "smoke", *methods, "--out", str(tmp_path)]
    assert main(words) == 0
    measured = load_results(tmp_path).records.query("kind == 'method' and measure == 'loss'")
    loss = measured.groupby("method")["value"].mean()
    assert loss["linear_gains"] < loss["single_model"]

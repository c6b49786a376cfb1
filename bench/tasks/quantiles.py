"""Conditional quantile regression: forecasters train one network per quantile.

    python run_bench.py run quantiles        a minute on two cores
    python run_bench.py run quantiles --train-data sales.csv --target price

The pinball loss (Koenker & Bassett, "Regression Quantiles", Econometrica 1978) as two terms:
c · max(y - q, 0) + max(q - y, 0) is least where q is the quantile of y given x at the level
τ = c / (1 + c). By default y is skewed, its spread and its skewness depend on x, and its true
quantiles are known (`true_quantile`); `train_data` is any CSV of yours (`quantiles_data.py` says
what becomes of its columns), whose inputs and target are standardised by the training rows: all
numbers are then in standard deviations of the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from bench import (
    Axis,
    Examples,
    Measure,
    Preset,
    Setting,
    Showing,
    Space,
    Task,
    Training,
    location,
    option,
)
from bench.levers import found
from bench.tasks.quantiles_data import INPUTS, csv_rows, synthetic_rows, true_quantile

MEMORY = 760_000_000  # bytes of a process that trains one


@dataclass(frozen=True, kw_only=True)
class Quantiles(Task):
    """width: of the two hidden layers. low, high: of the coefficient c; τ from .05 to .95.
    rows, held_out: training rows of the synthetic data, and rows of the validation and of the test
        split; of a CSV these are at most 15 % of its rows each, and the rest is trained on.
    split_seed: what a CSV's rows are split by.
    """

    name: ClassVar[str] = "quantiles"
    title: ClassVar[str] = "quantile regression"
    line: ClassVar[str] = "quantile regression, the pinball loss as two terms; or any CSV of yours"
    terms: ClassVar[tuple[str, ...]] = ("under", "over")
    measures: ClassVar[dict[str, Measure]] = {
        "pinball": Measure(label="pinball loss", better="lower", margin="1%", digits=4),
        "coverage": Measure(label="observed coverage", relative=False),
        "coverage_error": Measure(label="coverage − τ", relative=False),
        "quantile_error": Measure(label="error to the true quantile", better="lower"),
        "prediction": Measure(label="predicted quantile", relative=False, rises=True),
        "under": Measure(label="under-prediction", better="lower", worst=3.0),
        "over": Measure(label="over-prediction", better="lower", worst=3.0),
    }
    fronts: ClassVar[tuple[tuple[str, str], ...]] = (("over", "under"),)
    measured_at_once: ClassVar[int] = 512

    width: int = 64
    low: float = 0.0526
    high: float = 19.0
    rows: int = 65_536
    held_out: int = 256
    split_seed: int = 0
    train_data: str = location("a CSV file to learn from (synthetic data)")
    test_data: str = location("a CSV file to test on (rows of the training file)")
    target: str = option("the column of the CSV to predict")
    training: Training

    def __post_init__(self) -> None:
        if self.train_data:  # nobody knows its true quantiles
            known = {
                name: style for name, style in self.measures.items() if name != "quantile_error"
            }
            object.__setattr__(self, "measures", known)

    @classmethod
    def presets(cls) -> dict[str, Preset]:
        quick = cls(training=Training(steps=1000, batch=256, lr=0.01))
        smoke = replace(quick, width=8, rows=512, held_out=16)
        smoke = smoke.trained_with(steps=200, batch=64)
        trained = quick.trained_with(steps=4000)
        ten = tuple(range(10))
        return {
            "smoke": Preset(task=smoke, settings=3, seeds=(0,), line="a second"),
            "quick": Preset(
                task=quick,
                settings=5,
                seeds=(0, 1, 2),
                line="a minute on two CPU cores; trained out",
                lengths=(0.5, 1.0),
                memory=MEMORY,
            ),
            "trained": Preset(
                task=trained,
                settings=7,
                seeds=ten,
                methods=found(cls.name),
                line="evidence: a quarter of an hour or more on two CPU cores",
                memory=MEMORY,
            ),
        }

    @property
    def space(self) -> Space:
        return Space((Axis(name="under", low=self.low, high=self.high, symbol="c"),))

    def model(self) -> nn.Module:
        inputs = self.data("train").tensor.shape[1] - 1 if self.train_data else INPUTS
        first, second = nn.Linear(inputs, self.width), nn.Linear(self.width, self.width)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(self.width, 1))

    def sites(self, model: nn.Module) -> list[str]:
        return ["0", "2", "4"]

    def entrances(self, model: nn.Module) -> list[str]:
        return ["0"]

    def output(self, model: nn.Module) -> str:
        return "4"

    def wider(self, factor: float) -> Self:
        return replace(self, width=max(1, round(self.width * factor)))

    def data(self, split: str) -> Examples:
        """Rows of inputs, then the target."""
        if self.train_data:
            place = self.train_data, self.test_data, self.target
            return csv_rows(split, *place, self.held_out, self.split_seed)
        if self.target or self.test_data:
            given = "target" if self.target else "test-data"
            raise ValueError(f"--{given} is for a CSV of yours: give its place with --train-data")
        seed = {"train": 0, "test": 1, "validation": 2}[split]
        return synthetic_rows(self.rows if split == "train" else self.held_out, seed)

    def losses(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        inputs, target = batch[:, :-1], batch[:, -1]
        excess = target - model(inputs)[:, 0].float()
        return {"under": excess.relu(), "over": (-excess).relu()}

    def measure(self, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        terms = self.losses(model, batch)
        prediction = batch[:, -1] - terms["under"] + terms["over"]
        return {**terms, "prediction": prediction, "coverage": (terms["under"] == 0).float()}

    def measure_at(self, model: nn.Module, batch: Tensor, setting: Setting) -> dict[str, Tensor]:
        """The pinball loss as the field has it, τ · under + (1 - τ) · over; whether the target is
        covered, less τ, whose mean is how far coverage is from what was asked for; and, where the
        true quantile is known, the distance to it."""
        (coefficient,) = setting
        level = coefficient / (1 + coefficient)
        at = self.measure(model, batch)
        values: dict[str, Any] = {
            "pinball": level * at["under"] + (1 - level) * at["over"],
            "coverage_error": at["coverage"] - level,
        }
        if not self.train_data:
            true = true_quantile(batch[:, :-1], level)
            values["quantile_error"] = (at["prediction"] - true).abs()
        return values

    def showing(self) -> Forecast:
        return Forecast(self)


class Forecast(Showing):
    """A row and its target; the slider is the level τ."""

    def described(self, batch: Tensor) -> str:
        *inputs, target = batch[0].tolist()
        listed = ", ".join(f"{value:.2f}" for value in inputs[:8])
        more = f", and {len(inputs) - 8} more" if len(inputs) > 8 else ""
        return f"x = ({listed}{more}), y = {target:.2f}"

    def also(self, setting: Setting) -> str:
        (coefficient,) = setting
        return f"τ = {coefficient / (1 + coefficient):.3g}"

"""Quantile regression on a table of your own: one network for all quantiles, or one for each?

    python examples/quantiles_csv.py                       a minute or two on two CPU cores
    python examples/quantiles_csv.py --preset smoke        seconds, to see it work

Writes `rentals.csv`, 4,000 hours of a made-up bicycle rental, and compares on it. For a table of
yours leave out the first step; this is all that the second one does:

    python run_bench.py run quantiles --train-data rentals.csv --target rented

A setting c is the quantile of level c / (1 + c), from 5 to 95 %.
Of a series over time, give the later rows as `--test-data`: rows are split at random otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bench.cli import main

TABLE = Path("rentals.csv")


def rentals(hours: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Demand follows the hour, the weather and the day; busy hours are harder to foretell, and
    rain keeps people at home more on some days than on others."""
    random = np.random.default_rng(seed)
    hour, temperature = random.integers(0, 24, hours), random.normal(15, 8, hours)
    rain = random.random(hours) < 0.2
    day = random.choice(["workday", "weekend"], hours, p=[5 / 7, 2 / 7])
    rush = np.exp(-((hour - 8) ** 2) / 4) + np.exp(-((hour - 17) ** 2) / 6)
    leisure = np.exp(-((hour - 14) ** 2) / 20)
    busy = np.where(day == "workday", 40 + 260 * rush, 40 + 180 * leisure)
    mean = busy * np.clip(0.4 + 0.04 * temperature, 0.2, 1.4) * np.where(rain, 0.5, 1)
    rented = mean * random.lognormal(0, np.where(rain, 0.5, 0.25))
    return pd.DataFrame(
        {"hour": hour, "day": day, "temperature": temperature.round(1), "rain": rain.astype(int),
         "rented": rented.round().astype(int)}
    )  # fmt: skip


if __name__ == "__main__":
    rentals().to_csv(TABLE, index=False)
    words = ["run", "quantiles", "--train-data", str(TABLE), "--target", "rented", *sys.argv[1:]]
    sys.exit(main(words))

"""Does a coefficient still change the picture? How far apart outputs are along each axis, by LPIPS.

    python -m benchmarks.axes style --preset small-cpu --settings 16 --seed 0 --out RESULTS
        --methods fixed_grid,yoto --train-data DIR --test-data DIR

Of networks that `run` with the same words has trained into RESULTS. Per method and coefficient:
the distance (LPIPS, AlexNet, v0.1) between the answers at its lowest and its highest compared
value, the others at their middle, mean over the test pictures; and that over the fixed grid's.
A network that ignores a coefficient has 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.files import write_atomic
from bench.pictures.perceptual import lpips
from bench.run.plan import Experiment, experiment
from bench.run.store import Store
from bench.space import Setting
from bench.task import Task


@torch.no_grad()
def distances(planned: Experiment, root: Path, seed: int) -> pd.DataFrame:
    """One row per method, coefficient and test picture. RuntimeError where a network is missing."""
    task, rows = planned.task, []
    ends = {name: _ends(planned, place) for place, name in enumerate(task.space.names)}
    for label in planned.methods:
        for axis, (low, high) in ends.items():
            if low == high:
                continue
            one, other = (_answers(planned, root, label, seed, setting) for setting in (low, high))
            for example in one:
                pair = (2 * picture[None] - 1 for picture in (one[example], other[example]))
                row = {"method": label, "seed": seed, "coefficient": axis, "example": example}
                rows.append(row | {"lpips": lpips("alex")(*pair).item()})
    return pd.DataFrame(rows)


def _ends(planned: Experiment, place: int) -> tuple[Setting, Setting]:
    """The compared settings at which one coefficient is lowest and highest, the others as they are
    at the first setting: the middle, in the designs that move one at a time."""
    centre, *_ = planned.settings
    line = [
        setting
        for setting in planned.settings
        if all(a == b for at, (a, b) in enumerate(zip(setting, centre, strict=True)) if at != place)
    ]
    return min(line, key=lambda s: s[place]), max(line, key=lambda s: s[place])


def _answers(
    planned: Experiment, root: Path, label: str, seed: int, setting: Setting
) -> dict[str, Tensor]:
    """By test picture what a method makes of it, (C, H, W)."""
    task, method, store = planned.task, planned.methods[label], Store(root)
    cells = method.cells_at(task, planned.plans[seed, label], setting)
    lost = [cell for cell in cells if (done := store.result(cell)) is None or done.status != "done"]
    if lost:
        raise RuntimeError(f"{label}: a network is not trained: give `run` the same words first")
    model = method.at(task, cells, [store.network(cell) for cell in cells], setting).eval()
    task.ready(model)
    return {name: _picture(task, model, batch) for name, batch in task.data("test").examples()}


def _picture(task: Task, model: torch.nn.Module, batch: Tensor) -> Tensor:
    sample = task.sample(model, batch)
    if sample is None:
        raise ValueError(f"{task.name} has no pictures to compare")
    return sample


def summed(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method and coefficient: the mean distance, its standard error over the pictures,
    and the ratio to the fixed grid's."""
    key = ["method", "coefficient"]
    found = frame.groupby(key, sort=False)["lpips"].agg(["mean", "sem", "size"])
    found = found.reset_index().rename(columns={"size": "pictures"})
    grid = found[found["method"] == "fixed_grid"].set_index("coefficient")["mean"]
    return found.assign(ratio=found["mean"] / found["coefficient"].map(grid).astype(np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--methods", default="fixed_grid,yoto")
    parser.add_argument("--settings", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-data", default="")
    parser.add_argument("--test-data", default="")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--csv", type=Path, help="where the table goes")
    given = parser.parse_args()
    places = {name: getattr(given, name) for name in ("train_data", "test_data")}
    planned = experiment(
        given.task, given.preset, given.methods.split(","), given.settings, [given.seed],
        {name: place for name, place in places.items() if place},
    )  # fmt: skip
    table = summed(distances(planned, given.out, given.seed))
    print(table.to_string(index=False, float_format="%.4f"))
    if given.csv:
        write_atomic(given.csv, table.to_csv(index=False, float_format="%.5g"))


if __name__ == "__main__":
    main()

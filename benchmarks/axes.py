"""Does a coefficient still change the picture? How far apart outputs are along each axis, by LPIPS.

    python -m benchmarks.axes style --preset small-cpu --settings 16 --seed 0 --out RESULTS
        --methods fixed_grid,yoto --train-data DIR --test-data DIR
    python -m benchmarks.axes style --preset four-paintings --methods fixed_grid,yoto_tuned ...

Of networks that `run` with the same words has trained into RESULTS. Per method and coefficient:
the distance (LPIPS, AlexNet, v0.1) between the answers at its lowest and its highest compared
value, the others at their middle, mean over the test pictures; and that over the fixed grid's.
Along a coefficient that the compared settings leave where it is, the ends of its range, of networks
that are told their coefficients: the fixed grid has none there.
A network that ignores a coefficient has 0. Where examples are of one of several paintings
(`Showing.blends`), the same for each of these, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

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
    task, rows = planned.task, list[dict[str, Any]]()
    blends = task.showing().blends
    ends = {name: _ends(planned, place) for place, name in enumerate(task.space.names)}
    for label in planned.methods:
        for axis, (low, high) in ends.items():
            if low == high:
                if any(cell.trained_for for cell in planned.plans[seed, label]):
                    continue
                low, high = _whole_range(planned, axis)
            one, other = (_answers(planned, root, label, seed, setting) for setting in (low, high))
            for example in one:
                pair = (2 * picture[None] - 1 for picture in (one[example], other[example]))
                row = {"method": label, "seed": seed, "coefficient": axis, "example": example}
                of = next((name for name in blends if example.endswith(f" / {name}")), "")
                rows.append(row | {"of": of, "lpips": lpips("alex")(*pair).item()})
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


def _whole_range(planned: Experiment, axis: str) -> tuple[Setting, Setting]:
    """The ends of one coefficient's range, the others as at the first setting."""
    (centre, *_), axes = planned.settings, planned.task.space.axes
    low, high = (
        tuple(
            getattr(each, end) if each.name == axis else value
            for each, value in zip(axes, centre, strict=True)
        )
        for end in ("low", "high")
    )
    return low, high


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
    and the ratio to the fixed grid's; of all examples, and where there are several paintings then
    `of` each. A photograph in several paintings is one picture, with its mean."""
    key = ["of", "method", "coefficient"]
    whole = frame
    if (frame["of"] != "").any():
        photograph = frame["example"].str.rpartition(" / ")[0]
        means = frame.assign(of="all", example=photograph).groupby([*key, "example"], sort=False)
        whole = pd.concat([means["lpips"].mean().reset_index(), frame])
    found = whole.groupby(key, sort=False)["lpips"].agg(["mean", "sem", "size"])
    found = found.reset_index().rename(columns={"size": "pictures"})
    place = ["of", "coefficient"]
    grids = [name for name in ("fixed_grid", "fixed_grid_tuned") if (found["method"] == name).any()]
    grid = found[found["method"].isin(grids[:1])].set_index(place)["mean"]
    base = grid.reindex(pd.MultiIndex.from_frame(found[place])).to_numpy(np.float64)
    found = found.assign(ratio=found["mean"].to_numpy() / base)
    return found.drop(columns="of") if (found["of"] == "").all() else found


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
    parser.add_argument("--paintings", default="", help="of the task, as `run` was given them")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--csv", type=Path, help="where the table goes")
    given = parser.parse_args()
    places = {name: getattr(given, name) for name in ("train_data", "test_data", "paintings")}
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

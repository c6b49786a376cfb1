"""Names beside points: they cover nothing, and what they are told to avoid is counted right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.report.figures import point_names as names


@pytest.mark.parametrize("seed", range(5))
def test_names_keep_off_each_other_and_off_points(seed: int) -> None:
    figure = Figure(figsize=(3.4, 2.6))
    axes = figure.subplots()
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    points = np.random.default_rng(seed).random((15, 2))
    points[:8, 0] = 0.2  # a column, as of networks that all cost the same
    axes.plot(*points.T, "o", markersize=4)
    labels = [names.Label(f"a method {i}", at, "red", bold=i < 3) for i, at in enumerate(points)]
    names.name_all(axes, labels, points)
    FigureCanvasAgg(figure).draw()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    for text, box, point in zip(axes.texts, boxes, points, strict=True):
        assert text.xy == pytest.approx(point)
        assert axes.bbox.contains(box.x0, box.y0)
        assert axes.bbox.contains(box.x1, box.y1)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    covered = itertools.product(boxes, axes.transData.transform(points))
    assert not any(box.contains(*at) for box, at in covered)


def test_a_box_is_counted_from_its_corners() -> None:
    random = np.random.default_rng(0)
    points = random.random((500, 2)) * [60, 40] + [10, 20]
    taken = names.sums(points, np.array([10.0, 20.0, 70.0, 60.0]))
    low = random.integers(0, 30, (50, 2))
    boxes = np.concatenate([low, low + random.integers(1, 30, (50, 2))], 1)
    for box, count in zip(boxes, names.count(taken, boxes.astype(float)), strict=True):
        at = points - [10, 20]
        assert count == ((at >= box[:2]) & (at < box[2:])).all(1).sum()


def test_leaders_are_found_to_hit_boxes_and_each_other() -> None:
    """Against points along the lines, one pair at a time."""
    random = np.random.default_rng(1)

    def some(count: int) -> names.Places:
        start, end, corner = (random.random((count, 2)) * 20 for _ in range(3))
        box, nothing = np.concatenate([corner, corner + 5], 1), np.zeros(count)
        return names.Places(start, box, end, nothing, nothing)

    one, other = some(30), some(20)
    hits, crosses = names.hits(one, other.box), names.cross(one, other)
    share = np.linspace(0, 1, 4001)[:, None]
    for i, j in np.ndindex(30, 20):
        line = one.anchor[i] + share * (one.end[i] - one.anchor[i])
        inside = (line > other.box[j, :2]) & (line < other.box[j, 2:])
        assert hits[i, j] == inside.all(1).any()
        basis = np.stack([one.end[i] - one.anchor[i], other.anchor[j] - other.end[j]], 1)
        at = np.linalg.solve(basis, other.anchor[j] - one.anchor[i])
        assert crosses[i, j] == ((at > 0) & (at < 1)).all()

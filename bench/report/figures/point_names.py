"""Names beside the points and curves of a crowded figure, instead of a legend of fifteen lines.

    name_all(axes, [Label(text="YOTO", at=[(0.2, 3.1)], colour="C0"), ...], points, lines)

Every name may stand at many places around its points. A place costs what it covers, how far it is
away, and what its leader crosses; names are moved one after the other to their cheapest place
until none wants to move, from several beginnings, of which the cheapest end counts (of the methods
that Christensen, Marks & Shieber 1995 compare, discrete descent). The same figure gives the same
places.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ANGLES = np.deg2rad([0, 20, -20, 45, -45, 70, -70, 90, -90, 110, -110, 135, -135, 160, -160, 180])
DISTANCES = np.array([3.5, 7, 12, 18, 26, 36, 48, 64])  # points between the marker and its name
LED = 8.0  # from this distance on a thin line leads from the name to its marker
PAD = 1.0  # points around a name
KEPT = 60  # places of a name that are considered, the cheapest by themselves
STARTS = 12
# What a place costs: per point of distance (more for bold names), per covered point of a curve or
# marker, per such point that the leader passes, per position down the list of anchors.
AWAY, AWAY_BOLD, COVERS_POINT, PASSES_POINT, LATER_ANCHOR = 0.35, 0.8, 6.0, 1.5, 1.5
COVERS_NAME, CROSSES_NAME, CROSSES_LEADER = 400.0, 60.0, 25.0


class Label(NamedTuple):
    """A name and the places in data coordinates, the best first, at one of which it stands."""

    text: str
    at: ArrayLike  # (n, 2)
    colour: Any
    bold: bool = False


class Places(NamedTuple):
    """Where one name may stand, in points from the figure's corner."""

    anchor: Array  # (n, 2)
    box: Array  # (n, 4): left, bottom, right, top
    end: Array  # (n, 2): of the leader, at the box
    away: Array  # (n,): the distance
    cost: Array  # (n,): other names aside


def name_all(
    axes: Axes,
    labels: Sequence[Label],
    points: ArrayLike,
    lines: Iterable[ArrayLike] = (),
    size: float = 6.5,
) -> None:
    """Draw the labels inside the axes, whose limits and place in the figure must be final, where
    they cover neither the marks at the points nor the lines: (n, 2) each, in data coordinates."""
    unit = axes.figure.dpi / 72  # pixels per point

    def in_points(data: ArrayLike) -> Array:
        pixels = axes.transData.transform(np.asarray(data, float).reshape(-1, 2))
        return np.asarray(pixels) / unit

    frame = np.array(axes.bbox.extents) / unit
    angles = np.linspace(0, 2 * math.pi, 9)
    ring = 4.0 / unit * np.stack([np.append(np.cos(angles), 0), np.append(np.sin(angles), 0)], 1)
    marks = (in_points(points)[:, None] + ring).reshape(-1, 2)
    covered = [marks, *(in_points(along(axes, line)) for line in lines)]
    taken = sums(np.concatenate(covered), frame)
    drawn = [_text(axes, label, size) for label in labels]
    places = []
    for label, text in zip(labels, drawn, strict=True):
        extent = Text.get_window_extent(text)  # without its leader
        half = np.array([extent.width, extent.height]) / unit / 2
        places.append(_places(in_points(label.at), half, label.bold, frame, taken))
    for text, options, place in zip(drawn, places, _cheapest(places), strict=True):
        anchor, box = options.anchor[place], options.box[place]
        text.xyann = tuple((box[:2] + box[2:]) / 2 - anchor)
        text.xy = tuple(axes.transData.inverted().transform(anchor * unit))
        if options.away[place] < LED and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)


def along(axes: Axes, points: ArrayLike, step: float = 3.0) -> Array:
    """Points of a drawn polygon (n, 2) about `step` pixels apart, as straight on screen."""
    corners = axes.transData.transform(np.asarray(points, float))
    parts = [corners[: len(corners) == 1]]
    for start, end in itertools.pairwise(corners):
        if math.isfinite(length := math.dist(start, end)):
            share = np.linspace(0, 1, max(2, int(length / step)))[:, None]
            parts.append(start + share * (end - start))
    return np.asarray(axes.transData.inverted().transform(np.concatenate(parts)))


def _text(axes: Axes, label: Label, size: float) -> Annotation:
    leader = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkA": 0}
    text = axes.annotate(
        label.text, (0, 0), xytext=(0, 0), textcoords="offset points", fontsize=size,
        ha="center", va="center", color="0.1", weight="bold" if label.bold else "normal",
        arrowprops=leader | {"shrinkB": 2.5}, annotation_clip=False, zorder=8, linespacing=0.95,
    )  # fmt: skip
    text.set_in_layout(False)
    return text


def sums(points: Array, frame: Array) -> Array:
    """A table of sums of how many of the points lie in each square point of the frame, so that
    `count` reads a box from its corners."""
    edges = [np.arange(size + 2) for size in np.ceil(frame[2:] - frame[:2])]
    counts, _ = np.histogramdd(points - frame[:2], bins=edges)
    return np.asarray(np.pad(counts, ((1, 0), (1, 0))).cumsum(0).cumsum(1))


def count(taken: Array, boxes: Array) -> Array:
    """How many of the summed points lie in boxes (..., 4), which are relative to the frame."""
    most = np.array(taken.shape) - 1
    left, bottom = np.moveaxis(np.clip(np.floor(boxes[..., :2]).astype(int), 0, most), -1, 0)
    right, top = np.moveaxis(np.clip(np.ceil(boxes[..., 2:]).astype(int), 0, most), -1, 0)
    return taken[right, top] - taken[left, top] - taken[right, bottom] + taken[left, bottom]


def _places(anchors: Array, half: Array, bold: bool, frame: Array, taken: Array) -> Places:
    """The `KEPT` cheapest of all angles and distances around all anchors, other names aside."""
    angle, away = (grid.ravel() for grid in np.meshgrid(ANGLES, DISTANCES))
    direction = np.stack([np.cos(angle), np.sin(angle)], 1)
    centre = (anchors[:, None] + direction * (away[:, None] + half)).reshape(-1, 2)
    anchor = np.repeat(anchors, len(angle), 0)
    box = np.concatenate([centre - half - PAD, centre + half + PAD], 1)
    outside = (box[:, :2] < frame[:2]).any(1) | (box[:, 2:] > frame[2:]).any(1)
    end = np.clip(anchor, box[:, :2] + PAD, box[:, 2:] - PAD)
    away = np.tile(away, len(anchors))
    line = end[:, None] + np.linspace(0, 1, 24)[:, None] * (anchor - end)[:, None]
    clear = np.hypot(*np.moveaxis(anchor[:, None] - line, -1, 0)) > LED  # of its own marker
    corner = np.tile(frame[:2], 2)
    passed = count(taken, np.concatenate([line - 1, line + 1], 2) - corner) > 0
    cost = (
        (AWAY_BOLD if bold else AWAY) * away
        + np.tile(np.abs(angle), len(anchors)) / math.pi  # a little: to the right is best
        + LATER_ANCHOR * np.repeat(np.arange(len(anchors)), len(angle))
        + COVERS_POINT * count(taken, box - corner)
        + PASSES_POINT * (clear & passed).sum(1) * (away >= LED)
        + 1e6 * outside
    )
    kept = np.argsort(cost, kind="stable")[:KEPT]
    return Places(*(each[kept] for each in (anchor, box, end, away, cost)))


def _cheapest(places: Sequence[Places]) -> list[int]:
    """One place per name, so that the sum of all costs is small."""
    names = np.arange(len(places))
    alone = np.stack([each.cost for each in places])
    between = np.zeros((len(names), len(names), KEPT, KEPT))
    for i, j in itertools.combinations(names, 2):
        between[i, j] = _between(places[i], places[j])
        between[j, i] = between[i, j].T
    random = np.random.default_rng(0)
    best, least = names, math.inf
    for start in range(STARTS):
        chosen = random.integers(10, size=len(names)) if start else 0 * names
        moved = True
        while moved:
            moved = False
            for i in random.permutation(names):
                cost = alone[i] + between[i, names, :, chosen].sum(0)
                place = cost.argmin()
                if cost[place] < cost[chosen[i]]:
                    chosen[i], moved = place, True
        pairs = between[names[:, None], names, chosen[:, None], chosen]
        total = alone[names, chosen].sum() + pairs.sum() / 2
        if total < least:
            best, least = chosen, total
    return [int(place) for place in best]


def _between(one: Places, other: Places) -> Array:
    """What two names cost each other at their places: (places of one, places of other)."""
    low = np.maximum(one.box[:, None, :2], other.box[None, :, :2])
    high = np.minimum(one.box[:, None, 2:], other.box[None, :, 2:])
    led, other_led = one.away[:, None] >= LED, other.away >= LED
    return (
        COVERS_NAME * (high > low).all(2)
        + CROSSES_NAME * (hits(one, other.box) & led)
        + CROSSES_NAME * (hits(other, one.box).T & other_led)
        + CROSSES_LEADER * (cross(one, other) & led & other_led)
    )


def hits(one: Places, boxes: Array) -> NDArray[np.bool_]:
    """Which leaders (n) pass through which boxes (m), by when they enter and leave: (n, m)."""
    start, step = one.anchor[:, None], (one.end - one.anchor)[:, None] + 1e-9
    sides = np.stack([(boxes[:, :2] - start) / step, (boxes[:, 2:] - start) / step])
    enter, leave = sides.min(0).max(2), sides.max(0).min(2)
    return np.asarray((enter < leave) & (leave > 0) & (enter < 1))


def cross(one: Places, other: Places) -> NDArray[np.bool_]:
    """Which leaders (n) cross which (m): (n, m)."""

    def side(a: Array, b: Array, c: Array) -> Array:
        ab, ac = b - a, c - a
        return ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]

    a, b, c, d = one.anchor[:, None], one.end[:, None], other.anchor[None], other.end[None]
    return (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)

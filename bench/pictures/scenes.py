"""Pictures with known factors, rendered here: an object in the corner of a room, 64 x 64.

    scenes = Scenes("train")
    pictures = scenes.batch(64, torch.Generator().manual_seed(0))      (64, 3, 64, 64) in [0, 1]

Six factors, independent and uniform: hue of the floor, of the walls and of the object, the
object's shape and size, and the direction the camera looks from. They are our own, made for
models of the kind that are tried on Shapes3D, and are not that data set: nothing is downloaded.

A picture is linear in its three colours, so only the 480 combinations of shape, size and
direction are ray traced (once per process, about two seconds). A batch mixes their maps with the
colours, which is cheap enough to do anew for every batch: no picture is ever stored.
"""

from __future__ import annotations

import colorsys
import functools
import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 64  # pixels
HUES = 10
FACTORS = {"floor hue": HUES, "wall hue": HUES, "object hue": HUES}
FACTORS |= {"shape": 4, "size": 8, "direction": 15}
SHAPES = ("cube", "cylinder", "ball", "cone")
VERSION = 1  # raise it when the same factors come to look different
SPLIT_SEED = 20_200_427

SAMPLES = 3  # rays per pixel and side
TURN = math.radians(30)  # the camera's largest turn from the room's diagonal
LIGHT = (0.62, 1.0, 0.28)  # direction towards the light
AMBIENT, DIFFUSE, GLOSS = 0.42, 0.58, 0.3
ROOM = 4.4  # half of its side, in object units
CPU = torch.device("cpu")


class Scenes:
    """One split: "test" and "validation" are a tenth each of the 480,000 combinations, drawn once,
    "train" is the rest.

    count: how many of the split's scenes; 0 takes all. side: pixels, 64 or a half, a quarter of it.
    """

    def __init__(
        self, split: str, count: int = 0, device: torch.device = CPU, side: int = SIDE
    ) -> None:
        self.split, self.count, self.device, self.side = split, count, device, side
        self.numbers = _split(split)[: count or None]

    @property
    def digest(self) -> str:
        small = f" {self.side} pixels" if self.side != SIDE else ""
        return f"scenes {VERSION} {SPLIT_SEED} {self.split} {len(self.numbers)}{small}"

    @property
    def factors(self) -> Tensor:
        """The value of every factor, in the order of FACTORS: (N, 6) int64 on the CPU."""
        return factors_of(self.numbers)

    def to(self, device: torch.device) -> Scenes:
        return Scenes(self.split, self.count, torch.device(device), self.side)

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` scenes drawn uniformly: (count, 3, side, side) float32 in [0, 1] on the
        device."""
        rows = torch.randint(len(self.numbers), (count,), generator=generator)
        return render(factors_of(self.numbers[rows]), self.device, self.side)

    def examples(self) -> Iterator[tuple[str, Tensor]]:
        for number, factors in zip(self.numbers.tolist(), self.factors, strict=True):
            yield f"scene {number}", render(factors[None], self.device, self.side)


def factors_of(numbers: Tensor) -> Tensor:
    """Numbers of combinations, (N,), to the values of their factors, (N, 6)."""
    values = []
    for count in reversed(FACTORS.values()):
        values.append(numbers % count)
        numbers = numbers // count
    return torch.stack(values[::-1], 1)


def render(factors: Tensor, device: torch.device = CPU, side: int = SIDE) -> Tensor:
    """Factors, (N, 6) on the CPU, to pictures (N, 3, side, side) in [0, 1], rounded to 8 bits."""
    shape, size, direction = factors[:, 3:].unbind(1)
    geometry = (shape * FACTORS["size"] + size) * FACTORS["direction"] + direction
    small = torch.cat([factors[:, :3], geometry[:, None]], 1)
    if device.type == "cuda":
        small = small.pin_memory()
    small = small.to(device, non_blocking=True)
    maps, colours = _maps(device, side), _colours(device)
    parts = torch.cat([colours[small[:, :3]], torch.ones_like(colours[small[:, :1]])], 1)
    light = maps[small[:, 3]].flatten(2) / 255  # (N, 4, pixels): floor, walls, object, gloss
    pictures = torch.bmm(parts.transpose(1, 2), light).unflatten(2, (side, side))
    return (pictures.clamp(0, 1) * 255).round() / 255


@functools.cache
def _split(split: str) -> Tensor:
    total = math.prod(FACTORS.values())
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED))
    places = {"test": (0, 1), "validation": (1, 2), "train": (2, 10)}
    if split not in places:
        raise ValueError(f"split {split!r}: use {', '.join(places)}")
    first, end = places[split]
    return order[first * total // 10 : end * total // 10]


@functools.cache
def _colours(device: torch.device) -> Tensor:
    """RGB of the hues: (10, 3)."""
    rgb = [colorsys.hsv_to_rgb(i / HUES, 0.72, 1.0) for i in range(HUES)]
    return torch.tensor(rgb, device=device)


@functools.cache
def _maps(device: torch.device, side: int) -> Tensor:
    """How strongly floor, walls, object and white light each pixel: (480, 4, side, side) uint8."""
    if device.type != "cpu":
        return _maps(CPU, side).to(device)
    if side != SIDE:  # a picture is linear in its maps, so their means are those of its pixels
        return F.avg_pool2d(_maps(CPU, SIDE).float(), SIDE // side).round().to(torch.uint8)
    sizes, directions = FACTORS["size"], FACTORS["direction"]
    scales = [0.62 + 0.58 * size / (sizes - 1) for size in range(sizes)]
    turns = [TURN * (2 * place / (directions - 1) - 1) for place in range(directions)]
    maps = [_trace(*geometry) for geometry in itertools.product(SHAPES, scales, turns)]
    return (torch.stack(maps) * 255).round().to(torch.uint8)


def _trace(shape: str, scale: float, turn: float) -> Tensor:
    """The maps of one geometry, by rays from the camera: (4, 64, 64) in [0, 1]."""
    eye, rays = _camera(turn)
    light = F.normalize(torch.tensor(LIGHT), dim=0)
    # The room: floor y = 0 and the two walls x = -ROOM and z = -ROOM that face the camera.
    distances = (torch.tensor([-ROOM, 0.0, -ROOM]) - eye) / rays
    distances = torch.where((rays < 0) & (distances > 0), distances, math.inf)
    room, axis = distances.min(1)
    point = eye + room[:, None] * rays
    lit = (_hit(shape, scale, point + 1e-3 * light, light.expand_as(rays))[0] == math.inf).float()
    room_light = AMBIENT + DIFFUSE * light[axis] * lit
    depth, normal = _hit(shape, scale, eye.expand_as(rays), rays)
    facing = (normal @ light).clamp(min=0)
    mirrored = 2 * facing[:, None] * normal - light
    gloss = GLOSS * (-(mirrored * rays).sum(1)).clamp(min=0) ** 12 * (facing > 0)
    solid = depth < room
    is_floor, is_wall = (axis == 1) & ~solid, (axis != 1) & ~solid
    shaded = (AMBIENT + DIFFUSE * facing) * solid
    maps = torch.stack([room_light * is_floor, room_light * is_wall, shaded, gloss * solid])
    fine = maps.unflatten(1, (SIDE * SAMPLES, SIDE * SAMPLES))
    return F.avg_pool2d(fine, SAMPLES)


@functools.lru_cache(maxsize=32)
def _camera(turn: float) -> tuple[Tensor, Tensor]:
    """The eye, (3,), and unit rays through all samples, row by row: (R, 3)."""
    angle = math.pi / 4 + turn
    eye = torch.tensor([4.0 * math.cos(angle), 2.7, 4.0 * math.sin(angle)])
    forward = F.normalize(torch.tensor([0.0, 0.85, 0.0]) - eye, dim=0)
    right = F.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0])), dim=0)
    up = torch.linalg.cross(right, forward)
    count = SIDE * SAMPLES
    place = ((torch.arange(count) + 0.5) / count * 2 - 1) * math.tan(math.radians(22))
    rays = forward + place[None, :, None] * right - place[:, None, None] * up
    return eye, F.normalize(rays.reshape(-1, 3), dim=1)


def _hit(shape: str, scale: float, start: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the object standing on the floor at the room's middle (inf: missed), (R,), and
    its outward normal there, (R, 3). Starts lie outside the object."""
    if shape == "cube":
        return _hit_cube(0.72 * scale, start, rays)
    if shape == "ball":
        radius = 0.92 * scale
        centre = torch.tensor([0.0, radius, 0.0])
        to_eye = start - centre
        inside = to_eye.square().sum(1) - radius**2
        depth = _nearest_root(torch.ones(len(rays)), (to_eye * rays).sum(1), inside)
        return depth, _at(start, rays, depth, -centre) / radius
    if shape == "cylinder":
        radius, height, slope = 0.74 * scale, 1.55 * scale, 0.0
    else:  # a cone
        radius, height = 0.98 * scale, 1.95 * scale
        slope = radius / height
    # The lateral surface: x² + z² = (radius - slope * y)², for 0 <= y <= height.
    (x, y, z), (dx, dy, dz) = start.unbind(1), rays.unbind(1)
    width = radius - slope * y
    side = _nearest_root(
        dx**2 + dz**2 - (slope * dy) ** 2,
        x * dx + z * dz + slope * dy * width,
        x**2 + z**2 - width**2,
        lambda t: ((y + t * dy) >= 0) & ((y + t * dy) <= height),
    )
    at = _at(start, rays, side)
    outward = torch.stack([at[:, 0], slope * (radius - slope * at[:, 1]), at[:, 2]], 1)
    normal = F.normalize(outward, dim=1)
    lid = (height - y) / dy
    inside = (x + lid * dx) ** 2 + (z + lid * dz) ** 2 <= (radius - slope * height) ** 2
    lid = torch.where((lid > 0) & inside, lid, math.inf)
    closer = lid < side
    top = torch.tensor([0.0, 1.0, 0.0])
    return torch.minimum(side, lid), torch.where(closer[:, None], top, normal)


def _hit_cube(half: float, start: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    middle = torch.tensor([0.0, half, 0.0])
    one, other = (middle - half - start) / rays, (middle + half - start) / rays
    enter, axis = torch.minimum(one, other).max(1)
    leave = torch.maximum(one, other).min(1).values
    missed = (enter > leave) | (enter <= 0)
    faces = F.one_hot(axis, 3).float()
    return torch.where(missed, math.inf, enter), -faces * rays.sign()


def _nearest_root(
    a: Tensor, b: Tensor, c: Tensor, valid: Callable[[Tensor], Tensor] = lambda t: t > 0
) -> Tensor:
    """The smallest positive valid t with a t² + 2 b t + c = 0, or inf."""
    root = (b * b - a * c).sqrt()  # NaN without one; comparisons with it are false
    roots = [(-b + sign * root) / a for sign in (-1, 1)]
    return torch.minimum(*(torch.where((t > 0) & valid(t), t, math.inf) for t in roots))


def _at(start: Tensor, rays: Tensor, depth: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """The points on the rays; where nothing is hit, any finite point."""
    return start + torch.where(depth == math.inf, 0, depth)[:, None] * rays + offset

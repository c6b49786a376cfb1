"""The renderer: what a factor does to a picture, splits, speed of thought and of drawing."""

from __future__ import annotations

import pytest
import torch

from bench.pictures import scenes
from bench.pictures.scenes import FACTORS, SHAPES, Scenes, factors_of, render

NAMES = list(FACTORS)


def picture(**values: int) -> torch.Tensor:
    """One scene: a red ball of middle size on a green floor before blue walls, but for `values`."""
    usual = {"floor hue": 3, "wall hue": 6, "object hue": 0, "shape": 2, "size": 4, "direction": 7}
    usual |= {name.replace("_", " "): value for name, value in values.items()}
    return render(torch.tensor([[usual[name] for name in NAMES]]))[0]


def test_pictures_are_8_bit_and_the_same_each_time() -> None:
    one = picture()
    assert one.shape == (3, 64, 64)
    assert one.dtype == torch.float32
    assert torch.equal((one * 255).round() / 255, one)
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, picture())


def test_colours_are_where_they_belong() -> None:
    one = picture()
    ball, floor, wall = one[:, 32, 32], one[:, 60, 4], one[:, 4, 4]
    assert ball.argmax() == 0  # red
    assert floor.argmax() == 1  # green
    assert wall.argmax() == 2  # blue


def test_a_hue_changes_its_part_alone() -> None:
    spots = {"floor_hue": (60, 4), "wall_hue": (4, 4), "object_hue": (32, 32)}
    for factor in spots:
        changed = (picture() != picture(**{factor: 8})).any(0)
        assert [name for name, place in spots.items() if changed[place]] == [factor]


def test_the_object_grows_with_its_size() -> None:
    for shape in range(len(SHAPES)):
        areas = []
        for size in range(FACTORS["size"]):
            one, other = (picture(shape=shape, size=size, object_hue=hue) for hue in (0, 5))
            areas.append(int((one != other).any(0).sum()))
        assert areas == sorted(set(areas)), SHAPES[shape]
        assert areas[0] > 100, SHAPES[shape]


def test_the_shadow_lies_on_the_floor_outside_the_object() -> None:
    """Darker floor, same hue: the ratio of floor colours is the same in light and shadow."""
    one = picture()
    floor = picture(floor_hue=8) != one
    dark = floor.all(0) & (one[1] < 0.6)
    assert dark.sum() > 30
    assert floor[1, 60, 4] and one[1, 60, 4] > 0.8  # noqa: PT018 (one fact: lit floor is bright)


def test_the_camera_turns() -> None:
    left, middle, right = (picture(direction=d) for d in (0, 7, 14))
    assert not torch.equal(left, middle)
    # The walls meet where their two brightnesses do; the edge moves across the picture.
    edges = [int((p[2, 4].diff().abs()).argmax()) for p in (left, middle, right)]
    assert edges[0] != edges[1] != edges[2]
    assert abs(edges[1] - 31) <= 1
    assert sorted(edges) in (edges, edges[::-1])


def test_a_ball_is_hit_where_geometry_says() -> None:
    start = torch.tensor([[5.0, 0.92, 0.0], [5.0, 3.0, 0.0], [0.0, 5.0, 0.0]])
    rays = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    depth, normal = scenes._hit("ball", 1.0, start, rays)
    torch.testing.assert_close(depth, torch.tensor([4.08, torch.inf, 3.16]))
    torch.testing.assert_close(normal[0], torch.tensor([1.0, 0, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_hits_lie_on_the_surface_and_normals_face_the_ray(shape: str) -> None:
    eye, rays = scenes._camera(0.2)
    depth, normal = scenes._hit(shape, 1.0, eye.expand_as(rays), rays)
    hit = depth < torch.inf
    assert 0.05 < hit.float().mean() < 0.5
    torch.testing.assert_close(normal[hit].norm(dim=1), torch.ones(int(hit.sum())))
    assert ((normal * rays).sum(1)[hit] < 1e-3).all()
    # A step back along the ray is outside: the same ray from there hits after that step.
    again, _ = scenes._hit(shape, 1.0, (eye + (depth - 0.5)[:, None] * rays)[hit], rays[hit])
    torch.testing.assert_close(again, torch.full_like(again, 0.5), atol=1e-3, rtol=0)


def test_splits_are_disjoint_and_cover_everything() -> None:
    parts = [Scenes(split).numbers for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [384_000, 48_000, 48_000]
    assert len(torch.cat(parts).unique()) == 480_000
    test = parts[2]
    for count, values in zip(FACTORS.values(), Scenes("test").factors.unbind(1), strict=True):
        assert torch.bincount(values).min() > 0.9 * len(test) / count
    with pytest.raises(ValueError, match="use test, validation, train"):
        Scenes("held")


def test_numbers_and_factors_correspond() -> None:
    factors = factors_of(torch.arange(480_000))
    assert len(factors.unique(dim=0)) == 480_000
    assert factors.max(0).values.tolist() == [count - 1 for count in FACTORS.values()]


def test_batches_follow_the_generator() -> None:
    data = Scenes("train")
    one, again, other = (data.batch(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(list(Scenes("test", 3).examples())) == 3


def test_the_digest_knows_split_and_count_without_rendering() -> None:
    digests = {Scenes("train").digest, Scenes("test").digest, Scenes("test", 5).digest}
    assert len(digests) == 3


def test_a_smaller_scene_is_the_mean_of_the_large_ones_pixels() -> None:
    """But for two roundings: of the maps, which three colours mix, and of the picture."""
    (_, large), (_, small) = (next(Scenes("test", 1, side=side).examples()) for side in (64, 16))
    means = torch.nn.functional.avg_pool2d(large, 4)
    torch.testing.assert_close(small, means, rtol=0, atol=3 / 255)

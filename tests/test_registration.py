"""Registration: warping and folding against scipy and numpy, and what a displacement means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from bench import PictureError
from bench.tasks.registration import Registration
from bench.tasks.registration_data import (
    LUMA,
    Pairs,
    deformation,
    endpoint_error,
    jacobian,
    roughness,
    warp,
)

SMOKE = Registration.presets()["smoke"].task
CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def field() -> torch.Tensor:
    return deformation(3, 32, 8.0, 4, seeded(1))


@pytest.fixture(scope="module")
def folding() -> torch.Tensor:
    """A rough displacement, half of whose places fold."""
    return 3 * torch.randn(2, 2, 20, 24, generator=seeded(2))


def test_warping_is_scipys(folding: torch.Tensor) -> None:
    """Channel 0 along columns, channel 1 along rows; the nearest pixel outside the frame."""
    pictures = torch.rand(2, 1, 20, 24, generator=seeded())
    ours = warp(pictures, folding).numpy()
    rows, columns = np.mgrid[:20, :24].astype(float)
    for picture, u, warped in zip(pictures.numpy(), folding.double().numpy(), ours, strict=True):
        places = [rows + u[1], columns + u[0]]
        theirs = ndimage.map_coordinates(picture[0], places, order=1, mode="nearest")
        np.testing.assert_allclose(warped[0], theirs, atol=1e-5)


def test_a_displacement_says_where_the_moving_picture_is_read() -> None:
    """A picture shifted three pixels to the left by u_x = 3."""
    moving = torch.rand(1, 1, 16, 16, generator=seeded())
    shift = torch.zeros(1, 2, 16, 16)
    shift[:, 0] = 3
    torch.testing.assert_close(warp(moving, shift)[..., :-3], moving[..., 3:])
    shift = shift.flip(1)
    torch.testing.assert_close(warp(moving, shift)[..., :-3, :], moving[..., 3:, :])


def test_the_jacobian_is_numpys(folding: torch.Tensor) -> None:
    rows, columns = np.mgrid[:20, :24].astype(float)
    determinants = jacobian(folding.double()).numpy()
    for u, ours in zip(folding.double().numpy(), determinants, strict=True):
        x, y = columns + u[0], rows + u[1]
        along_x = np.stack([np.diff(part, axis=1)[:-1] for part in (x, y)], -1)
        along_y = np.stack([np.diff(part, axis=0)[:, :-1] for part in (x, y)], -1)
        theirs = np.linalg.det(np.stack([along_x, along_y], -1))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_mirrored_strip_is_folded_and_a_smooth_field_is_not(field: torch.Tensor) -> None:
    """u_x = -2 x turns columns 0 to 4 round, so that 4 of 15 steps between columns go back."""
    turned = torch.zeros(1, 2, 16, 16)
    turned[:, 0, :, :5] = -2.0 * torch.arange(5)
    turned[:, 0, :, 5:] = -8.0
    assert float((jacobian(turned) <= 0).float().mean()) == pytest.approx(4 / 15)
    assert jacobian(torch.zeros(1, 2, 16, 16)).eq(1).all()


def test_roughness_is_the_mean_squared_gradient(folding: torch.Tensor) -> None:
    u = folding.numpy()
    squares = [np.square(np.diff(u, axis=axis)).mean((2, 3)).sum(1) for axis in (2, 3)]
    np.testing.assert_allclose(roughness(folding), squares[0] + squares[1], rtol=1e-5)
    slope = torch.zeros(1, 2, 8, 8)
    slope[:, 1] = 0.5 * torch.arange(8)
    assert float(roughness(slope)) == pytest.approx(0.25)


def test_deformations_are_smooth_and_leave_the_frame(field: torch.Tensor) -> None:
    frame = torch.cat([field[..., [0, -1], :].flatten(), field[..., [0, -1]].flatten()])
    assert frame.abs().max() < 1e-4
    lengths = field.square().sum(1).sqrt().amax((1, 2))
    assert ((lengths > 0) & (lengths <= 8)).all()
    assert len(set(lengths.tolist())) == 3
    spectrum = np.abs(np.fft.rfft2(np.pad(field.numpy(), [(0, 0)] * 2 + [(0, 31)] * 2))) ** 2
    assert spectrum[..., :10, :10].sum() + spectrum[..., -9:, :10].sum() > 0.99 * spectrum.sum()
    shift = deformation(400, 9, 8.0, 4, seeded(3)).square().sum(1).sqrt().amax((1, 2))
    assert float(shift.mean()) == pytest.approx(4.0, abs=0.4)  # uniform from 0 to 8


def test_the_true_displacement_has_no_error_and_the_highest_similarity() -> None:
    task = replace(SMOKE, side=32, noise=0.0)
    pairs = task.data("train").batch(4, seeded())
    true = pairs[:, 2:]
    assert endpoint_error(true, true).eq(0).all()
    torch.testing.assert_close(
        endpoint_error(true + torch.tensor([3.0, 4.0])[:, None, None], true), torch.full((4,), 5.0)
    )
    assert task.compared(true, pairs)["similarity"].max() < 1e-6
    assert (task.compared(-true, pairs)["similarity"] > 1e-3).all()
    noisy = replace(task, noise=0.1).data("train").batch(4, seeded())
    expected = 1000 * 0.1**2 * 1.2  # the moving picture's noise is averaged by interpolation
    similarity = task.compared(noisy[:, 2:], noisy)["similarity"].mean()
    assert expected < float(similarity) < 2000 * 0.1**2


def test_the_same_pairs_every_time() -> None:
    data = SMOKE.data("test").to(CPU)
    examples, again = list(data.examples()), list(SMOKE.data("test").examples())
    names = [name for name, _ in examples]
    assert len(set(names)) == len(names) == 2 * len(data.pictures.names)
    for (name, pair), (other, same) in zip(examples, again, strict=True):
        assert name == other
        assert pair.shape == (1, 4, 16, 16)
        assert torch.equal(pair, same)
    assert not torch.equal(examples[0][1], examples[1][1])
    train = SMOKE.data("train")
    assert torch.equal(train.batch(3, seeded(5)), train.batch(3, seeded(5)))
    assert train.digest != data.digest
    assert replace(SMOKE, reach=2.0).data("train").digest != train.digest


def test_the_moving_picture_is_a_grey_crop_shrunk() -> None:
    still = replace(SMOKE, noise=0.0, reach=0.0).data("test")
    assert isinstance(still, Pairs)
    weights, k = torch.tensor(LUMA)[:, None, None], still.shrink
    pictures = dict(still.pictures.examples())
    for name, pair in still.examples():
        grey = (pictures[name.partition(",")[0]] * weights).sum(1).numpy()[0]
        means = ndimage.uniform_filter(grey.astype(float), k, mode="nearest")
        crop, found = pair[0, 1].numpy(), 0
        for row, column in np.ndindex(k, k):
            every = torch.from_numpy(means[row + k // 2 :: k, column + k // 2 :: k])
            windows = every.unfold(0, 16, 1).unfold(1, 16, 1).numpy()
            near = windows[np.abs(windows[..., 0, 0] - crop[0, 0]) < 1e-5]
            found += int((np.abs(near - crop).max((1, 2)) < 1e-5).sum()) if len(near) else 0
        assert found == 1
        torch.testing.assert_close(pair[0, 0], pair[0, 1])  # nothing moved


def test_measures_of_a_network_that_answers_with_nothing() -> None:
    class Still(torch.nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(pictures)

    pairs = SMOKE.data("train").batch(3, seeded())
    values = SMOKE.measure(Still(), pairs)
    assert set(values) == set(SMOKE.measures)
    expected = 1000 * (pairs[:, 0] - pairs[:, 1]).square().mean((1, 2))
    torch.testing.assert_close(values["similarity"], expected)
    lengths = pairs[:, 2:].square().sum(1).sqrt().mean((1, 2))
    torch.testing.assert_close(values["endpoint_error"], lengths)
    assert values["smoothness"].eq(0).all()
    assert values["folded"].eq(0).all()
    shown = SMOKE.sample(Still(), pairs[:1])
    assert shown.shape == (3, 128, 128)
    torch.testing.assert_close(shown[0, :64:4, :64:4], pairs[0, 0].clamp(0, 1))
    torch.testing.assert_close(shown[0, 64::4, :64:4], pairs[0, 1].clamp(0, 1))
    torch.testing.assert_close(shown[0, 64, 64:], torch.ones(64))  # a straight line of the grid
    assert shown[0, 72, 64:].mean() < 0.2


def test_widths_ranges_and_sides() -> None:
    assert SMOKE.wider(2).width == 2 * SMOKE.width
    (axis,) = SMOKE.ranged(16).space.axes
    assert (axis.low, axis.high) == (7.91, 126.0)  # √1000 / 4 and 4 √1000, to three digits
    with pytest.raises(ValueError, match="multiple of 8"):
        replace(SMOKE, side=20)
    with pytest.raises(PictureError, match="no folder"):
        replace(SMOKE, test_data="/nowhere").data("test")


def test_the_network_answers_at_the_pictures_size() -> None:
    for side in (16, 24, 64):
        network = replace(SMOKE, side=side).model()
        assert network(torch.rand(2, 2, side, side)).shape == (2, 2, side, side)

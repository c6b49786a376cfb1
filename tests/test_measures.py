"""Every measure against somebody else's implementation, or a value worked out by hand."""

import doctest
import math

import numpy as np
import pytest
import pytorch_msssim
import torch
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import distributions as D
from torch.nn import functional as F

from bench.pictures import measures


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 176, 192, generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    strength = torch.tensor([0.01, 0.05, 0.2])[:, None, None, None]
    return x, (x + strength * noise).clamp(0, 1)


def test_the_examples_in_the_documentation():
    pictures = {"grey": torch.full((1, 3, 176, 176), 0.5), "white": torch.ones(1, 3, 176, 176)}
    result = doctest.testmod(measures, extraglobs=pictures)
    assert result.attempted > 10
    assert result.failed == 0


def test_to_8bit_gives_the_256_levels():
    x = torch.tensor([-0.3, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 7.0])
    assert torch.equal(measures.to_8bit(x) * 255, torch.tensor([0.0, 0.0, 0.0, 1.0, 255.0, 255.0]))
    levels = torch.arange(256) / 255
    assert torch.equal(measures.to_8bit(levels), levels)


def test_psnr_is_scikit_images(pair):
    x, y = pair
    expected = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(measures.psnr(x, y), expected, rtol=1e-5)
    np.testing.assert_allclose(measures.psnr(255 * x, 255 * y, peak=255), expected, rtol=1e-5)


def test_psnr_joins_the_channels():
    """An error in one channel alone: 1/3 of the energy, where a mean of channels is infinite."""
    x = torch.zeros(1, 3, 8, 8)
    y = x.clone()
    y[:, 0] = 0.1
    assert measures.psnr(x, y).item() == pytest.approx(20 + 10 * math.log10(3), abs=1e-4)
    assert measures.psnr(x, x).item() == math.inf


def test_an_example_is_measured_alone(pair):
    """No measure may depend on what else is in the batch."""
    x, y = pair
    for measure in (measures.mse, measures.psnr, measures.ms_ssim):
        alone = torch.cat([measure(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        assert measure(x, y).shape == (3,)
        torch.testing.assert_close(measure(x, y), alone, rtol=1e-5, atol=1e-6)


def test_ms_ssim_falls_with_noise_and_is_one_at_none(pair):
    x, y = pair
    values = measures.ms_ssim(x, y)
    assert values[0] > values[1] > values[2] > 0
    torch.testing.assert_close(measures.ms_ssim(x, x), torch.ones(3))


def test_ms_ssim_from_scikit_images_ssim():
    """The product over five scales, put together from scikit-image's SSIM of each scale.

    scikit-image gives whole SSIM only; MS-SSIM leaves out its luminance part on all scales but
    the last. That part is one to within 0.3 % here, since the noise hardly moves a local mean.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, 352, 352, generator=generator).double()
    y = x + 0.15 * torch.randn(x.shape, generator=generator)
    expected = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        a = F.avg_pool2d(x, 2**scale)[0, 0].numpy()
        b = F.avg_pool2d(y, 2**scale)[0, 0].numpy()
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        whole = structural_similarity(a, b, data_range=1, full=True, **options)[1]
        expected *= whole[5:-5, 5:-5].mean() ** weight
    got = measures.ms_ssim(x.expand(1, 3, -1, -1), y.expand(1, 3, -1, -1)).item()
    assert got == pytest.approx(expected, abs=3e-3)
    assert got < 0.95


@pytest.mark.parametrize("size", [(161, 170), (192, 333), (259, 224)])
def test_ms_ssim_is_the_librarys(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, *size, generator=generator)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    theirs = pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False)
    # The same bits where the convolution adds up in the library's order, as on the CPUs we tried.
    torch.testing.assert_close(measures.ms_ssim(x, y), theirs, rtol=2e-6, atol=0)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(measures.ms_ssim(channels_last, y), measures.ms_ssim(x, y))


def test_ms_ssim_of_a_small_picture_is_nan():
    x, y = torch.rand(2, 2, 3, 161, 400)
    assert measures.ms_ssim(x[..., 1:, :], y[..., 1:, :]).isnan().all()
    assert not measures.ms_ssim(x, y).isnan().any()


def test_nats_are_torch_distributions():
    generator = torch.Generator().manual_seed(2)
    x, mean = torch.rand(2, 4, 3, 5, 5, generator=generator).unbind()
    std = torch.rand(x.shape, generator=generator) + 0.1
    logits = 3 * torch.randn(x.shape, generator=generator)
    nll = -D.Normal(mean, std).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(measures.gaussian_nll(x, mean, std), nll)
    shared = torch.tensor(0.3)
    nll = -D.Normal(mean, shared).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(measures.gaussian_nll(x, mean, shared), nll)
    nll = -D.Bernoulli(logits=logits, validate_args=False).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(measures.bernoulli_nll(x, logits), nll)
    kl = D.kl_divergence(D.Normal(mean, std), D.Normal(torch.tensor(0.0), torch.tensor(1.0)))
    torch.testing.assert_close(measures.kl_to_standard_normal(mean, std), kl.sum((1, 2, 3)))


def test_active_units_by_hand() -> None:
    torch.manual_seed(0)
    codes = torch.randn(1000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert measures.active_units(codes) == 2  # variances 1, 0.04, 0.0025, 0


def test_mutual_information_gap_by_hand() -> None:
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(4), torch.arange(5))
    factors = grid[:, :2]
    exact = factors.float()
    bit = (factors[:, :1] // 2).float()  # tells the first factor's upper bit
    for codes, expected in (
        (exact, 1.0),
        (torch.cat([exact, exact], 1), 0.0),
        (torch.cat([exact, bit], 1), (0.5 + 1.0) / 2),  # log 4 - log 2 over log 4
        (torch.zeros(len(grid), 3), 0.0),
    ):
        gap = measures.mutual_information_gap(codes, factors)
        assert gap == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="never changes"):
        measures.mutual_information_gap(exact, torch.zeros(len(grid), 1, dtype=torch.long))


def test_mutual_information_against_scipy() -> None:
    torch.manual_seed(1)
    factors = torch.randint(6, (3000, 1))
    codes = torch.cat([factors + torch.randn(3000, 1), 0.3 * factors + torch.randn(3000, 1)], 1)
    information = []
    for latent in codes.double().numpy().T:
        table, _, _ = np.histogram2d(latent, factors[:, 0].numpy(), bins=(20, 6))
        table = table[table.sum(1) > 0]
        statistic = stats.chi2_contingency(table, lambda_="log-likelihood").statistic
        information.append(statistic / (2 * len(latent)))  # G = 2 N I
    entropy = stats.entropy(torch.bincount(factors[:, 0]).numpy())
    expected = (max(information) - min(information)) / entropy
    assert measures.mutual_information_gap(codes, factors) == pytest.approx(expected, abs=1e-4)

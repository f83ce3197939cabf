"""PSNR and SSIM against their formulas."""

from math import log10

import pytest
import torch

from anydit.codecs.quality import psnr, ssim


def test_psnr_is_that_of_the_mean_squared_error():
    x = torch.rand(4, 1, 6, 6) * 255
    y = x + torch.tensor([1.0, 3.0, 5.0, 7.0])[:, None, None, None]
    assert psnr(y, x, 255.0) == pytest.approx(10 * log10(255**2 / 21), abs=1e-3)


@pytest.mark.parametrize("shape", [(40,), (7,), (28, 28), (8, 8), (3, 5), (12, 12, 12), (4, 9, 9), (9, 9, 4)])
def test_ssim_is_one_for_the_same_and_less_with_noise(shape: tuple[int, ...]):
    x = torch.rand(3, 2, *shape)
    assert ssim(x, x, 1.0) == pytest.approx(1.0, abs=1e-5)
    values = [ssim(x + level * torch.randn(x.shape), x, 1.0) for level in (0.05, 0.2, 0.8)]
    assert all(isinstance(v, float) and v == v for v in values)
    assert 1 > values[0] > values[1] > values[2]  # type: ignore[operator]


def test_ssim_of_series_is_that_of_images_of_the_same_rows():
    x, y = torch.rand(3, 2, 50), torch.rand(3, 2, 50)
    of_y, of_x = (some[:, :, None].expand(-1, -1, 30, -1) for some in (y, x))
    assert ssim(y, x, 1.0) == pytest.approx(ssim(of_y, of_x, 1.0), abs=1e-5)


def test_there_is_no_ssim_of_axes_that_are_too_short_or_too_many():
    for shape in [(2,), (2, 30), (2, 12, 12), (4, 4, 4, 4)]:
        assert ssim(torch.rand(2, 1, *shape), torch.rand(2, 1, *shape), 1.0) is None, shape

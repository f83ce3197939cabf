"""Paths: ends, derivatives, inverses, and the published discrete schedule."""

import pytest
import torch

from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta

PATHS = [Linear(), Cosine(), LinearBeta(), DDPM(), DDPM(steps=10, beta_end=0.5)]
INSIDE = torch.linspace(0.0123, 0.9878, 57, dtype=torch.float64)  # between the knots of the discrete paths


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_ends(path):
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert path.alpha(t)[0] == 1 and path.sigma(t)[0] == 0, "t = 0 is the data itself"
    assert (path.alpha(t)[1] == 0) == path.reaches_noise
    assert path.alpha(t)[1] < 0.25


@pytest.mark.parametrize("path", PATHS[1:], ids=str)
def test_variance_preserving(path):
    torch.testing.assert_close(path.alpha(INSIDE) ** 2 + path.sigma(INSIDE) ** 2, torch.ones_like(INSIDE))


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_derivatives(path):
    h = 1e-7
    for value, slope in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        measured = (value(INSIDE + h) - value(INSIDE - h)) / (2 * h)
        torch.testing.assert_close(slope(INSIDE), measured, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_noise_only_grows(path):
    t = torch.linspace(0, 1, 301)
    assert (path.alpha(t).diff() < 0).all() and (path.sigma(t).diff() > 0).all()


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_time_at_inverts_log_snr(path, dtype, tolerance: float):
    t = INSIDE.to(dtype)
    back = path.time_at(path.log_snr(t))
    assert back.dtype == dtype
    torch.testing.assert_close(back, t, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_time_at_stays_within_the_path(path):
    t = path.time_at(torch.tensor([-1e3, 1e3], dtype=torch.float64))
    torch.testing.assert_close(t, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-3, rtol=0)


def test_ddpm_knots_are_the_published_products():
    products = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)
    t = (torch.arange(1000) + 1) / 1000
    torch.testing.assert_close(DDPM().alpha(t).double(), products.sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(DDPM().sigma(t).double(), (1 - products).sqrt(), rtol=1e-6, atol=0)


def test_ddpm_with_many_steps_is_the_continuous_path():
    """beta_i = beta(t)/N: 1000 steps from 1e-4 to 2e-2 approach LinearBeta(0.1, 20)."""
    torch.testing.assert_close(DDPM().alpha(INSIDE), LinearBeta().alpha(INSIDE), rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_float32_keeps_small_noise(path):
    """Near the data sigma is small; it must keep its leading digits in float32."""
    t = torch.tensor([1e-3, 5e-3], dtype=torch.float64)
    torch.testing.assert_close(path.sigma(t.float()).double(), path.sigma(t), rtol=1e-4, atol=0)


def test_noised_is_per_sample():
    x0, noise = torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 2.0)
    xt = Linear().noised(x0, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert xt[:, 0, 0, 0].tolist() == [1.0, 1.25, 2.0]


@pytest.mark.parametrize(
    "make",
    [lambda: LinearBeta(beta_min=0), lambda: LinearBeta(3.0, 2.0), lambda: DDPM(steps=1), lambda: DDPM(beta_end=1.5)],
)
def test_bad_options_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()

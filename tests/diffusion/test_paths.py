"""Paths: ends, derivatives, inverses, and the published discrete schedule."""

import math

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
@pytest.mark.parametrize("value", ["alpha", "sigma", "d_alpha", "d_sigma"])
def test_float32_keeps_its_digits_near_the_ends(path, value: str):
    """Small sigma near the data, small alpha near the noise: relative to the same float32 time in doubles."""
    t = torch.tensor([1e-6, 1e-4, 1e-3, 0.999, 0.9999, 1 - 2**-20, 1 - 2**-23, 1.0])
    given, exact = getattr(path, value)(t), getattr(path, value)(t.double())
    assert given.dtype == torch.float32
    torch.testing.assert_close(given.double(), exact, rtol=2e-6, atol=0)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_log_snr_is_infinite_only_where_it_is(path):
    at = path.log_snr(torch.tensor([0.0, 0.5, 1.0]))
    assert at[0] == math.inf and at[1].isfinite()
    assert (at[2] == -math.inf) == path.reaches_noise
    assert path.time_at(torch.tensor([-60.0, 60.0]))[0] == 1, "beyond the path it is its end"
    assert path.time_at(torch.tensor([60.0]))[0] < 1e-6


def test_cosine_begins_where_it_says():
    for low in (-7.5, -3.0, -40.0):
        one = torch.ones(1, dtype=torch.float64)
        torch.testing.assert_close(Cosine(low).log_snr(one), low * one, rtol=1e-12, atol=0)


def test_noised_is_per_sample():
    x0, noise = torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 2.0)
    xt = Linear().noised(x0, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert xt[:, 0, 0, 0].tolist() == [1.0, 1.25, 2.0]


@pytest.mark.parametrize(
    "make",
    [
        *(lambda b=b: LinearBeta(*b) for b in ((0.0, 20.0), (3.0, 2.0), (0.1, math.inf), (math.nan, 20.0))),
        *(lambda v=v: Cosine(min_log_snr=v) for v in (math.nan, -math.inf, 0.0, 3.0, -800.0)),
        *(lambda b=b: DDPM(beta_end=b) for b in (1.5, math.nan, 1e-5)),
        lambda: DDPM(steps=1),
    ],
)
def test_bad_options_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()

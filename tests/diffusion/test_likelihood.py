"""The likelihood under the flow, of data whose density is known."""

import math

import pytest
import torch

from anydit.diffusion.likelihood import bits_per_dimension, log_likelihood
from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta, Path
from tests.diffusion.analytic import Correlated, Gaussian, Mixture

PATHS = [Linear(), Cosine(), LinearBeta(), DDPM()]
BETWEEN = torch.tensor([-1.05, -0.9, -0.5, 0.3, 0.6, 1.0], dtype=torch.float64).reshape(6, 1, 1)
"""At the parts of the mixture, between them and beside them."""

X0 = 0.7 + 0.4 * torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made_by_the_flow(problem: Gaussian, path: Path) -> torch.distributions.Normal:
    """What the flow makes of pure noise of deviation sigma(1): near the data, as alpha(1) need not be 0."""
    one, zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
    middle, side = (problem.flow(x, 1.0, 0.0) for x in (zero, path.sigma(one.flatten()).reshape(1, 1, 1)))
    return torch.distributions.Normal(middle.squeeze(), (side - middle).squeeze())


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_of_a_gaussian(path):
    problem = Gaussian(path)
    exact = made_by_the_flow(problem, path).log_prob(X0).flatten(1).sum(1)
    nats = log_likelihood(problem, path, X0, {}, steps=100, probes=None)
    torch.testing.assert_close(nats, exact, rtol=0, atol=3e-3)
    data = torch.distributions.Normal(problem.mean, problem.std).log_prob(X0).flatten(1).sum(1)
    torch.testing.assert_close(nats, data, rtol=0, atol=2e-2)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_of_a_mixture(path):
    """A nonlinear flow; in float32 too."""
    problem, x = Mixture(path), BETWEEN
    for dtype in (torch.float64, torch.float32):
        nats = log_likelihood(problem, path, x.to(dtype), {}, steps=100, probes=None)
        assert nats.dtype == dtype
        torch.testing.assert_close(nats.double(), problem.log_density(x), rtol=0, atol=1e-2)


def test_converges_with_order_two():
    problem, x = Mixture(Linear()), BETWEEN
    error = [
        (log_likelihood(problem, Linear(), x, {}, steps=n, probes=None) - problem.log_density(x)).abs().max().item()
        for n in (100, 200)
    ]
    assert math.log2(error[0] / error[1]) == pytest.approx(2, abs=0.3)


def test_random_probes_are_right_on_average():
    """Where values depend on each other one probe errs, the more of them the less, and not to one side."""
    problem, x = Correlated(Linear()), X0[:1].expand(256, 1, 3)
    exact = log_likelihood(problem, Linear(), X0[:1], {}, steps=30, probes=None)
    torch.testing.assert_close(exact, problem.log_density(X0[:1]), rtol=0, atol=5e-2)
    one, four = (log_likelihood(problem, Linear(), x, {}, steps=30, probes=n) - exact for n in (1, 4))
    assert one.std() > 0.1, "a probe that is always right would show nothing"
    assert one.mean().abs() < 4 * one.std() / 16 and four.mean().abs() < 4 * four.std() / 16
    assert (four.std() / one.std()).item() == pytest.approx(0.5, abs=0.12)
    again = log_likelihood(problem, Linear(), x, {}, steps=30, probes=1)
    assert torch.equal(one, again - exact), "the probes are drawn by seed"
    other = log_likelihood(problem, Linear(), x, {}, steps=30, probes=1, seed=1)
    assert not torch.equal(other, again)


def test_one_probe_of_signs_is_exact_where_values_are_independent():
    exact, one = (log_likelihood(Gaussian(Cosine()), Cosine(), X0, {}, steps=20, probes=n) for n in (None, 1))
    torch.testing.assert_close(one, exact, rtol=1e-9, atol=1e-9)


def test_bits_per_dimension_of_a_uniform_byte():
    """Density 1/256 over 8-bit values, seen by the network on [-1, 1], is 8 bits."""
    scale = 127.5
    nats = torch.full((2,), 6 * (math.log(1 / 256) + math.log(scale)))
    torch.testing.assert_close(bits_per_dimension(nats, (2, 3), math.log(scale), 1.0), torch.full((2,), 8.0))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"probes": 0}, {"first_time": 0.0}, {"first_time": 1.0}, {"first_time": math.nan}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got"):
        log_likelihood(Gaussian(Linear()), Linear(), X0, {}, **options)

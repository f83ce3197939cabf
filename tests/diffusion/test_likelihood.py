"""The likelihood of a Gaussian is known."""

import math

import pytest
import torch

from anydit.diffusion.likelihood import bits_per_dimension, log_likelihood
from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta
from tests.diffusion.analytic import Gaussian

X0 = 0.7 + 0.4 * torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def exact(problem: Gaussian) -> torch.Tensor:
    normal = torch.distributions.Normal(torch.tensor(problem.mean).double(), torch.tensor(problem.std).double())
    return normal.log_prob(X0).flatten(1).sum(1)


@pytest.mark.parametrize("path", [Linear(), Cosine(), LinearBeta(), DDPM()], ids=str)
def test_of_a_gaussian(path):
    """LinearBeta and DDPM end with a trace of the data left, which the standard normal prior cannot know."""
    problem = Gaussian(path)
    nats = log_likelihood(problem, path, X0, {}, steps=200, probes=None)
    torch.testing.assert_close(nats, exact(problem), rtol=0, atol=2e-2)


def test_random_probes_are_right_on_average():
    problem = Gaussian(Linear())
    nats = log_likelihood(problem, Linear(), X0, {}, steps=60, probes=4)
    torch.testing.assert_close(nats, exact(problem), rtol=0, atol=0.1)
    again = log_likelihood(problem, Linear(), X0, {}, steps=60, probes=4)
    assert torch.equal(nats, again), "the probes are drawn by seed"


def test_bits_per_dimension_of_a_uniform_byte():
    """Density 1/256 over 8-bit values, seen by the network on [-1, 1], is 8 bits."""
    scale = 127.5
    nats = torch.full((2,), 6 * (math.log(1 / 256) + math.log(scale)))
    torch.testing.assert_close(bits_per_dimension(nats, (2, 3), math.log(scale), 1.0), torch.full((2,), 8.0))


@pytest.mark.parametrize("options", [{"steps": 0}, {"probes": 0}, {"first_time": 0.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        log_likelihood(Gaussian(Linear()), Linear(), X0, {}, **options)

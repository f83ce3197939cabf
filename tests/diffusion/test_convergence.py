"""Every sampler against closed forms: exact flows and moments, and how fast they are approached."""

import math

import jaxtyping
import pytest
import torch

from anydit.diffusion.multistep import DPMSolverPP, UniPC
from anydit.diffusion.samplers import Euler, Heun
from anydit.diffusion.times import Even, LogSNR
from anydit.tensors import Stream
from tests.diffusion.analytic import Correlated, Gaussian, Mixture
from tests.diffusion.sampling import DETERMINISTIC, FIRST_ORDER, PATHS, STOCHASTIC, in_log_snr, name, run, start


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are those of test_samplers.py, where they are checked; to check them takes as long as these many steps."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize(
    ("sampler", "order", "inner"),
    [
        *((Euler(), 1, 1), (Heun(), 2, 2), (DPMSolverPP(2), 2, 2), (DPMSolverPP(3), 2, 2)),
        *((UniPC(1), 2, 2), (UniPC(2), 2, 3), (UniPC(3), 2, 4)),
    ],
    ids=name,
)
def test_order_of_convergence(path, sampler, order: int, inner: int):
    """Halving the steps in log SNR divides the distance to a mixture's exact flow by 2**order.

    Multistep samplers begin, and UniPC ends, with a step of order one, whose error of order two hides what the steps
    between do: UniPC's corrector gains an order (Zhao 2023). With short first and last steps that shows, as `inner`.
    """
    problem, xt, ends = Mixture(path), 0.8 * start(32), in_log_snr(path, -1.0, 1.2, 1).tolist()
    exact = problem.flow(xt, *ends)
    for fine_ends, expected in ((False, order), (True, inner)):
        error = []
        for steps in (48, 96):
            reached = run(sampler, problem, path, xt, in_log_snr(path, -1.0, 1.2, steps, fine_ends))
            error.append((reached - exact).abs().mean().item())
        assert math.log2(error[0] / error[1]) == pytest.approx(expected, abs=0.3)
        assert error[1] < {1: 4e-3, 2: 1e-4, 3: 3e-6, 4: 2e-7}[expected]


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=name)
def test_follows_the_exact_flow_from_noise_to_data(path, sampler):
    """Pathwise, from t = 1 to t = 0, ends included: of a Gaussian in equal steps of time."""
    problem, xt = Gaussian(path), start()
    reached = run(sampler, problem, path, xt, Even().times(path, 100).double())
    error = (reached - problem.flow(xt, 1.0, 0.0)).abs().max()
    assert error < (5e-2 if sampler in FIRST_ORDER else 2e-2 if sampler == UniPC(1) else 1e-2)


def moments(sampler, problem: Correlated, path, times):
    """The exact mean and covariance of what a sampler makes.

    For Gaussian data every step is affine in the sample and the noise, so a batch whose rows each hold one unit of
    the start or of one step's noise, and a row of none, is all there is to know.
    """
    mean, factor = problem.moments(float(times[0]))
    rows = 1 + 3 * len(times)
    xt = mean.expand(rows, 3).clone()
    xt[1:4] += factor.T

    def noise(i: int):
        out = torch.zeros(rows, 1, 3, dtype=torch.float64)
        out[4 + 3 * i : 7 + 3 * i, 0] = torch.eye(3)
        return out

    x = run(sampler, problem, path, xt[:, None], times, noise)[:, 0]
    return x[0], (x[1:] - x[0]).T @ (x[1:] - x[0])


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC], ids=name)
def test_reaches_the_mean_and_covariance_of_the_data(path, sampler):
    """To rounding the mean; the covariance with an error of the sampler's order, without sampling error."""
    problem, error = Correlated(path), []
    for steps in (40, 80):
        times = in_log_snr(path, -4.0, 3.0, steps)
        mean, covariance = moments(sampler, problem, path, times)
        exact, factor = problem.moments(float(times[-1]))
        torch.testing.assert_close(mean, exact, rtol=0, atol=1e-12)
        error.append((covariance - factor @ factor.T).abs().max().item())
    assert math.log2(error[0] / error[1]) > (0.8 if sampler in FIRST_ORDER else 1.75)
    assert error[1] < (0.15 if sampler in FIRST_ORDER else 1e-2)
    mean, covariance = moments(sampler, problem, path, LogSNR(low=-4.0, high=5.0).times(path, 81).double())
    assert covariance.isfinite().all(), "and to t = 0"
    assert (covariance - problem.moments(0.0)[1] @ problem.moments(0.0)[1].T).abs().max() < error[1] * 2 + 1e-3


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("sampler", [*STOCHASTIC, Heun(), DPMSolverPP(2)], ids=name)
def test_reaches_a_mixture(path, sampler):
    """Mean, deviation and the weights of both parts, within four standard errors and the steps' error."""
    problem, stream, places = Mixture(path), Stream(0, "test"), torch.arange(1000)
    xt = stream.normal(0, places, (1, 2)).double() * float(path.sigma(torch.ones(1)))
    times = LogSNR(low=-4.5, high=5.0).times(path, 80).double()
    x = run(sampler, problem, path, xt, times, lambda i: stream.normal(i + 1, places, (1, 2)).double())
    (m1, m2), (s1, s2), (w1, w2) = problem.means, problem.stds, problem.weights
    mean = w1 * m1 + w2 * m2
    variance = w1 * (s1**2 + m1**2) + w2 * (s2**2 + m2**2) - mean**2
    error = 4 / math.sqrt(x.numel())
    assert x.mean().item() == pytest.approx(mean, abs=error * math.sqrt(variance) + 0.02)
    assert x.std().item() == pytest.approx(math.sqrt(variance), rel=error + 0.03)
    assert (x < -0.4).double().mean().item() == pytest.approx(w1, abs=error * math.sqrt(w1 * w2) + 0.02)
    assert x[x > -0.4].std().item() == pytest.approx(s2, rel=0.1)

"""Every sampler against closed forms: the exact flow of a Gaussian, the moments and weights of a mixture."""

import math

import pytest
import torch

from anydit.diffusion import paths
from anydit.diffusion.multistep import SDE, DPMSolverPP, UniPC
from anydit.diffusion.paths import Cosine, Linear, LinearBeta
from anydit.diffusion.posterior import posterior
from anydit.diffusion.samplers import DDIM, DDPM, Euler, Heun, Large, Small
from anydit.diffusion.times import Even, LogSNR
from anydit.tensors import Denoised, Stream
from tests.diffusion.analytic import Arbitrary, Gaussian, Mixture

PATHS = [Linear(), Cosine(), LinearBeta(), paths.DDPM()]
DETERMINISTIC = [Euler(), DDIM(), Heun(), *(kind(n) for kind in (DPMSolverPP, UniPC) for n in (1, 2, 3)), SDE(eta=0.0)]
STOCHASTIC = [DDPM(), DDPM(variance=Large()), DDIM(eta=1.0), DDIM(eta=0.5), SDE(), SDE(eta=0.5), SDE(order=1)]


def name(value: object) -> str:
    return str(value).replace("(", "[").replace(")", "]")


def run(sampler, denoiser, path, xt, times, noise=None):
    steps = list(sampler.run(denoiser, path, xt, times, {}, noise or (lambda i: torch.full_like(xt, math.nan))))
    assert [s.index for s in steps] == list(range(len(times) - 1))
    assert all(s.steps == len(times) - 1 for s in steps)
    assert [s.t for s in steps] == pytest.approx(times[1:].tolist())
    return steps[-1].xt


def in_log_snr(path, low: float, high: float, steps: int):
    return path.time_at(torch.linspace(low, high, steps + 1, dtype=torch.float64))


def start(path, n=64):
    return torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        *((Euler(), 1), (DDIM(), 1), (DPMSolverPP(1), 1), (Heun(), 2), (DPMSolverPP(2), 2), (SDE(eta=0.0), 2)),
        *((DPMSolverPP(3), 3), (UniPC(1), 2), (UniPC(2), 3), (UniPC(3), 4)),
    ],
    ids=name,
)
def test_order_of_convergence(path, sampler, order: int):
    """Halving the steps in log SNR divides the error by 2**order; UniPC's corrector gains one order (Zhao 2023)."""
    problem = Mixture(path)
    xt = start(path) * 0.8

    def at(steps: int):
        return run(sampler, problem, path, xt, in_log_snr(path, -1.0, 1.2, steps))

    exact = run(UniPC(3), problem, path, xt, in_log_snr(path, -1.0, 1.2, 400))
    coarse, fine = ((at(n) - exact).abs().mean().item() for n in (24, 48))
    # Multistep samplers begin with a step of order one, whose one error of order two bounds what halving can gain.
    assert math.log2(coarse / fine) > min(order, 2) - 0.35
    assert fine < {1: 5e-2, 2: 5e-3, 3: 2e-3, 4: 2e-3}[order]


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=name)
def test_follows_the_exact_flow_of_a_gaussian(path, sampler):
    """Pathwise, from t = 1 to t = 0, ends included."""
    problem, xt = Gaussian(path), start(path)
    reached = run(sampler, problem, path, xt, LogSNR(low=-4.0, high=5.0).times(path, 150).double())
    first = float(LogSNR(low=-4.0, high=5.0).times(path, 150)[0])
    exact = problem.flow(xt, first, 0.0)
    assert (reached - exact).abs().max() < (2e-2 if sampler in (Euler(), DDIM(), DPMSolverPP(1)) else 4e-3)
    whole = run(sampler, problem, path, xt, Even().times(path, 250).double())
    assert whole.isfinite().all()
    assert (whole - problem.flow(xt, 1.0, 0.0)).abs().max() < 3e-2


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


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_learned_variance_lies_between_the_bounds(path):
    class Learned:
        def __init__(self, fraction: float) -> None:
            self.fraction = fraction

        def denoise(self, xt, t, cond):
            return Denoised(torch.zeros_like(xt), torch.full_like(xt, self.fraction))

    xt, times = torch.zeros(1, 1, 2, dtype=torch.float64), torch.tensor([0.6, 0.5], dtype=torch.float64)
    one = lambda i: torch.ones_like(xt)  # noqa: E731
    q = posterior(path, times[:1], times[1:])
    low, middle, high = (run(DDPM(), Learned(f), path, xt, times, one)[0, 0, 0].item() for f in (0.0, 0.5, 1.0))
    assert low == pytest.approx(math.sqrt(q.lower.item()))
    assert high == pytest.approx(math.sqrt(q.upper.item()))
    assert middle == pytest.approx((q.lower.item() * q.upper.item()) ** 0.25)
    fixed = [
        run(DDPM(variance=v), Gaussian(path, 0.0, 1e-9), path, xt, times, one)[0, 0, 0].item()
        for v in (Small(), Large())
    ]
    assert fixed == pytest.approx([low, high])


def test_clip_bounds_the_estimate():
    class Wild:
        def denoise(self, xt, t, cond):
            return Denoised(torch.full_like(xt, 9.0))

    times = torch.tensor([0.5, 0.0])
    for sampler in (DDPM(clip=(-1, 1)), DDIM(clip=(-1, 1))):
        assert run(sampler, Wild(), Linear(), torch.zeros(1, 1, 2), times).max() == 1


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC], ids=name)
def test_calls_are_counted_right_and_nothing_runs_unasked(sampler):
    class Counting(Arbitrary):
        calls = 0

        def denoise(self, xt, t, cond):
            Counting.calls += 1
            assert t.shape == (len(xt),) and (t > 0).all(), "a denoiser is never asked at t = 0"
            return super().denoise(xt, t, cond)

    xt = torch.zeros(2, 1, 3)
    steps = sampler.run(Counting(), Linear(), xt, Even().times(Linear(), 6), {}, lambda i: torch.zeros_like(xt))
    assert Counting.calls == 0
    next(steps)
    assert Counting.calls == (2 if sampler == Heun() else 1)
    list(steps)
    assert Counting.calls == sampler.calls(6)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC], ids=name)
@pytest.mark.parametrize("path", PATHS, ids=name)
def test_in_float32_with_few_steps_everything_stays_finite(path, sampler):
    xt = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    for steps in (1, 2, 3, 5):
        x = run(sampler, Arbitrary(), path, xt, Even().times(path, steps), lambda i: torch.ones_like(xt))
        assert x.dtype == torch.float32 and x.isfinite().all() and x.abs().max() < 10


def test_euler_on_the_linear_path_is_a_velocity_step():
    xt, times = torch.tensor([[[0.3]]], dtype=torch.float64), torch.tensor([0.8, 0.5], dtype=torch.float64)
    x0 = Arbitrary().denoise(xt, times[:1], {}).x0
    velocity = (xt - x0) / 0.8
    torch.testing.assert_close(run(Euler(), Arbitrary(), Linear(), xt, times), xt - 0.3 * velocity)


@pytest.mark.parametrize("times", [[0.5, 0.5], [0.2, 0.4], [1.1, 0.0], [0.5, -0.1], [0.5]])
def test_times_that_do_not_fall_are_refused(times):
    with pytest.raises(ValueError, match="times: got"):
        list(
            Euler().run(Arbitrary(), Linear(), torch.zeros(1, 1, 1), torch.tensor(times), {}, lambda i: torch.zeros(1))
        )


@pytest.mark.parametrize(
    "make", [lambda: DPMSolverPP(4), lambda: UniPC(0), lambda: DDIM(eta=2.0), lambda: SDE(eta=-1.0)]
)
def test_bad_options_are_refused(make):
    with pytest.raises(ValueError, match=r"order: got|eta: got"):
        make()

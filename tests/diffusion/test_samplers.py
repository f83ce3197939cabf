"""Samplers beside each other, beside the published equations, and at their limits."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from anydit.diffusion import paths
from anydit.diffusion.multistep import SDE, DPMSolverPP, UniPC
from anydit.diffusion.paths import Linear
from anydit.diffusion.posterior import posterior
from anydit.diffusion.predictions import Noise
from anydit.diffusion.samplers import DDIM, DDPM, Euler, Heun, Large, Small
from anydit.diffusion.times import Even, Respaced
from anydit.tensors import Denoised, Stream
from tests.diffusion.analytic import Arbitrary, Gaussian
from tests.diffusion.sampling import DETERMINISTIC, PATHS, STOCHASTIC, name, run, start


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


@pytest.mark.parametrize("times", [[0.5, 0.5], [0.2, 0.4], [1.1, 0.0], [0.5, -0.1], [0.5], [0.5, math.nan]])
def test_times_that_do_not_fall_are_refused(times):
    with pytest.raises(ValueError, match="times: got"):
        list(
            Euler().run(Arbitrary(), Linear(), torch.zeros(1, 1, 1), torch.tensor(times), {}, lambda i: torch.zeros(1))
        )


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("make", "field"),
    [
        *((lambda: DPMSolverPP(4), "order"), (lambda: UniPC(0), "order"), (lambda: SDE(order=3), "order")),
        *((lambda v=v: DDIM(eta=v), "eta") for v in (2.0, -0.1, NAN)),
        *((lambda v=v: SDE(eta=v), "eta") for v in (-1.0, NAN, INF)),
        *((lambda k=k, v=v: k(clip=v), "clip") for k in (DDPM, DDIM) for v in ((1.0, -1.0), (0.0, 0.0), (NAN, 1.0))),
    ],
)
def test_bad_options_are_refused(make, field: str):
    with pytest.raises(ValueError, match=f"{field}: got"):
        make()


@pytest.mark.parametrize("path", PATHS, ids=name)
@pytest.mark.parametrize(
    "same",
    [
        [Euler(), DDIM(), DPMSolverPP(1), SDE(eta=0.0, order=1)],
        [DPMSolverPP(2), SDE(eta=0.0)],
        [DDPM(), DDIM(eta=1.0), SDE(order=1)],
    ],
    ids=["first order", "second order", "ancestral"],
)
def test_the_same_equation_written_differently(path, same):
    """Steps of the ODE, and of the SDE, of one order are one each, from pure noise to the data on any path."""
    xt, stream = start(4), Stream(0, "test")
    noise = lambda i: stream.normal(i, torch.arange(4), (1, 2)).double()  # noqa: E731
    first, *others = (run(s, Arbitrary(), path, xt, Even().times(path, 7).double(), noise) for s in same)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [DPMSolverPP(2), DPMSolverPP(3), UniPC(2), UniPC(3), SDE(eta=0.0)], ids=name)
def test_the_first_step_from_pure_noise_is_a_velocity_step(sampler):
    """At t = 1 of the linear path log(alpha / sigma) is minus infinity; the step is Euler's all the same."""
    times = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
    first, euler = (next(s.run(Arbitrary(), Linear(), start(), times, {}, lambda i: None)) for s in (sampler, Euler()))
    torch.testing.assert_close(first.xt, euler.xt)


@pytest.mark.parametrize("sampler", [Euler(), Heun(), DDIM(eta=0.5), DDPM()], ids=name)
def test_a_run_may_be_taken_in_parts(sampler):
    """Samplers of one step have no memory: to the middle and on from there is the same as at once."""
    times, xt = Even().times(Linear(), 6).double(), start(4)
    part = partial(run, sampler, Arbitrary(), Linear())
    noise = lambda i: torch.full_like(xt, 0.1 * i)  # noqa: E731
    middle = part(xt, times[:4], noise)
    torch.testing.assert_close(part(middle, times[3:], lambda i: noise(i + 3)), part(xt, times, noise))


def published(xt, steps: int, noise, model, clip: bool):
    """Learned-variance DDPM as published, in NumPy: betas of the kept steps (Nichol & Dhariwal 2021, eq. 9-15, 19)."""
    kept, place, total = [], 0.0, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for _ in range(steps):
        kept.append(round(place))
        place += 999 / (steps - 1)
    bar = total[kept]
    bar_before = np.concatenate([[1.0], bar[:-1]])
    beta = 1 - bar / bar_before
    beta_tilde = beta * (1 - bar_before) / (1 - bar)
    for k in reversed(range(steps)):
        eps, v = model(xt, kept[k])
        x0 = np.sqrt(1 / bar[k]) * xt - np.sqrt(1 / bar[k] - 1) * eps
        x0 = np.clip(x0, -1, 1) if clip else x0
        mean = np.sqrt(bar_before[k]) * beta[k] / (1 - bar[k]) * x0
        mean = mean + np.sqrt(1 - beta[k]) * (1 - bar_before[k]) / (1 - bar[k]) * xt
        log_variance = (v + 1) / 2 * np.log(beta[k]) + (1 - v) / 2 * np.log(beta_tilde[max(k, 1)])
        xt = mean + (np.exp(0.5 * log_variance) * noise(steps - 1 - k) if k else 0)
    return xt


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [21, 50])
def test_learned_variance_as_published(steps: int, clip: bool):
    path, stream = paths.DDPM(), Stream(3, "published")

    def model(xt: np.ndarray, index: int):
        return np.sin(1.3 * xt + index / 300), np.cos(xt - index / 500)

    class Network:
        def denoise(self, xt, t, cond):
            index = round(float(t[0]) * 1000) - 1
            eps, v = (torch.from_numpy(out) for out in model(xt.numpy(), index))
            return Denoised(Noise().x0(path, xt, eps, torch.full_like(t, (index + 1) / 1000)), (v + 1) / 2)

    noise = lambda i: stream.normal(i, torch.arange(64), (1, 2)).double()  # noqa: E731
    sampler = DDPM(clip=(-1.0, 1.0) if clip else None)
    ours = run(sampler, Network(), path, start(), Respaced().times(path, steps), noise)
    theirs = published(start().numpy(), steps, lambda i: noise(i).numpy(), model, clip)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)

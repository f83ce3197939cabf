"""What corrections make of a denoiser, beside the exact answer where the data are normal."""

import deepinv
import pytest
import torch
from torch import Tensor

from anydit.codecs.normalize import Normalizer
from anydit.diffusion.paths import Cosine, Linear, Path
from anydit.diffusion.samplers import Heun, Renoise
from anydit.inverse.corrections import (
    DAPS,
    DPS,
    Corrected,
    MomentMatching,
    PiGDM,
    Proximal,
    Setting,
    stretch,
)
from anydit.inverse.measurement import checked
from anydit.inverse.residuals import conjugate_residuals
from anydit.tensors import Denoised

SIDE = 6
N = SIDE * SIDE
WHITE, SMOOTH = 0.0, 2.0


def covariance(width: float) -> Tensor:
    """Of pixels, by their distance; white for a width of 0."""
    at = torch.cartesian_prod(*[torch.arange(float(SIDE))] * 2)
    away = torch.cdist(at, at)
    return torch.eye(N) if width == 0 else torch.exp(-away / width)


class Normal:
    """The exact denoiser of data that are normal about 0; latents are the data halved."""

    def __init__(self, path: Path, c: Tensor) -> None:
        self.path, self.c = path, c

    def gain(self, t: Tensor) -> Tensor:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        return alpha * self.c @ torch.linalg.inv(alpha**2 * self.c + sigma**2 * torch.eye(N))

    def denoise(self, xt, t, cond):
        return Denoised((xt.flatten(1) @ self.gain(t[:1]).T).view_as(xt))

    def posterior(self, xt: Tensor, t: Tensor, a: Tensor, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Mean and covariance of latents given xt and y = a x + noise."""
        gain = self.gain(t[:1])
        mean, spread = xt.flatten(1) @ gain.T, self.c - gain @ (self.path.alpha(t[:1]) * self.c)
        k = spread @ a.T @ torch.linalg.inv(a @ spread @ a.T + sigma**2 * torch.eye(len(a)))
        return mean + (y - mean @ a.T) @ k.T, spread - k @ a @ spread


def inpainting() -> deepinv.physics.LinearPhysics:
    mask = (torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    return deepinv.physics.Inpainting((1, SIDE, SIDE), mask)


def sensing() -> deepinv.physics.LinearPhysics:
    rng = torch.Generator().manual_seed(2)
    return deepinv.physics.CompressedSensing(m=12, img_size=(1, SIDE, SIDE), rng=rng)


def matrix(physics: deepinv.physics.LinearPhysics) -> Tensor:
    return physics.A(torch.eye(N).view(N, 1, SIDE, SIDE)).flatten(1).T


def setting(path: Path, physics: deepinv.physics.LinearPhysics, b: int, sigma: float = 0.2) -> Setting:
    codec = Normalizer((0.5,), (2.0,))
    y = physics.A(torch.randn(b, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3)))
    measured = checked(y, physics, sigma, (1, SIDE, SIDE), None)
    return Setting(path, codec, measured, stretch(codec, None, (1, SIDE, SIDE), torch.device("cpu")), torch.arange(b))


def exact(normal: Normal, at: Setting, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    a = matrix(at.measured.physics)
    y = at.measured.y.flatten(1) - at.measured.physics.A(torch.full_like(xt[:1], 0.5)).flatten(1)
    return normal.posterior(xt, t, 2 * a, y, at.measured.sigma)


@pytest.mark.parametrize("path", [Linear(), Cosine()])
@pytest.mark.parametrize("physics", [inpainting(), sensing()])
@pytest.mark.parametrize(
    ("how", "width"),
    [(Proximal(spread=1), WHITE), (PiGDM(), WHITE), (MomentMatching(40), WHITE), (MomentMatching(40), SMOOTH)],
)
def test_the_mean_of_normal_data_is_exact(path, physics, how, width):
    normal, at = Normal(path, covariance(width)), setting(path, physics, 3)
    xt, t = torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(4)), torch.full((3,), 0.6)
    with torch.inference_mode():
        got = Corrected(normal, how, at).denoise(xt.clone(), t.clone(), {}).x0
    torch.testing.assert_close(got.flatten(1), exact(normal, at, xt, t)[0], atol=2e-3, rtol=2e-3)


def test_dps_is_exact_for_white_data_and_rows_that_are_orthonormal():
    normal, at = Normal(Linear(), covariance(WHITE)), setting(Linear(), inpainting(), 3)
    xt, t = torch.randn(3, 1, SIDE, SIDE), torch.full((3,), 0.6)
    got = Corrected(normal, DPS(), at).denoise(xt, t, {}).x0
    torch.testing.assert_close(got.flatten(1), exact(normal, at, xt, t)[0], atol=1e-4, rtol=1e-4)


def test_times_differ_within_a_batch():
    normal, at = Normal(Linear(), covariance(WHITE)), setting(Linear(), inpainting(), 2)
    xt, t = torch.randn(2, 1, SIDE, SIDE), torch.tensor([0.3, 0.95])

    class Each(Normal):
        def denoise(self, xt, t, cond):
            return Denoised(torch.cat([normal.denoise(x[None], s[None], cond).x0 for x, s in zip(xt, t, strict=True)]))

    for how in (Proximal(spread=1), PiGDM(), DPS(), MomentMatching(40)):
        got = Corrected(Each(Linear(), normal.c), how, at).denoise(xt, t, {}).x0
        expected = torch.stack([exact(normal, at, xt, t[i : i + 1])[0][i] for i in range(2)])
        torch.testing.assert_close(got.flatten(1), expected, atol=2e-3, rtol=2e-3)


def test_daps_draws_from_the_posterior_of_white_data():
    b = 4000
    normal, at = Normal(Linear(), covariance(WHITE)), setting(Linear(), inpainting(), 1)
    measured = at.measured.rows(torch.zeros(b, dtype=torch.long))
    many = Setting(at.path, at.codec, measured, at.stretch, torch.arange(b))
    xt, t = torch.randn(1, 1, SIDE, SIDE), torch.full((1,), 0.6)
    draws = Corrected(normal, DAPS(spread=1), many).denoise(xt.expand(b, -1, -1, -1), t.expand(b), {}).x0.flatten(1)
    mean, cov = exact(normal, at, xt, t)
    torch.testing.assert_close(draws.mean(0), mean[0], atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), cov.diagonal(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("how", "width"), [(MomentMatching(20), SMOOTH), (DAPS(spread=1), WHITE)])
def test_samples_are_those_of_the_posterior(how, width):
    """From noise to data: mean and covariance are the exact ones given the measurement alone."""
    b, path = 3000, Linear()
    normal, at = Normal(path, covariance(width)), setting(path, inpainting(), 1)
    many = Setting(path, at.codec, at.measured.rows(torch.zeros(b, dtype=torch.long)), at.stretch, torch.arange(b))
    sampler, noise = Renoise() if how.decoupled else Heun(), torch.Generator().manual_seed(5)
    xt = torch.randn(b, 1, SIDE, SIDE, generator=noise)
    steps = sampler.run(
        Corrected(normal, how, many), path, xt, torch.linspace(1, 0, 21), {},
        lambda i: torch.randn(b, 1, SIDE, SIDE, generator=noise),
    )  # fmt: skip
    x = [step.xt for step in steps][-1].flatten(1)
    mean, cov = exact(normal, at, torch.zeros(1, 1, SIDE, SIDE), torch.ones(1))
    torch.testing.assert_close(x.mean(0), mean[0], atol=0.08, rtol=0)
    torch.testing.assert_close(x.var(0), cov.diagonal(), atol=0.08, rtol=0.1)


@pytest.mark.parametrize("how", [Proximal, DAPS])
def test_the_less_the_denoiser_leaves_unknown_the_less_a_measurement_moves_it(how):
    normal, at = Normal(Linear(), covariance(WHITE)), setting(Linear(), inpainting(), 3)
    xt, t = torch.randn(3, 1, SIDE, SIDE), torch.full((3,), 0.6)
    plain = normal.denoise(xt, t, {}).x0
    moved = [
        (Corrected(normal, how(spread=spread), at).denoise(xt, t, {}).x0 - plain).square().mean()
        for spread in (1e-4, 0.2, 1.0)
    ]
    assert moved[0] < 0.05 * moved[1] < 0.05 * moved[2]
    with pytest.raises(ValueError, match="spread"):
        how(spread=0.0)


def test_each_iteration_explains_more_and_comes_nearer():
    """Of data that hardly change from place to place, with hardly any noise: conjugate gradients explain less at first.

    Their first leaves two of these three further from what was measured than they were.
    """
    normal, at = Normal(Linear(), covariance(6.0)), setting(Linear(), inpainting(), 3, sigma=0.01)
    xt, t = torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(4)), torch.full((3,), 0.9)
    guess, best = normal.denoise(xt, t, {}).x0, exact(normal, at, xt, t)[0].view_as(xt)
    left, away = at.measured.residual(at.seen(guess)), (guess - best).flatten(1).norm(dim=1)
    for iterations in (1, 2, 3, 6):
        guess = Corrected(normal, MomentMatching(iterations), at).denoise(xt, t, {}).x0
        before, left = left, at.measured.residual(at.seen(guess))
        further, away = away, (guess - best).flatten(1).norm(dim=1)
        assert bool((left < 0.95 * before).all()) and bool((away < further).all())
    assert bool((left < 10).all()), "of hundreds"


@pytest.mark.parametrize("turned", [0.0, 0.3])
def test_no_iteration_leaves_more_than_the_one_before(turned):
    """Even of a matrix that is not symmetric, as a network's covariance is not; moves are three times the answers."""
    rng = torch.Generator().manual_seed(6)
    product = torch.diag(torch.logspace(-3, 0, N)) + turned * torch.triu(torch.randn(N, N, generator=rng), 1)
    b = torch.randn(8, N, generator=rng)
    left = [b.norm(dim=1)]
    for iterations in (1, 2, 3, 10, N):
        moved = conjugate_residuals(lambda v: (v @ product.T, 3 * v), b, torch.ones_like(b), iterations)
        left.append((b - (moved - 1) / 3 @ product.T).norm(dim=1))
        assert bool((left[-1] <= left[-2] + 1e-3).all())
    assert bool((left[1] < left[0]).all()) and bool((left[4] < 0.9 * left[0]).all())


class Bent(Normalizer):
    """A codec that stretches what is far from the mean."""

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z.sinh())

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x).asinh()


def bent(t: Tensor, sigma: float) -> tuple[Setting, Tensor, Tensor]:
    """Measurements of what latents decode to, noised latents, and their exact mean given both, by its integral."""
    path, physics, codec = Linear(), inpainting(), Bent((0.5,), (2.0,))
    z, noise, more = torch.randn(3, 50, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    y = physics.A(codec.decode(z) + sigma * noise)
    scale = stretch(codec, None, (1, SIDE, SIDE), torch.device("cpu"))
    at = Setting(path, codec, checked(y, physics, sigma, (1, SIDE, SIDE), None), scale, torch.arange(50))
    xt = path.noised(z, more, t.expand(50))
    x0 = Normal(path, covariance(WHITE)).denoise(xt, t, {}).x0
    grid = torch.linspace(-8, 8, 4001).view(-1, 1, 1, 1, 1)
    off = (y - codec.decode(grid)) / sigma * physics.A(torch.ones_like(z))
    weight = (-(off**2) / 2 - (grid - x0) ** 2 / (2 * at.spread(t))).softmax(0)
    return at, xt, (weight * grid).sum(0)


@pytest.mark.parametrize("time", [0.2, 0.5, 0.8])
def test_through_a_codec_that_is_not_linear_the_mean_is_nearer(time: float):
    """Than what is known without the measurement, even where that is little; where nothing was measured, it is that."""
    t = torch.tensor([time])
    at, xt, exact = bent(t, 0.5)
    normal = Normal(at.path, covariance(WHITE))
    before = normal.denoise(xt, t, {}).x0
    after = Corrected(normal, MomentMatching(), at).denoise(xt, t.expand(50), {}).x0
    there = at.measured.physics.A(torch.ones_like(xt)) > 0
    assert (after - exact)[there].square().mean() < 0.4 * (before - exact)[there].square().mean()
    torch.testing.assert_close(after[~there], before[~there], atol=1e-4, rtol=0)

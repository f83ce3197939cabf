"""Every prediction on every path: the data comes back from the target, and errors scale as said."""

import pytest
import torch

from anydit.diffusion.denoiser import NetworkDenoiser
from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta
from anydit.diffusion.predictions import X0, Noise, V, Velocity, noise_in, velocity_in

PATHS = [Linear(), Cosine(), LinearBeta(), DDPM()]
PREDICTIONS = [Noise(), X0(), V(), Velocity()]
T = torch.tensor([0.0101, 0.2003, 0.5004, 0.8002, 0.9903], dtype=torch.float64)  # between the knots of DDPM
GENERATOR = torch.Generator().manual_seed(0)
DATA, NOISE = (torch.randn(5, 2, 3, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=str)
def test_the_target_gives_back_the_data(path, prediction):
    xt = path.noised(DATA, NOISE, T)
    target = prediction.target(path, DATA, NOISE, T)
    torch.testing.assert_close(prediction.x0(path, xt, target, T), DATA, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=str)
def test_sensitivity(path, prediction):
    xt = path.noised(DATA, NOISE, T)
    target = prediction.target(path, DATA, NOISE, T)
    moved = prediction.x0(path, xt, target + 1e-3, T) - prediction.x0(path, xt, target, T)
    torch.testing.assert_close(moved.abs()[:, 0, 0] / 1e-3, prediction.sensitivity(path, T), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_at_the_ends(path):
    """At t = 0 x0 comes back, at t = 1 too where the output can tell."""
    t = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    xt = path.noised(DATA, NOISE, t)
    for prediction in (
        X0(),
        V(),
        *([] if path.reaches_noise else [Noise()]),
        *([Velocity()] if path == Linear() else []),
    ):
        target = prediction.target(path, DATA, NOISE, t)
        torch.testing.assert_close(prediction.x0(path, xt, target, t), DATA, rtol=1e-9, atol=1e-9)
        assert prediction.sensitivity(path, t).isfinite().all()


def test_targets_are_the_published_ones():
    path, t = Cosine(), T
    alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
    torch.testing.assert_close(Noise().target(path, DATA, NOISE, t), NOISE)
    torch.testing.assert_close(X0().target(path, DATA, NOISE, t), DATA)
    torch.testing.assert_close(V().target(path, DATA, NOISE, t), alpha * NOISE - sigma * DATA)
    torch.testing.assert_close(Velocity().target(Linear(), DATA, NOISE, t), NOISE - DATA)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_velocity_is_the_derivative_of_the_path(path):
    xt, h = path.noised(DATA, NOISE, T), 1e-7
    moved = (path.noised(DATA, NOISE, T + h) - path.noised(DATA, NOISE, T - h)) / (2 * h)
    torch.testing.assert_close(velocity_in(path, xt, DATA, T), moved, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(noise_in(path, xt, DATA, T), NOISE, rtol=1e-6, atol=1e-6)


def test_denoiser_reads_the_learned_variance():
    path, xt = DDPM(), torch.randn(5, 2, 3)
    raw = torch.cat([torch.zeros_like(xt), torch.linspace(-1, 1, 30).reshape(5, 2, 3)], dim=1)
    plain = NetworkDenoiser(lambda x, t, c: raw[:, :2], path, Noise()).denoise(xt, T.float(), {})
    both = NetworkDenoiser(lambda x, t, c: raw, path, Noise(), learned_variance=True).denoise(xt, T.float(), {})
    assert plain.variance is None and torch.equal(plain.x0, both.x0)
    assert both.variance is not None
    torch.testing.assert_close(both.variance, (raw[:, 2:] + 1) / 2)

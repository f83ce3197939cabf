"""Losses against their definitions: weights as errors of x0, and the bound against the published discrete formulas."""

import math

import pytest
import torch
from torch import Tensor

from anydit.diffusion.losses import EDM, As, MinSNR, Objective, Plain, VariationalBound, bound
from anydit.diffusion.paths import DDPM, Cosine, Linear, LinearBeta
from anydit.diffusion.posterior import posterior
from anydit.diffusion.predictions import X0, Noise, V, Velocity

PATHS = [Linear(), Cosine(), LinearBeta(), DDPM()]
PREDICTIONS = [Noise(), X0(), V(), Velocity()]


def _sample(seed: int = 0, b: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(b, 2, 3, 3, generator=generator) * 2 - 1, torch.randn(b, 2, 3, 3, generator=generator)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
def test_the_right_answer_costs_nothing(path, prediction):
    x0, noise = _sample()
    t = torch.linspace(0.1, 0.9, 6)
    target = prediction.target(path, x0, noise, t)
    loss = Objective(path, prediction).loss(lambda xt, t, cond: target, x0, noise, t, {})
    assert loss.shape == (6,) and loss.max() < 1e-12
    wrong = Objective(path, prediction).loss(lambda xt, t, cond: target + 2, x0, noise, t, {})
    torch.testing.assert_close(wrong, torch.full((6,), 4.0))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("weight", [MinSNR(), EDM(), As(V(), limit=1e9)], ids=lambda w: type(w).__name__)
def test_a_weight_means_the_same_for_every_prediction(path, prediction, weight):
    """An output whose x0 is off by e must cost the same, whatever the output is a prediction of."""
    x0, noise = _sample()
    t = torch.linspace(0.15, 0.9, 6)
    xt = path.noised(x0, noise, t)

    def network_for(kind):
        def network(xt: Tensor, t: Tensor, cond) -> Tensor:
            wrong_x0 = x0 + 0.1
            implied = (xt - path.alpha(t)[:, None, None, None] * wrong_x0) / path.sigma(t)[:, None, None, None]
            return kind.target(path, wrong_x0, implied, t)

        return network

    loss = Objective(path, prediction, weight).loss(network_for(prediction), x0, noise, t, {})
    reference = Objective(path, X0(), weight).loss(network_for(X0()), x0, noise, t, {})
    torch.testing.assert_close(loss, reference, rtol=2e-3, atol=1e-6)
    assert xt.isfinite().all()


def test_min_snr_is_the_published_weight():
    """Hang 2023: min(snr, 5)/snr on the noise's error, min(snr, 5) on x0's, min(snr, 5)/(snr + 1) on v's."""
    path, t = Cosine(), torch.linspace(0.05, 0.95, 9)
    snr = (path.alpha(t) / path.sigma(t)) ** 2
    least = snr.clamp(max=5)
    torch.testing.assert_close(MinSNR().at(path, Noise(), t), least / snr)
    torch.testing.assert_close(MinSNR().at(path, X0(), t), least)
    torch.testing.assert_close(MinSNR().at(path, V(), t), least / (snr + 1))


def test_x0_scored_as_velocity_is_the_velocity_loss():
    path, (x0, noise), t = Linear(), _sample(), torch.linspace(0.1, 0.9, 6)
    guess = x0 + 0.3
    as_velocity = Objective(path, X0(), As(Velocity(), limit=1e9)).loss(lambda *_: guess, x0, noise, t, {})
    time = t[:, None, None, None]
    velocity = (path.noised(x0, noise, t) - guess) / time
    direct = Objective(path, Velocity()).loss(lambda *_: velocity, x0, noise, t, {})
    torch.testing.assert_close(as_velocity, direct, rtol=1e-4, atol=1e-6)


def test_the_limit_bounds_the_weight():
    assert As(Velocity(), limit=400).at(Linear(), X0(), torch.tensor([1e-4]))[0] == 400
    assert EDM(limit=100).at(Linear(), X0(), torch.tensor([1e-4]))[0] == 100


def test_masked_values_do_not_count():
    x0, noise = _sample()
    t, mask = torch.full((6,), 0.5), torch.zeros(6, 3, 3, dtype=torch.bool)
    mask[:, 0] = True
    target = Velocity().target(Linear(), x0, noise, t)
    off = target.clone()
    off[:, :, 1:] += 100
    off[:, :, 0] += 1
    loss = Objective(Linear(), Velocity()).loss(lambda *_: off, x0, noise, t, {"mask": mask})
    torch.testing.assert_close(loss, torch.ones(6))


@pytest.mark.parametrize("index", [1, 2, 10, 500, 999])
def test_posterior_has_the_published_ddpm_coefficients(index: int):
    """Ho 2020, eq. 6 and 7, from betas in doubles."""
    beta = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    product = torch.cumprod(1 - beta, 0)
    before = product[index - 1]
    t = torch.tensor([(index + 1) / 1000], dtype=torch.float64)
    q = posterior(DDPM(), t, t - 1 / 1000)
    expected = {
        "x0_weight": beta[index] * before.sqrt() / (1 - product[index]),
        "xt_weight": (1 - before) * (1 - beta[index]).sqrt() / (1 - product[index]),
        "lower": beta[index] * (1 - before) / (1 - product[index]),
        "upper": beta[index],
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(q, name)[0], value, rtol=1e-9, atol=1e-14)


def _published_bound(x0: Tensor, xt: Tensor, estimate: Tensor, fraction: Tensor, index: int) -> Tensor:
    """Nichol & Dhariwal 2021 as one reads it off the paper, for one discrete index, in doubles."""
    beta = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - beta, 0)
    bar_before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    tilde = beta * (1 - bar_before) / (1 - bar)
    log_tilde = torch.cat([tilde[1:2], tilde[1:]]).log()
    first = beta[index] * bar_before[index].sqrt() / (1 - bar[index])
    second = (1 - bar_before[index]) * (1 - beta[index]).sqrt() / (1 - bar[index])
    mean_q, mean_p = first * x0 + second * xt, first * estimate + second * xt
    log_p = fraction * beta[index].log() + (1 - fraction) * log_tilde[index]
    if index > 0:
        ratio = log_tilde[index] - log_p
        return 0.5 * (-1 - ratio + ratio.exp() + (mean_q - mean_p) ** 2 / log_p.exp()) / math.log(2)
    std = (0.5 * log_p).exp()
    normal = torch.distributions.Normal(mean_p, std)
    up = torch.where(x0 > 0.999, torch.ones_like(x0), normal.cdf(x0 + 1 / 255))
    down = torch.where(x0 < -0.999, torch.zeros_like(x0), normal.cdf(x0 - 1 / 255))
    return -(up - down).clamp(min=1e-12).log() / math.log(2)


@pytest.mark.parametrize("index", [0, 1, 5, 400, 999])
def test_bound_is_the_published_one(index: int):
    x0, noise = _sample()
    x0[0, 0, 0, 0], x0[0, 0, 0, 1] = 1.0, -1.0
    path, t = DDPM(), torch.full((6,), (index + 1) / 1000)
    xt = path.noised(x0, noise, t)
    estimate, fraction = x0 + 0.05 * noise, torch.rand(x0.shape, generator=torch.Generator().manual_seed(1))
    ours = bound(VariationalBound(), path, x0, xt, estimate, fraction, t)
    published = _published_bound(*(v.double() for v in (x0, xt, estimate, fraction)), index)
    torch.testing.assert_close(ours.double(), published, rtol=2e-4, atol=1e-6)


def test_the_bound_trains_only_the_variance():
    x0, noise = _sample()
    t = torch.full((6,), 0.3)
    output = torch.zeros(6, 4, 3, 3, requires_grad=True)
    plain = torch.zeros(6, 2, 3, 3, requires_grad=True)
    Objective(DDPM(), Noise(), Plain(), VariationalBound()).loss(lambda *_: output, x0, noise, t, {}).sum().backward()
    Objective(DDPM(), Noise()).loss(lambda *_: plain, x0, noise, t, {}).sum().backward()
    assert output.grad is not None and plain.grad is not None
    torch.testing.assert_close(output.grad[:, :2], plain.grad)
    assert output.grad[:, 2:].abs().min() > 0


@pytest.mark.parametrize(
    ("make", "field", "values"),
    [
        (MinSNR, "gamma", (0.0, -1.0, math.nan, math.inf)),
        (EDM, "sigma_data", (0.0, -0.5, math.nan, math.inf)),
        (EDM, "limit", (0.0, -1.0, math.nan)),
        (As, "limit", (0.0, -1.0, math.nan)),
        (VariationalBound, "steps", (0, 1, -1000)),
        (VariationalBound, "bin_width", (0.0, -1.0, math.nan)),
    ],
)
def test_options_out_of_range_are_refused(make, field: str, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}: got .*, expected"):
            make(**{field: value})

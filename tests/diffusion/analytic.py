"""Data whose denoiser, density and flow are known in closed form: Gaussians, and a mixture of two."""

from dataclasses import dataclass

import torch
from torch import Tensor

from anydit.diffusion.paths import Path
from anydit.tensors import Cond, Denoised, per_sample

ROTATION = torch.linalg.qr(torch.tensor([[2.0, 1.0, 0.3], [-1.0, 1.5, 0.7], [0.4, -0.8, 1.0]], dtype=torch.float64))[0]


def coefficients(path: Path, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at `t`, in doubles, shaped to broadcast."""
    return per_sample(path.alpha(t.double()), like), per_sample(path.sigma(t.double()), like)


@dataclass(frozen=True)
class Gaussian:
    """Data of one mean and deviation in every value."""

    path: Path
    mean: float = 0.7
    std: float = 0.4

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        alpha, sigma = coefficients(self.path, t, xt)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return Denoised(self.mean + gain * (xt - alpha * self.mean))

    def flow(self, xt: Tensor, t: float, s: float) -> Tensor:
        """Where the probability-flow ODE carries xt from t to s: it keeps each sample's quantile."""
        alpha_t, sigma_t = coefficients(self.path, torch.tensor([t], dtype=torch.float64), xt)
        alpha_s, sigma_s = coefficients(self.path, torch.tensor([s], dtype=torch.float64), xt)
        spread_t, spread_s = ((a**2 * self.std**2 + g**2).sqrt() for a, g in ((alpha_t, sigma_t), (alpha_s, sigma_s)))
        return alpha_s * self.mean + (xt - alpha_t * self.mean) * spread_s / spread_t


@dataclass(frozen=True)
class Correlated:
    """Three values of unequal means whose covariance is not diagonal."""

    path: Path
    mean: tuple[float, float, float] = (0.5, -0.2, 1.0)
    stds: tuple[float, float, float] = (0.2, 0.5, 1.3)
    """Along the columns of ROTATION."""

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        alpha, sigma = coefficients(self.path, t, xt)
        mean, stds = xt.new_tensor(self.mean), xt.new_tensor(self.stds)
        gain = alpha * stds**2 / (alpha**2 * stds**2 + sigma**2)
        axes = ROTATION.to(xt)
        return Denoised(mean + ((xt - alpha * mean) @ axes * gain) @ axes.T)

    def moments(self, t: float) -> tuple[Tensor, Tensor]:
        """Mean at time t, and a factor F of the covariance F F^T."""
        alpha, sigma = (f(torch.tensor([t], dtype=torch.float64)) for f in (self.path.alpha, self.path.sigma))
        mean, stds = torch.tensor([self.mean, self.stds], dtype=torch.float64)
        return alpha * mean, ROTATION * (alpha**2 * stds**2 + sigma**2).sqrt()

    def log_density(self, x: Tensor) -> Tensor:
        mean, factor = self.moments(0.0)
        return torch.distributions.MultivariateNormal(mean, factor @ factor.T).log_prob(x[:, 0])


@dataclass(frozen=True)
class Mixture:
    """Two narrow Gaussians of unequal weight, the same in every value."""

    path: Path
    means: tuple[float, float] = (-1.0, 0.5)
    stds: tuple[float, float] = (0.1, 0.2)
    weights: tuple[float, float] = (0.25, 0.75)

    def parts(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and weight of each part at t, along a new first axis."""
        alpha, sigma = coefficients(self.path, t, like)
        means, stds, weights = (
            torch.tensor(v, dtype=torch.float64).reshape(2, *(1,) * like.ndim)
            for v in (self.means, self.stds, self.weights)
        )
        return alpha * means, alpha**2 * stds**2 + sigma**2, weights

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        alpha, _ = coefficients(self.path, t, xt)
        means, variances, weights = self.parts(t, xt)
        stds = torch.tensor(self.stds, dtype=torch.float64).reshape(2, *(1,) * xt.ndim)
        share = torch.softmax(weights.log() - 0.5 * (xt - means) ** 2 / variances - 0.5 * variances.log(), dim=0)
        clean = torch.tensor(self.means, dtype=torch.float64).reshape_as(stds)
        return Denoised((share * (clean + alpha * stds**2 / variances * (xt - means))).sum(0).to(xt.dtype))

    def log_density(self, x: Tensor) -> Tensor:
        means, variances, weights = self.parts(torch.zeros(1), x)
        each = weights.log() + torch.distributions.Normal(means, variances.sqrt()).log_prob(x)
        return torch.logsumexp(each, dim=0).flatten(1).sum(1)

    def below(self, xt: Tensor, t: float) -> Tensor:
        """The share of samples at time t that are below xt."""
        means, variances, weights = self.parts(torch.tensor([t], dtype=torch.float64), xt)
        return (weights * torch.special.ndtr((xt - means) / variances.sqrt())).sum(0)

    def flow(self, xt: Tensor, t: float, s: float) -> Tensor:
        """Where the probability-flow ODE carries xt from t to s: in one dimension, to the same quantile. By halving."""
        goal = self.below(xt, t)
        low, high = torch.full_like(xt, -20.0), torch.full_like(xt, 20.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            less = self.below(middle, s) < goal
            low, high = torch.where(less, middle, low), torch.where(less, high, middle)
        return 0.5 * (low + high)


@dataclass(frozen=True)
class Arbitrary:
    """A fixed nonlinear function in place of a network's x0: for comparing samplers, not for reaching data."""

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        return Denoised(torch.tanh(0.8 * xt + 0.3 * torch.sin(5 * per_sample(t.type_as(xt), xt))))

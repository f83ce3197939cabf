"""Data whose denoiser is known in closed form: a Gaussian, and a mixture of two."""

from dataclasses import dataclass

import torch
from torch import Tensor

from anydit.diffusion.paths import Path
from anydit.tensors import Cond, Denoised, per_sample


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
        alpha_t, sigma_t = coefficients(self.path, torch.tensor([t]), xt)
        alpha_s, sigma_s = coefficients(self.path, torch.tensor([s]), xt)
        spread_t, spread_s = ((a**2 * self.std**2 + g**2).sqrt() for a, g in ((alpha_t, sigma_t), (alpha_s, sigma_s)))
        return alpha_s * self.mean + (xt - alpha_t * self.mean) * spread_s / spread_t


@dataclass(frozen=True)
class Mixture:
    """Two narrow Gaussians of unequal weight."""

    path: Path
    means: tuple[float, float] = (-1.0, 0.5)
    stds: tuple[float, float] = (0.1, 0.2)
    weights: tuple[float, float] = (0.25, 0.75)

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        alpha, sigma = coefficients(self.path, t, xt)
        logits, means = [], []
        for mean, std, weight in zip(self.means, self.stds, self.weights, strict=True):
            variance = alpha**2 * std**2 + sigma**2
            logits.append(
                torch.log(variance.new_tensor(weight))
                - 0.5 * (xt - alpha * mean) ** 2 / variance
                - 0.5 * variance.log()
            )
            means.append(mean + alpha * std**2 / variance * (xt - alpha * mean))
        share = torch.softmax(torch.stack(torch.broadcast_tensors(*logits)), dim=0)
        return Denoised((share * torch.stack(torch.broadcast_tensors(*means))).sum(0))


@dataclass(frozen=True)
class Arbitrary:
    """A fixed nonlinear function in place of a network's x0: for comparing samplers, not for reaching data."""

    def denoise(self, xt: Tensor, t: Tensor, cond: Cond) -> Denoised:
        return Denoised(torch.tanh(0.8 * xt + 0.3 * torch.sin(5 * per_sample(t.type_as(xt), xt))))

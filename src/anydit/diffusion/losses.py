"""What training minimises: the weighted squared error of the prediction, and the variational bound for the variance."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.config import check_at_least, check_positive, config
from anydit.diffusion.denoiser import Network
from anydit.diffusion.paths import Path, Times
from anydit.diffusion.posterior import posterior
from anydit.diffusion.predictions import AnyPrediction, Prediction, Velocity
from anydit.tensors import Cond, doubles, mask_of, per_sample

Samples = Float[Tensor, "b c *space"]


class Weight(ABC):
    """How much the squared error at each time counts."""

    @abstractmethod
    def at(self, path: Path, prediction: Prediction, t: Times) -> Times:
        """The weight on the squared error of the network's output."""


@config
class Plain(Weight):
    """The squared error of the output as it is."""

    def at(self, path: Path, prediction: Prediction, t: Times) -> Times:
        return torch.ones_like(t)


PLAIN = Plain()


@config
class MinSNR(Weight):
    """The error of x0 weighted by the signal-to-noise ratio, at most `gamma` (Hang 2023, arXiv 2303.09556)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)

    def at(self, path: Path, prediction: Prediction, t: Times) -> Times:
        snr = (path.alpha(t) / path.sigma(t)) ** 2
        return snr.clamp(max=self.gamma) * prediction.sensitivity(path, t) ** 2


@config
class EDM(Weight):
    """The error of x0 weighted by (s^2 + d^2) / (s d)^2 at noise level s, data of deviation d (Karras 2022, table 1).

    `limit` bounds the weight on the error of x0, which grows without bound where the noise vanishes.
    """

    sigma_data: float = 0.5
    limit: float = 1e4

    def __post_init__(self) -> None:
        check_positive("sigma_data", self.sigma_data)
        check_positive("limit", self.limit)

    def at(self, path: Path, prediction: Prediction, t: Times) -> Times:
        inverse_level = path.alpha(t) / path.sigma(t)
        on_x0 = inverse_level**2 + 1 / self.sigma_data**2
        return on_x0.clamp(max=self.limit) * prediction.sensitivity(path, t) ** 2


@config
class As(Weight):
    """The squared error that another prediction would have: the network says x0, say, and its velocity is scored.

    `limit` bounds the weight (Li & He 2025, arXiv 2511.13720, bound 1 / t^2 at t = 0.05, which is 400).
    """

    prediction: AnyPrediction = Velocity()
    limit: float = 400.0

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)

    def at(self, path: Path, prediction: Prediction, t: Times) -> Times:
        ratio = prediction.sensitivity(path, t) / self.prediction.sensitivity(path, t)
        return (ratio**2).clamp(max=self.limit)


AnyWeight = Plain | MinSNR | EDM | As


@config
class VariationalBound:
    """The bound that trains a learned variance, in bits per value (Nichol & Dhariwal 2021, section 3.1).

    `steps`: of the reverse chain; training times must be its steps. `bin_width`: of the data's discrete values, on the
    network's scale: 8-bit images in [-1, 1] have 2/255.
    """

    steps: int = 1000
    bin_width: float = 2 / 255

    def __post_init__(self) -> None:
        check_at_least("steps", self.steps, 2)
        check_positive("bin_width", self.bin_width)


@dataclass(frozen=True)
class Objective:
    """Everything that turns a network's output into a loss."""

    path: Path
    prediction: Prediction
    weight: Weight = PLAIN
    variance: VariationalBound | None = None

    def loss(self, network: Network, x0: Samples, noise: Samples, t: Times, cond: Cond) -> Float[Tensor, " b"]:
        """The loss of each sample: the mean over its values, where its mask says that they exist."""
        xt = self.path.noised(x0, noise, t)
        output = network(xt, t, cond).type_as(xt)
        output, variance = output.chunk(2, dim=1) if self.variance else (output, None)
        weight = self.weight.at(self.path, self.prediction, t)
        mask = mask_of(cond)
        error = _mean((output - self.prediction.target(self.path, x0, noise, t)) ** 2, mask)
        total = weight * error
        if self.variance is not None and variance is not None:
            estimate = self.prediction.x0(self.path, xt, output.detach(), t)
            total = total + _mean(bound(self.variance, self.path, x0, xt, estimate, (variance + 1) / 2, t), mask)
        return total


def bound(
    config: VariationalBound, path: Path, x0: Samples, xt: Samples, estimate: Samples, mix: Samples, t: Times
) -> Samples:
    """Bits per value: divergence of the model's reverse step from the true one; at the last step, data likelihood.

    `mix` in [0, 1] is where the log variance lies between the step's lower and upper bound.
    """
    step = 1 / config.steps
    like, (estimate, xt, x0) = xt, map(doubles, (estimate, xt, x0))
    s = (doubles(t) - step).clamp(min=0)
    last = s < step / 2
    q = posterior(path, t, torch.where(last, torch.zeros_like(s), s))
    # The last step's lower bound is zero, whose log the published code takes from the step before.
    floor = posterior(path, t.clamp(min=2 * step), s.clamp(min=step)).lower
    low, high = (per_sample(v.log(), xt) for v in (floor, q.upper))
    log_p = doubles(mix) * high + (1 - doubles(mix)) * low
    mean_p = per_sample(q.x0_weight, xt) * estimate + per_sample(q.xt_weight, xt) * xt
    mean_q = per_sample(q.x0_weight, xt) * x0 + per_sample(q.xt_weight, xt) * xt
    divergence = 0.5 * (log_p - low - 1 + torch.exp(low - log_p) + (mean_q - mean_p) ** 2 * torch.exp(-log_p))
    likelihood = _binned_log_likelihood(x0, mean_p, torch.exp(0.5 * log_p), config.bin_width)
    nats = torch.where(per_sample(last, xt), -likelihood, divergence)
    return (nats / log(2)).type_as(like)


def _binned_log_likelihood(x: Tensor, mean: Tensor, std: Tensor, width: float) -> Tensor:
    """Log of a normal's mass in the bin around each value; the bins at -1 and 1 reach to infinity (Ho 2020, eq. 13)."""
    above, below = (0.5 * (1 + torch.erf((x + half - mean) / (std * sqrt(2)))) for half in (width / 2, -width / 2))
    end = 1 - 0.1275 * width  # 0.999 for 8-bit images, the published threshold
    above = torch.where(x > end, torch.ones_like(x), above)
    below = torch.where(x < -end, torch.zeros_like(x), below)
    return (above - below).clamp(min=1e-12).log()


def _mean(values: Samples, mask: Tensor | None) -> Float[Tensor, " b"]:
    if mask is None:
        return values.flatten(1).mean(1)
    present = mask[:, None].expand_as(values)
    return (values * present).flatten(1).sum(1) / present.flatten(1).sum(1).clamp(min=1)

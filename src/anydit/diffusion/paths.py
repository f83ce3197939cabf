"""Paths from data to noise: `xt = alpha(t) x0 + sigma(t) noise`, with t = 0 for data and t = 1 for noise."""

from abc import ABC, abstractmethod
from functools import cached_property, lru_cache
from math import atan, exp, inf, pi

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.config import config
from anydit.tensors import doubles, per_sample

Times = Float[Tensor, " b"]


class Path(ABC):
    """A path is its two coefficients and their derivatives; all else follows. Times are `Float[b]` in [0, 1]."""

    @abstractmethod
    def alpha(self, t: Times) -> Times:
        """How much of the data is left."""

    @abstractmethod
    def sigma(self, t: Times) -> Times:
        """How much noise has come."""

    @abstractmethod
    def d_alpha(self, t: Times) -> Times:
        """The derivative of alpha."""

    @abstractmethod
    def d_sigma(self, t: Times) -> Times:
        """The derivative of sigma."""

    @abstractmethod
    def time_at(self, log_snr: Times) -> Times:
        """The time at which log(alpha / sigma) is `log_snr`; clamped to [0, 1]."""

    @property
    @abstractmethod
    def reaches_noise(self) -> bool:
        """Whether alpha(1) is exactly 0, so that nothing about the data can be read off xt at t = 1."""

    def log_snr(self, t: Times) -> Times:
        """log(alpha / sigma), half the log signal-to-noise ratio (lambda in DPM-Solver). Infinite at the ends."""
        return self.alpha(t).log() - self.sigma(t).log()

    def noised(self, x0: Float[Tensor, "b c *space"], noise: Float[Tensor, "b c *space"], t: Times) -> Tensor:
        """xt: the data with the path's share of noise."""
        return per_sample(self.alpha(t), x0) * x0 + per_sample(self.sigma(t), x0) * noise


@config
class Linear(Path):
    """Rectified flow: alpha = 1 - t, sigma = t (Liu 2022; Lipman 2022)."""

    def alpha(self, t: Times) -> Times:
        return 1 - t

    def sigma(self, t: Times) -> Times:
        return t

    def d_alpha(self, t: Times) -> Times:
        return -torch.ones_like(t)

    def d_sigma(self, t: Times) -> Times:
        return torch.ones_like(t)

    def time_at(self, log_snr: Times) -> Times:
        return torch.sigmoid(-log_snr)

    @property
    def reaches_noise(self) -> bool:
        return True


@config
class Cosine(Path):
    """Variance preserving, alpha the cosine of an angle that grows evenly (Nichol & Dhariwal 2021).

    At t = 1 log(alpha / sigma) is `min_log_snr`, not minus infinity, so that every prediction implies some data.
    """

    min_log_snr: float = -7.5

    def __post_init__(self) -> None:
        if not -50 <= self.min_log_snr < 0:
            raise ValueError(f"min_log_snr: got {self.min_log_snr}, expected -50 or more, and below 0")

    @cached_property
    def _rest(self) -> float:
        """What the angle at t = 1 lacks of a right one."""
        return atan(exp(self.min_log_snr))

    @property
    def _last(self) -> float:
        """The angle at t = 1."""
        return pi / 2 - self._rest

    def alpha(self, t: Times) -> Times:
        # The cosine, as the sine of what is left to a right angle: near t = 1 a float32 angle is too coarse for cos.
        return (self._rest + self._last * (1 - t)).sin()

    def sigma(self, t: Times) -> Times:
        return (self._last * t).sin()

    def d_alpha(self, t: Times) -> Times:
        return -self._last * self.sigma(t)

    def d_sigma(self, t: Times) -> Times:
        return self._last * self.alpha(t)

    def time_at(self, log_snr: Times) -> Times:
        return (torch.atan(torch.exp(-log_snr)) / self._last).clamp(0, 1)

    @property
    def reaches_noise(self) -> bool:
        return False


@config
class LinearBeta(Path):
    """Variance preserving, noise rate beta_min + t (beta_max - beta_min) (Song 2020, arXiv 2011.13456)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max < inf:
            raise ValueError(
                f"beta_min, beta_max: got {self.beta_min}, {self.beta_max}; expected 0 < beta_min < beta_max, finite"
            )

    def _log_alpha(self, t: Times) -> Times:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Times) -> Times:
        return self._log_alpha(t).exp()

    def sigma(self, t: Times) -> Times:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def _rate(self, t: Times) -> Times:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def d_alpha(self, t: Times) -> Times:
        return -0.5 * self._rate(t) * self.alpha(t)

    def d_sigma(self, t: Times) -> Times:
        # sigma^2 = 1 - alpha^2; at t = 0 sigma starts like a square root, whose slope is infinite.
        return 0.5 * self._rate(t) * self.alpha(t) ** 2 / self.sigma(t)

    def time_at(self, log_snr: Times) -> Times:
        slope = self.beta_max - self.beta_min
        minus_log_alpha = 0.5 * torch.nn.functional.softplus(-2 * log_snr)
        root = (self.beta_min**2 + 4 * slope * minus_log_alpha).sqrt()
        # The usual quadratic formula, turned so that nearly equal numbers are never subtracted.
        return (4 * minus_log_alpha / (root + self.beta_min)).clamp(0, 1)

    @property
    def reaches_noise(self) -> bool:
        return False


@config
class DDPM(Path):
    """The published discrete steps: beta rises evenly over `steps` (Ho 2020); index i is t = (i + 1) / steps.

    Between two steps log(alpha) is linear in t, as DPM-Solver takes it; t = 0 is the data itself.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps: got {self.steps}, expected at least 2")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"beta_start, beta_end: got {self.beta_start}, {self.beta_end}; expected 0 < beta_start <= beta_end < 1"
            )

    def _log_alpha(self, t: Times) -> tuple[Tensor, Tensor]:
        """log(alpha) and its slope, both in doubles: sums of small numbers lose digits in float32."""
        place = doubles(t) * self.steps
        knots = _ddpm_log_alpha(self.steps, self.beta_start, self.beta_end, place.device)
        left = place.ceil().long().clamp(1, self.steps) - 1
        slope = knots[left + 1] - knots[left]
        return knots[left] + slope * (place - left), slope * self.steps

    def alpha(self, t: Times) -> Times:
        return self._log_alpha(t)[0].exp().type_as(t)

    def sigma(self, t: Times) -> Times:
        return (-torch.expm1(2 * self._log_alpha(t)[0])).sqrt().type_as(t)

    def d_alpha(self, t: Times) -> Times:
        value, slope = self._log_alpha(t)
        return (slope * value.exp()).type_as(t)

    def d_sigma(self, t: Times) -> Times:
        value, slope = self._log_alpha(t)
        return (-slope * (2 * value).exp() / (-torch.expm1(2 * value)).sqrt()).type_as(t)

    def time_at(self, log_snr: Times) -> Times:
        value = -0.5 * torch.nn.functional.softplus(-2 * doubles(log_snr))
        knots = _ddpm_log_alpha(self.steps, self.beta_start, self.beta_end, value.device)
        right = torch.searchsorted(-knots, -value).clamp(1, self.steps)
        part = (value - knots[right - 1]) / (knots[right] - knots[right - 1])
        return ((right - 1 + part) / self.steps).clamp(0, 1).type_as(log_snr)

    @property
    def reaches_noise(self) -> bool:
        return False


@lru_cache
def _ddpm_log_alpha(steps: int, beta_start: float, beta_end: float, device: torch.device) -> Float[Tensor, " knots"]:
    """log(alpha) at t = 0, 1/steps, ... 1."""
    beta = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    total = 0.5 * torch.cumsum(torch.log1p(-beta), dim=0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), total]).to(device)


AnyPath = Linear | Cosine | LinearBeta | DDPM

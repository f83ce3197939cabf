"""Which times to train at, and which to stop at when sampling."""

from abc import ABC, abstractmethod
from itertools import accumulate, repeat
from math import inf, isfinite, log, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.config import check_at_least, check_positive, config
from anydit.diffusion.paths import DDPM, Path, Times
from anydit.tensors import doubles


class TrainingTimes(ABC):
    """A distribution of training times, as the inverse of its cumulative distribution."""

    @abstractmethod
    def at(self, u: Times) -> Times:
        """Times for `u`, uniform in (0, 1]."""


@config
class Uniform(TrainingTimes):
    """Every time equally often."""

    def at(self, u: Times) -> Times:
        return u


@config
class LogitNormal(TrainingTimes):
    """logit(t) is normal (Esser 2024, arXiv 2403.03206); then shifted towards noise, more for larger samples.

    `shift`: t -> shift t / (1 + (shift - 1) t); sqrt(n / m) carries what suits m values over to n.
    """

    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        if not isfinite(self.mean):
            raise ValueError(f"mean: got {self.mean}, expected a finite number")
        check_positive("std", self.std)
        check_positive("shift", self.shift)

    def at(self, u: Times) -> Times:
        normal = sqrt(2) * torch.erfinv(2 * doubles(u).clamp(1e-7, 1 - 1e-7) - 1)
        return shifted(torch.sigmoid(self.mean + self.std * normal), self.shift).type_as(u)


@config
class Discrete(TrainingTimes):
    """One of `steps` evenly spaced times (i + 1) / steps, equally often (Ho 2020)."""

    steps: int = 1000

    def __post_init__(self) -> None:
        check_at_least("steps", self.steps, 1)

    def at(self, u: Times) -> Times:
        return (u * self.steps).ceil().clamp(1, self.steps) / self.steps


AnyTrainingTimes = Uniform | LogitNormal | Discrete


def stratified(u: Times, positions: Int[Tensor, " b"], batch: int) -> Times:
    """Move each sample's uniform number into a stratum of its own (low-discrepancy times, Kingma 2021)."""
    return (positions.type_as(u) + u) / batch


def shifted(t: Times, shift: float) -> Times:
    """Times moved towards noise by `shift` > 1, or towards data by `shift` < 1; 0 and 1 stay."""
    return shift * t / (1 + (shift - 1) * t)


class TimeGrid(ABC):
    """Where a sampler stops on its way from noise to data."""

    @abstractmethod
    def times(self, path: Path, steps: int) -> Float[Tensor, " steps_plus_1"]:
        """`steps + 1` falling times from the noisiest to 0.

        Raises:
            ValueError: `steps` below 1, or more than the grid has, or noise levels that the path does not reach.
        """


@config
class Even(TimeGrid):
    """Equal steps in t, then shifted as in `LogitNormal`."""

    shift: float = 1.0

    def __post_init__(self) -> None:
        check_positive("shift", self.shift)

    def times(self, path: Path, steps: int) -> Tensor:
        check_at_least("steps", steps, 1)
        return shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), self.shift).float()


@config
class Karras(TimeGrid):
    """Equal steps in (sigma / alpha)^(1 / rho) between two noise levels, then to 0 (Karras 2022, eq. 5)."""

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_positive("rho", self.rho)
        if not 0 < self.sigma_min < self.sigma_max < inf:
            raise ValueError(
                f"sigma_min, sigma_max: got {self.sigma_min}, {self.sigma_max}; "
                "expected 0 < sigma_min < sigma_max, finite"
            )

    def times(self, path: Path, steps: int) -> Tensor:
        check_at_least("steps", steps, 1)
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        sigma = torch.linspace(high, low, steps, dtype=torch.float64) ** self.rho
        return _down_to_data(path, -sigma.log())


@config
class LogSNR(TimeGrid):
    """Equal steps in log(alpha / sigma) between two values, then to 0: what DPM-Solver's error is smallest on."""

    low: float = log(1 / 80)
    high: float = log(1 / 0.002)

    def __post_init__(self) -> None:
        if not -inf < self.low < self.high < inf:
            raise ValueError(f"low, high: got {self.low}, {self.high}, expected low < high, finite")

    def times(self, path: Path, steps: int) -> Tensor:
        check_at_least("steps", steps, 1)
        grid = torch.linspace(self.low, self.high, steps, dtype=torch.float64)
        return _down_to_data(path, grid)


@config
class Respaced(TimeGrid):
    """The published choice among N discrete steps: first and last kept, strides rounded (Nichol & Dhariwal 2021).

    `of`: N; on a path of discrete steps, those of the path.
    """

    of: int = 1000

    def __post_init__(self) -> None:
        check_at_least("of", self.of, 1)

    def times(self, path: Path, steps: int) -> Tensor:
        _check_discrete(path, steps, self.of)
        stride = (self.of - 1) / max(steps - 1, 1)
        # Strides are summed, not multiplied: where a place falls on a half, rounding then goes the published way.
        places = list(accumulate(repeat(stride, steps - 1), initial=0.0))
        return torch.tensor([(round(place) + 1) / self.of for place in reversed(places)] + [0.0])


@config
class Leading(TimeGrid):
    """Every (N // steps)-th of N discrete steps from the data's end on (Lin 2023, arXiv 2305.08891, table 2).

    What is left over at the noisy end is left out: a habit of diffusers', which released models are sampled by.
    `offset`: how many indices later all of them are.
    """

    of: int = 1000
    offset: int = 0

    def __post_init__(self) -> None:
        check_at_least("of", self.of, 1)
        if not 0 <= self.offset < self.of:
            raise ValueError(f"offset: got {self.offset}, expected at least 0 and below {self.of}")

    def times(self, path: Path, steps: int) -> Tensor:
        _check_discrete(path, steps, self.of)
        stride = self.of // steps
        if (steps - 1) * stride + self.offset >= self.of:
            raise ValueError(f"offset: got {self.offset}, expected less for {steps} steps of {self.of}")
        return torch.tensor([(i * stride + self.offset + 1) / self.of for i in reversed(range(steps))] + [0.0])


@config
class Trailing(TimeGrid):
    """Equal strides over N discrete steps from the noisiest on, rounded (Lin 2023, arXiv 2305.08891, table 2)."""

    of: int = 1000

    def __post_init__(self) -> None:
        check_at_least("of", self.of, 1)

    def times(self, path: Path, steps: int) -> Tensor:
        _check_discrete(path, steps, self.of)
        return torch.tensor([round(self.of - i * (self.of / steps)) / self.of for i in range(steps)] + [0.0])


@config
class Linspace(TimeGrid):
    """Equal strides over N discrete steps from the noisiest on, rounded, to where the next would be the first of them.

    So are the times of diffusers' multistep schedulers; index 0 is left out.
    """

    of: int = 1000

    def __post_init__(self) -> None:
        check_at_least("of", self.of, 2)

    def times(self, path: Path, steps: int) -> Tensor:
        _check_discrete(path, steps, self.of)
        if steps == self.of:
            raise ValueError(f"steps: got {steps}, expected at most {self.of - 1}, as index 0 is left out")
        stride = (self.of - 1) / steps
        return torch.tensor([(round(i * stride) + 1) / self.of for i in range(steps, 0, -1)] + [0.0])


@config
class FlowMatching(TimeGrid):
    """Equal steps from 1 to 1 / N, then to 0; `shift` acts as in `Even`, and on 1 / N already once before.

    So are the times of diffusers' FlowMatchEulerDiscreteScheduler.
    """

    of: int = 1000
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.of < 2:
            raise ValueError(f"of: got {self.of}, expected at least 2")
        check_positive("shift", self.shift)

    def times(self, path: Path, steps: int) -> Tensor:
        _check_discrete(path, steps, self.of)
        last = shifted(torch.tensor([1 / self.of], dtype=torch.float64), self.shift)
        times = shifted(torch.linspace(1, float(last), steps, dtype=torch.float64), self.shift)
        return torch.cat([times, torch.zeros(1, dtype=torch.float64)]).float()


def _check_discrete(path: Path, steps: int, of: int) -> None:
    if not 1 <= steps <= of:
        raise ValueError(f"steps: got {steps}, expected 1 to {of} for a grid of {of} discrete steps")
    if isinstance(path, DDPM) and path.steps != of:
        raise ValueError(f"grid.of: got {of}, expected {path.steps}, as many steps as the path has")


def _down_to_data(path: Path, log_snr: Tensor) -> Tensor:
    """The times of rising values of log(alpha / sigma), then 0."""
    times = torch.cat([path.time_at(log_snr), torch.zeros(1, dtype=torch.float64)]).float()
    noisiest = float(path.log_snr(torch.ones(1, dtype=torch.float64)))
    if float(log_snr[0]) < noisiest - 1e-6 or not bool((times.diff() < 0).all()):
        low, high = float(log_snr[0]), float(log_snr[-1])
        raise ValueError(
            f"grid: got log(alpha / sigma) from {low:.3g} to {high:.3g}, beyond the path {type(path).__name__}, "
            f"which begins at {noisiest:.3g}"
        )
    return times


AnyTimeGrid = Even | Karras | LogSNR | Respaced | Leading | Trailing | Linspace | FlowMatching

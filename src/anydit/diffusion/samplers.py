"""Samplers: from noise to data over a denoiser, as pure functions of its x0 and the path's coefficients.

Coefficients are Python floats, made from doubles before the first step, so that no step waits for the device. Where
alpha or sigma is 0, at a path's ends, formulas are written in ratios that stay finite; times are never nudged.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.config import config
from anydit.diffusion.paths import Path
from anydit.diffusion.posterior import posterior
from anydit.tensors import Cond, Denoised, Denoiser

Noise = Callable[[int], Tensor]
"""Fresh standard normal noise for a step's index, of the sample's shape; the same index gives the same noise."""


@dataclass(frozen=True)
class Step:
    """One step taken: number `index` of `steps`, to time `t`; the sample there, and the latest estimate of its data."""

    index: int
    steps: int
    t: float
    xt: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Knot:
    """A stop on the way: its time and the path's coefficients there."""

    t: float
    alpha: float
    sigma: float


class Sampler(ABC):
    """How to get from each of a grid's times to the next."""

    @abstractmethod
    def run(
        self,
        denoiser: Denoiser,
        path: Path,
        xt: Float[Tensor, "b c *space"],
        times: Float[Tensor, " steps_plus_1"],
        cond: Cond,
        noise: Noise,
    ) -> Iterator[Step]:
        """Take the steps of the falling `times`, which may begin below 1 and end above 0, each when asked for."""

    def calls(self, steps: int) -> int:
        """How often the denoiser is called in so many steps that end at t = 0."""
        return steps


def knots(path: Path, times: Float[Tensor, " n"]) -> list[Knot]:
    """The path's coefficients at each time.

    Raises:
        ValueError: the times do not fall within [0, 1].
    """
    t = times.detach().cpu().double()
    if t.ndim != 1 or len(t) < 2 or not bool((t.diff() < 0).all()) or t[0] > 1 or t[-1] < 0:
        got = [float(v) for v in t.flatten()]
        raise ValueError(f"times: got {got}, expected at least two that fall from at most 1 to at least 0")
    table = torch.stack([t, path.alpha(t), path.sigma(t)], dim=1)
    return [Knot(*(float(v) for v in row)) for row in table]


def ask(denoiser: Denoiser, xt: Tensor, at: Knot, cond: Cond) -> Denoised:
    """One call of the denoiser, all samples at the same time."""
    return denoiser.denoise(xt, xt.new_full((len(xt),), at.t), cond)


def decay(t: Knot, s: Knot) -> float:
    """exp(-h), where h is the growth of log(alpha / sigma) from t to s; 0 where the step starts or ends at infinity."""
    return t.alpha * s.sigma / (t.sigma * s.alpha)


def clipped(x0: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """`x0` within bounds, if there are any."""
    return x0 if clip is None else x0.clamp(*clip)


def check_clip(clip: tuple[float, float] | None) -> None:
    """Refuse bounds that leave nothing between them."""
    if clip is not None and not clip[0] < clip[1]:
        raise ValueError(f"clip: got {clip}, expected low < high, or None")


@config
class Small:
    """The reverse step's variance given the data: right for data without spread (Ho 2020, section 3.2)."""


@config
class Large:
    """The forward step's variance: right, on variance preserving paths, for standard normal data (Ho 2020, 3.2)."""


@config
class DDPM(Sampler):
    """Ancestral sampling (Ho 2020, algorithm 2), between any two times of any path; a learned variance is used.

    `variance`: where it was not learned. `clip`: bounds on x0 at every step, (-1, 1) as published for pixels.
    """

    variance: Small | Large = Small()
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_clip(self.clip)

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        stops = knots(path, times)
        grid = times.detach().cpu().double()
        q = posterior(path, grid[:-1], grid[1:])
        for i, (t, s) in enumerate(pairwise(stops)):
            answer = ask(denoiser, xt, t, cond)
            x0 = clipped(answer.x0, self.clip)
            xt = float(q.x0_weight[i]) * x0 + float(q.xt_weight[i]) * xt
            if s.sigma > 0:
                xt = xt + self._deviation(answer, float(q.lower[i]), float(q.upper[i])) * noise(i)
            yield Step(i, len(stops) - 1, s.t, xt, x0)

    def _deviation(self, answer: Denoised, lower: float, upper: float) -> Tensor | float:
        if answer.variance is None:
            return sqrt(lower if isinstance(self.variance, Small) else upper)
        return upper ** (0.5 * answer.variance) * lower ** (0.5 * (1 - answer.variance))


@config
class DDIM(Sampler):
    """Non-Markovian steps (Song 2020, arXiv 2010.02502): deterministic for `eta` 0, ancestral for 1."""

    eta: float = 0.0
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta: got {self.eta}, expected 0 to 1")
        check_clip(self.clip)

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        stops = knots(path, times)
        grid = times.detach().cpu().double()
        lower = posterior(path, grid[:-1], grid[1:]).lower
        for i, (t, s) in enumerate(pairwise(stops)):
            x0 = clipped(ask(denoiser, xt, t, cond).x0, self.clip)
            fresh = self.eta**2 * float(lower[i])
            kept = sqrt(max(s.sigma**2 - fresh, 0.0)) / t.sigma
            xt = kept * xt + (s.alpha - kept * t.alpha) * x0
            if fresh > 0:
                xt = xt + sqrt(fresh) * noise(i)
            yield Step(i, len(stops) - 1, s.t, xt, x0)


@config
class Euler(Sampler):
    """First-order steps of the probability-flow ODE, in the coordinates in which every path is straight.

    With y = xt / (alpha + sigma) and u = sigma / (alpha + sigma) any path is y = (1 - u) x0 + u noise, so dy/du is
    noise - x0, finite at both ends. On the linear path these are plain velocity steps; the steps equal DDIM's.
    """

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        stops = knots(path, times)
        for i, (t, s) in enumerate(pairwise(stops)):
            x0 = ask(denoiser, xt, t, cond).x0
            xt = (s.alpha + s.sigma) * (_straight(xt, t) + (place(s) - place(t)) * straight_slope(xt, x0, t))
            yield Step(i, len(stops) - 1, s.t, xt, x0)


@config
class Heun(Sampler):
    """Second-order steps (Karras 2022, algorithm 1) of the ODE in straight coordinates (see `Euler`).

    Two calls a step, but one for a step that ends at t = 0, where there is nothing left to correct.
    """

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        stops = knots(path, times)
        for i, (t, s) in enumerate(pairwise(stops)):
            x0 = ask(denoiser, xt, t, cond).x0
            y, slope, width = _straight(xt, t), straight_slope(xt, x0, t), place(s) - place(t)
            xt = (s.alpha + s.sigma) * (y + width * slope)
            if s.sigma > 0:
                x0 = ask(denoiser, xt, s, cond).x0
                xt = (s.alpha + s.sigma) * (y + width * 0.5 * (slope + straight_slope(xt, x0, s)))
            yield Step(i, len(stops) - 1, s.t, xt, x0)

    def calls(self, steps: int) -> int:
        return 2 * steps - 1


@config
class Renoise(Sampler):
    """Adds noise anew to each estimate, so that no step keeps what one before got wrong.

    For denoisers whose x0 is a draw of the data: consistency models (Song 2023, arXiv 2303.01469, algorithm 1), and
    decoupled annealing. Of one whose x0 is a mean, samples have too little variety.
    """

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        stops = knots(path, times)
        for i, (t, s) in enumerate(pairwise(stops)):
            x0 = ask(denoiser, xt, t, cond).x0
            xt = s.alpha * x0 + s.sigma * noise(i) if s.sigma > 0 else s.alpha * x0
            yield Step(i, len(stops) - 1, s.t, xt, x0)


def _straight(xt: Tensor, at: Knot) -> Tensor:
    return xt / (at.alpha + at.sigma)


def place(at: Knot) -> float:
    """The coordinate u in which every path is straight (see `Euler`)."""
    return at.sigma / (at.alpha + at.sigma)


def straight_slope(xt: Tensor, x0: Tensor, at: Knot) -> Tensor:
    """Noise - x0, from what xt holds beside x0."""
    return (xt - (at.alpha + at.sigma) * x0) / at.sigma

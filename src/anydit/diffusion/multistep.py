"""Multistep samplers: they reuse the estimates of earlier steps, so that each step costs one call.

Both work in the log of alpha / sigma, which is infinite where a path ends in pure noise or pure data. An estimate from
an infinite place cannot support a difference, and a step to one has no length: there the order falls to one, whose
update is finite.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import expm1, factorial, inf, isfinite, log, sqrt
from typing import cast

import torch
from torch import Tensor

from anydit.config import config
from anydit.diffusion.paths import Path
from anydit.diffusion.samplers import DDIM, DDPM, Euler, Heun, Knot, Noise, Renoise, Sampler, Step, ask, decay, knots
from anydit.tensors import Cond, Denoiser


@dataclass(frozen=True)
class Estimate:
    """An earlier answer of the denoiser, and where it was given."""

    x0: Tensor
    log_snr: float


def log_snr(at: Knot) -> float:
    """log(alpha / sigma), infinite at the ends where one of them is 0."""
    if at.alpha == 0 or at.sigma == 0:
        return float("-inf") if at.alpha == 0 else float("inf")
    return log(at.alpha) - log(at.sigma)


def usable(history: Sequence[Estimate], order: int, end: float) -> Sequence[Estimate]:
    """The latest estimates, newest first, that a step to the log SNR `end` of at most this order can use."""
    if not isfinite(end):
        return history[-1:]
    finite = [estimate for estimate in reversed(history[-order:]) if isfinite(estimate.log_snr)]
    return finite or history[-1:]


def extrapolated(history: Sequence[Estimate], order: int, end: float, damping: float) -> Tensor:
    """The x0 that, held constant over a step, moves the sample as one that goes on as the estimates did.

    DPM-Solver++ (Lu 2022, arXiv 2211.01095, algorithm 2; order 3 from its code). `damping` is 1 - exp(-h).
    """
    used = usable(history, order, end)
    x0, h = used[0].x0, end - used[0].log_snr
    if len(used) == 1:
        return x0
    r0 = (used[0].log_snr - used[1].log_snr) / h
    first = (x0 - used[1].x0) / r0
    if len(used) == 2:
        return x0 + 0.5 * first
    r1 = (used[1].log_snr - used[2].log_snr) / h
    before = (used[1].x0 - used[2].x0) / r1
    slope = first + r0 / (r0 + r1) * (first - before)
    # A Taylor polynomial has twice this bend: third order would follow. This is what is published and compared with.
    bend = (first - before) / (r0 + r1)
    return x0 + (1 / damping - 1 / h) * slope + (0.5 - (h - damping) / h**2) / damping * bend


@config
class DPMSolverPP(Sampler):
    """DPM-Solver++ multistep of `order` 1, 2 or 3 (Lu 2022, arXiv 2211.01095); first and last steps are of order 1.

    Order 3 as published has a smaller error than order 2, but falls with the square of the step too.
    """

    order: int = 2

    def __post_init__(self) -> None:
        _check_order(self.order)

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        yield from _solve(self.order, 0.0, denoiser, path, xt, times, cond, noise)


@config
class SDE(Sampler):
    """Multistep of the reverse SDE, the variance of whose noise is `eta` times that of the time-reversed diffusion.

    SDE-DPM-Solver++(2M) (Lu 2022, arXiv 2211.01095) for eta 1; the ODE of `DPMSolverPP` for eta 0. For y = xt / alpha
    and s = sigma / alpha: dy = (1 + eta) (y - x0) ds / s + sqrt(2 eta s) dw, run from large s to small.
    """

    eta: float = 1.0
    order: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.eta < inf:
            raise ValueError(f"eta: got {self.eta}, expected a finite number of at least 0")
        if self.order not in (1, 2):
            raise ValueError(f"order: got {self.order}, expected 1 or 2")

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        yield from _solve(self.order, self.eta, denoiser, path, xt, times, cond, noise)


def _solve(
    order: int, eta: float, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
) -> Iterator[Step]:
    """DPM-Solver++ steps; with eta, part of the noise in xt is replaced by fresh noise in each."""
    stops = knots(path, times)
    history: list[Estimate] = []
    for i, (t, s) in enumerate(pairwise(stops)):
        x0 = ask(denoiser, xt, t, cond).x0
        history = [*history[-2:], Estimate(x0, log_snr(t))]
        shrink = decay(t, s)
        held = extrapolated(history, order, log_snr(s), 1 - shrink)
        xt = (s.sigma / t.sigma * shrink**eta) * xt + (s.alpha * (1 - shrink ** (1 + eta))) * held
        if eta > 0 and s.sigma > 0:
            xt = xt + (s.sigma * sqrt(1 - shrink ** (2 * eta))) * noise(i)
        yield Step(i, len(stops) - 1, s.t, xt, x0)


@config
class UniPC(Sampler):
    """Unified predictor-corrector, B2(h) = exp(-h) - 1, of `order` 1, 2 or 3 (Zhao 2023, arXiv 2302.04867).

    Each call serves twice: it corrects the step before, and predicts the next.
    """

    order: int = 2

    def __post_init__(self) -> None:
        _check_order(self.order)

    def run(
        self, denoiser: Denoiser, path: Path, xt: Tensor, times: Tensor, cond: Cond, noise: Noise
    ) -> Iterator[Step]:
        stops = knots(path, times)
        history: list[Estimate] = []
        start, before, begun_with = xt, stops[0], 0
        for i, (t, s) in enumerate(pairwise(stops)):
            now = Estimate(ask(denoiser, xt, t, cond).x0, log_snr(t))
            if begun_with and isfinite(before_snr := log_snr(before)) and isfinite(now.log_snr):
                assert before_snr < now.log_snr, "times fall, so the signal grows"
                xt = _uni_step(start, before, t, history, begun_with, now)
            history = [*history[-(self.order - 1) :], now] if self.order > 1 else [now]
            # The last two steps are of lower order, as the second-order differences there span the largest steps.
            begun_with = min(len(usable(history, self.order, log_snr(s))), len(stops) - 1 - i)
            start, before = xt, t
            xt = _uni_step(start, t, s, history, begun_with, None)
            yield Step(i, len(stops) - 1, s.t, xt, now.x0)


def _uni_step(
    xt: Tensor, t: Knot, s: Knot, history: Sequence[Estimate], order: int, corrector: Estimate | None
) -> Tensor:
    """A step from t to s: predicted from `history`, or corrected by the estimate at s too."""
    used = list(reversed(history[-order:]))
    x0, shrink = used[0].x0, decay(t, s)
    out = (s.sigma / t.sigma) * xt + (s.alpha * (1 - shrink)) * x0
    others = used[1:] + ([corrector] if corrector is not None else [])
    if not others:
        return out
    h = log_snr(s) - used[0].log_snr
    places = [(other.log_snr - used[0].log_snr) / h for other in others]
    for weight, place, other in zip(_uni_weights(places, h), places, others, strict=True):
        out = out + (s.alpha * -expm1(-h) * weight / place) * (other.x0 - x0)
    return out


def _uni_weights(places: Sequence[float], h: float) -> list[float]:
    """The coefficients of the differences: they make the step exact for polynomials (Zhao 2023, eq. 5 and 8)."""
    if len(places) == 1:
        return [0.5]
    phi, rows, right = expm1(-h) / -h - 1, list[list[float]](), list[float]()
    for k in range(1, len(places) + 1):
        rows.append([place ** (k - 1) for place in places])
        right.append(phi * factorial(k) / expm1(-h))
        phi = phi / -h - 1 / factorial(k + 1)
    matrix, vector = (torch.tensor(v, dtype=torch.float64) for v in (rows, right))
    solve = cast("Callable[[Tensor, Tensor], Tensor]", torch.linalg.solve)  # pyright: ignore[reportUnknownMemberType]
    return [float(weight) for weight in solve(matrix, vector)]


def _check_order(order: int) -> None:
    if order not in (1, 2, 3):
        raise ValueError(f"order: got {order}, expected 1, 2 or 3")


AnySampler = DDPM | DDIM | Euler | Heun | DPMSolverPP | UniPC | SDE | Renoise

"""The exact log-likelihood of data under the probability-flow ODE (Song 2020, arXiv 2011.13456, section 4.3).

The ODE is taken in the coordinates in which every path is straight (see `samplers.Euler`): there its right side has
neither the kinks nor the infinite slopes that a path may have in t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, pi, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.diffusion.paths import Path
from anydit.diffusion.samplers import Knot, ask, knots, place, straight_slope
from anydit.tensors import Cond, Denoiser, Stream


def log_likelihood(
    denoiser: Denoiser,
    path: Path,
    x0: Float[Tensor, "b c *space"],
    cond: Cond,
    *,
    steps: int = 100,
    probes: int | None = 1,
    seed: int = 0,
    first_time: float = 1e-4,
    positions: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, " b"]:
    """Log p(x0) in nats, for data as the network sees it, of what a sampler makes of noise of deviation sigma(1).

    Carries the data along the ODE from `first_time` to noise in `steps` Heun steps, dense near the data, and adds up
    the divergence: exactly for `probes` None (one gradient for each dimension), else by so many random probes
    (Hutchinson), whose mean is exact; `positions`: the samples' places, of which probes are a function (None: from 0
    on). For data on its own scale see `bits_per_dimension`.

    Raises:
        ValueError: `steps` or `probes` below 1, or a first time outside (0, 1).
    """
    for name, value in (("steps", steps), ("probes", 1 if probes is None else probes)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if not 0 < first_time < 1:
        raise ValueError(f"first_time: got {first_time}, expected above 0 and below 1")
    directions = _axes(x0) if probes is None else _signs(x0, probes, seed, positions)
    stops = _stops(path, steps, first_time)
    first, last = stops[0], stops[-1]
    y, gained = x0 * (first.alpha / (first.alpha + first.sigma)), x0.new_zeros(len(x0))
    for t, s in pairwise(stops):
        width = place(s) - place(t)
        slope, growth = _flow(denoiser, y, t, cond, directions)
        slope2, growth2 = _flow(denoiser, y + width * slope, s, cond, directions)
        y = y + width * 0.5 * (slope + slope2)
        gained = gained + width * 0.5 * (growth + growth2)
    # The noise that y holds at t = 1 is xt / sigma; densities change by the volume, a factor for each dimension.
    noise = y * ((last.alpha + last.sigma) / last.sigma)
    volume = log(first.alpha) - log(first.alpha + first.sigma) + log(last.alpha + last.sigma) - log(last.sigma)
    prior = -0.5 * noise.square().flatten(1).sum(1) - 0.5 * log(2 * pi) * prod(x0.shape[1:])
    return prior + gained + volume * prod(x0.shape[1:])


def bits_per_dimension(
    nats: Float[Tensor, " b"], shape: Sequence[int], log_scale: float, bin_width: float
) -> Float[Tensor, " b"]:
    """Bits for each value of data in bins: -log2 of the density on the data's own scale times the bin's width.

    `shape`: of one sample. `log_scale`: mean log of the codec's scale per value, where z = (x - shift) / scale; 0 for
    nats that are of data on its own scale already, as those of `Pipeline.log_likelihood` are.
    `bin_width`: of the data's discrete values on its own scale; 1 for 8-bit numbers.
    """
    return (-nats / prod(shape) + log_scale - log(bin_width)) / log(2)


def _stops(path: Path, steps: int, first: float) -> list[Knot]:
    """From `first` to t = 1, with more of them near the data, where the flow bends most."""
    begin, end = (place(stop) for stop in reversed(knots(path, torch.tensor([1.0, first], dtype=torch.float64))))
    u = begin + (end - begin) * torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 3
    inner = path.time_at(torch.log1p(-u[1:-1]) - u[1:-1].log())
    return knots(path, torch.cat([u.new_tensor([first]), inner, u.new_ones(1)]).flip(0))[::-1]


@dataclass(frozen=True)
class Directions:
    """Along which to differentiate: the divergence is `share` times the sum of the velocity's growth along each."""

    vectors: Float[Tensor, "k b c *space"]
    share: float


def _axes(x0: Tensor) -> Directions:
    """Every dimension: the exact divergence."""
    shape = tuple(x0.shape[1:])
    unit = torch.eye(prod(shape), device=x0.device, dtype=x0.dtype).reshape(-1, 1, *shape)
    return Directions(unit.expand(-1, *x0.shape), 1.0)


def _signs(x0: Tensor, probes: int, seed: int, positions: Tensor | None) -> Directions:
    """Random signs, the same along the whole way: an estimate whose mean is the divergence (Hutchinson 1989)."""
    stream, places = Stream(seed, "likelihood"), torch.arange(len(x0)) if positions is None else positions
    uniform = [stream.uniform(i, places.to(x0.device), tuple(x0.shape[1:])) for i in range(probes)]
    return Directions((torch.stack(uniform) > 0.5).type_as(x0) * 2 - 1, 1 / probes)


def _flow(
    denoiser: Denoiser, y: Tensor, at: Knot, cond: Cond, directions: Directions
) -> tuple[Tensor, Float[Tensor, " b"]]:
    """Noise - x0, which is dy/du, and its divergence."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        xt = y * (at.alpha + at.sigma)
        slope = straight_slope(xt, ask(denoiser, xt, at, cond).x0, at)
        growth = y.new_zeros(len(y))
        for vector in directions.vectors:
            (pulled,) = torch.autograd.grad(slope, y, vector, retain_graph=True)
            growth = growth + (pulled * vector).flatten(1).sum(1)
    return slope.detach(), growth * directions.share

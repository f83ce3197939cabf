"""The exact log-likelihood of data under the probability-flow ODE (Song 2020, arXiv 2011.13456, section 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, pi, prod

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.diffusion.paths import Path
from anydit.diffusion.predictions import velocity_in
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
) -> Float[Tensor, " b"]:
    """Log p(x0) in nats, for data as the network sees it.

    Carries the data along the ODE from `first_time` to noise in `steps` Heun steps, dense near the data, and adds up
    the divergence of the velocity: exactly for `probes` None (one gradient for each dimension), else by so many random
    probes (Hutchinson), whose mean is exact. For data on its own scale see `bits_per_dimension`.

    Raises:
        ValueError: `steps` or `probes` below 1, or a first time outside (0, 1).
    """
    for name, value in (("steps", steps), ("probes", 1 if probes is None else probes)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if not 0 < first_time < 1:
        raise ValueError(f"first_time: got {first_time}, expected above 0 and below 1")
    directions = _axes(x0) if probes is None else _signs(x0, probes, seed)
    x, gained = x0 * float(path.alpha(torch.tensor([first_time]))), x0.new_zeros(len(x0))
    for t, s in pairwise(_rising_times(path, steps, first_time)):
        v, divergence = _flow(denoiser, path, x, t, cond, directions)
        v2, divergence2 = _flow(denoiser, path, x + (s - t) * v, s, cond, directions)
        x = x + (s - t) * 0.5 * (v + v2)
        gained = gained + (s - t) * 0.5 * (divergence + divergence2)
    dimensions = prod(x0.shape[1:])
    spread = float(path.sigma(torch.ones(1)))
    prior = -0.5 * (x / spread).square().flatten(1).sum(1) - dimensions * (0.5 * log(2 * pi) + log(spread))
    # The density of alpha x0 is that of x0 divided by alpha in each dimension.
    return prior + gained + dimensions * float(path.alpha(torch.tensor([first_time])).log())


def bits_per_dimension(
    nats: Float[Tensor, " b"], shape: Sequence[int], log_scale: float, bin_width: float
) -> Float[Tensor, " b"]:
    """Bits for each value of data in bins: -log2 of the density on the data's own scale times the bin's width.

    `shape`: of one sample. `log_scale`: mean log of the codec's scale per value, where z = (x - shift) / scale.
    `bin_width`: of the data's discrete values on its own scale; 1 for 8-bit numbers.
    """
    return (-nats / prod(shape) + log_scale - log(bin_width)) / log(2)


def _rising_times(path: Path, steps: int, first: float) -> list[float]:
    """Times from `first` to 1, with more of them near the data, where the velocity bends most."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return [float(t) for t in first + (1 - first) * u**3]


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


def _signs(x0: Tensor, probes: int, seed: int) -> Directions:
    """Random signs, the same along the whole way: an estimate whose mean is the divergence (Hutchinson 1989)."""
    stream, positions = Stream(seed, "likelihood"), torch.arange(len(x0), device=x0.device)
    uniform = [stream.uniform(i, positions, tuple(x0.shape[1:])) for i in range(probes)]
    return Directions((torch.stack(uniform) > 0.5).type_as(x0) * 2 - 1, 1 / probes)


def _flow(
    denoiser: Denoiser, path: Path, x: Tensor, t: float, cond: Cond, directions: Directions
) -> tuple[Tensor, Float[Tensor, " b"]]:
    """The velocity at time t, and its divergence."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        times = x.new_full((len(x),), t)
        v = velocity_in(path, x, denoiser.denoise(x, times, cond).x0, times)
        growth = x.new_zeros(len(x))
        for vector in directions.vectors:
            (pulled,) = torch.autograd.grad(v, x, vector, retain_graph=True)
            growth = growth + (pulled * vector).flatten(1).sum(1)
    return v.detach(), growth * directions.share

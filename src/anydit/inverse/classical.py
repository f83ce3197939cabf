"""What reconstructs without a model: what a measurement shows by itself, and the least total variation."""

from collections.abc import Sequence

import torch
from deepinv.models import TVDenoiser
from deepinv.physics import LinearPhysics
from jaxtyping import Float
from torch import Tensor

from anydit.inverse.measurement import Measurement
from anydit.inverse.physics import BlockMeans, Projections

WEIGHTS = (0.1, 0.3, 1.0, 3.0)
"""Of the total variation, in deviations of the noise, from which the one is taken that leaves the noise."""

BALANCE = 0.3
"""How long the steps of the duals are beside those of the image."""


def plainly(measured: Measurement) -> Float[Tensor, "b c *space"]:
    """The measurement itself as samples on the data's own scale: zero-filled, back-projected, or in blocks."""
    physics, y = measured.linear, measured.y
    if isinstance(physics, Projections):
        return measured.own(physics.fbp(y))
    x = physics.A_adjoint(y)
    return measured.own(x * physics.factor ** (x.ndim - 2) if isinstance(physics, BlockMeans) else x)


def least_variation(
    measured: Measurement, weights: Sequence[float] = WEIGHTS, iterations: int = 250
) -> Float[Tensor, "b c *space"]:
    """What agrees with the measurement and varies least (Rudin, Osher, Fatemi 1992), on the data's own scale.

    Of several weights, each sample has that whose residual is nearest to 1: it leaves what the noise explains.
    """
    physics, like = measured.linear, measured.linear.A_adjoint(measured.y[:1])
    assert isinstance(physics, LinearPhysics)
    size = float(physics.compute_sqnorm(torch.ones_like(like), verbose=False))
    found = [measured.own(_primal_dual(measured, weight * measured.sigma, size, iterations)) for weight in weights]
    off = torch.stack([(measured.residual(x) - 1).abs() for x in found])
    best = torch.stack(found)
    return best[off.argmin(0), torch.arange(best.shape[1], device=best.device)]


def _primal_dual(measured: Measurement, weight: float, size: float, iterations: int) -> Float[Tensor, "b c *space"]:
    """Least |A x - y|^2 / 2 + weight |grad x|, by Chambolle and Pock's algorithm (2011) with a dual for each part.

    `size`: the square of the largest singular value of A.
    """
    physics, y = measured.linear, measured.y
    x = physics.A_adjoint(y)
    z, u, v = x, torch.zeros_like(y), torch.zeros_like(TVDenoiser.nabla(x))
    along = 0.5 / BALANCE
    on_y = BALANCE / size
    on_slope = BALANCE / (4 * (x.ndim - 2))
    for _ in range(iterations):
        u = (u + on_y * (physics.A(z) - y)) / (1 + on_y)
        v = v + on_slope * TVDenoiser.nabla(z)
        v = v / (v.norm(dim=-1, keepdim=True) / weight).clamp(min=1)
        before, x = x, x - along * (physics.A_adjoint(u) + TVDenoiser.nabla_adjoint(v))
        z = 2 * x - before
    return x

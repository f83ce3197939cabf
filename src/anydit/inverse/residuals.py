"""Conjugate residuals: what moves explain most of what is off, each sample by itself."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.tensors import per_sample


def conjugate_residuals(
    explained: Callable[[Tensor], tuple[Tensor, Tensor]], off: Tensor, x0: Tensor, iterations: int
) -> Tensor:
    """Move each sample of `x0` so as to explain what is `off`, as far as the iterations bring it (Eisenstat 1983).

    `explained(v)`: what a move explains, and that move; both linear in `v`. None leaves more than the one before, even
    where the covariance is not quite symmetric, as a network's is.
    """
    floor, before = 1e-10 * dot(off, off), list[tuple[Tensor, Tensor]]()
    for _ in range(iterations):
        part, move = explained(off)
        whole = dot(part, part)
        for other, its_move in before:
            shared = dot(other, part)
            part, move = part - per_sample(shared, part) * other, move - per_sample(shared, move) * its_move
        size = dot(part, part)
        rounding = (dot(off, off) <= floor) | (size <= 1e-10 * whole)
        shrink = torch.where(rounding, torch.inf, size).rsqrt()
        part, move = per_sample(shrink, part) * part, per_sample(shrink, move) * move
        step = dot(part, off)
        off, x0 = off - per_sample(step, off) * part, x0 + per_sample(step, x0) * move
        before.append((part, move))
    return x0


def dot(a: Tensor, b: Tensor) -> Float[Tensor, " b"]:
    """The inner product of each sample's values, of which complex ones have both parts."""
    return (a.conj() * b).real.flatten(1).sum(1)

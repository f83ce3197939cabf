"""What is told of a sample that is to be completed: a part of its values, and which these are."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

KNOWN = "known"
"""The condition, a field: the values that are given, and for each of them whether it is."""


PAST = "past"
"""The condition, a field: the states before those of a sample, their channels one after the other, the oldest first."""


COARSE = "coarse"
"""The condition, a field: samples as their means over blocks of points."""


GIVEN = "given"
"""The condition, a field: what is aligned with samples and no part of them."""


def told(
    x: Float[Tensor, "b c *space"], known: Bool[Tensor, "b c *space"], fill: Float[Tensor, " c"] | Sequence[float]
) -> Float[Tensor, "b two_c *space"]:
    """The condition "known": values where they are known, else `fill` (what a channel has on average); then which are.

    `x` may hold anything, as NaN, where it is not known.
    """
    instead = torch.as_tensor(fill, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 2))
    return torch.cat([torch.where(known, x, instead), known.to(x.dtype)], dim=1)

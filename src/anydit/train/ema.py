"""The moving average of the weights, which sampling uses."""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EMA:
    """An exponential moving average of a module's parameters, in a module of its own.

    The decay warms up as (1 + step) / (10 + step), so that the average forgets the initialisation.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = deepcopy(module).eval().requires_grad_(False)
        self._own = list(self.module.parameters())
        self._followed = list(module.parameters())

    @torch.no_grad()
    def update(self, step: int, whole: Float[Tensor, ""]) -> None:
        """Move towards the weights after `step`; where `whole` is 0 (a skipped step), stay. Nothing waits for the device."""
        weight = whole * (1 - min(self.decay, (1 + step) / (10 + step)))
        difference = torch._foreach_sub(self._followed, self._own)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._own, difference)

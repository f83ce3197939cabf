"""The moving average of the weights, which sampling uses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Average(ABC, Generic[M]):
    """A moving average of a module's parameters, in a module of its own.

    What is not trained is not averaged: both modules hold the same parameter then.
    """

    def __init__(self, module: M) -> None:
        followed = {name: p for name, p in module.named_parameters() if p.requires_grad}
        shared = {id(p): p for p in module.parameters() if not p.requires_grad}
        self.module = deepcopy(module, shared).eval().requires_grad_(False)
        own = dict(self.module.named_parameters())
        self.own: dict[str, Tensor] = {name: own[name] for name in followed}
        self._followed: list[Tensor] = list(followed.values())

    def follow(self, rows: Mapping[str, Tensor]) -> None:
        """From here on average these rows of the parameters alone; the module is no longer where the average is."""
        self.own = {name: tensor.detach().clone() for name, tensor in rows.items()}
        self._followed = list(rows.values())

    @abstractmethod
    def stays(self, step: int) -> float:
        """The share of the average that stays at `step`, the first being 0."""

    @torch.no_grad()
    def update(self, step: int, applied: Float[Tensor, ""]) -> None:
        """Move towards the weights after `step`; where `applied` is 0 (a skipped step), stay. Needs no wait."""
        weight = applied * (1 - self.stays(step))
        averages = list(self.own.values())
        if weight.device.type == "cpu":  # one pass each; there, the multi-tensor operations are plain loops of three
            for own, followed in zip(averages, self._followed, strict=True):
                own.lerp_(followed, weight)
            return
        # pyright's stubs do not know PyTorch's multi-tensor operations, which do all parameters in a few launches.
        difference = torch._foreach_sub(self._followed, averages)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(difference, weight)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(averages, difference)  # pyright: ignore[reportPrivateImportUsage]


class EMA(Average[M]):
    """An exponential moving average.

    The decay warms up as (1 + step) / (10 + step), so that the average forgets the initialisation.
    """

    def __init__(self, module: M, decay: float) -> None:
        super().__init__(module)
        self.decay = decay

    def stays(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))

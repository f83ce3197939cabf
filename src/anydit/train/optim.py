"""Optimizers and learning-rate schedules."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import cos, pi

import torch
from torch import nn

from anydit.config import check_at_least, check_fraction, check_positive, config


@config
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017), in one fused kernel. Only matrices decay."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: got {self.betas}, expected at least 0 and below 1")
        check_positive("eps", self.eps)
        check_at_least("weight_decay", self.weight_decay, 0)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters, in their order."""
        every = list(parameters)
        groups = [
            {"params": [p for p in every if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in every if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


class Schedule(ABC):
    """The learning rate over training, as a share of the optimizer's."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """The share at `step`, the first being 0, of `steps`."""


@config
class Constant(Schedule):
    """Rises evenly over `warmup` steps, then stays."""

    warmup: int = 0

    def __post_init__(self) -> None:
        check_at_least("warmup", self.warmup, 0)

    def factor(self, step: int, steps: int) -> float:
        return min(1.0, (step + 1) / (self.warmup + 1))


@config
class CosineDecay(Schedule):
    """Rises evenly over `warmup` steps, then falls along a half cosine to `final` at the last step."""

    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("warmup", self.warmup, 0)
        check_fraction("final", self.final)

    def factor(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        part = min(1.0, (step - self.warmup) / max(1, steps - 1 - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + cos(pi * part))


@config
class LinearDecay(Schedule):
    """Rises evenly over `warmup` steps, stays, then falls evenly over the last `decay` share of all steps."""

    warmup: int = 0
    decay: float = 0.3
    final: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("warmup", self.warmup, 0)
        check_fraction("decay", self.decay)
        check_fraction("final", self.final)

    def factor(self, step: int, steps: int) -> float:
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        left = (steps - step) / max(1.0, self.decay * steps)
        return min(rise, self.final + (1 - self.final) * min(1.0, left))


AnySchedule = Constant | CosineDecay | LinearDecay

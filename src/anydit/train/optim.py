"""Optimizers and learning-rate schedules."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import cos, pi, sqrt
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anydit.config import check_at_least, check_fraction, check_positive, config
from anydit.train.muon import MuonBesideAdamW

Groups = list[dict[str, Any]]
"""Of parameters, as PyTorch's optimizers take them; each with its `share` of the learning rate."""

HIDDEN = re.compile(r"blocks\.\d+\.(?:\w+\.)*(qkv|kv|q|out|up|down)\.weight")
"""Products within the blocks of a transformer, from tokens to tokens."""

CLIP_EPS = 1e-6
"""Added to a norm that gradients are divided by, as PyTorch's own clipping does."""

FUSED = {"qkv": 3, "kv": 2}
"""Products that are several, one above the other."""


@config
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017), in one fused kernel. Only matrices decay."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.betas, self.eps, self.weight_decay)

    def build(
        self, parameters: Mapping[str, nn.Parameter], shares: Mapping[str, float] = MappingProxyType({})
    ) -> torch.optim.Optimizer:
        """The optimizer of these parameters, by their names. `shares`: of the learning rate, where that is not all."""
        groups = _groups(parameters, shares, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


@config
class Muon:
    """Muon for the products in a transformer's blocks, AdamW for all else: embeddings, modulation, output, vectors.

    One `lr` serves both, since moves are made as large as AdamW's (`anydit.train.muon`). Queries, keys and values are
    moved each for itself. `momentum`: how much of it stays. `iterations`: of its orthogonalisation. `betas`, `eps`: of
    AdamW. `weight_decay`: of matrices, as in AdamW.
    """

    lr: float = 1e-3
    momentum: float = 0.95
    iterations: int = 5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.lr, self.betas, self.eps, self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: got {self.momentum}, expected at least 0 and below 1")
        check_at_least("iterations", self.iterations, 1)

    def build(
        self, parameters: Mapping[str, nn.Parameter], shares: Mapping[str, float] = MappingProxyType({})
    ) -> torch.optim.Optimizer:
        """As AdamW's.

        Raises:
            ValueError: none of the parameters is such a product.
        """
        hidden = {name: p for name, p in parameters.items() if HIDDEN.fullmatch(name) and p.ndim == 2}
        if not hidden:
            raise ValueError(
                "train.optimizer: got Muon, expected AdamW: no product of a transformer's blocks is trained here"
            )
        # A whole matrix grows in effect with the root of its width, where AdamW's grows with the width itself (Yang
        # 2023, arXiv 2310.17813); what is to make up for it goes with the root, too.
        groups = _groups(hidden, {name: sqrt(share) for name, share in shares.items()}, self.weight_decay)
        counts = {p: _count(name, parameters) for name, p in hidden.items()}
        for group in groups:
            group |= {"momentum": self.momentum, "iterations": self.iterations}
            group["parts"] = [counts[p] for p in group["params"]]
        groups += _groups({n: p for n, p in parameters.items() if n not in hidden}, shares, self.weight_decay)
        return MuonBesideAdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


AnyOptimizer = AdamW | Muon


def _groups(parameters: Mapping[str, nn.Parameter], shares: Mapping[str, float], weight_decay: float) -> Groups:
    """The parameters by what they have in common; what a share takes from the learning rate, decay does not lose."""
    sorts: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, p in parameters.items():
        sorts.setdefault((p.ndim >= 2, shares.get(name, 1.0)), []).append(p)
    return [
        {"params": some, "share": share, "weight_decay": weight_decay / share if decays else 0.0}
        for (decays, share), some in sorts.items()
    ]


def _count(name: str, parameters: Mapping[str, nn.Parameter]) -> int:
    """How many matrices a product holds: a gated network's first one has twice the rows that its last one reads."""
    match = HIDDEN.fullmatch(name)
    assert match is not None
    if match[1] == "up":
        return len(parameters[name]) // parameters[f"{name.removesuffix('up.weight')}down.weight"].shape[1]
    return FUSED.get(match[1], 1)


def _check(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    check_positive("lr", lr)
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas: got {betas}, expected at least 0 and below 1")
    check_positive("eps", eps)
    check_at_least("weight_decay", weight_decay, 0)


def switches(optimizer: torch.optim.Optimizer, divisor: Float[Tensor, ""] | None, applied: Float[Tensor, ""]) -> None:
    """Set by what the next step divides gradients, if at all, and whether it is taken; read on the device."""
    setattr(optimizer, "grad_scale", divisor)  # noqa: B010, what PyTorch's fused optimizers look for
    setattr(optimizer, "found_inf", 1 - applied)  # noqa: B010


def moments_of(optimizer: torch.optim.Optimizer, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """An optimizer's state of each parameter, as `PARAMETER:KEY`."""
    states = {name: optimizer.state[parameter] for name, parameter in trained.items()}
    return {f"{name}:{key}": torch.as_tensor(v) for name, state in states.items() for key, v in state.items()}


def put_moments(
    optimizer: torch.optim.Optimizer,
    trained: Mapping[str, nn.Parameter],
    moments: Mapping[str, Tensor],
    source: object,
) -> None:
    """Put back what `moments_of` gave, and nothing beside it.

    Raises:
        ValueError: they are of a parameter that is not trained.
    """
    optimizer.state.clear()
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        name, _, moment = key.rpartition(":")
        if name not in trained:
            raise ValueError(f"checkpoint: {source} has optimizer state for {name!r}, which the model does not have")
        states.setdefault(name, {})[moment] = value
    for name, state in states.items():
        # The step counter stays where the fused kernel wants it; moments lie beside their parameter.
        optimizer.state[trained[name]] = {k: v.to(trained[name].device) for k, v in state.items()}


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

"""Denoisers that wrap a denoiser: guidance by a condition or by a weaker model, and keeping what is known."""

from collections.abc import Set
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anydit.config import config
from anydit.tensors import Cond, Denoised, Denoiser, concatenate, null, per_sample

WHOLE = (0.0, 1.0)
"""The interval in which guidance acts when it always acts."""


@config
class Guidance:
    """How strongly to guide: x0 = weak x0 + scale (x0 - weak x0). A scale of 1 is none.

    The weak x0 is that of the null condition (classifier-free guidance, Ho & Salimans 2022), or of another, worse
    denoiser (autoguidance, Karras 2024, arXiv 2406.02507). `interval`: the times t at which to guide (Kynkaanniemi
    2024). `legacy_channels`: guide only so many channels, as the published DiT samples were made; None: all.
    """

    scale: float = 1.0
    interval: tuple[float, float] = WHOLE
    legacy_channels: int | None = None

    def __post_init__(self) -> None:
        if not isfinite(self.scale) or self.scale < 0:
            raise ValueError(f"scale: got {self.scale}, expected a finite number of at least 0")
        if not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise ValueError(f"interval: got {self.interval}, expected 0 <= start < end <= 1")
        if self.legacy_channels is not None and self.legacy_channels < 1:
            raise ValueError(f"legacy_channels: got {self.legacy_channels}, expected at least 1, or None for all")

    def wrap(self, denoiser: Denoiser, weak: Denoiser | None = None, always: Set[str] = frozenset()) -> Denoiser:
        """The guided denoiser; `denoiser` itself where the scale is 1. `always`: conditions that have no null."""
        return denoiser if self.scale == 1 else Guided(denoiser, self, weak, always)


@dataclass(frozen=True)
class Guided:
    """A denoiser under guidance. Condition and null are one batched call; outside the interval only the first.

    `always`: conditions that are never null, because no null was learned for them; both halves have them.
    """

    denoiser: Denoiser
    guidance: Guidance
    weak: Denoiser | None = None
    always: Set[str] = frozenset()

    def denoise(self, xt: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Denoised:
        """The guided estimate; a learned variance is the conditional one.

        Raises:
            ValueError: more legacy channels than the samples have.
        """
        kept = self.guidance.legacy_channels
        if kept is not None and kept > xt.shape[1]:
            raise ValueError(f"legacy_channels: got {kept}, expected at most the samples' {xt.shape[1]}")
        scale = self._scales(t)
        if scale is None:
            return self.denoiser.denoise(xt, t, cond)
        strong, weak = self._both(xt, t, cond)
        difference = strong.x0 - weak
        guided = weak + per_sample(scale, xt) * difference
        # x0 is linear in the network's output at a fixed xt, so guiding some channels of either is the same.
        x0 = guided if kept is None else torch.cat([guided[:, :kept], strong.x0[:, kept:]], dim=1)
        return Denoised(x0, strong.variance)

    def _scales(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"] | None:
        """Each sample's scale at its time, or None where none of them is guided."""
        low, high = self.guidance.interval
        scale = torch.full_like(t, self.guidance.scale)
        if (low, high) == WHOLE:
            return scale
        inside = (t >= low) & (t <= high)
        return torch.where(inside, scale, torch.ones_like(scale)) if bool(inside.any()) else None

    def _both(self, xt: Tensor, t: Tensor, cond: Cond) -> tuple[Denoised, Tensor]:
        if self.weak is not None:
            return self.denoiser.denoise(xt, t, cond), self.weak.denoise(xt, t, cond).x0
        b = len(xt)
        both = self.denoiser.denoise(
            torch.cat([xt, xt]), torch.cat([t, t]), concatenate([cond, null(cond, self.always)], b)
        )
        variance = None if both.variance is None else both.variance[:b]
        return Denoised(both.x0[:b], variance), both.x0[b:]


@dataclass(frozen=True)
class Inpaint:
    """Keeps what is known: where `keep` is set the estimate is `known`, and the rest is made to fit it."""

    denoiser: Denoiser
    known: Float[Tensor, "b c *space"]
    keep: Bool[Tensor, "b 1 *space"]

    def denoise(self, xt: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Denoised:
        """The wrapped denoiser's estimate, with the known values put in."""
        answer = self.denoiser.denoise(xt, t, cond)
        return Denoised(torch.where(self.keep, self.known, answer.x0), answer.variance)

"""Denoisers that wrap a denoiser: guidance by a condition or by a weaker model, and keeping what is known."""

from collections.abc import Collection, Set
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anydit.config import config
from anydit.tensors import MASK, Cond, Denoised, Denoiser, Masked, Tokens, concatenate, null, per_sample

WHOLE = (0.0, 1.0)
"""The interval in which guidance acts when it always acts."""


@config
class Guidance:
    """How strongly to guide: x0 = weak x0 + scale (x0 - weak x0). A scale of 1 is none.

    The weak x0 is that of the null condition (classifier-free guidance, Ho & Salimans 2022), or of another, worse
    denoiser (autoguidance, Karras 2024, arXiv 2406.02507). `scales`: of single conditions, by name, where `scale` is
    for the others. Conditions are then added one after the other, those of `scales` in its order and the others last,
    and each step is taken as strongly as its scale says: x0 = x0(null) + s1 (x0(c1) - x0(null)) + s2 (x0(c1, c2) -
    x0(c1)) + ... (Brooks 2022, arXiv 2211.09800, equation 3). `negative`: texts to guide away from, by the condition's
    name, each in place of its null. `interval`: the times t at which to guide (Kynkaanniemi 2024). `legacy_channels`:
    guide only so many channels, as the published DiT samples were made; None: all.
    """

    scale: float = 1.0
    interval: tuple[float, float] = WHOLE
    legacy_channels: int | None = None
    scales: dict[str, float] = field(default_factory=dict[str, float])
    negative: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for name, scale in {"scale": self.scale, **{f"scales.{k}": v for k, v in self.scales.items()}}.items():
            if not isfinite(scale) or scale < 0:
                raise ValueError(f"{name}: got {scale}, expected a finite number of at least 0")
        if not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise ValueError(f"interval: got {self.interval}, expected 0 <= start < end <= 1")
        if self.legacy_channels is not None and self.legacy_channels < 1:
            raise ValueError(f"legacy_channels: got {self.legacy_channels}, expected at least 1, or None for all")

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""
        return self.scale != 1 or any(scale != 1 for scale in self.scales.values())

    def wrap(
        self,
        denoiser: Denoiser,
        weak: Denoiser | None = None,
        always: Set[str] = frozenset(),
        negative: Cond = MappingProxyType({}),
    ) -> Denoiser:
        """The guided denoiser; `denoiser` itself where every scale is 1. The rest is as in `Guided`."""
        return Guided(denoiser, self, weak, always, negative) if self.acts else denoiser

    def stages(self, names: Collection[str]) -> list[tuple[float, frozenset[str]]]:
        """How strongly to go from null to the conditions of these names, and which are added, stage by stage."""
        stages = list[tuple[float, frozenset[str]]]()
        for scale, added in [
            *((scale, frozenset({name} & set(names))) for name, scale in self.scales.items()),
            (self.scale, frozenset(names).difference(self.scales)),
        ]:
            if added and stages and stages[-1][0] == scale:
                stages[-1] = (scale, stages[-1][1] | added)
            elif added:
                stages.append((scale, added))
        return stages


@dataclass(frozen=True)
class Guided:
    """A denoiser under guidance. Condition and null are one batched call; outside the interval only the first.

    `always`: conditions that are never null, because no null was learned for them; all calls have them. `negative`:
    conditions to guide away from, each in place of its null.
    """

    denoiser: Denoiser
    guidance: Guidance
    weak: Denoiser | None = None
    always: Set[str] = frozenset()
    negative: Cond = field(default_factory=dict[str, Tensor | Masked | Tokens])

    def denoise(self, xt: Float[Tensor, "b c *space"], t: Float[Tensor, " b"], cond: Cond) -> Denoised:
        """The guided estimate; a learned variance is the conditional one.

        Raises:
            ValueError: more legacy channels than the samples have.
        """
        kept = self.guidance.legacy_channels
        if kept is not None and kept > xt.shape[1]:
            raise ValueError(f"legacy_channels: got {kept}, expected at most the samples' {xt.shape[1]}")
        inside = self._inside(t)
        if inside is not None and not bool(inside.any()):
            return self.denoiser.denoise(xt, t, cond)
        strong, guided = self._guided(xt, t, cond)
        if inside is not None:
            guided = torch.where(per_sample(inside, xt), guided, strong.x0)
        # x0 is linear in the network's output at a fixed xt, so guiding some channels of either is the same.
        x0 = guided if kept is None else torch.cat([guided[:, :kept], strong.x0[:, kept:]], dim=1)
        return Denoised(x0, strong.variance)

    def _inside(self, t: Float[Tensor, " b"]) -> Bool[Tensor, " b"] | None:
        """Which samples are guided at their times; None for all of them."""
        low, high = self.guidance.interval
        return None if (low, high) == WHOLE else (t >= low) & (t <= high)

    def _guided(self, xt: Tensor, t: Tensor, cond: Cond) -> tuple[Denoised, Tensor]:
        """The estimate under all conditions, and the guided x0."""
        if self.weak is not None:
            strong, weak = self.denoiser.denoise(xt, t, cond), self.weak.denoise(xt, t, cond).x0
            return strong, weak + self.guidance.scale * (strong.x0 - weak)
        stages = self.guidance.stages([n for n in {**cond, **self.negative} if n != MASK and n not in self.always])
        told: list[Cond] = [{**null(cond, self.always), **self.negative}]
        for _, added in stages:
            rest = {name: value for name, value in told[-1].items() if name not in added}
            told.append({**rest, **{name: cond[name] for name in added if name in cond}})
        if stages and stages[0][0] == 1:  # whose start cancels out
            told, stages = told[1:], stages[1:]
        b, k = len(xt), len(told)
        # The last one first, for its estimate is wanted for itself, too.
        answer = self.denoiser.denoise(torch.cat([xt] * k), torch.cat([t] * k), concatenate(told[::-1], b))
        x0 = answer.x0.chunk(k)[::-1]
        guided = x0[0]
        for (scale, _), low, high in zip(stages, x0[:-1], x0[1:], strict=True):
            guided = guided + scale * (high - low)
        return Denoised(x0[-1], None if answer.variance is None else answer.variance[:b]), guided


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

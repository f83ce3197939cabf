"""Pairs of sample and measurement: models trained on them are the supervised counterpart of a prior."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import check_at_least, check_positive, config
from anydit.data import Data, Digits, Part, Samples
from anydit.data.base import Facts
from anydit.inverse.measurement import Measurement
from anydit.inverse.operators import MRI, AnyOperator
from anydit.tensors import Batch

MEASURED = "measured"
"""The condition, a field: what a measurement shows by itself, on the data's own scale."""


@config
class Measured(Data):
    """Samples of `data` with the condition "measured": what the operator shows of each by itself, as if zero-filled.

    `sigma`: the noise's deviation, on the scale on which `bounds` of the data are 0 and 1 (None: the data's own).
    `masks`: how many different masks there are, where the operator draws one; those of held-out data are others.
    """

    data: Data = field(default_factory=Digits)
    operator: AnyOperator = MRI()
    sigma: float = 0.01
    bounds: tuple[float, float] | None = None
    masks: int = 1

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        check_at_least("masks", self.masks, 1)

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        return self.data.sizes

    def open(self, part: Part) -> Samples:
        samples = self.data.open(part)
        if MEASURED in samples.facts.conditions:
            raise ValueError(f"data.data: got data with a condition {MEASURED!r} of their own, expected none")
        opened = MeasuredSamples(samples, self, part)
        opened.read(torch.tensor([0]))  # refuses an operator that cannot measure such samples
        return opened


@dataclass(frozen=True)
class MeasuredSamples:
    """Samples, each measured with a mask and noise that follow from its id."""

    samples: Samples
    how: Measured
    part: Part

    @property
    def facts(self) -> Facts:
        """Those of the data, and the measurement's channels."""
        facts = self.samples.facts
        return replace(facts, fields={**facts.fields, MEASURED: facts.channels})

    @cached_property
    def physics(self) -> list[Any]:
        """Deepinv's, one for each mask."""
        how, shape = self.how, (self.samples.facts.channels, *self.samples.facts.size)
        if not any(f.name == "seed" for f in fields(how.operator)):
            return [how.operator.build(shape, how.sigma)]
        first = 1 if self.part == "train" else 0
        seeds = [2 * mask + first for mask in range(how.masks)]
        return [replace(how.operator, seed=seed).build(shape, how.sigma) for seed in seeds]  # pyright: ignore

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        from anydit.inverse.classical import plainly  # imports deepinv, which recipes must not need to be listed

        batch, shown = self.samples.read(ids), list[Tensor]()
        low, high = self.how.bounds or (0.0, 1.0)
        for number, x in zip(ids.tolist(), batch.x.split(1), strict=True):
            physics = self.physics[number % len(self.physics)]
            physics.noise_model.rng_manual_seed(number)
            y = physics((x - low) / (high - low))
            shown.append(plainly(Measurement(y, physics, self.how.sigma, self.how.bounds)))
        return replace(batch, cond={**batch.cond, MEASURED: torch.cat(shown)})

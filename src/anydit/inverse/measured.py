"""Pairs of sample and measurement: models trained on them are the supervised counterpart of a prior."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from anydit.config import Json, check_at_least, check_positive, config
from anydit.data import Data, Digits, Part, Samples
from anydit.data.base import Facts
from anydit.inverse.corrections import AnyCorrection, Conditional, MomentMatching
from anydit.inverse.measurement import Measurement
from anydit.inverse.operators import MRI, AnyOperator, Operator
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


def usual(conditions: Collection[str]) -> AnyCorrection:
    """How a model with such conditions takes in what was measured, where nothing is said of it.

    Where it is told in a condition, a correction would count it twice, and make samples surer than they should be.
    """
    return Conditional() if MEASURED in conditions else MomentMatching()


def trained_on(recipe: Json, bounds: tuple[float, float] | None, operator: Operator) -> str | None:
    """What a run was told of, as its `recipe.json` says; None where no measurement was. `bounds`: the view's.

    Raises:
        ValueError: that was another kind of operator's, or on a scale with another black, so that the same measurement
            showed something else in training.
    """
    data: Json = recipe.get("data", {})
    if data.get("type") != Measured.__name__:
        return None
    told = dict(data["operator"])
    kind, got = told.pop("type"), type(operator).__name__
    if kind != got:
        raise ValueError(f"physics: got {got}, expected {kind}, on whose measurements alone the model was trained")
    own = data["bounds"]
    if (own or (0.0,))[0] != (bounds or (0.0,))[0]:
        raise ValueError(f"data.bounds: got {own}, with which the model was trained, expected the view's, {bounds}")
    how = ", ".join(f"{name} {value:g}" for name, value in told.items() if name != "seed")
    return f"the model was trained on {kind} ({how}) with noise of deviation {data['sigma']:g}"

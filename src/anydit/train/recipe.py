"""A recipe: everything about a run. What it leaves open is filled in from the data before anything is trained."""

from collections.abc import Callable, Iterator
from dataclasses import field, replace
from typing import TypeVar

import torch

from anydit.config import config
from anydit.data import Data, Digits, Samples
from anydit.diffusion.losses import AnyWeight, Objective, Plain, VariationalBound
from anydit.diffusion.times import AnyTrainingTimes, Discrete, Uniform
from anydit.inference.config import PipelineConfig
from anydit.model.conditioning import Condition, Label, Numbers
from anydit.model.tokens import grid_of
from anydit.tensors import Batch
from anydit.train.optim import AdamW, AnySchedule, Constant


@config
class TrainConfig:
    """How to train. One step is one update of the weights from `batch` samples.

    `steps`: in all. `times`: which t to train at, `stratified` over the batch. `bound`: for a learned variance.
    `accumulate`: parts that a batch is cut into to save memory. `clip`: largest norm of the gradient. `ema_decay`: of
    the averaged weights that sampling uses. `bf16`: products in bfloat16. `compile`: each block by torch.compile.
    `max_skipped`: how many steps in a row may be not finite. `keep`: how many checkpoints to keep.
    """

    steps: int = 10_000
    batch: int = 128
    seed: int = 0
    times: AnyTrainingTimes = Uniform()
    stratified: bool = True
    weight: AnyWeight = Plain()
    bound: VariationalBound = VariationalBound()
    optimizer: AdamW = AdamW()
    schedule: AnySchedule = Constant()
    clip: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.9999
    bf16: bool = False
    compile: bool = False
    workers: int = 0
    log_every: int = 10
    sample_every: int = 1000
    save_every: int = 1000
    keep: int = 2
    max_skipped: int = 20
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "log_every", "sample_every", "save_every", "keep", "max_skipped"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}: got {getattr(self, name)}, expected at least 1")
        if self.batch % self.accumulate:
            raise ValueError(f"train.accumulate: got {self.accumulate}, expected a divisor of train.batch {self.batch}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay: got {self.ema_decay}, expected at least 0 and below 1")
        if not self.clip > 0:
            raise ValueError(f"train.clip: got {self.clip}, expected a number above 0 (inf for no clipping)")


RESUMABLE = frozenset(
    f"train.{name}" for name in ("steps", "log_every", "sample_every", "save_every", "keep", "workers", "tensorboard")
)
"""Fields that a resumed run may change, because what was trained so far would be the same."""


@config
class Recipe(PipelineConfig):
    """A pipeline, the data that it learns from, and how."""

    data: Data = field(default_factory=Digits)
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        PipelineConfig.__post_init__(self)  # pyright: ignore[reportUnknownMemberType]
        size = getattr(self.data, "size", None)
        if size is not None:
            grid_of(self.codec.latent_size(tuple(size)), self.model.patch)
        if self.model.learned_variance and not isinstance(self.train.times, Discrete):
            got = type(self.train.times).__name__
            raise ValueError(
                f"train.times: got {got} with model.learned_variance, whose bound is over discrete steps; "
                "expected Discrete"
            )

        if self.model.learned_variance and self.train.times != Discrete(self.train.bound.steps):
            raise ValueError(
                f"train.bound.steps: got {self.train.bound.steps}, expected those of train.times: {self.train.times}"
            )

    @property
    def objective(self) -> Objective:
        """The loss that this recipe minimises."""
        bound = self.train.bound if self.model.learned_variance else None
        return Objective(self.path, self.prediction, self.train.weight, bound)


R = TypeVar("R", bound=PipelineConfig)


def resolved(recipe: R, samples: Samples, note: Callable[[str], None] = print) -> R:
    """`recipe` with all that it leaves to the data filled in; `note` is told what was left out for want of data.

    Raises:
        ValueError: the recipe says something that the data contradicts.
    """
    facts = samples.facts
    codec = recipe.codec.measured(batch.x for batch in _all(samples))
    channels, size = codec.latent_channels(facts.channels), codec.latent_size(facts.size)
    model = recipe.model
    for name, got, expected in (("channels", model.channels, channels), ("size", model.size, size)):
        if got is not None and got != expected:
            raise ValueError(f"model.{name}: got {got}, expected {expected}, which the data has")
    conditions = dict[str, Condition]()
    for name, condition in model.conditions.items():
        if name in facts.conditions:
            conditions[name] = _resolved(name, condition, samples)
        elif isinstance(condition, Label) and condition.classes is None:
            note(f"The data has no {name}: the model is not conditioned on it.")
        else:
            raise ValueError(f"model.conditions: got {name}, expected one of: {', '.join(facts.conditions) or 'none'}")
    model = replace(model, channels=channels, size=size, conditions=conditions)
    return replace(recipe, model=model, codec=codec)


def _resolved(name: str, condition: Condition, samples: Samples) -> Condition:
    if isinstance(condition, Label):
        names = samples.facts.classes[name]
        if condition.classes is not None and condition.classes < len(names):
            raise ValueError(f"model.conditions.{name}.classes: got {condition.classes}, expected {len(names)} or more")
        if condition.classes is not None and condition.classes > len(names):
            return condition
        return replace(condition, classes=len(names), names=condition.names or names)
    if isinstance(condition, Numbers) and condition.mean is None:
        values = torch.cat([batch.cond[name] for batch in _all(samples)]).double()
        std = values.std(0, correction=0)
        std = torch.where(std > 0, std, torch.ones_like(std))
        return replace(condition, mean=tuple(values.mean(0).tolist()), std=tuple(std.tolist()))
    return condition


def _all(samples: Samples, at_once: int = 256) -> Iterator[Batch]:
    """All samples in order, batch by batch; nothing is read until the first is asked for."""
    return (samples.read(ids) for ids in torch.arange(len(samples)).split(at_once))

"""A recipe: everything about a run. What it leaves open is filled in from the data before anything is trained."""

from collections.abc import Callable, Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from anydit.codecs.normalize import moments
from anydit.config import Json, check_at_least, config, differences, to_json
from anydit.data import Data, Digits, Facts, Samples
from anydit.diffusion.losses import AnyWeight, Objective, Plain, VariationalBound
from anydit.diffusion.times import AnyTrainingTimes, Discrete, Uniform
from anydit.inference.config import PipelineConfig
from anydit.model.conditioning import Condition, Field, Label, Numbers, Text
from anydit.model.dit import DiT
from anydit.model.tokens import grid_of
from anydit.tensors import Batch, Tokens
from anydit.train.lora import LoRA
from anydit.train.optim import AdamW, AnySchedule, Constant


@config
class TrainConfig:
    """How to train. One step is one update of the weights from `batch` samples.

    `steps`: in all. `times`: which t to train at, `stratified` over the batch. `bound`: for a learned variance.
    `accumulate`: parts that a batch is cut into to save memory. `clip`: largest norm of the gradient. `ema_decay`: of
    the averaged weights that sampling uses. `adapter`: train this beside a model to begin with, and not the model.
    `bf16`: products in bfloat16. `compile`: each block by torch.compile. `max_skipped`: how many steps in a row may be
    not finite. `keep`: how many checkpoints to keep.
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
    adapter: LoRA | None = None
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
            check_at_least(f"train.{name}", getattr(self, name), 1)
        check_at_least("train.workers", self.workers, 0)
        if self.batch % self.accumulate:
            raise ValueError(f"train.accumulate: got {self.accumulate}, expected a divisor of train.batch {self.batch}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"train.ema_decay: got {self.ema_decay}, expected at least 0 and below 1")
        if not self.clip > 0:
            raise ValueError(f"train.clip: got {self.clip}, expected a number above 0 (inf for no clipping)")

    def rate(self, step: int) -> float:
        """The learning rate at `step`, the first being 0."""
        return self.optimizer.lr * self.schedule.factor(step, self.steps)


RESUMABLE = (
    "train.steps.",
    "train.max_skipped.",
    "train.keep.",
    "train.workers.",
    "train.tensorboard.",
    "train.log_every.",
    "train.sample_every.",
    "train.save_every.",
    "data.cache.",
    "data.bad_limit.",
    "sampling.",
    "view.",
)
"""Fields, with all in them, that a resumed run may change, because what was trained so far would be the same."""


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


def refuse_unbuildable(recipe: Recipe) -> None:
    """Build the network without memory where the recipe leaves nothing to the data, so that faults show before work."""
    if recipe.model.complete:
        with torch.device("meta"):
            model = DiT(recipe.model)
        if recipe.train.adapter is not None:
            recipe.train.adapter.products(model)


def refuse_differences(saved: Json, recipe: Recipe, out: Path) -> None:
    """Refuse to go on in `out`, whose recipe was `saved`, with one that would have trained otherwise so far."""
    changed = [d for d in differences(saved, to_json(recipe)) if not f"{d[0]}.".startswith(RESUMABLE)]
    if changed:
        what = "; ".join(f"{name}: was {old!r}, is {new!r}" for name, old, new in changed[:8])
        raise ValueError(f"out: {out} holds a run of another recipe ({what}); choose another folder or the same recipe")


R = TypeVar("R", bound=PipelineConfig)


def resolved(recipe: R, samples: Samples, note: Callable[[str], None] = print) -> R:
    """`recipe` with all that it leaves to the data filled in.

    A condition that leaves to the data what it is, is left out where the data has none. `note` is told of those, and of
    what the data knows and the model is not told.

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
    conditions, absent = dict[str, Condition](), list[str]()
    for name, condition in model.conditions.items():
        if name in facts.conditions:
            conditions[name] = _resolved(name, condition, samples)
        elif condition == type(condition)(dropout=condition.dropout):
            absent.append(name)
        else:
            raise ValueError(f"model.conditions: got {name}, expected one of: {', '.join(facts.conditions) or 'none'}")
    if absent:
        note(f"The model is not conditioned on {' or '.join(absent)}: the data has none.")
    for name in facts.conditions:
        if name not in model.conditions:
            kind = _kind(name, facts).__name__
            note(f"The model is not told of {name}, which the data has; --model.conditions.{name} {kind} tells it.")
    model = replace(model, channels=channels, size=size, conditions=conditions)
    return replace(recipe, model=model, codec=codec, view=recipe.view.like(facts))


def _kind(name: str, facts: Facts) -> type[Condition]:
    """The condition that the data has by this name."""
    if name in facts.texts:
        return Text
    return Label if name in facts.classes else Numbers if name in facts.numbers else Field


def _resolved(name: str, condition: Condition, samples: Samples) -> Condition:
    facts, at = samples.facts, f"model.conditions.{name}"
    kind = _kind(name, facts)
    if not isinstance(condition, kind):
        raise ValueError(f"{at}: got {type(condition).__name__}, expected {kind.__name__}, which the data has")
    if isinstance(condition, Label):
        return _with_classes(condition, facts.classes[name], at)
    if isinstance(condition, Text):
        return _with_widths(condition, samples.read(torch.zeros(1, dtype=torch.long)).cond.get(name), at)
    if isinstance(condition, Numbers):
        names = facts.numbers[name]
        if condition.names is not None and len(condition.names) != len(names):
            raise ValueError(f"{at}.names: got {condition.names}, expected as many as the data has: {names}")
        condition = replace(condition, names=condition.names or names)
    else:
        channels = facts.fields[name]
        if condition.channels not in (None, channels):
            raise ValueError(f"{at}.channels: got {condition.channels}, expected {channels}, which the data has")
        condition = replace(condition, channels=channels)
    if condition.complete:
        return condition
    mean, std = moments(batch.tensor(name) for batch in _all(samples))
    return replace(condition, mean=mean, std=std)


def _with_classes(condition: Label, names: tuple[str, ...], at: str) -> Label:
    if condition.classes is not None and condition.classes < len(names):
        raise ValueError(f"{at}.classes: got {condition.classes}, expected {len(names)} or more")
    if condition.classes is not None and condition.classes > len(names):
        return condition
    return replace(condition, classes=len(names), names=condition.names or names)


def _with_widths(condition: Text, given: Tensor | Tokens | None, at: str) -> Text:
    """A text whose encoder has been at work already has its widths."""
    if not isinstance(given, Tokens):
        return condition
    widths = {"width": given.values.shape[2], "pooled": None if given.pooled is None else given.pooled.shape[1]}
    for side, width in widths.items():
        own = getattr(condition, side)
        if own not in (None, width):
            raise ValueError(f"{at}.{side}: got {own}, expected {width}, which the encoder has")
    return replace(condition, **widths)


def _all(samples: Samples, at_once: int = 256) -> Iterator[Batch]:
    """All samples in order, batch by batch; nothing is read until the first is asked for."""
    return (samples.read(ids) for ids in torch.arange(len(samples)).split(at_once))

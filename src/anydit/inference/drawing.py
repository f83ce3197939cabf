"""Samples as a person asks for them: whole, completed where something of them is known, or going on from there."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.data import View
from anydit.data.known import KNOWN, PAST
from anydit.inference.conditions import Given, as_numbers
from anydit.inference.config import Sampling
from anydit.inference.files import FromFiles
from anydit.inference.job import OnStep
from anydit.inference.pipeline import Pipeline
from anydit.inference.rollout import rollout, rollout_along
from anydit.model.conditioning import Numbers


@dataclass(frozen=True)
class Asked:
    """What to draw: how many samples, under which conditions, how, and what files tell.

    `length`: of samples that go on in time from what is known. `states`: how many follow those that are known.
    """

    n: int = 1
    cond: dict[str, Given] = field(default_factory=dict[str, Given])
    files: tuple[FromFiles, ...] = ()
    sampling: Sampling | None = None
    seed: int = 0
    size: tuple[int, ...] | None = None
    length: int | None = None
    states: int | None = None
    batch: int | None = None

    def told(self, name: str) -> FromFiles | None:
        """What files tell by a condition."""
        return next((each for each in self.files if each.name == name), None)

    def others(self, name: str | None = None) -> dict[str, Given]:
        """All conditions but one."""
        return self.cond | {told.name: told.value for told in self.files if told.name != name}


class Drawn(NamedTuple):
    """Samples on the data's own scale, and the view by which each is written where and when it belongs."""

    x: Float[Tensor, "n c *space"]
    views: list[View]


def drawn(pipeline: Pipeline, asked: Asked, on_step: OnStep | None = None) -> Drawn:
    """Draw what is asked for; values of samples that are known stay as they are.

    Raises:
        ValueError: the model cannot serve it, or files do not tell what it takes.
    """
    known, past = asked.told(KNOWN), asked.told(PAST)
    if asked.length is not None:
        if asked.states is not None:
            raise ValueError(f"states: got {asked.states} beside --length, expected one of them")
        return _along(pipeline, asked, _begun(pipeline, asked, asked.length), asked.length, on_step)
    if asked.states is not None:
        if past is None:
            raise ValueError(f"states: got {asked.states}, expected --{PAST} FILE, the states to go on from")
        return _ahead(pipeline, asked, past, asked.states, on_step)
    x = pipeline.sample(asked.n, asked.others(), seed=asked.seed, size=asked.size, batch=asked.batch,
                        sampling=asked.sampling, on_step=on_step)  # fmt: skip
    if known is not None and known.partial:
        return Drawn(completed(x, known), _each([window.view for window in known.windows], asked.n))
    views = _following(past, asked.n) if past else _beside(pipeline, asked)
    return Drawn(x, views or _placed(pipeline, asked, tuple(x.shape[2:])))


def completed(x: Float[Tensor, "n c *space"], known: FromFiles) -> Float[Tensor, "n c *space"]:
    """Samples with what is known of them as it is."""
    part = torch.stack([window.x for window in known.windows])
    return torch.where(part.isnan(), x, part)


def _begun(pipeline: Pipeline, asked: Asked, length: int) -> FromFiles:
    """The files from which samples go on up to a length."""
    known = asked.told(KNOWN)
    if KNOWN not in pipeline.config.model.conditions or (known is not None and not known.partial):
        raise ValueError(f"length: got {length}, expected none: this model cannot be told what samples begin with")
    if known is None:
        raise ValueError(f"length: got {length}, expected --{KNOWN} FILE, to go on from there")
    return known


def _along(pipeline: Pipeline, asked: Asked, known: FromFiles, length: int, on_step: OnStep | None) -> Drawn:
    """Samples that begin as the files say, and go on up to a length."""
    axis = pipeline.config.view.time_axis
    if axis is None:
        raise ValueError(f"length: got {length}, expected none: the samples have no axis of time to go on along")
    at_once = pipeline.config.data_size[axis]
    if known.size[axis] != at_once:
        got = f"{known.size[axis]} places in time beside --length"
        raise ValueError(f"size: got {got}, expected {at_once}: so many were drawn at once in training")
    have, *others = sorted({x.shape[axis + 1] for x, _ in known.loaded})
    if others:
        raise ValueError(f"{KNOWN}: got files of {have} to {others[-1]} places in time, expected as many in each")
    if have >= length:
        raise ValueError(f"length: got {length}, expected more than the {have} places in time that are known")
    first = torch.stack([x for x, _ in known.loaded])
    if bool(first.isnan().any()):
        raise ValueError(f"length: got {length} for a file with gaps, expected one without; gaps are filled without it")
    x = rollout_along(
        pipeline, _repeated(first, asked.n), length, asked.others(KNOWN), axis=axis,
        known=min(have, known.usual(known.size[axis])), sampling=asked.sampling, seed=asked.seed,
        batch=asked.batch, on_step=on_step,
    )  # fmt: skip
    return Drawn(x, _each([view for _, view in known.loaded], asked.n))


def _ahead(pipeline: Pipeline, asked: Asked, past: FromFiles, states: int, on_step: OnStep | None) -> Drawn:
    """Samples of so many states that follow those in files."""
    x = rollout(
        pipeline, _repeated(past.value, asked.n), states, asked.others(PAST),
        channels=pipeline.config.view.state_channels,
        sampling=asked.sampling, seed=asked.seed, batch=asked.batch, on_step=on_step,
    )  # fmt: skip
    return Drawn(x.flatten(1, 2), _following(past, asked.n))


def _placed(pipeline: Pipeline, asked: Asked, size: tuple[int, ...]) -> list[View]:
    """The view of each sample, where the numbers that are told of it say that it lies."""
    told = list[dict[str, float]]({} for _ in range(asked.n))
    for name, condition in pipeline.config.model.conditions.items():
        if isinstance(condition, Numbers) and condition.names and name in asked.cond:
            values = as_numbers(name, asked.cond[name]).reshape(-1, len(condition.names))
            for of_one, numbers in zip(told, values.expand(asked.n, -1).tolist(), strict=True):
                of_one |= dict(zip(condition.names, numbers, strict=True))
    return [pipeline.config.view.at(of_one, size) for of_one in told]


def _beside(pipeline: Pipeline, asked: Asked) -> list[View] | None:
    """The view of each sample that files tell something of, where these say when or where that is."""
    told = ([view for _, view in each.loaded] for each in asked.files)
    found = next((views for views in told if views != [pipeline.config.view] * len(views)), None)
    return found and _each(found, asked.n)


def _following(past: FromFiles, n: int) -> list[View]:
    """The view of each sample that comes after states in files."""
    return _each([view.after(x) for x, view in past.loaded], n)


def _repeated(x: Tensor, n: int) -> Tensor:
    """One for all, or one for each."""
    if len(x) not in (1, n):
        raise ValueError(f"n: got {n} samples of {len(x)} that are known, expected as many")
    return x.expand(n, *x.shape[1:])


def _each(views: list[View], n: int) -> list[View]:
    """One for all, or one for each."""
    return views * n if len(views) == 1 else views

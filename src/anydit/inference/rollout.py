"""Going on from what came before, step by step, further than a model was trained to go at once."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.data.known import KNOWN, PAST, told
from anydit.inference.conditions import Given
from anydit.inference.config import Sampling
from anydit.inference.job import OnStep
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Field

SEEDS = 2**32
"""Seeds lie below it, so that each step of a rollout has noise of its own."""


def rollout(
    pipeline: Pipeline,
    past: Float[Tensor, "n cp *space"],
    states: int,
    cond: Mapping[str, Given] | None = None,
    *,
    name: str = PAST,
    channels: int | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "n t c *space"]:
    """Draw what follows `past`, then what follows that, until there are so many `states`, on the data's own scale.

    `name`: of the field condition that holds the states before, their channels one after the other, the oldest first;
    samples are the states after them, alike. `channels`: of one state (None: of a whole sample). `cond`: everything
    else that is known, the same at every step. The rest is as in `Pipeline.sample`; member i depends on `seed` and i.

    Raises:
        ValueError: the model is not told of what came before, or an argument that the model cannot serve.
    """
    _field(pipeline, name, "holds the states before")
    _check_seed(seed)
    if states < 1:
        raise ValueError(f"states: got {states}, expected at least 1")
    made = list[Tensor]()
    while sum(part.shape[1] for part in made) < states:
        given = {**(cond or {}), name: past}
        x = pipeline.sample(
            len(past), given, sampling=sampling, seed=seed + SEEDS * len(made), batch=batch,
            size=tuple(past.shape[2:]), on_step=on_step,
        )  # fmt: skip
        each = channels or x.shape[1]
        if x.shape[1] % each or past.shape[1] % each:
            got = f"{x.shape[1]} channels of a sample and {past.shape[1]} of {name}"
            raise ValueError(f"channels: got {each}, expected a divisor of {got}")
        made.append(x.unflatten(1, (-1, each)))
        past = torch.cat([past, x], dim=1)[:, -past.shape[1] :]
    return torch.cat(made, dim=1)[:, :states]


def rollout_along(
    pipeline: Pipeline,
    first: Float[Tensor, "n c *space"],
    length: int,
    cond: Mapping[str, Given] | None = None,
    *,
    axis: int = 0,
    known: int | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "n c *longer"]:
    """Go on along an axis of the samples, further than they are long, until they have `length` places there.

    `first`: the places that are known, on the data's own scale; they begin the result. Each sample is told of the last
    `known` places that there are by then (None: as many as `first` has) by the condition "known" (see
    `anydit.data.known`), and what it draws after them comes next. `axis`: of those after the channels. The rest is as
    in `rollout`.

    Raises:
        ValueError: the model is not told of what is known, or an argument that the model cannot serve.
    """
    condition = _field(pipeline, KNOWN, "holds what is known")
    _check_seed(seed)
    window = pipeline.config.data_size
    if condition.channels != 2 * first.shape[1] or len(window) != first.ndim - 2:
        expected = f"half of the {condition.channels} channels of {KNOWN}, and {len(window)} axes"
        raise ValueError(f"first: got shape {tuple(first.shape)}, expected {expected}")
    if not 0 <= axis < len(window) or length < 1:
        raise ValueError(f"axis, length: got {axis}, {length}, expected 0 to {len(window) - 1}, and at least 1")
    place, at_once = 2 + axis, window[axis]
    known = first.shape[place] if known is None else known
    if not 0 < known < at_once or known > first.shape[place]:
        got = f"{known} of {first.shape[place]} places along axis {axis}"
        raise ValueError(f"first, known: got {got}, expected 1 to {at_once - 1} of those that there are")
    fill = (condition.mean or ())[: first.shape[1]]
    made, clips = first, 0
    while made.shape[place] < length:
        last = made.narrow(place, made.shape[place] - known, known)
        beginning = _beginning(last, place, at_once, fill)
        x = pipeline.sample(
            len(first), {**(cond or {}), KNOWN: beginning}, sampling=sampling, seed=seed + SEEDS * clips, batch=batch,
            size=tuple(beginning.shape[2:]), on_step=on_step,
        )  # fmt: skip
        made, clips = torch.cat([made, x.narrow(place, known, at_once - known)], dim=place), clips + 1
    return made.narrow(place, 0, length)


def _beginning(last: Tensor, place: int, count: int, fill: Sequence[float]) -> Tensor:
    """The condition that tells `last` as the beginning of `count` places along the dimension `place`."""
    empty = last.narrow(place, 0, 1).repeat_interleave(count - last.shape[place], place)
    whole = torch.cat([last, torch.full_like(empty, torch.nan)], dim=place)
    return told(whole, ~whole.isnan(), fill)


def _field(pipeline: Pipeline, name: str, what: str) -> Field:
    condition = pipeline.config.model.conditions.get(name)
    if not isinstance(condition, Field):
        raise ValueError(f"name: got {name!r}, expected a field condition of the model, which {what}")
    return condition


def _check_seed(seed: int) -> None:
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed: got {seed}, expected 0 to {SEEDS - 1}")

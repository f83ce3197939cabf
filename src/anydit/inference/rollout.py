"""Going on from what came before, step by step, further than a model was trained to go at once."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.inference.conditions import Given
from anydit.inference.config import Sampling
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
    name: str = "past",
    channels: int | None = None,
    steps: int | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Float[Tensor, "n t c *space"]:
    """Draw what follows `past`, then what follows that, until there are so many `states`, on the data's own scale.

    `name`: of the field condition that holds the states before, their channels one after the other, the oldest first;
    samples are the states after them, alike. `channels`: of one state (None: of a whole sample). `cond`: everything
    else that is known, the same at every step. The rest is as in `Pipeline.sample`; member i depends on `seed` and i.

    Raises:
        ValueError: the model is not told of what came before, or an argument that the model cannot serve.
    """
    condition = pipeline.config.model.conditions.get(name)
    if not isinstance(condition, Field):
        raise ValueError(f"name: got {name!r}, expected a field condition of the model, which holds the states before")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed: got {seed}, expected 0 to {SEEDS - 1}")
    if states < 1:
        raise ValueError(f"states: got {states}, expected at least 1")
    made = list[Tensor]()
    while sum(part.shape[1] for part in made) < states:
        told = {**(cond or {}), name: past}
        x = pipeline.sample(
            len(past), told, steps=steps, sampling=sampling, seed=seed + SEEDS * len(made), batch=batch,
            size=tuple(past.shape[2:]),
        )  # fmt: skip
        each = channels or x.shape[1]
        if x.shape[1] % each or past.shape[1] % each:
            got = f"{x.shape[1]} channels of a sample and {past.shape[1]} of {name}"
            raise ValueError(f"channels: got {each}, expected a divisor of {got}")
        made.append(x.unflatten(1, (-1, each)))
        past = torch.cat([past, x], dim=1)[:, -past.shape[1] :]
    return torch.cat(made, dim=1)[:, :states]

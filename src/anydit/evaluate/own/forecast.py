"""Forecasts as ensembles, further and further ahead: how good, beside what stays as it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from anydit.evaluate.distances import crps
from anydit.inference.conditions import Given
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inference.rollout import rollout
from anydit.tensors import select


@dataclass(frozen=True)
class Scores:
    """Of each state ahead, in deviations of each channel: how far the forecast is from what came.

    `crps`: of the ensemble. `error`: of its mean (root mean square). `spread`: as large as that where the ensemble is
    honest. `persistence`: the CRPS, which is the mean absolute error, of the last state known. `members`: the ensemble
    itself, on the data's own scale.
    """

    crps: tuple[float, ...]
    error: tuple[float, ...]
    spread: tuple[float, ...]
    persistence: tuple[float, ...]
    members: Float[Tensor, "m n t c *space"]


def forecast(
    pipeline: Pipeline,
    past: Float[Tensor, "n cp *space"],
    truth: Float[Tensor, "n t c *space"],
    scale: Float[Tensor, " c"],
    members: int = 8,
    *,
    cond: Mapping[str, Tensor] | None = None,
    name: str = "past",
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Scores:
    """Roll out an ensemble of so many `members` from each `past`, as far as the `truth` goes, and compare.

    `scale`: each channel's deviation. `cond`: what else is known of each past. A single member makes one forecast, as a
    network does that was not trained to draw samples.

    Raises:
        ValueError: as `rollout` does.
    """
    every = torch.arange(len(past)).repeat(members)
    known: dict[str, Given] = {**select(cond or {}, every)}
    states = rollout(
        pipeline, past[every], truth.shape[1], known, name=name, channels=truth.shape[2], sampling=sampling, seed=seed
    )
    drawn = states.unflatten(0, (members, len(past)))
    unit = scale.reshape(-1, *(1,) * (truth.ndim - 3))
    last = past[:, -truth.shape[2] :, None].transpose(1, 2)
    pairs = [spread_and_error(a / unit, b / unit) for a, b in zip(drawn.unbind(2), truth.unbind(1), strict=True)]
    return Scores(
        crps=_by_lead(crps(drawn / unit, truth / unit)),
        error=tuple(error for _, error in pairs),
        spread=tuple(spread for spread, _ in pairs),
        persistence=_by_lead(((truth - last) / unit).abs()),
        members=drawn,
    )


def _by_lead(x: Float[Tensor, "n t *rest"]) -> tuple[float, ...]:
    return tuple(float(one) for one in x.transpose(0, 1).flatten(1).double().mean(1))


def spread_and_error(members: Float[Tensor, "m n *shape"], truth: Float[Tensor, "n *shape"]) -> tuple[float, float]:
    """An ensemble's deviation about its mean, as large as the mean's error where it is honest; and that error.

    Both are roots of mean squares; the spread is corrected for the size of the ensemble (Fortin 2014, eq. 15).
    """
    m = len(members)
    error = float((members.mean(0) - truth).double().square().mean().sqrt())
    if m == 1:
        return 0.0, error
    return sqrt((m + 1) / m * float(members.double().var(0).mean())), error

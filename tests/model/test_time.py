"""The time's embedding."""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from anydit.model.time import TimeEmbedding, TimeVector

WIDTH = 16


def published_time(vector: TimeVector, index: Tensor) -> Tensor:
    """The published embedding of the steps' indices."""
    omega = torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float32) / 128)
    angles = index.float()[:, None] * omega
    return vector.down(torch.nn.functional.silu(vector.up(torch.cat([angles.cos(), angles.sin()], dim=1))))


@pytest.mark.parametrize("steps", [1000, 250, 4000])
def test_time_is_the_published_index_exactly(steps: int) -> None:
    vector = TimeVector(TimeEmbedding(scale=steps), WIDTH)
    index = torch.arange(steps)
    for t in ((index + 1) / steps, ((index.double() + 1) / steps).float(), (index.double() + 1) / steps):
        assert torch.equal(vector(t), published_time(vector, index))


@pytest.mark.parametrize("scale", [1.0, 1000.0, 0.1])
def test_near_times_stay_apart_at_any_scale(scale: float) -> None:
    vector = TimeVector(TimeEmbedding(scale=scale, shift=0.0, max_period=1.5), WIDTH)
    places = torch.linspace(0.5, 0.5001, 20)
    assert len(vector(places).unique(dim=0)) == 20


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.0},
        {"scale": math.inf},
        {"shift": math.nan},
        {"frequencies": 3},
        {"frequencies": 0},
        {"max_period": 1.0},
    ],
)
def test_time_embeddings_that_are_none_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        TimeEmbedding(**cast("Any", change))

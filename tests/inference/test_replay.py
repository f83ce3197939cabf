"""A network as a CUDA graph."""

import pytest
import torch

from anydit.codecs import Normalize
from anydit.inference.config import PipelineConfig
from anydit.inference.pipeline import Pipeline
from anydit.inference.replay import Replayed, replay
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig

MODEL = DiTConfig(width=32, depth=2, heads=2, patch=(2,), channels=1, size=(8,), conditions={"label": Label(3)})
"""Guidance calls it with twice the batch, and with nothing told for half of that."""


def pipeline() -> Pipeline:
    pipe = Pipeline(PipelineConfig(model=MODEL, codec=Normalize((0.0,), (1.0,))))
    for p in pipe.model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return pipe


def test_without_a_gpu_it_is_refused():
    with pytest.raises(ValueError, match="replay: got a network on cpu, expected one on a GPU"):
        replay(pipeline())


def test_gradients_are_refused():
    pipe = pipeline()
    with pytest.raises(ValueError, match="replay: got a call with gradients"):
        Replayed(pipe.model)(torch.zeros(1, 1, 8), torch.zeros(1), {})


@pytest.mark.gpu
def test_samples_are_the_same_and_shapes_come_and_go():
    """Several batches with and without guidance, the last of them smaller, and more shapes than are kept."""
    pipe = pipeline().to("cuda")
    told = {"label": [0, 1, 2, 0, 1]}
    plain = [pipe.sample(5, told, steps=4, guidance=g, batch=2) for g in (1.0, 3.0)]
    replay(pipe, shapes=2)
    for _ in range(2):
        got = [pipe.sample(5, told, steps=4, guidance=g, batch=2) for g in (1.0, 3.0)]
        for one, other in zip(got, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

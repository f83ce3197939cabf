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


@torch.no_grad()
def test_samples_elsewhere_than_on_a_gpu_are_refused():
    """As those of a pipeline that was moved after it was replayed."""
    with pytest.raises(ValueError, match="replay: got samples on cpu, expected them on a GPU; move the pipeline back"):
        Replayed(pipeline().model)(torch.zeros(1, 1, 8), torch.zeros(1), {})


@pytest.mark.gpu
def test_weights_that_were_moved_are_read_where_they_are():
    """Something else comes to lie where they lay."""
    pipe = pipeline().to("cuda")
    plain = pipe.sample(2, {"label": 1}, steps=2)
    replay(pipe)
    torch.testing.assert_close(pipe.sample(2, {"label": 1}, steps=2), plain, rtol=1e-4, atol=1e-4)
    pipe.to("cpu")
    instead = [torch.full_like(p, torch.nan, device="cuda") for p in pipe.model.parameters()]
    pipe.to("cuda")
    assert instead
    torch.testing.assert_close(pipe.sample(2, {"label": 1}, steps=2), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="of another GPU than the current one")
def test_another_gpu_than_the_current_one():
    pipe = pipeline().to("cuda:1")
    plain = pipe.sample(2, {"label": 1}, steps=2)
    replay(pipe)
    for _ in range(2):
        torch.testing.assert_close(pipe.sample(2, {"label": 1}, steps=2), plain, rtol=1e-4, atol=1e-4)


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

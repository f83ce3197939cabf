"""Going on from what came before: the order of states, the noise of each step, and what is refused."""

import pytest
import torch

from anydit.codecs import Normalize
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inference.rollout import rollout
from anydit.model.conditioning import Field, Numbers
from anydit.model.dit import DiTConfig


def pipeline(past: int = 4, channels: int = 2, dropout: float = 0.0) -> Pipeline:
    conditions = {
        "past": Field(past, mean=(0.0,) * past, std=(1.0,) * past),
        "numbers": Numbers(("a",), (0.0,), (1.0,), dropout=dropout),
    }
    model = DiTConfig(16, 1, 2, (2, 2), channels=channels, size=(4, 6), conditions=conditions)
    made = Pipeline(PipelineConfig(model=model, codec=Normalize((0.0,), (1.0,)), sampling=Sampling(steps=3)))
    with torch.no_grad():  # an untrained network's output is zero
        for parameter in made.model.parameters():
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return made


def test_each_state_follows_those_before():
    """The same states, one after the other, by hand."""
    pipe, past, told = pipeline(), torch.randn(3, 4, 4, 6), {"numbers": [1.0, 2.0, 3.0]}
    states = rollout(pipe, past, 3, told, seed=5)
    assert states.shape == (3, 3, 2, 4, 6)
    for i in range(3):
        expected = pipe.sample(3, {**told, "past": past}, seed=5 + 2**32 * i)
        assert torch.equal(states[:, i], expected)
        past = torch.cat([past[:, 2:], expected], 1)


def test_several_states_at_once_and_more_of_them_than_are_known():
    pipe, past = pipeline(past=1, channels=3), torch.randn(2, 1, 4, 6)
    states = rollout(pipe, past, 5, {"numbers": 1.0}, channels=1)
    assert states.shape == (2, 5, 1, 4, 6)
    first = pipe.sample(2, {"numbers": 1.0, "past": past}, seed=0)
    assert torch.equal(states[:, :3, 0], first)
    second = pipe.sample(2, {"numbers": 1.0, "past": first[:, 2:]}, seed=2**32)
    assert torch.equal(states[:, 3:, 0], second[:, :2])


def test_members_differ_from_each_other_and_from_step_to_step():
    pipe = pipeline()
    past = torch.zeros(2, 4, 4, 6)
    states = rollout(pipe, past, 1, {"numbers": 0.0})
    assert not torch.allclose(states[0], states[1])
    alone = rollout(pipe, past, 1, {"numbers": 0.0}, batch=1)
    assert torch.allclose(states, alone, atol=1e-5), "whatever is drawn beside"
    assert not torch.equal(states, rollout(pipe, past, 1, {"numbers": 0.0}, seed=1))


def test_other_sizes_than_trained_on():
    assert rollout(pipeline(), torch.zeros(1, 4, 8, 8), 2, {"numbers": 0.0}).shape == (1, 2, 2, 8, 8)


def test_what_it_cannot_do_is_refused():
    pipe, past = pipeline(), torch.zeros(1, 4, 4, 6)
    with pytest.raises(ValueError, match="name: got 'numbers', expected a field condition"):
        rollout(pipe, past, 1, name="numbers")
    with pytest.raises(ValueError, match="states: got 0"):
        rollout(pipe, past, 0)
    with pytest.raises(ValueError, match="seed: got -1"):
        rollout(pipe, past, 1, seed=-1)
    with pytest.raises(ValueError, match="channels: got 3, expected a divisor of 2 channels of a sample and 4 of past"):
        rollout(pipe, past, 1, {"numbers": 0.0}, channels=3)
    with pytest.raises(ValueError, match="numbers is missing"):
        rollout(pipe, past, 1)

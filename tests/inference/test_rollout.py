"""Going on from what came before: the order of states, the noise of each step, and what is refused."""

import pytest
import torch

from anydit.codecs import Normalize
from anydit.data.known import KNOWN, told
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inference.rollout import rollout, rollout_along
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


def clips(size: tuple[int, ...] = (6, 4, 4), channels: int = 2) -> Pipeline:
    """A model of clips of which a part is told."""
    known = Field(2 * channels, mean=(0.5, -1.0, 0.3, 0.3)[: 2 * channels], std=(1.0,) * 2 * channels)
    conditions = {KNOWN: known, "numbers": Numbers(("a",), (0.0,), (1.0,), dropout=0.0)}
    model = DiTConfig(16, 1, 2, (2,) * len(size), channels=channels, size=size, conditions=conditions)
    made = Pipeline(PipelineConfig(model=model, codec=Normalize((0.0,), (1.0,)), sampling=Sampling(steps=3)))
    with torch.no_grad():
        for parameter in made.model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.add_(0.1 * noise)
    return made


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_an_axis_the_last_places_are_the_next_first_ones(axis: int):
    """The same clips, one after the other, by hand."""
    pipe, place = clips(), 2 + axis
    size = [6, 4, 4]
    known = 2
    first = torch.randn(3, 2, *(known if i == axis else n for i, n in enumerate(size)))
    cond = {"numbers": [1.0, 2.0, 3.0]}
    more = size[axis] - known
    x = rollout_along(pipe, first, known + 2 * more + 1, cond, axis=axis, seed=5)
    assert x.shape[place] == known + 2 * more + 1
    assert torch.equal(x.narrow(place, 0, known), first)
    flags = (torch.arange(size[axis]) < known).reshape(-1, *(1,) * (2 - axis)).expand(3, 2, *size)
    last = first
    for i in range(3):
        whole = torch.zeros(3, 2, *size)
        whole.narrow(place, 0, known).copy_(last)
        drawn = pipe.sample(3, {**cond, KNOWN: told(whole, flags, (0.5, -1.0))}, seed=5 + 2**32 * i)
        last = drawn.narrow(place, size[axis] - known, known)
        got = x.narrow(place, known + i * more, min(more, x.shape[place] - known - i * more))
        assert torch.equal(got, drawn.narrow(place, known, got.shape[place])), i


def test_along_the_only_axis():
    pipe = clips(size=(8,), channels=1)
    first = torch.randn(2, 1, 3)
    x = rollout_along(pipe, first, 12, {"numbers": 0.0})
    assert x.shape == (2, 1, 12)
    assert torch.equal(rollout_along(pipe, first, 2, {"numbers": 0.0}), first[..., :2])


def test_of_much_that_is_known_the_last_places_are_told():
    pipe = clips(size=(8,), channels=1)
    long = torch.randn(2, 1, 30)
    x = rollout_along(pipe, long, 40, {"numbers": 0.0}, known=3)
    assert torch.equal(x[..., :30], long)
    assert torch.equal(x[..., 30:], rollout_along(pipe, long[..., -3:], 13, {"numbers": 0.0})[..., 3:])


def test_another_size_across_the_axis():
    assert rollout_along(clips(), torch.zeros(1, 2, 3, 8, 6), 9, {"numbers": 0.0}).shape == (1, 2, 9, 8, 6)


def test_what_it_cannot_go_on_from_is_refused():
    pipe, first = clips(), torch.zeros(1, 2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"name: got 'known', expected a field condition .* which holds what is known"):
        rollout_along(pipeline(), first, 9)
    with pytest.raises(
        ValueError, match=r"first: got shape \(1, 3, 3, 4, 4\), expected half of the 4 channels of known"
    ):
        rollout_along(pipe, torch.zeros(1, 3, 3, 4, 4), 9)
    with pytest.raises(ValueError, match=r"first: got shape .* and 3 axes"):
        rollout_along(pipe, torch.zeros(1, 2, 3, 4), 9)
    with pytest.raises(ValueError, match="axis, length: got 3, 9, expected 0 to 2, and at least 1"):
        rollout_along(pipe, first, 9, axis=3)
    with pytest.raises(ValueError, match="axis, length: got 0, 0"):
        rollout_along(pipe, first, 0)
    with pytest.raises(ValueError, match="first, known: got 6 of 6 places along axis 0, expected 1 to 5"):
        rollout_along(pipe, torch.zeros(1, 2, 6, 4, 4), 9)
    with pytest.raises(ValueError, match="first, known: got 4 of 3 places"):
        rollout_along(pipe, first, 9, known=4)
    with pytest.raises(ValueError, match="seed: got -1"):
        rollout_along(pipe, first, 9, seed=-1)
    with pytest.raises(ValueError, match="numbers is missing"):
        rollout_along(pipe, first, 9)

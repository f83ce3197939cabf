"""Samples drawn as changes of what is known: on the data's own scale, wherever a pipeline makes or takes samples."""

from dataclasses import replace
from pathlib import Path

import deepinv
import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import Turbulence
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline, load
from anydit.inverse.adapter import as_deepinv
from anydit.inverse.reconstruct import reconstruct
from anydit.model.conditioning import Field
from anydit.model.dit import DiT, DiTConfig
from anydit.recipes import RECIPES
from anydit.train.loop import train
from anydit.train.resolve import resolved
from tests.model.test_dit import randomised
from tests.train.tiny import silent

FEW = {"past": 2, "trajectories": 40, "states": 4, "settled": 0.25, "points": 16, "size": (8, 8)}
PAST = torch.randn(3, 4, 4, 6)


def pair() -> tuple[Pipeline, Pipeline]:
    """The same network, which draws changes of the last of two states, and which draws states."""
    field = Field(4, mean=(0.0,) * 4, std=(1.0,) * 4, coded=True)
    model = DiTConfig(16, 1, 2, (2, 2), channels=2, size=(4, 6), conditions={"past": field})
    whole = PipelineConfig(model=model, codec=Normalize((0.5,), (2.0,)), sampling=Sampling(steps=3))
    network = randomised(DiT(model))
    return Pipeline(replace(whole, change_of="past"), network), Pipeline(whole, network)


def test_samples_are_what_is_known_last_and_its_change():
    changing, whole = pair()
    for past in (PAST, PAST[0]):
        change = whole.sample(3, {"past": past}, seed=1)
        torch.testing.assert_close(changing.sample(3, {"past": past}, seed=1), past[..., 2:, :, :] + change)


def test_edits_begin_at_the_change():
    changing, whole = pair()
    x, last = torch.randn(3, 2, 4, 6), PAST[:, 2:]
    edited = changing.edit(x, {"past": PAST}, strength=0.5)
    torch.testing.assert_close(edited, last + whole.edit(x - last, {"past": PAST}, strength=0.5))
    keep = torch.rand(3, 1, 4, 6) > 0.5
    edited = changing.edit(x, {"past": PAST}, keep=keep)
    assert torch.equal(edited.where(keep, x), x)


def test_a_density_is_that_of_the_change():
    changing, whole = pair()
    x = torch.randn(3, 2, 4, 6)
    ours = changing.log_likelihood(x, {"past": PAST}, steps=4)
    torch.testing.assert_close(ours, whole.log_likelihood(x - PAST[:, 2:], {"past": PAST}, steps=4))


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Turbulence]:
    """A run of a flow's forecast as a change, trained for two steps."""
    recipe, out = RECIPES["flow-forecast"](), tmp_path_factory.mktemp("runs") / "forecast"
    data = replace(recipe.data, **FEW)
    assert isinstance(data, Turbulence)
    model = replace(recipe.model, width=16, depth=1, heads=2)
    short = replace(recipe.train, steps=2, batch=4, bf16=False)
    small = replace(recipe, change_of="past", model=model, data=data, train=short, sampling=Sampling(steps=2))
    train(small, out, "cpu", silent)
    return out, data


def test_a_run_remembers_it_and_is_measured_on_changes(forecasts: tuple[Path, Turbulence]):
    out, data = forecasts
    pipe, samples = load(out, "cpu"), data.open("train")
    assert pipe.config.change_of == "past"
    batch = samples.read(torch.arange(len(samples)))
    change = pipe.codec.encode(batch.x - batch.tensor("past")[:, -batch.x.shape[1] :])
    torch.testing.assert_close(change.std((0, 2, 3)), torch.ones(change.shape[1]), atol=0.2, rtol=0)
    assert pipe.codec.encode(batch.x).std() > 2
    past = pipe.field_codecs["past"].encode(batch.tensor("past"))
    torch.testing.assert_close(past.std((0, 2, 3)), torch.ones(past.shape[1]), atol=0.2, rtol=0)  # coded as states are
    near = pipe.sample(8, {"past": batch.tensor("past")[:8]}) - batch.x[:8]
    assert near.std() < 3 * (batch.x - batch.tensor("past")[:, -batch.x.shape[1] :]).std()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"change_of": "coarse"}, "change_of: got coarse, expected a Field of the model without dropout"),
        ({"change_of": "label"}, "change_of: got label, expected a Field"),
    ],
)
def test_what_holds_no_samples_is_refused(change: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        replace(pair()[1].config, **change)


def test_a_field_that_may_be_absent_is_refused():
    config = pair()[1].config
    conditions = {"past": replace(config.model.conditions["past"], dropout=0.1)}
    with pytest.raises(ValueError, match="without dropout"):
        replace(config, model=replace(config.model, conditions=conditions), change_of="past")


def test_a_field_of_other_channels_than_samples_is_refused():
    recipe = RECIPES["flow-forecast"]()
    data = replace(recipe.data, **(FEW | {"past": 1, "future": 2}))
    recipe = replace(recipe, data=data, model=replace(recipe.model, conditions={"past": Field()}), change_of="past")
    with pytest.raises(ValueError, match="got past, of which it has 2 channels; expected a field of samples of 4"):
        resolved(recipe, data.open("train"), silent)


def test_measurements_are_of_whole_samples():
    changing, _ = pair()
    y = torch.zeros(1, 2, 4, 6)
    for make in (lambda: as_deepinv(changing), lambda: reconstruct(changing, y, deepinv.physics.Denoising())):
        with pytest.raises(ValueError, match="change_of: got past, expected a model that draws whole samples"):
            make()

"""Pairs of sample and measurement: each by its id, with masks and noise of its own, and a model told of them."""

from dataclasses import replace

import pytest
import torch

from anydit.data import Digits
from anydit.inverse.measured import MEASURED, Measured
from anydit.inverse.operators import CT, MRI, Inpainting, SuperResolution
from anydit.model.conditioning import Field
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from tests.train.tiny import tiny

DATA = Measured(data=Digits(), operator=Inpainting(known=0.5), sigma=0.02, bounds=(0.0, 16.0), masks=3)


def test_a_pair_follows_from_its_id_alone():
    samples = DATA.open("train")
    whole = samples.read(torch.arange(6))
    some = samples.read(torch.tensor([4, 1]))
    assert torch.equal(some.cond[MEASURED], whole.cond[MEASURED][[4, 1]])
    assert torch.equal(whole.x, Digits().open("train").read(torch.arange(6)).x)
    assert samples.facts.fields == {MEASURED: 1} and "label" in whole.cond


def test_what_is_measured_is_the_sample_with_noise_and_the_rest_is_empty():
    batch = DATA.open("train").read(torch.arange(300))
    shown = batch.tensor(MEASURED)
    there = shown != 0
    off = (shown - batch.x)[there] / 16
    assert off.std().item() == pytest.approx(0.02, rel=0.05)
    assert there.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_masks_take_turns_and_those_of_held_out_data_are_others():
    train_, held_out = (DATA.open(part).read(torch.arange(6)).tensor(MEASURED) != 0 for part in ("train", "held_out"))
    assert torch.equal(train_[:3], train_[3:])
    masks = {tuple(mask.flatten().tolist()) for mask in torch.cat([train_, held_out])}
    assert len(masks) == 6


@pytest.mark.parametrize("operator", [MRI(acceleration=2, center=0.25), CT(views=9), SuperResolution(factor=2)])
def test_any_operator_shows_something_on_the_data_s_scale(operator):
    samples = replace(DATA, operator=operator, sigma=1e-4).open("train")
    batch = samples.read(torch.arange(20))
    shown = batch.tensor(MEASURED)
    assert shown.shape == batch.x.shape
    both = torch.stack([shown.flatten(), batch.x.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.6
    assert 0.3 < shown.std() / batch.x.std() < 1.3


def test_what_cannot_be_measured_is_refused_before_training():
    with pytest.raises(ValueError, match="factor: got 3"):
        replace(DATA, operator=SuperResolution(factor=3)).open("train")
    with pytest.raises(ValueError, match="a condition 'measured' of their own"):
        Measured(data=DATA).open("train")
    with pytest.raises(ValueError, match="sigma"):
        replace(DATA, sigma=0.0)


def test_a_model_is_trained_on_pairs_and_told_of_a_measurement(tmp_path):
    prior = tiny()
    model = replace(prior.model, conditions={MEASURED: Field(coded=True)})
    recipe: Recipe = replace(prior, data=DATA, model=model, train=replace(prior.train, steps=2))
    pipe = train(recipe, tmp_path, "cpu", lambda _: None)
    shown = DATA.open("held_out").read(torch.arange(4)).tensor(MEASURED)
    x = pipe.sample(4, {MEASURED: shown}, steps=2)
    assert x.shape == shown.shape
    assert not torch.equal(x, pipe.sample(4, {MEASURED: shown.flip(0)}, steps=2))

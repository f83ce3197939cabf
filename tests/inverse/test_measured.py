"""Pairs of sample and measurement: each by its id, with masks and noise of its own, and a model told of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import deepinv
import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from anydit.config import to_json
from anydit.data import Digits
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inverse.corrections import DPS, Conditional, MomentMatching, Proximal
from anydit.inverse.measured import MEASURED, Measured, MeasuredSamples, trained_on
from anydit.inverse.measurement import checked
from anydit.inverse.operators import CT, MRI, Inpainting, SuperResolution
from anydit.inverse.reconstruct import reconstruct
from anydit.model.conditioning import Field
from anydit.model.dit import DiT
from anydit.train.loop import train
from anydit.train.recipe import Recipe
from tests.inverse.test_adapter import IMAGE, pipeline
from tests.train.tiny import silent, tiny

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


def told(data: Measured, steps: int = 2) -> Recipe:
    """A recipe that is told what was measured."""
    prior = tiny()
    model = replace(prior.model, conditions={MEASURED: Field(coded=True)})
    return replace(prior, data=data, model=model, train=replace(prior.train, steps=steps))


@contextmanager
def heard() -> Iterator[list[Tensor]]:
    """What any network is told of a measurement, call after call."""
    calls = list[Tensor]()

    def listen(module: torch.nn.Module, args: tuple[object, ...]) -> None:
        if isinstance(module, DiT):
            cond = args[2]
            assert isinstance(cond, dict)
            calls.append(cond[MEASURED].detach().clone())

    hook = register_module_forward_pre_hook(listen)
    try:
        yield calls
    finally:
        hook.remove()


def trained(data: Measured, out: Path) -> tuple[Pipeline, int, Tensor]:
    """A model trained for a step, the id of a sample that was in it, and what the network was told of that."""
    with heard() as calls:
        pipe = train(told(data, steps=1), out, "cpu", silent)
    seen = calls[0][0]
    shown = data.open("train").read(torch.arange(300)).tensor(MEASURED)
    more = iter(calls[0])
    while not bool((same := (pipe.codec.encode(shown) == seen).flatten(1).all(1)).any()):
        seen = next(more)
    return pipe, int(same.nonzero()[0, 0]), seen


def again(data: Measured, number: int) -> tuple[Tensor, deepinv.physics.LinearPhysics]:
    """The measurement that training made of a sample."""
    samples = data.open("train")
    assert isinstance(samples, MeasuredSamples)
    physics = samples.physics[number % data.masks]
    physics.noise_model.rng_manual_seed(number)
    return physics(samples.samples.read(torch.tensor([number])).x / 16), physics


@pytest.mark.parametrize("operator", [MRI(acceleration=2, center=0.25), CT(views=9)])
@pytest.mark.parametrize("how", [None, MomentMatching(1)])
def test_a_network_is_told_of_a_measurement_what_training_told_it(operator, how, tmp_path: Path):
    data = replace(DATA, operator=operator, masks=3 if isinstance(operator, MRI) else 1)
    pipe, number, seen = trained(data, tmp_path / "run")
    y, physics = again(data, number)
    with heard() as calls:
        reconstruct(pipe, y, physics, how=how, samples=2, sampling=Sampling(steps=2))
    assert calls and all(torch.equal(one, seen) for call in calls for one in call)


def test_without_a_correction_samples_are_those_of_the_model_that_is_told(tmp_path: Path):
    pipe = train(told(DATA), tmp_path, "cpu", silent)
    x, physics = torch.rand(3, *IMAGE), Inpainting(known=0.5).build(IMAGE, 0.02)
    y = physics(x)
    found = reconstruct(pipe, y, physics, samples=2, seed=3)
    plain = pipe.sample(6, {MEASURED: (16 * y).repeat(2, 1, 1, 1)}, seed=3)
    assert torch.equal(found.samples, plain.unflatten(0, (2, 3)))
    off = checked(y, physics, None, IMAGE, (0.0, 16.0)).residual(found.mean)
    assert bool((off > 2).all()), "which do not fit: nothing moved them"
    for how in (MomentMatching(), Proximal()):
        assert bool((reconstruct(pipe, y, physics, how=how, samples=2).residual < 1.05).all())
    other = reconstruct(pipe, y, physics, {MEASURED: torch.zeros(1, *IMAGE)}, samples=2, seed=3)
    assert not torch.equal(other.samples, found.samples), "what a person says is shown counts"


class Squared(deepinv.physics.Physics):
    def A(self, x, **_):  # noqa: N802
        return x.square()


def test_what_a_model_cannot_be_told_is_refused(tmp_path: Path):
    y, physics = torch.rand(1, *IMAGE), Inpainting().build(IMAGE, 0.02)
    with pytest.raises(ValueError, match="how: got Conditional, expected a correction: the model has no condition 'm"):
        reconstruct(pipeline(), y, physics, {"label": 1}, how=Conditional())
    pipe = train(told(DATA), tmp_path, "cpu", silent)
    with pytest.raises(ValueError, match="physics: got Squared, expected a linear operator, as the model was trained"):
        reconstruct(pipe, y, Squared(), how=DPS(), sigma=0.1)


def test_a_run_says_what_it_was_trained_on():
    recipe, bounds = to_json(told(DATA)), (0.0, 16.0)
    assert trained_on(to_json(tiny()), bounds, MRI()) is None and trained_on({}, bounds, MRI()) is None
    about = "the model was trained on Inpainting (known 0.5) with noise of deviation 0.02"
    assert trained_on(recipe, bounds, Inpainting(known=0.1)) == about
    with pytest.raises(ValueError, match="physics: got MRI, expected Inpainting, on whose measurements alone"):
        trained_on(recipe, bounds, MRI())
    with pytest.raises(ValueError, match=r"data\.bounds: got \[0\.0, 16\.0\], .* the view's, \(-8\.0, 8\.0\)"):
        trained_on(recipe, (-8.0, 8.0), Inpainting())


def test_a_model_is_trained_on_pairs_and_told_of_a_measurement(tmp_path):
    pipe = train(told(DATA), tmp_path, "cpu", silent)
    shown = DATA.open("held_out").read(torch.arange(4)).tensor(MEASURED)
    x = pipe.sample(4, {MEASURED: shown}, steps=2)
    assert x.shape == shown.shape
    assert not torch.equal(x, pipe.sample(4, {MEASURED: shown.flip(0)}, steps=2))

"""A whole evaluation: what is counted, what is reported, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.config import config, from_json
from anydit.data import Arrays, ArraySamples, ArrayView, Data, Digits, Facts, Part, Samples
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.samplers import Heun
from anydit.evaluate import classifier
from anydit.evaluate import sets as the_sets
from anydit.evaluate.evaluate import _judged, evaluate
from anydit.evaluate.sets import as_written, opened, spread
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.tensors import MASK, Batch

FIGURES = ["accuracy", "frechet", "kernel", "precision", "recall", "nearest", "copies"]


class Flat:
    """Features of a user's own."""

    name = "the values themselves"

    def __call__(self, x: Tensor, /) -> Tensor:
        return x.flatten(1)


def test_digits(digits: tuple[Pipeline, Digits], quick: Path):
    pipeline, data = digits
    stages: dict[str, float] = {}
    report = evaluate(pipeline, data, samples=2 * 372, progress=stages.__setitem__)
    assert list(report.figures) == FIGURES
    assert report.counts == {
        "samples": 744, "draws": 2, "held_out": 372, "training": 1425, "reference": 1425, "features": 64,
    }  # fmt: skip
    assert report.network_calls == 3
    assert stages == {"classifier": 1, "samples": 1, "features": 1, "neighbours": 1}
    assert set(report.seconds) == set(stages)
    assert report.figures["frechet"].samples > 3 * report.figures["frechet"].floor
    assert report.figures["accuracy"].samples < 0.4 < report.figures["accuracy"].floor
    assert report.classes == tuple("0123456789")
    held = data.open("held_out")
    asked = held.read(torch.arange(372)).cond["label"].bincount() * 2
    assert [sum(row) for row in report.confusion] == asked.tolist()
    assert sum(report.confusion[i][i] for i in range(10)) / 744 == pytest.approx(report.figures["accuracy"].samples)
    assert set(report.pictures) == {"samples", "held_out", "neighbours", "classes"}
    assert not report.notes


def test_json_holds_all_but_the_pictures(digits: tuple[Pipeline, Digits], quick: Path):
    pipeline, data = digits
    report = evaluate(pipeline, data, samples=372)
    content = json.loads(json.dumps(report.json(), allow_nan=False))
    assert "pictures" not in content
    assert content["figures"]["frechet"]["ratio"] == report.figures["frechet"].ratio
    assert content["figures"]["recall"]["samples"] == report.figures["recall"].samples
    assert content["confusion"] == [list(row) for row in report.confusion]
    assert from_json(Sampling, content["settings"]["sampling"]) == pipeline.config.sampling
    assert from_json(Digits, content["settings"]["data"]) == data


def test_seed_and_sampling_decide(digits: tuple[Pipeline, Digits], quick: Path):
    pipeline, data = digits
    report = evaluate(pipeline, data, samples=372)
    again, other = (evaluate(pipeline, data, samples=372, seed=seed) for seed in (0, 1))
    assert again.figures == report.figures
    assert other.figures["frechet"].samples != report.figures["frechet"].samples
    assert other.figures["frechet"].floor == report.figures["frechet"].floor
    how = Sampling(sampler=Heun(), steps=3, guidance=Guidance(2.0))
    guided = evaluate(pipeline, data, samples=372, sampling=how)
    assert guided.network_calls == 2 * (2 * 3 - 1)
    assert guided.settings["sampling"]["guidance"]["scale"] == 2


def test_without_labels(arrays: tuple[Pipeline, Arrays]):
    report = evaluate(*arrays, samples=20)
    assert list(report.figures) == FIGURES[1:]
    assert report.counts["held_out"] == report.counts["samples"] == 20
    assert report.features == "64 features of a fixed random convolutional network"
    assert any("no labels" in note for note in report.notes)
    assert any("Only 20 held-out samples for 64 features" in note for note in report.notes)
    assert set(report.pictures) == {"samples", "held_out", "neighbours"}


def test_several_draws_where_few_are_held_out(arrays: tuple[Pipeline, Arrays], monkeypatch: pytest.MonkeyPatch):
    pipeline, data = arrays
    held = len(data.open("held_out"))
    monkeypatch.setattr(the_sets, "ENOUGH", 3 * held - 1)
    report = evaluate(pipeline, data, features=Flat())
    assert report.counts["held_out"] == held
    assert (report.counts["draws"], report.counts["samples"]) == (3, 3 * held)
    assert report.figures["frechet"].error is not None
    assert report.features == "the values themselves"
    assert not any("no labels" in note for note in report.notes)


@pytest.mark.parametrize(
    ("wanted", "draws", "count"),
    [(40, 1, 40), (48, 2, 24), (49, 2, 25), (101, 3, 34), (20, 1, 20), (2001, 48, 42)],
)
def test_as_many_samples_as_asked_for(wanted: int, draws: int, count: int, arrays: tuple[Pipeline, Arrays]):
    pipeline, data = arrays
    assert len(data.open("held_out")) == 42
    report = evaluate(pipeline, data, samples=wanted, features=Flat())
    assert (report.counts["samples"], report.counts["draws"], report.counts["held_out"]) == (wanted, draws, count)
    sets = opened(pipeline, data, wanted)
    assert max(sets.sizes) - min(sets.sizes) <= 1 and sum(sets.sizes) == wanted == len(sets.rows)
    x, _ = the_sets.draw(pipeline, sets, pipeline.config.sampling, 0, lambda stage, done: None)
    assert len(x) == wanted


def test_a_last_draw_that_is_shorter_is_judged_by_what_it_was_asked_for(digits: tuple[Pipeline, Digits], quick: Path):
    pipeline, data = digits
    sets = opened(pipeline, data, 373)
    assert (sets.sizes, sets.count) == ([187, 186], 187)
    judge = classifier.trained(data, sets.train, "label", pipeline.device)
    found = _judged(judge, sets, sets.real.x.repeat(2, 1, 1, 1)[:373])
    seen = judge.predict(sets.real.x)
    right = (seen == sets.labels).repeat(2)[:373].double().mean()
    assert found.figures["accuracy"].samples == pytest.approx(float(right)) and right > 0.4


def test_more_samples_than_memory_holds_are_refused(arrays: tuple[Pipeline, Arrays], monkeypatch: pytest.MonkeyPatch):
    pipeline, data = arrays
    monkeypatch.setattr(the_sets, "VALUES_AT_MOST", 5 * 4 * 6 * 25)
    with pytest.raises(ValueError, match="samples: got 26, expected at most 25, which is what memory holds"):
        evaluate(pipeline, data, samples=26)


def test_guidance_away_from_nothing_is_refused_before_any_work(arrays: tuple[Pipeline, Arrays]):
    pipeline, data = arrays
    how = replace(pipeline.config.sampling, guidance=Guidance(2.0))
    with pytest.raises(ValueError, match=r"guidance\.scale: got 2, expected 1"):
        evaluate(pipeline, replace(data, path=Path("nowhere.npy")), sampling=how)


def test_memory_bounds_the_samples(arrays: tuple[Pipeline, Arrays], monkeypatch: pytest.MonkeyPatch):
    pipeline, data = arrays
    monkeypatch.setattr(the_sets, "VALUES_AT_MOST", 5 * 4 * 6 * 25)
    sets = opened(pipeline, data, None)
    assert (sets.count, sets.sizes) == (25, [25])


def test_a_label_that_was_not_asked_for(digits: tuple[Pipeline, Digits], quick: Path):
    """A model without conditions of data with labels: the classifier's features serve, its accuracy says nothing."""
    conditioned, data = digits
    config = conditioned.config
    pipeline = Pipeline(replace(config, model=replace(config.model, conditions={})))
    report = evaluate(pipeline, data, samples=372)
    assert list(report.figures) == FIGURES[1:]
    assert "classifier" in report.features
    assert not report.confusion


def test_samples_are_drawn_under_the_conditions_of_held_out_data(digits: tuple[Pipeline, Digits], quick: Path):
    pipeline, data = digits
    for parameter in pipeline.model.parameters():  # as initialised, a DiT ignores its conditions
        torch.nn.init.normal_(parameter, std=0.3)
    sets = opened(pipeline, data, 2 * 372)
    x, _ = the_sets.draw(pipeline, sets, pipeline.config.sampling, 5, lambda stage, done: None)
    held = data.open("held_out").read(torch.arange(372))
    expected = pipeline.sample(744, {"label": held.cond["label"].repeat(2)}, seed=5).clamp(0, 16)
    assert x.equal(expected)
    assert not pipeline.model._forward_pre_hooks


def test_images_are_compared_as_they_would_be_written(arrays: tuple[Pipeline, Arrays], digits: tuple[Pipeline, Digits]):
    x = torch.tensor([-5.0, 3.0, 20.0]).reshape(1, 1, 1, 3)
    batch = Batch(x, {}, torch.zeros(1, dtype=torch.long))
    assert as_written(digits[0].config.view, batch).flatten().tolist() == [0, 3, 16]
    assert as_written(arrays[0].config.view, batch).equal(x)
    part = replace(batch, cond={MASK: torch.tensor([[[True, True, False]]])})
    assert as_written(digits[0].config.view, part).flatten()[:2].tolist() == [0, 3]
    assert as_written(digits[0].config.view, part).isnan().sum() == 1


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"), [(10, 4, [0, 2, 5, 7]), (3, 9, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4])]
)
def test_spread(count: int, wanted: int, chosen: list[int]):
    assert spread(count, wanted).tolist() == chosen


def test_too_few_are_refused(arrays: tuple[Pipeline, Arrays]):
    pipeline, data = arrays
    with pytest.raises(ValueError, match=r"data: got \d+ held-out samples, expected at least 20"):
        evaluate(pipeline, replace(data, held_out=0.02))
    with pytest.raises(ValueError, match=r"data: got \d+ training samples, expected at least 20"):
        evaluate(pipeline, replace(data, held_out=0.98))
    with pytest.raises(ValueError, match="samples: got 5, expected at least 20"):
        evaluate(pipeline, data, samples=5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers_are_refused(
    value: float, arrays: tuple[Pipeline, Arrays], monkeypatch: pytest.MonkeyPatch
):
    pipeline, data = arrays
    sample = pipeline.sample

    def diverged(*args: Any, **kwargs: Any) -> Tensor:
        x = sample(*args, **kwargs)
        x[3, 0, 1, 1] = value
        return x

    monkeypatch.setattr(pipeline, "sample", diverged)
    with pytest.raises(ValueError, match="samples: got NaN or infinity in 1 of 20, expected finite values"):
        evaluate(pipeline, data, samples=20)


@config
class TwoLabels(Data):
    """Samples with a shape and a colour."""

    def open(self, part: Part) -> Samples:
        classes = {"shape": ("round", "square"), "colour": ("red", "green", "blue")}
        labels = {name: torch.arange(60) % len(names) for name, names in classes.items()}
        x = np.random.default_rng(part == "train").normal(0, 1, (60, 2, 4, 4)).astype(np.float32)
        return ArraySamples(x, Facts(2, (4, 4), classes), labels)


def test_of_several_labels_the_one_that_is_judged_is_named(quick: Path):
    conditions = {"shape": Label(2), "colour": Label(3)}
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2, 2), channels=2, size=(4, 4), conditions=conditions)
    view = ArrayView(low=-3, high=3)
    pipeline = Pipeline(
        PipelineConfig(model=model, codec=Normalize.to_unit(-3, 3), sampling=Sampling(steps=2), view=view)
    )
    report = evaluate(pipeline, TwoLabels(), samples=60)
    assert any(note.endswith("labels shape, colour: the classifier knows, and judges, shape alone.")
               for note in report.notes)  # fmt: skip
    assert report.classes == ("round", "square")


def test_data_of_another_kind_is_refused(
    arrays: tuple[Pipeline, Arrays], digits: tuple[Pipeline, Digits], tmp_path: Path
):
    with pytest.raises(ValueError, match="data: got samples of 1 channels, expected 5"):
        evaluate(arrays[0], digits[1])
    np.save(tmp_path / "long.npy", np.zeros((200, 5, 24), np.float32))
    with pytest.raises(ValueError, match=r"data: got samples of size \(24,\), expected 2 axes"):
        evaluate(arrays[0], replace(arrays[1], path=tmp_path / "long.npy"))


def test_features_that_do_not_fit_are_refused_before_any_work(
    digits: tuple[Pipeline, Digits], monkeypatch: pytest.MonkeyPatch
):
    class Picky(Flat):
        def __call__(self, x: Tensor, /) -> Tensor:
            raise ValueError("features: not such samples")

    pipeline, data = digits
    monkeypatch.setattr(pipeline, "sample", None)
    with pytest.raises(ValueError, match="not such samples"):
        evaluate(pipeline, data, features=Picky())


def test_each_draw_is_judged_by_the_classes_it_was_asked_for(digits: tuple[Pipeline, Digits], quick: Path):
    """Held-out data in place of samples, twice over, meets its floor."""
    pipeline, data = digits
    sets = opened(pipeline, data, 2 * 372)
    judge = classifier.trained(data, sets.train, "label", pipeline.device)
    found = _judged(judge, sets, sets.real.x.repeat(2, 1, 1, 1))
    assert found.figures["accuracy"].samples == found.figures["accuracy"].floor > 0.4

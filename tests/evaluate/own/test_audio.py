"""Figures of audio: of sounds whose levels and lengths are known, and what networks that judge see of them."""

from dataclasses import replace
from math import log, log10, pi, sqrt
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import LogMel
from anydit.data import Audio, AudioView
from anydit.evaluate.classifier import Classifier, Network
from anydit.evaluate.compare import Figure, nearest
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import AT_ONCE, seen
from anydit.evaluate.own import own
from anydit.evaluate.own.audio import BANDS, audible, levels, loudness, spectrum
from anydit.evaluate.sets import Sets, opened
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.audio.sounds import tone, written

RATE, VIEW = 8000, AudioView(rate=8000)


def noise(seconds: float, seed: int, rms: float = 0.05) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=round(seconds * RATE)) * rms).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Audio:
    """Tones in noise, low and high, of different lengths."""
    root = tmp_path_factory.mktemp("audio")
    for i in range(160):
        seconds, high = 0.2 + 0.3 * (i % 7) / 6, i % 2
        values = tone((300, 1500)[high] * (1 + i % 5 / 20), seconds, amplitude=0.3) + noise(seconds, i, 0.02)
        written(root / ("low", "high")[high] / f"{i}.wav", values)
    return Audio(path=root, rate=RATE, seconds=0.5, held_out=0.3)


@pytest.fixture(scope="module")
def pipeline(data: Audio) -> Pipeline:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2,), conditions={"label": Label()})
    recipe = Recipe(model=model, codec=LogMel(mels=24), view=AudioView(), data=data, sampling=Sampling(steps=2))
    whole = resolved(recipe, data.open("train"), lambda _: None)
    fields = {name: getattr(whole, name) for name in ("model", "codec", "view", "sampling", "lengths")}
    return Pipeline(PipelineConfig(**fields))


@pytest.fixture(scope="module")
def sets(data: Audio, pipeline: Pipeline) -> Sets:
    return opened(pipeline, data, None)


def figures(x: Tensor, sets: Sets) -> dict[str, Figure]:
    return dict(own(sets.view, x, sets).figures)


def test_what_is_twice_as_loud_is_6_db_away(sets: Sets):
    """In every figure of levels; and in none of how they change."""
    train = sets.read_train(torch.arange(len(sets.train)))
    found = figures(2 * train, sets)
    six = 20 * log10(2)
    for name in ("spectrum", "levels", "loudness"):
        assert found[name].samples == pytest.approx(six, abs=0.05), name
        assert 0 <= (found[name].floor or 0) < 2
    assert found["changes"].samples == pytest.approx(0, abs=0.05)
    assert found["audible"].samples == 0
    assert figures(train, sets)["levels"].samples == pytest.approx(0, abs=1e-6)


def test_noise_with_the_mean_spectrum_is_told_from_sounds(sets: Sets):
    """Steady noise is not as sounds are that begin and end."""
    found = figures(sets.real.x[torch.randperm(len(sets.real.x))], sets)
    steady = torch.from_numpy(np.stack([noise(0.5, i) for i in range(40)]))[:, None]
    other = figures(steady, sets)
    assert other["levels"].samples > 3 * found["levels"].samples
    assert other["changes"].samples > 2 * found["changes"].samples


def test_levels_of_white_noise_are_as_computed():
    """The magnitude of a bin of noise is Rayleigh's; a band adds up the bins under its triangle."""
    rms, window = 0.05, 320
    x = torch.from_numpy(np.stack([noise(2.0, i, rms) for i in range(20)]))[:, None]
    magnitude = (levels(VIEW, x)[..., 4:-4] / 20 * log(10)).exp().mean((0, 1, 3))
    hann = torch.hann_window(window)
    of_bin = sqrt(pi) / 2 * rms * float(hann.square().sum().sqrt() / hann.sum())
    weights = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=BANDS, norm=None).sum(1)
    assert np.allclose(magnitude[3:], of_bin * weights[3:], rtol=0.05)
    assert spectrum(levels(VIEW, x)).shape == (BANDS,)
    assert loudness(x).mean() == pytest.approx(20 * log10(rms), abs=0.1)


def test_only_what_exists_counts(sets: Sets):
    x = torch.from_numpy(noise(0.5, 0))[None, None].repeat(2, 1, 1)
    x[1, :, 2000:] = torch.nan
    found = levels(VIEW, x)
    assert found.shape == (2, 1, BANDS, 50)
    assert found[0].isfinite().all() and found[1, ..., :25].isfinite().all() and found[1, ..., 25:].isnan().all()
    assert loudness(x)[0] == pytest.approx(float(loudness(x)[1]), abs=0.3)
    assert audible(found).tolist() == [50, 25]
    quiet = x[:1].clone()
    quiet[..., :800], quiet[..., 3200:] = 1e-4, 1e-4
    # Windows reach half their length, two frames, over the edges.
    assert audible(levels(VIEW, quiet)).tolist() == pytest.approx([30], abs=4)


def test_phases_are_not_seen(sets: Sets):
    """A network that judges, and the distance to training samples, take sounds for the same that sound so."""
    see = seen(sets.view)
    x = sets.filled(sets.real.x[:8])
    assert see(x).shape == (8, 1, BANDS, 50)
    assert see(x).isfinite().all()
    judge = Classifier(Network(1, (BANDS, 50), 2), ("low", "high"), torch.device("cpu"), see)
    assert torch.allclose(judge(x), judge(-x), atol=1e-4)
    assert not torch.allclose(judge(x), judge(x / 2), atol=1e-2)
    train = sets.train.read(torch.arange(AT_ONCE % len(sets.train))).x
    near = nearest(-train[:5], sets.train, lambda _: None, see)
    assert near.which.tolist() == [0, 1, 2, 3, 4]
    assert near.distance.max() < 1e-2


def test_the_report_has_them_all(pipeline: Pipeline, data: Audio, quick: Path):
    report = evaluate(pipeline, data, samples=40)
    names = {"spectrum", "levels", "changes", "loudness", "audible", "accuracy", "frechet", "kernel", "nearest"}
    assert names <= set(report.figures)
    assert (report.figures["accuracy"].floor or 0) > 0.9, "a classifier of spectrograms tells low from high"
    assert {"Mean spectrum", "samples", "held_out", "neighbours"} <= set(report.pictures)
    assert report.figures["levels"].samples > 2 * (report.figures["levels"].floor or 0)


def test_sounds_without_classes_are_compared_in_random_features(pipeline: Pipeline, data: Audio, quick: Path):
    flat = replace(data, path=data.path / "low")
    report = evaluate(pipeline_without_label(pipeline), flat, samples=20)
    assert "random" in report.features
    assert report.figures["frechet"].samples > (report.figures["frechet"].floor or 0)


def pipeline_without_label(pipeline: Pipeline) -> Pipeline:
    return Pipeline(replace(pipeline.config, model=replace(pipeline.config.model, conditions={})))

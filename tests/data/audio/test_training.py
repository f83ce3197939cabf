"""Models of sounds of different lengths: of spectrograms, of waveforms, and in the latents of an autoencoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import anydit
from anydit.cli import main
from anydit.codecs import CodecConfig, Latents, LogMel, Normalize
from anydit.data import Audio, AudioView
from anydit.inference.config import Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.recipes import RECIPES
from anydit.train.loop import train
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe, TrainConfig
from tests.codecs.tiny import saved
from tests.data.audio.sounds import tone, written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones, low and high, of 0.16, 0.32 and 0.48 seconds."""
    root = tmp_path_factory.mktemp("tones")
    for i in range(60):
        hertz, name = ((400, "low"), (2400, "high"))[i % 2]
        values = tone(hertz, 0.16 * (1 + i % 3), amplitude=0.3 + 0.2 * (i % 5) / 4)
        written(root / name / f"{i}.wav", values)
    return root


def recipe(folder: Path, codec: CodecConfig, patch: int, steps: int = 2) -> Recipe:
    model = DiTConfig(width=48, depth=2, heads=2, patch=(patch,), conditions={"label": Label(dropout=0.1)})
    return Recipe(
        model=model,
        codec=codec,
        view=AudioView(),
        data=Audio(path=folder, rate=8000, seconds=0.48, held_out=0.2),
        sampling=Sampling(steps=10),
        train=TrainConfig(steps=steps, batch=16, optimizer=AdamW(lr=3e-3), ema_decay=0.98, log_every=50),
    )


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tones"
    train(recipe(folder, LogMel(mels=24), 4, steps=120), out, "cpu", lambda _: None)
    return out


def test_sounds_are_drawn_in_the_lengths_of_the_data(run: Path, folder: Path, tmp_path: Path):
    pipe = anydit.load(run)
    x = pipe.sample(30, {"label": "low"})
    lengths = (~x.isnan()).sum((1, 2)).tolist()
    assert x.shape == (30, 1, 3840)
    assert set(lengths) == {1320, 2580, 3840}, "those of the data, rounded up to parts of 60"
    paths = pipe.config.view.write(x, tmp_path)
    assert [soundfile.info(path).frames for path in paths] == lengths
    assert all(soundfile.info(path).samplerate == 8000 for path in paths)


def test_classes_are_heard(run: Path):
    pipe = anydit.load(run)
    peaks = []
    for label in ("low", "high"):
        x = pipe.sample(8, {"label": label, "length": 3840})
        power = np.square(np.abs(np.fft.rfft(x[:, 0].numpy()))).mean(0)
        peaks.append(int(power.argmax()) * 8000 / 3840)
    assert peaks == pytest.approx([400, 2400], rel=0.15)


def test_a_length_is_said_in_seconds(run: Path, tmp_path: Path):
    words = ["sample", str(run), "--label", "high", "--length", "0.2s", "-n", "2", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "x"), "--out", str(tmp_path / "x.png")]) == 0
    found = sorted((tmp_path / "x").glob("*.wav"))
    assert [soundfile.info(path).frames for path in found] == [1600, 1600]
    with pytest.raises(ValueError, match="expected 1 to 3840"):
        anydit.load(run).sample(1, {"label": 0, "length": 8000})


def test_waveforms_are_told_apart_by_patches(folder: Path, tmp_path: Path):
    pipe = train(recipe(folder, Normalize(), 60), tmp_path / "run", "cpu", lambda _: None)
    assert isinstance(pipe, Pipeline)
    assert pipe.config.model.grid == (64,)
    x = pipe.sample(3, {"label": 1, "length": [100, 3840, 61]})
    assert (~x.isnan()).sum((1, 2)).tolist() == [100, 3840, 61]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # of diffusers' own
def test_sounds_are_learned_in_the_latents_of_an_autoencoder(folder: Path, tmp_path: Path):
    """Whose weights are random here: Oobleck, as Stable Audio has it, shrinks a sound 16 times."""
    saved(tmp_path / "oobleck", "AutoencoderOobleck", audio_channels=1, downsampling_ratios=[4, 4])
    pipe = train(recipe(folder, Latents(path=tmp_path / "oobleck"), 4), tmp_path / "run", "cpu", lambda _: None)
    assert pipe.config.model.size == (240,)
    x = anydit.load(tmp_path / "run").sample(2, {"label": 1, "length": [1600, 3840]})
    assert (~x.isnan()).sum((1, 2)).tolist() == [1600, 3840]


def test_recipes_leave_to_a_folder_what_it_is(folder: Path, tmp_path: Path):
    """With classes and texts, or without."""
    whole = RECIPES["audio"]()
    assert isinstance(whole, Recipe)
    data = Audio(path=folder, rate=8000, seconds=0.48)
    model, short = replace(whole.model, width=16, depth=1, heads=2), replace(whole.train, steps=1, batch=4)
    small = replace(whole, data=data, model=model, train=short, sampling=Sampling(steps=2))
    pipe = train(small, tmp_path / "classes", "cpu", lambda _: None)
    assert list(pipe.config.model.conditions) == ["label"]
    pipe = train(replace(small, data=replace(data, path=folder / "low")), tmp_path / "flat", "cpu", lambda _: None)
    assert pipe.sample(1).shape == (1, 1, 3840)
    assert torch.isnan(pipe.sample(1, {"length": 80})[..., 80:]).all()

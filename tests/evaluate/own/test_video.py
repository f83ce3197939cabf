"""Figures of videos: near the floor for real ones, far for each kind of damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import KNOWN, Data, First, MovingDigits, VideoFolder, Videos
from anydit.evaluate import classifier, pretrained
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import OverFrames, RandomNetwork
from anydit.evaluate.own import own
from anydit.evaluate.own import video as module
from anydit.evaluate.own.motion import motion, tracks
from anydit.evaluate.own.video import identity, next_frames
from anydit.evaluate.sets import Sets, opened
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Condition, Field, Label
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.video.films import film

DATA = MovingDigits(seconds=1.5, size=(20, 20), count=200, held_out_count=100, task=First(4))


def pipeline_of(data: Data, conditions: dict[str, Condition]) -> Pipeline:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4, 4), conditions=conditions)
    recipe = Recipe(model=model, codec=Normalize(), view=Videos(high=16), data=data, sampling=Sampling(steps=2))
    whole = resolved(recipe, data.open("train"), lambda _: None)
    return Pipeline(PipelineConfig(**{n: getattr(whole, n) for n in ("model", "codec", "view", "sampling")}))


@pytest.fixture(scope="module")
def sets() -> Sets:
    return opened(pipeline_of(DATA, {"label": Label(), KNOWN: Field()}), DATA, 100)


def damaged(real: Tensor) -> list[tuple[Tensor, list[str]]]:
    """What is worse, and by which figures."""
    g = torch.Generator().manual_seed(0)
    shuffled = real[:, :, torch.randperm(12, generator=g)]
    slow = real[:, :, (torch.arange(12) / 2).long()]
    return [
        ((real + 4 * torch.rand(real.shape, generator=g)).clamp(0, 16), ["frames"]),
        (shuffled, ["steps", "unsteady", "turns"]),
        (slow, ["liveliness", "speed"]),
        (aimed(real), ["direction"]),
        (real.roll((6, 6), (3, 4)), ["walls"]),
        (real.roll(1, 0), ["heading", "pace", "next", "last", "ahead"]),
    ]


def aimed(real: Tensor) -> Tensor:
    """Mirrored, so that none goes to the left at first."""
    left = motion(tracks(real / 16), 8.0).velocity[:, 1] < 0
    return torch.where(left[:, None, None, None, None], real.flip(4), real)


def test_real_videos_are_at_the_floor_and_damage_is_seen(sets: Sets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "identity", lambda x, sets: {})
    real = sets.real.x[sets.rows]
    good = own(sets.view, real, sets)
    for x, worse in damaged(real):
        figures = own(sets.view, x, sets).figures
        for name in worse:
            figure, floor = figures[name], good.figures[name]
            assert floor.samples == pytest.approx(floor.floor, rel=1e-6), name
            if name == "walls":
                assert figure.samples < floor.samples - 0.2, name
            else:
                assert figure.samples > 1.5 * floor.samples + 0.02, name
    assert set(good.pictures) == {"Speed, first direction, and turns in a video", "Error by frames ahead"}
    assert good.figures["walls"].samples > 0.95
    assert good.figures["heading"].samples < 8


def test_errors_ahead_are_of_frames_that_are_not_told(sets: Sets):
    real = sets.real.x[sets.rows]
    scale = sets.real.x.std()
    wrong = real.clone()
    wrong[:, :, :4] = 1e6
    figures, _ = next_frames(wrong, sets)
    assert figures["ahead"].samples == 0
    off = real + scale * torch.arange(-3, 9).reshape(-1, 1, 1)
    figures, _ = next_frames(off, sets)
    assert figures["next"].samples == pytest.approx(1)
    assert figures["last"].samples == pytest.approx(8)
    assert figures["last"].title == "Error 8 frames ahead"
    assert figures["ahead"].samples == pytest.approx((np.arange(1, 9) ** 2).mean() ** 0.5)
    still = real.clone()
    still[:, :, 4:] = real[:, :, 3:4]
    assert next_frames(still, sets)[0]["ahead"].samples == pytest.approx(figures["still"].samples)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    """Two classes: bright above, bright below."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for i in range(80):
        frames = np.full((8, 16, 16, 3), 40.0)
        frames[:, 8 * (i % 2) : 8 * (i % 2) + 8] += rng.uniform(60, 150)
        name = f"{('above', 'below')[i % 2]}/{i}.mp4"
        film(folder / name, tuple(k / 8 for k in range(8)), frames=list(frames.astype(np.uint8)))
    return VideoFolder(path=folder, seconds=1.0, size=(16, 16), held_out=0.4)


def test_all_frames_show_one_class_and_the_right_one(labelled: VideoFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "LEAST_SEEN", 2000)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    sets = opened(pipeline_of(labelled, {"label": Label()}), labelled, 20)
    real = sets.real.x[sets.rows]
    good = identity(real, sets)
    assert good["identity"].samples == good["identity"].floor > 0.9
    assert good["frame_accuracy"].samples == good["frame_accuracy"].floor > 0.9
    other = real.flip(3)  # above is below
    wrong = identity(other, sets)
    assert wrong["identity"].samples > 0.9
    assert wrong["frame_accuracy"].samples < 0.1
    changing = identity(torch.cat([real[:, :, :5], other[:, :, 5:]], 2), sets)
    assert changing["identity"].samples < 0.1
    assert changing["frame_accuracy"].samples == pytest.approx(5 / 8, abs=0.05)
    free = identity(other, replace(sets, asked=False))
    assert list(free) == ["identity"], "no class is asked for"


def test_the_classifier_of_frames_says_how_far_it_is_and_is_kept(
    labelled: VideoFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(classifier, "LEAST_SEEN", 200)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path))
    pipe, stages = pipeline_of(labelled, {"label": Label()}), list[tuple[str, float]]()
    pipe = Pipeline(replace(pipe.config, view=replace(pipe.config.view, high=1.0)))
    for kept in (False, True):
        stages.clear()
        report = evaluate(pipe, labelled, samples=20, progress=lambda stage, done: stages.append((stage, done)))
        assert "identity" in report.figures
        told = [done for stage, done in stages if stage == "classifier of frames"]
        assert told == [] if kept else told[-1] == 1.0 and len(told) > 3
    assert len(list((tmp_path / "classifiers").iterdir())) == 2, "of clips, and of frames"


def test_any_folder_of_videos_has_the_figures_that_need_no_digits(tmp_path: Path):
    rng = np.random.default_rng(0)
    for i in range(60):
        frames = np.clip(rng.normal(120, 40, (1, 16, 16, 3)) + np.linspace(0, 60, 8)[:, None, None, None], 0, 255)
        film(tmp_path / "in" / f"{i}.mp4", tuple(k / 8 for k in range(8)), frames=list(frames.astype(np.uint8)))
    data = VideoFolder(path=tmp_path / "in", seconds=1.0, size=(16, 16), held_out=0.4, cache=tmp_path / "cache")
    pipe = pipeline_of(data, {})
    pipe = Pipeline(replace(pipe.config, view=replace(pipe.config.view, high=1.0)))
    report = evaluate(pipe, data, samples=20)
    assert {"frames", "steps", "liveliness", "frechet"} <= set(report.figures)
    assert not {"identity", "speed", "next"} & set(report.figures)
    assert report.figures["frames"].samples > report.figures["frames"].floor


def test_features_of_pictures_see_videos():
    class Brightness:
        name = "brightness"

        def __call__(self, x: Tensor, /) -> Tensor:
            return x.mean((1, 2, 3))[:, None]

    x = torch.tensor([[0.0, 1.0, 0.0], [2.0, 2.0, 2.0]]).reshape(2, 1, 3, 1, 1).expand(2, 3, 3, 4, 4)
    assert torch.allclose(OverFrames(Brightness())(x), torch.tensor([[1 / 3, 1.0], [2.0, 0.0]]))
    assert OverFrames(Brightness())(x[:, :, :1]).tolist() == [[0, 0], [2, 0]]
    assert OverFrames(Brightness()).name == "brightness, of frames and of their changes"


def test_networks_of_images_are_offered_for_videos(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained, "ImageNet", lambda view, device: RandomNetwork(torch.rand(4, 3, 8, 8), device))
    features = pretrained.named("imagenet", Videos(), torch.device("cpu"))
    assert isinstance(features, OverFrames)
    assert features(torch.rand(2, 3, 5, 8, 8)).shape == (2, 128)

"""Figures of volumes: near the floor for real ones, far for each kind of damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.data import Slab, Volumes, VolumeView
from anydit.evaluate import volumes
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.features import RandomNetwork
from anydit.evaluate.own import own
from anydit.evaluate.sets import Sets, opened
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.dit import DiTConfig
from tests.data.volumes.scans import nifti


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    """Balls of different sizes and brightness, with soft edges, in two channels."""
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1)
    for i in range(4):
        x = np.zeros((24, 24, 24))
        for _ in range(30):
            distance = np.linalg.norm(grid - rng.uniform(0, 24, 3), axis=-1)
            x = np.maximum(x, rng.uniform(50, 150) / (1 + np.exp(distance - rng.uniform(2, 5))))
        nifti(folder / f"{i}.nii", np.stack([x, 150 - x], axis=-1).astype(np.float32), np.eye(4))
    return Volumes(path=folder, crop=(8, 8, 8), crops=40, held_out=Slab(0, 0.4))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4, 4), channels=2, size=(8, 8, 8))
    config = PipelineConfig(
        model=model, codec=Normalize.to_unit(0, 150), sampling=Sampling(steps=2), view=VolumeView(names=("a", "b"))
    )
    return Pipeline(config)


@pytest.fixture(scope="module")
def sets(data: Volumes, pipeline: Pipeline) -> Sets:
    return opened(pipeline, data, 160)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(volumes, "slice_features", lambda x, low, high: RandomNetwork(x, torch.device("cpu")))


def damaged(x: Tensor) -> dict[str, Tensor]:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    brighter = torch.cat([1.5 * x[:, :1], x[:, 1:]], dim=1)
    return {"slices": x + 30 * noise, "values_a": brighter, "steps": x + 30 * noise}


def test_real_data_are_near_the_floor_and_what_is_broken_is_far(sets: Sets, quick: None):
    real = sets.real.x[sets.rows]
    good = own(sets.view, real, sets).figures
    assert list(good) == ["slices", "values_a", "values_b", "steps"]
    for name, x in damaged(real).items():
        figure = own(sets.view, x, sets).figures[name]
        assert figure.samples > 1.5 * figure.floor > 0, name
        assert good[name].samples == pytest.approx(figure.floor, rel=0.2), name
    bright = own(sets.view, damaged(real)["values_a"], sets).figures
    assert bright["values_b"].samples == good["values_b"].samples, "each channel alone"


def test_a_report_has_them(data: Volumes, pipeline: Pipeline, quick: None):
    report = evaluate(pipeline, data, samples=24)
    assert {"slices", "values_a", "values_b", "steps", "frechet"} <= set(report.figures)
    assert report.pictures["Values, by channel"].width > 500


def test_slices_are_seen_by_a_network_of_photographs(sets: Sets):
    few = [some[:6].contiguous() for some in (sets.real.x, sets.real.x, sets.read_train(torch.arange(6)))]
    figure = volumes.slices(few)
    assert figure.samples == figure.floor
    assert "EfficientNet" in figure.meaning


def test_without_such_a_network_the_title_says_so(sets: Sets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def missing(*_: object) -> None:
        raise ValueError("needs two packages more")

    monkeypatch.setattr(volumes, "ImageNet", missing)
    x = sets.real.x
    assert "random convolutional network" in volumes.slices([x, x, x]).meaning
    assert own(replace(sets.view, names=None), x, sets).figures["values_channel_1"].title == "Values of channel 1"

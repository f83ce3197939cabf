"""Data of several sizes: figures are of one of them, and the report says of which, and how much of the data that is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.codecs import Normalize
from anydit.config import config
from anydit.data import ArraySamples, ArrayView, Data, Facts, Part, Samples
from anydit.data.buckets import Groups
from anydit.evaluate.evaluate import evaluate, evaluate_codec
from anydit.evaluate.sets import opened
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig


@config
class Several(Data):
    """Series of three lengths, in two classes; `train`, `held`: how many there are of each."""

    train: tuple[int, ...] = (200, 100, 30)
    held: tuple[int, ...] = (10, 40, 30)

    def open(self, part: Part) -> Samples:
        groups = list[Samples]()
        for length, n in zip((8, 16, 12), self.train if part == "train" else self.held, strict=True):
            rng = np.random.default_rng([length, len(part)])
            x = rng.normal(length, 1, (n, 1, length)).astype(np.float32)
            label = torch.from_numpy(rng.integers(0, 2, n))
            groups.append(ArraySamples(x, Facts(1, (length,), {"label": ("a", "b")}), {"label": label}))
        return Groups(groups)


@pytest.fixture
def pipeline() -> Pipeline:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4,), channels=1, size=(8,), conditions={"label": Label(2)})
    return Pipeline(
        PipelineConfig(model=model, codec=Normalize((8.0,), (1.0,)), sampling=Sampling(steps=2), view=ArrayView())
    )


class Mean:
    """Two features."""

    name = "mean and deviation"

    def __call__(self, x: Tensor, /) -> Tensor:
        return torch.stack([x.flatten(1).mean(1), x.flatten(1).std(1)], dim=1)


def test_figures_are_of_the_fullest_size_with_enough_held_out_samples(pipeline: Pipeline, quick: Path):
    report = evaluate(pipeline, Several(), samples=40)
    note = (
        "Figures and pictures are of the size 16 alone, which 50% of the held-out data have. The training data have "
        "the sizes 8 (61%), 16 (30%), 12 (9%)."
    )
    assert note in report.notes
    assert report.counts["training"] == 100 and report.counts["held_out"] == 40
    assert "accuracy" in report.figures
    sets = opened(pipeline, Several(), None)
    assert sets.real.x.shape == (40, 1, 16) and sets.read_train(torch.arange(3)).shape == (3, 1, 16)
    assert float(sets.real.x.mean()) == pytest.approx(16, abs=0.2)


def test_reconstructions_of_one_size(pipeline: Pipeline, quick: Path):
    report = evaluate_codec(pipeline.codec, ArrayView(), Several(), torch.device("cpu"), features=Mean(), samples=40)
    assert any(note.startswith("Figures and pictures are of the size 16 alone, which 50%") for note in report.notes)


def test_too_few_of_every_size_are_refused(pipeline: Pipeline):
    with pytest.raises(ValueError, match=r"data: got at most 10 held-out samples of any of the sizes 8 \(61%\), 16"):
        opened(pipeline, Several(held=(10, 5, 5)), None)
    with pytest.raises(ValueError, match=r"data: got at most 15 training samples of any of the sizes 8"):
        opened(pipeline, Several(train=(15, 15, 15), held=(30, 5, 5)), None)
    with pytest.raises(ValueError, match=r"data: got held-out samples of 16 \(100%\), expected some of 8 \(100%\)"):
        opened(pipeline, Several(train=(200, 0, 0), held=(0, 40, 0)), None)


def test_of_one_size_nothing_is_said(pipeline: Pipeline):
    sets = opened(pipeline, Several(train=(200, 0, 0), held=(40, 0, 0)), None)
    assert sets.notes == () and sets.real.x.shape == (40, 1, 8)

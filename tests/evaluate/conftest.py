"""Pipelines with random weights, and data for them to be compared with."""

from pathlib import Path

import numpy as np
import pytest

from anydit.codecs import Normalize
from anydit.data import Arrays, ArrayView, Digits, Images
from anydit.evaluate import classifier
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Train classifiers for a few steps only, and keep them in a cache of this test's own, which is returned."""
    monkeypatch.setattr(classifier, "LEAST_SEEN", 1000)
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def digits() -> tuple[Pipeline, Digits]:
    """Digits, and a pipeline that has learned nothing."""
    model = DiTConfig(
        width=16, depth=1, heads=2, patch=(4, 4), channels=1, size=(8, 8), conditions={"label": Label(10)}
    )
    config = PipelineConfig(
        model=model, codec=Normalize.to_unit(0, 16), sampling=Sampling(steps=3), view=Images(low=0, high=16)
    )
    return Pipeline(config), Digits()


@pytest.fixture
def arrays(tmp_path: Path) -> tuple[Pipeline, Arrays]:
    """Arrays of 5 channels, 4x6, without labels, and a pipeline for them."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(3, 2, (200, 5, 4, 6)).astype(np.float32))
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2, 2), channels=5, size=(4, 6))
    config = PipelineConfig(
        model=model, codec=Normalize.to_unit(-3, 9), sampling=Sampling(steps=2), view=ArrayView(low=-3, high=9)
    )
    return Pipeline(config), Arrays(path=tmp_path / "x.npy", held_out=0.2)

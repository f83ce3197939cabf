"""Figures of series: of processes whose answers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anydit.codecs import Normalize
from anydit.data import KNOWN, Forecast, Last, Series, SeriesView
from anydit.evaluate.evaluate import evaluate
from anydit.evaluate.own import own
from anydit.evaluate.own.series import autocorrelation, correlation, unknown_crps
from anydit.evaluate.sets import Sets, opened
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved

PHI = 0.6


def process(n: int, seed: int) -> np.ndarray:
    """Autoregressive of order one, deviation 1; the second channel follows the first."""
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = PHI * x[i - 1] + (1 - PHI**2) ** 0.5 * rng.normal()
    return np.stack([x, 0.6 * x + 0.8 * rng.normal(size=n)]).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Series:
    path = tmp_path_factory.mktemp("series") / "x.csv"
    pd.DataFrame(dict(zip("ab", process(20_000, 0), strict=True))).to_csv(path, index=False)
    return Series(path=path, length=16, stride=8, task=Forecast(past=8), held_out=Last(0.3))


@pytest.fixture(scope="module")
def pipeline(data: Series) -> Pipeline:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4,), conditions={KNOWN: Field()})
    recipe = Recipe(model=model, codec=Normalize(), view=SeriesView(), data=data, sampling=Sampling(steps=2))
    whole = resolved(recipe, data.open("train"), lambda _: None)
    fields = {name: getattr(whole, name) for name in ("model", "codec", "view", "sampling")}
    return Pipeline(PipelineConfig(**fields))


@pytest.fixture(scope="module")
def sets(data: Series, pipeline: Pipeline) -> Sets:
    return opened(pipeline, data, None)


def test_correlations_are_those_of_the_process():
    x = torch.from_numpy(process(200_000, 1)).unflatten(1, (-1, 20)).transpose(0, 1)
    curve = autocorrelation(x)
    assert curve.shape == (2, 10)
    lags = PHI ** torch.arange(1, 11)
    assert torch.allclose(curve[0], lags, atol=0.03)
    assert torch.allclose(curve[1], 0.36 * lags, atol=0.03)
    assert torch.allclose(correlation(x), torch.tensor([[1, 0.6], [0.6, 1]]), atol=0.03)


def test_a_channel_that_never_varies_spoils_no_figure(data: Series, pipeline: Pipeline, tmp_path: Path):
    frame = pd.DataFrame(dict(zip("ab", process(4000, 0), strict=True)))
    frame["b"] = 7.0
    frame.to_csv(tmp_path / "x.csv", index=False)
    sets = opened(pipeline, replace(data, path=tmp_path / "x.csv"), None)
    for x in (sets.real.x[sets.rows], sets.real.x[sets.rows] + 0.1):
        assert all(np.isfinite([f.samples, f.floor]).all() for f in own(sets.view, x, sets).figures.values())


def test_real_data_are_near_the_floor_and_what_is_broken_is_far(sets: Sets):
    real = sets.real.x[sets.rows]
    scale = real.std((0, 2), keepdim=True)
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0)) * scale
    broken = {
        "values": 2 * real,
        "steps": noise,
        "autocorrelation": noise,
        "correlation": torch.stack([real[:, 0], real[:, 1].roll(1, dims=0)], dim=1),
    }
    good = own(sets.view, real, sets).figures
    for name, x in broken.items():
        figure = own(sets.view, x, sets).figures[name]
        assert figure.samples > 3 * figure.floor > 0, name
        assert good[name].samples == pytest.approx(figure.floor, rel=0.2), name


def test_the_crps_is_of_what_is_not_told_alone(sets: Sets):
    known = sets.real.tensor(KNOWN)
    scale = sets.real.x.std((0, 2), keepdim=True)
    wrong_where_told = torch.where(known[:, 2:] > 0, 1e6, sets.real.x)[sets.rows]
    assert own(sets.view, wrong_where_told, sets).figures["crps"].samples == 0
    members = torch.randn(64, *sets.real.x.shape, generator=torch.Generator().manual_seed(0)) * scale
    score = unknown_crps(members / scale, sets.real.x / scale, known)
    assert torch.allclose(score, torch.full((2,), 0.56), atol=0.06), "1 / sqrt(pi) for Gaussians"


def test_a_report_has_them(data: Series, pipeline: Pipeline):
    report = evaluate(pipeline, data, samples=40)
    assert list(report.figures)[:5] == ["values", "steps", "autocorrelation", "correlation", "crps"]
    assert "Autocorrelation, by rows apart" in report.pictures


def test_without_a_task_there_is_no_crps(data: Series, sets: Sets):
    plain = replace(data, task=None)
    without = replace(sets, train=plain.open("train"), real=plain.open("held_out").read(torch.arange(sets.count)))
    assert "crps" not in own(sets.view, sets.real.x[sets.rows], without).figures

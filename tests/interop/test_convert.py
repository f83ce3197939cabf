"""Whole published models into folders that sample as published, and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import anydit
from anydit.codecs import Normalize
from anydit.diffusion.paths import DDPM, Cosine, Linear
from anydit.diffusion.predictions import Noise, V, Velocity
from anydit.diffusion.samplers import Euler
from anydit.diffusion.times import FlowMatching
from anydit.inference.config import PipelineConfig, load_config
from anydit.inference.pipeline import Pipeline
from anydit.interop.convert import PUBLISHED_SAMPLING, from_diffusers, from_dit, to_diffusers, to_dit
from anydit.interop.diffusers import MAX_PERIOD
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.tensors import Stream
from anydit.weights import load_tensors
from tests.interop.references import published_forward, random_state

STATE = {"width": 48, "depth": 2, "patch": 2, "channels": 4, "side": 2, "rows": 6, "out": 8}
LABELS = [3, 0]
SEED = 5


def published_sampling(state: dict[str, Tensor], heads: int, steps: int, scale: float, noise: Any) -> Tensor:
    """The published ancestral sampler in doubles (Ho 2020; Nichol & Dhariwal 2021), written for this test alone."""
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    index = [round(i * 999 / (steps - 1)) for i in range(steps)]
    total = kept[index]
    before = np.append(1.0, total[:-1])
    beta = 1 - total / before
    variance = beta * (1 - before) / (1 - total)
    low, high = np.log(np.append(variance[1], variance[1:])), np.log(beta)
    label = torch.tensor([*LABELS, 5, 5])
    x = noise(0)
    for i in reversed(range(steps)):
        at = torch.full((4,), index[i])
        out = published_forward(state, torch.cat([x, x]), at, label, heads)
        given, null = out.chunk(2)
        eps = torch.cat([null[:, :3] + scale * (given[:, :3] - null[:, :3]), given[:, 3:4]], dim=1)
        mix = (given[:, 4:] + 1) / 2
        x0 = x / total[i] ** 0.5 - (1 / total[i] - 1) ** 0.5 * eps
        mean = beta[i] * before[i] ** 0.5 / (1 - total[i]) * x0
        mean = mean + (1 - before[i]) * (total[i] / before[i]) ** 0.5 / (1 - total[i]) * x
        x = mean if i == 0 else mean + (0.5 * (mix * high[i] + (1 - mix) * low[i])).exp() * noise(steps - i)
    return x


def test_a_published_checkpoint_samples_as_published(tmp_path: Path) -> None:
    state = random_state(**STATE)
    torch.save({"ema": state}, tmp_path / "a.pt")
    config = from_dit(tmp_path / "a.pt", tmp_path / "folder", heads=4)
    assert config.sampling == PUBLISHED_SAMPLING
    assert config.model.conditions == {"label": Label(5)}
    pipe = anydit.load(tmp_path / "folder", device="cpu")
    stream, positions = Stream(SEED, "sample"), torch.arange(2)
    expected = published_sampling(
        {name: v.double() for name, v in state.items()},
        heads=4,
        steps=6,
        scale=4.0,
        noise=lambda step: stream.normal(step, positions, (4, 4, 4)).double(),
    )
    got = pipe.sample(2, {"label": LABELS}, steps=6, seed=SEED)
    expected = expected / 0.18215
    assert (got - expected).norm() / expected.norm() <= 1e-4


def test_to_the_published_format_and_back(tmp_path: Path) -> None:
    state = random_state(**STATE)
    torch.save(state, tmp_path / "a.pt")
    from_dit(tmp_path / "a.pt", tmp_path / "folder", heads=4)
    to_dit(tmp_path / "folder", tmp_path / "b.pt")
    back = torch.load(tmp_path / "b.pt", weights_only=True)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_bad_checkpoint_leaves_no_folder(tmp_path: Path) -> None:
    torch.save({"ema": {"a": torch.zeros(1)}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="is not of this format"):
        from_dit(tmp_path / "a.pt", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def own(tmp_path: Path, **changes: Any) -> PipelineConfig:
    """A model of our own in a folder, of a kind that diffusers has."""
    model = DiTConfig(
        32,
        1,
        2,
        (2, 2),
        channels=3,
        size=(8, 8),
        conditions={"label": Label(3, names=("a", "b", "c"))},
        time=TimeEmbedding(max_period=MAX_PERIOD),
    )
    codec = Normalize.to_unit(0, 1)
    config = PipelineConfig(**{"model": model, "path": DDPM(), "prediction": V(), "codec": codec, **changes})
    pipe = Pipeline(config)
    with torch.no_grad():
        for p in pipe.model.parameters():
            p.add_(0.02)
    pipe.save(tmp_path / "own")
    return config


def test_to_diffusers_and_back(tmp_path: Path) -> None:
    config = own(tmp_path)
    to_diffusers(tmp_path / "own", tmp_path / "theirs")
    got = from_diffusers(tmp_path / "theirs", tmp_path / "back")
    assert (got.model, got.path, got.prediction) == (config.model, config.path, config.prediction)
    assert load_config(tmp_path / "back") == got
    ours, back = (load_tensors(tmp_path / f / "model.safetensors") for f in ("own", "back"))
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    sample = anydit.load(tmp_path / "back", device="cpu").sample(2, {"label": ["a", "c"]}, steps=3)
    assert sample.isfinite().all()


def test_the_autoencoders_scale_goes_along(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"scaling_factor": 0.5, "shift_factor": 0.25}')
    to_diffusers(tmp_path / "own", tmp_path / "theirs", vae=tmp_path / "vae")
    codec = from_diffusers(tmp_path / "theirs", tmp_path / "back").codec.build()
    torch.testing.assert_close(codec.encode(torch.full((1, 3, 1, 1), 2.25)), torch.ones(1, 3, 1, 1))


def test_a_bare_model_needs_its_path_and_prediction(tmp_path: Path) -> None:
    own(tmp_path)
    to_diffusers(tmp_path / "own", tmp_path / "theirs")
    with pytest.raises(ValueError, match=r"has no scheduler_config\.json"):
        from_diffusers(tmp_path / "theirs" / "transformer", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    got = from_diffusers(tmp_path / "theirs" / "transformer", tmp_path / "back", path=DDPM(), prediction=Noise())
    assert (got.path, got.prediction) == (DDPM(), Noise())


def test_a_flow_model_goes_with_a_scheduler_for_flows(tmp_path: Path) -> None:
    """Its time may be told with another shift there: the weights that read its sinusoids take the change."""
    own(tmp_path, path=Linear(), prediction=Velocity())
    to_diffusers(tmp_path / "own", tmp_path / "theirs")
    config = from_diffusers(tmp_path / "theirs", tmp_path / "back")
    assert (config.path, config.prediction, config.model.time.shift) == (Linear(), Velocity(), 0.0)
    assert (config.sampling.sampler, config.sampling.grid) == (Euler(), FlowMatching())
    x, t, cond = torch.randn(3, 3, 8, 8), torch.tensor([0.001, 0.4567, 1.0]), {"label": torch.tensor([0, 1, 2])}
    before, after = (anydit.load(tmp_path / name, device="cpu").model for name in ("own", "back"))
    with torch.no_grad():
        expected, got = before(x, t, cond), after(x, t, cond)
        mistold = after(x, t - 0.001, cond)
    assert (got - expected).norm() / expected.norm() <= 1e-5
    assert (mistold - expected).norm() / expected.norm() > 1e-3


def test_a_path_that_diffusers_has_not_is_refused(tmp_path: Path) -> None:
    own(tmp_path, path=Cosine(), prediction=V())
    with pytest.raises(ValueError, match="path: got Cosine, expected DDPM or Linear for diffusers"):
        to_diffusers(tmp_path / "own", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()

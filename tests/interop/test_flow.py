"""Whole SiTs and LightningDiTs into folders that sample as published, and back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import anydit
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import Velocity
from anydit.inference.config import load_config
from anydit.interop.convert import from_dit
from anydit.interop.flow import (
    LIGHTNING_SAMPLING,
    SIT_SAMPLING,
    from_lightningdit,
    from_sit,
    to_lightningdit,
    to_sit,
)
from anydit.tensors import Stream
from anydit.weights import load_tensors
from tests.interop.references import lightning_forward, published_forward, random_lightning_state, random_state

STATE = {"width": 48, "depth": 2, "patch": 2, "channels": 4, "side": 2, "rows": 6, "out": 8}
LABELS = [3, 0]
SEED = 5


def test_a_sit_samples_along_its_own_ode(tmp_path: Path) -> None:
    """Its time runs from noise at 0 to data at 1, along its own velocity; guidance is on three of four channels."""
    state = random_state(**STATE)
    torch.save({"ema": state}, tmp_path / "a.pt")
    config = from_sit(tmp_path / "a.pt", tmp_path / "folder", heads=4)
    assert (config.path, config.prediction, config.sampling) == (Linear(), Velocity(), SIT_SAMPLING)
    double = {name: v.double() for name, v in state.items()}
    label = torch.tensor([*LABELS, 5, 5])

    def velocity(x: Tensor, time: float) -> Tensor:
        out = published_forward(double, torch.cat([x, x]), torch.full((4,), time), label, 4)[:, :4]
        given, null = out.chunk(2)
        return torch.cat([null[:, :3] + 4.0 * (given[:, :3] - null[:, :3]), given[:, 3:]], dim=1)

    x = Stream(SEED, "sample").normal(0, torch.arange(2), (4, 4, 4)).double()
    for i in range(4):
        first = velocity(x, i / 4)
        x = x + (first if i == 3 else (first + velocity(x + first / 4, (i + 1) / 4)) / 2) / 4
    pipe = anydit.load(tmp_path / "folder", device="cpu")
    got = pipe.sample(2, {"label": LABELS}, steps=4, seed=SEED)
    assert (got - x / 0.18215).norm() / (x / 0.18215).norm() <= 1e-4


def test_a_lightningdit_samples_as_published(tmp_path: Path) -> None:
    """Times moved towards noise, no guidance before 0.125 of the way, and latents of their own mean and deviation."""
    state = random_lightning_state()
    torch.save({"ema": state}, tmp_path / "a.pt")
    mean, std = torch.linspace(-1, 1, 5).reshape(1, 5, 1, 1), torch.linspace(0.5, 2, 5).reshape(1, 5, 1, 1)
    torch.save({"mean": mean, "std": std}, tmp_path / "stats.pt")
    config = from_lightningdit(tmp_path / "a.pt", tmp_path / "folder", latents=tmp_path / "stats.pt")
    assert config.sampling == LIGHTNING_SAMPLING
    places = torch.linspace(0, 1, 8, dtype=torch.float64)
    places = 0.3 * places / (1 + (0.3 - 1) * places)
    double, label = {name: v.double() for name, v in state.items()}, torch.tensor([*LABELS, 6, 6])
    x = Stream(SEED, "sample").normal(0, torch.arange(2), (5, 3, 3)).double()
    for i in range(7):
        time = float(places[i])
        out = lightning_forward(double, torch.cat([x, x]), torch.full((4,), time), label, 12)
        given, null = out.chunk(2)
        scale = 6.7 if time >= 0.125 else 1.0
        guided = torch.cat([null[:, :3] + scale * (given[:, :3] - null[:, :3]), given[:, 3:]], dim=1)
        x = x + float(places[i + 1] - places[i]) * guided
    x = x * std + mean
    pipe = anydit.load(tmp_path / "folder", device="cpu")
    got = pipe.sample(2, {"label": LABELS}, steps=7, seed=SEED)
    assert (got - x).norm() / x.norm() <= 1e-4


def test_flow_checkpoints_there_and_back(tmp_path: Path) -> None:
    torch.save(random_state(**STATE), tmp_path / "sit.pt")
    torch.save(random_lightning_state(), tmp_path / "lightning.pt")
    from_sit(tmp_path / "sit.pt", tmp_path / "sit", heads=4)
    from_lightningdit(tmp_path / "lightning.pt", tmp_path / "lightning")
    for name, back, again in (("sit", to_sit, from_sit), ("lightning", to_lightningdit, from_lightningdit)):
        back(tmp_path / name, tmp_path / f"{name}-back.pt")
        again(tmp_path / f"{name}-back.pt", tmp_path / f"{name}-back", heads=load_config(tmp_path / name).model.heads)
        one, other = (load_tensors(tmp_path / f / "model.safetensors") for f in (name, f"{name}-back"))
        assert load_config(tmp_path / f"{name}-back").model == load_config(tmp_path / name).model
        assert all(torch.allclose(one[key], other[key], rtol=0, atol=1e-6) for key in one)


def test_a_model_without_a_null_is_not_guided(tmp_path: Path) -> None:
    torch.save(random_state(48, 1, 2, 3, 2, 5, 3), tmp_path / "a.pt")
    assert from_sit(tmp_path / "a.pt", tmp_path / "none", heads=4, classes=5).sampling.guidance.scale == 1
    guidance = from_sit(tmp_path / "a.pt", tmp_path / "three", heads=4).sampling.guidance
    assert (guidance.scale, guidance.legacy_channels) == (4.0, None)


def test_a_flow_checkpoint_means_one_path_and_prediction(tmp_path: Path) -> None:
    torch.save(random_state(**STATE), tmp_path / "a.pt")
    from_dit(tmp_path / "a.pt", tmp_path / "dit", heads=4)
    for write in (to_sit, to_lightningdit):
        with pytest.raises(ValueError, match=r"path: got DDPM.*expected Linear\(\)"):
            write(tmp_path / "dit", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("stats", [{"mean": torch.ones(5)}, {"mean": torch.ones(5), "std": torch.ones(4)}])
def test_latents_of_another_number_of_channels_are_refused(tmp_path: Path, stats: dict[str, Tensor]) -> None:
    torch.save(random_lightning_state(), tmp_path / "a.pt")
    torch.save(stats, tmp_path / "stats.pt")
    with pytest.raises(ValueError, match=r"latents: got .*stats\.pt, expected tensors mean and std of 5 values each"):
        from_lightningdit(tmp_path / "a.pt", tmp_path / "folder", latents=tmp_path / "stats.pt")
    assert not (tmp_path / "folder").exists()

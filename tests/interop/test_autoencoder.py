"""A published model with a published autoencoder behind it makes images, and they are what diffusers decodes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import anydit
from anydit.cli import main
from anydit.codecs import Latents
from anydit.data import Images
from anydit.inference.config import load_config
from anydit.interop.convert import from_diffusers, from_dit, to_diffusers
from tests.codecs.tiny import saved
from tests.interop.references import random_state

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # of diffusers' own

STATE = {"width": 48, "depth": 1, "patch": 2, "channels": 4, "side": 2, "rows": 6, "out": 8}


def sampled(folder: Path) -> Tensor:
    return anydit.load(folder, device="cpu").sample(2, {"label": [3, 0]}, steps=3, seed=5)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"ema": random_state(**STATE)}, tmp_path / "dit.pt")
    return tmp_path / "dit.pt"


def test_samples_are_what_diffusers_decodes(checkpoint: Path, tmp_path: Path):
    network = saved(tmp_path / "vae", "AutoencoderKL")
    from_dit(checkpoint, tmp_path / "latents", heads=4)
    config = from_dit(checkpoint, tmp_path / "images", heads=4, vae=tmp_path / "vae")
    with torch.no_grad():
        expected = (network.decode(sampled(tmp_path / "latents")).sample + 1) * 127.5
    images = sampled(tmp_path / "images")
    assert images.shape == (2, 3, 16, 16)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-3)
    assert load_config(tmp_path / "images") == config and config.view == Images(low=0, high=255)


def test_a_pipeline_of_diffusers_brings_its_own(checkpoint: Path, tmp_path: Path):
    network = saved(tmp_path / "vae", "AutoencoderKL", scaling_factor=0.5)
    from_dit(checkpoint, tmp_path / "own", heads=4)
    to_diffusers(tmp_path / "own", tmp_path / "theirs", vae=tmp_path / "vae", round_time=True)
    from_diffusers(tmp_path / "theirs", tmp_path / "latents")
    config = from_diffusers(tmp_path / "theirs", tmp_path / "images", vae=tmp_path / "theirs" / "vae")
    assert isinstance(config.codec, Latents) and config.codec.scale == (2.0,) * 4
    with torch.no_grad():
        expected = (network.decode(sampled(tmp_path / "latents")).sample + 1) * 127.5
    torch.testing.assert_close(sampled(tmp_path / "images"), expected, rtol=1e-4, atol=1e-3)


def test_latents_that_diffusers_would_scale_otherwise_are_refused(checkpoint: Path, tmp_path: Path):
    saved(tmp_path / "vae", "AutoencoderKL")
    from_dit(checkpoint, tmp_path / "own", heads=4, vae=tmp_path / "vae")
    to_diffusers(tmp_path / "own", tmp_path / "theirs", vae=tmp_path / "vae", round_time=True)
    saved(tmp_path / "other", "AutoencoderKL", scaling_factor=0.3)
    with pytest.raises(ValueError, match=r"^codec: .* expected 0 and 3\.33333 for every channel: DiTPipeline"):
        to_diffusers(tmp_path / "own", tmp_path / "new", vae=tmp_path / "other", round_time=True)
    assert not (tmp_path / "new").exists()


def test_from_the_command_line_to_pictures(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved(tmp_path / "vae", "AutoencoderTiny")
    to, vae = str(tmp_path / "images"), str(tmp_path / "vae")
    assert main(["convert", "dit", str(checkpoint), "--heads", "4", "--vae", vae, "--to", to]) == 0
    assert f"anydit sample {to} -n 4 --out images/" in capsys.readouterr().out
    out = str(tmp_path / "two.png")
    assert main(["sample", to, "--label", "3", "-n", "2", "--steps", "2", "--device", "cpu", "--out", out]) == 0
    assert Path(out).is_file()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (None, {}, "which is not a folder"),
        ("AutoencoderKL", {"latent_channels": 8}, "with latents of 8 channels, expected 4, as the model has"),
        ("AutoencoderOobleck", {}, "expected an autoencoder of images, as diffusers saves it"),
    ],
)
def test_one_that_does_not_fit_is_refused(
    name: str | None, options: dict[str, int], message: str, checkpoint: Path, tmp_path: Path
):
    if name is not None:
        saved(tmp_path / "vae", name, **options)
    with pytest.raises(ValueError, match=f"^vae: .*{message}"):
        from_dit(checkpoint, tmp_path / "to", heads=4, vae=tmp_path / "vae")
    assert not (tmp_path / "to").exists()

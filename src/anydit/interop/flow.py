"""Whole SiTs and LightningDiTs to folders that `anydit.load` opens, and back: of linear path and velocity, both."""

from pathlib import Path

from torch import Tensor

from anydit.codecs import CodecConfig, Normalize
from anydit.data import View
from anydit.diffusion import samplers
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.paths import Linear
from anydit.diffusion.predictions import Velocity
from anydit.diffusion.times import Even
from anydit.inference.adapter import load_weights
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.interop import dit, lightningdit, sit
from anydit.interop.convert import LATENT_VIEW, PUBLISHED_LATENTS, possible, put
from anydit.model.dit import DiTConfig

SIT_SAMPLING = Sampling(sampler=samplers.Heun(), steps=50, grid=Even(), guidance=Guidance(4.0, legacy_channels=3))
"""What SiT's script does unless told otherwise: along the ODE, guided like the DiT. Its solver chooses its steps."""

LIGHTNING_SAMPLING = Sampling(
    sampler=samplers.Euler(),
    steps=249,
    grid=Even(shift=1 / 0.3),
    guidance=Guidance(6.7, interval=(0.0, 0.875), legacy_channels=3),
)
"""How LightningDiT's samples of 800 epochs were made: 250 places, that is 249 steps, most of them near noise."""


def from_sit(
    source: Path,
    to: Path,
    *,
    heads: int | None = None,
    classes: int | None = None,
    ema: bool = True,
    codec: CodecConfig = PUBLISHED_LATENTS,
    view: View = LATENT_VIEW,
    vae: Path | None = None,
) -> PipelineConfig:
    """A SiT's checkpoint of linear path and velocity as a folder. Arguments as in `from_dit`.

    Raises:
        ValueError: `source` is not such a checkpoint, or `vae` does not fit it; nothing is written then.
    """
    model, tensors = sit.read(source, heads=heads, classes=classes, ema=ema)
    return _flow(model, tensors, to, codec, SIT_SAMPLING, view, vae)


def to_sit(source: Path, to: Path) -> None:
    """A run or an exported folder, of linear path and velocity, as a SiT's checkpoint.

    Raises:
        ValueError: the format cannot hold the model, or means another path or prediction.
    """
    config = _flow_config(source, "SiT")
    sit.write(config.model, load_weights(source), to)


def from_lightningdit(
    source: Path,
    to: Path,
    *,
    heads: int | None = None,
    classes: int | None = None,
    ema: bool = True,
    latents: Path | None = None,
    view: View = LATENT_VIEW,
    vae: Path | None = None,
) -> PipelineConfig:
    """A LightningDiT's checkpoint of linear path and velocity as a folder. Arguments as in `from_dit`.

    `latents`: the file `latents_stats.pt` of its latents' mean and deviation by channel; None: samples stay normalised.

    Raises:
        ValueError: `source` or `latents` is not such a file, or `vae` does not fit; nothing is written then.
    """
    model, tensors = lightningdit.read(source, heads=heads, classes=classes, ema=ema)
    codec = Normalize((0.0,), (1.0,)) if latents is None else _measured(latents, model.in_channels)
    return _flow(model, tensors, to, codec, LIGHTNING_SAMPLING, view, vae)


def to_lightningdit(source: Path, to: Path) -> None:
    """A run or an exported folder, of linear path and velocity, as a LightningDiT's checkpoint; its codec is no part.

    Raises:
        ValueError: the format cannot hold the model, or means another path or prediction.
    """
    config = _flow_config(source, "LightningDiT")
    lightningdit.write(config.model, load_weights(source), to)


def _flow(
    model: DiTConfig,
    tensors: dit.Weights,
    to: Path,
    codec: CodecConfig,
    sampling: Sampling,
    view: View,
    vae: Path | None,
) -> PipelineConfig:
    """Write a model of linear path and velocity, set up to sample as published."""
    sampling = possible(sampling, model)
    config = PipelineConfig(
        model=model, path=Linear(), prediction=Velocity(), codec=codec, sampling=sampling, view=view
    )
    return put(to, config, tensors, vae)


def _flow_config(source: Path, form: str) -> PipelineConfig:
    """A folder's config, if it is of linear path and velocity."""
    config = load_config(source)
    for name, got, expected in (("path", config.path, Linear()), ("prediction", config.prediction, Velocity())):
        if got != expected:
            raise ValueError(f"{name}: got {got}, expected {expected}: {form}'s format says neither, and means these")
    return config


def _measured(file: Path, channels: int) -> Normalize:
    """What normalises latents whose mean and standard deviation by channel are in a file."""
    content = dit.load_pickle(file)
    values = [content.get(name) for name in ("mean", "std")]
    if not all(isinstance(value, Tensor) and value.numel() == channels for value in values):
        raise ValueError(f"latents: got {file}, expected tensors mean and std of {channels} values each")
    shift, scale = (tuple(float(v) for v in value.flatten()) for value in values if isinstance(value, Tensor))
    return Normalize(shift=shift, scale=scale)

"""Whole models in published formats to folders that `anydit.load` opens, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isclose
from pathlib import Path

from torch import Tensor

from anydit.codecs import CodecConfig, Latents, Normalize
from anydit.config import Json
from anydit.data import ArrayView, View
from anydit.diffusion import samplers
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.paths import DDPM, AnyPath, Linear
from anydit.diffusion.predictions import AnyPrediction, Noise
from anydit.diffusion.times import Respaced
from anydit.inference.adapter import load_weights
from anydit.inference.config import PipelineConfig, Sampling, load_config
from anydit.inference.folder import export
from anydit.inference.pipeline import load
from anydit.interop import diffusers, dit, pixart, sd3
from anydit.interop.autoencoder import with_autoencoder
from anydit.interop.diffusers_schedulers import schedule_for, told
from anydit.interop.folders import copy_parts, other_parts, read_json, write_pipeline
from anydit.model.dit import DiTConfig
from anydit.model.time import TimeEmbedding
from anydit.weights import save_tensors

PUBLISHED_LATENTS = Normalize(shift=(0.0,), scale=(1 / 0.18215,))
"""What the published DiTs do to the latents of their autoencoder: multiply by 0.18215. Samples are these latents, or
images with the autoencoder behind."""

PUBLISHED_SAMPLING = Sampling(
    sampler=samplers.DDPM(), steps=250, grid=Respaced(1000), guidance=Guidance(4.0, legacy_channels=3)
)
"""How the published samples were made: 250 respaced steps, and guidance on the first three of four channels."""

LATENT_VIEW = ArrayView(low=-20.0, high=20.0)

PIXART_PARTS = ("text_encoder", "tokenizer", "vae")
SD3_PARTS = (
    *("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"),
    *("feature_extractor", "image_encoder", "vae"),
)
"""What the pipelines have beside network and scheduler."""

ToDiffusers = Callable[[DiTConfig, Mapping[str, Tensor], TimeEmbedding], tuple[Json, Mapping[str, Tensor]]]
"""Config and weights of a network, to diffusers'."""


def from_dit(
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
    """A published checkpoint as a folder, set up to sample as published. Arguments as in `anydit.interop.dit.read`.

    `vae`: a folder of diffusers with the autoencoder whose latents it makes; with it, samples are images.

    Raises:
        ValueError: `source` is not such a checkpoint, or `vae` does not fit it; nothing is written then.
    """
    model, tensors = dit.read(source, heads=heads, classes=classes, ema=ema)
    sampling = possible(PUBLISHED_SAMPLING, model)
    config = PipelineConfig(model=model, path=DDPM(), prediction=Noise(), codec=codec, sampling=sampling, view=view)
    return put(to, config, tensors, vae)


def to_safetensors(source: Path, to: Path) -> None:
    """A file of plain tensors as torch.save writes them, as safetensors, which need no trust to be read.

    Raises:
        ValueError: `source` is cut short, or holds anything but tensors by name.
    """
    save_tensors(to, dit.plain(dit.load_pickle(source), source))


def merge(source: Path, to: Path) -> None:
    """A run, an adapter's with its base's weights, as a whole folder that needs neither.

    Raises:
        ValueError: `source` is no such folder, or the adapter's base is not there.
    """
    pipeline = load(source, "cpu")
    pipeline.save(to)


def to_dit(source: Path, to: Path) -> None:
    """A run or an exported folder as a checkpoint in the published format; path and prediction are not part of it.

    Raises:
        ValueError: the format cannot hold the model.
    """
    dit.write(load_config(source).model, load_weights(source), to)


def from_diffusers(
    source: Path,
    to: Path,
    *,
    path: AnyPath | None = None,
    prediction: AnyPrediction | None = None,
    codec: CodecConfig | None = None,
    view: View = LATENT_VIEW,
    vae: Path | None = None,
) -> PipelineConfig:
    """A folder of diffusers as a folder of anydit, set up to sample as `DiTPipeline` does: 50 steps, guidance 4.

    `path`, `prediction`: None reads them, and sampler and grid, from the folder's scheduler; with both of them said it
    is not looked at. `codec`: None takes the scale from the folder's autoencoder if there is one, so that samples are
    its latents, and otherwise leaves samples as they are. `vae`: as in `from_dit`; it may be the one in the folder.

    Raises:
        ValueError: `source` is not such a folder, or has no scheduler that anydit can follow, or `vae` does not fit it;
            nothing is written then.
    """
    model, tensors = diffusers.read(source)
    how = Sampling(steps=50, guidance=Guidance(4.0))
    return _as_there(source, to, model, tensors, how, path, prediction, codec, view, vae)


def from_pixart(
    source: Path,
    to: Path,
    *,
    path: AnyPath | None = None,
    prediction: AnyPrediction | None = None,
    codec: CodecConfig | None = None,
    view: View = LATENT_VIEW,
    vae: Path | None = None,
) -> PipelineConfig:
    """A PixArt of diffusers as a folder of anydit, to sample in 20 steps. Arguments as in `from_diffusers`.

    Its text encoder is not part of it: a condition is `Tokens` that the encoder made.

    Raises:
        ValueError: as `from_diffusers`.
    """
    model, tensors = pixart.read(source)
    return _as_there(source, to, model, tensors, Sampling(steps=20), path, prediction, codec, view, vae)


def from_sd3(
    source: Path,
    to: Path,
    *,
    path: AnyPath | None = None,
    prediction: AnyPrediction | None = None,
    codec: CodecConfig | None = None,
    view: View = LATENT_VIEW,
    vae: Path | None = None,
) -> PipelineConfig:
    """A Stable Diffusion 3 of diffusers as a folder of anydit, to sample in 28 steps. Arguments as in `from_diffusers`.

    Its text encoders are not part of it: a condition is `Tokens` that they made, of which all exist, padding too.

    Raises:
        ValueError: as `from_diffusers`.
    """
    model, tensors = sd3.read(source)
    return _as_there(source, to, model, tensors, Sampling(steps=28), path, prediction, codec, view, vae)


def to_diffusers(source: Path, to: Path, *, vae: Path | None = None, round_time: bool = False) -> None:
    """A run or an exported folder as a `DiTPipeline` folder. Arguments as in `anydit.interop.diffusers.write`.

    The codec is not part of it: the model's samples there are what this one's codec decodes.

    Raises:
        ValueError: diffusers has no such model, path or prediction, or would scale the latents of `vae` otherwise;
            nothing is written then.
    """
    config, tensors = load_config(source), load_weights(source)
    if vae is not None and isinstance(config.codec, Latents):
        _refuse_scales(config.codec, vae)
    diffusers.write(
        config.model, tensors, to, path=config.path, prediction=config.prediction, vae=vae, round_time=round_time
    )


def to_pixart(source: Path, to: Path, *, parts: Path | None = None) -> None:
    """A run or an exported folder as a `PixArtSigmaPipeline` folder.

    `parts`: a pipeline's folder whose autoencoder and text encoder go along; None leaves them out.

    Raises:
        ValueError: diffusers has no such model, path or prediction, or `parts` is not whole; nothing is written then.
    """
    _to_pipeline(source, to, pixart.to_diffusers, "PixArtSigmaPipeline", PIXART_PARTS, parts)


def to_sd3(source: Path, to: Path, *, parts: Path | None = None) -> None:
    """A run or an exported folder as a `StableDiffusion3Pipeline` folder. Arguments as in `to_pixart`.

    Raises:
        ValueError: as `to_pixart`.
    """
    _to_pipeline(source, to, sd3.to_diffusers, "StableDiffusion3Pipeline", SD3_PARTS, parts)


def _as_there(
    source: Path,
    to: Path,
    model: DiTConfig,
    tensors: Mapping[str, Tensor],
    how: Sampling,
    path: AnyPath | None,
    prediction: AnyPrediction | None,
    codec: CodecConfig | None,
    view: View,
    vae: Path | None,
) -> PipelineConfig:
    """Write a model of diffusers as a folder that samples as the folder's scheduler does, in the steps of `how`."""
    sampler, grid = samplers.DDIM(), Respaced(path.steps if isinstance(path, DDPM) else round(model.time.scale))
    if path is None or prediction is None:
        own = diffusers.read_schedule(source)
        path, prediction, sampler, grid = path or own.path, prediction or own.prediction, own.sampler, own.grid
        if isinstance(sampler, samplers.DDPM) and model.learned_variance:
            raise ValueError(
                "scheduler: got DDPMScheduler beside a learned variance, which diffusers' pipelines leave unused and "
                "anydit would use; expected DDIMScheduler"
            )
    model = replace(model, time=told(model.time, path, path.steps if isinstance(path, DDPM) else grid.of))
    config = PipelineConfig(
        model=model,
        path=path,
        prediction=prediction,
        codec=codec or _latents(vae or source / "vae"),
        sampling=replace(how, sampler=sampler, steps=min(how.steps, grid.of), grid=grid),
        view=view,
    )
    return put(to, config, tensors, vae)


def _to_pipeline(
    source: Path, to: Path, network: ToDiffusers, kind: str, names: Sequence[str], parts: Path | None
) -> None:
    config, tensors = load_config(source), load_weights(source)
    scheduler = schedule_for(config.path, config.prediction)
    model, state = config.model, tensors
    if isinstance(config.path, Linear):
        model, state = diffusers.told_as(0.0, model, tensors)
    time = told(TimeEmbedding(), config.path, scheduler["num_train_timesteps"])
    both = network(model, state, time)
    others = {name: [None, None] for name in names} if parts is None else other_parts(parts)
    write_pipeline(to, kind, both, scheduler, others)
    if parts is not None:
        copy_parts(others, parts, to)


def put(to: Path, config: PipelineConfig, tensors: Mapping[str, Tensor], vae: Path | None) -> PipelineConfig:
    """Write a folder, with the autoencoder in `vae` if there is one; returns its config."""
    state = config.codec.build().state_dict()
    if vae is not None:
        config, state = with_autoencoder(config, vae)
    export(to, config, tensors, state)
    return config


def possible(sampling: Sampling, model: DiTConfig) -> Sampling:
    """The published sampling, as far as this model can follow it."""
    guidance = sampling.guidance
    if not model.conditions["label"].dropout:
        guidance = Guidance()  # no null was learned to be guided away from
    elif model.in_channels <= (guidance.legacy_channels or 0):
        guidance = replace(guidance, legacy_channels=None)
    return replace(sampling, guidance=guidance)


def _refuse_scales(codec: Latents, vae: Path) -> None:
    """Refuse latents that are not as `DiTPipeline` takes them: multiplied by one number, and not shifted."""
    factor = 1 / (_latents(vae).scale or (1.0,))[0]
    shift, scale = codec.shift or (0.0,), codec.scale or (1.0,)
    if any(shift) or not all(isclose(factor * each, 1, rel_tol=1e-5) for each in scale):
        raise ValueError(
            f"codec: got latents with a shift of {shift} and a scale of {scale}, expected 0 and {1 / factor:.6g} for "
            f"every channel: DiTPipeline multiplies the latents of {vae} by {factor:.6g} and does nothing else; leave "
            "out --vae, and bring the samples to its scale yourself"
        )


def _latents(vae: Path) -> Normalize:
    """What diffusers does to the latents of an autoencoder in a folder, or of a pipeline's; nothing without one."""
    file = next((f / "config.json" for f in (vae / "vae", vae) if (f / "config.json").is_file()), None)
    about = {"scaling_factor": 1.0} if file is None else read_json(file)
    return Normalize(shift=(about.get("shift_factor") or 0.0,), scale=(1 / about.get("scaling_factor", 0.18215),))

"""A pipeline as a denoiser of deepinv's, for its algorithms: plug-and-play, DiffPIR, DDRM, DPS and others.

This module needs deepinv; `pip install 'anydit[inverse]'` brings it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import deepinv
import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from anydit.codecs.normalize import Normalizer
from anydit.inference.conditions import Given, encoded_texts, prepared
from anydit.inference.pipeline import Pipeline
from anydit.inverse.measurement import refuse_changes
from anydit.model.dit import coded_fields
from anydit.model.tokens import grid_of
from anydit.tensors import changed, per_sample

Levels = int | float | Sequence[Any] | Tensor | Shaped[np.ndarray, "..."] | np.generic
"""Deviations of noise, as deepinv's algorithms have them."""


class PipelineDenoiser(deepinv.models.Denoiser):
    """`forward(x, sigma)`: data expected behind `x`, which has noise of deviation `sigma`, as deepinv has them.

    Images are on the scale on which the data's bounds are 0 and 1 (data without bounds as they are); noise is added to
    them, where a path of ours shrinks them at the same time: `x` and `sigma` are carried over exactly, for any path.
    Noise beyond what the model was trained with is taken for the most that it knows. `cond`: for every image.

    Raises:
        ValueError: the codec is a network, in whose latents noise on images is not noise, or scales channels
            differently.
    """

    def __init__(self, pipeline: Pipeline, cond: Mapping[str, Given] | None = None) -> None:
        super().__init__(device=str(pipeline.device))
        refuse_changes(pipeline.config.change_of)
        codec = pipeline.codec
        if not isinstance(codec, Normalizer) or len(set(codec.scale)) > 1:
            got = type(codec).__name__ if not isinstance(codec, Normalizer) else f"deviations of {codec.scale}"
            raise ValueError(f"codec: got {got}, expected Normalize with one scale for all channels")
        known = pipeline.config.model.conditions
        if coded_fields(pipeline.config.model):
            raise ValueError("model.conditions: got a coded Field, expected conditions that need no codec")
        self.pipeline, self.model = pipeline, pipeline.model
        self.told = encoded_texts(dict(cond or {}), known, pipeline.encoders, pipeline.device)
        self.bounds = pipeline.config.view.bounds or (0.0, 1.0)
        self.scale = codec.scale[0] / (self.bounds[1] - self.bounds[0])

    def forward(self, x: Shaped[Tensor, "b c *space"], sigma: Levels, **_: object) -> Float[Tensor, "b c *space"]:
        """Denoise `x`, of any size that the model's patches and positions allow.

        `sigma`: one for all images or one for each, in a number, list, array or tensor (`[]`, `[b]`, `[b 1 1 1]`), or
        in a map (`[b 1 h w]`) that is the same all over an image: a model with one time for a sample knows no other.
        0 is taken for the least noise that the model knows.

        Raises:
            ValueError: `x` is complex, or has other axes or channels than the model's data or a size that it cannot
                serve; `sigma` is negative, not finite, not one for each image, or differs within one; the model has
                no such condition as was given.
        """
        config, low, high = self.pipeline.config, *self.bounds
        self._check(x)
        noise = _levels(sigma, x).clamp(min=1e-6)
        t = config.path.time_at(-(noise / self.scale).log()).clamp(1e-4, 1 - 1e-3)
        z = self.pipeline.codec.encode(low + (high - low) * x)
        space = tuple(x.shape[2:])
        cond = prepared(self.told, config.model.conditions, len(x), space)
        cond = {name: changed(value, lambda v: v.to(x.device)) for name, value in cond.items()}
        x0 = self.pipeline.denoiser().denoise(per_sample(config.path.alpha(t), z) * z, t, cond).x0
        return (self.pipeline.codec.decode(x0) - low) / (high - low)

    def _check(self, x: Tensor) -> None:
        model = self.pipeline.config.model
        if not x.is_floating_point():
            parts = "; deepinv.models.complex.to_complex_denoiser takes both parts" if x.is_complex() else ""
            raise ValueError(f"x: got {x.dtype}, expected real floating-point numbers{parts}")
        if x.ndim != 2 + len(model.patch):
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected [b, c] and {len(model.patch)} axes of space")
        if x.shape[1] != model.channels:
            raise ValueError(f"x: got {x.shape[1]} channels, expected the model's {model.channels}")
        grid_of(tuple(x.shape[2:]), model.patch)


def as_deepinv(pipeline: Pipeline, cond: Mapping[str, Given] | None = None) -> PipelineDenoiser:
    """The pipeline as deepinv's algorithms take it; see `PipelineDenoiser`.

    Raises:
        ValueError: the pipeline cannot be one, or a text in `cond` is none or lacks its encoder.
    """
    with torch.no_grad():
        return PipelineDenoiser(pipeline, cond)


def _levels(sigma: Levels, x: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
    """The noise in each image, checked where it is given: a number is not waited for on a GPU."""
    try:
        given = torch.as_tensor(sigma)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"sigma: got {sigma!r}, expected numbers") from None
    if given.is_complex():
        raise ValueError("sigma: got complex numbers, expected real ones")
    bad = given[~(given.isfinite() & (given >= 0))]
    if bad.numel():
        raise ValueError(f"sigma: got {bad[0].item():g}, expected a finite deviation of at least 0")
    rows = given.reshape(1, 1) if given.numel() == 1 else given.flatten(1) if given.ndim > 1 else given[:, None]
    if len(rows) not in (1, len(x)):
        raise ValueError(f"sigma: got {len(rows)} levels, expected 1 or {len(x)}, one for each image")
    maps = rows.shape[1] > 1
    if maps and (given.ndim != x.ndim or bool((rows != rows[:, :1]).any())):
        got = f"shape {tuple(given.shape)} of values that differ within an image"
        raise ValueError(f"sigma: got {got}, expected one deviation for each, [b]")
    return rows[:, 0].to(x).expand(len(x))

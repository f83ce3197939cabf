"""A pipeline as a denoiser of deepinv's, for its algorithms: plug-and-play, DiffPIR, DDRM, DPS and others.

This module needs deepinv; `pip install 'anydit[inverse]'` brings it.
"""

from collections.abc import Mapping

import deepinv
import torch
from jaxtyping import Float
from torch import Tensor

from anydit.codecs.normalize import Normalizer
from anydit.inference.conditions import Given, encoded_texts, prepared
from anydit.inference.pipeline import Pipeline
from anydit.inverse.measurement import refuse_changes
from anydit.model.dit import coded_fields
from anydit.tensors import changed, per_sample


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

    def forward(
        self, x: Float[Tensor, "b c *space"], sigma: float | Tensor | list[float], **_: object
    ) -> Float[Tensor, "b c *space"]:
        """Denoise; `sigma`: one for all images, or one for each.

        Raises:
            ValueError: other channels than the model has.
        """
        config, low, high = self.pipeline.config, *self.bounds
        channels = config.model.channels
        if x.shape[1] != channels:
            raise ValueError(f"x: got {x.shape[1]} channels, expected the model's {channels}")
        noise = self._handle_sigma(sigma, batch_size=len(x), device=x.device, dtype=x.dtype).clamp(min=1e-6)
        t = config.path.time_at(-(noise / self.scale).log()).clamp(1e-4, 1 - 1e-3)
        z = self.pipeline.codec.encode(low + (high - low) * x)
        space = tuple(x.shape[2:])
        cond = prepared(self.told, config.model.conditions, len(x), space)
        cond = {name: changed(value, lambda v: v.to(x.device)) for name, value in cond.items()}
        x0 = self.pipeline.denoiser().denoise(per_sample(config.path.alpha(t), z) * z, t, cond).x0
        return (self.pipeline.codec.decode(x0) - low) / (high - low)


def as_deepinv(pipeline: Pipeline, cond: Mapping[str, Given] | None = None) -> PipelineDenoiser:
    """The pipeline as deepinv's algorithms take it; see `PipelineDenoiser`."""
    with torch.no_grad():
        return PipelineDenoiser(pipeline, cond)

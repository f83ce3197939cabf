"""A published autoencoder behind a model whose samples are its latents, so that they become images."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from anydit.codecs import Latents, Normalize, Published, sources
from anydit.data import Images
from anydit.inference.config import PipelineConfig
from anydit.weights import checksum, load_strictly

BLACK, WHITE = 0.0, 255.0


def with_autoencoder(config: PipelineConfig, folder: Path) -> tuple[PipelineConfig, dict[str, Tensor]]:
    """`config` with the autoencoder in `folder`, in diffusers' format, for its codec; and the codec's weights.

    The latents keep the scale that `config` has for them, with which its model was trained.

    Raises:
        ValueError: `folder` holds no such autoencoder, or one of images with other latents than the model's.
    """
    try:
        found, tensors = sources.of_folder(folder)
    except ValueError as error:
        raise ValueError(f"vae: {error}") from None
    model, scale = config.model, config.codec
    if not isinstance(found, Published) or len(found.factors) != 2 or not isinstance(scale, Normalize):
        raise ValueError(f"vae: got {folder}, expected an autoencoder of images, as diffusers saves it")
    latent = found.options[found.kind.latent]
    if (latent, 2) != (model.channels, len(model.patch)):
        raise ValueError(
            f"vae: got {folder} with latents of {latent} channels, expected {model.channels}, as the model has"
        )
    each = latent // len(scale.shift or (0,))
    codec = Latents(
        path=folder,
        codec=replace(found, low=BLACK, high=WHITE),
        shift=(scale.shift or ()) * each,
        scale=(scale.scale or ()) * each,
        sha256=checksum(tensors),
    )
    made = codec.build()
    load_strictly(made.codec, tensors, folder)
    return replace(config, codec=codec, view=Images(low=BLACK, high=WHITE)), made.state_dict()

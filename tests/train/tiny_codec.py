"""An autoencoder that trains in a second, and a model in its latents."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from anydit.codecs import KLAutoencoder, Latents
from anydit.data import Digits, Images
from anydit.train.codec import CodecRecipe, CodecTrainConfig
from anydit.train.optim import AdamW
from anydit.train.recipe import Recipe
from tests.train.tiny import tiny


def tiny_codec(**train: Any) -> CodecRecipe:
    """Digits to 4x4 latents of 3 channels, badly."""
    loop = CodecTrainConfig(steps=12, batch=8, optimizer=AdamW(lr=1e-2), save_every=4, sample_every=6, log_every=1)
    return CodecRecipe(
        codec=KLAutoencoder(widths=(4, 8), groups=2, blocks=1, latent=3),
        view=Images(low=0, high=16),
        data=Digits(),
        train=replace(loop, **train),
    )


def tiny_latent(codec: Path, **train: Any) -> Recipe:
    """Digits in the latents of the autoencoder trained in a folder, badly."""
    recipe = tiny()
    model = replace(recipe.model, patch=(2, 2))
    return replace(recipe, model=model, codec=Latents(path=codec), train=replace(recipe.train, **train))

"""Latent diffusion end to end: an autoencoder of Fashion-MNIST, and a model in its latents."""

from pathlib import Path

from anydit.codecs import KLAutoencoder, Latents
from anydit.data import FashionMNIST, Images
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.train.codec import CodecRecipe, CodecTrainConfig
from anydit.train.config import TrainConfig
from anydit.train.latents import Cached
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe


def fashion_codec() -> CodecRecipe:
    """An autoencoder of Fashion-MNIST, 28x28 pixels to 14x14 latents of 2 channels, in a size for two CPU cores.

    anydit train fashion-codec
    """
    return CodecRecipe(
        codec=KLAutoencoder(widths=(16, 32), latent=2, blocks=1, groups=8, attention=False),
        view=Images(low=0, high=255),
        data=FashionMNIST(),
        train=CodecTrainConfig(
            steps=1000,
            batch=64,
            optimizer=AdamW(lr=2e-3),
            schedule=LinearDecay(warmup=100, decay=0.5),
            ema_decay=0.999,
            sample_every=500,
            save_every=500,
        ),
    )


def fashion_latent() -> Recipe:
    """Fashion-MNIST by class in the latents of `fashion-codec`, which has to be trained first.

    anydit train fashion-latent
    """
    return Recipe(
        model=DiTConfig(width=192, depth=6, heads=6, patch=(2, 2), conditions={"label": Label(10)}),
        codec=Latents(path=Path("runs/fashion-codec")),
        sampling=Sampling(steps=25),
        view=Images(low=0, high=255),
        data=FashionMNIST(),
        train=TrainConfig(
            steps=2500,
            batch=128,
            times=LogitNormal(),
            optimizer=AdamW(lr=2e-3),
            schedule=LinearDecay(warmup=100, decay=0.5),
            ema_decay=0.999,
            bf16=True,
            latents=Cached(),
            sample_every=500,
            save_every=500,
        ),
    )

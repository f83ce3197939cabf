"""Crops of a brain: in voxels, and in the latents of an autoencoder of volumes."""

from dataclasses import replace
from pathlib import Path

from anydit.codecs import KLAutoencoder, Latents, Normalize
from anydit.data import MNI152, VolumeView
from anydit.diffusion.predictions import X0
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Numbers
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.codec import CodecRecipe, CodecTrainConfig
from anydit.train.latents import Cached
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def brain() -> Recipe:
    """Crops of the MNI152 brain, T1 with grey and white matter, 16x16x16 at 4 mm; 8 minutes of two CPU cores.

    anydit train brain
    """
    model = DiTConfig(width=128, depth=6, heads=4, patch=(4, 4, 4), conditions={"place": Numbers()}, position=Rope())
    return Recipe(
        model=model, prediction=X0(), codec=Normalize.to_unit(0, 255), sampling=Sampling(steps=25),
        view=VolumeView(low=0, high=255), data=MNI152(crop=(16, 16, 16), spacing=(4.0, 4.0, 4.0)),
        train=TrainConfig(steps=2500, batch=16, times=LogitNormal(0.3, 1.5), optimizer=AdamW(lr=2e-3),
                          schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.995, bf16=True, sample_every=500,
                          save_every=500),
    )  # fmt: skip


def brain_gpu() -> Recipe:
    """Crops of as many millimetres at 2 mm, 32x32x32, for one GPU; not run yet.

    anydit train brain-gpu
    """
    small = brain()
    model = replace(small.model, width=512, depth=12, heads=8)
    more = replace(small.train, steps=12_000, batch=64, optimizer=AdamW(lr=3e-4), ema_decay=0.999, compile=True,
                   log_every=100, sample_every=3000, save_every=3000)  # fmt: skip
    return replace(small, model=model, data=MNI152(), train=more)


def brain_codec() -> CodecRecipe:
    """An autoencoder of such crops, 3 channels of 32x32x32 to 4 of 8x8x8, for two CPU cores.

    It is trained on crops of 16x16x16: what it does is the same everywhere, so that larger ones need no other.

    anydit train brain-codec
    """
    return CodecRecipe(
        codec=KLAutoencoder(widths=(8, 16, 32), latent=4, blocks=1, groups=4, attention=False),
        view=VolumeView(low=0, high=255),
        data=replace(MNI152(), crop=(16, 16, 16)),
        train=CodecTrainConfig(steps=600, batch=16, optimizer=AdamW(lr=2e-3), schedule=LinearDecay(100, 0.5),
                               ema_decay=0.995, sample_every=200, save_every=200),
    )  # fmt: skip


def brain_latent() -> Recipe:
    """Crops of 32x32x32 at 2 mm in the latents of `brain-codec`, trained before; 12 minutes of one CPU core.

    All crops are encoded before the first step, because a step would else wait longer for the autoencoder than train.

    anydit train brain-latent
    """
    pixels = brain()
    model = replace(pixels.model, patch=(2, 2, 2))
    train = replace(pixels.train, latents=Cached())
    return replace(pixels, model=model, data=MNI152(), codec=Latents(path=Path("runs/brain-codec")), train=train)

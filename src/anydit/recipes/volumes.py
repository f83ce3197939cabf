"""Volumes: your own NIfTI files or DICOM series, and crops of a brain."""

from dataclasses import replace
from pathlib import Path

from anydit.codecs import Normalize
from anydit.data import MNI152, Volumes, VolumeView
from anydit.diffusion.losses import As
from anydit.diffusion.predictions import X0
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Numbers
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def volumes() -> Recipe:
    """A folder of NIfTI files or DICOM series: --data.path FOLDER, and --data.crop with voxels along each axis.

    anydit train volumes --data.path ~/scans --data.crop 64 64 64 --data.spacing 1 1 1
    """
    return Recipe(
        model=DiTConfig(width=384, depth=12, heads=6, patch=(8, 8, 8), position=Rope()),
        prediction=X0(),
        view=VolumeView(),
        data=Volumes(path=Path("volumes"), crop=(32, 32, 32)),
        train=TrainConfig(steps=20_000, batch=16, weight=As(), optimizer=AdamW(lr=3e-4),
                          schedule=LinearDecay(warmup=200), ema_decay=0.9995, times=LogitNormal()),
    )  # fmt: skip


def brain() -> Recipe:
    """Crops of the MNI152 brain, T1 with grey and white matter, 32x32x32 at 2 mm; 10 minutes on two CPU cores.

    anydit train brain
    """
    return Recipe(
        model=DiTConfig(width=192, depth=6, heads=6, patch=(8, 8, 8), channels=3, size=(32, 32, 32),
                        conditions={"place": Numbers()}),
        prediction=X0(),
        codec=Normalize.to_unit(0, 255),
        sampling=Sampling(steps=25),
        view=VolumeView(low=0, high=255),
        data=MNI152(),
        train=TrainConfig(steps=1200, batch=32, times=LogitNormal(), weight=As(), optimizer=AdamW(lr=1e-3),
                          schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.995, bf16=True, sample_every=500,
                          save_every=500),
    )  # fmt: skip


def brain_gpu() -> Recipe:
    """The same crops for one GPU, with smaller patches: 10 minutes.

    anydit train brain-gpu
    """
    small = brain()
    model = replace(small.model, width=512, depth=12, heads=8, patch=(4, 4, 4))
    more = replace(small.train, steps=12_000, batch=64, optimizer=AdamW(lr=3e-4), ema_decay=0.999, compile=True,
                   log_every=100, sample_every=3000, save_every=3000)  # fmt: skip
    return replace(small, model=model, train=more)

"""Volumes: your own NIfTI files or DICOM series."""

from pathlib import Path

from anydit.data import Volumes, VolumeView
from anydit.diffusion.losses import As
from anydit.diffusion.predictions import X0
from anydit.diffusion.times import LogitNormal
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
                          schedule=LinearDecay(warmup=200), ema_decay=0.9995, times=LogitNormal(), bf16=True),
    )  # fmt: skip

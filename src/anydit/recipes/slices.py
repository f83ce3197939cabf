"""Slices of volumes: what a prior of scans is trained on, for reconstruction."""

from dataclasses import replace
from math import log
from pathlib import Path

from anydit.codecs import Normalize
from anydit.data import MNI152, Bands, Inside, Moved, Slices, SliceView, Volumes, Whole
from anydit.diffusion.multistep import SDE
from anydit.diffusion.predictions import V
from anydit.diffusion.times import LogitNormal, LogSNR
from anydit.inference.config import Sampling
from anydit.inverse.measured import MEASURED, Measured
from anydit.inverse.operators import MRI
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def slices() -> Recipe:
    """Slices of a folder of NIfTI files or DICOM series: --data.volumes.path FOLDER.

    anydit train slices --data.volumes.path ~/scans --data.volumes.axes RAS --data.volumes.spacing 1 1 3
    """
    return Recipe(
        model=DiTConfig(width=384, depth=12, heads=6, patch=(8, 8), position=Rope()),
        prediction=V(),  # whose error falls with the noise, down to that of what was measured
        # As for brain_slices, but from more noise on: more pixels show how bright a slice is through more of it.
        sampling=Sampling(sampler=SDE(), steps=30, grid=LogSNR(low=log(1 / 80), high=log(1 / 0.01))),
        view=SliceView(),
        data=Slices(volumes=Volumes(path=Path("volumes")), size=(256, 256)),
        train=TrainConfig(steps=20_000, batch=16, times=LogitNormal(0.3, 1.5), optimizer=AdamW(lr=3e-4),
                          schedule=LinearDecay(warmup=200), ema_decay=0.9995, bf16=True),
    )  # fmt: skip


def brain_slices() -> Recipe:
    """Axial slices of the MNI152 brain, T1, 40x48 at 4 mm, bands of them held out; an hour of one CPU core.

    anydit train brain-slices
    """
    volumes = MNI152(channels=("t1",), crop=None, inside=None, held_out=Whole(), axes="RAS", spacing=(4.0, 4.0, 1.0))
    data = Slices(volumes=volumes, size=(40, 48), inside=Inside(above=10.0, share=0.1), held_out=Bands(slices=8),
                  moved=Moved(copies=512, by=0.07, shift=0.03, mirrored=0))  # fmt: skip
    return Recipe(
        model=DiTConfig(width=128, depth=6, heads=4, patch=(4, 4), position=Rope()),
        prediction=V(), codec=Normalize.to_unit(0, 255),
        # From where something of an image shows to below the noise of a good scan; fresh noise forgets early errors.
        sampling=Sampling(sampler=SDE(), steps=25, grid=LogSNR(low=log(1 / 20), high=log(1 / 0.01))),
        view=SliceView(low=0, high=255), data=data,
        train=TrainConfig(steps=8000, batch=16, times=LogitNormal(0.3, 1.5), optimizer=AdamW(lr=2e-3),
                          schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.995, bf16=True, sample_every=1000,
                          save_every=500),
    )  # fmt: skip


def brain_slices_mri() -> Recipe:
    """The same slices given their zero-filled images of MRI x4, with other masks each time: trained on pairs.

    anydit train brain-slices-mri
    """
    prior = brain_slices()
    pairs = Measured(data=prior.data, operator=MRI(acceleration=4), bounds=(0.0, 255.0), masks=100)
    return replace(prior, data=pairs, model=replace(prior.model, conditions={MEASURED: Field(coded=True)}))

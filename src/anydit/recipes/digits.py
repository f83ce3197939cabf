"""Handwritten digits: 1,797 real images of 8x8, in minutes on a CPU."""

from anydit.codecs import Normalize
from anydit.data import Digits, Images
from anydit.diffusion.multistep import DPMSolverPP
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def digits() -> Recipe:
    """scikit-learn's handwritten digits by class, 8x8; some minutes on two CPU cores.

    anydit train digits
    """
    return Recipe(
        model=DiTConfig(width=192, depth=6, heads=6, patch=(4, 4), conditions={"label": Label(10)}),
        codec=Normalize.to_unit(0, 16),
        sampling=Sampling(sampler=DPMSolverPP(), steps=25),
        view=Images(low=0, high=16),
        data=Digits(),
        train=TrainConfig(
            steps=3000,
            batch=128,
            times=LogitNormal(),
            optimizer=AdamW(lr=2e-3),
            schedule=LinearDecay(warmup=50, decay=0.5),
            ema_decay=0.999,
            bf16=True,
            sample_every=500,
            save_every=500,
        ),
    )

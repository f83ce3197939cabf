"""Handwritten digits: 1,797 real images of 8x8, in minutes on a CPU."""

from anydit.codecs import Normalize
from anydit.data import Digits, Images
from anydit.diffusion.samplers import DPMSolverPP
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def digits() -> Recipe:
    """scikit-learn's handwritten digits by class, 8x8; about 3 minutes on two CPU cores.

    anydit train digits
    """
    return Recipe(
        model=DiTConfig(
            width=128, depth=6, heads=4, patch=(2, 2), channels=1, size=(8, 8), conditions={"label": Label(10)}
        ),
        codec=Normalize.to_unit(0, 16),
        sampling=Sampling(sampler=DPMSolverPP(), steps=25),
        view=Images(low=0, high=16),
        data=Digits(),
        train=TrainConfig(
            steps=1000,
            batch=128,
            optimizer=AdamW(lr=1e-3),
            schedule=LinearDecay(warmup=50, decay=0.5),
            ema_decay=0.999,
            sample_every=250,
            save_every=250,
        ),
    )

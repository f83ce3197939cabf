"""Fashion-MNIST: 70,000 real pictures of clothes, 28x28 (Xiao 2017)."""

from anydit.codecs import Normalize
from anydit.data import FashionMNIST, Images
from anydit.diffusion.losses import As
from anydit.diffusion.predictions import X0, AnyPrediction, Velocity
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Label
from anydit.model.dit import DiTConfig
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def fashion() -> Recipe:
    """Fashion-MNIST by class, 28x28, in a size for two CPU cores.

    anydit train fashion
    """
    return _recipe(
        DiTConfig(width=192, depth=6, heads=6, patch=(7, 7), conditions={"label": Label(10)}),
        Velocity(),
        TrainConfig(
            steps=2300,
            batch=128,
            times=LogitNormal(),
            optimizer=AdamW(lr=2e-3),
            schedule=LinearDecay(warmup=100, decay=0.5),
            ema_decay=0.999,
            bf16=True,
            sample_every=500,
            save_every=500,
        ),
    )


def fashion_gpu() -> Recipe:
    """Fashion-MNIST by class, 28x28, for one GPU: DiT of S size with patch 4, bfloat16, compiled.

    anydit train fashion-gpu
    """
    return _recipe(
        DiTConfig(width=384, depth=12, heads=6, patch=(4, 4), conditions={"label": Label(10)}),
        X0(),
        TrainConfig(
            steps=20_000,
            batch=256,
            times=LogitNormal(),
            weight=As(),
            optimizer=AdamW(lr=1e-3),
            schedule=LinearDecay(warmup=500, decay=0.5),
            ema_decay=0.999,
            bf16=True,
            compile=True,
            log_every=100,
            sample_every=2000,
            save_every=5000,
        ),
    )


def _recipe(model: DiTConfig, prediction: AnyPrediction, train: TrainConfig) -> Recipe:
    return Recipe(
        model=model,
        prediction=prediction,
        codec=Normalize.to_unit(0, 255),
        sampling=Sampling(steps=25),
        view=Images(low=0, high=255),
        data=FashionMNIST(),
        train=train,
    )

"""Any array: the first try with data of a kind that has no recipe yet."""

from pathlib import Path

from anydit.data import Arrays, ArrayView
from anydit.model.conditioning import Field, Label, Numbers
from anydit.model.dit import DiTConfig
from anydit.model.tokens import Rope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def arrays() -> Recipe:
    """A .npy or .npz array [n, c, *space] of numbers: --data.path FILE, and --model.patch with one number per axis.

    anydit train arrays --data.path fields.npy --model.patch 4 4
    anydit train arrays --data.path flows.npz --data.numbers speed mass --data.field mask
    """
    return Recipe(
        model=DiTConfig(
            width=256,
            depth=8,
            heads=8,
            patch=(4, 4),
            conditions={"label": Label(), "numbers": Numbers(), "field": Field(dropout=0.1)},
            position=Rope(),
        ),
        view=ArrayView(),
        data=Arrays(path=Path("data.npy")),
        train=TrainConfig(
            steps=10_000,
            batch=64,
            optimizer=AdamW(lr=5e-4),
            schedule=LinearDecay(warmup=200),
            ema_decay=0.9995,
            bf16=True,
        ),
    )

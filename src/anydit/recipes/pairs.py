"""Words to pictures: two handwritten digits, as a sentence says; and emoji by their names."""

from anydit.codecs import Normalize, TextEncoder
from anydit.data import DigitPairs, Emoji, Images
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.dit import DiTConfig
from anydit.model.text import Cross, Pooled, Text
from anydit.train.config import TrainConfig
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe


def pairs() -> Recipe:
    """Two digits where a sentence says, 16x16, told by MiniLM; under half an hour on two CPU cores.

    anydit train pairs
    """
    text = Text(entry=Cross(pooled=Pooled()))
    return Recipe(
        model=DiTConfig(
            width=128, depth=6, heads=4, patch=(4, 4), channels=1, size=(16, 16), conditions={"text": text}
        ),
        encoders={"text": TextEncoder("minilm", max_tokens=24, layer=-3)},
        codec=Normalize.to_unit(0, 16),
        sampling=Sampling(steps=25, guidance=Guidance(2.0)),
        view=Images(low=0, high=16),
        data=DigitPairs(),
        train=TrainConfig(
            steps=8000,
            batch=64,
            # What is where is settled while all is noise: with a mean of 0 it took many times as long to be learned.
            times=LogitNormal(mean=1.0),
            optimizer=AdamW(lr=2e-3),
            schedule=LinearDecay(warmup=100, decay=0.5),
            ema_decay=0.999,
            bf16=True,
            sample_every=1000,
            save_every=500,
        ),
    )


def emoji() -> Recipe:
    """Emoji by their names, 32x32, for one GPU: --data.path FOLDER, the unpacked npm package emoji-datasource-google.

    anydit train emoji --data.path node_modules/emoji-datasource-google
    """
    text = Text(entry=Cross(pooled=Pooled()))
    return Recipe(
        model=DiTConfig(width=384, depth=12, heads=6, patch=(2, 2), conditions={"text": text}),
        encoders={"text": TextEncoder("minilm", max_tokens=32)},
        codec=Normalize.to_unit(0, 1),
        sampling=Sampling(steps=25, guidance=Guidance(3.0)),
        view=Images(),
        data=Emoji(),
        train=TrainConfig(
            steps=40_000,
            batch=256,
            times=LogitNormal(),
            optimizer=AdamW(lr=5e-4),
            schedule=LinearDecay(warmup=1000, decay=0.5),
            ema_decay=0.9995,
            bf16=True,
            compile=True,
        ),
    )

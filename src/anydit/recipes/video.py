"""Videos: your own; and real digits that move and bounce, by class, in words, or given their first frames."""

from dataclasses import replace

from anydit.codecs import Normalize, TextEncoder
from anydit.data import First, MovingDigits, VideoFolder, Videos
from anydit.data.known import KNOWN
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.losses import As
from anydit.diffusion.predictions import X0
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.attention import Axial
from anydit.model.conditioning import Condition, Field, Label
from anydit.model.dit import DiTConfig
from anydit.model.text import Cross, Pooled, Text
from anydit.model.tokens import Rope, SinCosRope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def video() -> Recipe:
    """A folder of videos, one subfolder per class or flat: --data.path FOLDER --data.seconds S --data.rate FPS.

    anydit train video --data.path ~/clips --data.seconds 2 --data.rate 8 --data.size 64 64
    """
    return Recipe(
        model=DiTConfig(384, 12, 6, (2, 8, 8), conditions={"label": Label(), KNOWN: Field(), "text": Text()},
                        position=Rope(), attention=Axial(((1, 2), (0,)))),
        codec=Normalize.to_unit(0, 1), view=Videos(), data=VideoFolder(),
        train=TrainConfig(steps=20_000, batch=16, times=LogitNormal(), optimizer=AdamW(lr=3e-4),
                          schedule=LinearDecay(warmup=200), ema_decay=0.9995, bf16=True),
    )  # fmt: skip


def moving_digits() -> Recipe:
    """A handwritten digit of a class that moves and bounces, 8 frames of 16x16; 10 minutes of two CPU cores.

    anydit train moving-digits; anydit sample runs/moving-digits --label 3 --out threes/
    """
    return replace(_digits({"label": Label()}, MovingDigits()), sampling=Sampling(steps=25, guidance=Guidance(3.0)))


def moving_digits_text() -> Recipe:
    """The same told in words, as "a three moving left and up, fast", by MiniLM; 12 minutes of one CPU core.

    anydit train moving-digits-text
    """
    recipe = _digits({"text": Text(entry=Cross(pooled=Pooled()))}, MovingDigits())
    return replace(recipe, encoders={"text": TextEncoder("minilm", 24)}, sampling=Sampling(guidance=Guidance(2.0)))


def moving_digits_next() -> Recipe:
    """Where a digit goes, given its first four frames; 8 minutes of two CPU cores.

    anydit train moving-digits-next
    """
    recipe = _digits({KNOWN: Field()}, MovingDigits(task=First(4)), frames=8)
    other = replace(recipe.train, steps=3000, batch=64, times=LogitNormal(mean=0.5), weight=As())
    return replace(recipe, train=other)


def moving_digits_gpu() -> Recipe:
    """Moving digits by class for one GPU, a larger network with smaller patches, in factorised attention; not run yet.

    anydit train moving-digits-gpu
    """
    small = moving_digits()
    model = replace(small.model, width=384, depth=12, heads=6, patch=(2, 4, 4), attention=Axial(((1, 2), (0,))))
    more = replace(small.train, steps=20_000, batch=64, optimizer=AdamW(lr=5e-4), ema_decay=0.999, compile=True)
    return replace(small, model=model, train=more)


def _digits(conditions: dict[str, Condition], data: MovingDigits, frames: int = 4) -> Recipe:
    return Recipe(
        model=DiTConfig(128, 6, 4, (frames, 4, 4), conditions=conditions, position=SinCosRope()),  # places, for walls
        prediction=X0(), codec=Normalize.to_unit(0, 16), view=Videos(high=16), data=data,
        train=TrainConfig(steps=4000, batch=32, times=LogitNormal(0.3, 1.5), optimizer=AdamW(lr=2e-3),
                          schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.995, bf16=True),
    )  # fmt: skip

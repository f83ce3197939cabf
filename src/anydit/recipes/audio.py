"""Audio: your own files, and spoken digits by class or by a text, as spectrograms or as waveforms."""

from dataclasses import replace

from anydit.codecs import CodecConfig, LogMel, TextEncoder, Whiten
from anydit.data import Audio, AudioView, SpokenDigits
from anydit.diffusion.guidance import Guidance
from anydit.diffusion.predictions import X0
from anydit.diffusion.times import LogitNormal
from anydit.inference.config import Sampling
from anydit.model.conditioning import Condition, Label
from anydit.model.dit import DiTConfig
from anydit.model.text import Cross, Pooled, Text
from anydit.model.tokens import Rope, SinCosRope
from anydit.train.optim import AdamW, LinearDecay
from anydit.train.recipe import Recipe, TrainConfig


def audio() -> Recipe:
    """Sounds in a folder, with a subfolder for each class or none: --data.path FOLDER --data.rate HZ.

    anydit train audio --data.path ~/sounds --data.rate 44100 --data.seconds 3
    """
    return Recipe(
        model=DiTConfig(width=384, depth=12, heads=6, patch=(4,), position=Rope(),
                        conditions={"label": Label(), "text": Text()}),
        prediction=X0(),
        encoders={"text": TextEncoder("minilm", max_tokens=64)},
        codec=LogMel(mels=80), view=AudioView(), data=Audio(seconds=2.0),
        train=TrainConfig(steps=20_000, batch=32, times=LogitNormal(0.3, 1.5), optimizer=AdamW(lr=3e-4),
                          schedule=LinearDecay(warmup=200), ema_decay=0.9995, bf16=True),
    )  # fmt: skip


def spoken_digits() -> Recipe:
    """The words zero to nine in 58 voices, by class, as spectrograms; 3 minutes of two CPU cores.

    anydit train spoken-digits; anydit sample runs/spoken-digits --label seven --length 0.4s --out seven/
    """
    return _spoken(LogMel(mels=48), 4, {"label": Label(10)})


def spoken_digits_text() -> Recipe:
    """The same by texts such as "a low seven", told by MiniLM; 5 minutes of one CPU core.

    anydit train spoken-digits-text; anydit sample runs/spoken-digits-text --text "a high three"
    """
    text = Text(entry=Cross(pooled=Pooled()))
    return replace(_spoken(LogMel(mels=48), 4, {"text": text}), encoders={"text": TextEncoder("minilm", max_tokens=16)})


def spoken_digits_wave() -> Recipe:
    """The same by class, as waveforms in patches of 20 ms, which are harder to learn; 9 minutes of two CPU cores.

    anydit train spoken-digits-wave
    """
    recipe = _spoken(Whiten(), 160, {"label": Label(10)})  # of voices high frequencies are weak, and tell words apart
    model, longer = replace(recipe.model, position=SinCosRope()), replace(recipe.train, steps=3000)
    return replace(recipe, model=model, sampling=Sampling(guidance=Guidance(3.0)), train=longer)


def spoken_digits_gpu() -> Recipe:
    """Spectrograms by class for one GPU, a larger network with smaller patches for longer; not run yet.

    anydit train spoken-digits-gpu
    """
    small = spoken_digits()
    more = replace(small.train, steps=20_000, batch=256, optimizer=AdamW(lr=5e-4), compile=True, ema_decay=0.999)
    return replace(small, model=replace(small.model, width=384, depth=12, heads=6, patch=(1,)), train=more)


def _spoken(codec: CodecConfig, patch: int, conditions: dict[str, Condition]) -> Recipe:
    return Recipe(
        model=DiTConfig(width=128, depth=6, heads=4, patch=(patch,), conditions=conditions, position=Rope()),
        prediction=X0(), codec=codec, sampling=Sampling(steps=25, guidance=Guidance(1.5)),
        view=AudioView(), data=SpokenDigits(),
        # No weight: after 600 steps of 64 words 95 in 100 words were right; with As(limit=10) 76, with As() 22.
        train=TrainConfig(steps=1500, batch=32, times=LogitNormal(0.3, 1.5), bf16=True,
                          optimizer=AdamW(lr=2e-3), schedule=LinearDecay(warmup=100, decay=0.5), ema_decay=0.998),
    )  # fmt: skip

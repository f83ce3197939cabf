"""Audio: how loud it is in each band, how that varies and changes with time; networks see it so, too."""

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure as Plot
from PIL.Image import Image
from torch import Tensor

from anydit.codecs import LogMel
from anydit.codecs.base import coarser
from anydit.codecs.mel import Mel
from anydit.data import AudioView
from anydit.evaluate import distances
from anydit.evaluate.compare import Figure
from anydit.evaluate.features import See, seen
from anydit.evaluate.own import Own, own
from anydit.evaluate.pictures import rendered
from anydit.evaluate.sets import Sets, spread
from anydit.tensors import MASK, existing

REFERENCE = 2000
"""Training sounds that are looked at, at most."""

BANDS = 40
"""Bands of the mel scale, as speech is looked at."""

AUDIBLE_DB = 40.0
"""So far below its loudest frame a sound is heard."""


@seen.register
def _(view: AudioView) -> See:
    """Levels in dB, as an image of bands and frames for each channel: phases tell nothing that anyone hears."""

    def see(x: Float[Tensor, "n c t"]) -> Float[Tensor, "n c bands frames"]:
        return levels(view, x)

    return see


@own.register
def _(view: AudioView, x: Float[Tensor, "n c t"], sets: Sets) -> Own:
    train = sets.read_train(spread(len(sets.train), REFERENCE))
    sounds = (x, sets.real.x, train)
    parts = [levels(view, some) for some in sounds]
    spectra = [spectrum(part) for part in parts]
    away = [float((each - spectra[2]).abs().mean()) for each in spectra]
    figures = {
        "spectrum": _figure("Mean spectrum, dB", away, "mean error over bands"),
        "levels": _figure(
            "Levels, dB", [_apart(part, parts[2]) for part in parts], "distance between distributions, mean over bands"
        ),
        "changes": _figure(
            "Changes of levels, dB",
            [_apart(part.diff(), parts[2].diff()) for part in parts],
            "the same from frame to frame: blur lowers changes, noise raises them",
        ),
        "loudness": _figure(
            "Loudness, dB", _distances([loudness(some) for some in sounds]), "distance between distributions"
        ),
        "audible": _figure(
            "Audible time, s",
            _distances([audible(part) * frame_seconds(view) for part in parts]),
            f"the same of the time from first to last frame within {AUDIBLE_DB:g} dB of the loudest",
        ),
    }
    return Own(figures, {"Mean spectrum": _plot(view, spectra)})


def levels(view: AudioView, x: Float[Tensor, "n c t"]) -> Float[Tensor, "n c bands frames"]:
    """In dB of full scale; NaN in frames in which no part of a sound exists."""
    mel = _mel(_frames(view), x.shape[1])
    x = F.pad(x, (0, -x.shape[2] % mel.hop), value=float("nan") if bool(x.isnan().any()) else 0.0)
    exists = ~x.isnan().any(1)
    found = mel.levels(x.nan_to_num(0.0))
    return existing(found, {MASK: coarser(exists, tuple(found.shape[2:]))}).unflatten(1, (x.shape[1], -1))


def spectrum(levels: Float[Tensor, "n c bands frames"]) -> Float[Tensor, " bands"]:
    """The mean level of each band, in dB, over all frames that exist."""
    return levels.double().nanmean((0, 1, 3))


def loudness(x: Float[Tensor, "n c t"]) -> Float[Tensor, " n"]:
    """The root mean square of each sound where it exists, in dB."""
    return 10 * x.double().square().nanmean((1, 2)).clamp(min=1e-10).log10()


def audible(levels: Float[Tensor, "n c bands frames"]) -> Float[Tensor, " n"]:
    """Frames from the first to the last that is not far below the loudest."""
    loud = levels.nan_to_num(-torch.inf).amax((1, 2))
    heard = loud > loud.amax(1, keepdim=True) - AUDIBLE_DB
    first, last = heard.int().argmax(1), heard.shape[1] - heard.flip(1).int().argmax(1)
    return (last - first).double()


def frame_seconds(view: AudioView) -> float:
    """Seconds from frame to frame."""
    about = _frames(view)
    return about.hop_places / (about.rate or 1)


@lru_cache(maxsize=4)
def _mel(about: LogMel, channels: int) -> Mel:
    return Mel(about, channels)


def _frames(view: AudioView) -> LogMel:
    if view.rate is None:
        raise ValueError("view.rate: got None, expected the rate in Hz, without which sounds have no spectrum")
    return LogMel(mels=BANDS, rate=float(view.rate))


def _apart(some: Float[Tensor, "n c bands frames"], train: Float[Tensor, "m c bands frames"]) -> float:
    """The mean over bands of the distance between the distributions of what exists."""
    return fmean(
        distances.wasserstein(a[~a.isnan()], b[~b.isnan()])
        for a, b in zip(some.transpose(0, 2), train.transpose(0, 2), strict=True)
    )


def _distances(values: Sequence[Float[Tensor, " _"]]) -> list[float]:
    return [distances.wasserstein(some, values[2]) for some in values]


def _figure(title: str, values: Sequence[float], meaning: str) -> Figure:
    """Of samples, and of held-out data."""
    return Figure(title, values[0], values[1], None, meaning)


def _plot(view: AudioView, spectra: Sequence[Float[Tensor, " bands"]]) -> Image:
    """By frequency, of samples, held-out and training data."""
    import librosa

    about: Any = librosa
    hertz = about.mel_frequencies(n_mels=BANDS + 2, fmax=(view.rate or 0) / 2)[1:-1]
    plot = Plot(figsize=(6, 3.2), layout="constrained")
    axes = plot.subplots()
    for each, of, style in zip(spectra, ("samples", "held-out data", "training data"), ("-", "--", ":"), strict=True):
        axes.plot(hertz / 1000, each.numpy(), style, label=of)
    axes.set(xlabel="kHz", ylabel="mean level, dB of full scale")
    axes.legend()
    return rendered(plot)

"""Sounds as people see them, a spectrogram over a waveform; and as files, each as long as its sound."""

import sys
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from PIL.Image import Resampling
from torch import Tensor

from anydit.config import config
from anydit.data.audio.files import SUFFIXES, Mix, Refused, Resample, Wanted, clips, soundfile
from anydit.data.base import Loaded, View, suffixed
from anydit.data.outside import Unreadable
from anydit.data.reading import check_named
from anydit.data.sheet import sheet

SPECTROGRAM_PX, WAVEFORM_PX, MARGIN_PX = (150, 64), 18, (24, 12)
"""Width and height of a spectrogram, height of a waveform; what is left and below for numbers."""

WINDOW_SECONDS = 0.03
RANGE_DB = 70.0
"""So far below the loudest of all that are shown everything is black."""

AT_ONCE = 2**14
"""Places that are written together: of millions the library's encoder of Ogg Vorbis overruns its stack."""

LONGEST = 2**28
"""Places of a file that is read whole, at most."""

MOST_OGG_HZ, MOST_FLAC_HZ = 200_000, 655_350
"""The library's encoder of Ogg Vorbis ends the process above, that of FLAC refuses."""

MOST_ODD_HZ = 2**16 - 1
"""Above it FLAC has room for tens of Hz only."""

NOTHING = "#e4e4e4"
"""Where a sound has ended."""


@config
class Wav:
    """WAV, in so many bits (32: floating point, which nothing is clipped in)."""

    bits: Literal[16, 24, 32] = 16

    def kind(self) -> tuple[str, str, str]:
        """Suffix, format and subtype, as libsndfile calls them."""
        return ".wav", "WAV", "FLOAT" if self.bits == 32 else f"PCM_{self.bits}"

    def in_place_of(self, hz: int) -> str:
        """Which rates are expected where it cannot have this one, else nothing."""
        return ""


@config
class Flac:
    """FLAC, in so many bits: the same as WAV in about half the room."""

    bits: Literal[16, 24] = 16

    def kind(self) -> tuple[str, str, str]:
        """Suffix, format and subtype, as libsndfile calls them."""
        return ".flac", "FLAC", f"PCM_{self.bits}"

    def in_place_of(self, hz: int) -> str:
        """Which rates are expected where it cannot have this one, else nothing."""
        fits = hz <= MOST_ODD_HZ or (hz <= MOST_FLAC_HZ and hz % 10 == 0)
        return "" if fits else f"at most {MOST_ODD_HZ}, or a multiple of 10 up to {MOST_FLAC_HZ}"


@config
class Ogg:
    """Ogg Vorbis, which leaves out what is hard to hear."""

    def kind(self) -> tuple[str, str, str]:
        """Suffix, format and subtype, as libsndfile calls them."""
        return ".ogg", "OGG", "VORBIS"

    def in_place_of(self, hz: int) -> str:
        """Which rates are expected where it cannot have this one, else nothing."""
        return "" if hz <= MOST_OGG_HZ else f"at most {MOST_OGG_HZ}"


@config
class AudioView(View):
    """Sounds with values from -1 to 1, at a `rate` in Hz (None takes the data's), written in a `format`.

    Where values are NaN a sound has ended: its file is as long as it is. What lies beyond -1 and 1 is clipped in files.
    """

    rate: int | None = None
    format: Wav | Flac | Ogg = Wav()

    time_axis: ClassVar[int | None] = 0
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __post_init__(self) -> None:
        if self.rate is not None and (expected := self.format.in_place_of(self.rate)):
            got = f"{type(self.format).__name__} of {self.rate} Hz"
            raise ValueError(f"format: got {got}, expected {expected}; --view.format Wav takes any rate")

    @property
    def bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    @property
    def per_second(self) -> float | None:
        return self.rate

    def picture(
        self, x: Float[Tensor, "b c n"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        """Spectrograms in decibels, low sounds at the bottom, each over its waveform."""
        values = x.float().cpu()
        exists = ~values.isnan().any(1).numpy()
        values = values.nan_to_num(0.0)
        levels = self._spectrograms(values)
        top = float(levels.max())
        unit = ((levels - top) / RANGE_DB + 1).clip(0, 1)
        loud = max(float(values.abs().max()), 1e-6)
        waves = (values / loud).numpy()
        tiles = [self._tile(*sample) for sample in zip(unit, waves, exists, strict=True)]
        return sheet(tiles, captions, columns)

    def save(self, x: Float[Tensor, "c n"], path: Path) -> Path:
        suffix, kind, subtype = self.format.kind()
        path, x = suffixed(path, suffix), x.float().cpu()
        values = x[:, ~x.isnan().any(0)].T
        values = values if subtype == "FLOAT" else values.clamp(-1, 1)
        with soundfile().SoundFile(path, "w", self._rate, values.shape[1], subtype, format=kind) as out:
            for block in values.split(AT_ONCE):
                out.write(block.numpy())
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """A sound of another rate is brought to that of the data, one of other channels mixed; both are told."""
        check_named(path, self.suffixes)
        try:
            wanted = Wanted(self._rate, LONGEST, shape[0], Resample(), Mix(), Refused(), hint="cut it before")
            sound = list(clips(path, wanted))
        except Unreadable as error:
            raise ValueError(f"got {path}: {error}") from None
        own = soundfile().info(path)
        if (own.samplerate, own.channels) != (self._rate, shape[0]):
            got, now = f"{own.samplerate} Hz, {own.channels} channels", f"{self._rate} Hz, {shape[0]}"
            print(f"{path.name} is brought from {got} to {now}.", file=sys.stderr)
        return Loaded(torch.from_numpy(np.concatenate(sound).T.copy()), self)

    @property
    def _rate(self) -> int:
        if self.rate is None:
            raise ValueError("view.rate: got None, expected the rate in Hz, which the data do not say")
        return self.rate

    def _spectrograms(self, x: Float[Tensor, "b c n"]) -> Float[np.ndarray, "b c f t"]:
        """In dB, of full scale."""
        length = x.shape[2]
        window = min(2 ** max(3, round(np.log2(WINDOW_SECONDS * (self.rate or length)))), length)
        shape = torch.hann_window(window)
        flat = x.reshape(-1, length)
        hop = max(1, length // SPECTROGRAM_PX[0])
        parts = torch.stft(flat, window, hop, window=shape, pad_mode="constant", return_complex=True).abs()
        levels = 20 * (2 * parts / shape.sum()).clamp(min=1e-6).log10()
        return levels.unflatten(0, x.shape[:2]).numpy()

    def _tile(
        self, levels: Float[np.ndarray, "c f t"], waves: Float[np.ndarray, "c n"], exists: Bool[np.ndarray, " n"]
    ) -> Image.Image:
        """One sound: for each channel a spectrogram and a waveform; kHz and seconds at the edges."""
        (width, height), (left, below) = SPECTROGRAM_PX, MARGIN_PX
        one, end = height + WAVEFORM_PX, left + ceil(width * float(exists.mean()))
        tile = Image.new("RGB", (left + width, len(waves) * one + below), "white")
        draw = ImageDraw.Draw(tile)
        for channel, (level, wave) in enumerate(zip(levels, waves, strict=True)):
            top = channel * one
            pixels = Image.fromarray(_colours()[(level[::-1] * 255).round().astype(np.uint8)])
            tile.paste(pixels.resize(SPECTROGRAM_PX, Resampling.BILINEAR), (left, top))
            middle, half = top + height + WAVEFORM_PX / 2, WAVEFORM_PX / 2 - 1
            parts = np.array_split(wave, width)
            for at, part in enumerate(parts):
                if len(part):
                    y = [middle - half * float(part.max()), middle - half * float(part.min())]
                    draw.line([(left + at, y[0]), (left + at, y[1])], fill="#2a6fbb")
            draw.rectangle([end, top, left + width, top + one - 1], fill=NOTHING)
            if self.rate is not None:
                _number(draw, 0, top - 2, f"{self.rate / 2000:.3g}k")
                _number(draw, 0, top + height - 10, "0 Hz")
        if self.rate is not None:
            seconds = f"{len(exists) / self.rate:.3g} s"
            _number(draw, left, len(waves) * one, "0")
            _number(draw, left + width - draw.textlength(seconds), len(waves) * one, seconds)
        return tile


def _number(draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> None:
    draw.text((x, y), text, fill="#555555")


@lru_cache(maxsize=1)
def _colours() -> np.ndarray:
    """8-bit colours of the levels 0 to 255, from black to white."""
    from matplotlib import colormaps

    levels: Any = np.arange(256)
    return cast("np.ndarray", colormaps["magma"](levels, bytes=True))[:, :3]

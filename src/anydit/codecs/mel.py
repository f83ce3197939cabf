"""Sound as a log-mel spectrogram, and back by Griffin-Lim: the spectrogram's bands are channels, its frames places."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anydit.codecs.base import Codec, CodecConfig, Survey, coarser
from anydit.codecs.normalize import Normalize, moments
from anydit.config import check_at_least, check_positive, config
from anydit.tensors import MASK, Constants, existing

LOUDEST_DB = 20.0
"""No more is decoded: numbers far from any data must not become infinite."""


@config
class LogMel(CodecConfig):
    """The levels of `mels` bands in dB of full scale, every `hop` seconds over a Hann window of `window` seconds.

    Bands are triangles of equal width on Slaney's mel scale; of several channels they stand one after the other. What
    is below `floor` dB is as if it were that. Decoding knows no phases: it finds some that fit by `iterations` of the
    fast Griffin-Lim algorithm (Perraudin 2013). What is None comes from the data: the `rate` in Hz, `channels`, and of
    each band `shift` and `scale`, its mean level and deviation.
    """

    mels: int = 64
    hop: float = 0.01
    window: float = 0.04
    floor: float = -80.0
    iterations: int = 32
    rate: float | None = None
    channels: int | None = None
    shift: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_at_least("codec.mels", self.mels, 1)
        check_positive("codec.hop", self.hop)
        check_at_least("codec.iterations", self.iterations, 1)
        if not 2 * self.hop <= self.window <= 16 * self.hop:
            raise ValueError(f"codec.window: got {self.window}, expected 2 to 16 times codec.hop {self.hop}")
        if not self.floor < 0:
            raise ValueError(f"codec.floor: got {self.floor}, expected dB below 0")
        if len({self.channels is None, self.shift is None, self.scale is None}) != 1:
            raise ValueError("codec.channels, shift, scale: got only some of them, expected all or none")
        if self.rate is not None:
            check_positive("codec.rate", self.rate)
            if self.hop_places < 1:
                raise ValueError(f"codec.hop: got {self.hop} s, expected at least one place at {self.rate:g} Hz")

    @property
    def complete(self) -> bool:
        return self.rate is not None and self.shift is not None

    def measured(self, survey: Survey) -> "LogMel":
        if self.complete:
            return self
        rate = self.rate or survey.per_second
        if rate is None:
            raise ValueError("codec.rate: got None, expected the data's rate in Hz, which their view does not know")
        if self.rate is not None and survey.per_second not in (None, self.rate):
            raise ValueError(f"codec.rate: got {self.rate:g}, expected {survey.per_second:g} Hz, which the data has")
        sized = replace(self, rate=rate)
        channels = 0
        for x in survey.batches(1):
            channels = x.shape[1]
            sized.latent_size(tuple(x.shape[2:]))
        plain = Mel(sized, channels)

        def levels(x: Float[Tensor, "b c n"]) -> Float[Tensor, "b bands frames"]:
            exists = ~x.isnan().any(1)
            found = plain.levels(x.nan_to_num(0.0))
            return existing(found, {MASK: coarser(exists, tuple(found.shape[2:]))})

        shift, scale = moments(map(levels, survey.batches(None)))
        return replace(sized, channels=channels, shift=shift, scale=scale)

    def build(self) -> "MelCodec":
        if self.channels is None or self.rate is None or self.shift is None or self.scale is None:
            raise ValueError("codec: got rate, shift or scale that is None; resolve the recipe with its data first")
        return MelCodec(self, self.channels, self.shift, self.scale)

    def latent_channels(self, channels: int) -> int:
        if self.channels not in (None, channels):
            raise ValueError(f"codec: got data of {channels} channels, expected {self.channels}, as LogMel has")
        return channels * self.mels

    def data_channels(self, channels: int) -> int:
        return channels // self.mels

    def latent_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        if len(size) != 1:
            raise ValueError(f"codec: got data with {len(size)} axes, expected 1, as LogMel has")
        if size[0] % self.hop_places:
            fits = [
                frames * self.hop_places / (self.rate or 1)
                for frames in (size[0] // self.hop_places + i for i in (0, 1))
            ]
            raise ValueError(
                f"codec: got sounds of {size[0]} places, expected a multiple of {self.hop_places}, as LogMel has; "
                f"{fits[0]:.8g} s or {fits[1]:.8g} s fit"
            )
        return (size[0] // self.hop_places,)

    def data_size(self, latent_size: tuple[int, ...]) -> tuple[int, ...]:
        return (latent_size[0] * self.hop_places,)

    @property
    def hop_places(self) -> int:
        """Places of a sound from frame to frame."""
        return round(self.hop * (self.rate or 0))

    @property
    def window_places(self) -> int:
        """Places under a window."""
        return round(self.window * (self.rate or 0))


class Mel:
    """Levels of sounds of so many channels, and sounds of levels; no part of it is learned."""

    def __init__(self, about: LogMel, channels: int) -> None:
        self.hop, self.window, self.floor = about.hop_places, about.window_places, about.floor
        self.iterations, self.channels = about.iterations, channels
        bands = _bands(about)
        self.constants = Constants()
        self._bands = torch.from_numpy(bands)
        self._inverse = np.linalg.pinv(bands)

    def levels(self, x: Float[Tensor, "b c n"]) -> Float[Tensor, "b bands frames"]:
        """In dB of a sine of full scale, each frame about the middle of its own `hop` places."""
        window = self.constants.get("window", x.device, lambda: torch.hann_window(self.window))
        bands = self.constants.get("bands", x.device, lambda: self._bands)
        around = self.window - self.hop
        flat = F.pad(x.float().flatten(0, 1), (around // 2, around - around // 2))
        spectrum = torch.stft(flat, self.window, self.hop, window=window, center=False, return_complex=True)
        # A sine's magnitudes, over the bins that a Hann window spreads it to, add up to its amplitude times the sum.
        magnitude = bands @ (spectrum.abs() / window.sum())
        levels = 20 * magnitude.clamp(min=10 ** (self.floor / 20)).log10()
        return levels.reshape(len(x), -1, levels.shape[2])

    def sounds(self, levels: Float[Tensor, "b bands frames"]) -> Float[Tensor, "b c n"]:
        """Of these levels, with phases that fit; what is at the floor is silence."""
        decibels = levels.float().cpu().numpy().reshape(len(levels), self.channels, -1, levels.shape[2])
        mel = 10 ** (decibels.clip(max=LOUDEST_DB) / 20) * (decibels > self.floor)
        magnitude = (self._inverse @ mel).clip(min=0) * float(torch.hann_window(self.window).sum())
        # The phases start at 0, not at random: so a sound is the same whichever others are beside it.
        found = _librosa().griffinlim(
            magnitude.astype(np.float32), n_iter=self.iterations, hop_length=self.hop, n_fft=self.window, center=False,
            init=None,
        )  # fmt: skip
        before = (self.window - self.hop) // 2
        return torch.from_numpy(found[..., before : before + self.hop * levels.shape[2]]).to(levels)


class MelCodec(Codec):
    """The module of `LogMel`."""

    def __init__(self, about: LogMel, channels: int, shift: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.mel, self.channels = Mel(about, channels), channels
        self.standard = Normalize(tuple(shift), tuple(scale)).build()

    def encode(self, x: Float[Tensor, "b c n"]) -> Float[Tensor, "b bands frames"]:
        if x.shape[1] != self.channels or x.shape[2] % self.mel.hop:
            raise ValueError(
                f"codec: got sounds of shape {tuple(x.shape[1:])}, expected {self.channels} channels and a multiple of "
                f"{self.mel.hop} places"
            )
        return self.standard.encode(self.mel.levels(x))

    def decode(self, z: Float[Tensor, "b bands frames"]) -> Float[Tensor, "b c n"]:
        return self.mel.sounds(self.standard.decode(z))


def _bands(about: LogMel) -> Float[np.ndarray, "mels f"]:
    """The bands' weights; a sine in the middle of one, if it is wide, has its own level there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty bands, which are refused below
        bands = _librosa().filters.mel(sr=about.rate, n_fft=about.window_places, n_mels=about.mels, norm=None)
    empty = int((bands.sum(1) == 0).sum())
    if empty:
        raise ValueError(
            f"codec.mels: got {about.mels}, of which {empty} lie between the frequencies of a window of "
            f"{about.window:g} s; expected fewer, or a longer window"
        )
    return cast("np.ndarray", bands.astype(np.float32))


def _librosa() -> Any:
    try:
        import librosa
    except ImportError:
        raise ValueError("codec: LogMel needs librosa, which is missing; pip install 'anydit[audio]'") from None
    return librosa

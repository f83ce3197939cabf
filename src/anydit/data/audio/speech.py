"""Spoken digits: words in many voices, pitches and speeds, said by espeak-ng, because no package ships recordings."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anydit.config import check_at_least, check_positive, config
from anydit.data.audio.audio import TEXT, AudioSamples, facts_of
from anydit.data.audio.cache import Clip, Clips, Sound, kept
from anydit.data.audio.files import soxr
from anydit.data.base import Data, Part, Samples, cache_folder, check_share
from anydit.data.outside import rows_of
from anydit.tensors import Stream

SCHEMA = 2
"""Of what is said and how it is cut: another number has all of it said anew."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ACCENTS = ("en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc")
"""British, Caribbean, Scottish, Lancastrian, West Midlands, received, American, New York."""

VOICES = (
    "Alex", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Jacky", "Lee",
    "Mario", "Mike", "Nguyen", "Reed", "Storm", "anika", "antonio", "aunty", "belinda", "boris", "david",
    "ed", "edward", "f1", "f2", "f3", "f4", "f5", "grandma", "grandpa", "gustave", "ian", "iven4", "john",
    "kaukovalta", "klatt2", "klatt4", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo", "max", "miguel",
    "pablo", "paul", "pedro", "quincy", "rob", "sandro", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip
"""Of espeak-ng's; without robots, whispers, jokes, and those that are another one but louder."""

PITCHES, WORDS_PER_MINUTE = (20, 80), (150, 250)
"""From which to which, as espeak-ng counts: 50 is a voice's own pitch."""

GAIN = 0.9 / 2**15
"""Of the 16-bit numbers that are said: what lies between them may be a little louder than they are."""

SILENCE, EDGE_SECONDS = 0.003, 0.005
"""Values below which nothing is heard, and what is left of it at both ends."""

LOW_HZ, HIGH_HZ = 90, 130
"""Below which a text calls a word low, and above which high: a third of all each."""


class Take(NamedTuple):
    """One clip to be said."""

    voice: int
    digit: int
    take: int


@config
class SpokenDigits(Data):
    """The words zero to nine in 58 of espeak-ng's voices, each with 8 accents of English, values from -1 to 1.

    `takes`: of each word in each voice, of a pitch, a speed and an accent that follow from their number. Known are the
    digit ("label"), the pitch in Hz as it is heard ("pitch"), and a text such as "a low seven". `rate`, `seconds`: as
    in `Audio`. `held_out`: the share of voices that are never heard in training. Said once, then kept in `cache`.
    """

    rate: int = 8000
    seconds: float = 0.64
    takes: int = 6
    held_out: float = 0.1
    cache: Path | None = None

    def __post_init__(self) -> None:
        check_at_least("takes", self.takes, 1)
        check_positive("seconds", self.seconds)
        check_share(self.held_out)
        if not 4000 <= self.rate <= 48_000:
            raise ValueError(f"rate: got {self.rate}, expected 4000 to 48000 Hz")

    @property
    def size(self) -> tuple[int]:
        """Places of the longest sample."""
        return (round(self.seconds * self.rate),)

    def open(self, part: Part) -> Samples:
        found = self._clips()
        takes = [Take(*about["take"]) for about in found.about]
        voices = {each: rows_of(VOICES, self.held_out, each).numpy() for each in ("train", "held_out")}
        of_voice = np.array([take.voice for take in takes])
        rows = {each: np.nonzero(np.isin(of_voice, chosen))[0] for each, chosen in voices.items()}
        if not len(rows[part]):
            raise ValueError(f"data.held_out: got {self.held_out}, which leaves no voice in the part {part}")
        pitch = torch.tensor([about["pitch"] for about in found.about], dtype=torch.float32)
        cond = {"label": torch.tensor([take.digit for take in takes]), "pitch": pitch[:, None]}
        texts = [_said(i, take.digit, float(hz)) for i, (take, hz) in enumerate(zip(takes, pitch, strict=True))]
        facts = facts_of(found, rows["train"], self.size[0], self.rate, {"label": WORDS}, {"pitch": ("pitch in Hz",)},
                         (TEXT,))  # fmt: skip
        return SpokenSamples(found, rows[part], facts, cond, {TEXT: texts}, self)

    def _clips(self) -> Clips:
        try:
            brought = version("espeakng-loader")
        except PackageNotFoundError:
            raise ValueError(
                "data: SpokenDigits needs espeakng-loader, which is missing; pip install 'anydit[audio]'"
            ) from None
        takes = [Take(*row) for row in np.ndindex(len(VOICES), len(WORDS), self.takes)]
        names = [f"{VOICES[take.voice]}: {WORDS[take.digit]} {take.take}" for take in takes]
        heard = _heard(takes, self.rate)

        def load(name: str) -> Sound:
            take, clip = next(heard)
            if len(clip) > self.size[0]:
                takes = f"{len(clip) / self.rate:.3g}, which {name} takes"
                raise ValueError(f"data.seconds: got {self.seconds}, expected at least {takes}")
            return {"take": take, "pitch": pitch_of(clip[:, 0], self.rate)}, iter([clip])

        root = (self.cache.expanduser() if self.cache else cache_folder()) / "speech"
        key = [SCHEMA, brought, self.rate, self.seconds, ACCENTS, PITCHES, WORDS_PER_MINUTE]
        return kept(root, key, names, load, 1, 0)


@dataclass(frozen=True)
class SpokenSamples(AudioSamples):
    """Spoken digits, whose texts can be checked: each says one of them."""

    data: SpokenDigits

    @property
    def parts(self) -> Data:
        return self.data

    def cut(self, x: Float[Tensor, "b 1 n"], ids: Int[Tensor, " b"]) -> Float[Tensor, "b 1 1 n"]:
        return x[:, None]

    def shows(self, ids: Int[Tensor, " b"]) -> Int[Tensor, "b 1"]:
        files = torch.from_numpy(self.clips.files[self.rows[ids.numpy()]])
        return self.cond["label"][files, None]


def _heard(takes: list[Take], rate: int) -> Iterator[tuple[Take, Clip]]:
    """Each take, said all in one go by a process of its own, without the silence around it, at a rate in Hz."""
    numbers = torch.arange(len(takes))
    drawn = Stream(0, "speech").uniform(0, numbers, (2,)).numpy()
    accents = Stream(0, "accent").integers(0, numbers, len(ACCENTS)).tolist()
    asked = [
        [f"{ACCENTS[accent]}+{VOICES[take.voice]}", WORDS[take.digit], *_between(u)]
        for take, accent, u in zip(takes, accents, drawn, strict=True)
    ]
    said, ends, own_rate = _spoken(asked)
    for take, end, begin in zip(takes, ends, [0, *ends[:-1]], strict=True):
        clip = soxr().resample(said[begin:end].astype(np.float32) * GAIN, own_rate, rate)
        loud, edge = np.nonzero(np.abs(clip) > SILENCE)[0], round(EDGE_SECONDS * rate)
        yield take, clip[max(0, loud[0] - edge) : loud[-1] + edge, None]


def _between(u: Float[np.ndarray, " 2"]) -> list[int]:
    """A pitch and a speed."""
    return [round(low + (high - low) * float(v)) for v, (low, high) in zip(u, (PITCHES, WORDS_PER_MINUTE), strict=True)]


def _spoken(asked: list[list[Any]]) -> tuple[np.ndarray, list[int], int]:
    """What espeak-ng says: values, where each word ends, the rate in Hz."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "said.npz"
        command = [sys.executable, str(Path(__file__).with_name("espeak.py")), str(file)]
        done = subprocess.run(  # noqa: S603
            command, input=json.dumps(asked), capture_output=True, text=True, check=False
        )
        if done.returncode or not file.is_file():
            why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise ValueError(f"data: espeak-ng does not work here ({why}); expected what espeakng-loader brings")
        with np.load(file) as said:
            return said["values"], np.cumsum(said["lengths"]).tolist(), int(said["rate"])


def pitch_of(clip: Float[np.ndarray, " n"], rate: int) -> float:
    """The pitch of speech in Hz, the median over its loud parts, by how it repeats itself; 0 where it does not.

    By autocorrelation of windows of 40 ms, with the first peak that is nearly as high as the highest (Boersma 1993).
    """
    window, least, most = round(0.04 * rate), rate // 450, rate // 55
    parts = np.lib.stride_tricks.sliding_window_view(np.pad(clip, (0, window)), window)[:: window // 4]
    parts = (parts - parts.mean(1, keepdims=True)) * np.hanning(window)
    power = np.square(parts).sum(1)
    parts = parts[power > 0.1 * power.max()]
    spectrum = np.abs(np.fft.rfft(parts, 2 * window)) ** 2
    own = np.fft.irfft(np.square(np.abs(np.fft.rfft(np.hanning(window), 2 * window))))[: most + 2]
    # Divided by the window's own, a sound that repeats itself has peaks of equal height at all multiples of its period.
    curves = np.fft.irfft(spectrum)[:, : most + 2] / own
    curves = curves / curves[:, :1].clip(1e-12)
    inner = curves[:, least : most + 1]
    peaks = (inner > curves[:, least - 1 : most]) & (inner >= curves[:, least + 1 : most + 2])
    high = np.where(peaks, inner, -np.inf)
    voiced = high.max(1) > 0.5
    if not voiced.any():
        return 0.0
    high = high[voiced]
    first = (high > 0.95 * high.max(1, keepdims=True)).argmax(1) + least
    return float(np.median(rate / first))


def _said(i: int, digit: int, hz: float) -> str:
    """What the text of a word says; every third one says nothing of its pitch."""
    if i % 3 == 0:
        return WORDS[digit]
    tone = "low" if hz < LOW_HZ else "high" if hz > HIGH_HZ else "middling"
    return f"a {tone} {WORDS[digit]}"

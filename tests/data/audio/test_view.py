"""Sounds in files and in pictures."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from anydit.data import AudioView, Facts, Flac, Ogg, Wav
from anydit.data.audio import view as module
from anydit.data.audio.view import MARGIN_PX, SPECTROGRAM_PX
from tests.data.audio.sounds import tone, written


def ended(seconds: float, *channels: np.ndarray) -> torch.Tensor:
    """One sound, which ends before the others."""
    x = torch.from_numpy(np.stack(channels))[None].clone()
    x[..., round(seconds * 8000) :] = torch.nan
    return x


@pytest.mark.parametrize(
    ("format", "suffix", "subtype", "exact"),
    [
        (Wav(), ".wav", "PCM_16", 2**-15),
        (Wav(24), ".wav", "PCM_24", 2**-23),
        (Wav(32), ".wav", "FLOAT", 0),
        (Flac(), ".flac", "PCM_16", 2**-15),
        (Ogg(), ".ogg", "VORBIS", 0.05),
    ],
)
def test_a_file_has_the_rate_and_the_length_of_its_sound(
    tmp_path: Path, format: Any, suffix: str, subtype: str, exact: float
):
    left, right = tone(440, 0.5), tone(660, 0.5)
    x = torch.cat([ended(0.5, left, right), ended(0.2, left, right)])
    paths = AudioView(rate=8000, format=format).write(x, tmp_path, "x")
    assert [path.name for path in paths] == [f"x-0000{i}{suffix}" for i in range(2)]
    for path, seconds in zip(paths, (0.5, 0.2), strict=True):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (8000, 2, 8000 * seconds, subtype)
        read = soundfile.read(path)[0]
        assert np.abs(read - np.stack([left, right], 1)[: len(read)]).max() <= exact


def test_what_is_too_loud_is_clipped_where_a_format_has_bounds(tmp_path: Path):
    x = 3 * ended(0.5, tone(440, 0.5))
    for format, loudest in ((Wav(), 1.0), (Wav(32), 1.5)):
        (path,) = AudioView(rate=8000, format=format).write(x, tmp_path)
        assert np.abs(soundfile.read(path)[0]).max() == pytest.approx(loudest, abs=1e-3)


@pytest.mark.parametrize("format", [Wav(), Ogg()])
def test_a_minute_in_stereo_is_written(tmp_path: Path, format: Wav | Ogg):
    """In a process of its own, because the library used to end it."""
    code = "import torch; from pathlib import Path; from anydit.data import *; "
    code += f"AudioView(rate=44_100, format={format!r}).write(torch.zeros(1, 2, 44_100 * 60), Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    (path,) = tmp_path.iterdir()
    assert soundfile.info(path).frames == 44_100 * 60
    (empty,) = AudioView(rate=8000, format=format).write(torch.full((1, 1, 50), torch.nan), tmp_path, "empty")
    assert soundfile.info(empty).frames == 0


def test_the_rate_comes_from_the_data(tmp_path: Path):
    facts = Facts(1, (4000,), view=AudioView(rate=8000))
    assert AudioView(format=Flac()).like(facts) == AudioView(rate=8000, format=Flac())
    assert AudioView(rate=44_100).like(facts).per_second == 44_100
    with pytest.raises(ValueError, match=r"view\.rate: got None"):
        AudioView().write(torch.zeros(1, 1, 100), tmp_path)


@pytest.mark.parametrize(
    ("format", "most", "beyond", "said"),
    [
        (Ogg(), 200_000, 200_001, "got Ogg of 200001 Hz, expected at most 200000; --view.format Wav takes any"),
        (Flac(), 655_350, 655_360, "got Flac of 655360 Hz, expected at most 65535, or a multiple of 10 up to 655350"),
        (Flac(), 65_535, 65_536, "got Flac of 65536 Hz"),
    ],
)
def test_rates_that_a_format_does_not_take_are_refused_before_anything_is_trained(
    tmp_path: Path, format: Flac | Ogg, most: int, beyond: int, said: str
):
    (path,) = (
        AudioView(format=format)
        .like(Facts(1, (100,), view=AudioView(rate=most)))
        .write(torch.zeros(1, 1, 100), tmp_path)
    )
    assert soundfile.info(path).samplerate == most
    if beyond:
        with pytest.raises(ValueError, match=said):
            AudioView(format=format).like(Facts(1, (100,), view=AudioView(rate=beyond)))


def test_lengths_are_told_in_seconds():
    view = AudioView(rate=8000)
    assert [view.places(text) for text in ("0.5s", "0.5 s", "500ms", "1e-1s", "4000")] == [4000, 4000, 4000, 800, 4000]
    for text in ("", "s", "-1s", "0s", "1m", "nans", "infs", "0.5", "-3", "0.00001s"):
        with pytest.raises(ValueError, match=r"expected a time, as 0\.5s, 500ms"):
            view.places(text)
    with pytest.raises(ValueError, match="expected a whole number of places"):
        AudioView().places("1s")
    assert AudioView().places("100") == 100


def bright(view: AudioView, x: torch.Tensor) -> np.ndarray:
    """How bright the spectrogram of the first channel is."""
    width, height = SPECTROGRAM_PX
    pixels = np.asarray(view.picture(x), float).sum(2)
    return pixels[2 : 2 + height, 2 + MARGIN_PX[0] : 2 + MARGIN_PX[0] + width]


def test_a_picture_shows_which_frequency_is_when():
    view = AudioView(rate=8000)
    low, high = np.concatenate([tone(500, 0.25), tone(3000, 0.25)]), np.concatenate([tone(3000, 0.25), tone(500, 0.25)])
    height = SPECTROGRAM_PX[1]
    for sound, first, last in ((low, 500, 3000), (high, 3000, 500)):
        pixels = bright(view, ended(0.5, sound))
        for column, hertz in ((30, first), (120, last)):
            assert abs(int(pixels[:, column].argmax()) - height * (1 - hertz / 4000)) < 3


def test_a_picture_ends_where_the_sound_does():
    view = AudioView(rate=8000)
    x = torch.cat([ended(0.5, tone(440, 0.5)), ended(0.2, tone(440, 0.5))])
    sheet = view.picture(x, ["whole", "short"], 2)
    short = np.asarray(sheet.crop((sheet.width // 2, 0, sheet.width, sheet.height)))
    grey = (short == 0xE4).all(2).any(0)
    assert grey.sum() == pytest.approx(0.6 * SPECTROGRAM_PX[0], abs=2)
    stereo = view.picture(torch.zeros(1, 2, 4000))
    assert stereo.height > 1.7 * view.picture(torch.zeros(1, 1, 4000)).height
    # Few values, no rate, silence: there is something to see of each.
    assert AudioView().picture(torch.zeros(2, 1, 5)).width > 170


def test_a_sound_of_another_rate_and_channels_is_brought_to_the_datas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    both = np.stack([tone(440, 0.5, 16_000), np.zeros(8000, np.float32)], 1)
    x, _ = AudioView(rate=8000).read(written(tmp_path / "x.wav", both, 16_000), (1, 100))
    assert x.shape == (1, 4000)
    assert np.abs(x[0].numpy() - tone(440, 0.5) / 2)[200:-200].max() < 0.01
    assert capsys.readouterr().err == "x.wav is brought from 16000 Hz, 2 channels to 8000 Hz, 1.\n"


def test_a_file_that_is_too_long_is_refused_without_an_option_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "LONGEST", 2000)
    with pytest.raises(ValueError, match=r"of 0\.5 s, expected at most 0\.25; cut it before$"):
        AudioView(rate=8000).read(written(tmp_path / "x.wav", tone(440, 0.5)), (1, 100))

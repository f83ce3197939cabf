"""Log-mel latents: what a band's level is, that sounds come back, and how frames lie."""

from collections.abc import Sequence
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from anydit.codecs import LogMel, Survey
from anydit.codecs.mel import Mel, MelCodec
from anydit.config import from_json, to_json
from anydit.data import SpokenDigits
from tests.data.audio.sounds import tone

RATE = 8000
PLAIN = LogMel(mels=40, rate=RATE)


def sounds(*tones: np.ndarray) -> Float[Tensor, "b 1 n"]:
    return torch.from_numpy(np.stack(tones))[:, None]


def survey(x: Tensor) -> Survey:
    return Survey(lambda n: iter([x if n is None else x[:n]]), (-1, 1), per_second=RATE)


def speech(count: int = 20) -> Float[Tensor, "b 1 n"]:
    samples = SpokenDigits(takes=1).open("held_out")
    return samples.read(torch.arange(count)).x


def centres(mels: int, rate: int = RATE) -> Sequence[float]:
    return librosa.mel_frequencies(n_mels=mels + 2, fmax=rate / 2)[1:-1].tolist()


@pytest.mark.parametrize(("band", "level"), [(5, -3), (20, -2), (38, -0.5)])
def test_a_sine_has_its_own_level_in_its_band(band: int, level: float):
    """But for what is beside it in a narrow one."""
    x = sounds(tone(centres(40)[band], 0.4, amplitude=1.0), tone(centres(40)[band], 0.4, amplitude=0.01))
    levels = Mel(PLAIN, 1).levels(x)[:, :, 8:-8]
    assert (levels.mean(2).argmax(1) == band).all()
    assert levels[0, band].mean() == pytest.approx(level, abs=0.7)
    assert (levels[0] - levels[1])[band].mean() == pytest.approx(40, abs=0.01)


def test_levels_are_those_of_librosa():
    """But for the scale, and for frames that have as much of the sound on either side."""
    x = speech(3)
    ours = Mel(PLAIN, 1).levels(x)
    padded = np.pad(x[:, 0].numpy(), ((0, 0), (120, 120)))
    theirs = librosa.feature.melspectrogram(
        y=padded, sr=RATE, n_fft=320, hop_length=80, center=False, power=1.0, n_mels=40, norm=None
    )
    theirs = 20 * np.log10(np.maximum(theirs / 160, 1e-4))
    assert np.abs(ours.numpy() - theirs).max() < 1e-2


def test_a_click_is_in_the_frames_around_it():
    x = torch.zeros(1, 1, 4000)
    x[..., 2000] = 1
    loud = (Mel(PLAIN, 1).levels(x)[0] > -79).any(0).nonzero()[:, 0].tolist()
    # Frame 24 is about place 1960, 25 about 2040: a window of 320 places reaches it from 23 to 26.
    assert loud == [23, 24, 25, 26]


def test_speech_comes_back():
    """Within 1.5 dB in each band and frame where there is something; phases are others."""
    x = speech()
    codec = LogMel(mels=48).measured(survey(x)).build()
    z = codec.encode(x)
    y = codec.decode(z)
    assert z.shape == (20, 48, 64)
    assert y.shape == x.shape
    mel = codec.mel
    before, after = mel.levels(x), mel.levels(y)
    there = before > -60
    assert float((before - after)[there].abs().mean()) < 1.5
    silent = torch.from_numpy(np.abs(x.numpy()).max((1, 2)) == 0)
    assert not silent.any()
    noise = torch.randn(x.shape) * x.std()
    assert float((before - mel.levels(noise))[there].abs().mean()) > 8


def test_latents_are_standard_where_sounds_exist():
    x = speech()
    x[:, :, 3000:] = torch.nan
    config = LogMel(mels=40).measured(survey(x))
    z = config.build().encode(x.nan_to_num(0.0))[..., : 3000 // 80]
    assert z.mean((0, 2)).abs().max() < 0.05
    assert (z.std((0, 2)) - 1).abs().max() < 0.05
    assert from_json(LogMel, to_json(config)) == config
    assert config.measured(survey(x)) is config


def test_a_sound_does_not_depend_on_those_beside_it_nor_on_chance():
    codec = LogMel().measured(survey(speech())).build()
    z = torch.randn(4, 64, 32)
    together = codec.decode(z)
    torch.manual_seed(7)
    np.random.seed(7)
    assert torch.equal(together[2:3], codec.decode(z[2:3]))


def test_two_channels_are_bands_one_after_the_other():
    x = torch.cat([speech(4), speech(8)[4:]], dim=1)
    config = LogMel(mels=40).measured(survey(x))
    assert config.latent_channels(2) == 80
    codec = config.build()
    z = codec.encode(x)
    alone = Mel(replace(PLAIN), 1).levels(x[:, 1:])
    assert torch.allclose(codec.standard.decode(z)[:, 40:], alone, atol=1e-3)
    y = codec.decode(z)
    assert y.shape == x.shape
    assert (codec.encode(y) - z).abs().mean() < 0.1


def test_numbers_far_from_any_data_stay_finite():
    codec = LogMel().measured(survey(speech())).build()
    assert isinstance(codec, MelCodec)
    y = codec.decode(torch.cat([torch.full((1, 64, 8), 1e4), torch.full((1, 64, 8), -1e4)]))
    assert y.isfinite().all()
    assert not y[1].any(), "below the floor is silence"


def test_sizes():
    config = LogMel(rate=44_100.0)
    assert (config.hop_places, config.latent_size((44_100,)), config.data_size((100,))) == (441, (100,), (44_100,))
    odd = LogMel(rate=22_050.0)
    with pytest.raises(ValueError, match=r"66150 places, expected a multiple of 220, .*; 2\.9931973 s or 3\.0031746 s"):
        odd.latent_size((66_150,))
    assert odd.latent_size((round(2.9931973 * 22_050),)) == (300,)


def test_refusals():
    for how in ({"mels": 0}, {"hop": 0.0}, {"window": 0.01}, {"floor": 3.0}, {"iterations": 0}, {"rate": -1.0}):
        with pytest.raises(ValueError, match=next(iter(how))):
            replace(LogMel(), **how)
    x = speech(2)
    with pytest.raises(ValueError, match=r"codec\.rate: got None"):
        LogMel().measured(Survey(lambda n: iter([x])))
    with pytest.raises(ValueError, match="got 16000, expected 8000 Hz"):
        LogMel(rate=16_000.0).measured(survey(x))
    with pytest.raises(ValueError, match=r"codec\.mels: got 400, of which \d+ lie between"):
        LogMel(mels=400).measured(survey(x))
    with pytest.raises(ValueError, match="got data with 2 axes"):
        PLAIN.latent_size((80, 80))
    with pytest.raises(ValueError, match="resolve the recipe"):
        PLAIN.build()
    config = LogMel().measured(survey(x))
    with pytest.raises(ValueError, match="got data of 2 channels, expected 1"):
        config.latent_channels(2)
    with pytest.raises(ValueError, match=r"got sounds of shape \(1, 81\)"):
        config.build().encode(torch.zeros(1, 1, 81))

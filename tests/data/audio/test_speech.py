"""Digits that are said: by whom, how high, and that they are the same each time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anydit.data import AudioView, SpokenDigits
from anydit.data.audio import speech
from anydit.data.audio.speech import VOICES, WORDS, SpokenSamples, Take, pitch_of
from anydit.data.base import Checkable, digest
from anydit.tensors import MASK
from tests.data.audio.sounds import tone

FEW = SpokenDigits(takes=1)


def opened(part: str) -> SpokenSamples:
    samples = FEW.open("train" if part == "train" else "held_out")
    assert isinstance(samples, SpokenSamples)
    return samples


def takes_of(samples: SpokenSamples) -> list[Take]:
    return [Take(*samples.clips.about[i]["take"]) for i in samples.clips.files[samples.rows]]


def test_what_is_known_of_a_word():
    samples = opened("train")
    facts = samples.facts
    assert (facts.channels, facts.size, facts.view) == (1, (5120,), AudioView(rate=8000))
    assert (facts.classes, facts.numbers, facts.texts) == ({"label": WORDS}, {"pitch": ("pitch in Hz",)}, ("text",))
    batch = samples.read(torch.arange(len(samples)))
    assert batch.tensor("label").bincount().tolist() == [len(samples) // 10] * 10
    mask = batch.tensor(MASK)
    assert 0.1 < float(mask.sum(1).min()) / 8000 < float(mask.sum(1).max()) / 8000 < 0.64
    assert not batch.x[:, 0][~mask].any()
    assert 0.01 < float(batch.x[:, 0][mask].square().mean().sqrt()) < 0.3
    assert 0.3 < float(batch.x.abs().max()) < 1, "nothing is clipped"
    texts, pitch = batch.texts["text"], batch.tensor("pitch")[:, 0]
    for text, label, hertz in zip(texts, batch.tensor("label").tolist(), pitch.tolist(), strict=True):
        assert text.endswith(WORDS[label])
        assert ("low" in text) <= (hertz < 90) and ("high" in text) <= (hertz > 130)
    assert 0.2 < sum(text in WORDS for text in texts) / len(texts) < 0.5
    assert sum(number for _, number in facts.lengths) == len(samples)


def test_voices_are_held_out_whole():
    voices = [{take.voice for take in takes_of(opened(part))} for part in ("train", "held_out")]
    assert not voices[0] & voices[1]
    assert voices[0] | voices[1] == set(range(len(VOICES)))
    assert 0.05 < len(voices[1]) / len(VOICES) < 0.3


def test_the_same_is_said_each_time(tmp_path: Path):
    """Although espeak-ng says no word twice alike, and voices that breathe, none of them held out, do by a seed."""
    again = replace(FEW, cache=tmp_path)
    for part in ("train", "held_out"):
        ids = torch.arange(len(FEW.open(part)))
        assert torch.equal(again.open(part).read(ids).x, FEW.open(part).read(ids).x)
        assert digest(again.open(part)) == digest(FEW.open(part))


def test_texts_can_be_checked():
    samples = opened("held_out")
    assert isinstance(samples, Checkable)
    ids = torch.tensor([3, 41])
    batch = samples.read(ids)
    assert samples.cut(batch.x, ids).shape == (2, 1, 1, 5120)
    assert samples.shows(ids)[:, 0].tolist() == batch.tensor("label").tolist()


@pytest.mark.parametrize("hertz", [80.0, 147.0, 300.0])
def test_pitch_is_that_of_a_sound_that_repeats_itself(hertz: float):
    harmonics = [tone(k * hertz, 0.5, amplitude=1 / k) for k in range(1, int(4000 / hertz))]
    voice = np.sum(harmonics, axis=0, dtype=np.float32)
    assert pitch_of(voice, 8000) == pytest.approx(hertz, rel=0.03)


def test_noise_has_no_pitch():
    assert pitch_of(np.random.default_rng(0).normal(size=4000).astype(np.float32), 8000) == 0


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for how in ({"rate": 100}, {"takes": 0}, {"held_out": 1.0}, {"seconds": -1.0}):
        with pytest.raises(ValueError, match=next(iter(how))):
            replace(FEW, **how)
    with pytest.raises(ValueError, match=r"data\.seconds: got 0\.2, expected at least 0\.\d+, which .*: zero 0 takes"):
        replace(FEW, seconds=0.2, cache=tmp_path).open("train")
    monkeypatch.setattr(speech, "ACCENTS", ("no-such-language",))
    with pytest.raises(ValueError, match="espeak-ng does not say 'zero' in the voice no-such-language"):
        replace(FEW, cache=tmp_path).open("train")

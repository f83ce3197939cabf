"""Files of sound: what is read from them, what is refused, what is asked for before it is done."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anydit.data import Audio, AudioView, Mix, Pieces, Resample
from anydit.data.audio import cache
from anydit.data.audio.audio import AudioSamples
from anydit.data.audio.files import BLOCK, Refused, Wanted, _cut
from anydit.data.outside import HANDFUL
from anydit.tensors import MASK
from tests.data.audio.sounds import tone, written


def opened(data: Audio) -> AudioSamples:
    samples = data.open("train")
    assert isinstance(samples, AudioSamples)
    return samples


def of(path: Path, **how: object) -> Audio:
    return replace(Audio(path=path, rate=8000, seconds=0.5, held_out=0.0), **how)


def refused(data: Audio) -> str:
    with pytest.raises(ValueError) as error:
        data.open("train")
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "subtype", "exact"),
    [
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "PCM_U8", 2**-7),
        ("a.flac", "PCM_16", 2**-15),
        ("a.ogg", "VORBIS", 0.05),
    ],
)
def test_what_is_in_a_file_is_what_is_read(tmp_path: Path, name: str, subtype: str, exact: float):
    values = np.stack([tone(440, 0.3), tone(880, 0.3)], axis=1)
    written(tmp_path / name, values, subtype=subtype)
    batch = opened(of(tmp_path, channels=2)).read(torch.tensor([0]))
    assert batch.x.shape == (1, 2, 4000)
    assert np.abs(batch.x[0, :, :2400].T.numpy() - values).max() <= exact
    assert not batch.x[0, :, 2400:].any(), "silence where there is nothing"
    assert torch.equal(batch.tensor(MASK)[0], torch.arange(4000) < 2400)


def test_an_mp3_is_read(tmp_path: Path):
    """Its encoder adds some silence, and nothing in the file says how much."""
    written(tmp_path / "a.mp3", tone(440, 0.3))
    batch = opened(of(tmp_path)).read(torch.tensor([0]))
    assert 2400 <= int(batch.tensor(MASK).sum()) < 3600
    assert int(np.abs(np.fft.rfft(batch.x[0, 0])).argmax()) == 220


def test_classes_texts_and_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, hz, seconds in (("low/a", 100, 0.5), ("low/deep/b", 110, 0.2), ("high/c", 1000, 0.1)):
        written(tmp_path / f"{name}.wav", tone(hz, seconds))
        (tmp_path / f"{name}.txt").write_text(f"a sine\n of {hz} Hz\n")
    (tmp_path / "low/notes.md").write_text("passed over")
    samples = opened(of(tmp_path))
    facts = samples.facts
    assert (facts.classes, facts.texts, facts.view) == ({"label": ("high", "low")}, ("text",), AudioView(rate=8000))
    # Rounded up to parts of the longest, of 63 places each.
    assert facts.lengths == ((819, 1), (1638, 1), (4000, 1))
    batch = samples.read(torch.arange(3))
    assert batch.tensor("label").tolist() == [0, 1, 1]
    assert batch.texts == {"text": ["a sine of 1000 Hz", "a sine of 100 Hz", "a sine of 110 Hz"]}
    assert batch.tensor(MASK).sum(1).tolist() == [800, 4000, 1600]
    assert "Passed over files that are not named like sounds: 1 with .md" in capsys.readouterr().err


def test_sounds_that_are_all_whole_have_no_mask(tmp_path: Path):
    written(tmp_path / "a.wav", tone(440, 0.5))
    samples = opened(of(tmp_path))
    assert (samples.facts.lengths, dict(samples.read(torch.tensor([0])).cond)) == ((), {})


def test_what_is_not_asked_for_is_not_done(tmp_path: Path):
    """Another rate, another number of channels, a sound that is too long: refused, or skipped, by name."""
    written(tmp_path / "good.wav", tone(440, 0.5))
    written(tmp_path / "rate.wav", tone(440, 0.4, 16_000), 16_000)
    assert "rate.wav: of 16000 Hz, expected 8000; --data.other-rate Resample" in refused(of(tmp_path))
    written(tmp_path / "stereo.wav", np.stack([tone(440, 0.4)] * 2, 1))
    written(tmp_path / "long.wav", tone(440, 0.6))
    said = refused(of(tmp_path))
    assert "got 3 unreadable among 4 files" in said or "got 1 unreadable" in said
    samples = opened(of(tmp_path, bad_limit=0.01))
    assert len(samples) == 1
    why = dict(samples.clips.skipped)
    assert why["stereo.wav"] == "of 2 channels, expected 1; --data.other-channels Mix helps"
    assert why["long.wav"] == "of 0.6 s, expected at most 0.5; --data.longer Pieces cuts it"


def test_one_place_too_many_is_told_in_places(tmp_path: Path):
    written(tmp_path / "a.wav", np.zeros(16_001), 16_000)
    said = refused(of(tmp_path, rate=16_000, seconds=1.0))
    assert "a.wav: of 16001 places, expected at most 16000; --data.longer Pieces cuts it" in said


def test_a_riff_without_the_byte_that_makes_it_even_is_whole(tmp_path: Path):
    """Of 8-bit sounds some writers leave it out; a byte of the sound itself is not left out."""
    for count in (1001, 1002):
        file = written(tmp_path / f"{count}.wav", tone(440, 0.5)[:count], subtype="PCM_U8")
        file.write_bytes(file.read_bytes()[:-1])
    samples = opened(of(tmp_path, bad_limit=0.1))
    assert samples.clips.lengths.tolist() == [1001]
    assert dict(samples.clips.skipped) == {"1002.wav": "of 1045 bytes, expected 1046, as its header says: cut off"}


def test_resampled_where_asked(tmp_path: Path):
    for name, rate in (("a", 16_000), ("b", 44_100), ("c", 4000)):
        written(tmp_path / f"{name}.wav", tone(440, 0.5, rate), rate, subtype="FLOAT")
    x = opened(of(tmp_path, other_rate=Resample())).read(torch.arange(3)).x
    assert x.shape[2] == 4000
    assert np.abs(x[:, 0, 200:3800].numpy() - tone(440, 0.5)[200:3800]).max() < 2e-3
    written(tmp_path / "d.wav", tone(6000, 0.5, 16_000), 16_000, subtype="FLOAT")
    above = opened(of(tmp_path, other_rate=Resample())).read(torch.tensor([3])).x
    assert float(above[..., 200:3800].abs().max()) < 1e-2, "no alias of what the rate cannot hold"


def test_mixed_where_asked(tmp_path: Path):
    left, right = tone(300, 0.5), tone(500, 0.5)
    written(tmp_path / "two.wav", np.stack([left, right], 1), subtype="FLOAT")
    written(tmp_path / "one.wav", left, subtype="FLOAT")
    mono = opened(of(tmp_path, other_channels=Mix())).read(torch.arange(2)).x
    assert np.allclose(mono[:, 0], np.stack([left, (left + right) / 2]), atol=1e-6)
    both = opened(of(tmp_path, channels=2, other_channels=Mix())).read(torch.arange(2)).x
    assert np.allclose(both, np.stack([[left, left], [left, right]]))


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_cut_where_asked(tmp_path: Path, rate: int):
    """Over blocks of decoding, and over the ends of what a resampler hands out."""
    seconds = 40.3
    written(tmp_path / "long.wav", tone(440, seconds, rate), rate, subtype="FLOAT")
    samples = opened(of(tmp_path, other_rate=Resample(), longer=Pieces()))
    assert samples.clips.lengths.tolist() == [4000] * 80 + [2400]
    whole = samples.read(torch.arange(81)).x[:, 0].flatten()[: round(8000 * seconds)]
    assert np.abs(whole[200:-200].numpy() - tone(440, seconds)[200:-200]).max() < 3e-3, "no piece of it is missing"
    assert len(opened(of(tmp_path, other_rate=Resample(), longer=Pieces(least=0.31)))) == 80


def test_pieces_of_a_file_are_in_one_part(tmp_path: Path):
    for i in range(20):
        written(tmp_path / f"{i}.wav", np.full(12_000, (i + 1) / 32, np.float32), subtype="FLOAT")
    data = of(tmp_path, longer=Pieces(), held_out=0.3)
    parts = [data.open(part) for part in ("train", "held_out")]
    levels = [set(part.read(torch.arange(len(part))).x[:, 0, 0].tolist()) for part in parts]
    assert not levels[0] & levels[1]
    assert len(levels[0] | levels[1]) == 20
    assert parts[0].facts == parts[1].facts
    assert len(parts[1]) == 3 * len(levels[1])


def damaged(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what is said of them."""
    whole = written(folder / "cut.wav", tone(440, 0.5)).read_bytes()
    (folder / "cut.wav").write_bytes(whole[:3000])
    noise = np.random.default_rng(0).normal(0, 0.1, 4000)
    for name in ("cut.ogg", "cut.flac"):
        file = written(folder / name, noise)
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    flac = bytearray(written(folder / "broken.flac", noise).read_bytes())
    flac[2000:4000] = bytes(2000)
    (folder / "broken.flac").write_bytes(flac)
    (folder / "text.wav").write_text("404 not found")
    (folder / "nothing.ogg").write_bytes(b"")
    written(folder / "empty.wav", np.zeros(0))
    written(folder / "nan.wav", np.array([0.0, np.nan]), subtype="FLOAT")
    written(folder / "other.wav", tone(440, 0.1), format="AIFF")
    (folder / "gone.wav").symlink_to(folder / "gone")
    return {
        "cut.wav": "of 3000 bytes, expected 8044, as its header says",
        "cut.ogg": "without the end of its last page",
        "cut.flac": "flac decoder lost sync",
        "broken.flac": "flac decoder lost sync",
        "text.wav": "Format not recognised",
        "nothing.ogg": "Format not recognised",
        "gone.wav": "which is not there",
        "empty.wav": "without a sound in it",
        "nan.wav": "with NaN or infinity",
        "other.wav": "in the format AIFF, expected one of WAV",
    }


def test_damaged_files_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    expected = damaged(tmp_path)
    for i in range(3):
        written(tmp_path / f"good{i}.wav", tone(200 * (i + 1), 0.5), subtype="FLOAT")
    assert "data.bad_limit: got 1 unreadable" in refused(of(tmp_path))
    assert f"expected at most {HANDFUL}" in refused(of(tmp_path, bad_limit=0.1))
    samples = opened(of(tmp_path, bad_limit=0.8))
    why = dict(samples.clips.skipped)
    assert set(why) == set(expected)
    assert all(part in why[name] for name, part in expected.items()), why
    assert np.allclose(samples.read(torch.arange(3)).x[:, 0], np.stack([tone(200 * (i + 1), 0.5) for i in range(3)]))
    assert "Skipped 10 unreadable of 13 files" in capsys.readouterr().err


def test_no_piece_is_left_of_a_file_that_is_damaged_further_on(tmp_path: Path):
    good, bad = np.full(10_000, 0.25, np.float32), np.full(BLOCK + 10_000, 0.5, np.float32)
    bad[-1] = np.nan
    for name, values in (("a", good), ("b", bad), ("c", good)):
        written(tmp_path / f"{name}.wav", values, subtype="FLOAT")
    samples = opened(of(tmp_path, longer=Pieces(), bad_limit=0.1))
    assert samples.clips.lengths.tolist() == [4000, 4000, 2000] * 2
    assert float(samples.read(torch.arange(6)).x.max()) == 0.25


def test_a_text_is_missing_or_none(tmp_path: Path):
    for name in "abcd":
        written(tmp_path / f"{name}.wav", tone(440, 0.5))
    (tmp_path / "a.txt").write_text("a sine")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "c.txt").write_text(" \n")
    samples = opened(of(tmp_path, bad_limit=0.01))
    assert {name: why[:24] for name, why in samples.clips.skipped} == {
        "b.wav": "b.txt beside it is not i", "c.wav": "c.txt beside it has no w", "d.wav": "no text d.txt beside it,"
    }  # fmt: skip


def test_files_are_decoded_once_and_anew_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path / "a.wav", tone(440, 0.5))
    first = opened(of(tmp_path))
    assert isinstance(first.clips.values, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_fill", lambda *_: pytest.fail("decoded twice"))
        assert torch.equal(opened(of(tmp_path)).read(torch.tensor([0])).x, first.read(torch.tensor([0])).x)
    written(path, tone(550, 0.4))
    assert opened(of(tmp_path)).clips.lengths.tolist() == [3200]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path):
    written(tmp_path / "in" / "a.wav", tone(440, 0.5))
    (tmp_path / "file").write_text("where the folder should be")
    assert "data.cache: got" in refused(of(tmp_path / "in", cache=tmp_path / "file"))


def test_what_cannot_be(tmp_path: Path):
    for how in ({"rate": 0}, {"seconds": 0.0}, {"seconds": 1e-6}, {"held_out": 1.0}, {"bad_limit": 2.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(how))}"):
            replace(Audio(), **how)
    assert "without sounds, expected files named .wav, .flac, .ogg" in refused(of(tmp_path))
    written(tmp_path / "a.wav", tone(440, 0.5))
    with pytest.raises(ValueError, match="leaves none of 1 files in the part held_out"):
        of(tmp_path).open("held_out")


def test_a_long_sound_is_joined_once() -> None:
    """Not again with each block that comes."""
    wanted, block = Wanted(8000, 2**23, 1, Refused(), Refused(), Pieces(1e-4)), np.zeros((2**10, 1), np.float32)
    start = time.process_time()
    assert [len(clip) for clip in _cut((block for _ in range(2**13 + 1)), wanted)] == [2**23, 2**10]
    assert time.process_time() - start < 2


@pytest.mark.parametrize("length", [1, 3, 4, 10, 17, 100])
def test_clips_are_what_the_blocks_hold_in_order(length: int) -> None:
    values = np.arange(46, dtype=np.float32)[:, None]
    wanted = Wanted(8000, length, 1, Refused(), Refused(), Pieces(1e-4))
    clips = list(_cut(iter(np.split(values, [4, 4, 9, 30])), wanted))
    assert np.array_equal(np.concatenate(clips), values)
    assert {len(clip) for clip in clips[:-1]} <= {length} and 0 < len(clips[-1]) <= length

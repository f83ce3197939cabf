"""Sounds in tar files: the same samples as of a folder, and what is damaged named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anydit.data import Audio
from anydit.data.audio import cache
from anydit.tensors import MASK
from tests.data.audio.sounds import tone, written
from tests.data.tars import write

KINDS = ("0.wav", "1.flac", "2.ogg", "3.mp3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def of(path: Path, **how: object) -> Audio:
    return replace(Audio(path=path, rate=8000, seconds=0.5, held_out=0.0), **how)


def packed(folder: Path, names: tuple[str, ...] = KINDS) -> dict[str, bytes]:
    """Members of a tar file with sounds of a folder, their classes and texts."""
    out = dict[str, bytes]()
    for i, name in enumerate(names):
        out |= {f"say/{name}": (folder / KINDS[i % len(KINDS)]).read_bytes(), f"say/{i}.cls": b"%d" % (i % 2),
                f"say/{i}.txt": b"sound\n%d" % i}  # fmt: skip
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sounds")
    for i, name in enumerate(KINDS):
        written(root / name, tone(300 + 100 * i, 0.2 + 0.1 * i))
    return root


def test_samples_are_those_of_the_same_files_in_a_folder(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the format, by class and with texts; decoded once, and read where they lie."""
    write(tmp_path / "a.tar", packed(folder))
    plain, samples = of(folder).open("train"), of(tmp_path).open("train")
    batch, expected = samples.read(torch.arange(4)), plain.read(torch.arange(4))
    assert torch.equal(batch.x, expected.x) and torch.equal(batch.tensor(MASK), expected.tensor(MASK))
    assert batch.tensor("label").tolist() == [0, 1, 0, 1] and samples.facts.classes["label"] == ("0", "1")
    assert list(batch.texts["text"]) == [f"sound {i}" for i in range(4)]
    monkeypatch.setattr(cache, "_fill", None)
    again = of(tmp_path).open("train")
    assert torch.equal(again.read(torch.arange(4)).x, batch.x)


@pytest.mark.fault("T16")
def test_damaged_members_are_named_and_counted(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = packed(folder, tuple(f"{i}.wav" for i in range(8)))
    flac, wav = (folder / "1.flac").read_bytes(), (folder / "0.wav").read_bytes()
    members |= {f"say/{i}.wav": wav for i in range(8)}
    members |= {"say/2.wav": wav[: len(wav) // 2], "say/3.wav": flac[: len(flac) // 2], "say/7.wav": wav}
    del members["say/4.cls"]
    del members["say/5.txt"]
    tar = write(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=r"data\.bad_limit: got 1 unreadable among .*a\.tar/say/2: .*cut off"):
        of(tmp_path).open("train")
    samples = of(tar, bad_limit=0.01).open("train")
    assert list(samples.read(torch.arange(4)).texts["text"]) == [f"sound {i}" for i in (0, 1, 6, 7)]
    said = capsys.readouterr().err
    assert "Skipped 4 unreadable of 8 files" in said
    for i, why in {2: "of ", 3: "", 4: "no .cls, which others have", 5: "no .txt, which others have"}.items():
        assert f"a.tar/say/{i}: {why}" in said

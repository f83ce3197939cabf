"""Videos in tar files: the same clips as of a folder, and what is damaged named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from anydit.data import VideoFolder
from anydit.data.base import Part
from tests.data.tars import write
from tests.data.video.films import film, grey

KINDS = ("0.mp4", "1.webm", "2.gif")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Videos of two seconds, by name."""
    root = tmp_path_factory.mktemp("films")
    for name in KINDS[:2]:
        film(root / name)
    stills = [Image.new("L", (16, 16), grey(i)) for i in range(16)]
    stills[0].save(root / KINDS[2], save_all=True, append_images=stills[1:], duration=125)
    return {name: (root / name).read_bytes() for name in KINDS}


def data_of(path: Path, **changes: Any) -> VideoFolder:
    some = {"seconds": 1.0, "size": (8, 8), "channels": 1, "held_out": 0.0, "cache": path.parent / "cache"}
    return VideoFolder(path=path, **(some | changes))


def all_of(path: Path, part: Part = "train", **changes: Any) -> tuple[torch.Tensor, list[str], list[str]]:
    """Clips, classes and captions of all samples."""
    samples = data_of(path, captions=True, **changes).open(part)
    batch, classes = samples.read(torch.arange(len(samples))), samples.facts.classes["label"]
    return batch.x, [classes[i] for i in batch.tensor("label")], list(batch.texts["text"])


def packed(film: str, content: bytes) -> dict[str, bytes]:
    name, _, suffix = film.partition(".")
    return {f"some/{name}.{suffix}": content, f"some/{name}.cls": b"%d" % (5 * int(name)),
            f"some/{name}.txt": b"film\n" + name.encode()}  # fmt: skip


def test_clips_are_those_of_the_same_files_in_a_folder(tmp_path: Path, films: dict[str, bytes]) -> None:
    """Whatever the format, from a tar file or several, by class and with captions; each is decoded where it lies."""
    (tmp_path / "in").mkdir()
    (tmp_path / "tars" / "more").mkdir(parents=True)
    for name, content in films.items():
        (tmp_path / "in" / name).write_bytes(content)
    first, *others = ([*packed(name, content).items()] for name, content in films.items())
    write(tmp_path / "tars" / "a.tar", dict(first))
    write(tmp_path / "tars" / "more" / "b.tar", dict([item for some in others for item in some]))
    plain = data_of(tmp_path / "in").open("train")
    x, classes, texts = all_of(tmp_path / "tars")
    assert torch.equal(x, plain.read(torch.arange(len(plain))).x) and len(x) == 6
    assert classes == ["0", "0", "5", "5", "10", "10"] and texts[::2] == ["film 0", "film 1", "film 2"]
    one, *_ = all_of(tmp_path / "tars" / "more" / "b.tar")
    assert torch.equal(one, x[2:])


def test_a_member_is_decoded_once_and_anew_where_the_tar_file_is_another(
    tmp_path: Path, films: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    tar = write(tmp_path / "a.tar", {"0.mp4": films["0.mp4"]})
    before = data_of(tar).open("train").read(torch.arange(2)).x
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")}
    data_of(tar).open("train")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")} == kept
    write(tmp_path / "a.tar", {"0.mp4": film(tmp_path / "other.mp4", size=(24, 24)).read_bytes(), "note.md": b"x"})
    data_of(tar).open("train")
    assert len([*(tmp_path / "cache").rglob("*.npy")]) == 2 and before.shape == (2, 1, 8, 8, 8)
    assert "Passed over 1 samples without a video." in capsys.readouterr().err


@pytest.mark.fault("T16")
def test_damaged_members_are_named_and_counted(
    tmp_path: Path, films: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    mp4 = films["0.mp4"]
    members = {n: c for i in range(6) for n, c in (packed(f"{i}.mp4", mp4) | {f"some/{i}.cls": b"0"}).items()}
    del members["some/1.cls"]
    members |= {"some/3.mp4": mp4[: len(mp4) // 2], "some/4.mp4": b"no video"}
    tar = write(tmp_path / "a.tar", members)
    content = tar.read_bytes()
    tar.write_bytes(content[: content.rindex(mp4) + 100])  # the last one is cut off
    assert all_of(tmp_path)[2] == ["film 0", "film 0", "film 2", "film 2"]
    said = capsys.readouterr().err
    assert "Skipped 5 unreadable of 7 videos (a.tar: damaged after 6 samples" in said
    whys = {"1": "no .cls", "3, a.tar/some/4": "damaged", "5": "cut off: the tar file ends before it"}
    for i, why in whys.items():
        assert f"a.tar/some/{i}: {why}" in said, said
    with pytest.raises(ValueError, match=r"data\.bad_limit: got . unreadable among . videos \(a\.tar"):
        all_of(tmp_path, bad_limit=0.0)


def test_what_has_no_videos_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"a.png": b"x"})
    for path in (tmp_path, tmp_path / "a.tar"):
        with pytest.raises(ValueError, match=r"data\.path: got .*without videos, expected a tar file with videos"):
            data_of(path).open("train")

"""Images in tar files, with classes and captions, whole and damaged."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.data.images.shards import ImageShards
from tests.data.images import pictures
from tests.data.tars import add, write

N = 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pictures.noise(seed)).save(out, "png")
    return out.getvalue()


def sample(i: int) -> dict[str, bytes]:
    return {f"some/{i:03}.png": png(i), f"some/{i:03}.cls": b"%d\n" % (5 * (i % 3)), f"some/{i:03}.txt": b"text %d" % i}


def all_of(path: Path, **options) -> tuple[torch.Tensor, list[str], list[str]]:
    """Pixels, classes and captions of all samples."""
    samples = ImageShards(path=path, size=(6, 9), held_out=0.0, **options).open("train")
    batch, classes = samples.read(torch.arange(len(samples))), samples.facts.classes["label"]
    return batch.x, [classes[i] for i in batch.tensor("label")], list(batch.texts["text"])


def test_a_sample_is_its_image_class_and_caption(tmp_path: Path):
    for k in range(2):
        write(tmp_path / f"{k}.tar", {name: v for i in range(4 * k, 4 * k + 4) for name, v in sample(i).items()})
    x, classes, texts = all_of(tmp_path)
    assert classes == [str(5 * (i % 3)) for i in range(N)] and texts == [f"text {i}" for i in range(N)]
    first = ImageShards(path=tmp_path, size=(6, 9), held_out=0.0).open("train")
    assert first.facts.classes["label"] == ("0", "5", "10"), "by number, where they are numbers"
    one, *_ = all_of(tmp_path / "1.tar")
    torch.testing.assert_close(one, x[4:])


def test_images_alone_have_no_class_and_no_caption(tmp_path: Path):
    write(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(N)} | {"note": b"x", "folder/.hidden.png": b"x"})
    samples = ImageShards(path=tmp_path / "a.tar", size=(6, 9), held_out=0.5).open("train")
    assert not samples.facts.classes and not samples.facts.texts
    assert 0 < len(samples) < N


def test_damaged_members_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    members = {name: v for i in range(N) for name, v in sample(i).items()}
    del members["some/003.cls"]
    members |= {"some/004.png": b"no image", "some/005.txt": b"\xff", "some/006.cls": b"1" * 10**5}
    write(tmp_path / "a.tar", members)
    _, classes, texts = all_of(tmp_path)
    assert texts == [f"text {i}" for i in (0, 1, 2, 7)] and classes == ["0", "5", "10", "5"]
    said = capsys.readouterr().err
    for name, why in {
        "003": "no .cls, which others have",
        "004": "not an image in",
        "005": "not text",
        "006": "at most 65536",
    }.items():
        assert f"a.tar/some/{name}: " in said and why in said
    with pytest.raises(ValueError, match="4 unreadable among 8 images"):
        all_of(tmp_path, bad_limit=0.0)


@pytest.mark.fault("T16")
def test_of_a_tar_file_that_is_cut_off_all_before_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    members = {name: v for i in range(N) for name, v in sample(i).items()}
    write(tmp_path / "a.tar", members)
    whole = (tmp_path / "a.tar").read_bytes()
    start = whole.index(b"some/006.png")
    (tmp_path / "a.tar").write_bytes(whole[: start + 700])
    assert all_of(tmp_path)[2] == [f"text {i}" for i in range(6)]
    assert "a.tar/some/006" in capsys.readouterr().err
    broken = bytearray(whole)
    broken[start : start + 100] = b"\xfe" * 100
    (tmp_path / "a.tar").write_bytes(broken)
    assert all_of(tmp_path)[2] == [f"text {i}" for i in range(6)]
    assert "a.tar: damaged after 6 samples" in capsys.readouterr().err


def hostile(file: Path, secret: Path) -> None:
    """Four samples, and members that would leave the folder, or bring a file into it, where they are unpacked."""
    with tarfile.open(file, "w") as tar:
        for i in range(4):
            add(tar, f"{i}.png", png(i))
        for i, name in enumerate(("../outside.png", f"{file.parent}/absolute.png", "a/../../outside.png"), start=4):
            add(tar, name, png(i))
        for kind, name, to in (
            (tarfile.SYMTYPE, "link.png", str(secret)),
            (tarfile.LNKTYPE, "hard.png", "../secret.png"),
            (tarfile.SYMTYPE, "folder", ".."),
            (tarfile.FIFOTYPE, "pipe.png", ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, to
            tar.addfile(info)
        add(tar, "folder/outside.png", png(7))


@pytest.mark.fault("T16")
def test_nothing_is_unpacked_and_no_link_is_followed(tmp_path: Path):
    """Members are bytes in the tar file, whatever they are called; the control is that Python would unpack them."""
    (tmp_path / "in").mkdir()
    pictures.write(tmp_path / "secret.png", np.full((6, 9, 3), 200, np.uint8))
    hostile(tmp_path / "in" / "a.tar", tmp_path / "secret.png")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    samples = ImageShards(path=tmp_path / "in", size=(6, 9), held_out=0.0).open("train")
    first = (samples.read(torch.arange(len(samples))).x[:, 0, 0, 0] * 255).round().int()
    assert sorted(first.tolist()) == list(range(8)), "the members with content, and not what a link names"
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    with tarfile.open(tmp_path / "in" / "a.tar") as tar:
        tar.extract("../outside.png", tmp_path / "in", filter="fully_trusted")
    assert (tmp_path / "outside.png").exists()


def test_what_has_no_images_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"data.path: got .*, expected a tar file with images"):
            ImageShards(path=path).open("train")


def test_what_is_cut_is_told_of_tar_files_as_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(N)})
    ImageShards(path=tmp_path, size=(6, 9), held_out=0.0).open("train")
    assert not capsys.readouterr().err.strip()
    ImageShards(path=tmp_path, size=(6, 6), held_out=0.0).open("train")
    said = "Some images have another aspect than 6x6: at most 33% of an image's area is cut (--data.fit Crop)"
    assert capsys.readouterr().err.strip().startswith(said)

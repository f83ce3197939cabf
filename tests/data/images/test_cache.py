import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.data import ImageFolder, Pad, cache_folder
from anydit.data.images import cache as module
from anydit.data.kept import STALE_SECONDS, UNUSED_SECONDS
from tests.data.images import pictures
from tests.data.images.test_decode import bomb


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def folder(root: Path, cache: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(**{"path": root, "size": (6, 9), "held_out": 0.0, "cache": cache} | fields)


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "images").iterdir())


def damage(root: Path) -> dict[str, str]:
    """Seven bad files, and what the index must say of each."""
    pictures.write(root / "truncated.png", pictures.noise(1, (50, 50)))
    cut = (root / "truncated.png").read_bytes()
    (root / "truncated.png").write_bytes(cut[: len(cut) // 2])
    Image.fromarray(pictures.noise(2, (50, 50))).save(root / "truncated.jpg")
    cut = (root / "truncated.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.jpg").write_text("404 not found", encoding="utf-8")
    pictures.write(root / "one.png", pictures.noise(3, (1, 1)))
    (root / "bomb.png").write_bytes(bomb(12_000, 12_000))
    Image.fromarray(np.full((5, 5), 0.5, np.float32)).save(root / "float.tiff")
    return {
        "truncated.png": "truncated",
        "truncated.jpg": "truncated",
        "empty.png": "not an image",
        "text.jpg": "not an image",
        "one.png": "1x1 pixels",
        "bomb.png": "12000x12000 pixels",
        "float.tiff": "float32 pixels",
    }


@pytest.mark.fault("T15")
def test_bad_images_are_skipped_counted_and_named(root: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The good ones, CMYK among them, keep their order, and every opening gives the same ids."""
    pictures.flat(root, 100)
    Image.new("CMYK", (9, 6), (0, 255, 255, 0)).save(root / "cmyk.jpg", quality=95)
    expected = damage(root)
    samples = folder(root, cache, bad_limit=0.07).open("train")
    assert len(samples) == 101
    ids = torch.arange(101)
    batch = samples.read(ids)
    assert (batch.x[:100, 0, 0, 0] * 255).round().int().tolist() == list(range(100))
    assert torch.allclose(batch.x[100].mean((1, 2)), torch.tensor([1.0, 0, 0]), atol=0.05)
    assert "Skipped 7 unreadable of 108 images (bomb.png: 12000x12000 pixels" in capsys.readouterr().err
    index = json.loads((entries(cache)[0] / "index.json").read_text(encoding="utf-8"))
    assert [name for name, _ in index["skipped"]] == sorted(expected)
    for name, why in index["skipped"]:
        assert expected[name] in why
    assert len(index["names"]) == 101
    again = folder(root, cache, bad_limit=0.07).open("train").read(ids)
    assert torch.equal(again.x, batch.x)
    assert "Skipped 7 unreadable of 108 images" in capsys.readouterr().err


@pytest.mark.fault("T15")
def test_too_many_bad_images_stop(root: Path, cache: Path) -> None:
    """Above the limit nothing is kept, whether they were decoded before or not."""
    pictures.flat(root, 100)
    damage(root)
    strict, loose = folder(root, cache), folder(root, cache, bad_limit=0.07)
    with pytest.raises(
        ValueError, match=r"got 6 .* of 107 .*bomb.png: .*; empty.png, text.jpg: not an image.*at most 5$"
    ):
        strict.open("train")
    assert entries(cache) == []
    loose.open("train")
    with pytest.raises(ValueError, match=r"got 7 unreadable among 107 images"):
        strict.open("train")


def test_no_bad_image_is_allowed_where_none_is(root: Path, cache: Path) -> None:
    pictures.flat(root, 3)
    (root / "z.png").write_bytes(b"")
    assert len(folder(root, cache).open("train")) == 3
    with pytest.raises(ValueError, match=r"got 1 unreadable .* expected at most 0"):
        folder(root, cache, bad_limit=0).open("train")


def test_a_class_without_a_readable_image_is_named(root: Path, cache: Path) -> None:
    pictures.by_class(root, ("a", "c"), 3)
    (root / "b").mkdir()
    (root / "b" / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no readable image of the class b"):
        folder(root, cache).open("train")
    for file in root.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="unreadable among"):
        folder(root, cache).open("train")
    for file in sorted(root.rglob("*.png"))[2:]:
        file.unlink()
    for name in ("b", "c"):
        for file in (root / name).iterdir():
            file.unlink()
        (root / name).rmdir()
    with pytest.raises(ValueError, match="no readable one among 2 images"):
        folder(root, cache).open("train")


def test_images_are_decoded_once(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.flat(root, 5)
    folder(root, cache).open("train")
    samples = folder(root, cache, held_out=0.5, flip=True, bad_limit=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", None)
        opened = samples.open("train")
        samples.open("held_out")
    assert isinstance(opened.samples.x, np.memmap)  # pyright: ignore[reportAttributeAccessIssue]
    assert len(entries(cache)) == 1


def test_a_change_of_files_or_of_decoding_decodes_anew(root: Path, cache: Path) -> None:
    pictures.flat(root, 3)

    def now(**fields: Any) -> list[int]:
        samples = folder(root, cache, **fields).open("train")
        return (samples.read(torch.arange(len(samples))).x[:, 0, 0, 0] * 255).round().int().tolist()

    assert now() == [0, 1, 2]
    os.utime(root / "001.png", ns=(0, 0))
    assert now() == [0, 1, 2]
    (root / "001.png").rename(root / "009.png")
    assert now() == [0, 2, 1]
    (root / "002.png").rename(root / "003.png")  # in the same place, but perhaps in the other part
    assert now() == [0, 2, 1]
    pictures.write(root / "000.png", pictures.noise(77))
    assert now() == [77, 2, 1]
    for fields in ({"channels": 1}, {"size": (4, 4)}, {"fit": Pad()}, {"fit": Pad(level=0.5)}):
        now(**fields)
    assert len(entries(cache)) == 9


def test_a_copy_of_the_folder_uses_the_same_cache(root: Path, cache: Path, tmp_path: Path) -> None:
    pictures.flat(root, 3)
    folder(root, cache).open("train")
    folder(root.rename(tmp_path / "moved"), cache).open("train")
    assert len(entries(cache)) == 1


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("pixels.npy", lambda data: data[:-20]),
        ("index.json", lambda data: data[:-20]),
        ("index.json", lambda data: data.replace(b'"000.png",', b"")),
        ("index.json", lambda data: data.replace(b'"schema": 2', b'"schema": 0')),
        ("index.json", lambda data: b"[]"),
    ],
)
def test_a_damaged_cache_is_made_anew(root: Path, cache: Path, name: str, damage: Any) -> None:
    pictures.flat(root, 5)
    good = folder(root, cache).open("train").read(torch.arange(5)).x
    file = entries(cache)[0] / name
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    assert torch.equal(folder(root, cache).open("train").read(torch.arange(5)).x, good)
    assert file.read_bytes() == whole


def test_a_stop_in_the_middle_leaves_nothing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.flat(root, 5)
    decode = module.decode

    def stopped(source: Path, *rest: Any) -> Any:
        if source.name == "003.png":
            raise KeyboardInterrupt
        return decode(source, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", stopped)
        with pytest.raises(KeyboardInterrupt):
            folder(root, cache).open("train")
    assert entries(cache) == []


def test_what_killed_processes_left_is_removed_after_a_day(root: Path, cache: Path) -> None:
    pictures.flat(root, 2)
    old, new = cache / "images" / ".old", cache / "images" / ".new"
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "pixels.npy").write_bytes(b"")
    for file in (old / "pixels.npy", old):
        os.utime(file, (0, time.time() - 2 * STALE_SECONDS))
    os.utime(new, (0, 0))  # still written to
    folder(root, cache).open("train")
    assert not old.exists()
    assert new.exists()


def test_what_has_long_been_of_no_use_is_removed_when_other_images_come(root: Path, cache: Path) -> None:
    """Opening is use; what else lies there is nobody's to remove."""
    pictures.flat(root, 3)
    for size in ((4, 4), (5, 5)):
        folder(root, cache, size=size).open("train")
    (cache / "images" / "mine").mkdir()
    for place in entries(cache):
        for file in [*place.glob("*"), place]:
            os.utime(file, (0, time.time() - 2 * UNUSED_SECONDS))
    folder(root, cache, size=(5, 5)).open("train")
    assert len(entries(cache)) == 3, "nothing came, nothing goes"
    folder(root, cache, size=(6, 6)).open("train")
    shapes = {np.load(place / "pixels.npy").shape[2:] for place in entries(cache) if place.name != "mine"}
    assert shapes == {(5, 5), (6, 6)}
    assert (cache / "images" / "mine").is_dir()


def test_a_cache_without_room_or_right_is_refused(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.flat(root, 2)
    cache.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^data.cache: got .* cannot be written"):
        folder(root, cache).open("train")
    cache.unlink()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 9}))
    with pytest.raises(ValueError, match=r"^data.cache: .* 0.0 GB free, expected 0.0 GB for 2 images"):
        folder(root, cache).open("train")


@pytest.mark.fault("T10")
def test_a_full_disk_is_a_sentence(root: Path, cache: Path) -> None:
    """The limit on a file's size stands for the disk's."""
    pictures.flat(root, 4, (64, 64))
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ValueError, match=r"^data.cache: got .* \(File too large\)"):
            folder(root, cache, size=(64, 64)).open("train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert entries(cache) == []
    assert len(folder(root, cache, size=(64, 64)).open("train")) == 4


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("ANYDIT_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "anydit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "anydit"

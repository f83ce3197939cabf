"""Images of several aspects: which sizes there are, which one an image goes to, what is cut, and what is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anydit.config import from_json, to_json
from anydit.data import Aspects, Crop, ImageFolder, Pad, Samples, Sizes, Stretch
from anydit.data.base import Bucketed
from anydit.data.buckets import by_bucket, by_size
from anydit.data.images.aspects import nearest, share_off
from anydit.overrides import overridden
from tests.data.images import pictures
from tests.data.images.test_cache import entries

THREE = Sizes(more=((8, 16), (16, 8)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def folder(path: Path, **fields: Any) -> ImageFolder:
    return ImageFolder(**{"path": path, "size": (12, 12), "held_out": 0.0, "buckets": THREE} | fields)


def mixed(root: Path, n: int = 30) -> None:
    """Image i has the seed i, is in class a or b, and 12x12, 8x16 or 16x8 in turn."""
    for i in range(n):
        size = ((12, 12), (8, 16), (16, 8))[i % 3]
        pictures.write(root / "ab"[i % 2] / f"{i:03d}.png", pictures.noise(i, size))


def seeds(samples: Samples) -> list[int]:
    """The seed in the first pixel of each, by id."""
    out = [0] * len(samples)
    for ids in by_bucket(samples, torch.arange(len(samples)), 7):
        for i, value in zip(ids.tolist(), (samples.read(ids).x[:, 0, 0, 0] * 255).round().int().tolist(), strict=True):
            out[i] = value
    return out


def test_sizes_of_several_aspects_have_about_as_many_pixels() -> None:
    sizes = Aspects(count=5, widest=2.0, multiple=8).of((64, 64))
    assert len(sizes) == 5
    for high, wide in sizes:
        assert high % 8 == wide % 8 == 0
        assert 0.85 < high * wide / 64**2 < 1.15
    assert sizes[0][1] > sizes[0][0] and sizes[-1][0] > sizes[-1][1], "from the widest to the highest"
    assert (64, 64) in sizes and sizes[::-1] == tuple((wide, high) for high, wide in sizes)


@given(st.integers(2, 9), st.floats(1.2, 4), st.sampled_from([4, 8]), st.integers(64, 512), st.integers(64, 512))
def test_no_image_within_the_widest_is_far_from_all(count: int, widest: float, multiple: int, high: int, wide: int):
    sizes = Aspects(count=count, widest=widest, multiple=multiple).of((high, wide))
    aspects = [h / w for h, w in sizes]
    assert aspects == sorted(aspects) and len(set(sizes)) == len(sizes)
    step = widest ** (1 / (count - 1))
    rounding = 1 + multiple / min(min(size) for size in sizes)
    for aspect in (1 / widest, 1 / step, 1.0, step, widest):
        image = (round(10_000 * aspect), 10_000)
        off = share_off(image, sizes[nearest(image, sizes)])
        assert off <= 1 - 1 / (step * rounding**2) + 1e-3


@pytest.mark.parametrize(
    ("image", "size", "off"), [((10, 10), (20, 20), 0), ((10, 20), (10, 10), 0.5), ((30, 10), (20, 10), 1 / 3)]
)
def test_how_far_an_aspect_is_off(image: tuple[int, int], size: tuple[int, int], off: float) -> None:
    assert share_off(image, size) == pytest.approx(off)
    assert share_off(image[::-1], size[::-1]) == pytest.approx(off)


def test_an_image_goes_to_the_nearest_aspect_whatever_its_size() -> None:
    sizes = THREE.of((12, 12))
    images = [(500, 500), (300, 700), (70, 30), (12, 17), (12, 16)]
    assert [nearest(image, sizes) for image in images] == [0, 1, 2, 1, 0]


def test_images_keep_their_aspects_and_what_is_known_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mixed(tmp_path)
    samples = folder(tmp_path).open("train")
    assert isinstance(samples, Bucketed) and len(samples) == 30
    assert sorted(samples.sizes) == [(8, 16), (12, 12), (16, 8)]
    said = "30 images in 3 sizes: 10 of 12x12, 10 of 8x16, 10 of 16x8; at most 0% of an image's area is cut."
    assert capsys.readouterr().err.strip() == said
    found = seeds(samples)
    assert sorted(found) == list(range(30))
    for ids in by_bucket(samples, torch.arange(30), 4):
        batch = samples.read(ids)
        for x, label, i in zip(batch.x, batch.cond["label"].tolist(), ids.tolist(), strict=True):  # type: ignore[union-attr]
            seed = found[i]
            size = ((12, 12), (8, 16), (16, 8))[seed % 3]
            assert label == seed % 2
            assert np.array_equal((x * 255).round().byte().permute(1, 2, 0).numpy(), pictures.noise(seed, size))


def test_parts_and_mirrored_images_of_several_sizes(tmp_path: Path) -> None:
    mixed(tmp_path, 90)
    train, held = (seeds(folder(tmp_path, held_out=0.4).open(part)) for part in ("train", "held_out"))
    assert sorted(train + held) == list(range(90)) and len(held) > 20
    mirrored = folder(tmp_path, held_out=0.4, flip=True).open("train")
    assert len(mirrored) == 2 * len(train) and len(by_size(mirrored)) == 3
    for part in by_size(mirrored):
        half = len(part) // 2
        assert torch.equal(part.read(torch.tensor([half])).x, part.read(torch.tensor([0])).x.flip(-1))
    assert held == seeds(folder(tmp_path, held_out=0.4, flip=True).open("held_out"))


def test_how_much_is_cut_is_bounded_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(tmp_path)
    pictures.write(tmp_path / "a" / "wide.png", pictures.noise(30, (30, 66)))  # 2.2 where 2 is the nearest
    pictures.write(tmp_path / "a" / "zz.png", pictures.noise(31, (10, 60)))  # a third of its area is left of it
    for fit, said in (
        (Crop(), "at most 9% of an image's area is cut"),
        (Pad(), "at most 9% of a sample is bars"),
        (Stretch(), "an image is stretched to at most 1.10 times its aspect"),
    ):
        samples = folder(tmp_path, fit=fit).open("train")
        assert len(samples) == 31
        told = capsys.readouterr().err
        assert said in told and "31 images in 3 sizes: 10 of 12x12, 11 of 8x16, 10 of 16x8" in told
        assert (
            "Skipped 1 unreadable of 32 images (a/zz.png: 60x10 pixels, of whose area 67% is too much for the " in told
        )
    with pytest.raises(ValueError, match=r"data\.bad_limit: got 1 unreadable .*a/zz\.png: 60x10 pixels"):
        folder(tmp_path, bad_limit=0).open("train")
    assert len(folder(tmp_path, buckets=Sizes(THREE.more, at_most=0.7)).open("train")) == 32


def test_an_image_turned_by_its_camera_goes_by_how_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(3):
        Image.fromarray(pictures.noise(i, (8, 16))).save(tmp_path / f"{i}.png", exif=exif)
    assert folder(tmp_path).open("train").facts.size == (16, 8)


def test_one_size_alone_is_data_of_one_size(tmp_path: Path) -> None:
    pictures.flat(tmp_path, 4, (8, 16))
    samples = folder(tmp_path).open("train")
    assert not isinstance(samples, Bucketed) and samples.facts.size == (8, 16)
    assert seeds(samples) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["pixels.npy", "1-pixels.npy", "index.json"])
def test_a_damaged_cache_of_several_sizes_is_made_anew(tmp_path: Path, name: str) -> None:
    mixed(tmp_path / "photos")
    data = folder(tmp_path / "photos", cache=tmp_path / "cache")
    good = seeds(data.open("train"))
    (entry,) = entries(tmp_path / "cache")
    assert sorted(file.name for file in entry.iterdir()) == ["1-pixels.npy", "2-pixels.npy", "index.json", "pixels.npy"]
    whole = (entry / name).read_bytes()
    (entry / name).write_bytes(whole[:-9])
    assert seeds(data.open("train")) == good
    assert (entry / name).read_bytes() == whole
    assert json.loads((entry / "index.json").read_text())["which"].count(1) == 10


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Aspects(count=1), r"buckets\.count: got 1"),
        (lambda: Aspects(widest=1.0), r"buckets\.widest: got 1\.0"),
        (lambda: Aspects(multiple=0), r"buckets\.multiple: got 0"),
        (lambda: Aspects(at_most=1.0), r"buckets\.at_most: got 1\.0"),
        (lambda: Sizes(((0, 4),)), r"buckets\.more: got \(\(0, 4\),\)"),
        (
            lambda: ImageFolder(size=(8, 8), buckets=Sizes(((16, 16),))),
            r"buckets\.more: got \(16, 16\) beside \(8, 8\)",
        ),
    ],
)
def test_sizes_that_make_no_sense_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("buckets", [Sizes(), Aspects(multiple=64)], ids=repr)
def test_buckets_that_are_one_size_are_refused(tmp_path: Path, buckets: Any) -> None:
    mixed(tmp_path)
    with pytest.raises(ValueError, match=r"^data\.buckets: got .* which are no more sizes than \("):
        folder(tmp_path, buckets=buckets).open("train")


def test_buckets_are_said_on_the_command_line() -> None:
    words = ["--buckets", "Sizes", "--buckets.more", "8", "16", "16", "8", "--buckets.at-most", "0.4"]
    data = overridden(ImageFolder(size=(12, 12)), words, "test")
    assert data.buckets == Sizes(((8, 16), (16, 8)), at_most=0.4)
    assert from_json(ImageFolder, to_json(data)) == data
    assert overridden(ImageFolder(), ["--buckets", "Aspects", "--buckets.count", "3"], "test").buckets == Aspects(3)

"""Videos of several aspects and lengths: clips are of a video's own size, and a batch is of one."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.config import from_json, to_json
from anydit.data import KNOWN, Data, First, Sizes, VideoFolder
from anydit.data.base import Bucketed, Part, Samples
from anydit.data.buckets import by_bucket, by_size
from anydit.data.loader import order_of, read_ahead
from anydit.data.video.clips import Filmed, Stills
from anydit.overrides import overridden
from tests.data.loading import goes_on
from tests.data.video.films import film, pictures, which

SHAPES = ((16, 16), (16, 32), (32, 16))
THREE = Sizes(more=((8, 16), (16, 8)))


def folder_of(root: Path, count: int = 12) -> Path:
    """Video i is of shape i modulo 3, in class a or b, and lasts 2 s, or 1 s where i is 1 modulo 4."""
    for i in range(count):
        frames = 8 if i % 4 == 1 else 16
        film(root / "ab"[i % 2] / f"{i:02d}.mp4", [Fraction(k, 8) for k in range(frames)], size=SHAPES[i % 3])
    return root


def data_of(path: Path, **changes: Any) -> VideoFolder:
    some = {"seconds": 1.5, "shorter": (1.0,), "size": (8, 8), "channels": 1, "held_out": 0.0, "bad_limit": 0.0,
            "buckets": THREE, "cache": path.parent / "cache"}  # fmt: skip
    return VideoFolder(path=path, **(some | changes))


def refused(data: Data, part: Part = "train") -> str:
    with pytest.raises(ValueError) as error:
        data.open(part)
    return str(error.value)


def sizes_of(samples: Samples, ids: Sequence[int]) -> set[tuple[int, ...]]:
    assert isinstance(samples, Bucketed)
    return {tuple(samples.sizes[k]) for k in samples.buckets[torch.tensor(ids)].tolist()}


def test_clips_have_the_aspect_and_the_length_of_their_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = data_of(folder_of(tmp_path / "in"))
    samples = data.open("train")
    assert isinstance(samples, Bucketed) and len(samples) == 12
    assert set(samples.sizes) == set(data.sizes) == {(n, *size) for n in (12, 8) for size in ((8, 8), (8, 16), (16, 8))}
    assert "; at most 0% of an image's area is cut." in (said := capsys.readouterr().err)
    assert "12 clips of frames x height x width: 12x8x8 (25%), " in said
    seen = list[tuple[int, ...]]()
    for part in by_size(samples):
        batch = part.read(torch.arange(len(part)))
        length = part.facts.size[0]
        for x in batch.x:
            assert which(255 * x[0, :, None].numpy()) == list(range(length)), "from the first frame on, none cut"
        seen += [part.facts.size] * len(part)
        assert batch.tensor("label").shape == (len(part),)
    assert seen.count((8, 8, 8)) + seen.count((8, 8, 16)) + seen.count((8, 16, 8)) == 3
    with pytest.raises(ValueError, match=r"ids: got samples of sizes .* in one batch, expected one size"):
        samples.read(torch.arange(12))


def test_the_loader_never_mixes_and_goes_on_as_it_was(tmp_path: Path):
    samples = data_of(folder_of(tmp_path / "in", 24), held_out=0.2).open("train")
    order = order_of(samples, 4, 0)
    counts = dict.fromkeys(samples.sizes, 0)  # type: ignore[attr-defined]
    batches = read_ahead(samples, order, 0)
    first = [next(batches) for _ in range(20)]
    for step, batch in enumerate(first):
        assert sizes_of(samples, batch.ids.tolist()) == {tuple(batch.x.shape[2:])}
        assert torch.equal(batch.ids, order.ids(step))
        counts[tuple(batch.x.shape[2:])] += 1
    assert all(counts.values())
    batches.close()  # type: ignore[attr-defined]
    goes_on(samples, order_of(samples, 4, 0), 7, first[7:12])


def test_what_is_told_and_stills_of_several_sizes(tmp_path: Path):
    samples = data_of(folder_of(tmp_path / "in"), task=First(3)).open("train")
    assert samples.facts.fields == {KNOWN: 2}
    known, filled = list[torch.Tensor](), list[torch.Tensor]()
    for ids in by_bucket(samples, torch.arange(12), 5):
        batch = samples.read(ids)
        values, flags = batch.tensor(KNOWN).chunk(2, dim=1)
        assert (flags == (torch.arange(batch.x.shape[2]) < 3)[:, None, None]).all()
        known.append(batch.x[:, :, :3].flatten())
        filled.append(values[:, :, 3:].flatten())
    assert torch.allclose(torch.cat(filled), torch.cat(known).mean(), atol=1e-5), "the mean over all sizes"
    for part in by_size(samples):
        assert isinstance(part, Filmed)
        stills = from_json(Stills, to_json(part.stills)).open("train")
        assert stills.facts.size == part.facts.size[1:]
        assert stills.read(torch.arange(len(stills))).x.shape[2:] == part.facts.size[1:]
    other = from_json(Stills, to_json(Stills(data_of(tmp_path / "in"), (9, 9, 9))))
    assert "data.size: got (9, 9, 9), expected that of some videos: 12x8x8 (25%)" in refused(other)
    too_many = data_of(tmp_path / "in", task=First(8))
    assert "data.task.frames: got 8, expected at least 1 and fewer than the 8 of a clip" in refused(too_many)


def test_an_aspect_that_is_too_far_or_changes_is_named(tmp_path: Path):
    root = folder_of(tmp_path / "in", 6)
    film(root / "a" / "wide.mp4", size=(16, 64))
    said = refused(data_of(root))
    assert "a/wide.mp4: 64x16 pixels, of whose area 50% is too much for the nearest size (height 8, width 16)" in said
    assert len(data_of(root, buckets=Sizes(THREE.more, at_most=0.6)).open("train")) == 7
    (root / "a" / "wide.mp4").unlink()
    wide, high = np.full((10, 20), 90, np.uint8), np.full((20, 10), 90, np.uint8)
    images = [Image.fromarray(x) for x in (wide, wide, high, high) * 4]
    folder = pictures(root / "a" / "turns", [], stem="")
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, image in enumerate(images):  # of one size in the files, of which some are turned when they are seen
        lying = image if image.width > image.height else image.transpose(Image.Transpose.ROTATE_90)
        lying.save(folder / f"{i}.jpg", **({"exif": exif} if image is not lying else {}))
    assert "a/turns: frames of different aspects, whose nearest sizes are not the same" in refused(data_of(root))


def test_lengths_alone(tmp_path: Path):
    root = tmp_path / "in"
    for i, frames in enumerate((8, 16, 20, 6)):
        film(root / f"{i}.mp4", [Fraction(k, 8) for k in range(frames)])
    data = data_of(root, buckets=None, seconds=2.0, shorter=(1.0, 0.5), bad_limit=0.01)
    assert data.sizes == [(16, 8, 8), (8, 8, 8), (4, 8, 8)]
    found = {part.facts.size: len(part) for part in by_size(data.open("train"))}
    assert found == {(16, 8, 8): 2, (8, 8, 8): 1, (4, 8, 8): 1}
    often = {part.facts.size: len(part) for part in by_size(data_of(
        root, buckets=None, seconds=2.0, shorter=(1.0, 0.5), stride=0.25).open("train"))}  # fmt: skip
    assert often == {(16, 8, 8): 1 + 3, (8, 8, 8): 1, (4, 8, 8): 2}
    one = data_of(root, buckets=None, seconds=2.0, shorter=(1.0,), bad_limit=0.01)
    assert "3.mp4: too short: 0.75 s, expected at least data.shorter 1" in refused(
        data_of(root, buckets=None, seconds=2.0, shorter=(1.0,), bad_limit=0.0)
    )
    assert len(one.open("train")) == 3


def test_sizes_that_make_no_sense_are_refused(tmp_path: Path):
    for shorter in ((2.0,), (1.0, 1.0), (0.0,), (-1.0,), (0.5, 1.0)):
        with pytest.raises(ValueError, match=r"shorter: got .*, expected each below the one before, seconds 2"):
            VideoFolder(shorter=shorter)
    with pytest.raises(ValueError, match=r"shorter: got 1\.3 s at 8 frames per second, expected .* as 1\.25"):
        VideoFolder(shorter=(1.3,))
    with pytest.raises(ValueError, match=r"buckets\.more: got \(16, 16\) beside \(8, 8\)"):
        data_of(tmp_path, buckets=Sizes(((16, 16),)))
    folder_of(tmp_path / "in", 3)
    assert "data.buckets: got " in refused(data_of(tmp_path / "in", buckets=Sizes()))
    words = ["--buckets", "Sizes", "--buckets.more", "8", "16", "--shorter", "1", "0.5"]
    data = overridden(VideoFolder(size=(12, 12)), words, "test")
    assert data.buckets == Sizes(((8, 16),)) and data.shorter == (1.0, 0.5)

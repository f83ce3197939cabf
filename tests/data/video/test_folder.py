"""Folders of videos: classes, captions, clips, held-out videos, what is skipped, and rates that are kept."""

import os
import shutil
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from anydit.codecs import Normalize
from anydit.config import from_json, to_json
from anydit.data import KNOWN, Crop, Data, First, Pad, Part, Samples, VideoFolder, Videos
from anydit.data.kept import INDEX, UNUSED_SECONDS
from anydit.data.outside import OPEN
from anydit.data.video import files
from anydit.data.video.clips import Filmed, Stills
from anydit.data.video.files import FRAMES, mapped
from anydit.inference.config import PipelineConfig, exported
from anydit.model.conditioning import Field
from anydit.model.dit import DiTConfig
from anydit.train.recipe import Recipe
from anydit.train.resolve import resolved
from tests.data.video.films import film, pictures, which


def folder_of(root: Path, count: int = 4, frames: int = 16) -> Path:
    for i in range(count):
        film(root / f"{i}.mp4", [Fraction(k, 8) for k in range(frames)])
    return root


def data_of(path: Path, **changes: Any) -> VideoFolder:
    some = {"seconds": 1.0, "size": (8, 8), "channels": 1, "held_out": 0.0, "cache": path.parent / "cache"}
    return VideoFolder(path=path, **(some | changes))


def frames(samples: Samples, *ids: int) -> list[list[int]]:
    """Which frames each clip has."""
    return [which(255 * one[0, :, None].numpy()) for one in samples.read(torch.tensor(ids)).x]


def refused(data: Data, part: Part = "train") -> str:
    with pytest.raises(ValueError) as error:
        data.open(part)
    return str(error.value)


def test_clips_follow_each_other_and_are_of_whole_videos_only(tmp_path: Path):
    data = data_of(folder_of(tmp_path / "in", 2, frames=20))
    samples = data.open("train")
    assert (len(samples), samples.facts.size, samples.facts.channels) == (4, (8, 8, 8), 1)
    batch = samples.read(torch.tensor([3, 0]))
    assert batch.x.dtype == torch.float32
    assert batch.x.shape == (2, 1, 8, 8, 8)
    assert 0 <= float(batch.x.min()) < float(batch.x.max()) <= 1
    assert not batch.cond
    assert frames(samples, 0, 1, 2) == [list(range(8)), list(range(8, 16)), list(range(8))]
    often = replace(data, stride=0.25).open("train")
    assert len(often) == 2 * 7
    assert frames(often, 1, 6) == [list(range(2, 10)), list(range(12, 20))]
    assert frames(replace(data, rate=4.0).open("train"), 0) == [[0, 2, 4, 6]]
    assert data.sizes == [(8, 8, 8)]


def test_classes_are_folders_of_files_or_of_folders_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "in"
    film(root / "walk" / "a.mp4")
    film(root / "walk" / "deeper" / "b.webm")
    pictures(root / "run" / "c", range(16))
    film(root / ".hidden" / "d.mp4")
    (root / "walk" / "cover.jpg").write_bytes(b"")
    (root / "jump").mkdir()
    samples = data_of(root).open("train")
    assert "Passed over folders without videos: jump." in capsys.readouterr().err
    assert samples.facts.classes == {"label": ("run", "walk")}
    assert samples.read(torch.arange(6)).tensor("label").tolist() == [0, 0, 1, 1, 1, 1]
    assert frames(samples, 1, 3, 5) == [list(range(8, 16))] * 3
    flat = pictures(tmp_path / "flat" / "c", range(16)).parent
    film(flat / "d.mp4")
    assert len(data_of(flat).open("train")) == 4
    assert not data_of(flat).open("train").facts.classes
    film(root / "alone.mp4")
    assert "with 1 videos of its own, as alone.mp4, beside folders of them, run, walk" in refused(data_of(root))


def test_parts_of_a_data_set_are_no_classes(tmp_path: Path):
    for name in ("train", "Test"):
        film(tmp_path / name / "walk" / "a.mp4")
    assert "the folders Test, train, which are parts, not classes" in refused(data_of(tmp_path))
    assert data_of(tmp_path / "train").open("train").facts.classes == {"label": ("walk",)}


def test_what_is_passed_over_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder_of(tmp_path / "in", 2)
    (root / "notes.pdf").write_bytes(b"")
    (root / ".DS_Store").write_bytes(b"")
    data_of(root).open("train")
    assert capsys.readouterr().err.endswith("Passed over 1 files that are not named like videos.\n")
    (root / "notes" / "deeper").mkdir(parents=True)
    data_of(root).open("train")
    assert "Passed over folders without videos: notes.\n" in capsys.readouterr().err
    data_of(root, held_out=0.9).open("held_out")
    assert not capsys.readouterr().err, "said once"


def test_a_folder_of_pictures_that_cannot_be_listed_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name in "abc":
        pictures(tmp_path / "in" / "x" / name, range(16))
    listed = files._parts

    def refusing(path: Path) -> list[Path]:
        if path.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(files, "_parts", refusing)
    assert len(data_of(tmp_path / "in", pictures_rate=8.0, bad_limit=0.5).open("train")) == 4
    assert "Skipped 1 unreadable of 3 videos (x/b: Permission denied)" in capsys.readouterr().err


def test_videos_that_cannot_be_used_are_named_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder_of(tmp_path / "in")
    film(root / "short.mp4", [Fraction(k, 8) for k in range(6)])
    (root / "broken.mp4").write_bytes(b"no video")
    samples = data_of(root).open("train")
    assert len(samples) == 8
    said = capsys.readouterr().err
    assert "Skipped 2 unreadable of 6 videos" in said
    assert "short.mp4: too short: 0.75 s, expected at least data.seconds 1" in said
    assert "broken.mp4: damaged, or not what its name says" in said
    assert "got 2 unreadable among 6 videos" in refused(data_of(root, bad_limit=0.0))
    for name in ("0", "1", "2", "3", "short"):
        (root / f"{name}.mp4").unlink()
    assert "got no readable one among 1 videos (broken.mp4" in refused(data_of(root))


def test_held_out_videos_are_chosen_by_name(tmp_path: Path):
    root = folder_of(tmp_path / "in", 12)
    data = data_of(root, held_out=0.4)
    parts = {part: data.open(part) for part in ("train", "held_out")}
    names = {part: {clip.file for clip in samples.clips} for part, samples in parts.items()}  # type: ignore[attr-defined]
    assert not names["train"] & names["held_out"]
    assert len(names["train"] | names["held_out"]) == 12
    film(root / "another.mp4")
    assert names["held_out"] <= {clip.file for clip in data.open("held_out").clips}  # type: ignore[attr-defined]
    assert "which leaves none of 13 videos in the part held_out" in refused(data_of(root), "held_out")


def test_captions_stand_beside_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder_of(tmp_path / "in", 3)
    pictures(root / "3", range(16))
    for i in range(4):
        (root / f"{i}.txt").write_text(f"video\n number {i}\n", encoding="utf-8")
    assert not data_of(root).open("train").facts.texts
    data = data_of(root, captions=True)
    samples = data.open("train")
    assert samples.facts.texts == ("text",)
    assert samples.read(torch.tensor([2, 6])).texts == {"text": ["video number 1", "video number 3"]}
    (root / "0.txt").unlink()
    (root / "1.txt").write_bytes(b"\xff\xfe")
    (root / "2.txt").write_text(" \n")
    assert len(data.open("train")) == 2
    said = capsys.readouterr().err
    for why in ("0.mp4: no 0.txt beside it", "1.mp4: 1.txt is no text in UTF-8", "2.mp4: 2.txt is empty"):
        assert why in said


def test_the_first_frames_are_told(tmp_path: Path):
    data = data_of(folder_of(tmp_path / "in"), task=First(3), held_out=0.5)
    samples = data.open("held_out")
    assert samples.facts.fields == {KNOWN: 2}
    batch = samples.read(torch.tensor([0, 1]))
    values, flags = batch.tensor(KNOWN).chunk(2, dim=1)
    assert torch.equal(values[:, :, :3], batch.x[:, :, :3])
    assert (flags == (torch.arange(8) < 3)[:, None, None]).all()
    known = data.open("train").read(torch.arange(len(data.open("train")))).x[:, :, :3]
    assert torch.allclose(values[:, :, 3:], known.mean()), "what is not known is at the mean of what is"
    assert "data.task.frames: got 8, expected at least 1 and fewer than the 8" in refused(replace(data, task=First(8)))


def recipe_of(data: VideoFolder, view: Videos | None = None) -> Recipe:
    model = DiTConfig(width=16, depth=1, heads=2, patch=(2, 2, 2), conditions={KNOWN: Field()})
    return Recipe(model=model, codec=Normalize.to_unit(0, 1), view=view or Videos(), data=data)


@pytest.mark.parametrize("rate", [Fraction(8), Fraction(25, 2), Fraction(30_000, 1001)])
def test_the_rate_is_kept_from_the_files_that_are_read_to_those_that_are_written(tmp_path: Path, rate: Fraction):
    film(tmp_path / "in" / "a.mp4", [k / rate for k in range(16)], rate=rate)
    data = data_of(tmp_path / "in", rate=None, seconds=float(8 / rate))
    assert data.sizes == []
    samples = data.open("train")
    saved = from_json(PipelineConfig, exported(resolved(recipe_of(data), samples, lambda _: None)))
    (tmp_path / "out").mkdir()
    path, _ = saved.view.write(samples.read(torch.tensor([0, 1])).x, tmp_path / "out")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        assert (stream.frames, stream.width, stream.height) == (8, 8, 8)
    assert frames(data_of(path.parent, rate=None, seconds=float(8 / rate), cache=tmp_path / "c").open("train"), 0, 1) \
        == [list(range(8)), list(range(8, 16))]  # fmt: skip


def test_few_files_are_open_at_one_time(tmp_path: Path):
    mapped.cache_clear()
    for i in range(OPEN + 50):
        np.save(tmp_path / f"{i}.npy", np.full((1, 1, 2, 2), i % 256, np.uint8))
    before = len(list(Path("/dev/fd").iterdir()))
    assert all(mapped(tmp_path / f"{i}.npy").max() == i % 256 for i in range(OPEN + 50))
    assert len(list(Path("/dev/fd").iterdir())) <= before + OPEN


def test_rates_of_their_own_must_be_alike(tmp_path: Path):
    film(tmp_path / "in" / "a.mp4")
    film(tmp_path / "in" / "b.mp4", [Fraction(k, 10) for k in range(16)], rate=Fraction(10))
    said = refused(data_of(tmp_path / "in", rate=None))
    assert "videos of different rates, 8 frames per second in a.mp4, 10 in b.mp4" in said
    assert len(data_of(tmp_path / "in").open("train")) == 3


def test_videos_are_decoded_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder_of(tmp_path / "in", 2)
    data = data_of(root)
    before = data.open("train").read(torch.arange(4)).x
    opened = list[str]()
    real = av.open
    monkeypatch.setattr(
        av, "open", lambda path, *rest, **named: opened.append(Path(path).name) or real(path, *rest, **named)
    )
    assert torch.equal(data.open("train").read(torch.arange(4)).x, before)
    replace(data, seconds=0.5, stride=0.125, held_out=0.3, task=First(2)).open("train")
    assert not opened, "none of these changes what is decoded"
    replace(data, fit=Pad()).open("train")
    assert sorted(opened) == ["0.mp4", "1.mp4"]
    film(root / "1.mp4", frames=[np.zeros((16, 16, 3), np.uint8)] * 16)
    opened.clear()
    changed = data.open("train").read(torch.arange(4)).x
    assert opened == ["1.mp4"]
    assert torch.equal(changed[:2], before[:2])
    assert float(changed[2:].max()) < 0.02
    assert not [file for file in (tmp_path / "cache" / "videos").iterdir() if file.name.startswith(".")]


def test_what_is_left_half_done_is_done_anew(tmp_path: Path):
    root = folder_of(tmp_path / "in", 1)
    data = data_of(root)
    before = data.open("train").read(torch.tensor([0])).x
    (about,) = (tmp_path / "cache" / "videos").glob(f"*/{INDEX}")
    about.unlink()
    about.with_name(FRAMES).write_bytes(b"half")
    mapped.cache_clear()
    assert torch.equal(data.open("train").read(torch.tensor([0])).x, before)


def test_videos_that_nobody_has_looked_at_for_long_are_removed_when_others_come(tmp_path: Path):
    root, data = folder_of(tmp_path / "in", 2), data_of(tmp_path / "in")
    before = data.open("train").read(torch.arange(4)).x
    kept = {folder.name for folder in (tmp_path / "cache" / "videos").iterdir()}
    assert len(kept) == 2

    def age() -> None:
        for path in [*(tmp_path / "cache" / "videos").rglob("*")]:
            os.utime(path, (time.time() - UNUSED_SECONDS - 60,) * 2)

    age()
    data.open("train")  # it is of use
    replace(data, fit=Pad()).open("train")
    assert kept < {folder.name for folder in (tmp_path / "cache" / "videos").iterdir()}
    age()
    film(root / "2.mp4")
    assert torch.equal(data.open("train").read(torch.arange(4)).x, before)
    now = {folder.name for folder in (tmp_path / "cache" / "videos").iterdir()}
    assert kept < now and len(now) == 3


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder_of(tmp_path / "in", 1)
    (tmp_path / "file").write_text("")
    assert "data.cache: got" in refused(data_of(root, cache=tmp_path / "file"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    assert "cannot be written (no room for 0.mp4)" in refused(data_of(root))


def test_single_frames_have_their_video_s_label(tmp_path: Path):
    film(tmp_path / "in" / "a" / "0.mp4")
    film(tmp_path / "in" / "b" / "1.mp4")
    samples = data_of(tmp_path / "in", task=First(2)).open("train")
    assert isinstance(samples, Filmed)
    stills = from_json(Stills, to_json(samples.stills)).open("train")
    assert stills.facts.size == (8, 8)
    batch = stills.read(torch.arange(len(stills)))
    assert batch.tensor("label").tolist() == [0] * 8 + [1] * 8
    assert len(set(which(255 * batch.x.numpy()))) > 4, "different frames"
    clips = samples.read(torch.arange(len(stills)) // 4).x
    assert (clips == batch.x[:, :, None]).flatten(3).all(3).any(2).all()


def test_values_that_no_folder_has_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"seconds: got 1.3 s at 8 frames per second, expected .* as 1.25"):
        VideoFolder(seconds=1.3)
    with pytest.raises(ValueError, match=r"stride: got 0.1 s at 8 frames per second"):
        VideoFolder(stride=0.1)
    with pytest.raises(ValueError, match=r"rate: got 0\.0, expected a finite number above 0"):
        VideoFolder(rate=0.0)
    with pytest.raises(ValueError, match=r"size: got \(0, 8\)"):
        VideoFolder(size=(0, 8))
    assert "which is not a folder" in refused(data_of(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert "without videos, expected files named .mp4" in refused(data_of(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"size: got \(8, 8, 8\), expected multiples of patch \(2, 3, 3\)"):
        recipe = recipe_of(data_of(tmp_path))
        replace(recipe, model=replace(recipe.model, patch=(2, 3, 3)))


def test_other_shapes_are_brought_to_the_size(tmp_path: Path):
    x = np.full((16, 32, 3), 200, np.uint8)
    x[:, :8] = x[:, 24:] = 0
    film(tmp_path / "in" / "a.mp4", frames=[x] * 16, size=(16, 32))
    cropped = data_of(tmp_path / "in", fit=Crop()).open("train").read(torch.tensor([0])).x
    assert float(cropped[..., 1:-1].min()) > 0.7
    padded = data_of(tmp_path / "in", fit=Pad()).open("train").read(torch.tensor([0])).x
    assert float(padded[:, :, :, :2].max()) < 0.05


def test_what_is_cut_repeated_and_left_over_of_videos_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder_of(tmp_path / "in", 3)
    data = data_of(root)
    data.open("train")
    assert not capsys.readouterr().err.strip(), "all have the aspect and the rate asked for, and are full of clips"
    film(root / "3.mp4", [Fraction(k, 16) for k in range(16)], rate=Fraction(16))
    film(root / "4.mp4", [Fraction(k, 4) for k in range(8)], rate=Fraction(4), size=(16, 24))
    film(root / "5.mp4", [Fraction(k, 8) for k in range(21)])
    film(root / "6.mp4", [Fraction(k, 8) for k in range(17)])
    replace(data, held_out=0.5).open("held_out")
    assert not capsys.readouterr().err.strip()
    data.open("train")
    assert capsys.readouterr().err.strip().splitlines() == [
        "1 of 7 videos have another aspect than 8x8: at most 33% of an image's area is cut (--data.fit Crop); "
        "--data.buckets Aspects has several sizes.",
        "2 of 7 videos have another rate than 8 frames per second (--data.rate): of their frames 8 are left out, "
        "8 repeated.",
        "0.6 s at the ends of 1 of 7 videos fill no clip; a shorter --data.stride leaves less.",
    ], "a single frame more than clips have is rounding"


def test_what_a_stride_skips_between_clips_is_no_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = data_of(folder_of(tmp_path / "in", 1, frames=24), seconds=0.5)
    for stride in (1.5, 1.25, 1.0, 0.75, 0.625, 0.5):
        replace(data, stride=stride).open("train")
        assert not capsys.readouterr().err.strip(), stride
    for stride, left in ((0.875, "0.4 s"), (0.375, "0.2 s")):
        replace(data, stride=stride).open("train")
        assert capsys.readouterr().err.strip().startswith(f"{left} at the ends of 1 of 1 videos fill no clip"), stride


def test_a_gif_of_uneven_times_says_what_becomes_of_its_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = [Image.new("L", (8, 8), 20 + 9 * i) for i in range(4)]
    (tmp_path / "in").mkdir()
    images[0].save(tmp_path / "in" / "a.gif", save_all=True, append_images=images[1:], duration=[250, 300, 50, 400])
    data_of(tmp_path / "in").open("train")
    said = "1 of 1 videos have another rate than 8 frames per second (--data.rate): of their frames "
    assert capsys.readouterr().err.strip() == f"{said}1 are left out, 5 repeated."

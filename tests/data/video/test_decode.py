"""Frames by the time at which they are shown, upright and with square pixels; and files that cannot be used."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from anydit.data.images.decode import Crop, Fit, Stretch, Target
from anydit.data.outside import Unreadable
from anydit.data.video import decode as module
from anydit.data.video.decode import Decoding, in_order, is_picture, is_video
from tests.data.video.films import film, grey, pictures, which


def read(
    path: Path,
    rate: float | None = None,
    size: tuple[int, int] = (8, 8),
    channels: int = 1,
    fit: Fit = Stretch(),  # noqa: B008
    shown: float | None = None,
) -> np.ndarray:
    with Decoding(Target([size], channels, fit), rate, shown).opened(path) as opened:
        return np.stack([frame.pixels for frame in opened.picked()])


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(Unreadable) as error:
        read(path, **how)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_at_its_own_rate_every_frame_comes_once(tmp_path: Path, suffix: str):
    for rate in (Fraction(8), Fraction(30), Fraction(30_000, 1001), Fraction(24_000, 1001)):
        path = film(tmp_path / f"{float(rate):.0f}{suffix}", [i / rate for i in range(20)], rate=rate)
        assert which(read(path, float(rate))) == list(range(20)), rate


def test_frames_are_those_that_are_shown_at_each_moment(tmp_path: Path):
    """Frames that are shown for different times: by index alone, most would be others."""
    starts = [0, 0.1, 0.15, 0.6, 0.65, 1.2, 1.5]
    path = film(tmp_path / "a.mp4", [Fraction(str(t)) for t in starts])
    for rate in (2, 5, 8, 24):
        got = which(read(path, rate))
        moments = np.arange(len(got)) / rate
        assert got == [max(i for i, start in enumerate(starts) if start <= t + 1e-9) for t in moments], rate
        assert len(got) == np.ceil(1.625 * rate), "as long as the video is"


def test_h264_in_avi_whose_frames_come_in_another_order_than_they_are_shown(tmp_path: Path):
    """Each frame is brighter than the one before."""
    path, rng = tmp_path / "a.avi", np.random.default_rng(0)
    base = rng.integers(0, 60, (64, 64, 3))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"bf": "3", "preset": "slow"}
        for i in range(40):
            values = (np.roll(base, 3 * i, 1) + 4 * i).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path), format="avi") as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times != sorted(times), "else this shows nothing"
    got = read(path).mean((1, 2, 3))
    assert len(got) == 40 and (np.diff(got) > 2).all()


@pytest.mark.parametrize("rate", [4.0, 2.0, 16.0])
def test_fewer_and_more_frames_than_there_are(tmp_path: Path, rate: float):
    got = which(read(film(tmp_path / "a.webm"), rate))
    assert got == [int(i * 8 / rate) for i in range(int(2 * rate))]


def test_a_gif_has_times_of_its_own_and_white_where_it_is_clear(tmp_path: Path):
    times_ms, images = [200, 50, 50, 300], [Image.new("RGBA", (8, 8), (grey(i),) * 3 + (255,)) for i in range(4)]
    for image in images:
        image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=times_ms, disposal=2)
    got = read(tmp_path / "a.gif", 20)
    assert which(got[:, :, :, 5:]) == [0] * 4 + [1, 2] + [3] * 6
    assert (got[:, :, :, :3] == 255).all()


def test_pictures_in_a_folder_are_shown_at_a_rate(tmp_path: Path):
    folder = pictures(tmp_path / "a", range(8, 20), stem="shot2_")
    assert which(read(folder, 5)) == list(range(12)), "ordered by number: 10 comes after 9"
    assert which(read(folder, 5, shown=10)) == [0, 2, 4, 6, 8, 10]
    assert which(read(folder, shown=10)) == list(range(12))
    with pytest.raises(ValueError, match=r"data.rate: got None for a folder of pictures, a, .*--data.rate"):
        read(folder)


def test_pictures_that_are_no_video_are_refused(tmp_path: Path):
    assert "a picture missing after frame_3.png" in refused(pictures(tmp_path / "gap", (1, 2, 3, 5)), rate=5)
    assert which(read(pictures(tmp_path / "step", (0, 5, 10)), 5)) == [0, 1, 2]
    with pytest.raises(Unreadable, match=r"two pictures of the number 1, one of them 01.png"):
        in_order([Path("01.png"), Path("1.png")])
    with pytest.raises(Unreadable, match=r"without a number in its name, cover\.png"):
        in_order([Path("1.png"), Path("cover.png")])
    folder = pictures(tmp_path / "sizes", (1, 2))
    Image.new("L", (10, 16)).save(folder / "frame_2.png")
    assert "frame_2.png has 10x16 pixels, frame_1.png 16x16" in refused(folder, rate=5)
    (folder / "frame_2.png").write_bytes(b"nothing")
    assert "frame_2.png: not an image" in refused(folder, rate=5)


def matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Say in an MP4 that its picture is to be turned."""
    data = bytearray(path.read_bytes())
    one = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(one, data.index(b"tkhd"))
    data[at : at + len(one)] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def test_a_video_is_upright_and_its_pixels_square(tmp_path: Path):
    x = np.zeros((16, 32, 3), np.uint8)
    x[:8, :16] = 250  # upper left
    path = film(tmp_path / "a.mp4", size=(16, 32), frames=[x] * 16)
    corner = read(path, size=(4, 8))[0, 0]
    assert corner[:2, :4].min() > 200 > 50 > corner[2:].max()
    matrix(path, 0, 1, -1, 0)  # as a phone says that is held upright: a quarter to the right
    turned = read(path, size=(8, 4))[0, 0]
    assert turned[:4, 2:].min() > 200 > 50 > turned[:4, :1].max()
    edge = np.zeros((16, 16, 3), np.uint8)
    edge[:, :3] = 250
    square, wide = (
        read(film(tmp_path / f"{name}.mp4", frames=[edge] * 16, aspect=aspect), size=(16, 16), fit=Crop())[0, 0]
        for name, aspect in (("square", None), ("wide", Fraction(2)))
    )
    assert square[:, :2].min() > 200
    assert wide.max() < 50, "it is 32x16, and its sides are cut off"


def test_colours_come_back(tmp_path: Path):
    x = np.zeros((16, 16, 3), np.uint8) + np.array([200, 90, 30], np.uint8)
    got = read(film(tmp_path / "a.mp4", frames=[x] * 16), channels=3)
    assert np.abs(got[0].mean((1, 2)) - [200, 90, 30]).max() < 3


def test_what_is_damaged_is_named(tmp_path: Path):
    for suffix in (".mp4", ".webm"):
        noise = list(np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8))
        times = [Fraction(i, 8) for i in range(40)]
        data = film(tmp_path / f"whole{suffix}", times, (64, 64), noise).read_bytes()
        (tmp_path / f"half{suffix}").write_bytes(data[: len(data) // 2])
        said = refused(tmp_path / f"half{suffix}")
        assert "damaged" in said or "cut short: it ends after" in said
        (tmp_path / f"none{suffix}").write_bytes(b"no video at all" * 100)
        assert "damaged, or not what its name says" in refused(tmp_path / f"none{suffix}")
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        assert "damaged, or not what its name says" in refused(tmp_path / f"empty{suffix}")


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_what_is_cut_short_is_named_where_there_is_sound_too(tmp_path: Path, suffix: str):
    import av

    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    whole, half = tmp_path / f"whole{suffix}", tmp_path / f"half{suffix}"
    with av.open(str(whole), "w") as container:
        video: Any = container.add_stream("ffv1" if suffix == ".mkv" else "libvpx-vp9", rate=10)
        video.width, video.height = 32, 32
        video.pix_fmt = "bgr0" if suffix == ".mkv" else "yuv420p"
        sound: Any = container.add_stream("libopus", rate=48_000)
        for i, pixels in enumerate(noise):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            for at in range(5):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48_000, 960 * (5 * i + at)
                container.mux(sound.encode(frame))
        container.mux(video.encode())
        container.mux(sound.encode())
    assert len(read(whole)) == 40
    data = whole.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    assert "of 4 s" in refused(half) or "damaged" in refused(half)


def test_what_is_not_there_or_has_no_picture_is_named(tmp_path: Path):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream: Any = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert refused(tmp_path / "sound.mp4") == "no video in it"
    assert "No such file" in refused(tmp_path / "absent.mp4")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {film(tmp_path / 'a.mp4')}\n")
    assert "damaged, or not what its name says" in refused(tmp_path / "list.mp4"), "it may not open other files"


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = film(tmp_path / "a.mp4")
    monkeypatch.setattr(module, "MOST_BYTES", 15 * 64)
    assert "longer than 0 GiB at this size and rate" in refused(path)
    monkeypatch.setattr(module, "MOST_PIXELS", 255)
    assert "16x16 pixels, expected at most" in refused(path)


def test_names():
    assert is_video("a.MP4")
    assert is_video("a.gif")
    assert is_picture("a.PNG")
    assert not is_picture("a.gif")
    assert not is_video(".a.mp4")
    assert not is_picture("a.txt")


def test_without_pyav_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = film(tmp_path / "a.mp4")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'anydit\[video\]'"):
        read(path)

"""Videos as sheets and files: the pixels, the number of frames and the rate that they had."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from anydit.config import from_json, to_json
from anydit.data import GIF, MP4, Facts, Images, Videos
from anydit.data.video.view import STRIP, exact
from tests.data.video.films import film, grey


def waves(channels: int = 3, frames: int = 12, size: tuple[int, int] = (16, 24)) -> Tensor:
    t, y, x = torch.meshgrid(*[torch.arange(n) for n in (frames, *size)], indexing="ij")
    one = 0.5 + 0.4 * torch.sin(x / 9 + y / 7 + t / 3)
    return torch.stack([one * scale for scale in (1.0, 0.9, 0.8)[:channels]])[None].repeat(2, 1, 1, 1, 1)


def read(path: Path) -> tuple[np.ndarray, Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), stream.average_rate


@pytest.mark.parametrize("size", [(16, 24), (15, 24), (16, 25), (9, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_mp4_keeps_pixels_frames_and_rate(tmp_path: Path, size: tuple[int, int], channels: int):
    x = waves(channels, size=size)
    paths = Videos(rate=30_000 / 1001).write(x, tmp_path, "film")
    assert [path.name for path in paths] == ["film-00000.mp4", "film-00001.mp4"]
    frames, rate = read(paths[1])
    assert rate == Fraction(30_000, 1001)
    assert frames.shape == (12, *size, 3), "nothing is cut off"
    expected = (x[1] * 255).permute(1, 2, 3, 0).numpy()
    assert np.abs(frames - expected).mean() < 2.5


def test_colours_are_those_that_any_player_shows(tmp_path: Path):
    x = torch.tensor([0.8, 0.3, 0.1]).reshape(1, 3, 1, 1, 1).expand(1, 3, 4, 16, 16)
    (path,) = Videos(rate=8.0).write(x, tmp_path)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.pix_fmt) == (6, 1, "yuv420p")
    frames, _ = read(path)
    assert np.abs(frames.mean((0, 1, 2)) - np.array([204, 76.5, 25.5])).max() < 3


def test_better_quality_is_nearer(tmp_path: Path):
    x = torch.rand(1, 1, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    errors = []
    for quality in (4, 40):
        (path,) = Videos(rate=8.0, format=MP4(quality)).write(x, tmp_path, f"q{quality}")
        errors.append(np.abs(read(path)[0][..., 0] / 255 - x[0, 0].numpy()).mean())
    assert errors[0] < 0.01 < 0.1 < errors[1]


@pytest.mark.parametrize("rate", [8.0, 12.0, 30.0])
def test_gif_keeps_pixels_and_its_times_add_up(tmp_path: Path, rate: float):
    x = waves(1)
    (path, _) = Videos(rate=rate, format=GIF()).write(x, tmp_path)
    assert path.suffix == ".gif"
    with Image.open(path) as image:
        frames = [(frame.info["duration"], np.asarray(frame.convert("L"))) for frame in ImageSequence.Iterator(image)]
    assert sum(time for time, _ in frames) == pytest.approx(1000 * 12 / rate, abs=5)
    assert np.abs(np.stack([pixels for _, pixels in frames]) / 255 - x[0, 0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_gif_of_a_rate_that_no_player_shows_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="got GIF for 60 frames per second, expected MP4, or 50 at most"):
        Videos(rate=60.0, format=GIF()).write(waves(), tmp_path)


def test_values_beyond_black_and_white_are_clipped(tmp_path: Path):
    x = torch.tensor([-5.0, 30.0]).reshape(1, 1, 1, 1, 2).expand(1, 1, 2, 2, 2)
    assert Videos(high=16).pixels(x)[0, 0, 0, :, 0].tolist() == [0, 255]
    assert Videos(high=16).bounds == (0, 16)


def test_a_sheet_has_a_strip_of_frames_for_each_video():
    levels = torch.arange(20) / 20
    x = levels.reshape(1, 1, 20, 1, 1).expand(2, 1, 20, 48, 60)
    image = Videos().picture(x, ["one", "two"], columns=1)
    assert image.width == STRIP * 61 - 1 + 4
    pixels = np.asarray(image)[:, :, 0]
    shown = np.linspace(0, 19, STRIP).round() / 20 * 255
    assert np.abs(pixels[20, 2 + 30 + 61 * np.arange(STRIP)] - shown).max() <= 1
    assert Videos().picture(x[:, :, :3]).height > 48
    many = Videos().picture(x, columns=20)
    assert many.width == 2 * (3 * 61 - 1 + 2) + 2, "three frames of each, or it would be very wide"
    small = Videos().picture(torch.zeros(1, 3, 4, 12, 12))
    assert small.width == 4 * 49 - 1 + 4, "small ones are enlarged"


def test_what_is_open_is_taken_from_the_data():
    facts = Facts(1, (4, 4, 4), view=Videos(rate=12.5))
    assert Videos(high=2.0).like(facts) == Videos(high=2.0, rate=12.5)
    assert Videos(rate=8.0).like(facts).rate == 8
    view = Videos(rate=8.0, format=GIF())
    assert from_json(Videos, to_json(view)) == view


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"low, high: got 1.0, 0.0"):
        Videos(low=1.0, high=0.0)
    with pytest.raises(ValueError, match="rate: got -1"):
        Videos(rate=-1.0)
    with pytest.raises(ValueError, match="quality: got 52, expected 0 to 51"):
        MP4(52)
    with pytest.raises(ValueError, match="got videos of 2 channels, expected 1 or 3; ArrayView takes any"):
        Videos().picture(torch.zeros(1, 2, 4, 4, 4))
    assert not isinstance(Videos(), Images)


def test_rates_are_those_of_files():
    assert exact(30_000 / 1001) == Fraction(30_000, 1001)
    assert exact(23.976023976) == Fraction(24_000, 1001)
    assert exact(12.5) == Fraction(25, 2)
    assert exact(8) == 8


def test_a_video_of_another_rate_size_and_aspect_is_brought_to_the_datas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = film(tmp_path / "x.mp4", [Fraction(i, 24) for i in range(24)], (32, 48), rate=Fraction(24))
    x, _ = Videos(high=2.0, rate=8.0).read(path, (1, 4, 16, 16))
    assert x.shape == (1, 8, 16, 16), "all of it"
    levels = torch.tensor([grey(3 * i) for i in range(8)]) / 255 * 2
    assert (x.mean((0, 2, 3)) - levels).abs().max() < 0.02
    assert capsys.readouterr().err == "x.mp4 has another aspect than 16x16: at most 33% of an image's area is cut.\n"
    (tmp_path / "y.mp4").write_text("none")
    with pytest.raises(ValueError, match=r"got .*y\.mp4: damaged, or not what its name says"):
        Videos().read(tmp_path / "y.mp4", (1, 4, 16, 16))


def test_a_folder_of_pictures_is_a_video(tmp_path: Path):
    for i in range(3):
        Image.new("L", (8, 8), 60 * i).save(tmp_path / f"{i}.png")
    assert Videos(rate=8.0).read(tmp_path, (1, 4, 8, 8)).x.mean((0, 2, 3)).tolist() == pytest.approx(
        [0, 60 / 255, 120 / 255]
    )

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anydit.data import ArrayView, Images
from anydit.data.sheet import CAPTION_LINES, CAPTION_PX, MARGIN_PX


def image_of(sheet: Image.Image) -> np.ndarray:
    return np.asarray(sheet).astype(int)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 16), (-1, 1), (0, 255)])
def test_pixels_are_rounded_and_clipped(low: float, high: float) -> None:
    unit = torch.tensor([-0.5, 0.0, 0.25, 0.4999, 1.0, 1.7]).reshape(1, 1, 1, 6)
    pixels = Images(low, high).pixels(unit * (high - low) + low)
    assert pixels.dtype == np.uint8
    assert pixels.reshape(-1).tolist() == [0, 0, 64, 127, 255, 255]


def test_a_scale_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="expected low < high"):
        Images(1, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_written_image_reads_back(tmp_path: Path, channels: int) -> None:
    x = torch.randint(0, 256, (2, channels, 5, 7)).float()
    files = Images(0, 255).write(x, tmp_path, "cat")
    assert [file.name for file in files] == ["cat-00000.png", "cat-00001.png"]
    for sample, file in zip(x, files, strict=True):
        read = np.asarray(Image.open(file)).reshape(5, 7, channels)
        assert np.array_equal(read.transpose(2, 0, 1), sample.numpy())


def test_other_channels_and_arrays_are_written_as_npy(tmp_path: Path) -> None:
    x = torch.randn(1, 5, 6, 7, dtype=torch.bfloat16)
    for view, of in ((Images(), x), (ArrayView(), x), (ArrayView(), x[:, :, 0])):
        (file,) = view.write(of, tmp_path)
        assert np.array_equal(np.load(file), of[0].float().numpy())


def tile(sheet: np.ndarray, row: int, column: int, size: tuple[int, int], caption: bool = False) -> np.ndarray:
    top = MARGIN_PX + row * (size[0] + MARGIN_PX + CAPTION_PX * caption)
    left = MARGIN_PX + column * (size[1] + MARGIN_PX)
    return sheet[top : top + size[0], left : left + size[1]]


def test_small_images_are_enlarged_by_whole_pixels_and_lie_in_rows() -> None:
    x = torch.randint(0, 17, (5, 1, 8, 8)).float()
    sheet = image_of(Images(0, 16).picture(x, ["0"] * 5, columns=2))
    assert sheet.shape == (3 * (48 + MARGIN_PX + CAPTION_PX) + MARGIN_PX, 2 * (48 + MARGIN_PX) + MARGIN_PX, 3)
    for i in range(5):
        got = tile(sheet, i // 2, i % 2, (48, 48), caption=True)
        expected = (x[i, 0] / 16 * 255).round().numpy().repeat(6, 0).repeat(6, 1)
        assert (got == expected[..., None]).all()
    assert (tile(sheet, 2, 1, (48, 48), caption=True) == 255).all()


def test_what_is_transparent_is_white_on_a_sheet() -> None:
    x = torch.zeros(1, 4, 60, 60)
    x[:, 3, :, 30:] = 1
    got = tile(image_of(Images().picture(x)), 0, 0, (60, 60))
    assert (got[:, :30] == 255).all()
    assert (got[:, 30:] == 0).all()


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_lie_side_by_side(channels: int) -> None:
    x = torch.rand(1, channels, 50, 60)
    got = tile(image_of(Images().picture(x)), 0, 0, (50, channels * 60))
    expected = np.concatenate([(c * 255).round().numpy() for c in x[0]], axis=1)
    assert (got == expected[..., None]).all()


@pytest.mark.parametrize("size", [(60, 60), (50, 400), (400, 50)])
def test_a_sheet_is_about_square(size: tuple[int, int]) -> None:
    sheet = Images().picture(torch.zeros(40, 1, *size))
    assert 0.4 < sheet.width / sheet.height < 2.5


def ink_below(sheet: Image.Image, height: int) -> np.ndarray:
    """Which columns of the first row of captions have ink."""
    return (image_of(sheet)[MARGIN_PX + height : MARGIN_PX + height + CAPTION_PX] < 128).any(axis=(0, 2))


@pytest.mark.parametrize("captions", [["ankle boot"] * 4, ["a name that no tile has room for, nor two of them"] * 4])
def test_captions_are_whole_or_cut_but_never_run_into_each_other(captions: Sequence[str]) -> None:
    sheet = Images().picture(torch.zeros(4, 1, 48, 48), captions, columns=4)
    ink = ink_below(sheet, 48)
    cell = (sheet.width - MARGIN_PX) // 4
    assert cell <= 2 * 48 + MARGIN_PX
    for i in range(4):
        assert ink[MARGIN_PX + i * cell : (i + 1) * cell].any()
        assert not ink[i * cell : i * cell + MARGIN_PX].any()


def test_a_long_caption_has_several_lines_and_the_next_row_begins_below_them() -> None:
    long = "seven, and to the right of it a three, in grey on black, the one above the other"
    sheet = Images().picture(torch.zeros(4, 1, 48, 48), [long, "a", "b", long], columns=2)
    assert sheet.height == MARGIN_PX + 2 * (48 + MARGIN_PX + CAPTION_LINES * CAPTION_PX)
    left = image_of(sheet)[:, : sheet.width // 2, 0] < 128
    for line in range(CAPTION_LINES):
        top = MARGIN_PX + 48 + line * CAPTION_PX
        assert left[top : top + CAPTION_PX].any(), line
    second = MARGIN_PX + 48 + CAPTION_LINES * CAPTION_PX + MARGIN_PX
    assert left[second : second + 48, MARGIN_PX : MARGIN_PX + 48].all()
    short = Images().picture(torch.zeros(4, 1, 48, 48), ["a", "b", "c", "d"], columns=2)
    assert short.height == MARGIN_PX + 2 * (48 + MARGIN_PX + CAPTION_PX)


def test_captions_that_cannot_be_drawn_are_drawn_as_well_as_may_be() -> None:
    x = torch.zeros(2, 1, 48, 48)
    odd, plain = (Images().picture(x, captions, columns=2) for captions in (["a\n b", "x\udcff"], ["a b", "x?"]))
    assert np.array_equal(image_of(odd), image_of(plain))


def test_an_animation_has_every_frame_and_rests_on_the_last(tmp_path: Path) -> None:
    frames = [torch.full((4, 1, 48, 48), i / 3) for i in range(4)]
    Images().animation(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4
        for i in range(4):
            gif.seek(i)
            assert abs(gif.convert("L").getpixel((10, 10)) - i * 85) <= 2
            assert gif.info["duration"] == (1500 if i == 3 else 80)


def test_arrays_are_shown_on_their_own_scale() -> None:
    x = 1e4 + 50 * torch.rand(1, 1, 3, 50, 60)
    got = tile(image_of(ArrayView().picture(x)), 0, 0, (50, 60))[..., 0]
    middle = x[0, 0, 1]
    assert np.abs(got - ((middle - middle.min()) / (middle.max() - middle.min()) * 255).numpy()).max() <= 1
    fixed = tile(image_of(ArrayView(low=1e4, high=1e4 + 100).picture(x)), 0, 0, (50, 60))
    assert fixed.max() <= 128
    ArrayView().picture(torch.ones(2, 1, 4, 4))  # nothing varies


def test_series_are_curves() -> None:
    rising = torch.linspace(0, 1, 500)
    got = image_of(ArrayView().picture(torch.stack([rising, rising.flip(0)])[:, None], columns=2))[:, :, 0]
    up, down = tile(got, 0, 0, (64, 160)), tile(got, 0, 1, (64, 160))
    assert up[:, 5].argmin() > 55 > 10 > up[:, -5].argmin()
    assert down[:, 5].argmin() < 10 < 55 < down[:, -5].argmin()

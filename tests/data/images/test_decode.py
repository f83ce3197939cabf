import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anydit.data.images.decode import Crop, Fit, Pad, Stretch, Target
from anydit.data.images.decode import decode as decode_any
from anydit.data.outside import Unreadable


def decode(source: Path | bytes, size: tuple[int, int], channels: int, fit: Fit) -> np.ndarray:
    return decode_any(source, Target([size], channels, fit)).pixels


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def plain(source: bytes, channels: int = 3, size: tuple[int, int] = (4, 4)) -> np.ndarray:
    return decode(source, size, channels, Crop())


def bomb(width: int, height: int) -> bytes:
    """A grey PNG of any size, all black: a few bytes hold as many pixels as one likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_of_the_same_size_come_as_they_are(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    if channels == 4:
        pixels[..., 3] = 255 - pixels[..., 3] // 2
    image = Image.fromarray(pixels.squeeze())
    got = decode(file_of(image), (5, 7), channels, Crop())
    assert got.dtype == np.uint8
    assert np.array_equal(got, pixels.transpose(2, 0, 1))


RED = (200, 30, 40)


@pytest.mark.parametrize(
    ("source", "tolerance"),
    [
        (file_of(Image.new("RGB", (9, 6), RED)), 0),
        (file_of(Image.new("RGB", (9, 6), RED).quantize(4)), 0),
        (file_of(Image.new("RGB", (9, 6), RED), "BMP"), 0),
        (file_of(Image.new("RGB", (9, 6), RED), "PPM"), 0),
        (file_of(Image.new("RGB", (9, 6), RED), "WEBP", lossless=True), 0),
        (file_of(Image.new("RGB", (9, 6), RED), "GIF"), 0),
        (file_of(Image.new("RGB", (9, 6), RED), "JPEG", quality=95), 3),
        (file_of(Image.new("RGB", (9, 6), RED).convert("YCbCr"), "TIFF"), 3),
        (file_of(Image.new("CMYK", (9, 6), (*(255 - v for v in RED), 0)), "TIFF"), 0),
        (file_of(Image.new("RGB", (9, 6), RED).convert("CMYK"), "JPEG", quality=95), 8),
        (file_of(Image.new("RGBA", (9, 6), (*RED, 255))), 0),
    ],
    ids=["rgb", "palette", "bmp", "ppm", "webp", "gif", "jpeg", "ycbcr", "cmyk", "cmyk jpeg", "rgba"],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_red_picture_is_red_in_every_mode(source: bytes, tolerance: int, channels: int) -> None:
    grey = round(0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2])
    expected = {1: (grey,), 3: RED, 4: (*RED, 255)}[channels]
    got = plain(source, channels).astype(int)
    assert got.shape == (channels, 4, 4)
    assert np.abs(got - np.array(expected).reshape(-1, 1, 1)).max() <= max(tolerance, channels == 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    for channels in (1, 3):
        got = plain(file_of(Image.fromarray(values), kind), channels)
        assert np.abs(got - values / 257).max() <= 0.5


def test_what_has_no_known_white_is_refused() -> None:
    for values in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)):
        with pytest.raises(Unreadable, match="expected 8 or 16 bits"):
            plain(file_of(Image.fromarray(values), "TIFF"))


def test_what_is_transparent_is_white_without_alpha() -> None:
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert (plain(file_of(half)) == 127).all()
    assert (plain(file_of(clear)) == 255).all()
    assert (plain(file_of(clear), 1) == 255).all()
    assert (plain(file_of(clear), 4)[3] == 0).all()
    assert (plain(file_of(Image.new("LA", (4, 4), (0, 0)))) == 255).all()
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 20, 30])
    assert (plain(file_of(palette, transparency=0)) == 255).all()
    assert (plain(file_of(palette)) == np.array([10, 20, 30]).reshape(3, 1, 1)).all()


def test_a_photo_stands_upright() -> None:
    image = Image.new("RGB", (60, 40), "black")
    image.paste("white", (0, 0, 60, 20))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright is a quarter turn clockwise
    got = plain(file_of(image, "JPEG", exif=exif), size=(60, 40))[0]
    assert got[:, 30:].mean() > 250
    assert got[:, :10].mean() < 5


def halves(width: int, height: int) -> bytes:
    """Red at the left edge, blue at the right, green between."""
    image = Image.new("RGB", (width, height), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, width // 4, height))
    image.paste((0, 0, 255), (width - width // 4, 0, width, height))
    return file_of(image)


def test_fits() -> None:
    source = halves(80, 40)
    crop, pad, stretch = (decode(source, (20, 20), 3, fit) for fit in (Crop(), Pad(level=0.5), Stretch()))
    middle = np.array([0, 255, 0]).reshape(3, 1, 1)
    assert np.abs(crop[..., 2:-2].astype(int) - middle).max() <= 1  # both quarters are cut off
    assert (pad[:, :5] == 128).all()
    assert (pad[:, -5:] == 128).all()
    assert pad[:, 10, 0].tolist() == pad[:, 5, 0].tolist() == [255, 0, 0]
    assert stretch[:, 0, 0].tolist() == [255, 0, 0]
    assert stretch[:, 19, 19].tolist() == [0, 0, 255]
    assert stretch[:, 10, 10].tolist() == [0, 255, 0]


def test_padding_keeps_thin_images_and_is_clear_with_alpha() -> None:
    thin = file_of(Image.new("RGB", (1000, 2), RED))
    got = decode(thin, (8, 8), 4, Pad())
    assert (got[3] == 255).sum() == 8
    assert np.unique(got[:, got[3] == 255], axis=1).T.tolist() == [[*RED, 255]]
    with pytest.raises(ValueError, match="level: got 2"):
        Pad(level=2)


def test_a_large_jpeg_decodes_small_and_looks_the_same() -> None:
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp, (1200, 1600)))
    small = decode(file_of(image, "JPEG", quality=95), (30, 40), 1, Crop()).astype(int)
    exact = decode(file_of(image), (30, 40), 1, Crop()).astype(int)
    assert np.abs(small - exact).max() <= 4


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (b"", "not an image"),
        (b"hello, I am a text\n" * 20, "not an image"),
        (halves(80, 40)[:-40], "truncated|broken"),
        (file_of(Image.effect_noise((64, 64), 50), "JPEG")[:-500], "truncated"),
        (halves(80, 40)[:20], "not an image|[Tt]runcated|broken"),
        (file_of(Image.new("RGB", (1, 1))), "1x1 pixels"),
        (file_of(Image.new("RGB", (500, 1))), "500x1 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "half a header", "one pixel", "a line", "eps"],
)
def test_what_cannot_be_used_says_why(source: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why) as error:
        plain(source)
    assert len(str(error.value)) > 5
    assert "\n" not in str(error.value)


@pytest.mark.fault("T15")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_by_their_header() -> None:
    """140 kB that decode to 144 MB in grey; that its data are damaged must not even be noticed."""
    source = bomb(12_000, 12_000)
    assert len(source) < 200_000
    for damaged in (source, source[:200]):
        with pytest.raises(Unreadable, match="12000x12000 pixels, expected at most 80 million"):
            plain(damaged)
    with pytest.raises(Unreadable, match="exceeds limit"):
        plain(bomb(20_000, 10_000))
    assert (plain(bomb(3000, 2000), 1) == 0).all()


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        decode(tmp_path / "none.png", (4, 4), 3, Crop())

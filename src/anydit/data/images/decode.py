"""One image file, whatever its mode and format, to 8-bit pixels of one size; files from outside are not trusted."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from anydit.config import config
from anydit.data.images.aspects import Buckets, Size, nearest, several, share_off
from anydit.data.outside import Unreadable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What Pillow may read; its other formats are rare, or run programs (EPS)."""

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k",
)  # fmt: skip
"""Names of image files, in lower case."""

MOST_PIXELS = 80_000_000
"""No larger image is decoded: a file of 140 kB can hold 144 million pixels."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""How Pillow names images of so many channels."""

FILTER = Image.Resampling.LANCZOS


@config
class Crop:
    """Fill the whole size; what stands out on two sides is cut off, the same on both."""

    def apply(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """`image` at `size` (height, width)."""
        return ImageOps.fit(image, (size[1], size[0]), FILTER)

    def told(self, share: float) -> str:
        """What it does to images whose aspect is off by a share of their area."""
        return f"at most {share:.0%} of an image's area is cut"


@config
class Pad:
    """Keep the whole image and fill the size by bars of grey `level`, 0 black to 1 white; with alpha, clear ones."""

    level: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise ValueError(f"level: got {self.level}, expected 0 (black) to 1 (white)")

    def apply(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """`image` at `size` (height, width)."""
        grey = round(self.level * 255)
        colour = {"L": grey, "RGB": (grey,) * 3, "RGBA": (grey, grey, grey, 0)}[image.mode]
        # Not ImageOps.pad, whose bars are drawn by `color` names and which rounds a side of a thin image to nothing.
        scale = min(size[0] / image.height, size[1] / image.width)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        sheet = Image.new(image.mode, (size[1], size[0]), colour)
        sheet.paste(image.resize(inner, FILTER), ((size[1] - inner[0]) // 2, (size[0] - inner[1]) // 2))
        return sheet

    def told(self, share: float) -> str:
        """As of `Crop`."""
        return f"at most {share:.0%} of a sample is bars"


@config
class Stretch:
    """Change the aspect to that of the size."""

    def apply(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """`image` at `size` (height, width)."""
        return image.resize((size[1], size[0]), FILTER)

    def told(self, share: float) -> str:
        """As of `Crop`."""
        return f"an image is stretched to at most {1 / (1 - share):.2f} times its aspect"


Fit = Crop | Pad | Stretch
"""What becomes of an image whose aspect is not that of the size."""

ROUNDING = 0.01
"""The share of an area by which an aspect may be off because sides are whole pixels: nobody has to be told."""


def told_off(fit: Fit, off: float, size: Size, which: str) -> str:
    """One sentence on what becomes of images (`which` of them) whose aspect is not that of `size`, and what decides."""
    does = f"{fit.told(off)} (--data.fit {type(fit).__name__})"
    return f"{which} have another aspect than {size[0]}x{size[1]}: {does}; --data.buckets Aspects has several sizes."


class Target(NamedTuple):
    """What images become: of one of some sizes (height, width), the nearest in aspect, with so many channels.

    `at_most`: how far an image's aspect may be from its size's, as a share of its area.
    """

    sizes: Sequence[Size]
    channels: int
    fit: Fit
    at_most: float = 1.0

    @classmethod
    def of(cls, size: Size, buckets: Buckets | None, channels: int, fit: Fit) -> "Target":
        """Of one `size`, or of the sizes that `buckets` make of it.

        Raises:
            ValueError: those are no more than one.
        """
        if buckets is None:
            return cls((size,), channels, fit)
        return cls(several(buckets, size), channels, fit, buckets.at_most)


class Fitted(NamedTuple):
    """An image of one of a target's sizes: `which`, and how far its aspect was from that, as a share of its area."""

    pixels: UInt8[np.ndarray, "c h w"]
    which: int
    off: float


def decode(source: Path | bytes, target: Target) -> Fitted:
    """The first picture of a file, upright, in grey, RGB or RGBA; colour profiles are not looked at.

    Raises:
        Unreadable: it is no image, damaged, one pixel thin, too large, has values without a known white, or is of an
            aspect that is too far from all sizes.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            _check_size(image)
            # JPEG decodes at 1/2, 1/4 or 1/8 for less; twice the size leaves the filter enough to work on.
            longest = 2 * max(max(size) for size in target.sizes)
            image.draft(None, (longest, longest))
            return fitted(cast("Image.Image", ImageOps.exif_transpose(image)), target)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"not an image in {', '.join(FORMATS)}") from None
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreadable(why.splitlines()[0]) from None


def fitted(image: Image.Image, target: Target) -> Fitted:
    """An upright image in the size whose aspect is nearest to its own.

    Raises:
        Unreadable: its aspect is too far from that of all sizes.
    """
    which, off = _chosen(image, target)
    size = target.sizes[which]
    pixels = np.asarray(target.fit.apply(in_mode(image, MODES[target.channels]), size))
    return Fitted(np.ascontiguousarray(pixels.reshape(*size, target.channels).transpose(2, 0, 1)), which, off)


def _chosen(image: Image.Image, target: Target) -> tuple[int, float]:
    """The size that an upright image goes to, and how far its aspect is from that."""
    which = nearest((image.height, image.width), target.sizes)
    size = target.sizes[which]
    off = share_off((image.height, image.width), size)
    if off > target.at_most:
        raise Unreadable(
            f"{image.width}x{image.height} pixels, of whose area {off:.0%} is too much for the nearest size (height "
            f"{size[0]}, width {size[1]}), expected at most {target.at_most:.0%}"
        )
    return which, off


def _check_size(image: Image.Image) -> None:
    """Refuse by the header, before any pixel is decoded."""
    width, height = image.size
    if min(width, height) < 2:
        raise Unreadable(f"{width}x{height} pixels, expected at least 2x2")
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width}x{height} pixels, expected at most {MOST_PIXELS // 10**6} million")


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """`image` in L, RGB or RGBA; what is transparent becomes white where there is no alpha."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if mode != "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _from_16_bit(image: Image.Image) -> Image.Image:
    """More than 8 bits: Pillow would clip them, not scale them."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise Unreadable(f"{values.dtype} pixels up to {values.max()}, expected 8 or 16 bits (arrays: as .npy)")
    return Image.fromarray(((values.astype(np.uint32) * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8), "L")

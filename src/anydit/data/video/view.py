"""Videos as people see them: a strip of frames for each; and as MP4 or GIF files, at the data's rate."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from anydit.config import check_positive, config
from anydit.data.base import Loaded, View, suffixed
from anydit.data.images.decode import Crop, Target
from anydit.data.images.view import tell_cut
from anydit.data.outside import Unreadable
from anydit.data.reading import check_named
from anydit.data.sheet import TILE_PX, sheet
from anydit.data.video.decode import ANIMATION, DEMUXERS, Decoding, import_av

STRIP = 8
"""Frames of each video on a sheet, at most: evenly spread, the first and the last among them."""

LEAST_STRIP, WIDEST_PX = 3, 2400
"""Where there are many columns there are fewer frames, so that a sheet is not much wider than this."""

EVERY_SECOND = 1.0
"""Frames per second of data that say no rate."""

BT601, LIMITED = 6, 1
"""How FFmpeg numbers the matrix from RGB to luma and chroma, and luma from 16 to 235."""

Pixels = UInt8[np.ndarray, "t h w c"]


@config
class MP4:
    """H.264 in MP4. `quality`: the constant rate factor, 0 (best) to 51; each 6 more halve the bits.

    Colours have half the resolution, as everywhere (4:2:0); videos with an odd side have them whole (4:4:4), because
    half of it cannot be: nothing is cut off, but not every browser plays them.
    """

    quality: int = 12

    def __post_init__(self) -> None:
        if not 0 <= self.quality <= 51:
            raise ValueError(f"quality: got {self.quality}, expected 0 to 51")

    def write(self, frames: Pixels, rate: float, path: Path) -> Path:
        """Write `frames`, and return the file."""
        av, path = import_av(), suffixed(path, ".mp4")
        height, width = frames.shape[1:3]
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=exact(rate))
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
            stream.options = {"crf": str(self.quality), "bf": "0"}
            stream.codec_context.colorspace, stream.codec_context.color_range = BT601, LIMITED
            for pixels in np.broadcast_to(frames, (*frames.shape[:3], 3)):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


@config
class GIF:
    """GIF, over and over: up to 256 colours in a frame, which is shown for whole hundredths of a second."""

    def write(self, frames: Pixels, rate: float, path: Path) -> Path:
        """Write `frames`, and return the file.

        Raises:
            ValueError: more frames a second than players show.
        """
        if rate > 50:
            raise ValueError(f"view.format: got GIF for {rate:g} frames per second, expected MP4, or 50 at most")
        path = suffixed(path, ".gif")
        # Rounded one by one, times would add up to another rate.
        ends = np.round(np.arange(1, len(frames) + 1) * 100 / rate).astype(int)
        times_ms = (np.diff(ends, prepend=0) * 10).tolist()
        images = [Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=times_ms, loop=0)
        return path


@config
class Videos(View):
    """Videos with values from `low` (black) to `high` (white), 1 or 3 channels, written in a `format`.

    `rate`: frames per second; None takes it from the data.
    """

    low: float = 0.0
    high: float = 1.0
    rate: float | None = None
    format: MP4 | GIF = MP4()

    time_axis: ClassVar[int | None] = 0
    clips: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (*DEMUXERS, ANIMATION)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low, high: got {self.low}, {self.high}, expected low < high")
        if self.rate is not None:
            check_positive("rate", self.rate)

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def per_second(self) -> float | None:
        return self.rate

    def pixels(self, x: Float[Tensor, "b c t h w"]) -> UInt8[np.ndarray, "b t h w c"]:
        """8-bit pixels, rounded and clipped.

        Raises:
            ValueError: other channels than grey or red, green and blue.
        """
        if x.shape[1] not in (1, 3):
            raise ValueError(f"view: got videos of {x.shape[1]} channels, expected 1 or 3; ArrayView takes any")
        unit = (x.float().cpu() - self.low) / (self.high - self.low)
        return rearrange((unit * 255).round().clamp(0, 255).to(torch.uint8), "b c t h w -> b t h w c").numpy()

    def picture(
        self, x: Float[Tensor, "b c t h w"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        scale = max(1, ceil(TILE_PX / min(x.shape[3:])))
        room = WIDEST_PX // ((columns or 1) * (scale * x.shape[4] + 1))
        count = min(x.shape[2], STRIP, max(LEAST_STRIP, room))
        pixels = self.pixels(x[:, :, np.linspace(0, x.shape[2] - 1, count).round().astype(int)])
        pixels = pixels.repeat(scale, 2).repeat(scale, 3)
        gap = np.full_like(pixels[:, :, :, :1], 128)
        strips = rearrange(np.concatenate([pixels, gap], 3), "b t h w c -> b h (t w) c")[:, :, :-1]
        return sheet([Image.fromarray(np.broadcast_to(s, (*s.shape[:2], 3)).copy()) for s in strips], captions, columns)

    def save(self, x: Float[Tensor, "c t h w"], path: Path) -> Path:
        return self.format.write(self.pixels(x[None])[0], self._shown, path)

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """All frames of a video, or a folder of numbered pictures, at the rate of the data; cut as images are."""
        channels, _, high, wide = shape
        if not path.is_dir():
            check_named(path, self.suffixes)
        try:
            with Decoding(Target.of((high, wide), None, channels, Crop()), self.rate, self._shown).opened(path) as film:
                frames = list(film.picked())
        except Unreadable as error:
            raise ValueError(f"got {path}: {error}") from None
        if not frames:
            raise ValueError(f"got {path}, too short for a frame of 1/{self._shown:g} s")
        tell_cut(path, max(frame.off for frame in frames), (high, wide))
        unit = torch.from_numpy(np.stack([frame.pixels for frame in frames], 1)) / 255
        return Loaded(self.low + unit * (self.high - self.low), self)

    @property
    def _shown(self) -> float:
        return EVERY_SECOND if self.rate is None else self.rate


def exact(rate: float) -> Fraction:
    """A rate as files have it: a whole number of frames in a whole number of seconds, or in 1.001 s as in NTSC's."""
    return Fraction(rate).limit_denominator(1001)

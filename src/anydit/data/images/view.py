"""Images: shown as sheets, written as PNG."""

import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from anydit.config import config
from anydit.data.base import Loaded, View, suffixed
from anydit.data.images.decode import MODES, ROUNDING, SUFFIXES, Crop, Target, decode
from anydit.data.outside import Unreadable
from anydit.data.reading import array_in, check_named, check_shape
from anydit.data.sheet import TILE_PX, sheet


@config
class Images(View):
    """Images with values from `low` (black) to `high` (white); 1, 3 or 4 channels, others side by side in grey."""

    low: float = 0.0
    high: float = 1.0

    clips: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low, high: got {self.low}, {self.high}, expected low < high")

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def pixels(self, x: Float[Tensor, "b c h w"]) -> np.ndarray:
        """8-bit pixels `[b h w c]`, rounded and clipped."""
        unit = (x.float().cpu() - self.low) / (self.high - self.low)
        return rearrange((unit * 255).round().clamp(0, 255).to(torch.uint8), "b c h w -> b h w c").numpy()

    def picture(
        self, x: Float[Tensor, "b c h w"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        if x.shape[1] not in MODES:
            x = rearrange(x, "b c h w -> b 1 h (c w)")
        scale = max(1, ceil(TILE_PX / min(x.shape[2:])))
        return sheet([_shown(p) for p in self.pixels(x).repeat(scale, 1).repeat(scale, 2)], captions, columns)

    def save(self, x: Float[Tensor, "c h w"], path: Path) -> Path:
        path = suffixed(path, ".png" if len(x) in MODES else ".npy")
        if len(x) in MODES:
            _pillow(self.pixels(x[None])[0]).save(path)
        else:
            np.save(path, x.float().cpu().numpy())
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """Of another aspect, what stands out on two sides is cut off, and it is told how much."""
        channels, high, wide = shape
        if channels not in MODES:
            x = array_in(path)
            check_shape(path, x.shape, shape)
            return Loaded(x, self)
        check_named(path, self.suffixes)
        try:
            pixels, _, off = decode(path, Target.of((high, wide), None, channels, Crop()))
        except Unreadable as error:
            raise ValueError(f"got {path}: {error}") from None
        tell_cut(path, off, (high, wide))
        return Loaded(self.low + torch.from_numpy(pixels) / 255 * (self.high - self.low), self)


def tell_cut(path: Path, off: float, size: tuple[int, int]) -> None:
    """Say how much of the pictures in a file is cut off to bring them to a size, if it is more than rounding."""
    if off > ROUNDING:
        print(f"{path.name} has another aspect than {size[0]}x{size[1]}: {Crop().told(off)}.", file=sys.stderr)


def _shown(pixels: np.ndarray) -> Image.Image:
    """`[h w c]` in colour, on white where it is transparent."""
    image = _pillow(pixels)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _pillow(pixels: np.ndarray) -> Image.Image:
    """`[h w c]` as Pillow's image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, MODES[pixels.shape[2]])

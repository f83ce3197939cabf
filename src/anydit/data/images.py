"""Images: shown as sheets, written as PNG."""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from anydit.config import config
from anydit.data.base import View

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""How Pillow names images of so many channels."""

MARGIN_PX = 2
CAPTION_PX = 12
TILE_PX = 32
"""Sheets enlarge smaller images to at least this, so that a person sees them."""


@config
class Images(View):
    """Images with values from `low` (black) to `high` (white); 1, 3 or 4 channels, others side by side in grey."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low, high: got {self.low}, {self.high}, expected low < high")

    def pixels(self, x: Float[Tensor, "b c h w"]) -> np.ndarray:
        """8-bit pixels `[b h w c]`, rounded and clipped."""
        unit = (x.float() - self.low) / (self.high - self.low)
        return rearrange((unit * 255).round().clamp(0, 255).to(torch.uint8), "b c h w -> b h w c").numpy()

    def picture(
        self, x: Float[Tensor, "b c h w"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        if x.shape[1] not in MODES:
            x = rearrange(x, "b c h w -> b 1 h (c w)")
        scale = max(1, ceil(TILE_PX / min(x.shape[2:])))
        tiles = [_pillow(p).convert("RGB") for p in self.pixels(x).repeat(scale, 1).repeat(scale, 2)]
        columns = columns or ceil(sqrt(len(tiles)))
        width, height = tiles[0].width + MARGIN_PX, tiles[0].height + MARGIN_PX + (CAPTION_PX if captions else 0)
        rows = ceil(len(tiles) / columns)
        sheet = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
        draw = ImageDraw.Draw(sheet)
        for i, tile in enumerate(tiles):
            at = (MARGIN_PX + i % columns * width, MARGIN_PX + i // columns * height)
            sheet.paste(tile, at)
            if captions:
                draw.text((at[0], at[1] + tile.height), captions[i][: tile.width // 6], fill="black")
        return sheet

    def write(self, x: Float[Tensor, "b c h w"], folder: Path, stem: str = "sample") -> list[Path]:
        paths = list[Path]()
        for i, sample in enumerate(x):
            if len(sample) in MODES:
                paths.append(folder / f"{stem}-{i:05d}.png")
                _pillow(self.pixels(sample[None])[0]).save(paths[-1])
            else:
                paths.append(folder / f"{stem}-{i:05d}.npy")
                np.save(paths[-1], sample.numpy())
        return paths


def _pillow(pixels: np.ndarray) -> Image.Image:
    """`[h w c]` as Pillow's image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, MODES[pixels.shape[2]])

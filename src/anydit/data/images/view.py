"""Images: shown as sheets, written as PNG."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from anydit.config import config
from anydit.data.base import View
from anydit.data.sheet import TILE_PX, sheet

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""How Pillow names images of so many channels."""


@config
class Images(View):
    """Images with values from `low` (black) to `high` (white); 1, 3 or 4 channels, others side by side in grey."""

    low: float = 0.0
    high: float = 1.0

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

    def write(self, x: Float[Tensor, "b c h w"], folder: Path, stem: str = "sample") -> list[Path]:
        paths = list[Path]()
        for i, sample in enumerate(x):
            if len(sample) in MODES:
                paths.append(folder / f"{stem}-{i:05d}.png")
                _pillow(self.pixels(sample[None])[0]).save(paths[-1])
            else:
                paths.append(folder / f"{stem}-{i:05d}.npy")
                np.save(paths[-1], sample.float().cpu().numpy())
        return paths


def _shown(pixels: np.ndarray) -> Image.Image:
    """`[h w c]` in colour, on white where it is transparent."""
    image = _pillow(pixels)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _pillow(pixels: np.ndarray) -> Image.Image:
    """`[h w c]` as Pillow's image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, MODES[pixels.shape[2]])

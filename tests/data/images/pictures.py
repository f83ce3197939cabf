"""Folders of image files for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, size: tuple[int, int] = (6, 9), channels: int = 3) -> np.ndarray:
    """Random pixels `[h w c]`; the first one is the seed, to know an image by."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    pixels[0, 0, 0] = seed % 256
    return pixels


def write(file: Path, pixels: np.ndarray) -> None:
    """A PNG, with its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)


def flat(root: Path, n: int, size: tuple[int, int] = (6, 9), channels: int = 3) -> None:
    """`n` PNGs: image i has seed i."""
    for i in range(n):
        write(root / f"{i:03d}.png", noise(i, size, channels))


def by_class(root: Path, classes: Sequence[str], each: int, size: tuple[int, int] = (6, 9), channels: int = 3) -> None:
    """`each` PNGs in a folder for each class: image i of class k has seed k * each + i."""
    for k, name in enumerate(classes):
        for i in range(each):
            write(root / name / f"{i:03d}.png", noise(k * each + i, size, channels))

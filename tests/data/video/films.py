"""Small videos whose frames tell which they are: frame i is grey of level `grey(i)`."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

CODECS = {".mp4": ("libx264", "yuv420p"), ".webm": ("libvpx-vp9", "yuv420p"), ".mkv": ("ffv1", "bgr0")}


def grey(i: int) -> int:
    return 20 + 9 * i


def film(
    path: Path,
    times: Sequence[Any] = tuple(Fraction(i, 8) for i in range(16)),
    size: tuple[int, int] = (16, 16),
    frames: Sequence[np.ndarray] | None = None,
    aspect: Fraction | None = None,
    rate: Fraction = Fraction(8),
) -> Path:
    """A video whose frames are shown from `times` on, in seconds; the last one for as long as `rate` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pixels = CODECS[path.suffix]
    base = Fraction(1, 90_000) if path.suffix == ".mp4" else Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        if codec == "libx264":
            stream.options = {"crf": "5", "bf": "0"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, time in enumerate(times):
            values = np.full((*size, 3), grey(i), np.uint8) if frames is None else frames[i]
            frame = av.VideoFrame.from_ndarray(values, format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(folder: Path, numbers: Sequence[int], size: tuple[int, int] = (16, 16), stem: str = "frame_") -> Path:
    """A folder of pictures with these numbers in their names, of level `grey(place)`."""
    folder.mkdir(parents=True)
    for i, number in enumerate(numbers):
        Image.new("L", size[::-1], grey(i)).save(folder / f"{stem}{number}.png")
    return folder


def which(pixels: np.ndarray) -> list[int]:
    """Of frames `[t c h w]` from 0 to 255: which they are."""
    return [round((float(frame.mean()) - grey(0)) / 9) for frame in pixels]

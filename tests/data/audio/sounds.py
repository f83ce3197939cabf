"""Sounds to write into files."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float


def tone(hz: float, seconds: float, rate: int = 8000, amplitude: float = 0.5) -> Float[np.ndarray, " n"]:
    """A sine."""
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def written(path: Path, values: Any, rate: int = 8000, **how: Any) -> Path:
    """A file of sound, in the format that its name says."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, **how)
    return path

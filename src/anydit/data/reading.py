"""What reading a sample back from a file needs, whatever is in it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from anydit.data.absent import elsewhere

NPY = ".npy"
"""A file of one array, which any kind of sample can come in."""


def npy_in(path: Path) -> Shaped[np.ndarray, "..."]:
    """What a NumPy file holds, of any type that is no object.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


def array_in(path: Path) -> Float[Tensor, "..."]:
    """The array in a NumPy file.

    Raises:
        ValueError: it cannot be read, or does not hold numbers.
    """
    try:
        return torch.from_numpy(npy_in(path)).float()
    except TypeError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"got {path}, which cannot be read as an array of NumPy ({error})")


def check_named(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file, or a folder, that is not there, or that is named like none of a kind.

    Raises:
        ValueError: it is so.
    """
    if why := elsewhere(path):
        raise ValueError(f"got {path}, {why}")
    if not path.exists():
        raise ValueError(f"got {path}, which is not there; expected a file")
    if not path.name.lower().endswith(tuple(suffixes)):
        raise ValueError(f"got {path}, expected a file named {', '.join((*suffixes, NPY))}")


def check_shape(path: Path, got: Sequence[int], shape: Sequence[int], time_axis: int | None = None) -> None:
    """Refuse another shape `[c, *space]` than is expected; along the axis of time any length is.

    Raises:
        ValueError: names both.
    """
    free = None if time_axis is None else 1 + time_axis
    if len(got) != len(shape) or any(a != b for i, (a, b) in enumerate(zip(got, shape, strict=True)) if i != free):
        wanted = [str(n) if i != free else "any" for i, n in enumerate(shape)]
        raise ValueError(f"got {path} of shape ({', '.join(map(str, got))}), expected ({', '.join(wanted)})")

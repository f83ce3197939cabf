"""Arrays: in memory or mapped from .npy, or one of an .npz; what has no file format of its own starts here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor

from anydit.config import config
from anydit.data.base import Data, Facts, Part, Samples, View
from anydit.data.images import Images
from anydit.tensors import Batch, Stream


@dataclass(frozen=True)
class ArraySamples:
    """Samples that are rows of an array `[n, c, *space]` of any number type, times `unit`; labels by condition."""

    x: Shaped[np.ndarray, "..."]
    facts: Facts
    cond: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    unit: float = 1.0
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        rows = ids if self.rows is None else self.rows[ids]
        x = torch.from_numpy(np.ascontiguousarray(self.x[rows.numpy()])).float()
        cond = {name: values[rows] for name, values in self.cond.items()}
        return Batch(x if self.unit == 1 else x * self.unit, cond, ids)


def split(count: int, held_out: float, part: Part, seed: int = 0) -> Int[Tensor, " n"]:
    """The rows of one part of `count`, in order: each row is held out with the probability given, by its own number."""
    chosen = Stream(seed, "held out").uniform(0, torch.arange(count)) <= held_out
    return torch.nonzero(chosen if part == "held_out" else ~chosen)[:, 0]


@config
class Arrays(Data):
    """A .npy file `[n, c, *space]`, or one array of an .npz with the labels in another.

    `x`, `label`: the arrays' names in an .npz. `channels_last`: samples lie as `[*space, c]`. `held_out`: the share of
    samples kept from training. Values come as they are: an 8-bit array has values from 0 to 255.
    """

    path: Path = Path()
    x: str = "x"
    label: str | None = None
    channels_last: bool = False
    held_out: float = 0.1

    def open(self, part: Part) -> Samples:
        x, label = self._load()
        if x.ndim < 3:
            raise ValueError(f"data.path: got an array of shape {x.shape}, expected [n, c, *space]")
        if x.dtype.kind not in "iufb":
            raise ValueError(f"data.path: got an array of {x.dtype}, expected numbers")
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise ValueError(f"data.path: got NaN or infinity in {self.path}, expected finite values")
        if self.channels_last:
            x = np.moveaxis(x, -1, 1)
        cond, classes = dict[str, Tensor](), dict[str, tuple[str, ...]]()
        if label is not None:
            if len(label) != len(x):
                raise ValueError(f"data.label: got {len(label)} labels, expected one for each of {len(x)} samples")
            names, index = np.unique(label, return_inverse=True)
            cond["label"] = torch.from_numpy(index.reshape(-1).astype(np.int64))
            classes["label"] = tuple(str(name) for name in names)
        facts = Facts(x.shape[1], tuple(x.shape[2:]), classes, frozenset(cond))
        return ArraySamples(x, facts, cond, rows=split(len(x), self.held_out, part))

    def _load(self) -> tuple[Shaped[np.ndarray, "..."], Shaped[np.ndarray, "..."] | None]:
        if not self.path.is_file():
            raise ValueError(f"data.path: got {self.path}, which is not a file; expected a .npy or .npz file")
        try:
            loaded = cast("Any", np.load(self.path, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"data.path: {self.path} cannot be read as .npy or .npz: {error}") from None
        if isinstance(loaded, np.ndarray):
            if self.label is not None:
                raise ValueError(f"data.label: got {self.label!r}, expected none: a .npy file holds one array only")
            return loaded, None
        for field_name, name in (("x", self.x), ("label", self.label)):
            if name is not None and name not in loaded.files:
                raise ValueError(f"data.{field_name}: got {name!r}, expected one of {', '.join(loaded.files)}")
        return loaded[self.x], None if self.label is None else loaded[self.label]


@config
class ArrayView(View):
    """Arrays without a format of their own: written as .npy; shown as images of each channel, where they have two axes.

    `low`, `high`: the values shown as black and white.
    """

    low: float = 0.0
    high: float = 1.0

    def picture(
        self, x: Float[Tensor, "b c *space"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        # One axis becomes a row of pixels; of more than two axes the middle slice along the first ones is shown.
        while x.ndim > 4:
            x = x[:, :, x.shape[2] // 2]
        return Images(self.low, self.high).picture(x if x.ndim == 4 else x[:, :, None], captions, columns)

    def write(self, x: Float[Tensor, "b c *space"], folder: Path, stem: str = "sample") -> list[Path]:
        paths = [folder / f"{stem}-{i:05d}.npy" for i in range(len(x))]
        for sample, path in zip(x, paths, strict=True):
            np.save(path, sample.numpy())
        return paths

"""Arrays: in memory or mapped from .npy, or one of an .npz; what has no file format of its own starts here."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Any, ClassVar, cast
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from PIL import Image, ImageDraw
from torch import Tensor

from anydit.config import config
from anydit.data.base import Data, Facts, Loaded, Part, Samples, View, check_share, suffixed
from anydit.data.images.view import Images
from anydit.data.reading import NPY, array_in, check_shape
from anydit.data.sheet import sheet
from anydit.tensors import Batch, Stream

CHECKED_AT_ONCE = 2**22
"""Values looked at together, so that an array larger than memory can be checked."""

CURVES_PX = (160, 64)
"""Width and height of a picture of curves."""


@dataclass(frozen=True)
class ArraySamples:
    """Samples that are rows of an array `[n, c, *space]` of any number type, times `unit`.

    `cond`, `texts`: by condition, what is known about each row, in numbers and in words.
    """

    x: Shaped[np.ndarray, "..."]
    facts: Facts
    cond: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    unit: float = 1.0
    rows: Tensor | None = None
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        rows = ids if self.rows is None else self.rows[ids]
        x = torch.from_numpy(np.ascontiguousarray(self.x[rows.numpy()], np.float32))
        cond = {name: values[rows] for name, values in self.cond.items()}
        places: list[int] = rows.tolist()
        texts = {name: [each[i] for i in places] for name, each in self.texts.items()}
        # In place, for x is a copy already: another array of this size takes longer to get than to fill.
        return Batch(x if self.unit == 1 else x.mul_(self.unit), cond, ids, texts)


def split(count: int, held_out: float, part: Part, seed: int = 0) -> Int[Tensor, " n"]:
    """The rows of one part of `count`, in order: each row is held out with the probability given, by its own number."""
    chosen = Stream(seed, "held out").uniform(0, torch.arange(count)) <= held_out
    return torch.nonzero(chosen if part == "held_out" else ~chosen)[:, 0]


@config
class Arrays(Data):
    """A .npy file `[n, c, *space]`, or one array of an .npz with what is known about its samples in others.

    `x`, `label`, `field`: names of arrays in an .npz; `field` is `[n, channels, *space]`. `numbers`: names of arrays
    `[n]`, together the condition "numbers". `channels_last`: x and field lie as `[n, *space, c]`. `held_out`: the share
    of samples kept from training. Values come as they are: an 8-bit array has values from 0 to 255.
    """

    path: Path = Path()
    x: str = "x"
    label: str | None = None
    numbers: tuple[str, ...] = ()
    field: str | None = None
    channels_last: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.held_out)

    def open(self, part: Part) -> Samples:
        path = self.path.expanduser().resolve()
        if not path.is_file():
            raise ValueError(f"data.path: got {self.path}, which is not a file; expected a .npy or .npz file")
        stat = path.stat()
        whole = _whole(replace(self, path=path), (stat.st_ino, stat.st_size, stat.st_mtime_ns))
        rows = split(len(whole), self.held_out, part)
        if not len(rows):
            raise ValueError(
                f"data.held_out: got {self.held_out}, which leaves none of {len(whole)} samples in the part {part}; "
                "expected at least one"
            )
        return replace(whole, rows=rows)

    def _both_parts(self) -> ArraySamples:
        """All samples, checked."""
        arrays = self._load()
        x = self._with_space("x", arrays[self.x])
        view = ArrayView(channels_last=self.channels_last)
        cond, facts = dict[str, Tensor](), Facts(x.shape[1], tuple(x.shape[2:]), view=view)
        if self.label is not None:
            cond["label"], classes = _label(_column("label", arrays[self.label], len(x)))
            facts = replace(facts, classes={"label": classes})
        if self.numbers:
            columns = [_column("numbers", arrays[name], len(x)) for name in self.numbers]
            cond["numbers"] = torch.from_numpy(np.stack([_numbers("numbers", column) for column in columns], axis=1))
            facts = replace(facts, numbers={"numbers": self.numbers})
        if self.field is not None:
            field = self._with_space("field", arrays[self.field])
            if (len(field), *field.shape[2:]) != (len(x), *x.shape[2:]):
                raise ValueError(f"data.field: got shape {field.shape}, expected that of x but for channels: {x.shape}")
            cond["field"] = torch.from_numpy(np.ascontiguousarray(field, np.float32))
            facts = replace(facts, fields={"field": field.shape[1]})
        return ArraySamples(x, facts, cond)

    def _with_space(self, field: str, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "n c *space"]:
        """Finite numbers `[n, c, *space]`, still in the file where it is mapped."""
        if array.ndim < 3:
            last = "[n, *space, c]" if self.channels_last else "[n, c, *space]"
            raise ValueError(f"data.{field}: got an array of shape {array.shape}, expected {last}")
        return np.moveaxis(_numbers(field, array, copy=False), -1, 1 if self.channels_last else -1)

    def _load(self) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """Every array that is asked for, by name."""
        path, wanted = self.path, {"x": self.x, "label": self.label, "field": self.field}
        fields = [(name, field) for field, name in wanted.items() if name is not None]
        fields += [(name, "numbers") for name in self.numbers]
        try:
            names, arrays = _read(path, {name for name, _ in fields})
        except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
            raise ValueError(f"data.path: got {path}, which cannot be read as .npy or .npz: {error}") from None
        if names is None:
            for name, field in fields[1:]:
                raise ValueError(f"data.{field}: got {name!r}, expected none: a .npy file holds one array only")
            return {self.x: arrays[""]}
        for name, field in fields:
            if name not in arrays:
                raise ValueError(f"data.{field}: got {name!r}, expected one of {', '.join(names)}")
        return arrays


@lru_cache(maxsize=1)
def _whole(data: Arrays, state: tuple[int, ...]) -> ArraySamples:
    """What the two parts share, read and checked once: the file may be larger than memory. A new state reads anew."""
    return data._both_parts()


def _read(path: Path, wanted: set[str]) -> tuple[list[str] | None, dict[str, Shaped[np.ndarray, "..."]]]:
    """The names in an .npz file, and of those the arrays wanted; of an .npy file none, and its array, mapped, as ''."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            file.seek(0)
            packed = cast("Any", np.load(file, allow_pickle=False))
            return list(packed.files), {name: packed[name] for name in packed.files if name in wanted}
    return None, {"": np.load(path, mmap_mode="r", allow_pickle=False)}


def _column(field: str, array: Shaped[np.ndarray, "..."], count: int) -> Shaped[np.ndarray, " n"]:
    """One value for each sample."""
    if array.shape not in ((count,), (count, 1)):
        raise ValueError(f"data.{field}: got an array of shape {array.shape}, expected [{count}], one for each sample")
    return array.reshape(-1)


def _label(values: Shaped[np.ndarray, " n"]) -> tuple[Int[Tensor, " n"], tuple[str, ...]]:
    """Each sample's class by index, and the classes' names: the values in order."""
    if values.dtype.kind not in "iubUS":
        raise ValueError(f"data.label: got an array of {values.dtype}, expected whole numbers or text")
    names, index = np.unique(values, return_inverse=True)
    text = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]
    return torch.from_numpy(index.reshape(-1).astype(np.int64)), tuple(text)


def _numbers(field: str, array: Shaped[np.ndarray, "*shape"], copy: bool = True) -> Shaped[np.ndarray, "*shape"]:
    """The array, as float32 with `copy`, where all of its values are numbers that float32 holds."""
    if array.dtype.kind not in "iufb":
        raise ValueError(f"data.{field}: got an array of {array.dtype}, expected numbers")
    if array.dtype.kind == "f":
        limit, rows = np.finfo(np.float32).max, max(1, CHECKED_AT_ONCE // max(1, array[:1].size))
        for start in range(0, len(array), rows):
            good = np.abs(array[start : start + rows]) <= limit  # false for NaN, too
            if not good.all():
                bad = start + int(np.argmin(good.reshape(len(good), -1).all(axis=1)))
                raise ValueError(f"data.{field}: got NaN, infinity or more than {limit:.1e} in sample {bad}")
    return np.ascontiguousarray(array, np.float32) if copy else array


@config
class ArrayView(View):
    """Arrays without a format of their own: written as .npy; shown as curves, or as images of each channel.

    `low`, `high`: the values shown as black and white, at the bottom and the top; None takes them from what is shown.
    `channels_last`: write [*space, c], not [c, *space]; None does as the data.
    """

    low: float | None = None
    high: float | None = None
    channels_last: bool | None = None

    suffixes: ClassVar[tuple[str, ...]] = (NPY,)

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def picture(
        self, x: Float[Tensor, "b c *space"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        x = x.float().cpu()
        # Of more than two axes the middle slice along the first ones is shown.
        while x.ndim > 4:
            x = x[:, :, x.shape[2] // 2]
        there = x[~x.isnan()]
        low = float(there.min()) if self.low is None else self.low
        high = max(float(there.max()) if self.high is None else self.high, low + 1e-6 * max(1.0, abs(low)))
        if x.ndim == 4:
            return Images(low, high).picture(x.nan_to_num(low), captions, columns)
        unit = ((x - low) / (high - low)).clamp(0, 1)
        return sheet([_curves(sample) for sample in unit], captions, columns)

    def save(self, x: Float[Tensor, "c *space"], path: Path) -> Path:
        path, values = suffixed(path, ".npy"), x.float().cpu().numpy()
        np.save(path, np.ascontiguousarray(np.moveaxis(values, 0, -1)) if self.channels_last else values)
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        x = array_in(path)
        x = x.movedim(-1, 0) if self.channels_last and x.ndim else x
        check_shape(path, x.shape, shape)
        return Loaded(x, self)


def _curves(unit: Float[Tensor, "c n"]) -> Image.Image:
    """Every channel as a curve of its own colour, over the whole width."""
    width, height = CURVES_PX
    tile = Image.new("RGB", CURVES_PX, "#f4f4f4")
    draw = ImageDraw.Draw(tile)
    places = torch.linspace(0, width - 1, unit.shape[1]).tolist()
    for channel, values in enumerate(((1 - unit) * (height - 1)).tolist()):
        there = [point for point in zip(places, values, strict=True) if not isnan(point[1])]
        draw.line(there, fill=f"hsl({(215 + channel * 137) % 360},70%,40%)")
    return tile

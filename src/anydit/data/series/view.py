"""Time series as people see them: one panel of curves for each channel; and as CSV or Parquet, as the data came."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from anydit.config import config
from anydit.data.base import Loaded, View, suffixed
from anydit.data.outside import Unreadable
from anydit.data.reading import check_named, check_shape
from anydit.data.series.clock import Clock
from anydit.data.series.tables import SUFFIXES, Head, read_part
from anydit.data.sheet import sheet

PANEL_PX = (200, 40)
"""Width and height of the panel of one channel."""


@config
class SeriesView(View):
    """Tables of one row for each time, the column "seconds" first where the `step` is known; a panel for each channel.

    Where a channel has that name, the column is "time seconds".

    `names`: of channels. `step`: seconds from row to row. `suffix`: .csv or .parquet. None takes them from the data.
    `time`: the column that says when rows are in files that are read. `clock`: the column in place of "seconds", and
    when the first row is, as a file says that was read. `skip`, `below`: lines before the header of CSV files that are
    read, and below it.
    """

    names: tuple[str, ...] | None = None
    step: float | None = None
    suffix: str | None = None
    # No part of what tells data apart, which is as it was before there were these.
    time: str | None = field(default=None, repr=False)
    clock: Clock | None = field(default=None, repr=False)
    skip: int | None = field(default=None, repr=False)
    below: int | None = field(default=None, repr=False)

    time_axis: ClassVar[int | None] = 0
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __post_init__(self) -> None:
        if self.suffix not in (None, ".csv", ".parquet"):
            raise ValueError(f"suffix: got {self.suffix!r}, expected .csv or .parquet")

    def picture(
        self, x: Float[Tensor, "b c n"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        values = x.float().cpu().numpy()
        low, high = values.min((0, 2)), values.max((0, 2))
        span = np.maximum(high - low, 1e-6 * np.maximum(1, np.abs(low)))
        unit = (values - low[:, None]) / span[:, None]
        labels = [f"{name}  {a:.3g} to {b:.3g}" for name, a, b in zip(self._names(x.shape[1]), low, high, strict=True)]
        return sheet([_panels(sample, labels) for sample in unit], captions, columns)

    def save(self, x: Float[Tensor, "c n"], path: Path) -> Path:
        path = suffixed(path, self.suffix or ".csv")
        columns = dict(zip(self._names(len(x)), x.float().cpu().numpy(), strict=True))
        if self.step is not None:
            clock = self.clock or Clock()
            time = clock.column
            while time in columns:
                time = f"time {time}"
            columns = {time: clock.rows(self.step, x.shape[1]), **columns}
        _write(columns, path)
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """A table with the columns of the data, in any order; NaN where a cell is empty."""
        check_named(path, self.suffixes)
        try:
            head = Head(self.skip or 0, self.below or 0)
            values, clock = read_part(path, self.names or (), self.step, self.time, head)
        except Unreadable as error:
            raise ValueError(str(error)) from None
        if clock is None and self.step is not None:
            said = "no column that is known to say when rows are"
            print(f"{path.name} has {said}: they are taken to be {self.step:g} s apart.", file=sys.stderr)
        x = torch.from_numpy(np.ascontiguousarray(values.T))
        check_shape(path, x.shape, shape, self.time_axis)
        return Loaded(x, replace(self, clock=clock))

    def after(self, x: Float[Tensor, "c n"]) -> "SeriesView":
        return self if self.step is None else replace(self, clock=(self.clock or Clock()).later(self.step * x.shape[1]))

    @property
    def per_second(self) -> float | None:
        return None if self.step is None else 1 / self.step

    def _names(self, channels: int) -> Sequence[str]:
        return self.names or [f"channel {c}" for c in range(channels)]


def _write(columns: Mapping[str, Any], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.table(columns)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        csv.write_csv(table, path)


def _panels(unit: Float[np.ndarray, "c n"], labels: Sequence[str]) -> Image.Image:
    """Each channel's curve in a panel of its own, one below the other."""
    width, height = PANEL_PX
    tile = Image.new("RGB", (width, len(unit) * height), "#f4f4f4")
    draw = ImageDraw.Draw(tile)
    places = np.linspace(0, width - 1, unit.shape[1]).tolist()
    for channel, (values, label) in enumerate(zip(unit, labels, strict=True)):
        top = channel * height
        heights = (top + 11 + (1 - values) * (height - 14)).tolist()
        draw.line(list(zip(places, heights, strict=True)), fill=f"hsl({(215 + channel * 137) % 360},70%,40%)")
        draw.text((2, top), label, fill="#666666")
    return tile

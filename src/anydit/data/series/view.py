"""Time series as people see them: one panel of curves for each channel; and as CSV or Parquet, as the data came."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from anydit.config import config
from anydit.data.base import View
from anydit.data.sheet import sheet

PANEL_PX = (200, 40)
"""Width and height of the panel of one channel."""


@config
class SeriesView(View):
    """Tables of one row for each time, the column "seconds" first where the `step` is known; a panel for each channel.

    Where a channel has that name, the column is "time seconds".

    `names`: of channels. `step`: seconds from row to row. `suffix`: .csv or .parquet. None takes them from the data.
    """

    names: tuple[str, ...] | None = None
    step: float | None = None
    suffix: str | None = None

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
        labels = [f"{name}  {a:.3g} to {b:.3g}" for name, a, b in zip(self._names(x), low, high, strict=True)]
        return sheet([_panels(sample, labels) for sample in unit], captions, columns)

    def write(self, x: Float[Tensor, "b c n"], folder: Path, stem: str = "sample") -> list[Path]:
        suffix = self.suffix or ".csv"
        paths = [folder / f"{stem}-{i:05d}{suffix}" for i in range(len(x))]
        for sample, path in zip(x.float().cpu().numpy(), paths, strict=True):
            columns = dict(zip(self._names(x), sample, strict=True))
            if self.step is not None:
                time = "seconds"
                while time in columns:
                    time = f"time {time}"
                columns = {time: np.arange(sample.shape[1]) * self.step, **columns}
            _write(columns, path)
        return paths

    def _names(self, x: Float[Tensor, "b c n"]) -> Sequence[str]:
        return self.names or [f"channel {c}" for c in range(x.shape[1])]


def _write(columns: dict[str, np.ndarray], path: Path) -> None:
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

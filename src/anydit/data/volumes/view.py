"""Volumes as people see them: three slices through the middle of each; and as NIfTI files, on the data's own grid."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from anydit.config import config
from anydit.data.base import View
from anydit.data.sheet import sheet
from anydit.data.volumes.medical import as_nifti, axes_of, spacing_of

Row = tuple[float, float, float, float]
Affine = tuple[Row, Row, Row]
"""From voxel indices (i, j, k, 1) to places, which run to the right, front and top."""

NOWHERE: Affine = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
UNKNOWN_UNIT = "unknown"
SLICE_PX = 48
"""Slices are enlarged to at least this, so that a person sees them."""


@config
class VolumeView(View):
    """Volumes, written as NIfTI (.nii.gz, float32), shown as slices across each axis, one row for each channel.

    `low`, `high`: the values shown as black and white; None takes them from what is shown, for each channel. `affine`,
    `code`, `unit`, `quantity` (see `Scan`), `names` of channels: None takes them from the data.
    """

    low: float | None = None
    high: float | None = None
    affine: Affine | None = None
    code: int | None = None
    unit: str | None = None
    quantity: str | None = None
    names: tuple[str, ...] | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def length(self) -> str:
        """The unit of places; in files that name none it is mm, by custom."""
        return self.unit if self.unit not in (None, UNKNOWN_UNIT) else "mm"

    @property
    def matrix(self) -> Float[np.ndarray, "4 4"]:
        """The affine, or voxels of size 1 where the data said nothing."""
        return np.array([*(self.affine or NOWHERE), (0.0, 0.0, 0.0, 1.0)])

    def picture(
        self, x: Float[Tensor, "b c i j k"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        values = x.float().cpu().numpy()
        axes = (0, 2, 3, 4)
        low = values.min(axes) if self.low is None else np.full(values.shape[1], self.low)
        high = values.max(axes) if self.high is None else np.full(values.shape[1], self.high)
        span = np.maximum(high - low, 1e-6 * np.maximum(1, np.abs(low)))
        unit = (values - low[:, None, None, None]) / span[:, None, None, None]
        pixels = (unit.clip(0, 1) * 255).round().astype(np.uint8)
        return sheet([self._tile(sample) for sample in pixels], captions, columns)

    def write(self, x: Float[Tensor, "b c i j k"], folder: Path, stem: str = "sample") -> list[Path]:
        paths = [folder / f"{stem}-{i:05d}.nii.gz" for i in range(len(x))]
        about = ", ".join(part for part in (self.quantity, " ".join(self.names or ())) if part)
        for sample, path in zip(x.float().cpu().numpy(), paths, strict=True):
            values = np.moveaxis(sample, 0, -1)
            image = as_nifti(values[..., 0] if len(sample) == 1 else values, self.matrix, self.code or 0,
                             self.unit or UNKNOWN_UNIT, about)  # fmt: skip
            image.to_filename(path)
        return paths

    def planes(self, x: int, y: int, z: int) -> list[tuple[int, int]]:
        """Which slices are shown, by the axes that run to the right and upwards, of those along x, y and z."""
        return [(x, y), (x, z), (y, z)]

    def _tile(self, sample: np.ndarray) -> Image.Image:
        """For each channel a row of slices through the middle, as large as they are in space; head and face are up."""
        letters, spacing = axes_of(self.matrix), spacing_of(self.matrix)
        extent = [n * s for n, s in zip(sample.shape[1:], spacing, strict=True)]
        x, y, z = sorted(range(3), key=lambda axis: "RLAPSI".index(letters[axis]))
        planes = self.planes(x, y, z)
        shown = [axis for plane in planes for axis in plane]
        scale = max(1 / min(spacing[axis] for axis in shown), SLICE_PX / min(extent[axis] for axis in shown))
        long = [ceil(e * scale) for e in extent]
        height = max(long[up] for _, up in planes)
        tile = Image.new("L", (sum(long[right] for right, _ in planes), len(sample) * height))
        back = tuple(axis for axis in range(3) if letters[axis] in "LPI")
        for row, channel in enumerate(np.flip(sample, tuple(axis + 1 for axis in back))):
            left = 0
            for right, up in planes:
                across = 3 - right - up
                pixels = np.moveaxis(channel, (up, right, across), (0, 1, 2))[::-1, :, channel.shape[across] // 2]
                one = Image.fromarray(np.ascontiguousarray(pixels)).resize((long[right], long[up]), Resampling.NEAREST)
                tile.paste(one, (left, row * height + (height - long[up]) // 2))
                left += long[right]
        return tile.convert("RGB")

"""Volumes as people see them: three slices through the middle of each; and as NIfTI files, on the data's own grid."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from math import ceil
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from anydit.config import config
from anydit.data.base import Loaded, View, suffixed
from anydit.data.outside import Unreadable
from anydit.data.reading import check_named, check_shape
from anydit.data.sheet import sheet
from anydit.data.volumes.medical import (
    DICOM,
    NIFTI,
    Scan,
    as_nifti,
    axes_of,
    is_dicom,
    mm_of,
    read_dicom,
    read_nifti,
    respaced,
    series_in,
    spacing_of,
    turned,
)

Row = tuple[float, float, float, float]
Affine = tuple[Row, Row, Row]
"""From voxel indices (i, j, k, 1) to places, which run to the right, front and top."""

SAME = 0.01
"""The part by which spacings may differ that count as the same."""

Side = Literal["left", "right"]

NOWHERE: Affine = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
UNKNOWN_UNIT = "unknown"
SLICE_PX = 48
"""Slices are enlarged to at least this, so that a person sees them."""


def _scan(path: Path) -> Scan:
    """The one scan in a file, or a folder."""
    if not path.is_dir():
        return read_dicom([path]) if is_dicom(path) else read_nifti(path)
    series = series_in(path)
    if len(series) != 1:
        raise Unreadable(f"{len(series)} DICOM series in it, expected one")
    return read_dicom(*series.values())


def rows_of(affine: Float[np.ndarray, "_ 4"]) -> Affine:
    """An affine as a config has it."""
    return cast("Affine", tuple(tuple(row) for row in affine[:3].tolist()))


@config
class VolumeView(View):
    """Volumes, written as NIfTI (.nii.gz, float32), shown as slices across each axis, one row for each channel.

    `low`, `high`: the values shown as black and white; None takes them from what is shown, for each channel. `affine`,
    `code`, `unit`, `quantity` (see `Scan`), `names` of channels, `side`: the half of a body that samples are like,
    where both are mirror images: None takes them from the data.
    """

    low: float | None = None
    high: float | None = None
    affine: Affine | None = None
    code: int | None = None
    unit: str | None = None
    quantity: str | None = None
    names: tuple[str, ...] | None = None
    side: Side | None = field(default=None, repr=False)  # no part of what tells data apart

    suffixes: ClassVar[tuple[str, ...]] = (*NIFTI, *DICOM)

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

    @property
    def mm(self) -> tuple[float, ...]:
        """From voxel to voxel along each axis."""
        return mm_of(self.matrix, self.length)

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

    def save(self, x: Float[Tensor, "c i j k"], path: Path) -> Path:
        path = suffixed(path, ".nii.gz")
        about = ", ".join(part for part in (self.quantity, " ".join(self.names or ())) if part)
        values = x.float().cpu().movedim(0, -1).numpy()
        values = values[..., 0] if len(x) == 1 else values
        as_nifti(values, self.matrix, self.code or 0, self.unit or UNKNOWN_UNIT, about).to_filename(path)
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """A NIfTI file, or a DICOM series (a file, or alone in a folder), on axes and with the spacing of the data.

        It lies where the file says. What is brought to another spacing is told.
        """
        if not path.is_dir():
            check_named(path, self.suffixes)
        try:
            scan = self._brought(path, _scan(path))
        except Unreadable as error:
            raise ValueError(f"got {path}: {error}") from None
        if len(scan.values) != 1:
            raise ValueError(f"got {path} of {len(scan.values)} volumes, expected one")
        check_shape(path, scan.values.shape[1:], shape)
        view = replace(self, affine=rows_of(scan.affine), code=scan.code, unit=scan.unit)
        return Loaded(torch.from_numpy(scan.values[0]), view)

    def at(self, told: Mapping[str, float], size: Sequence[int]) -> "VolumeView":
        """The middle of the sample is where the numbers x, y, z, or |x|, y, z in `length` say that it is."""
        x, y, z, off = (told.get(f"{axis} in {self.length}") for axis in ("x", "y", "z", "|x|"))
        if x is None and off is not None and self.side is not None:
            x = off if self.side == "right" else -off
        if x is None or y is None or z is None:
            return self
        turn = self.matrix[:3, :3]
        corner = np.array([x, y, z]) - turn @ (np.array(size) - 1) / 2
        return replace(self, affine=rows_of(np.column_stack([turn, corner])))

    def _brought(self, path: Path, scan: Scan) -> Scan:
        """A scan as those that the data were, where they said anything."""
        if self.affine is None:
            return scan
        scan = turned(scan, axes_of(self.matrix)) if self.code else scan
        own, wanted = mm_of(scan.affine, scan.unit), self.mm
        if np.allclose(own, wanted, rtol=SAME):
            return scan
        before, after = (" x ".join(f"{s:.3g}" for s in each) for each in (own, wanted))
        print(f"{path.name} is brought from voxels of {before} mm to {after} mm.", file=sys.stderr)
        return respaced(scan, wanted)

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

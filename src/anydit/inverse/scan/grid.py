"""Scans onto a model's grid, and what is found there back onto the scan's own: every value at its place in the body."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anydit.data import SliceView, View, VolumeView
from anydit.data.volumes.medical import Scan, as_nifti, axes_of, mm_of, respaced, spacing_of, turned
from anydit.data.volumes.slices import centered, plane_of
from anydit.data.volumes.view import SAME


@dataclass(frozen=True)
class Grid:
    """How a scan comes to samples of `size`: turned to `axes`, brought to `spacing` in mm, taken apart across an axis.

    Each None leaves the scan as it is; without `across` samples are whole volumes.
    """

    size: tuple[int, ...]
    across: int | None
    axes: str | None
    spacing: tuple[float, ...] | None

    @classmethod
    def of(cls, view: View, size: tuple[int, ...]) -> "Grid":
        """That of the data that a model was trained on, as its view tells."""
        across = view.across if isinstance(view, SliceView) else 2 if len(size) == 2 else None
        if not isinstance(view, VolumeView) or view.affine is None:
            return cls(size, across, None, None)
        return cls(size, across, axes_of(view.matrix) if view.code else None, view.mm)

    def own_across(self, scan: Scan) -> int | None:
        """The scan's own axis that slices follow each other along."""
        if self.across is None or self.axes is None:
            return self.across
        pairs = ["LRPAIS".index(letter) // 2 for letter in axes_of(scan.affine)]
        return pairs.index("LRPAIS".index(self.axes[self.across]) // 2)

    def forth(self, scan: Scan) -> Float[Tensor, "n c *size"]:
        """Samples of the scan.

        Raises:
            Unreadable: the file does not say where its axes run to, and the model's data did.
        """
        values = self._placed(scan).values
        x = values if self.across is None else _slices(values, self.across)
        return torch.from_numpy(np.stack([centered(each, self.size, float(values.min())) for each in x]))

    def back(self, x: Float[Tensor, "n c *size"], scan: Scan, air: float) -> Scan:
        """The scan with values from samples; beyond what samples show they are `air`."""
        there, (own, _) = self._placed(scan), self._turned(scan)
        size = there.values.shape[2:]
        plane = size if self.across is None else plane_of(size, self.across)
        whole = np.stack([centered(each, plane, air) for each in x.numpy()])
        if self.across is not None:
            whole = np.moveaxis(whole, 0, self.across + 1)[None]
        values = _sampled(whole, spacing_of(there.affine), own.values.shape[2:], spacing_of(own.affine))
        result = replace(own, values=values)
        return result if self.axes is None else replace(turned(result, axes_of(scan.affine)), affine=scan.affine)

    def told(self, scan: Scan) -> str:
        """What becomes of the scan on its way, in a sentence; empty where nothing does."""
        own, spacing = self._turned(scan)
        lines = list[str]()
        if spacing is not None:
            before, after = (" x ".join(f"{s:.3g}" for s in each) for each in (mm_of(own.affine, own.unit), spacing))
            lines.append(f"brought from {before} to {after} mm and back")
        there = self._placed(scan).values.shape[2:]
        plane = there if self.across is None else plane_of(there, self.across)
        shown = tuple(min(n, m) for n, m in zip(plane, self.size, strict=True))
        if shown != plane:
            lines.append(f"of {plane} voxels the middle {shown} are reconstructed")
        if shown != self.size:
            lines.append(f"{shown} voxels are filled up with air to the model's {self.size}")
        return "; ".join(lines)

    def _turned(self, scan: Scan) -> tuple[Scan, tuple[float, ...] | None]:
        """The scan along the model's axes, and the spacing to bring it to, if that is another."""
        scan = scan if self.axes is None else turned(scan, self.axes)
        if self.spacing is None:
            return scan, None
        own = mm_of(scan.affine, scan.unit)
        wanted = tuple(
            o if axis == self.across else s for axis, (o, s) in enumerate(zip(own, self.spacing, strict=True))
        )
        return scan, None if np.allclose(own, wanted, rtol=SAME) else wanted

    def _placed(self, scan: Scan) -> Scan:
        scan, spacing = self._turned(scan)
        return scan if spacing is None else respaced(scan, spacing)


def cut(scan: Scan, axis: int, first: int, last: int) -> Scan:
    """The slices from `first` to `last` along an axis, at their places.

    Raises:
        ValueError: there are no such slices.
    """
    count = scan.values.shape[2 + axis]
    if not 0 <= first <= last < count:
        raise ValueError(f"slices: got {first} to {last}, expected some of the scan's, which are 0 to {count - 1}")
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * first
    return replace(scan, values=np.ascontiguousarray(scan.values.take(range(first, last + 1), 2 + axis)), affine=affine)


def write_nifti(scan: Scan, path: Path, about: str = "") -> None:
    """The first volume of a scan as a NIfTI file."""
    values = np.moveaxis(scan.values[0], 0, -1).astype(np.float32)
    values = values[..., 0] if values.shape[-1] == 1 else values
    as_nifti(values, scan.affine, scan.code, scan.unit, about or scan.quantity).to_filename(path)


def one_each(files: Sequence[Path], slices: int) -> bool:
    """Whether there is a DICOM file for each slice, as `write_dicom` wants it; a file of frames has no place."""
    if len(files) != slices:
        return False
    import pydicom

    tag = "ImagePositionPatient"
    return all(tag in pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[tag]) for file in files)


def write_dicom(scan: Scan, like: Sequence[Path], folder: Path, about: str) -> list[Path]:
    """A series of the slices `like`, each with its own tags and values of `scan`, in the order in which it was read.

    Values are rounded to the steps in which the slices are stored, and to the range that these have.
    """
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    slices: list[Any] = [pydicom.dcmread(file) for file in like]
    across, down = np.split(np.asarray(slices[0].ImageOrientationPatient, np.float64), 2)
    slices.sort(key=lambda s: float(np.dot(np.asarray(s.ImagePositionPatient, np.float64), np.cross(across, down))))
    series, paths = generate_uid(), list[Path]()
    if len(slices) != scan.values.shape[-1]:
        raise ValueError(
            f"out: got {len(slices)} DICOM files for {scan.values.shape[-1]} slices, expected one for each"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for k, one in enumerate(slices):
        bits, signed = int(one.BitsStored), bool(one.PixelRepresentation)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        stored = (scan.values[0, 0, :, :, k].T - float(one.get("RescaleIntercept", 0))) / float(
            one.get("RescaleSlope", 1)
        )
        kind = np.dtype(f"{'i' if signed else 'u'}{int(one.BitsAllocated) // 8}").newbyteorder("<")
        one.PixelData = np.ascontiguousarray(stored.round().clip(low, high).astype(kind)).tobytes()
        one["PixelData"].VR = "OW"
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SeriesInstanceUID, one.SOPInstanceUID = series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.SeriesDescription, one.ImageType = about[:64], ["DERIVED", "SECONDARY"]
        paths.append(folder / f"{k:05d}.dcm")
        one.save_as(paths[-1], enforce_file_format=True)
    return paths


def described(file: Path) -> str:
    """What a DICOM file says of its series; nothing of what is none."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return str(pydicom.dcmread(file, stop_before_pixels=True).get("SeriesDescription", ""))
    except InvalidDicomError:
        return ""


def _slices(values: Float[np.ndarray, "volumes c i j k"], across: int) -> Float[np.ndarray, "n c h w"]:
    moved = np.moveaxis(values, across + 2, 1)
    return moved.reshape(-1, *moved.shape[2:])


def _sampled(
    values: Float[np.ndarray, "volumes c i j k"], spacing: Sequence[float], size: Sequence[int], own: Sequence[float]
) -> Float[np.ndarray, "volumes c i2 j2 k2"]:
    """Values on a grid of another spacing and size that begins at the same voxel; between voxels linear."""
    if values.shape[2:] == tuple(size):
        return np.ascontiguousarray(values)
    lines = [torch.arange(n) * (o / s) * 2 / max(m - 1, 1) - 1
             for n, m, o, s in zip(size, values.shape[2:], own, spacing, strict=True)]  # fmt: skip
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1).float()
    x = torch.from_numpy(np.ascontiguousarray(values))
    out = F.grid_sample(x, grid[None].expand(len(x), -1, -1, -1, -1), padding_mode="border", align_corners=True)
    return out.numpy()

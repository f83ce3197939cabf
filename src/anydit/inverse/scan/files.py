"""What there is to reconstruct, as files have it: scans, pictures and arrays; k-space in HDF5 is read by hdf5.py."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from anydit.data.outside import Unreadable
from anydit.data.reading import npy_in
from anydit.data.volumes.medical import DICOM, NIFTI, Scan, read_dicom, read_nifti, series_in
from anydit.inverse.scan.hdf5 import read_hdf5
from anydit.inverse.scan.kspace import KSpace, kspace

PICTURES, HDF5, NUMPY = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"), (".h5", ".hdf5"), ".npy"


@dataclass(frozen=True)
class Series:
    """A scan, and the DICOM files that it was read from, if it was."""

    scan: Scan
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture, `[1 c h w]`, whose black is 0 and whose white is 1."""

    x: Tensor


@dataclass(frozen=True)
class Array:
    """Numbers of any meaning."""

    x: Tensor


def read(path: Path, axes: int) -> Series | Picture | Array | KSpace:
    """What a file, or a folder of DICOM slices, holds; `axes`: of space, that a sample of the model has.

    Complex numbers in a NumPy file are k-space, `[n (coils) *space]` or `[*space]`.

    Raises:
        ValueError: it is not there, cannot be read, or is of no kind that is known here.
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    if not path.exists():
        raise ValueError(f"scan: got {path}, which is not there; expected a file, or a folder of DICOM slices")
    try:
        if path.is_dir() or suffix in DICOM:
            return _dicom(path)
        if name.endswith(NIFTI):
            return Series(_finite(read_nifti(path)))
        if suffix in PICTURES:
            return Picture(_picture(path))
        if suffix in HDF5:
            return read_hdf5(path, axes)
        if suffix == NUMPY:
            return _numpy(path, axes)
    except (Unreadable, OSError) as error:
        raise ValueError(f"scan: got {path}, which cannot be read: {error}") from None
    kinds = f"{', '.join(NIFTI)}, a folder of DICOM slices, {NUMPY}, {', '.join(HDF5)} (k-space), {PICTURES[0]}"
    raise ValueError(f"scan: got {path}, expected one of: {kinds}")


def array(path: Path, field: str) -> Shaped[np.ndarray, "..."]:
    """The numbers in a NumPy file.

    Raises:
        ValueError: it holds none.
    """
    try:
        values = npy_in(path)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
    if values.dtype.kind not in "biufc":
        raise ValueError(f"{field}: got values of {values.dtype} in {path}, expected numbers")
    return values


def _numpy(path: Path, axes: int) -> Array | KSpace:
    values = array(path, "scan")
    if values.dtype.kind == "c":
        return kspace(torch.from_numpy(values.astype(np.complex64)), axes)
    return Array(torch.from_numpy(values.astype(np.float32)))


def _picture(path: Path) -> Tensor:
    with Image.open(path) as image:
        deep = image.mode == "I" or image.mode.startswith("I;16")
        pixels = np.asarray(image if deep or image.mode == "F" else image.convert(_shown_as(image)), np.float32)
        white = 65535 if deep else 255
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > white:
            raise ValueError(
                f"scan: got {path} with values from {pixels.min():.4g} to {pixels.max():.4g}, and nothing says what is "
                f"black and white; expected a picture of 8 or 16 bits, or these values in a {NUMPY} file"
            )
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels / white).movedim(-1, 0)[None]


def _shown_as(image: Image.Image) -> str:
    """The mode, of those with 8 bits, that has the channels that are in a picture."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image.mode
    if image.mode == "P":
        palette = np.reshape(image.getpalette("RGB") or (), (-1, 3))
        return "L" if bool((palette == palette[:, :1]).all()) else "RGB"
    return "L" if image.mode in ("1", "LA") else "RGB"


def _dicom(path: Path) -> Series:
    found = series_in(path) if path.is_dir() else {path.name: [path]}
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise ValueError(f"scan: got {path} with the DICOM series {names}, expected a folder of one series")
    (files,) = found.values()
    return Series(_finite(read_dicom(files)), tuple(files))


def _finite(scan: Scan) -> Scan:
    bad = int((~np.isfinite(scan.values)).sum())
    if bad:
        raise ValueError(f"scan: got NaN or infinity in {bad} voxels, expected finite values")
    if len(scan.values) != 1:
        raise ValueError(f"scan: got {len(scan.values)} volumes, expected one")
    return scan

"""What there is to reconstruct, as files have it: scans, pictures and arrays, and k-space in fastMRI's layout."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from anydit.data.outside import Unreadable
from anydit.data.volumes.medical import DICOM, NIFTI, Scan, read_dicom, read_nifti, series_in
from anydit.inverse.scan.kspace import KSpace, measured_of

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
            return fastmri(path, axes)
        if suffix == NUMPY:
            return _numpy(path, axes)
    except (Unreadable, OSError) as error:
        raise ValueError(f"scan: got {path}, which cannot be read: {error}") from None
    kinds = (
        f"{', '.join(NIFTI)}, a folder of DICOM slices, {NUMPY}, {', '.join(HDF5)} (fastMRI's k-space), {PICTURES[0]}"
    )
    raise ValueError(f"scan: got {path}, expected one of: {kinds}")


def array(path: Path, field: str) -> Shaped[np.ndarray, "..."]:
    """The numbers in a NumPy file.

    Raises:
        ValueError: it holds none.
    """
    try:
        with path.open("rb") as stream:
            values = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{field}: got {path}, which cannot be read as an array of NumPy ({error})") from None
    if values.dtype.kind not in "biufc":
        raise ValueError(f"{field}: got values of {values.dtype} in {path}, expected numbers")
    return values


def kspace(
    y: Tensor, axes: int, mask: Tensor | None = None, truth: Tensor | None = None,
    spacing: tuple[float, ...] | None = None,
) -> KSpace:  # fmt: skip
    """Complex numbers `[n (coils) *space]` or `[*space]` as k-space; the mask is given, or its zeros tell it.

    Raises:
        ValueError: another number of axes, values that are not finite, or a mask that measures nothing, is of another
            size, or leaves out what was measured.
    """
    if not axes <= y.ndim <= axes + 2:
        size = ", ".join("dhw"[-axes:])
        raise ValueError(f"k-space: got shape {tuple(y.shape)}, expected [n, coils, {size}], [n, {size}] or [{size}]")
    if not bool(torch.view_as_real(y.resolve_conj()).isfinite().all()):
        raise ValueError("k-space: got NaN or infinity, expected finite values")
    y = y.reshape(-1, y.shape[-axes - 1] if y.ndim == axes + 2 else 1, *y.shape[-axes:]).to(torch.complex64)
    found = measured_of(y)
    if mask is not None:
        mask = checked_mask(mask, tuple(y.shape[2:]))
        found, y = mask, y * mask
        measured_of(y)
    return KSpace(y, found, truth, spacing)


def checked_mask(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """A mask of places, or of columns, for k-space of a size.

    Raises:
        ValueError: it is of another size, or measures nothing.
    """
    mask = mask != 0
    if tuple(mask.shape) not in (size, size[-1:]):
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected {size}, or {size[-1:]} for columns")
    if not bool(mask.any()):
        raise ValueError("mask: got one that measures nothing, expected that it is not 0 somewhere")
    return mask.expand(size)


def fastmri(path: Path, axes: int = 2) -> KSpace:
    """k-space in the layout of fastMRI (Zbontar 2018, arXiv 1811.08839).

    `kspace`, `[slices, (coils,) h, w]`; where the file has them also `mask`, of columns, `reconstruction_esc` or
    `reconstruction_rss`, and `ismrmrd_header`, which tells the spacing.

    Raises:
        ValueError: the file is of another layout.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError("scan: HDF5 files need h5py, which is missing; pip install 'anydit[fields]'") from None
    with h5py.File(path, "r") as file:
        content: Any = file
        if "kspace" not in content:
            have = ", ".join(content) or "nothing"
            ismrmrd = "; ISMRMRD's own files are not read: convert them" if "dataset" in content else ""
            raise ValueError(f"scan: got {path} with {have}, expected kspace, as fastMRI's files have{ismrmrd}")
        y = np.asarray(content["kspace"])
        if y.dtype.kind != "c":
            raise ValueError(f"kspace: got {y.dtype} in {path}, expected complex numbers")
        mask = torch.from_numpy(np.asarray(content["mask"]).astype(bool)) if "mask" in content else None
        shown = next((n for n in ("reconstruction_rss", "reconstruction_esc") if n in content), None)
        truth = torch.from_numpy(np.asarray(content[shown], np.float32))[:, None] if shown else None
        header = bytes(content["ismrmrd_header"][()]).decode(errors="replace") if "ismrmrd_header" in content else ""
    return kspace(torch.from_numpy(y), axes, mask, truth, _spacing(header))


def _spacing(header: str) -> tuple[float, ...] | None:
    """From pixel to pixel along h, w and slices in mm, as an ISMRMRD header tells of the space that is encoded."""
    found = re.search(r"<encodedSpace>(.*?)</encodedSpace>", header, re.DOTALL)
    if found is None:
        return None
    numbers = dict[str, float]()
    for block in ("matrixSize", "fieldOfView_mm"):
        inner = re.search(rf"<{block}>(.*?)</{block}>", found[1], re.DOTALL)
        for axis in "xyz":
            value = re.search(rf"<{axis}>\s*([0-9.eE+-]+)\s*</{axis}>", inner[1]) if inner else None
            numbers[block + axis] = float(value[1]) if value else 0.0
    if min(numbers.values()) <= 0:
        return None
    return tuple(numbers["fieldOfView_mm" + axis] / numbers["matrixSize" + axis] for axis in "xyz")


def _numpy(path: Path, axes: int) -> Array | KSpace:
    values = array(path, "scan")
    if values.dtype.kind == "c":
        return kspace(torch.from_numpy(values.astype(np.complex64)), axes)
    return Array(torch.from_numpy(values.astype(np.float32)))


def _picture(path: Path) -> Tensor:
    with Image.open(path) as image:
        shown = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB" if image.mode != "1" else "L")
        pixels = np.asarray(shown, np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels / 255).movedim(-1, 0)[None]


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

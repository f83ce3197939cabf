"""Volumes in medical formats, NIfTI files and DICOM series, with where each voxel lies in the body."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Shaped

from anydit.data.folders import files_in
from anydit.data.outside import Unreadable
from anydit.data.volumes.frames import Slice, slices_of
from anydit.data.volumes.stack import orientation, step_of

NIFTI = (".nii", ".nii.gz")
"""Names of NIfTI files, in lower case."""

DICOM, MAGIC = (".dcm", ".ima"), b"DICM"
"""Names of DICOM files, in lower case, where they have any; and what stands in them after 128 bytes."""

MOST_VALUES = 2**30
"""No larger file is read: a small one that is gzipped can hold far more."""

PER_MM = {"meter": 1e-3, "micron": 1e3}
"""How many of a unit make a millimetre; places of any other are in mm, by custom."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's coordinates run to the left and to the back, NIfTI's to the right and to the front."""


@dataclass(frozen=True)
class Scan:
    """Volumes `[volumes, c, i, j, k]` on one grid, and what their file says of it.

    `affine`: from indices (i, j, k, 1) to places, which run to the right, front and top, in `unit`. `code`: what the
    places are relative to, as NIfTI numbers it; 0 says that nothing is known of them but the spacing. `quantity`: what
    the values are, such as HU.
    """

    values: Float32[np.ndarray, "volumes c i j k"]
    affine: Float[np.ndarray, "4 4"]
    code: int
    unit: str
    quantity: str = ""


def spacing_of(affine: Float[np.ndarray, "4 4"]) -> tuple[float, ...]:
    """From voxel to voxel along each axis."""
    return tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())


def mm_of(affine: Float[np.ndarray, "4 4"], unit: str) -> tuple[float, ...]:
    """From voxel to voxel along each axis in mm, of places in `unit`; what names none is in mm, by custom."""
    return tuple(each / PER_MM.get(unit, 1.0) for each in spacing_of(affine))


def axes_of(affine: Float[np.ndarray, "4 4"]) -> str:
    """Where each axis runs to, of L(eft) R(ight), P(osterior) A(nterior), I(nferior) S(uperior): "RAS"."""
    return "".join(_nibabel().aff2axcodes(affine))


def read_nifti(path: Path, frames: bool = False) -> Scan:
    """A NIfTI file. Its fourth axis, or a fifth, is that of channels, or with `frames` of one volume after the other.

    Raises:
        Unreadable: it is none, damaged, holds no real numbers, or its places are no grid in space.
    """
    nibabel = _nibabel()
    try:
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise Unreadable(f"a file of {type(image).__name__}, expected NIfTI")
        header, shape = image.header, tuple(image.shape)
        if len(shape) == 5 and shape[3] == 1:
            shape = (*shape[:3], shape[4])
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise Unreadable(f"shape {image.shape}, expected three axes, or four")
        if int(np.prod(shape, dtype=np.float64)) > MOST_VALUES:
            raise Unreadable(f"shape {image.shape}, expected at most {MOST_VALUES // 10**6} million values")
        if image.get_data_dtype().kind not in "iuf":
            raise Unreadable(f"values of {image.get_data_dtype()}, expected real numbers")
        values = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(*shape[:3], -1)
        affine, unit = np.asarray(image.affine, np.float64), cast("str", header.get_xyzt_units()[0])
        code = int(header["sform_code"]) or int(header["qform_code"])
    except Unreadable:
        raise
    except Exception as error:  # a damaged file makes nibabel raise nearly anything
        _unreadable(error)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * np.prod(spacing_of(affine)):
        raise Unreadable(f"the affine {affine.tolist()}, which gives voxels no place; expected one of full rank")
    moved = np.ascontiguousarray(values.transpose(3, 0, 1, 2))
    return Scan(moved[:, None] if frames else moved[None], affine, code, unit)


def read_dicom(files: Sequence[Path]) -> Scan:
    """The slices of one DICOM series, one in each file or many, in any order, on the scanner's own scale (HU for CT).

    Raises:
        Unreadable: slices are missing or there twice, do not make a volume of grey values, or cannot be decoded.
    """
    pydicom = _pydicom()
    slices = list[Slice]()
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of files that are read all the same
                slices += slices_of(pydicom.dcmread(file))
        except Unreadable:
            raise
        except Exception as error:
            _unreadable(error, f"{file.name}: ")
    across, down = orientation(slices)
    normal = np.cross(across, down)
    slices.sort(key=lambda s: float(np.dot(s.floats("ImagePositionPatient"), normal)))
    step, first = step_of(slices, normal), slices[0]
    between_rows, between_columns = first.floats("PixelSpacing")
    affine = np.eye(4)
    affine[:3] = np.stack(
        [across * between_columns, down * between_rows, step, first.floats("ImagePositionPatient")], axis=1
    )
    if len(slices) * int(first.get("Rows")) * int(first.get("Columns")) > MOST_VALUES:
        raise Unreadable(f"{len(slices)} slices, expected at most {MOST_VALUES // 10**6} million values")
    values = np.stack([s.values().T for s in slices], axis=-1)
    return Scan(values[None, None], LPS_TO_RAS @ affine, 1, "mm", first.quantity)


def series_in(folder: Path) -> dict[str, list[Path]]:
    """The DICOM files at any depth in a folder, by series: the folder that holds all of it (and of several, the UID).

    What is named like DICOM, or begins like it, but tells of no series is in all of its folder: whose slice it was
    nobody knows. What neither is named nor begins so is no DICOM file, and passed over.
    """
    found, lost = dict[str, list[Path]](), list[Path]()
    for file in files_in(folder):
        if not _may_be_dicom(file) or not (file.is_file() or file.is_symlink()):
            continue
        try:
            uid = _series_uid(file)
        except Exception:  # a damaged file makes pydicom raise nearly anything
            if not is_dicom(file):
                continue
            uid = ""
        (found.setdefault(uid, []) if uid else lost).append(file)
    folders = {uid: {file.parent for file in files} for uid, files in found.items()}
    series = {(Path(commonpath(folders[uid])), uid): files for uid, files in found.items()}
    for file in lost:
        for key in [key for key in series if file.parent in folders.get(key[1], ())] or [(file.parent, "")]:
            series.setdefault(key, []).append(file)
    tops = [top for top, _ in series]
    return {
        (top if tops.count(top) == 1 else top / uid).relative_to(folder).as_posix(): files
        for (top, uid), files in series.items()
    }


def _series_uid(file: Path) -> str:
    """Empty where the file ends before it, or amid: a part of a UID would be a series of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = _pydicom().dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        raw = head.get_item("SeriesInstanceUID") if "SeriesInstanceUID" in head else None
        return str(head.SeriesInstanceUID) if raw and len(raw.value or b"") == raw.length else ""


def turned(scan: Scan, axes: str) -> Scan:
    """The same voxels in the same places, with axes that run to where `axes` says: flipped and swapped, nothing else.

    Raises:
        Unreadable: the file does not say where its axes run to.
    """
    if scan.code == 0:
        raise Unreadable(f"a file that says nothing of its orientation, expected one to be turned to {axes}")
    orientations = _nibabel().orientations
    now, then = orientations.io_orientation(scan.affine), orientations.axcodes2ornt(axes)
    how = orientations.ornt_transform(now, then)
    values = orientations.apply_orientation(np.moveaxis(scan.values, (0, 1), (-2, -1)), how)
    affine = scan.affine @ orientations.inv_ornt_aff(how, scan.values.shape[2:])
    return replace(scan, values=np.ascontiguousarray(np.moveaxis(values, (-2, -1), (0, 1))), affine=affine)


def respaced(scan: Scan, spacing: Sequence[float]) -> Scan:
    """The volume on a grid of another spacing, by linear interpolation between voxels; the first voxel stays in place.

    `spacing`: in mm, whatever the unit of the scan. To a wider one the voxels are first smoothed over what one of the
    new ones covers.
    """
    unit = PER_MM.get(scan.unit, 1.0)
    factors = [unit * new / old for new, old in zip(spacing, spacing_of(scan.affine), strict=True)]
    if all(abs(factor - 1) < 1e-4 for factor in factors):
        return scan
    x = torch.from_numpy(scan.values)
    for axis, factor in enumerate(factors):
        x = _smoothed(x, axis + 2, factor)
    lines = [torch.arange(int((n - 1) / f + 1e-4) + 1) * f * 2 / max(n - 1, 1) - 1
             for n, f in zip(x.shape[2:], factors, strict=True)]  # fmt: skip
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1).float()
    out = F.grid_sample(x, grid[None].expand(len(x), -1, -1, -1, -1), padding_mode="border", align_corners=True)
    return replace(scan, values=out.numpy(), affine=scan.affine @ np.diag([*factors, 1.0]))


def _smoothed(x: torch.Tensor, axis: int, factor: float) -> torch.Tensor:
    """A Gaussian along one axis, as wide as takes what a grid coarser by `factor` cannot hold."""
    if factor <= 1:
        return x
    deviation = 0.5 * (factor**2 - 1) ** 0.5
    reach = int(3 * deviation + 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    lines = x.movedim(axis, -1)
    padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None]).reshape(lines.shape).movedim(-1, axis).contiguous()


def is_dicom(file: Path) -> bool:
    """Whether a file is named like DICOM, or begins like it; one that cannot be looked at may be."""
    if not _may_be_dicom(file):
        return False
    if file.suffix.lower() in DICOM:
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == MAGIC
    except OSError:
        return True


def _may_be_dicom(file: Path) -> bool:
    """By its name: DICOM files often have none but a number; their index is no slice."""
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    return file.suffix.lower() in ("", *DICOM) or file.suffix[1:].isdigit()


def _unreadable(error: Exception, where: str = "") -> NoReturn:
    why = str(error) or type(error).__name__
    raise Unreadable(where + why.splitlines()[0]) from None


def _nibabel() -> Any:
    try:
        import nibabel
        import nibabel.orientations
    except ImportError:
        raise ValueError("data: NIfTI files need nibabel, which is missing; pip install 'anydit[volumes]'") from None
    return nibabel


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise ValueError("data: DICOM files need pydicom, which is missing; pip install 'anydit[volumes]'") from None
    return pydicom


def as_nifti(
    values: Shaped[np.ndarray, "..."], affine: Float[np.ndarray, "4 4"], code: int, unit: str, about: str
) -> Any:
    """A NIfTI image of values `[i j k]` or `[i j k c]`; `affine`, `code` and `unit` as in `Scan`; `about`: in words."""
    image: Any = _nibabel().Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    image.header["descrip"] = about.encode()[:79]
    image.set_qform(affine, code, strip_shears=True)
    image.set_sform(affine, code)
    return image

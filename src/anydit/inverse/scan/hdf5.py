"""k-space in HDF5: slices in the layout of fastMRI, and which files hold raw lines, as raw.py reads them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anydit.inverse.scan.kspace import KSpace, kspace
from anydit.inverse.scan.place import Place


def read_hdf5(path: Path, axes: int) -> KSpace:
    """k-space in either layout; `axes`: of space, that a sample of the model has.

    Raises:
        ValueError: the file is of another layout, or what it holds cannot be read as one image after the other.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError("scan: HDF5 files need h5py, which is missing; pip install 'anydit[inverse]'") from None
    with h5py.File(path, "r") as file:
        if "kspace" in file:
            return fastmri(file, axes)
        raw = [name for name, group in file.items() if isinstance(group, h5py.Group) and "data" in group]
        have = ", ".join(file) or "nothing"
    if len(raw) != 1:
        raise ValueError(f"scan: got {path} with {have}, expected kspace, as fastMRI has it, or one ISMRMRD dataset")
    try:
        from anydit.inverse.scan.raw import read_raw
    except ImportError:
        raise ValueError("scan: raw lines need ismrmrd, which is missing; pip install 'anydit[inverse]'") from None
    return read_raw(path, raw[0], axes)


def fastmri(content: Any, axes: int) -> KSpace:
    """An open file in the layout of fastMRI (Zbontar 2018, arXiv 1811.08839).

    `kspace`, `[slices, (coils,) h, w]`; where the file has them also `mask`, of columns, `reconstruction_esc` or
    `reconstruction_rss`, and `ismrmrd_header`, which tells the spacing.

    Raises:
        ValueError: samples have other axes than slices, or k-space is not complex, or of a shape or with a mask that
            are refused by `kspace`.
    """
    if axes != 2:
        raise ValueError(f"kspace: got slices in {content.filename}, expected a model of slices, not of {axes} axes")
    y = np.asarray(content["kspace"])
    if y.dtype.kind != "c":
        raise ValueError(f"kspace: got {y.dtype} in {content.filename}, expected complex numbers")
    mask = torch.from_numpy(np.asarray(content["mask"]).astype(bool)) if "mask" in content else None
    shown = next((n for n in ("reconstruction_rss", "reconstruction_esc") if n in content), None)
    truth = torch.from_numpy(np.asarray(content[shown], np.float32))[:, None] if shown else None
    header = bytes(content["ismrmrd_header"][()]).decode(errors="replace") if "ismrmrd_header" in content else ""
    return kspace(torch.from_numpy(y), axes, mask, truth, _place(header, y.shape[-2:]))


def _place(header: str, size: tuple[int, ...]) -> Place | None:
    """The spacing of k-space of a size along h, w and slices, by its field of view in mm, as an ISMRMRD header has it.

    Of k-space that was padded or cut the header's matrix is not the size; from slice to slice it tells the thickness.
    """
    found = re.search(r"<encodedSpace>(.*?)</encodedSpace>", header, re.DOTALL)
    fields, counts = (_xyz(found[1] if found else "", block) for block in ("fieldOfView_mm", "matrixSize"))
    if len(size) != 2 or min(*fields, *counts) <= 0:
        return None
    return Place.spaced([mm / n for mm, n in zip(fields, (*size, counts[2]), strict=True)])


def _xyz(text: str, block: str) -> tuple[float, ...]:
    """The numbers along x, y and z in a block of a header; 0 where there are none."""
    inner = re.search(rf"<{block}>(.*?)</{block}>", text, re.DOTALL)
    each = (re.search(rf"<{axis}>\s*([0-9.eE+-]+)\s*</{axis}>", inner[1] if inner else "") for axis in "xyz")
    return tuple(float(value[1]) if value else 0.0 for value in each)

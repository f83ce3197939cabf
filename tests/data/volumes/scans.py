"""Volumes in files as others write them."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

AFFINE = np.array([[0, 0, -2.0, 40], [-1.5, 0, 0, 30], [0, 3.0, 0, -20], [0, 0, 0, 1]])
"""Axes to the back, the top and the left, 1.5 x 3 x 2 mm."""


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, code: int = 1, unit: str = "mm") -> Path:
    image: Any = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units(unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def dicom(folder: Path, array: np.ndarray, across: Any, down: Any, step: Any, **tags: Any) -> Path:
    """A series of slices `[rows, columns, slices]` of stored values, 0.5 mm between rows and 0.25 between columns."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    order = np.random.default_rng(1).permutation(array.shape[2])
    for name, k in enumerate(order.tolist()):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one: Any = FileDataset(str(folder / f"{name}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.Modality, one.SliceThickness = series, "CT", 2.0
        one.Rows, one.Columns = array.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.PixelSpacing = [0.5, 0.25]
        one.ImageOrientationPatient = [*across, *down]
        one.ImagePositionPatient = [float(v) for v in np.array([1, 2, 3]) + k * np.array(step)]
        one.RescaleSlope, one.RescaleIntercept = 2, -1024
        one.PixelData = array[:, :, k].astype(np.int16).tobytes()
        for tag, value in tags.items():
            setattr(one, tag, value)
        one.save_as(folder / f"{name}.dcm")
    return folder


def enhanced(file: Path, series: Path) -> Path:
    """The slices of a series by `dicom` as the frames of one file, as Enhanced CT has them, in the order of names."""
    slices: list[Any] = [pydicom.dcmread(each) for each in sorted(series.glob("*.dcm"))]
    out, meta = slices[0], slices[0].file_meta
    out.SOPClassUID = meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    out.NumberOfFrames, out.PixelData = len(slices), b"".join(each.PixelData for each in slices)
    shared, frames = Dataset(), list[Dataset]()
    for name, tags in GROUPS.items():
        groups = [_moved(each, tags) for each in slices]
        if name == "PlanePositionSequence":
            frames = [_with(Dataset(), name, group) for group in groups]
        else:
            _with(shared, name, groups[0])
    out.SharedFunctionalGroupsSequence, out.PerFrameFunctionalGroupsSequence = [shared], frames
    out.save_as(file)
    return file


GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""The functional groups of Enhanced CT (DICOM PS3.3 A.38.1.4), and what is in them."""


def _moved(one: Dataset, tags: tuple[str, ...]) -> Dataset:
    """A group of a slice's tags, which the slice has no longer."""
    out = Dataset()
    for tag in tags:
        out.add(one[tag])
        delattr(one, tag)
    return out


def _with(out: Dataset, name: str, group: Dataset) -> Dataset:
    setattr(out, name, [group])
    return out


def shipped(*parts: str) -> Path:
    """A real file or folder of pydicom's."""
    return Path(pydicom.__file__).parent.joinpath("data", "test_files", "dicomdirtests", *parts)


def real(name: str) -> Path:
    """One of pydicom's real files."""
    return Path(pydicom.__file__).parent / "data" / "test_files" / name

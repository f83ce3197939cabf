"""Slices that are compressed, and those that are frames of one file."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import MPEG2MPML, UID, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from anydit.data import Volumes, Whole
from anydit.data.outside import Unreadable
from anydit.data.volumes.frames import slices_of
from anydit.data.volumes.medical import read_dicom, series_in, spacing_of
from tests.data.volumes.scans import dicom, enhanced, real

ACROSS, DOWN, STEP = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0]), np.array([-1.2, 1.6, 0.0])


def series(folder: Path) -> Path:
    """Slices that stand askew, in files out of order."""
    return dicom(folder, np.random.default_rng(0).integers(0, 2000, (5, 7, 4)), ACROSS, DOWN, STEP)


def changed(file: Path, **tags: Any) -> Path:
    one = pydicom.dcmread(file)
    for tag, value in tags.items():
        setattr(one, tag, value)
    one.save_as(file)
    return file


def values_of(name: str) -> np.ndarray:
    (one,) = slices_of(pydicom.dcmread(real(name)))
    return one.values()


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
def test_a_compressed_slice_is_the_slice(name: str) -> None:
    assert np.array_equal(values_of(name), values_of("MR_small.dcm"))


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_a_compressed_series_is_the_series(tmp_path: Path, syntax: UID) -> None:
    plain = read_dicom(*series_in(series(tmp_path / "a")).values())
    for file in sorted((tmp_path / "a").iterdir()):
        one: Any = pydicom.dcmread(file)
        one.compress(syntax) if syntax.is_encapsulated else setattr(one.file_meta, "TransferSyntaxUID", syntax)
        one.save_as(file)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == syntax
    scan = read_dicom(*series_in(tmp_path / "a").values())
    assert np.array_equal(scan.values, plain.values) and np.array_equal(scan.affine, plain.affine)


def test_what_needs_another_package_names_the_file_the_syntax_and_the_package() -> None:
    if get_decoder(JPEGLSLossless).is_available:
        assert np.array_equal(values_of("MR_small_jpeg_ls_lossless.dcm"), values_of("MR_small.dcm"))
        return
    with pytest.raises(Unreadable) as error:
        values_of("MR_small_jpeg_ls_lossless.dcm")
    assert str(error.value) == (
        "MR_small_jpeg_ls_lossless.dcm: compressed as JPEG-LS Lossless Image Compression, which needs more packages: "
        "pip install 'anydit[dicom]'"
    )


def test_what_a_package_does_not_decode_names_others() -> None:
    said = r"^JPEG-lossy\.dcm: compressed as JPEG Extended .*12-bit precision; .* may read it: .*pylibjpeg-libjpeg"
    with pytest.raises(Unreadable, match=said):
        values_of("JPEG-lossy.dcm")


def test_what_nothing_decodes_is_named(tmp_path: Path) -> None:
    file = series(tmp_path / "a") / "0.dcm"
    one: Any = pydicom.dcmread(file)
    one.compress(RLELossless)
    one.file_meta.TransferSyntaxUID = MPEG2MPML
    one.save_as(file)
    with pytest.raises(Unreadable, match=r"^0\.dcm: compressed as MPEG2 Main Profile / Main Level, which nothing here"):
        read_dicom(*series_in(tmp_path).values())


@pytest.mark.parametrize("compressed", [False, True])
def test_frames_of_one_file_are_where_the_slices_are(tmp_path: Path, compressed: bool) -> None:
    """Each frame's own functional groups say where it is, in whatever order they come."""
    slices = series(tmp_path / "a")
    plain = read_dicom(*series_in(slices).values())
    (tmp_path / "b").mkdir()
    file = enhanced(tmp_path / "b" / "all.dcm", slices)
    if compressed:
        one = pydicom.dcmread(file)
        one.compress(RLELossless)
        one.save_as(file)
    scan = read_dicom(*series_in(tmp_path / "b").values())
    assert np.array_equal(scan.values, plain.values)
    assert np.array_equal(scan.affine, plain.affine) and np.allclose(spacing_of(scan.affine), (0.25, 0.5, 2.0))
    assert (scan.quantity, scan.code) == ("HU", 1)
    samples = Volumes(tmp_path / "b", held_out=Whole(0.0), cache=tmp_path / "cache").open("train")
    assert samples.facts.size == (7, 5, 4)


def test_each_frame_may_have_a_scale_of_its_own(tmp_path: Path) -> None:
    file = enhanced(tmp_path / "all.dcm", series(tmp_path / "a"))
    plain, one = read_dicom([file]).values[0, 0], pydicom.dcmread(file)
    scales = pydicom.Dataset()
    scales.RescaleSlope, scales.RescaleIntercept, scales.RescaleType = 4, -2048, "US"
    one.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence = [scales]
    one.save_as(file)
    ratios = (read_dicom([file]).values[0, 0] / plain).mean((0, 1))
    assert sorted(ratios.tolist()) == [1, 1, 1, 2]


def test_frames_that_are_no_volume_are_named(tmp_path: Path) -> None:
    slices = series(tmp_path / "a")
    file = enhanced(tmp_path / "all.dcm", slices)
    groups = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence

    def said(**tags: Any) -> str:
        copy = changed(shutil.copy(file, tmp_path / "copy.dcm"), **tags)
        with pytest.raises(Unreadable) as error:
            read_dicom([copy])
        return str(error.value)

    assert said(PerFrameFunctionalGroupsSequence=groups[:3]) == "copy.dcm: 4 frames, and places of 3"
    assert "several slices at" in said(PerFrameFunctionalGroupsSequence=[*groups[:3], groups[0]])
    without = [pydicom.Dataset() for _ in groups]
    assert "4 of 4 slices without ImagePositionPatient" in said(PerFrameFunctionalGroupsSequence=without)
    middle = sorted(groups, key=lambda g: g.PlanePositionSequence[0].ImagePositionPatient[0])[1]
    middle.PlanePositionSequence[0].ImagePositionPatient = [-30, 40, 3]
    assert "slices are missing" in said(PerFrameFunctionalGroupsSequence=groups)
    assert said(SamplesPerPixel=3) == "copy.dcm: slices of colours, expected grey ones"


def test_what_a_slice_leaves_empty_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    for file in sorted(series(tmp_path).iterdir()):
        changed(file, Modality="PT", Units="BQML", RescaleType="", RescaleSlope=None, RescaleIntercept=None)
    scan = read_dicom(*series_in(tmp_path).values())
    stored = np.random.default_rng(0).integers(0, 2000, (5, 7, 4))
    assert scan.quantity == "BQML" and np.array_equal(np.sort(scan.values, axis=None), np.sort(stored, axis=None))


def test_planes_of_a_dose_may_be_a_file_each(tmp_path: Path) -> None:
    for file in sorted(series(tmp_path).iterdir()):
        changed(file, Modality="RTDOSE", DoseGridScaling="0.0001", DoseUnits="GY", RescaleIntercept=0)
    scan = read_dicom(*series_in(tmp_path).values())
    assert scan.quantity == "GY"
    stored = np.random.default_rng(0).integers(0, 2000, (5, 7, 4))
    assert np.allclose(np.sort(scan.values, axis=None), np.sort(stored * 1e-4, axis=None))


@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_rle.dcm", "rtdose_expb.dcm"])
def test_the_planes_of_a_real_dose(name: str) -> None:
    """Little-endian, compressed and big-endian: 15 planes of 10 x 10 values, 5 mm apart."""
    scan = read_dicom([real(name)])
    stored = pydicom.dcmread(real("rtdose.dcm")).pixel_array
    assert np.allclose(scan.values[0, 0], stored.transpose(2, 1, 0) * 1e-6)
    assert np.allclose(spacing_of(scan.affine), (10, 10, 5)) and scan.quantity == "RELATIVE"
    assert np.allclose(scan.affine @ [0, 0, 14, 1], [-189.43125, -199.43125, -761.87 + 70, 1])

"""Scans as their files have them: every voxel with its value at its place in the body."""

import re
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.testing import data_path

from anydit.data.outside import Unreadable
from anydit.data.volumes.medical import Scan, axes_of, read_dicom, read_nifti, respaced, series_in, spacing_of, turned
from tests.data.volumes.scans import AFFINE, dicom, nifti, shipped, values

ALL_AXES = ["".join(a) for p in permutations(("LR", "PA", "IS")) for a in product(*p)]


def test_a_real_file_is_what_nibabel_reads():
    path = Path(str(data_path)) / "example4d.nii.gz"
    image = nibabel.load(path)
    whole = np.asarray(image.dataobj, np.float32)
    channels, frames = read_nifti(path), read_nifti(path, frames=True)
    assert channels.values.shape == (1, 2, 128, 96, 24)
    assert frames.values.shape == (2, 1, 128, 96, 24)
    assert np.array_equal(np.moveaxis(channels.values[0], 0, -1), whole)
    assert np.array_equal(frames.values[:, 0], channels.values[0])
    assert np.allclose(channels.affine, image.affine)
    assert (channels.unit, channels.code) == ("mm", 1)


def test_both_versions_of_the_format_are_read(tmp_path: Path):
    array = values(4, 5, 6)
    for kind, name in ((nibabel.Nifti1Image, "one.nii.gz"), (nibabel.Nifti2Image, "two.nii.gz")):
        nibabel.save(kind(array, AFFINE), tmp_path / name)
        scan = read_nifti(tmp_path / name)
        assert np.array_equal(scan.values[0, 0], array) and np.allclose(scan.affine, AFFINE)
    nibabel.save(nibabel.MGHImage(array, AFFINE), tmp_path / "three.mgz")
    (tmp_path / "three.mgz").rename(tmp_path / "three.nii")
    with pytest.raises(Unreadable):
        read_nifti(tmp_path / "three.nii")


def test_scaled_integers_come_on_their_own_scale(tmp_path: Path):
    array = (values(4, 5, 6) * 10).astype(np.int16)
    image = nibabel.Nifti1Image(array, AFFINE)
    image.header.set_slope_inter(0.5, -7)
    nibabel.save(image, tmp_path / "a.nii")
    assert np.allclose(read_nifti(tmp_path / "a.nii").values[0, 0], array * 0.5 - 7)


@pytest.mark.parametrize("axes", ALL_AXES)
def test_turning_moves_no_value_in_space(axes: str):
    scan = Scan(values(2, 3, 4, 5, 6), AFFINE, 1, "mm")
    after = turned(scan, axes)
    assert axes_of(after.affine) == axes
    assert axes_of(scan.affine) == "PSL"
    for index in [(0, 0, 0), (3, 4, 5), (1, 2, 3)]:
        place = scan.affine @ [*index, 1]
        found = np.linalg.solve(after.affine, place)[:3]
        there = tuple(np.round(found).astype(int))
        assert np.allclose(found, there)
        assert np.array_equal(after.values[:, :, *there], scan.values[:, :, *index])


def test_a_file_without_orientation_is_not_turned():
    with pytest.raises(Unreadable, match="says nothing of its orientation"):
        turned(Scan(values(1, 1, 2, 2, 2), AFFINE, 0, "mm"), "RAS")


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 1.0), (1.5, 3.0, 2.0), (0.7, 4.0, 2.0)])
def test_another_spacing_keeps_every_place(spacing: tuple[float, float, float]):
    """A value that is linear in space stays the same function of space, away from the border's smoothing."""
    i, j, k = np.meshgrid(*map(np.arange, (40, 30, 20)), indexing="ij")
    slope = np.array([0.3, -0.2, 0.5])

    def linear(places: np.ndarray) -> np.ndarray:
        return places[..., :3] @ slope

    def places(affine: np.ndarray, *grid: np.ndarray) -> np.ndarray:
        return np.stack([*grid, np.ones_like(grid[0])], axis=-1) @ affine.T

    field = linear(places(AFFINE, i, j, k)).astype(np.float32)
    after = respaced(Scan(field[None, None], AFFINE, 1, "mm"), spacing)
    assert np.allclose(spacing_of(after.affine), spacing)
    expected = linear(places(after.affine, *np.meshgrid(*map(np.arange, after.values.shape[2:]), indexing="ij")))
    inner = tuple(slice(4, -4) if n > 12 else slice(None) for n in expected.shape)
    assert np.abs(after.values[0, 0] - expected)[inner].max() < 1e-3
    # No voxel lies outside of what there was, and none is left out.
    for n, before, new, old in zip(after.values.shape[2:], field.shape, spacing, spacing_of(AFFINE), strict=True):
        assert (n - 1) * new <= (before - 1) * old + 1e-3 < n * new + 2e-3


@pytest.mark.parametrize(("unit", "many"), [("micron", 1000.0), ("meter", 0.001), ("unknown", 1.0)])
def test_a_spacing_is_in_millimetres_whatever_the_file_s_unit(unit: str, many: float):
    in_mm = respaced(Scan(values(1, 1, 9, 9, 9), np.eye(4), 1, "mm"), (2.0, 1.0, 1.0))
    after = respaced(Scan(values(1, 1, 9, 9, 9), np.diag([many, many, many, 1.0]), 1, unit), (2.0, 1.0, 1.0))
    assert np.allclose(after.values, in_mm.values, atol=1e-3)
    assert np.allclose(spacing_of(after.affine), (2 * many, many, many)) and after.unit == unit


def test_small_voxels_in_metres_have_a_place(tmp_path: Path):
    path = nifti(tmp_path / "a.nii", values(3, 4, 5), np.diag([1e-4, 1e-4, 5e-5, 1]), unit="meter")
    assert np.allclose(spacing_of(read_nifti(path).affine), (1e-4, 1e-4, 5e-5))
    path = nifti(tmp_path / "b.nii", values(3, 4, 5))
    image = nibabel.load(path)
    image.header["srow_x"] = image.header["srow_y"]
    image.header["sform_code"] = 1
    nibabel.save(nibabel.Nifti1Image(values(3, 4, 5), None, image.header), path)
    with pytest.raises(Unreadable, match="gives voxels no place"):
        read_nifti(path)


def test_a_wider_spacing_takes_out_what_it_cannot_hold():
    noise = Scan(np.random.default_rng(0).normal(0, 1, (1, 1, 32, 32, 32)).astype(np.float32), np.eye(4), 1, "mm")
    assert respaced(noise, (4, 4, 4)).values.std() < 0.2


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda p: p.write_bytes(b"hello" * 100), "not"),
        (lambda p: p.write_bytes(nifti(p, values(8, 8, 8)).read_bytes()[:1000]), "xpected"),
        (lambda p: nifti(p, values(8, 8)), r"shape \(8, 8\), expected three axes"),
        (lambda p: nifti(p, values(4, 4, 4).astype(np.complex64)), "complex64, expected real numbers"),
    ],
    ids=["no image", "cut short", "two axes", "complex"],
)
def test_what_is_no_volume_is_named(tmp_path: Path, made, said: str):
    made(tmp_path / "a.nii")
    with pytest.raises(Unreadable, match=said):
        read_nifti(tmp_path / "a.nii")


def test_a_real_series_of_slices():
    """Five slices of a real CT, 2.5 mm apart, in files named by numbers."""
    folder = shipped("98892001", "CT5N")
    files = series_in(folder)
    assert [len(each) for each in files.values()] == [5]
    scan = read_dicom(*files.values())
    assert scan.values.shape == (1, 1, 16, 16, 5)
    assert np.isclose(spacing_of(scan.affine)[2], 2.5)
    assert (scan.quantity, scan.unit, scan.code) == ("HU", "mm", 1)


def test_a_real_series_with_missing_slices_is_refused():
    """Of one real CT most slices were left out."""
    files = series_in(shipped("77654033"))
    (of_ct,) = [found for name, found in files.items() if "CT2" in name]
    with pytest.raises(Unreadable, match=r"slices are missing: 202\.50 mm from -99\.48 to 103\.02 mm"):
        read_dicom(of_ct)


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_each_pixel_of_a_series_is_where_the_standard_says(tmp_path: Path, turn: float):
    """DICOM PS3.3 C.7.6.2.1.1, by hand: position + column * dx * across + row * dy * down, to the left and back."""
    across, down = np.array([np.cos(turn), np.sin(turn), 0]), np.array([0, 0, -1.0])
    step = 1.25 * np.cross(across, down)
    stored = np.random.default_rng(0).integers(0, 2000, (5, 7, 4))
    dicom(tmp_path / "a", stored, across, down, step)
    scan = read_dicom(*series_in(tmp_path).values())
    assert scan.values.shape == (1, 1, 7, 5, 4)
    for row, column, k in [(0, 0, 0), (4, 6, 3), (2, 1, 2)]:
        place = np.array([1, 2, 3]) + k * step + column * 0.25 * across + row * 0.5 * down
        index = np.linalg.solve(scan.affine, [-place[0], -place[1], place[2], 1])[:3]
        there = tuple(np.round(index).astype(int))
        assert np.allclose(index, there, atol=1e-3)
        assert scan.values[0, 0][there] == 2 * stored[row, column, k] - 1024


@pytest.mark.parametrize("left", [0, 140, 400, "UID", -7])
def test_no_damaged_slice_is_left_out_silently(tmp_path: Path, left: int | str):
    """Not even the last one, without which the others are evenly apart, and not where its series' UID is cut."""
    folder = dicom(tmp_path / "a", np.zeros((4, 4, 6)), (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    heights = {file.name: pydicom.dcmread(file).ImagePositionPatient[2] for file in sorted(folder.iterdir())}
    last = folder / max(heights, key=lambda name: heights[name])
    whole, series = last.read_bytes(), pydicom.dcmread(last).SeriesInstanceUID.encode()
    last.write_bytes(whole[: whole.index(series) + 2 if isinstance(left, str) else left])
    (folder / "README").write_text("of the scanner")
    (files,) = series_in(tmp_path).values()
    assert len(files) == 6
    with pytest.raises(Unreadable, match=re.escape(last.name)):
        read_dicom(files)
    last.unlink()
    assert read_dicom(*series_in(tmp_path).values()).values.shape[4] == 5


def test_a_series_in_several_folders_is_one_volume_and_lacks_none_of_its_slices(tmp_path: Path):
    """Of two series in p one lies in two folders of it, as one that is copied by its numbers does."""
    one, both = np.zeros((2, 2, 3)), np.arange(24).reshape(2, 2, 6)
    dicom(tmp_path / "p" / "a", both, (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    (tmp_path / "p" / "b").mkdir()
    for name in ("0.dcm", "4.dcm"):
        (tmp_path / "p" / "a" / name).rename(tmp_path / "p" / "b" / name)
    dicom(tmp_path / "p" / "c", one, (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    found = series_in(tmp_path)
    assert list(found) == ["p", "p/c"]
    assert np.array_equal(read_dicom(found["p"]).values[0, 0], (2.0 * both - 1024).transpose(1, 0, 2))
    (tmp_path / "p" / "b" / "5.dcm").write_bytes(b"")
    assert len(series_in(tmp_path)["p"]) == 7, "nobody knows that the damaged one is not of it"
    uids = [pydicom.dcmread(files[0]).SeriesInstanceUID for files in found.values()]
    (tmp_path / "p" / "c" / "0.dcm").rename(tmp_path / "p" / "0.dcm")
    assert list(series_in(tmp_path)) == [f"p/{uid}" for uid in reversed(uids)]


def test_what_begins_like_dicom_counts_whatever_its_name(tmp_path: Path):
    dicom(tmp_path / "a", np.zeros((4, 4, 5)), (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    (tmp_path / "a" / "README").write_bytes(b"garbage" * 40)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes").write_bytes(b"D")
    assert list(series_in(tmp_path)) == ["a"]
    read_dicom(series_in(tmp_path)["a"])
    (tmp_path / "a" / "IM0001").write_bytes(bytes(128) + b"DICM" + b"garbage" * 40)
    with pytest.raises(Unreadable, match=r"^1 of 6 slices without ImagePositionPatient, .*: IM0001$"):
        read_dicom(series_in(tmp_path)["a"])
    (tmp_path / "a" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    with pytest.raises(Unreadable, match="IM0001"):
        read_dicom(series_in(tmp_path)["a"])


def test_of_few_slices_the_gap_is_named(tmp_path: Path):
    folder = dicom(tmp_path / "a", np.zeros((4, 4, 4)), (1, 0, 0), (0, 1, 0), (0, 0, 2.0))
    third = next(file for file in folder.iterdir() if pydicom.dcmread(file).ImagePositionPatient[2] == 7)
    third.unlink()
    with pytest.raises(Unreadable, match=r"4\.00 mm from 5\.00 to 9\.00 mm, but 2\.00 mm between others"):
        read_dicom(*series_in(tmp_path).values())


def test_series_that_are_no_volume_are_named(tmp_path: Path):
    stored, x, y, z = np.zeros((4, 4, 3)), (1, 0, 0), (0, 1, 0), (0, 0, 2.0)

    def said(name: str, *more: Path, **tags: object) -> str:
        folder = dicom(tmp_path / name, stored, x, y, z, **tags)
        with pytest.raises(Unreadable) as error:
            read_dicom([*sorted(folder.glob("*.dcm")), *more])
        return str(error.value)

    first = dicom(tmp_path / "one", stored[:, :, :1], x, y, z) / "0.dcm"
    assert "several slices at 3.00 mm" in said("twice", first)
    turned_one = dicom(tmp_path / "turned", stored[:, :, :1], y, x, z) / "0.dcm"
    assert "slices of different ImageOrientationPatient" in said("mixed", turned_one)
    assert "3 of 3 slices without PixelSpacing" in said("no spacing", PixelSpacing=None)
    assert "0.dcm: 2 frames in a file that does not say where each is" in said("frames", NumberOfFrames=2)
    (tmp_path / "twice" / "0.dcm").write_bytes(b"hello")
    with pytest.raises(Unreadable, match=r"0\.dcm: "):
        read_dicom(sorted((tmp_path / "twice").glob("*.dcm")))
    scan = read_dicom([first])
    assert spacing_of(scan.affine) == (0.25, 0.5, 2.0)

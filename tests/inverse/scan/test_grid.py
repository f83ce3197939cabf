"""Scans to a model's grid and back: values and places are those of the body, whatever way a scan lies."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch

from anydit.data import Images, SliceView, VolumeView
from anydit.data.volumes.medical import Scan, axes_of, read_dicom
from anydit.inverse.scan.grid import Grid, cut, write_dicom, write_nifti
from tests.data.volumes.scans import AFFINE, dicom

RAS = ((2.0, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, 0.0), (0.0, 0.0, 3.0, 0.0))


def smooth(shape: tuple[int, int, int], affine: np.ndarray) -> Scan:
    """Values that tell where in the body they are."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    places = index @ affine.T
    values = places[..., 0] + 3 * places[..., 1] - 2 * places[..., 2]
    return Scan(values[None, None].astype(np.float32), affine, 1, "mm")


def test_slices_are_turned_and_the_way_back_is_exact():
    scan = smooth((6, 7, 5), AFFINE)  # axes PSL, 1.5 x 3 x 2 mm
    view = SliceView(low=0, high=255, affine=((2.0, 0, 0, 0), (0, 1.5, 0, 0), (0, 0, 3.0, 0)), code=1, unit="mm")
    grid = Grid.of(view, (5, 6))
    assert axes_of(scan.affine) == "PSL" and grid.axes == "RAS" and grid.own_across(scan) == 1
    x = grid.forth(scan)
    assert x.shape == (7, 1, 5, 6), "seven slices from below, with right and front as their axes"
    step = x.diff(dim=2).mean(), x.diff(dim=3).mean(), x.diff(dim=0).mean()
    torch.testing.assert_close(torch.stack(step), torch.tensor([2.0, 4.5, -6.0]))
    assert grid.told(scan) == ""
    back = grid.back(x, scan, 0.0)
    assert np.array_equal(back.values, scan.values) and np.array_equal(back.affine, scan.affine)


@pytest.mark.parametrize("size", [(4, 4), (20, 30)])
def test_beyond_the_model_s_size_is_air(size: tuple[int, int]):
    scan = smooth((6, 7, 5), AFFINE)
    grid = Grid(size, 2, "RAS", None)
    back = grid.back(grid.forth(scan), scan, -1000.0).values[0, 0]
    there = back != -1000
    assert np.array_equal(back[there], scan.values[0, 0][there])
    assert there.sum() == min(size[0], 5) * min(size[1], 6) * 7


def test_another_spacing_is_brought_there_and_back_to_the_same_places():
    scan = smooth((20, 24, 9), np.diag([1.0, 1.25, 4.0, 1.0]) @ np.eye(4))
    grid = Grid.of(SliceView(affine=RAS, code=1, unit="mm"), (10, 15))
    assert "brought from 1 x 1.25 x 4 to 2 x 2 x 4 mm" in grid.told(scan)
    x = grid.forth(scan)
    assert x.shape == (9, 1, 10, 15), "and slices stay slices"
    assert x.diff(dim=2)[:, :, 2:-2].mean().item() == pytest.approx(2, rel=1e-3)
    inside = np.s_[0, 0, 4:-4, 4:-4]
    np.testing.assert_allclose(grid.back(x, scan, 0.0).values[inside], scan.values[inside], atol=0.05)


def test_volumes_are_whole():
    scan = smooth((6, 7, 5), AFFINE)
    grid = Grid.of(VolumeView(affine=((2.0, 0, 0, 0), (0, 1.5, 0, 0), (0, 0, 3.0, 0)), code=1), (5, 6, 7))
    assert grid.across is None and grid.forth(scan).shape == (1, 1, 5, 6, 7)
    assert np.array_equal(grid.back(grid.forth(scan), scan, 0.0).values, scan.values)


def test_a_model_of_images_takes_slices_as_they_lie():
    scan = smooth((6, 7, 5), AFFINE)
    grid = Grid.of(Images(), (6, 7))
    assert torch.equal(grid.forth(scan)[3, 0], torch.from_numpy(scan.values[0, 0, :, :, 3]))


def test_slices_that_are_cut_out_stay_at_their_places():
    scan = smooth((6, 7, 5), AFFINE)
    some = cut(scan, 1, 2, 4)
    assert np.array_equal(smooth((6, 3, 5), some.affine).values, some.values)
    with pytest.raises(ValueError, match="slices: got 4 to 7, expected some of the scan's, which are 0 to 6"):
        cut(scan, 1, 4, 7)


def test_nifti_has_the_places_of_the_scan(tmp_path: Path):
    scan = smooth((6, 7, 5), AFFINE)
    write_nifti(scan, tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert np.allclose(image.affine, AFFINE) and image.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(np.asarray(image.dataobj), scan.values[0, 0])


def test_dicom_keeps_tags_places_and_values(tmp_path: Path):
    stored = np.random.default_rng(0).integers(0, 900, (4, 6, 5))
    files = sorted(dicom(tmp_path / "in", stored, (0, 1, 0), (0, 0, -1), (2, 0, 0), PatientID="P1").iterdir())
    scan = read_dicom(files)
    written = write_dicom(scan, files, tmp_path / "out", "reconstruction")
    again = read_dicom(written)
    assert np.array_equal(again.values, scan.values) and np.allclose(again.affine, scan.affine)
    before, after = pydicom.dcmread(files[0]), pydicom.dcmread(written[0])
    assert after.PatientID == "P1" and after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.ImageType[0] == "DERIVED" and len({pydicom.dcmread(f).SOPInstanceUID for f in written}) == 5

"""Volumes as people see them, and as they are written."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from anydit.data import VolumeView
from anydit.data.volumes.medical import Scan, spacing_of, turned
from tests.data.volumes.scans import dicom, nifti, values


def grey(view: VolumeView, x: np.ndarray) -> np.ndarray:
    return np.asarray(view.picture(torch.from_numpy(x)).convert("L"))[2:-2, 2:-2]


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SRA", "ALI"])
def test_the_same_body_is_shown_alike_however_it_lies_in_the_file(axes: str):
    """Bright above, at the front and on the right: in each slice, whichever way the axes run."""
    x = np.zeros((1, 1, 24, 24, 24), np.float32)
    x[:, :, 12:, 12:, 12:] = 1
    affine = np.diag([2.0, 2, 2, 1])
    lying = turned(Scan(x, affine, 1, "mm"), axes)
    view = VolumeView(affine=tuple(map(tuple, lying.affine[:3].tolist())))
    shown = grey(view, lying.values)
    assert shown.shape == (48, 144)
    for left in (0, 48, 96):
        plane = shown[:, left : left + 48]
        assert plane[:24, 24:].min() == 255, "right and up"
        assert plane[24:].max() == 0 and plane[:, :24].max() == 0
    assert np.array_equal(shown, grey(VolumeView(affine=tuple(map(tuple, affine[:3].tolist()))), x))


def test_slices_are_as_long_as_they_are_in_space():
    view = VolumeView(affine=((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 4.0, 0)))
    assert grey(view, values(1, 1, 48, 48, 12)).shape == (48, 144)
    assert grey(view, values(1, 2, 48, 48, 12)).shape == (96, 144), "a row for each channel"
    assert grey(VolumeView(), values(1, 1, 4, 4, 4)).shape == (48, 144), "enlarged"


def test_black_and_white_are_where_they_are_said_to_be():
    x = np.full((1, 1, 48, 48, 48), 30.0, np.float32)
    assert (grey(VolumeView(low=0, high=60), x) == 128).all()
    assert (grey(VolumeView(low=40, high=60), x) == 0).all()
    assert (grey(VolumeView(), x) == 0).all()


def test_what_a_view_says_is_in_the_file(tmp_path: Path):
    view = VolumeView(
        affine=((0.0, -2.0, 0.0, 7.0), (1.5, 0.0, 0.0, 8.0), (0.0, 0.0, 3.0, 9.0)),
        code=4, unit="micron", quantity="density", names=("a", "b"),
    )  # fmt: skip
    x = values(2, 2, 4, 5, 6)
    paths = view.write(torch.from_numpy(x), tmp_path, "x")
    assert [path.name for path in paths] == ["x-00000.nii.gz", "x-00001.nii.gz"]
    image = nibabel.load(paths[1])
    assert np.array_equal(np.moveaxis(np.asarray(image.dataobj), -1, 0), x[1])
    assert np.allclose(image.affine, view.matrix)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)
    assert image.header.get_xyzt_units()[0] == "micron"
    assert image.header["descrip"].item() == b"density, a b"
    unsaid = nibabel.load(VolumeView().write(torch.from_numpy(x[:, :1]), tmp_path, "y")[0])
    assert unsaid.shape == (4, 5, 6)
    assert int(unsaid.header["sform_code"]) == 0, "nothing is made up"


def test_a_scan_on_other_axes_of_another_spacing_is_brought_to_the_datas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A slope along x: its value says where a voxel lies, before and after."""
    affine = np.array([[-1.0, 0, 0, 30], [0, 0, 2, -9], [0, 2, 0, 5], [0, 0, 0, 1]])
    slope = np.broadcast_to((30.0 - np.arange(16))[:, None, None], (16, 6, 5)).astype(np.float32)
    path = nifti(tmp_path / "x.nii.gz", slope, affine, code=4)
    view = VolumeView(affine=((2.0, 0, 0, -7), (0, 2.0, 0, -4), (0, 0, 2.0, -5)), code=1, unit="mm", quantity="T1")
    x, there = view.read(path, (1, 8, 5, 6))
    assert isinstance(there, VolumeView) and (there.code, there.quantity) == (4, "T1")
    assert "x.nii.gz is brought from voxels of 1 x 2 x 2 mm to 2 x 2 x 2 mm" in capsys.readouterr().err
    places = (np.arange(8)[:, None] * there.matrix[:3, 0] + there.matrix[:3, 3])[:, 0]
    assert np.allclose(x[0, 1:-1, 2, 2], places[1:-1], atol=1e-3)
    assert np.allclose(there.matrix[:3, 3], (15, -9, 5)), "the first voxel is in the same corner"
    with pytest.raises(ValueError, match=r"got .*x\.nii\.gz of shape \(1, 8, 5, 6\), expected \(1, 8, 8, 8\)"):
        view.read(path, (1, 8, 8, 8))
    nifti(tmp_path / "y.nii.gz", slope, affine, code=0)
    with pytest.raises(ValueError, match=r"y\.nii\.gz: a file that says nothing of its orientation"):
        view.read(tmp_path / "y.nii.gz", (1, 8, 5, 6))


def test_what_is_not_known_of_a_scan_stays_so(tmp_path: Path):
    array = values(4, 5, 6)
    array[2:] = np.nan
    x, _ = VolumeView().read(nifti(tmp_path / "x.nii.gz", array), (1, 4, 5, 6))
    assert np.array_equal(x[0].numpy(), array, equal_nan=True)


def test_a_series_of_slices_is_a_scan(tmp_path: Path):
    stored = np.random.default_rng(0).integers(0, 100, (6, 4, 3))
    x, view = VolumeView().read(dicom(tmp_path / "in", stored, (1, 0, 0), (0, 1, 0), (0, 0, 2.0)), (1, 4, 6, 3))
    assert np.array_equal(x[0].numpy(), 2 * stored.transpose(1, 0, 2) - 1024)
    assert isinstance(view, VolumeView) and np.allclose(spacing_of(view.matrix), (0.25, 0.5, 2))
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none: 0 DICOM series in it, expected one"):
        VolumeView().read(tmp_path / "none", (1, 4, 6, 3))

"""Volumes as people see them, and as they are written."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from anydit.data import VolumeView
from anydit.data.volumes.medical import Scan, turned
from tests.data.volumes.scans import values


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

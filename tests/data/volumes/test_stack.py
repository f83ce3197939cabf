"""Slices on each other: a series that is thinned out evenly is told from one that is as it was taken."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from anydit.data.outside import Unreadable
from anydit.data.volumes.medical import read_dicom, series_in, spacing_of
from tests.data.volumes.scans import dicom

ACROSS, DOWN = (1, 0, 0), (0, 1, 0)


def series(folder: Path, count: int, numbered: int | None, step: float = 2.0, **tags: object) -> list[Path]:
    """Slices `step` mm apart whose numbers go up or down by so much from one to the next."""
    dicom(folder, np.zeros((4, 4, count)), ACROSS, DOWN, (0, 0, step), **tags)
    for file in folder.iterdir() if numbered else ():
        one = pydicom.dcmread(file)
        one.InstanceNumber = 100 + numbered * round((one.ImagePositionPatient[2] - 3) / step)
        one.save_as(file)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("numbered", [1, -1])
@pytest.mark.parametrize("every", [2, 3])
def test_every_second_or_third_slice_alone_is_no_series(tmp_path: Path, every: int, numbered: int):
    """The same files, all of them, are one."""
    files = series(tmp_path / "a", 6 * every, numbered, SpacingBetweenSlices=2.0)
    assert spacing_of(read_dicom(files).affine)[2] == 2
    kept = [file for file in files if pydicom.dcmread(file).InstanceNumber % every == 1]
    assert len(kept) == 6
    said = rf"slices are missing: {2 * every}\.00 mm from one to the next, and {every} of InstanceNumber, but "
    with pytest.raises(Unreadable, match=said + r"SpacingBetweenSlices is 2\.00 mm"):
        read_dicom(kept)


@pytest.mark.parametrize(
    ("numbered", "spacing"),
    [(1, 1.0), (2, 2.0), (2, None), (None, 1.0), (3, 1.0), (2, 1.5), (2, 0.0), (2, 4.0)],
    ids=[
        "a gap for a spacing, numbers one by one", "two echoes, numbered in turn", "no spacing", "no numbers",
        "numbers of another step", "no whole multiple", "no distance", "wider than the step",
    ],
)  # fmt: skip
def test_an_even_series_is_read_where_one_tag_alone_looks_thinned(
    tmp_path: Path, numbered: int | None, spacing: float | None
):
    tags = {} if spacing is None else {"SpacingBetweenSlices": spacing}
    assert spacing_of(read_dicom(series(tmp_path / "a", 5, numbered, **tags)).affine)[2] == 2


def test_tags_that_are_not_in_all_slices_or_are_no_numbers_tell_nothing(tmp_path: Path):
    files = series(tmp_path / "a", 5, 2, SpacingBetweenSlices=1.0)
    with pytest.raises(Unreadable, match="slices are missing"):
        read_dicom(files)
    for tag, value in (("InstanceNumber", None), ("InstanceNumber", 102), ("SpacingBetweenSlices", [1.0, 2.0])):
        whole, one = files[0].read_bytes(), pydicom.dcmread(files[0])
        if value == getattr(one, tag):
            value = 104
        setattr(one, tag, value)
        one.save_as(files[0])
        (found,) = series_in(tmp_path).values()
        assert read_dicom(found).values.shape[4] == 5
        files[0].write_bytes(whole)

"""Where results can be written, which is tried before anything is drawn."""

from pathlib import Path

import pytest

from anydit.inverse.scan.written import check_out


@pytest.mark.parametrize("out", ["file", "file/a.npy", "file/deeper/a.nii.gz", "file/folder"])
def test_a_place_where_nothing_can_be_made_is_refused(out: str, tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match=r"out: got .*, which cannot be written \(.*\); expected a place"):
        check_out(tmp_path / out, 2)
    assert [*tmp_path.iterdir()] == [tmp_path / "file"] and (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("out", ["scans", "scans/a.nii.gz", "scans/a.npy", "scans/a.png", "scans/deeper"])
def test_nothing_is_put_among_the_files_of_a_series(out: str, tmp_path: Path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(ValueError, match=r"out: got .*, whose files would be written over or among .*scans, expected"):
        check_out(tmp_path / out, 2, [tmp_path / "scans"])
    check_out(tmp_path / "beside.nii.gz", 2, [tmp_path / "scans"])
    assert [*(tmp_path / "scans").iterdir()] == []


@pytest.mark.parametrize("out", ["a.npy", "new/a.npy", "new/deeper"])
def test_trying_leaves_all_as_it_was(out: str, tmp_path: Path):
    (tmp_path / "a.npy").write_text("of before")
    check_out(tmp_path / out, 2)
    assert [*tmp_path.iterdir()] == [tmp_path / "a.npy"] and (tmp_path / "a.npy").read_text() == "of before"

"""Folders as people have them: with hidden ones, such as those of DataLad and Jupyter, and links."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from anydit.data.folders import listing
from anydit.data.molecules.files import paths_in
from anydit.data.shards import Packed, is_packed
from anydit.data.video.listing import found_in
from anydit.data.volumes.files import Reading
from anydit.data.volumes.medical import series_in
from tests.data.tars import write
from tests.data.volumes.scans import dicom


def _slices(root: Path) -> Iterable[str]:
    """With each file a series of its own, which its folder is called by."""
    for number, file in enumerate(sorted(root.parent.rglob("*.ima"))):
        dicom(folder := root.parent / f"slice {number}", np.zeros((2, 2, 1)), (1, 0, 0), (0, 1, 0), (0, 0, 1))
        file.write_bytes((folder / "0.dcm").read_bytes())
    return [f"{name}/x.ima" for name in series_in(root)]


def _tars(root: Path) -> Iterable[str]:
    for file in root.parent.rglob("*.tar"):
        write(file, {"0.bin": b"x"})
    return [tar.relative_to(root).as_posix() for tar in Packed.of(root, [".bin"], "bytes").tars]


@pytest.mark.parametrize(
    ("suffix", "names"),
    [
        (".png", lambda root: listing(root, (".png",), "images").files),
        (".mp4", lambda root: found_in(root).names),
        (".xyz", paths_in),
        (".nii.gz", lambda root: Reading(root).sources()),
        (".ima", _slices),
        (".tar", _tars),
    ],
)
def test_hidden_folders_are_not_looked_into_and_links_to_folders_are(
    tmp_path: Path, suffix: str, names: Callable[[Path], Iterable[str]]
):
    root = tmp_path / "root"
    for place in ("root/a", "root/a/.ipynb_checkpoints", "root/.git/annex", "elsewhere/deeper"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f"x{suffix}").write_bytes(b"")
    (root / "a" / f"._x{suffix}").write_bytes(b"")
    (root / "a" / "round").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert [*names(root)] == [f"a/x{suffix}", f"b/deeper/x{suffix}"]


def test_what_is_hidden_is_no_reason_not_to_read_tar_files(tmp_path: Path):
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "0.bin").write_bytes(b"x")
    write(tmp_path / "a.tar", {"0.bin": b"x"})
    assert is_packed(tmp_path, (".bin",))

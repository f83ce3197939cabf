"""Files whose content is elsewhere, as git-annex, DataLad and git LFS leave them: none is passed over in silence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from anydit.data import Audio, Data, Fields, ImageFolder, Molecules, Series, SeriesView, VideoFolder, Volumes
from anydit.data.absent import elsewhere
from tests.data.audio import sounds
from tests.data.fields import grids
from tests.data.volumes import scans

ANNEXED = "a link whose content is not here; datalad get or git annex get brings it"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def link(file: Path) -> Path:
    """A file as git-annex leaves it in a clone."""
    file.symlink_to(f"../.git/annex/objects/Xx/9z/MD5E-s123--0f{file.suffix}/MD5E-s123--0f{file.suffix}")
    return file


def picture(file: Path) -> None:
    Image.new("RGB", (8, 8)).save(file)


def film(file: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (9 * i, 0, 0)) for i in range(8)]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=125)


def table(file: Path) -> None:
    file.write_text("a\n" + "\n".join(map(str, range(99))))


def volume(file: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), file)


def molecule(file: Path) -> None:
    file.write_text("3\nwater\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")


def sound(file: Path) -> None:
    sounds.written(file, np.zeros(16_000), 16_000)


KINDS: dict[str, tuple[Callable[[Path], None], Data]] = {
    ".png": (picture, ImageFolder(size=(8, 8))),
    ".gif": (film, VideoFolder(size=(16, 16), seconds=0.5)),
    ".wav": (sound, Audio()),
    ".nii": (volume, Volumes()),
    ".xyz": (molecule, Molecules()),
}


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("absent", [link, lambda file: file.write_text(LFS)])
def test_they_are_skipped_and_counted_or_refused(
    tmp_path: Path, suffix: str, absent: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    write, data = KINDS[suffix]
    for i in range(8):
        write(tmp_path / f"a{i}{suffix}")
    for i in range(2):
        absent(tmp_path / f"b{i}{suffix}")
    data = replace(data, path=tmp_path, bad_limit=0.5, cache=tmp_path / ".cache")  # pyright: ignore[reportCallIssue]
    why = ANNEXED if absent is link else "a pointer of git LFS, whose content is not here; git lfs pull brings it"
    assert len(data.open("train"))
    assert "Skipped 2 unreadable of 10 " in (said := capsys.readouterr().err)
    assert f"(b0{suffix}, b1{suffix}: {why})" in said
    with pytest.raises(ValueError, match=rf"^data\.bad_limit: got [12] unreadable .*b0{suffix}.*: {why}"):
        replace(data, bad_limit=0.0).open("train")  # pyright: ignore[reportCallIssue]


def test_where_all_are_needed_they_are_refused(tmp_path: Path) -> None:
    for suffix, write, data in ((".csv", table, Series(length=8)), (".nc", grids.netcdf, Fields())):
        root = tmp_path / suffix
        root.mkdir()
        write(root / f"a{suffix}")
        first, _ = (link(root / f"{name}{suffix}") for name in "bc")
        said = f"^data.path: got 2 of 3 files, the first {first}: {ANNEXED}; expected all of them$"
        with pytest.raises(ValueError, match=said):
            replace(data, path=root).open("train")  # pyright: ignore[reportCallIssue]
        with pytest.raises(ValueError, match=f"^data.path: got {first}, {ANNEXED}"):
            replace(data, path=first).open("train")  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=f"got {first}, {ANNEXED}"):
        SeriesView().read(first, (1, 8))


def test_a_store_that_lacks_a_part_is_not_filled_in(tmp_path: Path) -> None:
    grids.store(tmp_path / "a.zarr", 2)
    (part := next((tmp_path / "a.zarr" / "u").glob("0.*"))).unlink()
    link(part)
    with pytest.raises(ValueError, match=f"got {part}, {ANNEXED}"):
        Fields(path=tmp_path / "a.zarr").open("train")


def test_a_series_that_lacks_a_slice_is_not_a_shorter_one(tmp_path: Path) -> None:
    folder = scans.dicom(tmp_path / "scan", scans.values(6, 5, 4), (1, 0, 0), (0, 1, 0), (0, 0, 2))
    last = max(folder.iterdir())
    last.unlink()
    link(last)
    with pytest.raises(ValueError, match=rf"unreadable among 1 volumes \(scan: {ANNEXED}\)"):
        Volumes(path=tmp_path, cache=tmp_path / ".cache").open("train")


def test_what_is_here_is_not_elsewhere(tmp_path: Path) -> None:
    molecule(tmp_path / "a.xyz")
    (tmp_path / "b.xyz").symlink_to("a.xyz")
    (tmp_path / "c.xyz").symlink_to("none.xyz")
    (tmp_path / "d.xyz").write_text("/annex/objects/MD5E-s123--0f.xyz\n")
    assert [elsewhere(tmp_path / name) for name in ("a.xyz", "b.xyz", "none.xyz", "")] == [""] * 4
    assert elsewhere(tmp_path / "c.xyz") == "a link to none.xyz, which is not there"
    assert elsewhere(tmp_path / "d.xyz").startswith("a pointer of git-annex")

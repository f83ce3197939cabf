"""What files hold: k-space in fastMRI's layout and as arrays, scans, pictures; and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from anydit.inverse.scan.files import Array, Picture, Series, read
from anydit.inverse.scan.kspace import KSpace, kspace, spectra, together
from tests.data.volumes.scans import AFFINE, dicom, nifti, values

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace>
<matrixSize><x>24</x><y>16</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{along}</x><y>{across}</y><z>4.5</z></fieldOfView_mm></encodedSpace><reconSpace>
<matrixSize><x>12</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>24</x><y>18</y><z>4.5</z></fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"""


def image(n: int = 3, h: int = 24, w: int = 16) -> torch.Tensor:
    """Bright in the middle, dark at the edges."""
    rows, columns = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)
    blob = (1 - (2 * rows) ** 2).clamp(min=0) * (1 - (2 * columns) ** 2).clamp(min=0)
    return blob * (1 + 0.3 * torch.arange(n)[:, None, None])


def write_fastmri(path: Path, y: np.ndarray, **more: np.ndarray) -> Path:
    """A file in the layout of fastMRI's multi-coil and single-coil data, of images of 2 x 1.5 mm."""
    with h5py.File(path, "w") as file:
        file["kspace"] = y.astype(np.complex64)
        file["ismrmrd_header"] = np.bytes_(HEADER.format(along=2.0 * y.shape[-2], across=1.5 * y.shape[-1]))
        for name, value in more.items():
            file[name] = value
        file.attrs.update({"acquisition": "CORPD_FBK", "max": 1e-3, "norm": 1e-2, "patient_id": "0"})
    return path


def test_fastmri_s_layout_with_coils_a_mask_and_the_truth(tmp_path: Path):
    coils = torch.tensor([0.6, 0.8j]).view(1, 2, 1, 1)
    y = spectra((image()[:, None] + 1e-6 * torch.randn(3, 1, 24, 16)) * coils)
    mask = torch.arange(16) % 2 == 0
    truth = image()[:, 6:18, 2:14]
    file = write_fastmri(tmp_path / "a.h5", (y * mask).numpy(), mask=mask.numpy(), reconstruction_rss=truth.numpy())
    found = read(file, 2)
    assert isinstance(found, KSpace)
    torch.testing.assert_close(found.y, y * mask)
    assert torch.equal(found.mask, mask.expand(24, 16)) and not found.whole
    assert found.truth is not None and torch.equal(found.truth[:, 0], truth)
    assert found.place and found.place.spacing == pytest.approx((2.0, 1.5, 4.5)), "along h, w and across"


def test_fastmri_s_layout_with_one_coil_that_is_whole(tmp_path: Path):
    y = spectra((image()[:, None] + 1e-6 * torch.randn(3, 1, 24, 16)).to(torch.complex64))
    found = read(write_fastmri(tmp_path / "a.h5", y[:, 0].numpy(), reconstruction_esc=image().numpy()), 2)
    assert isinstance(found, KSpace)
    assert found.y.shape == (3, 1, 24, 16) and found.whole
    torch.testing.assert_close(together(found.y)[:, 0], image(), atol=1e-5, rtol=1e-5)


def test_a_mask_is_found_where_k_space_is_not_0(tmp_path: Path):
    y = spectra((image()[:, None] + 0.01 * torch.randn(3, 1, 24, 16)).to(torch.complex64))[:, 0]
    y[:, :, 1::3] = 0
    np.save(tmp_path / "k.npy", y.numpy())
    found = read(tmp_path / "k.npy", 2)
    assert isinstance(found, KSpace)
    assert torch.equal(found.mask, (torch.arange(16) % 3 != 1).expand(24, 16))


def test_shapes_of_k_space():
    y = torch.ones(4, 3, 8, 8, dtype=torch.complex64)
    assert kspace(y, 2).y.shape == (4, 3, 8, 8)
    assert kspace(y[:, 0], 2).y.shape == (4, 1, 8, 8)
    assert kspace(y[0, 0], 2).y.shape == (1, 1, 8, 8)
    assert kspace(y, 3).y.shape == (4, 1, 3, 8, 8), "of volumes the last three axes are space"


def test_scans_pictures_and_arrays(tmp_path: Path):
    nifti(tmp_path / "a.nii.gz", values(4, 5, 6))
    series = dicom(tmp_path / "ct", np.arange(60).reshape(3, 4, 5), (1, 0, 0), (0, 1, 0), (0, 0, 2))
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) * 10
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", values(2, 3))
    scan, slices, picture, array = (read(tmp_path / name, 2) for name in ("a.nii.gz", "ct", "a.png", "a.npy"))
    assert isinstance(scan, Series) and np.allclose(scan.scan.affine, AFFINE) and scan.files == ()
    assert isinstance(slices, Series) and len(slices.files) == 5 and series.is_dir()
    assert isinstance(picture, Picture) and picture.x.shape == (1, 1, 4, 5)
    assert picture.x.max().item() == pytest.approx(190 / 255)
    assert isinstance(array, Array) and array.x.shape == (2, 3)


def picture(folder: Path, name: str, image: Image.Image) -> Path:
    image.save(folder / name)
    return folder / name


GREY = np.linspace(0, 255, 20).round().astype(np.uint8).reshape(4, 5)
DEEP = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", Image.fromarray(DEEP)),
        ("a.tif", Image.fromarray(DEEP)),
        ("big.tif", Image.frombytes("I;16B", (5, 4), DEEP.astype(">u2").tobytes())),
        ("long.tif", Image.fromarray(DEEP.astype(np.int32))),
        ("la.png", Image.fromarray(GREY).convert("LA")),
        ("palette.png", Image.fromarray(GREY).convert("P")),
    ],
)
def test_grey_pictures_of_any_kind_are_the_same(name: str, image: Image.Image, tmp_path: Path):
    """16 bits have 65,535 as white, and are not cut at 255."""
    found = read(picture(tmp_path, name, image), 2)
    assert isinstance(found, Picture)
    np.testing.assert_allclose(found.x[0].numpy(), GREY[None] / 255, atol=1e-6)


def test_a_palette_of_colours_has_three_channels(tmp_path: Path):
    found = read(picture(tmp_path, "a.png", Image.new("RGB", (5, 4), (255, 0, 51)).quantize(2)), 2)
    assert isinstance(found, Picture) and found.x[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def broken(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"nothing of the kind")
    return folder / name


def bare(folder: Path, **content: np.ndarray) -> Path:
    with h5py.File(folder / "b.h5", "w") as file:
        for name, value in content.items():
            file[name] = value
    return folder / "b.h5"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "no.npy", "which is not there"),
        (lambda f: broken(f, "a.xyz"), "expected one of"),
        (lambda f: broken(f, "a.nii"), "cannot be read"),
        (lambda f: broken(f, "a.h5"), "cannot be read"),
        (lambda f: broken(f, "a.npy"), "cannot be read as an array"),
        (lambda f: broken(f, "a.png"), "cannot be read"),
        (lambda f: picture(f, "f.tif", Image.fromarray(DEEP.astype(np.float32))), r"to 6.554e\+04, .* a \.npy file"),
        (lambda f: picture(f, "i.tif", Image.fromarray(DEEP.astype(np.int32) + 1)), "from 1 to 6.554e"),
        (lambda f: bare(f, image=np.ones((2, 2))), "with image, expected kspace"),
        (lambda f: bare(f, kspace=np.ones((2, 4, 4))), "kspace: got float64 .*, expected complex numbers"),
        (lambda f: bare(f, kspace=np.zeros((2, 4, 4), np.complex64)), "k-space: got zeros alone"),
        (
            lambda f: bare(f, kspace=np.ones((2, 4, 4), np.complex64), mask=np.zeros(4)),
            "mask: got one that measures nothing",
        ),
        (
            lambda f: bare(f, kspace=np.ones((2, 4, 4), np.complex64), mask=np.ones(5)),
            r"mask: got shape \(5,\), expected \(4, 4\), or \(4,\) for columns",
        ),
        (lambda f: bare(f, kspace=np.ones(4, np.complex64)), r"k-space: got shape \(4,\), expected \[n, coils, h, w\]"),
        (lambda f: bare(f, kspace=np.full((4, 4), np.nan, np.complex64)), "k-space: got NaN or infinity"),
        (lambda f: (f / "empty").mkdir() or f / "empty", "with the DICOM series none"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(make, message, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        read(make(tmp_path), 2)

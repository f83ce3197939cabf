"""`anydit reconstruct`: from files to files, on their grid and their scale, and what it refuses."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from anydit.cli import main, reconstruct
from anydit.codecs import Normalize
from anydit.data import Digits, SliceView, View, VolumeView
from anydit.data.volumes.medical import read_dicom
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inverse.classical import least_variation
from anydit.inverse.scan.kspace import spectra
from anydit.model.conditioning import Label
from anydit.model.dit import DiT, DiTConfig
from anydit.train.loop import train
from tests.data.volumes.scans import AFFINE, dicom, enhanced, nifti
from tests.inverse.scan.test_files import image, write_fastmri
from tests.inverse.scan.test_kspace import acquired
from tests.inverse.scan.test_raw import header, lines, scanned, write_raw
from tests.inverse.test_measured import DATA, again, heard, told, trained
from tests.train.tiny import silent, tiny_with

QUICK = ["--samples", "2", "--steps", "3", "--how", "Proximal", "--device", "cpu"]


@pytest.fixture(autouse=True)
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Total variation in few iterations: whether it is the least, tests/inverse says."""
    monkeypatch.setattr("anydit.inverse.scan.solve.least_variation", partial(least_variation, iterations=20))


AXES = ((2.0, 0.0, 0.0, 0.0), (0.0, 1.5, 0.0, 0.0), (0.0, 0.0, 3.0, 0.0))
EXACT = ["--physics", "mri", "--acceleration", "1", "--center", "1", "--sigma", "0.001"]
"""Whole k-space and hardly any noise: what comes out is what went in."""


def untrained(folder: Path, size: tuple[int, ...], view: View) -> Path:
    """A model with random weights of samples of that size with values from 0 to 200."""
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4,) * len(size), channels=1, size=size)
    config = PipelineConfig(model=model, codec=Normalize.to_unit(0, 200), view=view, sampling=Sampling(steps=2))
    Pipeline(config, DiT(model)).save(folder)
    return folder


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of axial slices of 16x16, 2 x 1.5 mm."""
    view = SliceView(low=0, high=200, affine=AXES, code=1, unit="mm")
    return untrained(tmp_path_factory.mktemp("cli") / "slices", (16, 16), view)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of volumes of 16x12x8, 2 x 1.5 x 3 mm, larger than `body` along two axes."""
    view = VolumeView(low=0, high=200, affine=AXES, code=1, unit="mm")
    return untrained(tmp_path_factory.mktemp("cli") / "volumes", (16, 12, 8), view)


def body(shape: tuple[int, ...] = (12, 7, 14)) -> np.ndarray:
    """Bright in the middle."""
    lines = [1 - np.linspace(-1, 1, n) ** 2 for n in shape]
    return (200 * np.einsum("i,j,k->ijk", *lines)).astype(np.float32)


def test_held_out_data_with_metrics(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.npy"
    words = ["--physics", "inpainting", "--known", "0.5", "-n", "3", "--cond", "label=3", "--out", str(out)]
    assert main(["reconstruct", str(run), *words, *QUICK]) == 0
    printed = capsys.readouterr().out
    for expected in ("residual", "PSNR", "SSIM", "total variation", "mean of 2", "3 calls of the network"):
        assert expected in printed
    assert np.load(out).shape == np.load(tmp_path / "out-deviation.npy").shape == (3, 1, 8, 8)
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.width > 6 * 48 and sheet.height > 3 * 48, "six tiles in each of three rows"


@pytest.mark.parametrize("samples", [8, 9])
def test_how_often_the_truth_lies_in_the_intervals_that_so_many_samples_tell(
    samples: int, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--physics", "inpainting", "-n", "2", *QUICK[2:], "--samples", str(samples)]
    assert main(["reconstruct", str(run), *words, "--out", str(tmp_path / "out.npy")]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Truth within"))
    form = r"Truth within the 50 % interval: \d+ %\." if samples == 8 else r"Truth .* 50 % / 80 % .*: \d+ % / \d+ %\."
    assert re.fullmatch(form, line)


@pytest.mark.parametrize("how", [[], ["--how", "MomentMatching"]])
def test_a_model_that_was_trained_on_measurements_is_told_of_one_in_a_file(
    how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """By the very numbers of training, whether samples are corrected or not."""
    _, number, seen = trained(DATA, tmp_path / "run")
    y, physics = again(DATA, number)
    np.save(tmp_path / "y.npy", torch.where(physics.mask > 0, 16 * y, torch.nan).numpy())
    words = ["--physics", "inpainting", "--measured", "--sigma", "0.02", "--samples", "2", "--device", "cpu", *how]
    command = ["reconstruct", str(tmp_path / "run"), str(tmp_path / "y.npy"), *words]
    with heard() as calls:
        assert main([*command, "--out", str(tmp_path / "out.npy")]) == 0
    assert calls and all(torch.equal(one, seen) for call in calls for one in call)
    printed = " ".join(capsys.readouterr().out.split())
    assert "The model was trained on Inpainting (known 0.5) with noise of deviation 0.02." in printed
    assert np.load(tmp_path / "out.npy").shape == (1, 1, 8, 8)


def test_a_model_that_was_trained_on_measurements_reconstructs_its_held_out_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, out = tmp_path / "run", tmp_path / "out.npy"
    train(told(DATA, steps=12), folder, "cpu", silent)
    command = ["reconstruct", str(folder), "--samples", "2", "--device", "cpu", "--out", str(out), "--physics"]
    residuals = list[float]()
    for how in ([], ["--how", "Proximal"]):
        assert main([*command, "inpainting", "--known", "0.5", "-n", "3", *how]) == 0
        printed = capsys.readouterr().out
        assert "PSNR" in printed and np.load(out).shape == (3, 1, 8, 8)
        residuals += map(float, re.findall(r"each sample +│ +([\d.]+)", printed))
    assert len(residuals) == 2 and residuals[0] > 2 and residuals[1] < 1.05, "told alone, and put right"
    assert main([*command, "mri"]) == 2
    refused = " ".join("".join(capsys.readouterr()).split())
    assert "physics: got MRI, expected Inpainting, on whose measurements alone the model was trained" in refused


@pytest.mark.parametrize(
    ("given", "out"),
    [("a.png", "a.png"), ("a.png", "a.npy"), ("a.npy", "link.npy"), ("mean-deviation.npy", "mean.npy"),
     ("to/mean.npy", "to"), ("a.nii.gz", "a.nii.gz"), ("in", "in"), ("in", "in/deeper"), ("in/0.dcm", "in")],
)  # fmt: skip
def test_what_came_in_is_not_written_over(
    given: str, out: str, slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    x = body((16, 16, 3))[..., 1]
    for name in ("a.npy", "mean-deviation.npy", "to/mean.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, x)
    (tmp_path / "link.npy").symlink_to(tmp_path / "a.npy")
    Image.fromarray(x.astype(np.uint8)).save(tmp_path / "a.png")
    nifti(tmp_path / "a.nii.gz", body())
    dicom(tmp_path / "in", (body((10, 12, 5)) / 2 + 512).round(), (1, 0, 0), (0, 1, 0), (0, 0, 2))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    words = ["--physics", "deblurring", *QUICK, "--out", str(tmp_path / out)]
    assert main(["reconstruct", str(slices), str(tmp_path / given), *words]) == 2
    assert "whose files would be written over or among" in " ".join("".join(capsys.readouterr()).split())
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_held_out_data_tell_what_a_model_has_to_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Their own conditions, of a model that cannot do without, unless something else is said."""
    recipe = tiny_with(steps=2)
    recipe = replace(recipe, model=replace(recipe.model, conditions={"label": Label(dropout=0.0)}))
    train(recipe, tmp_path / "run", "cpu", silent)
    labels = Digits().open("held_out").read(torch.tensor([0])).tensor("label").tolist()
    words = [
        "reconstruct",
        str(tmp_path / "run"),
        "--physics",
        "inpainting",
        *QUICK,
        "--out",
        str(tmp_path / "out.npy"),
    ]
    found = list[np.ndarray]()
    for said in ([], [f"label={labels[0]}"], [f"label={(labels[0] + 1) % 10}"]):
        assert main([*words, "-n", "1", *(["--cond", *said] if said else [])]) == 0
        assert ("Each is told of its own label" in capsys.readouterr().out) == (not said)
        found.append(np.load(tmp_path / "out.npy"))
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
    assert main([*words, "-n", "3"]) == 0 and len(np.load(tmp_path / "out.npy")) == 3


def test_a_picture_and_an_array_are_the_same_image(run: Path, tmp_path: Path):
    x = Digits().open("held_out").read(torch.arange(1)).x[0, 0].numpy()
    Image.fromarray((x * 255 / 16).round().astype(np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", (x * 255 / 16).round() * 16 / 255)
    for name in ("a.png", "a.npy"):
        words = [str(run), str(tmp_path / name), "--physics", "super-resolution", "--factor", "2", *QUICK]
        assert main(["reconstruct", *words, "--out", str(tmp_path / f"{name}.out.npy")]) == 0
    first, second = (np.load(tmp_path / f"{name}.out.npy") for name in ("a.png", "a.npy"))
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_a_scan_comes_back_on_its_own_grid(slices: Path, tmp_path: Path):
    """Whole k-space and hardly any noise: what comes out is what went in, at the same places."""
    scan, out = nifti(tmp_path / "scan.nii.gz", body()), tmp_path / "recon.nii.gz"
    words = [*EXACT, "--slices", "2", "5"]
    assert main(["reconstruct", str(slices), str(scan), *words, *QUICK, "--out", str(out)]) == 0
    mean, deviation = nibabel.load(out), nibabel.load(tmp_path / "recon-deviation.nii.gz")
    assert mean.shape == deviation.shape == (12, 4, 14), "slices follow each other along the scan's second axis"
    expected = AFFINE.copy()
    expected[:3, 3] += 2 * AFFINE[:3, 1]
    assert np.allclose(mean.affine, expected) and np.allclose(deviation.affine, expected)
    assert mean.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(np.asarray(mean.dataobj), body()[:, 2:6], atol=2)
    assert (tmp_path / "recon.png").is_file()


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_some_slices_into_a_folder_keep_their_places(slices: Path, tmp_path: Path, kind: str):
    """No series can be made of some slices of one, and no scan loses where it lies."""
    if kind == "nifti":
        scan = nifti(tmp_path / "scan.nii.gz", body())
    else:
        stored = (body((14, 12, 7)) / 2 + 512).round()
        scan = dicom(tmp_path / "in", stored, [1, 0, 0], [0, 1, 0], [0, 0, 3.0])
    words = [*EXACT, "--slices", "2", "3"]
    out = tmp_path / "out"
    assert main(["reconstruct", str(slices), str(scan), *words, *QUICK, "--scale", "1", "--out", str(out)]) == 0
    mean, deviation = (nibabel.load(out / f"{name}.nii.gz") for name in ("mean", "deviation"))
    whole = nibabel.load(scan).affine if kind == "nifti" else read_dicom([*scan.iterdir()]).affine
    across = 1 if kind == "nifti" else 2
    expected = whole.copy()
    expected[:3, 3] += 2 * whole[:3, across]
    assert np.allclose(mean.affine, expected) and np.allclose(deviation.affine, expected)
    assert mean.shape[across] == 2 and (out / "comparison.png").is_file()


def test_dicom_in_and_out(slices: Path, tmp_path: Path):
    stored = (body((10, 12, 5)) / 2 + 512).round()  # slope 2, intercept -1024
    folder = dicom(tmp_path / "in", stored, (1, 0, 0), (0, 1, 0), (0, 0, 2))
    words = ["--physics", "deblurring", "--width", "0.4", "--sigma", "0.001", *QUICK]
    assert main(["reconstruct", str(slices), str(folder), *words, "--out", str(tmp_path / "out")]) == 0
    before, after = (read_dicom(sorted((tmp_path / name).glob("*.dcm"))) for name in ("in", "out"))
    assert np.allclose(before.affine, after.affine) and before.values.shape == after.values.shape
    assert np.allclose(nibabel.load(tmp_path / "out-deviation.nii.gz").affine, before.affine)
    assert main(["reconstruct", str(slices), str(folder), *words, "--out", str(tmp_path / "out.nii")]) == 0
    assert np.allclose(nibabel.load(tmp_path / "out.nii").affine, before.affine)


def test_results_of_before_do_not_lie_beside_others(slices: Path, run: Path, tmp_path: Path):
    """No deviation of others, no slices of a longer series and no further samples; what is another's stays."""
    out, one = tmp_path / "out", ["--samples", "1", *QUICK[2:]]
    words = ["--physics", "deblurring", "--width", "0.4", "--sigma", "0.001", "--scale", "1"]
    long = dicom(tmp_path / "long", (body((10, 12, 6)) / 2 + 512).round(), (1, 0, 0), (0, 1, 0), (0, 0, 2))
    short = dicom(tmp_path / "short", (body((10, 12, 6)) / 2 + 512).round()[..., 1:-1], (1, 0, 0), (0, 1, 0), (0, 0, 2))
    assert main(["reconstruct", str(slices), str(long), *words, *QUICK, "--out", str(out)]) == 0
    deviation, others = tmp_path / "out-deviation.nii.gz", (out / "00009.dcm", out / "00010.dcm", out / "notes.txt")
    assert deviation.is_file()
    for other, content in zip(others, (next(long.iterdir()).read_bytes(), b"no image", b"mean"), strict=True):
        other.write_bytes(content)
    assert main(["reconstruct", str(slices), str(short), *words, *one, "--out", str(out)]) == 0
    assert {file.name for file in out.iterdir()} == {*(f"{k:05d}.dcm" for k in range(4)), *(o.name for o in others)}
    assert not deviation.exists()
    into = tmp_path / "into"
    for n, flags in ((3, QUICK), (2, one)):
        held = ["reconstruct", str(run), "--physics", "inpainting", "-n", str(n), *flags, "--out", str(into)]
        assert main(held) == 0
        assert len([*into.glob("mean*")]) == n and len([*into.glob("deviation*")]) == (flags is QUICK)


@pytest.mark.parametrize("frames", [1, 3])
def test_frames_of_one_dicom_file_go_into_a_folder_as_nifti(
    frames: int, slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Of them no series can be made: their tags are within the one file."""
    stored = (body((10, 12, frames + 2)) / 2 + 512).round()[..., 1:-1]
    series = dicom(tmp_path / "in", stored, (1, 0, 0), (0, 1, 0), (0, 0, 2))
    file, out = enhanced(tmp_path / "e.dcm", series), tmp_path / "to" / "out"
    words = ["--physics", "deblurring", "--width", "0.4", *QUICK, "--scale", "1", "--out", str(out)]
    assert main(["reconstruct", str(slices), str(file), *words]) == 0
    assert np.allclose(nibabel.load(out / "mean.nii.gz").affine, read_dicom([file]).affine)
    assert "a folder gets NIfTI, and no series" in " ".join(capsys.readouterr().out.split())


def test_fastmri_s_k_space(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    k = acquired(coils=3, acceleration=1.0, noise=0.002)
    file, out = write_fastmri(tmp_path / "file.h5", k.y.numpy()), tmp_path / "recon.nii.gz"
    words = ["--physics", "mri", "--acceleration", "2", "--center", "0.3", "--slices", "1", *QUICK]
    assert main(["reconstruct", str(slices), str(file), *words, "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "K-space is whole" in printed and "Noise of deviation" in printed and "PSNR" in printed
    found = nibabel.load(out)
    assert found.shape == (16, 16, 1) and np.allclose(found.header.get_zooms(), [2.0, 1.5, 4.5])
    bright = 3e-5 * image(2, 32, 32)[1].max().item()
    assert 0.2 * bright < np.asarray(found.dataobj).max() < 2 * bright, "in the numbers of the file"


def test_raw_lines(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Every other line and the middle, of images at 3 x 1.5 mm, which come to the model's 2 x 1.5 mm."""
    measured = sorted({*range(0, 16, 2), 7, 9})
    file, out = write_raw(tmp_path / "raw.h5", lines(scanned(), measured), header()), tmp_path / "recon.nii.gz"
    words = ["--measured", "--physics", "mri", "--samples", "2", "--steps", "3", "--device", "cpu"]
    assert main(["reconstruct", str(slices), str(file), *words, "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "A share of 0.417 of k-space was measured" in printed, "of 10 of 16 lines, and 16 of 24 values of each"
    assert "Brought from 3 x 1.5 mm to the model's 2 x 1.5 mm" in printed and "does not tell where its axes" in printed
    found = nibabel.load(out)
    assert found.shape == (16, 16, 2) and np.allclose(found.header.get_zooms(), [2.0, 1.5, 4.5])
    assert 0.3 < np.asarray(found.dataobj).max() / image(2, 16, 16).max().item() < 3, "in the numbers of the file"


def test_a_volume_comes_back_on_its_own_grid(volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """All of k-space along three axes, of a scan that lies otherwise than the model's data."""
    scan, out = nifti(tmp_path / "scan.nii.gz", body()), tmp_path / "recon.nii.gz"
    assert main(["reconstruct", str(volumes), str(scan), *EXACT, *QUICK, "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 reconstructed" in printed and "(14, 12, 7) voxels are filled up with air" in printed
    mean, deviation = nibabel.load(out), nibabel.load(tmp_path / "recon-deviation.nii.gz")
    assert mean.shape == deviation.shape == body().shape
    assert np.allclose(mean.affine, AFFINE) and np.allclose(deviation.affine, AFFINE)
    np.testing.assert_allclose(np.asarray(mean.dataobj), body(), atol=2)
    with Image.open(tmp_path / "recon.png") as sheet:
        assert sheet.width > sheet.height, "all ways of one volume beside each other"


def test_a_series_of_dicom_files_is_one_volume(volumes: Path, tmp_path: Path):
    stored = (body((12, 14, 7)) / 2 + 512).round()  # slope 2, intercept -1024
    folder = dicom(tmp_path / "in", stored, (1, 0, 0), (0, 1, 0), (0, 0, 3), PixelSpacing=[1.5, 2.0])
    command = ["reconstruct", str(volumes), str(folder), *EXACT, *QUICK]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    before, after = (read_dicom(sorted((tmp_path / name).glob("*.dcm"))) for name in ("in", "out"))
    assert np.allclose(before.affine, after.affine)
    np.testing.assert_allclose(before.values, after.values, atol=3)


def test_k_space_of_a_volume_by_moment_matching(volumes: Path, tmp_path: Path):
    """All of it, of two coils: what is written is what was scanned, in the numbers of the file."""
    x = torch.from_numpy(body((16, 12, 8)))[None, None] * torch.tensor([0.6, 0.8j]).view(1, 2, 1, 1, 1)
    noise = torch.randn(x.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "k.npy", (spectra(x) + 0.1 * noise).numpy())
    words = [*EXACT[:-2], "--samples", "2", "--steps", "3", "--device", "cpu"]
    assert main(["reconstruct", str(volumes), str(tmp_path / "k.npy"), *words, "--out", str(tmp_path / "o.npy")]) == 0
    found = np.load(tmp_path / "o.npy")
    assert found.shape == (1, 1, 16, 12, 8) and np.abs(found[0, 0] - body((16, 12, 8))).mean() < 10


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--physics", "ct"], "got CT of samples of size (16, 12, 8), expected ones with 2 axes"),
        (
            ["--physics", "mri", "--slices", "1"],
            "slices: got [1], expected none: the model's samples are whole volumes",
        ),
    ],
)
def test_of_volumes_refused(
    words: list[str], named: str, volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scan, out = nifti(tmp_path / "scan.nii.gz", body()), tmp_path / "out.nii.gz"
    assert main(["reconstruct", str(volumes), str(scan), *words, *QUICK, "--out", str(out)]) == 2
    assert named in " ".join("".join(capsys.readouterr()).split()) and not out.exists()


def test_real_and_imaginary_parts_a_mask_and_maps_of_a_person(
    slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    k = acquired(coils=3, acceleration=1.0)
    np.save(tmp_path / "k.npy", torch.view_as_real(k.y).movedim(-1, 1).numpy())
    np.save(tmp_path / "mask.npy", np.arange(32) % 2 == 0)
    words = ["--mask", str(tmp_path / "mask.npy"), "--coil-maps", str(tmp_path / "maps.npy"), "--measured", *QUICK]
    command = ["reconstruct", str(slices), str(tmp_path / "k.npy"), "--physics", "mri", *words]
    np.save(tmp_path / "maps.npy", np.ones((3, 16, 32), np.complex64) / np.sqrt(3))
    assert main([*command, "--out", str(tmp_path / "out.npy")]) == 2
    assert "expected [2, 3, 32, 32], or 1 for all slices" in " ".join("".join(capsys.readouterr()).split())
    np.save(tmp_path / "maps.npy", np.ones((3, 32, 32), np.complex64) / np.sqrt(3))
    assert main([*command, "--out", str(tmp_path / "out.npy")]) == 0
    assert np.load(tmp_path / "out.npy").shape == (2, 1, 16, 16)


def test_into_a_folder_what_is_written_is_on_the_scale_of_what_came_in(slices: Path, tmp_path: Path):
    """Of hardly any noise and all of k-space, an array comes out as it went in, and k-space in its own numbers."""
    x = body((16, 16, 3))[None, None, ..., 1]
    np.save(tmp_path / "x.npy", x / 50)
    words = [*EXACT, *QUICK]
    command = ["reconstruct", str(slices), str(tmp_path / "x.npy"), "--scale", "50", *words]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "out" / "mean.npy"), x / 50, atol=0.04)
    assert np.load(tmp_path / "out" / "deviation.npy").max() < 0.1
    file = write_fastmri(tmp_path / "file.h5", acquired(coils=1, acceleration=1.0).y.numpy())
    assert main(["reconstruct", str(slices), str(file), *words, "--out", str(tmp_path / "k")]) == 0
    found = nibabel.load(tmp_path / "k" / "mean.nii.gz")
    assert np.allclose(found.header.get_zooms(), [2.0, 1.5, 4.5])
    bright = 3e-5 * image(2, 32, 32)[1].max().item()
    assert 0.2 * bright < np.asarray(found.dataobj).max() < 2 * bright


def test_a_sinogram(slices: Path, tmp_path: Path):
    from anydit.inverse.operators import CT

    x = torch.from_numpy(body((16, 16, 3))[None, None, ..., 1])
    np.save(tmp_path / "s.npy", CT(views=40).build((1, 16, 16), 0.1).A(x).numpy())
    words = ["--measured", "--physics", "ct", "--views", "40", "--sigma", "0.001", *QUICK]
    out = tmp_path / "out.npy"
    assert main(["reconstruct", str(slices), str(tmp_path / "s.npy"), *words, "--out", str(out)]) == 0
    assert np.abs(np.load(out) - x.numpy()).mean() < 10


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "physics: got none, expected --physics with one of: mri, ct"),
        (["--physics", "xray"], "physics: got 'xray', expected one of: mri"),
        (["--physics", "mri", "--sigma", "0"], "sigma: got 0.0, expected a finite deviation above 0"),
        (["--physics", "mri", "--sigma", "-1"], "sigma: got -1.0"),
        (["--physics", "mri", "--views", "3"], "--views"),
        (["--physics", "ct", "--views", "0"], "views: got 0"),
        (["--physics", "mri", "--how", "Magic"], "expected one of"),
        (["--physics", "mri", "--samples", "0"], "samples: got 0"),
        (["--physics", "mri", "-n", "-1"], "n: got -1, expected at least 1"),
        (["--physics", "mri", "--scale", "0"], "scale: got 0.0"),
        (["--physics", "mri", "--slices", "1", "2", "3"], "slices: got 3 numbers"),
        (["--physics", "mri", "--cond", "lable=3"], "cond: got 'lable=3', expected NAME=VALUE with a name of: label"),
        (["--physics", "mri", "--out", "x.bmp"], "out: got x.bmp, expected FILE.nii.gz"),
    ],
)
def test_refused(words: list[str], named: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = [] if "--out" in words else ["--out", str(tmp_path / "out.npy")]
    code = main(["reconstruct", str(run), "--device", "cpu", *out, *words])
    text = " ".join("".join(capsys.readouterr()).split())
    assert (code, (tmp_path / "out.npy").exists()) == (2, False)
    assert named in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("array", "words", "named"),
    [
        (np.ones((4, 4), np.float32), [], "scan: got shape (4, 4), expected [n, 1, 8, 8]"),
        (np.ones((1, 3, 8, 8), np.float32), [], "scan: got 3 channels, expected the model's 1"),
        (np.random.rand(8, 8), [], "expected ones that fill 0 to 16"),
        (np.random.rand(8, 8) * 255, [], "expected ones that fill 0 to 16"),
        (np.ones((8, 8), np.complex64), ["--physics", "ct"], "physics: got CT and complex k-space, expected mri"),
        (np.ones((8, 8)), ["--measured"], "expected complex ones, or [n, 2, ...] with both parts"),
        (np.zeros((8, 8), np.complex64), [], "k-space: got zeros alone"),
        (np.ones((4, 8), np.complex64), [], "k-space: got a size of (4, 8), expected at least the model's (8, 8)"),
    ],
)
def test_an_array_that_cannot_be(array, words, named, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "a.npy", array)
    physics = [] if "--physics" in words else ["--physics", "mri"]
    code = main(["reconstruct", str(run), str(tmp_path / "a.npy"), *physics, *words, "--device", "cpu"])
    text = " ".join("".join(capsys.readouterr()).split())
    assert code == 2 and named in text and "Traceback" not in text


def test_help_fits_a_screen_and_says_what_a_run_takes(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["reconstruct", "--help"]) == 0
    page = capsys.readouterr().out
    assert len(page.splitlines()) <= 50 and "anydit reconstruct runs/digits --physics inpainting" in page
    assert main(["reconstruct", str(run), "--physics", "ct", "--how", "DPS", "--help"]) == 0
    page = capsys.readouterr().out
    assert "--physics.views" in page and "--how.scale" in page
    assert set(reconstruct.PHYSICS) == {"mri", "ct", "inpainting", "super-resolution", "deblurring", "sensors"}

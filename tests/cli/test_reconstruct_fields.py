"""`anydit reconstruct` for fields: sensors and coarse simulations, from files to files, on the fields' grid."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anydit.cli import main
from anydit.codecs import Normalize
from anydit.data import Axis, FieldView
from anydit.inference.config import PipelineConfig, Sampling
from anydit.inference.pipeline import Pipeline
from anydit.inverse.scan.own import write_own
from anydit.inverse.scan.written import end_of
from anydit.model.dit import DiT, DiTConfig
from tests.cli.test_reconstruct import QUICK

AXES = (Axis("x", 0.5, 0.25, "m", periodic=True), Axis("y", 10.0, 2.0, "m"))
VIEW = FieldView(variables=("u", "p"), units=("m/s", "Pa"), axes=AXES, interval=0.5, time_unit="s", format="hdf5")
SHAPE = (2, 8, 12)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, of `x`'s kind."""
    model = DiTConfig(width=16, depth=1, heads=2, patch=(4, 4), channels=2, size=SHAPE[1:])
    codec = Normalize((3.0, 3.0), (1.0, 1.0))
    config = PipelineConfig(model=model, codec=codec, view=VIEW, sampling=Sampling(steps=2))
    folder = tmp_path_factory.mktemp("cli") / "flow"
    Pipeline(config, DiT(model)).save(folder)
    return folder


def state() -> torch.Tensor:
    return 3 + torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def known() -> torch.Tensor:
    """Where there are sensors: of the first variable at other places than of the second."""
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.3


def reconstructed(flow: Path, scan: Path, out: Path, *words: str) -> torch.Tensor:
    """What is written, on the model's grid."""
    told = ["--sigma", "0.001", *QUICK, *words, "--out", str(out)]
    assert main(["reconstruct", str(flow), str(scan), *told]) == 0
    return VIEW.read(out, SHAPE).x if out.suffix != ".npy" else torch.from_numpy(np.load(out))[0]


@pytest.mark.parametrize("end", [".nc", ".h5", ".zarr"])
def test_sensors_in_a_file_with_nan_where_nothing_is_known(flow: Path, tmp_path: Path, end: str):
    """Their values, on the same grid and at the same time, in any format, and no physics has to be named."""
    scan = replace(VIEW, start=7.0).save(torch.where(known(), state(), torch.nan), tmp_path / "sensors")
    found = reconstructed(flow, scan, tmp_path / f"out{end}")
    torch.testing.assert_close(found[known()], state()[known()], atol=0.01, rtol=0)
    assert bool(found.isfinite().all()) and (tmp_path / "out.png").is_file()
    written, view = VIEW.read(tmp_path / f"out-deviation{end}", SHAPE)
    assert bool((written[known()] < 0.01).all()) and bool((written >= 0).all())
    assert isinstance(view, FieldView) and view.start == 7.0


def test_into_a_folder_and_beside_the_run(flow: Path, tmp_path: Path):
    scan = VIEW.save(torch.where(known(), state(), torch.nan), tmp_path / "sensors")
    assert main(["reconstruct", str(flow), str(scan), "--sigma", "0.001", *QUICK, "--out", str(tmp_path / "out")]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"mean-00000.h5", "deviation.h5", "comparison.png"}
    (tmp_path / "out" / "mean-00001.h5").write_bytes(b"of more samples, before")
    alone = ["--sigma", "0.001", "--samples", "1", *QUICK[2:], "--out", str(tmp_path / "out")]
    assert main(["reconstruct", str(flow), str(scan), *alone]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"mean-00000.h5", "comparison.png"}
    assert main(["reconstruct", str(flow), str(scan), "--sigma", "0.001", *QUICK, "--out", str(tmp_path / "out")]) == 0
    assert main(["reconstruct", str(flow), str(scan), "--sigma", "0.001", *QUICK]) == 0
    one, other = VIEW.read(tmp_path / "out" / "mean-00000.h5", SHAPE), VIEW.read(flow / "reconstruction.h5", SHAPE)
    assert torch.equal(one.x, other.x)


def test_again_into_the_same_zarr(flow: Path, tmp_path: Path):
    """It is a result, though a folder, and what was there is replaced."""
    scan = VIEW.save(torch.where(known(), state(), torch.nan), tmp_path / "sensors")
    first = reconstructed(flow, scan, tmp_path / "out.zarr")
    again = reconstructed(flow, scan, tmp_path / "out.zarr", "--seed", "1")
    assert not torch.equal(first, again) and not list((tmp_path / "out.zarr").glob("comparison.png"))


def test_the_scale_is_taken_back_in_a_folder_too(flow: Path, tmp_path: Path):
    scan = VIEW.save(torch.where(known(), state() / 2, torch.nan), tmp_path / "sensors")
    one = reconstructed(flow, scan, tmp_path / "one.h5", "--scale", "2")
    torch.testing.assert_close(one[known()], state()[known()] / 2, atol=0.01, rtol=0)
    told = ["--sigma", "0.001", *QUICK, "--scale", "2", "--out", str(tmp_path / "out")]
    assert main(["reconstruct", str(flow), str(scan), *told]) == 0
    assert torch.equal(VIEW.read(tmp_path / "out" / "mean-00000.h5", SHAPE).x, one)


def test_nothing_is_written_over_what_came_in(flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Not in a folder whose results would be named like it, nor in The Well's layout, which ends otherwise."""
    (tmp_path / "out").mkdir()
    given = replace(VIEW, format="zarr").save(torch.where(known(), state(), torch.nan), tmp_path / "out" / "mean-00000")
    assert main(["reconstruct", str(flow), str(given), "--sigma", "0.1", *QUICK, "--out", str(given.parent)]) == 2
    assert "would be written over" in " ".join("".join(capsys.readouterr()).split())
    well = replace(VIEW, grid="cartesian")
    assert end_of(well, well.save(state(), tmp_path / "in")) == ".hdf5"
    written = write_own(well, state()[None], tmp_path / "in.h5")
    assert written == [tmp_path / "in.h5"] and (tmp_path / "in.hdf5").is_file()


def test_a_mask_says_the_same_as_nan(flow: Path, tmp_path: Path):
    scan = VIEW.save(torch.where(known(), state(), torch.nan), tmp_path / "sensors")
    np.save(tmp_path / "state.npy", state().numpy())
    np.save(tmp_path / "mask.npy", known().numpy())
    words = ["--physics", "sensors", "--mask", str(tmp_path / "mask.npy")]
    by_mask = reconstructed(flow, tmp_path / "state.npy", tmp_path / "a.npy", *words)
    assert torch.equal(by_mask, reconstructed(flow, scan, tmp_path / "b.npy"))
    np.save(tmp_path / "mask.npy", known()[0].numpy())
    places = reconstructed(flow, tmp_path / "state.npy", tmp_path / "a.npy", *words)
    torch.testing.assert_close(places[:, known()[0]], state()[:, known()[0]], atol=0.01, rtol=0)


def coarse(folder: Path, *axes: Axis) -> Path:
    return replace(VIEW, axes=axes).save(state().unflatten(2, (3, 4)).unflatten(1, (2, 4)).mean((2, 4)), folder / "c")


def test_a_coarse_simulation(flow: Path, tmp_path: Path):
    """Its values are means over blocks, and lie in their middles."""
    scan = coarse(tmp_path, replace(AXES[0], start=0.875, step=1.0), replace(AXES[1], start=13.0, step=8.0))
    words = ["--physics", "super-resolution", "--factor", "4", "--measured"]
    found = reconstructed(flow, scan, tmp_path / "out.nc", *words)
    torch.testing.assert_close(*(x.unflatten(2, (3, 4)).unflatten(1, (2, 4)).mean((2, 4)) for x in (found, state())),
                               atol=0.01, rtol=0)  # fmt: skip


def test_whole_fields_are_measured_synthetically(flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scan = VIEW.save(state(), tmp_path / "state")
    reconstructed(flow, scan, tmp_path / "out.nc", "--share", "0.2")
    assert "PSNR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["coarse.h5", "--physics", "super-resolution", "--measured"], "with point 0 of x at 0.5, expected 0.875"),
        (["other.h5"], "scan: got other.h5 without p"),
        (["sensors.h5", "--mask", "mask.npy"], "mask: got shape (3,), expected (8, 12), or (2, 8, 12)"),
        (["state.npy", "--physics", "ct", "--mask", "mask.npy"], "mask: got one for CT, expected k-space"),
        (["sensors.h5", "--physics", "super-resolution"], "inpainting and sensors take NaN as unknown"),
    ],
)
def test_refused(
    words: list[str], named: str, flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    coarse(tmp_path, replace(AXES[0], step=1.0), replace(AXES[1], step=8.0)).rename("coarse.h5")
    replace(VIEW, variables=("u", "q")).save(state(), Path("other"))
    VIEW.save(torch.where(known(), state(), torch.nan), Path("sensors"))
    np.save("state.npy", state().numpy())
    np.save("mask.npy", np.ones(3))
    assert main(["reconstruct", str(flow), *words, "--sigma", "0.1", *QUICK, "--out", "out.nc"]) == 2
    text = " ".join("".join(capsys.readouterr()).split())
    assert named in text and "Traceback" not in text and not Path("out.nc").exists()


def test_files_of_fields_are_for_models_of_fields(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--physics", "inpainting", *QUICK, "--out", str(tmp_path / "out.nc")]
    assert main(["reconstruct", str(run), *words]) == 2
    assert "expected FILE.nii.gz, FILE.npy, FILE.png" in " ".join("".join(capsys.readouterr()).split())

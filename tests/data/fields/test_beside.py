"""What CF files say beside the values of fields: kept and written, or told of; and no field by itself."""

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch

from anydit.data import Fields, FieldView
from anydit.data.fields.fields import FieldSamples
from tests.data.fields import grids

T, Y, X = 6, 4, 3


def model(file: Path, group: str = "") -> np.ndarray:
    """A temperature at depths and along a projection's x, with all that such files have beside it."""
    with netCDF4.Dataset(file, "w") as whole:
        out: Any = whole.createGroup(group) if group else whole
        for name, n in (("time", T), ("depth", Y), ("x", X), ("bnds", 2)):
            out.createDimension(name, n)

        def put(name: str, dims: tuple[str, ...], values: Any, **about: str) -> None:
            made = out.createVariable(name, "f8", dims)
            made.setncatts(about)
            made[:] = values

        put("time", ("time",), np.arange(T), units="hours since 2000-01-01", bounds="time_bnds", axis="T")
        put("depth", ("depth",), 10.0 * np.arange(Y), units="m", positive="down", standard_name="depth")
        put("x", ("x",), np.arange(X), units="km", long_name="along the section")
        put("time_bnds", ("time", "bnds"), np.zeros((T, 2)))
        put("lat", ("depth", "x"), np.ones((Y, X)), units="degrees_north")
        put("lon", ("time", "depth", "x"), np.ones((T, Y, X)), units="degrees_east")
        put("area", ("depth", "x"), np.ones((Y, X)))
        put("crs", (), 0, grid_mapping_name="rotated_latitude_longitude")
        values = grids.values(T, Y, X)
        put("t", ("time", "depth", "x"), values, units="K", coordinates="lat lon time", grid_mapping="crs: depth x",
            cell_measures="area: area", standard_name="sea_water_temperature")  # fmt: skip
    return values


def opened(path: Path, **fields: Any) -> FieldSamples:
    samples = Fields(**{"path": path, "held_out": 0.0} | fields).open("train")
    assert isinstance(samples, FieldSamples)
    return samples


@pytest.mark.parametrize("group", ["", "RUN"])
def test_what_tells_of_the_grid_is_no_field_on_it(
    tmp_path: Path, group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = model(tmp_path / "a.nc", group)
    samples = opened(tmp_path / "a.nc")
    assert samples.facts.channels == 1
    assert np.array_equal(samples.read(torch.tensor([1])).x[0, 0], values[1])
    said = f"Not kept of {tmp_path}/a.nc, and so not in what is written: lat, lon, crs, area, time_bnds.\n"
    assert capsys.readouterr().err == said
    name = f"{group}/lon".lstrip("/")
    assert np.array_equal(opened(tmp_path / "a.nc", variables=(name,)).read(torch.tensor([0])).x, np.ones((1, 1, Y, X)))


@pytest.mark.parametrize("format", ["netcdf", "zarr", "the_well"])
def test_names_and_the_way_of_heights_are_written(tmp_path: Path, format: Any) -> None:
    model(tmp_path / "a.nc")
    facts = opened(tmp_path / "a.nc", past=1).facts
    view = FieldView(format=format).like(facts)
    assert isinstance(view, FieldView)
    path = view.save(torch.zeros(2, Y, X), tmp_path / "b")
    again = opened(path, variables=("t",), past=1).facts.view
    assert isinstance(again, FieldView) and again.about == view.about
    if format == "netcdf":
        with netCDF4.Dataset(path) as out:
            assert (out["depth"].positive, out["depth"].units, out["time"].axis) == ("down", "m", "T")
            assert out["t"].standard_name == "sea_water_temperature" and "coordinates" not in out["t"].ncattrs()
            assert out["x"].long_name == "along the section"


def test_heights_that_go_another_way_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        model(tmp_path / f"{name}.nc")
    assert len(opened(tmp_path)) == 2 * T
    model(tmp_path / "c.nc")
    with netCDF4.Dataset(tmp_path / "c.nc", "a") as out:
        out["depth"].positive = "up"
    said = f"^data.path: {tmp_path}/c.nc has depth positive up, expected down as in {tmp_path}/a.nc$"
    with pytest.raises(ValueError, match=said):
        opened(tmp_path)


def test_a_file_that_says_nothing_besides_has_nothing_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grids.netcdf(tmp_path / "a.nc")
    view = opened(tmp_path / "a.nc").facts.view
    assert isinstance(view, FieldView) and view.about is None and not capsys.readouterr().err

"""Fields in files as others write them, and files that others can read."""

from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import zarr

from anydit.data.fields.contents import Array
from anydit.data.fields.files import kind, listed, read, write
from tests.data.fields import grids
from tests.data.fields.grids import N, T, X, Y


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF4_CLASSIC", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET"])
def test_netcdf_of_any_age(tmp_path: Path, format: str) -> None:
    arrays = grids.netcdf(tmp_path / "a.nc", format)
    found = listed(tmp_path / "a.nc")
    assert set(found.variables) == {"u", "v", "temperature", "x", "y", "time", "speed", "depth"}
    u = found.variables["u"]
    assert (u.axes, u.shape, u.unit) == (("trajectory", "time", "x", "y"), (N, T, X, Y), "m/s")
    assert found.variables["x"].axes == ("x",)
    assert found.numbers["density"] == 1.5
    index = (2, slice(1, 6, 2), slice(None), 3)
    for name in ("u", "temperature"):
        part = read(tmp_path / "a.nc", found.variables[name], index)
        assert part.dtype == np.float32
        assert np.array_equal(part, arrays[name][index])


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_packed_values_are_unpacked_and_missing_ones_are_nan(tmp_path: Path, format: Any) -> None:
    truth = np.linspace(250.0, 310.0, 12).reshape(3, 4)
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=format) as out:
        out.createDimension("x", 3)
        out.createDimension("y", 4)
        made = out.createVariable("t", "i2", ("x", "y"), fill_value=-999)
        made.scale_factor, made.add_offset = 0.01, 280.0
        made[:] = np.ma.masked_array(truth, truth == truth[1, 2])
    got = read(tmp_path / "a.nc", listed(tmp_path / "a.nc").variables["t"])
    assert np.isnan(got[1, 2]) and np.isnan(got).sum() == 1
    assert np.nanmax(np.abs(got - truth)) < 0.006


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_what_was_never_written_is_nan(tmp_path: Path, format: Any, kind: str) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=format) as out:
        out.createDimension("x", 5)
        made = out.createVariable("t", kind, ("x",))
        made[:] = np.ma.masked_equal([1.0, 2.0, 3.0, 4.0, 5.0], 3.0)
    got = read(tmp_path / "a.nc", listed(tmp_path / "a.nc").variables["t"])
    assert np.array_equal(got, [1, 2, np.nan, 4, 5], equal_nan=True)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_formats(tmp_path: Path, version: int) -> None:
    arrays = grids.store(tmp_path / "a.zarr", version)
    found = listed(tmp_path / "a.zarr")
    u = found.variables["u"]
    assert (u.axes, u.shape, u.unit) == (("sample", "time", "x"), (N, T, X), "m")
    assert np.array_equal(read(tmp_path / "a.zarr", u, (1, slice(0, 3), slice(None))), arrays["u"][1, :3])


def test_zarr_s_variables_come_by_name_in_whatever_order_a_folder_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids.store(tmp_path / "a.zarr", 3)
    members = zarr.Group.members
    for order in (False, True):
        monkeypatch.setattr(
            zarr.Group, "members", lambda self, order=order, **how: sorted(members(self, **how), reverse=order)
        )
        names = list(listed(tmp_path / "a.zarr").variables)
        assert len(names) > 1 and names == sorted(names)


def test_hdf5_without_and_with_names_of_axes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["group/p"] = grids.values(3, X)
        out["q"] = grids.values(3, X).astype(">f8")
        out["q"].dims[0].label = "time"
        out.attrs["reynolds"] = np.array([100.0])
    found = listed(tmp_path / "a.h5")
    assert found.variables["group/p"].axes == (None, None)
    assert found.variables["q"].axes == ("time", None)
    assert found.numbers == {"reynolds": 100.0}
    assert np.array_equal(read(tmp_path / "a.h5", found.variables["q"], (0,)), grids.values(3, X)[0])


def test_the_well(tmp_path: Path) -> None:
    grids.the_well(tmp_path / "a.hdf5")
    found = listed(tmp_path / "a.hdf5")
    axes = {name: variable.axes for name, variable in found.variables.items()}
    grid = ("sample", "time", "x", "y")
    assert axes["density"] == grid
    assert axes["velocity"] == (*grid, "component")
    assert axes["stress"] == (*grid, "component", "component")
    assert (axes["mask"], axes["profile"]) == (("x", "y"), ("sample", "time", "y"))
    assert (axes["reynolds"], axes["viscosity"]) == (("sample",), ())
    assert found.periodic == {"x"}


@pytest.mark.parametrize("name", ["a.h5", "a.nc", "a.zarr"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    u, x = grids.values(T, X), np.linspace(0, 1, X)
    arrays = {
        "x": Array(("x",), x, {"units": "m", "boundary": "periodic"}),
        "u": Array(("time", "x"), u, {"units": "K"}),
    }
    write(tmp_path / name, arrays, {"reynolds": 40.0})
    found = listed(tmp_path / name)
    assert set(found.variables) == {"x", "u"}
    assert (found.variables["u"].axes, found.variables["u"].unit) == (("time", "x"), "K")
    assert found.periodic == {"x"}
    assert found.numbers == {"reynolds": 40.0}
    assert np.array_equal(read(tmp_path / name, found.variables["u"]), u)


def test_hdf5_that_is_written_is_netcdf_for_its_own_library(tmp_path: Path) -> None:
    write(
        tmp_path / "a.h5", {"x": Array(("x",), np.arange(3.0)), "u": Array(("time", "x"), np.ones((2, 3), np.float32))}
    )
    with netCDF4.Dataset(tmp_path / "a.h5") as file:
        assert {name: len(dim) for name, dim in file.dimensions.items()} == {"x": 3, "time": 2}
        assert set(file.variables) == {"x", "u"}
        assert file["u"].dimensions == ("time", "x")


@pytest.mark.parametrize("name", ["a.nc", "a.h5", "b.nc"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    grids.netcdf(tmp_path / "whole.nc", "NETCDF3_CLASSIC" if name == "b.nc" else "NETCDF4")
    whole = (tmp_path / "whole.nc").read_bytes()
    for content in (whole[: len(whole) // 3], b"hello", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"data.path: .*{name} cannot be read as") as error:
            listed(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_folder_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ValueError, match="cannot be read as zarr"):
        listed(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=r"expected a name that ends in \.h5"):
        kind(tmp_path / "a.csv")

"""States to go on from, out of files that are none of the data's own: which are taken, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch

from anydit.data import Axis, FieldView
from tests.data.fields import grids
from tests.data.fields.grids import T, X, Y

VIEW = FieldView(
    variables=("v", "u"),
    units=("m/s", "m/s"),
    axes=(Axis("y", unit="km", at=(0.0, 1.0, 3.0, 7.0)), Axis("x", 10.0, 2.5, "km")),
    interval=0.5,
    time_unit="h",
)


def states(
    file: Path, dims: Sequence[str] = ("time", "x", "y"), time: str = "h since 2020-01-01", **units: str
) -> dict[str, np.ndarray]:
    """One trajectory of u, v and a temperature, one state each half hour from 3 h on."""
    sizes, arrays = {"time": T, "x": X, "y": Y}, dict[str, np.ndarray]()
    places = {"x": 10.0 + 2.5 * np.arange(X), "y": np.array([0.0, 1.0, 3.0, 7.0]), "time": 3 + 0.5 * np.arange(T)}
    with netCDF4.Dataset(file, "w") as out:
        for name in dims:
            out.createDimension(name, sizes[name])
            made: Any = out.createVariable(name, "f8", (name,))
            made.units = units.get(name, time if name == "time" else "km")
            made[:] = places[name]
        for i, name in enumerate(("u", "v", "temperature")):
            arrays[name] = grids.values(*(sizes[dim] for dim in dims), seed=i)
            made = out.createVariable(name, "f4", dims)
            made.units = units.get(name, "m/s")
            made[:] = arrays[name]
    return arrays


def read(view: FieldView, path: Path, count: int) -> tuple[np.ndarray, FieldView]:
    x, view_then = view.read(path, (2 * count, Y, X))
    assert isinstance(view_then, FieldView)
    return x.numpy(), view_then


@pytest.mark.parametrize("count", [1, 2, T])
def test_the_last_states_are_taken_with_channels_and_axes_in_the_models_order(tmp_path: Path, count: int):
    arrays = states(tmp_path / "a.nc")
    x, _ = read(VIEW, tmp_path / "a.nc", count)
    expected = np.stack([arrays["v"][-count:], arrays["u"][-count:]], 1).transpose(0, 1, 3, 2)
    assert np.array_equal(x, expected.reshape(2 * count, Y, X))


def test_what_follows_is_written_at_its_time(tmp_path: Path):
    states(tmp_path / "a.nc")
    x, view = VIEW.read(tmp_path / "a.nc", (4, Y, X))
    for n in (1, 3):
        path = view.after(x).save(torch.zeros(2 * n, Y, X), tmp_path / f"next{n}")
        with netCDF4.Dataset(path) as file:
            assert file["time"].units == "h since 2020-01-01"
            assert np.allclose(file["time"][:], 3 + 0.5 * np.arange(T, T + n))
            assert file["u"].dimensions == ("time", "y", "x")


def test_of_states_that_are_nearer_those_as_far_apart_as_the_datas_are_taken(tmp_path: Path):
    arrays = states(tmp_path / "a.nc")
    wider = FieldView(variables=("v", "u"), interval=1.0, time_unit="h")
    x, view = wider.read(tmp_path / "a.nc", (6, X, Y))
    assert np.array_equal(x[0::2].numpy(), arrays["v"][-5::2])
    assert isinstance(view, FieldView) and view.start == 3 + 0.5 * (T - 5)
    with pytest.raises(ValueError, match="with 7 states, expected 5, 2 apart"):
        wider.read(tmp_path / "a.nc", (10, X, Y))
    with pytest.raises(ValueError, match=r"with 0\.5 h from state to state, expected 0\.7"):
        FieldView(variables=("v", "u"), interval=0.7).read(tmp_path / "a.nc", (4, X, Y))


@pytest.mark.parametrize(("unit", "taken"), [("hours since 2020-01-01", True), ("", True), ("months", False)])
def test_one_state_too_is_in_the_unit_of_time_of_the_data(tmp_path: Path, unit: str, taken: bool):
    path = replace(VIEW, time_unit=unit, start=3.0).save(torch.zeros(2, Y, X), tmp_path / "one")
    if taken:
        _, view = read(VIEW, path, 1)
        assert (view.start, view.time_unit) == (3.0, unit or "h")
    else:
        with pytest.raises(ValueError, match="with times in 'months', expected 'h'"):
            read(VIEW, path, 1)


@pytest.mark.parametrize(("unit", "many"), [("days", 1 / 24), ("Minutes", 60), ("sec", 3600)])
def test_times_in_another_unit_are_brought_to_that_of_the_data(tmp_path: Path, unit: str, many: float):
    """As xarray chooses a unit for each file anew."""
    states(tmp_path / "a.nc")
    arrays = states(tmp_path / "b.nc", time=f"{unit} since 2020-01-01")
    with netCDF4.Dataset(tmp_path / "b.nc", "a") as out:
        out["time"][:] *= many
    expected, view = read(VIEW, tmp_path / "a.nc", 3)
    x, then = read(VIEW, tmp_path / "b.nc", 3)
    assert x.shape == expected.shape and np.array_equal(x[-1], arrays["u"][-1].T)
    assert (view.time_unit, then.time_unit) == ("h since 2020-01-01",) * 2
    assert view.start is not None and then.start == pytest.approx(view.start)
    states(tmp_path / "c.nc", time=f"{unit} since 2020-01-01")
    said = "with 12, 12 h from state to state, expected 0.5" if many < 1 else "with 7 states, expected 3, .* apart"
    with pytest.raises(ValueError, match=said):
        read(VIEW, tmp_path / "c.nc", 3)


def test_no_coordinate_is_a_component(tmp_path: Path):
    """As `x` is not of `x_wind`, nor `time` of `time_of_flight`."""
    states(tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc", "r+") as file:
        file.renameVariable("u", "x_wind")
        file.renameVariable("v", "time_of_flight")
    x, _ = FieldView(variables=("time_of_flight", "x_wind")).read(tmp_path / "a.nc", (2, X, Y))
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert np.array_equal(x, np.stack([file["time_of_flight"][-1], file["x_wind"][-1]]))


def test_the_wells_vectors_are_channels(tmp_path: Path):
    arrays = grids.the_well(tmp_path / "a.hdf5", n=1)
    view = FieldView(variables=("velocity_x", "velocity_y", "density"))
    x, _ = view.read(tmp_path / "a.hdf5", (3, X, Y))
    assert np.array_equal(x[:2].numpy(), np.moveaxis(arrays["velocity"][0, -1], -1, 0))
    assert np.array_equal(x[2].numpy(), arrays["density"][0, -1])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"u": "km/h"}, "with u in 'km/h', expected 'm/s'"),
        ({"x": "m"}, "with x in 'm', expected 'km'"),
        ({"time": "months since 2020-01-01"}, "with times in 'months', expected 'h'"),
    ],
)
def test_other_units_are_refused(tmp_path: Path, how: dict[str, Any], said: str):
    states(tmp_path / "a.nc", **how)
    with pytest.raises(ValueError, match=said):
        read(VIEW, tmp_path / "a.nc", 1)


@pytest.mark.parametrize(
    ("view", "shape", "said"),
    [
        ({"variables": ("u", "w")}, (2, X, Y), "without w; it has u"),
        ({"axes": (Axis("x", 11.0, 2.5, "km"), Axis("y"))}, (2, X, Y), "with point 0 of x at 10, expected 11"),
        ({"axes": (Axis("x"), Axis("z"))}, (2, X, Y), "with the axes x, y, expected x, z"),
        ({}, (2, X, Y + 1), r"of shape \(2, 6, 4\), expected \(2, 6, 5\)"),
        ({}, (3, X, Y), "with 2 channels in a state, expected a divisor of 3"),
        ({}, (2 * T + 2, X, Y), "with 7 states, expected 8"),
    ],
)
def test_other_fields_are_refused(tmp_path: Path, view: dict[str, Any], shape: tuple[int, ...], said: str):
    states(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=f"got .*{said}"):
        FieldView(**{"variables": ("u", "v")} | view).read(tmp_path / "a.nc", shape)


def test_several_trajectories_are_refused(tmp_path: Path):
    grids.netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="with 5 trajectories, expected one"):
        FieldView(variables=("u",)).read(tmp_path / "a.nc", (1, X, Y))

"""Conditions in files of fields: what is read from a file is what a model was told of it in training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.data import Axis, Fields, FieldView, SeriesView
from anydit.data.base import Loaded
from anydit.data.fields.contents import Array
from anydit.data.fields.files import write
from tests.data.fields import grids
from tests.data.fields.grids import T, X, Y

NAMES = ("past", "coarse", "given")


def states(file: Path, land: bool = False, **told: str) -> None:
    """One trajectory of a wind, and of depths that change in time and along x alone; on land there is none."""
    about: Any = {"time": {"units": "hours since 2000-01-01", "calendar": "noleap"}, "x": {"units": "km"}}
    u = grids.values(T, X, Y)
    u[..., :3, 0] = np.nan if land else u[..., :3, 0]
    arrays = {
        "time": Array(("time",), 3.0 + np.arange(T), about["time"]),
        "x": Array(("x",), 2.0 * np.arange(X), about["x"]),
        "y": Array(("y",), np.array([0.0, 1.0, 3.0, 7.0])),
        "u": Array(("time", "x", "y"), u, {"units": "m/s"}),
        "depth": Array(("time", "x"), grids.values(T, X, seed=4), {"units": "m"}),
    }
    for name, unit in told.items():
        arrays[name] = arrays[name]._replace(attributes={**arrays[name].attributes, "units": unit})
    write(file, arrays)


def data(path: Path, **fields: Any) -> Fields:
    how: dict[str, Any] = {"variables": ("u",), "given": ("depth",), "past": 2, "coarse": 2, "held_out": 0.0}
    return Fields(**{**how, "path": path, **fields})


def told(view: FieldView, name: str, path: Path, shape: Sequence[int]) -> Loaded:
    read = view.reader(name)
    assert read is not None
    return read(path, shape)


def in_training(of: Fields) -> tuple[FieldView, dict[str, Tensor]]:
    """The view of the data, and the conditions of the last sample."""
    samples = of.open("train")
    batch, view = samples.read(torch.tensor([len(samples) - 1])), samples.facts.view
    assert isinstance(view, FieldView)
    return view, {name: batch.tensor(name)[0] for name in NAMES}


@pytest.mark.parametrize("end", [".nc", ".h5", ".zarr"])
@pytest.mark.parametrize("land", [False, True])
def test_a_file_tells_what_was_told_in_training(tmp_path: Path, end: str, land: bool) -> None:
    states(path := tmp_path / f"a{end}", land)
    view, cond = in_training(data(path, nan=-1.0 if land else None))
    for name in ("coarse", "given"):
        got, then = told(view, name, path, cond[name].shape)
        assert torch.equal(got, cond[name])
        assert then == replace(view, start=2.0 + T, time_unit="hours since 2000-01-01"), "the time of the last state"
    got, _ = told(view, "past", path, cond["past"].shape)
    assert torch.equal(got[:1], cond["past"][1:]) and (not land or bool((got[:, :3, 0] == -1).all()))


def test_means_may_lie_on_their_own_grid(tmp_path: Path) -> None:
    """In the middle of their blocks, where other points are refused."""
    states(tmp_path / "a.nc")
    view, cond = in_training(data(tmp_path / "a.nc"))
    axes = (Axis("x", 1.0, 4.0, "km"), Axis("y", at=(0.5, 5.0)))
    own = replace(view, axes=axes, start=5.0, time_unit="hours since 1990-01-01")
    path = own.save(cond["coarse"][:, ::2, ::2], tmp_path / "b")
    got, then = told(view, "coarse", path, (1, X, Y))
    assert torch.equal(got, cond["coarse"])
    assert isinstance(then, FieldView) and (then.start, then.axes) == (5.0, view.axes)
    elsewhere = replace(own, axes=(Axis("x", 0.0, 4.0, "km"), axes[1])).save(torch.zeros(1, X // 2, Y // 2), path)
    with pytest.raises(ValueError, match="with point 0 of x at 0, expected 1"):
        told(view, "coarse", elsewhere, (1, X, Y))
    other = replace(own, axes=(Axis("x", unit="km"), axes[1])).save(torch.zeros(1, 4, Y // 2), tmp_path / "c")
    with pytest.raises(ValueError, match=r"with point 0 of x at 0|of shape \(1, 4, 2\), expected \(1, 6, 4\)"):
        told(replace(view, axes=None), "coarse", other, (1, X, Y))


def test_what_is_told_without_a_time_is_written_without_one(tmp_path: Path) -> None:
    states(tmp_path / "a.nc")
    view, _ = in_training(data(tmp_path / "a.nc"))
    with netCDF4.Dataset(tmp_path / "b.nc", "w") as out:
        out.createDimension("x", X)
        out.createVariable("depth", "f4", ("x",))[:] = np.arange(X)
        out["depth"].units = "m"
    got, then = told(view, "given", tmp_path / "b.nc", (1, X, Y))
    assert torch.equal(got[0], torch.arange(float(X))[:, None].expand(X, Y)) and then == view


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("given", {"depth": "km"}, "with depth in 'km', expected 'm'"),
        ("coarse", {"u": "km/h"}, "with u in 'km/h', expected 'm/s'"),
        ("coarse", {"x": "m"}, "with x in 'm', expected 'km'"),
        ("given", {"time": "years since 2000-01-01"}, "with times in 'years', expected 'hours'"),
    ],
)
def test_other_units_are_refused(tmp_path: Path, name: str, wrong: dict[str, str], said: str) -> None:
    states(tmp_path / "a.nc")
    view, cond = in_training(data(tmp_path / "a.nc"))
    states(tmp_path / "b.nc", land=False, **wrong)
    with pytest.raises(ValueError, match=f"got {tmp_path}/b.nc {said}"):
        told(view, name, tmp_path / "b.nc", cond[name].shape)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    states(tmp_path / "a.nc")
    view, _ = in_training(data(tmp_path / "a.nc"))
    grids.store(tmp_path / "b.zarr", 2)
    with pytest.raises(ValueError, match=f"got {tmp_path}/b.zarr without depth; it has u"):
        told(view, "given", tmp_path / "b.zarr", (1, X, Y))
    with pytest.raises(ValueError, match=r"expected a file named \.h5"):
        told(view, "coarse", tmp_path, (1, X, Y))
    plain = FieldView(variables=("u",))
    assert plain.reader("past") and not plain.reader("coarse") and not plain.reader("given")
    assert SeriesView().reader("past") and not SeriesView().reader("given")


def test_files_whose_axes_have_no_names_have_those_of_the_data(tmp_path: Path) -> None:
    """With or without the axes of samples and of time, of vectors and of scalars, and as anydit writes them."""
    wind, heat = grids.values(2, T, X, Y, 2), grids.values(2, T, X, Y, seed=1)
    for name, part in (("a", (slice(None),)), ("states", (1,)), ("state", (1, -1))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as out:
            out["wind"], out["heat"] = wind[part], heat[part]
    of = Fields(path=tmp_path / "a.h5", axes=("sample", "time", "x", "y", "component"), past=1, held_out=0.0)
    view = of.open("train").facts.view
    assert isinstance(view, FieldView) and view.variables == ("heat", "wind_x", "wind_y")
    expected = torch.from_numpy(np.concatenate([heat[1, -1][None], np.moveaxis(wind[1, -1], -1, 0)]))
    written = view.save(expected, tmp_path / "written")
    for path in (tmp_path / "states.h5", tmp_path / "state.h5", written):
        assert torch.equal(told(view, "past", path, (3, X, Y)).x, expected)
    heats = Fields(path=tmp_path / "a.h5", variables=("heat",), axes=of.axes, held_out=0.0).open("train").facts.view
    assert isinstance(heats, FieldView)
    assert torch.equal(heats.read(tmp_path / "states.h5", (1, X, Y)).x, expected[:1])


def test_levels_that_are_channels_are_so_in_other_files(tmp_path: Path) -> None:
    arrays = grids.netcdf(tmp_path / "a.nc")
    of = Fields(path=tmp_path / "a.nc", variables=("u",), axes=("sample", "time", "component", "y"), held_out=0.0)
    view = of.open("train").facts.view
    assert isinstance(view, FieldView)
    with netCDF4.Dataset(tmp_path / "b.nc", "w") as out:
        for name, n in (("time", T), ("x", X), ("y", Y)):
            out.createDimension(name, n)
        out.createVariable("u", "f4", ("time", "x", "y"))[:] = arrays["u"][0]
        out["u"].units = "m/s"
    assert np.array_equal(view.read(tmp_path / "b.nc", (X, Y)).x, arrays["u"][0, -1])

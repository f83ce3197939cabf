"""What holds at the boundaries of a grid is kept from the file that is read to the one that is written."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import torch
import zarr

from anydit.config import from_json, to_json
from anydit.data import Axis, Fields, FieldView, View
from anydit.data.fields.boundaries import Boundary, common
from anydit.data.fields.contents import Array
from anydit.data.fields.files import listed, write
from tests.data.fields import grids
from tests.data.fields.grids import X, Y

FOUND = (
    Boundary("floor", "WALL", ("y",), fields=("density",), at=((0,),), values=((0.5,),)),
    Boundary("plate", "WALL", ("x", "y"), at=((2, 1), (-2, -1))),
    Boundary("top", "OPEN", ("y",), at=((-1,),)),
    Boundary("x_periodic", "PERIODIC", ("x",), at=((0,), (-1,))),
)
"""The boundaries of `grids.the_well`."""


def seen(path: Path, **fields: Any) -> FieldView:
    view = Fields(**{"path": path, "held_out": 0.0} | fields).open("train").facts.view
    assert isinstance(view, FieldView)
    return view


def dump(file: Path) -> dict[str, Any]:
    """All of an HDF5 file: arrays and attributes by name."""
    out = dict[str, Any]()

    def add(name: str, item: Any) -> None:
        out.update({f"{name}@{key}": np.asarray(value).tolist() for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            out[name] = item[...].tolist()

    with h5py.File(file) as opened:
        add("", opened)
        opened.visititems(add)
    return out


def test_the_well_in_and_out(tmp_path: Path) -> None:
    """A sample's file is in the layout of its data: each group, flag, mask and value of the boundaries is there."""
    grids.the_well(tmp_path / "a.hdf5")
    data = Fields(path=tmp_path / "a.hdf5", variables=("density", "velocity", "stress"), future=3, held_out=0.0)
    samples = data.open("train")
    view = FieldView().like(samples.facts)
    assert view.boundaries == FOUND and view == from_json(View, to_json(view))
    assert repr(view).endswith("format='hdf5', limits=None)")  # as in the digests of runs from before there were these
    x = samples.read(torch.tensor([7])).x
    (path,) = view.write(x, tmp_path, "made")
    before, after = dump(tmp_path / "a.hdf5"), dump(path)
    assert path.suffix == ".hdf5"
    for name in before:
        if name.startswith(("boundary_conditions", "dimensions/x@", "dimensions/y@", "dimensions@")):
            assert after[name] == before[name], name
    assert (after["@grid_type"], after["@n_trajectories"], after["@n_spatial_dims"]) == ("cartesian", 1, 2)
    names = {group: after[f"{group}@field_names"] for group in ("t0_fields", "t1_fields", "t2_fields", "scalars")}
    assert names == {"t0_fields": ["density"], "t1_fields": ["velocity"], "t2_fields": ["stress"], "scalars": []}
    for name in ("t0_fields/density", "t1_fields/velocity", "t2_fields/stress"):
        assert np.array_equal(after[name][0], np.array(before[name])[1, 2:5]), (
            name
        )  # the second trajectory, of 5 samples
    again = replace(data, path=path).open("train")
    assert torch.equal(again.read(torch.tensor([0])).x, x)
    assert again.facts.view == view


@pytest.mark.parametrize("format", ["hdf5", "netcdf", "zarr"])
def test_other_files_say_the_same(tmp_path: Path, format: Any) -> None:
    """At each coordinate in words, and in groups as The Well's with masks and values."""
    grids.the_well(tmp_path / "a.hdf5")
    facts = Fields(path=tmp_path / "a.hdf5", variables=("density",), held_out=0.0).open("train").facts
    view = FieldView(format=format).like(facts)
    (path,) = view.write(torch.zeros(1, 1, X, Y), tmp_path, "made")
    assert seen(path).boundaries == FOUND and seen(path).grid is None
    if format == "zarr":
        group = zarr.open_group(path, mode="r")
        assert (group["x"].attrs["boundary"], group["y"].attrs["boundary"]) == ("periodic", "WALL, OPEN")
        return
    with netCDF4.Dataset(path) as file:
        assert list(file.variables) == ["x", "y", "density"]
        assert (file["x"].boundary, file["y"].boundary) == ("periodic", "WALL, OPEN")
        floor, plate = file["boundary_conditions/floor"], file["boundary_conditions/plate"]
        assert (floor.bc_type, floor.associated_fields, plate.associated_dims) == ("WALL", "density", ["x", "y"])
        assert (floor["mask"].dimensions, floor["mask"][:].tolist()) == (("y",), [1, 0, 0, 0])
        assert plate["mask"].dimensions == ("x", "y") and floor["values"][:].tolist() == [0.5]


def test_an_axis_may_say_in_words_what_holds(tmp_path: Path) -> None:
    kinds = {"x": "Neumann", "y": "periodic"}
    arrays = {axis: Array((axis,), np.arange(4.0), {"boundary": kind}) for axis, kind in kinds.items()}
    write(tmp_path / "a.nc", arrays | {"u": Array(("x", "y"), np.zeros((4, 4), np.float32))})
    found = seen(tmp_path / "a.nc").boundaries or ()
    assert [(each.kind, each.axes, each.at) for each in found] == [
        ("Neumann", ("x",), ((0,), (-1,))),
        ("periodic", ("y",), ((0,), (-1,))),
    ]


def test_where_a_boundary_is_counts_from_the_end_that_is_nearer() -> None:
    """So that on a larger grid, which goes on, what was at the ends is at the ends."""
    mask, values = replace(FOUND[3], values=((1.0,), (2.0,))).on({"x": 9})
    assert np.flatnonzero(mask).tolist() == [0, 8] and values is not None and values.tolist() == [1.0, 2.0]
    mask, values = Boundary("w", "WALL", ("x",), at=((2,), (-1,)), values=((1.0, 2.0), (3.0, 4.0))).on({"x": 2})
    assert mask.tolist() == [False, True] and values is not None and values.tolist() == [[3.0, 4.0]]


def test_what_is_not_kept_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Walls that differ between trajectories, or between files, are of no place that samples have."""
    for name in "ab":
        grids.the_well(tmp_path / f"{name}.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["boundary_conditions/plate"].attrs["sample_varying"] = True
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        file["boundary_conditions/floor/values"][:] = 0.75
    found = seen(tmp_path, variables=("density",)).boundaries
    floor, plate = (replace(each, at=None, values=()) for each in FOUND[:2])
    assert found == (floor, plate, *FOUND[2:])
    said = capsys.readouterr().err
    assert "a.hdf5: where floor (WALL along y) is, for it varies" in said and "where plate (WALL along x y) is" in said


def test_of_files_of_different_boundaries_none_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        grids.the_well(tmp_path / f"{name}.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:
        file["boundary_conditions/top"].attrs["bc_type"] = "WALL"
    view = seen(tmp_path, variables=("density",))
    assert view.boundaries is None and [axis.periodic for axis in view.axes or ()] == [True, False]
    said = capsys.readouterr().err
    assert re.search(r"No boundaries.*b\.hdf5 has .*top \(WALL along y\).*, and .*a\.hdf5 has .*top \(OPEN", said)
    with pytest.raises(ValueError, match=r"data\.periodic: got y, expected no axis of floor \(WALL along y\)"):
        seen(tmp_path / "a.hdf5", variables=("density",), periodic=("y",))


@pytest.mark.parametrize(
    ("other", "lost"),
    [
        ({"left": 0, "right": -1}, []),
        ({"a": -1, "b": 0}, []),
        ({"left": 0, "right": 1}, ["right"]),
        ({"right": -1}, ["left", "right"]),
        ({"left": 0, "end": 1}, ["left", "right"]),
    ],
)
def test_boundaries_are_where_all_files_have_them_whatever_their_names(other: dict[str, int], lost: list[str]) -> None:
    def walls(at: dict[str, int]) -> list[Boundary]:
        value = ((float("nan"),),)
        return [Boundary(name, "WALL", ("x",), ("u",), ((place,),), value) for name, place in at.items()]

    found = common([Path("a"), Path("b")], [walls({"left": 0, "right": -1}), walls(other)], ["x"])
    assert [each.name for each in found] == ["left", "right"]
    assert [each.name for each in found if each.at is None] == lost


@pytest.mark.parametrize("format", ["hdf5", "zarr", "the_well"])
def test_a_boundary_that_is_not_known_where_stays_so(tmp_path: Path, format: Any) -> None:
    wall = Boundary("wall", "WALL", ("x",))
    (path,) = FieldView(format=format, axes=(Axis("x"), Axis("y")), boundaries=(wall,)).write(
        torch.zeros(1, 1, X, Y), tmp_path
    )
    assert listed(path).boundaries == (wall,)


def test_the_well_keeps_times_apart_and_fields_whose_components_have_its_name(tmp_path: Path) -> None:
    """Of 32 bits, minutes of this century are not all different."""
    names = ("u", "u_x", "u_y", "v_x", "v_y")
    axes = (Axis("x", step=0.1), Axis("y"))
    view = FieldView(variables=names, axes=axes, interval=60.0, start=1.7e9, format="the_well", grid="cartesian")
    x = torch.arange(2.0 * 5 * X * Y).reshape(10, X, Y)
    loaded = view.read(view.save(x, tmp_path / "a"), x.shape)
    assert torch.equal(loaded.x, x) and loaded.view == view
    with h5py.File(shutil.copy(tmp_path / "a.hdf5", tmp_path / "b.hdf5"), "r+") as file:
        assert [*file["t0_fields"], *file["t1_fields"]] == ["u", "u_x", "u_y", "v"]
        assert file["dimensions/x"].dtype == np.float32
        file["dimensions/time"][:] = 0
    with pytest.raises(ValueError, match=r"b\.hdf5 with states at equal times, expected each later"):
        view.read(tmp_path / "b.hdf5", x.shape)
    with h5py.File(shutil.copy(tmp_path / "a.hdf5", tmp_path / "c.hdf5"), "r+") as file:
        file.move("t1_fields/v", "t1_fields/u")
    with pytest.raises(ValueError, match=r"c\.hdf5 has two arrays called u"):
        listed(tmp_path / "c.hdf5")


def test_a_view_that_was_saved_before_boundaries_were_opens(tmp_path: Path) -> None:
    """Its axes say that they are periodic, and so do its files, in either layout."""
    saved = to_json(FieldView(variables=("u",), axes=(Axis("x", periodic=True), Axis("y")), format="hdf5"))
    del saved["boundaries"], saved["grid"]
    view = from_json(View, saved)
    assert isinstance(view, FieldView)
    for format in ("hdf5", "the_well"):
        (path,) = replace(view, format=format).write(torch.zeros(1, 1, X, Y), tmp_path, format)
        assert listed(path).periodic == {"x"}
        assert [axis.periodic for axis in seen(path).axes or ()] == [True, False]

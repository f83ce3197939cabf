"""Fields as pictures and files: with names, units, and every point at its place."""

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch

from anydit.config import from_json, to_json
from anydit.data import Axis, Fields, FieldView, View
from tests.data.fields import grids
from tests.data.fields.grids import T, X, Y


@pytest.mark.parametrize("name", ["a.nc", "a.h5", "a.zarr"])
@pytest.mark.parametrize("future", [1, 3])
def test_what_is_written_lies_where_the_data_lay(tmp_path: Path, name: str, future: int) -> None:
    """Samples written by the view that the data give are the file's own states, with its units and places."""
    arrays = grids.netcdf(tmp_path / "a.nc")
    if name == "a.h5":
        (tmp_path / "a.nc").rename(tmp_path / name)
    data = Fields(path=tmp_path / ("a.nc" if name == "a.zarr" else name), future=future, held_out=0.0)
    samples = data.open("train")
    view = FieldView(format="zarr" if name == "a.zarr" else None).like(samples.facts)
    batch = samples.read(torch.tensor([2, 0]))
    paths = view.write(batch.x, tmp_path, "made")
    assert [path.suffix for path in paths] == [Path(name).suffix] * 2
    names = ("u", "v", "temperature")  # Zarr keeps no order
    again = Fields(path=paths[0], variables=names, held_out=0.0, future=future).open("train")
    assert torch.equal(again.read(torch.tensor([0])).x, batch.x[:1])
    assert again.facts.view is not None and samples.facts.view is not None
    for field in ("variables", "units", "axes", *(("interval", "time_unit") if future > 1 else ())):
        assert getattr(again.facts.view, field) == getattr(samples.facts.view, field), field
    if name != "a.zarr":
        with netCDF4.Dataset(paths[0]) as file:
            assert file["u"].units == "m/s" and file["u"].dimensions == (
                ("time", "x", "y") if future > 1 else ("x", "y")
            )
            assert np.array_equal(file["y"][:], arrays["y"]) and file["y"].units == "km"


def test_periodic_axes_stay_so(tmp_path: Path) -> None:
    grids.the_well(tmp_path / "a.hdf5")
    samples = Fields(path=tmp_path / "a.hdf5", variables=("density",), held_out=0.0).open("train")
    view = samples.facts.view
    assert isinstance(view, FieldView)
    (path,) = view.write(samples.read(torch.tensor([0])).x, tmp_path)
    again = Fields(path=path, held_out=0.0).open("train").facts.view
    assert isinstance(again, FieldView) and again.axes is not None and view.axes is not None
    assert [axis.periodic for axis in again.axes] == [True, False]
    assert [axis.step for axis in again.axes] == pytest.approx([axis.step for axis in view.axes])


def test_axes_even_and_uneven() -> None:
    even = Axis.of("x", np.linspace(10, 20, 6, dtype=np.float32), "km", True)
    assert (even.start, even.at) == (10.0, ()) and even.step == pytest.approx(2)
    assert even.places(8)[-1] == pytest.approx(24), "on a larger grid it goes on"
    level = Axis.of("level", np.array([1000.0, 850.0, 500.0]), "hPa")
    assert level.places(3).tolist() == [1000, 850, 500]
    with pytest.raises(ValueError, match="got 4 points along level, expected its 3 places"):
        level.places(4)
    assert Axis.of("z", np.array([7.0])).places(1).tolist() == [7]


@pytest.mark.parametrize("space", [(9,), (9, 5), (3, 9, 5)])
@pytest.mark.parametrize("states", [1, 2])
def test_a_picture_has_every_variable(space: tuple[int, ...], states: int) -> None:
    view = FieldView(variables=("a", "b", "c"))
    x = torch.randn(4, 3 * states, *space)
    picture = view.picture(x, list("wxyz"), columns=4)
    rows, columns = (1, 9) if len(space) == 1 else (9, 5)
    scale = max(1, -(-48 // max(states * rows, 3 * columns)))
    assert picture.width >= 4 * 3 * columns * scale and picture.height >= states * rows * scale


def test_colours_are_white_in_the_middle_and_each_variable_has_its_own() -> None:
    x = torch.zeros(1, 2, 60, 60)
    x[0, 0, :30] = -1.0
    x[0, 0, 30:, :30] = 0.5
    x[0, 1, :30] = 1000.0
    x[0, 1, 30:] = 2000.0
    pixels = np.asarray(FieldView(variables=("a", "b")).picture(x))[2:62, 2:122].astype(int)
    assert pixels[45, 45].min() > 240, "0 is white where there are both signs"
    assert pixels[10, 10, 2] > pixels[10, 10, 0] and pixels[45, 10, 0] > pixels[45, 10, 2]
    assert pixels[10, 100, 2] > pixels[10, 100, 0] and pixels[45, 100, 0] > pixels[45, 100, 2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variables": ("a",), "units": ("m", "s")}, "view.units: got 2"),
        ({"limits": (1.0, 1.0)}, "view.limits"),
        ({"interval": -1.0}, "view.interval"),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FieldView(**fields)


def test_samples_that_are_not_of_this_view_are_refused(tmp_path: Path) -> None:
    view = FieldView(variables=("a", "b"), axes=(Axis("x"),))
    with pytest.raises(ValueError, match="got 2, expected a divisor of the samples' 3 channels"):
        view.picture(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match=r"view\.axes: got 1"):
        view.write(torch.zeros(1, 2, X, Y), tmp_path)


def test_the_view_is_saved() -> None:
    view = FieldView(variables=("u",), axes=(Axis("y", at=(0.0, 1.0, 3.0), periodic=True),), interval=0.5)
    assert from_json(View, to_json(view)) == view
    told = to_json(view)
    assert isinstance(told, dict) and told.pop("calendar", 0) is None
    assert from_json(View, told) == view, "as saved before there were calendars"


def test_files_without_places(tmp_path: Path) -> None:
    (path,) = FieldView().write(torch.arange(T * X, dtype=torch.float32).reshape(1, 1, T, X), tmp_path)
    with netCDF4.Dataset(path) as file:
        assert list(file.variables) == ["axis_0", "axis_1", "variable_0"]
        assert file["variable_0"][1, 2] == X + 2

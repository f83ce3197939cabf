"""Where points lie and when states are, whatever files call their axes and in whichever group they are."""

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from anydit.data import Fields, FieldView
from tests.data.fields import grids

T, Y, X = 6, 4, 3
HOURS = np.array([0.0, 1, 2, 7, 8, 9])


def winds(out: Any, time: str, about: dict[str, str], times: np.ndarray = HOURS) -> None:
    """A wind on latitudes and longitudes in a group or a file, without two states."""
    for name, at, told in (
        (time, times, about),
        ("latitude", 10.0 * np.arange(Y), {"units": "degrees_north"}),
        ("longitude", 5.0 + np.arange(X), {"units": "degrees_east"}),
    ):
        out.createDimension(name, len(at))
        made = out.createVariable(name, "f8", (name,))
        made.setncatts(told)
        made[:] = at
    out.createVariable("u", "f4", (time, "latitude", "longitude"))[:] = grids.values(T, Y, X)


def opened(path: Path, **fields: Any) -> tuple[int, FieldView]:
    """How many samples with a past there are, and their view."""
    samples = Fields(**{"path": path, "held_out": 0.0, "past": 1} | fields).open("train")
    assert isinstance(samples.facts.view, FieldView)
    return len(samples), samples.facts.view


def test_axes_are_found_in_the_group_of_their_variable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        group = out.createGroup("PRODUCT")
        winds(group, "time", {"units": "hours since 2000-01-01"})
        out.createDimension("latitude", Y)  # of the same name, elsewhere
        out.createVariable("latitude", "f8", ("latitude",))[:] = -np.arange(Y)
        deep = group.createGroup("DETAIL")
        deep.createVariable("v", "f4", ("time", "latitude", "longitude"))[:] = grids.values(T, Y, X, seed=1)
    for names in ((), ("PRODUCT/DETAIL/v",)):
        count, view = opened(tmp_path / "a.nc", variables=names)
        assert set(view.variables or ()) == set(names or ("PRODUCT/u", "PRODUCT/DETAIL/v"))
        assert count == T - 2 and "states are missing" in capsys.readouterr().err
        assert (view.interval, view.time_unit) == (1.0, "hours")
        assert [(axis.start, axis.step, axis.unit) for axis in view.axes or ()] == [
            (0.0, 10.0, "degrees_north"),
            (5.0, 1.0, "degrees_east"),
        ]


def test_states_from_groups_are_written_and_read_again(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        winds(out.createGroup("PRODUCT"), "time", {"units": "hours since 2000-01-01"})
        out["PRODUCT/latitude"][0] = 1.0
    _, view = opened(tmp_path / "a.nc")
    read = view.read(tmp_path / "a.nc", (2, Y, X))
    assert isinstance(read.view, FieldView) and read.view.start == 8.0
    again = view.read(read.view.save(read.x, tmp_path / "b"), (2, Y, X))
    assert np.array_equal(again.x, grids.values(T, Y, X)[-2:])
    with netCDF4.Dataset(tmp_path / "c.nc", "w") as out:
        winds(out.createGroup("PRODUCT"), "time", {"units": "hours since 2000-01-01"})
    with pytest.raises(ValueError, match="with point 0 of latitude at 0, expected 1"):
        view.read(tmp_path / "c.nc", (2, Y, X))


@pytest.mark.parametrize(
    ("name", "about", "unit"),
    [
        ("valid_time", {}, ""),
        ("when", {"units": "hours since 2000-01-01"}, "hours"),
        ("when", {"standard_name": "time"}, ""),
        ("when", {"axis": "T"}, ""),
    ],
)
def test_time_is_known_by_other_names(tmp_path: Path, name: str, about: dict[str, str], unit: str) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        winds(out, name, about)
    count, view = opened(tmp_path / "a.nc")
    assert (count, view.interval, view.time_unit) == (T - 2, 1.0, unit)
    assert [axis.name for axis in view.axes or ()] == ["latitude", "longitude"]


@pytest.mark.parametrize(("name", "about"), [("number", {}), ("draw", {"standard_name": "realization"})])
def test_members_of_an_ensemble_are_trajectories(tmp_path: Path, name: str, about: dict[str, str]) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        winds(out, "time", {"units": "hours"}, np.arange(T))
        out.createDimension(name, 3)
        member = out.createVariable(name, "i4", (name,))
        member.setncatts(about)
        member[:] = range(3)
        out.createVariable("v", "f4", (name, "time", "latitude", "longitude"))[:] = grids.values(3, T, Y, X)
    count, view = opened(tmp_path / "a.nc", variables=("v",))
    assert count == 3 * (T - 1) and [axis.name for axis in view.axes or ()] == ["latitude", "longitude"]


def test_what_is_called_time_goes_before_what_counts_since_a_day(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        winds(out, "time", {"units": "hours"})
        out["latitude"].units = "days since 2000-01-01"
    _, view = opened(tmp_path / "a.nc")
    assert [axis.name for axis in view.axes or ()] == ["latitude", "longitude"]


def test_axes_of_other_names_keep_their_places_and_times(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        winds(out, "forecast_hour", {"units": "h"})
    count, view = opened(tmp_path / "a.nc", axes=("time", "y", "x"))
    assert (count, view.interval, view.time_unit) == (T - 2, 1.0, "h")
    assert [(axis.name, axis.start, axis.unit) for axis in view.axes or ()] == [
        ("y", 0.0, "degrees_north"),
        ("x", 5.0, "degrees_east"),
    ]


def test_files_with_other_units_of_time_are_refused(tmp_path: Path) -> None:
    for name, unit in (("a.nc", "hours since 2000-01-01"), ("b.nc", "h since 1990-01-01")):
        with netCDF4.Dataset(tmp_path / name, "w") as out:
            winds(out, "time", {"units": unit})
    assert opened(tmp_path)[0] == 2 * (T - 2), "one unit, in two spellings"
    with netCDF4.Dataset(tmp_path / "c.nc", "w") as out:
        winds(out, "time", {"units": "days since 2000-01-01"})
    said = rf"^data\.path: .*c\.nc has times in 'days', expected 'hours' as in {tmp_path}/a\.nc$"
    with pytest.raises(ValueError, match=said):
        opened(tmp_path)


def test_files_with_another_calendar_are_refused(tmp_path: Path) -> None:
    """Calendars have several names, and none is the usual one; of times that count from no day none matters."""

    def file(name: str, calendar: str, unit: str = "days since 2000-01-01") -> None:
        with netCDF4.Dataset(tmp_path / name, "w") as out:
            winds(out, "time", {"units": unit} | ({"calendar": calendar} if calendar else {}))

    for name, calendar in (("a.nc", ""), ("b.nc", "Gregorian"), ("c.nc", "proleptic_gregorian")):
        file(name, calendar)
    file("d.nc", "noleap", "days")
    assert opened(tmp_path)[0] == 4 * (T - 2)
    file("e.nc", "365_day")
    said = rf"^data\.path: .*e\.nc has the calendar noleap, expected standard as in {tmp_path}/a\.nc$"
    with pytest.raises(ValueError, match=said):
        opened(tmp_path)
    (tmp_path / "own").mkdir()
    for name, calendar in (("own/a.nc", "noleap"), ("own/b.nc", "365_day")):
        file(name, calendar)
    assert opened(tmp_path / "own")[0] == 2 * (T - 2)


def test_a_calendar_is_kept_and_written(tmp_path: Path) -> None:
    for name, calendar in (("a", "360_day"), ("b", "noleap")):
        with netCDF4.Dataset(tmp_path / f"{name}.nc", "w") as out:
            winds(out, "time", {"units": "days since 2000-01-01", "calendar": calendar}, 30.0 * np.arange(T))
    _, view = opened(tmp_path / "a.nc")
    assert view.calendar == "360_day"
    read = view.read(tmp_path / "b.nc", (1, Y, X))
    assert isinstance(read.view, FieldView)
    with netCDF4.Dataset(read.view.after(read.x).save(read.x, tmp_path / "next")) as out:
        assert (out["time"].units, out["time"].calendar) == ("days since 2000-01-01", "noleap")
        assert out["time"][:].tolist() == [180]

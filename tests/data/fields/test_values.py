"""What stored numbers stand for: missing ones, unsigned ones, and arrays that are no numbers at all."""

import base64
import struct
import warnings
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import zarr

from anydit.data.fields.files import listed, read
from anydit.data.fields.layout import layout, view


def of_zarr(path: Path, version: Any, raw: np.ndarray, fill: float | None, **about: Any) -> np.ndarray:
    """What is read of an array that is written with the attributes that xarray writes."""
    named: dict[str, Any] = {"dimension_names": ("x",)} if version == 3 else {}
    about |= {} if version == 3 else {"_ARRAY_DIMENSIONS": ["x"]}
    group = zarr.open_group(path, mode="w", zarr_format=version)
    made = group.create_array("u", shape=raw.shape, dtype=raw.dtype, fill_value=fill, **named)
    made[...] = raw
    made.attrs.update(about)
    return read(path, listed(path).variables["u"])


@pytest.mark.parametrize("missing", [np.nan, -9999.0])
def test_zarr_3_tells_what_is_missing_as_the_bytes_of_a_double(tmp_path: Path, missing: float) -> None:
    raw = np.array([1, -9999, 0], np.float32)
    told = base64.b64encode(struct.pack("<d", missing)).decode()
    got = of_zarr(tmp_path / "a.zarr", 3, raw, 0.0, _FillValue=told)
    assert np.array_equal(got, np.where(raw == missing, np.nan, raw), equal_nan=True)


@pytest.mark.parametrize(
    ("kind", "fill", "about", "missing"),
    [
        ("i2", -9999, {"scale_factor": 0.1}, [False, True, False]),
        ("i2", 0, {"scale_factor": 0.1}, [False, False, True]),
        ("i2", 0, {}, [False, False, False]),
        ("f4", -9999.0, {}, [False, True, False]),
        ("f4", np.nan, {}, [False, False, False]),
        ("i2", None, {"scale_factor": 0.1}, [False, False, False]),
        ("i2", -9999, {"_FillValue": 1}, [True, False, False]),
    ],
)
def test_zarr_2_tells_it_as_what_chunks_are_filled_with(
    tmp_path: Path, kind: str, fill: float | None, about: dict[str, Any], missing: list[bool]
) -> None:
    raw = np.array([1, -9999, 0], kind)
    got = of_zarr(tmp_path / "a.zarr", 2, raw, fill, **about)
    assert np.isnan(got).tolist() == missing
    assert np.allclose(got, np.where(missing, np.nan, raw * about.get("scale_factor", 1)), equal_nan=True)


@pytest.mark.parametrize("fill", [-1, 65535])
@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_integers_that_are_meant_without_sign(tmp_path: Path, kind: str, fill: int) -> None:
    """The mark of what is missing may be told either way."""
    with h5py.File(tmp_path / "a.h5", "w") as out:
        made = out.create_dataset("u", data=np.array([40000, 7, 65535], np.uint16).view(np.int16).astype(kind))
        made.attrs.update({"_Unsigned": "true", "scale_factor": 0.01, "_FillValue": fill})
        out["plain"] = np.array([-1], np.int16)
        made = out.create_dataset("signed", data=np.array([255, 1], np.uint8))
        made.attrs["_Unsigned"] = "false"
    found = listed(tmp_path / "a.h5").variables
    assert np.allclose(read(tmp_path / "a.h5", found["u"]), [400, 0.07, np.nan], equal_nan=True)
    assert read(tmp_path / "a.h5", found["plain"]).tolist() == [-1]
    assert read(tmp_path / "a.h5", found["signed"]).tolist() == [-1, 1]


@pytest.mark.parametrize("mark", [np.float32(-9.96921e36), np.nan, 0.5, 2**40, "none"])
def test_a_mark_that_integers_cannot_hold_marks_none(tmp_path: Path, mark: Any) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as out:
        out.createDimension("x", 3)
        made = out.createVariable("u", "i2", ("x",))
        made.setncattr("missing_value", mark)
        made.set_auto_maskandscale(False)
        made[:] = [-1, 0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "a.nc", listed(tmp_path / "a.nc").variables["u"]).tolist() == [-1, 0, 1]


def test_a_mark_with_more_digits_than_the_numbers_have_marks_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["u"] = np.array([1e20, 1], np.float32)
        out["u"].attrs["missing_value"] = np.float64(1e20)
    got = read(tmp_path / "a.h5", listed(tmp_path / "a.h5").variables["u"])
    assert np.isnan(got).tolist() == [True, False]


def text_beside(path: Path) -> None:
    """A variable on stations that have names instead of places, and an array of pairs."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC" if path.stem == "classic" else "NETCDF4") as out:
        for name, n in (("station", 3), ("length", 4)):
            out.createDimension(name, n)
        letters = np.array([list("abcd")] * 3, "S1")
        if path.stem == "text":
            out.createVariable("station", str, ("station",))[:] = np.array(["a", "b", "c"], object)
        out.createVariable("called", "S1", ("station", "length"))[:] = letters
        out.createVariable("u", "f4", ("station",))[:] = [1, 2, 3]
        if path.stem != "classic":
            pair = out.createCompoundType(np.dtype([("a", "f4"), ("b", "f4")]), "pair")
            out.createVariable("pairs", pair, ("station",))[:] = np.zeros(3, pair.dtype)


@pytest.mark.parametrize("name", ["text.nc", "classic.nc", "letters.nc"])
def test_text_and_pairs_are_no_variables_and_an_axis_of_names_has_no_places(tmp_path: Path, name: str) -> None:
    text_beside(path := tmp_path / name)
    contents = listed(path)
    assert set(contents.variables) == {"u"}
    found = layout(path, contents, (), (), "variables")
    axes = view(path, contents, found, 1, ()).axes
    assert axes is not None and len(axes) == 1
    axis = axes[0]
    assert (axis.name, axis.at, axis.start, axis.step) == ("station", (), 0.0, 1.0)


def test_zarr_s_text_is_no_variable(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("x", shape=(2,), dtype="<U3")[...] = np.array(["one", "two"])
    group.create_array("u", shape=(2,), dtype="f4")[...] = np.ones(2, np.float32)
    assert set(listed(tmp_path / "a.zarr").variables) == {"u"}


def test_complex_numbers_are_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out["psi"] = np.ones(3, np.complex64)
    with pytest.raises(ValueError, match=r"^data\.path: psi in .*a\.h5 is complex, expected real numbers"):
        read(tmp_path / "a.h5", listed(tmp_path / "a.h5").variables["psi"])

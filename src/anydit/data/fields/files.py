"""Files of fields on grids: HDF5, as The Well lays it out too, NetCDF and Zarr, read alike and written."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

Format = Literal["hdf5", "netcdf", "zarr"]

SUFFIXES: dict[str, Format] = {
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".nc": "netcdf", ".nc4": "netcdf", ".cdf": "netcdf", ".zarr": "zarr"
}  # fmt: skip

SAMPLE, TIME, COMPONENT = "sample", "time", "component"
"""Axes that are none of space, by the names that they have here."""

KNOWN_AS = {
    **dict.fromkeys(
        ("sample", "trajectory", "trajectories", "batch", "member", "ensemble", "realization", "n"), SAMPLE
    ),
    **dict.fromkeys(("time", "t", "step", "time_step"), TIME),
    **dict.fromkeys(("component", "components", "channel", "channels", "c"), COMPONENT),
}
"""What files call these axes."""

DEEPEST = 16
"""Groups within groups beyond which an HDF5 file is not followed: links may lead in circles."""

NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable"
"""How NetCDF marks an HDF5 data set that only stands for the length of an axis."""


@dataclass(frozen=True)
class Variable:
    """An array in a file: where it is, its axes by name (None where the file names none), shape and attributes."""

    name: str
    at: str
    axes: tuple[str | None, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def unit(self) -> str:
        """The unit that the file tells, or nothing."""
        return str(self.attributes.get("units", ""))


@dataclass(frozen=True)
class Contents:
    """What is in a file: its arrays by name, its numbers by name, and which axes of space are periodic."""

    variables: Mapping[str, Variable]
    numbers: Mapping[str, Any]
    periodic: frozenset[str] = frozenset()


def read(
    file: Path, variable: Variable, index: tuple[Any, ...] = (), dtype: type[np.floating[Any]] = np.float32
) -> Float[np.ndarray, "..."]:
    """A part of an array, in its unit: packed values unpacked, NaN for what the file says is missing.

    Raises:
        ValueError: the file is damaged there.
    """
    try:
        raw = np.asarray(_array(file, variable.at, *_state(file))[index])
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"data.path: {variable.name} cannot be read from {file}: {error}") from None
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(raw, dtype)
    about = variable.attributes
    scale, offset = (float(about.get(name, plain)) for name, plain in (("scale_factor", 1.0), ("add_offset", 0.0)))
    if (scale, offset) != (1.0, 0.0):
        values = np.asarray(np.asarray(raw, np.float64) * scale + offset, dtype)
    told = [about[name] for name in ("_FillValue", "missing_value") if name in about]
    # Where an array names no other, NetCDF has a number of its own for what was never written.
    for value in told or [15 * 2.0**119] * (raw.dtype.kind == "f"):
        values[np.isin(raw, np.asarray(value).astype(raw.dtype))] = np.nan
    return values


def listed(file: Path) -> Contents:
    """What is in a file.

    Raises:
        ValueError: it is not a file of the kind that its name says, or it is damaged.
    """
    try:
        opened = _opened(file, *_state(file))
        if kind(file) == "zarr":
            return _zarr(opened)
        if not hasattr(opened, "keys"):
            return _classic(opened)
        return _the_well(opened) if {"t0_fields", "dimensions"} <= set(opened) else _hdf5(opened)
    except (OSError, KeyError, TypeError, RuntimeError, IndexError) as error:
        raise ValueError(f"data.path: {file} cannot be read as {kind(file)}: {error}") from None


def kind(file: Path) -> Format:
    """What a file's name says that it is.

    Raises:
        ValueError: the name says nothing known.
    """
    found = SUFFIXES.get(file.suffix.lower())
    if found is None:
        raise ValueError(f"data.path: got {file}, expected a name that ends in {', '.join(SUFFIXES)}")
    return found


def _state(file: Path) -> tuple[tuple[int, ...], int]:
    """What tells this file from another that takes its place, and the process: each opens it for itself."""
    stat = file.stat()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns), os.getpid()


@lru_cache(maxsize=128)
def _array(file: Path, at: str, state: tuple[int, ...], process: int) -> Any:
    return _opened(file, state, process)[at]


@lru_cache(maxsize=64)
def _opened(file: Path, state: tuple[int, ...], process: int) -> Any:
    if kind(file) == "zarr":
        return _needs("zarr").open_group(file, mode="r")
    with file.open("rb") as start:
        classic = start.read(3) == b"CDF"
    if classic:
        try:
            return _Classic(_needs("scipy.io").netcdf_file(file, "r", mmap=False))
        except ValueError as error:
            raise OSError(error) from None
    return _needs("h5py").File(file, "r")


def _needs(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        name = package.partition(".")[0]
        raise ValueError(
            f"data: fields in such files need {name}, which is missing; pip install 'anydit[fields]'"
        ) from None


class _Classic:
    """A NetCDF file of before 2008 (classic or 64-bit), whose arrays are found by name as in the others."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getitem__(self, name: str) -> Any:
        return self.file.variables[name].data


def _classic(opened: _Classic) -> Contents:
    found = {
        name: Variable(name, name, tuple(v.dimensions), tuple(v.shape), _plain(v._attributes))
        for name, v in opened.file.variables.items()
    }
    return _told(found, _plain(opened.file._attributes))


def _hdf5(file: Any) -> Contents:
    """HDF5 with or without named axes, as NetCDF writes it too; in the order of creation where the file keeps it."""
    found: dict[str, Variable] = {}
    waiting = [("", file)]
    while waiting:
        at, item = waiting.pop(0)
        if hasattr(item, "shape"):
            about = _plain(item.attrs)
            axes = tuple(_axis(dim) for dim in item.dims) if item.shape else ()
            if not any(axes) and about.get("CLASS") == "DIMENSION_SCALE":
                axes = (at.rpartition("/")[2],)
            if item.shape is not None and not str(about.get("NAME", "")).startswith(NO_COORDINATE):
                found[at] = Variable(at, at, axes, tuple(item.shape), about)
        elif hasattr(item, "keys") and at.count("/") < DEEPEST:
            waiting = [(f"{at}/{name}".lstrip("/"), item[name]) for name in item if name in item] + waiting
    return _told(found, _plain(file.attrs))


def _axis(dim: Any) -> str | None:
    """The name of an axis: that of the scale attached to it, else its label."""
    return dim[0].name.rpartition("/")[2] if len(dim) else dim.label or None


def _zarr(group: Any) -> Contents:
    found: dict[str, Variable] = {}
    for at, item in sorted(group.members(max_depth=None)):  # a folder lists them in whatever order
        if hasattr(item, "shape"):
            about = _plain(item.attrs)
            names = getattr(item.metadata, "dimension_names", None) or about.get("_ARRAY_DIMENSIONS")
            axes = tuple(names) if names is not None else (None,) * len(item.shape)
            found[at] = Variable(at, at, axes, tuple(item.shape), about)
    return _told(found, _plain(group.attrs))


def _told(variables: Mapping[str, Variable], attributes: Mapping[str, Any]) -> Contents:
    """A file's contents, where axes that are periodic have a coordinate that says so."""
    periodic = {n for n, v in variables.items() if str(v.attributes.get("boundary", "")).lower() == "periodic"}
    return Contents(variables, _numbers(attributes), frozenset(name.rpartition("/")[2] for name in periodic))


def _the_well(file: Any) -> Contents:
    """The layout of The Well (Ohana 2024, arXiv 2412.00568): axes follow from flags at each array."""
    space = [_text(name) for name in file["dimensions"].attrs["spatial_dims"]]
    found: dict[str, Variable] = {}
    for name in (TIME, *space):
        if name in file["dimensions"]:
            item = file["dimensions"][name]
            axes = (*((SAMPLE,) if item.attrs.get("sample_varying", False) else ()), name)
            found[name] = Variable(name, f"dimensions/{name}", axes, tuple(item.shape), _plain(item.attrs))
    for group, rank in (("t0_fields", 0), ("t1_fields", 1), ("t2_fields", 2), ("scalars", None)):
        for name, item in file.get(group, {}).items():
            flags = item.attrs
            axes = [axis for axis in (SAMPLE, TIME) if flags.get(f"{axis}_varying", False)]
            if rank is not None:
                varying = flags.get("dim_varying", [True] * len(space))
                axes += [axis for axis, varies in zip(space, varying, strict=True) if varies]
                axes += [COMPONENT] * rank
            elif len(axes) < len(item.shape) and item.shape == (1,):
                axes = [COMPONENT]
            found[name] = Variable(name, f"{group}/{name}", tuple(axes), tuple(item.shape), _plain(flags))
    conditions = file.get("boundary_conditions", {}).values()
    periodic = [c.attrs["associated_dims"] for c in conditions if _text(c.attrs["bc_type"]).lower() == "periodic"]
    names = frozenset(_text(axis) for axes in periodic for axis in axes)
    return Contents(found, _numbers(_plain(file.attrs)), names)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as Python's own values; what has no such form (references) is left out."""
    out: dict[str, Any] = {}
    for name in attributes:
        with suppress(OSError, TypeError, KeyError):
            value = attributes[name]
            value = value.item() if isinstance(value, (np.ndarray, np.generic)) and np.size(value) == 1 else value
            if not (isinstance(value, np.ndarray) and value.dtype.hasobject):
                out[str(name)] = _text(value) if isinstance(value, (bytes, str)) else value
    return out


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _numbers(attributes: Mapping[str, Any]) -> dict[str, float]:
    kinds = (int, float)
    return {name: float(value) for name, value in attributes.items() if isinstance(value, kinds) and isfinite(value)}


class Array(NamedTuple):
    """An array to write: the names of its axes, its values and its attributes."""

    axes: Sequence[str]
    values: Shaped[np.ndarray, "..."]
    attributes: Mapping[str, str] = MappingProxyType({})


def write(file: Path, arrays: Mapping[str, Array], attributes: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write arrays by name, in the format that the file's name says; an axis's coordinate is an array of its name.

    HDF5 is written so that it is NetCDF-4, whatever its name.
    """
    if kind(file) == "zarr":
        group = _needs("zarr").open_group(file, mode="w")
        group.attrs.update(dict(attributes))
        for name, (axes, values, about) in arrays.items():
            made = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=list(axes))
            made[...] = values
            made.attrs.update(dict(about))
        return
    with _needs("h5py").File(file, "w", track_order=True) as out:
        out.attrs.update(dict(attributes))
        for name, (_, values, about) in arrays.items():
            out.create_dataset(name, data=values).attrs.update(dict(about))
        _name_axes(out, arrays)


def _name_axes(out: Any, arrays: Mapping[str, Array]) -> None:
    """Attach to each axis its coordinate, or where it has none a data set that stands for its length."""
    for axes, values, _ in arrays.values():
        for axis, length in zip(axes, values.shape, strict=True):
            if axis not in out:
                out.create_dataset(axis, data=np.zeros(length, ">f4")).make_scale(f"{NO_COORDINATE}.{length:10d}")
    for name in arrays.keys() & {axis for array in arrays.values() for axis in array.axes}:
        out[name].make_scale(name)
    for name, (axes, _, _) in arrays.items():
        for i, axis in enumerate(axes):
            if name != axis:
                out[name].dims[i].attach_scale(out[axis])

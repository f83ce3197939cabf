"""Files of fields on grids: HDF5, as The Well lays it out too, NetCDF and Zarr, read alike and written."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from anydit.data.fields.boundaries import ATTRIBUTE, AXES, GROUP, TYPE, Boundary, boundaries_in, write_boundaries
from anydit.data.fields.contents import Array, Contents, Variable, numbers_in, plain
from anydit.data.fields.values import NUMBERS, filled_in_zarr, unpacked
from anydit.data.fields.well import is_well, read_well, write_well

Format = Literal["hdf5", "netcdf", "zarr", "the_well"]

SUFFIXES: dict[str, Format] = {
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".nc": "netcdf", ".nc4": "netcdf", ".cdf": "netcdf", ".zarr": "zarr"
}  # fmt: skip

WRITTEN_AS: dict[Format, str] = {"hdf5": ".h5", "netcdf": ".nc", "zarr": ".zarr", "the_well": ".hdf5"}
"""What the names of files end in that are written."""

DEEPEST = 16
"""Groups within groups beyond which an HDF5 file is not followed: links may lead in circles."""

NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable"
"""How NetCDF marks an HDF5 data set that only stands for the length of an axis."""


def read(
    file: Path, variable: Variable, index: tuple[Any, ...] = (), dtype: type[np.floating[Any]] = np.float32
) -> Float[np.ndarray, "..."]:
    """A part of an array, in its unit: packed values unpacked, NaN for what the file says is missing.

    Raises:
        ValueError: the file is damaged there, or the numbers are complex.
    """
    try:
        raw = np.asarray(_array(file, variable.at, *_state(file))[index])
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"data.path: {variable.name} cannot be read from {file}: {error}") from None
    if raw.dtype.kind == "c":
        raise ValueError(
            f"data.path: {variable.name} in {file} is complex, expected real numbers; write its real and "
            "imaginary parts as arrays of their own, or name others with --data.variables"
        )
    return unpacked(raw, variable.attributes, dtype)


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
        return read_well(opened) if is_well(opened) else _hdf5(opened)
    except (OSError, KeyError, TypeError, RuntimeError, IndexError, AttributeError) as error:
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
        name: Variable(name, name, tuple(v.dimensions), tuple(v.shape), plain(v._attributes))
        for name, v in opened.file.variables.items()
        if _of_numbers(v.data)
    }
    return _told(found, plain(opened.file._attributes), {})


def _hdf5(file: Any) -> Contents:
    """HDF5 with or without named axes, as NetCDF writes it too; in the order of creation where the file keeps it."""
    found: dict[str, Variable] = {}
    waiting = [("", file)]
    while waiting:
        at, item = waiting.pop(0)
        if hasattr(item, "shape"):
            about = plain(item.attrs)
            axes = tuple(_axis(dim) for dim in item.dims) if item.shape else ()
            if not any(axes) and about.get("CLASS") == "DIMENSION_SCALE":
                axes = (at.rpartition("/")[2],)
            stands_for_length = str(about.get("NAME", "")).startswith(NO_COORDINATE)
            if item.shape is not None and _of_numbers(item) and not stands_for_length:
                found[at] = Variable(at, at, axes, tuple(item.shape), about)
        elif hasattr(item, "keys") and at.count("/") < DEEPEST:
            waiting = [(f"{at}/{name}".lstrip("/"), item[name]) for name in item if name in item] + waiting
    told = file[GROUP] if GROUP in file and hasattr(file[GROUP], "keys") else {}
    return _told(found, plain(file.attrs), told)


def _of_numbers(array: Any) -> bool:
    """Whether an array holds numbers; text and the like is passed over, so that an axis it names is without places."""
    try:
        return array.dtype.kind in NUMBERS
    except TypeError:  # of HDF5's own kinds some that NumPy has not
        return False


def _axis(dim: Any) -> str | None:
    """The name of an axis: that of the scale attached to it, else its label."""
    return dim[0].name.rpartition("/")[2] if len(dim) else dim.label or None


def _zarr(group: Any) -> Contents:
    found: dict[str, Variable] = {}
    members = dict(sorted(group.members(max_depth=None)))  # a folder lists them in whatever order
    for at, item in members.items():
        if hasattr(item, "shape") and _of_numbers(item):
            about = plain(item.attrs)
            about |= filled_in_zarr(item, about)
            names = getattr(item.metadata, "dimension_names", None) or about.get("_ARRAY_DIMENSIONS")
            axes = tuple(names) if names is not None else (None,) * len(item.shape)
            found[at] = Variable(at, at, axes, tuple(item.shape), about)
    told = {
        at.removeprefix(f"{GROUP}/"): item
        for at, item in members.items()
        if at.rpartition("/")[0] == GROUP and not hasattr(item, "shape")
    }
    return _told(found, plain(group.attrs), told)


def _told(variables: Mapping[str, Variable], attributes: Mapping[str, Any], groups: Mapping[str, Any]) -> Contents:
    """A file's contents. `groups`: that may tell of boundaries; of other axes the coordinate may say what holds."""
    boundaries = boundaries_in({name: group for name, group in groups.items() if {TYPE, AXES} <= set(group.attrs)})
    inside = tuple(f"{GROUP}/{boundary.name}/" for boundary in boundaries)
    found = {name: v for name, v in variables.items() if not name.startswith(inside)}
    known = {axis for boundary in boundaries for axis in boundary.axes}
    said = {n.rpartition("/")[2]: v.attributes.get(ATTRIBUTE) for n, v in found.items() if len(v.shape) == 1}
    of_axes = [Boundary.of_axis(n, kind) for n, kind in said.items() if isinstance(kind, str) and n not in known]
    return Contents(found, numbers_in(attributes), (*boundaries, *of_axes))


def write(
    file: Path,
    arrays: Mapping[str, Array],
    attributes: Mapping[str, Any] = MappingProxyType({}),
    boundaries: Sequence[Boundary] = (),
) -> None:
    """Write arrays by name, in the format that the file's name says; an axis's coordinate is an array of its name.

    HDF5 is written so that it is NetCDF-4, whatever its name.
    """
    sizes = {axis: n for array in arrays.values() for axis, n in zip(array.axes, array.values.shape, strict=True)}
    if kind(file) == "zarr":
        group = _needs("zarr").open_group(file, mode="w")
        group.attrs.update(dict(attributes))
        for name, (axes, values, about) in arrays.items():
            _put_zarr(group, name, values, axes).attrs.update(dict(about))
        write_boundaries(boundaries, sizes, group.create_group, _put_zarr)
        return
    with _needs("h5py").File(file, "w", track_order=True) as out:
        out.attrs.update(dict(attributes))
        for name, (_, values, about) in arrays.items():
            out.create_dataset(name, data=values).attrs.update(dict(about))
        _name_axes(out, arrays)
        write_boundaries(boundaries, sizes, lambda name: out.create_group(name, track_order=True), _put_hdf5)


def write_in_well(file: Path, arrays: Mapping[str, Array], boundaries: Sequence[Boundary], grid: str) -> None:
    """Write arrays by name as one trajectory in the layout of The Well; see `write_well`."""
    with _needs("h5py").File(file, "w") as out:
        write_well(out, arrays, boundaries, grid)


def _put_zarr(group: Any, name: str, values: Shaped[np.ndarray, "..."], axes: Sequence[str]) -> Any:
    made = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=list(axes) or None)
    made[...] = values
    return made


def _put_hdf5(group: Any, name: str, values: Shaped[np.ndarray, "..."], axes: Sequence[str]) -> Any:
    """An array on axes that the file has; NetCDF knows no truth values."""
    made = group.create_dataset(name, data=values.astype(np.int8) if values.dtype == bool else values)
    for i, axis in enumerate(axes):
        made.dims[i].attach_scale(group.file[axis])
    return made


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

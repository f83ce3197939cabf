"""The layout of The Well (Ohana 2024, arXiv 2412.00568) in HDF5: read, and written as its own package reads it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Shaped

from anydit.data.fields.boundaries import GROUP, Boundary, boundaries_in, write_boundaries
from anydit.data.fields.contents import COMPONENT, SAMPLE, TIME, Array, Contents, Variable, numbers_in, plain

EXACT = 1e-4
"""The part of a step by which coordinates may be moved when they are written."""

RANKS = {"t0_fields": 0, "t1_fields": 1, "t2_fields": 2}
"""The groups of scalars, vectors and tensors, and how many axes of components these have."""


NAME = "anydit"
"""Of the data set that files are of: those of one folder must agree."""


def is_well(opened: Mapping[str, Any]) -> bool:
    """Whether an HDF5 file is in this layout."""
    return {"t0_fields", "dimensions"} <= set(opened)


def read_well(file: Any) -> Contents:
    """What is in a file: axes follow from flags at each array.

    Raises:
        ValueError: two arrays have the same name.
    """
    space = [str(plain({"": name})[""]) for name in file["dimensions"].attrs["spatial_dims"]]
    found: dict[str, Variable] = {}
    for name in (TIME, *space):
        if name in file["dimensions"]:
            item = file["dimensions"][name]
            axes = (*((SAMPLE,) if item.attrs.get("sample_varying", False) else ()), name)
            found[name] = Variable(name, f"dimensions/{name}", axes, tuple(item.shape), plain(item.attrs))
    for group in (*RANKS, "scalars"):
        for name, item in file.get(group, {}).items():
            if name in found:
                raise ValueError(f"data.path: {file.filename} has two arrays called {name}, expected different names")
            flags = item.attrs
            axes = [axis for axis in (SAMPLE, TIME) if flags.get(f"{axis}_varying", False)]
            if group in RANKS:
                varying = flags.get("dim_varying", [True] * len(space))
                axes += [axis for axis, varies in zip(space, varying, strict=True) if varies]
                axes += [COMPONENT] * RANKS[group]
            elif len(axes) < len(item.shape) and item.shape == (1,):
                axes = [COMPONENT]
            found[name] = Variable(name, f"{group}/{name}", tuple(axes), tuple(item.shape), plain(flags))
    about = plain(file.attrs)
    return Contents(found, numbers_in(about), boundaries_in(file.get(GROUP, {})), str(about.get("grid_type", "")))


def write_well(out: Any, arrays: Mapping[str, Array], boundaries: Sequence[Boundary], grid: str) -> None:
    """Write one trajectory into an open HDF5 file; scalars named for the components of one field become that field.

    `arrays`: those named as their only axis say where its points lie, and the others are fields on all of these axes.
    """
    space = [name for name, array in arrays.items() if array.axes == (name,) and name != TIME]
    sizes = {axis: len(arrays[axis].values) for axis in space}
    out.attrs.update(dataset_name=NAME, grid_type=grid, n_spatial_dims=len(space), n_trajectories=1)
    out.attrs["simulation_parameters"] = []
    _put(out, f"dimensions/{TIME}", arrays.get(TIME, Array((TIME,), np.zeros(1))), {"sample_varying": False})
    for axis in space:
        _put(out, f"dimensions/{axis}", arrays[axis], {"sample_varying": False, "time_varying": False})
    out["dimensions"].attrs["spatial_dims"] = space
    out.create_group("scalars").attrs["field_names"] = []
    flags = {"sample_varying": True, "time_varying": True, "dim_varying": [True] * len(space)}
    fields = {name: array for name, array in arrays.items() if name not in (TIME, *space)}
    of_rank: dict[str, list[str]] = {group: [] for group in RANKS}
    for name, rank, parts in _together(list(fields), space):
        group, first = list(RANKS)[rank], fields[parts[0]]
        of_rank[group].append(name)
        values = np.stack([fields[part].values for part in parts], axis=-1)
        values = values.reshape(1, -1, *sizes.values(), *[len(space)] * rank)
        extra = {"symmetric": False, "antisymmetric": False} if rank == 2 else {}
        _put(out, f"{group}/{name}", first._replace(values=values), flags | extra)
    for group, names in of_rank.items():
        out.require_group(group).attrs["field_names"] = names
    out.create_group(GROUP)
    write_boundaries(boundaries, sizes, out.create_group, _put_boundary)
    for boundary in boundaries:
        group = out[GROUP][boundary.name]
        group.attrs.update(sample_varying=False, time_varying=False)
        if "mask" not in group:  # which the layout demands
            group["mask"] = boundary.on(sizes)[0]


def _put(out: Any, name: str, array: Array, flags: Mapping[str, Any]) -> None:
    values = np.asarray(array.values)
    values = values if name.startswith("dimensions/") and not _short(values) else values.astype(np.float32)
    out.create_dataset(name, data=values).attrs.update({**array.attributes, **flags})


def _short(places: Shaped[np.ndarray, " n"]) -> bool:
    """Whether places stay where they are in 32 bits, as the layout has them."""
    step = np.abs(np.diff(places)).mean() if len(places) > 1 else 1.0
    return bool((np.abs(places.astype(np.float32) - places.astype(np.float64)) <= EXACT * step).all())


def _put_boundary(group: Any, name: str, values: Shaped[np.ndarray, "..."], axes: Sequence[str]) -> None:
    group.create_dataset(name, data=values)


def _together(names: list[str], space: Sequence[str]) -> Iterator[tuple[str, int, list[str]]]:
    """The fields by name, with the rank of each and the scalars that are its components; no two of one name."""
    left, taken = list(names), set(names)
    while left:
        for rank in (2, 1, 0):
            ends = ["_" * bool(rank) + "".join(part) for part in product(space, repeat=rank)]
            name = left[0].removesuffix(ends[0])
            parts = [name + end for end in ends]
            free = rank == 0 or name not in taken
            if free and left[0] == parts[0] and len(parts) == len(set(parts) & set(left)):
                yield name, rank, parts
                taken.add(name)
                left = [other for other in left if other not in parts]
                break

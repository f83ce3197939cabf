"""Files of fields for tests, written by the libraries that others write them with."""

from pathlib import Path

import h5py
import netCDF4
import numpy as np
import zarr

N, T, X, Y = 5, 7, 6, 4
"""Trajectories, states, and points along x and y."""


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32)


def netcdf(file: Path, format: str = "NETCDF4") -> dict[str, np.ndarray]:
    """Winds u and v and a temperature, with units and places; returns the arrays."""
    arrays = {name: values(N, T, X, Y, seed=i) for i, name in enumerate(("u", "v", "temperature"))}
    with netCDF4.Dataset(file, "w", format=format) as out:  # pyright: ignore[reportArgumentType]
        for name, n in (("trajectory", N), ("time", T), ("x", X), ("y", Y)):
            out.createDimension(name, n)
        for name, unit in (("u", "m/s"), ("v", "m/s"), ("temperature", "K")):
            made = out.createVariable(name, "f4", ("trajectory", "time", "x", "y"))
            made.units = unit
            made[:] = arrays[name]
        places = {"x": 10.0 + 2.5 * np.arange(X), "y": np.array([0.0, 1.0, 3.0, 7.0]), "time": 0.5 * np.arange(T)}
        for name, unit in (("x", "km"), ("y", "km"), ("time", "h")):
            made = out.createVariable(name, "f8", (name,))
            made.units = unit
            made[:] = places[name]
        speed = out.createVariable("speed", "f4", ("trajectory",))
        speed.units = "m/s"
        speed[:] = np.arange(N)
        out.createVariable("depth", "f4", ("x", "y"))[:] = values(X, Y, seed=9)
        out.setncattr("density", 1.5)
    return arrays | places | {"depth": values(X, Y, seed=9)}


def store(folder: Path, version: int) -> dict[str, np.ndarray]:
    """A Zarr group of format 2 or 3, with axes named as each does it."""
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == 2 else 3)
    arrays = {"u": values(N, T, X), "x": np.linspace(0, 1, X)}
    for name, axes in (("u", ("sample", "time", "x")), ("x", ("x",))):
        named = {} if version == 2 else {"dimension_names": axes}
        made = group.create_array(name, shape=arrays[name].shape, dtype=arrays[name].dtype, **named)
        made[...] = arrays[name]
        made.attrs.update({"units": "m"} | ({"_ARRAY_DIMENSIONS": list(axes)} if version == 2 else {}))
    return arrays


def the_well(file: Path, n: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    """The Well's layout as its documentation says: a scalar, a vector, a tensor, what does not vary, and numbers."""
    arrays = {
        "density": values(n, T, X, Y, seed=seed),
        "velocity": values(n, T, X, Y, 2, seed=seed + 1),
        "stress": values(n, T, X, Y, 2, 2, seed=seed + 2),
        "mask": values(X, Y, seed=3),
        "profile": values(n, T, Y, seed=seed + 4),
    }
    flags = {"density": (True, True, [True, True]), "velocity": (True, True, [True, True]),
             "stress": (True, True, [True, True]), "mask": (False, False, [True, True]),
             "profile": (True, True, [False, True])}  # fmt: skip
    groups = {"t0_fields": ("density", "mask", "profile"), "t1_fields": ("velocity",), "t2_fields": ("stress",)}
    with h5py.File(file, "w") as out:
        out.attrs.update({"dataset_name": "ours", "grid_type": "cartesian", "n_spatial_dims": 2, "n_trajectories": n})
        out.attrs.update({"simulation_parameters": ["viscosity"], "viscosity": 0.25})
        places = out.create_group("dimensions")
        places.attrs["spatial_dims"] = ["x", "y"]
        for name, at in (("time", np.arange(T) * 0.1), ("x", np.arange(X) / X), ("y", np.arange(Y) / Y)):
            places.create_dataset(name, data=at.astype("f4")).attrs.update(sample_varying=False, time_varying=False)
        x, y = np.arange(X), np.arange(Y)
        conditions = {
            "x_periodic": ("PERIODIC", ["x"], [], (x == 0) | (x == X - 1)),
            "floor": ("WALL", ["y"], ["density"], y == 0),
            "top": ("OPEN", ["y"], [], y == Y - 1),
            "plate": ("WALL", ["x", "y"], [], np.outer(x == 2, y == 1) | np.outer(x == 4, y == 3)),
        }
        for name, (kind, dims, fields, mask) in conditions.items():
            made = out.create_group(f"boundary_conditions/{name}")
            made.attrs.update(associated_dims=dims, associated_fields=fields, bc_type=kind)
            made.attrs.update(sample_varying=False, time_varying=False)
            made.create_dataset("mask", data=mask)
            if fields:
                made.create_dataset("values", data=np.full(mask.sum(), 0.5, np.float32))
        numbers = out.create_group("scalars")
        numbers.attrs["field_names"] = ["viscosity", "reynolds"]
        for name, at, varies in (("viscosity", np.float32(0.25), False), ("reynolds", 10.0 * np.arange(n), True)):
            numbers.create_dataset(name, data=at).attrs.update(sample_varying=varies, time_varying=False)
        for group, names in groups.items():
            made = out.create_group(group)
            made.attrs["field_names"] = list(names)
            for name in names:
                item = made.create_dataset(name, data=arrays[name])
                item.attrs["sample_varying"], item.attrs["time_varying"], item.attrs["dim_varying"] = flags[name]
                if group == "t2_fields":
                    item.attrs.update(symmetric=False, antisymmetric=False)
        out.create_group("t2_fields") if "t2_fields" not in out else None
    return arrays

"""Derivatives of vectors along the axes of their grid: on a sphere where these are latitudes and longitudes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anydit.data import Axis

EARTH_M = 6_371_000.0
"""The radius of the sphere."""

LENGTHS_M = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), 1000.0),
    "cm": 0.01,
    "mm": 0.001,
}
"""The units of length, in metres; along axes in these derivatives are for a metre."""

LATITUDES, LONGITUDES = ("lat", "latitude", "rlat"), ("lon", "longitude", "rlon")
"""What axes are called that go round the earth; the last is of a grid with a pole elsewhere."""

ROUND = ((LATITUDES, "north"), (LONGITUDES, "east"))
"""Of both the names, and to where degrees go that say it."""

ALONG = {
    **dict.fromkeys(("x", *LONGITUDES), "u"),
    **dict.fromkeys(("y", *LATITUDES), "v"),
    **dict.fromkeys(("z", "lev", "level", "height", "altitude", "depth"), "w"),
}
"""Which of u, v and w is along an axis, by its name alone."""

WHOLE = 1e-3
"""The part of a circle by which longitudes may miss it and go all round."""


def derivative(x: Float[Tensor, "n *space"], dim: int, axis: Axis) -> Float[Tensor, "n *space"]:
    """Along one axis, in its unit: of the Fourier series where it is periodic, else of second order."""
    n = x.shape[dim]
    if axis.periodic and not axis.at:
        k = 2j * torch.pi * torch.fft.rfftfreq(n, axis.step, dtype=torch.float64)
        if n % 2 == 0:
            k[-1] = 0
        k = k.reshape(-1, *(1,) * (x.ndim - dim - 1))
        return torch.fft.irfft(torch.fft.rfft(x.double(), dim=dim) * k, n=n, dim=dim)
    return torch.gradient(x.double(), spacing=(torch.from_numpy(axis.places(n)),), dim=dim)[0]


def gradients(v: Float[Tensor, "n k *space"], axes: Sequence[Axis]) -> Float[Tensor, "k k n *space"]:
    """Derivatives of each component (first) along each axis (second).

    On latitudes and longitudes in degrees those of a vector on a sphere of the earth's radius, for a metre: their trace
    is the divergence, (du/dlon + d(v cos lat)/dlat) / (radius cos lat), and what is off the diagonal the vorticity.
    """
    g = torch.stack([torch.stack([derivative(part, 1 + i, a) for i, a in enumerate(axes)]) for part in v.unbind(1)])
    for i, axis in enumerate(axes):
        g[:, i] /= LENGTHS_M.get(axis.unit, 1.0)
    at = sphere(axes)
    if at is None:
        return g
    lat, lon = at
    angle = torch.from_numpy(np.radians(axes[lat].places(v.shape[2 + lat])))
    angle = angle.reshape(-1, *(1,) * (len(axes) - lat - 1))
    g[:, lat] /= EARTH_M * np.radians(1)
    g[:, lon] /= EARTH_M * np.radians(1) * angle.cos()
    bent = angle.tan() / EARTH_M  # to the east another way is east
    g[lon, lon] -= v[:, lat] * bent
    g[lat, lon] += v[:, lon] * bent
    return g


def of_equal_area(x: Float[Tensor, "*any"], axes: Sequence[Axis]) -> Float[Tensor, "*any"]:
    """Rows of latitude picked so that each stands for as much of the sphere: near the poles few, and as many in all.

    The last axes of `x` are `axes`; on a plane it stays as it is.
    """
    at = sphere(axes)
    if at is None:
        return x
    dim = x.ndim - len(axes) + at[0]
    places = np.radians(axes[at[0]].places(n := x.shape[dim]))
    upto = np.cumsum(np.cos(places).clip(0) * np.abs(np.gradient(places)))
    rows = np.searchsorted(upto, (np.arange(n) + 0.5) / n * upto[-1])
    return x.index_select(dim, torch.from_numpy(rows))


def sphere(axes: Sequence[Axis]) -> tuple[int, int] | None:
    """Which axis is of latitudes and which of longitudes, where both are there and in degrees."""
    found = [[i for i, axis in enumerate(axes) if _is_round(axis, *kind)] for kind in ROUND]
    return (found[0][0], found[1][0]) if all(len(places) == 1 for places in found) else None


def _is_round(axis: Axis, names: Sequence[str], towards: str) -> bool:
    """Whether an axis is one of degrees, by its name or by a unit that says to where they go."""
    unit = axis.unit.lower()
    if not unit.startswith("degree"):
        return unit in ("deg", "°") and axis.name.lower() in names
    to = unit.removeprefix("degree").removeprefix("s").strip("_ ")
    return to in (towards, towards[0]) or (not to and axis.name.lower() in names)


def along(axis: Axis) -> str:
    """Which of u, v and w is along an axis, as far as it says."""
    lat, lon = (_is_round(axis, *kind) for kind in ROUND)
    return "v" if lat else "u" if lon else ALONG.get(axis.name.lower(), "")


def closed(axes: Sequence[Axis], space: Sequence[int]) -> tuple[Axis, ...]:
    """The axes, where longitudes that go all round are periodic whatever the file says."""
    at = sphere(axes)
    if at is None or axes[at[1]].at or abs(space[at[1]] * abs(axes[at[1]].step) - 360) > 360 * WHOLE:
        return tuple(axes)
    return tuple(replace(axis, periodic=True) if i == at[1] else axis for i, axis in enumerate(axes))


def unfit(axes: Sequence[Axis], space: Sequence[int], units: Sequence[str]) -> str:
    """Why derivatives along axes of components in these units do not add up; empty if they do."""
    if len(set(units)) > 1:
        return f"its components are in {', '.join(map(repr, dict.fromkeys(units)))}"
    if short := [axis.name for axis, n in zip(axes, space, strict=True) if n < 2]:
        return f"{short[0]} has a single point"
    at = sphere(axes)
    names = [axis.name.lower() for axis in axes]
    if at is None and set(names) & set(LATITUDES) and set(names) & set(LONGITUDES):
        return f"{' and '.join(axis.name for axis in axes)} are not in degrees"
    plain = [axis.unit for i, axis in enumerate(axes) if at is None or i not in at]
    others = [unit for unit in plain if unit not in LENGTHS_M]
    if others and (at is not None or len(set(plain)) > 1):
        return f"its axes are in {', '.join(map(repr, dict.fromkeys(axis.unit for axis in axes)))}"
    return ""

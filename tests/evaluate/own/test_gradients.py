"""Derivatives of vectors, where they are known: on a plane, and on a sphere."""

from dataclasses import replace
from math import pi

import numpy as np
import pytest
import torch
from torch import Tensor

from anydit.data import Axis
from anydit.evaluate.own.fields import _of_vector
from anydit.evaluate.own.gradients import EARTH_M, closed, derivative, gradients, of_equal_area, sphere, unfit

OMEGA = 7.292e-5
"""Turns of the earth, in radians a second."""

LAT = Axis("latitude", 90.0, -2.0, "degrees_north")
LON = Axis("longitude", 0.0, 2.0, "degrees_east")
POINTS = (91, 180)


def at(axis: Axis, n: int) -> Tensor:
    return torch.from_numpy(axis.places(n))


def rotation(tilt: float) -> tuple[Tensor, Tensor]:
    """A solid body's velocity (v, u) about an axis that is tilted, on all of the earth; and its vorticity."""
    lat, lon = at(LAT, POINTS[0]).deg2rad()[:, None], at(LON, POINTS[1]).deg2rad()[None]
    a, c, s = OMEGA * EARTH_M, np.cos(tilt), np.sin(tilt)
    u, v = a * (lat.cos() * c + lat.sin() * lon.cos() * s), -a * lon.sin() * s
    return torch.stack([v.expand(POINTS), u])[None], 2 * OMEGA * (lat.sin() * c - lat.cos() * lon.cos() * s)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("points", [16, 15])
def test_derivatives(dim: int, points: int):
    axis = Axis("x", start=1.0, step=2 * pi / points, periodic=True)
    shape = (1, points, 1) if dim == 1 else (1, 1, points)
    x = at(axis, points).reshape(shape).expand(2, points if dim == 1 else 3, points if dim == 2 else 3)
    assert torch.allclose(derivative(torch.sin(3 * x), dim, axis), 3 * torch.cos(3 * x), atol=1e-9)
    uneven = Axis("z", at=tuple(float(z) for z in np.linspace(0, 3, points) ** 2))
    z = at(uneven, points).reshape(shape).expand_as(x)
    inner = (slice(None), slice(1, -1)) if dim == 1 else (slice(None), slice(None), slice(1, -1))
    assert torch.allclose(derivative(z**2, dim, uneven)[inner], 2 * z[inner], atol=1e-9)
    assert torch.allclose(derivative(z**2, dim, replace(uneven, periodic=True))[inner], 2 * z[inner], atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 0.4])
@pytest.mark.parametrize("turned", [False, True])
def test_a_rotating_earth_has_no_divergence_and_twice_its_rate_as_vorticity(tilt: float, turned: bool):
    (flow, expected), axes = rotation(tilt), closed((LAT, LON), POINTS)
    if turned:
        flow, expected, axes = flow.flip(1).transpose(2, 3), -expected.T, axes[::-1]
    g = of_equal_area(gradients(flow, axes), axes)[:, :, 0]
    right = of_equal_area(expected.expand(POINTS) if not turned else expected, axes)
    assert float((g[0, 1] - g[1, 0] - right).abs().max()) < 2e-3 * 2 * OMEGA
    assert float(g.diagonal().sum(-1).abs().max()) < 2e-3 * 2 * OMEGA
    assert _of_vector([flow] * 3, axes)["divergence"].samples < 1e-3
    plane = tuple(replace(axis, unit="") for axis in axes)
    assert tilt == 0 or _of_vector([flow] * 3, plane)["divergence"].samples > 0.1, "which a plane gets wrong"


def test_a_flow_to_the_north_diverges_where_meridians_do():
    """d(v cos lat) / dlat / (radius cos lat) of v = cos lat is -2 sin lat / radius."""
    axes = closed((LAT, LON), POINTS)
    lat = at(LAT, 91).deg2rad()[:, None].expand(POINTS)
    g = gradients(torch.stack([lat.cos(), 0 * lat])[None], axes)
    found = g.diagonal().sum(-1)[0]
    assert torch.allclose(found[1:-1], -2 * lat.sin()[1:-1] / EARTH_M, atol=2e-3 / EARTH_M)


def test_rows_stand_for_equal_areas():
    """The mean over the sphere of sin^2 is 1/3, of rows as they are 1/2."""
    rows = at(LAT, 91).deg2rad().sin().square()[:, None].expand(POINTS)
    picked = of_equal_area(rows, (LAT, LON))
    assert picked.shape == POINTS
    assert float(picked.mean()) == pytest.approx(1 / 3, abs=0.01) and float(rows.mean()) == pytest.approx(0.5, abs=0.01)
    gauss = replace(LAT, at=tuple(np.degrees(np.arcsin(np.linspace(-0.99, 0.99, 91)))))
    rows = torch.arange(91.0)[:, None].expand(POINTS)
    assert torch.equal(of_equal_area(rows, (gauss, LON)), rows), "which these do already"
    assert torch.equal(of_equal_area(rows, (Axis("y"), Axis("x"))), rows)


@pytest.mark.parametrize(
    ("names", "units", "expected"),
    [
        (("latitude", "longitude"), ("degrees_north", "degrees_east"), (0, 1)),
        (("lon", "lat"), ("degreesE", "degree_N"), (1, 0)),
        (("level", "lat", "lon"), ("hPa", "degrees", "deg"), (1, 2)),
        (("rlat", "rlon"), ("degrees", "degrees"), (0, 1)),
        (("rows", "columns"), ("degrees_north", "degrees_east"), (0, 1)),
        (("rows", "columns"), ("degrees", "degrees"), None),
        (("latitude", "longitude"), ("", ""), None),
        (("latitude", "longitude"), ("radians", "radians"), None),
        (("latitude", "height"), ("degrees_north", "m"), None),
    ],
)
def test_what_a_sphere_is(names: tuple[str, ...], units: tuple[str, ...], expected: tuple[int, int] | None):
    assert sphere([Axis(name, unit=unit) for name, unit in zip(names, units, strict=True)]) == expected


def test_longitudes_that_go_all_round_are_closed():
    assert [axis.periodic for axis in closed((LAT, LON), POINTS)] == [False, True]
    assert not any(axis.periodic for n in (181, 90) for axis in closed((LAT, LON), (91, n)))
    assert not any(axis.periodic for axis in closed((Axis("y", step=2.0), Axis("x", step=2.0)), POINTS))


@pytest.mark.parametrize(
    ("axes", "space", "units", "why"),
    [
        ((LAT, LON), (9, 9), ("m/s", "m/s"), ""),
        ((Axis("x", unit="km"), Axis("y", unit="m")), (9, 9), (), ""),
        ((Axis("x", unit="cells"), Axis("y", unit="cells")), (9, 9), (), ""),
        ((Axis("z", unit="km"), LAT, LON), (9, 9, 9), (), ""),
        ((LAT, LON), (9, 9), ("m/s", "knots"), "its components are in 'm/s', 'knots'"),
        ((LAT, LON), (1, 9), (), "latitude has a single point"),
        ((replace(LAT, unit=""), replace(LON, unit="")), (9, 9), (), "latitude and longitude are not in degrees"),
        ((Axis("p", unit="hPa"), LAT, LON), (9, 9, 9), (), "its axes are in 'hPa', 'degrees_north', 'degrees_east'"),
        ((LAT, Axis("z", unit="m")), (9, 9), (), "its axes are in 'degrees_north', 'm'"),
        ((Axis("x"), Axis("z", unit="m")), (9, 9), (), "its axes are in '', 'm'"),
    ],
)
def test_what_does_not_add_up_is_told(axes: tuple[Axis, ...], space: tuple[int, ...], units: tuple[str, ...], why: str):
    said = unfit(axes, space, units)
    assert said.startswith(why) and bool(said) == bool(why)


def test_lengths_are_brought_together():
    """What has no divergence in metres has none where one axis is in kilometres."""
    x = torch.arange(8, dtype=torch.float64)
    flow = torch.stack([x[:, None].expand(8, 8), -x[None].expand(8, 8)])[None]
    axes = (Axis("x", step=0.5, unit="km"), Axis("y", step=500.0, unit="m"))
    assert float(gradients(flow, axes).diagonal().sum(-1).abs().max()) < 1e-12

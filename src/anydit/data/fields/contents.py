"""What is in a file of fields: its arrays, its numbers, and what holds at the boundaries of its grid."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from anydit.data.fields.boundaries import Boundary

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


def meant(axis: str) -> str:
    """What an axis is called here that a file calls so."""
    return KNOWN_AS.get(axis.lower(), axis)


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
    """What is in a file: its arrays by name, its numbers by name, and the boundaries of its grid.

    `grid`: of which kind The Well's layout says that it is; None in any other layout.
    """

    variables: Mapping[str, Variable]
    numbers: Mapping[str, Any]
    boundaries: tuple[Boundary, ...] = ()
    grid: str | None = None

    @property
    def periodic(self) -> frozenset[str]:
        """The axes after whose last point comes the first."""
        return frozenset(axis for boundary in self.boundaries if boundary.periodic for axis in boundary.axes)


class Array(NamedTuple):
    """An array to write: the names of its axes, its values and its attributes."""

    axes: Sequence[str]
    values: Shaped[np.ndarray, "..."]
    attributes: Mapping[str, str] = MappingProxyType({})


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as Python's own values; what has no such form (references) is left out."""
    out: dict[str, Any] = {}
    for name in attributes:
        with suppress(OSError, TypeError, KeyError):
            value = attributes[name]
            value = value.item() if isinstance(value, (np.ndarray, np.generic)) and np.size(value) == 1 else value
            if not (isinstance(value, np.ndarray) and value.dtype.hasobject):
                out[str(name)] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return out


def numbers_in(attributes: Mapping[str, Any]) -> dict[str, float]:
    """The attributes that are finite numbers."""
    kinds = (int, float)
    return {name: float(value) for name, value in attributes.items() if isinstance(value, kinds) and isfinite(value)}

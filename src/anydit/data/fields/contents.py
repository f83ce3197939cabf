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
    **dict.fromkeys(("sample", "trajectory", "trajectories", "batch", "n"), SAMPLE),
    **dict.fromkeys(("member", "ensemble", "ens", "realization", "number", "member_id"), SAMPLE),
    **dict.fromkeys(("time", "t", "step", "time_step", "valid_time"), TIME),
    **dict.fromkeys(("component", "components", "channel", "channels", "c"), COMPONENT),
}
"""What files call these axes."""


def meant(axis: str) -> str:
    """What an axis is called here that a file calls so."""
    return KNOWN_AS.get(axis.lower(), axis)


SINCE = " since "
"""What stands between the unit of a time and the day that it counts from."""


def duration(unit: str) -> str:
    """The unit of a time, without the day that it counts from."""
    return unit.partition(SINCE)[0].strip()


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

    @property
    def calendar(self) -> str | None:
        """In which calendar its times are, where the file tells."""
        told = self.attributes.get("calendar")
        return told if isinstance(told, str) and told else None

    @property
    def own_name(self) -> str:
        """Its name within its group."""
        return self.name.rpartition("/")[2]

    @property
    def groups(self) -> list[str]:
        """The group that it is in, and those around it up to the file itself, each as the start of names in it."""
        parts = self.name.split("/")[:-1]
        return ["".join(f"{part}/" for part in parts[:n]) for n in range(len(parts), -1, -1)]

    @property
    def tells_time(self) -> bool:
        """Whether its attributes say so, by the conventions of NetCDF."""
        about = self.attributes
        return about.get("standard_name") == "time" or about.get("axis") == "T" or SINCE in self.unit


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

    def coordinate(self, variable: Variable, axis: str | None) -> Variable | None:
        """The array called as an axis of another, in the group of that or the nearest around it."""
        called = (self.variables.get(f"{group}{axis}") for group in variable.groups)
        return next((found for found in called if found is not None), None) if axis else None

    def called(self, variable: Variable) -> tuple[str | None, ...]:
        """What the axes of an array are called here: by their names, or by what their coordinates say that they are.

        Of time a coordinate tells where no name does.
        """
        names = [axis and meant(axis) for axis in variable.axes]
        for i, axis in enumerate(variable.axes):
            coordinate = self.coordinate(variable, axis)
            if coordinate is not None and coordinate.attributes.get("standard_name") == "realization":
                names[i] = SAMPLE
        others = [i for i, axis in enumerate(variable.axes) if names[i] == axis and TIME not in names]
        for i in others:
            coordinate = self.coordinate(variable, variable.axes[i])
            if coordinate is not None and coordinate.tells_time:
                return (*names[:i], TIME, *names[i + 1 :])
        return tuple(names)


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

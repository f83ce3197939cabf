"""What holds at the boundaries of a grid: periodic, a wall, open or whatever a file calls it, and where."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from anydit.config import config

GROUP = "boundary_conditions"
"""Where a file tells of its boundaries, each in a group of its own, as The Well's do."""

ATTRIBUTE = "boundary"
"""What is told of an axis at its coordinate, in files that are not in The Well's layout."""

TYPE, AXES, FIELDS = "bc_type", "associated_dims", "associated_fields"
"""What such a group says: of which kind the boundary is, by which axes, and for which variables."""

MOST_POINTS = 1024
"""No more points of a boundary are kept: they are saved with the model."""

Point = tuple[int, ...]


@config
class Boundary:
    """What holds at some points of a grid, by the `name` and of the `kind` that a file says, such as WALL.

    `axes`: by which its points are told; it holds all along the others. `at`: the points, counted from the end that is
    nearer, -1 the last; None where they are not kept. `fields`: those that have `values` there, one or several a point.
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    fields: tuple[str, ...] = ()
    at: tuple[Point, ...] | None = None
    values: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.values and len(self.values) != len(self.at or ()):
            raise ValueError(f"values: got {len(self.values)}, expected one for each of {len(self.at or ())} points")

    def __str__(self) -> str:
        return f"{self.name} ({self.kind} along {' '.join(self.axes)})"

    @classmethod
    def of_axis(cls, axis: str, kind: str) -> "Boundary":
        """What holds at both ends of an axis."""
        return cls(f"{axis}_{kind.lower()}", kind, (axis,), at=((0,), (-1,)))

    @property
    def periodic(self) -> bool:
        """Whether after the last point comes the first."""
        return self.kind.lower() == "periodic"

    @property
    def place(self) -> tuple[tuple[str, ...], str]:
        """Of which axes it is, and of which kind."""
        return self.axes, self.kind.upper()

    @property
    def spot(self) -> str:
        """Where it is and what holds there, as a text in which NaN is like NaN."""
        return repr((self.at, self.fields, self.values))

    def on(self, sizes: Mapping[str, int]) -> tuple[Bool[np.ndarray, "*axes"], Float32[np.ndarray, "n *k"] | None]:
        """Where it is on a grid of so many points along each axis, and the values at these points, in their order."""
        shape = tuple(sizes[axis] for axis in self.axes)
        mask, places = np.zeros(shape, bool), np.zeros(shape, np.int64)
        for i, point in enumerate(self.at or ()):
            if all(-n <= p < n for p, n in zip(point, shape, strict=True)):
                mask[point], places[point] = True, i
        values = np.array(self.values, np.float32)[places[mask]] if self.values else None
        return mask, values[:, 0] if values is not None and values.shape[1] == 1 else values


def boundaries_in(groups: Mapping[str, Any]) -> tuple[Boundary, ...]:
    """What a file says of its boundaries, each in a group of HDF5 or Zarr.

    Raises:
        KeyError: one does not say its kind, or its axes.
    """
    return tuple(_read(name, group) for name, group in sorted(groups.items()))


def _read(name: str, group: Any) -> Boundary:
    axes, about = _texts(group.attrs[AXES]), group.attrs
    found = Boundary(name, _texts(about[TYPE])[0], axes, _texts(about.get(FIELDS, ())))
    varies = any(bool(about.get(f"{axis}_varying", False)) for axis in ("sample", "time"))
    if varies or "mask" not in group or group["mask"].ndim != len(axes):
        return found
    mask = np.asarray(group["mask"][...]).astype(bool)
    places = np.argwhere(mask)
    values = _values(np.asarray(group["values"][...]), mask) if "values" in group else []
    if not 0 < len(places) <= MOST_POINTS or values is None:
        return found
    at = np.where(2 * places < mask.shape, places, places - mask.shape)
    return replace(found, at=tuple(map(tuple, at.tolist())), values=tuple(map(tuple, values)))


def _values(values: Shaped[np.ndarray, "..."], mask: Bool[np.ndarray, "..."]) -> list[list[float]] | None:
    """The values at each point, which a file has there only, or everywhere; None where they are of nothing known."""
    count = int(mask.sum())
    values = values[mask] if values.shape[: mask.ndim] == mask.shape else values
    return values.reshape(count, -1).tolist() if values.shape[:1] == (count,) and values.size else None if count else []


def _texts(value: Any) -> tuple[str, ...]:
    """The texts in an attribute, which may be one or several."""
    several = np.atleast_1d(np.asarray(value, object)).ravel().tolist()
    return tuple(each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in several)


def common(files: Sequence[Path], of_each: Sequence[Sequence[Boundary]], space: Sequence[str]) -> tuple[Boundary, ...]:
    """The boundaries along axes of space of all files that tell of any, and where they are, if that is one for all.

    What is not kept of them is said; where files tell of different kinds, none are.
    """
    told = [(file, each) for file, each in zip(files, of_each, strict=True) if each]
    of, first = told[0] if told else (files[0], ())
    kept = {boundary.name: boundary for boundary in first if set(boundary.axes) <= set(space)}
    for file, each in told:
        if {boundary.place for boundary in each} != {boundary.place for boundary in first}:
            here, there = (", ".join(map(str, some)) for some in (each, first))
            print(f"No boundaries are kept: {file} has {here}, and {of} has {there}.", file=sys.stderr)
            return ()
        for name in _elsewhere(first, each) & kept.keys():
            kept[name] = replace(kept[name], at=None, values=())
    lost = [f"{boundary}, which samples do not reach" for boundary in first if boundary.name not in kept]
    why = "for it varies, is at too many points or is not said"
    lost += [f"where {boundary} is, {why}" for boundary in kept.values() if boundary.at is None]
    if lost:
        print(f"Not kept of the boundaries in {of}: {'; '.join(lost)}.", file=sys.stderr)
    return tuple(kept.values())


def _elsewhere(first: Sequence[Boundary], other: Sequence[Boundary]) -> set[str]:
    """Which are at other points in another file, by name; where names differ too, all of a place if any is."""
    found = set[str]()
    for place in {boundary.place for boundary in first}:
        here, there = ({b.name: b.spot for b in some if b.place == place} for some in (first, other))
        if here.keys() == there.keys():
            found |= {name for name in here if here[name] != there[name]}
        elif sorted(here.values()) != sorted(there.values()):
            found |= here.keys()
    return found


def write_boundaries(
    boundaries: Sequence[Boundary],
    sizes: Mapping[str, int],
    create: Callable[[str], Any],
    put: Callable[[Any, str, Shaped[np.ndarray, "..."], Sequence[str]], None],
) -> None:
    """Write each as a group by `create`, and where it is with its values by `put(group, name, values, axes)`."""
    for boundary in boundaries:
        group, (mask, values) = create(f"{GROUP}/{boundary.name}"), boundary.on(sizes)
        group.attrs.update({TYPE: boundary.kind, AXES: list(boundary.axes), FIELDS: list(boundary.fields)})
        if boundary.at:
            put(group, "mask", mask, boundary.axes)
        if values is not None:
            put(group, "values", values, ())

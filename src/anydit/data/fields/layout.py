"""Which arrays of a file make a state, and reading states of any such file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from anydit.data.fields.beside import about, beside
from anydit.data.fields.contents import COMPONENT, SAMPLE, TIME, Contents, Variable, duration, meant
from anydit.data.fields.files import kind, read
from anydit.data.fields.view import EVEN, Axis, FieldView

NOT_SPACE = (SAMPLE, TIME, COMPONENT)


@dataclass(frozen=True)
class Layout:
    """The arrays that make the channels of a state, with every axis named, and the axes of space in order.

    `at`: what says where points lie along an axis of space, and when states are, by the names of these axes, where a
    file says it. `nan`: what stands for NaN; None leaves it.
    """

    variables: tuple[Variable, ...]
    space: tuple[str, ...]
    size: tuple[int, ...]
    at: Mapping[str, Variable] = field(default_factory=dict[str, Variable])
    nan: float | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The name of each channel: that of its variable, with its component's where there are several."""
        return tuple(name for variable in self.variables for name in self._components(variable))

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each channel."""
        return tuple(variable.unit for variable in self.variables for _ in self._components(variable))

    @property
    def trajectories(self) -> int:
        """How many there are in a file."""
        return self._length(SAMPLE)

    @property
    def times(self) -> int:
        """How many states a trajectory has."""
        return self._length(TIME)

    def states(self, file: Path, trajectory: int, times: slice) -> Float[np.ndarray, "t c *space"]:
        """States of one trajectory at times that are evenly apart; what has no time is the same at any."""
        in_time = any(TIME in variable.axes for variable in self.variables)
        count = len(range(*times.indices(self.times if in_time else times.stop)))
        return np.concatenate([self._of(file, v, trajectory, times, count) for v in self.variables], axis=1)

    def _of(
        self, file: Path, variable: Variable, trajectory: int, times: slice, count: int
    ) -> Float[np.ndarray, "t c *space"]:
        index = tuple({SAMPLE: trajectory, TIME: times}.get(axis or "", slice(None)) for axis in variable.axes)
        values, left = read(file, variable, index), [axis for axis in variable.axes if axis != SAMPLE]
        ranks = {TIME: -2, COMPONENT: -1} | {axis: i for i, axis in enumerate(self.space)}
        order = sorted(range(len(left)), key=lambda i: ranks[left[i] or ""])
        values = values.transpose(order)
        components = len(self._components(variable))
        # What does not vary along an axis of space, or in time, holds at every place of it, or always.
        space = tuple(n if axis in left else 1 for axis, n in zip(self.space, self.size, strict=True))
        values = values.reshape(count if TIME in left else 1, components, *space)
        values = values if self.nan is None else np.where(np.isnan(values), np.float32(self.nan), values)
        return np.broadcast_to(values, (count, components, *self.size))

    def _components(self, variable: Variable) -> list[str]:
        lengths = [n for axis, n in zip(variable.axes, variable.shape, strict=True) if axis == COMPONENT]
        if not lengths:
            return [variable.name]
        names = self.space if all(n == len(self.space) for n in lengths) else tuple(map(str, range(max(lengths))))
        return [f"{variable.name}_{''.join(part)}" for part in product(*(names[:n] for n in lengths))]

    def _length(self, axis: str) -> int:
        lengths = [v.shape[v.axes.index(axis)] for v in self.variables if axis in v.axes]
        return lengths[0] if lengths else 1


def layout(file: Path, contents: Contents, names: Sequence[str], axes: Sequence[str], field: str) -> Layout:
    """The layout of the arrays called `names`, or where there are none of all that lie on the file's grid.

    `axes`: of each array from its first on, in place of the names that the file has.

    Raises:
        ValueError: there is no such array, its axes are unknown, or the arrays lie on different grids.
    """
    everything = contents.variables
    if missing := [name for name in names if name not in everything]:
        raise ValueError(f"data.{field}: got {missing[0]!r}, which {file} has not; expected of {_some(everything)}")
    chosen = [_named(file, contents, everything[name], axes) for name in names]
    if not names:
        told = (contents.coordinate(v, axis) for v in everything.values() for axis in v.axes)
        coordinates = {coordinate.name for coordinate in told if coordinate is not None} | beside(contents)
        arrays = [v for name, v in everything.items() if name not in coordinates and len(v.shape) > 0]
        named = [_named(file, contents, v, axes) for v in arrays if any(v.axes) or not axes or len(v.shape) > 1]
        chosen = [v for v in named if _space(v)]
        chosen = [v for v in chosen if TIME in v.axes] or chosen
    if not chosen:
        raise ValueError(f"data.{field}: got none, and {file} has no array on a grid; it has {_some(everything)}")
    if nowhere := [v for v in chosen if not _space(v)]:
        got = f"{nowhere[0].name} ({_grid(nowhere[0])})"
        raise ValueError(f"data.{field}: got {got} of {file}, expected an array with axes of space")
    first = max(chosen, key=lambda v: len(_space(v)))
    sizes = dict(zip(first.axes, first.shape, strict=True))
    for v in chosen:
        for axis, n in zip(v.axes, v.shape, strict=True):
            if axis in NOT_SPACE:
                sizes.setdefault(axis, n)
            if axis != COMPONENT and sizes.get(axis) != n:
                raise ValueError(
                    f"data.{field}: {file} has {first.name} on {_grid(first)} and {v.name} on {_grid(v)}, expected the "
                    "same grid; name those that belong together"
                )
    space = _space(first)
    found = Layout(tuple(chosen), space, tuple(sizes[axis] for axis in space))
    return replace(found, at=_at(contents, found))


def _at(contents: Contents, found: Layout) -> dict[str, Variable]:
    """What says where points lie and when states are: arrays called as the axes are in the file, else as here."""
    own = [(contents.variables[v.name], v.axes) for v in found.variables]
    told = [(axis, contents.coordinate(v, named)) for v, axes in own for axis, named in zip(axes, v.axes, strict=True)]
    told += [(axis, contents.coordinate(v, axis)) for v, axes in own for axis in axes]
    near = {group for v, _ in own for group in v.groups}
    told += [(TIME, v) for v in contents.variables.values() if meant(v.own_name) == TIME and v.groups[0] in near]
    shapes: dict[str, list[tuple[int, ...]]] = {a: [(n,)] for a, n in zip(found.space, found.size, strict=True)}
    shapes[TIME] = [(found.times,), (found.trajectories, found.times), *([()] if found.times == 1 else [])]
    places = dict[str, Variable]()
    for axis, coordinate in told:
        if axis is not None and coordinate is not None and coordinate.shape in shapes.get(axis, ()):
            places.setdefault(axis, coordinate)
    return places


def check_alike(at: Layout, file: Path, first: Layout, of: Path) -> None:
    """Refuse a file of other channels, units, points or places of these than the first one `of` all has.

    Places are compared along axes of space of which both files say them.
    """
    if (at.channels, at.space, at.size) != (first.channels, first.space, first.size):
        got, expected = (f"{', '.join(x.channels)} on {x.size} points" for x in (at, first))
        raise ValueError(f"data.path: {file} has {got}, expected {expected} as in {of}")
    for name, unit, expected in zip(at.channels, at.units, first.units, strict=True):
        if unit != expected:
            raise ValueError(f"data.path: {file} has {name} in {unit!r}, expected {expected!r} as in {of}")
    for axis, points in zip(at.space, at.size, strict=True):
        here, there = (each.at.get(axis) for each in (at, first))
        if here is None or there is None:
            continue
        if here.unit != there.unit:
            raise ValueError(f"data.path: {file} has {axis} in {here.unit!r}, expected {there.unit!r} as in {of}")
        ways = [each.attributes.get("positive") for each in (here, there)]
        if all(ways) and ways[0] != ways[1]:
            raise ValueError(f"data.path: {file} has {axis} positive {ways[0]}, expected {ways[1]} as in {of}")
        a, b = read(file, here, dtype=np.float64), read(of, there, dtype=np.float64)
        off = np.abs(a - b)
        if off.max() > EVEN * np.abs(np.diff(b)).mean() if points > 1 else off.max() > 0:
            i = int(off.argmax())
            raise ValueError(f"data.path: {file} has point {i} of {axis} at {a[i]:g}, expected {b[i]:g} as in {of}")


def view(file: Path, contents: Contents, found: Layout, stride: int, periodic: Sequence[str]) -> FieldView:
    """What the file says of its fields: names, units, where the points lie, and the time between states.

    `periodic`: axes of which the file does not say that they are.

    Raises:
        ValueError: one of those is no axis of space, or not periodic by the file.
    """
    if missing := set(periodic) - set(found.space):
        raise ValueError(f"data.periodic: got {missing.pop()!r}, expected of {', '.join(found.space)}")
    for boundary in contents.boundaries:
        if boundary.axes and set(boundary.axes) <= set(periodic) and not boundary.periodic:
            raise ValueError(f"data.periodic: got {' '.join(periodic)}, expected no axis of {boundary} in {file}")
    axes = list[Axis]()
    for name in found.space:
        closed, at = name in contents.periodic or name in periodic, found.at.get(name)
        if at is None:
            axes.append(Axis(name, periodic=closed))
        else:
            axes.append(Axis.of(name, read(file, at, dtype=np.float64), at.unit, closed))
    interval, unit, times = None, None, found.at.get(TIME)
    if times is not None and found.times > stride:
        at = read(file, times, dtype=np.float64).reshape(-1, found.times)[0]
        interval, unit = float(np.median(at[stride:] - at[:-stride])), duration(times.unit)
    return FieldView(
        variables=found.channels,
        units=found.units,
        axes=tuple(axes),
        interval=interval if interval and interval > 0 else None,
        time_unit=unit or "",
        calendar=times.calendar if times is not None else None,
        format=kind(file),
        grid=contents.grid,
        about=about({v.name: v for v in found.variables} | dict(found.at)) or None,
    )


def number(file: Path, contents: Contents, name: str, trajectories: int) -> tuple[str, Float[np.ndarray, " n"]]:
    """What a number is, with its unit, and its value for each trajectory of a file.

    Raises:
        ValueError: the file has no such number, or it is not one for each trajectory.
    """
    if name in contents.numbers:
        return name, np.full(trajectories, contents.numbers[name], np.float32)
    if name not in contents.variables:
        known = _some([*contents.numbers, *(n for n, v in contents.variables.items() if len(v.shape) <= 1)])
        raise ValueError(f"data.numbers: got {name!r}, which {file} has not; expected of {known}")
    about = contents.variables[name]
    if prod(about.shape) not in (1, trajectories) or TIME in contents.called(about):
        raise ValueError(
            f"data.numbers: got {name!r} of shape {about.shape} in {file}, expected one number for each of "
            f"{trajectories} trajectories"
        )
    values = np.broadcast_to(read(file, about).reshape(-1), trajectories)
    if not np.isfinite(values).all():
        raise ValueError(f"data.numbers: {file} has NaN or infinity in {name}")
    return f"{name} in {about.unit}" if about.unit else name, values


def _named(file: Path, contents: Contents, variable: Variable, axes: Sequence[str]) -> Variable:
    """The array with its axes' names as they are meant here."""
    names: tuple[Any, ...] = tuple(axes)
    if len(names) > len(variable.shape):  # a scalar beside vectors
        names = tuple(name for name in names if meant(name) != COMPONENT)
    if len(names) != len(variable.shape) and all(variable.axes):
        names = contents.called(variable)
    if len(names) != len(variable.shape):
        raise ValueError(
            f"data.axes: got {' '.join(axes) or 'none'}, and {file} does not name the axes of {variable.name} "
            f"{variable.shape}; expected a name for each, such as {SAMPLE} {TIME} x y"
        )
    called = tuple(map(meant, names))
    if doubled := {axis for axis in called if axis != COMPONENT and called.count(axis) > 1}:
        raise ValueError(f"data.axes: got {' '.join(called)} for {variable.name}, expected {doubled.pop()} once")
    return replace(variable, axes=called)


def _space(variable: Variable) -> tuple[str, ...]:
    return tuple(axis for axis in variable.axes if axis is not None and axis not in NOT_SPACE)


def _grid(variable: Variable) -> str:
    return " ".join(f"{axis}: {n}" for axis, n in zip(variable.axes, variable.shape, strict=True))


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") if listed else "none"

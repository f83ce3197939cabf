"""States, and what is told beside them, from a file that is none of the data's own, checked to be what a view tells."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anydit.data.base import Loaded
from anydit.data.fields.contents import COMPONENT, SAMPLE, TIME, Variable, duration, meant
from anydit.data.fields.files import listed, read
from anydit.data.fields.layout import Layout, layout
from anydit.data.fields.times import LONGER, many
from anydit.data.fields.view import EVEN, Axis, FieldView
from anydit.data.known import COARSE, GIVEN, KNOWN, PAST
from anydit.data.reading import check_named, check_shape

Reader = Callable[[Path, Sequence[int]], Loaded]
"""What reads a sample, or a condition, of a shape `[c, *space]` from a file."""


def reader(view: FieldView, name: str) -> Reader | None:
    """What reads the field condition `name` as the data have it; None where it is told by arrays alone.

    With it comes the view by which samples are written when they are.
    """
    told = {PAST: read_past, COARSE: read_coarse if view.blocks else None, GIVEN: read_given if view.given else None}
    read = told.get(name)
    return view.read if name == KNOWN else read and partial(_named, read, view)


def _named(
    read: Callable[[FieldView, Path, Sequence[int]], Loaded], view: FieldView, path: Path, shape: Sequence[int]
) -> Loaded:
    """Of a file that is named like one of fields."""
    check_named(path, view.suffixes)
    return read(view, path, shape)


def read_states(view: FieldView, path: Path, shape: Sequence[int]) -> Loaded:
    """The last states of the one trajectory in a file, as many as a sample `[c, *space]` has; NaN where it has NaN.

    Raises:
        ValueError: they are not there, or not of the view's fields, units, points and interval.
    """
    x, found = read_past(replace(view, nan=None), path, shape)
    return Loaded(x, replace(found, nan=view.nan))


def read_past(view: FieldView, path: Path, shape: Sequence[int]) -> Loaded:
    """The same, with what stood for NaN in training.

    Raises:
        ValueError: as `read_states` does.
    """
    source = Source(view, path, _along(view, path, _layout(view, path)))
    x, first = source.read(shape)
    return Loaded(x, source.view_from(first))


def read_coarse(view: FieldView, path: Path, shape: Sequence[int]) -> Loaded:
    """Means over blocks, of the last states in a file: on a grid of their middles, or of states on the whole grid.

    Raises:
        ValueError: as `read_states` does.
    """
    assert view.blocks, "else nobody knows which means"
    found, n = _along(view, path, _layout(view, path)), view.blocks
    small = found.size == tuple(points // n for points in shape[1:])
    axes = tuple(axis.coarse(n) for axis in view.axes or ()) or None
    source = Source(replace(view, axes=axes) if small else view, path, found)
    x, first = source.read((shape[0], *found.size) if small else shape)
    for axis in range(1, x.ndim):
        x = (
            x.repeat_interleave(n, axis)
            if small
            else x.unflatten(axis, (-1, n)).mean(axis + 1).repeat_interleave(n, axis)
        )
    return Loaded(x, source.beside(view, first))


def read_given(view: FieldView, path: Path, shape: Sequence[int]) -> Loaded:
    """What is given beside samples, from a file; of several times the last, and alike along axes that it has not.

    Raises:
        ValueError: as `read_states` does.
    """
    told = view.given or ()
    own = replace(view, variables=tuple(each.name for each in told), units=tuple(each.unit for each in told))
    found, axes = _layout(own, path), tuple(axis.name for axis in view.axes or ())
    if set(found.space) < set(axes):
        found = replace(found, space=axes, size=tuple(shape[1:]))
    source = Source(own, path, _along(own, path, found))
    x, first = source.read(shape)
    return Loaded(x, source.beside(view, first))


def _layout(view: FieldView, path: Path) -> Layout:
    """Of the arrays that make the view's variables, with what stands for NaN."""
    wanted, contents = view.variables or (), listed(path)
    parts = [name for name in wanted if name not in contents.variables]
    several = [name for name, variable in contents.variables.items() if _has_components(view, variable)]
    vectors = [name for name in several if any(part.startswith(f"{name}_") for part in parts)]
    names = [name for name in contents.variables if name in (*wanted, *vectors)]
    found = layout(path, contents, names, _dims(view, [contents.variables[name] for name in names]), "variables")
    if missing := [name for name in wanted if name not in found.channels]:
        raise ValueError(f"got {path} without {', '.join(missing)}; it has {', '.join(found.channels)}")
    return replace(found, nan=view.nan)


def _along(view: FieldView, path: Path, found: Layout) -> Layout:
    """With the axes of space in the view's order."""
    if view.axes is None or {axis.name for axis in view.axes} == set(found.space):
        space = found.space if view.axes is None else tuple(axis.name for axis in view.axes)
        return replace(found, space=space, size=tuple(found.size[found.space.index(axis)] for axis in space))
    expected = ", ".join(axis.name for axis in view.axes)
    raise ValueError(f"got {path} with the axes {', '.join(found.space)}, expected {expected}")


def _has_components(view: FieldView, variable: Variable) -> bool:
    """Whether an array is of vectors, by the names of its axes, or by as many as the data's were given."""
    if COMPONENT in map(meant, view.dims or ()):
        return len(variable.shape) > len(view.axes or ())
    return any(axis is not None and meant(axis) == COMPONENT for axis in variable.axes)


def _dims(view: FieldView, arrays: Sequence[Variable]) -> tuple[str, ...]:
    """The names that axes of the data were given, without those that the largest of some arrays has not."""
    largest = max(arrays, key=lambda array: len(array.shape), default=None)
    if largest is None or not view.dims:
        return ()
    scalar = (COMPONENT,) if largest.name in (view.variables or ()) else ()
    for gone in ((), (SAMPLE,), (TIME,), (SAMPLE, TIME)):
        left = tuple(name for name in view.dims if meant(name) not in gone)
        if sum(meant(name) not in scalar for name in left) == len(largest.shape):
            return left
    return ()


@dataclass(frozen=True)
class Source:
    """A file with states, and the view that says what they should be."""

    view: FieldView
    path: Path
    found: Layout

    @cached_property
    def channels(self) -> list[int]:
        """Which channels of the file are those of the view, in its order."""
        wanted, units = self.view.variables or self.found.channels, self.view.units or self.found.units
        order = [self.found.channels.index(name) for name in wanted]
        for i, unit in zip(order, units, strict=True):
            if self.found.units[i] != unit:
                got = f"{self.found.channels[i]} in {self.found.units[i]!r}"
                raise ValueError(f"got {self.path} with {got}, expected {unit!r}")
        return order

    def read(self, shape: Sequence[int]) -> tuple[Float[Tensor, "c *space"], int]:
        """The last states, as many as `shape` has channels for, and the first of these."""
        each, found = len(self.channels), self.found
        if shape[0] % each:
            raise ValueError(f"got {self.path} with {each} channels in a state, expected a divisor of {shape[0]}")
        if found.trajectories != 1:
            raise ValueError(f"got {self.path} with {found.trajectories} trajectories, expected one")
        for axis in self.view.axes or ():
            self.check_axis(axis)
        states = self.last(shape[0] // each)
        check_shape(self.path, (shape[0], *found.size), shape)
        values = found.states(self.path, 0, slice(states.start, states.stop, states.step))[:, self.channels]
        return torch.from_numpy(np.ascontiguousarray(values)).flatten(0, 1), states.start

    @property
    def time(self) -> Variable | None:
        """What says when the states are, and in which unit, where the file does."""
        return self.found.at.get(TIME)

    @cached_property
    def times(self) -> Float[np.ndarray, " t"] | None:
        """When the states are, in the data's unit, where the file says it."""
        return None if self.time is None else read(self.path, self.time, dtype=np.float64).reshape(-1) * self._many

    @property
    def time_unit(self) -> str:
        """Of the times, with the day that they count from if there is one."""
        own = "" if self.time is None else self.time.unit
        return own if self._many == 1 else f"{duration(self.view.time_unit or '')}{own[len(duration(own)) :]}"

    @cached_property
    def _many(self) -> float:
        """How many of the data's units of time are in one of the file's."""
        unit, expected = (duration(each or "") for each in (self.time and self.time.unit, self.view.time_unit))
        found = many(unit, expected) if unit and expected else 1.0
        if found is None:
            raise ValueError(f"got {self.path} with times in {unit!r}, expected {expected!r}")
        return found

    def check_axis(self, axis: Axis) -> None:
        """Refuse points at other places, where the file says where they are."""
        at, points = self.found.at.get(axis.name), self.found.size[self.found.space.index(axis.name)]
        if at is None:
            return
        if at.unit != axis.unit:
            raise ValueError(f"got {self.path} with {axis.name} in {at.unit!r}, expected {axis.unit!r}")
        got, expected = read(self.path, at, dtype=np.float64), axis.places(points)
        off, step = np.abs(got - expected), np.abs(np.diff(expected)).mean() if points > 1 else 1.0
        if off.max() > EVEN * step:
            i = int(off.argmax())
            raise ValueError(f"got {self.path} with point {i} of {axis.name} at {got[i]:g}, expected {expected[i]:g}")

    def last(self, count: int) -> range:
        """The last states of the file, as far apart as those of the data."""
        interval, unit = self.view.interval, duration(self.time_unit)
        stride = 1
        if self.times is not None and interval is not None and len(self.times) > 1:
            usual = abs(float(np.median(np.diff(self.times))))
            if not usual:
                raise ValueError(f"got {self.path} with states at equal times, expected each later than the one before")
            stride = max(1, round(interval / usual))
        first = self.found.times - 1 - (count - 1) * stride
        states = range(first, self.found.times, stride)
        if first < 0:
            apart = "" if stride == 1 else f", {stride} apart"
            raise ValueError(f"got {self.path} with {self.found.times} states, expected {count}{apart}")
        if self.times is not None and interval is not None and count > 1:
            steps = np.diff(self.times[list(states)])
            if (np.abs(steps - interval) > LONGER * interval).any():
                got = ", ".join(f"{step:g}" for step in steps)
                raise ValueError(f"got {self.path} with {got} {unit} from state to state, expected {interval:g}")
        return states

    def view_from(self, state: int) -> FieldView:
        """The view of samples that begin with a state of the file, whose times it goes on."""
        if self.time is None or self.times is None:
            return replace(self.view, start=0.0)
        told = {"time_unit": self.time_unit, "calendar": self.time.calendar} if self.time_unit else {}
        return replace(self.view, start=float(self.times[state]), **told)

    def beside(self, view: FieldView, state: int) -> FieldView:
        """The view of samples that something is told of: at its time, where the file says when that is."""
        if self.time is None or self.times is None:
            return view
        at = self.view_from(state)
        return replace(view, start=at.start, time_unit=at.time_unit, calendar=at.calendar)

"""States from a file that is none of the data's own, checked to be of the fields that a view tells of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from anydit.data.base import Loaded
from anydit.data.fields.contents import COMPONENT, TIME, Contents, Variable, duration, meant
from anydit.data.fields.files import listed, read
from anydit.data.fields.layout import Layout, layout
from anydit.data.fields.times import LONGER, same
from anydit.data.fields.view import EVEN, Axis, FieldView
from anydit.data.reading import check_shape


def read_states(view: FieldView, path: Path, shape: Sequence[int]) -> Loaded:
    """The last states of the one trajectory in a file, as many as a sample `[c, *space]` has.

    Raises:
        ValueError: they are not there, or not of the view's fields, units, points and interval.
    """
    contents = listed(path)
    source = Source(view, path, _layout(view, path, contents))
    each, found = len(source.channels), source.found
    if shape[0] % each:
        raise ValueError(f"got {path} with {each} channels in a state, expected a divisor of {shape[0]}")
    if found.trajectories != 1:
        raise ValueError(f"got {path} with {found.trajectories} trajectories, expected one")
    for axis in view.axes or ():
        source.check_axis(axis)
    states = source.last(shape[0] // each)
    check_shape(path, (shape[0], *found.size), shape)
    values = found.states(path, 0, slice(states.start, states.stop, states.step))[:, source.channels]
    x = torch.from_numpy(np.ascontiguousarray(values)).flatten(0, 1)
    return Loaded(x, source.view_from(states.start))


def _layout(view: FieldView, path: Path, contents: Contents) -> Layout:
    """Of the arrays that make the view's variables, along its axes."""
    wanted = view.variables or ()
    parts = [name for name in wanted if name not in contents.variables]
    several = [name for name, variable in contents.variables.items() if _has_components(variable)]
    vectors = [name for name in several if any(part.startswith(f"{name}_") for part in parts)]
    names = [name for name in contents.variables if name in (*wanted, *vectors)]
    found = layout(path, contents, names, (), "variables")
    if missing := [name for name in wanted if name not in found.channels]:
        raise ValueError(f"got {path} without {', '.join(missing)}; it has {', '.join(found.channels)}")
    if view.axes is None or {axis.name for axis in view.axes} == set(found.space):
        space = found.space if view.axes is None else tuple(axis.name for axis in view.axes)
        return replace(found, space=space, size=tuple(found.size[found.space.index(axis)] for axis in space))
    expected = ", ".join(axis.name for axis in view.axes)
    raise ValueError(f"got {path} with the axes {', '.join(found.space)}, expected {expected}")


def _has_components(variable: Variable) -> bool:
    return any(axis is not None and meant(axis) == COMPONENT for axis in variable.axes)


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

    @property
    def time(self) -> Variable | None:
        """What says when the states are, and in which unit, where the file does."""
        return self.found.at.get(TIME)

    @cached_property
    def times(self) -> Float[np.ndarray, " t"] | None:
        """When the states are, where the file says it."""
        return None if self.time is None else read(self.path, self.time, dtype=np.float64).reshape(-1)

    @property
    def time_unit(self) -> str:
        """Of the times, with the day that they count from if there is one."""
        return "" if self.time is None else self.time.unit

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
        interval, unit, expected = self.view.interval, duration(self.time_unit), duration(self.view.time_unit or "")
        if unit and expected and not same(unit, expected):
            raise ValueError(f"got {self.path} with times in {unit!r}, expected {expected!r}")
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

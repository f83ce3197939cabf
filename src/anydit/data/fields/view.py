"""Fields on grids: where their points lie, and how they are shown and written."""

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from anydit.config import check_positive, config
from anydit.data.base import Facts, Loaded, View, suffixed
from anydit.data.fields.beside import About
from anydit.data.fields.boundaries import ATTRIBUTE, Boundary
from anydit.data.fields.contents import TIME, Array
from anydit.data.fields.files import SUFFIXES, WRITTEN_AS, Format, write, write_in_well
from anydit.data.reading import check_named
from anydit.data.sheet import TILE_PX, sheet

EVEN = 1e-3
"""Points count as evenly spaced where no distance differs by more than this part of the mean one."""


@config
class Axis:
    """An axis of space: points from `start` on, `step` apart, or `at` places of their own; all in `unit`.

    `periodic`: after the last point comes the first.
    """

    name: str
    start: float = 0.0
    step: float = 1.0
    unit: str = ""
    periodic: bool = False
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.step == 0:
            raise ValueError("step: got 0, expected another number")

    @classmethod
    def of(cls, name: str, places: Float[np.ndarray, " n"], unit: str = "", periodic: bool = False) -> "Axis":
        """The axis with points at these places."""
        steps = np.diff(places.astype(np.float64))
        even = len(steps) > 0 and np.abs(steps - steps.mean()).max() <= EVEN * abs(steps.mean())
        if even and steps.mean() != 0:
            return cls(name, float(places[0]), float(steps.mean()), unit, periodic)
        return cls(name, unit=unit, periodic=periodic, at=tuple(map(float, places)))

    def places(self, points: int) -> Float[np.ndarray, " n"]:
        """Where so many points lie.

        Raises:
            ValueError: they are not as many as have places of their own.
        """
        if not self.at:
            return self.start + self.step * np.arange(points)
        if len(self.at) != points:
            raise ValueError(f"view.axes: got {points} points along {self.name}, expected its {len(self.at)} places")
        return np.array(self.at)

    def coarse(self, factor: int) -> "Axis":
        """The axis of the middles of blocks of so many points."""
        if self.at:
            blocks = range(0, len(self.at) - factor + 1, factor)
            return replace(self, at=tuple(sum(self.at[i : i + factor]) / factor for i in blocks))
        return replace(self, start=self.start + (factor - 1) / 2 * self.step, step=factor * self.step)


@config
class Quantity:
    """What the values of a channel are, by name and unit."""

    name: str
    unit: str = ""


@config
class FieldView(View):
    """Fields on a grid, written to files with names, units and axes, of one state or of several in a row.

    What is None comes from the data. `variables`, `units`: of each channel of one state. `axes`: of space. `interval`:
    of time between states, in `time_unit`. `format`: of the files. `boundaries`: what holds at those of the grid, whose
    kind is `grid` in The Well's files: with it HDF5 is in that layout. `limits`: the values shown as blue and as red;
    None shows each variable from its least to its largest value, or symmetric about 0 where it has both signs. `start`:
    the time of the first state, as a file says that was read. `calendar`: of the times, by the name that files have.
    `about`: what files say besides of variables and axes. `dims`: the axes that arrays were said to have. Of conditions
    in files: `blocks` of so many points are what is coarse, `given` is what channels are, and `nan` stands for NaN.
    """

    variables: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    axes: tuple[Axis, ...] | None = None
    interval: float | None = None
    time_unit: str | None = None
    format: Format | None = None
    limits: tuple[float, float] | None = None
    # No part of what tells data apart, which is as it was before there were these.
    boundaries: tuple[Boundary, ...] | None = field(default=None, repr=False)
    grid: str | None = field(default=None, repr=False)
    start: float | None = field(default=None, repr=False)
    calendar: str | None = field(default=None, repr=False)
    about: tuple[About, ...] | None = field(default=None, repr=False)
    dims: tuple[str, ...] | None = field(default=None, repr=False)
    blocks: int | None = field(default=None, repr=False)
    given: tuple[Quantity, ...] | None = field(default=None, repr=False)
    nan: float | None = field(default=None, repr=False)

    suffixes: ClassVar[tuple[str, ...]] = tuple(SUFFIXES)

    def __post_init__(self) -> None:
        names, units = self.variables, self.units
        if names is not None and units is not None and len(names) != len(units):
            raise ValueError(f"view.units: got {len(units)}, expected one for each of {len(names)} variables")
        if self.interval is not None:
            check_positive("view.interval", self.interval)
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"view.limits: got {self.limits}, expected the lower one first")

    @property
    def state_channels(self) -> int | None:
        return len(self.variables) if self.variables else None

    def states(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b t v *space"]:
        """Samples as states of all variables, one after the other in time.

        Raises:
            ValueError: the channels are not those of whole states.
        """
        count = x.shape[1] if self.variables is None else len(self.variables)
        if x.shape[1] % count:
            raise ValueError(f"view.variables: got {count}, expected a divisor of the samples' {x.shape[1]} channels")
        return x.unflatten(1, (x.shape[1] // count, count))

    def picture(
        self, x: Float[Tensor, "b c *space"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        """Every variable in colours, side by side, later states below; of more than two axes a middle slice."""
        states = self.states(x.float().cpu()).numpy()
        while states.ndim > 5:
            states = states[:, :, :, states.shape[3] // 2]
        states = states[:, :, :, None] if states.ndim == 4 else states
        for variable in range(states.shape[2]):
            low, high = self.limits or _limits(states[:, :, variable])
            states[:, :, variable] = (states[:, :, variable] - low) / (high - low)
        scale = max(1, -(-TILE_PX // max(states.shape[3:])))
        tiles = rearrange(states, "b t v h w -> b (t h) (v w)").repeat(scale, 1).repeat(scale, 2)
        return sheet([Image.fromarray(tile) for tile in _coloured(tiles)], captions, columns)

    def save(self, x: Float[Tensor, "c *space"], path: Path) -> Path:
        """HDF5 files are NetCDF-4 too, so that either's tools open them, unless they are in The Well's layout."""
        states = self.states(x[None].float().cpu())[0].numpy()
        names = self.variables or tuple(f"variable_{i}" for i in range(states.shape[1]))
        axes = self.axes or tuple(Axis(f"axis_{i}") for i in range(states.ndim - 2))
        if len(axes) != states.ndim - 2:
            raise ValueError(f"view.axes: got {len(axes)}, expected one for each of {states.ndim - 2} of the samples")
        arrays = dict[str, Array]()
        for axis, points in zip(axes, states.shape[2:], strict=True):
            about = {"units": axis.unit} if axis.unit else {}
            about |= {ATTRIBUTE: kind} if (kind := self._kind(axis)) else {}
            arrays[axis.name] = Array((axis.name,), axis.places(points), about)
        several = len(states) > 1 or self.start is not None
        if several:
            times = (self.start or 0.0) + (self.interval or 1.0) * np.arange(len(states))
            about = {"units": self.time_unit} if self.time_unit else {}
            about |= {"calendar": self.calendar} if self.calendar else {}
            arrays[TIME] = Array((TIME,), times, about)
        dims = (*((TIME,) if several else ()), *(axis.name for axis in axes))
        of = zip(names, self.units or ("",) * len(names), np.moveaxis(states, 1, 0), strict=True)
        arrays |= {name: Array(dims, v if several else v[0], {"units": unit} if unit else {}) for name, unit, v in of}
        arrays = {name: a._replace(attributes={**self._told(name), **a.attributes}) for name, a in arrays.items()}
        path = suffixed(path, WRITTEN_AS[self._written])
        if self._written == "the_well":
            write_in_well(path, arrays, self._stated(axes), self.grid or "cartesian")
        else:
            write(path, arrays, boundaries=self.boundaries or ())
        return path

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """The last states of a file, as many as `shape` has channels for, and as far apart as the data's."""
        from anydit.data.fields.reading import read_states

        check_named(path, self.suffixes)
        return read_states(self, path, shape)

    def reader(self, name: str) -> Callable[[Path, Sequence[int]], Loaded] | None:
        from anydit.data.fields.reading import reader

        return reader(self, name)

    def after(self, x: Float[Tensor, "c *space"]) -> "FieldView":
        states = self.states(x[None]).shape[1]
        return replace(self, start=(self.start or 0.0) + (self.interval or 1.0) * states)

    def like(self, facts: Facts) -> View:
        """A format that is asked for is written as such, whatever the layout of the data."""
        view = super().like(facts)
        asked = self.grid is None and self.format not in (None, "the_well")
        return replace(view, grid=None) if asked else view

    @property
    def _written(self) -> Format:
        """What files are written as."""
        format = self.format or "hdf5"
        return "the_well" if format == "hdf5" and self.grid is not None else format

    def _told(self, name: str) -> dict[str, str]:
        """What is said besides of a variable, or an axis."""
        return {told.name: told.text for told in self.about or () if told.of == name}

    def _kind(self, axis: Axis) -> str:
        """What holds along an axis, in words."""
        kinds = dict.fromkeys(boundary.kind for boundary in self.boundaries or () if axis.name in boundary.axes)
        return "periodic" if axis.periodic else ", ".join(kinds)

    def _stated(self, axes: Sequence[Axis]) -> list[Boundary]:
        """The boundaries, and of each other axis that is periodic that it is."""
        known = {axis for boundary in self.boundaries or () for axis in boundary.axes}
        others = [Boundary.of_axis(axis.name, "PERIODIC") for axis in axes if axis.periodic and axis.name not in known]
        return [*(self.boundaries or ()), *others]


def _limits(values: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """The values at the ends of the colours."""
    low, high = float(values.min()), float(values.max())
    if low < 0 < high:
        high = max(high, -low)
        low = -high
    return low, high if high > low else low + max(1.0, abs(low)) * 1e-6


def _coloured(unit: Float[np.ndarray, "b h w"]) -> np.ndarray:
    """8-bit colours `[b h w 3]` of values from 0 to 1, white in the middle."""
    from matplotlib import colormaps

    return cast("np.ndarray", colormaps["RdBu_r"](unit, bytes=True))[..., :3]

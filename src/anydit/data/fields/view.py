"""Fields on grids: where their points lie, and how they are shown and written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from anydit.config import check_positive, config
from anydit.data.base import View
from anydit.data.fields.files import SUFFIXES, TIME, Array, write
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


@config
class FieldView(View):
    """Fields on a grid, written to files with names, units and axes, of one state or of several in a row.

    What is None comes from the data. `variables`, `units`: of each channel of one state. `axes`: of space. `interval`:
    of time between states, in `time_unit`. `format`: of the files. `limits`: the values shown as blue and as red; None
    shows each variable from its least to its largest value, or symmetric about 0 where it has both signs.
    """

    variables: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    axes: tuple[Axis, ...] | None = None
    interval: float | None = None
    time_unit: str | None = None
    format: Literal["hdf5", "netcdf", "zarr"] | None = None
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        names, units = self.variables, self.units
        if names is not None and units is not None and len(names) != len(units):
            raise ValueError(f"view.units: got {len(units)}, expected one for each of {len(names)} variables")
        if self.interval is not None:
            check_positive("view.interval", self.interval)
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"view.limits: got {self.limits}, expected the lower one first")

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

    def write(self, x: Float[Tensor, "b c *space"], folder: Path, stem: str = "sample") -> list[Path]:
        """A file for each sample; HDF5 files are NetCDF-4 too, so that either's tools open them."""
        suffix = next(end for end, format in SUFFIXES.items() if format == (self.format or "hdf5"))
        states = self.states(x.float().cpu()).numpy()
        names = self.variables or tuple(f"variable_{i}" for i in range(states.shape[2]))
        axes = self.axes or tuple(Axis(f"axis_{i}") for i in range(states.ndim - 3))
        if len(axes) != states.ndim - 3:
            raise ValueError(f"view.axes: got {len(axes)}, expected one for each of {states.ndim - 3} of the samples")
        arrays = dict[str, Array]()
        for axis, points in zip(axes, states.shape[3:], strict=True):
            about = {"units": axis.unit} if axis.unit else {}
            about |= {"boundary": "periodic"} if axis.periodic else {}
            arrays[axis.name] = Array((axis.name,), axis.places(points), about)
        several = states.shape[1] > 1
        if several:
            times = (self.interval or 1.0) * np.arange(states.shape[1])
            arrays[TIME] = Array((TIME,), times, {"units": self.time_unit} if self.time_unit else {})
        dims = (*((TIME,) if several else ()), *(axis.name for axis in axes))
        paths = [folder / f"{stem}-{i:05d}{suffix}" for i in range(len(states))]
        for path, sample in zip(paths, states, strict=True):
            values = np.moveaxis(sample, 1, 0) if several else sample[0]
            of = zip(names, self.units or ("",) * len(names), values, strict=True)
            write(path, arrays | {name: Array(dims, v, {"units": unit} if unit else {}) for name, unit, v in of})
        return paths


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

"""A file and what a person says of it, to a task and to where its results go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anydit.data.outside import Unreadable
from anydit.inference.pipeline import Pipeline
from anydit.inverse.operators import MRI, Inpainting, Operator, Sensors
from anydit.inverse.reconstruct import data_shape
from anydit.inverse.scan import files
from anydit.inverse.scan.acquired import of_kspace
from anydit.inverse.scan.files import Array, Picture, Series
from anydit.inverse.scan.grid import Grid, cut, one_each
from anydit.inverse.scan.kspace import KSpace, checked_mask, kspace
from anydit.inverse.scan.own import is_own, read_own
from anydit.inverse.scan.task import Task, of_measurements, of_samples
from anydit.inverse.scan.written import Origin


@dataclass(frozen=True)
class Source:
    """`path`, and of what is in it: whether it is a measurement, the noise's deviation, the scale, the mask and maps.

    `mask`: where k-space, or an array, was measured. `slices`: the first and the last, or one. What is None is as the
    file says, or as it is found from it.
    """

    path: Path | None = None
    measured: bool = False
    sigma: float | None = None
    scale: float | None = None
    mask: Path | None = None
    coil_maps: Path | None = None
    slices: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise ValueError(f"scale: got {self.scale}, expected a finite number above 0")
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma: got {self.sigma}, expected a finite deviation above 0")
        if self.slices is not None and len(self.slices) > 2:
            raise ValueError(f"slices: got {len(self.slices)} numbers, expected the first and the last, or one")
        of_files = {"measured": self.measured or None, "mask": self.mask, "coil-maps": self.coil_maps,
                    "slices": self.slices}  # fmt: skip
        for name, told in of_files.items():
            if self.path is None and told is not None:
                raise ValueError(f"{name}: got {told}, and no SCAN that it would be of; expected a file")


def opened(
    pipeline: Pipeline, source: Source, operator: Operator, samples: Float[Tensor, "n c *space"] | None = None
) -> tuple[Task, Origin]:
    """What to reconstruct, and where it goes; `samples`: on the data's own scale, in place of a file.

    Raises:
        ValueError: the file cannot be read, or its content cannot be what the model and the operator make.
    """
    shape = data_shape(pipeline)
    if samples is not None:
        return of_samples(pipeline, samples, operator, source.sigma, source.scale), Origin(native=True)
    assert source.path is not None
    if is_own(pipeline.config.view, source.path):
        blocks = operator if source.measured else None
        x, view = read_own(pipeline.config.view, source.path, shape, blocks)
        task = _array(pipeline, source, operator, x[None])
        return task, Origin(scale=task.scale, native=True, view=view)
    given = files.read(source.path, len(shape) - 1)
    if isinstance(given, Array) and source.measured and isinstance(operator, MRI):
        given = _as_kspace(given.x, len(shape) - 1)
    if isinstance(given, KSpace):
        return _kspace(pipeline, source, operator, given)
    if isinstance(given, Array):
        task = _array(pipeline, source, operator, given.x)
        return task, Origin(scale=task.scale)
    if source.measured or source.mask is not None:
        raise ValueError(
            f"{'measured' if source.measured else 'mask'}: got {source.path}, expected an array or k-space"
        )
    _refuse_maps(source)
    if isinstance(given, Series):
        return _scan(pipeline, source, operator, given, shape)
    task = _picture(pipeline, source, operator, given)
    return task, Origin(scale=task.scale, black=task.black, native=True)


def _array(pipeline: Pipeline, source: Source, operator: Operator, x: Tensor) -> Task:
    """Numbers: what was measured, where that is said or some of them are unknown, or samples that are to be."""
    _refuse_maps(source)
    x = x if source.slices is None else x[_rows(source, len(x))]
    places, shape = isinstance(operator, Inpainting | Sensors), data_shape(pipeline)
    if source.mask is not None:
        if not places:
            got = type(operator).__name__
            raise ValueError(f"mask: got one for {got}, expected k-space, or inpainting or sensors, for which it is")
        mask = _mask(source.mask)
        if tuple(mask.shape) not in (shape, shape[1:]):
            raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected {shape[1:]}, or {shape}")
        x = torch.where(mask, x, torch.nan)
    if source.measured or (places and bool(x.isnan().any())):
        return of_measurements(pipeline, x, operator, source.sigma, source.scale)
    return of_samples(pipeline, x, operator, source.sigma, source.scale)


def _picture(pipeline: Pipeline, source: Source, operator: Operator, given: Picture) -> Task:
    """A picture, whose black and white are the model's; a scale multiplies what is above black."""
    low, high = pipeline.config.view.bounds or (0.0, 1.0)
    scale, said = source.scale or 1.0, None if source.scale is None else 1.0
    x = low + (high - low) * scale * given.x[_rows(source, len(given.x))]
    task = of_samples(pipeline, x, operator, source.sigma, said)
    return replace(task, scale=scale, black=low - scale * low)


def _refuse_maps(source: Source) -> None:
    if source.coil_maps is not None:
        raise ValueError(
            f"coil-maps: got {source.coil_maps}, and {source.path} holds no k-space, which it would be for"
        )


def _scan(
    pipeline: Pipeline, source: Source, operator: Operator, given: Series, shape: tuple[int, ...]
) -> tuple[Task, Origin]:
    """A scan on the model's grid."""
    grid, scan = Grid.of(pipeline.config.view, shape[1:]), given.scan
    if len(shape) not in (3, 4):
        raise ValueError(f"scan: got a volume, expected what the model's samples of size {shape[1:]} are")
    across = grid.own_across(scan)
    if source.slices is not None:
        if across is None:
            raise ValueError(f"slices: got {source.slices}, expected none: the model's samples are whole volumes")
        scan = cut(scan, across, source.slices[0], source.slices[-1])
    try:
        x = grid.forth(scan)
    except Unreadable as error:
        raise ValueError(f"scan: got {source.path}: {error}") from None
    task = of_samples(pipeline, x, operator, source.sigma, source.scale)
    kept = given.files if source.slices is None and one_each(given.files, scan.values.shape[-1]) else ()
    framed = "the slices are frames of a DICOM file: a folder gets NIfTI, and no series"
    notes = (grid.told(scan), framed if given.files and source.slices is None and not kept else "")
    task = replace(task, slices=across is not None, notes=(*task.notes, *filter(None, notes)))
    return task, Origin(Series(scan, kept), grid, scale=task.scale)


def _kspace(pipeline: Pipeline, source: Source, operator: Operator, k: KSpace) -> tuple[Task, Origin]:
    """k-space with the mask, the maps and of the slices that a person names."""
    if source.mask is not None:
        mask = checked_mask(_mask(source.mask), tuple(k.mask.shape))
        there = kspace(k.y, k.mask.ndim, mask)
        k = replace(k, y=there.y, mask=there.mask)
    rows, maps = _rows(source, len(k.y)), None
    truth = k.truth[rows] if k.truth is not None and len(k.truth) == len(k.y) else None
    if source.coil_maps is not None:
        values = files.array(source.coil_maps, "coil-maps")
        if values.dtype.kind != "c":
            raise ValueError(f"coil-maps: got {values.dtype} in {source.coil_maps}, expected complex numbers")
        maps = torch.from_numpy(values.astype(np.complex64))
        maps = maps[None] if maps.ndim == k.y.ndim - 1 else maps
        maps = maps[rows] if len(maps) == len(k.y) else maps
    slices = k.mask.ndim == 2  # and not volumes, each of which is in the same place
    place = k.place and k.place.from_slice(rows.start or 0) if slices else k.place
    k, measured = replace(k, y=k.y[rows], truth=truth, place=place), source.measured or source.mask is not None
    task = of_kspace(pipeline, k, operator, source.sigma, source.scale, maps, measured=measured)
    return task, Origin(place=task.place, turn=task.turn, scale=task.scale, black=task.black)


def _mask(path: Path) -> Bool[Tensor, "*space"]:
    """Where an array of numbers is not 0.

    Raises:
        ValueError: some of them are no numbers, which elsewhere say that nothing is known.
    """
    values = files.array(path, "mask")
    if not np.isfinite(values).all():
        raise ValueError(f"mask: got NaN or infinity in {path}, expected 0 where nothing was measured")
    return torch.from_numpy(values != 0)


def _rows(source: Source, count: int) -> slice:
    """The slices that are named, of so many."""
    if source.slices is None:
        return slice(None)
    first, last = source.slices[0], source.slices[-1]
    if not 0 <= first <= last < count:
        raise ValueError(f"slices: got {first} to {last}, expected some of the file's, which are 0 to {count - 1}")
    return slice(first, last + 1)


def _as_kspace(x: Tensor, axes: int) -> KSpace:
    """Real and imaginary parts, `[n 2 (coils) *space]`, as k-space."""
    if x.ndim not in (axes + 2, axes + 3) or x.shape[1] != 2:
        raise ValueError(
            f"scan: got real numbers of shape {tuple(x.shape)}, expected complex ones, or [n, 2, ...] with both parts"
        )
    return kspace(torch.complex(x[:, 0].contiguous(), x[:, 1].contiguous()), axes)

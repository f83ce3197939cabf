"""A file and what a person says of it, to a task and to where its results go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anydit.data.outside import Unreadable
from anydit.inference.pipeline import Pipeline
from anydit.inverse.operators import MRI, Operator
from anydit.inverse.reconstruct import data_shape
from anydit.inverse.scan import files
from anydit.inverse.scan.files import Array, Picture, Series
from anydit.inverse.scan.grid import Grid, cut
from anydit.inverse.scan.kspace import KSpace, checked_mask, kspace
from anydit.inverse.scan.task import Task, of_kspace, of_measurements, of_samples
from anydit.inverse.scan.written import Origin


@dataclass(frozen=True)
class Source:
    """`path`, and of what is in it: whether it is a measurement, the noise's deviation, the scale, the mask and maps.

    `slices`: the first and the last, or one. What is None is as the file says, or as it is found from it.
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
    given = files.read(source.path, len(shape) - 1)
    if isinstance(given, Array) and source.measured and isinstance(operator, MRI):
        given = _as_kspace(given.x, len(shape) - 1)
    if isinstance(given, KSpace):
        return _kspace(pipeline, source, operator, given)
    for name, value in (("mask", source.mask), ("coil-maps", source.coil_maps)):
        if value is not None:
            raise ValueError(f"{name}: got {value}, and {source.path} holds no k-space, which it would be for")
    if source.measured:
        if not isinstance(given, Array):
            raise ValueError(f"measured: got {source.path}, expected an array of NumPy or k-space")
        x = given.x[_rows(source, len(given.x))]
        task = of_measurements(pipeline, x, operator, source.sigma, source.scale)
        return task, Origin(scale=task.scale)
    if isinstance(given, Series):
        return _scan(pipeline, source, operator, given, shape)
    if isinstance(given, Picture):
        low, high = pipeline.config.view.bounds or (0.0, 1.0)
        x = (low + (high - low) * given.x) / (source.scale or 1.0)
    else:
        x = given.x
    if source.slices is not None:
        x = x[_rows(source, len(x))]
    task = of_samples(pipeline, x, operator, source.sigma, source.scale)
    return task, Origin(scale=task.scale, native=isinstance(given, Picture))


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
    if told := grid.told(scan):
        task = replace(task, notes=(*task.notes, told))
    kept = given.files if source.slices is None else ()
    return task, Origin(Series(scan, kept), grid, scale=task.scale)


def _kspace(pipeline: Pipeline, source: Source, operator: Operator, k: KSpace) -> tuple[Task, Origin]:
    """k-space with the mask, the maps and of the slices that a person names."""
    if source.mask is not None:
        mask = checked_mask(torch.from_numpy(files.array(source.mask, "mask")), tuple(k.mask.shape))
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
    k = replace(k, y=k.y[rows], truth=truth)
    task = of_kspace(pipeline, k, operator, source.sigma, source.scale, maps)
    return task, Origin(spacing=k.spacing, scale=task.scale, black=task.black)


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

"""Volumes: NIfTI files and DICOM series as samples, whole or as crops at places that follow from a sample's id."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import isfinite, prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from anydit.config import check_at_least, config
from anydit.data.base import Data, Facts, Part, Samples, cache_folder, check_share
from anydit.data.buckets import shares, together
from anydit.data.outside import rows_of
from anydit.data.volumes.files import Prepared, Reading, Size, common, mapped, placed, prepare, side_of
from anydit.data.volumes.view import VolumeView
from anydit.tensors import Batch, Stream

TRIES = 16
"""Places that are tried for a crop before the one with most in it is taken."""

Bounds = list[tuple[int, int]]
"""Along each axis, where a region begins and ends."""


@config
class Whole:
    """Hold out `share` of the volumes, drawn by their names."""

    share: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.share)

    def kept(self, found: Sequence[Prepared], part: Part) -> list[Prepared]:
        """The volumes of one part.

        Raises:
            ValueError: there is none.
        """
        kept = [found[i] for i in rows_of([one.name for one in found], self.share, part).tolist()]
        if not kept:
            raise ValueError(
                f"data.held_out: got {self}, which leaves none of {len(found)} volumes in the part {part}; "
                "expected at least one, as parts of each volume that are held out leave"
            )
        return kept


@config
class Slab:
    """Hold out the last `share` of every volume along one `axis`: of few volumes, a part that no crop touches."""

    axis: int = 0
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.axis not in (0, 1, 2):
            raise ValueError(f"axis: got {self.axis}, expected 0, 1 or 2")


@config
class Inside:
    """Take crops of which at least `share` of the voxels has a first channel above `above`: not of the air around."""

    above: float = 0.0
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: got {self.share}, expected 0 to 1")


@config
class EachSize:
    """Whole volumes of several sizes: each size is a bucket, of which a batch is.

    Where an axis is no multiple of `multiple` voxels, which the patch must divide, `fill` follows after its end.
    """

    multiple: int = 1
    fill: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("buckets.multiple", self.multiple, 1)
        if not isfinite(self.fill):
            raise ValueError(f"buckets.fill: got {self.fill}, expected a finite number")

    def of(self, size: Size) -> Size:
        """The size of the samples that volumes of a size become."""
        return cast("Size", tuple(-(-n // self.multiple) * self.multiple for n in size))


@config
class Volumes(Data):
    """The NIfTI files, or else the DICOM series, at any depth in the folder `path` (or one file), values as they are.

    `channels`: words of file names; files whose names differ by these alone are the channels of one sample. `frames`: a
    file of four axes is several volumes, not several channels. `crop`: voxels of a sample, `crops` of every volume, at
    random places (None: whole volumes), which are `inside`. `axes`: turn all to these, as "RAS"; `spacing`: bring all
    to it, in mm (None for both: as they are, and all alike). `nan`: what stands for NaN (None: refuse it). `buckets`:
    whole volumes may differ in size (None: refuse it). `bad_limit`: the share that may be unreadable (a handful always,
    unless 0); they are skipped. `cache`: where volumes are kept. `symmetric`: left and right are mirror images, so that
    a place is told by how far it is from the middle.
    """

    path: Path = Path("volumes")
    channels: tuple[str, ...] = ()
    frames: bool = False
    crop: Size | None = None
    crops: int = 64
    inside: Inside | None = None
    axes: str | None = None
    spacing: tuple[float, float, float] | None = None
    nan: float | None = None
    buckets: EachSize | None = None
    held_out: Whole | Slab = Whole()
    bad_limit: float = 0.0
    cache: Path | None = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.axes is not None and sorted(self.axes.translate(str.maketrans("LPI", "RAS"))) != sorted("RAS"):
            raise ValueError(f"axes: got {self.axes!r}, expected one letter each of R or L, A or P, S or I, as 'RAS'")
        if min(self.spacing or (1,)) <= 0:
            raise ValueError(f"spacing: got {self.spacing}, expected numbers above 0, in mm")
        if min(self.crop or (1,)) < 1 or self.crops < 1:
            raise ValueError(f"crop, crops: got {self.crop}, {self.crops}, expected at least 1 voxel and 1 crop")
        if self.crop is None and (isinstance(self.held_out, Slab) or self.inside):
            raise ValueError("held_out, inside: got what is for crops, expected a crop as well")

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.path.expanduser()

    def prepared(self, part: Part) -> list[Prepared]:
        """Every volume that can be read, mapped, whatever part it is of; the part "train" says which others there are.

        Raises:
            ValueError: as `open`.
        """
        reading = Reading(self.folder, self.channels, self.frames, self.axes, self.spacing, self.nan)
        cache = (self.cache.expanduser() if self.cache else cache_folder()) / "volumes"
        found, skipped = prepare(reading, cache, self.bad_limit)
        if part == "train":
            chosen = self.folder == self.path.expanduser()  # else it is a package's, with whatever else is in it
            for said in filter(None, (reading.passed_over() if chosen else "", skipped)):
                print(said, file=sys.stderr)
        return found

    def open(self, part: Part) -> Samples:
        if self.crop is not None and self.buckets is not None:
            raise ValueError(f"data.buckets: got {self.buckets} beside crops, expected whole volumes: --data.crop None")
        found = self.prepared(part)
        grid = common(found, None if self.crop or self.buckets else "data.crop, data.buckets")
        kept, every = self._of_part(found, part), self._by_size(found)
        size = max(every, key=lambda size: len(every[size]))
        if self.crop is not None:
            self._check_room(kept, self.crop, part)
        grid |= placed(found, size, self.crop is None, grid["code"])
        side = side_of(found, [_region(one.size, self.held_out, "train") for one in found]) if self.symmetric else None
        view = replace(VolumeView(names=self.channels or None, side=side), **grid)
        places = tuple(f"{axis} in {view.length}" for axis in ("|x|" if self.symmetric else "x", "y", "z"))
        facts = Facts(found[0].shape[1], size, numbers={"place": places} if self.crop else {}, view=view)
        samples = together([VolumeSamples(some, replace(facts, size=size), self, part)
                            for size, some in self._by_size(kept).items()])  # fmt: skip
        if self.buckets is not None and part == "train":
            _tell_sizes(samples, kept, self.buckets)
        return samples

    def _by_size(self, volumes: Sequence[Prepared]) -> dict[Size, list[Prepared]]:
        """The volumes by the size of the samples that they become."""
        found = dict[Size, list[Prepared]]()
        for one in volumes:
            size = self.crop or (self.buckets.of(one.size) if self.buckets else one.size)
            found.setdefault(size, []).append(one)
        return found

    def _of_part(self, found: Sequence[Prepared], part: Part) -> Sequence[Prepared]:
        """The volumes of one part: all of them where the parts are slabs."""
        return found if isinstance(self.held_out, Slab) else self.held_out.kept(found, part)

    def _check_room(self, kept: Sequence[Prepared], crop: Size, part: Part) -> None:
        for one in kept:
            room = tuple(high - low for low, high in _region(one.size, self.held_out, part))
            if any(r < c for r, c in zip(room, crop, strict=True)):
                raise ValueError(
                    f"data.crop: got {crop}, expected at most {room}, which {one.name} has in the part {part}"
                )


@dataclass(frozen=True)
class VolumeSamples:
    """Whole volumes of one size, or crops at places that follow from the sample's id."""

    volumes: Sequence[Prepared]
    facts: Facts
    data: Volumes
    part: Part

    @property
    def crops(self) -> int:
        """Samples of each volume."""
        return self.data.crops if self.data.crop else 1

    def __len__(self) -> int:
        return sum(one.shape[0] for one in self.volumes) * self.crops

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        ends = np.cumsum([one.shape[0] for one in self.volumes])
        x, places = list[Any](), list[Any]()
        for number in ids.tolist():
            volume, crop = divmod(number, self.crops)
            which = int(np.searchsorted(ends, volume, side="right"))
            one = self.volumes[which]
            array = mapped(one.file)[volume - int(ends[which])]
            start = self._start(array, volume, crop) if self.data.crop else (0, 0, 0)
            x.append(_part(array, start, self.facts.size) if self.data.buckets is None else self._filled(array))
            middle = [a + (n - 1) / 2 for a, n in zip(start, self.facts.size, strict=True)]
            x_mm, *rest = (one.affine @ [*middle, 1])[:3]
            places.append([abs(x_mm) if self.data.symmetric else x_mm, *rest])
        cond = {"place": torch.from_numpy(np.array(places, np.float32))} if self.data.crop else {}
        return Batch(torch.from_numpy(np.stack(x).astype(np.float32, copy=False)), cond, ids)

    def _filled(self, array: Shaped[np.ndarray, "c i j k"]) -> Shaped[np.ndarray, "c *size"]:
        """A whole volume, with what its bucket has after the end of its axes."""
        assert self.data.buckets is not None, "else sizes are as they are"
        beside = [(0, n - have) for n, have in zip(self.facts.size, array.shape[1:], strict=True)]
        return np.pad(array, [(0, 0), *beside], constant_values=self.data.buckets.fill)

    def _start(self, array: Shaped[np.ndarray, "c i j k"], volume: int, crop: int) -> tuple[int, ...]:
        """Where a crop begins: the first of some random places that is inside, else the one with most in it."""
        ends, inside = _region(array.shape[1:], self.data.held_out, self.part), self.data.inside
        drawn = Stream(0, f"crop {self.part}").uniform(crop, torch.tensor([volume]), (TRIES if inside else 1, 3))[0]
        best = (-1.0, (0, 0, 0))
        for u in drawn.tolist():
            room = [high - low - n for (low, high), n in zip(ends, self.facts.size, strict=True)]
            start = tuple(low + min(int(v * (r + 1)), r) for (low, _), v, r in zip(ends, u, room, strict=True))
            full = 1.0 if inside is None else float((_part(array, start, self.facts.size)[0] > inside.above).mean())
            best = max(best, (full, start))
            if inside is None or full >= inside.share:
                return start
        return best[1]


def _tell_sizes(samples: Samples, volumes: Sequence[Prepared], buckets: EachSize) -> None:
    """Say which sizes volumes have, and how much of a sample is none of them."""
    most = max(1 - prod(one.size) / prod(buckets.of(one.size)) for one in volumes)
    filled = f"; at most {most:.0%} of a sample is filled up with {buckets.fill:g}" if most else ""
    print(f"{len(samples)} volumes by size: {shares(samples)}{filled}.", file=sys.stderr)


def _region(size: Sequence[int], held_out: Whole | Slab, part: Part) -> Bounds:
    """What of a volume one part may see."""
    bounds = [(0, n) for n in size]
    if isinstance(held_out, Slab):
        n = size[held_out.axis]
        cut = round(n * (1 - held_out.share))
        bounds[held_out.axis] = (cut, n) if part == "held_out" else (0, cut)
    return bounds


def _part(
    array: Shaped[np.ndarray, "c *space"], start: Sequence[int], size: Sequence[int]
) -> Shaped[np.ndarray, "c *size"]:
    return array[(slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))]


@config
class MNI152(Volumes):
    """The brain of the MNI152 template (Fonov 2011) as nilearn ships it: T1, grey and white matter, values 0 to 255.

    Crops at 2 mm of its left half, of which `inside` says that they are of the brain; its right half is held out. The
    template is symmetric: held-out crops are mirror images of crops to train on, and none of them a copy;
    those at places that mirror each other are told the same.
    """

    channels: tuple[str, ...] = ("t1", "gm", "wm")
    crop: Size | None = (32, 32, 32)
    crops: int = 1024
    inside: Inside | None = Inside(above=10.0)
    spacing: tuple[float, float, float] | None = (2.0, 2.0, 2.0)
    held_out: Whole | Slab = Slab()
    symmetric: bool = True

    @property
    def folder(self) -> Path:
        found = find_spec("nilearn")
        if found is None or found.origin is None:
            raise ValueError("data: MNI152 needs nilearn, which is missing; pip install 'anydit[volumes]'")
        return Path(found.origin).parent / "datasets" / "data"

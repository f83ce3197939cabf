"""Slices of volumes as samples of two axes: what a scanner takes one by one, and what a network of images learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor

from anydit.config import config
from anydit.data.base import Data, Facts, Loaded, Part, Samples
from anydit.data.volumes.files import Prepared, common, mapped, placed
from anydit.data.volumes.view import VolumeView
from anydit.data.volumes.volumes import Inside, Volumes, Whole
from anydit.tensors import Batch, Stream


@config
class SliceView(VolumeView):
    """Slices `[b c *plane]` across one axis, `across`, of volumes: shown alone, written as NIfTI one voxel thick.

    `affine` and the rest are those of a volume of this one slice.
    """

    across: int = 2

    def __post_init__(self) -> None:
        check_across(self.across)

    def volume(self, x: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b c i j k"]:
        """Each slice as a volume one voxel thick."""
        return x.unsqueeze(self.across + 2)

    def planes(self, x: int, y: int, z: int) -> list[tuple[int, int]]:
        return [plane for plane in super().planes(x, y, z) if self.across not in plane]

    def picture(
        self, x: Float[Tensor, "b c h w"], captions: Sequence[str] = (), columns: int | None = None
    ) -> Image.Image:
        return super().picture(self.volume(x), captions, columns)

    def save(self, x: Float[Tensor, "c h w"], path: Path) -> Path:
        return super().save(self.volume(x[None])[0], path)

    def read(self, path: Path, shape: Sequence[int]) -> Loaded:
        """A NIfTI file, or a DICOM series, of one slice."""
        channels, *plane = shape
        x, view = super().read(path, (channels, *plane[: self.across], 1, *plane[self.across :]))
        return Loaded(x.squeeze(self.across + 1), view)


@config
class Bands:
    """Hold out every `every`-th band of `slices` slices: of few volumes, what lies between those to train on."""

    slices: int = 12
    every: int = 4

    def __post_init__(self) -> None:
        if self.slices < 1 or self.every < 2:
            raise ValueError(f"slices, every: got {self.slices}, {self.every}, expected from 1 and from 2 on")

    def part(self, k: int) -> Part:
        """Which part the slice of an index is of."""
        return "held_out" if k // self.slices % self.every == self.every - 1 else "train"

    def middle(self, k: int) -> bool:
        """Whether a slice is in the middle half of its band, where its neighbours are in the same part."""
        at = k % self.slices
        return self.slices <= 4 * at + 2 <= 3 * self.slices


@config
class Moved:
    """Take `copies` of each slice to train on, each turned, stretched, sheared and shifted by chance.

    `by`: how far the entries of the matrix that does so are from those of the identity, at most; `shift`: of the size.
    `mirrored`: the axis of a slice along which half of the copies are reversed, as from left to right.
    """

    copies: int = 64
    by: float = 0.1
    shift: float = 0.04
    mirrored: int | None = None

    def __post_init__(self) -> None:
        if self.copies < 1 or not 0 <= self.by < 0.5 or not 0 <= self.shift < 0.5:
            raise ValueError(f"copies, by, shift: got {self}, expected from 1 on, and two numbers from 0 to below 0.5")
        if self.mirrored not in (None, 0, 1):
            raise ValueError(f"mirrored: got {self.mirrored}, expected an axis of a slice, 0 or 1, or None")

    def __call__(self, x: Float[Tensor, "b c h w"], ids: Int[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Slices moved as copies `ids` of them are; values stay within the range of each."""
        by = self.by * (2 * Stream(0, "moved").uniform(0, ids, (2, 2)) - 1)
        shift = 2 * self.shift * (2 * Stream(0, "shifted").uniform(0, ids, (2, 1)) - 1)
        high, wide = x.shape[2:]
        square = torch.tensor([[1.0, high / wide], [wide / high, 1.0]])  # of both axes in the same unit
        theta = torch.cat([torch.eye(2) + by * square, shift], dim=2)
        if self.mirrored is not None:
            signs = torch.ones(len(x), 2)
            signs[:, 1 - self.mirrored] = 1 - 2 * (Stream(0, "mirrored").uniform(0, ids) < 0.5).float()
            theta = signs[:, :, None] * theta  # grid_sample counts axes from the last
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        out = F.grid_sample(x, grid, "bicubic", "border", align_corners=False)
        low, top = (edge(x.flatten(1), 1)[:, None, None, None] for edge in (torch.amin, torch.amax))
        return out.clamp(low, top)


@config
class Slices(Data):
    """Slices across axis `across` of `volumes`, which say how files are read and what axes and spacing they come to.

    `size`: voxels of a slice about the middle of its volume's, beyond which values are `air` (None: slices as they are,
    all alike). `inside`: slices of which less than that is there are left out. `held_out`: bands of each volume, or
    whole volumes. `moved`: copies of those to train on that differ a little, where volumes are few.
    """

    volumes: Volumes = Volumes()
    across: int = 2
    size: tuple[int, int] | None = None
    air: float = 0.0
    inside: Inside | None = None
    held_out: Whole | Bands = Whole()
    moved: Moved | None = None

    def __post_init__(self) -> None:
        check_across(self.across)
        if min(self.size or (1,)) < 1:
            raise ValueError(f"size: got {self.size}, expected at least 1 voxel")
        if self.volumes.crop is not None or self.volumes.inside is not None:
            raise ValueError("volumes.crop, volumes.inside: got a crop, expected None: slices are of whole volumes")
        if self.volumes.buckets is not None:
            raise ValueError("volumes.buckets: got some, expected None: data.size says what becomes of different sizes")

    def open(self, part: Part) -> Samples:
        found = self.volumes.prepared(part)
        grid = common(found, None if self.size else "data.size")
        kept = self.held_out.kept(found, part) if isinstance(self.held_out, Whole) else found
        places = [place for which, one in enumerate(kept) for place in self._of(which, one, part)]
        if not places:
            raise ValueError(f"data: got no slice for the part {part} by {self.held_out} and {self.inside}")
        size = self.size or plane_of(found[0].size, self.across)
        thin = [*size[: self.across], 1, *size[self.across :]]
        grid |= placed(found, (thin[0], thin[1], thin[2]), whole=False, code=grid["code"])
        view = SliceView(names=self.volumes.channels or None, across=self.across, **grid)
        moved = self.moved if part == "train" else None
        return SliceSamples(kept, places, Facts(found[0].shape[1], size, view=view), self, moved)

    def _of(self, which: int, one: Prepared, part: Part) -> list[tuple[int, int, int]]:
        """The slices of a file that are of a part: number of the file, of the volume in it, of the slice."""
        places = list[tuple[int, int, int]]()
        for row, array in enumerate(mapped(one.file)):
            for k in range(one.size[self.across]):
                of_part = isinstance(self.held_out, Whole) or self.held_out.part(k) == part
                if of_part and self._full(array[0].take(k, self.across)):
                    places.append((which, row, k))
        return places

    def _full(self, values: Shaped[np.ndarray, "h w"]) -> bool:
        return self.inside is None or float((values > self.inside.above).mean()) >= self.inside.share


@dataclass(frozen=True)
class SliceSamples:
    """Slices, by number of the file, of the volume in it and of the slice."""

    volumes: Sequence[Prepared]
    places: Sequence[tuple[int, int, int]]
    facts: Facts
    data: Slices
    moved: Moved | None = None

    def __len__(self) -> int:
        return len(self.places) * (self.moved.copies if self.moved else 1)

    def read(self, ids: Int[Tensor, " b"]) -> Batch:
        planes = list[np.ndarray]()
        for which, row, k in (self.places[i % len(self.places)] for i in ids.tolist()):
            plane = mapped(self.volumes[which].file)[row].take(k, self.data.across + 1)
            planes.append(centered(plane, self.facts.size, self.data.air))
        x = torch.from_numpy(np.stack(planes).astype(np.float32, copy=False))
        return Batch(x if self.moved is None else self.moved(x, ids), {}, ids)


def check_across(across: int) -> None:
    """Refuse an axis that volumes have not."""
    if across not in (0, 1, 2):
        raise ValueError(f"across: got {across}, expected 0, 1 or 2")


def plane_of(size: Sequence[int], across: int) -> tuple[int, int]:
    """The size of a slice across an axis of a volume."""
    high, wide = (n for axis, n in enumerate(size) if axis != across)
    return high, wide


def centered(x: Shaped[np.ndarray, "c *space"], size: Sequence[int], air: float) -> Shaped[np.ndarray, "c *size"]:
    """As much of `x` about its middle as `size` holds; `air` where it holds more. It is its own inverse inside."""
    out = np.full((len(x), *size), air, x.dtype)
    here, there = list[slice](), list[slice]()
    for n, m in zip(x.shape[1:], size, strict=True):
        length = min(n, m)
        here.append(slice(start := (n + 1) // 2 - (length + 1) // 2, start + length))
        there.append(slice(start := (m + 1) // 2 - (length + 1) // 2, start + length))
    out[(slice(None), *there)] = x[(slice(None), *here)]
    return out

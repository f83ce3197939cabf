"""Where the images of k-space lie, and how they come to a model's samples: turned, and at their spacing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from anydit.data.volumes.medical import axes_of, spacing_of
from anydit.data.volumes.view import SAME
from anydit.inverse.scan.grid import Grid

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """From indices along h, w and slices, or d, h and w, to places in mm, which run to the right, front and top.

    `code`: as NIfTI numbers it; 0 says that nothing is known of the places but the spacing.
    """

    affine: Float[np.ndarray, "4 4"]
    code: int = 0

    @classmethod
    def spaced(cls, spacing: Sequence[float]) -> "Place":
        """One of which nothing else is known."""
        return cls(np.diag([*spacing, 1.0]))

    @property
    def spacing(self) -> tuple[float, ...]:
        """From voxel to voxel along each axis, in mm."""
        return spacing_of(self.affine)

    def narrowed(self, before: Sequence[int], after: Sequence[int]) -> "Place":
        """That of the middle of images of a size, or of more than them."""
        return self._about_middle(before, after, [1.0] * len(before))

    def respaced(self, before: Sequence[int], after: Sequence[int]) -> "Place":
        """That of images that show the same in more or fewer voxels."""
        return self._about_middle(before, after, [n / m for n, m in zip(before, after, strict=True)])

    def from_slice(self, first: int) -> "Place":
        """Without the slices before."""
        return self._moved(first * self.affine[:3, 2], [1.0])

    def _about_middle(self, before: Sequence[int], after: Sequence[int], factors: Sequence[float]) -> "Place":
        """Frequency 0 is that of the middle of a Fourier transform, which stays in its place."""
        if self.code == 0:
            return self._moved(np.zeros(3), factors)
        steps = np.array([n // 2 - f * (m // 2) for n, m, f in zip(before, after, factors, strict=True)])
        return self._moved(self.affine[:3, : len(steps)] @ steps, factors)

    def _moved(self, by: Float[np.ndarray, " 3"], factors: Sequence[float]) -> "Place":
        affine = self.affine.copy()
        affine[:3, 3] += by
        affine[:3, : len(factors)] *= factors
        return replace(self, affine=affine)


@dataclass(frozen=True)
class Turn:
    """From a model's samples to k-space's axes: axis i of k-space is `order[i]` of samples, `flipped` if it runs back.

    Where there are none, they are the same.
    """

    order: tuple[int, ...] = ()
    flipped: tuple[bool, ...] = ()

    @classmethod
    def of(cls, own: str, model: str) -> "Turn":
        """From where axes run to, as `axes_of` has it.

        Raises:
            ValueError: samples of the model lie across others than those that were measured.
        """
        mirror = dict(zip("LRPAIS", "RLAPSI", strict=True))
        order = tuple(model.find(one) if one in model else model.find(mirror[one]) for one in own)
        if min(order) < 0:
            raise ValueError(f"k-space: got axes to {own}, expected the model's plane, in which they run to {model}")
        return cls(order, tuple(one not in model for one in own))

    @property
    def nothing(self) -> bool:
        """Whether all stays as it is."""
        return self.order == tuple(range(len(self.order))) and not any(self.flipped)

    def own(self, of_samples: Sequence[T]) -> tuple[T, ...]:
        """What there is for each axis of samples, for each of k-space."""
        return tuple(of_samples[i] for i in self.order or range(len(of_samples)))

    def back(self, x: Shaped[Tensor, "b c *space"]) -> Shaped[Tensor, "b c *own"]:
        """Samples along k-space's axes."""
        return self._reversed(x.permute(0, 1, *(2 + i for i in self.order or range(x.ndim - 2))))

    def forth(self, x: Shaped[Tensor, "b c *own"]) -> Shaped[Tensor, "b c *space"]:
        """Images along the model's axes."""
        order = self.order or range(x.ndim - 2)
        return self._reversed(x).permute(0, 1, *(2 + list(order).index(i) for i in range(len(order))))

    def _reversed(self, x: Shaped[Tensor, "b c *own"]) -> Shaped[Tensor, "b c *own"]:
        return x.flip([2 + i for i, flip in enumerate(self.flipped) if flip])


@dataclass(frozen=True)
class Fit:
    """How k-space comes to samples: their `turn`, its `size` at their spacing, and sentences on what becomes of it."""

    turn: Turn
    size: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, grid: Grid, place: Place | None, size: tuple[int, ...]) -> "Fit":
        """Of k-space of a size, to a model whose samples lie on `grid`.

        Raises:
            ValueError: k-space is of another plane than the model's slices.
        """
        if grid.spacing is None:
            return cls(Turn(), size)
        wanted = tuple(mm for axis, mm in enumerate(grid.spacing) if axis != grid.across)
        if place is None:
            return cls(Turn(), size, (f"the file tells no spacing, which is taken for the model's, {_mm(wanted)}",))
        axes = "".join(to for axis, to in enumerate(grid.axes or "") if axis != grid.across)
        turn, note = _turn(place, axes, len(size)), list[str]()
        if axes and not place.code:
            note.append(f"the file does not tell where its axes run to, which is taken for the model's, {axes}")
        if not turn.nothing:
            note.append(f"its axes are turned to the model's, {axes}, and back")
        own, wanted = place.spacing[: len(size)], turn.own(wanted)
        count = tuple(n if abs(s / mm - 1) <= SAME else max(1, round(n * s / mm))
                      for n, s, mm in zip(size, own, wanted, strict=True))  # fmt: skip
        if count != size:
            there = _mm([n * s / m for n, m, s in zip(size, count, own, strict=True)])
            note.append(f"brought from {_mm(own)} to the model's {there}, by the middle of k-space or zeros about it")
        return cls(turn, count, tuple(note))


def _turn(place: Place, axes: str, count: int) -> Turn:
    return Turn.of(axes_of(place.affine)[:count], axes) if place.code and axes else Turn()


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{each:.3g}" for each in spacing) + " mm"

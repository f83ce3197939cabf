"""How the slices of a DICOM series lie on each other; checked to be those of one volume, all of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from anydit.data.outside import Unreadable
from anydit.data.volumes.frames import Slice

UNEVEN = 0.01
"""The part of their spacing by which slices may lie beside their places: positions in files are rounded."""


def orientation(slices: Sequence[Slice]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Where a slice's columns follow each other to, and its rows; checked to be the same for all of them."""
    first = slices[0]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        if without := [s for s in slices if s.get(name) is None]:
            count = f"{len(without)} of {len(slices)} slices"
            raise Unreadable(f"{count} without {name}, by which a slice has its place: {without[0].name}")
    for name in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        if any(not np.allclose(s.floats(name), first.floats(name), atol=1e-4) for s in slices):
            raise Unreadable(f"slices of different {name}, expected those of one volume")
    both = first.floats("ImageOrientationPatient")
    return both[:3], both[3:]


def step_of(slices: Sequence[Slice], normal: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """From one slice to the next."""
    if len(slices) == 1:
        thick = slices[0].get("SpacingBetweenSlices") or slices[0].get("SliceThickness")
        if not thick:
            raise Unreadable("a single slice without SliceThickness")
        return normal * float(thick)
    places = np.array([s.floats("ImagePositionPatient") for s in slices])
    heights = places @ normal
    gaps = np.diff(heights)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # one that there is, of two the smaller
    tolerance = max(UNEVEN * abs(usual), 0.01)
    if (gaps < tolerance).any():
        at = heights[int(np.argmin(gaps))]
        raise Unreadable(f"several slices at {at:.2f} mm, expected one at each place")
    if (np.abs(gaps - usual) > tolerance).any():
        i = int(np.argmax(np.abs(gaps - usual)))
        raise Unreadable(
            f"slices are missing: {gaps[i]:.2f} mm from {heights[i]:.2f} to {heights[i + 1]:.2f} mm, "
            f"but {usual:.2f} mm between others"
        )
    step = (places[-1] - places[0]) / (len(slices) - 1)
    _check_thinned(slices, float(step @ normal))
    return step


def _check_thinned(slices: Sequence[Slice], step_mm: float) -> None:
    """Refuse every second slice of a series, or every third: what is missing is even, but the files tell.

    They do where their spacing and their numbers both say so; either alone is used in other ways, too.
    """
    try:
        spacings = np.array([float(s.get("SpacingBetweenSlices")) for s in slices])
        numbers = np.array([float(s.get("InstanceNumber")) for s in slices])
    except (TypeError, ValueError):  # not in all of them
        return
    spacing_mm = abs(float(spacings[0]))
    if not (np.isfinite(spacings).all() and np.allclose(abs(spacings), spacing_mm) and spacing_mm > 0):
        return
    times = round(step_mm / spacing_mm)
    if times < 2 or abs(step_mm / spacing_mm - times) > UNEVEN * times:
        return
    if (np.diff(numbers) == times).all() or (np.diff(numbers) == -times).all():
        raise Unreadable(
            f"slices are missing: {step_mm:.2f} mm from one to the next, and {times} of InstanceNumber, but "
            f"SpacingBetweenSlices is {spacing_mm:.2f} mm"
        )
